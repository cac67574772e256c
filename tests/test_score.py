"The two definitions against their originals, and what a wrong file gets told."
import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, InputError, box_table
from livestock_nb.score import (
    ANSWER_COLUMNS,
    DEFINITIONS,
    EDGES,
    SUBMISSION_COLUMNS,
    match_boxes,
    pr_curve,
    precision_recall,
    read_answer,
    read_images_list,
    read_submission,
    score,
    to_answer_frame,
)

SHARED = Path(__file__).parents[2]/'shared'/'data'/'farm'/'test'/'answer.csv'
pytestmark = pytest.mark.filterwarnings('ignore:In .* images the rows')


def farm(seed, images=12, crowd=6, copies=3, ties=False, far=1.5):
    "A random answer and a submission in px; some images have one species only, some have no answer, corners reach `far`."
    rng = np.random.default_rng(seed)
    place = lambda: dict(x=rng.uniform(0, far-.2), y=rng.uniform(0, far-.2), w=rng.uniform(.02, .2), h=rng.uniform(.02, .2))
    rows = [dict(ImageID=f'{i:03}.jpg', LabelName=label, **place()) for i in range(images)
            for label in (['cow'], ['pig'], ['cow', 'pig'])[i % 3] for _ in range(rng.integers(1, crowd+1))]
    df = pd.DataFrame(rows)
    edges = lambda d: d.assign(XMin=d.x-d.w/2, XMax=d.x+d.w/2, YMin=d.y-d.h/2, YMax=d.y+d.h/2)
    answer = edges(df)[ANSWER_COLUMNS].sample(frac=1, random_state=seed)
    found = pd.concat([df]*copies, ignore_index=True)
    found[['x', 'y']] += rng.normal(0, .01, (len(found), 2))
    found['LabelName'] = np.where(rng.random(len(found)) < .1, 'cow', found.LabelName)
    found['Conf'] = rng.choice([.2, .5, .7], len(found)) if ties else rng.random(len(found))
    stray = found.sample(8, random_state=seed).assign(ImageID='no answer.jpg')
    found = edges(pd.concat([found, stray], ignore_index=True))[SUBMISSION_COLUMNS]
    size = found.LabelName.map(dict(cow=1920, pig=1280)), found.LabelName.map(dict(cow=1080, pig=960))
    for c in ('XMin', 'XMax', 'YMin', 'YMax'): found[c] *= size[c[0] == 'Y']
    return answer, found


ORDERS = dict(descending=lambda d: d.sort_values('Conf', ascending=False), ascending=lambda d: d.sort_values('Conf'), reverse=lambda d: d[::-1],
              shuffled=lambda d: d.sample(frac=1, random_state=1))
FARMS = {'plain': dict(seed=0), 'crowded: boxes of a label overlap each other': dict(seed=1, images=3, crowd=120, far=.6),
         'equal confidences': dict(seed=2, ties=True), 'one box an image': dict(seed=3, crowd=1, copies=1)}


@pytest.fixture(scope='module')
def map_boxes():
    with contextlib.redirect_stdout(io.StringIO()):
        import map_boxes  # it says on import that its overlap is the slow one
    return map_boxes.mean_average_precision_for_boxes


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('kind', FARMS)
@pytest.mark.parametrize('iou', [.5, .75])
def test_challenge_is_map_boxes(map_boxes, kind, order, iou):
    answer, found = farm(**FARMS[kind])
    found = ORDERS[order](found)
    mean, by_label = map_boxes(answer.to_numpy(), to_answer_frame(found).to_numpy(), iou_threshold=iou, verbose=False)
    ours = score(answer, found, iou).set_index('label')
    assert ours.ap['mean'] == pytest.approx(mean, abs=1e-9) and 0 < mean < 1
    for label, (ap, boxes) in by_label.items(): assert (ours.ap[label], ours.boxes[label]) == (pytest.approx(ap, abs=1e-9), boxes)


