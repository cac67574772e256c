"""The wheel, installed outside any checkout: the command runs its notebooks, and a service can predict in five lines."""
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIVE_LINES = """
from livestock_nb.infer import images_from, predict
images = images_from('frames')
boxes, problems = predict(images, 'best.pt', imgsz=64, device='cpu')
assert len(images) == 2 and problems.image.tolist() == ['bad.jpg'], (images, problems)
print(len(boxes), 'boxes')
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The wheel, built from a copy so that nothing is left in the checkout."
    source, out = tmp_path_factory.mktemp("source")/"project", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "data", "*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)], check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A fresh environment with the wheel; what it depends on is borrowed from this one, to save minutes and gigabytes."
    venv = tmp_path_factory.mktemp("clean")/"venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv/"bin"/"python"
    site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True)
    (Path(site.stdout.strip())/"borrowed.pth").write_text(sysconfig.get_path("purelib"))  # the editable install there is not followed
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    return python


def test_the_wheel_carries_notebooks_and_configs(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    configs = [f"configs/{name}.yaml" for name in ("demo", "full", "hyp/reference", "recipes/cosine")]
    for name in ("notebooks/14_pipeline.ipynb", *configs, "infer.py", "review.js", "review.css"):
        assert f"livestock_nb/{name}" in names


@pytest.fixture(scope="module")
def ran(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The run folder of `livestock run test --until train`, called from a folder that is no checkout."
    there = tmp_path_factory.mktemp("outside")
    env = os.environ | dict(JUPYTER_PATH=str(Path(sys.prefix)/"share"/"jupyter"))  # the borrowed packages' own data
    command = [python.with_name("livestock"), "run", "test", "--run", "here", "--until", "train"]
    said = subprocess.run(command, cwd=there, capture_output=True, text=True, env=env)
    assert said.returncode == 0, said.stderr
    return there/"here"


def test_the_command_runs_outside_a_checkout(python: Path, ran: Path, tmp_path: Path):
    assert (ran/"train"/"best.pt").exists() and (ran/"report.html").exists()
    where = subprocess.run([python, "-c", "import livestock_nb; print(livestock_nb.__file__)"], cwd=tmp_path, capture_output=True, text=True)
    assert str(ROOT) not in where.stdout


def test_a_service_predicts_in_five_lines(python: Path, ran: Path, tmp_path: Path):
    import cv2
    import numpy as np
    shutil.copy(ran/"train"/"best.pt", tmp_path)
    (tmp_path/"frames").mkdir()
    cv2.imwrite(str(tmp_path/"frames"/"good.jpg"), np.full((60, 80, 3), 90, np.uint8))
    (tmp_path/"frames"/"bad.jpg").write_bytes(b"no image")
    said = subprocess.run([python, "-c", FIVE_LINES], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "boxes" in said.stdout
