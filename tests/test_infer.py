"Prediction on small images with an untrained detector, and the rules of a submission."
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import CORNERS, SPECIES, InputError, box_table, image_table
from livestock_nb.infer import (
    check_submission,
    images_from,
    model_labels,
    pick_images,
    plot_confidence,
    predict,
    same_size,
    score_table,
    to_submission,
    write_submission,
)
from livestock_nb.score import SUBMISSION_COLUMNS, read_submission
from livestock_nb.train import load_model

FAST = dict(imgsz=96, device='cpu')


def jpeg(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height//8, width//8, 3), dtype=np.uint8)
    return cv2.imencode('.jpg', cv2.resize(pixels, (width, height)))[1].tobytes()


@pytest.fixture(scope='module')
def detector():
    import torch
    torch.manual_seed(0)
    model = load_model('yolov5n.yaml')
    head = model.model.model[-1]
    for i, branch in enumerate(head.cv3):  # only cow and pig, sure enough to be kept
        branch[-1].bias.data[:] = -20
        branch[-1].bias.data[:2] = -3 + .1*i
    model.model.names = dict(enumerate([*SPECIES, *(f'other {i}' for i in range(78))]))
    return model


@pytest.fixture
def folder(tmp_path):
    for name, size in {'a.jpg': (160, 96), 'b.jpg': (160, 96), 'c.PNG': (96, 128), 'sub/d.jpeg': (160, 96)}.items():
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_bytes(jpeg(*size, seed=len(name)))
    (tmp_path/'notes.txt').write_text('no image')
    return tmp_path


def test_predict_finds_clipped_boxes_of_known_labels(detector, folder):
    images = images_from(folder)
    boxes, problems = predict(images, detector, conf=.001, **FAST)
    assert problems.empty and len(boxes) and set(boxes.source) == {'model'} and set(boxes.label) <= set(SPECIES)
    size = images.set_index('image')[['width', 'height']].loc[boxes.image]
    assert (boxes[CORNERS] >= 0).all(axis=None) and (boxes.x2 <= size.width.values).all() and (boxes.y2 <= size.height.values).all()
    assert boxes.groupby('image').size().max() <= 300 and boxes.confidence.between(.001, 1).all()
    assert predict(images, detector, conf=.999, **FAST)[0].empty


def in_place(boxes):
    "By place: the confidences of this detector are so near each other that rounding decides their order, and which box another one suppresses."
    return boxes.sort_values(['image', 'label', *CORNERS], key=lambda v: v if v.dtype.kind not in 'f' else v.round(), ignore_index=True)


def test_boxes_do_not_depend_on_order_batch_or_neighbours(detector, folder):
    images = images_from(folder)
    every, _ = predict(images, detector, conf=.05, iou=1, **FAST)
    assert every.groupby('image').size().ge(30).all()
    for other in (predict(images[::-1], detector, conf=.05, iou=1, **FAST), predict(images, detector, conf=.05, iou=1, batch=1, **FAST)):
        pd.testing.assert_frame_equal(in_place(other[0]), in_place(every), atol=1e-3)
    alone, _ = predict(images[images.image == 'c.PNG'], detector, conf=.05, iou=1, **FAST)
    pd.testing.assert_frame_equal(in_place(alone), in_place(every[every.image == 'c.PNG']), atol=1e-3)
    pd.testing.assert_frame_equal(predict(images[::-1], detector, conf=.04, **FAST)[0], predict(images, detector, conf=.04, **FAST)[0])


def test_a_slow_computer_loses_no_boxes(detector, folder, monkeypatch):
    import ultralytics.utils.nms as nms
    images = images_from(folder)
    every, _ = predict(images, detector, conf=.04, **FAST)
    clock = iter(range(0, 10**6, 10))  # every look at the clock is 10 s after the last
    monkeypatch.setattr(nms.time, 'time', lambda: next(clock))
    slow, _ = predict(images, detector, conf=.04, **FAST)
    assert slow.image.nunique() == 4
    pd.testing.assert_frame_equal(slow, every, atol=1e-3)


def test_unreadable_images_are_reported_and_the_rest_goes_on(detector, folder):
    (folder/'bad.jpg').write_bytes(b'no image')
    (folder/'empty.jpg').write_bytes(b'')
    images = images_from(folder)
    (folder/'a.jpg').unlink()
    boxes, problems = predict(images, detector, **FAST)
    assert problems.image.tolist() == ['a.jpg', 'bad.jpg', 'empty.jpg'] and set(boxes.image) == {'b.jpg', 'c.PNG', 'd.jpeg'}
    assert problems.columns.tolist() == ['image', 'kind', 'detail', 'action']
    assert all(n in d for n, d in zip(problems.image, problems.detail, strict=True))


def test_images_in_a_zip(detector, tmp_path):
    with zipfile.ZipFile(tmp_path/'z.zip', 'w') as z: z.writestr('a.jpg', jpeg(160, 96))
    rows = [dict(image=n, species='cow', width=160, height=96, zip=str(tmp_path/'z.zip'), member=n) for n in ('a.jpg', 'gone.jpg')]
    boxes, problems = predict(image_table(rows), detector, **FAST)
    assert set(boxes.image) == {'a.jpg'} and problems.image.tolist() == ['gone.jpg']


def test_no_images(detector):
    boxes, problems = predict(image_table([]), detector, **FAST)
    assert boxes.empty and problems.empty


@pytest.mark.parametrize('names, labels', [({0: 'cow', 1: 'pig'}, {0: 'cow', 1: 'pig'}), ({0: 'Pig', 1: 'Cow'}, {0: 'pig', 1: 'cow'}),
                                           ({0: 'person', 19: 'cow', 20: 'elephant'}, {19: 'cow'})])
def test_labels_by_name(names, labels, detector):
    class Named: pass
    model = Named()
    model.names = names
    assert model_labels(model) == labels
    model.names = {0: 'sheep', 1: 'guinea pig'}
    with pytest.raises(InputError, match='sheep, guinea pig, but neither cow nor pig'): model_labels(model)


def test_weights_that_do_not_exist(folder):
    with pytest.raises(InputError, match='nowhere/best.pt'): predict(images_from(folder), 'nowhere/best.pt', **FAST)


def test_images_from(folder):
    images = images_from(folder)
    assert images.image.tolist() == ['a.jpg', 'b.jpg', 'c.PNG', 'd.jpeg'] and set(images.species) == {''}
    assert images.width.tolist() == [160, 160, 96, 160] and images.height.tolist() == [96, 96, 128, 96]
    assert images_from([folder/'b.jpg', folder/'sub']).image.tolist() == ['b.jpg', 'd.jpeg']
    assert images_from([folder, folder/'a.jpg']).image.tolist() == images.image.tolist()
    (folder/'sub'/'a.jpg').write_bytes(jpeg(32, 32))
    assert {str(folder/'a.jpg'), str(folder/'sub'/'a.jpg')} < set(images_from(folder).image)
    with pytest.raises(InputError, match='nowhere'): images_from(folder/'nowhere')
    with pytest.raises(InputError, match=r'No .*\.jpg.* files'): images_from(folder/'notes.txt')


def test_size_is_upright(tmp_path):
    from PIL import Image
    exif = Image.Exif()
    exif[0x112] = 6  # the camera was held upright
    Image.new('RGB', (160, 96)).save(tmp_path/'turned.jpg', exif=exif)
    assert images_from(tmp_path)[['width', 'height']].iloc[0].tolist() == [96, 160]


def test_same_size_keeps_order_and_pairs():
    shapes = [(2, 2), (2, 2), (2, 2), (3, 2), None, (2, 2)]
    pairs = [(i, np.zeros(s) if s else InputError('no')) for i, s in enumerate(shapes)]
    assert [[i for i, _ in chunk] for chunk in same_size(pairs, 2)] == [[0, 1], [2], [3], [4], [5]]


def found(*rows): return box_table([dict(zip(['image', 'label', 'confidence', *CORNERS], r, strict=True)) for r in rows])


def test_submission_rows():
    boxes = found(('b', 'pig', .5, 1, 2, 3, 4), ('a', 'pig', .5, 1, 2, 3, 4), ('a', 'cow', .5, 1, 2, 3, 5), ('a', 'cow', .5, 1, 2, 3, 4),
                  ('z', 'cow', .9, 1, 2, 3, 4), ('a', 'cow', .8, 5, 2, 5, 4), ('a', 'cow', .8, 5, 4, 9, 4))
    rows = to_submission(boxes)
    assert rows.columns.tolist() == SUBMISSION_COLUMNS
    assert rows.values.tolist() == [['z', 'cow', .9, 1, 3, 2, 4], ['a', 'cow', .5, 1, 3, 2, 4], ['a', 'cow', .5, 1, 3, 2, 5],
                                    ['a', 'pig', .5, 1, 3, 2, 4], ['b', 'pig', .5, 1, 3, 2, 4]]
    pd.testing.assert_frame_equal(to_submission(boxes.sample(frac=1, random_state=0)), rows)


def test_written_submission_is_read_back(tmp_path):
    boxes = found(('가.jpg', 'pig', .5, 1.00049, 2, 3, 4), ('a', 'cow', .123456789, 1, 2, 3, 4))
    path = write_submission(boxes, tmp_path/'new'/'s.csv')
    assert path.read_text('utf-8') == 'ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n가.jpg,pig,0.5,1,3,2,4\na,cow,0.1234568,1,3,2,4\n'
    pd.testing.assert_frame_equal(read_submission(path), to_submission(boxes))


def test_nothing_found_is_a_valid_csv(tmp_path):
    with pytest.warns(UserWarning, match='no rows: the detector found nothing') as said: write_submission(found(), tmp_path/'s.csv')
    assert [w.category for w in said].count(UserWarning) == 1 and (tmp_path/'s.csv').read_text() == ','.join(SUBMISSION_COLUMNS) + '\n'
    rows = read_submission(tmp_path/'s.csv')
    answer = pd.DataFrame([('a', 'cow', 0, 1.2, 0, 1.1)], columns=[c for c in SUBMISSION_COLUMNS if c != 'Conf'])
    assert score_table(answer, rows).ap.tolist() == [0]*4
    assert check_submission(rows, ['a']).kind.tolist() == ['missing']
    plot_confidence(found())


def test_check_submission():
    rows = to_submission(found(('a', 'cow', .5, 1, 2, 3, 4), ('b', 'pig', .5, 1, 2, 3, 4)))
    assert check_submission(rows, ['a', 'b']).empty
    bad = pd.concat([rows, rows.assign(Conf=1.5), rows.assign(LabelName='sheep'), rows.assign(XMin=np.nan), rows.assign(YMax=2)])
    report = check_submission(bad, ['b', 'c'])
    assert report[['image', 'kind']].values.tolist() == [['c', 'missing'], ['a', 'extra'], *[['a', 'bad value']]*4, *[['b', 'bad value']]*4]
    assert 'sheep' in ' '.join(report.detail)


@pytest.mark.parametrize('change, kind, detail', [
    (dict(Conf=-.1), 'bad value', 'a confidence outside'), (dict(Conf=np.nan), 'bad value', 'missing or no number'),
    (dict(XMax='wide'), 'bad value', 'no number'), (dict(XMax=np.inf), 'bad value', 'no number'), (dict(LabelName=None), 'bad value', 'missing'),
    (dict(LabelName='Cow'), 'bad value', 'not cow or pig'), (dict(XMax=1), 'bad value', 'without area'), (dict(XMax=1921), 'outside', '1921'),
    (dict(YMin=-1), 'outside', '-1'), (dict(Conf=.9), 'order', 'more confident')])
def test_each_fault_of_a_row_is_named(change, kind, detail):
    rows = to_submission(found(('a', 'cow', .8, 1, 2, 30, 40), ('a', 'cow', .5, 1, 2, 3, 4))).astype(object)
    images = image_table([dict(image='a', species='', width=1920, height=1080)])
    assert check_submission(rows, ['a'], images).empty
    for name, value in change.items(): rows.loc[1, name] = value
    report = check_submission(rows, ['a'], images)
    assert report[['image', 'kind']].values.tolist() == [['a', kind]] and detail in report.detail[0]


def test_a_submission_without_its_columns_is_refused():
    rows = to_submission(found(('a', 'cow', .8, 1, 2, 30, 40)))
    with pytest.raises(InputError, match='has no Conf, XMax: its columns are'): check_submission(rows.drop(columns=['Conf', 'XMax']), ['a'])


def test_pick_images():
    images = image_table([dict(image=n, species='cow', width=9, height=9) for n in 'abc'])
    kept, problems = pick_images(images, ['c', 'a', 'x'])
    assert kept.image.tolist() == ['a', 'c'] and problems[['image', 'kind']].values.tolist() == [['b', 'not wanted'], ['x', 'not found']]
    assert pick_images(images, images.image)[1].empty


def test_score_table_names_its_definitions():
    answer = pd.DataFrame([('a', 'pig', 0, 1.4, 0, 1.1)], columns=[c for c in SUBMISSION_COLUMNS if c != 'Conf'])
    df = score_table(answer, to_submission(found(('a', 'pig', .9, 0, 0, 1.4*1280, 1.1*960))))
    assert df.columns.tolist() == ['definition', 'iou', 'label', 'ap', 'low', 'high', 'boxes', 'rows'] and df[['low', 'high']].isna().all(axis=None)
    assert df[['definition', 'iou', 'label', 'ap', 'boxes', 'rows']].values.tolist() == [
        ['challenge', .75, 'pig', 1, 1, 1], ['challenge', .75, 'mean', 1, 1, 1], ['coco', .75, 'pig', 1, 1, 1], ['coco', .75, 'mean', 1, 1, 1]]


def test_scores_have_their_interval():
    rng, names = np.random.default_rng(0), [f'{i}.jpg' for i in range(12)]
    answer = pd.DataFrame([(n, 'pig', .1, .3, .1, .3) for n in names], columns=[c for c in SUBMISSION_COLUMNS if c != 'Conf'])
    boxes = found(*((n, 'pig', c, 128, 96, 384, 288 if i % 3 else 190) for i, (n, c) in enumerate(zip(names, rng.random(12), strict=True))))
    df = score_table(answer, to_submission(boxes))
    assert ((df.low < df.ap) & (df.ap < df.high)).all()
