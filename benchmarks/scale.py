"""What Ray costs on one node, and what a million images and ten thousand trials would take, from what one image and one trial take here.

    python benchmarks/scale.py [--quick] [--count N] [--rounds N] [--weights W] [--trial SECONDS] [--price USD]

--count made-up 1080p JPEGs (default: 2,000; --quick: 300; 48 drawn frames, each under many names) are predicted into a submission at 640 px by
the engine alone and on a Ray node with as many cores, in turns (--rounds, default: 2). What comes before the first part of 100 images is written
(Ray, a node's imports, opening the detector) is start-up and stands apart: `overhead` is the share by which the images after it take longer.
Weights: --weights, else runs/demo/train/best.pt, else untrained ones. A trial is taken to last --trial seconds of a node (default: 600; 0 leaves
trials out), a core an hour to cost --price (default: .04 USD, about what a cloud asks for a shared one). The plan names what stops more nodes
from helping first: the driver, which writes and merges every part, or the disk that all read from at --disk MB/s (default: 500). For trials it
is the driver again, which keeps the study: what a trial costs it is measured on 150 and 300 made-up ones and grows with their number.
The last line is one JSON object."""
import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from infer import draw, get_weights

from livestock_nb.cluster import cluster, write_parts_on_ray
from livestock_nb.engine import open_network
from livestock_nb.infer import images_from, predict_file, write_parts
from livestock_nb.samplers import read_space
from livestock_nb.tune import search

CORES, PART = os.cpu_count(), 100


def many(folder:Path, count:int, frames:int=48) -> pd.DataFrame:
    "An `images` table of as many files; frames are linked, not copied."
    draw(folder, frames)
    drawn, home = sorted((folder/'frames').iterdir()), folder/'many'
    home.mkdir()
    for i in range(count): os.link(drawn[i % len(drawn)], home/f'{i:06}.jpg')
    return images_from(home, sizes=False)


def clocked(images:pd.DataFrame, opening:dict, out:Path, ray:bool) -> dict[str, float]:
    "Seconds until the csv is written; ms an image from the end of the first part to that of the last; ms an image that the driver alone needs."
    begin, network, when = time.perf_counter(), open_network(**opening), []

    def write(*args, **settings) -> list[Path]:
        parts = (partial(write_parts_on_ray, openings=[opening]) if ray else write_parts)(*args, **settings)
        when.extend([*sorted(p.stat().st_mtime for p in parts), time.perf_counter()])
        for p in parts: out.with_suffix('.again').write_bytes(p.read_bytes())  # what the driver does with a part that comes back
        return parts
    predict_file(images, network, out, part=PART, write=write)
    end = time.perf_counter()
    each = (when[-2] - when[0])/(len(images) - PART)
    return dict(ray=ray, whole=end - begin, image_ms=each*1e3, start=end - begin - each*len(images), driver_ms=(end - when[-1])*1e3/len(images))


@contextmanager
def memory() -> Iterator[dict[str, int]]:
    "Inside, the most MB are noted that this process, and the largest below it (a node's predictor), take."
    most, ended, me = dict(driver_mb=0, node_mb=0), threading.Event(), psutil.Process()

    def watch() -> None:
        while not ended.wait(.5):
            with suppress(psutil.Error):
                now = dict(driver_mb=me.memory_info().rss, node_mb=max((p.memory_info().rss for p in me.children(recursive=True)), default=0))
                most.update({k: max(most[k], round(v/1e6)) for k, v in now.items()})
    thread = threading.Thread(target=watch)
    thread.start()
    try: yield most
    finally:
        ended.set()
        thread.join()


def made_up(hyp:dict, trial:object) -> dict:
    "A trial that costs nothing, with as much to remember as a real one."
    rng = np.random.default_rng(trial.number)
    return dict(fitness=float(rng.random()), draws=rng.random(200).round(5).tolist())


