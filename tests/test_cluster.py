"""Ray: two nodes on one machine give what one process gives, also where a node dies; nothing of Ray is imported without being asked for."""
import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from optuna import TrialPruned
from test_grid import project  # noqa: F401  a fixture

from livestock_nb import silver
from livestock_nb.cluster import cluster, ready, run_all_on_ray, whole_node, write_parts_on_ray
from livestock_nb.data import InputError
from livestock_nb.grid import join_plans, read_experiment, run_all, run_grid
from livestock_nb.infer import images_from, open_network, predict_file
from livestock_nb.pipeline import make_plan, on_ray, stage_key
from livestock_nb.samplers import read_space
from livestock_nb.tune import search

ROOT = Path(__file__).parents[1]
AXES = {"c.width": ["0", "300"], "b.width": ["0", "2000"]}


@pytest.fixture(scope="module")
def nodes():
    "A cluster of two nodes with a processor each."
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'livestock_nb[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])  # nodes import this module
    import ray
    from ray.cluster_utils import Cluster
    told = dict(num_cpus=1, object_store_memory=200_000_000)
    made = Cluster(initialize_head=True, head_node_args=told)
    made.add_node(**told)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    os.environ["PYTHONPATH"] = before
    yield made
    ray.shutdown()
    made.shutdown()


def test_stages_wait_for_what_they_read_from():
    plan = [dict(name=n, params=dict(out=f"/r/{n}", data=d and f"/r/{d}/x")) for n, d in [("a", ""), ("b", "a"), ("c", "b"), ("d", "")]]
    assert [s["name"] for s in ready(plan)] == ["a", "d"]
    assert [s["name"] for s in ready(plan[1:], plan[:1])] == ["d"]


def test_a_grid_on_two_nodes_is_the_grid_of_one_process(nodes, project: Path):  # noqa: F811
    assert whole_node() == dict(num_cpus=1, num_gpus=0)
    alone = run_grid(project/"my.yaml", project/"alone", axes=AXES)
    there = run_grid(project/"my.yaml", project/"there", axes=AXES, ray="auto")
    pd.testing.assert_frame_equal(alone, there)
    assert there.failed.str.contains("wider than the barn").sum() == 2  # and the others ran
    run_grid(project/"my.yaml", project/"there", axes=AXES)  # a driver that comes later finds the work done, with or without Ray
    log = (project/"there"/"log").read_text().split()
    assert sorted(log) == ["a", "b", "c", "c"]


def test_a_node_that_dies_costs_its_own_stage_alone(nodes, project: Path):  # noqa: F811
    book = project/"0_b.ipynb"
    book.write_text(book.read_text().replace("before = ", "import time; time.sleep(3)\\nbefore = "))
    given = {"": read_experiment(project/"my.yaml")[""]}
    plans = {f"b{i}": make_plan(given[""], project/"run", {}, {"b.width": str(i)}) for i in range(2)}
    stages, _ = join_plans(plans, project/"run")
    (project/"run").mkdir()
    extra = nodes.add_node(num_cpus=1, object_store_memory=200_000_000)

    def kill() -> None:
        while len(list((project/"run"/"records").glob("b*.json"))) < 2: time.sleep(.1)
        nodes.remove_node(extra, allow_graceful=False)
    killer = threading.Thread(target=kill)
    killer.start()
    assert run_all_on_ray(stages, project/"run") == {}
    killer.join()
    assert run_all(stages, project/"run") == {}
    assert [(project/"run"/s["name"]/"made.txt").read_text() for s in stages] == ["0", "0", "0", "1", "1"]


def test_prediction_on_two_nodes_writes_the_same_bytes(nodes, tmp_path: Path):
    import torch

    from livestock_nb.train import load_model
    torch.manual_seed(0)
    model = load_model("yolov5n.yaml")
    for i, branch in enumerate(model.model.model[-1].cv3):
        branch[-1].bias.data[:] = -20
        branch[-1].bias.data[:2] = -3 + .1*i
    model.model.names = dict(enumerate(["cow", "pig", *(f"other {i}" for i in range(78))]))
    model.save(tmp_path/"w.pt")
    (tmp_path/"frames").mkdir()
    rng = np.random.default_rng(0)
    for i in range(9): cv2.imwrite(str(tmp_path/"frames"/f"{i}.jpg"), cv2.resize(rng.integers(0, 255, (12, 20, 3), dtype=np.uint8), (160, 96)))
    (tmp_path/"frames"/"4.jpg").write_bytes(b"no image")
    images = images_from(tmp_path/"frames", sizes=False)
    opening = dict(weights=str(tmp_path/"w.pt"), backend="torch", imgsz=96, device="cpu")
    network = open_network(**opening)
    lost = [predict_file(images, network, tmp_path/f"{name}.csv", imgsz=96, part=2, **more)
            for name, more in (("alone", {}), ("there", dict(write=partial(write_parts_on_ray, openings=[opening]))))]
    assert (tmp_path/"alone.csv").read_bytes() == (tmp_path/"there.csv").read_bytes()
    assert len((tmp_path/"there.csv").read_text().splitlines()) > 9
    pd.testing.assert_frame_equal(*lost)
    here, there = (silver.ask(images, tmp_path/"w.pt", 96, "cpu", .5, tmp_path, ray) for ray in ("", "auto"))
    pd.testing.assert_frame_equal(here[0], there[0])
    assert len(here[0]) > 9 and here[3].image.tolist() == there[3].image.tolist() == ["4.jpg"]
    assert silver.ask(images, tmp_path/"w.pt", 96, "cpu", .5, tmp_path, "auto")[0].equals(there[0])
    assert lost[1].image[lost[1].kind == "unreadable image"].tolist() == ["4.jpg"]


