"Damage is seeded and recorded, no model judges what it has seen, suspects are ranked, and their probabilities hold."
import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use('Agg')

from livestock_nb import damage, silver, suspects
from livestock_nb.data import CORNERS, InputError, box_table, image_table
from livestock_nb.errors import error_kinds
from livestock_nb.score import overlap

IMAGES = image_table([dict(image=f'{i:03}.jpg', species='cow', width=900, height=300) for i in range(80)])
TRUTH = box_table([dict(image=n, label='cow', x1=x, y1=50, x2=x+100, y2=120) for n in IMAGES.image for x in (20, 220, 420, 620)])


def seen(boxes, seed=0, spread=2):
    "What a good detector finds: every animal, and a weak box on nothing in every image."
    rng = np.random.default_rng(seed)
    hits = boxes.assign(confidence=rng.beta(8, 2, len(boxes)), source='model')
    hits[CORNERS] += rng.normal(0, spread, (len(hits), 4))
    nothing = box_table([dict(image=n, label='cow', x1=700, y1=180, x2=800, y2=280, confidence=c, source='model')
                         for n, c in zip(IMAGES.image, rng.beta(2, 8, len(IMAGES)), strict=True)])
    return box_table(pd.concat([hits, nothing]))


# -- damage

TOOLS = dict(drop=lambda b, **k: damage.drop_boxes(b, **k), jitter=lambda b, **k: damage.jitter_boxes(b, IMAGES, **k),
             swap=lambda b, **k: damage.swap_labels(b, **k), add=lambda b, **k: damage.add_boxes(b, IMAGES, **k))


@pytest.mark.parametrize('tool', TOOLS.values(), ids=TOOLS)
def test_damage_is_seeded_recorded_and_on_a_copy(tool):
    before, (first, record) = TRUTH.copy(), tool(TRUTH, share=.25, seed=1)
    pd.testing.assert_frame_equal(TRUTH, before)
    again, other = tool(TRUTH.sample(frac=1, random_state=3), share=.25, seed=1), tool(TRUTH, share=.25, seed=2)
    same = lambda a, b: box_table(a)[['image', 'label', *CORNERS]].equals(box_table(b)[['image', 'label', *CORNERS]])
    assert len(record) == 80 and same(first, again[0]) and same(record, again[1]) and not same(record, other[1])
    assert len(tool(TRUTH, share=0, seed=1)[1]) == 0 and box_table(tool(TRUTH, share=0, seed=1)[0]).equals(TRUTH)


@pytest.mark.parametrize('share', [-.1, 1.1, float('nan')])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(InputError, match='from 0 to 1'): damage.drop_boxes(TRUTH, share)


def test_what_each_tool_does():
    assert len(damage.drop_boxes(TRUTH, .6)[0]) == 128
    moved = damage.jitter_boxes(TRUTH, IMAGES, .5)[1]
    iou = overlap(moved[CORNERS], moved[[f'raw_{c}' for c in CORNERS]]).diagonal()
    assert iou.min() > .3 and iou.max() < .7
    assert set(damage.swap_labels(TRUTH, .5)[1].label) == {'pig'}
    both, added = damage.add_boxes(TRUTH, IMAGES, .5)
    assert len(both) == len(TRUTH) + len(added)
    assert all(overlap(g[CORNERS], TRUTH[TRUTH.image == n][CORNERS]).max() <= .05 for n, g in added.groupby('image'))


def test_only_the_named_labels_are_damaged():
    mixed = TRUTH.assign(label=np.where(TRUTH.index % 2, 'cow', 'pig'))
    assert set(damage.drop_boxes(mixed, .5, ['pig'])[1].label) == {'pig'}


# -- who may judge

def test_no_model_judges_a_group_that_it_has_seen():
    group = pd.Series(dict(a='day', b='day', c='night'))
    suspects.check_apart(['a', 'b'], ['c'], group)
    with pytest.raises(InputError, match='group day'): suspects.check_apart(['a'], ['b'], group)


def test_joined_folds_keep_groups_whole_and_torn_ones_are_refused():
    split = pd.DataFrame(dict(image=list('abcdef'), group=list('xxyyzz'), fold=[0, 0, 1, 1, 2, 2]))
    assert suspects.join_folds(split, 2).fold.tolist() == [0, 0, 1, 1, 0, 0]
    with pytest.raises(InputError, match='several folds'): suspects.join_folds(split.assign(fold=[0, 1, 1, 1, 2, 2]), 3)
    for n in (1, 4):
        with pytest.raises(InputError, match='2 to 3'): suspects.join_folds(split, n)


def test_a_fold_is_not_trained_where_its_group_would_be_seen(tmp_path):
    folds = pd.DataFrame(dict(image=['a.jpg', 'b.jpg'], group='same', fold=[0, 1]))
    with pytest.raises(InputError, match='group same'): suspects.train_fold(0, folds, TRUTH, tmp_path, weights='yolov5n.yaml')
    assert not list(tmp_path.iterdir())


