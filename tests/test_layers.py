"Blocks against slow versions in numpy, descriptions against hand-counted rows, and a tiny training with each switch."
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import make_dataset
from torch import nn
from ultralytics.nn.modules import C3, SPP, SPPF, C2f, Conv
from ultralytics.nn.modules.conv import SpatialAttention
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from livestock_nb.blocks import make_activation, read_description
from livestock_nb.criteria import SWITCHES as LOSS_SWITCHES
from livestock_nb.criteria import check_parts, tuned_rule
from livestock_nb.criteria import using as using_criteria
from livestock_nb.data import InputError
from livestock_nb.detectors import describe, make_detector
from livestock_nb.layers import (
    CrossBatchNorm,
    DeformConv,
    DropBlock,
    PointAttention,
    WeightedConcat,
    build_changed,
    carry_over,
    change_description,
    check_switches,
    deform_by_grid,
    last_conv,
    plain_block,
    to_graph,
    to_rows,
    using,
)
from livestock_nb.train import load_model, read_changes, train_model

LONG = pytest.mark.skipif(os.environ.get('LIVESTOCK_LONG') != '1', reason='takes a minute: set LIVESTOCK_LONG=1')
V5 = yaml_model_load('yolov5n.yaml')
SWITCHED = [dict(activation='relu'), dict(activation='leaky'), dict(activation='mish'), dict(spp='none'), dict(spp='spp'), dict(attention='sam'),
            dict(attention='modified'), dict(dropblock=.2), dict(neck='fpn'), dict(neck='bifpn'), dict(blocks='plain'), dict(deform=True),
            dict(p2=True), dict(norm='cmbn')]
word = lambda switches: ' '.join(f'{k}={str(v).lower()}' for k, v in switches.items())


def sigmoid(x): return 1/(1+np.exp(-x))


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- blocks
@pytest.mark.parametrize(('name', 'value', 'slope'), [  # at x = -1, by hand
    ('relu', 0, 0), ('leaky', -.1, .1), ('silu', -sigmoid(-1), sigmoid(-1)*(1 - (1-sigmoid(-1)))),
    ('mish', -np.tanh(np.log1p(np.exp(-1))), np.tanh(np.log1p(np.exp(-1))) - (1-np.tanh(np.log1p(np.exp(-1)))**2)*sigmoid(-1))])
def test_activations(name, value, slope):
    x = torch.tensor([-1.], requires_grad=True)
    y = make_activation(name)(x*1)
    y.backward()
    assert y.item() == pytest.approx(value, abs=1e-6) and x.grad.item() == pytest.approx(slope, abs=1e-6)


def slow_norm(batches, i, weight, bias, eps):
    "Batch norm of batch `i` by the pixels of all up to it, in numpy."
    seen = np.concatenate([b.transpose(1, 0, 2, 3).reshape(b.shape[1], -1) for b in batches[:i+1]], 1)
    mean, var = (v[:, None, None] for v in (seen.mean(1), seen.var(1)))
    return (batches[i]-mean)/np.sqrt(var+eps)*weight[:, None, None] + bias[:, None, None]


def test_cross_batch_norm():
    "Batches of different sizes; a new step forgets; in use it is batch norm."
    norm, batches = CrossBatchNorm(3, eps=1e-3), [noise(n, 3, s, 5, seed=n)*n+n for n, s in ((2, 4), (1, 7), (3, 2))]
    norm.weight.data, norm.bias.data = torch.tensor([1., 2, .5]), torch.tensor([0., -1, 3])
    norm.begin()
    own = [norm(b).detach().numpy() for b in batches]
    for i in range(3):
        slow = slow_norm([b.numpy().astype(float) for b in batches], i, norm.weight.detach().numpy(), norm.bias.detach().numpy(), 1e-3)
        assert np.abs(own[i]-slow).max() < 1e-4
    plain = nn.BatchNorm2d(3, eps=1e-3)
    plain.weight.data, plain.bias.data = norm.weight.data, norm.bias.data
    assert not np.allclose(own[1], plain(batches[1]).detach(), atol=.05)
    norm.begin()
    assert torch.allclose(norm(batches[1]), plain(batches[1]), atol=1e-4), 'the first batch of a step is plain batch norm'
    plain.load_state_dict({k: v for k, v in norm.state_dict().items() if k in plain.state_dict()})
    assert norm.eval()(batches[2]).equal(plain.eval()(batches[2]))


