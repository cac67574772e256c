"Descriptions: darknet's cfg and ours, what is refused, and boxes that an independent numpy reading of the same maps gives."
import math

import numpy as np
import pytest
import torch

from livestock_nb.blocks import (
    DESCRIPTIONS,
    AnchorHead,
    Conv,
    DecoupledHead,
    FastestHead,
    Ghost,
    Join,
    NanoHead,
    Separable,
    Shuffle,
    build_layers,
    describe_cfg,
    focus,
    max_pool,
    read_cfg,
    read_description,
)
from livestock_nb.data import InputError

PLAIN = '''[net]
width=64   # a comment
[convolutional]
batch_normalize=1
filters = 8
size=3
stride=2
pad=1
activation=leaky

[route]
layers=-1
groups=2
group_id=1
[convolutional]
batch_normalize=1
filters=8
groups=4
size=3
stride=1
pad=1
activation=mish
[shortcut]
from=-3
activation=linear
[maxpool]
size=2
stride=2
[convolutional]
filters=21
size=1
stride=1
pad=1
activation=linear
[yolo]
mask = 1,2,3
anchors = 1,2,  3,4,  5,6, 7,8
classes=2
scale_x_y = 1.1
[route]
layers = -3
[upsample]
stride=2
[route]
layers = -1, 3
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask = 0
anchors = 1,2,3,4,5,6,7,8
classes=2
'''


def write(folder, text:str, name:str='a.cfg'):
    path = folder/name
    path.write_text(text)
    return path


# ---- cfg
def test_one_line_sections_are_the_same(tmp_path):
    short = '\n'.join(' '.join(line.replace(' ', '') for line in ('[' + s).splitlines()) for s in PLAIN.replace('   # a comment', '').split('[')[1:])
    assert read_cfg(write(tmp_path, short, 'b.cfg')) == [{k: v.replace(' ', '') for k, v in s.items()} for s in read_cfg(write(tmp_path, PLAIN))]


def test_cfg_layers(tmp_path):
    with pytest.raises(InputError, match='as many'): build_layers(describe_cfg(read_cfg(write(tmp_path, PLAIN))))  # 3 and 1 anchors
    text = PLAIN.replace('mask = 1,2,3', 'mask=3')
    d = read_description(write(tmp_path, text))
    places, _, block, args = d['layers'][-1]
    assert (block, places, args) == ('AnchorHead', [9, 4], [[[1, 2], [7, 8]], [1., 1.1]])  # ordered by stride: 2, then 4
    layers, save = build_layers(d)
    assert [type(m).__name__ for m in layers] == ['Conv', 'Join', 'Conv', 'Add', 'MaxPool2d', 'Identity', 'Identity', 'Identity', 'Upsample', 'Join',
                                                  'Identity', 'Identity', 'AnchorHead']
    assert (layers[2].conv.groups, layers[7].f, layers[3].f) == (4, -3, [-1, -3])
    assert {0, 3, 4, 9} <= set(save)


@pytest.mark.parametrize(('text', 'says'), [
    ('', 'begin with'),
    ('[net]\n', 'go on with layers'),
    ('[net]\nwidth\n[yolo]\n', 'line 2'),  # no value
    ('size=1\n[net]', 'line 1'),  # an entry before any section
    ('[net]\n[gru] size=3\n', r'\[gru\]'),
    ('[net]\n[convolutional] filters=8 size=3 activation=leaky\n', 'no .yolo. layer'),
    ('[net]\n[convolutional] batch_normalize=1 filters=8 size=1 activation=leaky\n[yolo] mask=0 anchors=1,2\n', 'needs a 1 × 1'),
    ('[net]\n[route] size=3\n', 'KeyError'),  # no layers
])
def test_cfg_refused(tmp_path, text, says):
    with pytest.raises(InputError, match=says): read_description(write(tmp_path, text))


@pytest.mark.parametrize(('text', 'says'), [
    ('nc: 2\n', 'family'),
    ('[1, 2]', 'AttributeError'),
    ('nc: 2\nfamily: x\nbackbone: []\nneck: []\nhead: []\n', 'one layer'),
    ('a: [', 'cannot be read'),
])
def test_yaml_refused(tmp_path, text, says):
    with pytest.raises(InputError, match=says): read_description(write(tmp_path, text, 'a.yaml'))


def test_unknown_words():
    base = dict(nc=1, family='x', activation='leaky', neck=0)
    with pytest.raises(InputError, match="'Conve' is not known"): build_layers(base | dict(layers=[[-1, 1, 'Conve', [8]]]))
    with pytest.raises(InputError, match="'gelu'"): build_layers(base | dict(activation='gelu', layers=[[-1, 1, 'Conv', [8]]]))
    with pytest.raises(InputError, match='8 channels'): Shuffle(8, 16)


def test_default_activation_is_put_back():
    before = Conv.default_act
    build_layers(read_description(DESCRIPTIONS/'nanodet-m.yaml'))
    assert Conv.default_act is before


