"""The reference solution's way from zips to a data set: its own shell lines and loops, kept as they were for comparison.

Everything is unzipped; images and labels are paired by their sort order; every image is opened and every json read to learn sizes and
boxes; every image is copied once more to where training looks for it. (The reference also packed and unpacked a tar; that is left out here.)
"""
import glob
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

from PIL import Image


def unzip_all(zips: Path, folder: Path) -> None:
    "`!unzip -q` of each zip into a folder of its own."
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(zips.glob("*.zip")): subprocess.run(["unzip", "-q", "-o", str(path), "-d", str(folder/path.stem)], check=True)


def read_tables(folder: Path) -> list[dict]:
    "A dict an image: its file, its size, its boxes."
    rows = []
    for korean, class_id in (("소", 0), ("돼지", 1)):
        images = sorted(glob.glob(glob.escape(str(folder/f"[원천]{korean}_bbox")) + "/*.jpg"))  # noqa: PTH207
        labels = sorted(glob.glob(glob.escape(str(folder/f"[라벨]{korean}_bbox")) + "/*.json"))  # noqa: PTH207
        for image, label in zip(images, labels, strict=True):
            with open(label) as f: data = json.load(f)  # noqa: PTH123
            width, height = Image.open(image).size
            boxes = [a["bbox"] for a in data["label_info"]["annotations"]]
            rows.append(dict(image=image, class_id=class_id, width=width, height=height, boxes=boxes))
    return rows


def make_dataset(rows: list[dict], folder: Path) -> None:
    "Copy each image to train or valid and write its boxes beside it in YOLO's form."
    random.seed(42)
    for side in ("train", "valid"):
        for kind in ("images", "labels"): os.makedirs(folder/side/kind, exist_ok=True)  # noqa: PTH103
    for row in rows:
        side = "valid" if random.random() < .2 else "train"
        name = Path(row["image"]).stem
        shutil.copy(row["image"], folder/side/"images"/f"{name}.jpg")
        with open(folder/side/"labels"/f"{name}.txt", "w") as f:  # noqa: PTH123
            for x1, y1, x2, y2 in row["boxes"]:
                w, h = row["width"], row["height"]
                f.write(f"{row['class_id']} {(x1+x2)/2/w} {(y1+y2)/2/h} {(x2-x1)/w} {(y2-y1)/h}\n")
