"The losses against cases worked out by hand, slow versions of their formulas, and numeric gradients."
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from ultralytics.utils.loss import DFLoss

from livestock_nb.data import InputError
from livestock_nb.losses import BOX_LOSSES, CLASS_LOSSES, box_loss, class_loss, loss_table, quality_focal, smooth_labels

UNIT = [0., 0, 2, 2]
PAIRS = [  # predicted, gold, then the losses by hand: iou, giou, diou, ciou
    (UNIT, UNIT, 0, 0, 0, 0, 'the same'),
    ([1., 0, 3, 2], UNIT, 2/3, 2/3, 2/3+1/13, 2/3+1/13, 'half a width aside: union 6, box around 6, diagonal² 13'),
    ([4., 0, 6, 2], UNIT, 1, 1+4/12, 1+16/40, 1+16/40, 'apart: a third of the box around is empty'),
    ([1., 1, 3, 3], UNIT, 6/7, 6/7+2/9, 6/7+2/18, 6/7+2/18, 'by the diagonal'),
    ([.5, .5, 1.5, 1.5], UNIT, 3/4, 3/4, 3/4, 3/4, 'inside, of the same centre and proportions'),
]


def slow_class(x, y, kind):
    p = 1/(1+math.exp(-x))
    bce = -(y*math.log(p) + (1-y)*math.log(1-p))
    at = p*y + (1-p)*(1-y)
    return {'bce': bce, 'focal': bce*(1-at)**2*(.25*y + .75*(1-y)), 'qfl': bce*abs(p-y)**2}[kind]


def slow_box(a, b, kind, alpha=None):
    "One pair, term by term; `alpha` fixes CIoU's weight."
    if kind == 'smooth_l1': return sum(.5*d*d if d < 1 else d-.5 for d in (abs(p-q) for p, q in zip(a, b, strict=True)))/4
    w, h = max(0, min(a[2], b[2])-max(a[0], b[0])), max(0, min(a[3], b[3])-max(a[1], b[1]))
    union = (a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1]) - w*h
    iou, cw, ch = w*h/union, max(a[2], b[2])-min(a[0], b[0]), max(a[3], b[3])-min(a[1], b[1])
    far = (((a[0]+a[2]-b[0]-b[2])/2)**2 + ((a[1]+a[3]-b[1]-b[3])/2)**2)/(cw*cw+ch*ch)
    v = 4/math.pi**2*(math.atan((b[2]-b[0])/(b[3]-b[1])) - math.atan((a[2]-a[0])/(a[3]-a[1])))**2
    alpha = (v/(1-iou+v) if v else 0) if alpha is None else alpha
    return {'iou': 1-iou, 'iou2': 1-iou**2, 'giou': 1-iou+(cw*ch-union)/(cw*ch), 'diou': 1-iou+far, 'ciou': 1-iou+far+alpha*v}[kind]


def alpha_of(a, b): return slow_box(a, b, 'ciou', 1)-slow_box(a, b, 'diou'), slow_box(a, b, 'iou')


def random_pairs(n=40):
    rng = np.random.default_rng(0)
    at, size = rng.uniform(0, 30, (2, n, 2)), rng.uniform(5, 40, (2, n, 2))
    return torch.tensor(np.concatenate([at, at+size], -1))


@pytest.mark.parametrize(('a', 'b', 'iou', 'giou', 'diou', 'ciou', 'why'), PAIRS, ids=[p[-1] for p in PAIRS])
def test_boxes_by_hand(a, b, iou, giou, diou, ciou, why):
    a, b = torch.tensor([a], dtype=torch.double), torch.tensor([b], dtype=torch.double)
    got = {kind: box_loss(a, b, kind).item() for kind in ('iou', 'giou', 'diou', 'ciou', 'iou2')}
    assert got == pytest.approx(dict(iou=iou, giou=giou, diou=diou, ciou=ciou, iou2=1-(1-iou)**2), abs=1e-6)


def test_ciou_by_hand():
    "A box of 4 × 1 in one of 2 × 2: IoU 1/3; v = 4/π²·(atan 1 − atan 4)², α = v/(2/3 + v)."
    v = 4/math.pi**2*(math.atan(1)-math.atan(4))**2
    got = box_loss(torch.tensor([[-1., .5, 3, 1.5]]).double(), torch.tensor([UNIT]).double(), 'ciou').item()
    assert got == pytest.approx(1-2/6 + v*v/(2/3+v), abs=1e-6)


