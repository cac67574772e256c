"""How fast intake reads zips, beside plainly reading them and beside the reference's way: `python benchmarks/intake.py [--quick]`.

16,455 made-up images of realistic size (12,152 cows, 4,303 pigs) in stored zips, about 6.8 GB in a temporary folder, with twice as much for the
reference's copies. The last line is one JSON object:

- tables_ratio: unzip all, glob, Pillow and json for each file, against the tables from headers (both with the zips in the disk cache)
- full_read_ratio: the pass that reads every byte (checksum, end marker), against reading the zips in blocks of 1 MiB and nothing else;
  both with a cold disk cache, medians of five turns. full_read_ratio_cached is the same with the zips in memory, where only computing counts.
- dataset_ratio: zips to a full-size YOLO data set, synced to disk, against unzip, copy, convert
- peak_mb: memory of a process that reads tables, checks every byte and writes the data set
- us_a_label: microseconds for each label at 2,000, 16,000 and 100,000 labels with small images; growth: the last over the first
"""
import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from reference_way import make_dataset, read_tables, unzip_all
from tqdm import tqdm

from livestock_nb.formats import write_yolo
from livestock_nb.intake import list_files, read_everything, read_farm, read_headers

SHARE = dict(cow=("소", 12152/16455, 3.2), pig=("돼지", 4303/16455, 10.7))  # of the images, boxes an image


