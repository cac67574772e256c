"""Folds, datasets on disk, and the mini part."""
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from livestock_nb.data import InputError, box_table, image_table, save_table
from livestock_nb.groups import image_hashes
from livestock_nb.mini import mix_distance, mix_report, take_mini, take_share
from livestock_nb.split import (
    assign_folds,
    compare_splits,
    deal,
    kept_hashes,
    load_tables,
    make_split,
    readable_images,
    reference_split,
    split_report,
    training_file,
    write_labels,
    write_lists,
    write_pixels,
)

COUNTS = {"cow little": 738, "cow medium": 341, "cow many": 136, "pig little": 51, "pig medium": 275, "pig many": 105}  # a tenth of the real set


def made_up(run: int = 1, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Traits as `image_traits` gives them, with random shapes and sizes, and groups of `run` images of one stratum."
    rng = np.random.default_rng(seed)
    stratum = pd.Series([s for s, n in COUNTS.items() for _ in range(n)]).rename("stratum")
    stratum.index = [f"{i:05d}.jpg" for i in range(len(stratum))]
    traits = pd.get_dummies(stratum, prefix="stratum", prefix_sep=" ", dtype=float)
    for kind, n in (("ratio", 3), ("size", 4)):
        for k, share in enumerate(rng.dirichlet([1]*n, len(stratum)).T): traits[f"{kind} {k}"] = share
    number = stratum.groupby(stratum).cumcount()
    return traits, stratum.str.cat((number//run).astype(str), sep=" ").rename("group")


def worst(traits: pd.DataFrame, part: pd.Series, shares: list) -> pd.DataFrame:
    "Images by which each part is off, stratum by stratum."
    kinds = traits.filter(regex="^stratum ")
    return (kinds.groupby(part).sum() - np.outer(shares, kinds.sum())).abs()


def test_every_stratum_is_within_an_image_of_its_share_and_shapes_and_sizes_are_alike():
    traits, group = made_up()
    fold = assign_folds(traits, group)
    assert worst(traits, fold, [.2]*5).to_numpy().max() <= 1  # the reference: 16.0 % of pig little instead of 20 %
    means = traits.filter(regex="ratio|size").groupby(fold).mean()
    chance = np.random.default_rng(1).permutation(fold)
    assert (means.max() - means.min()).mean() < .5*(lambda m: m.max() - m.min())(traits.filter(regex="ratio|size").groupby(chance).mean()).mean()


@pytest.mark.parametrize(("run", "shares"), [(4, [1]*5), (7, [1]*5), (5, [.9, .1]), (3, [.02, .98])])
def test_groups_stay_whole_and_strata_near_their_share(run: int, shares: list):
    traits, group = made_up(run)
    part = deal(traits, group, shares)
    assert part.groupby(group).nunique().max() == 1
    assert worst(traits, part, np.array(shares)/np.sum(shares)).to_numpy().max() < run


def test_single_images_fill_what_groups_leave_open():
    traits, group = made_up(6)
    group = group.where(np.arange(len(group)) % 12 < 9, group.index.to_series())  # three of four stand in groups
    assert worst(traits, deal(traits, group, [1]*5), [.2]*5).to_numpy().max() <= 1


@pytest.mark.parametrize("run", [1, 4])
def test_row_order_never_matters_and_the_seed_does(run: int):
    traits, group = made_up(run)
    fold = assign_folds(traits, group)
    assert fold.equals(assign_folds(traits.sample(frac=1, random_state=3), group.sample(frac=1, random_state=4)).reindex(fold.index))
    assert not fold.equals(assign_folds(traits, group, seed=1))


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
    (tmp_path/"valid.txt").write_text("of a run before")
    data = yaml.safe_load(write_lists(split, tmp_path).read_text())
    assert data["val"] == val and data["names"] == {0: "cow", 1: "pig"}
    assert len((tmp_path/"train.txt").read_text().split()) == split.side.eq("train").sum() == (10 if full else 8)
    assert (tmp_path/"valid.txt").exists() != full
    assert split_report(split).images.sum() == 10


@pytest.mark.parametrize("kw", [dict(folds=1), dict(folds=11), dict(valid="fold 5"), dict(valid="fold -1"), dict(valid="fold"), dict(valid=""),
                                dict(valid="barn 1"), dict(valid="farm here"), dict(valid="camera")])
def test_splits_that_cannot_be_are_refused(farm: tuple, kw: dict):
    with pytest.raises(InputError, match="give"): make_split(*farm, **kw)


def test_everything_can_be_train_however_few_images_there_are(farm: tuple):
    images, boxes = farm
    assert make_split(images[:1], boxes, full=True)[["image", "side", "fold"]].to_numpy().tolist() == [["0.jpg", "train", 0]]
    with pytest.raises(InputError, match="full=True"): make_split(images[:1], boxes)


def test_rows_in_another_order_give_the_same_table(farm: tuple):
    images, boxes = farm
    for kw in ({}, dict(full=True)):
        assert make_split(*farm, **kw).equals(make_split(images.sample(frac=1, random_state=0), boxes.sample(frac=1, random_state=1), **kw))


def test_images_that_cannot_be_read_are_left_out_by_name(farm: tuple, tmp_path: Path):
    images, lost = readable_images(farm[0], image_hashes(farm[0]))
    assert lost.image.tolist() == ["1.jpg"] and len(images) == 9 and "not a readable image" in lost.detail.iloc[0]


def test_a_valid_set_can_come_from_tables_of_its_own(farm: tuple, tmp_path: Path):
    images, boxes = farm
    for name, part in (("a", images[:7]), ("b", images[7:]), ("c", images[6:])):
        save_table(part, tmp_path/name/"images.parquet")
        save_table(boxes[boxes.image.isin(part.image)], tmp_path/name/"boxes.parquet")
    both, found = load_tables(tmp_path/"a", tmp_path/"b")
    assert both.equals(images) and found.equals(boxes) and len(load_tables(tmp_path/"a", "fold 4")[0]) == 7
    split = make_split(both.assign(group=["", "x"]*5), found, valid=tmp_path/"b")
    assert split.image[split.side == "valid"].tolist() == ["7.jpg", "8.jpg", "9.jpg"]
    assert split.image[split.side == "left out"].tolist() == ["1.jpg", "3.jpg", "5.jpg"]
    with pytest.raises(InputError, match="1 images .*6.jpg"): load_tables(tmp_path/"a", tmp_path/"c")


def test_each_fold_is_valid_in_turn(farm: tuple):
    parts = [make_split(*farm, valid=f"fold {k}") for k in range(5)]
    assert sorted(n for p in parts for n in p.image[p.side == "valid"]) == sorted(farm[0].image)


@pytest.mark.parametrize("valid", ["farm b", "camera 1"])
def test_a_farm_or_a_camera_can_be_held_out(farm: tuple, valid: str):
    images, boxes = farm
    images = images.assign(farm=["a", "b"]*5, camera=["0", "1"]*5)
    split = make_split(images, boxes, valid=valid)
    assert split.image[split.side == "valid"].tolist() == [f"{i}.jpg" for i in (1, 3, 5, 7, 9)]
    with pytest.raises(InputError, match="nothing is left"): make_split(images.assign(farm="b"), boxes, valid="farm b")


def test_a_fixed_list_stays_as_it_is_and_train_keeps_away_from_it(farm: tuple, tmp_path: Path):
    images, boxes = farm
    images = images.assign(group=["x", "x", "y", "y", "y", "", "", "", "", ""])
    (tmp_path/"v.txt").write_text("./images/0.jpg\nC:\\there\\5.jpg\n\n")
    split = make_split(images, boxes, valid=tmp_path/"v.txt")
    assert split.set_index("image").side.to_dict() == {f"{i}.jpg": {0: "valid", 5: "valid", 1: "left out"}.get(i, "train") for i in range(10)}
    write_lists(split, tmp_path)
    assert len((tmp_path/"train.txt").read_text().split()) == 7 and len((tmp_path/"valid.txt").read_text().split()) == 2
    assert split_report(split).images.sum() == 9
    pd.DataFrame(dict(image=["0.jpg", "5.jpg"])).to_csv(tmp_path/"v.csv", index=False)
    assert split.equals(make_split(images, boxes, valid=tmp_path/"v.csv"))
    for text, name in (("", "u.txt"), ("0.jpg\nz.jpg", "u.txt"), ("name\n0.jpg", "u.csv")):
        (tmp_path/name).write_text(text)
        with pytest.raises(InputError, match=name): make_split(images, boxes, valid=tmp_path/name)


def test_the_report_says_which_stratum_could_give_nothing():
    split = pd.DataFrame(dict(image=list("abcdef"), group=list("xxyzvv"), stratum=["cow little"]*2 + ["pig many"]*2 + ["pig medium"]*2,
                              side=["train"]*3 + ["valid"]*3))
    report = split_report(split, .5)
    assert report.note.tolist() == ["its one group is train", "", "its one group is valid"]
    assert report.off_by.tolist() == [1, 0, 1] and report.groups.tolist() == [1, 2, 1]


def test_the_last_fold_has_both_species_where_few_groups_allow_it():
    images = image_table([dict(image=f"{i}.jpg", species="pig" if i < 2 else "cow", width=9, height=9, group=f"{i//2}") for i in range(12)])
    boxes = box_table([dict(image=f"{i}.jpg", label="pig" if i < 2 else "cow", x1=0, y1=0, x2=4, y2=4) for i in range(12)])
    split = make_split(images, boxes)  # six groups, one of them pigs
    assert {"1.jpg", "0.jpg"} <= set(split.image[split.side == "valid"]) and split.groupby("group").side.nunique().max() == 1
    assert split.stratum[split.side == "valid"].str.startswith("cow").any()


def test_hashes_are_kept_and_made_only_for_other_bytes(farm: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = farm[0].assign(sha=farm[0].image)
    (tmp_path/"b").mkdir()
    first = kept_hashes(images, tmp_path)
    assert (first.hash == "").sum() == 1  # the one that is no image
    asked = []
    monkeypatch.setattr("livestock_nb.split.image_hashes", lambda some: asked.extend(some.image) or image_hashes(some))
    assert kept_hashes(images, tmp_path).equals(first) and asked == []
    again = kept_hashes(images.assign(sha=[*images.sha[:9], "new"]), tmp_path/"b", tmp_path)
    assert again.hash.tolist() == first.hash.tolist() and asked == ["9.jpg"]


def test_leaks_are_counted_and_the_reference_has_them():
    traits, group = made_up(4)
    stratum = traits.filter(regex="^stratum ").idxmax(axis=1).str.removeprefix("stratum ")
    split = pd.DataFrame(dict(group=group, stratum=stratum, fold=assign_folds(traits, group)))
    split = split.assign(side=np.where(split.fold == 4, "valid", "train")).rename_axis("image").reset_index()
    pairs = split.merge(split, on="group").query("image_x < image_y").rename(columns={"image_x": "image", "image_y": "other"})
    table = compare_splits({"here": split, "reference": reference_split(split)}, pairs).set_index("way")
    assert table.leaks["here"] == 0 and table.leaked_percent["here"] == 0
    assert table.leaked_percent["reference"] > 80  # of its valid images nearly all have a twin in train
    assert abs(table.worst_percent["here"] - 20) < 100*4/51  # pig little, the rarest, has 51 images in groups of four


def tree(folder: Path) -> dict[str, int]:
    "Each file with its inode: a file that was not written anew keeps it."
    return {p.name: p.stat().st_ino for p in folder.iterdir() if not p.name.startswith(".")}


def test_killed_pixels_go_on_and_changed_ones_are_made_anew(farm: tuple, tmp_path: Path):
    images = farm[0].assign(sha=farm[0].image)
    out = tmp_path/"images"
    write_pixels(images, out, 96)
    before = tree(out)
    (out/"3.jpg").unlink()  # as if killed before
    (out/"4.jpg").write_bytes(b"")  # as a lost disk leaves it
    write_pixels(images, out, 96)
    after = tree(out)
    assert {n for n in before if before[n] == after[n]} >= set(before) - {"3.jpg", "4.jpg"} and (out/"4.jpg").stat().st_size
    write_pixels(images[:8].assign(sha=["new", *images.image[1:8]]), out, 96)  # other bytes under an old name, and two images less
    assert tree(out).keys() == {f"{i}.jpg" for i in (0, 2, 3, 4, 5, 6, 7)} and tree(out)["5.jpg"] == after["5.jpg"]
    write_pixels(images, out, 48)
    assert cv2.imread(str(out/"5.jpg")).shape == (27, 48, 3)


def test_splits_share_one_copy_of_the_pixels(farm: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = farm[0].assign(sha=farm[0].image)
    failed = write_pixels(images, tmp_path/"a", 96)
    write_pixels(images, tmp_path/"b", 96, tmp_path/"a")
    assert tree(tmp_path/"a") == tree(tmp_path/"b")  # the same files, not the same bytes twice
    assert write_pixels(images, tmp_path/"b", 96, tmp_path/"a").equals(failed)  # and again; the unreadable one is told again
    write_pixels(images, tmp_path/"c", 64, tmp_path/"a")
    assert cv2.imread(str(tmp_path/"c"/"5.jpg")).shape == (36, 64, 3)
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links on this disk")))
    write_pixels(images, tmp_path/"d", 96, tmp_path/"a")
    assert (tmp_path/"d"/"5.jpg").read_bytes() == (tmp_path/"a"/"5.jpg").read_bytes()


def test_a_damaged_zip_member_is_told_by_name(farm: tuple, tmp_path: Path):
    images, _ = farm
    home = tmp_path/"a.zip"
    data = bytearray(home.read_bytes())
    with zipfile.ZipFile(home) as z: at = z.getinfo("in/5.jpg").header_offset
    data[at + 900] ^= 255  # one byte: only the CRC can tell
    home.write_bytes(data)
    failed = write_pixels(images, tmp_path/"out")
    assert failed.image.tolist() == ["5.jpg"] and "CRC" in failed.detail[0]


@pytest.mark.parametrize(("size", "long_side", "shape"), [((1920, 1080), 640, (360, 640)), ((1280, 960), 640, (480, 640)), ((1280, 960), 1280, None),
                                                          ((1000, 333), 640, (214, 640)), ((99, 1001), 320, (320, 32))])
def test_scaled_pixels_have_the_size_that_ultralytics_would_give_them(size: tuple, long_side: int, shape: tuple):
    data = cv2.imencode(".jpg", np.full((*size[::-1], 3), 99, np.uint8))[1].tobytes()
    for known in (None, size):  # whether or not the table knows the size
        got = training_file(data, long_side, size=known)
        assert got == data if shape is None else cv2.imdecode(np.frombuffer(got, np.uint8), 1).shape[:2] == shape


@pytest.mark.parametrize("run", [1, 5])
def test_a_share_keeps_the_mix_and_every_stratum(run: int):
    traits, group = made_up(run)
    stratum = traits.filter(regex="^stratum ").idxmax(axis=1).str.removeprefix("stratum ")
    split = pd.DataFrame(dict(group=group, stratum=stratum, side="train")).rename_axis("image").reset_index()
    part = take_share(split, traits, .1)
    got = part.stratum.value_counts()
    assert all(abs(got[s] - n/10) <= run for s, n in COUNTS.items())
    assert part.groupby("group").size().eq(split.groupby("group").size()).sum() == part.group.nunique()  # whole groups
    assert part.equals(take_share(split.sample(frac=1, random_state=5), traits, .1))
    assert set(take_share(split, traits, .001).stratum) == set(COUNTS)
    assert take_share(split, traits, 1).image.tolist() == split.image.tolist()
    with pytest.raises(InputError, match="fraction"): take_share(split, traits, 0)


def test_a_mini_part_lies_inside_each_side_and_says_how_far_off_it_is():
    traits, group = made_up(4)
    stratum = traits.filter(regex="^stratum ").idxmax(axis=1).str.removeprefix("stratum ")
    split = pd.DataFrame(dict(group=group, stratum=stratum, fold=assign_folds(traits, group)))
    split = split.assign(side=np.where(split.fold == 4, "valid", "train")).rename_axis("image").reset_index()
    mini = take_mini(split, traits, dict(train=.5, valid=.25))
    assert mini.merge(split, on=["image", "side"]).shape[0] == len(mini) and mini.image.is_unique
    table = mix_distance(mix_report(split, mini)).set_index("side")
    assert table.moved["train"] < 1 and table.moved["valid"] < 6 and abs(table.of_whole["train"] - 50) < 1 and abs(table.of_whole["valid"] - 25) < 2
    assert set(take_mini(split[split.side == "train"], traits, dict(train=.5, valid=1)).side) == {"train"}


def test_strata_alone_can_be_dealt():
    "Traits need not hold shapes and sizes, and some of them may be those of images without a box."
    traits, group = made_up()
    strata = traits.filter(regex="^stratum ")
    assert worst(strata, deal(strata, group, [1]*5), [.2]*5).to_numpy().max() <= 1
    empty = traits.mul(np.arange(len(traits)) % 2, axis=0).assign(**strata)
    assert worst(empty, deal(empty, group, [1]*5), [.2]*5).to_numpy().max() <= 1


@pytest.mark.parametrize("single", [True, False])
def test_a_share_of_very_few_images_is_some_of_them(single: bool):
    split = pd.DataFrame(dict(image=list("abcd"), group=list("abcd" if single else "aacc"), stratum=["cow little"]*3 + ["pig many"], side="train"))
    mix = pd.get_dummies(split.set_index("image").stratum, prefix="stratum", prefix_sep=" ", dtype=float)
    part = take_share(split, mix, .5)
    assert 2 <= len(part) < 4 and part.side.eq("train").all()
