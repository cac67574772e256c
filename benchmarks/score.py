"""How fast scoring is beside map_boxes and pycocotools on the same tables, whether it gives the same numbers, and whether its intervals hold.

    python benchmarks/score.py [--quick]

190,000 made-up detections on 2,000 images (--quick: 19,000 on 200). Each pair runs in one process, ours the median of five runs, the peer once
(--quick) or the faster of two. The last line is one JSON object."""
import argparse
import contextlib
import io
import json
import time

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
    resampled_curve,
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


def simulate(images:int, rng:np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "Hits down the curve, the image of each row, gold boxes an image: images differ in how hard they are."
    boxes, skill = rng.integers(1, 9, images), rng.beta(8, 2, images)
    of = np.repeat(np.arange(images), boxes)
    hit = rng.random(len(of)) < skill[of]
    false = np.repeat(np.arange(images), rng.poisson(6*(1-skill) + .5))
    conf = np.r_[rng.beta(2 + 4*skill[of[hit]], 2), rng.beta(1.5, 3, len(false))]
    order = np.argsort(-conf, kind='stable')
    return np.r_[np.ones(hit.sum(), bool), np.zeros(len(false), bool)][order], np.r_[of[hit], false][order], boxes


def coverage(definition:str, images:int=200, sets:int=200, resamples:int=1000) -> float:
    "Share of simulated test sets whose 95 % interval holds the AP of 300,000 images."
    rng, area, names = np.random.default_rng(0), DEFINITIONS[definition], [f'{i:06}' for i in range(images)]
    hit, image, gold = simulate(300_000, rng)
    truth, held = resampled_curve(hit, image, gold, np.ones((len(gold), 1), np.int32), area)[0], 0
    for i in range(sets):
        hit, image, gold = simulate(images, rng)
        span = interval(pd.DataFrame(resampled_curve(hit, image, gold, draw_images(names, resamples, seed=i), area)[None]))
        held += span.low[0] <= truth <= span.high[0]
    return held/sets


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true')
    quick = parser.parse_args().quick
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
    for d in DEFINITIONS:
        matches = match_submission(answer, submission, [.75], d)
        took, _ = seconds(lambda m=matches: interval(resampled_ap(m, .75, draw_images(m.image.cat.categories, 1000))), 3)
        said['bootstrap_seconds'] = max(said.get('bootstrap_seconds', 0), took)
        said[f'coverage_{d}'] = coverage(d, sets=200)
        print(f'{d}: 1,000 resamples {took:.2f} s; coverage on 200 simulated sets {said[f"coverage_{d}"]:.3f}', flush=True)
    print(json.dumps({k: round(v, 12) if 'difference' in k else round(v, 4) if isinstance(v, float) else v for k, v in said.items()}))


if __name__ == '__main__': main()
