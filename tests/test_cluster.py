"""Ray: two nodes on one machine give what one process gives, also where a node dies; nothing of Ray is imported without being asked for."""
import os
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
from test_grid import project  # noqa: F401  a fixture

from livestock_nb.cluster import cluster, ready, run_all_on_ray, whole_node, write_parts_on_ray
from livestock_nb.data import InputError
from livestock_nb.grid import join_plans, read_experiment, run_all, run_grid
from livestock_nb.infer import images_from, open_network, predict_file
from livestock_nb.pipeline import make_plan

AXES = {"c.width": ["0", "300"], "b.width": ["0", "2000"]}


@pytest.fixture(scope="module")
def nodes():
    "A cluster of two nodes with a processor each."
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'livestock_nb[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster
    told = dict(num_cpus=1, object_store_memory=200_000_000)
    made = Cluster(initialize_head=True, head_node_args=told)
    made.add_node(**told)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
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
    assert lost[1].image[lost[1].kind == "unreadable image"].tolist() == ["4.jpg"]


def test_ray_is_imported_only_where_it_is_asked_for():
    code = "import sys, livestock_nb.cli, livestock_nb.grid, livestock_nb.infer, livestock_nb.cluster; assert 'ray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_wrong_address_is_named(monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    if ray.is_initialized(): monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *a, **kw: (_ for _ in ()).throw(ConnectionError("nobody")))
    with pytest.raises(InputError, match="127.0.0.1:1"), cluster("127.0.0.1:1"): pass
