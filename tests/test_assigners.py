"The rules of assignment against slow transcripts of their papers, in numpy, one place and one box at a time."
import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.models.detection.rpn import RegionProposalNetwork
from ultralytics.utils.tal import TaskAlignedAssigner

from livestock_nb.assigners import (
    ASSIGNERS,
    FITS,
    OWN,
    Places,
    check_assigner,
    chosen_assigner,
    give_targets,
    grid_places,
    hungarian_places,
    max_iou_places,
    point_places,
    ratio_places,
    shape_places,
    simota_places,
)
from livestock_nb.data import InputError

STRIDES, W, H, NC = [8, 16, 32], 64, 48, 2
SHAPES = [(6, 8), (3, 4), (2, 2)]
ANCHORS = torch.tensor([[[6., 5], [9, 15]], [[16, 12], [24, 20]], [[34, 22], [45, 40]]]).double()
CASES = range(300)


def doubled(places): return Places(*(v.double() for v in places))


FREE, ANCHORED = doubled(grid_places(SHAPES, STRIDES)), doubled(grid_places(SHAPES, STRIDES, ANCHORS))


def case(seed, places):
    "Up to 7 boxes, in crowds in every third case and beyond the frame in every fourth; predictions near a box, or anywhere."
    rng = np.random.default_rng(seed)
    m, n = seed % 8, len(places.points)
    at = rng.uniform(0, [W, H], (m, 2)) if seed % 3 else rng.uniform(.3, .6)*np.array([W, H]) + rng.normal(0, 5, (m, 2))
    wh = rng.uniform(3, 45, (m, 2))
    boxes = np.hstack([at-wh/2, at+wh/2]) if m else np.zeros((0, 4))
    if seed % 4: boxes = boxes.clip(0, [W, H, W, H])
    predicted = np.hstack([p := rng.uniform(-5, W, (n, 2)), p + rng.uniform(4, 40, (n, 2))])
    if m: predicted = np.where(rng.random((n, 1)) < .7, boxes[rng.integers(m, size=n)] + rng.normal(0, 4, (n, 4)), predicted)
    predicted[:, 2:] = np.maximum(predicted[:, 2:], predicted[:, :2]+1)
    return tuple(torch.tensor(v) for v in (boxes, rng.integers(NC, size=m), predicted, rng.uniform(.01, .9, (n, NC))))


def iou(a, b):
    w, h = max(0., min(a[2], b[2])-max(a[0], b[0])), max(0., min(a[3], b[3])-max(a[1], b[1]))
    return w*h/((a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1]) - w*h)


def rows(places):
    "Each place as (x, y, stride, width, height)."
    return np.column_stack([places.points, places.strides, places.sizes]).tolist()


def square(p): return [p[0]-p[3]/2, p[1]-p[4]/2, p[0]+p[3]/2, p[1]+p[4]/2]


def contains(b, p): return b[0] < p[0] < b[2] and b[1] < p[1] < b[3]


def best(wanting, merit):
    "Among the boxes that want a place, the one of the largest merit; the first of equals."
    return max(wanting, key=lambda j: (merit(j), -j)) if wanting else -1


def slow_shape(places, boxes, labels, predicted, scores):
    ps, wanting, fits = rows(places), {}, {}
    for j, b in enumerate(boxes):
        w, h, cx, cy, mine = b[2]-b[0], b[3]-b[1], (b[0]+b[2])/2, (b[1]+b[3])/2, []
        for i, (x, y, s, aw, ah) in enumerate(ps):
            if math.floor(cx/s) == math.floor(x/s) and math.floor(cy/s) == math.floor(y/s):
                both = min(w, aw)*min(h, ah)
                fits[i, j] = both/(w*h + aw*ah - both)
                mine.append(i)
        top = max(mine, key=lambda i: (fits[i, j], -i)) if mine else None
        for i in mine:
            if i == top or fits[i, j] > .213: wanting.setdefault(i, []).append(j)
    return [best(wanting.get(i), lambda j, i=i: fits[i, j]) for i in range(len(ps))]


