"""How fast inference is beside stock `yolo predict`, in PyTorch and on its own OpenVINO export, and beside the most that the cores could do.

    python benchmarks/infer.py [--quick] [--weights W] [--frames DIR]     speed and AP
    python benchmarks/infer.py --memory [--weights W] [--frames DIR]      resident set over 20,000 images beside that over 1,000
    python benchmarks/infer.py --margins [--weights W] [--frames DIR]     what decoding at reduced scale does to AP

320 made-up 1080p JPEGs (--quick: 64) at 640 px, confidence .001, IoU .68. The clock runs from before the first open to after the csv is synced;
networks are loaded and warm. Stock runs in a process of its own in which nothing of ours is imported, so with ultralytics' own settings, which
leave a core free; it draws and saves nothing but the csv. `two_threads` is the same with every core, and `threads_ratio` ours over that.
All take turns, and each counts with its fastest round. The limit is what decode, network and suppression take when measured alone (each step
by itself, a thread a core), over the cores. AP (COCO's, mean of the labels, at IoU .5, .75 and over .5 … .95) is compared with stock's at 640 px
over the same 1080p images: NAME_ap…_change, and its paired 95 % interval at .75. Weights that were trained at 320 px know animals of half the
size, so they see walls of 2 × 2 frames, as a recorder shows four cameras at a time.

Weights: --weights, else runs/demo/train/best.pt, else untrained ones. DIR keeps the frames for the next time. The last line is one JSON object."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from livestock_nb.data import SPECIES, box_table, load_table, save_table
from livestock_nb.engine import decode_near, letterbox, open_network, place, plain_opencv, plain_torch, to_boxes
from livestock_nb.farm import answer_table, farm_cameras, plan_frames, render_scene
from livestock_nb.infer import images_from, predict, predict_file, to_submission
from livestock_nb.score import compare_matches, draw_images, match_submission, score_ious
from livestock_nb.train import load_model

ROOT, CORES, SETTINGS = Path(__file__).parents[1], os.cpu_count(), dict(conf=.001, iou=.68)
IOUS = [.5, .55, .6, .65, .7, .75, .8, .85, .9, .95]

STOCK = """
import json, os, sys, time
import numpy as np, pandas as pd
from ultralytics import YOLO
from ultralytics.utils import torch_utils
models = {}
if sys.argv[1] != '0': torch_utils.NUM_THREADS = int(sys.argv[1])
for line in sys.stdin:
    task = json.loads(line)
    key = json.dumps([task['weights'], task['batch']])
    model = models.setdefault(key, YOLO(task['weights'], task='detect'))
    begin = time.perf_counter()
    found = model.predict(task['folder'], stream=True, imgsz=task['imgsz'], batch=task['batch'], conf=task['conf'], iou=task['iou'], max_det=300,
                          device='cpu', verbose=False, save=False)
    rows = [(os.path.basename(r.path), r.boxes.data.numpy()) for r in found]
    table = pd.DataFrame(np.concatenate([b for _, b in rows]), columns=['XMin', 'YMin', 'XMax', 'YMax', 'Conf', 'LabelName'])
    table.insert(0, 'ImageID', np.repeat([n for n, _ in rows], [len(b) for _, b in rows]))
    table = table.assign(LabelName=table.LabelName.astype(int).map(model.names)).sort_values('Conf', ascending=False)
    with open(task['out'], 'w') as f:
        table.to_csv(f, index=False)
        f.flush(); os.fsync(f.fileno())
    print(json.dumps(time.perf_counter() - begin), file=sys.__stdout__, flush=True)