@pytest.mark.parametrize('kind', BOX_LOSSES)
def test_boxes_and_their_gradients(kind):
    a, b = random_pairs()
    slow = [slow_box(p, q, kind) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert box_loss(a, b, kind).tolist() == pytest.approx(slow, abs=1e-6)
    a.requires_grad_()
    if kind != 'ciou': assert gradcheck(lambda x: box_loss(x, b, kind), (a,), atol=1e-6)


def test_ciou_gradient_holds_alpha():
    "The paper's α counts as constant: the numeric gradient is of a formula with α fixed, and another one without."
    a, b = random_pairs(12)
    got, = torch.autograd.grad(box_loss(a.requires_grad_(), b, 'ciou').sum(), a)
    free = 0
    for i, (p, q) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        v, miss = alpha_of(p, q)
        for j in range(4):
            up, down = (p[:j]+[p[j]+e]+p[j+1:] for e in (1e-5, -1e-5))
            slope = (slow_box(up, q, 'ciou', v/(miss+v))-slow_box(down, q, 'ciou', v/(miss+v)))/2e-5
            assert got[i, j].item() == pytest.approx(slope, abs=1e-6)
            free = max(free, abs((slow_box(up, q, 'ciou')-slow_box(down, q, 'ciou'))/2e-5 - slope))
    assert free > 1e-4


def test_apart_boxes_are_pulled_together():
    "Plain IoU has no slope where boxes do not touch; the others have one."
    a, b = torch.tensor([[50., 0, 60, 10]], requires_grad=True), torch.tensor([[0., 0, 10, 10]])
    slopes = {k: torch.autograd.grad(box_loss(a, b, k).sum(), a)[0].abs().sum().item() for k in BOX_LOSSES}
    assert slopes['iou'] == slopes['iou2'] == 0 and min(slopes[k] for k in ('giou', 'diou', 'ciou', 'smooth_l1')) > 0


@pytest.mark.parametrize('kind', CLASS_LOSSES)
def test_classes_and_their_gradients(kind):
    rng = np.random.default_rng(1)
    x, y = torch.tensor(rng.normal(0, 3, 60)), torch.tensor(rng.choice([0, 1, .3, .77], 60))
    assert class_loss(x, y, kind).tolist() == pytest.approx([slow_class(*v, kind) for v in zip(x.tolist(), y.tolist(), strict=True)], abs=1e-9)
    assert gradcheck(lambda v: class_loss(v, y, kind), (x.requires_grad_(),))


def test_quality_focal_by_hand():
    assert quality_focal(torch.tensor(0.), torch.tensor(1.)).item() == pytest.approx(math.log(2)/4)  # (1 − ½)²·log 2
    assert quality_focal(torch.tensor(0.), torch.tensor(.5)).item() == 0  # as wanted
    assert quality_focal(torch.tensor(0.), torch.tensor(0.), beta=0).item() == pytest.approx(math.log(2))  # then it is cross-entropy


def test_quality_focal_is_smallest_at_what_is_wanted():
    p = torch.linspace(.01, .99, 99).double()
    for y in (.1, .5, .9):
        assert p[quality_focal(p.logit(), torch.full_like(p, y)).argmin()].item() == pytest.approx(y)


def test_distribution_focal_by_hand_and_gradient():
    logits = torch.zeros(4, 8, dtype=torch.double)
    logits[0, 2], logits[0, 3] = 3, 5
    lower = [math.log(math.exp(3)+math.exp(5)+6)-3, math.log(math.exp(3)+math.exp(5)+6)-5]
    wanted = torch.tensor([[2.25, 0., 6.5, 9.]])  # the last is out of reach and becomes 6.99
    hand = (.75*lower[0] + .25*lower[1] + 3*math.log(8))/4
    assert DFLoss(8)(logits, wanted.double().clone()).item() == pytest.approx(hand)
    assert gradcheck(lambda x: DFLoss(8)(x, wanted.double().clone()), (torch.randn(4, 8, dtype=torch.double, requires_grad=True),))
    assert wanted.tolist() == [[2.25, 0., 6.5, 9.]]


def test_smoothing():
    assert smooth_labels(torch.tensor([0., 1., .5]), .2).tolist() == pytest.approx([.1, .9, .5])
    y = torch.tensor([0., 1.])
    assert smooth_labels(y, 0).equal(y)
    x = torch.tensor([9., -9.], requires_grad=True)
    class_loss(x, smooth_labels(y[[1, 0]], .1)).sum().backward()
    assert x.grad[0] > 0 > x.grad[1], 'too certain: the logits are pulled back'
    torch_own = torch.nn.functional.cross_entropy(torch.tensor([[2., 0.]]), torch.tensor([0]), label_smoothing=.1)
    assert torch_own.item() == pytest.approx(math.log(1+math.exp(-2))*.95 + math.log(1+math.exp(2))*.05)


def test_each_kind_differs():
    a, b = random_pairs()
    sums = [box_loss(a, b, k).sum().item() for k in BOX_LOSSES]
    sums += [class_loss(a[:, 0]/9, torch.full((40,), .4).double(), k).sum().item() for k in CLASS_LOSSES]
    assert len({round(s, 6) for s in sums}) == len(sums)


@pytest.mark.parametrize('call', [lambda a: box_loss(a, a, 'cious'), lambda a: class_loss(a, a, 'bcee')])
def test_unknown_names(call):
    with pytest.raises(InputError, match='ciou|bce'): call(torch.ones(1, 4))


def test_no_pairs():
    none = torch.zeros(0, 4)
    assert all(box_loss(none, none, k).shape == (0,) for k in BOX_LOSSES)


def test_the_table_names_every_loss():
    table = loss_table()
    assert {*CLASS_LOSSES, *BOX_LOSSES, 'dfl', 'smoothing', 'softmax'} == set(table.index) and table.notna().all(axis=None)
