"""Files that mean harm, and files of pure chance: each ends in a clear line or a clean table, writes nothing elsewhere and runs nothing.

The readers are tried on some hundreds of random inputs each, and on 100,000 each where LIVESTOCK_LONG is set. LIVESTOCK_FUZZ=N makes that N, so that
the long run can come in parts: LIVESTOCK_FUZZ=20000 pytest tests/test_hostile.py -k chance --hypothesis-seed=1, then 2, and so on. tests/fuzz.py
lets coverage guide what is tried.
"""
import csv
import io
import json
import os
import pickle
import re
import stat
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from livestock_nb.data import (
    CORNERS,
    MOST_BYTES,
    MOST_PIXELS,
    InputError,
    decode_image,
    guard_formula,
    guard_formulas,
    image_table,
    load_table,
    one_line,
    read_files,
    read_yaml,
    save_table,
    show_grid,
)
from livestock_nb.formats import coco_rows, read_coco, read_voc, read_yolo, voc_label
from livestock_nb.intake import MOST_LABEL, check_boxes, dataset_card, extract_images, list_images, parse_label, read_farm, read_policy
from livestock_nb.score import read_answer, read_submission, score

LONG = int(os.environ.get('LIVESTOCK_FUZZ', 100_000 if os.environ.get('LIVESTOCK_LONG') else 0))  # inputs a reader; 0: a few, the same each time
HOSTILE = '<img src=x onerror=alert(1)>&"\'$x^$'  # no slash, so that it can be a file's name


def jpeg(width: int = 64, height: int = 48) -> bytes:
    return cv2.imencode('.jpg', np.full((height, width, 3), 99, np.uint8))[1].tobytes()


def label(*boxes: list, **image) -> bytes:
    about = dict(width=64, height=48) | image
    return json.dumps(dict(label_info=dict(image=about, annotations=[dict(bbox=b, category_id=1) for b in boxes]))).encode()


def farm(folder: Path, images: dict[str, bytes], labels: dict[str, bytes]) -> Path:
    "Cow zips with these members, and pig zips with one sound image."
    folder.mkdir(parents=True, exist_ok=True)
    sound = {'livestock_pig_bbox_1': (jpeg(), label([2, 3, 30, 40]))}
    for korean, kind, members in (('소', '원천', images), ('소', '라벨', labels), ('돼지', '원천', {f'{n}.jpg': i for n, (i, _) in sound.items()}),
                                  ('돼지', '라벨', {f'{n}.json': t for n, (_, t) in sound.items()})):
        with zipfile.ZipFile(folder/f'[{kind}]{korean}_bbox.zip', 'w', zipfile.ZIP_DEFLATED) as z:
            for name, data in members.items(): z.writestr(name, data)
    return folder


