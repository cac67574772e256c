"The two definitions against their originals, and what a wrong file gets told."
import contextlib
import io
import json
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, InputError, box_table
from livestock_nb.farm import answer_table, farm_cameras, render_scene
from livestock_nb.score import (
    ANSWER_COLUMNS,
    AS_BOXES,
    DEFINITIONS,
    EDGES,
    FRAMES,
    IOUS,
    MEASURES,
    SUBMISSION_COLUMNS,
    area_bins,
    average_precision,
    compare,
    compare_files,
    count_bins,
    draw_images,
    image_groups,
    interval,
    match_boxes,
    match_submission,
    match_table,
    operating_curve,
    operating_point,
    plot_compare,
    plot_ious,
    plot_pr,
    pr_curve,
    precision_recall,
    read_answer,
    read_groups,
    read_images_list,
    read_submission,
    resampled_ap,
    score,
    score_bins,
    score_files,
    score_ious,
    score_matches,
    score_tables,
    table_dict,
    to_answer_frame,
    verdict,
)

matplotlib.use('Agg')
SHARED = Path(__file__).parents[2]/'shared'/'data'/'farm'/'test'/'answer.csv'
pytestmark = pytest.mark.filterwarnings('ignore:In .* images the rows')


def farm(seed, images=12, crowd=6, copies=3, ties=False, far=1.5, bare=0.):
    "A random answer and a submission in px; some images have one species only, some have no answer, corners reach `far`."
    rng = np.random.default_rng(seed)
    place = lambda: dict(x=rng.uniform(0, far-.2), y=rng.uniform(0, far-.2), w=rng.uniform(.02, .2), h=rng.uniform(.02, .2))
    rows = [dict(ImageID=f'{i:03}.jpg', LabelName=label, **place()) for i in range(images)
            for label in (['cow'], ['pig'], ['cow', 'pig'])[i % 3] for _ in range(rng.integers(1, crowd+1))]
    df = pd.DataFrame(rows)
    edges = lambda d: d.assign(XMin=d.x-d.w/2, XMax=d.x+d.w/2, YMin=d.y-d.h/2, YMax=d.y+d.h/2)
    answer = edges(df)[ANSWER_COLUMNS].sample(frac=1, random_state=seed)
    found = pd.concat([df[df.ImageID.map({k: rng.random() >= bare for k in df.ImageID.unique()})]]*copies, ignore_index=True)
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
         'equal confidences': dict(seed=2, ties=True), 'one box an image': dict(seed=3, crowd=1, copies=1),
         'images in which nothing is found': dict(seed=4, bare=.4)}


def made_up_farm(seed=0):
    "The answer of rendered frames of every camera, large pig images among them, and a submission that is a little off."
    frames = [render_scene(camera, 2 + i, i, image=f'{i}.jpg')[1] for i, camera in enumerate(farm_cameras())]
    gold, rng = box_table([b for f in frames for b in f]), np.random.default_rng(seed)
    found = pd.concat([gold]*3, ignore_index=True)
    found[CORNERS] += rng.normal(0, 8, (len(found), 4))
    found = found[(found.x2 > found.x1) & (found.y2 > found.y1)].assign(confidence=lambda d: rng.random(len(d)).round(3))
    return answer_table(gold), found.rename(columns={v: k for k, v in AS_BOXES.items()})[SUBMISSION_COLUMNS]


@pytest.fixture(scope='module')
def map_boxes():
    with contextlib.redirect_stdout(io.StringIO()):
        import map_boxes  # it says on import that its overlap is the slow one
    return map_boxes.mean_average_precision_for_boxes


@pytest.fixture(scope='module')
def sets(): return {kind: farm(**args) for kind, args in FARMS.items()} | {'the made-up farm': made_up_farm()}


KINDS = [*FARMS, 'the made-up farm']


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('iou', [.5, .75])
def test_challenge_is_map_boxes(map_boxes, sets, kind, order, iou):
    answer, found = sets[kind]
    found = ORDERS[order](found)
    mean, by_label = map_boxes(answer.to_numpy(), to_answer_frame(found).to_numpy(), iou_threshold=iou, verbose=False)
    ours = score(answer, found, iou).set_index('label')
    assert ours.ap['mean'] == pytest.approx(mean, abs=1e-9) and 0 < mean < 1
    for label, (ap, boxes) in by_label.items(): assert (ours.ap[label], ours.boxes[label]) == (pytest.approx(ap, abs=1e-9), boxes)


