"Zips in every spelling and with every fault: the tables hold what is good, `problems` names the rest."
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from livestock_nb.data import CORNERS, InputError, box_table, image_table, path_text, read_image, save_table, text_path
from livestock_nb.intake import (
    FATES,
    check_boxes,
    check_farm,
    dataset_card,
    extract_images,
    find_zips,
    how_much,
    image_head,
    is_cut,
    list_images,
    near_twins,
    parse_label,
    problem_table,
    read_farm,
    read_policy,
    table_hash,
    turn_boxes,
    undo_fixes,
)

SHARED = Path(__file__).parents[2]/"shared"/"data"/"farm"/"train"
KOREAN = dict(cow="소", pig="돼지", images="원천", labels="라벨")
SPECIES = ("cow", "pig")


def jpeg(grey: int = 99, width: int = 64, height: int = 48, orientation: int = 0) -> bytes:
    "A grey picture with some grain, so that its scan is long; every `grey` gives other bytes."
    img, exif = Image.fromarray(np.random.default_rng(grey).integers(0, 255, (height, width, 3), np.uint8)), Image.Exif()
    if orientation: exif[0x0112] = orientation
    img.save(data := io.BytesIO(), "JPEG", exif=exif)
    return data.getvalue()


def label(boxes: list = ((2, 3, 30, 40),), width: int = 64, height: int = 48, **image) -> bytes:
    info = dict(image=dict(width=width, height=height, farm_name="hill", farm_env="barn", time="t1", **image),
                annotations=[dict(bbox=list(b), category_id=7) for b in boxes], categories=[dict(id=1, name="pig")])
    return json.dumps(dict(label_info=info)).encode()


def name_of(species: str, i: int) -> str:
    return f"livestock_{species}_bbox_{i:06}"


def farm_files(count: int = 2) -> dict[str, dict[str, bytes]]:
    "Zip name: member name: bytes, all of it sound."
    files = {}
    for s in SPECIES:
        files[f"[원천]{KOREAN[s]}_bbox.zip"] = {f"{name_of(s, i)}.jpg": jpeg(100*len(s)*SPECIES.index(s) + i) for i in range(count)}
        files[f"[라벨]{KOREAN[s]}_bbox.zip"] = {f"{name_of(s, i)}.json": label() for i in range(count)}
    return files


def write_farm(folder: Path, files: dict[str, dict[str, bytes]]) -> Path:
    for name, members in files.items():
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder/name, "w") as z:
            for member, data in members.items(): z.writestr(member, data)
    return folder


COW, COW_LABELS, PIG, PIG_LABELS = "[원천]소_bbox.zip", "[라벨]소_bbox.zip", "[원천]돼지_bbox.zip", "[라벨]돼지_bbox.zip"
ONE = "livestock_cow_bbox_000001"
ALL = [f"{name_of(s, i)}.jpg" for s in SPECIES for i in range(2)]
WITHOUT_ONE = [i for i in ALL if i != f"{ONE}.jpg"]


def put(zip_name: str, member: str, data: bytes | None):
    "A fault: a member gets other bytes, or goes."
    def change(files: dict):
        files[zip_name].pop(member, None)
        if data is not None: files[zip_name][member] = data
    return change


def boxed(*boxes: tuple):
    return put(COW_LABELS, f"{ONE}.json", label(boxes))


def raw_json(text: str):
    return put(COW_LABELS, f"{ONE}.json", text.encode())


