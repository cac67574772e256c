"Answers of people: the journal and what kills it, undo, order, precedence, sheets, and the page without a browser."
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, InputError, box_table, image_table, load_table, path_text
from livestock_nb.review import (
    add_decision,
    add_sheet,
    apply_decisions,
    box_keys,
    check_decision,
    decision_table,
    false_worth,
    gives_way,
    last_words,
    link_suspects,
    load_suspects,
    mending_worth,
    order_suspects,
    picture_jpeg,
    pixels,
    queue,
    read_decisions,
    read_journal,
    read_sheet,
    review,
    save_pages,
    undo,
    write_sheet,
)

WORDS = lambda v: v if isinstance(v, str) else ""  # what a test case is called
NASTY = "<img src=x onerror=alert(1)>.jpg"


def cow(x: float, y: float = 20, image: str = "a.jpg", **more) -> dict:
    return dict(image=image, label="cow", x1=x, y1=y, x2=x + 90, y2=y + 60) | more


@pytest.fixture
def farm(tmp_path: Path):
    "Images (one with a name that is a tag), their boxes, and a suspect of each kind."
    for name, shape in (("a.jpg", (360, 640)), ("b.jpg", (1500, 2400)), (NASTY, (200, 300))):
        (tmp_path/name).write_bytes(cv2.imencode(".jpg", np.full((*shape, 3), 99, np.uint8))[1].tobytes())
    images = image_table([dict(image=n, species="cow", width=w, height=h, zip=str(tmp_path), member=n)
                          for n, w, h in (("a.jpg", 640, 360), ("b.jpg", 2400, 1500), (NASTY, 300, 200))])
    boxes = box_table([cow(10), cow(150), cow(300, label="pig"), cow(450, 200), cow(5, image=NASTY), cow(1000, -4, "b.jpg")])
    suspects = pd.DataFrame([
        cow(300, label="pig", kind="wrong class", probability=.9), cow(540, 100, kind="missing", probability=.8),
        cow(150, kind="misplaced", probability=.5),
        cow(5, image=NASTY, kind="nothing", probability=.6), cow(1000, 0, "b.jpg", y2=56, kind="misplaced", probability=.2)])
    return images, boxes, suspects


@pytest.fixture
def asked(farm) -> pd.DataFrame:
    linked, problems = link_suspects(farm[2], farm[0], farm[1])
    assert not len(problems)
    return order_suspects(linked, farm[1])


def say(path: Path, s, action: str, **more) -> dict:
    return add_decision(path, action=action, **(dict(image=s.image, box=s.box, label=s.label, **{c: float(s[c]) for c in CORNERS}) | more))


# keys and links

def test_a_box_has_one_name_whatever_the_order_and_twins_have_two():
    boxes = box_table([cow(10), cow(10), cow(10.001), cow(10, image="b.jpg"), cow(-.001)])
    keys = box_keys(boxes)
    assert sorted(keys[boxes.image == "a.jpg"]) == ["cow 0 20 90 80", "cow 10 20 100 80", "cow 10 20 100 80 #2", "cow 10 20 100 80 #3"]
    shuffled = boxes.sample(frac=1, random_state=0)
    assert set(zip(shuffled.image, box_keys(shuffled), strict=True)) == set(zip(boxes.image, keys, strict=True))


def test_a_suspect_finds_its_label_though_that_was_clipped(farm, asked):
    images, boxes, _ = farm
    linked = asked.set_index(["image", "kind"])
    assert boxes.y1[linked.loc[("b.jpg", "misplaced")].row] == -4  # the label overshoots the frame, the suspect does not
    assert linked.loc[("a.jpg", "missing")].row == -1


@pytest.mark.parametrize("row, why", [
    (cow(10, image="gone.jpg", kind="missing"), "not in the tables"), (cow(10, label="goat", kind="missing"), "label is unknown"),
    (cow(np.nan, kind="missing"), "no place"), (cow(60, 150, kind="nothing"), "is gone")], ids=WORDS)
