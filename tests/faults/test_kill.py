"""`kill -9` at a random moment of each stage of a run: it finishes, what had finished does not run again, and the result is the undisturbed one.

Takes some five minutes, so it runs only where LIVESTOCK_LONG is set; tests/test_pipeline.py kills a small run each time.
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livestock_nb.pipeline import read_json, run_config

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not os.environ.get("LIVESTOCK_LONG"), reason="set LIVESTOCK_LONG=1 for the long tests")


def finished(run: Path) -> dict[str, int]:
    "When each finished stage was recorded (ns)."
    return {p.stem: p.stat().st_mtime_ns for p in (run/"records").glob("*.json") if read_json(p).get("state") == "done"}


def test_ten_kills_cost_only_what_was_running(tmp_path: Path):
    config, whole, run = ROOT/"configs"/"test.yaml", ROOT/"runs"/"test", tmp_path/"run"
    run_config(config, whole)
    seconds = {p.stem: read_json(p)["seconds"] for p in (whole/"records").glob("*.json")}
    command = [sys.executable, "-c", "from livestock_nb.cli import main; main()", "run", str(config), "--run", str(run)]
    before, killed, draw = {}, [], random.Random(0)
    for stage in [s["name"] for s in read_json(whole/"record.json")["stages"]]:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while read_json(run/"records"/f"{stage}.json").get("state") not in ("running", "done"): time.sleep(.05)
        time.sleep(draw.uniform(0, seconds[stage]))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = finished(run)
        assert {k: now.get(k) for k in before} == before, "a finished stage ran again"
        before = now
        killed.append(f"{stage}: {len(now)}")
    run_config(config, run)
    assert {k: v for k, v in finished(run).items() if k in before} == before
    print("finished stages at each kill:", killed)
    assert (run/"submission.csv").read_bytes() == (whole/"submission.csv").read_bytes()
    shutil.rmtree(run)
