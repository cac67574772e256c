"Strata and repeats by hand, mined images, tiles, weighed losses beside a slow version, and tiny trainings with each."
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from test_augment import tiny, train_tiny  # noqa: F401
from test_train import make_dataset, same, weights_of

from livestock_nb.balance import (
    balance_images,
    mine_negatives,
    read_labels,
    repeat_negatives,
    repeat_rare,
    stratum_of,
    tile_labels,
    using,
    weigh_empty,
    write_tiles,
)
from livestock_nb.data import InputError, box_table, image_table, save_table
from livestock_nb.train import TrainingSteps, choose_images, images_to_learn, lay_recipes


# ---- rare strata
@pytest.mark.parametrize(('species', 'n', 'stratum'), [
    (0, 0, 'empty'), (0, 1, 'cow little'), (0, 3, 'cow little'), (0, 4, 'cow medium'), (0, 5, 'cow medium'), (0, 6, 'cow many'),
    (1, 7, 'pig little'), (1, 8, 'pig medium'), (1, 12, 'pig medium'), (1, 13, 'pig many')])
def test_stratum(species, n, stratum):
    assert stratum_of(np.tile([species, .5, .5, .1, .1], (n, 1)).reshape(-1, 5)) == stratum


def test_labels_of_an_image(tmp_path):
    home = make_dataset(tmp_path, count=2)
    (home/'labels/0.txt').write_text('0 .5 .5 .2 .2\n1 .1 .1 .1 .1\n2 .5 .5 .9 .9\n\n')  # the last is a region to ignore
    found = read_labels(home/'images/0.jpg')
    assert found.tolist() == [[0, .5, .5, .2, .2], [1, .1, .1, .1, .1], [2, .5, .5, .9, .9]]
    assert stratum_of(found[1:]) == 'pig little' and stratum_of(found[2:]) == 'empty'
    assert read_labels(home/'images/1.jpg').shape == read_labels(home/'images/none.jpg').shape == (0, 5)


@pytest.mark.parametrize(('power', 'wanted'), [
    (0, dict(a=9, b=4, c=1, empty=2)), (.5, dict(a=9, b=6, c=3, empty=2)), (1, dict(a=9, b=9, c=9, empty=2))])
def test_repeats_by_hand(power, wanted):
    strata = pd.Series(['a']*9 + ['b']*4 + ['c'] + ['empty']*2, [f'{i}.jpg' for i in range(16)])
    times = repeat_rare(strata, power)
    assert times.groupby(strata).sum().to_dict() == wanted
    assert all(np.ptp(t) <= 1 for _, t in times.groupby(strata)), 'no image of a stratum is shown twice more often than another'
    assert repeat_rare(strata.sample(frac=1, random_state=1), power).sort_index().equals(times.sort_index()), 'the order of rows does not matter'
    assert power != .5 or any(not repeat_rare(strata, power, s).equals(times) for s in range(1, 5)), 'another seed picks others'


# ---- negatives
def table_of(n:int=10) -> pd.DataFrame: return image_table([dict(image=f'{i}.jpg', species='pig', width=99, height=99) for i in range(n)])


def found(rows:list) -> pd.DataFrame:
    return box_table([dict(image=f'{i}.jpg', label=label, x1=x, y1=0, x2=x+10, y2=10, confidence=c) for i, label, x, c in rows])


def test_mined_by_hand():
    gold = box_table([dict(image='0.jpg', label='pig', x1=0, y1=0, x2=10, y2=10),
                      dict(image='4.jpg', label='pig', x1=40, y1=0, x2=50, y2=10, ignore=True)])
    predicted = found([(0, 'pig', 0, .9), (0, 'pig', 50, .3), (1, 'cow', 0, .4), (1, 'pig', 50, .3), (2, 'pig', 0, .24), (3, 'pig', 0, .8),
                       (4, 'pig', 40, .9), (77, 'pig', 0, .9)])
    mined = mine_negatives(table_of(), gold, predicted, share=.5)
    assert mined.to_dict('list') == dict(image=['1.jpg', '3.jpg', '0.jpg'], false=[2, 1, 1], worst=[.4, .8, .3], times=[3, 3, 3])
    assert mine_negatives(table_of(), gold, predicted, share=.1).image.tolist() == ['1.jpg']
    shuffled = mine_negatives(table_of().sample(frac=1), gold, predicted.sample(frac=1), share=.5)
    pd.testing.assert_frame_equal(shuffled, mined)
    assert not len(mine_negatives(table_of(), gold, predicted.head(0)))
    with pytest.raises(InputError, match='share is 0'): mine_negatives(table_of(), gold, predicted, share=0)


