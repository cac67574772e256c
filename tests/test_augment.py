"Changes of pixels by hand, boxes that follow, pasted boxes, holes, the adversarial step, and tiny trainings with each switch, killed ones too."
import random
import sys
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from test_resume import assert_same_training
from test_train import PLAIN, TINY, make_dataset, same, weights_of

from livestock_nb import augment
from livestock_nb.augment import (
    CHANGES,
    GUIDE,
    Hole,
    Sometimes,
    add_noise,
    change_colour,
    change_light,
    cover,
    even_light,
    make_hole,
    paste_boxes,
    set_boxes,
    turn_against,
    using,
)
from livestock_nb.data import InputError
from livestock_nb.train import TrainingSteps, lay_recipes, read_data, read_hyp, train_model, training_pictures


@pytest.fixture(scope='module')
def tiny(tmp_path_factory) -> Path:
    "A dataset of 6 train images and a detector; one epoch of plain training."
    home = tmp_path_factory.mktemp('augment')
    (home/'tiny.yaml').write_text(TINY)
    make_dataset(home/'data', count=8)
    train_tiny(home, 'plain')
    return home


def train_tiny(home:Path, name:str, changes:str='', **change) -> Path:
    "The delivered file of an epoch."
    settings = dict(weights=home/'tiny.yaml', imgsz=64, epochs=1, batch=2, device='cpu') | change
    return train_model(home/'data', home/name, hyp=lay_recipes(PLAIN, changes=changes)[0], **settings)


# ---- pixels
@pytest.mark.parametrize(('pixel', 'contrast', 'brightness', 'after'), [
    (100, 0, 0, 100), (100, .2, 0, 120), (100, 0, .2, 151), (100, -.2, -.1, 54),  # 80 − 25.5 = 54.5, cut off
    (250, .2, 0, 255), (10, 0, -.2, 0), (0, .2, 0, 0),  # it stays between black and white; contrast is about black
])
def test_light(pixel, contrast, brightness, after):
    img = np.full((2, 3, 3), pixel, np.uint8)
    assert (change_light(img, contrast, brightness) == after).all() and (img == pixel).all()


@pytest.mark.parametrize(('pixel', 'shift', 'after'), [
    ([0, 0, 200], (0, 0, 0), [0, 0, 200]),
    ([0, 0, 200], (60, 0, 0), [0, 200, 0]),  # 120 degrees on from red: green
    ([0, 0, 200], (-60, 0, 0), [200, 0, 0]),  # and the other way round the circle: blue
    ([0, 0, 200], (0, 0, 20), [0, 0, 220]),
    ([0, 0, 250], (0, 0, 20), [0, 0, 255]),
    ([0, 0, 200], (0, -255, 0), [200, 200, 200]),  # without saturation it is grey
])
def test_colour(pixel, shift, after):
    assert change_colour(np.array([[pixel]], np.uint8), *shift).tolist() == [[after]]


def test_even_light_spreads_a_dark_corner():
    rng = np.random.default_rng(0)
    img = np.repeat(rng.integers(20, 40, (512, 512, 1), dtype=np.uint8), 3, 2)
    spread = [even_light(img, limit).std() for limit in (1, 2, 4)]
    assert img.std() < spread[0] < spread[1] < spread[2], 'the higher the limit, the more'
    assert np.ptp(even_light(img, 2), axis=2).max() <= 2, 'grey stays grey'


def test_noise_has_its_variance():
    random.seed(0)
    img = np.full((200, 200, 3), 128, np.uint8)
    a, b = add_noise(img, 50), add_noise(img, 50)
    assert a.var() == pytest.approx(50, rel=.05) and a.mean() == pytest.approx(128, abs=.1)
    assert (a != b).any() and abs(np.corrcoef(a[..., 0].ravel(), a[..., 1].ravel())[0, 1]) < .02, 'each channel has noise of its own'