def frames(count: int, width: int, height: int) -> list[bytes]:
    "Some JPEGs of smooth noise; at 1920x1080 about 300 KB each."
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (height//8, width//8, 3), np.uint8)).resize((width, height), Image.BICUBIC)
        grain = rng.normal(0, 6, (height, width, 1))
        img = Image.fromarray((np.asarray(coarse)*.5 + grain + 60).clip(0, 255).astype(np.uint8))
        img.save(data := io.BytesIO(), "JPEG", quality=75)
        made.append(data.getvalue())
    return made


def labelled(jpeg: bytes, i: int) -> bytes:
    "The JPEG with its number in a comment, so that no two files are equal."
    return jpeg[:2] + b"\xff\xfe\x00\x12" + f"{i:016}".encode() + jpeg[2:]


def label(rng: np.random.Generator, boxes: int, width: int, height: int) -> bytes:
    at, size = rng.integers(0, (width*3//4, height*3//4), (boxes, 2)), rng.integers(width//20, width//5, (boxes, 2))
    marked = [dict(id=k, bbox=[int(v) for v in b], category_id=1) for k, b in enumerate(np.hstack([at, at + size]))]
    about = dict(file_name="a.jpg", width=width, height=height, farm_name="farm_a", farm_env="barn", time="2021-08-01 10:00:00", weather="")
    return json.dumps(dict(label_info=dict(image=about, annotations=marked, categories=[dict(id=1, name="a")]))).encode()


def make_zips(folder: Path, count: int, jpegs: list[bytes], width: int, height: int) -> Path:
    rng, done = np.random.default_rng(1), 0
    folder.mkdir(parents=True)
    for species, (korean, share, boxes) in SHARE.items():
        n = round(count*share)
        with zipfile.ZipFile(folder/f"[원천]{korean}_bbox.zip", "w") as a, zipfile.ZipFile(folder/f"[라벨]{korean}_bbox.zip", "w", 8) as b:
            for i in tqdm(range(n), desc=f"making {species}", unit="image", mininterval=5, file=sys.stderr):
                a.writestr(f"livestock_{species}_bbox_{i:06}.jpg", labelled(jpegs[i % len(jpegs)], done + i))
                b.writestr(f"livestock_{species}_bbox_{i:06}.json", label(rng, rng.poisson(boxes), width, height))
        done += n
    os.sync()
    return folder


def seconds(job: Callable, *args) -> float:
    begun = time.perf_counter()
    job(*args)
    return time.perf_counter() - begun


def forget(folder: Path) -> None:
    "Let the disk cache forget the zips."
    for path in folder.glob("*.zip"):
        with path.open("rb") as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(folder: Path) -> None:
    for path in folder.glob("*원천*.zip"):
        with path.open("rb", buffering=0) as f:
            while f.read(1 << 20): pass


def tables(folder: Path) -> None:
    read_farm(folder, check=False)


def dataset(zips: Path, out: Path) -> None:
    images, boxes, _ = read_farm(zips, check=False)  # writing compares the checksums
    write_yolo(images, boxes, out)
    os.sync()


def reference_dataset(zips: Path, out: Path) -> None:
    unzip_all(zips, out/"unzipped")
    make_dataset(read_tables(out/"unzipped"), out/"dataset")
    os.sync()


def reference_tables(zips: Path, out: Path) -> None:
    unzip_all(zips, out)
    read_tables(out)


def timed_and_removed(job: Callable, zips: Path, out: Path) -> float:
    "Seconds of a job that writes into `out`, which is removed afterwards, the disk at rest before and after."
    os.sync()
    taken = seconds(job, zips, out)
    shutil.rmtree(out)
    os.sync()
    return taken


def full_read(zips: Path, turns: int) -> dict[str, float]:
    "Ratios of the medians, cold and cached; plain and full reading take turns."
    files = list_files(zips)
    images, _ = read_headers(files[files.kind == "images"])
    taken = dict(plain=[], full=[], plain_cached=[], full_cached=[])
    for turn in range(turns):
        jobs = [("plain", read_plainly, zips), ("full", read_everything, images)]
        for name, job, arg in jobs[::1 if turn % 2 else -1]:  # whoever goes first wakes the disk
            forget(zips)
            taken[name].append(seconds(job, arg))
        for name, job, arg in jobs: taken[f"{name}_cached"].append(seconds(job, arg))
    m = {k: statistics.median(v) for k, v in taken.items()}
    size = sum(p.stat().st_size for p in zips.glob("*원천*.zip"))/1e9
    print({k: f"{v:.2f} s, {size/v:.2f} GB/s" for k, v in m.items()})
    return dict(full_read_ratio=m["full"]/m["plain"], full_read_ratio_cached=m["full_cached"]/m["plain_cached"])


def peak_mb(zips: Path, out: Path) -> float:
    done = subprocess.run([sys.executable, __file__, "--peak", str(zips), str(out)], check=True, capture_output=True, text=True)
    shutil.rmtree(out)
    return float(done.stdout.split()[-1])


def measure_peak(zips: Path, out: Path) -> None:
    images, boxes, _ = read_farm(zips)
    write_yolo(images, boxes, out)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)


def growth(folder: Path, counts: list[int]) -> dict[str, float | dict]:
    jpegs, us = frames(20, 64, 48), {}
    for count in counts:
        zips = make_zips(folder/str(count), count, jpegs, 64, 48)
        us[str(count)] = min(seconds(tables, zips) for _ in range(2))/count*1e6
        shutil.rmtree(zips)
    return dict(us_a_label={k: round(v, 1) for k, v in us.items()}, growth=list(us.values())[-1]/list(us.values())[0])


def main(quick: bool) -> None:
    count = 1000 if quick else 16455
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        zips = make_zips(d/"zips", count, frames(20, 1920, 1080), 1920, 1080)
        size = sum(p.stat().st_size for p in zips.glob("*원천*.zip"))
        figures = dict(images=count, image_kb=round(size/count/1000))
        read_plainly(zips)  # into the disk cache
        ours = statistics.median(seconds(tables, zips) for _ in range(3))
        figures |= dict(tables_s=ours, tables_ratio=timed_and_removed(reference_tables, zips, d/"peer")/ours)
        print(figures, flush=True)
        figures |= full_read(zips, 5)
        print(figures, flush=True)
        read_plainly(zips)
        turns = [(timed_and_removed(dataset, zips, d/"ours"), timed_and_removed(reference_dataset, zips, d/"peer")) for _ in range(2)]
        ours, peer = (statistics.median(t) for t in zip(*turns, strict=True))
        figures |= dict(dataset_s=ours, dataset_ratio=peer/ours, peak_mb=peak_mb(zips, d/"peak"))
        print(figures, flush=True)
        shutil.rmtree(zips)
        figures |= growth(d, [500, 2000, 4000] if quick else [2000, 16000, 100_000])
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 images")
    parser.add_argument("--peak", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak: measure_peak(*args.peak)
    else: main(args.quick)
