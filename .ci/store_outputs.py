"""Runs notebooks with their default parameters and stores what they show, without what differs from run to run.

`python .ci/store_outputs.py [STEM ...]`: all notebooks, or those named. Also keeps the head of each alike: the Colab badge and the install cell.
"""
import configparser
import sys
from pathlib import Path

import nbformat
import papermill as pm
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
INSTALL = """#| hide
# on Colab: installs the package where it is missing, beside Colab's own torch, hence without constraints.txt
import importlib.util, os, subprocess, sys
source = os.environ.get('LIVESTOCK_NB', '{address}')
if not importlib.util.find_spec('livestock_nb'):
    assert source, 'livestock_nb is not installed: set LIVESTOCK_NB to a wheel on Drive or to git+ADDRESS, then run this cell again.'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)"""


def dress(nb: nbformat.NotebookNode, stem: str) -> None:
    "Badge and install cell from `git_url` of settings.ini; no badge while that is empty."
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    url = settings["DEFAULT"]["git_url"].rstrip("/")
    title = "\n".join(line for line in nb.cells[0].source.splitlines() if "colab-badge" not in line).rstrip()
    page = url.replace("https://github.com/", "https://colab.research.google.com/github/") + f"/blob/main/nbs/{stem}.ipynb"
    badge = f"\n\n[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({page})" if url else ""
    nb.cells[0].source = title + badge
    cell = nbformat.v4.new_code_cell(INSTALL.format(address=f"git+{url}" if url else ""), id="install")
    nb.cells[1:2 if nb.cells[1].get("id") == "install" else 1] = [cell]


def store(stem: str) -> None:
    "Execute a notebook and keep its outputs in place; bars and warnings (stderr) are not kept."
    path, done = ROOT/"nbs"/f"{stem}.ipynb", ROOT/"runs"/"stored"/f"{stem}.ipynb"
    done.parent.mkdir(parents=True, exist_ok=True)
    nb = nbformat.read(path, 4)
    dress(nb, stem)
    nbformat.write(nb, path)
    pm.execute_notebook(str(path), str(done), kernel_name="python3", language="python", cwd=str(path.parent), progress_bar=False)
    for cell, ran in zip(nb.cells, nbformat.read(done, 4).cells, strict=True):
        if cell.cell_type == "code": cell.outputs = [o for o in ran.outputs if o.get("name") != "stderr"]
    nbformat.write(nb, path)


if __name__ == "__main__":
    for stem in tqdm(sys.argv[1:] or [p.stem for p in sorted((ROOT/"nbs").glob("*.ipynb"))], unit="notebook"): store(stem)
