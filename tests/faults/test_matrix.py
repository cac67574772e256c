"""Every fault that a barn's office, a shared disk or a dying session has in store, one after the other: never a wrong result, never a half-written
file read, always a clear line.

Here 20 kills at random moments of three quick stages, and each other fault on two; tests/faults/test_stages.py has them all on every stage.
Disks that are full or read-only are small ones of their own where this user may mount, and limits of the process elsewhere.
"""
import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from livestock_nb.data import InputError, read_json
from livestock_nb.pipeline import hash_files, run_config

ROOT = Path(__file__).parents[2]
FORKS = multiprocessing.get_context('forkserver')  # its children have everything imported, and no thread of this process
FORKS.set_forkserver_preload(['livestock_nb.pipeline'])

PARAMETERS = "source: Path = ''  # a folder\nout: Path = ''  # where to write\ncount: int = 20  # files\n"
BODY = """import time
from pathlib import Path
source, out = Path(source), Path(out)
rows = sorted(p.name for p in source.rglob('*') if p.is_file() and not p.name.startswith('.'))
for i in range(count):
    tmp = out/f'.{i}.tmp'
    tmp.write_text(f'{i} of {rows}')
    tmp.replace(out/f'{i}.txt')
    time.sleep(.01)
tmp = out/'.submission.csv.tmp'
tmp.write_text('\\n'.join([*rows, *(p.read_text() for p in sorted(out.glob('*.txt')))]))
tmp.replace(out/'submission.csv')
"""


def write_stage(path: Path, body: str = BODY) -> None:
    cells = [nbformat.v4.new_markdown_cell('# A stage\n\n> that writes'), nbformat.v4.new_code_cell('from pathlib import Path'),
             nbformat.v4.new_code_cell(PARAMETERS, metadata=dict(tags=['parameters'])), nbformat.v4.new_code_cell(body)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A config of intake on a made-up farm and two quick stages after it, run once in peace, in `whole`."
    from livestock_nb.farm import make_farm
    home = tmp_path_factory.mktemp('project')
    make_farm(home/'farm', home/'truth.parquet', 8, 4, .2, 0)
    for name in 'ab': write_stage(home/f'0_{name}.ipynb')
    stages = [dict(notebook='02_intake', params=dict(zips='farm/train')), dict(notebook='0_a', params=dict(source='$intake')),
              dict(notebook='0_b', params=dict(source='$a'))]
    (home/'my.yaml').write_text(yaml.safe_dump(dict(stages=stages, deliver='$b/submission.csv')))
    run_config(home/'my.yaml', home/'whole')
    return home


@pytest.fixture(scope='module')
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Two quick stages on a folder of data, run once in peace, in `whole`."
    home = tmp_path_factory.mktemp('quick')
    (home/'data').mkdir()
    (home/'data'/'x.txt').write_text('x')
    for name in 'ab': write_stage(home/f'0_{name}.ipynb')
    stages = [dict(notebook='0_a', params=dict(source='data')), dict(notebook='0_b', params=dict(source='$a'))]
    (home/'my.yaml').write_text(yaml.safe_dump(dict(stages=stages, deliver='$b/submission.csv')))
    run_config(home/'my.yaml', home/'whole')
    return home


def results(run: Path) -> dict[str, str]:
    "Every file that a stage made, by its hash; what a killed attempt left hidden does not count."
    return {f'{stage}/{f}': sha for stage in (p.stem for p in (run/'records').glob('*.json')) for f, sha in hash_files(run/stage, {}).items()}


def quiet_run(config: Path, run: Path, until: str | None = None) -> None:
    "Run the config in this process, and let nothing be heard of it."
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    run_config(config, run, until=until)


def check_whole(run: Path) -> None:
    "Whatever bears a final name can be read to its end."
    for path in (p for p in run.rglob('*') if p.is_file() and not p.name.startswith('.')):
        if path.suffix == '.parquet': pq.read_table(path)
        if path.suffix == '.json': json.loads(path.read_text())
        if path.suffix == '.csv': assert path.stat().st_size == 0 or len(pd.read_csv(path, header=None, sep='\x00', engine='python'))


def finished(run: Path) -> dict[str, int]:
    "When each finished stage was recorded (ns)."
    return {p.stem: p.stat().st_mtime_ns for p in (run/'records').glob('*.json') if read_json(p).get('state') == 'done'}


def kill_in(stage: str, seconds: float, config: Path, run: Path, until: str | None = None) -> bool:
    "Start the run, wait for the stage, kill -9 so many seconds later; False where it had ended by then."
    process = FORKS.Process(target=quiet_run, args=(config, run, until))
    process.start()
    record, begun = run/'records'/f'{stage}.json', time.monotonic()
    mine = lambda: read_json(record).get('state') == 'running' and record.stat().st_mtime > process_start(process)
    while process.is_alive() and not mine(): time.sleep(.01)
    time.sleep(seconds)
    alive = process.is_alive()
    if alive: os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert time.monotonic() - begun < 600
    return alive


def process_start(process: multiprocessing.Process) -> float:
    "When it was started, by the clock that files have."
    return Path(f'/proc/{process.pid}').stat().st_mtime - 1 if process.is_alive() else 0


@pytest.mark.skipif(not Path('/proc').exists(), reason='reads /proc')
def test_kills_at_random_moments_cost_only_what_was_running(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    config, whole = project/'my.yaml', project/'whole'
    stages, share = ['intake', 'a', 'b'], dict(intake=2, a=9, b=9)
    seconds = {s: read_json(whole/'records'/f'{s}.json')['seconds'] for s in stages}
    draw, when, run, before = random.Random(0), Counter(), tmp_path/'run', {}
    for stage in stages:
        for _ in range(share[stage]):
            moment = draw.random()
            killed = kill_in(stage, moment*seconds[stage], config, run)
            now = finished(run)
            assert {k: now.get(k) for k in before} == before, 'a finished stage ran again'
            check_whole(run)
            before = now
            if stage in now: shutil.rmtree(run/stage), (run/'records'/f'{stage}.json').unlink(), before.pop(stage)  # so that it can be hit again
            when[stage, int(10*moment) if killed else 'after'] += 1
    run_config(config, run)
    with capsys.disabled():
        columns = [*range(10), 'after']
        print('\nkills by the tenth of the stage in which they came', pd.DataFrame(
            {c: [when[s, c] for s in stages] for c in columns}, index=stages).to_string(), sep='\n')
    assert sum(when.values()) >= 20 and sum(n for (_, c), n in when.items() if c != 'after') >= .5*sum(when.values())
    assert (run/'submission.csv').read_bytes() == (whole/'submission.csv').read_bytes()
    assert results(run) == results(whole)


# ---- disks

@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    "A disk of this size, in memory; skips where this user may not mount."
    at.mkdir()
    if not shutil.which('mount') or subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(at)], capture_output=True).returncode:
        pytest.skip('this user may not mount a disk')
    try: yield
    finally: subprocess.run(['umount', '-l', str(at)], check=True)