def test_a_bad_suspect_is_named_and_the_others_stay(farm, row: dict, why: str):
    linked, problems = link_suspects(pd.concat([farm[2], pd.DataFrame([row])]), *farm[:2])
    assert len(linked) == len(farm[2]) and why in problems.detail.item()


def test_suspects_without_corners_are_refused(farm):
    with pytest.raises(InputError, match="no column x1"): link_suspects(farm[2].drop(columns="x1"), *farm[:2])


# the order

def exact_ap(hits: np.ndarray, n: int) -> float:
    "Average precision without interpolation."
    return (hits*hits.cumsum()/np.arange(1, len(hits)+1)).sum()/n


def test_a_false_box_that_becomes_a_hit_is_worth_what_scoring_again_gives():
    rng = np.random.default_rng(0)
    for _ in range(20):
        hits = rng.random(30) < .6
        gain, total = false_worth(hits)
        assert np.isclose(total/12, exact_ap(hits, 12)) and (gain[hits] == 0).all()
        for k in np.flatnonzero(~hits):
            mended = hits.copy()
            mended[k] = True
            assert np.isclose((total + gain[k])/12, exact_ap(mended, 12))


def test_worth_by_kind_is_the_difference_that_mending_makes():
    boxes = box_table([cow(10), cow(150), cow(300, label="pig"), cow(450, 200)])
    found = box_table([cow(10, confidence=.9), cow(170, confidence=.8), cow(300, confidence=.7), cow(540, 100, confidence=.6)])
    rows = pd.DataFrame([cow(540, 100, kind="missing"), cow(150, kind="misplaced"), cow(450, 200, kind="nothing"),
                         cow(300, label="pig", kind="wrong class")])
    hits = np.array([1, 0, 0, 0], bool)  # of the cows' predictions, most confident first; 3 cows and 1 pig are labelled
    as_is = exact_ap(hits, 3)
    flip = lambda k: hits | (np.arange(4) == k)
    wanted = [exact_ap(flip(3), 4) - as_is, exact_ap(flip(1), 3) - as_is, exact_ap(hits, 2) - as_is, exact_ap(flip(2), 4) - as_is]
    assert np.allclose(mending_worth(rows, boxes, found), np.array(wanted)/2)


def test_the_largest_expected_change_is_asked_first_and_row_order_never_matters(farm, asked):
    images, boxes, suspects = farm
    assert asked.change.abs().is_monotonic_decreasing and np.allclose(asked.change, asked.probability*asked.worth)
    for seed in range(3):
        other = order_suspects(link_suspects(suspects.sample(frac=1, random_state=seed), images, boxes)[0], boxes)
        pd.testing.assert_frame_equal(other, asked)


@pytest.mark.parametrize("drop, first", [((), "wrong class"), (("probability",), "missing"), (("probability", "score"), "nothing")], ids=str)
def test_what_stands_in_for_a_missing_probability(farm, drop: tuple, first: str):
    images, boxes, suspects = farm
    suspects = suspects.assign(score=(suspects.kind == "missing")*.9, confidence=(suspects.kind == "nothing")*.9).drop(columns=list(drop))
    assert order_suspects(link_suspects(suspects, images, boxes)[0], boxes).kind[0] == first


def test_without_any_sureness_all_suspects_are_asked(farm):
    images, boxes, suspects = farm
    linked, _ = link_suspects(suspects.drop(columns=["probability", "kind"]), images, boxes)
    ordered = order_suspects(linked, boxes)
    assert len(ordered) == 5 and (ordered.probability == 1).all()
    assert len(order_suspects(linked[:0], boxes)) == 0 and len(order_suspects(linked[:0], boxes, boxes)) == 0


def test_probabilities_of_0_fall_back_to_the_score(farm):
    images, boxes, suspects = farm
    suspects = suspects.assign(probability=0., score=[.1, .2, .3, .9, .4])
    assert order_suspects(link_suspects(suspects, images, boxes)[0], boxes).kind[0] == "nothing"


