"The criteria of each family: they teach, they are finite, and they are what their authors say, against slow sums in numpy."
import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from livestock_nb.criteria import (
    CRITERIA,
    SWITCHES,
    check_parts,
    criterion_for,
    decode_maps,
    family_of,
    gold_boxes,
    head_places,
    raw_targets,
    smooth_positive,
    switch_losses,
    using,
)
from livestock_nb.data import InputError
from livestock_nb.train import load_model

SIDE, NC = 96, 2
PLAN = {  # family: strides, channels, where a point is
    'yolov4': ([16, 32], 3*(5+NC), .5), 'fastestv2': ([16, 32], 3*5+NC, .5), 'yolox': ([8, 16, 32], 5+NC, .5),
    'nanodet': ([8, 16, 32], NC+32, .5), 'nanodet-plus': ([8, 16, 32, 64], NC+32, 0.)}


class FakeHead(nn.Module):
    "Maps that are parameters, read as the family's paper says."
    nc, na, bins = NC, 3, 8

    def __init__(self, family, seed=0, images=2):
        super().__init__()
        strides, channels, self.at = PLAN[family]
        self.family, self.stride, self.nl = family, torch.tensor(strides).float(), len(strides)
        self.anchors = torch.empty(0)  # as ultralytics' heads have it
        if family in ('yolov4', 'fastestv2'): self.anchors = torch.tensor([[[14., 12], [20, 34], [40, 26]], [[44, 50], [60, 40], [80, 76]]])
        self.scale_xy = [1.1, 1.05]
        gen = torch.Generator().manual_seed(seed)
        sizes = [-(-SIDE//s) for s in strides]
        self.raw = nn.ParameterList(torch.randn(images, channels, s, s, generator=gen)*.3 for s in sizes)
        for t in self.raw:  # a score of about .05, as real heads begin
            v = t.data.view(images, 3, 5+NC, -1)[:, :, 4:] if family == 'yolov4' else t.data[:, {'fastestv2': 12, 'yolox': 4}.get(family, 0):]
            (v[:, :NC] if 'nano' in family else v).sub_(3)

    def decode_map(self, t, i):
        n, s = len(t), float(self.stride[i])
        y, x = torch.meshgrid(torch.arange(t.shape[2]), torch.arange(t.shape[3]), indexing='ij')
        corner = torch.stack([x, y]).flatten(1).float()
        if self.family == 'yolov4':
            v, k = t.view(n, 3, 5+NC, -1), self.scale_xy[i]
            boxes = torch.cat([(v[:, :, :2].sigmoid()*k-(k-1)/2+corner)*s, v[:, :, 2:4].exp()*self.anchors[i][:, :, None]], 2)
            return boxes.transpose(1, 2).flatten(2), (v[:, :, 4:5].sigmoid()*v[:, :, 5:].sigmoid()).transpose(1, 2).flatten(2)
        t = t.flatten(2)
        if self.family == 'fastestv2':
            v = t[:, :12].view(n, 3, 4, -1).sigmoid()
            boxes = torch.cat([(v[:, :, :2]*2-.5+corner)*s, (v[:, :, 2:]*2)**2*self.anchors[i][:, :, None]], 2)
            return boxes.transpose(1, 2).flatten(2), (t[:, 12:15, None].sigmoid()*t[:, None, 15:].softmax(2)).transpose(1, 2).flatten(2)
        if self.family == 'yolox': return torch.cat([t[:, :2]+corner, t[:, 2:4].exp()], 1)*s, t[:, 4:5].sigmoid()*t[:, 5:].sigmoid()
        far = (t[:, NC:].view(n, 4, 8, -1).softmax(2)*torch.arange(8.)[:, None]).sum(2)
        return torch.cat([corner+self.at+(far[:, 2:]-far[:, :2])/2, far[:, 2:]+far[:, :2]], 1)*s, t[:, :NC].sigmoid()


def fake_model(family, **more):
    return SimpleNamespace(model=[FakeHead(family)], yaml=dict(family=family), args=SimpleNamespace(epochs=100, close_mosaic=10), **more)


def batch_of(boxes, labels, images):
    return dict(img=torch.zeros(2, 3, SIDE, SIDE), batch_idx=torch.tensor(images).float(), cls=torch.tensor(labels).float().view(-1, 1),
                bboxes=torch.tensor(boxes).float().view(-1, 4)/SIDE)


BATCH = batch_of([[24, 30, 30, 26], [60, 60, 56, 44], [66, 20, 18, 22], [40, 50, 70, 60]], [0, 1, 1, 0], [0, 0, 0, 1])
EMPTY = batch_of([], [], [])


def preds_of(model):
    head, preds = model.model[0], dict(maps=list(model.model[0].raw))
    return preds | dict(aux=[t*.8 for t in head.raw]) if head.family == 'nanodet-plus' else preds


def value(model, batch=BATCH, criterion=None): return (criterion or criterion_for(model))(preds_of(model), batch)


@pytest.mark.parametrize('family', CRITERIA)
def test_one_batch_is_learnt(family):
    "Fifty steps on the maps themselves: the loss falls, and the most confident box of the second image is its gold one."
    model = fake_model(family)
    head, criterion = model.model[0], criterion_for(model)
    optimizer, first = torch.optim.Adam(head.parameters(), .1), None
    for _ in range(50):
        loss, parts = value(model, criterion=criterion)
        first = loss.sum().item() if first is None else first
        optimizer.zero_grad()
        loss.sum().backward()
        assert all(p.grad.isfinite().all() for p in head.parameters())
        optimizer.step()
    assert loss.sum().item() < .5*first
    boxes, scores = decode_maps(head, list(head.raw))
    top = boxes[1, scores[1].amax(1).argmax()].detach().numpy()
    assert scores[1].amax(1).max() > .3 and scores[1].amax(0).argmax() == 0
    assert np.abs(top-[5, 20, 75, 80]).max() < 14, f'{family}: {top}'
    assert list(parts) == list(criterion.names) and len(parts) == 3 and not any(p.requires_grad for p in parts.values())


@pytest.mark.parametrize('family', CRITERIA)
def test_no_boxes(family):
    "Nothing to find: no loss of boxes, a loss of being sure, a finite gradient."
    model = fake_model(family)
    loss, parts = value(model, EMPTY)
    loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.model[0].parameters())
    assert parts['box_loss'] == 0 and loss.sum() > 0
    half = value(model, {k: v[-1:] if k != 'img' else v for k, v in BATCH.items()})[0]  # the first image has none
    assert half.isfinite().all() and (half[0] > 0)


@pytest.mark.parametrize('family', CRITERIA)
def test_order_and_doubles_of_boxes(family):
    model, order = fake_model(family), torch.tensor([2, 3, 0, 1])
    shuffled = {k: v if k == 'img' else v[order] for k, v in BATCH.items()}
    double = {k: v if k == 'img' else torch.cat([v, v[:2]]) for k, v in BATCH.items()}
    assert value(model)[0].equal(value(model, shuffled)[0]) and value(model)[0].equal(value(model, double)[0])


@pytest.mark.parametrize('family', CRITERIA)
def test_form(family):
    "Times the number of images; a pair from validation is read too; half precision is computed in float32."
    model = fake_model(family)
    loss, parts = value(model)
    assert loss.shape == (3,) and loss.detach().tolist() == pytest.approx([2*p.item() for p in parts.values()])
    assert criterion_for(model)((None, preds_of(model)), BATCH)[0].equal(loss)
    half = {k: [t.bfloat16() for t in v] for k, v in preds_of(model).items()}
    assert criterion_for(model)(half, BATCH)[0].dtype == torch.float32
    copy.deepcopy(criterion_for(model))


@pytest.mark.parametrize('family', CRITERIA)
def test_boxes_beyond_and_without_area(family):
    odd = batch_of([[24, 30, 30, 26], [500, 500, 20, 20], [40, 40, 0, 10], [48, 48, 96, 96]], [0, 1, 1, 1], [0, 0, 1, 1])
    model = fake_model(family)
    loss = value(model, odd)[0]
    loss.sum().backward()
    assert loss.isfinite().all() and all(p.grad.isfinite().all() for p in model.model[0].parameters())


def test_gold_boxes():
    got = gold_boxes(BATCH, 3, (SIDE, SIDE), 'cpu')
    assert [len(b) for b, _ in got] == [3, 1, 0] and got[0][1].tolist() == [0, 1, 1]
    assert got[1][0][0].tolist() == pytest.approx([5, 20, 75, 80])
    assert gold_boxes(EMPTY, 2, (9, 9), 'cpu')[1][0].shape == (0, 4)


def sigmoid(x): return 1/(1+math.exp(-x))


def softplus(x): return math.log1p(math.exp(x))


def iou(a, b):
    w, h = max(0, min(a[2], b[2])-max(a[0], b[0])), max(0, min(a[3], b[3])-max(a[1], b[1]))
    return w*h/((a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1]) - w*h)