@pytest.mark.parametrize('more', [(), ('no answer.jpg', 'nothing at all.jpg')], ids=['images of the answer', 'images without gold'])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('iou', [.5, .75])
def test_coco_is_pycocotools(sets, kind, more, iou):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    answer, found = sets[kind]
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
    mine = [str(w.message) for w in said if w.category is UserWarning]  # others, such as of files that are closed late, may fall in here
    assert len(mine) == 1 and '\n' not in mine[0]
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
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
    with pytest.warns(UserWarning, match='no column Conf'): answer = read_submission(SHARED)
    df = score(read_answer(SHARED), answer, definition=definition)
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
    with pytest.warns(UserWarning, match='no column Conf'): assert read_submission(tmp_path/'a.csv').columns.tolist() == ANSWER_COLUMNS


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


# -- from one table of matches: draws, intervals, bins, one threshold

def as_boxes(answer, found): return (t.rename(columns=AS_BOXES) for t in (answer, to_answer_frame(found)))


@pytest.fixture(scope='module')
def crowd():
    answer, found = farm(7, images=30)
    return answer, found[found.ImageID != 'no answer.jpg'].sort_values('Conf', ascending=False)


@pytest.mark.parametrize('definition', DEFINITIONS)
def test_a_draw_is_the_score_of_the_images_drawn(crowd, definition):
    answer, found = crowd
    matches = match_submission(answer, found, [.5], definition)
    names, draws = matches.image.cat.categories, draw_images(matches.image.cat.categories, 5, seed=3)
    drawn = resampled_ap(matches, .5, draws)
    for k in range(5):  # an image that was drawn twice is there twice, under two names
        copies = [(n, f'{n} {c}') for n, count in zip(names, draws[:, k], strict=True) for c in range(count)]
        again = lambda t, copies=copies: t.merge(pd.DataFrame(copies, columns=['ImageID', 'copy'])).assign(ImageID=lambda d: d['copy'])
        a, f = again(answer)[ANSWER_COLUMNS], again(found)[SUBMISSION_COLUMNS].sort_values('Conf', ascending=False, kind='stable')
        mine = score(a, f, .5, definition, resamples=0).set_index('label').ap
        assert drawn[k].tolist() == pytest.approx(mine.tolist(), abs=1e-3 if definition == 'coco' else 1e-9)  # ties of copies: by name, or by row


def test_draws_are_seeded_and_of_the_right_size():
    names = [f'{i}.jpg' for i in range(50)]
    draws = draw_images(names, 300)
    assert draws.shape == (50, 300) and np.array_equal(draws, draw_images(names, 300)) and not np.array_equal(draws, draw_images(names, 300, seed=1))
    assert draws.sum(axis=0).std() == 0 and abs(draws.sum(axis=1).mean()/300 - draws.sum(axis=0)[0]/50) < 1e-9


def test_groups_are_drawn_whole():
    names, groups = list('abcdef'), pd.Series(dict(a='x', b='x', c='x', d='y', e='y', f=''))
    draws = draw_images(names, 200, groups)
    assert (draws[0] == draws[1]).all() and (draws[1] == draws[2]).all() and (draws[3] == draws[4]).all()
    assert all((draws[i] != draws[j]).any() for i, j in ((0, 3), (0, 5), (3, 5)))
    with pytest.warns(UserWarning, match='The groups name none of the 6 images'): alone = draw_images(names, 200, pd.Series(dict(z='x')))
    assert (alone[0] != alone[1]).any()


def test_frames_that_look_alike_widen_the_interval(crowd):
    answer, found = crowd
    again = [t.assign(ImageID='again ' + t.ImageID) for t in crowd]  # every image twice: no news
    two = pd.concat([answer, again[0]]), pd.concat([found, again[1]]).sort_values('Conf', ascending=False, kind='stable')
    groups = pd.Series({n: n.removeprefix('again ') for n in two[0].ImageID.unique()})
    wide = [score(*args, groups=g).iloc[-1].pipe(lambda r: r.high - r.low) for args, g in ((crowd, None), (two, None), (two, groups))]
    assert wide[1] < .85*wide[0] and wide[2] == pytest.approx(wide[0], rel=.1)


