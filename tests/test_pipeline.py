"""The runner on small notebooks of its own: what runs again and when, what is refused, what a kill leaves."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from livestock_nb import pipeline
from livestock_nb.cli import main
from livestock_nb.data import InputError
from livestock_nb.pipeline import code_used, make_plan, open_stage, packaged, run_config, status

SOURCE = """source: Path = ''  # a folder
out: Path = ''  # where to write
factor: int = 1  # a number
"""
BODY = """from pathlib import Path
out = Path(out); out.mkdir(parents=True, exist_ok=True)
text = ''.join(p.read_text() for p in sorted(Path(source).rglob('*.txt'))) * factor
(out/'made.txt').write_text(text)
with open(out.parent/'log', 'a') as f: f.write(out.name + ' ')
"""


def notebook(path: Path, body: str = BODY) -> None:
    "A stage notebook with a parameters cell and a body that logs each time it runs."
    cells = [nbformat.v4.new_markdown_cell("# A stage\n\n> that joins text"), nbformat.v4.new_code_cell("from pathlib import Path"),
             nbformat.v4.new_code_cell(SOURCE, metadata=dict(tags=["parameters"])), nbformat.v4.new_markdown_cell("## Run the stage"),
             nbformat.v4.new_code_cell(body)]
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=meta), path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    "A config of three stages, a -> b and a -> c, that reads data/ beside it."
    (tmp_path/"data").mkdir()
    (tmp_path/"data"/"x.txt").write_text("x")
    for name in "abc": notebook(tmp_path/f"0_{name}.ipynb")
    cfg = dict(vars=dict(data="data", factor=1), deliver="$c/made.txt", stages=[
        dict(notebook="0_a", params=dict(source="$data", factor="$factor")), dict(notebook="0_b", params=dict(source="$a")),
        dict(notebook="0_c", params=dict(source="$a"))])
    (tmp_path/"my.yaml").write_text(yaml.safe_dump(cfg))
    return tmp_path


def ran(project: Path, **kw) -> str:
    "Run the config and say which stages ran."
    log = project/"run"/"log"
    log.unlink(missing_ok=True)
    run_config(project/"my.yaml", project/"run", **kw)
    return log.read_text().strip() if log.exists() else ""


def test_a_stage_runs_again_exactly_when_something_of_it_changed(project: Path):
    assert ran(project) == "a b c"
    assert ran(project) == ""
    assert (project/"run"/"made.txt").read_text() == "x"
    assert ran(project, params={"b.factor": "2"}) == "b"
    assert ran(project) == "b"  # back to what the yaml says
    (project/"data"/"x.txt").write_text("y")  # one byte of an input
    assert ran(project) == "a b c"
    notebook(project/"0_c.ipynb", BODY + "1 + 1\n")  # one line of code
    assert ran(project) == "c"
    (project/"run"/"b"/"made.txt").write_text("broken")  # an output that is no longer what was made
    assert ran(project) == "b"
    assert ran(project, force=["a"]) == "a"  # the same bytes came out: nothing that reads them has to run
    assert ran(project, until="a", given=dict(factor="3")) == "a"
    assert ran(project, given=dict(factor="3")) == "b c"
    assert status(project/"my.yaml", project/"run").state.tolist() == ["outdated"] * 3
    assert status(project/"my.yaml", project/"new").state.tolist() == ["to do"] * 3
    assert status(project/"my.yaml", project/"run", given=dict(factor="3")).state.tolist() == ["done"] * 3
    assert "joins text" in (project/"run"/"report.html").read_text()


@pytest.mark.parametrize(("kw", "named"), [
    (dict(given=dict(facto="1")), "factor"), (dict(given=dict(factor="many")), "many"), (dict(params={"a.sorce": "1"}), "source"),
    (dict(params={"z.source": "1"}), "stage"), (dict(until="d"), "stage"), (dict(force=["aa"]), "a")])
def test_a_mistyped_name_is_refused_before_anything_runs(project: Path, kw: dict, named: str):
    with pytest.raises(InputError, match=named): ran(project, **kw)
    assert not (project/"run").exists()


def test_paths_resolve_against_whoever_wrote_them(project: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = project/"elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    stages, deliver = make_plan(project/"my.yaml", project/"run")
    assert stages[0]["params"]["source"] == str(project/"data") and deliver == str(project/"run"/"c"/"made.txt")
    assert make_plan(project/"my.yaml", project/"run", given=dict(data="mine"))[0][0]["params"]["source"] == str(elsewhere/"mine")
    assert make_plan(project/"my.yaml", project/"run", given=dict(data="$a"))[0][0]["params"]["source"] == str(elsewhere/"$a")


def test_a_failing_stage_says_why_in_two_lines_and_keeps_its_notebook(project: Path, capsys: pytest.CaptureFixture):
    notebook(project/"0_b.ipynb", "from livestock_nb.data import InputError\nraise InputError('the barn is empty')")
    with pytest.raises(SystemExit) as e: main(["run", str(project/"my.yaml"), "--run", str(project/"run")])
    said = str(e.value)
    assert "Stage b failed: the barn is empty" in said and said.count("\n") == 1
    assert (project/"run"/"notebooks"/"b.ipynb").exists()
    notebook(project/"0_b.ipynb")
    assert ran(project) == "b c"  # a had finished


def test_a_killed_run_goes_on_where_it_was(project: Path):
    notebook(project/"0_b.ipynb", "import time\ntime.sleep(1.5)\n" + BODY)
    command = [sys.executable, "-c", "from livestock_nb.cli import main; main()", "run", str(project/"my.yaml"), "--run", str(project/"run")]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    record = project/"run"/"records"/"b.json"
    while not record.exists(): time.sleep(.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert ran(project) == "b c"


def test_two_runs_in_one_folder_are_refused(project: Path):
    from livestock_nb.pipeline import locked
    with locked((project/"run").resolve()), pytest.raises(InputError, match="Another run"): ran(project)


def test_a_run_folder_that_cannot_be_made_is_named(project: Path):
    (project/"file").write_text("")
    with pytest.raises(InputError, match="file/run"): run_config(project/"my.yaml", project/"file"/"run")


def test_code_is_followed_by_name():
    used = code_used(packaged("notebooks", "05_mini.ipynb"))
    assert "split.write_lists" in used and "data.save_text" in used  # what write_lists calls
    assert not any(name.startswith(("pipeline", "farm")) or name == "split.assign_folds" for name in used)


def test_runs_may_be_a_link_to_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    "What a stage writes and what it reads are then named alike, so that paths from one to the other hold."
    for folder in ("project/nbs", "disk/test/split"): (tmp_path/folder).mkdir(parents=True)
    (tmp_path/"project"/"settings.ini").touch()
    (tmp_path/"project"/"runs").symlink_to(tmp_path/"disk")
    monkeypatch.chdir(tmp_path/"project"/"nbs")
    assert open_stage("runs/test/mini", "runs/test/split") == (tmp_path/"disk"/"test"/"mini", tmp_path/"disk"/"test"/"split")
    made = []
    monkeypatch.setattr(pipeline, "make_inputs", lambda stage, run: made.append((stage, run)))
    with pytest.raises(InputError, match="is missing"): open_stage("runs/test/mini", "runs/test/intake")
    assert made == [("intake", tmp_path/"disk"/"test")]