def slow_ratio(places, boxes, labels, predicted, scores):
    "As YOLOv5 does it: cells by whole numbers, offsets of half a cell."
    ps, wanting, far = rows(places), {}, {}
    where = {(s, math.floor(x/s), math.floor(y/s), aw, ah): i for i, (x, y, s, aw, ah) in enumerate(ps)}
    for j, b in enumerate(boxes):
        w, h = b[2]-b[0], b[3]-b[1]
        for level, s in enumerate(STRIDES):
            gx, gy, (nx, ny) = (b[0]+b[2])/2/s, (b[1]+b[3])/2/s, SHAPES[level][::-1]
            cells = [(math.floor(gx), math.floor(gy))]
            if gx % 1 < .5: cells.append((cells[0][0]-1, cells[0][1]))
            if gy % 1 < .5: cells.append((cells[0][0], cells[0][1]-1))
            if (nx-gx) % 1 < .5: cells.append((cells[0][0]+1, cells[0][1]))
            if (ny-gy) % 1 < .5: cells.append((cells[0][0], cells[0][1]+1))
            for aw, ah in ANCHORS[level].tolist():
                r = max(w/aw, aw/w, h/ah, ah/h)
                for c in cells:
                    if r < 4 and (s, *c, aw, ah) in where:
                        i = where[(s, *c, aw, ah)]
                        far[i, j] = r
                        wanting.setdefault(i, []).append(j)
    return [best(wanting.get(i), lambda j, i=i: -far[i, j]) for i in range(len(ps))]


def slow_max_iou(places, boxes, labels, predicted, scores):
    ps = [square(p) for p in rows(places)]
    over = np.array([[iou(b, p) for b in boxes] for p in ps]).reshape(len(ps), len(boxes))
    out = []
    for i in range(len(ps)):
        top = int(over[i].argmax()) if len(boxes) else -1
        high = over[i, top] if len(boxes) else 0
        best_of_some = any(over[i, j] == over[:, j].max() > 0 for j in range(len(boxes)))
        out.append(top if high >= .7 or best_of_some else -2 if high >= .3 else -1)
    return out


def slow_atss(places, boxes, labels, predicted, scores, k=9):
    ps, wanting = rows(places), {}
    for j, b in enumerate(boxes):
        cx, cy, candidates = (b[0]+b[2])/2, (b[1]+b[3])/2, []
        for s in STRIDES:
            level = [i for i, p in enumerate(ps) if p[2] == s]
            candidates += sorted(level, key=lambda i: ((ps[i][0]-cx)**2 + (ps[i][1]-cy)**2, i))[:k]
        over = {i: iou(square(ps[i]), b) for i in candidates}
        mean = sum(over.values())/len(over)
        threshold = mean + math.sqrt(sum((v-mean)**2 for v in over.values())/(len(over)-1))
        for i in candidates:
            if over[i] >= threshold and contains(b, ps[i]): wanting.setdefault(i, []).append(j)
    return [best(wanting.get(i), lambda j, i=i: iou(square(ps[i]), boxes[j])) for i in range(len(ps))]


def slow_dynamic(places, boxes, predicted, candidates, cost, top):
    taken, n = {}, len(places.points)
    for j, b in enumerate(boxes):
        if not candidates: break
        k = max(1, int(sum(sorted((iou(predicted[i], b) for i in candidates), reverse=True)[:top])))
        for i in sorted(candidates, key=lambda i, j=j: cost(i, j))[:k]: taken.setdefault(i, []).append(j)
    cheapest = lambda i: min(range(len(boxes)), key=lambda j: cost(i, j))
    return [-1 if i not in taken else taken[i][0] if len(taken[i]) == 1 else cheapest(i) for i in range(n)]


def bce(p, y): return -(y*math.log(p) + (1-y)*math.log(1-p))


def slow_simota(places, boxes, labels, predicted, scores):
    ps = rows(places)
    def middle(p, b): return max(abs(p[0]-(b[0]+b[2])/2), abs(p[1]-(b[1]+b[3])/2)) < 2.5*p[2]
    def cost(i, j):
        classes = sum(bce(scores[i][c], float(c == labels[j])) for c in range(NC))
        out = 0 if contains(boxes[j], ps[i]) and middle(ps[i], boxes[j]) else 1e5
        return classes - 3*math.log(iou(predicted[i], boxes[j])+1e-8) + out
    candidates = [i for i, p in enumerate(ps) if any(contains(b, p) or middle(p, b) for b in boxes)]
    return slow_dynamic(places, boxes, predicted, candidates, cost, 10)


