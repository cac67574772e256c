"The engine: what each step gives, that the whole equals ultralytics' own prediction, that it is bounded, and that a kill costs nothing."
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb.data import SPECIES, InputError, ahead, image_table, save_json
from livestock_nb.engine import (
    BACKENDS,
    Network,
    about,
    content_id,
    decode_near,
    detect,
    export_once,
    fetch_all,
    file_sums,
    is_whole,
    letterbox,
    open_network,
    tile_starts,
    to_boxes,
    to_input,
)
from livestock_nb.infer import confidence_bands, images_from, merge_parts, part_table, predict, predict_file, write_submission
from livestock_nb.intake import jpeg_size
from livestock_nb.train import load_model

BOTH = dict(enumerate(SPECIES))


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height//8, width//8, 3), dtype=np.uint8)
    return cv2.resize(pixels, (width, height))


def jpeg(width, height, seed=0, *options): return cv2.imencode('.jpg', picture(width, height, seed), options)[1].tobytes()


def lively(description, seed=0):
    "Random weights whose answers differ from anchor to anchor, as those of a trained network do, and are sure enough of cow and pig."
    import torch
    torch.manual_seed(seed)
    model = load_model(description)
    net = model.model
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = None
    with torch.no_grad():
        for _ in range(2): net.train()(torch.rand(2, 3, 96, 160))
    net.eval()
    for name in ('cv3', 'one2one_cv3'):
        for branch in getattr(net.model[-1], name, None) or ():
            branch[-1].bias.data[:] = -20
            branch[-1].bias.data[:2] = -3
            branch[-1].weight.data *= .2 if name == 'cv3' else .005
    net.names = dict(enumerate([*SPECIES, *(f'other {i}' for i in range(78))]))
    return model


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights')/'random.pt'
    lively('yolov5n.yaml').save(path)
    return path


@pytest.fixture(scope='module')
def nms_free_weights(tmp_path_factory):
    @cache
    def saved(description):
        path = tmp_path_factory.mktemp('weights')/f'{description}.pt'
        lively(description).save(path)
        return path
    return saved


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    "Exports go to a folder of this test."
    home = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('livestock_nb.train.cache_folder', lambda: home)
        yield


@pytest.fixture
def folder(tmp_path):
    for i, size in enumerate([(160, 96), (160, 96), (96, 128), (160, 96), (320, 192)]): (tmp_path/f'{i}.jpg').write_bytes(jpeg(*size, seed=i))
    return tmp_path


def fake(names=None, scores=.5, lanes=2):
    "A network that finds one cow in the middle of every image."
    def forward(batch):
        n, _, rows, columns = batch.shape
        return np.tile(np.array([columns/2, rows/2, 20, 10, scores, 0], np.float32)[None, :, None], (n, 1, 7))
    return Network(forward, names or {0: 'cow', 1: 'pig'}, 'fake', lanes=lanes)


def test_ahead_keeps_order_and_bounds():
    running, most, lock = 0, 0, threading.Lock()

    def work(i):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(.001*(i % 3))
        with lock: running -= 1
        return i
    taken = []
    assert list(ahead(work, (taken.append(i) or i for i in range(50)), 3, 6)) == list(range(50)) and most <= 3
    begun = []
    results = ahead(lambda i: begun.append(i), range(1000), 2, 4)
    next(results)
    time.sleep(.05)
    assert len(begun) <= 4
    results.close()
    assert list(ahead(work, [], 2, 4)) == []
    with pytest.raises(ZeroDivisionError): list(ahead(lambda i: 1/(3-i), range(9), 2, 4))


