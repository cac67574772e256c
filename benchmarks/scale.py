"""What Ray costs on one node, and what a million images and ten thousand trials would take, from what one image and one trial take here.

    python benchmarks/scale.py [--quick] [--weights W] [--trial SECONDS] [--price USD]

2,000 made-up 1080p JPEGs (--quick: 200; 48 drawn frames, each under many names) are predicted into a submission at 640 px by the engine alone and
on a Ray node with as many cores, in turns. Start-up (Ray, a node's imports, opening the detector) is measured by a run on one image and stands
apart: `overhead` is the share that the rest takes longer. Weights: --weights, else runs/demo/train/best.pt, else untrained ones. A trial is
taken to last --trial seconds of a node (default: 600), a core an hour to cost --price (default: .04 USD, about what a cloud asks for a shared one).
The plan names what stops more nodes from helping first: the driver, which writes and merges every part, or the disk that all read from at
--disk MB/s (default: 500).
The last line is one JSON object."""
import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
from infer import draw, get_weights

from livestock_nb.cluster import cluster, write_parts_on_ray
from livestock_nb.engine import open_network
from livestock_nb.infer import images_from, merge_parts, predict_file

CORES, PART = os.cpu_count(), 100


def many(folder:Path, count:int, frames:int=48) -> pd.DataFrame:
    "An `images` table of as many files; frames are linked, not copied."
    draw(folder, frames)
    drawn, home = sorted((folder/'frames').iterdir()), folder/'many'
    home.mkdir()
    for i in range(count): os.link(drawn[i % len(drawn)], home/f'{i:06}.jpg')
    return images_from(home, sizes=False)


def clocked(images:pd.DataFrame, opening:dict, out:Path, ray:bool) -> float:
    "Seconds until the csv is written."
    network, write = open_network(**opening), dict(write=partial(write_parts_on_ray, openings=[opening])) if ray else {}
    begin = time.perf_counter()
    predict_file(images, network, out, part=PART, **write)
    return time.perf_counter() - begin


def driver_seconds(images:pd.DataFrame, opening:dict, folder:Path) -> float:
    "Seconds an image that the driver alone has to spend: writing and merging."
    home = folder/'parts'
    paths = write_parts_on_ray(images, [], home, PART, [opening], imgsz=640, conf=.001, iou=.68, batch=1, margin=2)
    begin = time.perf_counter()
    for p in paths: (home/'again').write_bytes(p.read_bytes())
    merge_parts(paths, folder/'merged.csv')
    return (time.perf_counter() - begin)/len(images)


def plan(image:float, driver:float, size:float, row:float, args:argparse.Namespace) -> dict:
    "For a million images and ten thousand trials on nodes like this one."
    stops = dict(driver=image/driver, disk=args.disk*1e6*image/size)
    first = min(stops, key=stops.get)
    hours, trials = image*1e6/3600, args.trial*1e4/3600
    return dict(million_node_hours=round(hours, 2), million_usd=round(hours*CORES*args.price, 2), million_input_gb=round(size/1e3, 1),
                million_csv_gb=round(row/1e3, 2), trials_node_hours=round(trials), trials_usd=round(trials*CORES*args.price),
                bottleneck=first, nodes_until_bottleneck=int(stops[first]))


def main() -> None:
    "Measure, print a table and the JSON line."
    ap = argparse.ArgumentParser()
    ap.add_argument('--quick', action='store_true')
    ap.add_argument('--weights')
    for name, value in dict(trial=600., price=.04, disk=500.).items(): ap.add_argument(f'--{name}', type=float, default=value)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as d, cluster('auto'):
        folder = Path(d)
        images, (weights, which) = many(folder, 200 if args.quick else 2000, 16 if args.quick else 48), get_weights(args.weights, folder)
        opening, rows = dict(weights=str(weights), backend='', imgsz=640), []
        for _ in range(1 if args.quick else 2):
            for ray in (False, True):
                start = clocked(images[:1], opening, folder/'one.csv', ray)
                rows.append(dict(ray=ray, start=start, whole=clocked(images, opening, folder/f'{ray}.csv', ray)))
        same = (folder/'True.csv').read_bytes() == (folder/'False.csv').read_bytes()
        table = pd.DataFrame(rows).assign(work=lambda t: t.whole - t.start)
        print(f'weights: {which}', table.round(2).to_string(index=False), sep='\n')
        best = table.groupby('ray')[['work', 'start']].min()
        size = sum(p.stat().st_size for p in (folder/'many').iterdir())/len(images)
        driver = driver_seconds(images[:400], opening, folder)
        planned = plan(best.work[True]/len(images), driver, size, (folder/'True.csv').stat().st_size/len(images), args)
    print(json.dumps(dict(images=len(images), overhead=round(best.work[True]/best.work[False] - 1, 3), start_seconds=round(best.start[True], 1),
                          images_per_second=round(len(images)/best.work[True], 1), equal_bytes=same,
                          driver_ms_an_image=round(driver*1e3, 2)) | planned))


if __name__ == '__main__': main()
