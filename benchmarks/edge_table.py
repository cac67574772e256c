"""Every artefact of a detector in one table: bytes, score with interval, and time from frame to boxes, interleaved, with 1 and 2 threads.

    python benchmarks/edge_table.py [--run DIR] [--small 256] [--prune .4] [--epochs 20]     minutes, most of them training pruned weights
    python benchmarks/edge_table.py --quick [--run DIR]                                      no training, no score: minutes the first time
    python benchmarks/edge_table.py --quick --make [--run DIR]                               only makes what is to be timed, on a busy machine

The run (default: runs/demo) gives the detector, its train images for int8, and test images with an answer; what is made goes into DIR/edge and
--folder, and is not made twice, but everything is timed anew, in less than two minutes. Without a run, --quick takes untrained weights and made-up
frames. Each artefact is opened from its
files in a fresh process; in the one that times, all take turns, in a shuffled order each round, and the median over rounds and frames
counts: from a frame in memory to boxes at a confidence of .25 (frame), the same from a JPEG's bytes, decoded at down to twice the input (jpeg), and
the network alone. `smaller` and `faster` compare with the fp32 ONNX of the whole detector at the size that it was trained for; `best` is
the fastest among the artefacts that are at least 3.5 times smaller and score within .02 of it.

The second table is about networks alone, untrained, with COCO's 80 classes, on square inputs: NanoDet-Plus-m (320 px) and Yolo-FastestV2 (352 px)
over YOLOv5n (320 px), beside the ratios that were measured with other implementations of them; `off` is how far from these. They take turns, in a
shuffled order each round; of a turn's four calls the first does not count. The last line is one JSON object."""
import argparse
import json
import os
import random
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from livestock_nb.artefacts import Recipe, artefact_bytes, covering_shape, make_artefact, open_artefact
from livestock_nb.data import SPECIES, InputError, load_table, whole_file
from livestock_nb.edge import build_edge, run_inputs
from livestock_nb.measure import in_fresh_process, median_times, processor, time_all, who_judges
from livestock_nb.train import load_model

ROOT, THREADS = Path(__file__).parents[1], [n for n in (1, 2) if n <= (os.cpu_count() or 1)]
# ratios to YOLOv5n at 320 px seen on a 2-core EPYC with other implementations: ncnn with 1 and 2 threads, ONNX Runtime with 1 and 2
EXPECTED = {'nanodet-plus-m': dict(imgsz=320, ncnn=(7.2/10.2, 4.8/6.9), onnx=(7.7/9.7, 5.3/6.3)),
            'yolo-fastestv2': dict(imgsz=352, ncnn=(2.6/10.2, 2.0/6.9), onnx=(2.8/9.7, 2.4/6.3))}
QUICK = ['onnx-fp32', 'onnx-int8', 'openvino-fp32', 'openvino-fp16', 'openvino-int8', 'ncnn-fp16', 'torchscript-fp32']


def untrained(name:str, path:Path, names:list[str]|None=None) -> Path:
    "Random weights, once: what is made of them carries their content's name."
    if path.exists(): return path
    import torch
    torch.manual_seed(0)
    model = load_model(name)
    if names: model.model.names = dict(enumerate(names))
    with whole_file(path) as tmp: model.save(tmp)
    return path


