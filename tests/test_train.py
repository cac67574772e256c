"Weights that cannot be had, old hyper-parameter files, the size limit, and two tiny trainings: with a valid set and without one."
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from livestock_nb.data import InputError
from livestock_nb.train import (
    LIMIT,
    check_size,
    load_model,
    pick_device,
    plot_curves,
    read_hyp,
    train_model,
    training_pictures,
)

ROOT = Path(__file__).parents[1]


def make_dataset(folder:Path, full:bool=False, count:int=6) -> Path:
    "A YOLO dataset of noise with one bright rectangle a picture; the last one is a background image."
    rng = np.random.default_rng(0)
    for d in ('images', 'labels'): (folder/d).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        img = rng.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        cv2.rectangle(img, (20+4*i, 20), (70+4*i, 70), (255, 255, 255), -1)
        cv2.imwrite(str(folder/'images'/f'{i}.jpg'), img)
        (folder/'labels'/f'{i}.txt').write_text('' if i == count-1 else f'{i%2} {(45+4*i)/128} {45/96} {50/128} {50/96}\n')
    lists = dict(train=range(count), valid=range(2)) if full else dict(train=range(count-2), valid=range(count-2, count))
    for k, v in lists.items(): (folder/f'{k}.txt').write_text(''.join(f'./images/{i}.jpg\n' for i in v))
    val = 'train.txt' if full else 'valid.txt'
    (folder/'data.yaml').write_text(yaml.safe_dump(dict(path=str(folder), train='train.txt', val=val, names={0: 'cow', 1: 'pig'})))
    return folder