def test_table_of_negatives(tmp_path):
    paths = pd.Series(['/x/a.jpg', '/x/b.jpg'])
    for name in ('n.csv', 'n.parquet'):
        save_table(pd.DataFrame(dict(image=['b.jpg', 'z.jpg'], times=[3, 2])), tmp_path/name)
        assert repeat_negatives(paths, tmp_path/name).to_dict() == {'/x/a.jpg': 1, '/x/b.jpg': 3}
    for rows, says in ((dict(image=['z.jpg'], times=[2]), 'z.jpg'), (dict(image=['b.jpg']), 'mine_negatives'),
                       (dict(image=['b.jpg'], times=[0]), '100')):
        save_table(pd.DataFrame(rows), tmp_path/'bad.csv')
        with pytest.raises(InputError, match=says): repeat_negatives(paths, tmp_path/'bad.csv')
    with pytest.raises(InputError, match=r'none\.csv'): repeat_negatives(paths, tmp_path/'none.csv')


# ---- tiles
@pytest.mark.parametrize(('box', 'tile', 'wanted'), [
    ([50, 50, 20, 20], (0, 0, 100, 100), [.5, .5, .2, .2]),  # whole
    ([100, 50, 20, 20], (0, 0, 100, 100), [.95, .5, .1, .2]),  # half of it shows
    ([104, 50, 20, 20], (0, 0, 100, 100), [.97, .5, .06, .2]),  # .3: just enough
    ([104.1, 50, 20, 20], (0, 0, 100, 100), None),
    ([150, 50, 20, 20], (0, 0, 100, 100), None),  # elsewhere
    ([150, 50, 20, 20], (100, 0, 200, 100), [.5, .5, .2, .2]),
    ([50, 50, 0, 20], (0, 0, 100, 100), None),  # no area
])
def test_tile_labels(box, tile, wanted):
    out = tile_labels(np.array([[1, *np.array(box)/[200, 100, 200, 100]]]), (200, 100), tile)
    assert out.tolist() == ([] if wanted is None else [[1, *(pytest.approx(v, abs=1e-9) for v in wanted)]])


def test_tiles_show_what_their_labels_say(tmp_path):
    home = make_dataset(tmp_path/'data', count=3)  # 128 × 96, the last without a box
    (home/'labels/2.txt').write_text('2 .5 .5 .9 .9\n')  # a region to ignore, and no animal
    with (home/'labels/1.txt').open('a') as f: f.write('2 .5 .5 1 1\n')  # a region that goes along
    (home/'images/bad.jpg').write_text('no image')
    (home/'labels/bad.txt').write_text('0 .5 .5 .5 .5\n')
    paths = [str(home/f'images/{n}.jpg') for n in ('0', '1', '2', 'bad')]
    cut = write_tiles(paths, tmp_path/'tiles', 64)
    assert {Path(p).stem.partition('_')[0] for p in cut} == {'0', '1'} and len(cut) == len(set(cut)) > 6
    for p in cut:
        assert read_labels(p)[:, 0].tolist() == ([0] if Path(p).name[0] == '0' else [1, 2])
        img, (_, xc, yc, w, h) = cv2.imread(p, 0), read_labels(p)[0]
        y, x = np.nonzero(img > 150)
        assert img.shape == (64, 64)
        assert np.abs([x.min()-(xc-w/2)*64, x.max()+1-(xc+w/2)*64, y.min()-(yc-h/2)*64, y.max()+1-(yc+h/2)*64]).max() <= 2
    assert write_tiles(paths, tmp_path/'large', 128) == [], 'no tile of an image that is not larger'


