"Who is judged, per-class numbers, rankings and fates, with exact numbers."
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from livestock_nb import errors
from livestock_nb.data import CORNERS, InputError, box_table, image_table
from livestock_nb.score import match_boxes, plot_pr

IMAGES = image_table([dict(image=n, species=s, width=400, height=300) for n, s in
                      [('a.jpg', 'cow'), ('b.jpg', 'cow'), ('empty.jpg', 'cow'), ('p.jpg', 'pig')]])
GREY = lambda row: np.full((row.height, row.width, 3), 200, np.uint8)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close('all')


def box(image='a.jpg', x=0, y=0, w=100, h=80, label='cow', **more):
    return dict(image=image, label=label, x1=x, y1=y, x2=x+w, y2=y+h) | more


GOLD = box_table([box(x=0), box(x=150), box('b.jpg'), box('p.jpg', label='pig')])
FOUND = box_table([box(x=0, confidence=.9), box(x=150, confidence=.1), box(x=280, y=200, confidence=.8), box('empty.jpg', confidence=.7),
                   box('p.jpg', label='pig', confidence=.6)])
NOTHING = box_table([])


# -- who is judged

def test_only_valid_images_are_judged():
    split = pd.DataFrame(dict(image=['a.jpg', 'b.jpg', 'p.jpg'], side=['valid', 'train', 'valid']))
    assert errors.valid_images(IMAGES, split).image.tolist() == ['a.jpg', 'p.jpg']


@pytest.mark.parametrize('split, word', [
    (pd.DataFrame(dict(image=IMAGES.image, side='train')), 'every image was trained on'),
    (pd.DataFrame(dict(image=['other.jpg'], side=['valid'])), 'none of the images'),
    (pd.DataFrame(dict(image=['a.jpg'], side=['train'])).head(0), 'every image'),
], ids=['a split of everything', 'a split of other images', 'an empty split'])
def test_no_valid_image_is_said_with_its_remedy(split, word):
    with pytest.raises(InputError, match=word) as e: errors.valid_images(IMAGES, split)
    assert 'full=False' in str(e.value) and str(e.value).count('\n') <= 1


def test_only_boxes_of_people_judge():
    boxes = box_table([box(), box(x=150, source='human'), box(x=200, source='silver'), box(x=250, ignore=True), box('b.jpg'), box('else.jpg')])
    assert errors.judging_boxes(boxes, IMAGES[:1])[['image', 'x1', 'source']].to_numpy().tolist() == [['a.jpg', 0, 'gold'], ['a.jpg', 150, 'human']]


def test_judging_boxes_are_clipped_to_their_own_image():
    clipped = errors.judging_boxes(box_table([box(x=-5, y=-15, w=500)]), IMAGES)
    assert clipped[CORNERS].to_numpy().tolist() == [[0, 0, 400, 65]] and clipped.raw_y1.tolist() == [-15]


# -- per class

def test_per_class_numbers():
    t = errors.per_class(GOLD, FOUND, IMAGES.image).set_index('label')
    assert t.images.to_dict() == dict(cow=2, pig=1, all=4) and t.boxes.to_dict() == dict(cow=3, pig=1, all=4)
    assert t.found.to_dict() == dict(cow=3, pig=1, all=4)
    assert t.precision.to_dict() == pytest.approx(dict(cow=1/3, pig=1, all=1/2))
    assert t.recall.to_dict() == pytest.approx(dict(cow=1/3, pig=1, all=1/2))
    # cow: hit at .9 (recall 1/3, precision 1), false at .8 and .7, hit at .1 (2/3, 2/4): 34 of 101 recalls at 1, 33 at .5
    cow = (34 + 33*.5)/101
    assert t['AP@.5 (coco)'].to_dict() == pytest.approx(dict(cow=cow, pig=1, all=(cow+1)/2))
    assert [c for c in t if c.startswith('AP')] == ['AP@.5 (coco)', 'AP@.75 (coco)']


def test_ap_thresholds_and_the_pixels_of_each_image():
    gold = box_table([box('p.jpg', label='pig', w=100, h=100)])
    off = box_table([box('p.jpg', label='pig', w=100, h=60, confidence=.9)])  # IoU .6 in px, whatever the frame
    assert errors.ap_per_class(gold, off, ['p.jpg']).loc['all'].tolist() == [1, 0]
    assert errors.ap_per_class(gold, off, ['p.jpg'], ious=(.59, .61)).loc['pig'].tolist() == [1, 0]


def test_ap_counts_false_boxes_on_images_without_gold():
    gold, hit = box_table([box()]), box(confidence=.5)
    found = box_table([hit, box('empty.jpg', confidence=.9)])
    assert errors.ap_per_class(gold, found, ['a.jpg', 'empty.jpg']).loc['cow', 'AP@.5 (coco)'] == pytest.approx(.5)
    assert errors.ap_per_class(gold, found, ['a.jpg']).loc['cow', 'AP@.5 (coco)'] == 1


