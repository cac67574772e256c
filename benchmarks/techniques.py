"""What each technique did on a small made-up farm: a row of configs/experiments/techniques.yaml is a training, or what is done to trained weights.

    python benchmarks/techniques.py [--quick]   # what is not there yet, then docs/techniques.csv and docs/techniques.md; --quick writes neither
    python benchmarks/techniques.py --so-far    # the same without training anything
    python benchmarks/techniques.py --page      # docs/techniques.md alone, from the yaml and the csv
    python benchmarks/techniques.py --grid FILE # an experiment of the trainings among the rows, for `livestock grid FILE`

All rows start from one checkpoint, which is trained first, on another farm; those whose architecture it does not fit start from scratch, and are
compared with the control from scratch. The images that judge are the farm's test images, 120 with complete labels. `difference` is in mAP@.75
(COCO), with a 95 % interval over draws of images, the same ones for both, and of seeds; what has one seed so far has an interval that knows of images
only, and nothing is called shown by it. `time` is the seconds of computing for an epoch over those of the row it is compared with, without the first
epoch. Two controls have to be seen for the table to be believed: from scratch, and a learning rate × 100. A row that fails is named with its reason
and tried again by the next call; a killed call goes on where it was. --only takes the names of rows. --quick takes the rows and seeds that the yaml
names for it.
"""
import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import yaml
from tqdm import tqdm

from livestock_nb.data import InputError, load_table, save_json, save_table, save_text

ROOT = Path(__file__).parents[1]
YAML, CSV, PAGE = ROOT/"configs"/"experiments"/"techniques.yaml", ROOT/"docs"/"techniques.csv", ROOT/"docs"/"techniques.md"
GROUPS = dict(  # title, chapters that explain and show them
    controls=("Controls", ["09_train"]), losses=("Losses", ["07b_losses", "07d_criteria"]), schedules=("Schedules", ["09c_schedule", "09_train"]),
    augmentation=("Augmentation", ["09b_augment"]), blocks=("Blocks and regularisers", ["07e_layers", "07d_criteria"]),
    imbalance=("Imbalance and false positives", ["09d_balance"]), compression=("Compression", ["13b_prune", "13d_compress", "13a_export"]))
CONTROLS = ["from scratch", "learning rate × 100"]  # that have to be seen
KEYS = {"name", "group", "what", "paper", "changes", "call", "from", "warm", "refuse", "has", "against", "weights", "without", "fits", "unmeasured",
        "epochs"}


# ---- the rows

def read_rows(path: Path = YAML) -> tuple[dict, dict[str, dict]]:
    "What holds for all, and the rows by name. Raises `InputError` on a row that is not understood."
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = dict(paper="", changes="", call="", warm=True, refuse="", has=False, weights="", without="", fits="", unmeasured="", epochs=0)
    rows = {r["name"]: base | r for r in told["rows"]}
    if len(rows) != len(told["rows"]): raise InputError(f"{path.name} has two rows of one name.")
    for name, r in rows.items():
        if odd := r.keys() - KEYS: raise InputError(f"{path.name}: the row {name} has {', '.join(odd)}; known are {', '.join(sorted(KEYS))}.")
        if r["group"] not in GROUPS: raise InputError(f"{path.name}: the row {name} is of the group {r['group']!r}: take one of {', '.join(GROUPS)}.")
        r.setdefault("against", "tuned on" if r["call"] else "baseline" if r["warm"] else "from scratch")
        if r["against"] not in rows: raise InputError(f"{path.name}: the row {name} is compared with {r['against']!r}, which is no row.")
    return {k: told[k] for k in ("settings", "quick")}, rows


def trained(row: dict) -> bool:
    "Whether a row has something to train or to do."
    return not row["refuse"] and not row["unmeasured"] and (not row["has"] or bool(row["without"]) or row["group"] == "controls")


def row_args(settings: dict, row: dict, negatives: str = "NEGATIVES.csv") -> dict:
    "A row's training arguments: the settings' and its own over them. Raises `InputError` where the switch is none."
    from livestock_nb.train import lay_over, lay_recipes, read_changes
    base, _ = lay_recipes({}, settings["recipe"], "", settings["changes"])
    return lay_over(base, read_changes((row["without"] or row["changes"]).replace("NEGATIVES.csv", negatives)))


# ---- the data and the checkpoint

