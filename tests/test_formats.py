"Round trips through every format lose nothing; what others write comes in as it is meant, faults named."
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from livestock_nb.data import CORNERS, SPECIES, InputError, box_table, image_table, read_image
from livestock_nb.formats import (
    SIDE,
    read_classes,
    read_dataset,
    read_voc,
    voc_label,
    write_aihub,
    write_coco,
    write_voc,
    write_yolo,
    yolo_line,
)
from livestock_nb.intake import read_farm, read_policy

SHARED = Path(__file__).parents[2]/"shared"/"data"/"farm"/"train"
WRITERS = dict(aihub=write_aihub, coco=write_coco, yolo=write_yolo, voc=write_voc)
EXACT = dict(aihub=0, coco=1e-9, yolo=1e-4, voc=0)  # px by which corners may differ where the side tables are gone


def picture(grey: int, width: int = 80, height: int = 60) -> bytes:
    Image.new("RGB", (width, height), (grey, grey, grey)).save(data := io.BytesIO(), "JPEG")
    return data.getvalue()


@pytest.fixture
def farm(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Everything that a format might forget, in images of two sizes and three spellings."
    home = tmp_path/"home"
    home.mkdir()
    rows = [("barn_cow.jpg", "cow", 80, 60), ("empty_cow.jpg", "cow", 80, 60), ("소 1.jpeg", "cow", 64, 48), ("barn_pig.jpg", "pig", 90, 50)]
    for i, (name, _, w, h) in enumerate(rows): (home/name).write_bytes(picture(40*i, w, h))
    images = image_table([dict(image=n, species=s, width=w, height=h, zip=str(home), member=n, farm="언덕 & <hill>", camera="c1",
                               time="2021-08-01 10:00", group=f"g{i}", sha=f"{i}") for i, (n, s, w, h) in enumerate(rows)])
    boxes = box_table([
        dict(image="barn_cow.jpg", label="cow", x1=0, y1=5.1, x2=30.7, y2=1/3*100, raw_x1=-2.125),                 # clipped, long fractions
        dict(image="barn_cow.jpg", label="cow", x1=9, y1=9, x2=22, y2=21, source="silver", confidence=.62),
        dict(image="barn_cow.jpg", label="cow", x1=9, y1=9, x2=22, y2=21.5, source="human"),                       # nearly the one before it
        dict(image="barn_cow.jpg", label="cow", x1=9, y1=9, x2=22, y2=21, source="model", confidence=.1),          # exactly the same place
        dict(image="barn_cow.jpg", label="pig", x1=40, y1=8, x2=77.3, y2=30, ignore=True),                         # a pig among cows, ignored
        dict(image="barn_pig.jpg", label="cow", x1=1e-3, y1=0, x2=90, y2=50, raw_y1=-15, raw_x2=91),
        dict(image="barn_pig.jpg", label="pig", x1=3, y1=4, x2=5, y2=6),
        dict(image="소 1.jpeg", label="cow", x1=1.5, y1=2.25, x2=60, y2=40, source="silver", confidence=1/3)])
    return images, boxes


def read_back(folder: Path, form: str, **more):
    return read_dataset(folder, form, **more)


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(*(t.drop(columns=["zip", "member"], errors="ignore") for t in (a, b)))


@pytest.mark.parametrize("form", WRITERS)
def test_a_round_trip_loses_nothing(form: str, farm: tuple, tmp_path: Path):
    WRITERS[form](*farm, tmp_path/"data")
    images, boxes, problems = read_back(tmp_path/"data", form)
    same(images, farm[0])
    same(boxes, farm[1])
    assert set(problems.kind) <= {"box outside the frame"}  # AI Hub's labels say where boxes were before they were clipped
    for r, s in zip(images.to_dict("records"), farm[0].to_dict("records"), strict=True): assert (read_image(r) == read_image(s)).all()


@pytest.mark.parametrize("first", WRITERS)
@pytest.mark.parametrize("then", WRITERS)
def test_from_any_to_any(first: str, then: str, farm: tuple, tmp_path: Path):
    WRITERS[first](*farm, tmp_path/"a")
    images, boxes, _ = read_back(tmp_path/"a", first)
    WRITERS[then](images, boxes, tmp_path/"b")
    shutil.rmtree(tmp_path/"a")
    images, boxes, _ = read_back(tmp_path/"b", then)
    same(images, farm[0])
    same(boxes, farm[1])


@pytest.mark.parametrize("form", WRITERS)
def test_what_the_format_itself_says(form: str, farm: tuple, tmp_path: Path):
    "Without the side tables: every box that the format can say, in its place, under its label."
    WRITERS[form](*farm, tmp_path/"data")
    shutil.rmtree(tmp_path/"data"/SIDE)
    images, boxes, _ = read_back(tmp_path/"data", form, policy="near-identical boxes: keep")
    want = farm[1].drop_duplicates(["image", "label", *CORNERS])
    if form == "yolo": want = want[~want.ignore]
    if form == "aihub": want = want[~want.ignore & (want.label == want.image.map(farm[0].set_index("image").species))]
    want = want.sort_values(["image", "label", *CORNERS], ignore_index=True)
    assert images[["image", "width", "height"]].equals(farm[0][["image", "width", "height"]])
    assert boxes[["image", "label"]].equals(want[["image", "label"]])
    assert np.abs(boxes[CORNERS].to_numpy() - want[CORNERS].to_numpy()).max() <= EXACT[form]


def edit_coco(folder: Path):
    data = json.loads((folder/"annotations.json").read_text())
    ids, kinds = {i["file_name"]: i["id"] for i in data["images"]}, {c["name"]: c["id"] for c in data["categories"]}
    pig = next(a for a in data["annotations"] if a["bbox"] == [3, 4, 2, 2])
    pig["bbox"] = [13, 14, 2, 2]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != ids["소 1.jpeg"]]
    data["annotations"].append(dict(id=99, image_id=ids["empty_cow.jpg"], category_id=kinds["cow"], bbox=[1, 1, 20, 20]))
    (folder/"annotations.json").write_text(json.dumps(data))


