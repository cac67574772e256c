"""Do the findings find what was planted? Made-up farms with random faults, and clean ones, go through zips, intake and `find_faults`.

`python benchmarks/findings.py [--quick] [--seed 1000]`: the last line is json with `precision`, `recall` (of pairs of a kind and a species),
`clean_findings`, and the same by image. Thresholds were chosen on seeds below 1000; the default seeds are others.

A clean farm keeps the habits that are no faults: two image sizes, near-duplicate runs, infra-red cameras, an image without an animal and boxes that
leave the frame by a few pixels. It has no truncated file and no missing label.
"""
import argparse
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from livestock_nb.eda import small_images
from livestock_nb.farm import farm_cameras, make_set, plan_frames, write_zip, zip_name
from livestock_nb.findings import find_faults, find_suspects
from livestock_nb.groups import find_groups, image_hashes
from livestock_nb.intake import read_farm


def clean_farm(folder: Path, frames: int, seed: int) -> pd.DataFrame:
    "Four zips without a fault; returns the plan (image, species, run, camera)."
    cameras, rng = farm_cameras(seed), np.random.default_rng([seed, 1])
    plan = plan_frames(cameras, frames, 1, 1, rng)
    make_set(folder, plan, cameras, rng)
    return plan


class Farm:
    "The files of one species, open for damage: images by name, labels by name."
    def __init__(self, folder: Path, species: str, plan: pd.DataFrame):
        self.folder, self.species, self.plan = folder, species, plan[plan.species == species].set_index('image')
        with zipfile.ZipFile(folder/zip_name(species, 'images')) as z: self.images = {n: z.read(n) for n in z.namelist()}
        with zipfile.ZipFile(folder/zip_name(species, 'labels')) as z:
            self.labels = {n.replace('.json', '.jpg'): json.loads(z.read(n)) for n in z.namelist()}
        self.free = set(self.images)  # images that no fault has touched

    def boxes(self, name: str) -> list[list[int]]: return [a['bbox'] for a in self.labels[name]['label_info']['annotations']]

    def size(self, name: str) -> tuple[int, int]:
        about = self.labels[name]['label_info']['image']
        return about['width'], about['height']

    def put(self, name: str, boxes: list) -> None:
        self.labels[name]['label_info']['annotations'] = [dict(bbox=[int(round(v)) for v in b], category_id=1) for b in boxes]

    def pick(self, rng: np.random.Generator, n: int, least: int = 1, runs: bool = False) -> list[str]:
        "Some untouched images with boxes; if `runs`, of one size and each of another run. They count as touched then."
        names = rng.permutation(sorted(i for i in self.free if len(self.boxes(i)) >= least))
        if runs: names = list({self.plan.run[i]: i for i in names if self.size(i) == self.size(names[0])}.values())
        taken = [str(i) for i in names[:n]]
        self.free -= set(taken)
        return taken

    def write(self) -> None:
        write_zip(self.folder/zip_name(self.species, 'images'), self.images.items())
        write_zip(self.folder/zip_name(self.species, 'labels'),
                  ((n.replace('.jpg', '.json'), json.dumps(v) if isinstance(v, dict) else v) for n, v in self.labels.items()))


def some(rng, low, high): return int(rng.integers(low, high + 1))


def labels_missing(f, rng):
    "8 to 40 % of the boxes of a species, never the last one of an image."
    share = rng.uniform(.08, .4)
    spare = [(n, i) for n in sorted(f.free) for i in rng.permutation(len(f.boxes(n)))[1:]]
    gone = [spare[i] for i in rng.permutation(len(spare))[:round(share*sum(len(f.boxes(n)) for n in f.free))]]
    for n in {n for n, _ in gone}: f.put(n, [b for i, b in enumerate(f.boxes(n)) if (n, i) not in gone])
    return {n for n, _ in gone}


def image_unlabelled(f, rng):
    names = f.pick(rng, some(rng, 1, 4))
    for n in names: f.put(n, [])
    return names


def camera_unlabelled(f, rng):
    cameras = f.plan.loc[sorted(f.free)].camera.value_counts()
    camera = rng.choice(sorted(cameras.index[cameras >= 3]))
    names = f.plan.index[f.plan.camera == camera]
    f.free -= set(names)
    for n in names: f.put(n, [])
    return names


