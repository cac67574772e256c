"A real JupyterLab in a real Chromium, for what only a front end can show. Skips where either is missing."
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

SETTINGS = {'@jupyterlab/apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
            '@jupyterlab/notebook-extension/tracker': dict(windowingMode='none'),
            '@jupyterlab/docmanager-extension/plugin': dict(autosave=False)}
CHROMIUM = next((p for n in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(n))), '')
# the menu's Run All Cells may leave cells unrun; this call waits for all and gives the errors back
RUN = """async () => { const app = window.jupyterapp; await app.restored;
  const ctx = app.shell.currentWidget.context; await ctx.ready; await ctx.sessionContext.ready;
  await ctx.sessionContext.session.kernel.info; await app.commands.execute('notebook:run-all-cells');
  return ctx.model.toJSON().cells.flatMap(c => c.outputs || []).filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`); }"""


@pytest.fixture(scope='session')
def chrome():
    playwright = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install playwright')
    if not CHROMIUM: pytest.skip('no Chromium: apt-get install chromium')
    with playwright.sync_playwright() as pw:
        flags = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update']
        browser = pw.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def lab(chrome, tmp_path_factory):
    "Address and root folder of a JupyterLab of its own: its settings, kernels and files are in a temporary folder."
    home = tmp_path_factory.mktemp('lab')
    root = home/'root'
    root.mkdir()
    for name, values in SETTINGS.items():
        f = home/'settings'/f'{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(values))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    places = dict(JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='ws', JUPYTER_CONFIG_DIR='cfg', JUPYTER_DATA_DIR='data',
                  JUPYTER_RUNTIME_DIR='rt', IPYTHONDIR='ip')
    options = ['--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=t',
               '--LabApp.expose_app_in_browser=True', f'--ServerApp.root_dir={root}']
    url, log = f'http://127.0.0.1:{port}', home/'lab.log'
    with log.open('w') as said:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *options], env=os.environ | {k: str(home/v) for k, v in places.items()},
                                  stdout=said, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f'{url}/api/status?token=t', timeout=2)
                    break
                except OSError:
                    assert server.poll() is None, log.read_text()
                    time.sleep(.1)
            yield url, root
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture
def run_nb(lab, chrome):
    "Open a copy of a notebook (and of files beside it), run all its cells, and give the page; a cell's error fails the test."
    url, root = lab
    page = chrome.new_page(viewport=dict(width=1280, height=1400))
    page.set_default_timeout(60_000)

    def run(nb: Path, *files: Path):
        for f in (nb, *files): shutil.copy(f, root)
        page.goto(f'{url}/lab/tree/{Path(nb).name}?token=t&reset')
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context")
        errors = page.evaluate(RUN)
        assert not errors, errors
        return page
    yield run
    page.close()