@pytest.mark.parametrize('more', [(), ('no answer.jpg', 'nothing at all.jpg')], ids=['images of the answer', 'images without gold'])
@pytest.mark.parametrize('kind', FARMS)
@pytest.mark.parametrize('iou', [.5, .75])
def test_coco_is_pycocotools(kind, more, iou):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    answer, found = farm(**FARMS[kind])
    images, labels = sorted({*answer.ImageID, *more}), ['cow', 'pig']
    rows = to_answer_frame(found[found.ImageID.isin(images)]).sort_values(['Conf', 'ImageID', 'LabelName', *EDGES], ascending=False)
    annotate = lambda df: [dict(id=i, image_id=images.index(r.ImageID)+1, category_id=labels.index(r.LabelName)+1, score=r.get('Conf'), iscrowd=0,
                                bbox=[r.XMin, r.YMin, r.XMax-r.XMin, r.YMax-r.YMin], area=(r.XMax-r.XMin)*(r.YMax-r.YMin))
                           for i, (_, r) in enumerate(df.iterrows(), 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = dict(images=[dict(id=i) for i in range(1, len(images)+1)], categories=[dict(id=1), dict(id=2)],
                            annotations=annotate(answer))
        gold.createIndex()
        ev = COCOeval(gold, gold.loadRes(annotate(rows)), 'bbox')
        ev.params.iouThrs, ev.params.maxDets, ev.params.areaRng, ev.params.areaRngLbl = np.array([iou]), [300], [[0, 1e10]], ['all']
        ev.evaluate()
        ev.accumulate()
    theirs = ev.eval['precision'][0, :, :, 0, 0].mean(axis=0)
    ours = score(answer, found, iou, 'coco', images=images if more else None)
    assert ours.ap.tolist() == pytest.approx([*theirs, theirs.mean()], abs=1e-9) and 0 < theirs.mean() < 1


def test_images_without_gold_cost_under_coco_only():
    answer, found = farm(0)
    images = [*answer.ImageID, 'no answer.jpg']
    assert score(answer, found, definition='coco', images=images).ap.iloc[-1] < score(answer, found, definition='coco').ap.iloc[-1]
    pd.testing.assert_frame_equal(score(answer, found, images=images), score(answer, found))


@pytest.mark.parametrize('kind', FARMS)
def test_order_matters_to_challenge_only(kind):
    answer, found = farm(**FARMS[kind])
    coco = [score(answer, order(found), definition='coco') for order in ORDERS.values()]
    for other in coco[1:]: pd.testing.assert_frame_equal(coco[0], other)
    pd.testing.assert_frame_equal(coco[0], score(answer[::-1], found, definition='coco'))
    if kind == 'plain': assert score(answer, ORDERS['ascending'](found)).ap.iloc[-1] < score(answer, ORDERS['descending'](found)).ap.iloc[-1] - .1


def test_warning_gives_the_sorted_score():
    answer, found = farm(0)
    best = score(answer, ORDERS['descending'](found)).ap.iloc[-1]
    with pytest.warns(UserWarning, match=f'sorted they would get {best:.4f}') as said: score(answer, ORDERS['ascending'](found))
    assert len(said) == 1 and '\n' not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        score(answer, ORDERS['descending'](found))
        score(answer, ORDERS['ascending'](found), definition='coco')


@pytest.mark.parametrize('definition', DEFINITIONS)
@pytest.mark.parametrize('kind', FARMS)
def test_answer_against_itself_is_one(definition, kind):
    answer, _ = farm(**FARMS[kind])
    assert answer.XMax.max() > 1 or 'crowded' in kind
    assert (score(answer, answer, definition=definition).ap == 1).all()
    pixels = answer.assign(Conf=1., **{c: answer[c]*answer.LabelName.map(dict(cow=s[0], pig=s[1])) for c, s in
                                       dict(XMin=(1920, 1280), XMax=(1920, 1280), YMin=(1080, 960), YMax=(1080, 960)).items()})
    assert (score(answer, pixels, definition=definition).ap == 1).all()


@pytest.mark.skipif(not SHARED.exists(), reason='the real test frames are not here')
@pytest.mark.parametrize('definition', DEFINITIONS)
def test_real_answer_against_itself_is_one(definition):
    df = score(read_answer(SHARED), read_submission(SHARED), definition=definition)
    assert (df.ap == 1).all() and df.boxes.tolist()[-1] == 247 and df.label.tolist() == ['cow', 'pig', 'mean']


@pytest.mark.parametrize('definition', DEFINITIONS)
def test_nothing_found_scores_zero(definition):
    answer, found = farm(0)
    assert score(answer, found[:0], definition=definition).ap.tolist() == [0, 0, 0]
    cows = score(answer, found[found.LabelName == 'cow'].sort_values('Conf', ascending=False), definition=definition)
    assert cows.ap[0] > 0 and cows.ap[1] == 0 and cows.rows[1] == 0


@pytest.mark.parametrize('definition', DEFINITIONS)
def test_rows_that_do_not_count(definition):
    answer, found = farm(0)
    cows = answer[answer.LabelName == 'cow']
    alone = score(cows, found[(found.LabelName == 'cow') & found.ImageID.isin(cows.ImageID)], definition=definition)
    both = score(cows, found, definition=definition)
    assert both.label.tolist() == ['cow', 'mean'] and both.attrs['ignored'] > alone.attrs['ignored'] == 0
    pd.testing.assert_frame_equal(both.reset_index(drop=True), alone, check_flags=False)
    with pytest.warns(UserWarning, match='No row of the submission counts'):
        score(answer, found[found.ImageID == 'no answer.jpg'], definition=definition)


def test_caller_keeps_his_tables():
    answer, found = farm(0)
    before = answer.copy(), found.copy()
    for d in DEFINITIONS: score(answer, found, definition=d)
    pd.testing.assert_frame_equal(answer, before[0])
    pd.testing.assert_frame_equal(found, before[1])


@pytest.mark.parametrize('kwargs, why', [
    (dict(definition='voc'), "Unknown definition 'voc': choose one of challenge, coco"),
    (dict(iou=0), 'IoU threshold 0'), (dict(iou=75), 'IoU threshold 75'), (dict(iou=float('nan')), 'IoU threshold nan'),
    (dict(images=['other.jpg']), 'no box in the images to score')])
def test_bad_arguments(kwargs, why):
    with pytest.raises(InputError, match=why): score(*farm(0), **kwargs)


GOOD = 'a.jpg,cow,.9,10,90,20,80\n'
HEAD = 'ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n'


@pytest.mark.parametrize('text, said', [
    ('', ['cannot be read as a csv']),
    ('ImageID,LabelName,Conf,XMin,XMax,YMin\n', ['no column YMax', 'the header must be ImageID,LabelName,Conf']),
    (HEAD+GOOD+'b.jpg,cow,.9,10,,20,80\n', ['line 3', 'b.jpg', 'missing or no number', 'drop the row']),
    (HEAD+GOOD+'b.jpg,cow,.9,10,wide,20,80\n', ['line 3', 'b.jpg', 'missing or no number', 'wide']),
    (HEAD+GOOD+'b.jpg,cow,.9,10,inf,20,80\n', ['line 3', 'b.jpg', 'missing or no number']),
    (HEAD+GOOD+',cow,.9,10,90,20,80\n', ['line 3', 'missing']),
    (HEAD+GOOD+'b.jpg,sheep,.9,10,90,20,80\n', ['line 3', 'b.jpg', 'unknown label', 'sheep', 'cow and pig']),
    (HEAD+GOOD+'b.jpg,cow,.9,10,10,20,80\n', ['line 3', 'b.jpg', 'without width or height']),
    (HEAD+GOOD+'b.jpg,cow,.9,10,90,80,20\n', ['line 3', 'b.jpg', 'without width or height', 'swap']),
    (HEAD+GOOD+'b.jpg,cow,90,10,90,20,80\n', ['line 3', 'b.jpg', 'confidence is not in [0, 1]']),
    (HEAD+GOOD+'b.jpg,cow,-.1,10,90,20,80\n', ['line 3', 'confidence is not in [0, 1]'])])
def test_bad_submission(tmp_path, text, said):
    path = tmp_path/'mine.csv'
    path.write_text(text)
    with pytest.raises(InputError) as e: read_submission(path)
    for s in ['mine.csv', *said]: assert s in str(e.value)
    assert str(e.value).count('\n') <= 1


def test_missing_and_empty_files(tmp_path):
    for read in (read_answer, read_submission, read_images_list):
        with pytest.raises(InputError, match='nowhere.csv'): read(tmp_path/'nowhere.csv')
    (tmp_path/'binary.csv').write_bytes(b'\xff\xfe\x00\x01')
    for read in (read_answer, read_submission, read_images_list):
        with pytest.raises(InputError, match='binary.csv'): read(tmp_path/'binary.csv')
    (tmp_path/'empty.csv').write_text(HEAD)
    assert read_submission(tmp_path/'empty.csv').empty
    answer, _ = farm(0)
    assert (score(answer, read_submission(tmp_path/'empty.csv')).ap == 0).all()
    (tmp_path/'none.csv').write_text(','.join(ANSWER_COLUMNS))
    with pytest.raises(InputError, match='nothing to score against'): read_answer(tmp_path/'none.csv')


def test_columns_in_any_order_and_beyond_one(tmp_path):
    (tmp_path/'a.csv').write_text('\ufeffYMax,YMin,XMax,XMin,LabelName,ImageID\n1.12,0.5,1.47,1,pig,a.jpg\n', encoding='utf-8')
    assert read_answer(tmp_path/'a.csv').to_numpy().tolist() == [['a.jpg', 'pig', 1, 1.47, .5, 1.12]]
    assert read_submission(tmp_path/'a.csv').columns.tolist() == ANSWER_COLUMNS


@pytest.mark.parametrize('text', ['a.jpg\n\nb.jpg\n a.jpg \n', 'ImageID\na.jpg\nb.jpg\n', 'n,ImageID\n1,a.jpg\n2,b.jpg\n', '\ufeffa.jpg\nb.jpg'])
def test_images_list(tmp_path, text):
    (tmp_path/'list').write_text(text, encoding='utf-8')
    assert read_images_list(tmp_path/'list') == ['a.jpg', 'b.jpg']


def test_images_list_without_a_name(tmp_path):
    (tmp_path/'list').write_text('\n')
    with pytest.raises(InputError, match='names no images'): read_images_list(tmp_path/'list')


def boxes(*rows): return box_table([dict(zip(['image', 'label', 'confidence', *CORNERS], r, strict=True)) for r in rows])


@pytest.mark.parametrize('why, gold, found, fates', [
    ('the most confident takes the gold box', [('a', 'cow', 1, 0, 0, 10, 10)],
     [('a', 'cow', .5, 0, 0, 10, 10), ('a', 'cow', .9, 1, 0, 10, 10)], {(.9, 'hit', .9), (.5, 'false', 1.)}),
    ('a taken box leaves the next best', [('a', 'cow', 1, 0, 0, 10, 10), ('a', 'cow', 1, 0, 0, 10, 12)],
     [('a', 'cow', .9, 0, 0, 10, 10), ('a', 'cow', .8, 0, 0, 10, 10)], {(.9, 'hit', 1.), (.8, 'hit', .833)}),
    ('labels do not mix', [('a', 'cow', 1, 0, 0, 10, 10)], [('a', 'pig', .9, 0, 0, 10, 10)], {(.9, 'false', 0.), (None, 'missed', 0.)}),
    ('images do not mix', [('a', 'cow', 1, 0, 0, 10, 10)], [('b', 'cow', .9, 0, 0, 10, 10)], {(.9, 'false', 0.), (None, 'missed', 0.)}),
    ('below the threshold', [('a', 'cow', 1, 0, 0, 10, 10)], [('a', 'cow', .9, 0, 0, 4, 10)], {(.9, 'false', .4), (None, 'missed', .4)}),
    ('at the threshold', [('a', 'cow', 1, 0, 0, 10, 10)], [('a', 'cow', .9, 0, 0, 5, 10)], {(.9, 'hit', .5)}),
    ('nothing found', [('a', 'cow', 1, 0, 0, 10, 10)], [], {(None, 'missed', 0.)}),
    ('nothing there', [], [('a', 'cow', .9, 0, 0, 10, 10)], {(.9, 'false', 0.)}),
    ('nothing at all', [], [], set())])
def test_match_boxes(why, gold, found, fates):
    m = match_boxes(boxes(*gold), boxes(*found))
    assert {(None if np.isnan(r.confidence) else r.confidence, r.fate, round(r.iou, 3)) for r in m.itertuples()} == fates, why
    assert m.columns.tolist() == ['image', 'label', 'confidence', *CORNERS, 'iou', 'fate']


def test_matches_count_every_box_once_and_agree_with_coco():
    answer, found = farm(1, images=4, crowd=40, far=.7)
    names = dict(ImageID='image', LabelName='label', Conf='confidence', XMin='x1', XMax='x2', YMin='y1', YMax='y2')
    gold, rows = box_table(answer.rename(columns=names)), box_table(to_answer_frame(found).rename(columns=names))
    m = match_boxes(gold, rows, .5)
    fates = m.fate.value_counts()
    assert fates['hit'] + fates['missed'] == len(gold) and fates['hit'] + fates['false'] == len(rows)
    curve = pr_curve(m)  # COCO's hundred and one readings of our own curve
    for label, g in curve[curve.label.isin(answer.LabelName)].groupby('label'):
        envelope = g.precision[::-1].cummax()[::-1].to_numpy()
        at = np.searchsorted(g.recall.to_numpy(), np.linspace(0, 1, 101))
        coco = score(answer, found, .5, 'coco', images=[*answer.ImageID, 'no answer.jpg']).set_index('label').ap[label]
        assert np.append(envelope, 0)[at.clip(max=len(g))].mean() == pytest.approx(coco, abs=1e-9)


def test_precision_recall():
    gold = boxes(('a', 'cow', 1, 0, 0, 10, 10), ('a', 'cow', 1, 20, 0, 30, 10), ('a', 'pig', 1, 50, 50, 60, 60))
    found = boxes(('a', 'cow', .9, 0, 0, 10, 10), ('a', 'cow', .3, 70, 0, 80, 10), ('a', 'cow', .1, 20, 0, 30, 10))
    df = precision_recall(match_boxes(gold, found)).set_index('label')
    assert df.loc['cow'].tolist() == [2, 2, 1, .5, .5, .5]
    assert df.loc['pig'].tolist() == [1, 0, 0, 0, 0, 0]
    assert df.loc['all', ['gold', 'found', 'hit']].tolist() == [3, 2, 1] and df.index[-1] == 'all'
    assert precision_recall(match_boxes(boxes(), boxes())).label.tolist() == ['all']
