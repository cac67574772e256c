"Bins have exact edges, tables have every bin, and findings say only what is there."
import matplotlib
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import box_table, image_table
from livestock_nb.eda import (
    AREA_BINS,
    COUNT_BINS,
    RATIO_BINS,
    SMALL_BINS,
    area_bin,
    count_bin,
    count_boxes,
    count_by,
    extremes,
    find_all,
    is_small,
    plot_areas,
    plot_bins,
    plot_counts,
    plot_ratios,
    plot_sizes,
    ratio_bin,
    save_plot,
    save_tables,
    size_table,
    small_bin,
    species_table,
    stratum_table,
)

matplotlib.use("Agg")
NO_BOXES = box_table([])


def farm(counts: dict[str, list[int]], size: tuple[int, int] = (1920, 1080)) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Images with so many boxes of 100×100 px each."
    (w, h), names = size, [(s, i, n) for s, ns in counts.items() for i, n in enumerate(ns)]
    images = [dict(image=f"{s}_{i}.jpg", species=s, width=w, height=h) for s, i, _ in names]
    boxes = [dict(image=f"{s}_{i}.jpg", label=s, x1=j, y1=0, x2=100+j, y2=100) for s, i, n in names for j in range(n)]
    return image_table(images), box_table(boxes)


def sized(*sizes: tuple[float, float], label: str = "cow") -> pd.DataFrame:
    return box_table([dict(image=f"{i:02}.jpg", label=label, x1=5, y1=7, x2=5+w, y2=7+h) for i, (w, h) in enumerate(sizes)])


@pytest.mark.parametrize("species, n, wanted", [
    ("cow", 0, "little"), ("cow", 3, "little"), ("cow", 4, "medium"), ("cow", 5, "medium"), ("cow", 6, "many"), ("cow", 40, "many"),
    ("pig", 0, "little"), ("pig", 7, "little"), ("pig", 8, "medium"), ("pig", 12, "medium"), ("pig", 13, "many")])
def test_count_bins_are_cut_where_the_reference_says(species: str, n: int, wanted: str):
    assert count_bin(*farm({species: [n]})).tolist() == [wanted]


@pytest.mark.parametrize("w, h, wanted, why", [
    (60, 40, "horizontal", "w/(w+h) is exactly .6"), (59.9, 40, "square", "just under"), (40, 60, "vertical", "h/(w+h) is exactly .6"),
    (40, 59.9, "square", "just under"),
    (3, 2, "horizontal", "exact in small numbers too"), (2, 3, "vertical", "and upright"), (50, 50, "square", "")])
def test_ratio_bins_hold_their_edge(w: float, h: float, wanted: str, why: str):
    assert ratio_bin(sized((w, h))).tolist() == [wanted], why


def test_area_bins_hold_their_lower_edge():
    edges = [99, 100, 999, 1_000, 9_999, 10_000, 49_999, 50_000, 99_999, 100_000]
    wanted = ["out", "very small", "very small", "small", "small", "medium", "medium", "large", "large", "very large"]
    assert area_bin(sized(*[(a, 1) for a in edges])).tolist() == wanted


def test_small_bins_split_the_small_boxes_only():
    edges = [999, 1_000, 1_999, 2_000, 3_999, 4_000, 5_999, 6_000, 7_999, 8_000, 9_999, 10_000]
    bins = small_bin(sized(*[(a, 1) for a in edges]))
    assert bins.tolist() == [b for b in SMALL_BINS for _ in range(2)]
    assert bins.index.tolist() == list(range(1, 11))  # 999 and 10,000 px² are not small
    assert is_small(sized(*[(a, 1) for a in edges])).tolist() == [False] + [True]*4 + [False]*7


def test_counts_ignore_the_order_of_rows_and_boxes_of_other_images():
    images, boxes = farm(dict(cow=[3, 4, 0], pig=[13]))
    more = pd.concat([boxes, box_table([dict(image="elsewhere.jpg", label="cow", x1=0, y1=0, x2=9, y2=9)])])
    mixed = count_bin(images.sample(frac=1, random_state=1), more.sample(frac=1, random_state=2))
    pd.testing.assert_series_equal(count_bin(images, boxes), mixed.sort_index())
    assert count_boxes(images, boxes).to_dict() == {"cow_0.jpg": 3, "cow_1.jpg": 4, "cow_2.jpg": 0, "pig_0.jpg": 13}


