"""What `livestock clean` removes, and above all what it leaves."""
import os
import time
from pathlib import Path

import pytest

from livestock_nb.clean import clean
from livestock_nb.cli import main
from livestock_nb.data import InputError, save_json, save_text
from livestock_nb.pipeline import locked

KEPT = [
    'record.json', 'submission.csv', 'report.html', 'picture.png', 'notebooks/split.ipynb', 'records/split.json', 'records/train.json',
    'records/infer.json', 'split/split.parquet', 'split/data.yaml', 'split/strata.png', 'split/labels/a.txt', 'farm/test/answer.csv',
    'train/best.pt', 'train/work/last.pt', 'train/images/a.jpg', 'infer/submission.csv', 'infer/images/a.jpg', 'mine/images/a.jpg',
    'mine/data.zip']
GONE = [
    'split/images/a.jpg', 'split/images/deep/b.PNG', 'farm/train/cows.zip', 'sweep/raw/boxes.npz', '.12.submission.tmp.csv',
    'split/images/.12.a.jpg.tmp', 'train/.99.best.tmp.pt', '.s.csv.0123.parts/000000.parquet']


@pytest.fixture
def run(tmp_path: Path) -> Path:
    "A run: split, farm and sweep done long ago, train interrupted, infer done today, and a folder that is no stage."
    home = tmp_path/'runs'/'a'
    for name in KEPT + GONE: save_text(name, home/name)
    for stage, state in dict(split='done', farm='done', sweep='done', train='running', infer='done').items():
        save_json(dict(state=state), home/'records'/f'{stage}.json')
    save_json(dict(stages=[]), home/'record.json')
    for p in home.rglob('*'): os.utime(p, (time.time() - 30*86400,)*2)
    os.utime(home/'records'/'infer.json')
    return home


def names(run: Path) -> set[str]:
    return {p.relative_to(run).as_posix() for p in run.rglob('*') if p.is_file() and p.name != '.lock'}


def test_only_what_can_be_made_again_goes(run: Path):
    before = names(run)
    table = clean(run)
    assert names(run) == before and table.files.sum() == len(GONE) and table.bytes.sum() == sum((run/n).stat().st_size for n in GONE)
    assert clean(run, delete=True).equals(table)
    assert names(run) == before - set(GONE)
    assert clean(run).empty


def test_days_and_clocks(run: Path):
    assert 'infer' in set(clean(run, 0).stage) and set(clean(run, 31).stage) == {'left by kills'}
    for p in run.rglob('*'): os.utime(p, (time.time() + 86400,)*2)  # the clock has gone back since
    assert clean(run).empty


def test_links_are_neither_followed_nor_counted(run: Path, tmp_path: Path):
    save_text('mine', tmp_path/'mine'/'images'/'a.jpg')
    (run/'split'/'linked').symlink_to(tmp_path/'mine', target_is_directory=True)
    (run/'split'/'images'/'link.jpg').symlink_to(tmp_path/'mine'/'images'/'a.jpg')
    os.link(tmp_path/'mine'/'images'/'a.jpg', run/'split'/'images'/'hard.jpg')
    split = clean(run, delete=True).set_index('stage').loc['split']
    assert (tmp_path/'mine'/'images'/'a.jpg').read_text() == 'mine'
    assert split.files == 3 and split.bytes == sum(len(n) for n in GONE[:2])


def test_a_run_that_goes_on_is_left_alone(run: Path):
    before = names(run)
    with locked(run), pytest.raises(InputError, match='Another run'): clean(run, delete=True)
    assert names(run) == before


def test_the_command_asks_first(run: Path, capsys: pytest.CaptureFixture):
    main(['clean', str(run.parent)])
    said = capsys.readouterr().out
    assert 'Would free' in said and '--yes' in said and 'split' in said and (run/GONE[0]).exists()
    main(['clean', str(run), '--keep-days', '7', '--yes'])
    assert 'Freed' in capsys.readouterr().out and not (run/GONE[0]).exists()
    main(['clean', str(run)])
    assert 'nothing to remove' in capsys.readouterr().out
    for words in (['clean', str(run.parent.parent)], ['clean', str(run), '--keep-days', '-1']):
        with pytest.raises(SystemExit, match='livestock: '): main(words)


def test_what_was_removed_is_made_again(tmp_path: Path):
    import yaml
    from test_pipeline import BODY, notebook

    from livestock_nb.pipeline import run_config
    notebook(tmp_path/'0_a.ipynb', BODY + "(out/'images').mkdir(exist_ok=True)\n(out/'images'/'a.jpg').write_bytes(b'pixels')\n")
    (tmp_path/'data').mkdir()
    (tmp_path/'my.yaml').write_text(yaml.safe_dump(dict(stages=[dict(notebook='0_a', params=dict(source='data'))])))
    run = run_config(tmp_path/'my.yaml', tmp_path/'run')
    assert clean(run, 0, delete=True).files.tolist() == [1]
    run_config(tmp_path/'my.yaml', run)
    assert (run/'a'/'images'/'a.jpg').read_bytes() == b'pixels' and (run/'log').read_text() == 'a a '
