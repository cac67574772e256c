"""Every stage of configs/test.yaml × every fault: `kill -9` at moments drawn over the stage's recorded duration, a full disk, a read-only one,
spoilt caches, a clock that goes back, two runs in one folder. After each the stage is run in peace, and what it makes is what it made before,
byte for byte.

200 faults take an hour and more, so they run only where LIVESTOCK_LONG is set, and can come in parts:
LIVESTOCK_LONG=1 LIVESTOCK_KILLS=5 LIVESTOCK_SEED=1 pytest tests/faults/test_stages.py -k intake. What was tried is kept in
runs/faults/tried.csv; the last test prints it, with the histogram of the kills.
"""
import contextlib
import csv
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import yaml
from test_matrix import ROOT, check_whole, finished, kill_in, said_by

from livestock_nb.data import InputError, read_json
from livestock_nb.pipeline import hash_files, run_config, stage_name

pytestmark = [pytest.mark.skipif(not os.environ.get('LIVESTOCK_LONG'), reason='set LIVESTOCK_LONG=1 for the long tests'),
              pytest.mark.skipif(not Path('/proc').exists(), reason='reads /proc')]
KILLS, SEED = int(os.environ.get('LIVESTOCK_KILLS', 9)), os.environ.get('LIVESTOCK_SEED', '0')  # kills a stage, and their moments
CONFIG = yaml.safe_load((ROOT/'configs'/'test.yaml').read_text(encoding='utf-8'))
STAGES = [stage_name(s) for s in CONFIG['stages']]
RUN, HOME = ROOT/'runs'/'test', ROOT/'runs'/'faults'
TIMED = {'tune/study.journal', 'tune/trials.csv', 'edge/times.parquet', 'edge/table.csv', 'edge/edge.png'}  # hold seconds
LATE = 'import time\nnow = time.time\ntime.time = lambda: now() - 400*86400\n'  # as sitecustomize.py: a clock that went back


@pytest.fixture(scope='module')
def config() -> Iterator[Path]:
    "The config with this checkout's notebooks; its run, done in peace, is also kept in `HOME/whole`. Caches are of the tests' own."
    HOME.mkdir(parents=True, exist_ok=True)
    for s in CONFIG['stages']: s['notebook'] = str(ROOT/'nbs'/s['notebook'])
    (HOME/'test.yaml').write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    with patch.dict(os.environ, YOLO_CONFIG_DIR=str(HOME/'cache')):
        with patch('livestock_nb.pipeline.write_report'): run_config(HOME/'test.yaml', RUN)
        if results(HOME/'whole', STAGES) != results(RUN, STAGES):
            shutil.rmtree(HOME/'whole', ignore_errors=True)
            shutil.copytree(RUN, HOME/'whole')
        yield HOME/'test.yaml'


def results(run: Path, stages: list[str]) -> dict[str, str]:
    "Every file that these stages made, by its hash."
    made = {f'{s}/{f}': sha for s in stages if (run/s).is_dir() for f, sha in hash_files(run/s, {}).items()}
    return {f: sha for f, sha in made.items() if f not in TIMED}


def forget(stage: str) -> None:
    "As if the stage had never run; those after it stay for what they are."
    shutil.rmtree(RUN/stage, ignore_errors=True)
    for path in (RUN/'records'/f'{stage}.json', RUN/'notebooks'/f'{stage}.ipynb'): path.unlink(missing_ok=True)


@pytest.fixture
def stage(request: pytest.FixtureRequest, config: Path) -> Iterator[str]:
    "A stage that has not run; afterwards it has."
    forget(request.param)
    yield request.param
    if results(RUN, [request.param]) == results(HOME/'whole', [request.param]): return
    forget(request.param)
    shutil.copytree(HOME/'whole'/request.param, RUN/request.param)
    for part in ('records', 'notebooks'):
        for old in (HOME/'whole'/part).glob(f'{request.param}.*'): shutil.copy2(old, RUN/part)


def note(stage: str, fault: str, when: str = '') -> None:
    with (HOME/'tried.csv').open('a') as f: csv.writer(f).writerow([stage, fault, when])


def go_on(stage: str, config: Path) -> None:
    "Run up to the stage in peace; the report is made elsewhere often enough."
    before = {k: v for k, v in finished(RUN).items() if k != stage}
    with patch('livestock_nb.pipeline.write_report'): run_config(config, RUN, until=stage)
    assert {k: v for k, v in finished(RUN).items() if k != stage} == before, 'another stage ran again'
    now, then = results(RUN, [stage]), results(HOME/'whole', [stage])
    assert now == then, sorted(f for f in now.keys() | then.keys() if now.get(f) != then.get(f))