def labels_of_another_frame(f, rng):
    "Labels handed round among images of different runs and one size, as pairing by order does."
    names = f.pick(rng, some(rng, 3, 8), 2, runs=True)
    if len(names) < 2: return []
    old = [f.boxes(n) for n in names]
    for n, b in zip(names, old[1:] + old[:1], strict=True): f.put(n, b)
    return names


def labels_copied(f, rng):
    names = f.pick(rng, some(rng, 3, 5), 2, runs=True)
    for n in names[1:]: f.put(n, f.boxes(names[0]))
    return names if len(names) > 1 else []


def labels_shifted(f, rng):
    "All boxes of a species, by 3 to 8 % of the image's width in one direction."
    angle, by = rng.uniform(0, 2*np.pi), rng.uniform(.03, .08)
    for n in f.labels:
        w, h = f.size(n)
        dx, dy = w*by*np.cos(angle), w*by*np.sin(angle)
        moved = [[b[0]+dx, b[1]+dy, b[2]+dx, b[3]+dy] for b in f.boxes(n)]
        f.put(n, [b for b in np.clip(np.reshape(moved, (-1, 4)), 0, [w, h, w, h]) if b[2]-b[0] > 12 and b[3]-b[1] > 12])
    return list(f.labels)


def labels_of_another_size(f, rng):
    "Every box as if the image were .45 to .67 of its size."
    by = rng.uniform(.45, .67)
    for n in f.labels: f.put(n, np.multiply(np.reshape(f.boxes(n), (-1, 4)), by))
    return list(f.labels)


def box_doubled(f, rng):
    names = f.pick(rng, some(rng, 2, 6))
    for n in names: f.put(n, f.boxes(n) + [np.add(f.boxes(n)[0], rng.integers(1, 4, 4)*rng.choice([-1, 1], 4))])
    return names


def box_tiny(f, rng):
    names = f.pick(rng, some(rng, 1, 5))
    for n in names:
        (x, y), (w, h) = rng.integers(100, 900, 2), rng.integers(2, 10, 2)
        f.put(n, f.boxes(n) + [[x, y, x+w, y+h]])
    return names


def box_huge(f, rng):
    names = f.pick(rng, some(rng, 1, 3))
    for n in names:
        (w, h), (a, b) = f.size(n), rng.uniform(.8, .98, 2)
        x, y = rng.uniform(0, 1-a)*w, rng.uniform(0, 1-b)*h
        f.put(n, f.boxes(n) + [[x, y, x + a*w, y + b*h]])
    return names


def box_far_outside(f, rng):
    "A box nearest to a side of the frame, stretched beyond it by 4 to 15 % of that side."
    names = f.pick(rng, some(rng, 2, 6))
    for n in names:
        (w, h), boxes, side = f.size(n), [list(b) for b in f.boxes(n)], some(rng, 0, 3)
        gaps = [[b[0], b[1], w-b[2], h-b[3]][side] for b in boxes]
        far = rng.uniform(.04, .15)*(w, h)[side % 2]
        boxes[int(np.argmin(gaps))][side] = -far if side < 2 else (w, h)[side % 2] + far
        f.put(n, boxes)
    return names


