# On a fresh clone `make demo` and `make test` do all set-up first.
PY ?= python3
BIN := .venv/bin
LIVESTOCK := $(BIN)/livestock
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test setup notebooks docs
.DELETE_ON_ERROR:

demo: setup
	$(LIVESTOCK) run configs/demo.yaml --run runs/demo
	@echo "Look at runs/demo/report.html and runs/demo/submission.csv"

# the test run executes every stage notebook; the chapters that are no stage are executed by nbdev
test: setup
	$(BIN)/ruff check .
	$(LIVESTOCK) run configs/test.yaml --run runs/test
	$(BIN)/nbdev-test --n-workers 2 --file-re '^(00|02b|03a|03b|04a|06|07a|07b|07c|07d|07e|08a|09a|09b|09c|09d|10b|11a|12a|13a|13b|13c|13d|14|14a|14b|14c|14d|14e|15)_'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

setup: .venv/ready

.venv/ready: settings.ini setup.py constraints.txt
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/pip install -q -U setuptools wheel
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# for those who change a notebook: run all of them on the test run's folder, store what they show, export
notebooks: setup
	$(LIVESTOCK) run configs/test.yaml --run runs/test
	$(BIN)/python .ci/store_outputs.py
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export

# the site of all chapters, into runs/site
docs: setup
	$(BIN)/mkdocs build --strict
