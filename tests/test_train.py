"Weights that cannot be had, old hyper-parameter files, the size limit, and two tiny trainings: with a valid set and without one."
import os
import sys
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
    RECIPES,
    TrainingSteps,
    check_size,
    choose_images,
    find_weights,
    lay_recipes,
    load_model,
    pick_device,
    plot_curves,
    read_hyp,
    read_recipe,
    short_results,
    train_model,
    training_pictures,
)

ROOT = Path(__file__).parents[1]
TINY = """nc: 2
backbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [16, 3, 2]]]
head: [[[2], 1, Detect, [nc]]]
"""  # a detector that trains in a blink


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
    assert time.perf_counter()-start < 20  # no retry loop
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
    ('epochs: 3', '-p train.epochs=3'),  # the stage's, not a hyper-parameter
    ('lr0: fast', 'fast'),  # no number
    ('lr0: .nan', 'nan'),
    ('lr0: true', 'True'),
    ('lr0: 2', 'lr0=2'),  # out of ultralytics' range
    ('lr0: [1, 2]', 'lr0'),
    ('lr0:', 'lr0'),  # no value
    ('{optimizer: auto, lr0: 0.1}', 'ignore lr0'),  # auto chooses its own
    ('{optimizer: auto, momentum: 0.9}', 'ignore momentum'),
    ('{nbs: 8, accumulate: 2}', 'give one'),
    ('background: 1.5', '1.5'),
    ('background: [1]', '[1]'),
    ('accumulate: 0', 'accumulate is 0'),
    ('accumulate: 1.5', '1.5'),
    ('full: 1', 'true or false'),
    ('pretrained: my.pt', 'my.pt'),
    ('freeze: 2.5', '2.5'),
    ('freeze: -1', '-1'),
    ('cls_pw: 2', 'cls_pw'),
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


# ---- recipes
PLAIN = dict(optimizer='SGD', lr0=.01, warmup_epochs=0, nbs=2)  # a step every batch, at the full rate from the first one on


@pytest.fixture(scope='module')
def tiny(tmp_path_factory) -> Path:
    "A folder with a dataset of 6 train images (one background, more cows than pigs), a second one, a detector and its plain training."
    home = tmp_path_factory.mktemp('tiny')
    (home/'tiny.yaml').write_text(TINY)
    for name in ('data', 'extra'): make_dataset(home/name, count=8)
    (home/'data'/'labels'/'0.txt').write_text('')
    (home/'data'/'labels'/'1.txt').write_text((home/'data'/'labels'/'2.txt').read_text()*2)
    for p in sorted((home/'extra').glob('*/[1-7].*')): p.rename(p.with_name(f'pen{p.name}'))
    (home/'extra'/'train.txt').write_text('./images/0.jpg\n./images/pen3.jpg\n./images/pen7.jpg\n')  # known, with a box, without
    train_tiny(home, 'plain')
    return home


def train_tiny(home:Path, name:str, hyp:dict|None=None, **change) -> Path:
    "The delivered file of two epochs."
    settings = dict(weights=home/'tiny.yaml', imgsz=64, epochs=2, batch=2, device='cpu', hyp=PLAIN if hyp is None else hyp) | change
    return train_model(home/'data', home/name, **settings)


def weights_of(path:Path) -> dict: return load_model(path).model.state_dict()


def same(a:dict, b:dict) -> bool:
    import torch
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('given', [
    *(dict(optimizer=o) for o in ('Adam', 'AdamW', 'MuSGD', 'auto')), dict(changes='freeze=2'),
    *(dict(recipe=r) for r in ('full', 'multi_scale', 'class_weights', 'accumulate', 'background'))], ids=str)
def test_each_switch_changes_the_weights(given, tiny):
    args, _ = lay_recipes(PLAIN, **given)
    out = train_tiny(tiny, 'switch', args)
    assert not same(weights_of(out), weights_of(tiny/'plain'/'best.pt'))
    assert sorted(p.name for p in out.parent.iterdir()) == ['args.yaml', 'best.pt', 'results.csv']