def make_data(home: Path, frames: int, test_frames: int, seed: int, imgsz: int) -> Path:
    "A made-up farm without missing labels as a dataset; a sixth of its train images is the valid side."
    from livestock_nb.farm import make_farm, read_back
    from livestock_nb.trial import write_dataset
    if not (home/"data"/"data.yaml").exists():
        make_farm(home/"farm", home/"truth.parquet", frames, test_frames, missing=0., seed=seed)
        images, boxes = read_back(home/"farm"/"train")
        sides = images[["image"]].assign(side=["train" if i % 6 else "valid" for i in range(len(images))])
        write_dataset(images, boxes, sides, home/"data", imgsz)
    return home/"data"


@cache
def judges(home: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Test images and their boxes."
    from livestock_nb.farm import read_back
    return read_back(home/"farm"/"test")


def checkpoint(home: Path, settings: dict) -> Path:
    "The weights that rows start from: of another farm."
    from livestock_nb.train import lay_recipes, train_model
    told, size = settings["checkpoint"], settings["imgsz"]
    data = make_data(home/"other", told["frames"], 8, told["seed"], size)
    if (home/"checkpoint"/"done").exists(): return home/"checkpoint"/"best.pt"
    args, _ = lay_recipes({}, settings["recipe"], "", told["changes"])
    best = train_model(data, home/"checkpoint", settings["weights"], args, size, told["epochs"], settings["batch"], "cpu", 0, False, "Checkpoint")
    save_text("", home/"checkpoint"/"done")
    return best


# ---- one row

@contextmanager
def epochs_timed() -> Iterator[list[float]]:
    "Within it, the seconds that this process has computed are noted at the end of every epoch."
    from livestock_nb.train import TrainingSteps
    marks, save = [], TrainingSteps.save_metrics

    def noted(self, metrics):
        save(self, metrics)
        marks.append(time.process_time())
    with patch.object(TrainingSteps, "save_metrics", noted): yield marks


def negatives(home: Path, settings: dict) -> Path:
    "The train images in which the checkpoint finds the most false boxes."
    from livestock_nb.balance import mine_negatives
    from livestock_nb.farm import read_back
    from livestock_nb.infer import predict
    if not (path := home/"negatives.csv").exists():
        images, boxes = read_back(home/"own"/"farm"/"train")
        found = predict(images, checkpoint(home, settings), settings["imgsz"], .01, device="cpu", margin=1)[0]
        save_table(mine_negatives(images, boxes, found), path)
    return path


def trained_weights(home: Path, settings: dict, row: dict, seed: int) -> Path:
    "A training with the row's switches."
    from livestock_nb.train import train_model
    start = checkpoint(home, settings) if row["warm"] and not row["weights"] else row["weights"] or settings["weights"]
    args = row_args(settings, row, str(negatives(home, settings)) if "negatives" in row["changes"] else "")
    return train_model(home/"own"/"data", home/"work", start, args, settings["imgsz"], row["epochs"] or settings["epochs"],
                       settings["batch"], "cpu", seed, False, f"{row['name']}, seed {seed}")


def cut_weights(home: Path, whole: Path, share: float) -> Path:
    "Weights with fewer channels; the search for them is long, so it is done once."
    from livestock_nb.prune import prune_weights
    cut = whole.with_name(f"{whole.stem}-{share}.pt")
    return cut if cut.exists() else prune_weights(whole, cut, share)


def compressed(home: Path, settings: dict, row: dict, seed: int) -> tuple[Path, bool]:
    "What a row's call makes of the baseline's weights; whether it is to be judged in 8 bits."
    from livestock_nb import compress, prune
    call, *words = row["call"].split()
    given = {k: float(v) for k, v in (w.split("=") for w in words)}
    whole, data, out = kept(home, "baseline", seed), home/"own"/"data", home/"work"
    same = dict(imgsz=settings["imgsz"], epochs=settings["epochs"], batch=settings["batch"], device="cpu", seed=seed)
    if call == "int8": return kept(home, "tuned on", seed), True
    if call == "int8_trained": return compress.train_rounded(whole, data, out, **same), True
    if call == "tuned": return prune.tune_weights(whole, data, out, **same), False
    if call in ("prune_magnitude", "factorise"): return getattr(compress, call)(whole, data, out, **given, **same), False
    cut = cut_weights(home, whole, given["share"])
    if call == "prune_channels": return prune.tune_weights(cut, data, out, like=whole, **same), False
    if call == "distil_features": return prune.tune_weights(cut, data, out, teacher=whole, like=whole, **same), False
    if call == "distil_answers": return compress.distil_answers(cut, whole, data, out, like=whole, **same), False
    raise InputError(f"The row {row['name']} calls {call!r}, which is nothing that can be called.")


def kept(home: Path, name: str, seed: int) -> Path:
    "Weights that other rows build on. Raises `InputError` where that row has none."
    path = home/"kept"/f"{slug(name)}-{seed}.pt"
    if not path.exists(): raise InputError(f"the row {name} has no weights for seed {seed}")
    return path


def slug(name: str) -> str:
    "A file name."
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()


def run_key(settings: dict, row: dict, rows: dict) -> str:
    "What a result depends on, but for the seed; that of the rows it builds on included."
    first = [rows[n][k] for n in (["baseline", "tuned on"] if row["call"] else []) for k in ("changes", "call")]
    own = ("changes", "without", "call", "warm", "weights", *(["epochs"] if row["epochs"] else []))
    parts = [{k: row[k] for k in own}, {k: v for k, v in settings.items() if k != "seeds"}, first]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def network(home: Path, best: Path, eight: bool, imgsz: int) -> object:
    "What predicts: the weights, or an OpenVINO artefact of them in 8 bits."
    from livestock_nb.artefacts import Recipe, calibration_files, make_artefact, open_artefact
    if not eight: return best
    recipe = Recipe(best, "openvino-int8", imgsz, (imgsz, imgsz), calibration_files(home/"own"/"data", 32))
    return open_artefact(make_artefact(recipe, home/"work"/"int8"))


def do_row(home: Path, settings: dict, row: dict, seed: int, path: Path) -> None:
    "Train, predict the images that judge, and keep what was found and the seconds of an epoch."
    from livestock_nb.infer import predict
    shutil.rmtree(home/"work", ignore_errors=True) if not same_work(home, path) else None
    with epochs_timed() as marks:
        best, eight = compressed(home, settings, row, seed) if row["call"] else (trained_weights(home, settings, row, seed), False)
    if row["name"] in ("baseline", "tuned on"):
        (home/"kept").mkdir(exist_ok=True)
        shutil.copy(best, home/"kept"/f"{slug(row['name'])}-{seed}.pt")
    found = predict(judges(home/"own")[0], network(home, best, eight, settings["imgsz"]), settings["imgsz"], .01, device="cpu", margin=1)[0]
    save_json(dict(seconds=(marks[-1] - marks[0])/(len(marks) - 1) if len(marks) > 2 else None), path.with_suffix(".json"))
    save_table(found, path)
    shutil.rmtree(home/"work", ignore_errors=True)


def same_work(home: Path, path: Path) -> bool:
    "Whether what lies in the work folder is this row's, of a killed call; from now on it is."
    note = home/"work.txt"
    same = note.exists() and note.read_text() == path.name
    save_text(path.name, note)
    return same


# ---- all rows

def run_rows(home: Path, settings: dict, rows: dict, seeds: int, names: list[str], so_far: bool = False) -> tuple[dict, dict, dict]:
    "Predictions and seconds of an epoch by row, a list over seeds; why a row failed. With `so_far` nothing is trained."
    settings = {k: v for k, v in settings.items() if k != "seeds"}
    make_data(home/"own", settings["frames"], settings["test_frames"], 0, settings["imgsz"])
    checkpoint(home, settings)
    found, took, failed = {}, {}, {}
    turns = [(s, rows[n]) for s in range(seeds) for n in names]
    for seed, row in tqdm(turns, desc="Techniques", unit="run"):
        name, path = row["name"], home/"runs"/f"{slug(row['name'])}-{run_key(settings, row, rows)}-{seed}.parquet"
        if so_far and not path.exists(): continue
        try:
            if not path.exists(): do_row(home, settings, row, seed, path)
            found.setdefault(name, []).append(load_table(path))
            took.setdefault(name, []).append(json.loads(path.with_suffix(".json").read_text())["seconds"])
        except Exception as e:  # whatever one row trips over, the others go on
            failed[name] = f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:160]}"
            tqdm.write(f"{name}, seed {seed}: {failed[name]}", file=sys.stderr)
    return found, took, failed