def test_strengths_stay_within_the_guide_s_limits():
    seen = {k: [] for k in ('change_light', 'change_colour', 'even_light', 'add_noise')}
    img = np.full((8, 8, 3), 100, np.uint8)
    random.seed(0)
    with patch.multiple(augment, **{k: lambda img, *a, k=k: seen[k].append(a) for k in seen}):
        for _ in range(300):
            for change in CHANGES.values(): change(img)
    limits = {k: (np.min(v, axis=0).round(2).tolist(), np.max(v, axis=0).round(2).tolist()) for k, v in seen.items()}
    assert limits['change_light'] == ([-.2, -.2], [.2, .2]) and limits['change_colour'] == ([-20, -30, -20], [20, 30, 20])
    assert limits['even_light'][0][0] >= 1 and limits['even_light'][1][0] <= 2
    assert limits['add_noise'][0][0] >= 10 and limits['add_noise'][1][0] <= 50
    assert dict(flip=.5, rotate=.3, scale=.5, shift=.3, light=.5, colour=.5, clahe=.1, blur=.1, noise=.1) == GUIDE


@pytest.mark.parametrize('name', CHANGES)
def test_probability(name):
    img = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    random.seed(0)
    changed = sum((Sometimes(CHANGES[name], .3)(dict(img=img))['img'] is not img) for _ in range(500))
    assert 110 < changed < 190, 'three tenths of 500'


# ---- boxes
def test_cover():
    a, b = np.array([[0, 0, 10, 10.], [5, 5, 6, 6]]), np.array([[0, 0, 10, 20.], [8, 8, 12, 12], [3, 3, 3, 3]])
    assert cover(a, b).tolist() == [[.5, .25, 0], [.005, 0, 0]]


def pasted(seed:int, **more) -> tuple:
    "A picture of white with a box, and what came from a grey one with an animal and a neighbour that half shows."
    img, theirs = np.full((50, 200, 3), 255, np.uint8), np.full((50, 200, 3), 90, np.uint8)
    other = (theirs, np.array([[150, 10, 180, 40.], [165, 20, 185, 30]]), np.array([[1], [0]]))
    random.seed(seed)
    return img, *paste_boxes(img, np.array([[0, 0, 60, 50.]]), np.array([[0]]), other, **more)


def test_pasted_boxes_bring_pixels_and_neighbours():
    for seed in range(20):
        img, boxes, cls = pasted(seed, most=1)
        assert boxes[0].tolist() == [0, 0, 60, 50]
        if (boxes[1, 3]-boxes[1, 1]) == 10: continue  # the neighbour was picked, and brings a third of the animal, too little of it
        x1, y1, x2, y2 = boxes[1].astype(int)
        assert (y1, y2, x2-x1) == (10, 40, 30) and x1 >= 0 and x2 <= 200, 'along its row'
        assert (img[y1:y2, x1:x2] == 90).all() and (img == 90).all(2).sum() == 900, 'these pixels and no others'
        assert cover(boxes[1:2], boxes[:1]).max() < .3
        assert boxes[2].tolist() == [x1+15, 20, x1+30, 30] and cls.tolist() == [[0], [1], [0]], 'the neighbour, cut where the rectangle ends'


def test_no_room_no_paste():
    img = np.zeros((40, 40, 3), np.uint8)
    boxes, cls = paste_boxes(img, np.array([[0, 0, 40, 40.]]), np.array([[0]]), (img+9, np.array([[5, 5, 35, 35.]]), np.array([[1]])))
    assert len(boxes) == len(cls) == 1 and not img.any()
    for none in (np.zeros((0, 4)), np.array([[5, 5, 7, 30.]])):  # no box there, or a sliver
        assert len(paste_boxes(img, np.zeros((0, 4)), np.zeros((0, 1)), (img, none, np.zeros((len(none), 1))))[0]) == 0