FAULTS = [  # what is done, the kind, part of the detail, images that stay, boxes that stay
    ("an empty image", put(COW, f"{ONE}.jpg", b""), "unreadable", "0 bytes", WITHOUT_ONE, 3),
    ("an image that is text", put(COW, f"{ONE}.jpg", b"<html>sign in</html>"), "unreadable", "20 bytes", WITHOUT_ONE, 3),
    ("half a header", put(COW, f"{ONE}.jpg", jpeg()[:100]), "unreadable", "100 bytes", WITHOUT_ONE, 3),
    ("the scan cut 28 bytes early", put(COW, f"{ONE}.jpg", jpeg()[:-28]), "truncated", "end marker", ALL, 4),
    ("a label alone", put(COW, f"{ONE}.jpg", None), "label without image", f"cow: {ONE}.json", WITHOUT_ONE, 3),
    ("an image alone", put(COW_LABELS, f"{ONE}.json", None), "image without label", f"cow: {ONE}.jpg", WITHOUT_ONE, 3),
    ("json that is not json", raw_json("{oh"), "invalid json", "double quotes", WITHOUT_ONE, 3),
    ("an empty json", raw_json(""), "invalid json", "Expecting value", WITHOUT_ONE, 3),
    ("json without annotations", raw_json('{"label_info": {"image": {}}}'), "invalid json", "'annotations' is missing", WITHOUT_ONE, 3),
    ("annotations without a box", raw_json('{"annotations": [{}]}'), "invalid json", "'bbox' is missing", WITHOUT_ONE, 3),
    ("annotations that are a number", raw_json('{"annotations": 3}'), "invalid json", "not iterable", WITHOUT_ONE, 3),
    ("a list for the whole", raw_json("[1, 2]"), "invalid json", "list", WITHOUT_ONE, 3),
    ("an image that is a text", raw_json('{"annotations": [], "image": "a.jpg"}'), "invalid json", "str", WITHOUT_ONE, 3),
    ("a box of three numbers", boxed((1, 2, 3)), "invalid json", "[1, 2, 3] is not four numbers", WITHOUT_ONE, 3),
    ("a box of words", boxed(("1", "2", "3", "4")), "invalid json", "is not four numbers", WITHOUT_ONE, 3),
    ("a json as deep as the sea", raw_json("["*100_000), "invalid json", "recursion", WITHOUT_ONE, 3),
    ("another size in the json", put(COW_LABELS, f"{ONE}.json", label(width=99)), "size mismatch", "json 99×48, image 64×48 px", ALL, 4),
    ("a box over the edge", boxed((-3, 1, 66, 50)), "box outside the frame", "1 box, by 3 px at most", ALL, 4),
    ("two boxes over the edge", boxed((1, -15, 9, 9), (2, -1, 9, 9)), "box outside the frame", "2 boxes, by 15 px at most", ALL, 5),
    ("a box without width", boxed((5, 5, 5, 9), (1, 1, 9, 9)), "zero area", "cow 5 5 5 9", ALL, 4),
    ("corners changed over", boxed((9, 9, 5, 5)), "zero area", "cow 9 9 5 5", ALL, 3),
    ("a box outside altogether", boxed((70, 5, 90, 9)), "zero area", "cow 70 5 90 9", ALL, 3),
    ("a box of NaN", boxed((float("nan"), 1, 9, 9)), "zero area", "cow nan 1 9 9", ALL, 3),
    ("an endless box", boxed((1, 1, float("inf"), 9)), "zero area", "cow 1 1 inf 9", ALL, 3),
    ("the same box twice", boxed((1, 1, 9, 9), (1, 1, 9, 9)), "duplicate box", "cow 1 1 9 9", ALL, 4),
    ("the same picture twice", put(COW, f"{ONE}.jpg", jpeg(0)), "duplicate image", "same bytes as livestock_cow_bbox_000000.jpg", ALL, 4),
    ("one name in two folders of a zip", put(COW, f"z/{ONE}.jpg", jpeg(55)), "duplicate name", f"{ONE}.jpg in [원천]소_bbox.zip", ALL, 4),
    ("a pig's name in the cows' zip", lambda f: (f[COW].update({f"{name_of('pig', 7)}.jpg": jpeg(7)}),
                                                 f[COW_LABELS].update({f"{name_of('pig', 7)}.json": label()})),
     "species disagrees", "livestock_pig_bbox_000007.jpg in [원천]소_bbox.zip (cow)", sorted([*ALL, "livestock_pig_bbox_000007.jpg"]), 5),
    ("a zip of something else", lambda f: f.update({"photos.zip": {"holiday.jpg": jpeg(8)}}), "species unknown", "holiday.jpg in photos.zip", ALL, 4),
    ("a camera held sideways", put(COW, f"{ONE}.jpg", jpeg(2, 48, 64, orientation=6)), "EXIF rotated", "orientation 6", ALL, 4),
    ("one animal labelled twice", boxed((10, 10, 40, 40), (10, 10, 40, 41)), "near-identical boxes", "IoU 0.968 with 10 10 40 40", ALL, 4),
    ("categories called pig in the cows' labels", lambda f: f[COW_LABELS].update({f"{ONE}.json": label().replace(b'"id": 1', b'"id": 7')}),
     "category disagrees", f"[라벨]소_bbox.zip (cow): 1 of 2 labels call their animals pig, e.g. {ONE}.json", ALL, 4),
    ("a line break in a name", lambda f: (f[COW].update({"livestock_cow_bbox_\n7.jpg": jpeg(7)}),
                                          f[COW_LABELS].update({"livestock_cow_bbox_\n7.json": label()})),
     "odd name", "livestock_cow_bbox__7.jpg in [원천]소_bbox.zip is 'livestock_cow_bbox_", sorted([*ALL, "livestock_cow_bbox__7.jpg"]), 5),
    ("no pigs at all", lambda f: (f.pop(PIG), f.pop(PIG_LABELS)), "species missing", "no zip for pig", ALL[:2], 2)]