def study_costs(folder:Path, counts:tuple[int, int]=(150, 300)) -> dict:
    "Driver's seconds for a trial, at first and more for each trial before it; bytes of the record a trial."
    took, start = [], dict.fromkeys(read_space('lr').index, .01)
    for n in counts:
        (folder/f'{n}').mkdir()
        begin = time.perf_counter()
        search(made_up, 'lr', start, folder/f'{n}', f'{n} trials', 'random', patience=0)
        took.append(time.perf_counter() - begin)
    (a, b), (s, t) = counts, took  # s = first·a + more·a²/2
    more = max(2*(t/b - s/a)/(b - a), 0)
    return dict(first=s/a - more*a/2, more=more, bytes=(folder/f'{b}'/'study.journal').stat().st_size/b)


def plan_trials(cost:dict, args:argparse.Namespace, count:int=10_000) -> dict:
    "For ten thousand trials on nodes like this one."
    last = cost['first'] + cost['more']*count
    return dict(trials_node_hours=round(args.trial*count/3600), trials_usd=round(args.trial*count/3600*CORES*args.price),
                trials_driver_hours=round((cost['first']*count + cost['more']*count**2/2)/3600, 2),
                trials_record_gb=round(cost['bytes']*count/1e9, 2), trials_bottleneck='driver', trials_nodes_until_bottleneck=int(args.trial/last))


def plan(image:float, driver:float, size:float, row:float, args:argparse.Namespace) -> dict:
    "For a million images and ten thousand trials on nodes like this one."
    stops = dict(driver=image/driver, disk=args.disk*1e6*image/size)
    first = min(stops, key=stops.get)
    hours = image*1e6/3600
    return dict(million_node_hours=round(hours, 2), million_usd=round(hours*CORES*args.price, 2), million_input_gb=round(size/1e3, 1),
                million_csv_gb=round(row/1e3, 2), bottleneck=first, nodes_until_bottleneck=int(stops[first]))


def main() -> None:
    "Measure, print a table and the JSON line."
    ap = argparse.ArgumentParser()
    ap.add_argument('--quick', action='store_true')
    ap.add_argument('--weights')
    ap.add_argument('--count', type=int, default=2000)
    ap.add_argument('--rounds', type=int, default=2)
    for name, value in dict(trial=600., price=.04, disk=500.).items(): ap.add_argument(f'--{name}', type=float, default=value)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as d, cluster('auto'):
        folder = Path(d)
        images, (weights, which) = many(folder, 300 if args.quick else args.count, 16 if args.quick else 48), get_weights(args.weights, folder)
        opening, rows = dict(weights=str(weights), backend='', imgsz=640), []
        for _ in range(1 if args.quick else args.rounds):
            rows.append(clocked(images, opening, folder/'False.csv', False))
            with memory() as most: rows.append(clocked(images, opening, folder/'True.csv', True))
        same = (folder/'True.csv').read_bytes() == (folder/'False.csv').read_bytes()
        table = pd.DataFrame(rows)
        print(f'weights: {which}', table.round(2).to_string(index=False), sep='\n')
        best = table.groupby('ray')[['image_ms', 'start', 'driver_ms']].min()
        size = sum(p.stat().st_size for p in (folder/'many').iterdir())/len(images)
        planned = plan(best.image_ms[True]/1e3, best.driver_ms[True]/1e3, size, (folder/'True.csv').stat().st_size/len(images), args)
        planned |= most | dict(million_table_gb=round(images.memory_usage(deep=True).sum()/len(images)/1e3, 2))
    with tempfile.TemporaryDirectory() as d:
        if args.trial: planned |= plan_trials(study_costs(Path(d)), args)
    print(json.dumps(dict(images=len(images), overhead=round(best.image_ms[True]/best.image_ms[False] - 1, 3),
                          start_seconds=round(best.start[True], 1),
                          images_per_second=round(1e3/best.image_ms[True], 1), equal_bytes=same,
                          driver_ms_an_image=round(best.driver_ms[True], 2)) | planned))


if __name__ == '__main__': main()
