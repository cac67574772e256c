"The catalogue of techniques: rows, switches and page agree; a run is taken up again; one row that crashes does not stop the others."
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from livestock_nb.data import CORNERS, InputError, box_table, image_table
from livestock_nb.train import PARTS, read_changes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def bench():
    spec = importlib.util.spec_from_file_location('techniques', ROOT/'benchmarks'/'techniques.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['techniques'] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def told(bench): return bench.read_rows()


WANTED = dict(  # what the documents recommend, in words that a row's name has
    losses=['BCE', 'focal', 'quality focal', 'smooth L1', 'IoU', 'GIoU', 'DIoU', 'CIoU', 'DFL', 'label smoothing'],
    compression=['magnitude pruning', 'structured pruning', 'low-rank', 'distillation by features', 'distillation by answers', 'INT8 after training',
                 'INT8 in training'])


@pytest.mark.parametrize('group', WANTED)
def test_every_technique_of_a_group_has_a_row(told, group):
    names = [n for n, r in told[1].items() if r['group'] == group]
    assert not [w for w in WANTED[group] if not any(w.lower() in n.lower() for n in names)]


def test_every_row_says_what_it_is_and_where_it_is_from(told):
    for name, r in told[1].items():
        assert r['what'] and r['from'] and (r['paper'] or r['group'] == 'controls' or r['group'] in ('schedules', 'imbalance', 'augmentation')), name
        assert r['refuse'] or r['changes'] or r['call'] or r['weights'] or r['has'], f'{name} neither does anything nor is it refused'


def test_every_switch_is_accepted_or_refused_with_the_reason(bench, told):
    for name, r in told[1].items():
        if not r['call'] and not r['refuse']:
            bench.row_args(told[0]['settings'], r)
            read_changes(r['changes'])
        elif r['changes']:
            try: read_changes(r['changes'])  # what is accepted here is refused when the detector is known
            except InputError as e: assert r['refuse'].removeprefix('it ').split(';')[0] in str(e), name


def test_every_part_of_training_has_a_row(told):
    used = {w.split('=')[0] for r in told[1].values() for w in r['changes'].split()}
    assert not set(PARTS) - used - {'assigner'}, 'assigners are compared in benchmarks/rows.py'


def test_the_page_is_what_rows_and_table_make_of_it(bench, told):
    page = bench.PAGE.read_text(encoding='utf-8')
    assert page == bench.page(told[1], bench.read_table()), 'python benchmarks/techniques.py --page'
    names = re.findall(r'^\| (?!technique|-)(.*?) \|', page, re.M)
    assert names == [n for g in bench.GROUPS for n, r in told[1].items() if r['group'] == g]
    assert all((ROOT/'nbs'/f'{c}.ipynb').exists() for _, chapters in bench.GROUPS.values() for c in chapters)
    for name, r in told[1].items():
        if r['refuse']: assert bench.cell(f'refused: {r["refuse"]}') in page, name


def test_the_table_is_of_rows_that_there_are(bench, told):
    table = bench.read_table()
    assert not set(table.name) - set(told[1]) and (table.shown.astype(bool) <= ((table.low > 0) | (table.high < 0))).all()
    if len(table):
        seen = table.set_index('name').loc[bench.CONTROLS]
        assert (seen.high < 0).all(), 'a table that does not see the controls says nothing of the rest'


@pytest.mark.parametrize('change, said', [
    (dict(group='tricks'), "of the group 'tricks'"), (dict(wat=1), 'has wat; known are'), (dict(against='nothing'), "compared with 'nothing'")])
def test_a_row_that_is_not_understood_is_named(bench, tmp_path, change, said):
    rows = [dict(name='baseline', group='controls', what='', **{'from': ''}), dict(name='a', group='losses', what='', **{'from': ''}) | change]
    (tmp_path/'t.yaml').write_text(yaml.safe_dump(dict(settings={}, quick={}, rows=rows)))
    with pytest.raises(InputError, match=said): bench.read_rows(tmp_path/'t.yaml')


def test_the_trainings_are_an_experiment_that_the_grid_reads(bench, told, tmp_path):
    from livestock_nb.grid import read_experiment
    bench.write_grid(told[1], tmp_path/'grid.yaml')
    plans = read_experiment(tmp_path/'grid.yaml')
    by = {s['notebook']: s for s in plans['GIoU']['stages']}
    assert 'box_loss=giou' in str(by) and not any(told[1][n]['call'] or told[1][n]['refuse'] for n in plans)


# ---- runs

IMAGES = image_table([dict(image=f'{i}.jpg', species='cow', width=640, height=360) for i in range(20)])
GOLD = box_table([dict(image=n, label='cow', x1=x, y1=100, x2=x+100, y2=170) for n in IMAGES.image for x in (20, 220, 420)])


@pytest.fixture
def made_up(bench, monkeypatch):
    "Rows whose trainings are made up: a row finds a share of the boxes, another one crashes."
    from techniques import save_json, save_table
    done = []

    def do_row(home, settings, row, seed, path):
        if row['name'] == 'crash': raise RuntimeError('no memory\nlong story')
        rng = np.random.default_rng([seed, len(row['name'])])
        found = GOLD[rng.random(len(GOLD)) < dict(baseline=.9, good=.95, bad=.4)[row['name']]]
        off = {c: found[c] + rng.normal(0, 3, len(found)) for c in CORNERS}
        found = found.assign(source='model', confidence=rng.uniform(.3, 1, len(found)), **off)
        save_json(dict(seconds=2. if row['name'] == 'bad' else 1.), path.with_suffix('.json'))
        save_table(found, path)
        done.append((row['name'], seed))
    for name, new in dict(do_row=do_row, make_data=lambda *_: None, checkpoint=lambda *_: None, judges=lambda _: (IMAGES, GOLD)).items():
        monkeypatch.setattr(bench, name, new)
    return done


ROWS = {n: dict(name=n, group='losses', what='w', paper='p', changes='', call='', warm=True, refuse='', has=False, weights='', without='', fits='',
                unmeasured='', epochs=0, against='baseline') | {'from': 'f'} for n in ('baseline', 'crash', 'good', 'bad')}
SETTINGS = dict(imgsz=160, frames=64, test_frames=20, epochs=6, seeds=2)


def test_one_crash_stops_no_other_and_what_is_done_is_not_done_again(bench, made_up, tmp_path):
    (tmp_path/'runs').mkdir()
    first = bench.run_rows(tmp_path, SETTINGS, ROWS, 2, list(ROWS))
    assert len(made_up) == 6 and first[2] == dict(crash='RuntimeError: no memory')
    again = bench.run_rows(tmp_path, SETTINGS, ROWS, 2, list(ROWS))
    assert len(made_up) == 6 and all(a.equals(b) for n in first[0] for a, b in zip(first[0][n], again[0][n], strict=True))
    bench.run_rows(tmp_path, SETTINGS | dict(epochs=7), ROWS, 1, ['baseline'])
    assert len(made_up) == 7, 'other settings are other runs'


def test_effects_say_what_is_shown_and_what_one_seed_cannot_show(bench, made_up, tmp_path):
    (tmp_path/'runs').mkdir()
    table = bench.effects(tmp_path, SETTINGS, ROWS, *bench.run_rows(tmp_path, SETTINGS, ROWS, 2, list(ROWS))).set_index('name')
    assert table.index.tolist() == list(ROWS) and table.seeds.tolist() == [2, 0, 2, 2] and table.failed['crash'] == 'RuntimeError: no memory'
    assert table.shown.eq(True).to_dict() == dict(baseline=False, crash=False, good=False, bad=True) and table.high['bad'] < 0
    assert table.difference['baseline'] == 0 and table.time['bad'] == 2
    one = bench.effects(tmp_path, SETTINGS, ROWS, *bench.run_rows(tmp_path, SETTINGS, ROWS, 1, list(ROWS))).set_index('name')
    assert one.high['bad'] < 0 and not one.shown['bad'], 'of a single seed nothing is shown'
    page = bench.page(ROWS, table.reset_index())
    assert 'failed: RuntimeError: no memory' in page and '2 seeds: **shown** | × 2.00 |' in page and 'inside the noise' in page
    assert 'one seed: not judged' in bench.page(ROWS, one.reset_index()) and 'Nothing has been measured' in bench.page(ROWS, pd.DataFrame())


def test_the_seconds_of_an_epoch_are_noted(bench):
    from livestock_nb.train import TrainingSteps
    class Steps(TrainingSteps):
        rows, epoch, scored, csv = (), 0, False, None
    with pytest.MonkeyPatch.context() as m:
        m.setattr('livestock_nb.train.save_table', lambda *_: None)
        with bench.epochs_timed() as marks:
            for _ in range(3): Steps().save_metrics({})
    assert len(marks) == 3 and marks == sorted(marks) and json.dumps(marks)