def edit_yolo(folder: Path):
    for path, old, new in ((folder/"labels/barn_pig.txt", f"1 {4/90:.6f} 0.100000", f"1 {14/90:.6f} 0.300000"), (folder/"labels/소 1.txt", "*", ""),
                           (folder/"labels/empty_cow.txt", "", f"0 {11/80} {11/60} .25 {20/60}\n")):
        path.write_text(path.read_text().replace(old, new) if old not in ("*", "") else new)


def edit_voc(folder: Path):
    path = folder/"Annotations"/"barn_pig.xml"
    text = path.read_text()
    for key, old in dict(xmin=3, ymin=4, xmax=5, ymax=6).items(): text = text.replace(f"<{key}>{old}.0", f"<{key}>{old + 10}.0")
    path.write_text(text)
    path = folder/"Annotations"/"소 1.xml"
    path.write_text(path.read_text().replace("<object>", "<gone>").replace("</object>", "</gone>"))
    path = folder/"Annotations"/"empty_cow.xml"
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>21</xmax><ymax>21</ymax>"
    path.write_text(path.read_text().replace("</annotation>", f"<object><name>cow</name><bndbox>{corners}</bndbox></object></annotation>"))


@pytest.mark.parametrize("form, edit", [("coco", edit_coco), ("yolo", edit_yolo), ("voc", edit_voc)])
def test_a_box_that_was_moved_added_or_deleted_is_as_the_format_says(form: str, edit, farm: tuple, tmp_path: Path):
    WRITERS[form](*farm, tmp_path/"data")
    edit(tmp_path/"data")
    _, boxes, _ = read_back(tmp_path/"data", form)
    told = boxes.set_index("image")
    assert "소 1.jpeg" not in told.index                                                                            # deleted
    assert told.loc[["empty_cow.jpg"], CORNERS].round(3).to_numpy().tolist() == [[1, 1, 21, 21]]                  # added
    pig = boxes[(boxes.image == "barn_pig.jpg") & (boxes.label == "pig")]
    assert pig[CORNERS].round(3).to_numpy().tolist() == [[13, 14, 15, 16]]                                        # moved
    same(boxes[boxes.image == "barn_cow.jpg"], farm[1][farm[1].image == "barn_cow.jpg"])                          # left alone


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_labels_alone_can_be_written(form: str, farm: tuple, tmp_path: Path):
    WRITERS[form](*farm, tmp_path/"data", pixels=False)
    assert not [p for p in (tmp_path/"data").rglob("*") if p.suffix in (".jpg", ".jpeg")]
    with pytest.raises(InputError, match="holds no .jpg or .png"): read_back(tmp_path/"data", form)


