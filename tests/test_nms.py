"The rules of suppression against slow transcripts of their formulas, in numpy, one box at a time."
import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms, nms

from livestock_nb.data import InputError
from livestock_nb.nms import (
    KINDS,
    apart,
    box_clusters,
    by_score,
    class_nms,
    diou_nms,
    fuse_boxes,
    greedy,
    hard_nms,
    has_nms_free,
    join_found,
    overlaps,
    read_raw,
    soft_nms,
    suppress,
    use_nms_free,
    vote_boxes,
)
from livestock_nb.train import load_model

CASES = range(150)


def case(seed, dtype=torch.double):
    "Some dozens of boxes of two labels in heaps; every third case on a grid with few scores, hence full of ties and of overlaps just at a threshold."
    rng, n = np.random.default_rng(seed), seed % 37
    at = rng.uniform(0, 300, (4, 2))[rng.integers(4, size=n)] + rng.normal(0, 12, (n, 2))
    boxes = np.hstack([at, at + rng.uniform(30, 70, (n, 2))])
    scores = rng.uniform(0, 1, n)
    if seed % 3 == 0: boxes, scores = boxes.round(-1), scores.round(1)
    return torch.tensor(boxes, dtype=dtype), torch.tensor(scores, dtype=dtype), torch.tensor(rng.integers(2, size=n)), [.3, .5, .68][seed % 3]


def iou(a, b):
    w, h = min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
    both = w*h if w > 0 and h > 0 else 0.
    union = (a[2]-a[0])*(a[3]-a[1]) + (b[2]-b[0])*(b[3]-b[1]) - both
    return both/union if union > 0 else 0.


def diou(a, b):
    centre = ((a[0]+a[2]-b[0]-b[2])/2)**2 + ((a[1]+a[3]-b[1]-b[3])/2)**2
    return iou(a, b) - centre/((max(a[2], b[2])-min(a[0], b[0]))**2 + (max(a[3], b[3])-min(a[1], b[1]))**2)


def ranked(boxes, scores, labels):
    "Rows (score, label, corners, place), most confident first."
    rows = zip(scores.tolist(), labels.tolist(), boxes.tolist(), range(len(scores)), strict=True)
    return sorted(rows, key=lambda r: (-r[0], r[1], r[2]))


def slow_hard(rows, goes, across=False):
    kept = []
    for r in rows:
        if not any((across or k[1] == r[1]) and goes(k[2], r[2]) for k in kept): kept.append(r)
    return kept


def slow_soft(rows, lower):
    left, done = [list(r) for r in rows], []
    while left:
        m = max(left, key=lambda r: r[0])  # the first of equals
        left.remove(m)
        done.append(m)
        for r in left:
            if r[1] == m[1]: r[0] *= lower(iou(m[2], r[2]))
    return done


def slow_fusion(rows, t, score, weights):
    clusters = []
    for r in rows:
        best, to = t, None
        for c in clusters:
            if c['label'] == r[1] and iou(c['box'], r[2]) > best: best, to = iou(c['box'], r[2]), c
        if to is None: clusters.append(to := dict(label=r[1], rows=[]))
        to['rows'].append(r)
        w = np.array([q[0] for q in to['rows']])
        to['box'] = (w[:, None]*np.array([q[2] for q in to['rows']])).sum(axis=0)/w.sum()
    for c in clusters:
        w = np.array([q[0] for q in c['rows']])
        c['score'] = w.max()/max(weights) if score == 'max' else w.mean()*min(len(w), len(weights))/sum(weights)
    return clusters


def alike(got, want, most=1e-9):
    "The same boxes, scores and labels, in any order."
    rows = [[[float(s), int(k), *map(float, b)] for b, s, k in zip(*v, strict=True)] for v in (got, want)]
    for v in rows: v.sort(key=lambda r: np.round(r, 5).tolist())
    return len(rows[0]) == len(rows[1]) and np.allclose(*rows, rtol=0, atol=most)


@pytest.mark.parametrize('name', ['hard', 'class', 'diou'])
def test_choosing_rules_keep_what_their_formula_keeps(name):
    goes = dict(hard=lambda t: lambda a, b: iou(a, b) > t, diou=lambda t: lambda a, b: diou(a, b) >= t)
    rule = dict(hard=hard_nms, diou=diou_nms)
    for seed in CASES:
        boxes, scores, labels, t = case(seed)
        if name == 'diou': t -= 1e-6*(seed % 3 == 0)  # on the grid many are just at the threshold, where the last bit decides
        want = [r[3] for r in slow_hard(ranked(boxes, scores, labels), goes.get(name, goes['hard'])(t), across=name == 'hard')]
        got = rule.get(name, class_nms)(boxes, scores, labels, t)
        rows = [[(boxes[i].tolist(), float(scores[i])) for i in places] for places in (got.tolist(), want)]
        assert rows[0] == rows[1], seed