def made_up_frames(folder:Path, count:int) -> list[Path]:
    "1080p frames of the made-up farm."
    from livestock_nb.farm import farm_cameras, plan_frames, render_scene
    cameras = farm_cameras(0)
    plan = plan_frames(cameras, 8*count, 1, 1, np.random.default_rng(5))
    for p in plan[[cameras[c].width == 1920 for c in plan.camera]].head(count).itertuples():
        frame, _ = render_scene(cameras[p.camera], p.count, p.seed, p.t, p.image)
        cv2.imwrite(str(folder/p.image), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return sorted(folder.glob('*.jpg'))


def quick_table(run:Path, home:Path, make:bool) -> pd.DataFrame:
    "Artefacts of the whole detector: bytes and, unless they are only made, times; no scores."
    try: given = run_inputs(run)
    except InputError: given = dict(weights=untrained('yolov5n.yaml', home/'untrained.pt', [*SPECIES, *map(str, range(78))]), imgsz=320)
    (home/'frames').mkdir(parents=True, exist_ok=True)
    files, rows, folders = sorted((home/'frames').glob('*.jpg')) or made_up_frames(home/'frames', 6), [], {}
    shape = covering_shape([(1920, 1080)], given['imgsz'])
    for kind in tqdm(QUICK, desc='artefacts'):
        try: folders[kind] = make_artefact(Recipe(Path(given['weights']), kind, given['imgsz'], shape, files), home/'artefacts'/kind)
        except InputError as e: print(f'{kind}: {e}')
        else: rows.append(dict(artefact=kind, bytes=artefact_bytes(folders[kind])))
    if make: return pd.DataFrame(rows)
    for n in THREADS:
        in_fresh_process('time_artefacts', folders={k: str(f) for k, f in folders.items()}, images=[str(f) for f in files], threads=n, rounds=5,
                         out=str(home/f'{n}.parquet'))
    times = pd.concat([load_table(home/f'{n}.parquet') for n in THREADS])
    return pd.DataFrame(rows).merge(median_times(times).reset_index(), on='artefact')


def full_table(run:Path, args:argparse.Namespace) -> pd.DataFrame:
    "All artefacts, scored, and timed now."
    table, problems = build_edge(**run_inputs(run), out=run/'edge', small=args.small, prune=args.prune, epochs=args.epochs)
    for p in problems.itertuples(): print(f'{p.artefact}: {p.detail}')
    given = run_inputs(run)
    (run/'edge'/'times.json').unlink(missing_ok=True)
    images = who_judges(given['split'], given['test_zips'], given['answer'])[0]
    fresh = median_times(time_all(table.dropna(subset=['challenge']).artefact.tolist(), images, run/'edge'))
    return table.drop(columns=fresh.columns).merge(fresh.reset_index(), on='artefact', how='left')


def compared(table:pd.DataFrame) -> pd.DataFrame:
    "How many times smaller and faster than the fp32 ONNX of the whole detector."
    base = table[table.artefact.str.endswith('onnx-fp32')].iloc[0]
    df = table.assign(smaller=base.bytes/table.bytes, faster=base.frame_ms/table.frame_ms, faster_jpeg=base.jpeg_ms/table.jpeg_ms)
    return df.assign(change=df.challenge - base.challenge) if 'challenge' in df else df


def make_networks(home:Path) -> dict[tuple[str, str], tuple[Path, int]]:
    "Untrained networks for ncnn and ONNX Runtime: (name, kind) -> folder, side of the input."
    made = {}
    for name, about in tqdm(({'yolov5n': dict(imgsz=320)} | EXPECTED).items(), desc='networks'):
        side, weights = about['imgsz'], untrained(name, home/f'{name}.pt')
        for kind in ('onnx-fp32', 'ncnn-fp32'):
            try: made[name, kind] = make_artefact(Recipe(weights, kind, side, (side, side), []), home/'networks'/f'{name}-{kind}'), side
            except InputError as e: print(f'{name} {kind}: {e}')
    return made


def time_networks(made:dict, threads:int, rounds:int=15) -> list[dict]:
    "One call of each network, ms: they take turns, and of a turn's four calls the first does not count."
    opened = {k: (open_artefact(f, threads), np.random.default_rng(0).random((1, 3, side, side), np.float32)) for k, (f, side) in made.items()}
    rows, order = [], list(opened)
    for turn in range(rounds+1):
        random.Random(turn).shuffle(order)
        for name, kind in order:
            net, x = opened[name, kind]
            for call in range(4):
                begin = time.perf_counter()
                net(x)
                if turn and call: rows.append(dict(network=name, runtime=kind[:4], threads=threads, ms=(time.perf_counter()-begin)*1e3))
    return rows


def network_table(rows:list[dict]) -> pd.DataFrame:
    "Medians, their ratios to YOLOv5n's, and how far these are from those that are expected."
    ms = pd.DataFrame(rows).groupby(['runtime', 'threads', 'network']).ms.median()
    out = [dict(network=name, runtime=r, threads=n, ms=ms[r, n, name], yolov5n=ms[r, n, 'yolov5n'], ratio=ms[r, n, name]/ms[r, n, 'yolov5n'],
                expected=about[r][n-1]) for name, about in EXPECTED.items() for r in ('ncnn', 'onnx') for n in THREADS
           if {(r, n, name), (r, n, 'yolov5n')} <= {*ms.index}]
    df = pd.DataFrame(out)
    return df.assign(off=df.ratio/df.expected - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--make', action='store_true', help='with --quick: make, and time nothing')
    parser.add_argument('--run', type=Path, default=ROOT/'runs/demo')
    parser.add_argument('--folder', type=Path, default=ROOT/'runs/edge_table', help='for what is made beside the run')
    parser.add_argument('--small', type=int, default=256)
    parser.add_argument('--prune', type=float, default=.4)
    parser.add_argument('--epochs', type=int, default=20)
    args = parser.parse_args()
    home = args.folder.resolve()
    home.mkdir(parents=True, exist_ok=True)
    made = make_networks(home)
    table = quick_table(args.run, home, args.make) if args.quick else full_table(args.run.resolve(), args)
    if args.quick and args.make: return print(json.dumps(dict(artefacts=len(table), networks=len(made))))
    table, nets = compared(table), network_table([r for n in THREADS for r in time_networks(made, n)])
    shown = ['artefact', 'bytes', 'smaller', 'difference', 'challenge', 'challenge_low', 'challenge_high', 'change', 'network_ms',
             'frame_ms', 'jpeg_ms', 'frame_ms_2', 'jpeg_ms_2', 'faster', 'faster_jpeg', 'published']
    print(table[[c for c in shown if c in table]].to_string(index=False, float_format='{:.4g}'.format))
    print(nets.to_string(index=False, float_format='{:.3f}'.format))
    ratios = {f'{o.network}_{o.runtime}_{o.threads}': round(o.ratio, 3) for o in nets.itertuples()}
    said = dict(processor=processor(), artefacts=len(table), ratios=ratios, furthest=round(float(nets.off.abs().max()), 3))
    good = table[(table.smaller >= 3.5) & (table.change >= -.02)] if 'change' in table else table[:0]
    if len(good):
        best = good.sort_values('faster').iloc[-1]
        said |= dict(best=best.artefact) | {k: round(float(best[k]), 4) for k in ('smaller', 'faster', 'faster_jpeg', 'challenge', 'change')}
    print(json.dumps(said))


if __name__ == '__main__': main()
