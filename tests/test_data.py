"""Files, names, geometry and pixels that every stage rests on."""
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import (
    InputError,
    box_table,
    clip_boxes,
    decode_image,
    from_yolo,
    image_table,
    load_table,
    plain_name,
    save_table,
    save_text,
    to_yolo,
    whole_file,
)

NAME = "[원천]돼지_bbox.zip"


@pytest.mark.parametrize("spelt", [NAME, unicodedata.normalize("NFD", NAME), NAME.encode("cp949").decode("cp437"),
                                   NAME.encode("cp949").decode("utf-8", "surrogateescape")], ids=["nfc", "nfd", "cp949 in a zip", "cp949 on a disk"])
def test_a_name_is_one_name_in_every_spelling(spelt: str):
    assert plain_name(spelt) == NAME


def test_names_that_are_plain_stay():
    assert [plain_name(n) for n in ("a.jpg", "", "caf\u00e9.jpg")] == ["a.jpg", "", "caf\u00e9.jpg"]


def test_a_file_is_whole_or_not_there(tmp_path: Path):
    save_text("old", tmp_path/"f.txt")
    with pytest.raises(RuntimeError), whole_file(tmp_path/"f.txt") as tmp:
        tmp.write_text("half")
        raise RuntimeError
    assert (tmp_path/"f.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_table_comes_back_and_a_bad_one_is_named(tmp_path: Path, suffix: str):
    df = pd.DataFrame(dict(a=[1, 2], b=["x", "y"]))
    pd.testing.assert_frame_equal(load_table(save_table(df, tmp_path/f"t.{suffix}")), df)
    with pytest.raises(InputError, match="run the stage"): load_table(tmp_path/"intake"/"missing.parquet")
    (tmp_path/"half.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(InputError, match="half.parquet"): load_table(tmp_path/"half.parquet")


def test_row_order_never_matters():
    rows = [dict(image=f"{i%3}.jpg", label="cow", x1=i, y1=0, x2=i+1, y2=1) for i in range(9)]
    pd.testing.assert_frame_equal(box_table(rows), box_table(rows[::-1]))


def test_boxes_are_clipped_to_their_own_image_and_keep_what_was_read():
    images = image_table([dict(image="a", species="pig", width=1280, height=960), dict(image="b", species="pig", width=1920, height=1080)])
    boxes = box_table([dict(image=n, label="pig", x1=-1, y1=-15, x2=1922, y2=1082) for n in "ab"])
    clipped = clip_boxes(boxes, images)
    assert clipped[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[0, 0, 1280, 960], [0, 0, 1920, 1080]]
    assert clipped.raw_x2.tolist() == [1922, 1922]
    np.testing.assert_allclose(from_yolo(to_yolo(boxes, images), images)[["x1", "y1", "x2", "y2"]], clipped[["x1", "y1", "x2", "y2"]])


def test_a_label_of_another_world_is_refused():
    images = image_table([dict(image="a", species="pig", width=10, height=10)])
    with pytest.raises(InputError, match="sheep"): to_yolo(box_table([dict(image="a", label="sheep", x1=0, y1=0, x2=1, y2=1)]), images)


def test_no_boxes_is_a_table_too():
    assert box_table([]).empty and to_yolo(box_table([]), image_table([])).empty


@pytest.mark.parametrize("cut", [1, 2, 28, 5000])
def test_a_jpeg_that_is_cut_off_is_read_as_far_as_it_goes(cut: int):
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8))[1].tobytes()
    assert decode_image(data[:-cut]).shape == (90, 160, 3)


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8"])
def test_what_is_no_image_is_named(data: bytes):
    with pytest.raises(InputError, match="cow.jpg"): decode_image(data, "cow.jpg")
