"""Fuzzing guided by coverage: what reads labels, hyper-parameters and csv files, on inputs that are bred to reach new lines of it.

    python tests/fuzz.py json|hyp|csv [COUNT] [SEED]       needs `pip install atheris`; COUNT inputs (default: 100,000)

Ends with 0 after COUNT inputs, each a clear error or a clean table; otherwise with the traceback, and what atheris fed is left in crash-… here.
Parts with different seeds add up. Half of the inputs are the fed bytes as they are, half are put together from pieces of such files that they choose.
"""
import json
import os
import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=['livestock_nb.data', 'livestock_nb.intake', 'livestock_nb.train', 'livestock_nb.score', 'yaml']):
    import test_hostile as hostile

    import livestock_nb.intake
    import livestock_nb.score
    import livestock_nb.train  # noqa: F401  here, so that their branches are seen

HOME = Path(tempfile.mkdtemp())
KEYS = ['annotations', 'label_info', 'image', 'bbox', 'category_id', 'categories', 'width', 'height', 'farm_name', 'time', 'id', 'name', 'x']
WILD = [10**400, -1e308, float('inf'), float('nan'), 2**63, 1e-320, True, None, '', '\ud800', '\n', '9'*400]
COLUMNS = ['ImageID', 'LabelName', 'Conf', 'XMin', 'XMax', 'YMin', 'YMax', 'x', '']


def value(pieces: atheris.FuzzedDataProvider, depth: int = 0) -> object:
    "Anything that json can say, of the names that labels use."
    pick = pieces.ConsumeIntInRange(0, 9 if depth < 5 else 5)
    if pick < 3: return [pieces.ConsumeIntInRange(-50, 200), pieces.ConsumeRegularFloat(), pieces.ConsumeFloat()][pick]
    if pick < 5: return pieces.PickValueInList(WILD)
    if pick == 5: return pieces.ConsumeUnicode(8)
    if pick == 6: return [value(pieces, 9) for _ in range(4)]  # may be a box
    if pick == 7: return [value(pieces, depth + 1) for _ in range(pieces.ConsumeIntInRange(0, 4))]
    return {pieces.PickValueInList(KEYS): value(pieces, depth + 1) for _ in range(pieces.ConsumeIntInRange(0, 5))}


def label(pieces: atheris.FuzzedDataProvider) -> bytes:
    "A label file, most often with its lists in their places."
    marks = [dict(bbox=value(pieces, 9) if pieces.ConsumeBool() else [value(pieces, 9) for _ in range(4)], category_id=value(pieces, 9))
             for _ in range(pieces.ConsumeIntInRange(0, 3))]
    said = dict(annotations=marks if pieces.ConsumeBool() else value(pieces), image=value(pieces), categories=value(pieces))
    whole = dict(label_info=said) if pieces.ConsumeBool() else said if pieces.ConsumeBool() else value(pieces)
    return json.dumps(whole).encode('utf-8', 'surrogatepass')


def cell(pieces: atheris.FuzzedDataProvider) -> str:
    "A cell of a csv."
    pick = pieces.ConsumeIntInRange(0, 5)
    if pick < 2: return pieces.PickValueInList(hostile.ODD_CELLS)
    if pick == 2: return str(pieces.PickValueInList(WILD))
    return pieces.ConsumeUnicode(5) if pick == 3 else str(pieces.ConsumeRegularFloat() if pick == 4 else pieces.ConsumeIntInRange(0, 999))


def table(pieces: atheris.FuzzedDataProvider) -> bytes:
    "A csv, most often with the columns of an answer or a submission."
    full = hostile.SOUND.split(b'\n')[0].decode().split(',')
    names = [c for c in full if pieces.ConsumeIntInRange(0, 15)]
    if not pieces.ConsumeIntInRange(0, 3): names = [pieces.PickValueInList(COLUMNS) for _ in range(7)]
    row = lambda: [pieces.ConsumeUnicode(5), pieces.PickValueInList(['cow', 'pig']), *(str(pieces.ConsumeIntInRange(0, 99)/10) for _ in names[2:])]
    rows = [row() if pieces.ConsumeBool() else [cell(pieces) for _ in range(pieces.ConsumeIntInRange(0, 9))]
            for _ in range(pieces.ConsumeIntInRange(0, 4))]
    return '\n'.join(map(','.join, [names, *rows])).encode('utf-8', 'surrogatepass')


def lines(pieces: atheris.FuzzedDataProvider) -> bytes:
    "A yaml of hyper-parameters."
    name = lambda: pieces.PickValueInList(hostile.KNOWN.split()) if pieces.ConsumeIntInRange(0, 7) else pieces.ConsumeUnicode(5)
    said = lambda: pieces.PickValueInList(hostile.ODD) if pieces.ConsumeBool() else cell(pieces)
    return '\n'.join(f'{name()}: {said()}' for _ in range(pieces.ConsumeIntInRange(0, 4))).encode('utf-8', 'surrogatepass')


READERS = dict(json=(label, hostile.judge_label), hyp=(lines, lambda data: hostile.judge_hyp(data, HOME/'hyp.yaml')),
               csv=(table, lambda data: hostile.judge_csv(data, HOME/'a.csv')))


def main(kind: str, count: int = 100_000, seed: int = 1) -> None:
    "Feed one reader."
    warnings.simplefilter('ignore')
    make, judge = READERS[kind]
    fed = [0, set()]

    def feed(data: bytes) -> None:
        made = make(atheris.FuzzedDataProvider(data[1:])) if data[:1] < b'\x80' else data[1:]
        fed[0] += 1
        fed[1].add(hash(made))
        judge(made)
        if fed[0] == count:
            print(f'{kind}, seed {seed}: {count} inputs, {len(fed[1])} different, no fault', flush=True)
            os._exit(0)  # libFuzzer would call any other end a fault
    (HOME/'seeds').mkdir()
    for i in range(64): (HOME/'seeds'/f'{i}').write_bytes(random.Random(f'{seed} {i}').randbytes(400))  # long enough for whole files from the start
    options = [f'-seed={seed}', '-max_len=600', '-len_control=0', '-rss_limit_mb=0', '-timeout=60', '-report_slow_units=60']
    atheris.Setup([sys.argv[0], *options, str(HOME/'seeds')], feed)
    atheris.Fuzz()


if __name__ == '__main__': main(sys.argv[1], *map(int, sys.argv[2:]))
