"""How much of what missing labels cost silver boxes and regions to ignore give back, on a made-up farm with complete test labels.

`python benchmarks/silver.py [--quick]`; the last line is one JSON object. 60 % of the cow boxes (`cow`), or of both species' (`both`), are taken
out of train. What silver is made of is found by models that learn twice: as long as the arms, then for 36 epochs with regions to ignore where the
first ones find a missing box. Detectors are trained alike on what is left (damaged), on that with silver boxes and, where unsure, regions to ignore
(silver), with regions alone (regions), with silver for the labels whose boxes are well placed and regions for the others (repaired; what is well
placed the labels that are left tell, no test answer), on all boxes (complete), and by the reference's recipe: copies of the images with at least 4
boxes at confidence .05 of a model trained on these very images, beside the images as they were. `gap_closed` is (repaired - damaged)/(complete -
damaged) in mAP@.75, null where the gap's own interval contains 0. The farm is small, 120 frames: of 360 the detector learns all that mAP@.75 can
tell in spite of the damage. `clean` is the same on undamaged labels. On the real frames both arms are cross-fitted, so that all frames judge. Lists
are value, difference to damaged, and its 95 % interval. The full form goes on where it was; arms with the same boxes share a detector.
--quick scores the stored predictions of a small run, which --store keeps.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
from suspects import DAMAGE, REAL, ROOT, STORED, compact, farm_tables, predictions, predictions_again, read_real, real_tables

from livestock_nb.damage import drop_boxes
from livestock_nb.data import box_table, load_table, save_table
from livestock_nb.errors import judging_boxes
from livestock_nb.farm import read_back
from livestock_nb.silver import candidates, check_predictions, choose_silver, merge_silver
from livestock_nb.suspects import label_suspects
from livestock_nb.train import read_recipe
from livestock_nb.trial import compare_arms, gap_closed, train_arm

ARMS = ["damaged", "silver", "regions", "repaired", "complete", "reference"]


def repair(images: pd.DataFrame, kept: pd.DataFrame, found: pd.DataFrame, arm: str = "repaired") -> pd.DataFrame:
    """Gold and, by `arm`: silver from a probability of .5 and regions to ignore from .1; or regions for all of these; or the one or the other for
    each label, by how well predicted boxes are placed on the labels that they hit."""
    doubt, ours = label_suspects(images, kept, found), candidates(check_predictions(found, images), images)
    high, low = choose_silver(doubt, found, kept, placed=dict(silver=0, regions=2).get(arm, .8))
    return merge_silver(kept, ours, high, unsure=low)


def reference(images: pd.DataFrame, kept: pd.DataFrame, weights: Path, imgsz: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The reference's recipe: second copies of images, with the boxes of a model that was trained on them."
    from livestock_nb.infer import predict
    cows = images[images.species == "cow"]
    found = predict(cows, weights, imgsz, .05, .7, device="cpu", margin=1)[0]
    many = found.groupby("image").size().loc[lambda n: n >= 4].index
    rename = lambda d: d[d.image.isin(many)].assign(image="copy_" + d.image[d.image.isin(many)])
    return pd.concat([images, rename(cows)], ignore_index=True), box_table(pd.concat([kept, rename(found).assign(source="silver")]))


def arm_tables(arm: str, home: Path, tables: tuple, name: str, seed: int, training: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Images and boxes that an arm trains on."
    images, truth, split = tables
    kept = truth if name == "clean" else drop_boxes(truth, .6, DAMAGE[name], seed)[0]
    if arm in ("damaged", "complete"): return images, truth if arm == "complete" else kept
    if arm == "reference": return reference(images, kept, arm_weights(home, images, kept, seed, training), training["imgsz"])
    return images, repair(images, kept, predictions_again(home, images, kept, split, name, seed, **training), arm)


def arm_weights(home: Path, images: pd.DataFrame, boxes: pd.DataFrame, seed: int, training: dict) -> Path:
    "The detector that learnt from these boxes; arms with the same boxes share it."
    return train_arm(images, boxes, home/f"arm{seed}_{len(images)}_{pd.util.hash_pandas_object(boxes, index=False).sum():x}", seed=seed, **training)


def arm_predictions(arm: str, home: Path, tables: tuple, tested: pd.DataFrame, name: str, seed: int, training: dict) -> pd.DataFrame:
    "Predictions of an arm on the test images, made once."
    from livestock_nb.infer import predict
    mine, boxes = arm_tables(arm, home, tables, name, seed, training)
    best = arm_weights(home, mine, boxes, seed, training)
    path = best.with_name("found.parquet")
    if not path.exists(): save_table(predict(tested, best, training["imgsz"], .01, device=training["device"], margin=1)[0], path)
    made = dict(regions=int(boxes.ignore.sum())) | boxes.source[~boxes.ignore].value_counts().to_dict()
    print(json.dumps(dict(damage=name, seed=seed, arm=arm, weights=best.parents[1].name, boxes=made)), file=sys.stderr, flush=True)
    return load_table(path)


def run_arms(home: Path, frames: int, seeds: int, training: dict, damages: tuple = ("both", "clean", "cow")) -> dict:
    "Predictions by damage, arm and seed; the reference's recipe once."
    tables, runs = farm_tables(home, frames), {}
    tested = read_back(home/"farm"/"test")[0]
    for name in damages:
        for seed in range(seeds):
            for arm in ["damaged", "repaired"] if name == "clean" else ARMS[:None if seed == 0 else -1]:
                runs.setdefault(name, {}).setdefault(arm, []).append(arm_predictions(arm, home, tables, tested, name, seed, training))
    return runs


def real_arms(home: Path, seeds: int, training: dict) -> dict:
    "Cross-fitted predictions of all real frames with damaged and with repaired labels, each made once."
    images, truth, split = real_tables(home)
    arms = dict(damaged=[], repaired=[])
    for seed in range(seeds):
        kept = drop_boxes(truth, .6, ["cow"], seed)[0]
        arms["damaged"].append(predictions(home, images, kept, split, "cow", seed, **training))
        boxes = repair(images, kept, predictions_again(home, images, kept, split, "cow", seed, **training))
        arms["repaired"].append(predictions(home, images, boxes, split, "cow_repaired", seed, **training))
    return arms


def compared(arms: dict[str, list], gold: pd.DataFrame, images: pd.DataFrame) -> dict:
    "Every arm beside the first one, by arm and measure: value, difference, and its 95 % interval."
    rows = compare_arms(arms, gold, images).set_index(["arm", "measure"])[["value", "difference", "low", "high"]].round(4)
    return {arm: rows.loc[arm].T.to_dict("list") for arm in arms}


def figures(runs: dict, gold: pd.DataFrame, images: pd.DataFrame) -> dict:
    "Every damage's measures, and how much of its gap is closed; the reference's recipe is compared over the seeds that it has."
    out = {}
    for name, arms in runs.items():
        once = {k: v[:len(arms.get("reference", []))] for k, v in arms.items() if k in ("damaged", "complete", "reference")}
        many = {k: v for k, v in arms.items() if k != "reference"}
        out[name] = compared(many, gold, images)
        if "complete" not in arms: continue
        if "reference" in arms: out[name]["reference"] = compared(once, gold, images)["reference"]
        for arm, three in [("repaired", many), ("reference", once)][:1 + ("reference" in arms)]:
            three = dict(damaged=three["damaged"], repaired=three[arm], complete=three["complete"])
            for measure in ("mAP@.75", "F1 at conf .25"): out[name][f"gap {arm} {measure}"] = gap_closed(three, gold, images, measure)
    return out


def store(runs: dict, tested: tuple[pd.DataFrame, pd.DataFrame], real: dict) -> None:
    "Keep what --quick reads: rows from a confidence of .02 on. Arms that share a detector are kept once."
    rows, first = [], {}
    for run, arms in (runs | dict(real=real)).items():
        for arm, many in arms.items():
            for seed, found in enumerate(many):
                name = f"{run} {arm}"
                twin = first.setdefault((seed, pd.util.hash_pandas_object(found, index=False).sum()), name)
                rows.append(compact(found if twin == name else found[:0], .02, run=name, seed=seed, same=twin))
                if twin != name: rows[-1].loc[0, ["run", "seed", "same"]] = name, seed, twin
    save_table(pd.concat(rows, ignore_index=True), STORED/"arms.parquet")
    save_table(tested[0].assign(zip="", member="", sha=""), STORED/"test_images.parquet")
    save_table(tested[1], STORED/"test_boxes.parquet")


def stored() -> tuple[dict, dict]:
    "Predictions of a small run, by damage, arm and seed; those of the real frames apart."
    table, runs = load_table(STORED/"arms.parquet"), {}
    kept = {k: g for k, g in table.dropna(subset="confidence").groupby(["run", "seed"])}
    for name, seed, same in table[["run", "seed", "same"]].drop_duplicates().itertuples(index=False):
        damage, arm = name.split()
        runs.setdefault(damage, {}).setdefault(arm, []).append(box_table(kept[same, seed].assign(source="model")))
    return runs, runs.pop("real", {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="stored predictions of a small run")
    parser.add_argument("--store", action="store_true", help="keep the predictions of this run for --quick")
    parser.add_argument("--out", type=Path, default=ROOT/"runs"/"bench_labels", help="where trainings are kept; shared with suspects.py")
    numbers = dict(frames=120, seeds=3, imgsz=320, epochs=12, real_imgsz=384, real_epochs=12)
    for name, value in numbers.items(): parser.add_argument(f"--{name}", type=int, default=value)
    given, begun = parser.parse_args(), time.perf_counter()
    start = REAL/"weights"/"yolov5n_coco_trunk.pt"
    training = dict(imgsz=given.imgsz, epochs=given.epochs, batch=8, device="cpu", weights=str(start) if start.exists() else "yolov5n.yaml",
                    hyp=read_recipe(ROOT/"configs"/"recipes"/"cpu.yaml"))
    if given.quick: (runs, real), tested = stored(), [load_table(STORED/f"test_{n}.parquet") for n in ("images", "boxes")]
    else:
        home = given.out/f"farm{given.frames}"
        runs, tested = run_arms(home, given.frames, given.seeds, training), read_back(home/"farm"/"test")
        real = real_arms(given.out/"real", given.seeds, training | dict(imgsz=given.real_imgsz, epochs=given.real_epochs)) if REAL.exists() else {}
        if given.store: store(runs, tested, real)
    said = figures(runs, tested[1], tested[0])
    if real and REAL.exists():
        images, truth = read_real()
        said["real"] = compared(real, judging_boxes(truth, images), images)
    named = {}
    for name, damage, gap in (("", "both", "repaired mAP@.75"), ("f1_", "both", "repaired F1 at conf .25"), ("cow_", "cow", "repaired mAP@.75"),
                              ("cow_f1_", "cow", "repaired F1 at conf .25"), ("reference_recipe_", "both", "reference mAP@.75")):
        g = said.get(damage, {}).get(f"gap {gap}", {})
        named |= {f"{name}gap_closed": g.get("closed"), f"{name}gap_interval": [g.get("low"), g.get("high")]}
    named |= dict(clean=said.get("clean", {}).get("repaired", {}).get("mAP@.75"), real=said.get("real", {}).get("repaired", {}))
    print(json.dumps(named | dict(seconds=round(time.perf_counter() - begun, 1), runs=said)))