# the journal

def test_a_decision_is_on_disk_with_its_source_and_number(tmp_path, asked):
    path = tmp_path/"new"/"decisions.jsonl"
    say(path, asked.iloc[0], "keep")
    add_decision(path, action="draw", **cow(0))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["id"], first["source"], second["id"], second["box"]) == (1, "human", 2, "drawn 2")


@pytest.mark.parametrize("bad, why", [
    (dict(action="bless"), "not one of"), (dict(action="keep", image=""), "no image"), (dict(action="drop", image="a.jpg"), "no box"),
    (cow(0, action="keep", box="b", label="goat"), "goat"), (cow(0, action="draw", x2=0.5), "x1 < x2"),
    (cow(0, action="draw", y1=float("nan")), "corners"), (cow(0, action="draw", x1="wide"), "not four numbers"),
    (dict(action="undo"), "names no decision")], ids=WORDS)
def test_what_is_no_decision_is_refused_and_not_written(tmp_path, bad: dict, why: str):
    with pytest.raises(InputError, match=why): add_decision(tmp_path/"j.jsonl", **bad)
    assert not (tmp_path/"j.jsonl").exists()


def test_what_is_drawn_or_moved_ends_at_the_frame_and_what_is_kept_overshoots():
    sizes = {"a.jpg": (640, 360)}
    assert check_decision(cow(600, -9, action="draw"), sizes)["x2"] == 640
    assert check_decision(cow(600, -9, action="keep", box="k"), sizes)["y1"] == -9
    with pytest.raises(InputError, match="inside the image"): check_decision(cow(700, action="move", box="k"), sizes)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_named_and_costs_nothing_else(tmp_path, asked, cut: int):
    path = tmp_path/"j.jsonl"
    for i in range(3): say(path, asked.iloc[i], "keep")
    path.write_bytes(path.read_bytes()[:-cut])  # killed in the middle of the third write
    say(path, asked.iloc[3], "drop")
    decisions, problems = read_journal(path)
    lost = cut > 1  # only the end of the line went
    assert decisions.box.tolist() == asked.box.iloc[[0, 1, 3] if lost else [0, 1, 2, 3]].tolist() and decisions.id.is_unique
    assert len(problems) == lost and (not lost or "line 3" in problems.detail.item())


@pytest.mark.parametrize("line", [
    "[1]", "{}", '{"id": "x", "action": "keep"}', "\udcff", '{"id": 1, "action": "draw", "image": "a.jpg", "label": "cow"}',
    '{"id": 5, "action": "draw", "image": "a.jpg", "label": "cow", "x1": 1e999, "y1": 0, "x2": 5, "y2": 5}', "["*100_000],
    ids=["list", "nothing", "id", "bytes", "no corners", "infinite", "deep"])
def test_bad_lines_are_named_and_good_ones_stay(tmp_path, asked, line: str):
    path = tmp_path/"j.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n\n")
    say(path, asked.iloc[0], "keep")
    decisions, problems = read_journal(path)
    assert len(decisions) == 1 and "line 1" in problems.detail.item()


WRITER = """
import sys
from pathlib import Path
from livestock_nb.review import add_decision
for i in range(10**6):
    add_decision(Path(sys.argv[1]), action='draw', image='a.jpg', label='cow', x1=i, y1=0, x2=i+9, y2=9)
    print(i, flush=True)
"""


def test_a_killed_program_loses_no_decision_that_it_had_made(tmp_path):
    path = tmp_path/"j.jsonl"
    p = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    said = [int(p.stdout.readline()) for _ in range(20)]
    os.kill(p.pid, signal.SIGKILL)
    said += [int(v) for v in p.stdout.read().split("\n")[:-1]]
    p.wait()
    decisions, _ = read_journal(path)
    assert decisions.x1[:len(said)].tolist() == said and len(decisions) <= len(said) + 1
    add_decision(path, action="draw", **cow(0))  # the dead program's lock does not hold
    assert len(read_journal(path)[0]) == len(decisions) + 1


