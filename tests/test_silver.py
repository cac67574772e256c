"Gold stays, silver enters only where no gold is, and only what is a proper prediction on a known image."
import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from livestock_nb import silver
from livestock_nb.data import CORNERS, InputError, box_table, image_table, to_yolo

IMAGES = image_table([dict(image=n, species=s, width=400, height=300, zip=f'{s}.zip', member=n) for n, s in
                      [('a.jpg', 'cow'), ('b.jpg', 'cow'), ('empty.jpg', 'cow'), ('p.jpg', 'pig')]])


def box(image='a.jpg', x=0, y=0, w=100, h=80, label='cow', **more):
    return dict(image=image, label=label, x1=x, y1=y, x2=x+w, y2=y+h) | more


GOLD = box_table([box(x=0, y=-9, raw_y1=-12), box('b.jpg'), box('p.jpg', label='pig')])
NOTHING = box_table([])


def added(boxes): return boxes[boxes.source == 'silver']


# -- merging

MERGE = [
    ('free', box(x=250, confidence=.9), 1, 'no gold box there'),
    ('on gold', box(x=10, confidence=.9), 0, 'the animal has its box'),
    ('on gold of another label', box(x=10, confidence=.9, label='pig'), 0, 'any gold box shuts it out'),
    ('a head on gold', box(x=10, y=10, w=20, h=20, confidence=.9), 0, 'IoU .05, but inside'),
    ('a neighbour', box(x=65, confidence=.9), 1, 'IoU .2: two animals that touch'),
    ('unsure', box(x=250, confidence=.49), 0, 'below conf'),
    ('just sure', box(x=250, confidence=.5), 1, 'conf itself enters'),
    ('an image without gold', box('empty.jpg', confidence=.9), 1, 'an image without a box can receive one'),
    ('no area', box(x=250, w=0, confidence=.9), 0, 'nothing'),
]


@pytest.mark.parametrize('row, enters', [(r, n) for _, r, n, _ in MERGE], ids=[n for n, *_ in MERGE])
def test_what_enters(row, enters): assert len(added(silver.merge_silver(GOLD, box_table([row])))) == enters


@pytest.mark.parametrize('row', [r for _, r, *_ in MERGE], ids=[n for n, *_ in MERGE])
def test_gold_is_never_touched(row):
    both = silver.merge_silver(GOLD, box_table([row]))
    pd.testing.assert_frame_equal(both[both.source == 'gold'].reset_index(drop=True), GOLD)
    assert both.dtypes.equals(GOLD.dtypes)


def test_silver_keeps_its_corners_and_confidence():
    new = added(silver.merge_silver(GOLD, box_table([box(x=250, confidence=.75, source='model')]))).iloc[0]
    assert new[CORNERS].tolist() == [250, 0, 350, 80] and new.confidence == .75 and new.source == 'silver' and not new.ignore


def test_of_several_on_one_animal_the_surest_enters():
    rows = [box(x=250, confidence=.7), box(x=255, confidence=.9), box(x=260, y=10, w=20, h=20, confidence=.8), box('b.jpg', x=255, confidence=.6)]
    assert added(silver.merge_silver(GOLD, box_table(rows)))[['image', 'confidence']].to_numpy().tolist() == [['a.jpg', .9], ['b.jpg', .6]]


def test_iou_and_part_are_thresholds():
    row = box_table([box(x=20, y=-9, h=80, confidence=.9)])  # IoU 2/3 with the first gold box, .8 of it covered
    assert len(added(silver.merge_silver(GOLD, row, iou=.65, part=.9))) == 0
    assert len(added(silver.merge_silver(GOLD, row, iou=.7, part=.9))) == 1
    assert len(added(silver.merge_silver(GOLD, row, iou=.7, part=.79))) == 0


def test_a_confidence_for_each_label():
    rows = box_table([box(x=250, confidence=.6), box('p.jpg', x=250, label='pig', confidence=.6)])
    assert added(silver.merge_silver(GOLD, rows, dict(cow=.5, pig=.7))).label.tolist() == ['cow']
    assert added(silver.merge_silver(GOLD, rows, dict(pig=.5))).label.tolist() == ['pig']  # a label without a threshold does not enter


def test_an_ignore_region_and_older_silver_shut_out_too():
    old = box_table([box(ignore=True), box('b.jpg', source='silver', confidence=.6)])
    both = silver.merge_silver(old, box_table([box(x=5, confidence=.9), box('b.jpg', x=5, confidence=.9)]))
    pd.testing.assert_frame_equal(both, old)


def test_merging_twice_adds_nothing():
    rows = box_table([box(x=250, confidence=.9), box(x=255, confidence=.8)])
    once = silver.merge_silver(GOLD, rows)
    pd.testing.assert_frame_equal(silver.merge_silver(once, rows), once)


@pytest.mark.parametrize('gold, found, rows', [(GOLD, NOTHING, 3), (NOTHING, box_table([box(confidence=.9)]), 1), (NOTHING, NOTHING, 0)],
                         ids=['no detections', 'no gold', 'neither'])
def test_merging_nothing(gold, found, rows):
    both = silver.merge_silver(gold, found)
    assert len(both) == rows and both.columns.equals(GOLD.columns)


