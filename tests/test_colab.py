"""Runs on a machine that dies with its disk, beside a stand-in for Colab's Drive: slow, cutting files off, and at times not there."""
import shutil
import sys
import time
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from test_pipeline import notebook

from livestock_nb.cli import main
from livestock_nb.data import InputError, save_json, save_text
from livestock_nb.mirror import file_sha, mirror_stage, mirrored, restore_run, stage_zips, unpack_stage
from livestock_nb.pipeline import run_config

LOGS = """from pathlib import Path
out = Path(out)
source = Path(source)
rows = sorted(p.name for p in source.rglob('*') if p.is_file())
(out/'made.txt').write_text(f'{rows} {factor}')
with (out.parents[1]/"log").open("a") as f: f.write(out.name + ' ')
"""


class Drive:
    "A folder that comes with `mount`, goes with `drop`, takes its time, and forgets the ends of files when the session dies."
    def __init__(self, home: Path): self.at, self.behind, self.slow = home/'content'/'drive', home/'elsewhere', 0.

    def mount(self, path: str) -> None:
        assert Path(path) == self.at
        self.behind.mkdir(exist_ok=True)
        if self.at.is_dir() and not self.at.is_symlink(): self.at.rmdir()  # as the mount point of a real one, it has to be empty
        self.at.parent.mkdir(exist_ok=True)
        if not self.at.is_symlink(): self.at.symlink_to(self.behind, target_is_directory=True)

    def drop(self) -> None:
        self.at.unlink()
        self.at.mkdir()  # the mount point stays, empty, on the disk that dies

    def cut(self, pattern: str) -> None:
        for p in self.behind.rglob(pattern): p.write_bytes(p.read_bytes()[:-100]) if p.is_file() else None


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    "`google.colab` as far as a notebook sees it, with a Drive of its own."
    drive, module = Drive(tmp_path), types.ModuleType('google.colab')
    module.drive = types.SimpleNamespace(mount=drive.mount)
    monkeypatch.setitem(sys.modules, 'google.colab', module)
    copy = shutil.copyfile

    def slow_copy(source: Path, target: Path, **kw) -> Path:
        if drive.slow and str(target).startswith(str(drive.at)): time.sleep(drive.slow)
        return copy(source, target, **kw)
    monkeypatch.setattr(shutil, 'copyfile', slow_copy)
    from google.colab import drive as door
    door.mount(str(drive.at))
    yield drive


@pytest.fixture
def project(tmp_path: Path) -> Path:
    "Two stages, a -> b, which say in `sessions/log` that they ran."
    home = tmp_path/'project'
    (home/'data').mkdir(parents=True)
    (home/'data'/'x.txt').write_text('x')
    for name in 'ab': notebook(home/f'0_{name}.ipynb', LOGS)
    stages = [dict(notebook='0_a', params=dict(source='data')), dict(notebook='0_b', params=dict(source='$a'))]
    (home/'my.yaml').write_text(yaml.safe_dump(dict(stages=stages, deliver='$b/made.txt')))
    return home


def session(project: Path, colab: Drive, dies: bool = True, **kw) -> str:
    "Run in a new session, on a disk that is empty at first; say which stages ran."
    work = project.parent/'sessions'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try: run_config(project/'my.yaml', work/'run', mirror=colab.at/'MyDrive'/'runs'/'quick', **kw)
    except InputError: assert dies
    return (work/'log').read_text().strip() if (work/'log').exists() else ''


def test_a_new_session_goes_on_from_the_mirror(project: Path, colab: Drive):
    assert session(project, colab, until='a') == 'a'
    assert session(project, colab) == 'b'
    made = (project.parent/'sessions'/'run'/'made.txt').read_bytes()
    assert session(project, colab, dies=False) == ''
    home = colab.behind/'MyDrive'/'runs'/'quick'
    assert (project.parent/'sessions'/'run'/'made.txt').read_bytes() == made == (home/'made.txt').read_bytes()
    assert (home/'report.html').exists() and not list(home.glob('.*.tmp*'))


def test_what_drive_cut_off_is_made_again_and_nothing_wrong_is_read(project: Path, colab: Drive, capsys: pytest.CaptureFixture):
    session(project, colab)
    colab.cut('a.*.zip')
    assert session(project, colab, dies=False) == 'a' and 'a on the mirror' in capsys.readouterr().err  # b rests on the same bytes
    colab.cut('*')
    assert session(project, colab, dies=False) == 'a b'
    assert session(project, colab, dies=False) == ''


