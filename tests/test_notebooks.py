"""The notebooks are the source: clean, exported, laid out alike."""
import ast
import filecmp
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))
MODULES = sorted(p for p in (ROOT/"livestock_nb").glob("*.py") if not p.stem.startswith("_"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A copy of the project in which the notebooks have been cleaned and exported."
    there = tmp_path_factory.mktemp("copy")
    for name in ("nbs", "livestock_nb"): shutil.copytree(ROOT/name, there/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml"): shutil.copy(ROOT/name, there)
    subprocess.run(["git", "init", "-q"], cwd=there, check=True)
    for tool in ("nbdev-clean", "nbdev-export"): subprocess.run([str(Path(sys.executable).with_name(tool))], cwd=there, check=True)
    return there


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_clean(path: Path, copy: Path):
    assert filecmp.cmp(path, copy/"nbs"/path.name, shallow=False), "run nbdev-clean"


def test_the_package_is_what_the_notebooks_export(copy: Path):
    names = {p.name for p in (*(ROOT/"livestock_nb").glob("*.py"), *(copy/"livestock_nb").glob("*.py"))}
    _, differ, missing = filecmp.cmpfiles(ROOT/"livestock_nb", copy/"livestock_nb", names, shallow=False)
    assert not differ + missing, "run nbdev-export"
    exported = {re.search(r"default_exp (\w+)", str([c.source for c in nbformat.read(p, 4).cells]))[1] for p in NOTEBOOKS}
    assert exported == {p.stem for p in MODULES}  # a renamed notebook leaves its old module behind


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_reads_as_the_others_do(path: Path):
    cells = nbformat.read(path, 4).cells
    assert re.match(r"# .+\n\n> .+", cells[0].source), "a title and a subtitle come first"
    for c in cells:
        long = "#| export" in c.source and re.search("^(def|class) ", c.source, re.M) and c.source.count("\n") > 31
        assert not long, f"an exported cell of over 30 lines:\n{c.source[:200]}"
        assert not any(o.output_type == "error" for o in c.get("outputs", []))
        odd = [line for line in c.source.splitlines() if "parameters" in c.metadata.get("tags", []) and line.count("=") > 1]
        assert not odd, f"papermill cannot parse a parameter with two equals signs: {odd}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_what_is_public_is_typed_and_documented(path: Path):
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    for f in functions:
        assert ast.get_docstring(f), f"{f.name} has no docstring"
        assert f.end_lineno - f.lineno < 31, f"{f.name} has over 30 lines"
        untyped = [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.annotation is None]
        assert not untyped, f"{f.name}: {untyped} have no type"