def test_order_of_rows_never_matters():
    rng = np.random.default_rng(0)
    rows = [box(rng.choice(['a.jpg', 'b.jpg', 'empty.jpg']), x=int(rng.integers(300)), y=int(rng.integers(200)), confidence=rng.choice([.6, .7, .8]))
            for _ in range(90)]
    found = box_table(rows)
    once = silver.merge_silver(GOLD, found)
    mixed = silver.merge_silver(GOLD.sample(frac=1, random_state=2), found.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(once, mixed)
    assert 3 < len(once) < 93


# -- candidates

SPLIT = pd.DataFrame(dict(image=IMAGES.image, side=['valid', 'train', 'train', 'train']))


@pytest.mark.parametrize('species, names', [('cow', ['b.jpg', 'empty.jpg']), ('pig', ['p.jpg']), ('', ['b.jpg', 'empty.jpg', 'p.jpg'])])
def test_only_train_images_receive(species, names):
    assert silver.receiving_images(IMAGES, SPLIT, species).image.tolist() == names
    assert silver.receiving_images(IMAGES, SPLIT.sample(frac=1, random_state=0), species).image.tolist() == names


def test_an_image_without_a_side_receives_nothing():
    assert silver.receiving_images(IMAGES, SPLIT[:2], '').image.tolist() == ['b.jpg']  # such as an unreadable one, which the split leaves out


def test_unknown_species():
    with pytest.raises(InputError, match="'sheep'.*cow, pig"): silver.receiving_images(IMAGES, SPLIT, 'sheep')


def test_candidates_are_of_the_image_s_species():
    found = box_table([box(confidence=.9), box('b.jpg', confidence=.9), box('b.jpg', label='pig', confidence=.9),
                       box('p.jpg', label='pig', confidence=.9), box('p.jpg', label='cow', confidence=.9)])
    ours = silver.candidates(found, silver.receiving_images(IMAGES, SPLIT, ''))
    assert ours[['image', 'label']].to_numpy().tolist() == [['b.jpg', 'cow'], ['p.jpg', 'pig']]
    assert silver.candidates(found, IMAGES[:0]).empty and silver.candidates(NOTHING, IMAGES).empty


# -- what is refused (trap 6)

FOUND = box_table([box(confidence=.9)])
REFUSED = [
    ('class numbers', FOUND.assign(label=[19]), 'labels 19'),
    ('names of another model', FOUND.assign(label='person'), 'labels person'),
    ('no label', FOUND.assign(label=[None]), 'labels'),
    ('rows of a six-column label file', pd.DataFrame([[0, .5, .5, .1, .1, .9]]), 'no column image, label'),
    ('class_id instead of label', FOUND.rename(columns=dict(label='class_id')), 'no column label'),
    ('confidence in per cent', FOUND.assign(confidence=90.), '1 predicted boxes have a confidence outside'),
    ('no confidence', FOUND.assign(confidence=np.nan), 'a.jpg'),
    ('an infinite corner', FOUND.assign(x2=np.inf), 'a.jpg'),
]


@pytest.mark.parametrize('bad, word', [(b, w) for _, b, w in REFUSED], ids=[n for n, *_ in REFUSED])
def test_foreign_predictions_are_refused(bad, word):
    for check in (silver.check_predictions, lambda b: silver.merge_silver(GOLD, b)):
        with pytest.raises(InputError, match=word) as e: check(bad)
        assert str(e.value).count('\n') <= 1


@pytest.mark.parametrize('images, word', [
    (IMAGES[IMAGES.image != 'a.jpg'], '1 predicted images are not in the images table, the first is a.jpg'),
    (pd.concat([IMAGES, IMAGES[:1]]), 'a.jpg is in the images twice'),
], ids=['a picture that is not in the tables', 'a second copy of an image'])
def test_silver_brings_no_pictures(images, word):
    with pytest.raises(InputError, match=word): silver.check_predictions(FOUND, images)


def test_good_predictions_pass():
    assert silver.check_predictions(FOUND, IMAGES) is FOUND and silver.check_predictions(NOTHING, IMAGES) is NOTHING


def test_silver_trains_under_the_same_class_numbers_as_gold():
    both = silver.merge_silver(GOLD, box_table([box(x=250, confidence=.9)]))
    assert set(to_yolo(both, IMAGES).query('image == "a.jpg"').class_id) == {0}


# -- report and picture

def test_report():
    both = silver.merge_silver(GOLD, box_table([box(x=250, confidence=.9), box(x=130, confidence=.8), box('empty.jpg', confidence=.9)]))
    r = silver.silver_report(IMAGES, both, pd.Series(['a.jpg', 'empty.jpg'])).set_index('species')
    assert r.loc['cow'].to_dict() == dict(images=3, train_images=2, with_silver=2, gold=2, silver=3, share=.6)
    assert r.loc['pig'].to_dict() == dict(images=1, train_images=0, with_silver=0, gold=1, silver=0, share=0)


def test_report_without_any_box():
    r = silver.silver_report(IMAGES, NOTHING, IMAGES.image)
    assert r.species.tolist() == ['cow', 'pig'] and r.share.tolist() == [0, 0]


@pytest.mark.parametrize('boxes', [NOTHING, FOUND, box_table([box(label='pig', confidence=.4), box(confidence=.9)])],
                         ids=['none', 'one', 'two labels'])
def test_plot(boxes):
    assert silver.plot_silver(boxes).get_xlim() == (0, 1)
    plt.close('all')
