"Findings: each rule on tables where the answer is plain, and all of them on planted farms."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, box_table, image_table
from livestock_nb.findings import (
    bare_cameras,
    blank_images,
    copied_labels,
    cornered_labels,
    double_boxes,
    find_facts,
    find_faults,
    find_suspects,
    foreign_labels,
    inside,
    missing_labels,
    night_fact,
    odd_boxes,
    problem_suspects,
    seen_again,
    suspect_table,
)

NO_PROBLEMS = pd.DataFrame(columns=["image", "kind", "detail"], dtype=str)
NO_HASHES = pd.DataFrame(columns=["image", "hash"], dtype=str)


def farm(counts: dict[str, list[int]], size: tuple[int, int] = (1920, 1080)) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Images with so many boxes of 100×100 px each."
    (w, h), names = size, [(s, i, n) for s, ns in counts.items() for i, n in enumerate(ns)]
    images = [dict(image=f"{s}_{i}.jpg", species=s, width=w, height=h) for s, i, _ in names]
    boxes = [dict(image=f"{s}_{i}.jpg", label=s, x1=150*j, y1=0, x2=150*j+100, y2=100) for s, i, n in names for j in range(n)]
    return image_table(images), box_table(boxes)


def one(*corners: tuple, **more) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = image_table([dict(image="a.jpg", species="pig", width=1280, height=960)])
    return images, box_table([dict(image="a.jpg", label="pig", x1=a, y1=b, x2=c, y2=d) | more for a, b, c, d in corners])


def test_a_plain_farm_has_no_fact():
    assert find_facts(*farm(dict(cow=[3, 4, 6], pig=[4, 4, 5]))).empty


@pytest.mark.parametrize("counts, size, says, evidence", [
    (dict(cow=[4], pig=[10]), (99, 99), "a pig image holds more boxes", "cow 4.00, pig 10.00 boxes an image"),
    (dict(cow=[10], pig=[4]), (99, 99), "a cow image holds more boxes", "cow 10.00, pig 4.00 boxes an image"),
    (dict(cow=[4, 0]), (99, 99), "some images hold no box", "cow 1 of 2"),
    (dict(cow=[3]*19 + [4]), (99, 99), "some strata are rare", "cow medium 1 images")])
def test_a_fact_comes_with_its_numbers(counts: dict, size: tuple, says: str, evidence: str):
    found = find_facts(*farm(counts, size))
    assert found[found.fact.str.contains(says)].evidence.tolist() == [evidence]


def test_facts_of_sizes_small_boxes_and_overshoot():
    images, boxes = farm(dict(pig=[1, 1, 1]))
    images.loc[0, ["width", "height"]] = (1280, 960)
    boxes.loc[0, ["y2", "raw_y2"]] = 30
    boxes.loc[1, "raw_y1"] = -15
    found = find_facts(images, boxes).set_index("fact").evidence
    assert found.tolist() == ["pig 1920×1080 2, 1280×960 1", "pig 1 (33.33 %)", "pig 1 of 3, by 15 px at most"]


@pytest.mark.parametrize("corners, raw, wanted, why", [
    ((10, 10, 20, 20), {}, [], "100 px² is the smallest that counts as a box"), ((10, 10, 19, 20), {}, ["box tiny"], "90 px²"),
    ((0, 0, 100, 50), dict(raw_y1=-15), [], "pigs reach up to 15 px over the top, by design"),
    ((0, 0, 100, 50), dict(raw_y1=-20), ["box far outside"], "2 % of 960 is 19.2"),
    ((1180, 0, 1280, 50), dict(raw_x2=1305), [], "2 % of 1280 is 25.6"), ((1180, 0, 1280, 50), dict(raw_x2=1306), ["box far outside"], "more")])
def test_odd_boxes_at_their_edges(corners: tuple, raw: dict, wanted: list, why: str):
    assert odd_boxes(*one(corners, **raw)).kind.tolist() == wanted, why