@pytest.mark.parametrize("form", WRITERS)
def test_no_box_at_all(form: str, farm: tuple, tmp_path: Path):
    WRITERS[form](farm[0], farm[1][:0], tmp_path/"data")
    images, boxes, _ = read_back(tmp_path/"data", form)
    same(images, farm[0])
    assert boxes.empty and list(boxes) == list(farm[1])


def test_two_images_of_one_stem_are_refused(farm: tuple, tmp_path: Path):
    images = image_table([*farm[0].to_dict("records"), farm[0].iloc[0].to_dict() | dict(image="barn_cow.png")])
    for form, write in WRITERS.items():
        with pytest.raises(InputError, match="Two images are called barn_cow"): write(images, farm[1], tmp_path/form)


def test_an_image_that_cannot_be_read_is_named(farm: tuple, tmp_path: Path):
    Path(farm[0].zip[0], "barn_pig.jpg").unlink()
    for form, write in WRITERS.items():
        with pytest.raises(InputError, match=r"barn_pig\.jpg"): write(*farm, tmp_path/form)
    assert not list((tmp_path/"aihub").glob("*돼지*"))  # whole zips or none


def test_aihub_zips_are_read_like_aihubs_own(farm: tuple, tmp_path: Path):
    write_aihub(*farm, tmp_path/"data")
    images, boxes, problems = read_farm(tmp_path/"data")
    assert len(images) == 4 and set(problems.kind) == {"box outside the frame", "near-identical boxes"} and len(boxes) == 4
    assert boxes.raw_x1.min() == -2.125 and images.farm.eq("언덕 & <hill>").all()


