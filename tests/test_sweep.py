"Candidates kept once, and every setting computed from them: the same as computing it afresh."
from inspect import signature

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from livestock_nb.data import CORNERS, SPECIES, InputError, box_table, image_table
from livestock_nb.engine import detect, open_network
from livestock_nb.infer import images_from
from livestock_nb.nms import KINDS, suppress
from livestock_nb.score import average_precision, draw_images, match_table, operating_point
from livestock_nb.sweep import (
    FLOOR,
    TOP,
    RawBoxes,
    best_cells,
    cell,
    collect,
    kept_boxes,
    load_raw,
    look_at,
    made_up_raw,
    picks,
    plot_sweep,
    rank_cells,
    raw_boxes,
    save_raw,
    sweep,
    sweep_panel,
    tensors,
)
from livestock_nb.train import load_model

CELLS = [(.32, .001), (.5, .25), (.68, .05), (.89, .6)]


@pytest.fixture(scope='module')
def farm():
    "Ten images, both species in some, a crowd in others, one without gold and one that is smaller."
    rng = np.random.default_rng(1)
    images = image_table([dict(image=f'{i}.jpg', species='cow', width=1920 if i else 1280, height=1080 if i else 960) for i in range(10)])
    at, size = rng.uniform(0, (1000, 600), (54, 2)), rng.uniform(150, 300, (54, 2))
    at[:24] /= 3
    corners = pd.DataFrame(np.hstack([at, at+size]), columns=CORNERS)
    gold = box_table(corners.assign(image=[f'{i//6}.jpg' for i in range(54)], label=[SPECIES[i % 9 == 0] for i in range(54)]))
    return images, gold, made_up_raw(images, gold, each=20)