def test_cross_batch_norm_running_statistics():
    "One batch a step: those of batch norm."
    norm, plain = CrossBatchNorm(3), nn.BatchNorm2d(3)
    for i in range(3):
        norm.begin()
        for m in (norm, plain): m(noise(2, 3, 4, 4, seed=i)+i)
    for a, b in ((norm.running_mean, plain.running_mean), (norm.running_var, plain.running_var)): assert torch.allclose(a, b, atol=1e-5)


def test_cross_batch_norm_gradient():
    "It is that of the pooled statistics with the earlier batch as a constant, by finite differences."
    norm, first, second = CrossBatchNorm(2).double(), noise(2, 2, 3, 3).double(), noise(1, 2, 3, 3, seed=1).double()
    weigh = noise(1, 2, 3, 3, seed=2).double()

    def value(x):
        norm.begin()
        norm(first)
        seen = torch.cat([v.transpose(0, 1).flatten(1) for v in (first, x)], 1)
        mean, var = seen.mean(1)[:, None, None], seen.var(1, unbiased=False)[:, None, None]
        return norm(x), (x-mean)/(var+norm.eps).sqrt()
    x, y = (second.clone().requires_grad_() for _ in range(2))
    (value(x)[0]*weigh).sum().backward()
    (value(y)[1]*weigh).sum().backward()
    assert x.grad.abs().max() > .1 and torch.allclose(x.grad, y.grad, atol=1e-4)


def test_spp_is_sppf():
    "The same weights, the same numbers."
    slow, quick = SPP(16, 16).eval(), SPPF(16, 16).eval()
    quick.load_state_dict(slow.state_dict())
    quick.cv1.act = slow.cv1.act  # as ultralytics builds it in a YOLOv5
    x = noise(2, 16, 20, 14)
    assert quick(x).equal(slow(x))
    y, p = slow.cv1(x).detach().numpy(), 6
    padded = np.pad(y, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=-np.inf)
    wide = np.array([[padded[:, :, i:i+13, j:j+13].max((2, 3)) for j in range(14)] for i in range(20)]).transpose(2, 3, 0, 1)
    assert np.allclose(slow.m[2](slow.cv1(x)).detach(), wide)