# ---- trials: functions of this module, which nodes import by its name

START = dict(lr0=.01, lrf=.01, momentum=.937, weight_decay=.0005, warmup_epochs=3., warmup_momentum=.8, warmup_bias_lr=.1)


def toy(hyp: dict, trial, home: str = '') -> dict:
    "A made-up fitness, with epochs that a pruner may end, and a note of which process tried what."
    with Path(home, "tried").open("a") as f: f.write(f"{trial.number} {os.getpid()}\n")
    value = .9 - .1*(math.log10(hyp["lr0"]) + 2.4)**2
    for epoch in range(1, 4):
        trial.set_user_attr("epochs", epoch)
        trial.report(value - .1/epoch, epoch)
        if epoch < 3 and trial.should_prune(): raise TrialPruned
    if trial.number == 5: return 1/0
    return dict(fitness=value, draws=[value, value + .01, value - .01])


def slow(hyp: dict, trial, home: str) -> dict:
    "Dies with its worker at the first attempt at trial 1; trials take long enough to be together."
    time.sleep(.5)
    if trial.number == 1 and not Path(home, "died").exists():
        Path(home, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return toy(hyp, trial, home)


def wrong(hyp: dict, trial) -> dict: raise InputError("there is no such thing: give another.")


def tried(home: Path) -> list[int]: return [int(line.split()[0]) for line in (home/"tried").read_text().splitlines()]


def searched(evaluate, out: Path, budget: str, sampler: str = "random", prune: str = "none", **more) -> pd.DataFrame:
    "The trials in their order, but for times."
    out.mkdir(exist_ok=True)
    start = {k: START[k] for k in read_space("lr").index}
    return search(partial(evaluate, home=str(out)), "lr", start, out, budget, sampler, prune, **more)[0].drop(columns="seconds")


@pytest.mark.parametrize(("sampler", "prune"), [("gp", "none"), ("ga", "none"), ("tpe", "median")])
def test_one_trial_at_a_time_is_the_search_of_one_machine(sampler, prune, nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("livestock_nb.cluster.alive", lambda: 1)
    here = searched(toy, tmp_path/"here", "13 trials", sampler, prune)
    there = searched(toy, tmp_path/"there", "13 trials", sampler, prune, ray="auto")
    pd.testing.assert_frame_equal(here, there)
    assert here.state[5] in ("failed", "pruned") and ("pruned" in set(here.state)) == (prune == "median")
    assert str(os.getpid()) not in (tmp_path/"there"/"tried").read_text()  # nothing was tried by the driver


def test_trials_side_by_side_are_each_tried_once(nodes, tmp_path: Path):
    found = searched(slow, tmp_path/"run", "9 trials", ray="auto")
    alone = searched(toy, tmp_path/"alone", "9 trials")
    pd.testing.assert_frame_equal(found, alone)  # a random search does not look at results; the trial whose worker died was tried again
    assert sorted(tried(tmp_path/"run")) == list(range(9)) and (tmp_path/"run"/"died").exists()
    assert len({line.split()[1] for line in (tmp_path/"run"/"tried").read_text().splitlines()}) >= 2


DRIVER = """
import sys
from pathlib import Path
from functools import partial
from test_cluster import searched, slow
searched(slow, Path(sys.argv[1]), '8 trials', ray=sys.argv[2])
"""


def test_a_search_whose_driver_was_killed_goes_on(nodes, tmp_path: Path):
    out = tmp_path/"run"
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(out), nodes.address], env=env, stderr=subprocess.DEVNULL)
    while not (out/"tried").exists() or len(tried(out)) < 3: time.sleep(.05)
    driver.kill()
    driver.wait()
    before = tried(out)
    found = searched(slow, out, "8 trials")  # goes on without a cluster, begins with what was under way
    pd.testing.assert_frame_equal(found, searched(toy, tmp_path/"alone", "8 trials"))
    again = tried(out)[len(before):]
    assert sorted({*before, *again}) == list(range(8)) and len(again) <= 8 - len(before) + 2  # at most one a node was tried again


def test_what_the_user_can_mend_ends_a_search_at_once(nodes, tmp_path: Path):
    start = {k: START[k] for k in read_space("lr").index}
    with pytest.raises(InputError, match="no such thing"): search(wrong, "lr", start, tmp_path, "5 trials", "random", ray="auto")


def test_ray_is_imported_only_where_it_is_asked_for():
    names = ", ".join(f"livestock_nb.{m}" for m in ("cli", "grid", "infer", "tune", "silver", "cluster"))
    code = f"import sys\nimport {names}\nassert 'ray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_wrong_address_is_named(monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    if ray.is_initialized(): monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *a, **kw: (_ for _ in ()).throw(ConnectionError("nobody")))
    with pytest.raises(InputError, match="127.0.0.1:1"), cluster("127.0.0.1:1"): pass


def test_the_address_reaches_the_stages_that_can_use_it_and_changes_no_key(tmp_path: Path):
    told = yaml.safe_load((ROOT/"configs"/"test.yaml").read_text())
    for s in told["stages"]: s["notebook"] = str(ROOT/"nbs"/s["notebook"])
    (config := tmp_path/"my.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    assert on_ray(config, "auto") == {"tune.ray": "auto", "silver.ray": "auto"}
    plans = [{s["name"]: s for s in make_plan(config, tmp_path, params=p)[0]} for p in ({}, on_ray(config, "10.0.0.1:6379"))]
    keys = [[stage_key(plan[n], tmp_path, {}, {}) for n in ("tune", "silver")] for plan in plans]
    assert plans[1]["tune"]["params"]["ray"] == "10.0.0.1:6379" and keys[0] == keys[1]  # where a stage works is not what it makes