def test_a_huge_box_is_one_that_the_others_are_not():
    images, boxes = farm(dict(cow=[3]*10))
    boxes.loc[[0, 3], CORNERS] = (0, 0, 1800, 1000)
    assert odd_boxes(images, boxes).detail.tolist() == ["87 % of the frame"]*2
    boxes.loc[[6], CORNERS] = (0, 0, 1800, 900)
    assert odd_boxes(images, boxes).empty  # in three images of ten: close-ups


def test_double_boxes_are_counted_once():
    _, boxes = one((0, 0, 100, 100), (1, 1, 100, 100), (300, 0, 400, 100), (350, 0, 450, 100))
    assert double_boxes(boxes)[["x1", "detail"]].to_numpy().tolist() == [[1, "IoU 0.98 with another"]]


def test_cameras_without_labels():
    images, boxes = farm(dict(cow=[2, 2, 2, 0, 0, 0, 0, 0]))
    images["camera"] = ["1"]*3 + ["2"]*3 + ["3"]*2
    assert bare_cameras(images, boxes).image.tolist() == ["cow_3.jpg", "cow_4.jpg", "cow_5.jpg"]  # of camera 3 there are too few
    assert bare_cameras(images.assign(camera=""), boxes).empty


def test_copied_labels_are_those_of_another_scene():
    images, boxes = farm(dict(cow=[2, 2, 1, 1, 3]))
    assert copied_labels(images.assign(group=list("abcde")), boxes).image.tolist() == ["cow_0.jpg", "cow_1.jpg"]  # a single box may fit by chance
    assert copied_labels(images.assign(group=list("aacde")), boxes).empty  # a still herd
    assert copied_labels(images, boxes.iloc[:0]).empty


def test_labels_of_another_size_need_enough_boxes():
    boxes = [(40*i, 20*i, 40*i+100, 20*i+100) for i in range(20)]
    assert "66 % of the width" in cornered_labels(*one(*boxes)).detail[0]
    assert cornered_labels(*one(*boxes[:19])).empty and cornered_labels(*one(*boxes, (1180, 0, 1280, 90))).empty


def test_seen_again_follows_a_piece_that_moved():
    rng = np.random.default_rng(0)
    here = np.full((135, 240, 3), 90, np.uint8)
    here[40:60, 100:130] = rng.integers(0, 255, (20, 30, 3))
    there = np.roll(here, (3, -5), (0, 1))
    fit, at = seen_again(here, there, np.array([100, 40, 130, 60]))
    assert fit > .99 and at.tolist() == [95, 43, 125, 63]
    assert seen_again(here, np.full_like(here, 90), np.array([100, 40, 130, 60]))[0] == 0  # a blank picture fits nowhere
    assert seen_again(here, there, np.array([100, 40, 103, 60]))[0] == 0


def twins(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame([dict(image=a, other=b, label="cow", fit=fit, iou=iou, x1=x, y1=0., x2=x+100, y2=100.) for a, b, fit, iou, x in rows])


def test_an_image_whose_only_box_is_odd_is_not_unlabelled():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (135, 240, 3), np.uint8)
    images, boxes = farm(dict(cow=[1, 1]))
    boxes.loc[0, [*CORNERS, "raw_y1"]] = (0, 0, 5, 5, 0)  # tiny
    hashes = pd.DataFrame(dict(image=images.image, hash=["0"*64]*2))
    found = find_suspects(images.assign(group="run"), boxes, NO_PROBLEMS, hashes, dict.fromkeys(images.image, noise))
    assert found.kind.tolist() == ["box tiny"]


def test_missing_labels_by_hand():
    _, boxes = farm(dict(cow=[4, 4, 0]))
    rows = [("cow_0.jpg", "cow_1.jpg", .9, 0, 300.*i) for i in range(3)] + [("cow_0.jpg", "cow_1.jpg", .9, .9, 0)]*7
    found = missing_labels(boxes, twins(*rows, ("cow_1.jpg", "cow_0.jpg", .5, 0, 0)))  # what fits badly has left
    assert found.image.tolist() == ["cow_1.jpg"]*3 and found.detail[0].startswith("3 of 10 boxes (30 %)")
    assert missing_labels(boxes, twins(*rows[:2], *rows[3:], rows[3])).empty  # two of ten: by chance
    assert missing_labels(boxes, twins(*rows[:9])).empty  # three of nine: too few to tell
    assert missing_labels(boxes, twins(("cow_0.jpg", "cow_2.jpg", .9, 0, 0))).kind.tolist() == ["image unlabelled"]
    assert len(missing_labels(boxes, twins(*rows, *rows))) == 3  # one place, however often it is meant