def test_the_wholes_tables():
    images, boxes = farm(dict(cow=[3, 4, 6, 0], pig=[8]))
    assert stratum_table(images, boxes)[["bin", "count", "percent"]].to_numpy().tolist() == [
        ["little", 2, 50.], ["medium", 1, 25.], ["many", 1, 25.], ["little", 0, 0.], ["medium", 1, 100.], ["many", 0, 0.]]
    cow = species_table(images, boxes).set_index("species").loc["cow"]
    assert cow[["images", "boxes", "mean_boxes", "most_boxes", "without_box", "small_boxes"]].tolist() == [4, 13, 3.25, 6, 1, 0]
    assert size_table(images)[["width", "height", "images", "percent"]].to_numpy().tolist() == [[1920, 1080, 4, 100], [1920, 1080, 1, 100]]


@pytest.mark.parametrize("order, of", [(RATIO_BINS, ratio_bin), (AREA_BINS, area_bin), (SMALL_BINS, small_bin)])
def test_every_bin_is_in_its_table(order: list[str], of):
    boxes = sized((60, 40))
    table = count_by(boxes.label, of(boxes), order)
    assert table.bin.tolist() == order and table["count"].sum() == 1 and set(table.species) == {"cow"}


def test_a_clean_farm_has_no_finding():
    assert find_all(*farm(dict(cow=[3, 4, 6], pig=[4, 4, 5]))).empty


@pytest.mark.parametrize("counts, size, says, evidence", [
    (dict(cow=[4], pig=[10]), (99, 99), "a pig image holds more boxes", "cow 4.00, pig 10.00 boxes an image"),
    (dict(cow=[10], pig=[4]), (99, 99), "a cow image holds more boxes", "cow 10.00, pig 4.00 boxes an image"),
    (dict(cow=[4, 0]), (99, 99), "some images hold no box", "cow 1 of 2"),
    (dict(cow=[3]*19 + [4]), (99, 99), "some strata are rare", "cow medium 1 images")])
def test_a_finding_comes_with_its_numbers(counts: dict, size: tuple, says: str, evidence: str):
    found = find_all(*farm(counts, size))
    assert found[found.finding.str.contains(says)].evidence.tolist() == [evidence]


def test_findings_of_sizes_small_boxes_and_overshoot():
    images, boxes = farm(dict(pig=[1, 1, 1]))
    images.loc[0, ["width", "height"]] = (1280, 960)
    boxes.loc[0, ["y2", "raw_y2"]] = 30
    boxes.loc[1, "raw_y1"] = -15
    found = find_all(images, boxes).set_index("finding").evidence
    assert found.tolist() == ["pig 1920×1080 2, 1280×960 1", "pig 1 (33.33 %)", "pig 1 of 3, by 15 px at most"]


def test_extremes():
    images, boxes = farm(dict(cow=[2, 5, 0], pig=[1]))
    boxes.loc[0, "x2"], boxes.loc[1, "x2"] = 900, 50
    why = extremes(images, boxes)
    assert why.why.tolist() == ["cow: largest box, 90,000 px²", f"cow: smallest box, {(50 - boxes.x1[1])*100:,.0f} px²", "cow: most boxes, 5",
                                "cow: fewest boxes, 0", "pig: largest box, 10,000 px²", "pig: smallest box, 10,000 px²", "pig: most boxes, 1",
                                "pig: fewest boxes, 1"]
    assert why.image.tolist()[2:4] == ["cow_1.jpg", "cow_2.jpg"]


@pytest.mark.parametrize("counts", [dict(cow=[0, 0]), dict(cow=[2]), dict(pig=[1, 0]), dict(cow=[1], pig=[0])], ids=str)
def test_everything_stands_a_farm_with_little_in_it(counts: dict, tmp_path):
    images, boxes = farm(counts)
    made = save_tables(images, boxes, tmp_path)
    assert {p.stem for p in tmp_path.glob("*.csv")} == set(made) and len(made["strata"]) == 3*len(counts)
    for i, fig in enumerate((plot_sizes(images), plot_counts(images, boxes), plot_ratios(boxes), plot_areas(boxes), plot_bins(made["areas"], "px²"))):
        assert save_plot(fig, tmp_path/f"{i}.png").stat().st_size > 1000
    extremes(images, boxes)
    matplotlib.pyplot.close("all")


def test_bins_of_no_boxes_are_empty():
    assert len(area_bin(NO_BOXES)) == len(ratio_bin(NO_BOXES)) == len(small_bin(NO_BOXES)) == 0


def test_the_reference_strata_add_up():
    "The bins in seed order: a farm with the reference's counts gives its stratum table."
    images, boxes = farm(dict(cow=[3]*73 + [5]*34 + [6]*13, pig=[7]*5 + [12]*27 + [13]*10))
    assert stratum_table(images, boxes)["count"].tolist() == [73, 34, 13, 5, 27, 10] and COUNT_BINS == ["little", "medium", "many"]
    assert np.isclose(stratum_table(images, boxes).groupby("species").percent.sum(), 100, atol=.02).all()