def files(folder:Path) -> dict[str, bytes]: return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    "Settings and fonts in a folder of the test, weights too: nothing of the user's is found there."
    if 'YOLO_CONFIG_DIR' not in os.environ: os.environ['YOLO_CONFIG_DIR'] = str(tmp_path_factory.mktemp('config'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    "A training with a valid set."
    home = tmp_path_factory.mktemp('trained')
    data = make_dataset(home/'data')
    before = files(data)
    train_model(data, home/'out', imgsz=64, epochs=2, batch=2, device='cpu', hyp=dict(optimizer='SGD', lr0=.01))
    assert files(data) == before, 'the dataset folder is only read'
    return home/'out'


# ---- weights
@pytest.mark.parametrize(('weights', 'says'), [
    ('nowhere.pt', 'publishes none of that name'),  # no such name anywhere
    ('yolov5m6u.pt', 'no network'),  # published, but the network is gone
    ('yolov5m6.pt', 'yolov5m6u.pt'),  # YOLOv5's own name for it
    ('/nowhere/best.pt', '/nowhere/best.pt'),  # a path is never downloaded
    ('yolov5q.yaml', 'yolov5q.yaml'),  # no such description
    ('yolov8n-seg.yaml', 'segment'),  # another task
    ('', "''"),
])
def test_weights_that_cannot_be_had(weights, says, tmp_path, monkeypatch):
    import ultralytics.utils
    load_model('yolov5n.yaml')  # the import is not what is timed
    monkeypatch.setattr(ultralytics.utils, 'ONLINE', False)
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    with pytest.raises(InputError) as e: load_model(weights)
    assert says in str(e.value) and str(e.value).count('\n') <= 1
    assert time.perf_counter()-start < 2
    assert not list(tmp_path.iterdir())


def test_failed_download_leaves_nothing(tmp_path, monkeypatch):
    import ultralytics.utils
    from ultralytics.utils import downloads
    load_model('yolov5n.yaml')

    def fail(*args, **kwargs): raise ConnectionError('reset by peer')
    monkeypatch.setattr(ultralytics.utils, 'ONLINE', True)
    monkeypatch.setattr(downloads, 'is_url', lambda *args, **kwargs: True)
    monkeypatch.setattr(downloads, 'safe_download', fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='reset by peer'): load_model('yolov5m6u.pt')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04 half a zip', b'\x80\x02}q\x00.'])
def test_damaged_checkpoint(content, tmp_path):
    path = tmp_path/'best.pt'
    path.write_bytes(content)
    with pytest.raises(InputError, match='best.pt'): load_model(path)


def test_foreign_file(tmp_path):
    (tmp_path/'model.txt').write_text('text')
    with pytest.raises(InputError, match='model.txt'): load_model(tmp_path/'model.txt')


def test_device_that_is_not_here():
    with pytest.raises(InputError, match='cpu'): pick_device('99')


# ---- hyper-parameters
REFERENCE = [  # name, value, fate, new value
    ('optimizer', 'SGD', 'mapped', 'SGD'), ('cos_lr', False, 'mapped', False), ('lr0', .009, 'mapped', .009), ('lrf', .08, 'mapped', .08),
    ('momentum', .94, 'mapped', .94), ('weight_decay', .001, 'mapped', .001), ('warmup_epochs', .11, 'mapped', .11),
    ('warmup_momentum', .77, 'mapped', .77), ('warmup_bias_lr', .0004, 'mapped', .0004), ('box', .02, 'scaled', 3.), ('cls', .2, 'scaled', .2),
    ('cls_pw', .95, 'dropped', None), ('obj', .2, 'dropped', None), ('obj_pw', .5, 'dropped', None), ('iou_t', .2, 'dropped', None),
    ('anchor_t', 4., 'dropped', None), ('fl_gamma', 0., 'dropped', None), ('hsv_h', .009, 'mapped', .009), ('hsv_s', .1, 'mapped', .1),
    ('hsv_v', .9, 'mapped', .9), ('degrees', 0., 'mapped', 0.), ('translate', .1, 'mapped', .1), ('scale', .5, 'mapped', .5),
    ('shear', 0., 'mapped', 0.), ('perspective', 0., 'mapped', 0.), ('flipud', 0., 'mapped', 0.), ('fliplr', .5, 'mapped', .5),
    ('mosaic', 1., 'mapped', 1.), ('mixup', 0., 'mapped', 0.), ('copy_paste', 0., 'mapped', 0.)]


def test_reference_hyp_exact():
    args, report = read_hyp(ROOT/'configs'/'hyp'/'reference.yaml')
    got = [(r['name'], r['value'], r['fate'], r['new']) for r in report.astype(object).where(report.notna(), None).to_dict('records')]
    assert got == REFERENCE
    assert args == {name: new for name, _, fate, new in REFERENCE if fate != 'dropped'}
    assert report[report.fate != 'mapped'].reason.ne('').all(), 'what is not simply carried over says why'


def test_new_names_are_left_alone(tmp_path):
    path = tmp_path/'hyp.yaml'
    path.write_text('optimizer: AdamW\nlr0: 1e-3\nbox: 7.5\ncls_pw: 0.5\nclose_mosaic: 5\nfreeze: 3\n')  # yaml takes 1e-3 for text
    args, report = read_hyp(path)
    assert args == dict(optimizer='AdamW', lr0=.001, box=7.5, cls_pw=.5, close_mosaic=5, freeze=3)
    assert report.fate.eq('mapped').all()


def test_lr0_without_optimizer_gets_sgd(tmp_path):
    path = tmp_path/'hyp.yaml'
    path.write_text('lr0: 0.02\n')
    args, report = read_hyp(path)
    assert args == dict(lr0=.02, optimizer='SGD') and 'auto' in report.reason.iloc[-1]


def test_no_hyp():
    args, report = read_hyp(None)
    assert args == {} and report.empty and list(report) == ['name', 'value', 'fate', 'to', 'new', 'reason']


@pytest.mark.parametrize(('text', 'says'), [
    ('lr: 0.1', 'lr0'),  # near a legal name
    ('epochs: 3', 'epochs'),  # the stage's, not a hyper-parameter
    ('lr0: fast', 'fast'),  # no number
    ('lr0: .nan', 'nan'),
    ('lr0: true', 'True'),
    ('lr0: 2', 'lr0=2'),  # out of ultralytics' range
    ('lr0: [1, 2]', 'lr0'),
    ('lr0:', 'lr0'),  # no value
    ('obj: much', 'much'),  # dropped, but wrong all the same
    ('optimizer: Sgd', 'SGD'),
    ('- lr0', 'name: value'),  # a list
    ('', 'name: value'),  # empty
    ('a: b: c', 'cannot be read'),  # no yaml
])
def test_bad_hyp(text, says, tmp_path):
    path = tmp_path/'hyp.yaml'
    path.write_text(text)
    with pytest.raises(InputError) as e: read_hyp(path)
    assert says in str(e.value) and 'hyp.yaml' in str(e.value)


def test_missing_hyp(tmp_path):
    with pytest.raises(InputError, match='nohyp.yaml'): read_hyp(tmp_path/'nohyp.yaml')


# ---- size
@pytest.mark.parametrize(('size', 'fits'), [(LIMIT, True), (LIMIT+1, False), (71_600_000, True), (97_200_000*2, False)])
def test_size_limit(size, fits):
    if fits: assert check_size(size) == size
    else:
        with pytest.raises(InputError, match='100,000,000'): check_size(size)


def test_too_large_a_model_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr('livestock_nb.train.check_size', lambda size: check_size(size, 2_000_000))
    data = make_dataset(tmp_path/'data')
    with pytest.raises(InputError, match='2,000,000'): train_model(data, tmp_path/'out', imgsz=64, epochs=1, batch=2, device='cpu')
    assert not list((tmp_path/'out').rglob('*.pt'))


# ---- training
def test_training_delivers(trained):
    assert sorted(p.name for p in trained.iterdir()) == ['args.yaml', 'best.pt', 'results.csv']
    import torch
    ckpt = torch.load(trained/'best.pt', weights_only=False)
    assert ckpt['optimizer'] is None and ckpt['ema'] is None and ckpt['model'].names == {0: 'cow', 1: 'pig'}
    assert {p.dtype for p in ckpt['model'].parameters()} == {torch.float16}
    assert check_size((trained/'best.pt').stat().st_size) < 8_000_000
    assert str(trained.parent).encode() not in (trained/'best.pt').read_bytes() + (trained/'args.yaml').read_bytes()
    assert load_model(trained/'best.pt').names == {0: 'cow', 1: 'pig'}


def test_results(trained):
    results = pd.read_csv(trained/'results.csv')
    assert results.epoch.tolist() == [1, 2] and {'train/box_loss', 'val/box_loss', 'metrics/mAP50(B)', 'lr/pg0'} <= set(results)
    assert len(plot_curves(results).axes) == 2


def test_no_valid_set_and_same_bytes(tmp_path, capfd):
    "Trap 17: the last averaged weights, no score; and a run equals its repetition, also in a folder that a killed run left."
    data = make_dataset(tmp_path/'data', full=True)
    (data/'images'/'4.jpg').write_bytes(b'cut off')
    (data/'labels.cache').write_bytes(b'half')
    (tmp_path/'b'/'work'/'weights').mkdir(parents=True)
    (tmp_path/'b'/'work'/'weights'/'last.pt').write_bytes(b'')
    for out in 'ab': train_model(data, tmp_path/out, imgsz=64, epochs=2, batch=2, device='cpu')
    assert files(tmp_path/'a') == files(tmp_path/'b')
    results = pd.read_csv(tmp_path/'a'/'results.csv')
    assert not results.filter(regex='metrics|val').columns.any() and results.filter(like='train/').notna().all(axis=None)
    assert len(plot_curves(results).axes) == 1
    said = ''.join(capfd.readouterr())
    assert said.count('1 of 6 images cannot be used: 4.jpg') == 2 and 'mAP' not in said  # once a training
    assert load_model(tmp_path/'a'/'best.pt').ckpt['train_metrics'].get('fitness') is None


def test_validate_last_only(tmp_path):
    train_model(make_dataset(tmp_path/'data'), tmp_path/'out', imgsz=64, epochs=2, batch=4, device='cpu', validate=False)
    assert pd.read_csv(tmp_path/'out'/'results.csv')['metrics/mAP50(B)'].isna().tolist() == [True, False]


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(InputError, match='data.yaml'): train_model(tmp_path, tmp_path/'out')
    data = make_dataset(tmp_path/'data')
    with pytest.raises(InputError, match='epochs 0'): train_model(data, tmp_path/'out', epochs=0)
    for p in (data/'images').iterdir(): p.unlink()
    with pytest.raises(InputError, match='train.txt'): train_model(data, tmp_path/'out', imgsz=64, epochs=1, batch=2, device='cpu')


def test_pictures_do_not_touch_the_data(tmp_path, capsys):
    data = make_dataset(tmp_path/'data')
    (data/'images'/'3.jpg').write_bytes(b'cut off')
    before = files(data)
    assert len(training_pictures(data, {}, 64, count=3).axes) == 4
    assert files(data) == before
    assert 'cannot be used' not in capsys.readouterr().out, 'the training is what says it, once'