def effects(home: Path, settings: dict, rows: dict, found: dict, took: dict, failed: dict) -> pd.DataFrame:
    "A row a technique: name, group, against, seeds, value, difference, low, high, smallest, shown, time, failed."
    from livestock_nb.trial import compare_arms
    images, gold = judges(home/"own")
    out = []
    for against, seeds in dict.fromkeys((rows[n]["against"], len(found[n])) for n in found):
        same = {n: v for n, v in found.items() if rows[n]["against"] == against and len(v) == seeds}
        if len(found.get(against, [])) < seeds: continue
        table = compare_arms({against: found[against][:seeds]} | same, gold, images, first=against)  # over the seeds that both have
        out += [r for r in table[table.measure == "mAP@.75"].to_dict("records") if r["arm"] in same]
    seconds = {n: pd.Series(v, dtype=float).median() for n, v in took.items()}
    table = pd.DataFrame([dict(
        name=r["arm"], group=rows[r["arm"]]["group"], against=rows[r["arm"]]["against"], seeds=len(found[r["arm"]]),
        **{k: round(r[k], 4) for k in ("value", "difference", "low", "high", "smallest")},
        shown=bool((r["low"] > 0 or r["high"] < 0) and len(found[r["arm"]]) > 1),
        time=round(seconds[r["arm"]]/seconds.get(rows[r["arm"]]["against"], float("nan")), 2), failed=failed.get(r["arm"], "")) for r in out])
    none = [dict(name=n, group=rows[n]["group"], against=rows[n]["against"], seeds=0, failed=why) for n, why in failed.items() if n not in found]
    order = {n: i for i, n in enumerate(rows)}
    table = pd.concat([table, pd.DataFrame(none)], ignore_index=True).sort_values("name", key=lambda s: s.map(order), ignore_index=True)
    return table.assign(failed=table.failed.fillna("") if "failed" in table else "", frames=settings["frames"], judged=len(images),
                        epochs=[rows[n]["epochs"] or settings["epochs"] for n in table.name], imgsz=settings["imgsz"])