@pytest.mark.parametrize('stage', STAGES, indirect=True)
def test_kills(stage: str, config: Path):
    seconds, draw = read_json(HOME/'whole'/'records'/f'{stage}.json')['seconds'], random.Random(f'{stage} {SEED}')
    before = finished(RUN)
    for _ in range(KILLS):
        moment = draw.random()
        killed = kill_in(stage, moment*seconds, config, RUN, stage)
        check_whole(RUN/stage)
        now = finished(RUN)
        assert {k: v for k, v in now.items() if k != stage} == before, 'another stage ran again'
        note(stage, 'kill', str(int(10*moment)) if killed else 'after')
        if stage in now: forget(stage)
    go_on(stage, config)


@contextlib.contextmanager
def disk(at: Path, size: str, filled: bool) -> Iterator[None]:
    "A small disk in the place of a folder; without a byte to spare if `filled`, else one that cannot be written."
    at.mkdir(exist_ok=True)
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(at)], capture_output=True).returncode:
        pytest.skip('this user may not mount a disk')
    try:
        if not filled: subprocess.run(['mount', '-o', 'remount,ro', str(at)], check=True)
        yield
    finally: subprocess.run(['umount', '-l', str(at)], check=True)


@pytest.mark.parametrize('stage', STAGES, indirect=True)
def test_disks(stage: str, config: Path):
    half = sum(p.stat().st_size for p in (HOME/'whole'/stage).rglob('*') if p.is_file())//2
    for words, filled in (('No space left', True), ('Read-only', False)):
        with disk(RUN/stage, str(max(half, 4096)), filled), patch('livestock_nb.pipeline.write_report'):
            with pytest.raises(InputError, match=words) as e: run_config(config, RUN, until=stage)
            assert str(e.value).count('\n') <= 1
            check_whole(RUN/stage)
        note(stage, 'disk full' if filled else 'read-only output')
    go_on(stage, config)


@pytest.mark.parametrize('stage', STAGES, indirect=True)
def test_two_at_once(stage: str, config: Path):
    door = [sys.executable, '-c', 'from livestock_nb.cli import main; main()', 'run', str(config), '--run', str(RUN), '--until', stage]
    both = [subprocess.Popen(door, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [p.communicate()[1] for p in both]
    assert sum(p.returncode == 0 for p in both) >= 1, said
    assert all('Another run is using' in s and 'Traceback' not in s for p, s in zip(both, said, strict=True) if p.returncode)
    go_on(stage, config)
    note(stage, 'two runs at once')


@pytest.mark.parametrize('stage', STAGES, indirect=True)
def test_caches(stage: str, config: Path):
    "Half of every cached file is gone; then a byte of the largest result flips, and nothing but its hash could tell."
    for path in (p for p in (HOME/'cache').rglob('*') if p.is_file()): path.write_bytes(path.read_bytes()[:path.stat().st_size//2])
    (RUN/'.hashes.json').write_bytes((RUN/'.hashes.json').read_bytes()[:-50])
    go_on(stage, config)
    largest = max((p for p in (RUN/stage).rglob('*') if p.is_file() and not p.name.startswith('.')), key=lambda p: (p.stat().st_size, p))
    stamp, data = largest.stat(), bytearray(largest.read_bytes())
    data[len(data)//2] ^= 1
    largest.write_bytes(data)
    os.utime(largest, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    go_on(stage, config)
    note(stage, 'corrupted cache')
    note(stage, 'flipped byte')


@pytest.mark.parametrize('stage', STAGES, indirect=True)
def test_clock(stage: str, config: Path, tmp_path: Path):
    "All that is there was made in what is now the future."
    (tmp_path/'sitecustomize.py').write_text(LATE)
    now = time.time
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])), \
            patch('time.time', lambda: now() - 400*86400): go_on(stage, config)
    made = finished(RUN)
    go_on(stage, config)
    assert finished(RUN) == made
    note(stage, 'clock going back')


def test_what_was_tried(config: Path, capsys: pytest.CaptureFixture):
    "Over all parts so far: the faults, the tenths of the stages in which the kills came, and the final submission."
    tried = pd.read_csv(HOME/'tried.csv', names=['stage', 'fault', 'when'], dtype=str, keep_default_na=False)
    kills = tried[tried.fault == 'kill']
    with capsys.disabled():
        for said, table in (('', pd.crosstab(tried.stage, tried.fault)),
                            ('kills by the tenth of the stage in which they came', pd.crosstab(kills.stage, kills.when))):
            print(f'\n{said}', table.reindex(STAGES).fillna(0).astype(int).to_string(), sep='\n')
        print('\nall kills', kills.when.value_counts().sort_index().to_string(), f'in all {len(tried)} faults', sep='\n')
    run_config(config, RUN)
    assert (RUN/'submission.csv').read_bytes() == (HOME/'whole'/'submission.csv').read_bytes()
    code, said = said_by('status', str(config), '--run', str(RUN))
    assert code == 0, said
