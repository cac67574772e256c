"""How even the split is, whether near-duplicates are found and kept on one side, beside the reference's way, and how long it takes.

    python benchmarks/split.py [--quick]

Three parts. Single images: as many in each stratum as the real data has. Planted runs: the made-up farm's cameras film runs of three to six frames,
each frame with its own noise, shift, light and JPEG quality; names are shuffled, there is no metadata, and the truth is kept from what is measured
(--quick: fewer and smaller frames). Size: 400,000 images with given groups, and 100,000 hashes (--quick: 30,000) of crowded cameras. The last line
is one JSON object."""
import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import reference_split

from livestock_nb.data import box_table, image_table
from livestock_nb.farm import farm_cameras, herd_sizes, render_scene, run_lengths
from livestock_nb.groups import find_groups, image_hashes, near_pairs
from livestock_nb.split import make_split, split_report

REAL = {('cow', 2): 7383, ('cow', 4): 3413, ('cow', 7): 1356, ('pig', 5): 506, ('pig', 10): 2749, ('pig', 14): 1048}  # images by species and boxes


def some_boxes(name:np.ndarray, label:np.ndarray, count:np.ndarray, rng:np.random.Generator) -> pd.DataFrame:
    "`count` boxes an image, of random shape and size."
    n = count.sum()
    x, y, w, h = rng.uniform(0, 900, n), rng.uniform(0, 400, n), rng.lognormal(5, .5, n), rng.lognormal(5, .5, n)
    return box_table(pd.DataFrame(dict(image=np.repeat(name, count), label=np.repeat(label, count), x1=x, y1=y, x2=x+w, y2=y+h)))


def single_images() -> dict:
    "Every image alone: images by which the worst stratum of any fold is off, and the reference's."
    rng = np.random.default_rng(0)
    species, count = (np.repeat([k[i] for k in REAL], list(REAL.values())) for i in (0, 1))
    name = np.array([f'{i:06}.jpg' for i in rng.permutation(len(species))])
    images = image_table(pd.DataFrame(dict(image=name, species=species, width=1920, height=1080)))
    boxes = some_boxes(name, species, count, rng)
    split = make_split(images, boxes)
    got = pd.crosstab(split.stratum, split.fold)
    shuffled = make_split(images.sample(frac=1, random_state=1), boxes.sample(frac=1, random_state=2))
    peer = reference_split.split(images, pd.Series(count, name))
    theirs = split_report(split.assign(side=split.image.map(peer)), .2)
    return dict(worst_off_by=float((got.sub(got.sum(axis=1)/5, axis=0)).abs().to_numpy().max()), worst_off_by_reference=float(theirs.off_by.max()),
                same_when_permuted=bool(split.equals(shuffled.sort_values('image', ignore_index=True))))


