"""What our training costs beyond ultralytics' own: the same settings, data and threads, each in a process of its own, in turns.

`python benchmarks/train.py [--quick] [--turns N]`; the last line is one JSON object. `overhead` is the median over pairs of ours/theirs - 1, of the
time from the call to the delivered file: checkpoints and digest of the data included, the start of Python excluded. `overhead_cpu` is that of the
seconds of computing, which a busy machine disturbs less; `epoch_s` is `overhead` in seconds per epoch: a checkpoint costs the same however long its
epoch is, so short epochs have a large share, and those of --quick are far shorter than real ones.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
CHILD = """
import json, sys, time
from livestock_nb.train import quiet_ultralytics, train_model, training_args
data, out, who, args = *sys.argv[1:4], json.loads(sys.argv[4])
ultralytics = quiet_ultralytics()  # threads, font and telemetry alike for both
from ultralytics.models.yolo.detect import DetectionTrainer  # the imports are not what is timed
hyp = dict(optimizer='SGD', lr0=.01)
begun, cpu = time.perf_counter(), time.process_time()
if who == 'ours': train_model(data, out, hyp=hyp, device='cpu', **args)
else:
    weights = args.pop('weights')
    args |= training_args(hyp, 'cpu')
    ultralytics.YOLO(weights).train(data=data + '/data.yaml', project=out, name='run', device='cpu', verbose=False, **args)
print(json.dumps([time.perf_counter()-begun, time.process_time()-cpu]))
"""


def make_data(folder: Path, images: int) -> Path:
    "A dataset of noise with two bright rectangles an image, 640 × 360 px; a twelfth of it is valid."
    rng = np.random.default_rng(0)
    for d in ("images", "labels"): (folder/d).mkdir(parents=True)
    for i in range(images):
        img, rows = rng.integers(0, 90, (360, 640, 3), dtype=np.uint8), ""
        for label in (0, 1):
            x, y, w, h = (int(v) for v in rng.integers((10, 10, 60, 60), (400, 200, 200, 140)))
            cv2.rectangle(img, (x, y), (x+w, y+h), (255, 255-99*label, 200), -1)
            rows += f"{label} {(x+w/2)/640} {(y+h/2)/360} {w/640} {h/360}\n"
        cv2.imwrite(str(folder/"images"/f"{i:03d}.jpg"), img)
        (folder/"labels"/f"{i:03d}.txt").write_text(rows)
    lists = dict(train=range(images//12, images), valid=range(images//12))
    for k, v in lists.items(): (folder/f"{k}.txt").write_text("".join(f"./images/{i:03d}.jpg\n" for i in v))
    (folder/"data.yaml").write_text(yaml.safe_dump(dict(path=str(folder), train="train.txt", val="valid.txt", names={0: "cow", 1: "pig"})))
    return folder


def seconds(home: Path, who: str, turn: int, args: dict, threads: int) -> tuple[float, float, float]:
    """Seconds of one training, those of its whole process, and the training's seconds of computing.

    Ultralytics' own file of read labels is taken away first, since we keep none.
    """
    for f in home.glob("data/*.cache"): f.unlink()
    begun = time.perf_counter()
    words = [sys.executable, "-c", CHILD, str(home/"data"), str(home/f"{who}{turn}"), who, json.dumps(args)]
    env = os.environ | dict(OMP_NUM_THREADS=str(threads), YOLO_CONFIG_DIR=str(home/"config"), YOLO_OFFLINE="true")
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    whole, (training, computing) = time.perf_counter()-begun, json.loads(done.stdout.splitlines()[-1])
    return training, whole, computing


def compare(home: Path, turns: int, images: int, threads: int, **args) -> dict:
    "Both in turns, the order changing from turn to turn, after one of each that does not count."
    make_data(home/"data", images)
    times = {"ours": [], "theirs": []}
    for turn in tqdm(range(-1, turns), desc="turns"):
        for who in ("ours", "theirs")[::1 if turn % 2 else -1]:
            took = seconds(home, who, turn, args, threads)
            if turn >= 0: times[who].append(took)
    ratios, whole, cpu = ([a[i]/b[i]-1 for a, b in zip(times["ours"], times["theirs"], strict=True)] for i in range(3))
    extra = statistics.median(a[0]-b[0] for a, b in zip(times["ours"], times["theirs"], strict=True))/args["epochs"]
    return dict(overhead=round(statistics.median(ratios), 4), overhead_process=round(statistics.median(whole), 4),
                overhead_cpu=round(statistics.median(cpu), 4), epoch_s=round(extra, 3), overheads=[round(r, 4) for r in ratios],
                **{f"{who}_s": round(statistics.median(t[0] for t in v), 2) for who, v in times.items()},
                turns=turns, images=images, threads=threads, **args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a first look, within a minute")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=0, help="pairs that count; by default 4, with --quick 1")
    given = parser.parse_args()
    size = dict(turns=1, images=48, imgsz=320, epochs=2, batch=8) if given.quick else dict(turns=4, images=360, imgsz=320, epochs=2, batch=8)
    if given.turns: size["turns"] = given.turns
    with tempfile.TemporaryDirectory() as d: print(json.dumps(compare(Path(d), threads=given.threads, weights="yolov5n.yaml", **size)))
