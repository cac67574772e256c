"Every named detector: what it weighs, what its layers and outputs are, that its file opens safely, that other runtimes agree."
import os

import numpy as np
import pytest
import torch

from livestock_nb.blocks import DESCRIPTIONS, read_description
from livestock_nb.data import InputError
from livestock_nb.detectors import (
    DETECTORS,
    FAMILIES,
    FarmDetector,
    anchor_iou,
    box_sizes,
    build_model,
    count_gflops,
    describe,
    fit_anchors,
    layer_types,
    list_detectors,
    own_description,
    with_anchors,
)

LONG = pytest.mark.skipif(not os.environ.get('LIVESTOCK_LONG'), reason='takes minutes: set LIVESTOCK_LONG=1')
# parameters (M, 80 classes, unfused, without what only training needs) and GFLOPs of the reference implementations; None: not published in that form
WEIGHS = {
    'yolov5n': (2.66, 7.7), 'yolov5s': (9.15, 24), 'yolov5m': (25.1, 64), 'yolov5l': (53.2, 135), 'yolov5m6': (41.2, 261), 'yolov5x6': (155.5, 1003),
    'yolov4': (64.36, 60.1), 'yolov4-tiny': (6.06, 6.9), 'yolo-fastest-1.1': (.333, .251), 'yolo-fastest-1.1-xl': (.899, .723),
    'yolo-fastestv2': (.2431, .213), 'yolox-nano': (.912, None), 'yolox-tiny': (5.056, None), 'nanodet-m': (.950, .68),
    'nanodet-plus-m': (1.198, .90), 'nanodet-plus-m-1.5x': (2.478, 1.76), 'yolo11n': (2.62, None), 'yolo26n': (2.57, None), 'rtdetr-l': (32.97, None),
    'faster-rcnn': (41.76, None)}
# of each row made here: convolutions, of them depthwise (with as many groups as channels), batch norms, channels of a map, strides
LAYERS = {
    'yolov4': (110, 0, 107, 255, [8, 16, 32]), 'yolov4-tiny': (21, 0, 19, 255, [16, 32]),
    'yolo-fastest-1.1': (84, 28, 82, 255, [16, 32]), 'yolo-fastest-1.1-xl': (84, 28, 82, 255, [16, 32]),
    'yolo-fastestv2': (76, 27, 73, 95, [16, 32]), 'nanodet-m': (73, 25, 67, 112, [8, 16, 32]),
    'nanodet-plus-m': (110, 43, 106, 112, [8, 16, 32, 64]), 'nanodet-plus-m-1.5x': (110, 43, 106, 112, [8, 16, 32, 64]),
    'yolox-nano': (113, 30, 104, 85, [8, 16, 32]), 'yolox-tiny': (83, 0, 74, 85, [8, 16, 32])}
OWN = list(LAYERS)
SMALL = ['yolo-fastest-1.1', 'yolo-fastestv2', 'nanodet-m', 'nanodet-plus-m', 'yolox-nano']


@pytest.fixture(scope='module')
def models() -> dict:
    "Every detector made here, with 80 classes."
    return {name: build_model(name, 80) for name in OWN}


# ---- what they are
def test_every_row_is_tested(): assert set(WEIGHS) == set(DETECTORS)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match='nosuch.*choose from yolov5n'): list_detectors(['yolov5n', 'nosuch'])


@pytest.mark.parametrize('name', [pytest.param(n, marks=LONG) if WEIGHS[n][0] > 100 else n for n in WEIGHS if n not in OWN])
def test_parameters_of_libraries(name):
    model = build_model(name, 80)
    assert sum(p.numel() for p in model.parameters())/1e6 == pytest.approx(WEIGHS[name][0], rel=.005)
    if WEIGHS[name][1]: assert count_gflops(model, DETECTORS[name]['imgsz']) == pytest.approx(WEIGHS[name][1], rel=.01)


@pytest.mark.parametrize('name', OWN)
def test_parameters(models, name):
    params, gflops = WEIGHS[name]
    assert sum(p.numel() for p in models[name].model.parameters())/1e6 == pytest.approx(params, rel=.005)
    if gflops: assert count_gflops(models[name], DETECTORS[name]['imgsz']) == pytest.approx(gflops, rel=.01)


