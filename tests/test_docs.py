"""README and docs: every block of code is run where it can be, on the made-up test run, and parsed where it would take hours or another machine."""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livestock_nb.cli import main, make_parser
from livestock_nb.data import plain_name
from livestock_nb.pipeline import run_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT/'README.md', ROOT/'CONTRIBUTING.md', *sorted((ROOT/'docs').glob('*.md'))]
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.M | re.S)
TOOLS = {'make', 'livestock', 'source', 'pip', 'nbdev-install-hooks', 'LIVESTOCK_LONG=1'}  # what a line of sh may begin with


def blocks(kind: str) -> list:
    "Every block of a kind, with the page and line where it stands."
    found = [(p, p.read_text(encoding='utf-8')) for p in PAGES]
    at = lambda text, m: text.count('\n', 0, m.start()) + 1
    return [pytest.param(m[2], id=f'{p.stem}-{at(text, m)}') for p, text in found for m in BLOCK.finditer(text) if m[1] == kind]


def lines(block: str) -> list[list[str]]:
    "The commands of a block of sh, as words, without comments."
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope='module')
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder in which the names that README and docs use stand for files of the made-up test run."
    run = run_config(ROOT/'configs'/'test.yaml', ROOT/'runs'/'test')
    home = tmp_path_factory.mktemp('docs')
    (home/'data').mkdir()
    farm, frames = run/'farm', run/'split'/'images'
    frames_zip = next(p for p in (farm/'test').glob('*.zip') if '원천' in plain_name(p.name))
    for name, real in {'data/train': farm/'train', 'data/test': farm/'test', 'answer.csv': farm/'test'/'answer.csv', 'frames': frames,
                       'frames_of_this_week': frames, 'best.pt': run/'train'/'best.pt', 'configs': ROOT/'configs'}.items():
        (home/name).symlink_to(real)
    for name in ('demo', 'quick', 'full'):
        made = home/'runs'/name
        for part in ('records', 'notebooks', 'train', 'farm/test'):
            shutil.copytree(run/part, made/part, ignore=shutil.ignore_patterns('*.zip'))
        for part in ('record.json', 'submission.csv'): shutil.copy(run/part, made)
        (made/'train_full').symlink_to(made/'train')
    shutil.copy(home/'best.pt', home/'a.pt')
    for name, real in {'DIR': home/'runs'/'demo', 'ANSWER.csv': home/'answer.csv', 'FIRST.csv': run/'submission.csv',
                       'SECOND.csv': run/'submission.csv', 'frames.zip': frames_zip}.items(): (home/name).symlink_to(real)
    return home


SHORT = {'1280': '160'}  # sizes that would take a minute
RUN_AS_IS = {'check', 'report', 'score', 'compare', 'infer', 'clean'}  # `run`, `status` and `grid` are planned only: they take an hour


@pytest.mark.parametrize('block', blocks('sh'))
def test_a_block_of_sh(block: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(here)
    make = (ROOT/'Makefile').read_text()
    for tool, *words in lines(block):
        assert tool in TOOLS, f'{tool}: say in test_docs.py how to try it'
        if tool == 'make': assert re.search(rf'^{words[0]}:', make, re.M)
        if tool == 'nbdev-install-hooks': assert Path(sys.executable).with_name(tool).exists()
        if tool == 'LIVESTOCK_LONG=1': assert words[0] == 'pytest' and all((ROOT/w).exists() for w in words[1:])
        if tool == 'livestock': try_command(words, here)
    capsys.readouterr()


def try_command(words: list[str], here: Path) -> None:
    "Run a command where that is quick; else have its words understood, of `run` and `grid` down to the stages and parameters of the config."
    words = ['data/train' if words[0] == 'check' and w == 'DIR' else SHORT.get(w, w) for w in words]
    args = make_parser().parse_args(words)  # exits with 2 on a word that no command takes
    if words[0] in RUN_AS_IS:
        if words[0] == 'infer': words += ['--backend', 'torch', '--imgsz', '96']
        return main(words)
    if words[0] not in ('run', 'status', 'grid'): return None  # another command: understood is enough
    from livestock_nb.cli import pairs
    from livestock_nb.grid import cross, read_experiment
    from livestock_nb.pipeline import make_plan
    config = 'demo' if args.config == 'CONFIG' else args.config
    if not Path(config).exists() and config.endswith('.yaml'): return  # written by the python block before it, which has its own test
    axes = {k: v.split(',') for k, v in pairs(getattr(args, 'axes', []), '-g').items()}
    given, params = pairs(args.variables, '-v'), pairs(args.params, '-p')
    for cfg in read_experiment(config).values():
        for sets in cross(axes).values():
            more = [{k: v for k, v in sets.items() if ('.' in k) == dotted} for dotted in (False, True)]
            make_plan(cfg, here/'planned', given | more[0], params | more[1], [s for s in [getattr(args, 'until', None)] if s])


@pytest.mark.parametrize('block', blocks('python'))
def test_a_block_of_python(block: str, here: Path, tmp_path: Path):
    if 'google.colab' in block:
        plain = re.sub(r'^[%!].*', 'pass', block, flags=re.M)
        for line in re.findall(r'^!(livestock .*)', block, re.M): try_command(shlex.split(line)[1:], here)
        compile(plain, 'block', 'exec')
        return  # Colab itself is not here
    block = block.replace("imgsz=320", "imgsz=160")
    done = subprocess.run([sys.executable, '-c', block], cwd=here, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr[-2000:]
    if 'mine.yaml' in block:
        run_config(here/'mine.yaml', here/'runs'/'mine')
        assert (here/'runs'/'mine'/'counts.csv').read_text().startswith('image,boxes')


def test_no_block_is_of_a_kind_that_nobody_tries():
    kinds = {(p.name, m[1]) for p in PAGES for m in BLOCK.finditer(p.read_text(encoding='utf-8'))}
    assert {k for _, k in kinds} <= {'sh', 'python'}, kinds


@pytest.mark.skipif(not shutil.which('mkdocs', path=str(Path(sys.executable).parent)), reason="the site needs pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path: Path):
    command = [str(Path(sys.executable).with_name('mkdocs')), 'build', '--strict', '--site-dir', str(tmp_path/'site')]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path/'site'/'commands.html').read_text()
    commands = re.findall(r'^    (\w+)', make_parser().format_help(), re.M)
    assert {'run', 'clean', 'infer'} <= set(commands) and all(f'livestock {c}' in page for c in commands)
    assert '28.8' in (tmp_path/'site'/'measured.html').read_text()
    assert len(list((tmp_path/'site'/'chapters').glob('*.html'))) == len(list((ROOT/'nbs').glob('*.ipynb')))
    for p in (tmp_path/'site').glob('*.html'):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)', p.read_text())
        assert not fetched, (p.name, fetched)