@pytest.mark.parametrize('gold, found, row', [
    (GOLD, NOTHING, dict(images=4, boxes=4, found=0, precision=0, recall=0)),
    (NOTHING, FOUND, dict(images=4, boxes=0, found=4, precision=0, recall=0)),
    (NOTHING, NOTHING, dict(images=4, boxes=0, found=0, precision=0, recall=0)),
], ids=['no detections at all', 'no gold at all', 'neither'])
def test_per_class_of_nothing(gold, found, row):
    last = errors.per_class(gold, found, IMAGES.image).iloc[-1]
    assert last.label == 'all' and last[list(row)].to_dict() == row
    assert last['AP@.75 (coco)'] == 0 if len(gold) else np.isnan(last['AP@.75 (coco)'])


def test_a_label_that_is_only_predicted_warns_of_nothing():
    gold, found = box_table([box()]), box_table([box(label='pig', confidence=.9)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        t = errors.per_class(gold, found, ['a.jpg']).set_index('label')
    assert t.loc['cow', 'AP@.5 (coco)'] == 0 and np.isnan(t.loc['pig', 'AP@.5 (coco)']) and t.loc['pig', 'precision'] == 0


# -- worst images and fates

def test_worst_images_ranks_by_errors_then_name():
    w = errors.worst_images(match_boxes(GOLD, FOUND), IMAGES)
    assert w[['image', 'gold', 'false', 'missed', 'errors']].to_numpy().tolist() == [
        ['a.jpg', 2, 1, 1, 2], ['b.jpg', 1, 0, 1, 1], ['empty.jpg', 0, 1, 0, 1], ['p.jpg', 1, 0, 0, 0]]
    assert w.species.tolist() == ['cow', 'cow', 'cow', 'pig']


@pytest.mark.parametrize('conf, errors_of_a', [(.05, 1), (.25, 2), (.85, 1), (.95, 2)],
                         ids=['both hit, one false', 'one hit unsure', 'false one unsure', 'nothing sure'])
def test_worst_images_counts_at_its_confidence(conf, errors_of_a):
    w = errors.worst_images(match_boxes(GOLD, FOUND), IMAGES, conf).set_index('image')
    assert w.errors['a.jpg'] == errors_of_a
    sure = errors.worst_images(match_boxes(GOLD, FOUND[FOUND.confidence >= conf]), IMAGES, 0).set_index('image')
    pd.testing.assert_frame_equal(w.sort_index(), sure.sort_index())  # one matching serves every confidence


def test_worst_images_without_any_box():
    assert errors.worst_images(match_boxes(NOTHING, NOTHING), IMAGES).errors.tolist() == [0]*4


def test_fates_tell_found_missed_and_predicted_apart():
    f = errors.fates(GOLD, FOUND)
    assert f.groupby(['image', 'fate']).size().to_dict() == {('a.jpg', 'gold'): 1, ('a.jpg', 'missed'): 1, ('a.jpg', 'predicted'): 2,
        ('b.jpg', 'missed'): 1, ('empty.jpg', 'predicted'): 1, ('p.jpg', 'gold'): 1, ('p.jpg', 'predicted'): 1}
    assert f[(f.image == 'a.jpg') & (f.fate == 'missed')].x1.tolist() == [150]  # a gold box's own corners


def test_fates_agree_with_the_ranking():
    f, w = errors.fates(GOLD, FOUND), errors.worst_images(match_boxes(GOLD, FOUND), IMAGES)
    assert (f.fate == 'missed').sum() == w.missed.sum()


def test_fates_need_the_right_label():
    f = errors.fates(box_table([box()]), box_table([box(label='pig', confidence=.9)]))
    assert sorted(f.fate) == ['missed', 'predicted']


@pytest.mark.parametrize('gold, found, fate', [(NOTHING, NOTHING, []), (NOTHING, FOUND[:1], ['predicted']), (GOLD[:1], NOTHING, ['missed'])],
                         ids=['nothing', 'no gold', 'no detections'])
def test_fates_of_nothing(gold, found, fate): assert errors.fates(gold, found).fate.tolist() == fate


# -- counting

def test_counts_include_images_without_boxes():
    c = errors.box_counts(IMAGES, GOLD, FOUND)
    assert c[['gold', 'predicted']].to_numpy().tolist() == [[2, 2], [1, 0], [0, 1], [1, 1]]
    e = errors.count_errors(c)
    assert e.loc['cow'].to_dict() == pytest.approx(dict(images=3, gold=1, predicted=1, off_by=2/3, exact=1/3))


# -- suspects

SUSPECTS = [
    ('free', box(x=300, y=200, confidence=.9), True, 'no gold box near'),
    ('same place', box(x=5, confidence=.9), False, 'the gold animal itself'),
    ('another label', box(x=5, confidence=.9, label='pig'), False, 'gold of any label is an animal that somebody labelled'),
    ('a head', box(x=10, y=10, w=20, h=20, confidence=.9), False, 'IoU .05, but all of it inside a gold box'),
    ('half hidden', box(x=60, confidence=.9), True, 'IoU .25 and .4 of it covered: a neighbour'),
    ('unsure', box(x=300, y=200, confidence=.2), False, 'below conf'),
    ('without area', box(x=300, y=200, w=0, confidence=.9), False, 'nothing to look at'),
    ('an image without gold', box('empty.jpg', confidence=.9), True, 'no label at all'),
    ('gold elsewhere', box('b.jpg', x=150, confidence=.9), True, 'the gold box at that place is on another image'),
]


@pytest.mark.parametrize('row, enters', [(r, e) for _, r, e, _ in SUSPECTS], ids=[n for n, *_ in SUSPECTS])
def test_which_box_is_suspect(row, enters):
    assert len(errors.suspects(box_table([row]), box_table([box(), box('b.jpg')]))) == enters


def test_suspects_are_ranked_and_say_how_near_gold_is():
    s = errors.suspects(box_table([box(x=60, confidence=.7), box('empty.jpg', confidence=.9)]), GOLD[:1])
    assert s.image.tolist() == ['empty.jpg', 'a.jpg']
    assert s.iou.tolist() == pytest.approx([0, .25]) and s.covered.tolist() == pytest.approx([0, .4])


def test_suspects_without_any_box():
    assert errors.suspects(NOTHING, GOLD).empty and errors.suspects(FOUND, NOTHING).shape[0] == 4


def test_nearest_keeps_the_index():
    some = FOUND[::-1]
    near = errors.nearest(some, GOLD)
    assert near.index.equals(some.index) and near.iou.max() == 1 and errors.nearest(some, NOTHING).to_numpy().sum() == 0


@pytest.mark.parametrize('a, b, share', [
    ([0, 0, 10, 10], [0, 0, 100, 100], 1), ([0, 0, 100, 100], [0, 0, 10, 10], .01), ([0, 0, 10, 10], [5, 0, 15, 10], .5),
    ([0, 0, 10, 10], [10, 0, 20, 10], 0), ([0, 0, 0, 10], [0, 0, 10, 10], 0),
], ids=['inside', 'around', 'half', 'touching', 'no area'])
def test_coverage(a, b, share): assert errors.coverage([a], [b]).tolist() == [[share]]


def test_strongest_keeps_one_box_an_animal_and_its_part_goes():
    rows = [box(x=0, confidence=.8), box(x=10, confidence=.9), box(x=20, y=10, w=20, h=20, confidence=.7), box(x=200, confidence=.3)]
    assert errors.strongest(box_table(rows)).confidence.tolist() == [.9, .3]


def test_strongest_keeps_neighbours_and_other_images():
    rows = [box(x=0, confidence=.8), box(x=60, confidence=.9), box('b.jpg', x=0, confidence=.7)]
    assert len(errors.strongest(box_table(rows))) == 3


def test_strongest_looks_across_labels():
    assert errors.strongest(box_table([box(confidence=.6), box(label='pig', confidence=.7)])).label.tolist() == ['pig']


def test_order_of_rows_never_matters():
    rng = np.random.default_rng(0)
    rows = [box(rng.choice(['a.jpg', 'b.jpg']), x=int(rng.integers(300)), y=int(rng.integers(200)), confidence=rng.choice([.5, .6]))
            for _ in range(80)]
    found = box_table(rows)
    mixed = found.sample(frac=1, random_state=1)
    for f in (lambda b: errors.suspects(b, GOLD), lambda b: errors.per_class(GOLD, b, IMAGES.image),
              lambda b: errors.worst_images(match_boxes(GOLD, b), IMAGES)):
        pd.testing.assert_frame_equal(f(found).reset_index(drop=True), f(mixed).reset_index(drop=True))
    assert len(errors.suspects(found, GOLD)) < 80


def test_strongest_of_very_many_boxes():
    one = box_table([box(x=x, w=10, h=10, confidence=.5) for x in range(0, 380, 20)])
    many = pd.concat([one.assign(image=f'{i}.jpg') for i in range(150)], ignore_index=True)  # torchvision takes another way above 1000 boxes
    twice = pd.concat([many, many.assign(confidence=.4)], ignore_index=True)
    assert errors.strongest(twice).confidence.tolist() == [.5]*len(many)


# -- pictures of nothing are still pictures

@pytest.mark.parametrize('gold, found', [(GOLD, FOUND), (GOLD, NOTHING), (NOTHING, FOUND), (NOTHING, NOTHING)],
                         ids=['both', 'no detections', 'no gold', 'neither'])
def test_pictures(gold, found):
    s = errors.suspects(found, gold)
    fig = errors.show_crops(IMAGES, gold, s.head(3), read=GREY)
    assert sum(len(ax.images) for ax in fig.axes) == min(3, len(s))
    errors.plot_counts(errors.box_counts(IMAGES, gold, found))
    plot_pr(match_boxes(gold, found))


def test_a_crop_is_a_window_around_its_box():
    picked = box_table([box(x=150, y=100, w=40, h=30, confidence=.9), box(x=0, y=0, w=40, h=30, confidence=.8)])
    fig = errors.show_crops(IMAGES, box_table([box(x=160, y=90)]), errors.suspects(picked, NOTHING), read=GREY)
    middle, corner = fig.axes[:2]
    assert middle.images[0].get_array().shape[:2] == (91, 121) and corner.images[0].get_array().shape[:2] == (61, 81)  # 3 × the box, inside the frame
    assert [p.get_xy() for p in middle.patches] == [(50, 20), (40, 30)]  # gold, then the suspect alone
    assert [p.get_xy() for p in corner.patches] == [(160, 90), (0, 0)]


# -- the error budget

def one(kind):
    "A single predicted box with an error of one kind, on one gold cow at 0, and a pig far off."
    rows = dict(localisation=[box(x=40, confidence=.9)], both=[box(x=40, confidence=.9, label='pig')], missed=[box(x=2, confidence=.9)],
                duplicate=[box(x=0, confidence=.9), box(x=2, confidence=.8)], background=[box(x=250, y=200, confidence=.9)])
    rows['class'] = [box(x=2, confidence=.9, label='pig')]
    return box_table([box(x=0), *([box('b.jpg')] if kind == 'missed' else [])]), box_table(rows[kind])


@pytest.mark.parametrize('kind', errors.ERRORS)
def test_each_error_has_its_name(kind):
    gold, found = errors.error_kinds(*one(kind))
    named = set(found.error) | set(gold.error)
    assert named - {'', 'missed'} == {kind} - {'missed'} and ('missed' in named) == (kind in ('missed', 'background', 'both'))


@pytest.mark.parametrize('kind, gives_back', [('localisation', 1), ('class', 1), ('duplicate', 0), ('background', 0), ('missed', .495)])
def test_mending_gives_back_its_ap(kind, gives_back):
    budget = errors.error_budget(*errors.error_kinds(*one(kind)), ['a.jpg', 'b.jpg']).set_index('error')
    assert budget.loc[kind, 'mean'] == pytest.approx(gives_back, abs=.01) and budget.loc[kind, 'count'] == 1


def test_a_better_iou_is_asked_of_a_better_threshold():
    gold, found = box_table([box(x=0)]), box_table([box(x=20, confidence=.9)])  # IoU .67
    assert [errors.error_kinds(gold, found, iou)[1].error[0] for iou in (.5, .75)] == ['', 'localisation']


def test_the_budget_of_all_rows_does_not_depend_on_their_order():
    kinds, again = errors.error_kinds(GOLD, FOUND), errors.error_kinds(GOLD[::-1], FOUND.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(*(errors.error_budget(*k, IMAGES.image) for k in (kinds, again)))


def test_parts_of_the_budget():
    parts = errors.budget_parts(*errors.error_kinds(GOLD, FOUND), IMAGES.assign(camera=['1', '1', '2', '']))
    assert set(parts.by) == {'size', 'count', 'camera'} and parts[parts.by == 'camera'].part.unique().tolist() == ['1']
    assert errors.budget_parts(*errors.error_kinds(NOTHING, NOTHING), IMAGES).empty


def test_an_empty_prediction_misses_everything():
    gold, found = errors.error_kinds(GOLD, NOTHING)
    assert gold.error.eq('missed').all() and found.empty
    assert errors.error_budget(gold, found, IMAGES.image).set_index('error')['count']['missed'] == len(GOLD)


def test_confusion():
    table = errors.confusion(GOLD, box_table([*FOUND.to_dict('records'), box(x=152, confidence=.5, label='pig')]))
    assert table.loc['cow'].tolist() == [1, 1, 1] and table.loc['pig'].tolist() == [0, 1, 0] and table.loc['nothing'].tolist() == [2, 0, 0]


def test_a_calibrated_model_has_no_calibration_error():
    rows = pd.DataFrame(dict(label='cow', confidence=np.repeat([.25, .75], 40), fate=['hit']*10 + ['false']*30 + ['hit']*30 + ['false']*10))
    assert errors.reliability(rows, 0, 10).ece.max() < 1e-9
    assert errors.reliability(rows.assign(confidence=.95), 0, 10).ece.max() == pytest.approx(.45)
    assert errors.reliability(rows[:0]).empty