def test_foreign_labels_by_hand():
    _, boxes = farm(dict(cow=[4, 4, 4]))
    def agree(a: int, b: int, n: int) -> list: return [(f"cow_{a}.jpg", f"cow_{b}.jpg", .9, .9*(i < n), 0) for i in range(4)]
    rows = [r for a, b, n in ((0, 1, 4), (1, 0, 4), (0, 2, 0), (2, 0, 0), (1, 2, 1), (2, 1, 1)) for r in agree(a, b, n)]
    assert foreign_labels(boxes, twins(*rows)).detail.tolist() == ["2 of 16 boxes agree with near-identical frames"]
    assert foreign_labels(boxes, twins(*rows).assign(fit=.5)).empty  # the animals have walked on: no picture agrees


def test_inside_is_the_mean_of_a_moved_box():
    field = np.zeros((20, 30), np.float32)
    field[5:10, 10:20] = 8
    assert inside(field, np.array([[8, 5, 18, 10]]), np.array([[0, 0], [2, 0], [-20, 0]])).tolist() == [6.4, 8, 0]


def test_blank_images_and_problems():
    small = dict(a=np.full((10, 10, 3), 7, np.uint8), b=np.random.default_rng(0).integers(0, 255, (10, 10, 3), np.uint8), c=ValueError("unread"))
    assert blank_images(small).image.tolist() == ["a"]
    kinds = ["truncated", "box outside the frame", "near-identical boxes", "EXIF rotated"]
    told = problem_suspects(pd.DataFrame(dict(image=list("abcd"), kind=kinds, detail="")))
    assert told.kind.tolist() == ["truncated", "box doubled"]


def test_a_finding_says_how_many_and_where():
    images, _ = farm(dict(cow=[1]*5))
    rows = [dict(image="cow_1.jpg", kind="truncated", detail="9 bytes"), dict(image="livestock_pig_bbox_7.jpg", kind="unreadable", detail="0 bytes")]
    found = find_faults(suspect_table(rows, images), images)
    assert found[["finding", "evidence"]].to_numpy().tolist() == [
        ["cow: reading the zips met: truncated", "1 of 5 images, e.g. cow_1.jpg: 9 bytes"],
        ["pig: reading the zips met: unreadable", "1 of 0 images, e.g. livestock_pig_bbox_7.jpg: 0 bytes"]]


@pytest.mark.parametrize("counts", [dict(cow=[0, 0]), dict(cow=[2]), dict(pig=[1, 0])], ids=str)
def test_a_farm_with_little_in_it_has_no_fault(counts: dict):
    images, boxes = farm(counts)
    suspects = find_suspects(images.assign(group=images.image), boxes, NO_PROBLEMS, NO_HASHES, {})
    assert suspects.empty and find_faults(suspects, images).empty


def test_nights_and_runs_are_facts():
    images, boxes = farm(dict(cow=[4, 4, 5]))
    assert night_fact(pd.DataFrame(dict(species=["cow"]*3, infrared=[True, False, False])))["evidence"] == "cow 1 of 3 looked at"
    assert find_facts(images.assign(group=list("aab")), boxes).evidence.tolist() == ["cow 3 images in 2 runs, the longest of 2"]


def test_planted_faults_are_found_and_a_clean_farm_has_none():
    "Two farms of the benchmark's kind."
    command = [sys.executable, str(Path(__file__).parents[1]/"benchmarks"/"findings.py"), "--farms", "2", "--seed", "0"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    got = json.loads(said)
    assert got["precision"] >= .9 and got["recall"] >= .9 and got["clean_findings"] == 0 and got["planted"] >= 10  # of 13
