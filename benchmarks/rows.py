"""Every detector learns: each row is trained by name on the made-up farm, scored on frames that it never saw, exported, and compared with PyTorch.

    python benchmarks/rows.py [NAME ...]  # all rows, or those named; an hour and a half on a busy core
    python benchmarks/rows.py --quick     # Yolo-FastestV2 for two epochs on few frames, about a minute

Kill it and start it again: it goes on where it was, and a finished row is not done twice. Each row has a process of its own and a folder in --folder
with its weights, results.csv and row.json. Small rows train for at most eight minutes on one core and have to reach mAP@.5 .5; larger ones see a
eighth of the frames twice, and their loss has to fall. All start from random weights, with configs/recipes/cpu.yaml; what a row has of its own
stands in `ROWS`. `map50` and `map75` are our `coco` scores of a small row's delivered file on the 96 test frames; `valid50` is what ultralytics'
validator said after the last epoch. `onnx` and `openvino` (f32) are the largest differences of an export's answer to four frames from PyTorch's,
relative to the largest coordinate or score in it. `minutes` are those of the training on the clock, `computing` those of a core. The last line is
one JSON object, with the names of the rows that fall short."""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from livestock_nb.data import load_table, save_json
from livestock_nb.detectors import DETECTORS
from livestock_nb.train import lay_recipes, listed, load_model, read_data, train_model, write_chosen

ROOT = Path(__file__).parents[1]
SIDE, GOAL, SAME, LIMIT_MINUTES = 320, .5, 1e-3, 8  # px of the frames' longer side; mAP@.5; relative difference of exports; of a small row's training
BASE = 'lr0=.002 mosaic=0 scale=.3 full=false limit=0'  # over the recipe: from scratch in few epochs; x6 and YOLOv4 are over the size limit
SMALL = {'yolov5n': (320, 6), 'yolo-fastest-1.1': (320, 14), 'yolo-fastestv2': (320, 30), 'nanodet-m': (320, 8), 'yolox-nano': (256, 8),
         'nanodet-plus-m': (192, 6), 'yolov5s': (224, 6), 'yolo-fastest-1.1-xl': (320, 8)}  # px, epochs
LEARNS, FALLS = dict(share=1, goal=GOAL, changes=''), dict(imgsz=192, epochs=2, share=8, goal=0., changes='')
ROWS = {name: LEARNS | dict(imgsz=imgsz, epochs=epochs) for name, (imgsz, epochs) in SMALL.items()}
ROWS['yolo-fastestv2'] |= dict(changes='lr0=.004')  # so small a network bears it, and learns faster
ROWS |= {name: FALLS for name in DETECTORS if name not in SMALL}
ROWS['faster-rcnn'] = FALLS | dict(changes='lr0=.0001')  # no batch norm that learns holds it back: at .002 its loss rises


def make_data(folder: Path, frames: int, test_frames: int) -> Path:
    "A made-up farm and its split, by our stages; what is there is not made again."
    config, stages = folder/'farm.yaml', [
        dict(notebook=str(ROOT/'nbs'/'01_farm.ipynb'), params=dict(truth='$run/truth.parquet', frames=frames, test_frames=test_frames)),
        dict(notebook=str(ROOT/'nbs'/'02_intake.ipynb'), params=dict(zips='$farm/train')),
        dict(notebook=str(ROOT/'nbs'/'04_split.ipynb'), params=dict(tables='$intake', long_side=SIDE))]
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(stages=stages, deliver='$split/report.csv')))
    words = [sys.executable, '-c', 'from livestock_nb.cli import main; main()', 'run', str(config), '--run', str(folder/'data')]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    if done.returncode: raise SystemExit(done.stderr[-2000:])
    return folder/'data'


def some_of(split: Path, share: int, out: Path) -> Path:
    "Every so many of the train and valid images, as a dataset; all of them are the split itself."
    if share == 1: return split
    info = read_data(split)
    rows = [(path, side) for side, key in (('train', 'train'), ('valid', 'val')) for path in listed(info[key])[::share]]
    return write_chosen(pd.DataFrame(rows, columns=['path', 'side']), info['names'], out)


def train_row(name: str, row: dict, split: Path, out: Path) -> Path:
    "The weights of a row. cost.json has the seconds of all attempts, on the clock and of computing."
    spent = json.loads((out/'cost.json').read_text()) if (out/'cost.json').exists() else dict(clock=0., computing=0.)
    begun = dict(clock=time.time(), computing=time.process_time())
    def watch(_) -> None:
        now = dict(clock=time.time(), computing=time.process_time())
        save_json({k: spent[k] + now[k] - begun[k] for k in spent}, out/'cost.json')
    hyp, _ = lay_recipes({}, 'cpu', changes=f'{BASE} {row["changes"]}')
    return train_model(some_of(split, row['share'], out/'some'), out, name, hyp, row['imgsz'], row['epochs'], 8, 'cpu', validate=False, desc=name,
                       watch=watch)