def seen(model):
    "Everything as numpy: targets by the criterion's own rule (tested elsewhere), boxes, and raw maps as (image, level, channel, row, column)."
    from livestock_nb.criteria import assign_batch
    criterion, head, preds = criterion_for(model), model.model[0], preds_of(model)
    boxes, scores = decode_maps(head, preds.get('aux', preds['maps']))
    if head.family == 'yolox': scores = scores.sqrt()
    t = assign_batch(criterion, head_places(head, preds['maps']), gold_boxes(BATCH, 2, (SIDE, SIDE), 'cpu'), boxes, scores)
    return t, decode_maps(head, preds['maps'])[0].detach().double().numpy(), [m.detach().double().numpy() for m in preds['maps']]


def place_rows(head):
    "Level, anchor, row and column of each place, in order."
    na = 3 if head.family in ('yolov4', 'fastestv2') else 1
    return [(i, a, y, x) for i, m in enumerate(head.raw) for a in range(na) for y in range(m.shape[2]) for x in range(m.shape[3])]


def test_yolov4_by_a_slow_sum():
    model = fake_model('yolov4')
    t, boxes, maps = seen(model)
    gold, box, cls, obj, n = gold_boxes(BATCH, 2, (SIDE, SIDE), 'cpu'), 0, 0, 0, 0
    from torchvision.ops import complete_box_iou
    for b in range(2):
        for i, (level, a, y, x) in enumerate(place_rows(model.model[0])):
            v = maps[level][b, a*(5+NC):(a+1)*(5+NC), y, x]
            if t.positive[b, i]:
                n += 1
                box += .07*(1-complete_box_iou(torch.tensor(boxes[b, i])[None].float(), t.boxes[b, i][None]).item())
                cls += sum(softplus(v[5+c]) - (c == t.labels[b, i].item())*v[5+c] for c in range(NC))
                obj += softplus(-v[4])
            elif max(iou(boxes[b, i], g) for g in gold[b][0].tolist()) <= .7: obj += softplus(v[4])
    assert n > 8
    assert [p.item() for p in value(model)[1].values()] == pytest.approx([box/n, cls/n, obj/n], rel=1e-4)


