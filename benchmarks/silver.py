"""How much of what missing labels cost silver boxes give back, on a made-up farm with complete test labels.

`python benchmarks/silver.py [--quick]`; the last line is one JSON object. 60 % of the cow boxes (and once of the pigs' too) are taken out of train.
Detectors are trained alike on what is left (damaged), on that with silver and regions to ignore (repaired), on all boxes (complete), and by the
reference's recipe: copies of the images with at least 4 boxes at confidence .05 of a model trained on these very images, beside the images as they
were. `gap_closed` is (repaired - damaged)/(complete - damaged) in mAP@.75, null where the gap's own interval contains 0. The farm is small, 120
frames: of 360 the detector learns all that mAP@.75 can tell in spite of the damage. `clean` is silver on undamaged labels. On the real frames both
arms are cross-fitted, so that all frames judge. Lists are value, difference to damaged, and its 95 % interval. The full form goes on where it was.
--quick scores the stored predictions of a small run: 224 px, one draw of the damage, up to three seeds of training, the reference's recipe with one.
"""
import argparse
import json
import time
from pathlib import Path

import pandas as pd
from suspects import DAMAGE, REAL, ROOT, STORED, farm_tables, predictions, real_tables

from livestock_nb.damage import drop_boxes
from livestock_nb.data import box_table, load_table, save_table
from livestock_nb.errors import judging_boxes
from livestock_nb.silver import candidates, check_predictions, merge_silver, tune_thresholds
from livestock_nb.suspects import label_suspects
from livestock_nb.train import read_hyp
from livestock_nb.trial import compare_arms, gap_closed, train_arm

ARMS = ["damaged", "repaired", "complete", "reference"]
TESTED = 150  # test frames