def tables(tmp_path: Path, images: dict[str, bytes], labels: dict[str, bytes]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    "What intake makes of it, written and read back as the stage does."
    images, labels = {'livestock_cow_bbox_0.jpg': jpeg()} | images, {'livestock_cow_bbox_0.json': label([1, 1, 9, 9])} | labels
    made = read_farm(farm(tmp_path/'zips', images, labels))
    return tuple(load_table(save_table(t, tmp_path/f'{n}.parquet')) for n, t in zip(('images', 'boxes', 'problems'), made, strict=True))


# ---- names

@pytest.mark.parametrize(('member', 'name'), [
    ('../../escape', 'escape'), ('/etc/absolute', 'absolute'), ('C:\\windows\\evil', 'evil'), ('a\nb', 'a_b'), ('a\r\n../../b', 'b'),
    ('a\u2028b', 'a_b'), ('\u202egpj', '_gpj'), (HOSTILE, HOSTILE), ('=HYPERLINK("x")', '=HYPERLINK("x")'), ('a' * 240, 'a' * 240), ('-rf', '-rf')])
def test_a_name_leads_nowhere_else_and_stays_on_its_line(member: str, name: str, tmp_path: Path):
    images, boxes, problems = tables(tmp_path, {f'cow/{member}.jpg': jpeg(70)}, {f'{member}.json': label([5, 5, 20, 20])})
    assert f'{name}.jpg' in set(images.image) and f'{name}.jpg' in set(boxes.image)
    assert ('odd name' in set(problems.kind)) == (name not in member)
    extract_images(images, tmp_path/'out'/'pixels')
    written = {p.relative_to(tmp_path/'out').as_posix() for p in (tmp_path/'out').rglob('*') if p.is_file()}
    assert written == {f'pixels/{n}' for n in images.image} and {p.name for p in tmp_path.iterdir()} == {
        'zips', 'out', 'images.parquet', 'boxes.parquet', 'problems.parquet'}
    assert not any(len(v.splitlines()) > 1 for v in (*images.image, *problems.image, *problems.detail))


def test_a_training_list_has_a_line_an_image(tmp_path: Path):
    from livestock_nb.split import write_lists
    images, _, _ = tables(tmp_path, {'x\n/etc/passwd\n.jpg': jpeg(70)}, {'x\n/etc/passwd\n.json': label([5, 5, 20, 20])})
    write_lists(images.assign(side='train'), tmp_path/'split')
    lines = (tmp_path/'split'/'train.txt').read_text().splitlines()
    assert len(lines) == len(images) == 3 and all(line.startswith('./images/') for line in lines)


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path):
    zips = farm(tmp_path/'zips', {'livestock_cow_bbox_0.jpg': jpeg()}, {'livestock_cow_bbox_0.json': label([1, 1, 9, 9])})
    link = zipfile.ZipInfo('livestock_cow_bbox_9.jpg')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zips/'[원천]소_bbox.zip', 'a') as z: z.writestr(link, '/etc/passwd')
    with zipfile.ZipFile(zips/'[라벨]소_bbox.zip', 'a') as z: z.writestr('livestock_cow_bbox_9.json', label([1, 1, 9, 9]))
    images, _, problems = read_farm(zips)
    assert 'livestock_cow_bbox_9.jpg' not in set(images.image) and 'unreadable' in set(problems.kind[problems.image == 'livestock_cow_bbox_9.jpg'])
    extract_images(images, tmp_path/'out')
    assert not any(p.is_symlink() for p in (tmp_path/'out').iterdir())


def test_what_people_read_shows_a_name_as_it_is(tmp_path: Path):
    images, boxes, problems = tables(tmp_path, {f'{HOSTILE}.jpg': jpeg(70)}, {f'{HOSTILE}.json': label([-9, 5, 20, 20], farm_name=HOSTILE + '\n| x')})
    assert '<img' not in dataset_card(images, boxes, problems)
    from livestock_nb.eda import show_table
    assert '<img' not in show_table(problems).data and '&lt;img' in show_table(problems).data
    show_grid(images, boxes).savefig(io.BytesIO())  # dollars are no formula


# ---- bombs