@pytest.mark.parametrize(('hole', 'left'), [
    ((0, 0, 70, 100), 1),  # .7 of the first box: dropped
    ((0, 0, 69, 100), 2),  # .69: stays
    ((0, 0, 200, 100), 0),
    ((120, 0, 180, 40), 2),  # beside both
])
def test_hole(hole, left):
    labels = set_boxes(dict(img=np.zeros((100, 200, 3), np.uint8)), np.array([[0, 0, 100, 100.], [190, 50, 200, 60]]), np.array([[0], [1]]))
    before = labels['img']
    grey = make_hole(labels, hole, noise=False)
    x1, y1, x2, y2 = hole
    assert len(grey['instances']) == len(grey['cls']) == left and (grey['img'] == 114).all(2).sum() == (x2-x1)*(y2-y1) and not before.any()
    random.seed(0)
    assert len(np.unique(make_hole(labels, hole, noise=True)['img'][y1:y2, x1:x2])) > 200


@pytest.mark.parametrize(('kind', 'low', 'high'), [('cutout', .02, .2), ('erasing', .02, .33)])
def test_sizes_of_holes(kind, low, high):
    torch.manual_seed(0)
    for _ in range(20):
        labels = set_boxes(dict(img=np.zeros((200, 200, 3), np.uint8)), np.zeros((0, 4)), np.zeros((0, 1)))
        y, x = np.nonzero(Hole(kind, 1)(labels)['img'].any(2))
        w, h = np.ptp(x)+1, np.ptp(y)+1
        assert low*.9 < w*h/200**2 < high*1.1 and (abs(w-h) <= 2 if kind == 'cutout' else .28 < w/h < 3.5)


# ---- the pipeline
def first_picture(home:Path, seed:int=0, ours:dict|None=None, **own) -> dict:
    "The first train picture under switches of ours and of ultralytics."
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.utils.torch_utils import init_seeds
    info = read_data(home)
    with using(**ours or {}):
        data = YOLODataset(info['train'], data=info, imgsz=128, augment=True, hyp=get_cfg(overrides=own))
    init_seeds(seed)
    return data[0]


STILL = dict(mosaic=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)


@pytest.mark.parametrize('ours', [dict(augment='guide'), dict(clahe=1), dict(blur=1), dict(noise=1), dict(box_paste=1), dict(cutout=1),
                                  dict(erasing=1)], ids=str)
def test_each_switch_changes_the_batch(ours, tiny):
    plain, other = first_picture(tiny/'data', **STILL), first_picture(tiny/'data', ours=ours, **STILL)
    assert not torch.equal(plain['img'], other['img'])
    assert len(other['bboxes']) > len(plain['bboxes']) or 'box_paste' not in ours
    assert torch.equal(first_picture(tiny/'data', ours=ours, **STILL)['img'], other['img']), 'the same seeds give the same picture'
    assert torch.equal(first_picture(tiny/'data', **STILL)['img'], plain['img']), 'outside all is as before'


@pytest.mark.parametrize('own', [dict(fliplr=1), dict(flipud=1), dict(degrees=15), dict(scale=.2), dict(translate=.1), dict(hsv_v=.5),
                                 dict(mosaic=1), dict(mixup=1), dict(cutmix=1)], ids=str)
def test_ultralytics_switches_change_the_batch(own, tiny):
    assert any(not torch.equal(first_picture(tiny/'data', s, **STILL)['img'], first_picture(tiny/'data', s, **STILL | own)['img']) for s in range(30))


def test_mixup_keeps_all_labels_unweighed(tiny):
    mixed = first_picture(tiny/'data', **STILL | dict(mixup=1))
    assert len(mixed['bboxes']) == len(mixed['cls']) == 2 and not {'weights', 'r'} & mixed.keys()


def test_guide_is_all_there_is(tiny):
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    info = read_data(tiny/'data')
    with using(augment='guide', clahe=.3): data = YOLODataset(info['train'], data=info, imgsz=64, augment=True, hyp=get_cfg())
    steps = data.transforms.transforms
    assert [s.p for s in steps if isinstance(s, Sometimes)] == [.5, .5, .3, .1, .1], 'light, colour, CLAHE as asked for, blur, noise'
    assert 'Albumentations' not in {type(s).__name__ for s in steps}
    assert [(s.direction, s.p) for s in steps if type(s).__name__ == 'RandomFlip'] == [('vertical', 0), ('horizontal', .5)]
    assert next((s.hgain, s.sgain, s.vgain) for s in steps if type(s).__name__ == 'RandomHSV') == (0, 0, 0)
    moved, seen = steps[0].transforms[-1], []
    for _ in range(1000):
        moved.get_params(dict(img=np.zeros((64, 64, 3), np.uint8)))
        seen.append((moved.degrees, moved.scale, moved.translate))
    assert np.mean(np.array(seen) > 0, 0) == pytest.approx([.3, .5, .3], abs=.05) and np.max(seen, 0).tolist() == [15, .2, .1]