# ---- the page

HEAD = """# Techniques

What the documents behind this project recommend for training and compressing detectors, each as one switch. The table says what it is, how to
switch it on, and what it did here. It is written by `python benchmarks/techniques.py --page` from `configs/experiments/techniques.yaml` and from
[techniques.csv](techniques.csv), which the same command without `--page` measures.

{measured}

An effect is a difference in mAP@.75 (COCO's definition) from the row it is compared with, with its 95 % interval over images and seeds. **Shown** is
one whose interval is wholly on one side of zero; all others are *inside the noise*: this farm and these seeds do not tell them from nothing. With
one seed the interval knows of images only, and nothing is called shown. So small a farm, so few epochs and so small a detector say little about a
barn of thousands of frames: switch on what you want to know about, and measure it there. Cost is the time of an epoch, in seconds of computing, over
that of the row compared with; a tenth more or less is the machine's, as box losses that compute alike show. Switches go into
`-p train.changes="…"` or a line of a recipe; what looks like a call is a Python function of [pruning](chapters/13b_prune.ipynb) or
[compression](chapters/13d_compress.ipynb).
"""


def switch(row: dict) -> str:
    "How a row is switched on, as markdown."
    if row["call"]:
        call, *words = row["call"].split()
        told = dict(
            tuned="tune_weights(weights, data, out)", prune_channels="-p edge.prune=…", distil_features="-p edge.prune=… -p edge.teacher=…",
            distil_answers="distil_answers(cut, teacher, data, out)", int8="-p edge.kinds=openvino-int8",
            int8_trained="train_rounded(weights, data, out)")
        return f"`{told.get(call) or f'{call}(weights, data, out, ' + ', '.join(words) + ')'}`"
    parts = [f"`{row['changes']}`"]*bool(row["changes"]) + [f"weights `{row['weights']}`"]*bool(row["weights"])
    return ", ".join(parts) or "the default"


def effect(row: dict, found: dict | None) -> tuple[str, str]:
    "What a row did and what it cost, in words."
    if row["refuse"]: return f"refused: {row['refuse']}" + f" (fits {row['fits']})"*bool(row["fits"]), ""
    if row["unmeasured"]: return f"not measured: {row['unmeasured']}", ""
    if not trained(row): return "the baseline has it", ""
    if not found or pd.isna(found.get("value")): return f"failed: {found['failed']}" if found and found["failed"] else "not measured", ""
    cost = "" if pd.isna(found["time"]) else f"× {found['time']:.2f}"
    seeds = f"{found['seeds']:.0f} seed{'s'*(found['seeds'] > 1)}"
    if row["name"] == row["against"]: return f"mAP@.75 {found['value']:.3f}, {seeds}", ""
    seeds += f", {row['epochs']} epochs"*bool(row["epochs"])
    said = f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}) against {row['against']}, {seeds}"
    noise = "**shown**" if found["shown"] else "one seed: not judged" if found["seeds"] < 2 else "inside the noise"
    return f"without it (`{row['without']}`): "*bool(row["without"]) + f"{said}: {noise}", cost