def test_every_image_is_predicted_by_a_model_that_has_not_seen_it(tmp_path):
    import cv2
    for i in range(6): cv2.imwrite(str(tmp_path/f'{i}.jpg'), np.random.default_rng(i).integers(0, 255, (40, 64, 3), np.uint8))
    images = image_table([dict(image=f'{i}.jpg', species='cow', width=64, height=40, zip=str(tmp_path), member=f'{i}.jpg') for i in range(6)])
    boxes = box_table([dict(image=n, label='cow', x1=5, y1=5, x2=40, y2=30) for n in images.image])
    folds = pd.DataFrame(dict(image=images.image, group=list('aabbcc'), fold=[0, 0, 1, 1, 0, 0]))
    training = dict(weights='yolov5n.yaml', imgsz=32, epochs=1, batch=4, device='cpu', seed=0)
    found, problems = suspects.crossfit(images, boxes, folds, tmp_path/'out', **training)
    assert problems.empty and (found.fold == found.image.map(folds.set_index('image').fold)).all()
    for k, seen_by in ((0, '23'), (1, '0145')):
        listed = (tmp_path/'out'/f'fold{k}'/'train.txt').read_text().split()
        assert [p.rpartition('/')[2] for p in listed] == [f'{i}.jpg' for i in seen_by]
    again = suspects.crossfit(images, boxes, folds, tmp_path/'out', **training)[0]
    pd.testing.assert_frame_equal(found, again)
    when = {k: (tmp_path/'out'/f'fold{k}'/'best.pt').stat().st_mtime_ns for k in (0, 1)}
    suspects.crossfit(images, boxes.assign(ignore=boxes.image == '0.jpg'), folds, tmp_path/'out', **training)  # fold 1's model has seen it
    assert [(tmp_path/'out'/f'fold{k}'/'best.pt').stat().st_mtime_ns != t for k, t in when.items()] == [False, True]


# -- two views

def test_the_second_round_learns_with_regions_and_for_longer(monkeypatch, tmp_path):
    rounds, regions = [], TRUTH.assign(ignore=True)
    monkeypatch.setattr(silver, 'with_regions', lambda images, boxes, found: regions if found.image.eq('first').all() else None)
    def crossfit(images, boxes, folds, out, **training):
        rounds.append((out.name, boxes is regions, training))
        return pd.DataFrame(dict(image=[out.name])), None
    monkeypatch.setattr(suspects, 'crossfit', crossfit)
    found, _ = suspects.crossfit_again(IMAGES, TRUTH, None, tmp_path, 36, epochs=12, seed=1)
    assert found.image.tolist() == ['again']
    assert rounds == [('first', False, dict(epochs=12, seed=1)), ('again', True, dict(epochs=36, seed=1))]


def test_a_mirrored_network_gives_the_boxes_of_the_picture():
    from livestock_nb.engine import Network
    raw = np.zeros((1, 6, 2), np.float32)
    raw[0, :, 0] = 10, 20, 4, 6, .9, .1
    seen_by = []
    plain = Network(forward=lambda b: (seen_by.append(b), raw)[1], names={0: 'cow', 1: 'pig'}, backend='torch')
    batch = np.arange(1*3*2*32, dtype=np.float32).reshape(1, 3, 2, 32)
    out = suspects.mirrored(plain)(batch)
    assert out[0, :, 0].round(3).tolist() == pytest.approx([22, 20, 4, 6, .9, .1], abs=1e-3) and (seen_by[0] == batch[..., ::-1]).all()


def test_a_box_that_one_view_alone_shows_loses_half_its_confidence():
    one = box_table([dict(image='a', label='cow', x1=x, y1=0, x2=x+50, y2=40, confidence=.8, source='model') for x in (0, 200)])
    fused = suspects.fuse_views([one, one[:1]])
    assert fused.confidence.round(3).tolist() == [.8, .4] and fused.source.eq('model').all()


# -- ranking

def test_missing_boxes_are_ranked_first():
    kept, gone = damage.drop_boxes(TRUTH, .3, seed=4)
    table = suspects.label_suspects(IMAGES, kept, seen(TRUTH))
    missing = table[table.kind == 'missing'].head(len(gone))
    right = [overlap(g[CORNERS], gone[gone.image == n][CORNERS]).max(axis=1, initial=0) >= .5 for n, g in missing.groupby('image')]
    assert np.concatenate(right).mean() > .95
    assert table.probability.is_monotonic_decreasing and table.probability.between(0, 1).all()
    assert abs(table[table.kind == 'missing'].probability.sum() - len(gone)) < .2*len(gone)


