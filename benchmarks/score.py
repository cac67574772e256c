"""How fast scoring is beside map_boxes and pycocotools on the same tables, whether it gives the same numbers, and whether its intervals hold.

    python benchmarks/score.py [--quick] [--coverage]

190,000 made-up detections on 2,000 images (--quick: 19,000 on 200). Each pair runs in one process, ours the median of five runs, the peer once
(--quick) or the faster of two. The last line is one JSON object."""
import argparse
import contextlib
import io
import json
import time
import warnings

import numpy as np
import pandas as pd

from livestock_nb.score import (
    ANSWER_COLUMNS,
    DEFINITIONS,
    EDGES,
    FRAMES,
    IOUS,
    SUBMISSION_COLUMNS,
    average_precision,
    draw_images,
    interval,
    match_submission,
    overlap,
    resampled_ap,
    score,
    to_answer_frame,
)


def made_up(images:int, rows:int, seed:int=0) -> tuple[pd.DataFrame, pd.DataFrame]:
    "An answer with 1 to 11 boxes an image, corners above 1 among them; a submission in px: four rows a gold box, the rest poor ones."
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), rng.integers(1, 12, images))
    label, n = np.where(image % 3 == 0, 'pig', 'cow'), len(image)
    gold = np.stack([rng.uniform(0, 1.3, n), rng.uniform(0, .9, n), rng.uniform(.05, .25, n), rng.uniform(.05, .25, n)])
    pick = np.r_[np.repeat(np.arange(n), 4), rng.integers(0, n, rows - 4*n)]
    spread = np.r_[np.tile([.01, .03, .06, .1], n), np.full(rows - 4*n, .4)]
    x, y, w, h = gold[:, pick]
    move = rng.normal(0, spread, (4, rows))
    found = np.stack([x + move[0]*w, y + move[1]*h, w*np.exp(move[2]), h*np.exp(move[3])])
    wrong = rng.random(rows) < .1
    conf = ((1 - 1.5*spread) * rng.beta(3, 1, rows) * np.where(spread > .2, .2, 1)).clip(.001, 1).round(5)

    def table(place:np.ndarray, image:np.ndarray, label:np.ndarray) -> pd.DataFrame:
        x, y, w, h = place
        names = np.array([f'livestock_{i:06}.jpg' for i in range(images)])
        return pd.DataFrame(dict(ImageID=names[image], LabelName=label, XMin=x-w/2, XMax=x+w/2, YMin=y-h/2, YMax=y+h/2))
    answer = table(gold, image, label)[ANSWER_COLUMNS]
    submission = table(found, image[pick], np.where(wrong, np.where(label[pick] == 'pig', 'cow', 'pig'), label[pick])).assign(Conf=conf)
    for name, (width, height) in FRAMES.items():
        submission.loc[submission.LabelName == name, EDGES] *= [width, width, height, height]
    return answer, submission.sort_values('Conf', ascending=False, ignore_index=True)[SUBMISSION_COLUMNS]


def map_boxes_ap(answer:pd.DataFrame, submission:pd.DataFrame, iou:float) -> dict[str, float]:
    "What map_boxes makes of the two tables."
    from map_boxes import mean_average_precision_for_boxes
    rows = to_answer_frame(submission)[SUBMISSION_COLUMNS]
    return {k: v[0] for k, v in mean_average_precision_for_boxes(answer.to_numpy(), rows.to_numpy(), iou_threshold=iou, verbose=False)[1].items()}


def pycocotools_ap(answer:pd.DataFrame, submission:pd.DataFrame, ious:list[float]) -> dict[tuple[str, float], float]:
    "What pycocotools makes of them: rows in our order, 300 an image and label, all areas."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    images, labels = sorted(set(answer.ImageID)), sorted(set(answer.LabelName))

    def annotate(df:pd.DataFrame) -> list[dict]:
        w, h = df.XMax - df.XMin, df.YMax - df.YMin
        ids = dict(image_id=pd.Index(images).get_indexer(df.ImageID) + 1, category_id=pd.Index(labels).get_indexer(df.LabelName) + 1)
        columns = ids | dict(area=w*h, id=np.arange(1, len(df)+1)) | (dict(score=df.Conf) if 'Conf' in df else {})
        values = zip(*[np.asarray(v).tolist() for v in columns.values()], np.stack([df.XMin, df.YMin, w, h], axis=1).tolist(), strict=True)
        return [dict(zip([*columns, 'bbox'], v, strict=True), iscrowd=0) for v in values]
    rows = to_answer_frame(submission).sort_values(['Conf', *EDGES], ascending=False)
    gold = COCO()
    gold.dataset = dict(images=[dict(id=i+1) for i in range(len(images))], categories=[dict(id=i+1) for i in range(len(labels))],
                        annotations=annotate(answer.sort_values(EDGES, ascending=False)))
    gold.createIndex()
    ev = COCOeval(gold, gold.loadRes(annotate(rows)), 'bbox')
    p = ev.params
    p.iouThrs, p.maxDets, p.areaRng, p.areaRngLbl = np.array(ious), [300], [[0, 1e10]], ['all']
    ev.evaluate()
    ev.accumulate()
    ap = ev.eval['precision'][:, :, :, 0, 0].mean(axis=1)
    return {(name, iou): ap[i, k] for i, iou in enumerate(ious) for k, name in enumerate(labels)}


