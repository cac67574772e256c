"Bins have exact edges, tables have every bin, and findings say only what is there."
import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import InputError, box_table, image_table
from livestock_nb.eda import (
    AREA_BINS,
    COUNT_BINS,
    RATIO_BINS,
    SMALL_BINS,
    area_bin,
    camera_table,
    compare_parts,
    count_bin,
    count_boxes,
    count_by,
    crowd_table,
    decode_small,
    drop_table,
    extremes,
    is_infrared,
    is_small,
    load_tables,
    overlap,
    plot_areas,
    plot_bins,
    plot_counts,
    plot_positions,
    plot_ratios,
    plot_sizes,
    ratio_bin,
    run_table,
    sample_runs,
    save_plot,
    save_plots,
    save_tables,
    show_small,
    show_table,
    size_table,
    small_bin,
    small_images,
    species_table,
    stratum_table,
    take_parts,
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
    made = save_tables(take_parts(images, boxes), tmp_path)
    assert {p.stem for p in tmp_path.glob("*.csv")} == set(made) and len(made["strata"]) == 3*len(counts)
    assert plot_bins(made["small"], "px²") is None  # no box is small: nothing to plot
    for i, fig in enumerate((plot_sizes(images), plot_counts(images, boxes), plot_ratios(boxes), plot_areas(boxes), plot_positions(images, boxes))):
        assert save_plot(fig, tmp_path/f"{i}.png").stat().st_size > 1000
    assert show_table(made["small"], "None is small.").data == "<p>None is small.</p>"
    extremes(images, boxes)
    matplotlib.pyplot.close("all")


def test_a_table_is_shown_in_full_or_said_in_a_line():
    long = "a finding " * 20
    assert long.strip() in show_table(pd.DataFrame(dict(finding=[long.strip()], images=[3]))).data
    assert show_table(pd.DataFrame(columns=["fact", "evidence"])).data == show_table(pd.DataFrame(dict(a=[0], b=[0.]))).data == "<p>None.</p>"
    assert "&lt;b&gt;" in show_table(pd.DataFrame(dict(fact=["<b>"]))).data


def test_tables_without_problems(tmp_path):
    images, boxes = farm(dict(cow=[2]))
    images.to_parquet(tmp_path/"images.parquet")
    with pytest.raises(InputError, match="boxes.parquet"): load_tables(tmp_path)
    boxes.to_parquet(tmp_path/"boxes.parquet")
    assert load_tables(tmp_path)[2].empty and list(load_tables(tmp_path)[2]) == ["image", "kind", "detail", "action"]


def test_bins_of_no_boxes_are_empty():
    assert len(area_bin(NO_BOXES)) == len(ratio_bin(NO_BOXES)) == len(small_bin(NO_BOXES)) == 0


def test_the_reference_strata_add_up():
    "The bins in seed order: a farm with the reference's counts gives its stratum table."
    images, boxes = farm(dict(cow=[3]*73 + [5]*34 + [6]*13, pig=[7]*5 + [12]*27 + [13]*10))
    assert stratum_table(images, boxes)["count"].tolist() == [73, 34, 13, 5, 27, 10] and COUNT_BINS == ["little", "medium", "many"]
    assert np.isclose(stratum_table(images, boxes).groupby("species").percent.sum(), 100, atol=.02).all()


def test_overlap_is_with_the_nearest_box_of_the_same_image():
    def at(image: str, x: int) -> dict: return dict(image=image, label="cow", x1=x, y1=0, x2=x+100, y2=100)
    boxes = box_table([at("a.jpg", 0), at("a.jpg", 50), at("a.jpg", 500), at("b.jpg", 0)])
    assert np.allclose(overlap(boxes), [1/3, 1/3, 0, 0]) and overlap(NO_BOXES).empty
    assert crowd_table(boxes)[["boxes", "mean_iou", "percent_over_0.3", "percent_over_0.5"]].to_numpy().tolist() == [[4, .167, 50, 0]]


def test_what_dropping_small_boxes_would_remove():
    images, boxes = farm(dict(cow=[4, 1], pig=[1]))
    boxes.loc[[0, 4], ["x2", "y2"]] = boxes.loc[[0, 4], ["x1", "y1"]].to_numpy() + 30  # 900 px² each
    drops = drop_table(images, boxes, (100, 1_000))
    assert drops[drops.species == "cow"].iloc[:, 1:].to_numpy().tolist() == [[100, 0, 0, 0, 0], [1_000, 2, 40, 1, 1]]
    assert drops[drops.species == "pig"].boxes.tolist() == [0, 0]


def test_cameras_and_runs():
    images, boxes = farm(dict(cow=[3, 0, 5]))
    images[["farm", "camera", "group"]] = [["f", "1", "a"], ["f", "1", "a"], ["f", "2", "b"]]
    assert camera_table(images, boxes)[["camera", "images", "boxes", "without_box"]].to_numpy().tolist() == [["1", 2, 3, 1], ["2", 1, 5, 0]]
    assert run_table(images).iloc[0].tolist() == ["cow", 3, 2, 1, 1.5, 2, 66.7]


def test_a_sample_takes_whole_runs_and_not_the_order_of_rows():
    images, _ = farm(dict(cow=[1]*40))
    images["group"] = [f"run {i % 8}" for i in range(40)]
    some = sample_runs(images, 15, seed=3)
    assert some.group.value_counts().tolist() == [5, 5, 5]
    assert some.image.tolist() == sample_runs(images[::-1], 15, seed=3).image.tolist() != sample_runs(images, 15, seed=4).image.tolist()
    assert len(sample_runs(images, 0)) == 40 and len(sample_runs(images.assign(group="one"), 30)) == 20


def test_parts_of_a_split(tmp_path):
    images, boxes = farm(dict(cow=[4]*6, pig=[9]*4))
    split = pd.DataFrame(dict(image=images.image, side=["train"]*8 + ["valid"]*2, fold=[0, 1]*5))
    parts = take_parts(images, boxes, split)
    assert {p: len(i) for p, (i, _) in parts.items()} == dict(all=10, train=8, valid=2)
    assert list(take_parts(images, boxes, split, "fold")) == ["all", "fold 0", "fold 1"]
    tables = save_tables(parts, tmp_path)
    assert set(tables["drops"].part) == {"all", "train", "valid"} and compare_parts(tables["strata"]).shape == (6, 3)
    (tmp_path/"small_bins.png").write_bytes(b"left by an earlier run")
    save_plots(dict(list(parts.items())[:2]), tmp_path)
    assert not (tmp_path/"small_bins.png").exists()
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("counts.png")} == {"counts.png", "train/counts.png"}
    with pytest.raises(InputError, match="no column colour"): take_parts(images, boxes, split, "colour")
    with pytest.raises(InputError, match="none of these"): take_parts(images, boxes, split.assign(image="x"))


