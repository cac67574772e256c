# On a fresh clone `make demo` and `make test` do all set-up first.
PY ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test setup notebooks
.DELETE_ON_ERROR:

setup: .venv/ready

.venv/ready: settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/pip install -q -U setuptools wheel
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@