def test_groups_from_a_file(tmp_path):
    pd.DataFrame(dict(image=['a', 'b', 'c'], group=['x', None, 'x'])).to_csv(tmp_path/'g.csv', index=False)
    assert read_groups(tmp_path/'g.csv').to_dict() == dict(a='x', b='', c='x')
    pd.DataFrame(dict(image=['a'], group=[''])).to_parquet(tmp_path/'none.parquet')
    assert read_groups(tmp_path/'none.parquet') is None and image_groups(pd.DataFrame(dict(image=['a']))) is None
    pd.DataFrame(dict(ImageID=['a'], group=[''])).to_csv(tmp_path/'bad.csv', index=False)
    with pytest.raises(InputError, match='no column image: give a table with image and group'): read_groups(tmp_path/'bad.csv')


def test_an_interval_is_the_middle_of_the_draws():
    df = interval(pd.DataFrame([np.arange(1001)/1000, np.full(1001, .5)]))
    assert df.to_numpy().ravel().tolist() == pytest.approx([.025, .975, .5, .5])


@pytest.mark.parametrize('definition', DEFINITIONS)
def test_every_table_says_the_same(crowd, definition):
    answer, found = crowd
    tables, plain = score_tables(answer, found, .75, definition, resamples=100), score(answer, found, .75, definition, resamples=100)
    pd.testing.assert_frame_equal(tables['score'][['label', 'ap', 'low', 'high', 'boxes']], plain[['label', 'ap', 'low', 'high', 'boxes']])
    at = tables['ious'].query('iou == "0.75"').set_index('label')
    assert at.loc[plain.label, 'ap'].tolist() == plain.ap.tolist() and at.loc[plain.label, 'low'].tolist() == plain.low.tolist()
    over = tables['ious'].query('label == "cow" and iou != "mean"')
    assert over.ap.is_monotonic_decreasing and len(over) == len(IOUS)
    assert tables['ious'].query('label == "cow" and iou == "mean"').ap.item() == pytest.approx(over.ap.mean())
    for by in ('area', 'count'): assert tables[by].query('label == "mean"').boxes.sum() == len(answer)
    for t in tables.values(): assert ((t.low <= t.high) | t.low.isna()).all()
    odd = score_tables(answer, found, .6, definition, resamples=0)['score']
    assert odd.ap.tolist() == score(answer, found, .6, definition, resamples=0).ap.tolist()


def test_bins_of_area_and_of_count():
    gold = boxes(('a', 'cow', 1, 0, 0, 20, 20), ('a', 'cow', 1, 100, 0, 400, 300), *[('b', 'cow', 1, 50*i, 0, 50*i+40, 40) for i in range(7)])
    found = boxes(('a', 'cow', .9, 0, 0, 21, 20), ('a', 'cow', .8, 100, 0, 400, 290), ('a', 'cow', .7, 500, 500, 520, 520),
                  ('c', 'cow', .6, 0, 0, 9, 9))
    matches = match_table(gold, found, [.5])
    small, large = area_bins(matches, .5)[[0, 1]]
    assert small != large and area_bins(matches, .5)[2] == small, 'a false box is in the bin of its own size'
    assert count_bins(matches)[matches.confidence.notna()].tolist() == ['little', 'little', 'little', None]
    table = score_bins(matches, .5, 'count').query('label == "cow"').set_index('bin')
    assert table.ap.to_dict() == dict(little=pytest.approx(1.), many=0.) and table.boxes.to_dict() == dict(little=2, many=7)
    assert set(score_bins(matches, .5, 'area').bin) == {small, large, area_bins(matches, .5).iloc[-1]}