def test_slopes_of_yolov4s_boxes_are_darknets():
    "By the box as fractions of the image, a centre's as it is, a size's times e to the raw number; GIoU, which has no part that counts as constant."
    from torchvision.ops import generalized_box_iou
    model = fake_model('yolov4')
    t, boxes, maps = seen(model)
    with using(box='giou'): (value(model)[0][0]/2).backward()
    n, step, compared = int(t.positive.sum()), 1e-4, 0
    for b, i in t.positive.nonzero().tolist():
        level, a, y, x = place_rows(model.model[0])[i]
        box, gold = torch.tensor(boxes[b][i]).double()[None]/SIDE, t.boxes[b, i][None].double()/SIDE
        for k, move in enumerate(([1, 0, 1, 0], [0, 1, 0, 1], [-.5, 0, .5, 0], [0, -.5, 0, .5])):
            d = step*torch.tensor(move)
            slope = .07/n*(generalized_box_iou(box-d, gold)-generalized_box_iou(box+d, gold)).item()/2/step
            raw = maps[level][b, a*(5+NC)+k, y, x]
            if k > 1: slope *= math.exp(raw)
            got = model.model[0].raw[level].grad[b, a*(5+NC)+k, y, x].item()
            assert got == pytest.approx(slope, rel=.02, abs=2e-5)
            compared += abs(slope) > 1e-3
    assert compared > 20