# ---- blocks
def test_block_shapes():
    x = torch.zeros(1, 8, 6, 10)
    assert Shuffle(8, 20, 2)(x).shape == (1, 20, 3, 5)
    assert Ghost(8, 12)(x).shape == (1, 12, 6, 10)
    assert Separable(8, 4, 5, 2)(x).shape == (1, 4, 3, 5)
    assert max_pool(2, 2)(x).shape == (1, 8, 3, 5)
    assert max_pool(3, 2)(torch.zeros(1, 1, 112, 112)).shape == (1, 1, 56, 56)


def test_even_pool_at_stride_1_takes_from_below_and_right():
    x = torch.arange(9.).view(1, 1, 3, 3)
    assert max_pool(2, 1)(x)[0, 0].tolist() == [[4, 5, 5], [7, 8, 8], [7, 8, 8]]


def test_focus_is_slicing_and_a_convolution():
    from ultralytics.nn.modules import Focus
    ours, theirs = focus(3, 4).eval(), Focus(3, 4, 3).eval()
    for half, (dy, dx) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        ours.conv.weight.data[:, :, dy::2, dx::2] = theirs.conv.conv.weight.data[:, 3*half:3*half+3]
    x = torch.rand(1, 3, 8, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_join_takes_a_part():
    a, b = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    assert Join()([a, b]).flatten().tolist() == [0, 0, 1, 1] and Join(2, 1)([a, b]).flatten().tolist() == [1, 1]


def test_shuffle_mixes_halves():
    unit = Shuffle(6, 6).eval()
    unit.work = torch.nn.Identity()
    assert unit(torch.arange(6.).view(1, 6, 1, 1)).flatten().tolist() == [0, 3, 1, 4, 2, 5]


# ---- heads, read anew with loops
def sig(v): return 1/(1+np.exp(-v))


def loop_cells(t):
    h, w = t.shape[1:]
    return ((y, x) for y in range(h) for x in range(w))


def read_yolov4(t, head, stride):
    anchors, s, out = head.anchors[0].numpy(), head.scale_xy[0], []
    for a, (aw, ah) in enumerate(anchors):
        for y, x in loop_cells(t):
            v = t[a*(5+head.nc):(a+1)*(5+head.nc), y, x]
            cx, cy = ((sig(v[i])*s - (s-1)/2 + c)*stride for i, c in ((0, x), (1, y)))
            out.append([cx, cy, aw*math.exp(v[2]), ah*math.exp(v[3]), *(sig(v[4])*sig(v[5:]))])
    return out


def read_fastestv2(t, head, stride):
    anchors, na, out = head.anchors[0].numpy(), head.na, []
    for a, (aw, ah) in enumerate(anchors):
        for y, x in loop_cells(t):
            b, o, c = sig(t[4*a:4*a+4, y, x]), sig(t[4*na+a, y, x]), np.exp(t[5*na:, y, x])
            out.append([(2*b[0]-.5+x)*stride, (2*b[1]-.5+y)*stride, aw*(2*b[2])**2, ah*(2*b[3])**2, *(o*c/c.sum())])
    return out


def read_yolox(t, head, stride):
    cells = ((t[:, y, x], x, y) for y, x in loop_cells(t))
    return [[(v[0]+x)*stride, (v[1]+y)*stride, math.exp(v[2])*stride, math.exp(v[3])*stride, *(sig(v[4])*sig(v[5:]))] for v, x, y in cells]


def read_nanodet(t, head, stride):
    out, steps = [], np.arange(head.bins)
    for y, x in loop_cells(t):
        e = np.exp(t[head.nc:, y, x].reshape(4, head.bins))
        left, top, right, bottom = (e/e.sum(1, keepdims=True)) @ steps
        x1, y1, x2, y2 = x+head.at-left, y+head.at-top, x+head.at+right, y+head.at+bottom
        out.append([(x1+x2)/2*stride, (y1+y2)/2*stride, (x2-x1)*stride, (y2-y1)*stride, *sig(t[:head.nc, y, x])])
    return out


@pytest.mark.parametrize(('head', 'read'), [
    (AnchorHead(2, [8], [[30, 20, 5, 9]], [1.05]), read_yolov4),
    (FastestHead(3, [8], [[30, 20, 5, 9]]), read_fastestv2),
    (DecoupledHead(2, [8], 8), read_yolox),
    (NanoHead(2, [8], 3), read_nanodet),
    (NanoHead(2, [8], 5, 8, 0), read_nanodet),
], ids=['yolov4', 'fastestv2', 'yolox', 'nanodet', 'nanodet-plus'])
def test_decoding_equals_loops(head, read):
    head.stride[:] = 16
    channels = head.maps([torch.zeros(1, 8, 3, 4)])[0].shape[1]
    t = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0))
    head.maps = lambda x: x
    y, raw = head.eval()([t])
    assert raw['maps'][0] is t
    for one, same in zip(y, t, strict=True):
        np.testing.assert_allclose(one.T.detach().numpy(), read(same.numpy().astype(float), head, 16), rtol=1e-5, atol=1e-4)
