"""Grids on small notebooks: what is shared, what a failure costs, what the table says."""
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from livestock_nb.cli import main
from livestock_nb.data import InputError
from livestock_nb.grid import cross, join_plans, read_experiment, run_grid
from livestock_nb.pipeline import make_plan

PARAMETERS = """source: Path = ''  # a folder
out: Path = ''  # where to write
answer: Path = ''  # answer csv
width: int = 10  # of the box, px
"""
BODY = """from pathlib import Path
import pandas as pd
out = Path(out); out.mkdir(parents=True, exist_ok=True)
before = sum(int(p.read_text()) for p in sorted(Path(source).rglob('*.txt'))) if source else 0
if width > 1000: raise ValueError('wider than the barn')
(out/'made.txt').write_text(str(before + width))
row = dict(ImageID='a', LabelName='pig', Conf=.9, XMin=100, XMax=200 + 10*before + width, YMin=100, YMax=300)
pd.DataFrame([row]).to_csv(out/'submission.csv', index=False)
with open(out.parent/'log', 'a') as f: f.write(out.name.split('-')[0] + ' ')
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    "A config of three stages, a -> b -> c, whose last writes a submission, and an answer that a width of 0 in all meets exactly."
    for name in "abc":
        cells = [nbformat.v4.new_markdown_cell("# A stage\n\n> that adds"), nbformat.v4.new_code_cell("from pathlib import Path"),
                 nbformat.v4.new_code_cell(PARAMETERS, metadata=dict(tags=["parameters"])), nbformat.v4.new_code_cell(BODY)]
        meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=meta), tmp_path/f"0_{name}.ipynb")
    edges = dict(XMin=100/1280, XMax=200/1280, YMin=100/960, YMax=300/960)
    pd.DataFrame([dict(ImageID="a", LabelName="pig", **edges)]).to_csv(tmp_path/"answer.csv", index=False)
    cfg = dict(vars=dict(width=0), deliver="$c/submission.csv", stages=[
        dict(notebook="0_a", params=dict(width="$width")), dict(notebook="0_b", params=dict(source="$a", width="$width")),
        dict(notebook="0_c", params=dict(source="$b", width="$width", answer="answer.csv"))])
    (tmp_path/"my.yaml").write_text(yaml.safe_dump(cfg))
    return tmp_path


def ran(project: Path, experiment: str = "my.yaml", **kw) -> tuple[str, pd.DataFrame]:
    "Run the grid and say which stages ran."
    log = project/"grid"/"log"
    log.unlink(missing_ok=True)
    table = run_grid(project/experiment, project/"grid", **kw)
    return log.read_text().strip() if log.exists() else "", table


def test_what_variants_have_in_common_is_done_once(project: Path):
    log, table = ran(project, axes={"c.width": ["0", "300"], "b.width": ["0", "1"]})
    assert log == "a b c b c c c"  # one a, two b, four c
    assert table.variant.tolist() == [f"c.width={c}, b.width={b}" for c in (0, 300) for b in (0, 1)]
    assert table.score.tolist() == [1, 1, 0, 0] and table.difference.tolist()[1:] == [0, -1, -1]
    assert (project/"grid"/"grid.png").exists() and len(pd.read_csv(project/"grid"/"grid.csv")) == 4
    assert ran(project, axes={"c.width": ["0", "300"], "b.width": ["0", "1"]})[0] == ""
    assert ran(project, axes={"c.width": ["0", "300"], "b.width": ["0", "1", "2"]})[0] == "b c c"  # what is added later disturbs nothing


def test_a_failed_stage_costs_only_its_own_variants(project: Path, capsys: pytest.CaptureFixture):
    log, table = ran(project, axes={"b.width": ["0", "2000", "300"]})
    assert log == "a b c b c"
    assert table.failed.str.contains("wider than the barn").tolist() == [False, True, False] and table.score.isna().tolist() == [False, True, False]
    with pytest.raises(SystemExit) as e: main(["grid", str(project/"my.yaml"), "--run", str(project/"grid"), "-g", "b.width=0,2000"])
    assert "1 of 2" in str(e.value) and "b.width=2000" in capsys.readouterr().out


def test_experiment_files(project: Path):
    (project/"exp.yaml").write_text("config: my.yaml\nset: {width: 0}\nvariants:\n  as it was:\n  wide: {c.width: 300}\n  on a: {c.source: $a}\n")
    log, table = ran(project, "exp.yaml")
    assert log == "a b c c c" and table.variant.tolist() == ["as it was", "wide", "on a"] and table.score.tolist() == [1, 0, 1]
    (project/"exp.yaml").write_text("config: my.yaml\ngrid: {width: [0, 1]}\nvariants: {}\n")
    with pytest.raises(InputError, match="both a grid and variants"): read_experiment(project/"exp.yaml")
    (project/"exp.yaml").write_text("config: my.yaml\ngird: {width: [0, 1]}\n")
    with pytest.raises(InputError, match="grid"): read_experiment(project/"exp.yaml")
    (project/"exp.yaml").write_text("config: my.yaml\nset: {widht: 1}\n")
    with pytest.raises(InputError, match="width"): read_experiment(project/"exp.yaml")


@pytest.mark.parametrize(("axes", "named"), [
    ({"widht": ["1"]}, "width"), ({"c.widht": ["1"]}, "width"), ({"c.width": ["wide"]}, "wide"), ({"width": []}, "width")])
def test_a_mistyped_axis_is_refused_before_anything_runs(project: Path, axes: dict, named: str):
    with pytest.raises(InputError, match=named): ran(project, axes=axes)
    assert not (project/"grid").exists()


def test_every_value_meets_every_other():
    assert list(cross({"a": [1, 2], "b": [3, 4]}).values()) == [dict(a=1, b=3), dict(a=1, b=4), dict(a=2, b=3), dict(a=2, b=4)]
    assert cross({}) == {"": {}}


def test_the_rows_of_techniques_name_what_runs_them():
    with pytest.raises(InputError, match="^techniques has rows, not stages: run `python benchmarks/techniques.py`, with --grid FILE"):
        read_experiment("techniques")


@pytest.mark.parametrize("name", ["models", "optimizers", "sgd_or_adamw", "hyp", "silver", "train_and_valid", "pigs_from_scratch", "small_boxes"])
def test_packaged_experiments_make_plans(name: str, tmp_path: Path):
    plans = {variant: make_plan(cfg, tmp_path) for variant, cfg in read_experiment(name).items()}
    stages, variants = join_plans(plans, tmp_path)
    assert len(variants) >= 2 and variants.delivered.nunique() == len(variants)
    assert len(stages) < sum(len(s) for s in variants.stages)  # something is shared