def seconds(function, times:int=1) -> tuple[float, object]:
    "Median wall time over `times` runs, and the last result; what the function prints is dropped."
    took = []
    for _ in range(times):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()): out = function()
        took.append(time.perf_counter() - start)
    return float(np.median(took)), out


def simulate(images:int, rng:np.random.Generator, group:int=1) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """An answer, a submission in its frame with confidences, and groups of `group` images that are equally hard. Hits lie on their gold box, false
    rows far from all; how many there are of each is binomial and Poisson, by an image's difficulty."""
    skill, boxes = np.repeat(rng.beta(8, 2, -(-images//group)), group)[:images], rng.integers(1, 9, images)
    gold = np.repeat(np.arange(images), boxes)
    hit = np.flatnonzero(rng.random(len(gold)) < skill[gold])
    false = np.repeat(np.arange(images), rng.poisson(6*(1-skill) + .5))
    names, place = np.array([f'{i:06}.jpg' for i in range(images)]), np.arange(len(gold)) - np.repeat(boxes.cumsum() - boxes, boxes)

    def table(image:np.ndarray, x:np.ndarray, y:float) -> pd.DataFrame:
        return pd.DataFrame(dict(ImageID=names[image], LabelName=np.where(image % 3 == 0, 'pig', 'cow'), XMin=x, XMax=x+.1, YMin=y, YMax=y+.1))
    found = pd.concat([table(gold[hit], place[hit]/8, .2), table(false, rng.random(len(false)), .6)], ignore_index=True)
    found['Conf'] = np.r_[rng.beta(2 + 4*skill[gold[hit]], 2), rng.beta(1.5, 3, len(false))]
    groups = pd.Series((np.arange(images)//group).astype(str), names)
    return table(gold, place/8, .2), found.sort_values('Conf', ascending=False, ignore_index=True), groups


def to_pixels(found:pd.DataFrame) -> pd.DataFrame:
    "A submission in px from one in the answer's frame."
    w, h = np.array([FRAMES[v] for v in FRAMES])[found.LabelName.map(list(FRAMES).index)].T
    return found.assign(XMin=found.XMin*w, XMax=found.XMax*w, YMin=found.YMin*h, YMax=found.YMax*h)[SUBMISSION_COLUMNS]


def coverage(definition:str, sets:int=1000, images:int=200, group:int=1, by_group:bool=True) -> list[bool]:
    "Of each simulated test set, whether its 95 % interval holds the score of 100,000 images."
    rng = np.random.default_rng(0)
    answer, found, _ = simulate(100_000, rng, group)
    truth, held = score(answer, to_pixels(found), definition=definition, resamples=0).ap.iloc[-1], []
    for _ in range(sets):
        answer, found, groups = simulate(images, rng, group)
        mean = score(answer, to_pixels(found), definition=definition, groups=groups if group > 1 and by_group else None).iloc[-1]
        held.append(mean.low <= truth <= mean.high)
    return held


def coverages(sets:int) -> dict[str, float]:
    "Coverage under both definitions, and of groups of four images drawn as groups and, wrongly, one by one; `_200` is of the first 200 sets."
    asked = dict(challenge=dict(definition='challenge'), coco=dict(definition='coco'), groups=dict(definition='challenge', images=400, group=4),
                 groups_ignored=dict(definition='challenge', images=400, group=4, by_group=False))
    out = {}
    for name, args in asked.items():
        held = np.array(coverage(sets=sets, **args), float)
        parts = [part.mean() for part in np.split(held, len(held)//200)]
        out[f'coverage_{name}'], out[f'coverage_{name}_200'] = held.mean(), parts[0]
        print(f'coverage, {name}: {held.mean():.3f} of {sets} simulated sets; {", ".join(f"{v:.3f}" for v in parts)} of each 200', flush=True)
    return out


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true', help='a tenth of the rows; with --coverage a fifth of the sets')
    parser.add_argument('--coverage', action='store_true', help='only whether the intervals hold, on 1,000 simulated sets and not 200')
    args = parser.parse_args()
    quick = args.quick
    if args.coverage: return print(json.dumps({k: round(v, 4) for k, v in coverages(200 if quick else 1000).items()}))
    answer, submission = made_up(*(200, 19_000) if quick else (2_000, 190_000))
    with contextlib.redirect_stdout(io.StringIO()):
        import map_boxes
    compiled = 'slow' not in map_boxes.compute_overlap.__module__
    said = dict(images=answer.ImageID.nunique(), gold=len(answer), rows=len(submission), map_boxes_overlap_compiled=compiled)
    print(f'{said["rows"]} rows, {said["gold"]} gold boxes, {said["images"]} images; fast overlap of map_boxes compiled: {compiled}')

    def pair(name:str, ours, peer) -> None:
        before, mine = seconds(ours, 3)
        theirs, result = seconds(peer)
        if not quick: theirs = min(theirs, seconds(peer)[0])
        mine_s = float(np.median([before, seconds(ours, 3)[0]]))
        far = max(abs(mine[k] - v) for k, v in result.items())
        said.update({f'{name}_ratio': theirs/mine_s, f'{name}_seconds': mine_s, f'{name}_peer_seconds': theirs, f'{name}_difference': far})
        print(f'{name}: {mine_s:.3f} s, peer {theirs:.2f} s, ratio {theirs/mine_s:.1f}, largest difference {far:.1e}', flush=True)
    one = lambda d: dict(score(answer, submission, .75, d, resamples=0).set_index('label').ap)
    pair('challenge', lambda: one('challenge'), lambda: map_boxes_ap(answer, submission, .75))
    slow, map_boxes.compute_overlap = map_boxes.compute_overlap, lambda a, b: overlap(a[:, :4], b)
    pair('challenge_numpy_overlap', lambda: one('challenge'), lambda: map_boxes_ap(answer, submission, .75))  # a peer without its slow overlap
    map_boxes.compute_overlap = slow
    pair('coco', lambda: {('cow', .75): (ap := one('coco'))['cow'], ('pig', .75): ap['pig']}, lambda: pycocotools_ap(answer, submission, [.75]))

    def ten() -> dict:
        matches = match_submission(answer, submission, IOUS, 'coco')
        return {(k, iou): v for iou in IOUS for k, v in average_precision(matches, iou).items()}
    pair('coco_ten', ten, lambda: pycocotools_ap(answer, submission, list(IOUS)))
    orders = dict(shuffled=submission.sample(frac=1, random_state=0, ignore_index=True), reversed=submission[::-1].reset_index(drop=True))
    for name, rows in orders.items():  # the same detections in other orders: equality alone
        ap = {d: dict(score(answer, rows, .75, d, resamples=0).set_index('label').ap) for d in DEFINITIONS}
        _, peer = seconds(lambda rows=rows: map_boxes_ap(answer, rows, .75))
        _, coco = seconds(lambda rows=rows: pycocotools_ap(answer, rows, [.75]))
        far = max([abs(ap['challenge'][k]-v) for k, v in peer.items()] + [abs(ap['coco'][k]-v) for (k, _), v in coco.items()])
        said[f'{name}_difference'] = far
        print(f'{name} rows: challenge {ap["challenge"]["mean"]:.4f}, coco {ap["coco"]["mean"]:.4f}, farthest from the peers {far:.1e}', flush=True)
    for d in DEFINITIONS:
        matches = match_submission(answer, submission, [.75], d)
        took, _ = seconds(lambda m=matches: interval(resampled_ap(m, .75, draw_images(m.image.cat.categories, 1000))), 3)
        said['bootstrap_seconds'] = max(said.get('bootstrap_seconds', 0), took)
        print(f'{d}: 1,000 resamples at one IoU {took:.2f} s', flush=True)
    said |= coverages(200)
    print(json.dumps({k: round(v, 12) if 'difference' in k else round(v, 4) if isinstance(v, float) else v for k, v in said.items()}))


if __name__ == '__main__':
    warnings.filterwarnings('ignore', 'In .* images the rows')  # other orders are meant here
    main()