def test_boxes_follow(tmp_path):
    "A white rectangle is found where its box is, whatever the guide does with it."
    home = make_dataset(tmp_path/'data', count=4)
    img = np.zeros((96, 128, 3), np.uint8)
    cv2.rectangle(img, (40, 30), (79, 59), (255, 255, 255), -1)
    for i in range(4):
        cv2.imwrite(str(home/f'images/{i}.jpg'), img)
        (home/f'labels/{i}.txt').write_text(f'0 {60/128} {45/96} {40/128} {30/96}\n')
    with patch.dict(GUIDE, light=0, colour=0, clahe=0, blur=0, noise=0):
        places = set()
        for seed in range(25):
            s = first_picture(home, seed, dict(augment='guide'), mosaic=0)
            y, x = np.nonzero(s['img'].numpy().min(0) > 200)
            found = np.array([(x.min()+x.max()+1)/2, (y.min()+y.max()+1)/2, np.ptp(x)+1, np.ptp(y)+1])
            assert np.abs(found - s['bboxes'].numpy()[0]*128).max() < 2.5, seed
            places.add(tuple(found))
    assert len(places) > 10


def test_regions_of_the_page_show_what_is_on(tiny):
    "What the notebook shows is what training sees."
    plain, other = (training_pictures(tiny/'data', hyp, 64, count=2).axes[0].images[0].get_array() for hyp in (PLAIN, PLAIN | dict(noise=1)))
    assert (plain != other).any()


# ---- against itself
class Slope(torch.nn.Module):
    "A loss of the mean of what batch normalisation lets through, and a weight."
    def __init__(self):
        super().__init__()
        self.norm, self.weight = torch.nn.BatchNorm2d(3), torch.nn.Parameter(torch.tensor(2.))

    def forward(self, batch):
        self.norm(batch['img'])
        return (self.weight*batch['img']*torch.tensor([1., -1, 0])[:, None, None]).sum()[None], {}


def test_turned_against_by_hand():
    model, img = Slope(), torch.tensor([.5, .5, .5]).view(1, 3, 1, 1).repeat(2, 1, 2, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    out = turn_against(model, dict(img=img, cls=1), step=.03)
    assert out['img'][:, :, 0, 0].tolist() == [[pytest.approx(.53), pytest.approx(.47), .5]]*2 and out['cls'] == 1
    assert not out['img'].requires_grad and model.weight.grad is None and (img == .5).all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), 'running means and counts are as they were'
    assert turn_against(model, dict(img=img*0+.99), .03)['img'].max() == 1
    assert turn_against(model, dict(img=img), .03, scale=lambda loss: loss*float('inf'))['img'].isfinite().all()


def test_it_raises_the_loss(tiny):
    "One way the loss of a fresh detector rises, the other way it falls."
    from ultralytics.cfg import get_cfg

    from livestock_nb.train import load_model
    torch.manual_seed(0)
    model = load_model(tiny/'tiny.yaml').model.float().train()
    model.args = get_cfg()
    batch = dict(img=torch.rand(2, 3, 64, 64), batch_idx=torch.tensor([0, 1]), cls=torch.zeros(2, 1), bboxes=torch.full((2, 4), .5))
    against = turn_against(model, batch, .001)
    here, there, away = (float(model(b)[0].detach().sum()) for b in (batch, against, batch | dict(img=2*batch['img']-against['img'])))
    assert away < here < there


# ---- trainings
ALL = 'augment=guide box_paste=.5 cutout=.5 erasing=.5 sat=.01'


