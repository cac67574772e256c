"The browser without a front end: filters, pages and the still picture."
import base64

import cv2
import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest

from livestock_nb.browse import browse, choose, filters, has_front_end, mark_suspects, picture_slider
from livestock_nb.data import box_table, image_table


@pytest.fixture
def farm(tmp_path):
    "Ten images, of which one is unreadable, and their boxes."
    rows = [dict(image=f"{s}_{i}.jpg", species=s, width=64, height=48 if i else 36, zip=str(tmp_path), member=f"{s}_{i}.jpg")
            for s in ("cow", "pig") for i in range(5)]
    for r in rows: (tmp_path/r["member"]).write_bytes(cv2.imencode(".jpg", np.full((r["height"], 64, 3), 99, np.uint8))[1].tobytes())
    (tmp_path/"pig_4.jpg").write_bytes(b"no image")
    boxes = [dict(image=r["image"], label=r["species"], x1=j, y1=0, x2=j+9, y2=9) for i, r in enumerate(rows) for j in range(2*(i % 5))]
    return image_table(rows), box_table(boxes), pd.DataFrame(dict(image=["cow_1.jpg", "cow_1.jpg", "pig_4.jpg"], kind=["odd", "bad", "bad"]))


@pytest.mark.parametrize("asked, wanted", [
    ({}, 10), (dict(species="cow"), 5), (dict(count="many"), 2), (dict(count="medium"), 2), (dict(size="64×36"), 2), (dict(problem="bad"), 2),
    (dict(problem="none"), 8), (dict(species="cow", problem="bad"), 1), (dict(species="pig", problem="odd"), 0)], ids=str)
def test_filters_choose(farm, asked: dict, wanted: int): assert len(choose(*farm, **asked)) == wanted


def test_menus_offer_what_there_is(farm):
    menus = filters(farm[0], farm[2])
    assert menus["problem"].options == ("any", "none", "bad", "odd") and menus["size"].options == ("any", "64×48", "64×36")
    assert filters(farm[0])["problem"].options == ("any",)


def test_pages_and_filters(farm):
    panel = browse(*farm, columns=2, rows=2)
    menus, page, caption, picture = panel.children
    assert (page.max, caption.value) == (3, "images 1 to 4 of 10")
    seen = [picture.value]
    page.value = 3
    assert caption.value == "images 9 to 10 of 10" and picture.value not in seen
    menus.children[0].value = "pig"
    assert (page.value, page.max, caption.value) == (1, 2, "images 1 to 4 of 5")
    menus.children[3].value = "odd"
    assert caption.value == "no image" and picture.value[:2] == b"\xff\xd8"
    menus.children[0].value = "any"
    assert caption.value == "images 1 to 1 of 1"


def test_a_slider_of_any_kind_draws():
    panel = picture_slider(widgets.SelectionSlider(options=["a", "b"]), lambda v: (v, v.encode()))
    assert panel.children[-1].value == b"a"
    panel.children[0].value = "b"
    assert [c.value for c in panel.children] == ["b", "b", b"b"]


def test_without_a_front_end_there_is_a_picture_and_no_widget(farm):
    assert not has_front_end()
    shown = browse(*farm)._repr_mimebundle_()
    assert set(shown) == {"text/plain", "image/jpeg"} and base64.b64decode(shown["image/jpeg"])[:2] == b"\xff\xd8"


def test_suspects_are_drawn_as_missed():
    _, boxes = None, box_table([dict(image="a.jpg", label="cow", x1=0, y1=0, x2=9, y2=9)])
    suspects = pd.DataFrame([dict(image="a.jpg", x1=5, y1=5, x2=9, y2=9), dict(image="b.jpg")])
    assert mark_suspects(boxes, suspects).label.tolist() == ["cow", "missed"]
