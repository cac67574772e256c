"""How well missing boxes are found: 60 % of the boxes are taken out of the labels, and cross-fitted detectors have to name them.

`python benchmarks/suspects.py [--quick]`; the last line is one JSON object. k is the number of boxes taken out; a suspect is right if it overlaps
one of them by .5, one to one. `auc` is of images with against images without a missing box. `off` is the largest difference, over deciles of at
least 20 suspects pooled over seeds (at the top and in `farm` over both damages), between the mean probability and the share that is truly wrong;
`off_by_chance` is what 95 of 100 draws of suspects with just these probabilities would stay below. Cleanlab ranks the same predictions by its
"overlooked" score, at its default threshold and at the best one of five. The full form renders a farm and trains 3 models a seed and scenario at
320 px for 12 epochs with configs/recipes/cpu.yaml; it keeps every finished training and goes on where it was. Of the real frames, train and test
together, only the cows are judged: the pigs' own labels have gaps, so what is found there cannot be called wrong. There a second set of models learns
for 36 epochs without the class loss where the first one finds an animal that is likely missing, and what both find is fused; `real_cow_once` is the
first alone.
--quick reads the stored predictions of a small run, which --store keeps; of the real frames only these are stored, and their labels must be at hand.
"""
import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from livestock_nb.damage import drop_boxes
from livestock_nb.data import CORNERS, SPECIES, box_table, load_table, save_table
from livestock_nb.groups import find_groups, image_hashes
from livestock_nb.score import match_column, match_table
from livestock_nb.silver import with_regions
from livestock_nb.split import make_split
from livestock_nb.suspects import crossfit, fuse_views, image_scores, join_folds, label_suspects
from livestock_nb.train import read_recipe

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent/"shared"/"data"
STORED = Path(__file__).parent/"stored"


TESTED = 200  # test frames of a made-up farm
AGAIN = 36  # epochs of models that learn a second time, for longer: of what they find silver is made, whose places are learnt too