@pytest.mark.parametrize('given', [{}, dict(recipe='pretrained+linear'), dict(optimizer='SGD'), dict(recipe='patience'),
                                   dict(changes='full=false background=1 freeze=0 multi_scale=0 cls_pw=0'), dict(changes='accumulate=1')], ids=str)
def test_what_is_not_turned_on_changes_nothing(given, tiny):
    args, _ = lay_recipes(PLAIN, **given)
    assert same(weights_of(train_tiny(tiny, 'neutral', args)), weights_of(tiny/'plain'/'best.pt'))


def test_scratch_and_pretrained(tiny):
    start = tiny/'plain'/'best.pt'
    one, two = (train_tiny(tiny, f'from_{r}', PLAIN | read_recipe(r) | dict(lr0=0.), weights=start, epochs=1) for r in ('pretrained', 'scratch'))
    w = [weights_of(p)['model.0.conv.weight'] for p in (start, one, two)]
    assert w[0].equal(w[1]) and not w[0].equal(w[2]), 'with a rate of 0 a training ends where it began'


def test_frozen_layers_stay(tiny):
    start = tiny/'plain'/'best.pt'
    before, after = weights_of(start), weights_of(train_tiny(tiny, 'frozen', PLAIN | dict(freeze=2), weights=start))
    moved = {k for k in before if k.endswith('conv.weight') and not before[k].equal(after[k])}
    assert moved and not any(k.startswith(('model.0.', 'model.1.')) for k in moved)
    with pytest.raises(InputError, match='freeze=4'): train_tiny(tiny, 'all_frozen', PLAIN | dict(freeze=4))


def test_steps_sizes_and_class_weights(tiny, monkeypatch):
    "6 images in batches of 2 for 2 epochs: 6 batches, a step after the second, fourth and sixth; sizes and class weights as asked."
    steps, sizes, weighted = [], [], []
    step, batch = TrainingSteps.optimizer_step, TrainingSteps.preprocess_batch

    def count(self):
        steps.append(self.optimizer.param_groups[0]['weight_decay'])
        weighted.append(self.model.class_weights.tolist())
        return step(self)

    def measure(self, b):
        b = batch(self, b)
        sizes.append(b['img'].shape[-1])
        return b
    monkeypatch.setattr(TrainingSteps, 'optimizer_step', count)
    monkeypatch.setattr(TrainingSteps, 'preprocess_batch', measure)
    hyp = dict(optimizer='SGD', warmup_epochs=0, accumulate=2, multi_scale=.5, cls_pw=1., weight_decay=.001)
    train_tiny(tiny, 'counted', hyp, imgsz=128)
    assert steps == [.001]*3, 'accumulation leaves the weight decay as it is'
    assert len(sizes) == 6 and len(set(sizes)) > 1 and all(64 <= s <= 192 for s in sizes)
    assert weighted[0] == pytest.approx([.8, 1.2]), 'three cows and two pigs: 1/3 to 1/2, on average 1'


def test_schedule_and_patience(tiny, monkeypatch):
    seen = []
    out = [train_tiny(tiny, r, PLAIN | read_recipe(r) | dict(lrf=0.), epochs=5, watch=lambda r: seen.append(len(r))) for r in ('linear', 'cosine')]
    assert seen == [1, 2, 3, 4, 5]*2, 'whoever watches sees every epoch'
    line, half = (pd.read_csv(p.with_name('results.csv'))['lr/pg0'].tolist() for p in out)
    assert not same(*map(weights_of, out))
    assert line == pytest.approx([.01, .008, .006, .004, .002]) and half == pytest.approx([.01*(1+np.cos(np.pi*i/5))/2 for i in range(5)], abs=1e-6)

    def validate(self):
        self.best_fitness = 1.
        return {}, 1/(self.epoch+1)  # never better than the first
    monkeypatch.setattr(TrainingSteps, 'validate', validate)
    out = train_tiny(tiny, 'patient', PLAIN | dict(patience=2), epochs=9)
    assert len(pd.read_csv(out.with_name('results.csv'))) == 3


def test_full_has_no_score(tiny):
    out = train_tiny(tiny, 'full', PLAIN | dict(full=True), extra=tiny/'extra')
    assert not pd.read_csv(out.with_name('results.csv')).filter(regex='metrics|val').columns.any()
    assert weights_of(out) and load_model(out).ckpt['train_metrics'].get('fitness') is None


