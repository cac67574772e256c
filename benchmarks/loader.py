"""What the scaled copy of the pixels gains in loading, what it takes to make it, and what it costs in mAP.

    python benchmarks/loader.py [--quick] [--part loading|accuracy]

Ultralytics' own dataset and loader read 1920×1080 frames of the made-up farm, and then the copy of them that `write_pixels` makes, at 640 px, with
the same two workers, in turns, of which the fastest counts: with mosaic and the other default augmentations, and without any, as its validation reads
(`plain_square_ratio`: padded to squares, as its training reads). Blank images through the same loader show what passing them on takes alone.
`epochs_to_pay` is the time to make the copy over what an epoch with mosaic gets shorter; the peer's own unzipping is not counted against it. Without
--quick a small detector is then trained on a farm from both kinds of pixels with the same seed and scored on the same test frames. The last line is
one JSON object."""
import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from livestock_nb.data import box_table, image_table
from livestock_nb.farm import farm_cameras, make_farm, render_scene, write_zip
from livestock_nb.infer import predict, to_submission
from livestock_nb.intake import list_images, read_farm
from livestock_nb.score import read_answer, score
from livestock_nb.split import find_groups, image_hashes, make_split, write_labels, write_lists, write_pixels
from livestock_nb.train import quiet_ultralytics, read_data, read_hyp, train_model

ROOT = Path(__file__).parents[1]
TRUNK = ROOT.parent/'shared'/'data'/'weights'/'yolov5n_coco_trunk.pt'