def said_by(*words: str, limit: int = 0) -> tuple[int, str]:
    "Exit status and last words of a command, in a process that may not write files of more than `limit` bytes."
    def restrict() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    door = [sys.executable, '-c', 'from livestock_nb.cli import main; main()', *words]
    done = subprocess.run(door, capture_output=True, text=True, preexec_fn=restrict, env=os.environ | dict(PYTHONDONTWRITEBYTECODE='1'))
    return done.returncode, done.stderr[done.stderr.rfind('livestock: '):].strip()


def test_a_full_disk_is_said_and_a_larger_one_is_enough(quick: Path, tmp_path: Path):
    with small_disk(tmp_path/'disk', '64k'):
        run = tmp_path/'disk'/'run'
        code, said = said_by('run', str(quick/'my.yaml'), '--run', str(run))
        assert code == 1 and 'No space left' in said and said.count('\n') <= 1, said
        check_whole(run)
        subprocess.run(['mount', '-o', 'remount,size=64m', str(tmp_path/'disk')], check=True)
        run_config(quick/'my.yaml', run)
        assert results(run) == results(quick/'whole')


def test_a_quota_is_said_and_without_it_the_run_goes_on(quick: Path, tmp_path: Path):
    code, said = said_by('run', str(quick/'my.yaml'), '--run', str(tmp_path/'run'), limit=4000)
    assert code == 1 and 'File too large' in said and said.count('\n') <= 1, said
    check_whole(tmp_path/'run')
    run_config(quick/'my.yaml', tmp_path/'run')
    assert results(tmp_path/'run') == results(quick/'whole')


