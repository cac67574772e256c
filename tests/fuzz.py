"""Fuzzing guided by coverage: what reads labels, hyper-parameters and csv files, on inputs that are bred to reach new lines of it.

    python tests/fuzz.py json|hyp|csv [COUNT] [SEED]       needs `pip install atheris`; COUNT inputs (default: 100,000)

Ends with 0 after COUNT inputs, each a clear error or a clean table; otherwise with the traceback, and what atheris fed is left in crash-… here.
Parts with different seeds add up. The inputs are those of tests/test_hostile.py, with atheris in the place of chance.
"""
import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=['livestock_nb.data', 'livestock_nb.intake', 'livestock_nb.train', 'livestock_nb.score', 'yaml']):
    import test_hostile as hostile

    import livestock_nb.intake
    import livestock_nb.score
    import livestock_nb.train  # noqa: F401  here, so that their branches are seen

HOME, SEEN = Path(tempfile.mkdtemp()), set()
READERS = dict(json=(hostile.LABELS, hostile.judge_label), hyp=(hostile.HYPS, lambda data: hostile.judge_hyp(data, HOME/'hyp.yaml')),
               csv=(hostile.CSVS, lambda data: hostile.judge_csv(data, HOME/'a.csv')))


def main(kind: str, count: int = 100_000, seed: int = 1) -> None:
    "Feed one reader `count` different inputs."
    warnings.simplefilter('ignore')
    inputs, judge = READERS[kind]

    @settings(deadline=None, database=None)
    @given(inputs)
    def once(data: bytes) -> None:
        SEEN.add(data)
        judge(data)

    def feed(buffer: bytes) -> None:
        once.hypothesis.fuzz_one_input(buffer)
        if len(SEEN) == count:
            print(f'{kind}, seed {seed}: {count} different inputs, no fault', flush=True)
            os._exit(0)  # libFuzzer would call any other end a fault
    options = [f'-seed={seed}', '-max_len=2000', '-len_control=0', '-rss_limit_mb=0', '-timeout=60', '-verbosity=0']
    atheris.Setup([sys.argv[0], *options], feed)
    atheris.Fuzz()


if __name__ == '__main__': main(sys.argv[1], *map(int, sys.argv[2:]))