def test_a_stage_that_fails_keeps_what_it_had(project: Path, colab: Drive):
    dies = "if not (out/'part.txt').exists():\n    (out/'part.txt').write_text('epoch 1')\n    raise ValueError('the session dies')"
    notebook(project/'0_b.ipynb', LOGS + dies)
    assert session(project, colab) == 'a b'
    assert session(project, colab, dies=False) == 'b'  # it found its part, else it would have failed again


def test_a_drive_that_goes_away_costs_the_mirror_alone(project: Path, colab: Drive, capsys: pytest.CaptureFixture):
    drop = f"import os; os.unlink({str(colab.at)!r}); os.mkdir({str(colab.at)!r})\n"
    whole = (project/'0_b.ipynb').read_bytes()
    notebook(project/'0_b.ipynb', LOGS + drop)
    assert session(project, colab, dies=False) == 'a b'
    said = capsys.readouterr().err
    assert 'failed for b' in said and 'gone' in said and not list(colab.at.iterdir())  # nothing was written where the mount had been
    assert (project.parent/'sessions'/'run'/'made.txt').exists()
    colab.mount(str(colab.at))
    (project/'0_b.ipynb').write_bytes(whole)
    assert session(project, colab, dies=False) == 'b' and stage_zips('b', colab.at/'MyDrive'/'runs'/'quick')
    shutil.rmtree(colab.behind)
    colab.at.unlink()
    colab.at.write_text('')
    with pytest.raises(SystemExit, match='is the disk mounted'):
        main(['run', str(project/'my.yaml'), '--run', str(project/'run'), '--mirror', str(colab.at/'MyDrive')])


def test_a_slow_drive_is_waited_for_and_two_zips_stay(colab: Drive, tmp_path: Path):
    run, home = tmp_path/'run', colab.at/'quick'
    home.mkdir()
    save_json(dict(state='running'), run/'records'/'train.json')
    colab.slow = .2
    with mirrored('train', run, home, every=.1):
        for epoch in range(6):
            save_text(f'epoch {epoch}', run/'train'/'last.pt')
            time.sleep(.15)
    zips = stage_zips('train', home)
    assert len(zips) == 2 and int(zips[0].stem.split('.')[1]) >= 2
    assert restore_run(['train'], tmp_path/'new', home) == ['train'] and (tmp_path/'new'/'train'/'last.pt').read_text() == 'epoch 5'
    colab.slow = 0
    assert mirror_stage('train', run, home) and stage_zips('train', home) == zips  # nothing new, nothing written


@pytest.mark.parametrize('name', [
    '../../escape.txt', '/tmp/escape.txt', 'train/../../escape.txt', 'other/made.txt', 'train\\..\\..\\escape.txt', '.hashes.json'])
def test_a_zip_from_a_shared_drive_writes_nothing_elsewhere(name: str, tmp_path: Path):
    path = tmp_path/'a.zip'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('train/best.pt', b'good')
        z.writestr(name, b'bad')
    path = path.rename(tmp_path/f'train.000000.{file_sha(path)[:16]}.zip')
    assert not unpack_stage(path, 'train', tmp_path/'deep'/'run') and not (tmp_path/'deep').exists()


def test_the_mirror_of_a_training_is_not_made_where_drive_has_gone(colab: Drive, tmp_path: Path, capsys: pytest.CaptureFixture):
    from livestock_nb.resume import newest_state, save_state
    folders = [tmp_path/'work', colab.at/'MyDrive'/'checkpoints']
    save_state(dict(epoch=0), folders, 'k'*12)
    colab.drop()
    save_state(dict(epoch=1), folders, 'k'*12)
    assert 'gone' in capsys.readouterr().err and not list(colab.at.iterdir()) and newest_state(folders, 'k'*12)['epoch'] == 1
    colab.mount(str(colab.at))
    colab.cut('*.pt')
    assert newest_state(folders[1:], 'k'*12) is None
    save_state(dict(epoch=2), folders, 'k'*12)
    assert newest_state(folders[1:], 'k'*12)['epoch'] == 2