def test_a_journal_that_cannot_be_written_is_said_in_a_line(tmp_path):
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="cannot be written.*another journal"): add_decision(tmp_path/"file"/"j.jsonl", action="draw", **cow(0))


# undo

def test_any_step_can_be_undone_also_an_undo(tmp_path, farm, asked):
    images, boxes, _ = farm
    path, s = tmp_path/"j.jsonl", asked[asked.kind == "misplaced"].iloc[0]
    say(path, s, "drop")
    say(path, s, "keep")
    words = lambda: last_words(read_journal(path)[0])[["id", "action"]].values.tolist()
    assert words() == [[2, "keep"]]
    assert undo(path)["action"] == "keep" and words() == [[1, "drop"]]  # what was said before counts again
    assert undo(path, 1)["action"] == "drop" and words() == []
    pd.testing.assert_frame_equal(apply_decisions(boxes, read_journal(path)[0])[0], boxes)
    assert undo(path, 3)["action"] == "undo" and words() == [[2, "keep"]]  # the undo was undone
    assert undo(path, 4)["action"] == "undo" and undo(path)["id"] == 2
    assert len(read_journal(path)[0]) == 7 + 0*undo(path)["id"] and words() == []  # nothing is ever deleted


def test_what_cannot_be_undone_is_said(tmp_path, asked):
    path = tmp_path/"j.jsonl"
    with pytest.raises(InputError, match="nothing to undo"): undo(path)
    say(path, asked.iloc[0], "keep")
    with pytest.raises(InputError, match="no decision 9"): undo(path, 9)
    undo(path)
    with pytest.raises(InputError, match="taken back before"): undo(path, 1)


def test_with_a_drawn_box_goes_what_was_said_about_it(tmp_path, farm):
    path = tmp_path/"j.jsonl"
    add_decision(path, action="draw", **cow(200, 250))
    add_decision(path, action="move", box="drawn 1", **cow(220, 250))
    now, changes = apply_decisions(farm[1], read_journal(path)[0])
    assert len(now) == len(farm[1]) + 1 and now.x1[now.source == "human"].tolist() == [220.]
    undo(path, 1)
    assert len(last_words(read_journal(path)[0])) == 0
    undo(path, 3)
    add_decision(path, action="drop", image="a.jpg", box="drawn 1", label="cow")
    pd.testing.assert_frame_equal(apply_decisions(farm[1], read_journal(path)[0])[0], farm[1])


# precedence

def test_answers_become_human_boxes_that_keep_where_they_came_from(tmp_path, farm, asked):
    images, boxes, _ = farm
    path, by = tmp_path/"j.jsonl", {k: asked[(asked.kind == k) & (asked.image != "b.jpg")].iloc[0] for k in asked.kind}
    say(path, by["misplaced"], "move", x1=170, x2=260)
    say(path, by["wrong class"], "move", label="cow")
    say(path, by["nothing"], "drop")
    say(path, by["missing"], "keep")
    say(path, asked[asked.image == "b.jpg"].iloc[0], "keep")
    now, changes = apply_decisions(boxes, read_journal(path)[0])
    human = now[now.source == "human"]
    assert len(now) == len(boxes) and len(human) == 4 and (now.label == "cow").all()
    assert human[["x1", "raw_x1"]].values.tolist() == [[170, 150], [300, 300], [540, 540], [1000, 1000]]
    assert human.y1[human.image == "b.jpg"].item() == -4  # a label that is kept stays as it was read
    assert changes.set_index("box").was.to_dict() == {"cow 1000 -4 1090 56": "gold", "cow 150 20 240 80": "gold", "cow 5 20 95 80": "gold",
                                                       "cow 540 100 630 160": "", "pig 300 20 390 80": "gold"}
    untouched = boxes[boxes.x1.isin([10, 450])].reset_index(drop=True)
    pd.testing.assert_frame_equal(now[now.source == "gold"].reset_index(drop=True), untouched)