@pytest.fixture(scope='module')
def detector():
    torch.manual_seed(0)
    model = load_model('yolov5n.yaml')
    for i, branch in enumerate(model.model.model[-1].cv3):  # only cow and pig, sure enough to be kept
        branch[-1].bias.data[:] = -20
        branch[-1].bias.data[:2] = -3 + .1*i
    model.model.names = dict(enumerate([*SPECIES, *(f'other {i}' for i in range(78))]))
    for m in model.model.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = None
    with torch.no_grad(): model.model.train()(torch.rand(8, 3, 96, 96))  # else next to nothing of the picture reaches the head
    return open_network(model, device='cpu')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for i, (w, h) in enumerate([(160, 96), (160, 96), (130, 170), (320, 200)]):
        pixels = np.random.default_rng(i).integers(0, 255, (h//8, w//8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder/f'{i}.jpg'), cv2.resize(pixels, (w, h)))
    (folder/'broken.jpg').write_bytes(b'no image')
    return images_from(folder)


@pytest.fixture(scope='module')
def raw_of_network(detector, pictures): return raw_boxes(pictures, detector, imgsz=96)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('iou, conf', CELLS)
def test_a_cell_equals_the_rule_applied_afresh(farm, kind, iou, conf):
    images, _, raw = farm
    boxes, fresh = cell(raw, kind, iou, conf), []
    for frame, rows in raw.boxes.groupby('frame'):
        b, s, k = suppress(*tensors(rows), iou, kind, conf)
        size = raw.frames.loc[frame, ['width', 'height']].to_list()*2
        fresh.append(pd.DataFrame(b.numpy().clip(0, size).astype(float), columns=CORNERS).assign(
            image=raw.frames.image[frame], label=[SPECIES[i] for i in k], confidence=s.numpy().astype(float), source='model'))
    pd.testing.assert_frame_equal(boxes, box_table(pd.concat(fresh)), check_exact=kind not in ('voting', 'fusion'), rtol=1e-6)
    assert len(boxes)


OTHERS = [k for k in KINDS if k != 'hard'] if 'kind' in signature(detect).parameters else []


@pytest.mark.parametrize('kind', ['hard', *OTHERS])
@pytest.mark.parametrize('iou, conf', [(.32, .001), (.5, .03), (.68, .001), (.89, .08)])
def test_a_cell_equals_a_prediction_at_that_setting(raw_of_network, detector, pictures, kind, iou, conf):
    raw, _ = raw_of_network
    found = dict(detect(pictures, detector, imgsz=96, conf=conf, iou=iou, **dict(kind=kind) if OTHERS else {}))
    rows = [dict(zip([*CORNERS, 'confidence'], map(float, r[:5]), strict=True), image=name, label=SPECIES[int(r[5])], source='model')
            for name, what in found.items() if not isinstance(what, InputError) for r in what]
    boxes = cell(raw, kind, iou, conf)
    pd.testing.assert_frame_equal(boxes, box_table(rows), check_exact=kind not in ('voting', 'fusion'), rtol=1e-5)
    assert len(boxes) > 10


def test_unreadable_images_are_named(raw_of_network):
    raw, problems = raw_of_network
    assert problems.image.tolist() == ['broken.jpg'] and raw.frames.image.tolist() == [f'{i}.jpg' for i in range(4)]


def test_the_network_runs_once(detector, pictures, tmp_path, monkeypatch):
    (tmp_path/'w.pt').write_bytes(b'one')
    asked, real = [], raw_boxes
    monkeypatch.setattr('livestock_nb.sweep.raw_boxes', lambda images, weights, imgsz, device: asked.append(imgsz) or real(images, detector, imgsz))
    ask = lambda rows=pictures, imgsz=96: kept_boxes(rows, tmp_path/'w.pt', tmp_path/'kept', imgsz)
    first, again = ask(), ask(pictures[::-1])
    for a, b in zip((*first[0], first[1]), (*again[0], again[1]), strict=True): pd.testing.assert_frame_equal(a, b)
    assert asked == [96]
    ask(imgsz=64)
    ask(pictures[:2], 64)
    (tmp_path/'w.pt').write_bytes(b'two')
    ask(pictures[:2], 64)
    assert asked == [96, 64, 64, 64], 'another size, other images, another detector'
    (tmp_path/'kept'/'made_of.json').unlink()  # killed before the end
    assert len(ask(pictures[:2], 64)[0].frames) == 2 and len(asked) == 5
    for i, (name, data) in enumerate([('made_of.json', b'{"weights": '), ('made_of.json', b'[]'), ('pairs.parquet', b'PAR1')], 6):
        (tmp_path/'kept'/name).write_bytes(data)
        assert len(ask(pictures[:2], 64)[0].frames) == 2 and len(asked) == i, f'{name} is spoilt, so all is made again'


def test_nothing_readable(detector, pictures):
    with pytest.raises(InputError, match='None of the 1 images'): raw_boxes(pictures[pictures.image == 'broken.jpg'], detector, imgsz=96)


def test_a_sweep_equals_cells_measured_one_by_one(farm):
    images, gold, raw = farm
    table = sweep(raw, gold, ious=(.4, .7), confs=(.01, .4))
    assert len(table) == len(KINDS)*4
    for row in table.itertuples():
        found = cell(raw, row.kind, row.iou, row.conf).sort_values('confidence', ascending=False)
        every = match_table(gold, found, [.75], 'coco', images.image)
        point = operating_point(every, .75, 0).query('label == "all"').set_index('measure').value
        assert [getattr(row, m) for m in point.index] == pytest.approx(point.tolist(), abs=1e-12)
        assert row.boxes == len(found)/10
        with_gold = found[found.image.isin(gold.image)]
        assert row.ap == pytest.approx(average_precision(match_table(gold, with_gold, [.75], 'challenge'), .75)['mean'], abs=1e-12)


def test_coco_counts_what_is_found_where_there_is_no_gold(farm):
    _, gold, raw = farm
    a, b = (sweep(raw, gold, ['hard'], (.5,), (.001,), definition=d).ap.item() for d in ('challenge', 'coco'))
    assert b > 0 and a != b


def test_the_order_of_rows_never_matters(farm):
    _, gold, raw = farm
    rows = raw.boxes.assign(image=raw.frames.image.to_numpy()[raw.boxes.frame]).sample(frac=1, random_state=0)
    again = collect(raw.frames.sample(frac=1, random_state=1), rows)
    for a, b in zip(raw, again, strict=True): pd.testing.assert_frame_equal(a, b)
    kinds = ['hard', 'voting']
    pd.testing.assert_frame_equal(sweep(raw, gold, kinds, (.5,), (.1,)), sweep(again, gold.sample(frac=1, random_state=2), kinds, (.5,), (.1,)))


def test_only_the_best_are_kept():
    images = image_table([dict(image='a.jpg', species='pig', width=900, height=900)])
    gold = box_table([dict(image='a.jpg', label='pig', x1=100, y1=100, x2=300, y2=300)])
    raw = made_up_raw(images, gold, each=TOP+50, nothing=10)
    assert len(raw.boxes) == TOP and raw.boxes.score.is_monotonic_decreasing
    assert (raw.pairs.iou > FLOOR).all() and (raw.pairs['first'] < raw.pairs.second).all() and (raw.pairs.diou <= raw.pairs.iou + 1e-6).all()


@pytest.mark.parametrize('kind', KINDS)
def test_images_without_candidates(farm, kind):
    images, gold, raw = farm
    none = collect(raw.frames, raw.boxes.iloc[:0].assign(image=''))
    assert cell(none, kind, .5, .1).empty
    table = sweep(none, gold, [kind], (.5,), (.1,))
    assert (table[['ap', 'f1', 'boxes']] == 0).all(axis=None) and table.off_by.item() == len(gold)/10


def test_kept_candidates_come_back(farm, tmp_path):
    raw = farm[2]
    save_raw(raw, tmp_path)
    for a, b in zip(raw, load_raw(tmp_path), strict=True): pd.testing.assert_frame_equal(a, b)
    (tmp_path/'pairs.parquet').unlink()
    with pytest.raises(InputError, match='pairs.parquet'): load_raw(tmp_path)


@pytest.mark.parametrize('what, match', [
    (lambda raw, gold: cell(raw, 'fast'), 'Unknown kind'),
    (lambda raw, gold: cell(raw, 'hard', .2), 'were not kept'),
    (lambda raw, gold: sweep(raw, gold.assign(image='other.jpg')), 'has a gold box'),
    (lambda raw, gold: rank_cells(sweep(raw, gold, ['hard'], (.5,), (.5,)), 'speed'), 'Unknown goal')])
def test_faults_are_named(farm, what, match):
    with pytest.raises(InputError, match=match): what(farm[2], farm[1])


def test_each_goal_has_its_own_pick():
    rows = [('hard', .001, .9, .3, 8., 99.), ('hard', .4, .7, .8, .9, 9.), ('hard', .5, .6, .7, .2, 7.), ('diou', .001, .9, .3, 8., 98.)]
    table = pd.DataFrame(rows, columns=['kind', 'conf', 'ap', 'f1', 'off_by', 'boxes']).assign(iou=.5)
    mine = picks(table)
    assert mine.goal.tolist() == ['score', 'f1', 'count']
    assert [(p.kind, p.conf) for p in mine.itertuples()] == [('diou', .001), ('hard', .4), ('hard', .5)], 'equal scores: fewer boxes'


@pytest.mark.parametrize('goal, column', [('score', 'ap'), ('f1', 'f1'), ('count', 'off_by')])
def test_the_best_cells_have_intervals(farm, goal, column):
    _, gold, raw = farm
    table = sweep(raw, gold, ['hard', 'fusion'], (.4, .6), (.01, .3))
    best = best_cells(raw, gold, table, goal, n=4, resamples=200)
    assert ((best.low <= best[column]) & (best[column] <= best.high)).all() and (best.low < best.high).all()
    assert best.loc[0, ['behind_low', 'behind_high']].tolist() == [0, 0]
    again = best_cells(raw, gold, table, goal, n=4, resamples=200)
    pd.testing.assert_frame_equal(best, again)
    point = match_table(gold, cell(raw, *best.loc[0, ['kind', 'iou', 'conf']]), [.75], 'coco', raw.frames.image)
    if goal == 'f1':
        mine = operating_point(point, .75, 0, draw_images(raw.frames.image, 200)).query('label == "all" and measure == "f1"')
        assert best.loc[0, ['low', 'high']].tolist() == pytest.approx(mine[['low', 'high']].iloc[0].tolist())


def test_the_panel_follows_its_sliders(farm):
    images, gold, raw = farm
    panel = sweep_panel(raw, gold, images, read=lambda row: np.zeros((row.height, row.width, 3), np.uint8))
    (rule, overlap), sure, caption, picture = panel.children[0].children, *panel.children[1:]
    seen = [(caption.value, picture.value)]
    for w, v in ((sure, .5), (overlap, .35), (rule, 'diou')):
        w.value = v
        seen.append((caption.value, picture.value))
    assert len({p for _, p in seen}) >= 3 and seen[1][0] != seen[0][0] != seen[2][0]
    now = cell(raw, 'diou', .35, .5)
    assert f'{len(now)/10:.1f} boxes an image' in caption.value


def test_a_look_has_the_curve_of_its_matches(farm):
    _, gold, raw = farm
    look = look_at(raw, gold, 'hard', .5)
    for label, rows in look.curve.items():
        mine = look.matches[look.matches.label == label]
        assert len(rows) == mine.confidence.notna().sum() and (np.diff(rows[:, 0]) <= 0).all()
        assert rows[-1, 1] == (mine['match@0.75'][mine.confidence.notna()] >= 0).sum()/mine.confidence.isna().sum()


def test_a_plot_frames_the_best(farm):
    fig = plot_sweep(sweep(farm[2], farm[1], ['hard', 'diou'], (.4, .6), (.1, .5)), 'count')
    assert [ax.get_title().split(',')[0] for ax in fig.axes[:2]] == ['hard', 'diou']


def test_raw_boxes_are_a_tuple_of_tables(farm): assert isinstance(farm[2], RawBoxes) and farm[2].boxes.dtypes['score'] == np.float32