def image_blank(f, rng):
    names = f.pick(rng, some(rng, 1, 3))
    for n in names:
        w, h = f.size(n)
        dark = np.clip(rng.normal(rng.uniform(2, 120), 3, (h, w, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
        f.images[n] = cv2.imencode('.jpg', dark)[1].tobytes()
    return names


def truncated(f, rng):
    names = f.pick(rng, some(rng, 1, 3))
    for n in names: f.images[n] = f.images[n][:-some(rng, 28, 20_000)]
    return names


def size_mismatch(f, rng):
    names = f.pick(rng, some(rng, 1, 5))
    for n in names: f.labels[n]['label_info']['image'] |= dict(width=640, height=480)
    return names


def duplicate_image(f, rng):
    names = f.pick(rng, some(rng, 1, 3))
    for i, n in enumerate(names):
        again = f'livestock_{f.species}_bbox_{900_000+i:06}.jpg'
        f.images[again], f.labels[again] = f.images[n], json.loads(json.dumps(f.labels[n]))
        f.plan = pd.concat([f.plan, f.plan.loc[[n]].set_axis([again])])
        names = names + [again]
    return names


def invalid_json(f, rng):
    names = f.pick(rng, some(rng, 1, 2))
    for n in names: f.labels[n] = '{"label_info": {"image":'
    return names


def unreadable(f, rng):
    names = f.pick(rng, some(rng, 1, 2))
    for n in names: f.images[n] = bytes(1000)
    return names


def zero_area(f, rng):
    names = f.pick(rng, some(rng, 1, 4))
    for n in names: f.put(n, f.boxes(n) + [[300, 200, 300, 260]])
    return names


def duplicate_box(f, rng):
    names = f.pick(rng, some(rng, 1, 4))
    for n in names: f.put(n, f.boxes(n) + f.boxes(n)[:1])
    return names


# in this order: what changes all labels first, then single images; what breaks a file last
PLANTS: list[Callable] = [labels_shifted, labels_of_another_size, camera_unlabelled, labels_missing, image_unlabelled, labels_of_another_frame,
                          labels_copied, box_doubled, box_tiny, box_huge, box_far_outside, image_blank, truncated, size_mismatch, duplicate_image,
                          zero_area, duplicate_box, unreadable, invalid_json]


def plant(folder: Path, plan: pd.DataFrame, rng: np.random.Generator, chance: float = .15) -> pd.DataFrame:
    "Damage a clean farm, each kind in each species by chance; returns kind, species, image."
    truth = []
    for species in ('cow', 'pig'):
        f = Farm(folder, species, plan)
        drawn = [p for p in PLANTS if rng.random() < chance]
        if labels_shifted in drawn and labels_of_another_size in drawn: drawn.remove(labels_shifted)  # the one hides in the other
        for p in drawn: truth += [(p.__name__.replace('_', ' '), species, n) for n in p(f, rng)]
        f.write()
    return pd.DataFrame(truth, columns=['kind', 'species', 'image'])


def judge(folder: Path, plan: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "Images, suspects and findings of four zips, as the eda stage has them."
    images, boxes, problems = read_farm(folder)
    hashes = image_hashes(images)
    images['group'] = find_groups(images, hashes).to_numpy()
    suspects = find_suspects(images, boxes, problems, hashes, small_images(images))
    return images, suspects, find_faults(suspects, images)


def pairs(rows: pd.DataFrame, *columns: str) -> set[tuple]: return set(rows[list(columns)].drop_duplicates().itertuples(index=False, name=None))


def try_farm(seed: int) -> dict:
    "One farm, clean and then damaged: what was planted and found, by kind and species and by image."
    with tempfile.TemporaryDirectory() as home:
        rng = np.random.default_rng([seed, 9])
        plan = clean_farm(Path(home), int(rng.integers(60, 101)), seed)
        clean = judge(Path(home), plan)[2]
        planted = plant(Path(home), plan, rng)
        _, suspects, found = judge(Path(home), plan)
    return dict(seed=seed, clean=pairs(clean, 'kind', 'species'), planted=pairs(planted, 'kind', 'species'), found=pairs(found, 'kind', 'species'),
                planted_images=pairs(planted, 'kind', 'image'), found_images=pairs(suspects, 'kind', 'image'))


def share(part: int, whole: int) -> float: return round(part/whole, 4) if whole else 1.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='three farms instead of ten')
    parser.add_argument('--farms', type=int, default=10)
    parser.add_argument('--seed', type=int, default=1000, help='of the first farm')
    args = parser.parse_args()
    tried = []
    for seed in range(args.seed, args.seed + (3 if args.quick else args.farms)):
        tried.append(t := try_farm(seed))
        print(f'farm {seed}: planted {len(t["planted"])}, found {len(t["planted"] & t["found"])} of them;',
              'missed', sorted(t['planted'] - t['found']), 'false', sorted(t['found'] - t['planted']), 'clean', sorted(t['clean']), flush=True)
    n = {k: sum(len(t[k]) for t in tried) for k in ('planted', 'found', 'planted_images', 'found_images', 'clean')}
    hit, hit_images = (sum(len(t[f'planted{s}'] & t[f'found{s}']) for t in tried) for s in ('', '_images'))
    kinds = Counter(k for t in tried for k, _ in t['planted'])
    found = Counter(k for t in tried for k, _ in t['planted'] & t['found'])
    print('found of planted, by kind:', ', '.join(f'{k} {found[k]}/{v}' for k, v in sorted(kinds.items())))
    print(json.dumps(dict(precision=share(hit, n['found']), recall=share(hit, n['planted']), clean_findings=n['clean'], farms=len(tried),
                          planted=n['planted'], image_precision=share(hit_images, n['found_images']),
                          image_recall=share(hit_images, n['planted_images']))))


if __name__ == '__main__': main()