def farm_tables(out: Path, frames: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "Images with groups, complete boxes and folds of a made-up farm."
    from livestock_nb.farm import make_farm
    from livestock_nb.intake import read_farm
    if not (out/"split.parquet").exists():
        make_farm(out/"farm", out/"truth.parquet", frames, TESTED, missing=0., seed=0)
        prepare(out, *read_farm(out/"farm"/"train")[:2])
    return tuple(load_table(out/f"{n}.parquet") for n in ("images", "boxes", "split"))


def read_real() -> tuple[pd.DataFrame, pd.DataFrame]:
    "Images and boxes of all real frames, as labelled."
    from livestock_nb.intake import read_farm
    parts = zip(*(read_farm(REAL/"farm"/side)[:2] for side in ("train", "test")), strict=True)
    return tuple(pd.concat(tables, ignore_index=True) for tables in parts)


def real_tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "The same of the real frames."
    if not (out/"split.parquet").exists(): prepare(out, *read_real())
    return tuple(load_table(out/f"{n}.parquet") for n in ("images", "boxes", "split"))


def prepare(out: Path, images: pd.DataFrame, boxes: pd.DataFrame) -> None:
    "Group, split and keep."
    images = images.assign(group=find_groups(images, image_hashes(images)).to_numpy())
    for name, table in dict(images=images, boxes=boxes, split=make_split(images, boxes)).items(): save_table(table, out/f"{name}.parquet")


def predictions(out: Path, images: pd.DataFrame, kept: pd.DataFrame, split: pd.DataFrame, name: str, seed: int, **training) -> pd.DataFrame:
    "Cross-fitted predictions with damaged labels; made once."
    path = out/f"{name}{seed}.parquet"
    if not path.exists(): save_table(crossfit(images, kept, join_folds(split, 3), out/f"{name}{seed}", seed=seed, **training)[0], path)
    return load_table(path)


def predictions_again(out: Path, images: pd.DataFrame, kept: pd.DataFrame, split: pd.DataFrame, name: str, seed: int, **training) -> pd.DataFrame:
    "The same of models that learn a second time, for longer, with regions to ignore where the first ones find a missing box."
    first = predictions(out, images, kept, split, name, seed, **training)
    return predictions(out, images, with_regions(images, kept, first), split, f"{name}_again", seed, **training | dict(epochs=AGAIN))


def is_right(rows: pd.DataFrame, gone: pd.DataFrame, rank: str) -> np.ndarray:
    "Whether each row, best rank first, is one of the boxes that are gone; each of these counts once."
    m = match_table(gone, rows.assign(confidence=rows[rank]), [.5], most=None)
    return (m[match_column(.5)].to_numpy() >= 0)[m.confidence.notna().to_numpy()], m[m.confidence.notna()]


def precision_at(rows: pd.DataFrame, gone: pd.DataFrame, rank: str = "score") -> float:
    "Share of the first k rows that are right, k being the number of boxes gone."
    right, m = is_right(rows, gone, rank)
    first = np.argsort(-m.confidence.to_numpy(), kind="stable")[:len(gone)]
    return float(right[first].sum()/len(gone))


def cleanlab_precision(images: pd.DataFrame, kept: pd.DataFrame, found: pd.DataFrame, gone: pd.DataFrame) -> dict:
    "Precision at k of cleanlab's overlooked score, at its own threshold and at the best one. Nothing where cleanlab is not installed."
    if not importlib.util.find_spec("cleanlab"): return {}
    from cleanlab.object_detection.rank import compute_overlooked_box_scores

    rows = {k: dict(list(b.groupby("image"))) for k, b in (("labels", kept), ("found", found))}
    part = lambda kind, name: rows[kind].get(name, kept[:0])
    labels = [dict(bboxes=part("labels", n)[CORNERS].to_numpy(float).reshape(-1, 4), labels=part("labels", n).label.map(SPECIES.index).to_numpy(int))
              for n in images.image]
    guesses, order = [], []
    for n in images.image:
        by = [part("found", n)[lambda d, s=s: d.label == s] for s in SPECIES]
        guesses.append(np.array([b[[*CORNERS, "confidence"]].to_numpy(float).reshape(-1, 5) for b in by] + [None], dtype=object)[:-1])
        order.append(pd.concat(by))
    at = {}
    for least in (None, *np.arange(.05, 1, .2)):
        given = {} if least is None else dict(high_probability_threshold=float(least))
        scores = compute_overlooked_box_scores(labels=labels, predictions=guesses, **given)
        table = pd.concat([b.assign(quality=np.asarray(s, float)) for b, s in zip(order, scores, strict=True)]).dropna(subset="quality")
        at[least] = precision_at(table.assign(rank=1 - table.quality), gone, "rank") if len(table) else 0.
    default = at.pop(None)
    return dict(cleanlab_precision_at_k=round(max(at.values()), 4), cleanlab_best_threshold=round(float(max(at, key=at.get)), 2),
                cleanlab_default_precision_at_k=round(default, 4))


def judge(images: pd.DataFrame, truth: pd.DataFrame, labels: list[str], found: pd.DataFrame, seed: int, alone: bool) -> tuple:
    "The figures of one run, and its suspects with what is true; `alone` judges the damaged labels' species only."
    kept, gone = drop_boxes(truth, .6, labels, seed)
    if alone: images, kept, found = images[images.species.isin(labels)], kept[kept.label.isin(labels)], found[found.label.isin(labels)]
    kept, found = (d[d.image.isin(images.image)].reset_index(drop=True) for d in (kept, found))
    table = label_suspects(images, kept, found)
    missing = table[table.kind == "missing"]
    scores, has = image_scores(missing, images), images.image.isin(gone.image)
    right, m = is_right(missing, gone, "probability")
    said = dict(precision_at_k=round(precision_at(missing, gone), 4), found=round(float(right.sum()/len(gone)), 4),
                auc=round(float(roc_auc_score(has, scores.to_numpy())), 4) if has.nunique() == 2 else None, k=len(gone),
                expected=round(float(missing.probability.sum()), 1))
    return said | cleanlab_precision(images, kept, found, gone), pd.DataFrame(dict(p=m.confidence.to_numpy(), right=right))


def calibration(suspects: pd.DataFrame, draws: int = 1000) -> dict:
    "Largest difference between probability and truth over deciles with 20 suspects or more, what chance would make of right ones; the deciles."
    rows = suspects.assign(decile=pd.cut(suspects.p, np.linspace(0, 1, 11), include_lowest=True, labels=False))
    rows = rows[rows.groupby("decile").p.transform("size") >= 20]
    df = rows.groupby("decile").agg(n=("p", "size"), p=("p", "mean"), right=("right", "mean"))
    drawn = np.random.default_rng(0).random((draws, len(rows))) < rows.p.to_numpy()
    chance = pd.DataFrame(drawn.T).groupby(rows.decile.to_numpy()).mean().sub(df.p, axis=0).abs().max()
    off, lucky = (df.p - df.right).abs().max(), chance.quantile(.95)
    return dict(off=round(float(off), 4), off_by_chance=round(float(lucky), 4), deciles=df.round(3).to_numpy().tolist())


def summary(runs: list[tuple[dict, pd.DataFrame]]) -> dict:
    "Means over seeds, and the calibration of all suspects together."
    means = pd.DataFrame([r for r, _ in runs]).mean(numeric_only=True).round(4).to_dict()
    return means | calibration(pd.concat([s for _, s in runs]))


DAMAGE = dict(cow=["cow"], both=list(SPECIES))


def compact(found: pd.DataFrame, least: float, **more) -> pd.DataFrame:
    "Predictions in few bytes: no box below a confidence."
    rows = found[found.confidence >= least]
    rows = rows.assign(**{c: rows[c].astype("float32").round(1) for c in CORNERS}, confidence=rows.confidence.astype("float32").round(4), **more)
    return rows[["image", "label", *CORNERS, "confidence", *more]].sort_values([*more, "image", "confidence"], ignore_index=True)


def store(runs: dict[str, list], home: Path) -> None:
    "Keep what --quick reads."
    images, truth, _ = (load_table(home/f"{n}.parquet") for n in ("images", "boxes", "split"))
    save_table(images.assign(zip="", member="", sha=""), STORED/"images.parquet")
    save_table(truth, STORED/"truth.parquet")
    rows = [compact(found, 0, run=name, seed=seed) for name, many in runs.items() for seed, found in enumerate(many)]
    save_table(pd.concat(rows, ignore_index=True), STORED/"found.parquet")


def stored_runs(name: str) -> dict[str, list[pd.DataFrame]]:
    "Predictions of a small run, by damage and seed."
    runs = {}
    for (run, _), g in load_table(STORED/name).groupby(["run", "seed"]): runs.setdefault(run, []).append(box_table(g.assign(source="model")))
    return runs


def scenario(figures: dict, pool: list, name: str, found: list[pd.DataFrame], images: pd.DataFrame, truth: pd.DataFrame) -> None:
    "Add the figures of a scenario, over seeds, and the calibration of all suspects on the made-up farm so far; say them."
    real = name.startswith("real")
    runs = [judge(images, truth, DAMAGE["cow" if real else name], f, seed, real) for seed, f in enumerate(found)]
    figures[name] = summary(runs)
    if not real: pool += [s for _, s in runs]
    figures["farm"] = calibration(pd.concat(pool))
    print(json.dumps({name: figures[name]}), flush=True)


def quick() -> dict:
    "From stored predictions."
    farm, figures, pool = (load_table(STORED/"images.parquet"), load_table(STORED/"truth.parquet")), {}, []
    runs = stored_runs("found.parquet")
    real = read_real() if REAL.exists() and any(k.startswith("real") for k in runs) else None
    for name, found in runs.items():
        place = real if name.startswith("real") else farm
        if place: scenario(figures, pool, name, found, *place)
    return figures


def full(out: Path, frames: int, seeds: int, keep: bool, real: dict, **training) -> dict:
    "Everything trained here."
    home, runs, figures, pool = out/f"farm{frames}", {}, {}, []
    images, truth, split = farm_tables(home, frames)
    for name, labels in DAMAGE.items():
        cut = [drop_boxes(truth, .6, labels, seed)[0] for seed in range(seeds)]
        runs[name] = [predictions(home, images, kept, split, name, seed, **training) for seed, kept in enumerate(cut)]
        scenario(figures, pool, name, runs[name], images, truth)
    if REAL.exists():
        images, truth, split = real_tables(out/"real")
        training |= real
        runs |= dict(real_cow_once=[], real_cow=[])
        for seed in range(seeds):
            kept = drop_boxes(truth, .6, ["cow"], seed)[0]
            once = predictions(out/"real", images, kept, split, "cow", seed, **training)
            again = predictions_again(out/"real", images, kept, split, "cow", seed, **training)
            for name, views in dict(real_cow_once=[once], real_cow=[once, again]).items(): runs[name].append(fuse_views(views))
        for name in ("real_cow_once", "real_cow"): scenario(figures, pool, name, runs[name], images, truth)
    if keep: store(runs, home)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="stored predictions of a small run")
    parser.add_argument("--store", action="store_true", help="keep the predictions of this run for --quick")
    parser.add_argument("--out", type=Path, default=ROOT/"runs"/"bench_labels", help="where trainings are kept")
    numbers = dict(frames=120, seeds=3, imgsz=320, epochs=12, real_imgsz=384, real_epochs=12)
    for name, value in numbers.items(): parser.add_argument(f"--{name}", type=int, default=value)
    given, begun = parser.parse_args(), time.perf_counter()
    start = REAL/"weights"/"yolov5n_coco_trunk.pt"
    training = dict(imgsz=given.imgsz, epochs=given.epochs, batch=8, device="cpu", weights=str(start) if start.exists() else "yolov5n.yaml",
                    hyp=read_recipe(ROOT/"configs"/"recipes"/"cpu.yaml"))
    there = dict(imgsz=given.real_imgsz, epochs=given.real_epochs)
    figures = quick() if given.quick else full(given.out, given.frames, given.seeds, given.store, there, **training)
    top, real = figures.get("cow", {}), figures.get("real_cow", {})
    named = {k: top.get(k) for k in ("precision_at_k", "auc", "cleanlab_precision_at_k")} | {k: figures["farm"][k] for k in ("off", "off_by_chance")}
    named |= {f"real_{k}": real.get(k) for k in ("precision_at_k", "auc", "cleanlab_precision_at_k", "off", "off_by_chance")}
    print(json.dumps(named | dict(seconds=round(time.perf_counter() - begun, 1), runs=figures)))