def test_applying_twice_and_in_another_row_order_changes_nothing_more(tmp_path, farm, asked):
    path = tmp_path/"j.jsonl"
    for i, action in enumerate(("keep", "drop", "keep")): say(path, asked.iloc[i], action)
    say(path, asked.iloc[3], "move", x1=3, x2=80)
    add_decision(path, action="draw", **cow(200, 250))
    decisions, boxes = read_journal(path)[0], farm[1]
    once = apply_decisions(boxes, decisions)[0]
    pd.testing.assert_frame_equal(apply_decisions(once, decisions)[0], once)
    pd.testing.assert_frame_equal(apply_decisions(boxes.sample(frac=1, random_state=1), decisions)[0], once)


@pytest.mark.parametrize("box, over, gone, why", [
    (cow(0, source="silver"), cow(20), True, "silver gives way to a human box on it"),
    (cow(0, source="silver"), cow(70), False, "beside it it stays"),
    (cow(0), cow(2), True, "gold gives way to a new human box that is the same"),
    (cow(0), cow(25), False, "a gold neighbour stays"),
    (cow(0, source="silver", ignore=True), cow(20), True, "a region to ignore gives way as well"),
    (cow(0, source="human"), cow(1), False, "people do not"),
    (cow(0, source="silver", image="b.jpg"), cow(0), False, "in another image nothing gives way")], ids=WORDS)
def test_human_outranks_gold_outranks_silver(tmp_path, box: dict, over: dict, gone: bool, why: str):
    path, boxes = tmp_path/"j.jsonl", box_table([box, cow(300), cow(500)])
    add_decision(path, action="draw", **over)
    now, changes = apply_decisions(boxes, read_journal(path)[0])
    assert (len(now) == 3) == gone and changes.action.tolist().count("gives way") == gone


def test_gold_outranks_silver_without_any_answer():
    boxes = box_table([cow(0), cow(20, source="silver"), cow(200, source="silver")])
    now, changes = apply_decisions(boxes, decision_table([]))
    assert now[["source", "x1"]].values.tolist() == [["gold", 0], ["silver", 200]] and changes.was.tolist() == ["silver"]
    assert gives_way(boxes[:0], boxes, boxes, boxes).tolist() == []


def test_silver_does_not_come_back_where_people_saw_nothing(tmp_path, asked):
    path, s = tmp_path/"j.jsonl", asked[asked.kind == "missing"].iloc[0]
    say(path, s, "drop")
    later = box_table([cow(10), cow(545, 102, source="silver", confidence=.9), cow(300, 200, source="silver")])
    assert apply_decisions(later, read_journal(path)[0])[0].x1.tolist() == [10, 300]


def test_answers_about_images_that_are_not_there_are_named(tmp_path, farm):
    for image in ("a.jpg", "gone.jpg", "gone.jpg"): add_decision(tmp_path/"j.jsonl", action="draw", **cow(200, 250, image))
    decisions, problems = read_decisions(tmp_path/"j.jsonl", farm[0])
    assert decisions.image.tolist() == ["a.jpg"] and problems[["image", "detail"]].values.tolist() == [
        ["gone.jpg", "2 decisions, but the image is not in the tables"]]
    assert not len(read_decisions(None, farm[0])[0]) and not len(read_decisions(tmp_path/"none.jsonl", farm[0])[0])


# where one stands

def test_the_queue_goes_on_where_the_journal_ends(tmp_path, asked):
    path = tmp_path/"j.jsonl"
    left = lambda: queue(asked, read_journal(path)[0])
    assert left() == ([0, 1, 2, 3, 4], 0)
    for i, action in ((0, "skip"), (1, "keep"), (2, "skip"), (0, "skip")): say(path, asked.iloc[i], action)
    assert left() == ([3, 4, 2, 0], 2)  # the skipped ones last, longest ago first
    say(path, asked.iloc[2], "drop")
    assert left() == ([3, 4, 0], 1)
    undo(path)
    assert left() == ([3, 4, 2, 0], 2)