@pytest.mark.parametrize(('given', 'train', 'valid', 'left_out'), [
    (dict(), ['0', '1', '2', '3', '4', '5'], ['6', '7'], []),
    (dict(full=True), ['0', '1', '2', '3', '4', '5', '6', '7'], [], []),
    (dict(background=.0), ['1', '2', '3', '4', '5'], ['6', '7'], ['0']),  # the valid side keeps its background image
    (dict(background=.0, full=True), ['1', '2', '3', '4', '5', '6'], [], ['0', '7']),
    (dict(background=1/6), ['0', '1', '2', '3', '4', '5'], ['6', '7'], []),  # one of six is one sixth
    (dict(extra='extra'), ['0', '1', '2', '3', '4', '5', 'pen3', 'pen7'], ['6', '7'], ['0']),  # the copy of a known image stays out
    (dict(extra='extra', background=.0), ['1', '2', '3', '4', '5', 'pen3'], ['6', '7'], ['0', '0', 'pen7']),
])
def test_which_images(given, train, valid, left_out, tiny):
    given = given | ({'extra': tiny/given['extra']} if 'extra' in given else {})
    chosen = choose_images(tiny/'data', **given)
    names = chosen.path.map(lambda p: Path(p).stem)
    assert [sorted(names[chosen.side == s]) for s in ('train', 'valid', 'left out')] == [train, valid, left_out]


def test_which_background_depends_on_the_seed_alone(tmp_path):
    data = make_dataset(tmp_path/'data', count=40)
    for i in range(30): (data/'labels'/f'{i}.txt').write_text('')
    kept = [choose_images(data, background=.5, seed=s) for s in (0, 1)]
    lines = (data/'train.txt').read_text().splitlines()
    (data/'train.txt').write_text('\n'.join(reversed(lines)))
    assert choose_images(data, background=.5, seed=0).equals(kept[0]) and not kept[1].equals(kept[0])
    assert all((k.side == 'train').sum() == 16 for k in kept)


def test_extra_of_other_classes_is_refused(tiny, tmp_path):
    other = make_dataset(tmp_path/'other')
    (other/'data.yaml').write_text((other/'data.yaml').read_text().replace('pig', 'goat'))
    with pytest.raises(InputError, match='goat'): train_tiny(tiny, 'goats', extra=other)


LAYERS = [  # hyp, what is laid over it, what holds
    ({}, {}, {}),
    (dict(optimizer='SGD', lr0=.009, momentum=.9), dict(optimizer='SGD'), dict(optimizer='SGD', lr0=.009, momentum=.9)),  # the same
    (dict(optimizer='SGD', lr0=.009, momentum=.9), dict(optimizer='AdamW'), dict(optimizer='AdamW', lr0=.001, warmup_bias_lr=0.)),
    (dict(optimizer='SGD', lr0=.009), dict(optimizer='AdamW', changes='lr0=.002'), dict(optimizer='AdamW', lr0=.002, warmup_bias_lr=0.)),
    (dict(optimizer='SGD', lr0=.009), dict(optimizer='auto'), dict(optimizer='auto')),
    ({}, dict(changes='lr0=.02'), dict(optimizer='SGD', lr0=.02)),  # auto would ignore it
    ({}, dict(changes='optimizer=NAdam lr0=1e-3'), dict(optimizer='NAdam', lr0=.001)),
    (dict(nbs=8), dict(recipe='accumulate'), dict(accumulate=4)),
    (dict(accumulate=4), dict(changes='nbs=8'), dict(nbs=8)),
    (dict(cos_lr=True), dict(recipe='cosine+linear'), dict(cos_lr=False)),  # the later one
    ({}, dict(recipe='scratch+freeze', changes='freeze=[0,2]'), dict(pretrained=False, freeze=[0, 2])),
]


@pytest.mark.parametrize(('hyp', 'over', 'holds'), LAYERS)
def test_layers(hyp, over, holds):
    args, report = lay_recipes(hyp, **over)
    assert args == holds
    assert dict(report[report.holds][['name', 'value']].to_numpy().tolist()) == holds