def test_one_threshold_counts_as_a_farm_does(crowd):
    answer, found = crowd
    gold, rows = as_boxes(answer, found)
    matches = match_table(gold, rows, [.5])
    for conf in (.1, .5, .9):
        point = operating_point(matches, .5, conf).pivot(index='label', columns='measure', values='value')
        pr = precision_recall(match_boxes(gold, rows, .5), conf).set_index('label')
        assert point.loc[pr.index, ['precision', 'recall', 'f1']].to_numpy() == pytest.approx(pr[['precision', 'recall', 'f1']].to_numpy())
        names = gold.image.unique()
        more = rows[rows.confidence >= conf].groupby('image').size().reindex(names, fill_value=0) - gold.groupby('image').size()
        errors = [more.clip(lower=0).mean(), -more.clip(upper=0).mean(), more.abs().mean()]
        assert point.loc['all', ['over', 'under', 'off_by']].tolist() == pytest.approx(errors)
        curve = operating_curve(matches, .5, [conf]).set_index('label')
        assert curve.loc[point.index, MEASURES].to_numpy() == pytest.approx(point[MEASURES].to_numpy())
    span = operating_point(matches, .5, .5, draw_images(matches.image.cat.categories, 300))
    assert ((span.low <= span.value) & (span.value <= span.high)).all() and (span.low < span.high).any()


def test_no_draws_no_interval(crowd):
    table = score(*crowd, resamples=0)
    assert table[['low', 'high']].isna().all(axis=None) and table_dict(table)['classes'][0]['low'] is None
    assert score_matches(match_submission(*crowd, [.5]), .5).low.isna().all()
    assert score_ious(match_submission(*crowd, [.5])).low.isna().all()


# -- two submissions

def test_a_submission_is_no_better_than_itself(crowd):
    table = compare(*crowd, crowd[1])
    assert (table[['difference', 'low', 'high', 'smallest']] == 0).all(axis=None) and not table.shown.any()


def test_a_worse_submission_is_shown_and_the_other_way_round(crowd):
    answer, found = crowd
    worse = found[np.random.default_rng(0).random(len(found)) < .5]
    a, b = compare(answer, found, worse, .5), compare(answer, worse, found, .5)
    assert a.set_index('label').shown['mean'] and a.difference.tolist() == [-v for v in b.difference]
    assert a.low.tolist() == pytest.approx((-b.high).tolist()) and a.smallest.tolist() == b.smallest.tolist()
    alone = score(answer, found, .5)
    assert a['first'].tolist() == alone.ap.tolist() and a.first_low.tolist() == alone.low.tolist()
    assert verdict(a).endswith('The first is better.') and verdict(b).endswith('The second is better.')


def test_pairs_see_more_than_two_intervals(crowd):
    answer, found = crowd
    table = compare(answer, found, found.iloc[::-1][25:].iloc[::-1], .5).set_index('label').loc['mean']
    assert table.second_low < table['first'] < table.second_high and table.high-table.low < .5*(table.first_high-table.first_low)
    assert table.smallest < 2.8*(table.first_high-table.first_low)/3.92


def test_compare_from_files(crowd, tmp_path):
    answer, found = crowd
    paths = [tmp_path/n for n in ('answer.csv', 'one.csv', 'two.csv')]
    for p, t in zip(paths, (answer, found, found[found.Conf > .3]), strict=True): t.to_csv(p, index=False)
    table = compare_files(*paths, iou=.5, definition='coco', resamples=200)
    assert table.attrs == dict(first=str(paths[1]), second=str(paths[2]), definition='coco', iou=.5, most=300, images=30, resamples=200)
    said = json.loads(json.dumps(table_dict(table), allow_nan=False))
    assert [c['label'] for c in said['classes']] == ['cow', 'pig', 'mean'] and said['classes'][0]['shown'] in (True, False)
    assert said['classes'][2]['difference'] == pytest.approx(table.difference.iloc[-1], abs=1e-12)
    (tmp_path/'list.txt').write_text('\n'.join(answer.ImageID.unique()[:9]))
    pd.DataFrame(dict(image=answer.ImageID.unique(), group='x')).to_csv(tmp_path/'groups.csv', index=False)
    with pytest.warns(UserWarning, match='images are not to be scored'):
        few = compare_files(*paths, images=tmp_path/'list.txt', groups=tmp_path/'groups.csv', resamples=20)
    assert few.attrs['images'] == 9 and (few.low == few.high).all(), 'one group: no scatter'
    with pytest.raises(InputError, match='1 resamples give no interval'): compare_files(*paths, resamples=1)
    with pytest.raises(InputError, match='gone.csv does not exist'): compare_files(*paths[:2], tmp_path/'gone.csv')
    assert [ax.get_xlabel() for ax in plot_compare(table).axes] == ['average precision, 95 % interval', 'second − first, 95 % interval']