@pytest.mark.parametrize("what, change, kind, detail, images_left, boxes_left", FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_is_named_and_the_rest_goes_on(what: str, change, kind: str, detail: str, images_left: list, boxes_left: int, tmp_path: Path):
    change(files := farm_files())
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    assert images.image.tolist() == images_left and len(boxes) == boxes_left
    assert problems.kind.tolist() == [kind] and detail in problems.detail[0] and problems.action[0]
    assert np.isfinite(boxes[["x1", "y1", "x2", "y2"]]).all(axis=None)


@pytest.mark.parametrize("what, change, kind", [f[:3] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_every_kind_can_stop(what: str, change, kind: str, tmp_path: Path):
    change(files := farm_files())
    write_farm(tmp_path, files)
    with pytest.raises(InputError, match=f"× {kind}, the first .*The policy is to stop"): read_farm(tmp_path, policy={kind: "stop"})


DECIDED = [  # what is done, the policy, images that stay, boxes that stay, what the table says was done
    (put(COW, f"{ONE}.jpg", jpeg()[:-28]), "truncated: drop", WITHOUT_ONE, 3, "image left out"),
    (put(COW_LABELS, f"{ONE}.json", label(width=99)), "size mismatch: drop", WITHOUT_ONE, 3, "image left out"),
    (put(COW, f"{ONE}.jpg", jpeg(2, 48, 64, orientation=6)), "EXIF rotated: drop", WITHOUT_ONE, 3, "image left out"),
    (put(COW, f"{ONE}.jpg", jpeg(0)), "duplicate image: drop", WITHOUT_ONE, 3, "image left out"),
    (boxed((-3, 1, 66, 50), (1, 1, 9, 9)), "box outside the frame: drop", ALL, 4, "box dropped"),
    (boxed((10, 10, 40, 40), (10, 10, 40, 41)), "near-identical boxes: keep", ALL, 5, "kept")]


@pytest.mark.parametrize("change, policy, images_left, boxes_left, done", DECIDED, ids=[d[1] for d in DECIDED])
def test_the_policy_decides(change, policy: str, images_left: list, boxes_left: int, done: str, tmp_path: Path):
    change(files := farm_files())
    write_farm(tmp_path, files)
    images, boxes, problems = read_farm(tmp_path, policy=policy)
    assert images.image.tolist() == images_left and len(boxes) == boxes_left and problems.action.tolist() == [done]
    (tmp_path/"policy.yaml").write_text(policy.replace(": ", ":  "))
    pd.testing.assert_frame_equal(read_farm(tmp_path, policy=tmp_path/"policy.yaml")[2], problems)


@pytest.mark.parametrize("given, says", [
    ("blurred: drop", 'no problem of kind "blurred"; there are unreadable, truncated'), ("unreadable: keep", "write drop or stop"),
    ("truncated", '"None" is not possible for "truncated"'), ("[", "cannot be read"), ("no_such.yaml", "cannot be read"), (["a"], "cannot be read")])
def test_a_wrong_policy_is_refused(given: str, says: str):
    with pytest.raises(InputError) as e: read_policy(given)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_every_fix_of_a_box_can_be_undone(tmp_path: Path):
    given = [(-3.25, 1, 66, 50), (5, 5, 5, 9), (1, 1, 9, 9), (1, 1, 9, 9), (10, 10, 40, 40), (10, 10, 40, 41), (9, 9, 1/3, 5), (70, 5, 1e9, 9)]
    boxed(*given)(files := farm_files())
    _, boxes, problems = read_farm(write_farm(tmp_path, files))
    assert len(boxes) == 6
    back = undo_fixes(boxes, problems).query("image == @ONE + '.jpg'")
    assert back[CORNERS].to_numpy().tolist() == sorted([*b] for b in given) and back.label.eq("cow").all()


@pytest.mark.parametrize("seed", range(5))
def test_near_twins_are_those_of_all_pairs(seed: int):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 3, (60, 4))*10 + np.array([0, 0, 60, 60]) + rng.integers(0, 3, (60, 4))
    boxes = box_table(pd.DataFrame(corners, columns=CORNERS).assign(image=rng.choice(["a", "b"], 60), label=rng.choice(SPECIES, 60)))
    found = near_twins(boxes, .8)
    b, want = boxes[CORNERS].to_numpy(), set()
    for i in range(60):
        for j in range(i):
            both = np.prod((np.minimum(b[i, 2:], b[j, 2:]) - np.maximum(b[i, :2], b[j, :2])).clip(0))
            iou = both/(np.prod(b[i, 2:] - b[i, :2]) + np.prod(b[j, 2:] - b[j, :2]) - both)
            if iou >= .8 and (boxes.loc[i, ["image", "label"]] == boxes.loc[j, ["image", "label"]]).all(): want.add(i)
    assert set(found.row) == want and want


def test_a_sound_farm_has_no_problems(tmp_path: Path):
    images, boxes, problems = read_farm(write_farm(tmp_path, farm_files()))
    assert problems.empty and list(problems) == ["image", "kind", "detail", "action"]
    assert images.species.tolist() == ["cow", "cow", "pig", "pig"] == boxes.label.tolist()  # though each json says 7 and pig
    assert images.loc[0, ["width", "height", "farm", "camera", "time", "group"]].tolist() == [64, 48, "hill", "barn", "t1", ""]
    assert (boxes.source == "gold").all() and (boxes.confidence == 1).all() and images.sha.is_unique
    assert images.member.tolist() == ALL and read_image(images.iloc[0]).shape == (48, 64, 3)


def test_raw_corners_stay(tmp_path: Path):
    boxed((-3, 1, 66, 50))(files := farm_files())
    b = read_farm(write_farm(tmp_path, files))[1].query("image == @ONE + '.jpg'").iloc[0]
    assert b[["x1", "y1", "x2", "y2"]].tolist() == [0, 1, 64, 48] and b[["raw_x1", "raw_y1", "raw_x2", "raw_y2"]].tolist() == [-3, 1, 66, 50]


def test_an_image_without_a_box_stays(tmp_path: Path):
    boxed()(files := farm_files())
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    assert len(images) == 4 and len(boxes) == 3 and problems.empty


def test_no_box_anywhere(tmp_path: Path):
    files = farm_files()
    for name in (COW_LABELS, PIG_LABELS): files[name] = dict.fromkeys(files[name], label(()))
    images, boxes, _ = read_farm(write_farm(tmp_path, files))
    assert len(images) == 4 and len(boxes) == 0 and save_table(boxes, tmp_path/"boxes.parquet").exists()


def same_but_where(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(*(t.drop(columns=["zip", "member"], errors="ignore") for t in (a, b)))


def test_headers_alone_give_the_same_tables(tmp_path: Path):
    for change in (put(COW, f"{ONE}.jpg", jpeg()[:-28]), put(PIG, f"{name_of('pig', 1)}.jpg", jpeg(0))): change(files := farm_files())
    read, looked = read_farm(write_farm(tmp_path, files)), read_farm(tmp_path, check=False)
    for a, b in zip(read[:2], looked[:2], strict=True): pd.testing.assert_frame_equal(a, b)
    assert set(read[2].kind) - set(looked[2].kind) <= {"truncated"}  # that takes all of the bytes


def test_of_equal_members_the_last_counts(tmp_path: Path):
    write_farm(tmp_path, farm_files())
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path/COW, "a") as z: z.writestr(f"{ONE}.jpg", jpeg(5, 60, 44))
    images, _, problems = read_farm(tmp_path)
    row = images.set_index("image", drop=False).loc[f"{ONE}.jpg"]
    assert (row.width, row.height) == (60, 44) and read_image(row).shape == (44, 60, 3)
    assert sorted(problems.kind) == ["duplicate name", "size mismatch"]


class WindowsMember(zipfile.ZipInfo):
    "A member whose name is stored in cp949, without the UTF-8 flag, as Windows does."
    def _encodeFilenameFlags(self): return self.filename.encode("cp949"), 0  # noqa: N802


@pytest.mark.parametrize("spell", ["NFC", "NFD", "cp949"])
def test_spellings_of_member_names(spell: str, tmp_path: Path):
    want = read_farm(write_farm(tmp_path/"a", farm_files()))
    (tmp_path/"b").mkdir()
    for name, members in farm_files().items():
        korean = "소" if "소" in name else "돼지"
        with zipfile.ZipFile(tmp_path/"b"/f"{'labels' if '라벨' in name else 'images'}_{len(korean)}.zip", "w") as z:
            for m, data in members.items():
                full = f"{korean}/bbox/{m}"
                z.writestr(WindowsMember(full) if spell == "cp949" else unicodedata.normalize(spell, full), data)
    got = read_farm(tmp_path/"b")
    for a, b in zip(want, got, strict=True): same_but_where(a, b)
    assert read_image(got[0].iloc[0]).shape == (48, 64, 3)  # `member` is the name as the zip has it


def test_korean_file_names_come_composed(tmp_path: Path):
    files = {n: {unicodedata.normalize("NFD" if "원천" in n else "NFC", f"사진_{m}"): d for m, d in ms.items()} for n, ms in farm_files().items()}
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    assert images.image.tolist() == [f"사진_{i}" for i in ALL] and problems.empty and len(boxes) == 4


def test_folders_suffixes_and_clutter(tmp_path: Path):
    files = {f"x/{i}/{n.removesuffix('.zip')}.ZIP": {f"소/bbox/{m}".replace(".jpg", ".JPG"): d for m, d in ms.items()}
             for i, (n, ms) in enumerate(farm_files().items())}
    for members in files.values(): members |= {"__MACOSX/._a.jpg": b"junk", "소/._b.jpg": b"junk", "소/.DS_Store": b"junk", "readme.txt": b"hello"}
    write_farm(tmp_path, files | {"__MACOSX/._[원천]소_bbox.zip": {}})
    (tmp_path/"._[원천]소.zip").write_bytes(b"junk")
    images, boxes, problems = read_farm(tmp_path)
    assert images.image.tolist() == [i.replace(".jpg", ".JPG") for i in ALL] and len(boxes) == 4 and problems.empty


def test_zips_whose_names_say_nothing(tmp_path: Path):
    want = read_farm(write_farm(tmp_path/"a", farm_files()))
    all_in_one = {m: d for members in farm_files().values() for m, d in members.items()}
    got = read_farm(write_farm(tmp_path/"b", {"data.zip": all_in_one}))
    for a, b in zip(want, got, strict=True): same_but_where(a, b)
    assert find_zips(tmp_path/"b")[["species", "kind"]].drop_duplicates().shape == (4, 2)


def test_the_seen_misspelling_is_pig(tmp_path: Path):
    files = {n.replace("돼지", "돼재"): m for n, m in farm_files().items()}
    assert find_zips(write_farm(tmp_path, files)).species.value_counts().to_dict() == dict(pig=2, cow=2)


def test_png_counts_as_an_image(tmp_path: Path):
    png = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    put(COW, f"{ONE}.jpg", None)(files := farm_files())
    put(COW, f"{ONE}.PNG", png)(files)
    images, _, problems = read_farm(write_farm(tmp_path/"a", files))
    assert f"{ONE}.PNG" in set(images.image) and problems.empty
    put(COW, f"{ONE}.PNG", png[:-20])(files)
    assert read_farm(write_farm(tmp_path/"b", files))[2].kind.tolist() == ["truncated"]


def test_two_zips_of_a_kind_are_both_read(tmp_path: Path):
    files = farm_files()
    for name in (COW, COW_LABELS): files[name.replace("_bbox", "_bbox2")] = {m.replace("_00000", "_00001"): d for m, d in files[name].items()}
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    assert len(images) == 6 == len(boxes) and set(problems.kind) == {"duplicate image"}


def test_one_name_in_two_zips_goes_to_the_first(tmp_path: Path):
    files = farm_files() | {"[원천]소_again.zip": {f"{ONE}.jpg": jpeg(77, 60, 48)}}
    images, _, problems = read_farm(write_farm(tmp_path, files))
    assert images.set_index("image").width[f"{ONE}.jpg"] == 60  # [원천]소_again.zip comes before [원천]소_bbox.zip
    assert sorted(problems.kind) == ["duplicate name", "size mismatch"] and "소_bbox" in problems.set_index("kind").detail["duplicate name"]


def test_the_order_of_files_changes_nothing(tmp_path: Path):
    for _, change, *_ in FAULTS[4:7]: change(files := farm_files(5))
    files[COW][f"z/{ONE}.jpg"] = jpeg(55)
    want = read_farm(write_farm(tmp_path/"a", files))
    turned = {n: dict(reversed(m.items())) for n, m in reversed(files.items())}
    for a, b in zip(want, read_farm(write_farm(tmp_path/"b", turned)), strict=True): same_but_where(a, b)


def test_compressed_and_damaged_members(tmp_path: Path):
    write_farm(tmp_path, farm_files())
    with zipfile.ZipFile(tmp_path/COW, "w", zipfile.ZIP_DEFLATED) as z:
        for i in range(2): z.writestr(f"{name_of('cow', i)}.jpg", jpeg(i))
    data = bytearray((tmp_path/COW).read_bytes())
    data[len(data)//4] ^= 255  # inside the first picture
    (tmp_path/COW).write_bytes(data)
    images, _, problems = read_farm(tmp_path)
    assert images.image.tolist() == ALL[1:] and problems.kind.tolist() == ["unreadable"] and problems.image[0] == ALL[0]


@pytest.mark.parametrize("orientation, wanted", [(0, (64, 48)), (1, (64, 48)), (3, (64, 48)), (5, (48, 64)), (6, (48, 64)), (8, (48, 64))])
def test_sizes_are_upright(orientation: int, wanted: tuple[int, int]):
    data = jpeg(orientation=orientation)
    facts = image_head(lambda limit: data[:limit])
    assert (facts["width"], facts["height"]) == wanted == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pixels_do(orientation: int):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[8:24, 16:24] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(data := io.BytesIO(), "PNG", exif=exif)
    data.seek(0)
    rows, columns = np.nonzero(np.asarray(ImageOps.exif_transpose(Image.open(data)))[..., 0])
    want = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert turn_boxes([[16, 8, 24, 24]], orientation, 64, 48).tolist() == [want]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_frame_as_stored_turn_with_their_image(orientation: int, tmp_path: Path):
    put(COW, f"{ONE}.jpg", jpeg(9, 64, 48, orientation))(files := farm_files())
    put(COW_LABELS, f"{ONE}.json", label([(-2, 8, 24, 30)], 64, 48))(files)
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    box = boxes[boxes.image == f"{ONE}.jpg"]
    assert images.set_index("image").loc[f"{ONE}.jpg", ["width", "height"]].tolist() == [48, 64]
    assert box[CORNERS].to_numpy().tolist() == turn_boxes([[0, 8, 24, 30]], orientation, 64, 48).tolist()
    assert box[[f"raw_{c}" for c in CORNERS]].to_numpy().tolist() == [[-2, 8, 24, 30]]  # as the label has it
    assert set(problems.kind) == {"EXIF rotated", "size mismatch", "box outside the frame"}
    assert "boxes turned with it" in problems.set_index("kind").detail["size mismatch"]


@pytest.mark.parametrize("data, wanted, why", [
    (jpeg(), False, "whole"), (jpeg()[:-1], True, "half a marker"), (jpeg()[:-28], True, "28 bytes early"), (jpeg() + b"\0"*500, False, "padded"),
    (jpeg() + b"camera notes", False, "notes after the end"), (b"\xff\xd8\xff\xe1" + jpeg()[2:-2].replace(b"\xff\xd9", b""), True, "no marker"),
    (b"\xff\xd8thumbnail\xff\xd9\xff\xda scan", True, "the marker is a thumbnail's"), (b"", True, "nothing"),
    (b"GIF89a", False, "of a form that has no end marker")])
def test_is_cut(data: bytes, wanted: bool, why: str):
    assert is_cut(data) == wanted, why


def test_a_label_may_be_in_cp949_or_start_with_a_mark():
    text = '{"annotations": [], "image": {"farm_name": "농장"}}'
    assert {parse_label(d)["farm"] for d in (text.encode(), text.encode("utf-8-sig"), text.encode("cp949"))} == {"농장"}


STOPS = [  # what is done to the folder, what the message must say
    ("no folder", lambda d: shutil.rmtree(d), ["is not a folder"]),
    ("no zips", lambda d: [p.unlink() for p in d.iterdir()], ["holds no zip"]),
    ("no label zip for pigs", lambda d: (d/PIG_LABELS).unlink(), ["no label zip for pig", PIG_LABELS]),
    ("no image zip for cows", lambda d: (d/COW).unlink(), ["no image zip for cow", COW]),
    ("half a zip", lambda d: (d/COW).write_bytes((d/COW).read_bytes()[:1000]), [COW, "1,000 bytes", "get it again"]),
    ("an empty zip file", lambda d: (d/PIG).write_bytes(b""), [PIG, "0 bytes"]),
    ("zips of something else", lambda d: ([p.unlink() for p in d.iterdir()], write_farm(d, {"a.zip": {"readme.txt": b""}})),
     ["no zip with cow or pig"]),
    ("no usable image", lambda d: write_farm(d, {COW: {ALL[0]: b""}, PIG: {ALL[2]: b""}}), ["No usable file in", COW, PIG, "2 × unreadable"])]


@pytest.mark.parametrize("what, change, says", STOPS, ids=[s[0] for s in STOPS])
def test_what_stops_intake_says_what_to_do(what: str, change, says: list[str], tmp_path: Path):
    change(write_farm(tmp_path/"zips", farm_files()))
    with pytest.raises(InputError) as e: read_farm(tmp_path/"zips")
    assert all(s in str(e.value) for s in says) and "\n" not in str(e.value)


# Hand-broken zips: what was done, how, the zip that `check_farm` must name ('' where the farm is usable all the same), a kind of problem or a word


def patched(name: str, find: bytes, to: Callable[[bytearray, int], None], last: bool = True):
    "Change bytes at the first or last place where `find` stands."
    def change(folder: Path):
        data = bytearray((folder/name).read_bytes())
        to(data, data.rfind(find) if last else data.find(find))
        (folder/name).write_bytes(data)
    return change


def poke(offset: int, values: bytes):
    def to(data: bytearray, at: int): data[at+offset:at+offset+len(values)] = values
    return to


def rewritten(name: str, change: Callable[[bytes], bytes]):
    return lambda folder: (folder/name).write_bytes(change((folder/name).read_bytes()))


def every_entry(name: str, offset: int, values: bytes):
    "Poke into every entry of a zip's directory."
    def change(folder: Path):
        data, at = bytearray((folder/name).read_bytes()), 0
        while (at := data.find(CENTRAL, at + 1)) >= 0: data[at+offset:at+offset+len(values)] = values
        (folder/name).write_bytes(data)
    return change


def as_zip(name: str, members: dict[str, bytes], **how):
    def change(folder: Path):
        with zipfile.ZipFile(folder/name, "w", **how) as z:
            for m, data in members.items(): z.writestr(m, data)
    return change


def swapped(folder: Path):
    (folder/COW).rename(folder/"x")
    (folder/COW_LABELS).rename(folder/COW)
    (folder/"x").rename(folder/COW_LABELS)


CENTRAL, LOCAL, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
COWS = farm_files()[COW]
BROKEN = [
    ("cut in half", rewritten(COW, lambda b: b[:len(b)//2]), COW, "whole files"),
    ("its last ten bytes missing", rewritten(COW, lambda b: b[:-10]), COW, "2 whole files"),
    ("nothing in the file", rewritten(PIG, lambda b: b""), PIG, "0 bytes"),
    ("a web page", rewritten(PIG, lambda b: b"<html>Please sign in</html>"), PIG, "do not begin like a zip"),
    ("zeroes from its middle on", rewritten(COW, lambda b: b[:2600] + bytes(len(b) - 2600)), COW, "whole files"),
    ("its directory scribbled over", patched(COW, CENTRAL, poke(0, b"XXXX"), last=False), COW, "get it again"),
    ("a header scribbled over", patched(COW, LOCAL, poke(0, b"XXXX")), "", "unreadable"),
    ("one byte of a picture flipped", patched(COW, b"\xff\xda", poke(90, b"~~")), "", "unreadable"),
    ("another checksum in the directory", patched(COW, CENTRAL, poke(16, b"abcd")), "", "unreadable"),
    ("another offset in the directory", patched(COW, CENTRAL, poke(42, b"\7\0\0\0")), "", "unreadable"),
    ("every file encrypted", every_entry(COW, 8, b"\1\0"), COW, "unreadable"),
    ("packed in a way that hardly anybody reads", as_zip(COW, COWS, compression=zipfile.ZIP_LZMA), COW, "unreadable"),
    ("a zip without a file", as_zip(COW, {}), COW, "holds no images"),
    ("a zip in the zip", as_zip(COW, {"more.zip": b"PK"}), COW, "holds no images"),
    ("only empty pictures", as_zip(COW, dict.fromkeys(COWS, b"")), COW, "unreadable"),
    ("only web pages for labels", as_zip(COW_LABELS, {f"{name_of('cow', i)}.json": b"<html>" for i in range(2)}), COW_LABELS, "invalid json"),
    ("labels of other images", as_zip(COW_LABELS, {"livestock_cow_bbox_000077.json": label()}), COW_LABELS, "label without image"),
    ("images and labels swapped", swapped, COW, "holds no images"),
    ("one of four zips missing", lambda d: (d/COW_LABELS).unlink(), COW_LABELS, "no label zip for cow"),
    ("a remark after its end", rewritten(COW, lambda b: b + b"downloaded by a tool"), "", ""),
    ("a program before its beginning", rewritten(COW, lambda b: b"MZ" + bytes(998) + b), "", ""),
    ("names that lead out of the folder", as_zip(COW, {f"../../{m}": d for m, d in COWS.items()}), "", ""),
    ("a second download going on", lambda d: (d/"[원천]소2.zip.crdownload").write_bytes((d/COW).read_bytes()[:4000]), "", "unfinished download")]


@pytest.mark.parametrize("what, breaks, named, word", BROKEN, ids=[b[0] for b in BROKEN])
def test_hand_broken_zips(what: str, breaks, named: str, word: str, tmp_path: Path):
    breaks(write_farm(tmp_path, farm_files()))
    counts, problems, why = check_farm(tmp_path)
    assert named in why and bool(why) == bool(named) and "\n" not in why, why
    assert word in why + " ".join(problems.kind)
    if not named: assert counts.images.sum() >= 3 and not read_farm(tmp_path)[0].empty
    else:
        with pytest.raises(InputError): read_farm(tmp_path)


def test_a_broken_label_zip_is_no_harm_to_a_list_of_images(tmp_path: Path):
    (write_farm(tmp_path, farm_files())/COW_LABELS).write_bytes(b"")
    assert list_images(tmp_path)[0].image.tolist() == ALL


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    want = read_farm(write_farm(tmp_path/"a", farm_files()))
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # every size, offset and count goes into the fields for large ones
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    write_farm(tmp_path/"b", farm_files())
    monkeypatch.undo()
    data = (tmp_path/"b"/COW).read_bytes()
    assert b"PK\6\6" in data and len(data) > (tmp_path/"a"/COW).stat().st_size
    got = read_farm(tmp_path/"b")
    for a, b in zip(want, got, strict=True): same_but_where(a, b)
    assert extract_images(got[0], tmp_path/"pixels").empty and (tmp_path/"pixels"/ALL[0]).read_bytes() == COWS[ALL[0]]


class Pipe(io.RawIOBase):
    "A file that cannot be rewound, so that sizes come after each member."
    def __init__(self, f): self.f = f
    def write(self, b): return self.f.write(b)
    def writable(self): return True


@pytest.mark.parametrize("kind", ["stored", "deflated", "zip64", "sizes after each file", "deflated, sizes after each file"])
def test_how_much_is_there(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if kind == "zip64": monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    whole = io.BytesIO()
    with zipfile.ZipFile(Pipe(whole) if "after" in kind else whole, "w", 8 if "deflated" in kind else 0) as z:
        for i in range(5): z.writestr(f"{i}.jpg", jpeg(i))
    monkeypatch.undo()
    data = whole.getvalue()
    with zipfile.ZipFile(whole) as z: ends = [f.header_offset for f in z.infolist()][1:]
    for n, end in enumerate(ends, 1):
        (tmp_path/"a.zip").write_bytes(data[:end + 500])
        assert how_much(tmp_path/"a.zip") == f"{n} whole files in the first {end:,} of {end + 500:,} bytes, {n}.jpg breaks off"


def test_a_download_under_another_name_says_how_much_is_there(tmp_path: Path):
    data = (write_farm(tmp_path, farm_files())/COW).read_bytes()
    (tmp_path/COW).unlink()
    (tmp_path/f"{COW}.crdownload").write_bytes(data[:-3000])
    with pytest.raises(InputError) as e: read_farm(tmp_path)
    assert "no image zip for cow" in str(e.value) and "Still being downloaded: [원천]소_bbox.zip.crdownload (" in str(e.value)
    assert "whole files in the first" in str(e.value)


def test_extraction_compares_checksums(tmp_path: Path):
    images, *_ = read_farm(write_farm(tmp_path, farm_files()))
    patched(COW, b"\xff\xda", poke(90, b"~~"))(tmp_path)
    problems = extract_images(images, tmp_path/"pixels")
    assert problems[["image", "kind"]].to_numpy().tolist() == [[f"{ONE}.jpg", "unreadable"]] and "CRC" in problems.detail[0]
    assert sorted(p.name for p in (tmp_path/"pixels").iterdir()) == sorted(WITHOUT_ONE)


@pytest.mark.parametrize("prefix", ["../../", "/", "C:\\", "..\\..\\", "a/../../../"])
def test_extraction_stays_in_its_folder(prefix: str, tmp_path: Path):
    home = tmp_path/"deep"/"down"
    files = farm_files() | {COW: {prefix + m: d for m, d in COWS.items()}}
    images, *_ = read_farm(write_farm(home/"zips", files))
    before = {p for p in tmp_path.rglob("*") if home/"pixels" not in p.parents}
    assert extract_images(images, home/"pixels").empty
    assert {p for p in tmp_path.rglob("*") if home/"pixels" not in p.parents} - before == {home/"pixels"}
    assert sorted(p.name for p in (home/"pixels").iterdir()) == ALL
    for evil in ("../evil.jpg", "/evil.jpg", "..", ".", ""):
        said = extract_images(images.iloc[:1].assign(image=evil), home/"pixels")
        assert said.detail.tolist() == ["its name is no file name"], evil


EXTRACT = """
import os, sys
from livestock_nb import intake
put, left = intake.put_file, [int(sys.argv[3])]
def put_or_die(data, path):
    left[0] -= 1
    if not left[0]:
        path.with_name(f".9.{path.name}.tmp").write_bytes(data[:100])
        os.kill(os.getpid(), 9)
    put(data, path)
intake.put_file = put_or_die
print(len(intake.extract_images(intake.list_images(sys.argv[1], False)[0], sys.argv[2])))
"""


def test_a_killed_extraction_goes_on(tmp_path: Path):
    write_farm(tmp_path/"zips", files := farm_files(60))
    out = tmp_path/"pixels"
    command = [sys.executable, "-c", EXTRACT, str(tmp_path/"zips"), str(out)]
    assert subprocess.run([*command, "50"], capture_output=True).returncode == -signal.SIGKILL
    left = {p: p.stat().st_mtime_ns for p in out.glob("*.jpg")}
    assert 45 <= len(left) <= 50 and len(list(out.iterdir())) > len(left)  # and the half file beside them
    (torn := next(iter(left))).write_bytes(b"torn by a power cut")
    assert subprocess.run([*command, "999"], capture_output=True, text=True, check=True).stdout == "0\n"
    want = {m: d for n, members in files.items() if "원천" in n for m, d in members.items()}
    assert {p.name: p.read_bytes() for p in out.iterdir()} == want
    assert all(p.stat().st_mtime_ns == t for p, t in left.items() if p != torn)  # what was whole was not written again


def test_the_dataset_card(tmp_path: Path):
    for _, change, *_ in FAULTS[3:7]: change(files := farm_files())
    images, boxes, problems = read_farm(write_farm(tmp_path, files))
    split = pd.DataFrame(dict(image=images.image, stratum="little", fold=0, side=["train", "valid", "train"]))
    card = dataset_card(images, boxes, problems, split)
    assert str(tmp_path) not in card and card == dataset_card(images[::-1], boxes[::-1], problems[::-1], split[::-1])
    for word in ("[원천]소_bbox.zip | cow | 1", "| pig | 2 |", "invalid json", "## Split", table_hash(split, ["image", "side"]), "1 farms"):
        assert word in card
    moved = dataset_card(images, boxes, problems, split.assign(side=["valid", "train", "train"]))
    assert table_hash(split, ["image", "side"]) not in moved and "## Split" not in dataset_card(images, boxes, problems)
    for some in ((images, boxes), (image_table([]), box_table([]))): assert "None were found" in dataset_card(*some, problems[:0])


def test_every_kind_of_problem_is_tested():
    others = {"unfinished download", "invalid xml", "invalid label", "foreign class"}  # here further up, and with the other formats
    assert {f[2] for f in FAULTS} == set(FATES) - others


def test_boxes_without_an_image_size_are_no_crash():
    boxes, problems = check_boxes(pd.DataFrame(columns=["image", "label", *CORNERS, "width", "height"]))
    assert boxes.empty and problems == []


def test_a_list_of_images_needs_no_labels(tmp_path: Path):
    files = {n: m for n, m in farm_files().items() if "원천" in n}
    files[COW][f"{ONE}.jpg"] = b"no"
    images, problems = list_images(write_farm(tmp_path, files))
    assert images.image.tolist() == WITHOUT_ONE and problems[["image", "kind"]].to_numpy().tolist() == [[f"{ONE}.jpg", "unreadable"]]
    write_farm(tmp_path, {"[라벨]소_bbox.zip": {"livestock_cow_bbox_000009.json": b"not even json"}})
    pd.testing.assert_frame_equal(list_images(tmp_path)[1], problems)  # label zips are not looked into


def test_problem_table_is_sorted_and_says_what_was_done():
    table = problem_table(iter([dict(image="b", kind="truncated", detail="x"), dict(image="a", kind="other", detail="y", action="kept back")]))
    assert table.to_numpy().tolist() == [["a", "other", "y", "kept back"], ["b", "truncated", "x", "kept"]]
    assert list(problem_table([])) == ["image", "kind", "detail", "action"]


def test_paths_survive_the_table():
    for path in (Path("/a/소.zip"), Path(os.fsdecode("/a/소 1%20.zip".encode("cp949")))):
        path_text(path).encode()
        assert text_path(path_text(path)) == path


@pytest.mark.skipif(not SHARED.is_dir(), reason="the farm pictures in ../shared/data are not here")
def test_the_shared_farm():
    images, boxes, problems = read_farm(SHARED)
    assert images.species.value_counts().to_dict() == dict(cow=191, pig=103) and len(boxes) == 1491 and problems.empty
    counts, problems, why = check_farm(SHARED)
    assert counts.images.tolist() == [191, 103] and problems.empty and not why