KINDS = dict(misplaced=lambda: damage.jitter_boxes(TRUTH, IMAGES, .1, seed=5), nothing=lambda: damage.add_boxes(TRUTH, IMAGES, .1, seed=5),
             **{'wrong class': lambda: damage.swap_labels(TRUTH, .1, seed=5)})


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_of_fault_is_found(kind):
    boxes, bad = KINDS[kind]()
    table = suspects.label_suspects(IMAGES, boxes, seen(TRUTH))
    first = table[table.kind == kind].head(len(bad))
    wrong = pd.MultiIndex.from_frame(first[['image', *CORNERS]]).isin(pd.MultiIndex.from_frame(bad[['image', *CORNERS]]))
    assert wrong.mean() > .9


def test_good_labels_have_no_likely_suspect():
    table = suspects.label_suspects(IMAGES, TRUTH, seen(TRUTH))
    assert table.probability.sum() < .02*len(TRUTH)


def test_row_order_and_an_empty_prediction_change_nothing():
    kept, found = damage.drop_boxes(TRUTH, .3)[0], seen(TRUTH)
    columns = ['image', 'kind', 'probability', *CORNERS]
    one = suspects.label_suspects(IMAGES, kept, found)[columns]
    pd.testing.assert_frame_equal(one, suspects.label_suspects(IMAGES[::-1], kept, found.sample(frac=1, random_state=1))[columns])
    assert suspects.label_suspects(IMAGES, kept, found[:0]).probability.eq(0).all()


def test_image_scores():
    table = pd.DataFrame(dict(image=['000.jpg', '000.jpg', '001.jpg'], score=[.5, .5, 1.]))
    assert suspects.image_scores(table, IMAGES).head(3).round(6).tolist() == [round(1 - (1 - .5**4)**2, 6), 1, 0]


@pytest.mark.parametrize('share', [.1, .4, .7])
def test_probabilities_recover_the_share_of_faults_and_hold(share):
    rng = np.random.default_rng(8)
    n = 3000
    bad = rng.random(n) < share
    score = np.where(bad, rng.beta(6, 2, n), rng.beta(2, 5, n))
    p = suspects.probabilities(rng.beta(6, 2, 800), score)
    assert abs(p.mean() - share) < .04
    for _, g in pd.DataFrame(dict(p=p, bad=bad)).groupby(pd.cut(p, np.linspace(0, 1, 11)), observed=True):
        if len(g) >= 100: assert abs(g.p.mean() - g.bad.mean()) < .1


# -- who is to blame

def test_lost_ap_is_divided_by_who_is_wrong():
    kept, _ = damage.drop_boxes(TRUTH, .3, seed=4)
    found = seen(TRUTH)
    gold, judged = suspects.blame(*error_kinds(kept, found), suspects.label_suspects(IMAGES, kept, found))
    assert set(judged.blame[judged.error == 'background']) <= set(suspects.BLAME) and judged.blame[judged.error != 'background'].eq('').all()
    lost = suspects.blame_budget(gold, judged, IMAGES.image).set_index(['error', 'blame'])['mean']
    assert lost['background', 'label'] > 5*lost['background', 'model']


@pytest.mark.parametrize('share, low, high', [(0, .97, 1), (.3, .62, .78)], ids=['good labels', '30 % missing'])
def test_the_ceiling_is_what_a_perfect_detector_gets(share, low, high):
    kept = damage.drop_boxes(TRUTH, share, seed=4)[0]
    ceiling = suspects.noise_ceiling(kept, suspects.label_suspects(IMAGES, kept, seen(TRUTH)), draws=10)
    assert ceiling.low.between(low, high).all() and ceiling.ceiling.between(low, high).all()


def test_a_neighbour_s_box_is_no_reason_to_move_a_label():
    cow = lambda x, **more: dict(image='000.jpg', label='cow', x1=x, y1=0, x2=x+100, y2=60) | more
    labels = box_table([cow(0), cow(50)])  # the first animal is not found; the second one's box overlaps its label by a third
    scores = suspects.label_scores(labels, box_table([cow(52, confidence=.9, source='model')]))
    assert scores.misplaced[0] == 0 and 0 < scores.misplaced[1] < .05
    alone = suspects.label_scores(labels[:1], box_table([cow(52, confidence=.81, source='model')]))
    assert alone.misplaced[0] == pytest.approx(.9*(1 - 48/152))


def test_a_hidden_label_is_one_planted_fault_however_many_boxes_lie_on_it():
    found = seen(TRUTH)
    more = found[found.x1 < 100].assign(x1=lambda d: d.x1+30, x2=lambda d: d.x2+30, confidence=.02)  # a second, weak box on each first animal
    assert len(suspects.plant('missing', TRUTH, box_table(pd.concat([found, more])), IMAGES)) == len(suspects.plant('missing', TRUTH, found, IMAGES))