def slow_dsla(places, boxes, labels, predicted, scores):
    ps = rows(places)
    def cost(i, j):
        y = [iou(predicted[i], boxes[j])*(c == labels[j]) for c in range(NC)]
        return sum(bce(p, q)*(q-p)**2 for p, q in zip(scores[i], y, strict=True)) - 3*math.log(iou(predicted[i], boxes[j])+1e-7)
    candidates = [i for i, p in enumerate(ps) if any(contains(b, p) for b in boxes)]
    return slow_dynamic(places, boxes, predicted, candidates, cost, 13)


def ciou(a, b):
    w, h, u, v = a[2]-a[0], a[3]-a[1], b[2]-b[0], b[3]-b[1]
    cw, ch = max(a[2], b[2])-min(a[0], b[0]), max(a[3], b[3])-min(a[1], b[1])
    far = (((a[0]+a[2]-b[0]-b[2])/2)**2 + ((a[1]+a[3]-b[1]-b[3])/2)**2)/(cw*cw+ch*ch)
    k = 4/math.pi**2*(math.atan(w/h)-math.atan(u/v))**2
    return iou(a, b) - far - (k*k/(1-iou(a, b)+k) if k else 0)


def widened(b):
    cx, cy, w, h = (b[0]+b[2])/2, (b[1]+b[3])/2, max(b[2]-b[0], 16.), max(b[3]-b[1], 16.)
    return [cx-w/2, cy-h/2, cx+w/2, cy+h/2]


def slow_tal(places, boxes, labels, predicted, scores):
    "t = √s·u⁶ in a box (its sides at least the second stride, as ultralytics has it); places with t = 0 learn nothing and count as background."
    ps, wanting = rows(places), {}
    u = np.array([[max(0, ciou(b, p)) for b in boxes] for p in predicted]).reshape(len(ps), len(boxes))
    for j, b in enumerate(boxes):
        mine = [i for i, p in enumerate(ps) if contains(widened(b), p)]
        t = {i: scores[i][labels[j]]**.5*u[i, j]**6 for i in mine}
        for i in sorted(mine, key=lambda i, t=t: -t[i])[:10]:
            if t[i] > 0: wanting.setdefault(i, []).append((j, t[i]))
    inside = [[contains(widened(b), p) for b in boxes] for p in ps]
    out = []
    for i in range(len(ps)):
        js = [j for j, _ in wanting.get(i, [])]
        out.append(-1 if not js else js[0] if len(js) == 1 else max(range(len(boxes)), key=lambda j, i=i: (u[i, j]*inside[i][j], -j)))
    return out


SLOW = {'shape': slow_shape, 'ratio': slow_ratio, 'max-iou': slow_max_iou, 'atss': slow_atss, 'simota': slow_simota, 'dsla': slow_dsla,
        'tal': slow_tal}


def found(t, visible=None):
    "A rule's answer in the slow ones' terms."
    positive = t.positive if visible is None else t.positive & visible
    return torch.where(t.ignored, -2, torch.where(positive, t.gold, -1)).tolist()


@pytest.mark.parametrize('name', SLOW)
def test_300_random_cases(name):
    places, some = FREE if name in FITS['ultralytics'] else ANCHORED, 0
    for seed in CASES:
        boxes, labels, predicted, scores = case(seed, places)
        t = ASSIGNERS[name](places, boxes, labels, NC, predicted, scores)
        slow = SLOW[name](places, *(v.tolist() for v in (boxes, labels, predicted, scores)))
        assert found(t, t.scores.sum(1) > 0 if name == 'tal' else None) == slow, f'{name}, case {seed}'
        some += sum(j >= 0 for j in slow)
        at = torch.tensor([j >= 0 for j in slow])
        gold = torch.tensor(slow)[at]
        assert t.boxes[at].equal(boxes[gold]) and t.labels[at].equal(labels[gold]) and (t.labels[~t.positive] == NC).all()
        assert not t.scores[~t.positive].any() and (t.scores >= 0).all() and (t.scores <= 1).all()
        assert not t.scores[at].scatter(1, labels[gold][:, None], 0).any(), 'only the class of the box has a score'
    assert some > 1000, 'the cases have to hold positives'