@pytest.mark.parametrize(('over', 'says'), [
    (dict(recipe='cosin'), 'Nearest: cosine'), (dict(recipe='scratch+adamv'), 'adamw'), (dict(recipe='no/such.yaml'), 'no/such.yaml'),
    (dict(optimizer='adamw'), 'AdamW'), (dict(optimizer='NAdam'), 'no customary rate'), (dict(changes='lr0'), 'lr0=.002'),
    (dict(changes='frezze=3'), 'freeze'), (dict(changes='epochs=3'), '-p train.epochs=3'), (dict(changes='obj=1'), 'obj'),
    (dict(optimizer='auto', changes='lr0=.1'), 'ignore lr0'), (dict(changes='lr0=['), 'cannot be read')])
def test_what_no_recipe_may_say(over, says):
    with pytest.raises(InputError) as e: lay_recipes({}, **over)
    assert says in str(e.value) and str(e.value).count('\n') <= 1


def test_a_recipe_of_one_s_own(tmp_path):
    (tmp_path/'a+b.yaml').write_text('lr0: 0.003\noptimizer: RMSProp\n')
    assert lay_recipes({}, tmp_path/'a+b.yaml')[0] == dict(lr0=.003, optimizer='RMSProp')
    (tmp_path/'old.yaml').write_text('obj: 1.0\n')
    with pytest.raises(InputError, match='obj'): lay_recipes({}, tmp_path/'old.yaml')


@pytest.mark.parametrize('name', sorted(p.stem for p in RECIPES.glob('*.yaml')))
def test_packaged_recipes_can_be_read(name):
    assert read_recipe(name) and (RECIPES/f'{name}.yaml').read_text().startswith('# ')


def test_a_rate_without_optimizer_is_not_ignored(tiny):
    "As training arguments from elsewhere, say a search."
    out = train_tiny(tiny, 'rate', {k: v for k, v in PLAIN.items() if k != 'optimizer'})
    assert same(weights_of(out), weights_of(tiny/'plain'/'best.pt'))


def test_another_recipe_is_another_training(tiny, monkeypatch):
    "What a resumed training is known by changes with every switch and with the second dataset."
    keys = []
    monkeypatch.setattr('livestock_nb.train.train_through', lambda weights, args, folders, key, *rest: keys.append(key) or 1/0)
    changes = [{}, *(read_recipe(p.stem) for p in sorted(RECIPES.glob('*.yaml')))]
    for hyp in changes:
        with pytest.raises(ZeroDivisionError): train_tiny(tiny, 'key', dict(optimizer='SGD', lr0=.02, full=False) | hyp)
    with pytest.raises(ZeroDivisionError): train_tiny(tiny, 'key', dict(optimizer='SGD', lr0=.02, full=False), extra=tiny/'extra')
    assert len(set(keys)) == len(changes) + 1


# ---- size
@pytest.mark.parametrize(('size', 'fits'), [(LIMIT, True), (LIMIT+1, False), (71_600_000, True), (97_200_000*2, False)])
def test_size_limit(size, fits):
    if fits: assert check_size(size) == size
    else:
        with pytest.raises(InputError, match='100,000,000'): check_size(size)


def test_too_large_a_model_is_refused_before_training(tmp_path):
    given = dict(imgsz=64, epochs=1, batch=2, device='cpu')
    data = make_dataset(tmp_path/'data')
    with pytest.raises(InputError, match='2,000,000'): train_model(data, tmp_path/'out', hyp=dict(limit=2), **given)
    assert not list((tmp_path/'out').rglob('*.pt'))
    assert train_model(data, tmp_path/'out', hyp=dict(limit=0), **given).stat().st_size > 2_000_000


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
    short = short_results(results)
    assert list(short) == ['train loss', 'valid loss', 'precision', 'recall', 'mAP@.5', 'mAP@.75', 'mAP@.5:.95', 'rate']
    assert short['train loss'].tolist() == pytest.approx(results.filter(like='train/').sum(axis=1).tolist()) and len(str(short).splitlines()[0]) < 80