def film(job:tuple) -> tuple[bytes, list[dict]]:
    "One frame as a camera sends it: moved by a few px, lit, noisy, compressed."
    camera, count, seed, t, name = job
    frame, boxes = render_scene(camera, count, seed, t, name)
    rng = np.random.default_rng([seed, t, 1])
    shift = np.round(rng.uniform(-.003, .003, 2)*camera.width)
    frame = cv2.warpAffine(frame, np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    frame = frame*rng.uniform(.85, 1.15) + rng.uniform(-8, 8) + rng.normal(0, rng.uniform(0, 6), frame.shape[:2])[..., None]
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
    return cv2.imencode('.jpg', np.clip(frame, 0, 255).astype(np.uint8)[..., ::-1], quality)[1].tobytes(), boxes


def planted_runs(home:Path, frames:int, scale:int) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    "`images` and `boxes` tables of a farm whose frames lie in `home` under shuffled names, and the run of each image, which nothing else tells."
    rng, jobs, run = np.random.default_rng(0), [], {}
    cameras = [c._replace(width=c.width//scale, height=c.height//scale) for c in farm_cameras(0)]
    names = iter([f'{i:05}.jpg' for i in rng.permutation(frames)])
    for species in ('cow', 'pig'):
        watch, lengths = [c for c in cameras if c.species == species], run_lengths(frames//2, rng)
        for i, (length, count) in enumerate(zip(lengths, herd_sizes(species, len(lengths), rng), strict=True)):
            seed = int(rng.integers(2**31))
            for t in range(length):
                jobs.append((watch[i % len(watch)], int(count), seed, t, next(names)))
                run[jobs[-1][-1]] = f'{species} {i}'
    boxes = []
    with ProcessPoolExecutor(2) as pool:
        for job, (data, found) in zip(jobs, pool.map(film, jobs, chunksize=16), strict=True):
            (home/job[-1]).write_bytes(data)
            boxes += found
    rows = [dict(image=name, species=c.species, width=c.width, height=c.height, zip=str(home), member=name) for c, _, _, _, name in jobs]
    return image_table(rows), box_table(boxes), pd.Series(run, name='run')


def pairs_within(*keys:pd.Series) -> int:
    "Pairs of images that agree in every key."
    n = pd.concat(keys, axis=1).value_counts()
    return int((n*(n - 1)//2).sum())


def near_duplicates(frames:int, scale:int, distance:int=48) -> dict:
    "What is found of planted runs, what is merged wrongly, and what of it stands on both sides."
    with tempfile.TemporaryDirectory() as home:
        images, boxes, run = planted_runs(Path(home), frames, scale)
        begun = time.perf_counter()
        hashes = image_hashes(images)
        took = time.perf_counter() - begun
    run, group = run.reindex(images.image), find_groups(images, hashes, distance)
    split = make_split(images.assign(group=group.to_numpy()), boxes)
    pairs, side = near_pairs(hashes, distance), split.set_index('image').side
    peer = reference_split.split(images, boxes.image.value_counts().reindex(images.image, fill_value=0))
    report = split_report(split, .2)
    across = {way: int((pairs.image.map(s) != pairs.other.map(s)).sum()) for way, s in (('leaks', side), ('leaks_reference_way', peer))}
    both, true, found = pairs_within(run, group), pairs_within(run), pairs_within(group)
    return across | dict(frames=frames, pair_recall=both/true, false_merges=1 - both/found, near_pairs=len(pairs),
                         run_pairs_across=true - pairs_within(run, side.reindex(images.image)),
                         run_pairs_across_reference=true - pairs_within(run, peer.reindex(images.image)),
                         worst_percent_of_wanted=float((100*report.off_by/report.wanted).max()), hashes_a_second=frames/took)


def seconds_split(n:int=400_000, run:int=4) -> float:
    "Time of `make_split` from tables with groups of `run` images."
    rng = np.random.default_rng(0)
    name, group = np.array([f'{i:07}.jpg' for i in range(n)]), rng.permutation(n)//run
    species = np.where(rng.random(n) < .74, 'cow', 'pig')[group]
    count = np.maximum(0, rng.poisson(np.where(species == 'cow', 3.2, 10.7)))
    images = image_table(pd.DataFrame(dict(image=name, species=species, width=1920, height=1080, group=pd.Series(group).astype(str))))
    boxes = some_boxes(name, species, count, rng)
    begun = time.perf_counter()
    make_split(images, boxes)
    return time.perf_counter() - begun


def seconds_groups(n:int) -> float:
    "Time of `find_groups` on hashes of nine cameras whose frames have most bits in common."
    rng = np.random.default_rng(0)
    bits = rng.random((9, 256))[rng.integers(9, size=n//4)] < .5
    bits = np.repeat(bits ^ (rng.random(bits.shape) < .25), 4, axis=0)
    bits ^= rng.random(bits.shape) < .05
    hashes = pd.DataFrame(dict(image=[f'{i:07}.jpg' for i in range(len(bits))], hash=[b.tobytes().hex() for b in np.packbits(bits, axis=1)]))
    images = image_table(hashes[['image']].assign(species='cow', width=1920, height=1080))
    begun = time.perf_counter()
    groups = find_groups(images, hashes).nunique()
    took = time.perf_counter() - begun
    assert abs(groups - n//4) <= .01*n, groups
    return took


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='within a minute')
    quick = parser.parse_args().quick
    n = 30_000 if quick else 100_000
    result = single_images() | near_duplicates(*(360, 2) if quick else (1500, 1))
    result |= {'seconds_400k': seconds_split(), f'seconds_{n//1000}k_hashes': seconds_groups(n)}
    for key, value in result.items(): print(f'{key:28} {value:.4g}' if isinstance(value, float) else f'{key:28} {value}')
    print(json.dumps(result))