def test_yolo_fastest_ignores_sooner():
    model = fake_model('yolov4')
    before = value(model)[1]['obj_loss']
    model.yaml['ignore'] = .1
    assert value(model)[1]['obj_loss'] < before


def test_fastestv2_by_a_slow_sum():
    model = fake_model('fastestv2')
    t, boxes, maps = seen(model)
    from torchvision.ops import complete_box_iou
    totals = np.zeros((2, 4))  # a level: box, class, positives, objectness
    for b in range(2):
        for i, (level, a, y, x) in enumerate(place_rows(model.model[0])):
            wanted, v = 0, maps[level][b, :, y, x]
            if t.positive[b, i]:
                ciou = complete_box_iou(torch.tensor(boxes[b, i])[None].float(), t.boxes[b, i][None]).item()
                wanted = max(0, ciou)
                totals[level, :3] += 1-ciou, math.log(sum(math.exp(u) for u in v[15:])) - v[15+t.labels[b, i].item()], 1
            totals[level, 3] += softplus(v[12+a]) - wanted*v[12+a]
    count = [2*3*6*6, 2*3*3*3]
    hand = [3.2*sum(r[0]/r[2] for r in totals), 32/NC*sum(r[1]/r[2] for r in totals), 64*(totals[0, 3]/count[0] + .4*totals[1, 3]/count[1])]
    assert totals[:, 2].min() > 2
    assert [p.item() for p in value(model)[1].values()] == pytest.approx(hand, rel=1e-4)


def test_yolox_by_a_slow_sum():
    model = fake_model('yolox')
    t, boxes, maps = seen(model)
    box = cls = obj = l1 = n = 0
    for b in range(2):
        for i, (level, _, y, x) in enumerate(place_rows(model.model[0])):
            v, s = maps[level][b, :, y, x], float(model.model[0].stride[level])
            obj += softplus(v[4]) - t.positive[b, i].item()*v[4]
            if not t.positive[b, i]: continue
            g = t.boxes[b, i].tolist()
            over = iou(boxes[b, i], g)
            n, box = n+1, box + 5*(1-over**2)
            cls += sum(softplus(v[5+c]) - (c == t.labels[b, i].item())*over*v[5+c] for c in range(NC))
            wanted = (g[0]+g[2])/2/s-x, (g[1]+g[3])/2/s-y, math.log((g[2]-g[0])/s), math.log((g[3]-g[1])/s)
            l1 += sum(abs(p-q) for p, q in zip(v[:4], wanted, strict=True))
    criterion = criterion_for(model)
    assert [p.item() for p in value(model, criterion=criterion)[1].values()] == pytest.approx([box/n, cls/n, obj/n], rel=1e-4)
    criterion.updates = 89  # as a resumed training sets it
    criterion.update()
    assert value(model, criterion=criterion)[1]['box_loss'].item() == pytest.approx((box+l1)/n, rel=1e-4)