@pytest.mark.parametrize('name', OWN)
def test_layers_and_outputs(models, name):
    net = models[name].model
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    *counts, channels, strides = LAYERS[name]
    assert [len(convs), sum(m.groups == m.in_channels for m in convs), layer_types(net)['BatchNorm2d']] == counts
    head = net[-1]
    assert head.stride.tolist() == models[name].stride.tolist() == strides
    x = torch.zeros(2, 3, 128, 192)
    out = models[name](x)
    shapes = [(2, channels, 128//s, 192//s) for s in strides]
    assert [tuple(m.shape) for m in out['maps']] == shapes
    assert [tuple(m.shape) for m in out.get('aux', [])] == (shapes if 'plus' in name else [])
    with torch.no_grad(): y, raw = models[name].eval()(x)
    models[name].train()
    anchors = head.na if hasattr(head, 'na') else 1
    assert y.shape == (2, 84, anchors*sum(h*w for _, _, h, w in shapes)) and y.isfinite().all() and (y[:, 4:] >= 0).all() and (y[:, 4:] <= 1).all()
    assert 'aux' not in raw


def test_activations_of_yolov4(models):
    types = layer_types(models['yolov4'])
    assert (types['Mish'], types['LeakyReLU'], types['MaxPool2d']) == (72, 35, 3)


def test_no_row_is_another_in_disguise(models):
    kinds = {name: (*sorted(layer_types(m).items()), sum(p.numel() for p in m.parameters())) for name, m in models.items()}
    assert len(set(kinds.values())) == len(OWN)


@pytest.mark.parametrize('name', ['rtdetr-l', 'faster-rcnn'])
def test_detectors_of_libraries_answer_in_px(name):
    torch.manual_seed(0)
    model = build_model(name, 2).eval()
    with torch.no_grad(): y, _ = model(torch.rand(2, 3, 96, 160))
    assert y.shape[:2] == (2, 6) and y[:, 0].max() > 96 and y[:, 1].max() <= 96.1 and (y[:, 4:] <= 1).all()


def test_unknown_name():
    with pytest.raises(InputError, match='nanodet-plus-m'): describe('nanodet-plus')


def test_what_is_ours(tmp_path):
    assert own_description('yolov5n.yaml') is None
    (tmp_path/'theirs.yaml').write_text('nc: 2\nbackbone: []\nhead: []\n')
    (tmp_path/'bad.yaml').write_text('a: [')
    assert own_description(tmp_path/'theirs.yaml') is own_description(tmp_path/'none.cfg') is None
    with pytest.raises(InputError, match='bad.yaml cannot be read as yaml'): own_description(tmp_path/'bad.yaml')
    assert {own_description(p)['family'] for p in DESCRIPTIONS.glob('*.*')} == {'yolov4', 'fastestv2', 'yolox', 'nanodet', 'nanodet-plus', *FAMILIES}


# ---- the guide
def test_guide_is_for_training_only():
    model = FarmDetector(describe('nanodet-plus-m'), nc=2)
    x, backbone = torch.rand(2, 3, 64, 64), model.model[0].conv.weight
    sum(m.sum() for m in model(x)['aux']).backward()
    assert backbone.grad.abs().sum() > 0
    model.zero_grad()
    model.guide.detached = True
    sum(m.sum() for m in model(x)['aux']).backward()
    assert backbone.grad is None or not backbone.grad.abs().sum()
    assert model.guide.head.cls[0].weight.grad.abs().sum() > 0
    model.slim()
    assert 'aux' not in model(x) and len(model.state_dict()) == len(model.model.state_dict())


def test_guide_begins_as_the_neck():
    model = FarmDetector(describe('nanodet-plus-m'), nc=2)
    for a, b in zip(model.guide.neck.parameters(), model.model[8:-1].parameters(), strict=True): assert torch.equal(a, b) and a is not b


# ---- files
@pytest.mark.parametrize('name', [*SMALL, 'yolov4-tiny', 'rtdetr-l', 'faster-rcnn'])
def test_checkpoint_opens_safely_and_is_the_same(tmp_path, name):
    from ultralytics.nn.tasks import torch_safe_load

    from livestock_nb.train import load_model
    model = build_model(name, 2).eval()
    torch.save(dict(model=model, train_args=dict(task='detect')), tmp_path/'a.pt')
    ckpt, _ = torch_safe_load(tmp_path/'a.pt', safe_only=True)  # what ULTRALYTICS_SAFE_LOAD=1 does
    other = load_model(tmp_path/'a.pt').model
    assert type(other) is type(model) is type(ckpt['model'])
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad(): assert torch.equal(model(x)[0], other.eval()(x)[0])


def test_weights_move_to_another_number_of_classes():
    a, b = FarmDetector(describe('nanodet-plus-m'), nc=80), FarmDetector(describe('nanodet-plus-m'), nc=2)
    a.slim()
    b.load(a, verbose=False)
    assert torch.equal(a.model[5][0].work[0].conv.weight, b.model[5][0].work[0].conv.weight) and b.model[-1].out[0].out_channels == 34


def agree(name:str, folder, imgsz:int=128) -> None:
    "ONNX Runtime's and OpenVINO's (f32) answers, to another shape than the export's, are PyTorch's within a relative 1e-3."
    from livestock_nb.artefacts import largest_difference, pair_up
    from livestock_nb.engine import open_network
    torch.manual_seed(0)
    model = build_model(name, 2).eval()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(0, .05), m.running_var.uniform_(.7, 1.3)  # so that folding it matters
    torch.save(dict(model=model, train_args=dict(task='detect')), folder/f'{name}.pt')
    x = np.random.default_rng(0).random((1, 3, 128, 192), dtype=np.float32)
    with torch.no_grad(): want = model(torch.from_numpy(x))[0].numpy()
    for backend in ('onnx', 'openvino'):
        got = open_network(folder/f'{name}.pt', backend, imgsz, 1, precision='f32' if backend == 'openvino' else '')(x)
        assert got.shape == want.shape and largest_difference(got, want) < 1e-4
        scale = np.abs(want).max(2, keepdims=True)
        a, b = got/scale, want/scale
        if want.shape[2] <= 300: a = pair_up(a, b)  # what is found is a set
        assert (np.abs(a-b)/(np.abs(b) + 1e-3)).max() < 1e-3, backend


@pytest.mark.parametrize('name', [n if n == 'yolo-fastestv2' else pytest.param(n, marks=LONG) for n in DETECTORS])
def test_exports_agree(tmp_path, monkeypatch, name):
    for module in ('onnx', 'onnxslim', 'onnxruntime', 'openvino'): pytest.importorskip(module)
    monkeypatch.setattr('livestock_nb.train.cache_folder', lambda: tmp_path/'cache')
    agree(name, tmp_path)


# ---- training
class Killed(Exception): "Stands for a process that is no more."


@pytest.mark.parametrize('name', [n if n == 'yolo-fastestv2' else pytest.param(n, marks=LONG) for n in [*SMALL, 'faster-rcnn']])
def test_trains_and_goes_on_after_a_kill(tmp_path, name):
    pytest.importorskip('livestock_nb.criteria', reason='this package has no criteria')
    from test_train import make_dataset

    from livestock_nb.train import load_model, train_model
    data, hyp = make_dataset(tmp_path/'data', count=8), dict(optimizer='AdamW', lr0=.001)
    train = lambda out, **also: train_model(data, tmp_path/out, name, hyp, imgsz=64, epochs=2, batch=4, device='cpu', **also)
    whole = train('whole')

    def kill(results):
        if len(results) == 1: raise Killed
    with pytest.raises(Killed): train('parts', watch=kill)
    assert (tmp_path/'parts'/'work').is_dir() and train('parts').read_bytes() == whole.read_bytes()
    model = load_model(whole).model
    assert type(model) is type(build_model(name, 2)) and model.names == {0: 'cow', 1: 'pig'} and getattr(model, 'guide', None) is None
    weight = sum(p.numel() for p in model.parameters())*2
    assert weight < whole.stat().st_size < 1.3*weight + 200_000


# ---- anchors
def test_anchors_fit_and_order_does_not_matter():
    rng = np.random.default_rng(0)
    sizes = np.array([[20, 15], [60, 40], [150, 90]])[rng.integers(3, size=200)]*np.exp(rng.normal(0, .05, (200, 2)))
    anchors = fit_anchors(sizes, 3)
    assert np.abs(anchors/np.array([[20, 15], [60, 40], [150, 90]]) - 1).max() < .07
    assert (fit_anchors(sizes[::-1], 3) == anchors).all()
    assert anchor_iou(sizes, anchors) > .9 > anchor_iou(sizes, np.array([[12, 16], [76, 55], [459, 401]]))


def test_anchor_iou_by_hand():
    assert anchor_iou(np.array([[10, 10], [20, 5]]), np.array([[10, 10], [40, 5]])) == pytest.approx((1 + .5)/2)


@pytest.mark.parametrize('sizes', [np.empty((0, 2)), np.full((50, 2), 9.), np.zeros((9, 2))])
def test_too_few_boxes_for_anchors(sizes):
    with pytest.raises(InputError, match='too few'): fit_anchors(sizes, 6)
    d = read_description(describe('yolo-fastest-1.1'))
    assert with_anchors(d, sizes)[0] is d


def test_anchors_go_into_the_description():
    sizes = np.exp(np.random.default_rng(0).normal(4, .3, (300, 2)))
    d = read_description(describe('yolo-fastestv2'))
    fitted, before, after = with_anchors(d, sizes)
    assert after > before and fitted['layers'][-1][3][0] != d['layers'][-1][3][0]
    head = FarmDetector(fitted, nc=2).model[-1]
    assert head.anchors.shape == (2, 3, 2) and head.anchors[0].prod(1).max() < head.anchors[1].prod(1).min()
    d = read_description(describe('nanodet-m'))
    assert with_anchors(d, sizes) == (d, 0, 0)


def test_box_sizes_are_those_that_the_detector_sees(tmp_path):
    from PIL import Image
    for d in ('images', 'labels'): (tmp_path/d).mkdir()
    for i, size in enumerate([(200, 100), (100, 200)]): Image.new('RGB', size).save(tmp_path/'images'/f'{i}.jpg')
    for i, line in enumerate(['0 .5 .5 .5 .5\n\n', '1 .5 .5 .1 .2\n', '0 .5 .5 1 1']): (tmp_path/'labels'/f'{i}.txt').write_text(line)
    (tmp_path/'train.txt').write_text(''.join(f'./images/{i}.jpg\n' for i in range(3)))  # the last one is missing
    assert box_sizes(dict(train=str(tmp_path/'train.txt')), 100).tolist() == [[50, 25], [5, 20]]


def test_a_training_from_scratch_fits_its_anchors_and_one_from_weights_keeps_them(tmp_path, capsys):
    pytest.importorskip('livestock_nb.criteria', reason='this package has no criteria')
    from test_train import make_dataset

    from livestock_nb.train import load_model, read_data, train_model
    def made(name:str, scale:float):
        data = make_dataset(tmp_path/name, count=10)
        for i in range(9): (data/'labels'/f'{i}.txt').write_text(f'{i%2} .5 .5 {scale*(.1+.08*i)} {scale*(.12+.05*(i*4%9))}\n')
        return data
    train = lambda data, weights: train_model(data, data/'out', weights, dict(optimizer='AdamW', lr0=.001), 64, 1, 4, 'cpu', validate=False)
    first = train(data := made('first', 1), 'yolo-fastestv2')
    fitted = fit_anchors(box_sizes(read_data(data), 64), 6)
    assert load_model(first).model.model[-1].anchors.view(-1, 2).tolist() == fitted.tolist()
    said = ''.join(capsys.readouterr())
    assert said.count('Anchors: mean IoU with the boxes') == 1
    second = train(made('second', .5), first)
    assert load_model(second).model.model[-1].anchors.view(-1, 2).tolist() == fitted.tolist()
    assert 'Anchors:' not in ''.join(capsys.readouterr())