def test_a_read_only_disk_is_named(quick: Path, tmp_path: Path):
    with small_disk(tmp_path/'disk', '64m'):
        run = run_config(quick/'my.yaml', tmp_path/'disk'/'run')
        subprocess.run(['mount', '-o', 'remount,ro', str(tmp_path/'disk')], check=True)
        for words in (['run', str(quick/'my.yaml'), '--run', str(tmp_path/'disk'/'new')], ['report', str(run)]):
            code, said = said_by(*words)
            assert code == 1 and str(tmp_path/'disk') in said and 'Read-only' in said and said.count('\n') <= 1, said
        with pytest.raises(InputError, match='Read-only'): run_config(quick/'my.yaml', run)
        assert results(run) == results(quick/'whole')


# ---- caches, clocks, company

SPOILT = [b'', b'{', b'[]', b'"x"', b'null', b'{"a": 5}', b'\xff\xfe', b'{"state": "done"}', b'{"state": "done", "key": 5, "files": 7}', b'['*100_000]


@pytest.mark.parametrize('data', SPOILT, ids=range(len(SPOILT)))
def test_a_spoilt_cache_or_record_costs_work_and_nothing_else(data: bytes, quick: Path, tmp_path: Path):
    run = Path(shutil.copytree(quick/'whole', tmp_path/'run'))
    for name in ('.hashes.json', 'records/b.json', 'record.json'): (run/name).write_bytes(data)
    run_config(quick/'my.yaml', run)
    assert results(run) == results(quick/'whole') and (run/'submission.csv').read_bytes() == (quick/'whole'/'submission.csv').read_bytes()


def test_hashes_that_were_spoilt_one_by_one(quick: Path, tmp_path: Path):
    run = Path(shutil.copytree(quick/'whole', tmp_path/'run'))
    run_config(quick/'my.yaml', run)
    known = read_json(run/'.hashes.json')
    for wrong in (5, None, [], [[1]], {'a': 1}, [known[next(iter(known))][0], 'no hash']):
        (run/'.hashes.json').write_text(json.dumps({k: wrong for k in known}))
        run_config(quick/'my.yaml', run)
        assert results(run) == results(quick/'whole')


def test_an_output_whose_byte_flipped_is_made_again(quick: Path, tmp_path: Path):
    run = Path(shutil.copytree(quick/'whole', tmp_path/'run'))
    run_config(quick/'my.yaml', run)
    path = run/'a'/'3.txt'
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the same size and time, as a failing disk would have it
    run_config(quick/'my.yaml', run)
    assert results(run) == results(quick/'whole')


def test_a_clock_that_goes_back_changes_nothing(quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Path(shutil.copytree(quick/'whole', tmp_path/'run'))
    for p in run.rglob('*'): os.utime(p, (time.time() + 400*86400,)*2)  # made in what is now the future
    run_config(quick/'my.yaml', run)
    before = finished(run)
    now = time.time
    monkeypatch.setattr(time, 'time', lambda: now() - 400*86400)
    run_config(quick/'my.yaml', run)
    assert finished(run) == before and results(run) == results(quick/'whole')
    home = Path(shutil.copytree(quick, tmp_path/'home', ignore=shutil.ignore_patterns('whole')))
    run_config(home/'my.yaml', run)
    data = home/'data'/'x.txt'
    stamp = data.stat()
    data.write_text('y')
    os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns - 10**18))  # changed, and older than ever
    run_config(home/'my.yaml', run)
    assert results(run) == results(run_config(home/'my.yaml', tmp_path/'fresh'))


def test_two_runs_at_once_in_one_folder(quick: Path, tmp_path: Path):
    door = [sys.executable, '-c', 'from livestock_nb.cli import main; main()', 'run', str(quick/'my.yaml'), '--run', str(tmp_path/'run')]
    both = [subprocess.Popen(door, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [p.communicate()[1] for p in both]
    lost = [s for p, s in zip(both, said, strict=True) if p.returncode]
    assert sum(p.returncode == 0 for p in both) >= 1 and all('Another run is using' in s and 'Traceback' not in s for s in lost)
    assert results(tmp_path/'run') == results(quick/'whole')


def test_a_stage_that_loses_its_kernel_says_so(quick: Path, tmp_path: Path):
    home = Path(shutil.copytree(quick, tmp_path/'home', ignore=shutil.ignore_patterns('whole')))
    write_stage(home/'0_b.ipynb', 'import os\nos.kill(os.getpid(), 9)')
    with pytest.raises(InputError, match='lost its kernel'): run_config(home/'my.yaml', tmp_path/'run')
    write_stage(home/'0_b.ipynb')
    run_config(home/'my.yaml', tmp_path/'run')
    assert results(tmp_path/'run') == results(quick/'whole')