# -- files that are not what they should be

@pytest.mark.parametrize('text, said', [
    (HEAD+GOOD, 'has a column Conf, so it is a submission and no answer'),
    ('ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,cow,.1,.2,.1,.2\na.jpg,cow,10,90,20,80\n', 'line 3, image a.jpg: the corners are pixels'),
    ('ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,cow,.1,.1,.1,.2\n', 'line 2, image a.jpg: a box without width or height')])
def test_bad_answer(tmp_path, text, said):
    (tmp_path/'a.csv').write_text(text)
    with pytest.raises(InputError, match=said): read_answer(tmp_path/'a.csv')


def test_a_submission_without_confidence(tmp_path):
    path = tmp_path/'s.csv'
    path.write_text('ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,cow,10,90,20,80\n')
    with pytest.raises(InputError, match='pixels(.|\n)*Add a column Conf'): read_submission(path)
    path.write_text('ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,cow,.1,.2,.1,.2\n')
    with pytest.warns(UserWarning, match='s.csv has no column Conf: every row counts with confidence 1'): df = read_submission(path)
    assert to_answer_frame(df).values.tolist() == [['a.jpg', 'cow', 1., .1, .2, .1, .2]]


def test_a_submission_in_fractions_is_warned_of(tmp_path):
    (tmp_path/'s.csv').write_text(HEAD + 'a.jpg,cow,.9,.1,.9,.2,.8\n')
    with pytest.warns(UserWarning, match='no corner beyond 10 px: if these are fractions'): read_submission(tmp_path/'s.csv')


def test_images_without_rows_are_named(crowd, tmp_path):
    answer, found = crowd
    answer.to_csv(tmp_path/'a.csv', index=False)
    found[found.ImageID > '001.jpg'].to_csv(tmp_path/'s.csv', index=False)
    with pytest.warns(UserWarning, match='s.csv: 2 of 30 images of the answer have no row, the first is 000.jpg') as said:
        table = score_files(tmp_path/'a.csv', tmp_path/'s.csv', definition='coco')
    assert sum(w.category is UserWarning for w in said) == 1 and table.attrs['most'] == 300
    pd.testing.assert_frame_equal(table, score(answer, found[found.ImageID > '001.jpg'], definition='coco'), check_exact=False)


@pytest.mark.parametrize('which', ['answer', 'submission'])
def test_a_flat_box_in_memory_is_refused_by_name(crowd, which):
    tables = [t.reset_index(drop=True) for t in crowd]
    tables[which == 'submission'].loc[3, 'XMax'] = tables[which == 'submission'].loc[3, 'XMin']
    with pytest.raises(InputError, match=f'The {which}, row 3, image .*: a box without width or height'): score(*tables)


def test_frames_are_what_the_answer_was_divided_by(): assert [*FRAMES.items()] == [('cow', (1920, 1080)), ('pig', (1280, 960))]


@pytest.mark.parametrize('gold, found', [([('a', 'cow', 1, 0, 0, 9, 9)], []), ([], []), ([], [('a', 'cow', .9, 0, 0, 9, 9)])])
def test_pictures_of_nothing_warn_of_nothing(gold, found):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        ax = plot_pr(match_boxes(boxes(*gold), boxes(*found)))
    assert ax.get_xlim() == (0, 1.02)
    matplotlib.pyplot.close('all')


def test_a_curve_over_ious_has_a_line_a_label(crowd):
    ax = plot_ious(score_ious(match_submission(*crowd, IOUS), None))
    assert [line.get_label() for line in ax.lines] == ['cow', 'pig']
    assert average_precision(match_submission(*crowd, [.75]), .75)['cow'] == ax.lines[0].get_ydata()[IOUS.index(.75)]
    matplotlib.pyplot.close('all')