"""


def draw(folder:Path, images:int) -> pd.DataFrame:
    "1080p frames of the made-up farm, as JPEGs, with the answer to them; those that are there already are taken as they are."
    if (folder/'answer.parquet').exists(): return load_table(folder/'answer.parquet')
    cameras, rows = farm_cameras(0), []
    plan = plan_frames(cameras, 4*images, 1, 1, np.random.default_rng(5))
    plan = plan[[cameras[c].width == 1920 for c in plan.camera]]
    plan = plan.iloc[np.linspace(0, len(plan)-1, images).astype(int)]
    (folder/'frames').mkdir(parents=True, exist_ok=True)
    for p in tqdm(plan.itertuples(), total=images, desc='frames'):
        frame, boxes = render_scene(cameras[p.camera], p.count, p.seed, p.t, p.image)
        cv2.imwrite(str(folder/'frames'/p.image), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        rows += boxes
    answer = answer_table(box_table(rows))
    save_table(answer, folder/'answer.parquet')
    return answer


def walls(folder:Path, answer:pd.DataFrame, side:int) -> tuple[pd.DataFrame, Path]:
    "As many 1080p JPEGs of side × side of the frames each, as a recorder shows several cameras at a time; every frame comes side² times."
    if side < 2: return answer, folder/'frames'
    home, names, rng, rows = folder/f'walls{side}', sorted(p.name for p in (folder/'frames').iterdir()), np.random.default_rng(9), []
    order = np.stack([rng.permutation(names) for _ in range(side*side)], 1)
    (home/'frames').mkdir(parents=True, exist_ok=True)
    for i, shown in enumerate(tqdm(order, desc='walls')):
        name = f'wall_{i:06}.jpg'
        for j, one in enumerate(shown):
            part, unit = answer[answer.ImageID == one], pd.DataFrame(dict(cow=(1920, 1080), pig=(1280, 960)), index=['X', 'Y']).T
            at = {c: part[c]/side + (j % side if c[0] == 'X' else j//side)*dict(X=1920, Y=1080)[c[0]]/side/part.LabelName.map(unit[c[0]])
                  for c in ('XMin', 'XMax', 'YMin', 'YMax')}
            rows.append(part.assign(ImageID=name, **at))
        if (home/'frames'/name).exists(): continue
        small = [cv2.resize(cv2.imread(str(folder/'frames'/n)), (1920//side, 1080//side), interpolation=cv2.INTER_AREA) for n in shown]
        wall = np.vstack([np.hstack(small[r*side:r*side+side]) for r in range(side)])
        cv2.imwrite(str(home/'frames'/name), wall, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return pd.concat(rows, ignore_index=True), home/'frames'


def get_weights(given:str|None, folder:Path) -> tuple[Path, str]:
    "The weights, copied into `folder`, and which they are."
    demo = ROOT/'runs/demo/train/best.pt'
    if given or demo.exists(): return Path(shutil.copy(given or demo, folder/'best.pt')), str(given or demo.relative_to(ROOT))
    import torch
    from ultralytics.nn.tasks import DetectionModel
    torch.manual_seed(0)
    model = load_model('yolov5n.yaml')
    model.model = DetectionModel('yolov5n.yaml', nc=2, verbose=False)
    model.model.names = dict(enumerate(SPECIES))
    model.save(folder/'best.pt')
    return folder/'best.pt', 'untrained'


def trained_size(weights:Path) -> int: return (load_model(weights).ckpt or {}).get('train_args', {}).get('imgsz', 640)


class Stock:
    "Ultralytics in a process of its own, with its own choice of threads or, beside it, a given number."
    def __init__(self, home:Path, threads:int=0):
        env = {k: v for k, v in os.environ.items() if k not in ('OMP_NUM_THREADS', 'PYTHONPATH')}
        env |= dict(OMP_NUM_THREADS=str(threads)) if threads else {}
        env |= dict(YOLO_CONFIG_DIR=str(home), YOLO_AUTOINSTALL='false', YOLO_OFFLINE='true', YOLO_VERBOSE='false')
        call, pipe = [sys.executable, '-c', STOCK, str(threads)], subprocess.PIPE
        self.process = subprocess.Popen(call, stdin=pipe, stdout=pipe, env=env, cwd=home, text=True)

    def run(self, weights:Path, folder:Path, out:Path, imgsz:int, batch:int=1) -> float:
        "Seconds for a folder."
        task = dict(weights=str(weights), folder=str(folder), out=str(out), imgsz=imgsz, batch=batch, **SETTINGS)
        print(json.dumps(task), file=self.process.stdin, flush=True)
        if not (said := self.process.stdout.readline()): sys.exit('stock ended: its error is above')
        return float(said)


def seconds(run, *args, **settings) -> float:
    begin = time.perf_counter()
    run(*args, **settings)
    return time.perf_counter() - begin


def alone(work, items:list) -> float:
    "Core-milliseconds an item, where a thread a core does nothing else."
    with ThreadPoolExecutor(CORES) as pool:
        begin = time.perf_counter()
        for _ in pool.map(work, items): pass
        return (time.perf_counter() - begin)*1e3*CORES/len(items)


def steps_alone(files:list[Path], network, imgsz:int, margin:float) -> dict[str, float]:
    "Core-milliseconds an image of each step."
    data, letter, labels = [f.read_bytes() for f in files[:96]], letterbox(1080, 1920, imgsz), dict(enumerate(SPECIES))
    placed = [[place(decode_near(d, '', margin*imgsz)[0], letter)] for d in data[:24]]
    raw = [network.see(one)[0] for one in placed]
    with plain_opencv(), plain_torch():
        return dict(decode=alone(lambda d: decode_near(d, '', margin*imgsz), data), network=alone(network.see, placed*3),
                    nms=alone(lambda r: to_boxes(r, letter, labels, **SETTINGS), raw*4))


def matched(answer:pd.DataFrame, rows:pd.DataFrame) -> pd.DataFrame: return match_submission(answer, rows, IOUS, 'coco')


def ap(matches:pd.DataFrame) -> dict[str, float]:
    "At IoU .5, .75, and over .5 … .95, the mean of the labels."
    at = score_ious(matches).query('label == "mean"').set_index('iou').ap
    return dict(ap50=at['0.5'], ap75=at['0.75'], ap=at['mean'])


def speed(args:argparse.Namespace, home:Path, weights:Path, answer:pd.DataFrame, frames:Path) -> dict:
    import torch
    images, imgsz, trained = len(list(frames.iterdir())), 640, trained_size(weights)
    nets = dict(ours=open_network(weights, 'openvino', imgsz), f32=open_network(weights, 'openvino', imgsz, precision='f32'))
    exported = Path(load_model(weights).export(format='openvino', imgsz=imgsz))
    few = home/'few'
    few.mkdir()
    for f in sorted(frames.iterdir())[:8]: shutil.copy(f, few)
    stock, every_core, batches = Stock(home), Stock(home, CORES), [1, 16] if args.quick else [1, 4, 16, 32]
    ours = lambda net, at: predict_file(images_from(at, sizes=False), net, home/'ours.csv', imgsz, margin=args.margin, **SETTINGS)
    runs = {f'stock {b}': lambda at, b=b: stock.run(weights, at, home/'stock.csv', imgsz, b) for b in batches}
    for b in batches[:2]: runs[f'two_threads {b}'] = lambda at, b=b: every_core.run(weights, at, home/'stock.csv', imgsz, b)
    runs['openvino'] = lambda at: stock.run(exported, at, home/'openvino.csv', imgsz)
    runs |= {name: lambda at, net=net: seconds(ours, net, at) for name, net in nets.items()}
    for run in runs.values(): run(few)
    best, steps = dict.fromkeys(runs, 0.), {}
    for turn in range(1 if args.quick else 3):
        for name, run in runs.items():
            if turn and name.startswith(('stock', 'two')) and best[name] < max(v for k, v in best.items() if k[:3] == name[:3]): continue
            best[name] = max(best[name], images/run(frames))
            print(f'{name}: {best[name]:.1f} images/s', flush=True)
        for name, ms in steps_alone(sorted(frames.iterdir()), nets['ours'], imgsz, args.margin).items(): steps[name] = min(ms, steps.get(name, ms))
    limit = 1e3*CORES/sum(steps.values())
    print('limit: ' + ' + '.join(f'{name} {ms:.2f}' for name, ms in steps.items()) + f' core-ms over {CORES} cores = {limit:.1f} images/s')
    said = {name: max(v for k, v in best.items() if k.split()[0] == name) for name in ('stock', 'two_threads', 'openvino', 'ours', 'f32')}
    fast = said['ours']
    said = dict(stock_ratio=fast/said['stock'], openvino_ratio=fast/said['openvino'], share_of_limit=fast/limit,
                threads_ratio=fast/said['two_threads'], images=images, torch=torch.__version__, limit_per_second=limit,
                **{f'{k}_per_second': v for k, v in said.items()}, **{f'{k}_core_ms': v for k, v in steps.items()})
    answer, at = walls(frames.parent, answer, imgsz//trained)
    stock.run(weights, at, home/'stock.csv', imgsz)
    theirs, table = matched(answer, pd.read_csv(home/'stock.csv')), images_from(at)
    said |= dict(ap_at_px=imgsz, ap_images=len(table), ap_boxes=len(answer), **{f'stock_{k}': v for k, v in ap(theirs).items()})
    draws = draw_images(theirs.image.cat.categories, 1000, None)
    for name, net in nets.items():
        mine = matched(answer, to_submission(predict(table, net, imgsz, batch=1, margin=args.margin, **SETTINGS)[0]))
        said |= {f'{name}_{k}_change': v - said[f'stock_{k}'] for k, v in ap(mine).items()}
        mean = compare_matches(theirs, mine, .75, draws).set_index('label').loc['mean']
        said |= {f'{name}_ap75_low': mean.low, f'{name}_ap75_high': mean.high}
    for peer in (stock, every_core): peer.process.communicate()
    return said


MEMORY = """
import resource, sys, pandas as pd, psutil
from livestock_nb.engine import open_network
from livestock_nb.infer import images_from, predict_file
one, n = images_from(sys.argv[2], sizes=False).iloc[:1], int(sys.argv[3])
images = pd.concat([one]*n).assign(image=[f'frame_{i:06}.jpg' for i in range(n)])
predict_file(images, open_network(sys.argv[1], 'openvino', imgsz=160), sys.argv[4], imgsz=160)
rows = sum(1 for _ in open(sys.argv[4])) - 1
print(psutil.Process().memory_info().rss/1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024/1e6, rows)
"""


def memory(home:Path, weights:Path, frames:Path, images:list[int]) -> dict:
    "Resident set, MB, at the end and at its highest, over so many images (each a small JPEG)."
    (home/'small').mkdir()
    cv2.imwrite(str(home/'small'/'a.jpg'), cv2.resize(cv2.imread(str(min(frames.iterdir()))), (320, 180)))
    said = {}
    for n in images:
        call = [sys.executable, '-c', MEMORY, weights, home/'small', str(n), home/'memory.csv']
        end, highest, rows = map(float, subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-3:])
        said |= {f'mb_{n}': end, f'highest_mb_{n}': highest, f'rows_{n}': int(rows)}
        print(f'{n} images: {end:.0f} MB at the end, {highest:.0f} MB at most, {rows:.0f} rows', flush=True)
    first, last = images[0], images[-1]
    return said | dict(mb_grown=said[f'mb_{last}']-said[f'mb_{first}'], highest_mb_grown=said[f'highest_mb_{last}']-said[f'highest_mb_{first}'])


def margins(weights:Path, answer:pd.DataFrame, frames:Path) -> dict:
    "The change of AP at several margins: of frames at the size at which the weights were trained, and of walls at 640 px; in float32."
    said, trained = {}, trained_size(weights)
    for imgsz in sorted({trained, 640}):
        gold, at = walls(frames.parent, answer, imgsz//trained)
        net, table, first = open_network(weights, 'openvino', imgsz, precision='f32'), images_from(at), None
        for margin in (0, 2, 1.5):
            now = ap(matched(gold, to_submission(predict(table, net, imgsz, batch=1, margin=margin, **SETTINGS)[0])))
            first = first or now
            said |= {f'px{imgsz}_margin{margin:g}_{k}_change': v - first[k] for k, v in now.items()}
        print(f'{imgsz} px:', {k: round(float(v), 4) for k, v in said.items() if k.startswith(f'px{imgsz}')}, flush=True)
    return said


def main() -> None:
    "Print progress, and the figures last."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ('--quick', '--memory', '--margins'): parser.add_argument(flag, action='store_true')
    for flag in ('--weights', '--frames'): parser.add_argument(flag)
    parser.add_argument('--margin', type=float, default=2, help='of predict_file')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        home = Path(tmp)
        kept = Path(args.frames or home/'drawn')
        answer, frames = draw(kept, 64 if args.quick else 320), kept/'frames'
        weights, name = get_weights(args.weights, home)
        print(f'{len(list(frames.iterdir()))} images, weights {name}, {CORES} cores', flush=True)
        if args.memory: said = memory(home, weights, frames, [100, 2000] if args.quick else [1000, 20000])
        elif args.margins: said = margins(weights, answer, frames)
        else: said = speed(args, home, weights, answer, frames)
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in dict(weights=name, **said).items()}))


if __name__ == '__main__': main()
