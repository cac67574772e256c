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


# -- thresholds, regions and images that join

TOLD = pd.DataFrame(dict(label=['cow', 'cow', 'cow', 'pig', 'cow'], kind=['missing']*4 + ['misplaced'], confidence=[.9, .4, .2, .9, .1],
                         probability=[.97, .85, .3, .2, .99]))


def test_thresholds_come_from_probabilities_of_missing_boxes_alone():
    assert silver.tune_thresholds(TOLD) == {'cow': .4} and silver.tune_thresholds(TOLD, .1) == {'cow': .2, 'pig': .9}
    assert silver.tune_thresholds(TOLD[:0]) == {}


HERD = box_table([box(n, x=x) for n in ('a.jpg', 'b.jpg') for x in (0, 150, 300)])


def shifted(well):
    "Sure boxes on the six labels: as many as `well` overlap theirs by .82, the rest by .67."
    return HERD.assign(x1=HERD.x1 + np.where(HERD.index < well, 10, 20), x2=HERD.x2 + np.where(HERD.index < well, 10, 20), confidence=.9)


@pytest.mark.parametrize('well, share, high', [(6, 1, {'cow': .4}), (5, .8333, {'cow': .4}), (4, .6667, {}), (0, 0, {})])
def test_a_label_whose_boxes_are_badly_placed_receives_regions_alone(well, share, high):
    assert silver.well_placed(shifted(well), HERD, {'cow': .4})['cow'] == pytest.approx(share, abs=1e-4)
    assert silver.choose_silver(TOLD, shifted(well), HERD) == (high, {'cow': .2, 'pig': .9})


@pytest.mark.parametrize('found, boxes, why', [
    (shifted(6).assign(confidence=.3), HERD, 'below the threshold'), (shifted(6), HERD.assign(ignore=True), 'regions are no labels'),
    (shifted(6).assign(label='pig'), HERD, 'another label'), (shifted(6)[:0], HERD, 'nothing found'), (shifted(6), HERD[:0], 'nothing labelled')])
def test_boxes_that_lie_on_no_label_tell_nothing(found, boxes, why): assert silver.well_placed(found, boxes, {'cow': .4}) == {'cow': 0}, why


def test_boxes_far_from_every_label_are_no_matter_of_place():
    far = box_table([box('a.jpg', x=60, y=150, confidence=.9)])
    assert silver.well_placed(pd.concat([shifted(6), far], ignore_index=True), HERD, {'cow': .4}) == {'cow': 1}


def test_likely_missing_boxes_become_regions_and_labels_stay(monkeypatch):
    found = box_table([box(x=250, confidence=.9), box(x=400, confidence=.3), box(x=560, confidence=.05)])
    doubt = found.assign(kind='missing', probability=[.9, .15, .02])
    monkeypatch.setattr(silver, 'label_suspects', lambda images, boxes, found: doubt)
    df = silver.with_regions(IMAGES, GOLD, found)
    assert df[df.ignore].x1.tolist() == [250, 400]
    pd.testing.assert_frame_equal(df[~df.ignore].reset_index(drop=True), GOLD)


def test_unsure_boxes_become_regions():
    found = box_table([box(x=250, confidence=.3), box('b.jpg', x=250, confidence=.6), box('p.jpg', x=250, confidence=.95, label='pig'),
                       box('empty.jpg', confidence=.1)])
    new = added(silver.merge_silver(GOLD, found, silver.tune_thresholds(TOLD), unsure=silver.tune_thresholds(TOLD, .1)))
    assert new.set_index('image').ignore.to_dict() == {'a.jpg': True, 'b.jpg': False, 'p.jpg': True}
    report = silver.silver_report(IMAGES, silver.merge_silver(GOLD, found, {'cow': .5}, unsure={'cow': .2}), IMAGES.image).set_index('species')
    assert report.silver.to_dict() == {'cow': 1, 'pig': 0}