def test_300_hungarian():
    "Against every way to give each box a query of its own."
    for seed in CASES:
        rng = np.random.default_rng(seed)
        n, m = rng.integers(3, 6), rng.integers(0, 4)
        corners = [np.hstack([p := rng.uniform(0, 40, (k, 2)), p + rng.uniform(5, 30, (k, 2))]) for k in (n, m)]
        predicted, boxes, scores, labels = *corners, rng.uniform(0, 1, (n, NC)), rng.integers(NC, size=m)
        def cost(i, j, p=predicted, g=boxes, s=scores, k=labels):
            a, b = (np.array([(v[0]+v[2])/2/W, (v[1]+v[3])/2/H, (v[2]-v[0])/W, (v[3]-v[1])/H]) for v in (p[i], g[j]))
            hull = (max(p[i][2], g[j][2])-min(p[i][0], g[j][0]))*(max(p[i][3], g[j][3])-min(p[i][1], g[j][1]))
            areas = (p[i][2]-p[i][0])*(p[i][3]-p[i][1]) + (g[j][2]-g[j][0])*(g[j][3]-g[j][1])
            over = iou(p[i], g[j])
            union = areas/(1+over)
            return -s[i][k[j]] + 5*np.abs(a-b).sum() - 2*(over-(hull-union)/hull)
        every = list(itertools.permutations(range(n), int(m)))
        slow = min(every, key=lambda way, c=cost: sum(c(i, j) for j, i in enumerate(way)))
        t = hungarian_places(*(torch.tensor(v) for v in (predicted, scores, boxes, labels)), (W, H))
        assert {int(t.gold[i]): i for i in t.positive.nonzero()[:, 0].tolist()} == dict(enumerate(slow)), seed


def one(box, label=1): return torch.tensor([box]).double(), torch.tensor([label])


def test_shape_by_hand():
    "A box of 6 × 5 in cell (1, 1): its own anchor; the second has IoU 30/135, the middle level's first 30/192, all others are larger."
    t = shape_places(ANCHORED, *one([9., 9, 15, 14]), NC)
    assert t.positive.nonzero()[:, 0].tolist() == [9, 48+9]  # 30/135 = .222 > .213
    assert shape_places(ANCHORED, *one([9., 9, 15, 14]), NC, iou=.23).positive.nonzero()[:, 0].tolist() == [9]
    huge = shape_places(ANCHORED, *one([0., 0, 64, 48]), NC, iou=.99)
    assert huge.positive.nonzero()[:, 0].tolist() == [len(ANCHORED.points)-3], 'the best of all: the largest, at cell (1, 0)'


def test_ratio_by_hand():
    "The centre (12, 11.5) of cell (1, 1), in its left or right half by turns, brings the neighbours that are nearest."
    t = ratio_places(ANCHORED, *one([8.5, 9, 14.5, 14]), NC, ratio=1.01)  # centre (11.5, 11.5): left and above
    assert t.positive.nonzero()[:, 0].tolist() == [1, 8, 9]
    t = ratio_places(ANCHORED, *one([10., 10, 16, 15]), NC, ratio=1.01)  # centre (13, 12.5): right and below
    assert t.positive.nonzero()[:, 0].tolist() == [9, 10, 17]
    t = ratio_places(ANCHORED, *one([-1., -1, 5, 4]), NC, ratio=1.01)  # centre (2, 1.5): there is nothing left of it or above
    assert t.positive.nonzero()[:, 0].tolist() == [0]


def test_max_iou_by_hand():
    "An anchor on its box; those 8 and 16 px aside, whose IoU is 28/44 = .64 and 20/52 = .38, are told nothing; from 24 px on (12/60) is background."
    places = doubled(grid_places([(1, 8)], [8], torch.tensor([[[36., 1.]]])))
    t = max_iou_places(places, *one([10., 3.5, 46, 4.5]), NC)
    assert found(t) == [-1, -2, -2, 0, -2, -2, -1, -1]
    assert t.labels.tolist() == [2, 2, 2, 1, 2, 2, 2, 2]
    weak = max_iou_places(places, *one([0., 0, 8, 8]), NC)
    assert weak.positive.nonzero()[:, 0].tolist() == [0, 1], 'the best anchors of a box are positive, however bad: two cover it alike (8 of 92)'