@pytest.mark.parametrize('changes', ['augment=guide', 'clahe=1', 'blur=1', 'noise=1', 'box_paste=1', 'cutout=1', 'erasing=1', 'sat=.02'])
def test_each_switch_changes_the_weights(changes, tiny):
    assert not same(weights_of(train_tiny(tiny, 'switch', changes)), weights_of(tiny/'plain'/'best.pt'))


def test_off_is_off(tiny):
    off = 'augment="" clahe=0 blur=0 noise=0 box_paste=0 cutout=0 erasing=0 sat=0 ema=true oversample=0 tiles=0'
    assert same(weights_of(train_tiny(tiny, 'off', off)), weights_of(tiny/'plain'/'best.pt'))


def test_nothing_on_imports_nothing(tiny, monkeypatch):
    modules = [f'livestock_nb.{m}' for m in ('augment', 'schedule', 'balance')]
    for m in modules: monkeypatch.delitem(sys.modules, m, raising=False)
    assert same(weights_of(train_tiny(tiny, 'nothing')), weights_of(tiny/'plain'/'best.pt'))
    assert not [m for m in modules if m in sys.modules]
    train_tiny(tiny, 'nothing', 'ema=off')
    assert [m for m in modules if m in sys.modules] == ['livestock_nb.schedule']


@pytest.mark.parametrize('changes', [ALL, 'schedule=restarts ema=.5 background_weight=2 oversample=1 tiles=96 mosaic=1'])
def test_killed_training_ends_the_same(changes, tiny, monkeypatch):
    real, seen = TrainingSteps.preprocess_batch, []

    def dies(self, batch):
        seen.append(1)
        if len(seen) == 5: raise KeyboardInterrupt
        return real(self, batch)
    settings = dict(epochs=3, changes=f'{changes} close_mosaic=1')
    train_tiny(tiny, 'whole', mirror=tiny/'whole_mirror', **settings)
    monkeypatch.setattr(TrainingSteps, 'preprocess_batch', dies)
    with pytest.raises(KeyboardInterrupt): train_tiny(tiny, 'killed', mirror=tiny/'killed_mirror', **settings)
    train_tiny(tiny, 'killed', mirror=tiny/'killed_mirror', **settings)
    assert_same_training(tiny, 'whole', 'killed')
    for name in ('whole', 'killed'):
        for p in (tiny/f'{name}_mirror').glob('*'): p.unlink()


# ---- refusals
@pytest.mark.parametrize(('given', 'says'), [
    (dict(augment='strong'), 'strong'), (dict(clahe=1.5), 'clahe is 1.5'), (dict(noise=-.1), 'noise is -0.1'), (dict(sat=.6), 'sat is 0.6')])
def test_refused(given, says):
    with pytest.raises(InputError, match=says), using(**given): pass


@pytest.mark.parametrize(('changes', 'says'), [
    ('blur=yes', 'blur'), ('copy_paste=.5', 'box_paste'),
    ('cutot=.5', 'cutout'), ('clahe=much', 'clahe'), ('sat=[1]', 'sat'), ('noise={a:1}', 'noise')])
def test_refused_as_typed(changes, says):
    with pytest.raises(InputError, match=says): lay_recipes({}, changes=changes)


def test_the_guide_replaces_what_earlier_layers_say():
    recipe = Path(__file__).parents[1]/'configs/recipes/guide.yaml'
    args, layers = lay_recipes(dict(fliplr=.1, degrees=5, mosaic=.5), recipe)
    assert args == dict(augment='guide', mosaic=0.) and layers[~layers.holds].name.tolist() == ['fliplr', 'degrees', 'mosaic']
    with pytest.raises(InputError, match='in place of fliplr'): lay_recipes({}, recipe, changes='fliplr=.1')


def test_old_copy_paste_is_dropped(tmp_path):
    (tmp_path/'old.yaml').write_text('obj: .7\ncopy_paste: .1\nmixup: .1\n')
    args, report = read_hyp(tmp_path/'old.yaml')
    assert args == dict(mixup=.1) and 'outlines' in report.set_index('name').reason['copy_paste']