def test_an_image_with_too_few_boxes_receives_none():
    found = box_table([box(x=250, confidence=.9), *(box('b.jpg', x=110*k, y=100, confidence=.9) for k in range(3))])
    assert set(added(silver.merge_silver(GOLD, found, .05, least=2)).image) == {'b.jpg'}


def picture(folder, name, seed, boxes=False):
    import cv2
    img = cv2.resize(np.random.default_rng(seed).integers(0, 255, (9, 16, 3), np.uint8), (640, 360), interpolation=cv2.INTER_CUBIC)
    if boxes: cv2.rectangle(img, (200, 100), (330, 220), (0, 0, 255), 3)
    cv2.imwrite(str(folder/name), img)
    return dict(image=name, species='cow', width=640, height=360, zip=str(folder), member=name)


def test_another_picture_may_join_and_a_copy_may_not(tmp_path):
    there = image_table([picture(tmp_path, 'a.jpg', 0)])
    assert len(silver.join_images(there, image_table([picture(tmp_path, 'b.jpg', 1)]))) == 2
    for extra, word in ((dict(picture(tmp_path, 'c.jpg', 0, boxes=True)), 'drawn in'), (picture(tmp_path, 'a.jpg', 0), 'name')):
        with pytest.raises(InputError, match=word): silver.join_images(there, image_table([extra]))
    other = image_table([picture(tmp_path, 'd.jpg', 2)])
    with pytest.raises(InputError, match='file'): silver.join_images(there.assign(sha='1'), other.assign(sha='1'))


def test_extra_images_come_from_zips_and_copies_are_left_out_by_name(tmp_path):
    import zipfile
    there = image_table([picture(tmp_path, 'a.jpg', 0)])
    for k, name in enumerate(('new.jpg', 'copy.jpg')): picture(tmp_path, name, 1 - k)
    (tmp_path/'extra').mkdir()
    with zipfile.ZipFile(tmp_path/'extra'/'[원천]소_bbox.zip', 'w') as z:
        for name in ('new.jpg', 'copy.jpg'): z.write(tmp_path/name, name)
    extra, problems = silver.extra_images(tmp_path/'extra', there)
    assert extra.image.tolist() == ['new.jpg']
    left = problems[problems.kind == 'copy']
    assert left.image.tolist() == ['copy.jpg'] and 'same picture' in left.detail.iloc[0]
    assert [len(t) for t in silver.extra_images(None, there)] == [0, 0]


def test_an_unlabelled_image_joins_with_silver_and_an_empty_one_as_background(tmp_path):
    there, extra = image_table([picture(tmp_path, 'a.jpg', 0)]), image_table([picture(tmp_path, f'{k}.jpg', k) for k in (1, 2)])
    found = box_table([box('1.jpg', confidence=.9), box('1.jpg', x=200, confidence=.3), box('1.jpg', x=300, label='pig', confidence=.9)])
    images, boxes = silver.add_images(there, box_table([box()]), extra, found, .5, .2)
    assert images.image.tolist() == ['1.jpg', '2.jpg', 'a.jpg']
    rows = boxes[['image', 'source', 'ignore']].to_numpy().tolist()
    assert rows == [['1.jpg', 'silver', False], ['1.jpg', 'silver', True], ['a.jpg', 'gold', False]]
    assert len(silver.add_images(there, NOTHING, extra, NOTHING)[1]) == 0


# -- regions in training

def test_regions_travel_as_a_class_of_their_own(tmp_path):
    from livestock_nb import ignore
    boxes = box_table([box(x=0), box(x=200, ignore=True), box('p.jpg', label='pig', x=350, w=100, ignore=True)])
    ignore.write_regions(IMAGES, boxes, tmp_path)
    assert [line[0] for line in (tmp_path/'a.txt').read_text().splitlines()] == ['0', '2']
    assert (tmp_path/'p.txt').read_text().startswith('2 0.9375') and (tmp_path/'empty.txt').read_text() == ''