@pytest.mark.parametrize('options, why', [((), 'baseline'), ((cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 'progressive'),
                                          ((cv2.IMWRITE_JPEG_RST_INTERVAL, 4), 'restarts'), ((cv2.IMWRITE_JPEG_QUALITY, 5), 'coarse')])
def test_jpeg_size(options, why):
    assert jpeg_size(jpeg(320, 200, 0, *options)) == (320, 200, 1), why


@pytest.mark.parametrize('data', [b'', b'\xff\xd8', b'\xff\xd8\xff\xe0\x00', b'no jpeg', b'\xff\xd8' + b'\x00'*50, b'\xff\xd8\xff\xda\x00\x00\xff'])
def test_jpeg_size_of_rubbish_is_none(data):
    assert jpeg_size(data) is None
    with pytest.raises(InputError, match=r'a\.jpg is not a readable image'): decode_near(data, 'a.jpg', 10)


@pytest.mark.parametrize('side, shape', [(0, (150, 333)), (334, (150, 333)), (166.5, (75, 167)), (167, (150, 333)), (80, (38, 84)), (1, (19, 42))])
def test_reduced_decoding(side, shape):
    data = cv2.imencode('.jpg', picture(336, 152)[:150, :333])[1].tobytes()
    pixels, size = decode_near(data, 'a', side)
    assert pixels.shape[:2] == shape and size == (150, 333)
    png = cv2.imencode('.png', picture(336, 152))[1].tobytes()
    assert decode_near(png, 'a', side)[0].shape == (152, 336, 3)


def test_turned_and_cut_off_jpegs(tmp_path):
    from PIL import Image
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(picture(320, 160)).save(tmp_path/'t.jpg', exif=exif)
    data = (tmp_path/'t.jpg').read_bytes()
    for side, shape in ((0, (320, 160)), (160, (160, 80))):
        pixels, size = decode_near(data, 't', side)
        assert pixels.shape[:2] == shape and size == (320, 160)
    whole = jpeg(320, 160)
    for side in (0, 160): assert decode_near(whole[:-28], 'cut', side)[1] == (160, 320)


@pytest.mark.parametrize('height, width', [(1080, 1920), (960, 1280), (77, 333), (333, 77), (1, 640), (640, 640), (5, 5)])
@pytest.mark.parametrize('imgsz', [160, 320])
def test_letterbox_and_way_back_equal_ultralytics(height, width, imgsz):
    import torch
    from ultralytics.utils.ops import scale_boxes
    letter = letterbox(height, width, imgsz)
    corners = np.array([[0, 0, letter.columns, letter.rows], [3.5, 4.25, 20, 17], [letter.left, letter.top, letter.left+1, letter.top+1]], np.float32)
    raw = np.concatenate([(corners[:, :2]+corners[:, 2:])/2, corners[:, 2:]-corners[:, :2], [[.9, 0], [.8, 0], [.7, 0]]], 1).astype(np.float32).T
    back = to_boxes(raw, letter, BOTH, iou=1)
    np.testing.assert_allclose(back[:, :4], scale_boxes((letter.rows, letter.columns), torch.tensor(corners), (height, width)), atol=2e-3)


def test_input_equals_ultralytics():
    placed = [picture(64, 32, i) for i in range(2)]
    import torch
    stock = torch.from_numpy(np.stack(placed)[..., ::-1].transpose(0, 3, 1, 2).copy()).float()/255
    assert (torch.from_numpy(to_input(placed)) == stock).all()


def test_equals_stock_prediction(weights, folder):
    "Box for box what `yolo predict` finds, image by image."
    import torchvision  # noqa: F401  stock then suppresses by torchvision
    model = load_model(weights)
    for name, boxes in detect(images_from(folder), open_network(weights, device='cpu'), 96, conf=.001, iou=.68):
        stock = model.predict(folder/name, imgsz=96, conf=.001, iou=.68, classes=[0, 1], device='cpu', verbose=False)[0].boxes.data.numpy()
        assert len(boxes) == len(stock) > 20
        order = [np.lexsort(np.round(b[:, [0, 1, 5, 4]], 2).T) for b in (boxes, stock)]
        np.testing.assert_allclose(boxes[order[0]], stock[order[1]], atol=.02)


@pytest.mark.parametrize('backend', [b for b in BACKENDS if b != 'torch'])
def test_backends_agree(backend, weights, folder):
    pytest.importorskip(dict(onnx='onnxruntime', openvino='openvino', ncnn='ncnn')[backend], reason='this backend is not installed')
    for module in ['pnnx'] if backend == 'ncnn' else ['onnx', 'onnxslim']: pytest.importorskip(module, reason='needed to export')
    a, b = open_network(weights, device='cpu'), open_network(weights, backend, imgsz=96, precision='f32')
    assert b.names == a.names and b.stride == a.stride and b.content == content_id(weights)
    for shape in ((1, 3, 64, 96), (2, 3, 64, 96), (1, 3, 96, 96)) if backend != 'ncnn' else ((2, 3, 64, 96),):
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        near = dict(atol=.05, rtol=.01) if backend == 'ncnn' else dict(atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(np.asarray(b(x)), a(x).numpy(), **near)
        pixels = [picture(shape[3], shape[2], i) for i in range(shape[0])]
        np.testing.assert_allclose(np.asarray(b.see(pixels)), a(to_input(pixels)).numpy(), **near)


def test_weights_without_weights():
    pytest.importorskip('onnxruntime')
    with pytest.raises(InputError, match='without weights'): open_network('yolov5n.yaml', 'onnx')


def test_backend_faults(weights, monkeypatch):
    with pytest.raises(InputError, match='Unknown backend .tflite.: choose one of torch, onnx, openvino, ncnn'): open_network(weights, 'tflite')
    with pytest.raises(InputError, match='gone.pt'): open_network('gone.pt')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(InputError, match='openvino is not installed.*pip install openvino onnx'): open_network(weights, 'openvino')


def test_an_export_is_made_once(weights, monkeypatch):
    pytest.importorskip('onnxruntime')
    open_network(weights, 'onnx')
    monkeypatch.setattr('livestock_nb.train.load_model', lambda *_: pytest.fail('exported again'))
    open_network(weights, 'onnx')


def test_nms_free_rows_need_no_suppression():
    rows = np.array([[10, 10, 50, 50, .9, 1], [10, 10, 50, 50, .8, 1], [10, 10, 50, 50, .0001, 0], [0, 0, 99, 99, .7, 5]], np.float32)
    rows = np.concatenate([rows, np.zeros((3, 6), np.float32)])
    assert to_boxes(rows, letterbox(96, 96, 96), BOTH)[:, 4:].astype(float).round(2).tolist() == [[.9, 1], [.8, 1]]


@pytest.mark.parametrize('backend', ['torch', 'onnx', 'openvino'])
@pytest.mark.parametrize('description', ['yolov10n.yaml', 'yolo26n.yaml'])
def test_nms_free_heads(description, backend, folder, nms_free_weights):
    "The one-to-one head through the same door: what ultralytics finds with its `nms=False`."
    if backend != 'torch': pytest.importorskip(dict(onnx='onnxruntime').get(backend, backend), reason='this backend is not installed')
    path = nms_free_weights(description)
    network = open_network(path, backend, 160, device='cpu', precision='f32', nms_free=True)
    name, boxes = next(detect(images_from(folder/'0.jpg'), network, 160, conf=.001))
    stock = load_model(path).predict(folder/'0.jpg', imgsz=160, conf=.001, nms=False, classes=[0, 1], device='cpu', verbose=False)
    stock = stock[0].boxes.data.numpy()
    assert len(boxes) == len(stock) > 5
    np.testing.assert_allclose(np.sort(boxes[:, 4]), np.sort(stock[:, 4]), atol=2e-3)
    np.testing.assert_allclose(np.sort(boxes[:, 0]), np.sort(stock[:, 0]), atol=.1)


def test_nms_free_faults(weights):
    with pytest.raises(InputError, match='no NMS-free head'): open_network(weights, nms_free=True)
    pytest.importorskip('ncnn')
    with pytest.raises(InputError, match='ncnn cannot run an NMS-free head'): open_network(weights, 'ncnn', nms_free=True)


@pytest.mark.parametrize('length, tile, overlap, starts, why', [
    (1920, 640, .2, [0, 512, 1024, 1280], 'the last is moved back'), (1080, 640, .2, [0, 440], 'two'), (640, 640, .2, [0], 'just one'),
    (500, 640, .2, [0], 'smaller than a tile'), (1152, 640, .2, [0, 512], 'a perfect fit'), (1000, 250, 0, [0, 250, 500, 750], 'no overlap')])
def test_tiles_are_those_of_sahi(length, tile, overlap, starts, why): assert tile_starts(length, tile, overlap) == starts, why


def one(folder, n='0.jpg'): return images_from(folder/n)


@pytest.mark.parametrize('lanes', [1, 2])
def test_one_pool_or_two(weights, folder, lanes):
    "Two threads that go all the way, or that hand over to one for the network: the same boxes, in order, and no more calls than asked for."
    (folder/'3.jpg').write_bytes(b'no image')
    calls, network = [], replace(open_network(weights, device='cpu'), lanes=lanes)
    counted = replace(network, forward=lambda batch: (calls.append(1), network(batch))[1])
    found = list(detect(images_from(folder), counted, 96, conf=.01, threads=2))
    assert [name for name, _ in found] == [f'{i}.jpg' for i in range(5)] and isinstance(found[3][1], InputError) and len(calls) == 4
    for name, boxes in found[:3]: np.testing.assert_allclose(boxes, next(detect(one(folder, name), network, 96, conf=.01, batch=2))[1], atol=1e-3)
    many = pd.concat([images_from(folder/'0.jpg')]*50)
    some = detect(many, counted, 96, threads=2)
    next(some)
    some.close()
    assert len(calls) <= 4 + 2*(2+1) + 1


def test_calls_at_a_time_do_not_meet(weights, monkeypatch):
    "The head keeps the grid of the shape that it saw last, which is another call's where calls are not kept apart."
    from ultralytics.nn.modules.block import DFL
    network, real = open_network(weights, device='cpu'), DFL.forward
    batches = [np.random.default_rng(0).random((1, 3, *size), dtype=np.float32) for size in ((64, 96), (96, 64))]
    alone = [network(b).numpy() for b in batches]
    monkeypatch.setattr(DFL, 'forward', lambda self, x: (time.sleep(.1), real(self, x))[1])  # after the grid is made, before it is used
    with ThreadPoolExecutor(2) as pool: together = [y.numpy() for y in pool.map(network, batches)]
    for a, b in zip(alone, together, strict=True): np.testing.assert_array_equal(a, b)


def test_views_of_one_kind_equal_the_plain_way(weights, folder):
    "The same network twice, by hard suppression, is that network; a mirrored image gives mirrored boxes."
    network = open_network(weights, device='cpu')
    plain, twice = (dict(detect(images_from(folder), n, 96, conf=.02)) for n in (network, [network, network]))
    for name, boxes in plain.items():
        for b in boxes: assert np.abs(twice[name] - b).max(axis=1).min() < .02, 'every box is there'
    assert all(len(twice[n]) == len(plain[n]) for n in plain)


def test_mirrored_boxes_come_back(folder):
    "A network that finds the brightest column, in every view of an image that is bright at x = 40 of 160."
    grey = np.zeros((96, 160, 3), np.uint8)
    grey[:, 36:44] = 255
    cv2.imwrite(str(folder/'bright.png'), grey)

    def forward(batch):
        x = np.array([[(row*np.arange(len(row))).sum()/row.sum()] for row in batch.mean(axis=(1, 2))])
        return np.concatenate([x + .5, x*0 + batch.shape[2]/2, x*0 + 10, x*0 + 10, x*0 + .9], 1, dtype=np.float32)[..., None].repeat(7, 2)
    brightest = Network(lambda batch: forward((batch > .9)*1.), {0: 'cow'}, 'fake')
    _, boxes = next(detect(one(folder, 'bright.png'), brightest, 160, augment=True, iou=.99))
    assert len(boxes) > 1 and np.abs(boxes[:, [0, 2]].mean(axis=1) - 40).max() < 1.5


def test_tiles_drop_cut_animals(folder):
    "A network that fills whatever it sees with one box: only the whole image's is uncut."
    fill = Network(lambda b: np.tile(np.array([b.shape[3]/2, b.shape[2]/2, b.shape[3], b.shape[2], .9], np.float32)[None, :, None], (len(b), 1, 7)),
                   {0: 'cow'}, 'fake')
    assert next(detect(one(folder), fill, 96, tile=64))[1][:, :4].tolist() == [[0, 0, 160, 96]]
    _, boxes = next(detect(one(folder), fake(), 96, tile=64))
    centres = sorted(((b[0]+b[2])/2, (b[1]+b[3])/2) for b in boxes.astype(float).round(1))
    assert centres == [(32, 32), (32, 64), (80, 48), (84, 32), (84, 64), (128, 32), (128, 64)]  # of 3 × 2 tiles, and the whole


def test_fusion_of_two_networks(folder):
    "Two see a cow, one of them a pig as well: fusion takes the mean and halves what only one saw; trust moves both."
    def saw(*rows):
        columns = np.array(rows, np.float32).T[None]
        columns = np.concatenate([columns, np.zeros((1, 6, 7-len(rows)), np.float32)], 2)
        return Network(lambda batch: columns.repeat(len(batch), 0), {0: 'cow', 1: 'pig'}, 'fake')
    a, b = saw([48, 29, 20, 20, .9, 0], [20, 29, 10, 10, 0, .6]), saw([50, 29, 20, 20, .3, 0])
    find = lambda **way: next(detect(one(folder), [a, b], 160, iou=.55, **way))[1].astype(float).round(3).tolist()
    assert find(kind='fusion') == [[38.5, 19, 58.5, 39, .6, 0], [15, 24, 25, 34, .3, 1]]
    assert find(kind='fusion', trust=[1, 3])[0][4] == .45
    assert [b[4] for b in find(kind='voting')] == pytest.approx([.9, .6]) and [b[4] for b in find()] == pytest.approx([.9, .6])
    with pytest.raises(InputError, match='Unknown kind'): find(kind='hardest')
    names = replace(b, names={0: 'pig', 1: 'cow'})
    assert [row[5] for row in next(detect(one(folder), [a, names], 160, iou=.55))[1]] == [0, 1, 1], 'each network has its own class numbers'


def test_lists_zips_and_videos(folder, tmp_path):
    with zipfile.ZipFile(tmp_path/'z.zip', 'w') as z:
        for n in ('sub/9.jpg', '__MACOSX/9.jpg', 'notes.txt'): z.writestr(n, jpeg(64, 48))
    assert images_from(tmp_path/'z.zip')[['image', 'width', 'height', 'member']].values.tolist() == [['9.jpg', 64, 48, 'sub/9.jpg']]
    (tmp_path/'list.txt').write_text('2.jpg\ngone.jpg\nz.zip\n\n0.jpg\n')
    listed = images_from(tmp_path/'list.txt')
    assert listed.image.tolist() == ['0.jpg', '2.jpg', '9.jpg', 'gone.jpg'] and listed.width.tolist() == [160, 96, 64, 0]
    video = cv2.VideoWriter(str(tmp_path/'barn.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (160, 96))
    for i in range(4): video.write(np.full((96, 160, 3), 50*i, np.uint8))
    video.release()
    frames = images_from(tmp_path/'barn.avi')
    assert frames.image.tolist() == [f'barn_00000{i}' for i in range(4)] and frames.width.tolist() == [160]*4
    with ExitStack() as opened:
        grey = {row.image: int(data.mean().round()) for row, data in fetch_all(frames.iloc[[1, 3]], opened)}
    assert {k: abs(v - {'barn_000001': 50, 'barn_000003': 150}[k]) < 3 for k, v in grey.items()} == {'barn_000001': True, 'barn_000003': True}
    every = pd.concat([listed, frames, image_table([dict(image='barn_9', species='', width=0, height=0, zip=str(tmp_path/'barn.avi'), member='9')])])
    found = dict(detect(every, fake(), 96))
    assert {n for n, b in found.items() if isinstance(b, InputError)} == {'gone.jpg', 'barn_9'} and len(found) == 9
    (tmp_path/'only').mkdir()
    (tmp_path/'z.zip').rename(tmp_path/'only'/'z.zip')
    assert images_from(tmp_path/'only', sizes=False).width.tolist() == [0]
    (tmp_path/'only'/'z.zip').write_bytes(b'PK no zip')
    with pytest.raises(InputError, match='cannot be read as a zip'): images_from(tmp_path/'only')


def test_a_broken_zip_member_is_one_problem(tmp_path):
    with zipfile.ZipFile(tmp_path/'z.zip', 'w') as z:
        for n in 'ab': z.writestr(f'{n}.jpg', jpeg(64, 48, ord(n)))
    data = bytearray((tmp_path/'z.zip').read_bytes())
    data[200] ^= 0xff  # inside a.jpg
    (tmp_path/'z.zip').write_bytes(data)
    found = dict(detect(images_from(tmp_path/'z.zip'), fake(), 64))
    assert 'a.jpg: Bad CRC-32' in str(found['a.jpg']) and len(found['b.jpg']) == 1


@pytest.mark.parametrize('batch', [1, 3])
def test_to_disk_is_what_predict_finds(weights, folder, batch):
    (folder/'bad.jpg').write_bytes(b'no image')
    network, images = open_network(weights, device='cpu'), images_from(folder)
    boxes, problems = predict(images, network, 96, conf=.01, batch=batch)
    said = predict_file(images, network, folder/'new.csv', 96, conf=.01, batch=batch, margin=0, part=2)
    assert len(boxes) > 20 and said.image.tolist() == ['bad.jpg'] and said.values.tolist() == problems.values.tolist()
    old, new = write_submission(boxes, folder/'old.csv').read_bytes(), (folder/'new.csv').read_bytes()
    if batch == 1: assert old == new
    assert len(old.splitlines()) == len(new.splitlines()) and not list(folder.glob('.*'))


def test_images_without_a_box_are_named(folder):
    images = images_from(folder)
    problems = predict_file(images, fake(scores=.0001), folder/'s.csv', 96, part=3)
    assert problems.kind.tolist() == ['missing']*5 and (folder/'s.csv').read_text() == 'ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\n'
    assert predict_file(images[:0], fake(), folder/'none.csv').empty


def random_found(images, most, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(images):
        n = rng.integers(0, most)
        xy = rng.random((n, 2))*50
        yield f'{i:03}.jpg', np.c_[xy, xy+rng.random((n, 2))*40, rng.integers(0, 50, n)/50, rng.integers(0, 2, n)].astype(np.float32)


def test_bands_sort_everything(tmp_path):
    import pyarrow.parquet as pq
    parts, found = [], list(random_found(40, 60))
    for k in range(4):
        parts.append(tmp_path/f'{k}.parquet')
        pq.write_table(part_table(found[10*k:10*k+10]), parts[-1])
    whole = merge_parts(parts, tmp_path/'whole.csv', rows=10**9).read_bytes()
    assert len(confidence_bands(parts, 100)) > 8
    for rows in (1, 100, 700): assert merge_parts(parts, tmp_path/'bands.csv', rows).read_bytes() == whole
    conf = pd.read_csv(tmp_path/'whole.csv').Conf
    assert conf.is_monotonic_decreasing and len(conf) == sum(len(b) for _, b in found)


def test_names_that_need_quotes(tmp_path):
    import pyarrow.parquet as pq
    pq.write_table(part_table([('a,"b".jpg', np.array([[1, 2, 3, 4, .5, 0]]))]), tmp_path/'0.parquet')
    assert pd.read_csv(merge_parts([tmp_path/'0.parquet'], tmp_path/'s.csv')).ImageID.tolist() == ['a,"b".jpg']


def test_another_question_starts_anew(folder, monkeypatch):
    import livestock_nb.infer as infer
    images = images_from(folder)
    network = Network(fake().forward, {0: 'cow', 1: 'pig'}, 'fake', content='x')

    def stop(*_): raise KeyboardInterrupt
    for conf, left in ((.1, 1), (.2, 1)):
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(infer, 'merge_parts', stop)
            predict_file(images, network, folder/'s.csv', 96, conf=conf, part=2)
        assert len(list(folder.glob('.s.csv.*.parts'))) == left
    monkeypatch.setattr(infer, 'part_table', lambda *_: pytest.fail('predicted again'))
    predict_file(images, network, folder/'s.csv', 96, conf=.2, part=2)
    assert len((folder/'s.csv').read_text().splitlines()) == 6 and not list(folder.glob('.*'))


class Counting:
    "A network that counts its calls."
    def __init__(self, pause): self.pause, self.calls = pause, 0

    def __call__(self, batch):
        time.sleep(self.pause)
        self.calls += 1
        return np.tile(np.array([48, 32, 20, 10, batch.mean(), 0], np.float32)[None, :, None], (len(batch), 1, 7))


def run_counting(folder, out, pause=0):
    forward = Counting(float(pause))
    predict_file(images_from(folder), Network(forward, {0: 'cow', 1: 'pig'}, 'fake', content='x'), out, 96, part=3)
    return forward.calls


def test_a_killed_run_goes_on(tmp_path):
    "Killed by force in the middle, the same call makes only what is missing, and the same bytes as an undisturbed one."
    (tmp_path/'f').mkdir()
    for i in range(24): (tmp_path/'f'/f'{i:02}.jpg').write_bytes(jpeg(96, 64, i))
    call = 'import sys; sys.path.insert(0, sys.argv[1]); from test_engine import run_counting; run_counting(*sys.argv[2:])'
    first = subprocess.Popen([sys.executable, '-c', call, Path(__file__).parent, tmp_path/'f', tmp_path/'a.csv', '.05'], stderr=subprocess.DEVNULL)
    parts, deadline = lambda: len(list(tmp_path.glob('.a.csv.*.parts/[0-9]*.parquet'))), time.monotonic() + 60
    while parts() < 3 and first.poll() is None and time.monotonic() < deadline: time.sleep(.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = parts()
    assert 3 <= done < 8 and not (tmp_path/'a.csv').exists()
    assert run_counting(tmp_path/'f', tmp_path/'a.csv') == 24 - 3*done
    assert run_counting(tmp_path/'f', tmp_path/'b.csv') == 24 and (tmp_path/'a.csv').read_bytes() == (tmp_path/'b.csv').read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.csv', 'b.csv', 'f']


def test_memory_is_flat(folder):
    "Ten times the images, the same resident set: the bars of the full test are in benchmarks/infer.py."
    import psutil
    images = images_from(folder).iloc[:1]
    many = lambda n: pd.concat([images]*n).assign(image=[f'{i:06}.jpg' for i in range(n)])
    grown = []
    for n in (100, 1000):
        predict_file(many(n), fake(), folder/'s.csv', 96, part=100)
        grown.append(psutil.Process().memory_info().rss)
    assert grown[1] - grown[0] < 30e6


def test_command(weights, folder):
    from livestock_nb.cli import main
    (folder/'bad.jpg').write_bytes(b'no image')
    words = ['infer', '--weights', str(weights), '--images', str(folder), '--out', str(folder/'s.csv')]
    main([*words, '--backend', 'torch', '--imgsz', '96', '--conf', '.01'])
    assert set(pd.read_csv(folder/'s.csv').ImageID) == {f'{i}.jpg' for i in range(5)}
    with pytest.raises(SystemExit, match='Unknown backend'): main([*words, '--backend', 'x'])


@pytest.mark.parametrize('spoil', [lambda p: p.write_bytes(p.read_bytes()[:-1000]), lambda p: p.unlink(),
                                   lambda p: p.write_bytes(p.read_bytes()[:-1] + b'?')], ids=['cut off', 'gone', 'flipped'])
def test_an_export_that_is_not_whole_is_made_again(weights, spoil):
    home = export_once(weights, 'onnx')
    before = (home/'network.onnx').read_bytes()
    made = (home/'about.json').stat().st_mtime_ns
    assert export_once(weights, 'onnx') == home and (home/'about.json').stat().st_mtime_ns == made
    spoil(home/'network.onnx')
    assert export_once(weights, 'onnx') == home and (home/'about.json').stat().st_mtime_ns > made
    assert len((home/'network.onnx').read_bytes()) == len(before) and open_network(weights, 'onnx').names[19] == 'other 17'


def test_an_export_whose_page_cannot_be_read_is_no_export(tmp_path):
    (tmp_path/'network.onnx').write_bytes(b'a network')
    page = dict(names={0: 'cow'}, stride=32, files=file_sums(tmp_path))
    save_json(page, tmp_path/'about.json')
    assert is_whole(tmp_path) and about(tmp_path) == dict(names={0: 'cow'}, stride=32)
    whole = (tmp_path/'about.json').read_bytes()
    for bad in (whole[:-9], b'', b'[]', b'\xff', b'['*100_000, *(whole.replace(k, b'x') for k in (b'names', b'stride', b'files', b'"0"', b'32'))):
        (tmp_path/'about.json').write_bytes(bad)
        assert not is_whole(tmp_path), bad
