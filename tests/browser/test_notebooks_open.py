"""Every notebook in JupyterLab: all cells run, nothing fails or warns, and the last cell that shows something shows it.

Three of them each time, all where LIVESTOCK_LONG is set; LIVESTOCK_SHOTS=FOLDER keeps a picture of each end. They run on copies beside links to this
project's runs, as they would in the project.
"""
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FEW = ['00_data', '10b_damage', '12b_infer']
NAMES = sorted(p.stem for p in (ROOT/'nbs').glob('*.ipynb')) if os.environ.get('LIVESTOCK_LONG') else FEW
BAR = re.compile(r'^.*(\d+%\|.*\||\d+(it|[a-z]+) \[\d+:\d\d).*$')  # of tqdm
MODEL = """() => { const m = window.jupyterapp.shell.currentWidget.context.model.toJSON();
  return m.cells.map(c => ({type: c.cell_type, count: c.execution_count, source: [c.source].flat().join(''), outputs: (c.outputs || []).map(o => (
    {name: o.name || '', text: [o.text || ''].flat().join(''), kinds: Object.keys(o.data || {})}))})) }"""
SHOWN = """cell => { const boxes = [...cell.querySelectorAll('.jp-OutputArea-output')].map(o => o.getBoundingClientRect());
  const pictures = [...cell.querySelectorAll('.jp-OutputArea-output img')];
  return {size: boxes.map(b => [b.width, b.height]), pictures: pictures.map(i => i.complete && i.naturalWidth > 0),
          stderr: cell.querySelectorAll('[data-mime-type="application/vnd.jupyter.stderr"]').length} }"""


@pytest.fixture
def project(lab) -> Path:
    "A folder in JupyterLab's root that is like this project's."
    home = lab[1]/'project'
    (home/'nbs').mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT/'settings.ini', home)
    for name in ('runs', 'configs', 'data'):
        (ROOT/name).mkdir(exist_ok=True)
        if not (home/name).exists(): (home/name).symlink_to(ROOT/name)
    return home


def spoken(text: str) -> list[str]:
    "What stderr says beside bars."
    lines = [line.strip() for part in text.split('\n') for line in part.split('\r')]
    return [line for line in lines if line and not BAR.match(line)]


def last_shown(cells: list) -> int:
    "The place of the last code cell with something to show."
    return max(i for i, c in enumerate(cells) if any('data' in o for o in c.get('outputs', [])))


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_runs_and_shows_its_end(name: str, lab, chrome, project: Path, tmp_path: Path):
    from conftest import RUN
    stored = nbformat.read(ROOT/'nbs'/f'{name}.ipynb', 4).cells
    shutil.copy(ROOT/'nbs'/f'{name}.ipynb', project/'nbs')
    page, faults = chrome.new_page(viewport=dict(width=1280, height=1400)), []
    page.set_default_timeout(60_000)
    page.on('pageerror', lambda e: faults.append(str(e)))
    try:
        page.goto(f'{lab[0]}/lab/tree/project/nbs/{name}.ipynb?token=t&reset')
        page.wait_for_function('() => window.jupyterapp?.shell?.currentWidget?.context')
        assert page.evaluate(RUN) == []
        cells = page.evaluate(MODEL)
        assert [c['source'] for c in cells if c['type'] == 'code' and c['source'].strip() and not c['count']] == [], 'cells that did not run'
        said = [line for c in cells for o in c['outputs'] if o['name'] == 'stderr' for line in spoken(o['text'])]
        assert [line for line in said if re.search('warn|error|traceback|deprecat|fail', line, re.I)] == [], said
        at = last_shown(stored)
        kinds = {k for o in stored[at].outputs for k in o.get('data', {})} - {'image/jpeg'}  # which stands in for a widget
        assert kinds <= {k for o in cells[at]['outputs'] for k in o['kinds']}
        shown = page.locator('.jp-Notebook .jp-Cell').nth(at)
        shown.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        seen = shown.evaluate(SHOWN)
        page.screenshot(path=Path(os.environ.get('LIVESTOCK_SHOTS', tmp_path))/f'{name}.png')
        assert max(h for _, h in seen['size']) > 12 and all(seen['pictures']) and not seen['stderr'], seen
        assert page.locator('.jp-Dialog').count() == 0 and faults == []
    finally:
        page.evaluate('() => window.jupyterapp.shell.currentWidget?.context.sessionContext.shutdown()')
        page.close()