@pytest.fixture(scope='module')
def detector():
    import torch

    from livestock_nb.train import load_model
    torch.manual_seed(0)
    model = load_model('yolov5n.yaml').model
    from ultralytics.cfg import get_cfg
    model.args = get_cfg()
    return model.train()


def loss_and_slope(model, rows, region_loss):
    "The loss of one random picture with some boxes, and its slope at the class scores of the finest grid."
    import torch
    from ultralytics.utils.loss import v8DetectionLoss

    from livestock_nb.ignore import ignore_loss
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    batch = dict(batch_idx=rows[:, 0], cls=rows[:, 1:2], bboxes=rows[:, 2:], img=torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    preds = model(batch['img'])
    preds['scores'].retain_grad()
    loss, _ = (ignore_loss() if region_loss else v8DetectionLoss)(model)(preds, batch)
    loss.sum().backward()
    return float(loss[1].detach()), preds['scores'].grad[0, :, :64].reshape(-1, 8, 8)


def test_a_region_is_neither_rewarded_nor_punished(detector):
    _, slope = loss_and_slope(detector, [[0, 2, .25, .25, .5, .5]], True)  # the left upper quarter
    assert (slope[:, :4, :4] == 0).all() and (slope[:, 4:, 4:] > 0).all()


def test_without_regions_the_loss_is_ultralytics_own(detector):
    boxes = [[0, 0, .3, .3, .4, .4], [0, 1, .7, .7, .3, .3]]
    assert loss_and_slope(detector, boxes, True)[0] == pytest.approx(loss_and_slope(detector, boxes, False)[0])


def test_a_labelled_animal_inside_a_region_counts(detector):
    inside, alone = [0, 0, .25, .25, .4, .4], [0, 2, .25, .25, .5, .5]
    _, slope = loss_and_slope(detector, [inside, alone], True)
    assert (slope[:, :4, :4] != 0).any()


def test_a_training_with_regions_delivers_a_detector_of_the_species(tmp_path):
    from livestock_nb.train import load_model
    from livestock_nb.trial import train_arm
    images = image_table([picture(tmp_path, f'{i}.jpg', i) for i in range(4)])
    boxes = box_table([box('0.jpg'), box('1.jpg', ignore=True)])
    training = dict(weights='yolov5n.yaml', imgsz=32, epochs=1, batch=4, device='cpu', seed=0)
    best = train_arm(images, boxes, tmp_path/'arm', **training)
    assert list(load_model(best).names.values()) == ['cow', 'pig']
    when = best.stat().st_mtime_ns
    assert train_arm(images, boxes, tmp_path/'arm', **training).stat().st_mtime_ns == when  # what is there is taken
    assert train_arm(images, boxes[:1], tmp_path/'arm', **training).stat().st_mtime_ns != when


# -- the trial

def arms(share, images):
    rng = np.random.default_rng(0)
    gold = box_table([box(n, x=x) for n in images.image for x in (0, 120, 240)])
    find = lambda p: gold[rng.random(len(gold)) < p].assign(source='model', confidence=lambda d: rng.uniform(.3, 1, len(d)))
    return dict(gold=[find(.6), find(.6)], silver=[find(share), find(share)]), gold


@pytest.mark.parametrize('share, taken, word', [(.9, True, 'is taken'), (.6, False, 'no difference'), (.3, False, 'harm')])
def test_silver_is_taken_only_if_it_helps(share, taken, word):
    from livestock_nb import trial
    images = image_table([dict(image=f'{i:02}.jpg', species='cow', width=400, height=300) for i in range(40)])
    runs, gold = arms(share, images)
    said = trial.verdict(trial.compare_arms(runs, gold, images, 200))
    assert said[0] == taken and word in said[1]


def test_a_gap_that_is_none_gives_no_ratio():
    from livestock_nb import trial
    images = image_table([dict(image=f'{i:02}.jpg', species='cow', width=400, height=300) for i in range(40)])
    runs, gold = arms(.6, images)
    assert trial.gap_closed(dict(damaged=runs['gold'], repaired=runs['silver'], complete=runs['gold']), gold, images, resamples=200)['closed'] is None
    runs, gold = arms(.9, images)
    said = trial.gap_closed(dict(damaged=runs['gold'], repaired=runs['silver'], complete=[gold.assign(confidence=.9)]), gold, images, resamples=200)
    assert said['low'] < said['closed'] < said['high'] and said['closed'] == pytest.approx(.75, abs=.15)


def test_gold_stays_where_nothing_was_tried():
    from livestock_nb import trial
    table = trial.run_trial({}, IMAGES, GOLD, None, 0)
    assert trial.verdict(table) == (False, 'Gold stays: silver was not tried (seeds is 0).')


def test_an_arm_must_not_train_on_what_judges_it(tmp_path):
    from livestock_nb import trial
    with pytest.raises(InputError, match='judge'): trial.run_trial(dict(gold=(IMAGES, GOLD)), IMAGES[:1], GOLD, tmp_path, 1, device='cpu', imgsz=32)


def test_without_regions_training_gives_the_same_weights(tmp_path, monkeypatch):
    from livestock_nb import train
    from livestock_nb.ignore import IgnoreRegions
    from livestock_nb.trial import train_arm
    images, training = image_table([picture(tmp_path, f'{i}.jpg', i) for i in range(4)]), dict(imgsz=32, epochs=1, batch=4, device='cpu', seed=0)
    boxes = box_table([box('0.jpg'), box('1.jpg', x=200)])
    mixed = train_arm(images, boxes, tmp_path/'mixed', weights='yolov5n.yaml', **training)
    assert IgnoreRegions in train.TrainingSteps.__mro__
    bare = type('Bare', tuple(b for b in train.TrainingSteps.__bases__ if b is not IgnoreRegions), dict(vars(train.TrainingSteps)))
    monkeypatch.setattr(train, 'TrainingSteps', bare)
    assert train_arm(images, boxes, tmp_path/'bare', weights='yolov5n.yaml', **training).read_bytes() == mixed.read_bytes()


def test_the_dataset_keeps_sides_takes_in_what_joined_and_leaves_out_what_cannot_be_read(tmp_path):
    from livestock_nb import trial
    from livestock_nb.train import read_data
    images = image_table([picture(tmp_path, f'{i}.jpg', i) for i in range(4)])
    (tmp_path/'3.jpg').write_bytes(b'no image')
    sides = pd.DataFrame(dict(image=['0.jpg', '1.jpg'], side=['valid', 'left out']))
    boxes = box_table([box('0.jpg'), box('2.jpg'), box('2.jpg', x=200, ignore=True)])
    trial.write_dataset(images, boxes, sides, tmp_path/'data', 64)
    lists = {n: [line.rpartition('/')[2] for line in (tmp_path/'data'/f'{n}.txt').read_text().split()] for n in ('train', 'valid')}
    assert lists == dict(train=['2.jpg'], valid=['0.jpg']) and read_data(tmp_path/'data')['names'] == {0: 'cow', 1: 'pig', 2: 'ignore'}
    trial.write_dataset(images, boxes[~boxes.ignore], sides, tmp_path/'data', 64)
    assert read_data(tmp_path/'data')['names'] == {0: 'cow', 1: 'pig'}


def test_an_interval_knows_that_trainings_differ():
    from livestock_nb import trial
    images = image_table([dict(image=f'{i:02}.jpg', species='cow', width=400, height=300) for i in range(40)])
    runs, gold = arms(.9, images)
    weak, strong = runs['gold'][0], runs['silver'][0]
    table = trial.compare_arms(dict(gold=[weak, weak, weak], silver=[weak, weak, strong]), gold, images, 200)  # one lucky seed of three
    assert not table.helps.any() and table[table.arm == 'silver'].difference.gt(0).all()
    assert trial.compare_arms(dict(gold=[weak]*3, silver=[strong]*3), gold, images, 200)[lambda d: d.arm == 'silver'].helps.all()