def png_of(width: int, height: int) -> bytes:
    "A PNG that says it has this size; black pixels, so that it is small."
    def chunk(kind: bytes, data: bytes) -> bytes: return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')
    packer = zlib.compressobj(9)
    pixels = b''.join(packer.compress(bytes(1 + (width + 7)//8)) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes([1, 0, 0, 0, 0])
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


def test_an_image_of_20000_by_20000_px_is_left_out_undecoded(tmp_path: Path):
    bomb = png_of(20000, 20000)
    assert len(bomb) < 100_000
    images, _, problems = tables(tmp_path, {'livestock_cow_bbox_9.png': bomb}, {'livestock_cow_bbox_9.json': label([1, 1, 9, 9])})
    said = problems.set_index('image').loc['livestock_cow_bbox_9.png']
    assert len(images) == 2 and said.kind == 'unreadable' and '20000×20000' in said.detail and said.action == 'image left out'
    with pytest.raises(InputError, match='a.png'): decode_image(png_of(70000, 20000), 'a.png')  # OpenCV's own limit holds where nothing else does


def test_the_pixel_limit_holds_from_the_first_import():
    code = 'from livestock_nb.data import decode_image, MOST_PIXELS\nimport sys\ndecode_image(sys.stdin.buffer.read(), "a.png")'
    done = subprocess.run([sys.executable, '-c', code], input=png_of(20000, 20000), capture_output=True)
    assert b'InputError: a.png' in done.stderr and f'{MOST_PIXELS:,}'.encode() in done.stderr


def test_a_zip_bomb_is_left_out_unpacked(tmp_path: Path):
    bomb = bytes(MOST_BYTES >> 3)  # 32 MB of nothing in 32 kB
    begun = time.perf_counter()
    images, _, problems = tables(tmp_path, {'livestock_cow_bbox_8.jpg': jpeg() + bomb},
                                 {'livestock_cow_bbox_8.json': label([1, 1, 9, 9]), 'livestock_cow_bbox_0.json': b' '*len(bomb)})
    assert images.image.tolist() == ['livestock_pig_bbox_1.jpg'] or len(images) == 1
    assert problems[problems.detail.str.contains('zip bomb')].image.nunique() == 2
    assert time.perf_counter() - begun < 30
    zips = image_table([dict(image=n, species='cow', width=1, height=1, zip=str(tmp_path/'zips'/'[원천]소_bbox.zip'), member=n)
                        for n in ('livestock_cow_bbox_8.jpg', 'livestock_cow_bbox_0.jpg')])
    read = {row.image: data for row, data in read_files(zips)}
    assert isinstance(read['livestock_cow_bbox_8.jpg'], InputError) and isinstance(read['livestock_cow_bbox_0.jpg'], bytes)
    assert len(list_images(tmp_path/'zips')[0]) == 2


def test_a_zip_that_says_less_than_it_holds(tmp_path: Path):
    zips = farm(tmp_path/'zips', {'livestock_cow_bbox_0.jpg': jpeg(), 'livestock_cow_bbox_8.jpg': jpeg() + bytes(1 << 24)},
                {f'livestock_cow_bbox_{i}.json': label([1, 1, 9, 9]) for i in (0, 8)})
    path = zips/'[원천]소_bbox.zip'
    data = path.read_bytes()
    path.write_bytes(data.replace((len(jpeg()) + (1 << 24)).to_bytes(4, 'little'), (5000).to_bytes(4, 'little')))
    images, _, problems = read_farm(zips)
    assert problems.set_index('image').kind['livestock_cow_bbox_8.jpg'] == 'unreadable' and len(images) == 2


@pytest.mark.parametrize('data', [
    b'['*100_000, b'{"a":'*100_000, b'[' + b'9'*5000 + b']', b'{"annotations": [{"bbox": [1e999, -1e999, NaN, 1]}]}', b'\xff\xfe\x00',
    b'{"a": "\\ud800"}', b'1'*5000, b'{"annotations": {"bbox": 1}}', b'{"annotations": [null]}', b'{"label_info": []}', b' '*(MOST_LABEL + 1),
    b'{"annotations": [{"bbox": [1' + b'0'*400 + b', 1, 1, 1]}]}', label([1, 2, 3, 4], farm_name='\ud800\n', width=10**300, time=['x']*9999)])
def test_a_json_bomb_is_an_input_error_or_a_label(data: bytes):
    judge_label(data)


def test_a_yaml_bomb_is_named_at_once(tmp_path: Path):
    bomb = 'a: &a [1, 2]\n' + ''.join(f'{b}: &{b} [{", ".join([f"*{a}"]*10)}]\n' for a, b in zip('abcdefghi', 'bcdefghij', strict=True))
    (tmp_path/'bomb.yaml').write_text(bomb)
    from livestock_nb.blocks import read_description
    from livestock_nb.pipeline import read_config
    from livestock_nb.samplers import read_space
    from livestock_nb.train import load_model, read_hyp
    begun = time.perf_counter()
    for read in (read_hyp, read_config, read_policy, read_description, load_model, lambda path: read_space(str(path))):
        with pytest.raises(InputError) as e: read(tmp_path/'bomb.yaml')
        assert len(str(e.value)) < 1000
    assert time.perf_counter() - begun < 20
    for text in ('a: &a [*a]', '2001-99-99', '!!python/object/apply:os.system [x]', '['*9999, '1' * 5000, '? [a]\n: b', '!!int x', 'x'*2_000_000):
        try: read_yaml(text, 'that')
        except InputError as e: assert len(str(e)) < 1000


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_an_xml_bomb_is_refused(encoding: str):
    entities = ''.join(f'<!ENTITY a{i} "&a;&a;">' for i in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa">{entities}]><annotation>&a;</annotation>'
    with pytest.raises(InputError): voc_label(bomb.encode(encoding))


# ---- csv

@pytest.mark.parametrize('value', ['=1+1', '+1+1', '-cmd', '@SUM(A1)', '\tx', '\rx', '\nx', "'quoted", "''", "'=1", ' =1', " '=1", "' =1", 'plain',
                                   '', '소 1.jpg', -3.5, None])
def test_a_cell_is_never_a_formula_and_reads_back(value: object):
    cell = guard_formula(value)
    assert guard_formula(cell, back=True) == value and not str(cell).lstrip(' ').startswith(('=', '+', '@', '\t', '\r', '\n', '-c'))


def test_no_csv_for_people_holds_a_formula(tmp_path: Path):
    told = pd.DataFrame(dict(image=['=1+1', '+cmd|x', '-2+3', '@SUM(A1)', '\tx', "'=1", 'plain', "it's"], n=[-1., 2, 3, 4, 5, 6, 7, 8],
                             text=['-3', '1e9', '-.5', '+4', '', None, '-inf', 'a']))
    save_table(told, tmp_path/'a.csv')
    with (tmp_path/'a.csv').open(newline='') as f: cells = [r for r in csv.reader(f)]
    assert not [c for row in cells for c in row if c[:1] in '=+-@\t\r' and c and not pd.notna(pd.to_numeric(c, errors='coerce'))]
    assert load_table(tmp_path/'a.csv').image.tolist() == told.image.tolist()
    assert guard_formulas(guard_formulas(told), back=True).equals(told)


def test_a_submission_keeps_its_names(tmp_path: Path):
    from livestock_nb.infer import write_submission
    rows = pd.DataFrame([('=1+1.jpg', 'cow', .5, 1, 9, 1, 9)], columns=['ImageID', 'LabelName', 'Conf', 'XMin', 'XMax', 'YMin', 'YMax'])
    assert write_submission(rows, tmp_path/'s.csv').read_text().splitlines()[1].startswith('=1+1.jpg,cow,')
    assert read_submission(tmp_path/'s.csv').ImageID.tolist() == ['=1+1.jpg']


# ---- weights

class Evil:
    "Runs a program when it is unpickled."
    def __init__(self, sign: Path): self.sign = sign
    def __reduce__(self): return os.system, (f'touch {self.sign}',)


@pytest.fixture(scope='module')
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Weights that leave a file `ran` beside them when they are trusted."
    import torch
    home = tmp_path_factory.mktemp('evil')
    torch.save(dict(model=Evil(home/'ran')), home/'zip.pt')
    (home/'pickle.pt').write_bytes(pickle.dumps(Evil(home/'ran')))
    torch.save(dict(model=Evil(home/'ran')), home/'old.pt', _use_new_zipfile_serialization=False)
    act = f"__import__('os').system('touch {home/'ran'}')"
    (home/'act.yaml').write_text(yaml.safe_dump(dict(nc=2, activation=act, backbone=[[-1, 1, 'Conv', [8, 3, 2]]], head=[[[0], 1, 'Detect', ['nc']]])))
    return home


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('name', ['zip.pt', 'pickle.pt', 'old.pt', 'act.yaml'])
def test_weights_that_run_code_are_refused(name: str, evil: Path):
    from test_train import make_dataset

    from livestock_nb.infer import predict
    from livestock_nb.train import load_model, train_model
    train = lambda w: train_model(make_dataset(evil/'data'), evil/'out', w, imgsz=32, epochs=1, device='cpu')
    for use in (load_model, lambda w: predict(image_table([]), w), train):
        with pytest.raises(InputError, match=name): use(evil/name)
    assert not (evil/'ran').exists()


def test_trusted_weights_say_so_loudly(evil: Path):
    from livestock_nb.train import load_model
    with pytest.warns(UserWarning, match='whatever code'), pytest.raises(InputError): load_model(evil/'zip.pt', trust=True)
    assert (evil/'ran').exists()
    (evil/'ran').unlink()


def test_own_weights_load_and_a_checkpoint_from_elsewhere_is_checked(tmp_path: Path, evil: Path):
    from livestock_nb.train import deliver, load_model
    load_model('yolov5n.yaml').save(str(tmp_path/'own.pt'))
    assert load_model(tmp_path/'own.pt').task == 'detect'
    with pytest.raises(InputError, match='posix.system'): deliver(evil/'zip.pt', tmp_path/'best.pt')  # as a mirrored checkpoint could hold it
    assert not (evil/'ran').exists() and not (tmp_path/'best.pt').exists()


# ---- secrets

PARAMETERS = "zips: Path = ''  # a folder\ndrive_token: str = ''  # of a disk\nout: Path = ''  # where to write\n"


def stage(folder: Path, body: str) -> Path:
    cells = [nbformat.v4.new_markdown_cell('# A stage\n\n> with a secret'), nbformat.v4.new_code_cell('from pathlib import Path'),
             nbformat.v4.new_code_cell(PARAMETERS, metadata=dict(tags=['parameters'])), nbformat.v4.new_markdown_cell('## Run the stage'),
             nbformat.v4.new_code_cell(body)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder/'0_a.ipynb')
    (folder/'my.yaml').write_text(yaml.safe_dump(dict(vars=dict(token=''), stages=[dict(notebook='0_a', params=dict(drive_token='$token'))])))
    return folder/'my.yaml'


@pytest.mark.parametrize('fails', [False, True])
def test_a_secret_reaches_its_stage_and_no_file(fails: bool, tmp_path: Path):
    from livestock_nb.grid import run_grid
    from livestock_nb.pipeline import run_config, status
    secret = 'hunter2"\\geheim'
    body = "from pathlib import Path\n(Path(out)/'length').write_text(str(len(drive_token)))\nprint(drive_token)\n"
    body += "raise ValueError(drive_token)"*fails
    config, run = stage(tmp_path, body), tmp_path/'run'
    try: run_config(config, run, dict(token=secret))
    except InputError as e: assert fails and secret not in str(e) and '***' in str(e)
    if not fails: run_grid(config, tmp_path/'grid', given=dict(token=secret))
    assert (run/'a'/'length').read_text() == str(len(secret))
    assert fails or status(config, run, dict(token=secret)).state.tolist() == ['done']
    for path in (p for p in tmp_path.rglob('*') if p.is_file()):
        text = path.read_bytes()
        assert secret.encode() not in text and json.dumps(secret)[1:-1].encode() not in text and b'hunter2' not in text, path


# ---- reports, network

def test_a_report_runs_and_fetches_nothing(tmp_path: Path):
    from livestock_nb.pipeline import run_config
    body = f"import pandas as pd\nfrom IPython.display import HTML, display\nprint({HOSTILE!r})\ndisplay(pd.DataFrame(dict(image=[{HOSTILE!r}])))"
    report = (run_config(stage(tmp_path, body), tmp_path/'<img src=y onerror=alert(2)>', dict(token=''))/'report.html').read_text()
    assert '<img src=x' not in report and '<img src=y' not in report and '&lt;img src=x' in report
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)=["\']?(https?:)?//', report) and "default-src 'none'" in report


def test_a_running_stage_listens_on_this_machine_alone(tmp_path: Path):
    from livestock_nb.pipeline import run_config
    body = """import json, os, psutil
me = psutil.Process()
found = [c.laddr.ip for p in (me, *me.parents()[:2]) for c in p.net_connections() if c.status == 'LISTEN']
(Path(out)/'listening.json').write_text(json.dumps(found))"""
    run_config(stage(tmp_path, body), tmp_path/'run')
    found = json.loads((tmp_path/'run'/'a'/'listening.json').read_text())
    assert set(found) <= {'127.0.0.1', '::1'}


NO_NETWORK = """
import socket, sys, time
asked = []
def refuse(*args, **kwargs):
    asked.append(str(args[:2]))
    raise OSError('no network')
socket.getaddrinfo = refuse
connect = socket.socket.connect
socket.socket.connect = lambda self, address: connect(self, address) if self.family == socket.AF_UNIX else refuse(address)
begun = time.perf_counter()
from livestock_nb.train import load_model
model = load_model('yolov5n.yaml')
import ultralytics
model.model.names = {0: 'cow', 1: 'pig'}
from livestock_nb.infer import predict
import numpy as np, cv2, tempfile
from livestock_nb.data import image_table
with tempfile.TemporaryDirectory() as d:
    cv2.imwrite(d + '/a.jpg', np.zeros((64, 64, 3), np.uint8))
    predict(image_table([dict(image='a.jpg', species='cow', width=64, height=64, zip=d, member='a.jpg')]), model, 64)
from ultralytics.utils.events import events
assert not asked, asked
assert not events.enabled and not ultralytics.settings['sync']
begun = time.perf_counter()
try: load_model('yolov5m6u.pt')
except ValueError as e: assert 'no network' in str(e)
assert time.perf_counter() - begun < 2
print('fine', len(asked))
"""


def test_nothing_is_told_and_nothing_waits_without_a_network(tmp_path: Path):
    env = os.environ | dict(YOLO_CONFIG_DIR=str(tmp_path))
    for name in ('YOLO_OFFLINE', 'ULTRALYTICS_SAFE_LOAD'): env.pop(name, None)
    done = subprocess.run([sys.executable, '-c', NO_NETWORK], env=env, capture_output=True, text=True)
    assert 'fine' in done.stdout, done.stderr[-2000:]


# ---- chance

def many(count: int):
    "Random inputs: `count` of them, the same ones each time, or in the long run as many others as it says."
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    return settings(max_examples=LONG or count, deadline=None, derandomize=not LONG, database=None, suppress_health_check=slow)


NUMBERS = st.one_of(st.integers(-99, 99), st.floats(), st.sampled_from([10**400, -1e308, 1e999, 2**63, 1e-320, True, None]))
KEYS = st.sampled_from(['bbox', 'annotations', 'image', 'label_info', 'id', 'name', 'x'])
JSON = st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=9)),
                    lambda v: st.lists(v, max_size=5) | st.dictionaries(KEYS, v, max_size=4), max_leaves=12)
BOX = st.one_of(st.lists(NUMBERS, min_size=4, max_size=4), st.lists(NUMBERS, max_size=5), JSON)
MARK = st.one_of(st.fixed_dictionaries(dict(bbox=BOX), optional=dict(category_id=JSON)), JSON)
LABEL = st.fixed_dictionaries(dict(annotations=st.one_of(st.lists(MARK, max_size=4), JSON)), optional=dict(
    image=st.one_of(st.fixed_dictionaries({}, optional=dict(width=JSON, height=NUMBERS, farm_name=JSON, time=JSON)), JSON), categories=JSON))


@st.composite
def broken(draw, sound: bytes) -> bytes:
    "A sound file with some of its bytes changed, lost or doubled."
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if (how := draw(st.integers(0, 3))) == 0: data[at:at+1] = bytes([draw(st.integers(0, 255))])
        elif how == 1: del data[at:at+draw(st.integers(1, 20))]
        elif how == 2: data[at:at] = draw(st.sampled_from([b'"', b'{', b'[', b',', b'-', b'1e999', b'NaN', b'\n', b'\0', b'\xff', b'\\ud800', b'=']))
        else: data[at:at] = data[at:at+draw(st.integers(1, 30))]
    return bytes(data)


def judge_label(data: bytes):
    "An `InputError` on one line, or a label whose boxes become a clean table."
    try: said = parse_label(data)
    except InputError as e:
        assert len(str(e)) < 500
        return
    assert {*said} == {'size', 'farm', 'camera', 'time', 'boxes', 'called'}
    for text in (said['farm'], said['camera'], said['time']): assert len(text.encode()) <= 800 and text == one_line(text)
    rows = pd.DataFrame(said['boxes'], columns=CORNERS, dtype=float).assign(image='a', label='cow', width=64, height=48)
    table, problems = check_boxes(rows)
    corners = table[CORNERS].to_numpy()
    assert np.isfinite(corners).all() and ((corners >= 0) & (corners <= [64, 48, 64, 48])).all()
    assert len(table) + sum(p['kind'] != 'box outside the frame' for p in problems) == len(rows)


LABELS = st.one_of(LABEL.map(lambda v: json.dumps(v).encode()), JSON.map(lambda v: json.dumps(v).encode()), st.binary(max_size=99),
                   broken(label([1, 2, 30, 40], [-3, 4, 99, 12.5], farm_name='언덕')))


@many(300)
@given(LABELS)
def test_labels_of_chance(data: bytes): judge_label(data)


@many(200)
@given(st.fixed_dictionaries({}, optional=dict(
    images=st.one_of(JSON, st.lists(st.fixed_dictionaries(dict(id=JSON, file_name=JSON), optional=dict(width=JSON, height=NUMBERS)), max_size=3)),
    annotations=st.one_of(JSON, st.lists(st.fixed_dictionaries(dict(image_id=JSON, category_id=JSON, bbox=BOX)), max_size=3)),
    categories=st.one_of(JSON, st.lists(st.fixed_dictionaries(dict(id=JSON, name=JSON)), max_size=3)))))
def test_coco_of_chance(data: dict):
    try: images, boxes = coco_rows(data)
    except InputError as e: assert len(str(e)) < 500
    else: assert [*boxes.columns[2:6]] == CORNERS and boxes[CORNERS].dtypes.map(lambda t: t.kind in 'fiO').all()


ODD = ['true', 'null', '[1, 2]', '{a: 1}', '1e-3', '.inf', '-.nan', '0x1F', '1:30', '2001-99-99', '"x"', '&a [*a]', '!!int z', 'SGD', 'auto', '', '~',
       '*b', '|', '1_0', '0b', '!!binary x', '[', '1'*5000]
VALUES = st.one_of(NUMBERS.map(str), st.sampled_from(ODD), st.text(max_size=12))
KNOWN = 'lr0 momentum box cls cls_pw obj anchor_t freeze optimizer amp nbs mosaic cache epochs multi_scale accumulate background pretrained hsv_h'
NAMES = st.one_of(st.sampled_from(KNOWN.split()), st.text(max_size=8))
LINES = st.lists(st.tuples(NAMES, VALUES).map(': '.join), max_size=5).map('\n'.join)

HYPS = st.one_of(LINES, st.text(max_size=60)).map(lambda t: t.encode('utf-8', 'surrogatepass'))


@many(300)
@given(data=HYPS)
@example(data=b'optimizer: &a [*a]')
@example(data=b'lr0: 2001-99-99')
def test_hyper_parameters_of_chance(data: bytes, tmp_path: Path): judge_hyp(data, tmp_path/'hyp.yaml')


def judge_hyp(data: bytes, path: Path):
    "An `InputError`, or arguments that a training knows."
    from livestock_nb.train import HYP_NAMES, read_hyp
    path.write_bytes(data)
    try: args, report = read_hyp(path)
    except InputError as e: assert len(str(e)) < 1000, data
    else:
        assert set(args) <= set(HYP_NAMES) and set(report.fate) <= {'mapped', 'scaled', 'dropped'}
        assert all(v is None or isinstance(v, (str, bool, list)) or np.isfinite(v) for v in args.values()), args


ODD_CELLS = ['cow', 'pig', 'Cow', '', 'nan', '"', '""', '1e5000', '=1', '-', '1,5', '\n', '0x1', 'TRUE', ' 3']
CELL = st.one_of(NUMBERS.map(str), st.sampled_from(ODD_CELLS), st.text(max_size=6))
WHOLE = st.tuples(st.text(min_size=1, max_size=5).map(repr), st.sampled_from(['cow', 'pig']), st.floats(0, 1), *[st.floats(-10, 5000)]*4)
ROW = st.one_of(WHOLE.map(lambda r: ','.join(map(str, r))), st.lists(CELL, max_size=9).map(','.join))
HEADER = st.one_of(st.sampled_from(['ImageID,LabelName,Conf,XMin,XMax,YMin,YMax', 'ImageID,LabelName,XMin,XMax,YMin,YMax']),
                   st.permutations(['ImageID', 'LabelName', 'Conf', 'XMin', 'XMax', 'YMin', 'YMax']).map(','.join), st.text(max_size=40))
SOUND = b'ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\na.jpg,cow,0.9,10,90,20,80\nb.jpg,pig,0.5,1,2,3,4\n'
GOLD = pd.DataFrame([('a.jpg', 'cow', .01, .05, .02, .08), ('b.jpg', 'pig', .1, .2, .1, .2)],
                    columns=['ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax'])
CSVS = st.one_of(st.tuples(HEADER, st.lists(ROW, max_size=4).map('\n'.join)).map(lambda t: '\n'.join(t).encode('utf-8', 'surrogatepass')),
                 st.binary(max_size=60), broken(SOUND), broken(SOUND.replace(b',Conf', b'').replace(b',0.9', b'').replace(b',0.5', b'')))


@pytest.mark.filterwarnings('ignore')
@many(100)
@given(data=CSVS)
def test_csvs_of_chance(data: bytes, tmp_path: Path): judge_csv(data, tmp_path/'a.csv')


def judge_csv(data: bytes, path: Path):
    "An `InputError`, or rows that can be scored."
    path.write_bytes(data)
    for read in (read_answer, read_submission):
        try: rows = read(path)
        except InputError as e:
            assert len(str(e)) < 2000
            continue
        numbers = rows.select_dtypes('number').to_numpy()
        assert np.isfinite(numbers).all() and set(rows.LabelName) <= {'cow', 'pig'} and rows.ImageID.map(lambda v: isinstance(v, str)).all()
        assert ((rows.XMax > rows.XMin) & (rows.YMax > rows.YMin)).all()
        if read is read_submission: assert score(GOLD, rows, .5, 'coco').ap.between(0, 1).all()


LISTED = '{"images": [{"id": 1, "file_name": "a.jpg", "width": "x"}], "annotations": [], "categories": []}'


@pytest.mark.parametrize(('read', 'name', 'text'), [
    (read_yolo, 'data.yaml', 'names: {x: 1}'), (read_yolo, 'data.yaml', 'names: 5'), (read_yolo, 'data.yaml', 'names: [[1], {}]'),
    (read_yolo, 'classes.txt', '\udcff'),
    (read_voc, 'a.xml', '<annotation><object>'), (lambda d: read_coco(d/'a.json', d), 'a.json', '[' * 100_000),
    (lambda d: read_coco(d/'a.json', d), 'a.json', LISTED.replace('a.jpg', '\\ud800.jpg').replace('"x"', '9')),
    (lambda d: read_coco(d/'a.json', d), 'a.json', LISTED)])
def test_other_formats_of_ill_will(read, name: str, text: str, tmp_path: Path):
    (tmp_path/'a.jpg').write_bytes(jpeg())
    (tmp_path/name).write_bytes(text.encode('utf-8', 'surrogateescape'))
    try: images, _, problems = read(tmp_path)
    except InputError as e: assert len(str(e)) < 1000
    else: save_table(problems, tmp_path/'p.parquet'), save_table(images, tmp_path/'i.parquet')