def test_attention():
    sam, point, x = SpatialAttention(), PointAttention(3), noise(2, 3, 6, 5)
    v, w = x.numpy().astype(float), sam.cv1.weight.detach().numpy()[0].astype(float)
    both = np.pad(np.stack([v.mean(1), v.max(1)], 1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    slow = np.array([[(both[:, :, i:i+7, j:j+7]*w).sum((1, 2, 3)) for j in range(5)] for i in range(6)]).transpose(2, 0, 1)[:, None]
    assert np.allclose(sam(x).detach(), v*sigmoid(slow), atol=1e-5)
    w, b = point.weigh.weight.detach().numpy()[:, :, 0, 0].astype(float), point.weigh.bias.detach().numpy()
    assert np.allclose(point(x).detach(), v*sigmoid(np.einsum('oc,nchw->nohw', w, v) + b[:, None, None]), atol=1e-5)
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(point.double(), (x,)) and torch.autograd.gradcheck(sam.double(), (x,))


def test_dropblock():
    "Squares, the asked share, the mean stays; nothing in use; small maps and schedules."
    torch.manual_seed(0)
    drop, ones = DropBlock(.2), torch.ones(8, 4, 40, 40)
    y = drop(ones)
    gone = (y == 0)
    assert abs(gone.float().mean()-.2) < .05 and abs(y.mean()-1) < 1e-4 and y.unique().numel() == 2
    for cell in gone.nonzero()[::997].tolist():  # each lies in a square of 7 × 7 that is gone as a whole
        n, c, i, j = cell
        starts = [(a, b) for a in range(max(0, i-6), min(34, i+1)) for b in range(max(0, j-6), min(34, j+1))]
        assert any(gone[n, c, a:a+7, b:b+7].all() for a, b in starts)
    assert drop.eval()(ones) is ones
    small = DropBlock(.5).train()
    assert all(small(torch.ones(2, 3, s, s+1)).isfinite().all() for s in (1, 2, 3, 4, 6))
    drop.schedule(0, 5)
    assert drop.p == 0 and drop.train()(ones).equal(ones)
    drop.schedule(2, 5)
    assert drop.p == pytest.approx(.1)
    drop.schedule(0, 1)
    assert drop.p == .2
    x = torch.ones(1, 1, 9, 9, requires_grad=True)
    y = drop(x)
    y.sum().backward()
    assert x.grad.equal(y.detach()), 'the gradient passes where something is left, scaled alike'


def test_weighted_concat():
    fusion, maps = WeightedConcat(3), [noise(2, c, 3, 4, seed=c) for c in (1, 2, 3)]
    assert torch.allclose(fusion(maps), torch.cat(maps, 1), atol=1e-3), 'begins as a plain concatenation'
    fusion.weight.data[:] = torch.tensor([2., 1., -5.])
    slow = np.concatenate([m.numpy()*3*w/(3+1e-4) for m, w in zip(maps, (2, 1, 0), strict=True)], 1)
    assert np.allclose(fusion(maps).detach(), slow, atol=1e-6)
    fusion.double().weight.data[:] = torch.tensor([2., 1., .5])
    assert torch.autograd.gradcheck(lambda *v: fusion(list(v)), [m.double().requires_grad_() for m in maps])
    fusion(maps).square().sum().backward()
    assert (fusion.weight.grad != 0).all()


def test_weights_before_a_convolution_are_a_weighted_sum():
    fusion, maps, conv = WeightedConcat(2), [noise(1, c, 3, 3, seed=c) for c in (2, 3)], nn.Conv2d(5, 4, 1, bias=False)
    fusion.weight.data[:] = torch.tensor([3., 1.])
    parts = conv.weight.split((2, 3), 1)
    slow = sum(w*nn.functional.conv2d(m, p) for w, m, p in zip(fusion.shares(), maps, parts, strict=True))
    assert torch.allclose(conv(fusion(maps)), slow, atol=1e-5)


@pytest.mark.parametrize(('block', 'params'), [  # by hand: two convolutions and their norms a bottleneck, one before where channels change
    (C3(16, 16, 2), 2*(16*8+2*8 + 8*16*9+2*16)), (C3(8, 16, 1, False), 8*16+32 + 16*8+16 + 8*16*9+32), (C2f(16, 16, 3), 3*(16*8+16 + 8*16*9+32))])
def test_plain_block(block, params):
    new = plain_block(block)
    assert sum(p.numel() for p in new.parameters()) == params
    assert new(noise(1, block.cv1.conv.in_channels, 5, 5)).shape == (1, 16, 5, 5)


def slow_deform(x, offset, weight, stride=1):
    "Nine bilinear looks for each cell, in numpy loops."
    n, c1, h, w = x.shape
    k, (rows, columns) = weight.shape[-1], offset.shape[-2:]
    at = lambda i, y, u: x[i, :, y, u] if 0 <= y < h and 0 <= u < w else np.zeros(c1)
    out = np.zeros((n, len(weight), rows, columns))
    for i, row, column, a, b in np.ndindex(n, rows, columns, k, k):
        y, u = (row*stride-k//2+a + offset[i, 2*(a*k+b), row, column], column*stride-k//2+b + offset[i, 2*(a*k+b)+1, row, column])
        y0, u0 = int(np.floor(y)), int(np.floor(u))
        p, q = y-y0, u-u0
        v = at(i, y0, u0)*(1-p)*(1-q) + at(i, y0, u0+1)*(1-p)*q + at(i, y0+1, u0)*p*(1-q) + at(i, y0+1, u0+1)*p*q
        out[i, :, row, column] += weight[:, :, a, b] @ v
    return out


@pytest.mark.parametrize('stride', [1, 2])
def test_deformable_convolution(stride):
    "torchvision's, ours by grid, and a slow one agree, at the border too; it begins as the plain one; offsets learn."
    plain = Conv(2, 3, 3, stride).eval()
    with torch.no_grad(): plain.bn.running_var[:], plain.bn.running_mean[:] = torch.rand(3)+.5, noise(3)
    deform, x = DeformConv(plain).eval(), noise(2, 2, 6, 5)
    assert torch.allclose(deform(x), plain(x), atol=1e-5)
    offset, w = 2*noise(2, 18, *plain(x).shape[-2:], seed=1), plain.conv.weight
    own, slow = deform_by_grid(x, offset, w, stride), slow_deform(*(v.detach().numpy().astype(float) for v in (x, offset, w)), stride)
    assert np.abs(own.detach().numpy()-slow).max() < 1e-4
    assert np.abs(deform.conv(x, offset).detach().numpy()-slow).max() < 1e-4
    deform.train()(x).square().sum().backward()
    assert deform.offset.weight.grad.abs().max() > 0 and deform.conv.weight.grad.abs().max() > 0


def test_deformable_gradient():
    x, offset, w = noise(1, 2, 4, 4).double(), (.3+.4*noise(1, 18, 4, 4, seed=1).sigmoid()).double(), noise(2, 2, 3, 3, seed=2).double()
    assert torch.autograd.gradcheck(deform_by_grid, [v.requires_grad_() for v in (x, offset, w)])


# ---- descriptions
@pytest.mark.parametrize('name', ['yolov5n', 'yolov5n-p6', 'yolov8n', 'yolo11n', 'yolo26n'])
def test_rows_there_and_back(name):
    base = yaml_model_load(f'{name}.yaml')
    rows = base['backbone'] + base['head']
    back, at = to_rows(to_graph(rows))
    absolute = lambda rows: [r[0] for r in to_graph(rows).values()]
    assert absolute(back) == absolute(rows) and [r[1:] for r in back] == [r[1:] for r in rows] and list(at.values()) == [*range(len(rows))]


@pytest.mark.parametrize(('name', 'switches', 'head'), [  # the rows that the head reads, by hand
    ('yolov5n', dict(neck='fpn'), [17, 13, 9]), ('yolov8n', dict(neck='fpn'), [15, 12, 9]), ('yolo11n', dict(neck='fpn'), [16, 13, 10]),
    ('yolov5n', dict(neck='bifpn'), [17, 20, 23]), ('yolov5n', dict(p2=True), [21, 24, 27, 30]), ('yolov8n', dict(p2=True), [18, 21, 24, 27]),
    ('yolo11n', dict(p2=True), [19, 22, 25, 28]), ('yolov5n', dict(p2=True, neck='fpn'), [21, 17, 13, 9]),
    ('yolov5n', dict(attention='sam', dropblock=.1), [27, 28, 29]), ('yolov5n-p6', dict(neck='fpn'), [23, 19, 15, 11])])
def test_what_the_head_reads(name, switches, head):
    base = yaml_model_load(f'{name}.yaml')
    new, _ = change_description(base, switches)
    assert new['head'][-1][0] == head
    assert base == yaml_model_load(f'{name}.yaml'), 'the description itself stays'
    model = build_changed(base, switches, 2)
    strides = [4]*('p2' in switches) + [8, 16, 32] + [64]*name.endswith('p6')
    assert model.stride.tolist() == strides
    assert model.eval()(noise(1, 3, 64, 64))[0].shape[1] == 6


def test_bifpn_edges():
    "The middle level's way up sees way down, way up and backbone; each joint has weights."
    model = build_changed(V5, dict(neck='bifpn'), 2)
    joints = {m.i: m.f for m in model.model if isinstance(m, WeightedConcat)}
    assert joints == {12: [11, 6], 16: [15, 4], 19: [18, 14, 6], 22: [21, 10]}


@pytest.mark.parametrize('switches', [s for s in SWITCHED if s != dict(spp='spp')], ids=word)
def test_each_switch_changes_the_answer(switches):
    "From the same weights, with what each trains moved a little."
    torch.manual_seed(0)
    own = DetectionModel(dict(V5), nc=2, verbose=False)
    model = build_changed(V5, switches, 2)
    carried, count = carry_over(own, model)
    assert count == len(model.state_dict()) and carried > .3*count
    for m in model.modules():
        if isinstance(m, DeformConv): m.offset.bias.data += .5
        if isinstance(m, WeightedConcat): m.weight.data[0] = 2.
    x = noise(4, 3, 64, 64)
    torch.manual_seed(1)
    for m in (own, model): m.train()
    if 'norm' in switches: model(x.flip(0)*2)
    a, b = own(x), model(x)
    assert a['boxes'].shape != b['boxes'].shape or not torch.allclose(a['boxes'], b['boxes'], atol=1e-3)


def test_what_fits_is_carried_over():
    own = DetectionModel(dict(V5), nc=2, verbose=False)
    for p in own.parameters(): p.data += .01
    x = noise(1, 3, 64, 64)
    for switches, equal in ((dict(spp='spp'), True), (dict(deform=True), True), (dict(dropblock=.3), True), (dict(neck='fpn'), False)):
        model = build_changed(V5, switches, 2)
        carry_over(own, model)
        assert torch.allclose(model.eval()(x)[0], own.eval()(x)[0], atol=1e-3) == equal, switches
    fpn, own_state, at = build_changed(V5, dict(neck='fpn'), 2), own.state_dict(), 18
    carry_over(own, fpn)
    for k, v in fpn.state_dict().items():
        assert v.equal(own_state[k.replace(f'model.{at}.', 'model.24.')]), k
    p2 = build_changed(V5, dict(p2=True), 2)
    carry_over(own, p2)
    assert p2.model[-1].cv2[1][0].conv.weight.equal(own.model[-1].cv2[0][0].conv.weight), 'the finest level is now the second'
    again = build_changed(V5, dict(p2=True, attention='sam'), 2)
    carry_over(p2, again)
    assert again.model[-1].cv2[0][0].conv.weight.equal(p2.model[-1].cv2[0][0].conv.weight)
    back = build_changed(V5, {}, 2)
    carry_over(p2, back)
    assert back.model[-1].cv2[0][0].conv.weight.equal(own.model[-1].cv2[0][0].conv.weight)


@pytest.mark.parametrize(('name', 'switches'), [
    ('yolo-fastest-1.1', dict(activation='mish', attention='modified', dropblock=.1)), ('nanodet-plus-m', dict(activation='relu', attention='sam')),
    ('yolox-nano', dict(activation='leaky', norm='cmbn')), ('yolo-fastestv2', dict(attention='sam'))])
def test_own_detectors(name, switches):
    base = read_description(describe(name))
    own, model = make_detector(base, 2), build_changed(base, switches, 2)
    carry_over(own, model)
    x = noise(2, 3, 64, 64)
    a, b = own.train()(x)['maps'], model.train()(x)['maps']
    assert [v.shape for v in a] == [v.shape for v in b] and not any(torch.allclose(v, w) for v, w in zip(a, b, strict=True))


def test_all_at_once():
    "Every switch finds its place beside the others, and each level is deformed once."
    switches = dict(activation='mish', norm='cmbn', spp='spp', attention='sam', dropblock=.1, neck='bifpn', blocks='plain', deform=True, p2=True)
    model = build_changed(V5, switches, 2)
    counts = {kind.__name__: sum(isinstance(m, kind) for m in model.modules()) for kind in
              (DeformConv, SpatialAttention, DropBlock, WeightedConcat, SPP, C3, nn.SiLU, nn.Identity)}
    assert counts == dict(DeformConv=4, SpatialAttention=4, DropBlock=4, WeightedConcat=6, SPP=1, C3=0, SiLU=0, Identity=0)
    assert not any(type(m) is nn.BatchNorm2d for m in model.modules()) and model(noise(2, 3, 64, 64))['boxes'].isfinite().all()


def test_grid_scale():
    "A stretched sigmoid: raw 4 is .982 of a cell, and (.982·1.4 − .2) with a scale of 1.4."
    base = read_description(describe('yolo-fastest-1.1'))
    model = build_changed(base, dict(grid_scale=1.4), 2)
    head, raw = model.model[-1], torch.zeros(1, 21, 2, 2)
    raw[:, 0] = 4
    x = [head.decode_map(raw, 0)[0][0, 0, 0].item()/head.stride[0].item()]
    head.scale_xy = [1.]*2
    x.append(head.decode_map(raw, 0)[0][0, 0, 0].item()/head.stride[0].item())
    assert x == pytest.approx([sigmoid(4)*1.4-.2, sigmoid(4)])


def test_how_many_anchors_learn():
    "A box of 10 × 10 and anchors of it, 10 × 6 and 10 × 3 at one place: overlaps of 1, .6, .3."
    from livestock_nb.assigners import grid_places
    places = grid_places([(1, 1)], [16], torch.tensor([[[10., 10], [10, 6], [10, 3]]]))
    box, label = torch.tensor([[3., 3, 13, 13]]), torch.tensor([0])
    counts = []
    for switches in ({}, dict(positive_iou=.4), dict(positive_iou=.7), dict(anchors_per_box='one'), dict(anchors_per_box='several')):
        with using_criteria(**switches): counts.append(int(tuned_rule('shape')(places, box, label, 2).positive.sum()))
    assert counts == [3, 2, 1, 1, 3] and not LOSS_SWITCHES['positive_iou']


# ---- refusals
@pytest.mark.parametrize(('name', 'switches', 'says'), [
    ('yolov5n.yaml', dict(grid_scale=1.1), 'Detect has no such sigmoid'), ('yolo-fastestv2', dict(grid_scale=1.1), 'scale of 2 built in'),
    ('yolo-fastest-1.1', dict(p2=True), 'p2=true: for descriptions of ultralytics'), ('nanodet-m', dict(neck='fpn', spp='none'), 'spp=none'),
    ('rtdetr-l', dict(activation='mish'), "a library's"), ('faster-rcnn', dict(dropblock=.1), "a library's"),
    ('rtdetr-l.yaml', dict(neck='fpn'), "a library's"),
    ('yolov3.yaml', dict(neck='fpn'), 'no way from fine'), ('yolov3.yaml', dict(spp='none'), 'no SPPF')])
def test_refusals(name, switches, says):
    base = read_description(describe(name)) if '.yaml' not in name else yaml_model_load(name)
    if name == 'yolov5n.yaml': base = V5
    with pytest.raises(InputError, match=says):
        check_switches(base, switches)
        change_description(base, switches)


@pytest.mark.parametrize(('switches', 'says'), [
    (dict(activation='elu'), 'relu, leaky, silu, mish'), (dict(neck='pann'), 'bifpn'), (dict(dropblock=1.), 'dropblock is 1.0'),
    (dict(dropblock=-.1), 'dropblock'), (dict(grid_scale=.5), 'grid_scale'), (dict(deform=2), 'deform is 2'), (dict(norm='cbn'), 'cmbn')])
def test_bad_values(switches, says):
    with pytest.raises(InputError, match=says), using(**switches): pass


@pytest.mark.parametrize(('switches', 'says'), [(dict(positive_iou=1.2), 'below 1'), (dict(anchors_per_box='two'), 'one or several'),
                                                (dict(positive_iou=.5, anchors_per_box='one'), 'one of the two')])
def test_bad_values_of_anchors(switches, says):
    with pytest.raises(InputError, match=says), using_criteria(**switches): pass


@pytest.mark.parametrize('switches', [dict(positive_iou=.4), dict(anchors_per_box='one')])
def test_anchor_switches_without_anchors(switches):
    model = SimpleNamespace(model=[DetectionModel(dict(V5), nc=2, verbose=False).model[-1]], yaml={})
    with pytest.raises(InputError, match=f'{next(iter(switches))} is for the rule shape'), using_criteria(**switches): check_parts(model)


def test_as_typed():
    args = read_changes('activation=mish dropblock=.1 deform=true p2=true neck=bifpn spp=none norm=cmbn blocks=plain grid_scale=1.1 positive_iou=.4')
    assert args['deform'] is True and args['spp'] == 'none' and args['dropblock'] == .1


def test_last_conv(): assert last_conv(nn.Sequential(Conv(4, 4, 1))) is None


# ---- trainings
@pytest.fixture(scope='module')
def data(tmp_path_factory): return make_dataset(tmp_path_factory.mktemp('layers')/'data', count=6)


SETTINGS = dict(imgsz=64, epochs=1, batch=2, device='cpu', validate=False)
HYP = dict(optimizer='SGD', lr0=.01, accumulate=2)


def test_nothing_on_costs_nothing(data, tmp_path):
    "The same bytes with and without `using()`, and with the detector's own named."
    train_model(data, tmp_path/'a', hyp=HYP, **SETTINGS)
    with using(): train_model(data, tmp_path/'b', hyp=HYP, **SETTINGS)
    train_model(data, tmp_path/'c', hyp=HYP | dict(neck='pan', spp='sppf'), **SETTINGS)
    a, b, c = ((tmp_path/k/'best.pt').read_bytes() for k in 'abc')
    assert a == b == c


TOGETHER = [dict(activation='mish', neck='bifpn', attention='modified', dropblock=.2), dict(norm='cmbn', spp='spp', deform=True, dropblock=.1),
            dict(neck='fpn', p2=True, blocks='plain', attention='sam')]


@pytest.mark.parametrize('switches', TOGETHER, ids=word)
def test_training(switches, data, tmp_path):
    "It trains, what is delivered loads in a fresh process and predicts, and can be trained on with the same layers."
    best = train_model(data, tmp_path/'out', hyp=HYP | switches, **SETTINGS)
    program = ('import sys, torch; from livestock_nb.train import load_model; m = load_model(sys.argv[1]).model.float().eval();'
               'print(m(torch.ones(1, 3, 64, 64))[0].sum().item())')
    told = subprocess.run([sys.executable, '-c', program, str(best)], capture_output=True, text=True)
    model = load_model(best).model.float().eval()
    assert told.returncode == 0, told.stderr
    assert float(told.stdout) == pytest.approx(model(torch.ones(1, 3, 64, 64))[0].sum().item(), rel=1e-4)
    assert model.yaml['switches'] == switches and str(tmp_path) not in json.dumps(model.yaml)


@LONG
@pytest.mark.parametrize('switches', SWITCHED, ids=word)
def test_training_with_each(switches, data, tmp_path):
    train_model(data, tmp_path/'own', hyp=HYP, **SETTINGS)
    best = train_model(data, tmp_path/'out', hyp=HYP | switches, **SETTINGS)
    assert best.read_bytes() != (tmp_path/'own'/'best.pt').read_bytes()


def test_warm_start_and_on(data, tmp_path, capsys):
    "From trained weights: how much was carried over is said; trained on without a word, the layers stay."
    best = train_model(data, tmp_path/'first', hyp=HYP, **SETTINGS)
    second = train_model(data, tmp_path/'second', weights=best, hyp=HYP | dict(activation='mish', attention='sam'), **SETTINGS)
    count = len(load_model(best).model.state_dict())  # all fit, but for the one weight of each level's attention
    assert capsys.readouterr().out.count(f'activation=mish attention=sam: {count} of {count+3} tensors carried over.') == 1
    third = load_model(train_model(data, tmp_path/'third', weights=second, hyp=HYP, **SETTINGS)).model
    assert third.yaml['switches'] == dict(activation='mish', attention='sam')
    assert any(isinstance(m, SpatialAttention) for m in third.modules()) and any(isinstance(m, nn.Mish) for m in third.modules())


def test_norm_needs_several_batches(data, tmp_path):
    with pytest.raises(InputError, match='a step is one batch'):
        train_model(data, tmp_path/'out', hyp=dict(optimizer='SGD', lr0=.01, accumulate=1, norm='cmbn'), **SETTINGS)


def test_a_killed_training_goes_on(data, tmp_path):
    "DropBlock's schedule and the pooled statistics of a step that waits over the epoch's end: the same bytes."
    settings = SETTINGS | dict(epochs=3)
    hyp = dict(optimizer='SGD', lr0=.01, warmup_epochs=0, accumulate=3, dropblock=.3, norm='cmbn')
    whole = train_model(data, tmp_path/'whole', hyp=hyp, mirror=tmp_path/'m1', **settings)

    def stop(rows):
        if len(rows) == 2: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): train_model(data, tmp_path/'killed', hyp=hyp, mirror=tmp_path/'m2', watch=stop, **settings)
    killed = train_model(data, tmp_path/'killed', hyp=hyp, mirror=tmp_path/'m2', **settings)
    states = [[torch.load(p, weights_only=True)['model'] for p in sorted((tmp_path/m).glob('*.pt'))] for m in ('m1', 'm2')]
    assert all(v.equal(states[1][-1][k]) for k, v in states[0][-1].items()) and whole.read_bytes() == killed.read_bytes()
    assert all(int(v) > 0 for k, v in states[0][0].items() if k.endswith('.pixels')), 'after the second epoch a batch waits for its step'


@pytest.mark.parametrize('switches', [dict(deform=True, neck='bifpn', activation='mish'), dict(p2=True, attention='sam', dropblock=.1)], ids=word)
def test_export(switches, tmp_path):
    "ONNX Runtime gives the same boxes."
    ort = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    model = build_changed(V5, switches, 2).eval()
    for m in model.modules():
        if isinstance(m, DeformConv): nn.init.normal_(m.offset.weight, std=.05)
    x = noise(1, 3, 64, 96).sigmoid()
    model.model[-1].export = True
    with torch.no_grad():
        own = model(x)
        torch.onnx.export(model, (x,), tmp_path/'net.onnx', opset_version=17, dynamo=False, input_names=['images'],
                          dynamic_axes=dict(images={0: 'n', 2: 'h', 3: 'w'}))
    found = ort.InferenceSession(tmp_path/'net.onnx').run(None, dict(images=x.numpy()))[0]
    assert np.abs(found-own.numpy()).max() < 1e-2