def repair(images: pd.DataFrame, kept: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    "Gold, silver from a probability of .8, and regions to ignore from .1."
    doubt, ours = label_suspects(images, kept, found), candidates(check_predictions(found, images), images)
    return merge_silver(kept, ours, tune_thresholds(doubt), unsure=tune_thresholds(doubt, .1))


def reference(images: pd.DataFrame, kept: pd.DataFrame, weights: Path, imgsz: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "The reference's recipe: second copies of images, with the boxes of a model that was trained on them."
    from livestock_nb.infer import predict
    cows = images[images.species == "cow"]
    found = predict(cows, weights, imgsz, .05, .7, device="cpu", margin=1)[0]
    many = found.groupby("image").size().loc[lambda n: n >= 4].index
    rename = lambda d: d[d.image.isin(many)].assign(image="copy_" + d.image[d.image.isin(many)])
    return pd.concat([images, rename(cows)], ignore_index=True), box_table(pd.concat([kept, rename(found).assign(source="silver")]))


def arm_tables(arm: str, home: Path, images: pd.DataFrame, truth: pd.DataFrame, split: pd.DataFrame, name: str, seed: int, training: dict) -> tuple:
    "Images and boxes that an arm trains on."
    kept = truth if name == "clean" else drop_boxes(truth, .6, DAMAGE[name], seed)[0]
    if arm in ("damaged", "complete"): return images, truth if arm == "complete" else kept
    if arm == "repaired": return images, repair(images, kept, predictions(home, images, kept, split, name, seed, **training))
    return reference(images, kept, home/f"{name}{seed}_damaged"/"out"/"best.pt", training["imgsz"])


def test_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Test images and their complete boxes."
    from livestock_nb.farm import read_back
    return read_back(folder)


def run_arms(home: Path, frames: int, seeds: int, training: dict) -> dict:
    "Predictions of every arm and seed on the test images; each made once."
    from livestock_nb.infer import predict
    images, truth, split = farm_tables(home, frames, TESTED)
    tested, _ = test_tables(home/"farm"/"test")
    runs = {}
    for name, times in dict(cow=seeds, both=1, clean=seeds).items():
        for arm in ARMS if name != "clean" else ["damaged", "repaired"]:
            for seed in range(times):
                path = home/f"{name}{seed}_{arm}.parquet"
                if not path.exists():
                    mine, boxes = arm_tables(arm, home, images, truth, split, name, seed, training)
                    same = arm == "repaired" and boxes.source.eq("gold").all()  # nothing came in: the damaged arm's training again
                    best = train_arm(mine, boxes, home/f"{name}{seed}_{'damaged' if same else arm}", seed=seed, **training)
                    save_table(predict(tested, best, training["imgsz"], .01, device=training["device"], margin=1)[0], path)
                runs.setdefault(name, {}).setdefault(arm, []).append(load_table(path))
    return runs


def real_arms(home: Path, seeds: int, training: dict) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    "Cross-fitted predictions of all real frames with damaged and with repaired labels, each made once; the complete boxes; the frames."
    images, truth, split = real_tables(home)
    arms = dict(damaged=[], repaired=[])
    for seed in range(seeds):
        kept = drop_boxes(truth, .6, ["cow"], seed)[0]
        arms["damaged"].append(predictions(home, images, kept, split, "cow", seed, **training))
        boxes = repair(images, kept, arms["damaged"][-1])
        arms["repaired"].append(predictions(home, images, boxes, split, "cow_repaired", seed, **training))
    return arms, judging_boxes(truth, images), images


def figures(runs: dict, gold: pd.DataFrame, images: pd.DataFrame) -> dict:
    "Every damage's measures, and how much of its gap is closed; arms are compared over the seeds that both have."
    out = {}
    for name, arms in runs.items():
        out[name], known = {}, {"damaged", "complete"} <= set(arms)
        for arm in arms:
            same = {k: arms[k][:min(map(len, arms.values())) if arm == "reference" else None] for k in ("damaged", arm, "complete") if k in arms}
            rows = compare_arms(same, gold, images).set_index(["arm", "measure"])[["value", "difference", "low", "high"]].round(4)
            out[name][arm] = rows.loc[arm].T.to_dict("list")
            for measure in ("mAP@.75", "F1 at conf .25") if known and arm in ("repaired", "reference") else ():
                three = dict(damaged=same["damaged"], repaired=same[arm], complete=same["complete"])
                out[name][f"gap {arm} {measure}"] = gap_closed(three, gold, images, measure)
                if name == "cow": out[name][f"gap {arm} {measure} of cows"] = gap_closed(three, gold[gold.label == "cow"], images, measure)
    return out


def stored() -> dict:
    "Predictions of a small run, by damage, arm and seed."
    table, runs = load_table(STORED/"arms.parquet"), {}
    for (name, arm, _), g in table.groupby(["damage", "arm", "seed"]): runs.setdefault(name, {}).setdefault(arm, []).append(box_table(g))
    return {n: {a: arms[a] for a in ARMS if a in arms} for n, arms in runs.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="stored predictions of a small run")
    parser.add_argument("--out", type=Path, default=ROOT/"runs"/"bench_labels", help="where trainings are kept; shared with suspects.py")
    for name, value in dict(frames=120, seeds=3, imgsz=320, epochs=12).items(): parser.add_argument(f"--{name}", type=int, default=value)
    given, begun = parser.parse_args(), time.perf_counter()
    start = REAL/"weights"/"yolov5n_coco_trunk.pt"
    training = dict(imgsz=given.imgsz, epochs=given.epochs, batch=8, device="", weights=str(start) if start.exists() else "yolov5n.yaml",
                    hyp=read_hyp(ROOT/"configs"/"hyp"/"scratch.yaml")[0])
    if given.quick: said = figures(stored(), load_table(STORED/"test_boxes.parquet"), load_table(STORED/"test_images.parquet"))
    else:
        home = given.out/f"farm{given.frames}"
        said = figures(run_arms(home, given.frames, given.seeds, training), *test_tables(home/"farm"/"test")[::-1])
        if REAL.exists():
            arms, gold, images = real_arms(given.out/"real", given.seeds, training)
            said["real"] = compare_arms(arms, gold, images).round(4).to_dict("records")
    cow = said.get("cow", {})
    gap, theirs, f1 = (cow.get(f"gap {k}", {}) for k in ("repaired mAP@.75", "reference mAP@.75", "repaired F1 at conf .25"))
    named = dict(gap_closed=gap.get("closed"), gap_interval=[gap.get("low"), gap.get("high")], reference_recipe_gap_closed=theirs.get("closed"),
                 f1_gap_closed=f1.get("closed"), f1_gap_interval=[f1.get("low"), f1.get("high")])
    cows = cow.get("gap repaired mAP@.75 of cows", {})
    named |= dict(cow_gap_closed=cows.get("closed"), cow_gap_interval=[cows.get("low"), cows.get("high")])
    print(json.dumps(named | dict(seconds=round(time.perf_counter() - begun, 1), runs=said)))