@pytest.mark.parametrize('family', ['nanodet', 'nanodet-plus'])
def test_nanodet_by_a_slow_sum(family):
    from torchvision.ops import generalized_box_iou
    model = fake_model(family)
    head = model.model[0]
    t, own, _ = seen(model)
    hand = np.zeros(3)
    for key, maps in preds_of(model).items():
        boxes = own if key == 'maps' else decode_maps(head, maps)[0].detach().double().numpy()
        maps, weight, box, dfl, qfl, n = [m.detach().double().numpy() for m in maps], 0, 0, 0, 0, 0
        for b in range(2):
            for i, (level, _, y, x) in enumerate(place_rows(head)):
                v, s, positive = maps[level][b, :, y, x], float(head.stride[level]), t.positive[b, i].item()
                g = t.boxes[b, i].tolist()
                quality = 0. if not positive else t.scores[b, i].max().item()
                for c in range(NC):
                    y1 = quality*(positive and c == t.labels[b, i].item())
                    qfl += abs(sigmoid(v[c])-y1)**2*(softplus(v[c])-y1*v[c])
                if not positive: continue
                w, n = max(sigmoid(u) for u in v[:NC]), n+1
                weight += w
                box += w*2*(1-generalized_box_iou(torch.tensor(boxes[b, i])[None].float(), t.boxes[b, i][None]).item())
                px, py = (x+head.at)*s, (y+head.at)*s
                for side, d in enumerate(((px-g[0])/s, (py-g[1])/s, (g[2]-px)/s, (g[3]-py)/s)):
                    d, logits = min(max(d, 0), 6.99), v[NC+8*side:NC+8*side+8]
                    logp = logits - math.log(sum(math.exp(u) for u in logits))
                    dfl -= w*.25/4*((1-d % 1)*logp[int(d)] + d % 1*logp[int(d)+1])
        total = max(weight, 1) if family == 'nanodet-plus' else weight
        hand += [box/total, qfl/n, dfl/total]
    assert [p.item() for p in value(model)[1].values()] == pytest.approx(hand.tolist(), rel=1e-4)
    if family == 'nanodet': assert t.scores.max(2).values[t.positive].tolist() == pytest.approx(
        [iou(p, g) for p, g in zip(own[t.positive.numpy()], t.boxes[t.positive].tolist(), strict=True)], abs=1e-5), 'the overlap is wanted'


def test_the_guide_chooses_and_steps_back():
    "Targets come from the guide's maps where there are some; after ten epochs it is detached, also where a training is resumed."
    model = fake_model('nanodet-plus', guide=SimpleNamespace(detached=False))
    criterion, preds = criterion_for(model), preds_of(model)
    with_guide = criterion(preds, BATCH)[1]
    alone = criterion(dict(maps=preds['maps']), BATCH)[1]
    assert all(with_guide[k] > alone[k] > 0 for k in alone)
    other = criterion(preds | dict(aux=[t.flip(0) for t in preds['aux']]), BATCH)[1]
    assert other['cls_loss'] != with_guide['cls_loss']
    for _ in range(9): criterion.update()
    assert not model.guide.detached
    criterion.update()
    assert model.guide.detached
    resumed = criterion_for(model)
    resumed.updates = 10
    resumed.update()
    assert model.guide.detached


def test_raw_targets_are_what_decodes_to_the_box():
    model = fake_model('yolox')
    head = model.model[0]
    t, *_ = seen(model)
    places, wanted = head_places(head, list(head.raw)), None
    wanted = raw_targets(places, t)
    flat = torch.cat([m.flatten(2) for m in head.raw], 2).transpose(1, 2).detach().clone()
    flat[..., :4][t.positive] = wanted
    sizes = [m.shape[2]*m.shape[3] for m in head.raw]
    maps = [v.transpose(1, 2).reshape(m.shape) for v, m in zip(flat.split(sizes, 1), head.raw, strict=True)]
    assert decode_maps(head, maps)[0][t.positive].allclose(t.boxes[t.positive], atol=1e-3)


@pytest.mark.parametrize(('family', 'switches'), [
    ('yolov4', dict(box='giou')), ('yolov4', dict(cls='focal')), ('yolov4', dict(smoothing=.1)), ('fastestv2', dict(assigner='shape')),
    ('fastestv2', dict(smoothing=.1)), ('fastestv2', dict(box='smooth_l1')), ('yolox', dict(assigner='atss')), ('yolox', dict(assigner='dsla')),
    ('yolox', dict(assigner='tal')), ('nanodet', dict(assigner='simota')), ('nanodet', dict(cls='bce')), ('nanodet-plus', dict(assigner='atss'))])
def test_each_switch_changes_the_loss(family, switches):
    model = fake_model(family)
    own = value(model)[0]
    with using(**switches):
        other = value(model)[0]
        other.sum().backward()
    assert other.isfinite().all() and not other.allclose(own, rtol=1e-4)
    assert all(p.grad.isfinite().all() for p in model.model[0].parameters())
    assert value(model)[0].equal(own) and not any(SWITCHES.values()), 'nothing stays switched'


