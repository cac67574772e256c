"The command that trains every detector: it has a row for each, looks at some of the images, and says what falls short."
import importlib.util
from pathlib import Path

import pytest

from livestock_nb.detectors import DETECTORS
from livestock_nb.train import listed, read_data

SPEC = importlib.util.spec_from_file_location('rows', Path(__file__).parents[1]/'benchmarks'/'rows.py')
rows = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(rows)
FINE = dict(name='a', goal=.5, map50=.6, computing=3, first_loss=9, last_loss=2, onnx=1e-6, openvino=1e-6)


def test_every_detector_has_a_row():
    assert set(rows.ROWS) == set(DETECTORS)
    for name, row in rows.ROWS.items():
        assert 192 <= row['imgsz'] <= 320 and row['goal'] == (.5 if name in rows.SMALL else 0)


@pytest.mark.parametrize('more, said, why', [
    (dict(), '', 'all is well'),
    (dict(map50=.49), 'a: mAP@.5 0.49 is below 0.5', 'it learnt too little'),
    (dict(goal=0, map50=0, computing=20), '', 'a larger row has neither goal nor limit'),
    (dict(last_loss=9), 'a: its loss did not fall', 'equal is not less'),
    (dict(last_loss=float('nan')), 'a: its loss did not fall', 'no number is none'),
    (dict(computing=8.1), 'a: trained for 8.1 minutes', 'eight are allowed'),
    (dict(openvino=.002), 'a: openvino differs by 0.002', 'a thousandth is allowed'),
    (dict(onnx=float('inf')), 'a: onnx differs by inf', 'another shape'),
    (dict(failed='killed'), 'a: killed', 'it never finished')])
def test_what_falls_short(more, said, why): assert ' '.join(rows.shortfalls([FINE | more])) == said, why


def test_some_of_the_images(tmp_path):
    for side, count in (('train', 13), ('valid', 7)):
        (tmp_path/f'{side}.txt').write_text(''.join(f'./images/{side}{i:02d}.jpg\n' for i in range(count)))
    (tmp_path/'data.yaml').write_text('{train: train.txt, val: valid.txt, names: [cow, pig]}\n')
    assert rows.some_of(tmp_path, 1, tmp_path/'some') == tmp_path
    info = read_data(rows.some_of(tmp_path, 6, tmp_path/'some'))
    assert [[Path(p).name for p in listed(info[k])] for k in ('train', 'val')] == [
        ['train00.jpg', 'train06.jpg', 'train12.jpg'], ['valid00.jpg', 'valid06.jpg']]