# ---- the list
def test_list(tmp_path):
    home = make_dataset(tmp_path/'data', count=8)  # train: 0 to 5, boxes of cow, pig, cow, …; valid: 6 and 7
    (home/'labels/4.txt').write_text('1 .5 .5 .2 .2\n')  # two cow images, four pig images
    plain, names = choose_images(home), lambda df: Counter(Path(p).name for p in df.path[df.side == 'train'])
    assert images_to_learn(home, None, {}).equals(plain)
    twice = images_to_learn(home, None, dict(oversample=1))
    assert names(twice) == {'0.jpg': 2, '2.jpg': 2, '1.jpg': 1, '3.jpg': 1, '4.jpg': 1, '5.jpg': 1}
    assert twice[twice.side == 'valid'].path.tolist() == plain[plain.side == 'valid'].path.tolist(), 'the valid side stays as it is'
    save_table(pd.DataFrame(dict(image=['0.jpg', '6.jpg'], times=[3, 3])), tmp_path/'n.csv')
    both = images_to_learn(home, None, dict(oversample=1, negatives=str(tmp_path/'n.csv')))
    assert names(both)['0.jpg'] == 6 and '6.jpg' not in names(both)
    tiled = images_to_learn(home, None, dict(tiles=64), tiles=tmp_path/'lists')
    assert (tiled.origin == 'tiles').sum() > 6 and tiled.side[tiled.origin == 'tiles'].eq('train').all()
    assert images_to_learn(home, None, dict(tiles=64)).equals(plain), 'nothing is written where there is no place for it'


@pytest.mark.parametrize(('given', 'says'), [
    (dict(oversample=2), 'oversample is 2'), (dict(tiles=16), 'tiles is 16'), (dict(tiles=64.5), 'tiles is 64.5')])
def test_list_refused(given, says, tmp_path):
    with pytest.raises(InputError, match=says): balance_images(choose_images(make_dataset(tmp_path)), None, **given)


# ---- empty places
def test_weighed_by_hand():
    plain = lambda scores, wanted: (scores-wanted).abs()
    scores, weighed = torch.full((2, 2, 2), .5), weigh_empty(plain, 4, nc=2)
    wanted = torch.tensor([[[1., 0], [0, 0]], [[0, 0], [0, .2]]])
    assert weighed(scores, wanted).flatten(1).tolist() == [[.5, .5, 2, 2], [2, 2, .5, pytest.approx(.3)]]
    assert weighed(scores[0, 0], wanted[0, 0]).tolist() == [.5, 2], 'objectness: each number is a place'
    assert weighed(torch.full((1, 3), .5), torch.tensor([[1., 0, 0]])).tolist() == [[.5, 2, 2]]
    assert torch.equal(weigh_empty(plain, 1, 2)(scores, wanted), plain(scores, wanted))


@pytest.mark.parametrize('weight', [.25, 1, 3])
def test_ultralytics_loss_beside_a_slow_version(weight, tiny):  # noqa: F811
    "The loss of classes is that of places with an animal, and weight times that of others."
    from ultralytics.cfg import get_cfg
    from ultralytics.utils.loss import v8DetectionLoss

    from livestock_nb.train import load_model
    model = load_model(tiny/'plain'/'best.pt').model.float().train()
    model.args = get_cfg()
    for p in model.parameters(): p.requires_grad_()
    torch.manual_seed(0)
    batch = dict(img=torch.rand(2, 3, 64, 64), batch_idx=torch.tensor([0.]), cls=torch.ones(1, 1), bboxes=torch.full((1, 4), .5))  # one is empty
    preds, seen = model(batch['img']), []

    def spy(scores, wanted):
        each = torch.nn.functional.binary_cross_entropy_with_logits(scores, wanted, reduction='none')
        full = [each[i, j] for i in range(len(wanted)) for j in range(wanted.shape[1]) if wanted[i, j].any()]
        empty = [each[i, j] for i in range(len(wanted)) for j in range(wanted.shape[1]) if not wanted[i, j].any()]
        seen.append((torch.stack(full).sum() + weight*torch.stack(empty).sum())/max(wanted.sum(), 1)*model.args.cls)
        return each
    with using(background_weight=weight):
        criterion = v8DetectionLoss(model)
        criterion.bce = spy
        loss, parts = criterion(preds, batch)
    assert criterion.bce is spy and parts['cls_loss'] == pytest.approx(float(seen[0]), rel=1e-5)
    slope, = torch.autograd.grad(loss[1]/2, preds['scores'], retain_graph=True)
    assert torch.allclose(slope, torch.autograd.grad(seen[0], preds['scores'])[0], atol=1e-6)