@pytest.mark.parametrize("name, frame, night", [
    ("grey", np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 320, 3)), True),
    ("one tint", np.tile(np.arange(240, dtype=np.uint8)[:, None, None]//2, (1, 320, 3)) + np.array([40, 30, 60], np.uint8), True),
    ("colours", np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1), False)])
def test_infrared(name: str, frame: np.ndarray, night: bool):
    data = cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes()
    assert is_infrared(decode_small(data)) == night, name
    assert decode_small(data).shape == (180, 240, 3) and decode_small(data[:-2], 64).shape == (48, 64, 3)


def test_an_unreadable_image_is_said_in_its_place(tmp_path):
    images, boxes = farm(dict(cow=[2, 2]), (320, 240))
    images = images.assign(zip=str(tmp_path), member=images.image)
    (tmp_path/"cow_0.jpg").write_bytes(cv2.imencode(".jpg", np.full((240, 320, 3), 99, np.uint8))[1].tobytes())
    (tmp_path/"cow_1.jpg").write_bytes(b"no image")
    small = small_images(images)
    assert small["cow_0.jpg"].shape == (180, 240, 3) and isinstance(small["cow_1.jpg"], InputError)
    fig = show_small(images, boxes, 160)
    assert [len(ax.patches) for ax in fig.axes[:2]] == [2, 2] and "not a readable image" in fig.axes[1].texts[0].get_text()
    assert fig.axes[0].patches[1].get_width() == pytest.approx(50)  # a box of 100 px in a picture of half the size
    fig = show_small(images.iloc[[0, 0]], boxes.assign(label="missed"), 160, missed="suspect")  # one image for two reasons
    assert [len(ax.patches) for ax in fig.axes[:2]] == [2, 2] and fig.legends[0].get_texts()[0].get_text() == "suspect"
    matplotlib.pyplot.close("all")
