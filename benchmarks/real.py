"""On real frames: our recipe against stock `yolo train` in the same wall-clock.

    python benchmarks/real.py time     # twice each, in turns, on a machine with nothing else to do: about two minutes
    python benchmarks/real.py [train]  # the trainings that are not there yet, then one JSON line
    python benchmarks/real.py without  # the recipe without one of its choices at a time, seed 0

Both start from the same weights and learn from the same labelled frames. Stock is the command `yolo detect train` as it comes: 20 epochs, 416 px,
batch 16, its own optimizer, loader and threads (one fewer than the machine has cores), the train side of our split to learn from, the valid side to
choose its epoch by. Ours is `train_model` with configs/recipes/cpu.yaml, the same size and batch, every core; it delivers its last epoch, and so can
learn from the valid side as well. The recipe was chosen on the valid side alone, before that, and committed before its first run was scored on the
test frames.

What a training learns does not depend on how long it takes, so time and score are measured apart. `time` starts each as a process of its own, for so
few epochs that each kind (with mosaic and without) is there, and reckons from their seconds and those of start and end what stock needs for 20
epochs, and how many of ours fit in. That number is `EPOCHS`, below, fixed before the trainings; these may then run beside other work, on any number
of threads. A machine that is never idle spoils that measurement; then the seconds of computing tell, which cost.json has for every training (for one
that was killed, those since): stock computes on one thread, so where ours needs no more of them, it fits in on a single core, and more so on two.

`train` scores the 54 test frames with our own functions (mAP@.75, `coco`): `difference` is ours - stock, averaged over the seeds; `low` and `high`
are the ends of its 95 % interval over 2,000 bootstrap draws of the frames, the same draws for all trainings. Every training is kept in --folder,
goes on after a kill (stock: begins again), and is not done twice.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from livestock_nb.data import load_table, save_json, save_table
from livestock_nb.score import draw_images, match_submission, read_answer, resampled_ap
from livestock_nb.train import load_model, quiet_ultralytics, read_recipe, train_model

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent/"shared"/"data"
SIZE, BATCH, STOCK_EPOCHS = 416, 16, 20
EPOCHS = 30  # of ours
WITHOUT = dict(  # choice: what the recipe says instead
    many_epochs=dict(epochs=20), step_every_batch=dict(accumulate=4), valid_side=dict(full=False), mosaic=dict(mosaic=0.), cosine=dict(cos_lr=False),
    bf16=dict(amp=False, channels_last=False))  # at as many epochs: what it does to the score, beside the time


def make_data(folder: Path, frames: Path) -> Path:
    "The split of the train frames, by our stages; what is there is not made again."
    config = folder/"data.yaml"
    stages = [dict(notebook="02_intake", params=dict(zips=str(frames/"train"))), dict(notebook="04_split", params=dict(tables="$intake"))]
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(stages=stages, deliver="$split/report.csv")))
    words = [sys.executable, "-c", "from livestock_nb.cli import main; main()", "run", str(config), "--run", str(folder/"data")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return folder/"data"/"split"


@contextmanager
def costed(path: Path) -> Iterator[None]:
    "Write the seconds on the clock and of computing that the block takes, those of its processes included."
    def computing() -> float: return sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    begun, before = time.time(), computing()
    yield
    save_json(dict(clock_s=round(time.time()-begun, 1), computing_s=round(computing()-before, 1)), path)


def stock(data: Path, out: Path, weights: Path, seed: int, epochs: int = STOCK_EPOCHS, **more) -> Path:
    "The weights of one stock training."
    if not (out/"done").exists():
        shutil.rmtree(out, ignore_errors=True)
        args = dict(model=weights, data=data/"data.yaml", imgsz=SIZE, batch=BATCH, epochs=epochs, seed=seed, project=out.parent, name=out.name)
        words = [str(Path(sys.executable).with_name("yolo")), "detect", "train", *(f"{k}={v}" for k, v in (args | more).items())]
        quiet_ultralytics()  # puts the font where ultralytics looks for it
        env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "YOLO_VERBOSE")} | dict(YOLO_OFFLINE="true")
        with costed(out/"cost.json"): done = subprocess.run(words, env=env, capture_output=True, text=True)
        if done.returncode: raise SystemExit(done.stderr[-2000:])
        (out/"done").touch()
    return out/"weights"/"best.pt"


def ours(data: Path, out: Path, weights: Path, seed: int, epochs: int, hyp: dict) -> dict:
    "One training with the recipe, as `train_model` takes it; not validated on the way, since only its last epoch counts."
    return dict(data=str(data), out=str(out), weights=str(weights), hyp=hyp, imgsz=SIZE, epochs=epochs, batch=BATCH, device="cpu", seed=seed,
                validate=False, desc=out.name)


def trained(**training) -> Path:
    "The weights of one of our trainings."
    best = Path(training["out"])/"best.pt"
    if not best.exists():
        with costed(best.with_name("cost.json")): train_model(**training)
    return best


CHILD = """
import json, sys, time
from livestock_nb.train import train_model
told = []
train_model(**json.loads(sys.argv[1]), watch=lambda results: told.append(time.time()))
print(json.dumps(told))
"""


def parts(begun: float, ended: float, epochs: list[float]) -> dict:
    "Seconds of an epoch with mosaic, of one without, and of all the rest, from the moments at which a process and its three epochs ended."
    mosaic, plain = epochs[1]-epochs[0], epochs[2]-epochs[1]
    return dict(mosaic=mosaic, plain=plain, rest=ended-begun-2*mosaic-plain)


def time_stock(data: Path, out: Path, weights: Path) -> dict:
    "`parts` of stock."
    begun = time.time()
    stock(data, out, weights, 0, 3, close_mosaic=1)
    ended = time.time()
    rows = pd.read_csv(out/"results.csv")
    last = (out/"results.csv").stat().st_mtime  # its clock starts with its first epoch
    return parts(begun, ended, list(rows.time + last - rows.time.iloc[-1]))


def time_ours(data: Path, out: Path, weights: Path, hyp: dict) -> dict:
    "`parts` of ours."
    begun = time.time()
    training = json.dumps(ours(data, out, weights, 0, 3, hyp | dict(close_mosaic=1)))
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | dict(PYTHONPATH=str(ROOT), YOLO_OFFLINE="true")
    done = subprocess.run([sys.executable, "-c", CHILD, training], env=env, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return parts(begun, time.time(), json.loads(done.stdout.splitlines()[-1]))


def clock(folder: Path, weights: Path, turns: int, hyp: dict) -> dict:
    "Seconds that stock needs, and how many of our epochs fit into them; the fewest of all turns, those of earlier calls included."
    data, rows = folder/"data"/"split", load_table(folder/"time.csv").to_dict("records") if (folder/"time.csv").exists() else []
    for turn in tqdm(range(turns), desc="turns"):
        for who in ("stock", "ours")[::-1 if turn % 2 else 1]:
            out = folder/"time"
            shutil.rmtree(out, ignore_errors=True)
            took = time_stock(data, out, weights) if who == "stock" else time_ours(data, out, weights, hyp)
            rows.append(dict(turn=len(rows)//2, who=who) | {k: round(v, 2) for k, v in took.items()})
            save_table(pd.DataFrame(rows), folder/"time.csv")
    shutil.rmtree(folder/"time", ignore_errors=True)
    table, plain = pd.DataFrame(rows).set_index(["turn", "who"]).unstack(), hyp.get("close_mosaic", 10)
    theirs, own = ({k: table[k][who] for k in ("mosaic", "plain", "rest")} for who in ("stock", "ours"))
    wall = theirs["rest"] + (STOCK_EPOCHS-10)*theirs["mosaic"] + 10*theirs["plain"]
    fit = np.floor((wall - own["rest"] - plain*own["plain"])/own["mosaic"]) + plain
    return dict(stock_s=[round(v, 1) for v in wall], epochs_that_fit=int(fit.min()), fits=fit.astype(int).tolist(), rows=rows)


def found(frames: Path, weights: Path) -> pd.DataFrame:
    "What a detector finds in the test frames, in the challenge's form; kept beside its weights."
    from livestock_nb.infer import predict, to_submission
    from livestock_nb.intake import list_images
    path = weights.with_name("found.csv")
    if not path.exists(): save_table(to_submission(predict(list_images(frames/"test")[0], load_model(weights), SIZE, device="cpu")[0]), path)
    return load_table(path)


def score(frames: Path, weights: Path) -> np.ndarray:
    "mAP@.75 on the test frames: once, and for each draw of them."
    answer = read_answer(frames/"test"/"answer.csv")
    matches = match_submission(answer, found(frames, weights), [.75], "coco", sorted(set(answer.ImageID)))
    draws = draw_images(matches.image.cat.categories, 2000)
    return np.r_[resampled_ap(matches, .75).loc["mean"], resampled_ap(matches, .75, draws).loc["mean"]]


def compared(ours: list[np.ndarray], stock: list[np.ndarray]) -> dict:
    "The paired difference of the means over seeds, with its interval."
    difference = np.mean(ours, axis=0) - np.mean(stock, axis=0)
    low, high = np.nanquantile(difference[1:], [.025, .975])
    number = lambda v: round(float(v), 4)
    return dict(ours=[number(v[0]) for v in ours], stock=[number(v[0]) for v in stock],
                difference=number(difference[0]), low=number(low), high=number(high))


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["time", "train", "without"], default="train")
    parser.add_argument("--frames", type=Path, default=SHARED/"farm", help="folder of train and test, zips as AI Hub's")
    parser.add_argument("--weights", type=Path, default=SHARED/"weights"/"yolov5n_coco_trunk.pt")
    parser.add_argument("--folder", type=Path, default=ROOT/"runs"/"real")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=2, help="of the measurement of time")
    given = parser.parse_args()
    folder, weights, hyp = given.folder.resolve(), given.weights.resolve(), read_recipe(ROOT/"configs"/"recipes"/"cpu.yaml")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(folder/"config"))
    data = make_data(folder, given.frames)
    if given.what == "time": said = clock(folder, weights, given.turns, hyp)
    elif given.what == "train":
        pairs = [(trained(**ours(data, folder/f"ours{s}", weights, s, EPOCHS, hyp)), stock(data, folder/f"stock{s}", weights, s))
                 for s in range(given.seeds)]
        said = compared(*([score(given.frames, w) for w in who] for who in zip(*pairs, strict=True))) | dict(epochs=EPOCHS, seeds=given.seeds)
        costs = {p.parent.name: json.loads(p.read_text()) for p in sorted(folder.glob("*/cost.json"))}
        said["computing_s"] = {who: [v["computing_s"] for k, v in costs.items() if k.startswith(who)] for who in ("ours", "stock")}
    else:
        whole, said = score(given.frames, trained(**ours(data, folder/"ours0", weights, 0, EPOCHS, hyp))), {}
        for name, instead in WITHOUT.items():
            less = {k: v for k, v in instead.items() if k != "epochs"}
            training = ours(data, folder/f"without_{name}", weights, 0, instead.get("epochs", EPOCHS), hyp | less)
            said[name] = compared([whole], [score(given.frames, trained(**training))])
    save_json(said, folder/f"{given.what}.json")
    print(json.dumps(said))


if __name__ == "__main__": main()