def ultralytics_case():
    torch.manual_seed(0)
    model = load_model('yolov5n.yaml').model
    model.args = SimpleNamespace(box=7.5, cls=.5, dfl=1.5, epochs=10)
    with torch.no_grad(): preds = model(torch.rand(2, 3, 64, 64))
    return model, preds


def test_switches_in_yolov5():
    model, preds = ultralytics_case()
    own, results = model.init_criterion()(preds, BATCH)[0], {}
    with using(): assert model.init_criterion()(preds, BATCH)[0].equal(own), 'nothing switched on changes nothing'
    with using(box='ciou', cls='bce', assigner='tal'): assert model.init_criterion()(preds, BATCH)[0].allclose(own, rtol=1e-4)
    for name in ('atss', 'simota', 'dsla'):
        with using(assigner=name): results[name] = model.init_criterion()(preds, BATCH)[0]
    for name, switches in dict(giou=dict(box='giou'), focal=dict(cls='focal'), qfl=dict(cls='qfl'), smooth=dict(smoothing=.1)).items():
        with using(**switches): results[name] = model.init_criterion()(preds, BATCH)[0]
    sums = {name: round(v.sum().item(), 4) for name, v in results.items()}
    assert all(v.isfinite().all() for v in results.values()) and len({*sums.values(), round(own.sum().item(), 4)}) == len(sums)+1, sums
    with using(assigner='atss'): assert model.init_criterion()(preds, EMPTY)[0].isfinite().all()
    assert model.init_criterion()(preds, BATCH)[0].equal(own)


def test_a_one_to_one_head_keeps_its_assigner():
    model, _ = ultralytics_case()
    criterion = model.init_criterion()
    before = criterion.assigner
    switch_losses(criterion, SWITCHES | dict(assigner='atss'), one_to_one=True)
    assert criterion.assigner is before


def test_smoothing_is_for_positives():
    wanted = torch.tensor([[0., 0], [0, .8]])
    assert smooth_positive(wanted, .1).tolist() == [[0, 0], pytest.approx([.05, .77])] and smooth_positive(wanted, 0).equal(wanted)


REFUSED = [(dict(assigner='atts'), 'no assigner'), (dict(box='ciouu'), 'loss of boxes'), (dict(cls='bcee'), 'loss of classes'),
           (dict(smoothing=1.), 'from 0')]


@pytest.mark.parametrize(('switches', 'why'), REFUSED)
def test_unknown_names(switches, why):
    with pytest.raises(InputError, match=why), using(**switches): pass


def test_what_makes_no_sense():
    with pytest.raises(InputError, match='none|family'): criterion_for(SimpleNamespace(model=[FakeHead('yolox')], yaml=dict(family='rtdetr')))
    with using(assigner='atss'), pytest.raises(InputError, match='sigmoid'): criterion_for(fake_model('yolov4'))
    with using(cls='focal'), pytest.raises(InputError, match='softmax'): criterion_for(fake_model('fastestv2'))
    with using(assigner='hungarian'), pytest.raises(InputError, match='set prediction'): ultralytics_case()[0].init_criterion()
    assert family_of(ultralytics_case()[0]) == 'ultralytics' and family_of(fake_model('yolox')) == 'yolox'


def test_what_would_change_nothing():
    for family, switches in (('rtdetr', dict(box='giou')), ('faster-rcnn', dict(smoothing=.1)), ('rtdetr', dict(assigner='atss'))):
        model = SimpleNamespace(model=[None], yaml=dict(family=family))
        with using(**switches), pytest.raises(InputError, match='would change nothing'): check_parts(model)
    with using(assigner='atss'), pytest.raises(InputError, match='sigmoid'): check_parts(fake_model('yolov4'))
    with using(assigner='atss', box='giou'): check_parts(fake_model('yolox'))
    check_parts(SimpleNamespace(model=[None], yaml=dict(family='rtdetr')))