def score_row(weights: Path, data: Path, imgsz: int) -> dict:
    "mAP of the delivered file on the test frames."
    from livestock_nb.infer import predict, to_submission
    from livestock_nb.intake import list_images
    from livestock_nb.score import read_answer, score
    test = data/'farm'/'test'
    answer, images = read_answer(test/'answer.csv'), list_images(test)[0]
    found = to_submission(predict(images, load_model(weights), imgsz, device='cpu', margin=2)[0])
    return {f'map{100*iou:.0f}': round(float(score(answer, found, iou, 'coco', set(images.image), 0).ap.iloc[-1]), 4) for iou in (.5, .75)}


def compare_row(weights: Path, split: Path, imgsz: int) -> dict:
    "How far the exports' answers are from PyTorch's, and the bytes of the ONNX file."
    from livestock_nb.artefacts import calibration_batches, calibration_files, largest_difference
    from livestock_nb.engine import export_once, open_network
    pictures, asked = calibration_batches(calibration_files(split, 4), imgsz, 32), {}
    for backend in ('torch', 'onnx', 'openvino'):
        network = open_network(weights, backend, imgsz, 1, 'cpu', 'f32' if backend == 'openvino' else '')
        asked[backend] = [np.asarray(network(x)) for x in pictures]
    apart = {b: max(largest_difference(a, e) for a, e in zip(asked[b], asked['torch'], strict=True)) for b in ('onnx', 'openvino')}
    return {b: float(f'{v:.1e}') for b, v in apart.items()} | dict(onnx_mb=round((export_once(weights, 'onnx')/'network.onnx').stat().st_size/1e6, 2))


def do_row(name: str, row: dict, data: Path, out: Path) -> None:
    "Train, score, export and compare one row: row.json."
    split = data/'split'
    weights = train_row(name, row, split, out)
    losses = load_table(out/'results.csv')
    total, cost = losses.filter(regex='^train/').sum(axis=1), json.loads((out/'cost.json').read_text())
    params = sum(p.numel() for p in load_model(weights).model.parameters())
    said = dict(name=name, params=round(params/1e6, 3), imgsz=row['imgsz'], epochs=row['epochs'], minutes=round(cost['clock']/60, 2),
                computing=round(cost['computing']/60, 2), first_loss=round(total.iloc[0], 3), last_loss=round(total.iloc[-1], 3),
                valid50=round(float(losses['metrics/mAP50(B)'].iloc[-1]), 4))
    if row['goal']: said |= score_row(weights, data, row['imgsz'])
    said |= compare_row(weights, split, row['imgsz'])
    save_json(said | dict(goal=row['goal'], pt_mb=round(weights.stat().st_size/1e6, 2), row=row), out/'row.json')


def shortfalls(rows: list[dict]) -> list[str]:
    "What falls short of what was asked."
    out = []
    for r in rows:
        if 'failed' in r: out.append(f'{r["name"]}: {r["failed"]}')
        else:
            if not r['last_loss'] < r['first_loss']: out.append(f'{r["name"]}: its loss did not fall')
            if r['goal'] and r['map50'] < r['goal']: out.append(f'{r["name"]}: mAP@.5 {r["map50"]} is below {r["goal"]}')
            if r['goal'] and r['computing'] > LIMIT_MINUTES: out.append(f'{r["name"]}: trained for {r["computing"]} minutes')
            out += [f'{r["name"]}: {b} differs by {r[b]:g}' for b in ('onnx', 'openvino') if not r[b] < SAME]
    return out


def main() -> None:
    "Do what is not done, and print."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(ROWS)}')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--folder', type=Path, default=ROOT/'runs'/'rows')
    parser.add_argument('--one', help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args()
    home = (given.folder/('quick' if given.quick else '.')).resolve()
    rows = {'yolo-fastestv2': FALLS} if given.quick else ROWS
    if unknown := [n for n in given.names if n not in rows]: parser.error(f'there is no row {unknown[0]!r}: choose from {", ".join(rows)}.')
    os.environ.setdefault('YOLO_CONFIG_DIR', str(home/'config'))
    if given.one: return do_row(given.one, rows[given.one], home/'data', home/given.one)
    begun, done = time.time(), []
    make_data(home, *((40, 8) if given.quick else (360, 96)))
    for name in tqdm(given.names or list(rows), desc='rows'):
        path = home/name/'row.json'
        if path.exists() and json.loads(path.read_text())['row'] != rows[name]: path.unlink()
        if not path.exists():
            words = [sys.executable, __file__, '--one', name, '--folder', str(given.folder), *['--quick']*given.quick]
            ran = subprocess.run(words, env=os.environ | dict(PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True)
            said = (ran.stderr.strip().splitlines() or ['killed'])[-1][-200:]
        done.append(json.loads(path.read_text()) if path.exists() else dict(name=name, failed=said))
    table = pd.DataFrame(done).drop(columns=['row', 'goal'], errors='ignore')
    print(table.to_string(index=False))
    small = {r['name']: r['map50'] for r in done if r.get('goal')}
    print(json.dumps(dict(rows=len(done), map50=small, worst_onnx=worst(done, 'onnx'), worst_openvino=worst(done, 'openvino'),
                          minutes=round((time.time()-begun)/60, 1), trained_minutes=round(sum(r.get('minutes', 0) for r in done), 1),
                          short=shortfalls(done))))


def worst(rows: list[dict], backend: str) -> float | None:
    "The largest difference of all rows."
    return max((r[backend] for r in rows if not math.isnan(r.get(backend, math.nan))), default=None)


if __name__ == '__main__': main()
