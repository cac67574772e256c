"""Our search against ultralytics' own tuner, on landscapes that cost nothing, and on a detector.

    python benchmarks/search.py [--quick | --detector] [--seeds N]

`ours_30` and `theirs_60` are the medians over 12 seeds of the best after 30 trials of our default sampler and after 60 of
ultralytics' mutation (`Tuner._mutate`, imported); both start from the same point. Landscapes: Hartmann-6 (Dixon and Szegö 1978; its top is 3.32), and
a made-up detector: twelve hyper-parameters in the bounds of ultralytics' own tuner, the top at a place that differs from seed to seed, learning
rates on a log scale, an interaction of rate and momentum, two hyper-parameters that do not matter, noise of .002 on what the search sees. There the
true value of what the search takes for its best is compared. --quick leaves out our other samplers. The last line is one JSON object.

--detector: a made-up farm; both search rate, loss gains and colours, equal epochs in total; the winners are trained alike and scored on the hidden
truth. All start from --weights: by default COCO's trunk where ../shared has it, since from scratch so short trainings find nothing, and no search
could be told from another. Every finished piece is kept in --folder, and the same command goes on; with --quick it shows that it runs, no more.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import optuna
import pandas as pd
import yaml
from tqdm import tqdm

from livestock_nb.data import load_table, save_table
from livestock_nb.samplers import SAMPLERS, ask, finished_trials
from livestock_nb.score import draw_images, match_submission, read_answer, resampled_ap
from livestock_nb.train import quiet_ultralytics, read_hyp, train_model

ROOT, DEFAULT = Path(__file__).parents[1], "gp"
TRUNK = ROOT.parent/"shared"/"data"/"weights"/"yolov5n_coco_trunk.pt"
A = np.array([[10, 3, 17, 3.5, 1.7, 8], [.05, 10, 17, .1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, .05, 10, .1, 14]])
P = np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
              [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]])/10_000
WEIGHT = np.array([1, 1.2, 3, 3.2])
NAMES = ["lr0", "lrf", "momentum", "weight_decay", "box", "cls", "dfl", "hsv_s", "translate", "scale", "fliplr", "mosaic"]
LOG = ["lr0", "lrf", "box", "cls", "dfl"]


def space_of(bounds: dict[str, tuple[float, ...]], log: list[str]) -> pd.DataFrame:
    "Bounds of ultralytics' tuner (low, high, perhaps gain) as a space of ours."
    rows = {k: dict(low=float(v[0]), high=float(v[1]), gain=v[2] if len(v) > 2 else 1., log=k in log, grid=()) for k, v in bounds.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("name")


def hartmann(seed: int) -> tuple[dict, list, dict, Callable]:
    "Bounds, names on a log scale, start, and a function: values -> (what the search sees, the truth). The start is random."
    names = [f"x{i}" for i in range(6)]

    def truth(hyp: dict) -> tuple[float, float]:
        x = np.array([hyp[k] for k in names])
        y = float(WEIGHT @ np.exp(-(A*(x-P)**2).sum(axis=1)))
        return y, y
    return dict.fromkeys(names, (0., 1.)), [], dict(zip(names, np.random.default_rng(seed).random(6).round(5).tolist(), strict=True)), truth


def detector(seed: int) -> tuple[dict, list, dict, Callable]:
    "As `hartmann`: a made-up mAP of twelve hyper-parameters. The start are ultralytics' defaults."
    quiet_ultralytics()
    from ultralytics.engine.tuner import Tuner
    from ultralytics.utils import DEFAULT_CFG_DICT
    with tempfile.TemporaryDirectory() as d: theirs = Tuner(dict(project=d), model=object()).space
    bounds, rng = {k: theirs[k] for k in NAMES}, np.random.default_rng((7, seed))
    low, high = (np.array([math.log(b[i]) if k in LOG else b[i] for k, b in bounds.items()]) for i in (0, 1))
    top, weight = rng.uniform(.15, .85, 12), np.array([.5, .12, .3, .06, .12, .2, .1, .06, .15, .2, 0, 0])

    def truth(hyp: dict) -> tuple[float, float]:
        x = np.array([math.log(hyp[k]) if k in LOG else hyp[k] for k in NAMES])
        off = (x-low)/(high-low) - top
        y = .92*math.exp(-float(weight @ off**2) - .3*max(off[0] + off[2], 0)**2)
        noise = np.random.default_rng([seed, *np.abs(x*1e6).astype(np.int64)]).normal(0, .002)
        return y + noise, y
    return bounds, LOG, {k: float(DEFAULT_CFG_DICT[k]) for k in NAMES}, truth


def ours(landscape: Callable, seed: int, sampler: str, trials: int) -> list[float]:
    "The true value of the best so far after each trial."
    bounds, log, start, truth = landscape(seed)
    space, seen = space_of(bounds, log), []
    study = optuna.create_study(direction="maximize")
    for _ in range(trials):
        trial = ask(study, sampler, space, start, seed)
        seen.append(truth(trial.params))
        study.tell(trial, seen[-1][0])
    assert len(finished_trials(study, space)) == trials
    return best_so_far(seen)


def best_so_far(seen: list[tuple[float, float]]) -> list[float]:
    "The truth of the trial that looked best, after each trial."
    looks, true = np.array(seen).T
    return [float(true[looks[:i+1].argmax()]) for i in range(len(seen))]


def theirs(landscape: Callable, seed: int, trials: int) -> list[float]:
    "The same with `Tuner._mutate` and its record in a file; its clock-seeded generator is given a seed, its start is ours."
    bounds, _, start, truth = landscape(seed)
    quiet_ultralytics()
    from ultralytics.engine.tuner import Tuner
    seen, real = [], np.random.default_rng
    with tempfile.TemporaryDirectory() as d:
        tuner = Tuner(dict(project=d, space=dict(bounds)), model=object())
        tuner.tune_dir.mkdir(parents=True, exist_ok=True)
        for k, v in start.items(): setattr(tuner.args, k, v)
        for i in range(trials):
            with patch("numpy.random.default_rng", lambda i=i: real((seed, i))): hyp = tuner._mutate()
            seen.append(truth(hyp))
            tuner._save_local_result(tuner._result_record(i+1, seen[-1][0], hyp, {}))
    return best_so_far(seen)


def landscapes(seeds: int, samplers: list[str]) -> dict:
    "Medians over seeds, all samplers and ultralytics' mutation."
    said = {}
    for name, landscape in dict(hartmann6=hartmann, detector12=detector).items():
        mutation = np.array([theirs(landscape, s, 60) for s in tqdm(range(seeds), desc=f"{name}, ultralytics")])
        rows = {s: np.array([ours(landscape, i, s, 30) for i in tqdm(range(seeds), desc=f"{name}, {s}")]) for s in samplers}
        said[name] = dict(
            ours_30=float(np.median(rows[DEFAULT][:, -1])), theirs_60=float(np.median(mutation[:, -1])), theirs_30=float(np.median(mutation[:, 29])),
            seeds_ours_30_wins=int((rows[DEFAULT][:, -1] >= mutation[:, -1]).sum()), start=float(np.median(mutation[:, 0])),
            all_30={k: round(float(np.median(v[:, -1])), 4) for k, v in rows.items()})
        print(name, json.dumps(said[name]), flush=True)
    return {k: {name: v[k] for name, v in said.items()} for k in ("ours_30", "theirs_60")} | said


def make_farm(folder: Path, frames: int) -> Path:
    "The run folder of a made-up farm with split and mini; what is there is not made again."
    words = [sys.executable, "-c", "from livestock_nb.cli import main; main()", "run", "configs/demo.yaml", "--run", str(folder/"farm"),
             "--until", "mini", "-p", f"farm.frames={frames}", "-p", f"farm.test_frames={frames//2}", "-v", "imgsz=320"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return folder/"farm"


def search_ours(mini: Path, out: Path, base: dict, group: str, trials: int, options: dict) -> dict:
    "The best hyper-parameters of our search; goes on where it was."
    from livestock_nb.tune import fill_start, read_groups, save_best, search, training_trial, work_folder
    start = fill_start(base, pd.concat(read_groups(group).values()))
    evaluate = training_trial(mini, work_folder(out), base, **options)
    found, _ = search(evaluate, group, start, out, f"{trials*options['epochs']} epochs", DEFAULT, patience=0, seed=options["seed"], about=options)
    save_best(found, base, list(start), out/"hyp.yaml")
    return read_hyp(out/"hyp.yaml")[0]


def search_theirs(mini: Path, out: Path, base: dict, group: str, trials: int, options: dict) -> dict:
    "The best of ultralytics' `model.tune()` in the same space, from the same start; begins anew unless it is complete."
    from livestock_nb.tune import read_groups
    best, told = out/"tune"/"best_hyperparameters.yaml", out/"tune"/"tune_results.ndjson"
    if not best.exists() or len(told.read_text().splitlines()) < trials:
        shutil.rmtree(out, ignore_errors=True)
        space = pd.concat(read_groups(group).values())
        args = options | base | dict(data=str(mini/"data.yaml"), workers=0, project=str(out), name="tune", plots=False, verbose=False)
        bounds = {s.Index: (s.low, s.high) for s in space.itertuples()}
        quiet_ultralytics().YOLO(args.pop("weights")).tune(space=bounds, iterations=trials, **args)
    return base | yaml.safe_load(best.read_text())


def retrained(farm: Path, out: Path, hyp: dict, epochs: int, options: dict) -> pd.DataFrame:
    "What the detector trained with `hyp` on the whole train side finds in the test images."
    from livestock_nb.infer import predict, to_submission
    from livestock_nb.intake import list_images
    if not (out/"found.csv").exists():
        best = train_model(farm/"split", out, hyp=hyp, **options | dict(epochs=epochs))
        found, _ = predict(list_images(farm/"farm"/"test")[0], best, options["imgsz"], device="cpu")
        save_table(to_submission(found), out/"found.csv")
    return load_table(out/"found.csv")


def detectors(folder: Path, weights: str, seeds: int, frames: int, trials: int, epochs: int, final_epochs: int) -> dict:
    "Both searches and both trainings for each seed; the paired difference, averaged over the seeds, with its interval over images."
    farm, base = make_farm(folder, frames), read_hyp(ROOT/"configs"/"hyp"/"scratch.yaml")[0]
    answer, values, differences = read_answer(farm/"farm"/"test"/"answer.csv"), [], []
    for seed in range(seeds):
        options, ap = dict(weights=weights, imgsz=192, epochs=epochs, batch=8, device="cpu", seed=seed), {}
        for who, look in dict(ours=search_ours, theirs=search_theirs).items():
            home = folder/f"{who}{seed}"
            hyp = look(farm/"mini", home, base, "lr+loss+hsv", trials, options)
            found = retrained(farm, home/"final", hyp, final_epochs, options)
            matches = match_submission(answer, found, [.75], "coco", sorted(set(answer.ImageID)))
            draws = draw_images(matches.image.cat.categories, 1000)
            ap[who] = np.r_[resampled_ap(matches, .75).loc["mean"], resampled_ap(matches, .75, draws).loc["mean"]]
            print(seed, who, round(ap[who][0], 4), flush=True)
        values.append([ap["ours"][0], ap["theirs"][0]])
        differences.append(ap["ours"] - ap["theirs"])
    mean = np.mean(differences, axis=0)
    low, high = np.nanquantile(mean[1:], [.025, .975])
    number = lambda v: round(float(v), 4)
    return dict(detector=dict(ours=[number(v[0]) for v in values], theirs=[number(v[1]) for v in values], difference=number(mean[0]), low=number(low),
                              high=number(high), weights=Path(weights).name, frames=frames, trials=trials, epochs=epochs, final_epochs=final_epochs))


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser()
    for flag in ("--quick", "--detector"): parser.add_argument(flag, action="store_true")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT/"runs"/"search")
    parser.add_argument("--weights", default=str(TRUNK) if TRUNK.exists() else "yolov5n.yaml", help="what all trainings of --detector start from")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds = args.seeds or (12 if not args.detector else 1 if args.quick else 3)
    if args.detector:
        sizes = dict(frames=24, trials=2, epochs=1, final_epochs=1) if args.quick else dict(frames=120, trials=8, epochs=4, final_epochs=12)
        said = detectors(args.folder.resolve(), args.weights, seeds, **sizes)
    else: said = landscapes(seeds, [DEFAULT] if args.quick else [s for s in SAMPLERS if s not in ("grid", "population")])
    print(json.dumps(dict(default=DEFAULT, seeds=seeds, ultralytics=quiet_ultralytics().__version__, optuna=optuna.__version__, **said)))


if __name__ == "__main__": main()
