"""Runs every notebook with its default parameters and stores what it shows, without what differs from run to run."""
import os
import sys
from pathlib import Path

import nbformat
import papermill as pm
from tqdm import tqdm

ROOT = Path(__file__).parents[1]


def store(path: Path) -> None:
    "Execute a notebook in place; bars and warnings (stderr) are not kept."
    done = ROOT/"runs"/"stored"/path.name
    done.parent.mkdir(parents=True, exist_ok=True)
    pm.execute_notebook(str(path), str(done), kernel_name="python3", language="python", cwd=str(path.parent), progress_bar=False)
    ran, nb = nbformat.read(done, 4), nbformat.read(path, 4)
    for cell, new in zip(nb.cells, ran.cells, strict=True):
        if cell.cell_type == "code": cell.outputs = [o for o in new.outputs if o.get("name") != "stderr"]
    nbformat.write(nb, path)


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    wanted = sys.argv[1:] or [p.stem for p in sorted((ROOT/"nbs").glob("*.ipynb"))]
    for name in tqdm(wanted, unit="notebook", disable=False): store(ROOT/"nbs"/f"{name}.ipynb")
