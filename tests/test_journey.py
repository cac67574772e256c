"""The whole journey on 24 made-up frames, as `livestock run test` leaves it, and what a user's mistakes lead to."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from livestock_nb.cli import main
from livestock_nb.data import load_table
from livestock_nb.pipeline import run_config, status

ROOT = Path(__file__).parents[1]
RUN = ROOT/"runs"/"test"
STAGES = ["farm", "intake", "eda", "split", "mini", "tune", "train", "errors", "suspects", "review", "silver", "trial", "sweep", "infer", "edge"]


@pytest.fixture(scope="module")
def run() -> Path:
    "The run folder of configs/test.yaml; run now where `make test` has not."
    return run_config(ROOT/"configs"/"test.yaml", RUN)


def said(capsys: pytest.CaptureFixture, *words: str) -> str:
    "What the command prints."
    main([str(w) for w in words])
    return capsys.readouterr().out


def test_every_stage_is_done_and_cached(run: Path):
    table = status(ROOT/"configs"/"test.yaml", run)
    assert table.stage.tolist() == STAGES and set(table.state) == {"done"}


def test_the_run_folder_has_what_people_look_for(run: Path):
    rows = pd.read_csv(run/"submission.csv")
    assert rows.columns.tolist() == ["ImageID", "LabelName", "Conf", "XMin", "XMax", "YMin", "YMax"]
    assert rows.Conf.is_monotonic_decreasing
    html = (run/"report.html").read_text()
    assert html.count("<img") >= len(STAGES) and "<details" in html
    record = json.loads((run/"record.json").read_text())
    assert record["versions"]["torch"] and [s["name"] for s in record["stages"]] == STAGES
    assert (run/"train"/"best.pt").stat().st_size <= 100_000_000


def test_gold_stays_and_no_image_is_there_twice(run: Path):
    gold, both = load_table(run/"intake"/"boxes.parquet"), load_table(run/"silver"/"boxes.parquet")
    assert len(both[both.source == "gold"]) == len(gold)
    assert load_table(run/"silver"/"images.parquet").image.is_unique


def test_data_faults_are_problems_and_the_rest_goes_on(run: Path):
    assert "truncated" in set(load_table(run/"intake"/"problems.parquet").kind)
    assert len(load_table(run/"intake"/"images.parquet")) == 24


def test_nothing_reads_the_truth(run: Path):
    (run/"truth.parquet").rename(run/"truth.away")
    try: assert set(status(ROOT/"configs"/"test.yaml", run).state) == {"done"}
    finally: (run/"truth.away").rename(run/"truth.parquet")


def test_the_answer_against_itself_is_perfect(run: Path, capsys: pytest.CaptureFixture):
    answer = run/"farm"/"test"/"answer.csv"
    for definition in ("challenge", "coco"):
        out = json.loads(said(capsys, "score", "--answer", answer, "--submission", answer, "--definition", definition, "--json"))
        assert out["classes"][-1]["label"] == "mean" and out["classes"][-1]["ap"] == 1.


def test_the_score_of_the_submission_is_the_stage_s(run: Path, capsys: pytest.CaptureFixture):
    scores = pd.read_csv(run/"infer"/"scores.csv")
    for definition, rows in scores.groupby("definition"):
        files = ["--answer", run/"farm"/"test"/"answer.csv", "--submission", run/"submission.csv"]
        out = said(capsys, "score", *files, "--definition", definition, "--json")
        assert json.loads(out)["classes"][-1]["ap"] == pytest.approx(rows.ap.iloc[-1], abs=1e-9)


@pytest.fixture(scope="module")
def zips(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A copy of the training zips, to be damaged."
    return Path(shutil.copytree(run/"farm"/"train", tmp_path_factory.mktemp("zips")/"train"))


def fails(*words: str) -> str:
    "What the command says as it exits with an error."
    done = subprocess.run([sys.executable, "-c", "from livestock_nb.cli import main; main()", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr[done.stderr.index("livestock: "):]


def test_a_folder_without_zips_is_named(tmp_path: Path):
    (tmp_path/"empty").mkdir()
    text = fails("run", "quick", "--run", tmp_path/"run", "-v", f"zips={tmp_path/'empty'}", "-v", "weights=yolov5n.yaml")
    assert "empty" in text and text.count("\n") <= 3


def test_half_a_zip_is_named(zips: Path, tmp_path: Path):
    bad = shutil.copytree(zips, tmp_path/"train")
    half = next(p for p in bad.iterdir() if "소" in p.name and "원천" in p.name)
    half.write_bytes(half.read_bytes()[:half.stat().st_size//2])
    assert "소" in fails("run", "quick", "--run", tmp_path/"run", "-v", f"zips={bad}", "-v", "weights=yolov5n.yaml")


def test_weights_that_do_not_exist_are_named(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path/"run")  # a copied run folder is as good as the original: its stages stay done
    text = fails("run", "test", "--run", copy, "-v", f"weights={tmp_path/'no.pt'}", "--until", "tune")
    assert "no.pt" in text and text.count("\n") <= 3
    assert status("test", copy).state.tolist()[:5] == ["done"]*5


def test_a_folder_that_cannot_be_written_is_named():
    assert "/proc/no" in fails("run", "test", "--run", "/proc/no")