# sheets

def fill(path: Path, changes: dict[int, dict], more: tuple = (), encoding: str = "utf-8-sig", sep: str = ",") -> None:
    "Edit a sheet as a spreadsheet would: cells by row, further rows, another encoding, another separator."
    df = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    for i, cells in changes.items(): df.loc[i, list(cells)] = list(cells.values())
    pd.concat([df, pd.DataFrame(more, columns=df.columns)]).fillna("").to_csv(path, index=False, encoding=encoding, sep=sep)


@pytest.mark.parametrize("encoding, sep", [("utf-8-sig", ","), ("utf-8", ";"), ("cp949", "\t")])
def test_a_sheet_goes_out_and_comes_back(tmp_path, farm, asked, encoding: str, sep: str):
    images, boxes, _ = farm
    sheet, path = write_sheet(asked, decision_table([]), tmp_path/"sheet.csv"), tmp_path/"j.jsonl"
    assert not len(read_sheet(sheet, images)[0])  # nothing filled in, nothing answered
    row = {s.kind: i for i, s in asked.iterrows() if s.image != "b.jpg"}
    filled = {row["missing"]: dict(action=" Keep"), row["nothing"]: dict(action="drop"), row["wrong class"]: dict(action="move", label="cow"),
              row["misplaced"]: dict(action="move", x1="170", x2="260,5")}
    fill(sheet, filled, (dict(cow(30, 250), action="draw"),), encoding, sep)
    decisions, problems = read_sheet(sheet, images)
    assert not len(problems) and sorted(decisions.action) == ["draw", "drop", "keep", "move", "move"]
    now, _ = apply_decisions(boxes, decisions)
    assert now[now.source == "human"].x1.tolist() == [30, 170, 300, 540] and now.x2[now.x1 == 170].item() == 260.5 and len(now) == len(boxes) + 1
    assert add_sheet(sheet, path, images)[0] == 5 and add_sheet(sheet, path, images)[0] == 0  # taken once
    pd.testing.assert_frame_equal(apply_decisions(boxes, read_journal(path)[0])[0], now)
    write_sheet(asked, read_journal(path)[0], sheet)  # what is answered stands in a new sheet
    assert add_sheet(sheet, path, images)[0] == 0 and len(read_sheet(sheet, images)[0]) == 4


@pytest.mark.parametrize("cells, why", [
    (dict(action="maybe"), "'maybe' is not one of"), (dict(action="undo"), "empty the cell"), (dict(action="move"), "as before"),
    (dict(action="keep", x1="wide"), "not four numbers"), (dict(action="move", x2="-5"), "x1 < x2"), (dict(action="move", label="goat"), "goat"),
    (dict(action="drop", image="gone.jpg"), "not in the tables"), (dict(action="drop", box=""), "names no box"),
    (dict(action="draw"), "row of its own"), (dict(action="move", x1="inf"), "x1 < x2"), (dict(action="keep", x1=""), "not four numbers")], ids=str)
def test_a_bad_row_is_named_and_good_ones_are_kept(tmp_path, farm, asked, cells: dict, why: str):
    sheet = write_sheet(asked, decision_table([]), tmp_path/"sheet.csv")
    fill(sheet, {0: dict(action="skip"), 1: cells, 2: dict(action="drop")})
    decisions, problems = read_sheet(sheet, farm[0])
    assert decisions.action.tolist() == ["skip", "drop"]
    assert why in problems.detail.item() and "sheet.csv line 3" in problems.detail.item()


def test_two_rows_about_one_box_are_named(tmp_path, farm, asked):
    sheet = write_sheet(pd.concat([asked[:1], asked[:1]], ignore_index=True), decision_table([]), tmp_path/"sheet.csv")
    fill(sheet, {0: dict(action="keep"), 1: dict(action="drop")})
    decisions, problems = read_sheet(sheet, farm[0])
    assert decisions.action.tolist() == ["keep"] and "line 2 is about the same box" in problems.detail.item()


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\x00\xff", None], ids=["empty", "another csv", "no text", "missing"])
def test_what_is_no_sheet_is_refused(tmp_path, farm, data: bytes|None):
    if data is not None: (tmp_path/"sheet.csv").write_bytes(data)
    with pytest.raises(InputError, match="sheet.csv"): read_decisions(tmp_path/"sheet.csv", farm[0])