def test_bf16_on_a_cpu(tmp_path, monkeypatch):
    "The network computes in bfloat16 while it learns, in FP32 while it is validated; what is kept and delivered is as ever."
    import torch
    from ultralytics.nn.modules import Conv
    seen, real = set(), Conv.forward

    def forward(self, x):
        y = real(self, x)
        seen.add((self.training, y.dtype, y.is_contiguous(memory_format=torch.channels_last)))
        return y
    monkeypatch.setattr(Conv, 'forward', forward)
    (tmp_path/'tiny.yaml').write_text(TINY)
    args = dict(weights=tmp_path/'tiny.yaml', imgsz=64, epochs=1, batch=2, device='cpu', mirror=tmp_path/'mirror')
    best = train_model(make_dataset(tmp_path/'data'), tmp_path/'out', hyp=dict(amp='bf16', channels_last=True), **args)
    assert seen - {(False, torch.float32, False)} == {(True, torch.bfloat16, True), (False, torch.float32, True)}
    [path] = (tmp_path/'mirror').iterdir()
    state = torch.load(path, weights_only=True)
    assert {v.dtype for k in ('model', 'ema') for v in state[k].values()} == {torch.float32, torch.int64}
    ckpt = torch.load(best, weights_only=False)
    assert ckpt['train_args']['amp'] == 'bf16' and all(p.is_contiguous() for p in ckpt['model'].parameters())


def test_bf16_on_a_gpu_without(tmp_path, monkeypatch):
    def train_once(*args): raise RuntimeError('bfloat16 autocast requires CUDA with native bfloat16 support and torch>=1.13')
    monkeypatch.setattr('livestock_nb.train.train_once', train_once)
    with pytest.raises(InputError, match='amp is bf16'):
        train_model(make_dataset(tmp_path/'data'), tmp_path/'out', hyp=dict(amp='bf16'), imgsz=64, epochs=1, device='cpu')


def test_no_valid_set_and_same_bytes(tmp_path, capfd):
    "Trap 17: the last averaged weights, no score; and a run equals its repetition, also in a folder that a killed run left."
    data = make_dataset(tmp_path/'data', full=True)
    (data/'images'/'4.jpg').write_bytes(b'cut off')
    with (data/'images'/'3.jpg').open('ab') as f: f.write(b'more')  # ultralytics would save it anew
    before = files(data)
    (data/'labels.cache').write_bytes(b'half')
    (tmp_path/'b'/'work'/'weights').mkdir(parents=True)
    (tmp_path/'b'/'work'/'weights'/'last.pt').write_bytes(b'')
    (tmp_path/'tiny.yaml').write_text(TINY)
    for out in 'ab': train_model(data, tmp_path/out, tmp_path/'tiny.yaml', imgsz=64, epochs=2, batch=2, device='cpu')
    assert files(tmp_path/'a') == files(tmp_path/'b')
    assert files(data) == before | {'labels.cache': b'half'}
    results = pd.read_csv(tmp_path/'a'/'results.csv')
    assert not results.filter(regex='metrics|val').columns.any() and results.filter(like='train/').notna().all(axis=None)
    assert len(plot_curves(results).axes) == 1 and list(short_results(results)) == ['train loss', 'rate']
    said = ''.join(capfd.readouterr())
    assert said.count('1 of 6 images cannot be used: 4.jpg') == 1 and 'mAP' not in said
    assert load_model(tmp_path/'a'/'best.pt').ckpt['train_metrics'].get('fitness') is None


def test_validate_last_only(tmp_path):
    train_model(make_dataset(tmp_path/'data'), tmp_path/'out', imgsz=64, epochs=2, batch=4, device='cpu', validate=False)
    assert pd.read_csv(tmp_path/'out'/'results.csv')['metrics/mAP50(B)'].isna().tolist() == [True, False]


def test_a_file_is_found_without_loading_our_detectors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'livestock_nb.detectors', None)
    (tmp_path/'a.pt').touch()
    assert find_weights(tmp_path/'a.pt') == str(tmp_path/'a.pt') and find_weights('yolov5n.yaml') == 'yolov5n.yaml'
    with pytest.raises(ImportError): find_weights('nanodet-plus-m')


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
