"""How well missing boxes are found: 60 % of the boxes are taken out of the labels, and cross-fitted detectors have to name them.

`python benchmarks/suspects.py [--quick]`; the last line is one JSON object. k is the number of boxes taken out; a suspect is right if it overlaps
one of them by .5, one to one. `auc` is of images with against images without a missing box. `off` is the largest difference, over deciles of at
least 20 suspects pooled over seeds, between the mean probability and the share that is truly wrong. Cleanlab ranks the same predictions by its
"overlooked" score, at its default threshold and at the best one of ten. The full form renders a farm and trains 3 models a seed and scenario at
320 px for 12 epochs; it keeps every finished training and goes on where it was. Of the real frames only the cows are judged: the pigs' own labels
have gaps, so what is found there cannot be called wrong. --quick reads the stored predictions of a small run (one seed).
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
from livestock_nb.data import CORNERS, SPECIES, load_table, save_table
from livestock_nb.groups import find_groups, image_hashes
from livestock_nb.score import match_column, match_table
from livestock_nb.split import make_split
from livestock_nb.suspects import crossfit, image_scores, join_folds, label_suspects
from livestock_nb.train import read_hyp

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent/"shared"/"data"
STORED = Path(__file__).parent/"stored"


def farm_tables(out: Path, frames: int, test_frames: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "Images with groups, complete boxes and folds of a made-up farm."
    from livestock_nb.farm import make_farm
    from livestock_nb.intake import read_farm
    if not (out/"split.parquet").exists():
        make_farm(out/"farm", out/"truth.parquet", frames, test_frames, missing=0., seed=0)
        prepare(out, *read_farm(out/"farm"/"train")[:2])
    return tuple(load_table(out/f"{n}.parquet") for n in ("images", "boxes", "split"))


def real_tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "The same of the real frames, train and test together, as labelled."
    from livestock_nb.intake import read_farm
    if not (out/"split.parquet").exists(): prepare(out, *read_farm(REAL/"farm"/"train")[:2])
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
    for least in (None, *np.arange(.05, 1, .1)):
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


def calibration(suspects: pd.DataFrame) -> dict:
    "Largest difference between probability and truth over deciles with at least 20 suspects, and the deciles."
    g = suspects.groupby(pd.cut(suspects.p, np.linspace(0, 1, 11), include_lowest=True), observed=True)
    df = g.agg(n=("p", "size"), p=("p", "mean"), right=("right", "mean"))[lambda d: d.n >= 20]
    return dict(off=round(float((df.p - df.right).abs().max()), 4), deciles=df.round(3).to_numpy().tolist())


def summary(runs: list[tuple[dict, pd.DataFrame]]) -> dict:
    "Means over seeds, and the calibration of all suspects together."
    means = pd.DataFrame([r for r, _ in runs]).mean(numeric_only=True).round(4).to_dict()
    return means | calibration(pd.concat([s for _, s in runs]))


DAMAGE = dict(cow=["cow"], both=list(SPECIES))


def quick() -> dict:
    "From stored predictions."
    images, truth = load_table(STORED/"images.parquet"), load_table(STORED/"truth.parquet")
    return {name: summary([judge(images, truth, labels, load_table(STORED/f"found_{name}.parquet"), 0, False)])
            for name, labels in DAMAGE.items() if (STORED/f"found_{name}.parquet").exists()}


def full(out: Path, frames: int, seeds: int, **training) -> dict:
    "Everything trained here."
    home = out/f"farm{frames}"
    homes = dict(farm=(home, lambda: farm_tables(home, frames, frames//3)))
    if REAL.exists(): homes["real"] = (out/"real", lambda: real_tables(out/"real"))
    figures = {}
    for place, (home, tables) in homes.items():
        images, truth, split = tables()
        for name, labels in DAMAGE.items():
            if (place, name) == ("real", "both"): continue
            runs = []
            for seed in range(seeds if name == "cow" else 1):
                kept = drop_boxes(truth, .6, labels, seed)[0]
                runs.append(judge(images, truth, labels, predictions(home, images, kept, split, name, seed, **training), seed, place == "real"))
            figures[f"{place}_{name}"] = summary(runs)
            print(json.dumps({f"{place}_{name}": figures[f"{place}_{name}"]}), flush=True)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="stored predictions of a small run")
    parser.add_argument("--out", type=Path, default=ROOT/"runs"/"bench_labels", help="where trainings are kept")
    for name, value in dict(frames=360, seeds=3, imgsz=320, epochs=12).items(): parser.add_argument(f"--{name}", type=int, default=value)
    given, begun = parser.parse_args(), time.perf_counter()
    start = REAL/"weights"/"yolov5n_coco_trunk.pt"
    training = dict(imgsz=given.imgsz, epochs=given.epochs, batch=8, device="", weights=str(start) if start.exists() else "yolov5n.yaml",
                    hyp=read_hyp(ROOT/"configs"/"hyp"/"scratch.yaml")[0])
    figures = quick() if given.quick else full(given.out, given.frames, given.seeds, **training)
    top = figures.get("cow") or figures.get("farm_cow")
    named = {k: top.get(k) for k in ("precision_at_k", "auc", "cleanlab_precision_at_k", "off")}
    real = figures.get("real_cow", {})
    print(json.dumps(named | dict(real_precision_at_k=real.get("precision_at_k"), real_auc=real.get("auc"),
                                  seconds=round(time.perf_counter() - begun, 1), runs=figures)))