def test_file_names_that_are_formulas_survive_a_sheet(tmp_path):
    name = "=cmd|' /C calc'!A0.jpg"
    images = image_table([dict(image=name, species="cow", width=640, height=360)])
    boxes = box_table([cow(300, image=name)])
    asked = order_suspects(link_suspects(pd.DataFrame([cow(5, image=name)]), images, boxes)[0], boxes)
    sheet = write_sheet(asked, decision_table([]), tmp_path/"sheet.csv")
    assert "'=cmd" in sheet.read_text(encoding="utf-8-sig")
    fill(sheet, {0: dict(action="keep")})
    assert read_sheet(sheet, images)[0].image.tolist() == [name]


# the page, without a browser

class Hand:
    "Sends what the page would."
    def __init__(self, reviewer): self.reviewer = reviewer
    def __call__(self, action: str, **more) -> dict:
        view = self.reviewer.view
        self.reviewer.answer(dict(action=action, turn=view["turn"], box=view["chosen"]) | more)
        return self.reviewer.view


def test_a_review_answer_by_answer(tmp_path, farm, asked):
    images, boxes, _ = farm
    path = tmp_path/"j.jsonl"
    found = boxes.assign(confidence=.9)
    hand = Hand(review(images, boxes, asked, path, found))
    view = hand.reviewer.view
    assert (view["answered"], view["total"], view["target"]) == (0, 5, asked.box[0]) and "mAP@.75" in view["score"]
    view = hand("keep")
    assert (view["answered"], view["target"]) == (1, asked.box[1])
    view = hand("draw", label="cow", corners=[1, 2, 50, 60])  # stays at the suspect, with the new box chosen
    assert view["target"] == asked.box[1] and view["chosen"] == "drawn 2"
    view = hand("move", label="cow", corners=[4, 2, 50, 60])
    assert next(b for b in view["boxes"] if b["box"] == "drawn 2")["corners"] == [4, 2, 50, 60]
    view = hand("move", box=view["target"], label="cow", corners=[10, 10, 5000, 70])  # answers it, but stays until Enter
    assert view["answered"] == 2 and view["target"] == asked.box[1]
    count = len(read_journal(path)[0])
    view = hand("keep")
    assert view["target"] == asked.box[2] and len(read_journal(path)[0]) == count  # it stands as moved: nothing new to say
    width = images.set_index("image").width[asked.image[1]]
    assert read_journal(path)[0].x2.iloc[-1] == width  # the frame ends a box
    view = hand("undo")
    assert view["target"] == asked.box[1] and "Taken back: move" in view["said"]
    again = review(images, boxes, asked, path).view  # opened anew
    assert (again["answered"], again["target"]) == (1, asked.box[1])
    assert any(b["box"] == "drawn 2" and b["state"] == "human" for b in again["boxes"]) == (asked.image[1] == "a.jpg")


def test_all_answered_and_nothing_to_ask(tmp_path, farm, asked):
    images, boxes, _ = farm
    hand = Hand(review(images, boxes, asked, tmp_path/"j.jsonl"))
    for _ in range(5): view = hand("drop")
    assert view["answered"] == 5 and "All are answered" in view["said"]
    assert [b["state"] for b in view["boxes"] if b["box"] == view["target"]] == ["dropped"]
    assert hand("undo")["answered"] == 4
    empty = Hand(review(images, boxes, asked[:0], tmp_path/"none.jsonl"))
    assert empty("keep")["said"].startswith("There is nothing to review")