def test_hard_rules_equal_torchvision_where_nothing_is_equal():
    for seed in CASES:
        if seed % 3 == 0: continue
        boxes, scores, labels, t = case(seed, torch.float32)
        assert hard_nms(boxes, scores, labels, t).tolist() == nms(boxes, scores, t).tolist()
        assert class_nms(boxes.double(), scores, labels, t).tolist() == batched_nms(boxes.double(), scores.double(), labels, t).tolist()


def test_class_nms_is_ultralytics_own_to_the_last_bit():
    from ultralytics.utils.nms import non_max_suppression
    for seed in CASES:
        boxes, scores, labels, t = case(seed, torch.float32)
        if len(boxes) in (0, 6): continue  # six columns would be read as those of a one-to-one head
        both = torch.zeros(len(boxes), 2).scatter_(1, labels[:, None], scores[:, None])
        centre = torch.cat([(boxes[:, :2]+boxes[:, 2:])/2, boxes[:, 2:]-boxes[:, :2]], dim=1)
        output = torch.cat([centre, both], dim=1).T
        want = non_max_suppression(output[None], .05, t)[0]
        if seed % 3 == 0: continue  # equal scores go by anchor there
        b, s, k = read_raw(output)
        sure = s > .05
        kept = class_nms(b[sure], s[sure], k[sure], t)
        assert torch.equal(torch.cat([b[sure][kept], s[sure][kept, None], k[sure][kept, None].float()], dim=1), want), seed


@pytest.mark.parametrize('kind', ['linear', 'gaussian'])
def test_soft_suppression(kind):
    for seed in CASES:
        boxes, scores, labels, t = case(seed)
        lower = {'linear': lambda o: 1-o if o >= t else 1., 'gaussian': lambda o: np.exp(-o*o/t)}[kind]  # noqa: B023
        t -= 1e-6*(seed % 3 == 0)
        want = [r for r in slow_soft(ranked(boxes, scores, labels), lower) if r[0] > .01]
        got = soft_nms(boxes, scores, labels, t, kind, low=.01)
        assert alike(got, ([r[2] for r in want], [r[0] for r in want], [r[1] for r in want])), seed
        assert (got[1].diff() <= 0).all()


def test_voting():
    for seed in CASES:
        boxes, scores, labels, t = case(seed)
        scores = scores.clamp(min=.01)
        rows, mean = ranked(boxes, scores, labels), []
        kept = slow_hard(rows, lambda a, b: iou(a, b) > t)  # noqa: B023
        for m in kept:
            w = [(r[0], np.array(r[2])) for r in rows if r[1] == m[1] and (iou(m[2], r[2]) >= .45 or r is m)]
            mean.append(sum(s*b for s, b in w)/sum(s for s, _ in w))
        got = vote_boxes(boxes, scores, labels, t, vote=.45)
        assert alike(got, (mean, [r[0] for r in kept], [r[1] for r in kept])), seed


@pytest.mark.parametrize('score', ['mean', 'max'])
@pytest.mark.parametrize('weights', [(1,), (1, 1), (2, 1, .5)])
def test_fusion(weights, score):
    for seed in CASES[:100]:
        boxes, scores, labels, t = case(seed)
        scores = scores.clamp(min=.01)
        detector = torch.arange(len(boxes)) % len(weights)
        rows = ranked(boxes, scores*torch.tensor(weights, dtype=torch.double)[detector], labels)
        want = slow_fusion(rows, t - 1e-6, score, weights)
        got = fuse_boxes(boxes, scores, labels, t - 1e-6, detector, weights, score)
        assert alike(got, ([c['box'] for c in want], [c['score'] for c in want], [c['label'] for c in want])), seed