@pytest.mark.parametrize('detector', ['nanodet-m', 'yolo-fastest-1.1', 'yolo-fastestv2', 'yolox-nano'])
def test_our_own_criteria(detector):
    from livestock_nb.criteria import criterion_for
    from livestock_nb.train import load_model
    model = load_model(detector).model.train()
    torch.manual_seed(0)
    img = torch.rand(1, 3, 64, 64)
    batch = dict(img=img, batch_idx=torch.tensor([0.]), cls=torch.ones(1, 1), bboxes=torch.full((1, 4), .5))
    preds, out = model(img), []
    for weight in (1., 2., 3.):
        with using(background_weight=weight): out.append(float(criterion_for(model)(preds, batch)[0].sum()))
    assert out[0] == pytest.approx(float(criterion_for(model)(preds, batch)[0].sum())) and out[0] < out[1]
    assert out[2]-out[1] == pytest.approx(out[1]-out[0], rel=1e-3), 'in proportion to the weight'


def test_detectors_with_losses_of_their_own():
    from livestock_nb import criteria
    with pytest.raises(InputError, match='rtdetr'), using(background_weight=2.):
        criteria.check_parts(SimpleNamespace(model=[None], yaml=dict(family='rtdetr')))


@pytest.mark.parametrize('weight', [-1, 101, float('nan')])
def test_weights_that_make_no_sense(weight):
    with pytest.raises(InputError, match='background_weight'), using(background_weight=weight): pass


@pytest.mark.parametrize(('changes', 'says'), [
    ('background_weight=0', 'background_weight is 0'), ('negatives=3', 'negatives is 3'), ('oversample=[1]', 'oversample'), ('tiles=true', 'tiles')])
def test_refused_as_typed(changes, says):
    with pytest.raises(InputError, match=says): lay_recipes({}, changes=changes)


# ---- trainings
@pytest.mark.parametrize('changes', ['oversample=1', 'tiles=64', 'background_weight=3', 'background_weight=2 cls_loss=focal', 'negatives'])
def test_each_switch_changes_the_weights(changes, tiny, monkeypatch):  # noqa: F811
    seen, real = Counter(), TrainingSteps.preprocess_batch

    def note(self, batch):
        seen.update(Path(p).name for p in batch['im_file'])
        return real(self, batch)
    monkeypatch.setattr(TrainingSteps, 'preprocess_batch', note)
    if changes == 'negatives':
        save_table(pd.DataFrame(dict(image=['1.jpg'], times=[3])), tiny/'n.csv')
        changes = f'negatives={tiny/"n.csv"}'
    label = tiny/'data/labels/1.txt'
    before = label.read_text()
    if 'oversample' in changes: label.write_text(before.replace('1 ', '0 ', 1)*4)  # the only image with so many cows; of pigs there are 2, of cows 3
    out = train_tiny(tiny, 'switch', changes)
    label.write_text(before)
    assert not same(weights_of(out), weights_of(tiny/'plain'/'best.pt'))
    assert sorted(p.name for p in out.parent.iterdir()) == ['args.yaml', 'best.pt', 'results.csv'], 'tiles are gone'
    assert len(seen) > 6 if 'tiles' in changes else seen['1.jpg'] == (1 if 'weight' in changes else 3)