@pytest.mark.parametrize("message", [
    {}, dict(action="bless"), dict(action="keep", box="gone"), dict(action="move", corners="all", label="cow"),
    dict(action="draw", corners=[1, 2], label="cow"), dict(action="draw", corners=[1, 2, 9, 9], label="goat"),
    dict(action="draw", corners=[None]*4, label="cow"), dict(action="move", corners=[5, 5, 5, 5], label="cow")], ids=str)
def test_a_message_that_makes_no_sense_is_said_and_not_saved(tmp_path, farm, asked, message: dict):
    hand = Hand(review(*farm[:2], asked, tmp_path/"j.jsonl"))
    before = hand.reviewer.view
    hand.reviewer.answer(message | dict(turn=before["turn"]) | (dict(box=before["chosen"]) if "box" not in message else {}))
    assert hand.reviewer.view["said"] and hand.reviewer.view["target"] == before["target"] and not (tmp_path/"j.jsonl").exists()


def test_a_key_pressed_twice_does_not_answer_the_next_suspect(tmp_path, farm, asked):
    hand = Hand(review(*farm[:2], asked, tmp_path/"j.jsonl"))
    turn = hand.reviewer.view["turn"]
    hand("drop")
    assert "not saved" in hand("drop", turn=turn)["said"] and len(read_journal(tmp_path/"j.jsonl")[0]) == 1


def test_a_large_picture_is_sent_small_and_its_boxes_stay_in_its_own_frame(tmp_path, farm, asked):
    images, boxes, _ = farm
    row = images[images.image == "b.jpg"].iloc[0]
    assert cv2.imdecode(np.frombuffer(picture_jpeg(row), np.uint8), 1).shape[:2] == (1000, 1600)
    view = review(images, boxes, asked[asked.image == "b.jpg"].reset_index(drop=True), tmp_path/"j.jsonl").view
    assert (view["width"], view["height"]) == (2400, 1500) and view["boxes"][0]["corners"][0] == 1000
    assert picture_jpeg(row.replace(str(tmp_path), "/gone"))[:2] == b"\xff\xd8"  # a picture that cannot be read is grey


def test_a_folder_whose_name_is_no_utf8_has_pictures(tmp_path, farm):
    odd = tmp_path/os.fsdecode("소".encode("cp949"))
    odd.mkdir()
    (tmp_path/"a.jpg").rename(odd/"a.jpg")
    row = farm[0][farm[0].image == "a.jpg"].iloc[0]
    assert pixels(row.replace(str(tmp_path), path_text(odd))).mean() == pytest.approx(99, abs=2)
    with pytest.raises(InputError, match="missing"): pixels(row.replace(str(tmp_path), "/gone"))


def test_where_no_widgets_run_there_is_a_picture(tmp_path, farm, asked):
    shown = review(*farm[:2], asked, tmp_path/"j.jsonl")._repr_mimebundle_()
    assert set(shown) == {"text/plain", "image/jpeg"}
    assert review(*farm[:2], asked, None).axes and review(*farm[:2], asked, tmp_path/"sheet.csv").axes
    assert [p.name for p in save_pages(*farm[:2], asked, tmp_path/"pages", each=3)] == ["sheet_01.jpg", "sheet_02.jpg"]


def test_what_the_stage_before_wrote_is_taken_whatever_part_of_it_is_there(tmp_path, farm):
    images, boxes, suspects = farm
    with pytest.raises(InputError, match="suspects.parquet is missing"): load_suspects(tmp_path, images, boxes)
    suspects.to_parquet(tmp_path/"suspects.parquet")
    asked, _, judged, found = load_suspects(tmp_path, images, boxes)
    assert found is None and len(asked) == 5 and len(judged) == len(images)
    boxes.assign(confidence=.5).to_parquet(tmp_path/"predictions.parquet")
    images[images.image == "a.jpg"].to_parquet(tmp_path/"images.parquet")
    asked, _, judged, found = load_suspects(tmp_path, images, boxes)
    assert len(found) == len(boxes) and set(judged.image) == set(suspects.image) and load_table(tmp_path/"suspects.parquet").equals(suspects)