def cell(text: object) -> str:
    "Text for a cell of a markdown table."
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def page(rows: dict, table: pd.DataFrame) -> str:
    "docs/techniques.md."
    known = table.set_index("name").to_dict("index") if len(table) else {}
    said = "Nothing has been measured yet."
    if len(table):
        r, done = table.iloc[0], table[table.seeds > 0]
        seeds = ", ".join(f"{n} rows with {s} seed{'s'*(s > 1)}" for s, n in sorted(done.seeds.value_counts().items(), reverse=True))
        said = (f"Measured: {seeds}; where the row does not say otherwise, {r.epochs:.0f} epochs of {r.frames:.0f} train images at {r.imgsz:.0f} px "
                f"with YOLOv5n, judged on {r.judged:.0f} test images of the same made-up farm. {int(done.shown.sum())} effects are shown.")
    lines = [HEAD.format(measured=said)]
    for group, (title, chapters) in GROUPS.items():
        lines += [f"\n## {title}\n", f"Shown at work in {', '.join(f'[{c}](chapters/{c}.ipynb)' for c in chapters)}.\n"]
        lines += ["| technique | what it is | paper | switch | from | effect | cost |", "|---|---|---|---|---|---|---|"]
        for r in (r for r in rows.values() if r["group"] == group):
            cells = [r["name"], r["what"], r["paper"], switch(r), r["from"], *effect(r, known.get(r["name"]))]
            lines.append("| " + " | ".join(map(cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def read_table(path: Path = CSV) -> pd.DataFrame:
    "The effects as last measured; empty where there are none."
    if path.exists(): return pd.read_csv(path, converters=dict(failed=str))
    return pd.DataFrame(columns=["name", "seeds", "low", "high", "shown", "failed"])


def write_grid(rows: dict, path: Path, config: str = "full", stage: str = "train_full") -> None:
    "The trainings among the rows as an experiment of `livestock grid`."
    sets = {n: {f"{stage}.changes": r["without"] or r["changes"]} if r["changes"] else {} for n, r in rows.items() if trained(r) and not r["call"]}
    save_text(yaml.safe_dump(dict(config=config, variants=sets), sort_keys=False, allow_unicode=True), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = dict(quick="a few rows and seeds", so_far="train nothing: the table of what is there", page="write docs/techniques.md alone")
    for name, said in ways.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=said)
    parser.add_argument("--out", type=Path, default=ROOT/"runs"/"bench_techniques", help="where everything is kept; the same for --quick and in full")
    parser.add_argument("--seeds", type=int, default=0, help="trainings of a row; the yaml's where not given")
    parser.add_argument("--only", nargs="+", default=[], help="names of rows")
    parser.add_argument("--grid", type=Path, help="write an experiment for `livestock grid`")
    given, begun = parser.parse_args(), time.perf_counter()
    (told, rows), settings = read_rows(), read_rows()[0]["settings"]
    if given.grid: write_grid(rows, given.grid)
    if given.page: save_text(page(rows, read_table()), PAGE)
    if not (given.grid or given.page):
        wanted = given.only or (told["quick"]["rows"] if given.quick else list(rows))
        names = [n for n in rows if trained(rows[n]) and (n in wanted or n == "baseline")]
        seeds = given.seeds or (told["quick"] if given.quick else settings)["seeds"]
        home = given.out.resolve()
        table = effects(home, settings, rows, *run_rows(home, settings, rows, seeds, names, given.so_far))
        if not given.quick:
            save_table(table, CSV)
            save_text(page(rows, table), PAGE)
        control = table[table.name.isin(CONTROLS)]
        print(json.dumps(dict(controls_seen=bool(len(control) == 2 and (control.high < 0).all()), rows=int((table.seeds > 0).sum()),
                              failed={r["name"]: r["failed"] for r in table.to_dict("records") if r["failed"]}, seeds=seeds,
                              shown=table.name[table.shown.eq(True)].tolist(), seconds=round(time.perf_counter() - begun, 1),
                              table=table.drop(columns=["failed", "group"]).astype(object).where(table.notna(), None).to_dict("records"))))
