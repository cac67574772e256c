"""What the commands print, and how they end."""
import json
from pathlib import Path

import pandas as pd
import pytest

from livestock_nb.cli import main


@pytest.fixture
def files(tmp_path: Path) -> Path:
    "An answer of 40 images with a pig each, a submission that is right everywhere, and one that misses every second pig."
    ids = [f"livestock_pig_bbox_{i:06d}" for i in range(40)]
    answer = pd.DataFrame(dict(ImageID=ids, LabelName="pig", XMin=.1, XMax=.3, YMin=.2, YMax=.6))
    answer.to_csv(tmp_path/"answer.csv", index=False)
    px = pd.DataFrame(dict(ImageID=ids, LabelName="pig", Conf=.9, XMin=128, XMax=384, YMin=192, YMax=576))
    px.to_csv(tmp_path/"all.csv", index=False)
    px[::2].to_csv(tmp_path/"half.csv", index=False)
    return tmp_path


def test_compare_says_the_difference_and_what_could_have_been_seen(files: Path, capsys: pytest.CaptureFixture):
    command = ["compare", "--answer", str(files/"answer.csv"), str(files/"half.csv"), str(files/"all.csv"), "--definition", "coco"]
    main([*command, "--json", "--plot", str(files/"both.png")])
    said = json.loads(capsys.readouterr().out)
    mean = next(c for c in said["classes"] if c["label"] == "mean")
    assert said["definition"] == "coco" and mean["second"] == 1 and mean["first"] == pytest.approx(51/101)
    assert mean["difference"] == pytest.approx(50/101) and 0 < mean["low"] < mean["difference"] < mean["high"] and mean["shown"] is True
    assert (files/"both.png").stat().st_size > 5000
    main(command)
    assert "difference" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "run", "status", "report", "check", "score", "compare", "grid", "infer"])
def test_help_is_there(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as e: main([*command.split(), "--help"])
    assert e.value.code == 0 and "usage: livestock" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said"), [
    (["compare", "--answer", "no.csv", "a.csv", "b.csv"], "no.csv"), (["run", "demo", "-v", "epochs"], "NAME=VALUE"),
    (["grid", "demo", "-g", "epohcs=1,2"], "epochs"), (["run", "nothing.yaml"], "nothing.yaml")])
def test_a_wrong_input_is_a_line_and_exit_1(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e: main(words)
    assert said in str(e.value) and str(e.value).startswith("livestock: ") and str(e.value).count("\n") <= 1
    assert not list(tmp_path.iterdir())


def test_check_says_what_is_wrong_and_exits_with_1_where_zips_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture):
    from livestock_nb.farm import make_farm
    make_farm(tmp_path/"farm", tmp_path/"truth.parquet", 12, 4, .2, 0)
    main(["check", str(tmp_path/"farm"/"train")])
    said = capsys.readouterr().out
    assert "pig" in said and "truncated" in said
    broken = next(p for p in (tmp_path/"farm"/"train").iterdir() if p.name.startswith("[원천]소"))
    broken.write_bytes(broken.read_bytes()[:-2000])
    with pytest.raises(SystemExit) as e: main(["check", str(tmp_path/"farm"/"train")])
    assert "[원천]소_bbox.zip" in str(e.value)


def test_infer_predicts_the_wanted_images_with_two_detectors(tmp_path: Path, capsys: pytest.CaptureFixture):
    import cv2
    import numpy as np

    from livestock_nb.score import read_submission
    from livestock_nb.train import quiet_ultralytics
    quiet_ultralytics()
    from ultralytics import YOLO
    (tmp_path/"frames").mkdir()
    for name in "abc": cv2.imwrite(str(tmp_path/"frames"/f"{name}.jpg"), np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8))
    model = YOLO("yolov5n.yaml")
    model.model.names = {0: "cow", 1: "pig"}
    model.save(str(tmp_path/"w.pt"))
    (tmp_path/"list.txt").write_text("a.jpg\nz.jpg\n")
    weights = [str(tmp_path/"w.pt")]*2
    main(["infer", "--weights", *weights, "--images", str(tmp_path/"frames"), "--out", str(tmp_path/"s.csv"), "--imgsz", "64", "--backend", "torch",
          "--wanted", str(tmp_path/"list.txt"), "--kind", "fusion"])
    said = capsys.readouterr()
    assert "1 images, torch" in said.out and "z.jpg is wanted" in said.err and set(read_submission(tmp_path/"s.csv").ImageID) <= {"a"}