def frames_in_zip(folder:Path, images:int, scenes:int) -> tuple[pd.DataFrame, pd.DataFrame]:
    "`images` frames of 1920×1080 in a zip, of `scenes` different ones, and their boxes."
    cameras, rows, boxes, files = [c for c in farm_cameras(0) if c.width == 1920], [], [], []
    for i in tqdm(range(scenes), desc='frames', unit='image'):
        camera = cameras[i % len(cameras)]
        frame, found = render_scene(camera, 4 + i % 5, i)
        data = cv2.imencode('.jpg', frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        for name in (f'{k:05}.jpg' for k in range(i, images, scenes)):
            files.append((name, data))
            boxes += [b | dict(image=name) for b in found]
            rows.append(dict(image=name, species=camera.species, width=1920, height=1080, zip=str(folder/'a.zip'), member=name, sha=name))
    write_zip(folder/'a.zip', files)
    return image_table(rows), box_table(boxes)


def write_dataset(folder:Path, images:pd.DataFrame, boxes:pd.DataFrame, long_side:int) -> float:
    "A dataset to train on, all of it train; seconds that its pixels took."
    begun = time.perf_counter()
    write_pixels(images, folder/'images', long_side)
    took = time.perf_counter() - begun
    write_labels(images, boxes, folder/'labels')
    write_lists(images[['image']].assign(side='train'), folder)
    return took


def open_dataset(folder:Path, kind:str, batch:int=16):  # ultralytics dataset
    "Ultralytics' own dataset at 640 px: 'mosaic', 'plain' or 'square'."
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    cfg = get_cfg(overrides=dict(imgsz=640, task='detect'))
    mode = 'train' if kind == 'mosaic' else 'val'
    return build_yolo_dataset(cfg, str(folder/'train.txt'), batch, read_data(folder), mode=mode, rect=kind == 'plain')


class Blank:
    "As many blank images, padded to squares."
    def __init__(self, images:int): self.images = images
    def __len__(self) -> int: return self.images
    def __getitem__(self, i:int):
        import torch
        return torch.zeros(3, 640, 640, dtype=torch.uint8)


def seconds_an_epoch(datasets:dict, shuffle:bool, workers:int, rounds:int, epochs:int=2) -> dict[str, float]:
    "Time of an epoch of each dataset, the fastest of its turns: one loader at a time, and after an epoch that fills its workers."
    from ultralytics.data.build import build_dataloader
    took = {k: [] for k in datasets}
    for name in tqdm([*datasets]*rounds, desc='loading', unit='turn'):
        loader = build_dataloader(datasets[name], 16, workers, shuffle=shuffle, device='cpu')
        for _ in loader: pass
        begun = time.perf_counter()
        for _ in range(epochs):
            for _ in loader: pass
        took[name].append((time.perf_counter() - begun)/epochs)
        loader.close()
    return {k: min(v) for k, v in took.items()}


def box_difference(full, scaled) -> float:  # ultralytics datasets without augmentation
    "Largest difference between the boxes of both, px in the frame that the detector sees."
    order = [{Path(f).name: i for i, f in enumerate(d.im_files)} for d in (full, scaled)]
    pairs = [(full[order[0][n]], scaled[order[1][n]]) for n in sorted(order[0])[:50]]
    size = np.array(pairs[0][0]['img'].shape[:0:-1]*2)
    assert all(a['img'].shape == b['img'].shape for a, b in pairs)
    return max(float(np.abs((a['bboxes'].numpy() - b['bboxes'].numpy())*size).max()) for a, b in pairs)


def loading(images:int, scenes:int, rounds:int, workers:int=2) -> dict:
    "Full-size frames against the scaled copy."
    with tempfile.TemporaryDirectory() as d:
        home = Path(d)
        tables = frames_in_zip(home, images, scenes)
        plain_copy = write_dataset(home/'full', *tables, 0)
        took = write_dataset(home/'scaled', *tables, 640)
        sets = {kind: {k: open_dataset(home/k, kind) for k in ('full', 'scaled')} for kind in ('mosaic', 'plain', 'square')}
        time_of = {kind: seconds_an_epoch(pair, kind == 'mosaic', workers, rounds) for kind, pair in sets.items()}
        blank = seconds_an_epoch({'blank': Blank(images)}, False, workers, rounds)['blank']
        ratio = {kind: t['full']/t['scaled'] for kind, t in time_of.items()}
        gain = time_of['mosaic']['full'] - time_of['mosaic']['scaled']
        speed = {f'images_a_second_{kind}_{k}': images/v for kind, t in time_of.items() for k, v in t.items()}
        return dict(images=images, mosaic_ratio=ratio['mosaic'], plain_ratio=ratio['plain'], plain_square_ratio=ratio['square'],
                    epochs_to_pay=took/gain, epochs_to_pay_over_full_copy=(took - plain_copy)/gain, **speed, images_a_second_blank=images/blank,
                    copies_a_second=images/took, box_difference_px=box_difference(*sets['square'].values()))


def trained(home:Path, tables:tuple, long_side:int, epochs:int, imgsz:int) -> pd.DataFrame:
    "Train on one kind of pixels and score on the farm's test frames, which are always full-size."
    images, boxes = tables
    folder = home/f'data{long_side}'
    split = make_split(images.assign(group=find_groups(images, image_hashes(images)).to_numpy()), boxes)
    write_pixels(images, folder/'images', long_side)
    write_labels(images, boxes, folder/'labels')
    write_lists(split, folder)
    hyp, weights = ({}, TRUNK) if TRUNK.exists() else (read_hyp(ROOT/'configs'/'hyp'/'scratch.yaml')[0], 'yolov5n.yaml')
    best = train_model(folder, home/f'run{long_side}', weights, hyp, imgsz=imgsz, epochs=epochs, batch=16, device='cpu', validate=False)
    test, _ = list_images(home/'farm'/'test')
    found, _ = predict(test, best, imgsz=imgsz, device='cpu')
    answer = read_answer(home/'farm'/'test'/'answer.csv')
    return pd.concat([score(answer, to_submission(found), iou).assign(iou=iou).query("label == 'mean'") for iou in (.5, .75)])


def accuracy(frames:int=192, epochs:int=8, imgsz:int=320) -> dict:
    "mAP after the same training from full-size and from scaled pixels."
    with tempfile.TemporaryDirectory() as d:
        home, out = Path(d), {}
        make_farm(home/'farm', home/'truth.parquet', frames, 96, 0.)
        tables = read_farm(home/'farm'/'train')[:2]
        for name, long_side in (('full', 0), ('scaled', imgsz)):
            for r in trained(home, tables, long_side, epochs, imgsz).itertuples():
                out |= {f'map{100*r.iou:.0f}_{name}': r.ap, f'map{100*r.iou:.0f}_{name}_95': [round(r.low, 4), round(r.high, 4)]}
    return out | {f'map{k}_cost': out[f'map{k}_full'] - out[f'map{k}_scaled'] for k in (50, 75)}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='within a minute, and without the training')
    parser.add_argument('--part', choices=['loading', 'accuracy'], help='one half of it; both where not given')
    args = parser.parse_args()
    quiet_ultralytics()
    result = {}
    if args.part != 'accuracy': result |= loading(*(240, 24, 2) if args.quick else (480, 48, 3))
    if args.part != 'loading' and not args.quick: result |= accuracy()
    for key, value in result.items(): print(f'{key:30} {value:.4g}' if isinstance(value, float) else f'{key:30} {value}')
    print(json.dumps(result))