def test_max_iou_is_torchvisions():
    "Faster R-CNN's own assignment gives the same."
    rpn = RegionProposalNetwork(None, None, .7, .3, 256, .5, {}, {}, .7)
    anchors = torch.cat([ANCHORED.points-ANCHORED.sizes/2, ANCHORED.points+ANCHORED.sizes/2], 1)
    for seed in range(1, 40):
        boxes, labels, *_ = case(seed, ANCHORED)
        if not len(boxes) or not (boxes[:, 2:] > boxes[:, :2]).all(): continue
        own = max_iou_places(ANCHORED, boxes, labels, NC)
        theirs, _ = rpn.assign_targets_to_anchors([anchors], [dict(boxes=boxes)])
        assert torch.where(own.ignored, -1, own.positive.int()).tolist() == theirs[0].int().tolist()


def test_atss_by_hand():
    "One level, squares of 8 px, a box on one of them: overlaps 1, and 0 for its eight neighbours: mean .111, deviation .333."
    places = doubled(grid_places([(4, 4)], [8], square=1))
    t = ASSIGNERS['atss'](places, *one([8., 8, 16, 16]), NC)
    assert t.positive.nonzero()[:, 0].tolist() == [5] and t.scores[5].tolist() == [0, 1]
    near = torch.tensor([[8., 8, 16, 12]]).double().expand(16, 4)
    assert ASSIGNERS['atss'](places, *one([8., 8, 16, 16]), NC, near).scores[5].tolist() == [0, .5], 'with predictions, their overlap is wanted'


