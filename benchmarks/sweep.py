"""What a sweep over thresholds costs, once the candidates are kept: 20 overlaps × 20 confidences on 300 made-up images with 500 candidates each.

`python benchmarks/sweep.py [--quick]` prints one JSON object last: KIND_seconds (all 400 cells of a rule), `all_seconds` (all 2,400 cells of six
rules), `redraw_seconds` (the slowest of 30 slider moves of the panel), `intervals_seconds` (of the ten best cells). --quick takes 60 images.
The peer is what a sweep is otherwise: suppression image by image and the same score afresh for every cell (`peer_seconds`, from six cells;
`peer_ratio` is that over `hard_seconds`). Its figures must equal the sweep's.
"""
import argparse
import contextlib
import json
import tempfile
import time
import warnings

import matplotlib

matplotlib.use('Agg')
import numpy as np
import pandas as pd
import torch

from livestock_nb.data import CORNERS, box_table, image_table
from livestock_nb.nms import KINDS, class_nms
from livestock_nb.sweep import CONFS, IOUS, SHOWN, best_cells, cell_matches, cell_values, load_raw, made_up_raw, save_raw, sweep, sweep_panel, tensors

HARD, ALL, REDRAW = 30, 180, .5  # seconds: the limits


def made_up_farm(n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Images and gold boxes: 8 animals an image, every third image of pigs in a heap."
    rng = np.random.default_rng(0)
    images = image_table([dict(image=f'{i:04}.jpg', species='pig' if i % 3 == 0 else 'cow', width=1920, height=1080) for i in range(n)])
    at = rng.uniform((0, 0), (1400, 700), (n, 8, 2))
    at[::3] = at[::3, :1] + rng.normal(0, 130, (len(at[::3]), 8, 2))
    at, size = at.clip(0, (1500, 800)).reshape(-1, 2), rng.uniform((150, 120), (400, 270), (n*8, 2))
    corners = pd.DataFrame(np.hstack([at, at+size]), columns=CORNERS)
    return images, box_table(corners.assign(image=np.repeat(images.image.to_numpy(), 8), label=np.repeat(images.species.to_numpy(), 8)))


@contextlib.contextmanager
def clock(figures: dict, name: str):
    start = time.perf_counter()
    yield
    figures[name] = time.perf_counter()-start


def fresh(raw, gold, iou: float, conf: float) -> dict:
    "One cell as it is computed without the kept pairs."
    found = []
    for frame, g in raw.boxes.groupby('frame'):
        boxes, scores, labels = tensors(g)
        sure = scores > conf
        kept = class_nms(boxes[sure], scores[sure], labels[sure], iou)[:SHOWN]
        rows, size = g[sure.numpy()].iloc[kept.numpy()], raw.frames.loc[frame, ['width', 'height']].to_list()*2
        corners = pd.DataFrame(boxes[sure][kept].numpy().clip(0, size).astype(float), rows.index, CORNERS)
        found.append(corners.assign(image=raw.frames.image[frame], label=rows.label.astype(str), confidence=rows.score.astype(float)))
    found = pd.concat(found).sort_values('confidence', ascending=False)
    return cell_values(cell_matches(gold, found, raw.frames.image, .75, 'challenge'), .75, conf)


def redraws(raw, gold, images) -> list[float]:
    "Seconds of slider moves, each to a place where the slider has not been."
    grey = np.full((1080, 1920, 3), 128, np.uint8)
    panel = sweep_panel(raw, gold, images, read=lambda row: grey)
    overlap, sure = panel.children[0].children[1], panel.children[1]
    out, seen = [], set()
    for slider, values in ((overlap, [v for v in IOUS if v != overlap.value][:15]), (sure, [v for v in CONFS if v != sure.value][:15])):
        for v in values:
            start = time.perf_counter()
            slider.value = v
            out.append(time.perf_counter()-start)
            seen.add(panel.children[-1].value)
    assert len(seen) > 20, 'the picture does not follow the sliders'
    return out


def main(quick: bool) -> dict:
    images, gold = made_up_farm(60 if quick else 300)
    figures = dict(images=len(images))
    with clock(figures, 'pairs_seconds'): raw = made_up_raw(images, gold, each=64, nothing=40)
    with tempfile.TemporaryDirectory() as d:
        save_raw(raw, d)
        with clock(figures, 'load_seconds'): raw = load_raw(d)
    figures |= dict(candidates=len(raw.boxes), pairs=len(raw.pairs))
    tables = []
    for kind in KINDS:
        with clock(figures, f'{kind}_seconds'): tables.append(sweep(raw, gold, [kind]))
    table = pd.concat(tables, ignore_index=True)
    assert len(table) == len(KINDS)*400
    figures['hard_and_diou_seconds'] = figures['hard_seconds'] + figures['diou_seconds']
    figures['all_seconds'] = sum(figures[f'{kind}_seconds'] for kind in KINDS)
    cells = [(IOUS[i], CONFS[j]) for i, j in ((0, 0), (12, 0), (19, 0), (6, 10), (12, 10), (12, 15))]
    with clock(figures, 'peer_seconds'): values = [fresh(raw, gold, *c) for c in cells]
    hard = table[table.kind == 'hard'].set_index(['iou', 'conf'])
    for c, v in zip(cells, values, strict=True): assert all(abs(hard.loc[c, k]-x) < 1e-9 for k, x in v.items()), (c, v)
    figures['peer_seconds'] *= 400/len(cells)
    figures['peer_ratio'] = figures['peer_seconds']/figures['hard_seconds']
    with clock(figures, 'intervals_seconds'): best_cells(raw, gold, table, 'score')
    figures['redraw_seconds'] = max(redraws(raw, gold, images))
    return {k: round(v, 3) for k, v in figures.items()}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='60 images')
    warnings.filterwarnings('ignore', category=UserWarning)
    torch.set_num_threads(2)
    found = main(parser.parse_args().quick)
    for name, limit in dict(hard_and_diou_seconds=HARD, all_seconds=ALL, redraw_seconds=REDRAW).items():
        print(f'{name}: {found[name]} (limit {limit}){"" if found[name] <= limit else "  MISSED"}')
    print(json.dumps(found))
