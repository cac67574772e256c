"""Folds, datasets on disk, and the mini part."""
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from livestock_nb.data import InputError, box_table, image_table
from livestock_nb.mini import take_share
from livestock_nb.split import assign_folds, make_split, split_report, write_labels, write_lists, write_pixels

COUNTS = {"cow little": 738, "cow medium": 341, "cow many": 136, "pig little": 51, "pig medium": 275, "pig many": 105}  # a tenth of the real set


@pytest.fixture
def stratum() -> pd.Series:
    names = [s for s, n in COUNTS.items() for _ in range(n)]
    return pd.Series(names, index=[f"{i:05d}.jpg" for i in range(len(names))], name="stratum")


def test_every_stratum_is_within_an_image_of_its_share(stratum: pd.Series):
    fold = assign_folds(stratum)
    off = pd.crosstab(stratum, fold).sub(stratum.value_counts()/5, axis=0).abs()
    assert off.to_numpy().max() <= 1, off  # the reference: 16.0 % of pig little instead of 20 %


def test_row_order_never_matters_and_the_seed_does(stratum: pd.Series):
    fold = assign_folds(stratum)
    assert fold.equals(assign_folds(stratum.sample(frac=1, random_state=3)).reindex(fold.index))
    assert not fold.equals(assign_folds(stratum, seed=1))


@pytest.fixture
def farm(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Ten images of 192 x 108 in a zip: one cut off, one with no box, one that is no image."
    rng, home = np.random.default_rng(0), tmp_path/"a.zip"
    with zipfile.ZipFile(home, "w") as z:
        for i in range(10):
            data = cv2.imencode(".jpg", rng.integers(0, 255, (108, 192, 3), np.uint8))[1].tobytes()
            z.writestr(f"in/{i}.jpg", data[:-40] if i == 0 else b"no image" if i == 1 else data)
    images = image_table([dict(image=f"{i}.jpg", species="pig" if i % 2 else "cow", width=192, height=108, zip=str(home), member=f"in/{i}.jpg")
                          for i in range(10)])
    boxes = box_table([dict(image=f"{i}.jpg", label="pig" if i % 2 else "cow", x1=-3, y1=10, x2=96, y2=54, ignore=i == 4)
                       for i in range(10) if i != 2])
    return images, boxes


def test_pixels_keep_their_bytes_unless_they_have_to_change(farm: tuple, tmp_path: Path):
    images, _ = farm
    original = zipfile.ZipFile(tmp_path/"a.zip")
    failed = write_pixels(images, tmp_path/"full")
    assert failed.empty  # nothing is decoded that need not be
    assert (tmp_path/"full"/"5.jpg").read_bytes() == original.read("in/5.jpg")
    assert (tmp_path/"full"/"0.jpg").read_bytes()[-2:] == b"\xff\xd9"  # cut off: written whole
    failed = write_pixels(images, tmp_path/"small", 96)
    assert failed.image.tolist() == ["1.jpg"]  # by name, and the rest is there
    assert cv2.imread(str(tmp_path/"small"/"5.jpg")).shape == (54, 96, 3)


def test_labels_are_clipped_fractions_and_ignored_boxes_are_not_written(farm: tuple, tmp_path: Path):
    images, boxes = farm
    write_labels(images, boxes, tmp_path)
    assert (tmp_path/"5.txt").read_text() == "1 0.250000 0.296296 0.500000 0.407407"  # x from 0 to 96 of 192, y from 10 to 54 of 108
    assert (tmp_path/"2.txt").read_text() == "" and (tmp_path/"4.txt").read_text() == ""


@pytest.mark.parametrize(("full", "val"), [(False, "valid.txt"), (True, "train.txt")])
def test_the_data_yaml_says_whether_there_is_a_valid_set(farm: tuple, tmp_path: Path, full: bool, val: str):
    split = make_split(*farm, full=full)
    data = yaml.safe_load(write_lists(split, tmp_path).read_text())
    assert data["val"] == val and data["names"] == {0: "cow", 1: "pig"}
    assert len((tmp_path/"train.txt").read_text().split()) == split.side.eq("train").sum() == (10 if full else 8)
    assert split_report(split).images.sum() == 10


@pytest.mark.parametrize("kw", [dict(folds=1), dict(folds=11), dict(valid_fold=5), dict(valid_fold=-1)])
def test_folds_that_cannot_be_are_refused(farm: tuple, kw: dict):
    with pytest.raises(InputError, match="give"): make_split(*farm, **kw)


def test_a_share_keeps_the_mix_and_every_stratum(stratum: pd.Series):
    split = stratum.rename_axis("image").reset_index().assign(fold=0, side="train")
    part = take_share(split, .1)
    got = part.stratum.value_counts()
    assert all(abs(got[s] - n/10) <= .5 for s, n in COUNTS.items())
    assert part.equals(take_share(split.sample(frac=1, random_state=5), .1))
    assert set(take_share(split, .001).stratum) == set(COUNTS)
    with pytest.raises(InputError, match="fraction"): take_share(split, 0)