def test_dynamic_k_by_hand():
    "The overlaps of what is predicted add up to 2.x: the box gets two places, the cheapest."
    boxes, labels = one([0., 0, 32, 32], 0)
    predicted = torch.tensor([[0., 0, 32, 32]]).double().repeat(len(FREE.points), 1)
    predicted[3:] = torch.tensor([40., 40, 48, 48])
    predicted[2, 3] = 16
    scores = torch.full((len(FREE.points), NC), .5).double()
    t = simota_places(FREE, boxes, labels, NC, predicted, scores)
    assert t.positive.nonzero()[:, 0].tolist() == [0, 1] and t.scores[:2, 0].tolist() == [1, 1]
    scores[1, 0] = .001  # sure that nothing is there
    assert simota_places(FREE, boxes, labels, NC, predicted, scores).positive.nonzero()[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize('name', SLOW)
def test_no_boxes(name):
    _, _, predicted, scores = case(0, FREE)
    places = FREE if name in FITS['ultralytics'] else ANCHORED
    n = len(places.points)
    boxes, labels = torch.zeros(0, 4).double(), torch.zeros(0, dtype=torch.long)
    t = ASSIGNERS[name](places, boxes, labels, NC, predicted[:1].expand(n, 4), scores[:1].expand(n, NC))
    assert not t.positive.any() and not t.scores.any() and not t.ignored.any() and (t.labels == NC).all()
    assert [tuple(v.shape) for v in t] == [(n,), (n, 4), (n, NC), (n,), (n,), (n,)]


@pytest.mark.parametrize('name', SLOW)
def test_a_box_outside_disturbs_nobody(name):
    "A box far outside the image leaves the others theirs; SimOTA and DSLA may lend it one place that another box reaches."
    places = FREE if name in FITS['ultralytics'] else ANCHORED
    boxes, labels, predicted, scores = case(11, places)
    alone = ASSIGNERS[name](places, boxes, labels, NC, predicted, scores)
    far = torch.cat([boxes, torch.tensor([[900., 900, 940, 930]]).double()])
    t = ASSIGNERS[name](places, far, torch.cat([labels, torch.tensor([0])]), NC, predicted, scores)
    lent = t.positive & (t.gold == len(boxes))
    assert lent.sum() <= (1 if name in ('simota', 'dsla') else 0)
    assert all(a == b for a, b, c in zip(found(alone), found(t), lent.tolist(), strict=True) if not c)


@pytest.mark.parametrize('name', SLOW)
def test_order_of_boxes(name):
    places = FREE if name in FITS['ultralytics'] else ANCHORED
    boxes, labels, predicted, scores = case(7, places)
    a, b = (ASSIGNERS[name](places, boxes[i], labels[i], NC, predicted, scores) for i in (slice(None), torch.tensor([3, 0, 6, 2, 5, 1, 4])))
    assert a.positive.equal(b.positive) and a.boxes.equal(b.boxes) and a.labels.equal(b.labels) and a.scores.equal(b.scores)


def test_rules_differ():
    boxes, labels, predicted, scores = case(7, FREE)
    got = {name: tuple(found(ASSIGNERS[name](FREE, boxes, labels, NC, predicted, scores))) for name in FITS['ultralytics']}
    assert len(set(got.values())) == len(got)


def test_instead_of_ultralytics_assigner():
    "A batch of images of 0, 1, 3 and 7 boxes, padded: TAL through the adapter is ultralytics' own, ATSS is ATSS; indices are of the padded list."
    cases = [case(s, FREE) for s in (8, 1, 3, 7)]
    most = max(len(c[0]) for c in cases)
    pad = lambda v, n: torch.cat([v, v.new_zeros(n-len(v), *v.shape[1:])])
    boxes, labels = (torch.stack([pad(c[i], most) for c in cases]) for i in (0, 1))
    predicted, scores = (torch.stack([c[i] for c in cases]) for i in (2, 3))
    real = torch.stack([torch.arange(most) < len(c[0]) for c in cases])[..., None].double()
    args = scores, predicted, FREE.points, labels[..., None].double(), boxes, real
    theirs = TaskAlignedAssigner(10, NC, .5, 6., STRIDES)(*args)
    mine = chosen_assigner(ASSIGNERS['tal'], NC, STRIDES)(*args)
    assert mine[3].equal(theirs[3]) and mine[2].allclose(theirs[2]) and mine[4][mine[3]].equal(theirs[4][mine[3]])
    assert mine[1][mine[3]].equal(theirs[1][mine[3]]) and mine[0][mine[3]].equal(theirs[0][mine[3]])
    other = chosen_assigner(ASSIGNERS['atss'], NC, STRIDES)(*args)
    assert not other[3].equal(theirs[3]) and not other[3][0].any()
    for i, (b, k, p, s) in enumerate(cases): assert other[3][i].equal(ASSIGNERS['atss'](FREE, b, k, NC, p, s).positive)
    none = chosen_assigner(ASSIGNERS['atss'], NC, STRIDES)(scores, predicted, FREE.points, labels[:, :0, None], boxes[:, :0], real[:, :0])
    assert not none[3].any()


def test_places():
    assert grid_places([(2, 3)], [8]).points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert grid_places([(1, 2)], [8], at=0).points.tolist() == [[0, 0], [8, 0]]
    assert grid_places([(1, 2)], [8], torch.tensor([[[3., 4], [5, 6]]])).sizes.tolist() == [[3, 4], [3, 4], [5, 6], [5, 6]]
    assert all(a.equal(b) for a, b in zip(point_places(FREE.points, STRIDES), FREE, strict=True))


def test_targets_of_a_place_that_nobody_has():
    t = give_targets(torch.tensor([-1, 0, -2]), *one([1., 2, 3, 4]), NC)
    assert (t.labels.tolist(), t.positive.tolist(), t.ignored.tolist()) == ([2, 1, 2], [False, True, False], [False, False, True])
    assert t.boxes.tolist() == [[0]*4, [1, 2, 3, 4], [0]*4] and t.scores.tolist() == [[0, 0], [0, 1], [0, 0]]


REFUSED = [
    ('hungarian', 'ultralytics', 'set prediction'), ('max-iou', 'nanodet', 'Faster R-CNN'), ('shape', 'yolox', 'has none'),
    ('ratio', 'yolov4', 'sigmoid'), ('atss', 'yolov4', 'sigmoid'), ('tal', 'fastestv2', 'sigmoid'), ('atts', 'ultralytics', 'no assigner'),
    ('atss', 'rtdetr', 'own way')]


@pytest.mark.parametrize(('name', 'family', 'why'), REFUSED)
def test_refusals_say_why(name, family, why):
    with pytest.raises(InputError, match=why): check_assigner(name, family)


def test_every_family_has_a_rule():
    assert OWN.keys() == FITS.keys()
    assert all(check_assigner('', f) == OWN[f] in FITS[f] and {check_assigner(n, f) for n in FITS[f]} == set(FITS[f]) for f in FITS)