def test_ultralytics_reads_what_was_written(farm: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_yolo(*farm, tmp_path/"data")
    monkeypatch.chdir("/")  # its paths hold from anywhere
    from ultralytics.data.utils import check_det_dataset
    about = check_det_dataset(str(tmp_path/"data"/"data.yaml"))
    assert Path(about["train"]) == tmp_path/"data"/"images" and about["names"] == dict(enumerate(SPECIES))


# What other people's tools write


def put_images(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(picture(20*i + 20))
    return folder


def coco(folder: Path, **changes) -> Path:
    data = dict(images=[dict(id=7, file_name="a.jpg", width=80, height=60), dict(id=9, file_name="deep/b.jpg")], info={},
                categories=[dict(id=3, name="Cattle"), dict(id=4, name="sheep")],
                annotations=[dict(image_id=7, category_id=3, bbox=[1, 2, 30, 40], area=1200), dict(image_id=9, category_id=4, bbox=[1, 2, 3, 4])])
    (put_images(folder, "img/a.jpg", "img/deep/b.jpg")/"instances.json").write_text(json.dumps(data | changes))
    return folder


def test_coco_of_others(tmp_path: Path):
    images, boxes, problems = read_dataset(coco(tmp_path), "coco")
    assert images.image.tolist() == ["a.jpg", "b.jpg"] and boxes[["image", "label", *CORNERS]].to_numpy().tolist() == [["a.jpg", "cow", 1, 2, 31, 42]]
    assert problems.detail.tolist() == ["sheep: 1 boxes in 1 images, e.g. b.jpg"] and images.species.tolist() == ["cow", "cow"]


COCO_FAULTS = [  # what the json says instead, kind, part of the detail, boxes left
    (dict(annotations=[dict(image_id=7, category_id=3, bbox=None)]), "zero area", "cow nan nan nan nan", 0),
    (dict(annotations=[dict(image_id=7, category_id=3, bbox=["a", 1, 2, 3])]), "zero area", "cow nan", 0),
    (dict(annotations=[dict(image_id=8, category_id=3, bbox=[1, 2, 3, 4])]), "label without image", "1 boxes of an image 8 that the json", 0),
    (dict(annotations=[dict(image_id=7, category_id=5, bbox=[1, 2, 3, 4])]), "foreign class", "category 5: 1 boxes", 0),
    (dict(annotations=[dict(image_id=7, category_id=3, bbox=[-1, 2, 30, 40])]), "box outside the frame", "by 1 px", 1),
    (dict(annotations=[], images=[dict(id=7, file_name="a.jpg", width=81, height=60)]), "size mismatch", "label 81×60, image 80×60 px", 0),
    (dict(annotations=[], images=[dict(id=7, file_name="c.jpg")]), "label without image", "not in", 0),
    (dict(annotations=[], images=[dict(id=7, file_name="a.jpg")]), "image without label", "not in instances.json", 0)]


@pytest.mark.parametrize("changes, kind, detail, boxes_left", COCO_FAULTS, ids=[f"{f[1]} {i}" for i, f in enumerate(COCO_FAULTS)])
def test_coco_faults_are_named(changes: dict, kind: str, detail: str, boxes_left: int, tmp_path: Path):
    if changes.get("images", [{}])[0].get("file_name") == "c.jpg": changes["images"].append(dict(id=9, file_name="b.jpg"))
    _, boxes, problems = read_dataset(coco(tmp_path, **changes), "coco")
    assert problems[problems.kind == kind].detail.str.contains(detail).any() and len(boxes) == boxes_left


def test_an_image_that_coco_lists_twice_keeps_all_boxes(tmp_path: Path):
    twice = dict(images=[dict(id=7, file_name="a.jpg"), dict(id=8, file_name="a.jpg"), dict(id=9, file_name="b.jpg")],
                 annotations=[dict(image_id=7, category_id=3, bbox=[1, 2, 3, 4]), dict(image_id=8, category_id=3, bbox=[20, 2, 3, 4])])
    images, boxes, _ = read_dataset(coco(tmp_path, **twice), "coco")
    assert len(images) == 2 and boxes.image.tolist() == ["a.jpg"]*2


@pytest.mark.parametrize("text, says", [("{}", "no COCO json"), ("[1]", "no COCO json"), ("{oh", "cannot be read as json"),
                                        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', "'file_name'")])
def test_a_json_that_is_no_coco_is_refused(text: str, says: str, tmp_path: Path):
    (put_images(tmp_path, "a.jpg")/"x.json").write_text(text)
    with pytest.raises(InputError, match=says): read_dataset(tmp_path, "coco")


def test_yolo_of_others(tmp_path: Path):
    put_images(tmp_path, "train/images/a.jpg", "train/images/b.jpg", "valid/images/a.jpg", "loose.jpg")
    (tmp_path/"train/labels").mkdir()
    (tmp_path/"train/labels/a.txt").write_text("1 .5 .5 .5 .5 .9\n\n2 .5 .5 .1 .1\nbad line\n0 1e999 0 1 1\n")
    (tmp_path/"train/labels/gone.txt").write_text("")
    (tmp_path/"loose.txt").write_text("0 .1 .1 .9 .1 .9 .9 .1 .9\n")  # a polygon
    (tmp_path/"data.yaml").write_text(yaml.safe_dump(dict(names=["cow", "Piglet", "dog"])))
    images, boxes, problems = read_dataset(tmp_path, "yolo")
    assert images.image.tolist() == ["b.jpg", "loose.jpg", "train_images_a.jpg", "valid_images_a.jpg"]
    rows = boxes[["image", "label", *CORNERS, "confidence", "source"]].round(6).to_numpy().tolist()
    assert rows == [["loose.jpg", "cow", 8, 6, 72, 54, 1, "gold"], ["train_images_a.jpg", "pig", 20, 15, 60, 45, .9, "model"]]
    assert problems.groupby("kind").size().to_dict() == {"foreign class": 1, "image without label": 2, "invalid label": 1, "label without image": 1,
                                                         "zero area": 1}
    assert (tmp_path/"data.yaml").unlink() is None
    with pytest.raises(InputError, match="has no data.yaml"): read_dataset(tmp_path, "yolo")


@pytest.mark.parametrize("line", ["0", "0 1 2 3", "x 1 2 3 4", "0.5 1 2 3 4", "0 1 2 3 4 5 6 7", "inf 1 2 3 4", "nan 1 2 3 4"])
def test_lines_that_are_no_label(line: str):
    with pytest.raises((ValueError, OverflowError)): yolo_line(line)


def test_voc_of_others(tmp_path: Path):
    put_images(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg", "JPEGImages/c.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    text = "<annotation><size><width>80</width><height>61</height></size><object><name>bull</name>{}</object></annotation>"
    for name, what in dict(a=text.format(box), b="<annotation>", gone=text.format(box)).items(): (tmp_path/f"{name}.xml").write_text(what)
    images, boxes, problems = read_voc(tmp_path, from_one=True)
    assert images.image.tolist() == ["a.jpg"] and boxes[["label", *CORNERS]].to_numpy().tolist() == [["cow", 0, 0, 40, 30]]
    assert problems.kind.tolist() == ["image without label", "invalid xml", "label without image", "size mismatch"]


def test_xml_that_defines_entities_is_refused():
    with pytest.raises(InputError, match="document type"): voc_label(b'<!DOCTYPE a [<!ENTITY b "boom">]><annotation>&b;</annotation>')


def test_an_unreadable_image_in_a_folder_is_named(tmp_path: Path):
    (coco(tmp_path)/"img"/"deep"/"b.jpg").write_bytes(b"no picture")
    images, _, problems = read_dataset(tmp_path, "coco")
    assert images.image.tolist() == ["a.jpg"] and "unreadable" in set(problems.kind)
    with pytest.raises(InputError, match="policy is to stop"): read_dataset(tmp_path, "coco", policy="unreadable: stop")


def test_classes_and_forms_that_do_not_exist(tmp_path: Path):
    assert read_classes("Rind: cow")["rind"] == "cow" and read_policy()["foreign class"] == "drop"
    for call, says in ((lambda: read_classes("dog: dog"), "only cow and pig"), (lambda: read_classes("["), "cannot be read"),
                       (lambda: read_dataset(tmp_path, "tfrecord"), "no format tfrecord"), (lambda: read_dataset(tmp_path, "coco"), "0 json files"),
                       (lambda: read_dataset(tmp_path/"x", "voc"), "not a folder")):
        with pytest.raises(InputError, match=says): call()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the farm pictures in ../shared/data are not here")
@pytest.mark.parametrize("form", WRITERS)
def test_real_frames_come_back(form: str, tmp_path: Path):
    images, boxes, _ = read_farm(SHARED)
    images = images.groupby("species").head(15).reset_index(drop=True)
    images, boxes = image_table(images), box_table(boxes[boxes.image.isin(images.image)])
    WRITERS[form](images, boxes, tmp_path/"data")
    back = read_back(tmp_path/"data", form)
    same(back[0], images)
    same(back[1], boxes)
    if form != "aihub":
        with zipfile.ZipFile(images.zip[0]) as z: assert next((tmp_path/"data").rglob(images.image[0])).read_bytes() == z.read(images.member[0])