def test_runs_side_by_side_equal_runs_alone():
    boxes, scores, labels, _ = case(110)
    order = by_score(boxes, scores, labels)
    boxes, scores, labels, ious = boxes[order], scores[order], labels[order], torch.tensor([.3, .5, .8], dtype=torch.double)
    together = box_clusters(boxes, scores, labels, ious)
    assert all(torch.equal(together[i], box_clusters(boxes, scores, labels, ious[i:i+1])[0]) for i in range(3))
    first = box_clusters(boxes[:20], scores[:20], labels[:20], ious)
    assert torch.equal(together[:, :20], first), 'the clusters of the first boxes do not depend on later ones'


@pytest.mark.parametrize('kind', KINDS)
def test_the_order_of_rows_never_matters(kind):
    for seed in CASES[:60]:
        boxes, scores, labels, t = case(seed, torch.float32)
        mixed = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
        a, b = suppress(boxes, scores, labels, t, kind), suppress(boxes[mixed], scores[mixed], labels[mixed], t, kind)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), seed


@pytest.mark.parametrize('kind', KINDS)
def test_edge_cases(kind):
    none = suppress(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), .5, kind)
    assert [tuple(v.shape) for v in none] == [(0, 4), (0,), (0,)]
    flat = suppress(torch.tensor([[5., 5, 5, 9], [5, 5, 5, 9]]), torch.tensor([.9, .8]), torch.tensor([0, 0]), .5, kind)
    assert len(flat[1]) == 2 and torch.isfinite(flat[0]).all(), 'boxes without area overlap nothing, and spoil nothing'
    same = suppress(torch.tensor([[0., 0, 9, 9]]*3), torch.tensor([.9, .9, .9]), torch.tensor([0, 0, 1]), .5, kind, conf=.5)
    assert sorted(same[2].tolist()) == [0, 1], 'copies become one, labels stay apart'
    row = torch.arange(40).float()[:, None]*100 + torch.tensor([0., 0, 9, 9])
    many = suppress(row, torch.linspace(.1, .9, 40), torch.zeros(40).long(), .5, kind, most=7)
    assert len(many[1]) == 7 and float(many[1][0]) == pytest.approx(.9)


def test_unknown_kind(): pytest.raises(InputError, suppress, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), kind='fast')


def test_labels_stay_apart_in_frames_beyond_the_usual_distance():
    boxes = torch.tensor([[7700., 0, 9000, 100], [20, 0, 1320, 100]])
    moved = apart(boxes, torch.tensor([0, 1]))
    assert moved[1, 0] > 9000 and not overlaps(boxes, torch.tensor([0, 1])).triu(1).any()
    assert class_nms(boxes, torch.tensor([.9, .8]), torch.tensor([0, 1]), .3).tolist() == [0, 1]


@pytest.mark.parametrize('pairs, stays', [([], [1, 1, 1, 1]), ([(0, 1), (1, 2), (2, 3)], [1, 0, 1, 0]), ([(0, 1), (0, 2), (1, 3)], [1, 0, 0, 1])])
def test_greedy(pairs, stays):
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    assert greedy(first, second, 4).int().tolist() == stays


def test_two_detectors_are_joined_in_turn():
    one, two = (torch.zeros(2, 4), torch.ones(2), torch.zeros(2).long()), (torch.ones(1, 4), torch.zeros(1), torch.ones(1).long())
    boxes, scores, labels, detector = join_found([one, two])
    assert (boxes.sum(), scores.tolist(), labels.tolist(), detector.tolist()) == (4, [1, 1, 0], [0, 0, 1], [0, 0, 1])


def test_both_heads_are_read_as_ultralytics_reads_them():
    from ultralytics.utils.nms import non_max_suppression
    torch.manual_seed(0)
    model = load_model('yolo26n.yaml')
    model.model.eval()
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        usual, free = (use_nms_free(model, use).model(image)[0] for use in (False, True))
    assert usual.shape == (1, 84, 189) and free.shape == (1, 189, 6)
    for output, end2end in ((usual, False), (free, True)):
        boxes, scores, labels = read_raw(output[0])
        want = non_max_suppression(output.clone(), 0, 1., max_det=10**4, end2end=end2end)[0]
        assert alike((boxes, scores, labels), (want[:, :4], want[:, 4], want[:, 5]), 0)


def test_a_detector_without_a_second_head_is_refused():
    model = load_model('yolov5n.yaml')
    assert not has_nms_free(model) and use_nms_free(model, False) is model
    with pytest.raises(InputError, match='NMS-free'): use_nms_free(model)


@pytest.mark.parametrize('shape', [(3,), (1, 84, 10), (4, 10)])
def test_other_shapes_are_refused(shape): pytest.raises(InputError, read_raw, torch.zeros(shape))
