"The edge: artefacts equal PyTorch and are whole or absent, the gate has a reason for each refusal, what is delivered runs with nothing of ours."
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from livestock_nb import artefacts, edge, measure
from livestock_nb.artefacts import (
    KINDS,
    Recipe,
    about_artefact,
    artefact_bytes,
    calibration_files,
    covering_shape,
    fill_up,
    largest_difference,
    make_artefact,
    open_artefact,
    recipe_id,
)
from livestock_nb.data import SPECIES, InputError, save_json, save_table
from livestock_nb.edge import choose_artefact, deliver_artefact, deliver_edge, how_to_run, refusals
from livestock_nb.engine import open_network
from livestock_nb.measure import in_fresh_process, pareto, plan_artefacts, valid_answer
from livestock_nb.train import load_model

LONG = pytest.mark.skipif(os.environ.get('LIVESTOCK_LONG') != '1', reason='takes a minute: LIVESTOCK_LONG=1 runs it')


TINY = """
nc: 2
backbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, Conv, [32, 3, 2]], [-1, 1, C3, [32]], [-1, 1, Conv, [64, 3, 2]], [-1, 1, C3, [64]],
           [-1, 1, Conv, [128, 3, 2]]]
head: [[-1, 1, SPPF, [128, 5]], [[4, 6], 1, Detect, [nc]]]
"""


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A detector with random weights that knows our two species, and a split of four images with a box each."
    import torch
    from ultralytics.nn.tasks import DetectionModel
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp('edge')
    (root/'tiny.yaml').write_text(TINY)
    model = load_model(root/'tiny.yaml')
    model.model = DetectionModel(str(root/'tiny.yaml'), verbose=False)
    for m in model.model.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.momentum = None
    with torch.no_grad():
        for _ in range(2): model.model.train()(torch.rand(2, 3, 96, 96))
    model.model.eval().names = dict(enumerate(SPECIES))
    model.save(root/'random.pt')
    for sub in ('images', 'labels'): (root/'split'/sub).mkdir(parents=True)
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(root/f'split/images/{i}.jpg'), cv2.resize(noise, (128, 96)))
        (root/f'split/labels/{i}.txt').write_text(f'{i % 2} .5 .5 .25 .5\n')
    lists = dict(train=range(3), valid=[3])
    for side, names in lists.items(): (root/f'split/{side}.txt').write_text(''.join(f'./images/{i}.jpg\n' for i in names))
    (root/'split/data.yaml').write_text('train: train.txt\nval: valid.txt\nnames: {0: cow, 1: pig}\n')
    return root


def recipe(home, kind, weights='random.pt'):
    return Recipe(home/weights, kind, 128, (96, 128), calibration_files(home/'split', 2))


@pytest.fixture(scope='module')
def made(home):
    kinds = ['onnx-fp32', 'onnx-fp16', 'onnx-int8', 'openvino-fp32', 'openvino-int8', 'ncnn-fp32', 'torchscript-fp32']
    return {kind: make_artefact(recipe(home, kind), home/'made'/kind) for kind in kinds}


@pytest.fixture(scope='module')
def picture(home):
    return cv2.imread(str(home/'split/images/0.jpg'))[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)/255


# ---- the parts

@pytest.mark.parametrize('sizes, imgsz, shape, why', [
    ([(1920, 1080)], 320, (192, 320), '16:9 alone needs no more than its own height'),
    ([(1920, 1080), (1280, 960)], 320, (256, 320), '4:3 is the higher one'),
    ([(1080, 1920), (1920, 1080)], 320, (320, 320), 'upright and lying together make a square'),
    ([(100, 100)], 250, (256, 256), 'up to the next multiple of the stride'),
    ([(0, 0)], 96, (96, 96), 'an unreadable image says nothing'),
    ([], 96, (96, 96), 'no image says nothing')])
def test_covering_shape(sizes, imgsz, shape, why): assert covering_shape(sizes, imgsz) == shape, why


def test_an_input_is_filled_below_and_to_the_right_and_never_cut():
    filled = fill_up(np.ones((2, 3, 4, 5), np.float32), (6, 8))
    assert filled.shape == (2, 3, 6, 8) and (filled[:, :, :4, :5] == 1).all()
    assert np.allclose(filled[:, :, 4:], 114/255) and np.allclose(filled[:, :, :, 5:], 114/255)
    with pytest.raises(InputError, match='4 x 5 px does not fit an artefact made for 4 x 4'): fill_up(np.ones((1, 3, 4, 5), np.float32), (4, 4))


MIXED = np.concatenate([np.tile(np.arange(20., 200, 20), (1, 4, 1)), np.full((1, 2, 9), .5)], 1)
MANY = np.concatenate([np.tile(np.arange(1., 302), (1, 4, 1)), np.full((1, 2, 301), .5)], 1)
RAW = np.concatenate([np.full((1, 4, 9), 200.), np.full((1, 2, 9), .5)], 1)


@pytest.mark.parametrize('answer, expected, difference, why', [
    (RAW, RAW, 0, 'itself'),
    (RAW + np.array([2, 0, 0, 0, 0, 0])[None, :, None], RAW, .01, 'pixels are compared with pixels'),
    (RAW + np.array([0, 0, 0, 0, 0, .1])[None, :, None], RAW, .2, 'and probabilities with probabilities'),
    (RAW.transpose(0, 2, 1) + np.array([0, 0, 0, 0, 0, .1]), RAW.transpose(0, 2, 1), .2, 'finished rows have the parts side by side'),
    (RAW[:, :, :8], RAW, np.inf, 'another shape'),
    (RAW*np.nan, RAW, np.inf, 'no number'),
    (MIXED[..., [3, 0, 1, 2, *range(4, 9)]], MIXED, 0, 'what is found is a set'),
    (MIXED[..., [3, 0, 1, 2, *range(4, 9)]] + np.array([0, 0, 0, 0, .05, 0])[None, :, None], MIXED, .1, 'partners differ'),
    (MIXED[..., [0, 0, *range(2, 9)]], MIXED, 20/180, 'a candidate is missing'),
    (np.roll(MANY, 1, 2), MANY, 1-1/301, 'a dense answer has an order')])
def test_largest_difference(answer, expected, difference, why): assert largest_difference(answer, expected) == pytest.approx(difference), why


def test_calibration_takes_the_same_train_images_however_they_are_listed(home, tmp_path):
    one = calibration_files(home/'split', 2)
    (tmp_path/'images').symlink_to(home/'split/images')
    lines = (home/'split/train.txt').read_text().splitlines()
    (tmp_path/'train.txt').write_text('\n'.join(reversed(lines)))
    (tmp_path/'data.yaml').write_text('train: train.txt\nval: train.txt\nnames: {0: cow, 1: pig}\n')
    assert [p.name for p in one] == [p.name for p in calibration_files(tmp_path, 2)] and '3.jpg' not in [p.name for p in one]


def test_the_plan_names_every_artefact_once():
    plan = plan_artefacts(dict(whole='', pruned=''), 320, 256)
    assert plan.artefact.is_unique and len(plan) == len(KINDS) + 2*4
    assert len(plan_artefacts(dict(whole=''), 320, 0)) == len(KINDS)
    assert plan_artefacts(dict(whole='', pruned=''), 320, 0, ['onnx-int8']).artefact.tolist() == ['whole-320-onnx-int8', 'pruned-320-onnx-int8']
    with pytest.raises(InputError, match="Unknown artefact 'onnx-int4': choose from onnx-fp32"): plan_artefacts(dict(whole=''), 320, 0, ['onnx-int4'])


def test_front():
    df = pd.DataFrame([(5, 5, .9), (4, 4, .9), (4, 6, .9), (1, 9, .1), (1, 9, .1), (2, 2, np.nan)], columns=['bytes', 'ms', 'ap'])
    assert pareto(df, ['bytes', 'ms'], 'ap').tolist() == [False, True, False, True, True, False], 'equals do not beat each other'
    assert pareto(df[:0], ['bytes', 'ms'], 'ap').empty


# ---- the gate

def row(artefact, precision='fp32', **more):
    base = dict(weights='whole', imgsz=320, device='cpu', runtime='onnx', kind=f'onnx-{precision}', difference=1e-5, bytes=9_000_000, frame_ms=6.)
    return base | dict(artefact=artefact, precision=precision, challenge=.8, coco=.7) | more


@pytest.mark.parametrize('more, said', [
    (dict(), ''),
    (dict(bytes=100_000_000), ''),
    (dict(bytes=100_000_001), '100,000,001 bytes are over 100,000,000'),
    (dict(challenge=.75), ''),
    (dict(challenge=.7499), 'mAP@.75 0.7499 is below 0.75'),
    (dict(challenge=np.nan), 'was not scored'),
    (dict(difference=2e-3), 'differs from PyTorch by 2.0e-03, over 0.001'),
    (dict(difference=np.nan), 'differs from PyTorch by nan, over 0.001'),
    (dict(difference=.1, precision='fp16'), ''),
    (dict(difference=.1, precision='int8', challenge=.781), ''),
    (dict(difference=.1, precision='int8', challenge=.779), 'int8 loses 0.0210 mAP@.75, over 0.02'),
    (dict(precision='int8', imgsz=256), 'there is no float artefact of these weights and this size to compare with'),
    (dict(device='gpu', challenge=np.nan), 'runs on gpu, not on cpu')])
def test_the_gate_gives_its_reason(more, said):
    assert refusals(pd.DataFrame([row('reference'), row('asked', **more)])).tolist() == ['', said]


def test_the_smallest_or_the_fastest_that_passes():
    table = pd.DataFrame([row('a', bytes=9, frame_ms=1.), row('b', bytes=3, frame_ms=4.), row('c', bytes=1, challenge=.2, coco=.9, frame_ms=.5)])
    assert choose_artefact(table).artefact == 'b' and choose_artefact(table, by='latency').artefact == 'a'
    assert choose_artefact(table, definition='coco').artefact == 'c', 'another definition, another artefact'
    assert choose_artefact(table[::-1]).artefact == 'b', 'in any order of rows'
    for wrong, said in (dict(by='beauty'), 'choose by'), (dict(device='fridge'), 'Unknown device'), (dict(definition='voc'), 'Unknown definition'):
        with pytest.raises(InputError, match=said): choose_artefact(table, **wrong)
    with pytest.raises(InputError, match=r'None of 3 artefacts passes: the best, a, mAP@.75 0.8000 is below 0.95') as e: choose_artefact(table, .95)
    assert '\n' not in str(e.value)
    with pytest.raises(InputError, match='None of 3 artefacts passes: the best, a, runs on cpu, not on apple'): choose_artefact(table, device='apple')


# ---- artefacts

def test_float_artefacts_equal_pytorch_and_int8_is_near(made, home, picture):
    expected = open_network(home/'random.pt', device='cpu')(picture).numpy()
    answers = {kind: open_artefact(folder)(picture) for kind, folder in made.items()}
    differences = {kind: largest_difference(answer, expected) for kind, answer in answers.items()}
    assert not {kind: v for kind, v in differences.items() if kind.endswith('fp32') and not v < 1e-3}
    assert not {kind: v for kind, v in differences.items() if kind.endswith('int8') and not v > 1e-3}
    alike = {kind: np.corrcoef(a[:, :4].ravel(), expected[:, :4].ravel())[0, 1] for kind, a in answers.items()}
    assert not {kind: v for kind, v in alike.items() if v < .99}


def test_a_precision_shows_in_the_bytes(made):
    size = {kind: artefact_bytes(folder) for kind, folder in made.items()}
    assert 2 < size['onnx-fp32']/size['onnx-int8'] < 4 and 1.7 < size['onnx-fp32']/size['onnx-fp16'] < 2.1, size
    assert size['onnx-fp32'] == sum(p.stat().st_size for p in made['onnx-fp32'].iterdir()), 'everything in the folder counts'


def test_any_shape_or_the_shape_it_was_made_for(made, picture):
    small = picture[:, :, :64]
    shapes = {kind: open_artefact(folder)(small).shape for kind, folder in made.items() if kind.endswith('fp32')}
    assert shapes == {'onnx-fp32': (1, 6, 160), 'openvino-fp32': (1, 6, 160), 'ncnn-fp32': (1, 6, 240), 'torchscript-fp32': (1, 6, 240)}
    with pytest.raises(InputError, match='made for 96 x 128'): open_artefact(made['ncnn-fp32'])(np.zeros((1, 3, 128, 128), np.float32))


def test_two_runtimes_that_write_the_same_names_do_not_meet(made):
    assert {p.name for p in made['openvino-fp32'].iterdir()} == {'network.xml', 'network.bin', 'about.json'}
    assert {p.name for p in made['ncnn-fp32'].iterdir()} == {'model.ncnn.param', 'model.ncnn.bin', 'about.json'}


@pytest.mark.parametrize('kind, said', [
    ('onnx-int4', "Unknown artefact 'onnx-int4'"), ('coreml-fp16', 'coremltools'), ('engine-fp16', 'no NVIDIA GPU here')])
def test_what_cannot_be_made_here_is_said(home, kind, said, tmp_path):
    if kind == 'coreml-fp16' and artefacts.importlib.util.find_spec('coremltools'): pytest.skip('coremltools is here')
    if kind == 'engine-fp16' and __import__('torch').cuda.is_available(): pytest.skip('a GPU is here')
    with pytest.raises(InputError, match=said): make_artefact(recipe(home, kind), tmp_path/kind)
    assert not any(tmp_path.iterdir()), 'nothing half made stays'


def test_whole_or_not_at_all_and_never_twice(home, tmp_path, monkeypatch):
    calls = []

    def breaks(recipe, folder):
        (folder/'network.onnx').write_bytes(b'half')
        raise KeyboardInterrupt

    def works(recipe, folder):
        calls.append(recipe.kind)
        (folder/'network.onnx').write_bytes(b'whole')
    one = recipe(home, 'onnx-fp32')
    monkeypatch.setitem(artefacts.MAKERS, 'onnx', breaks)
    with pytest.raises(KeyboardInterrupt): make_artefact(one, tmp_path/'a')
    assert not any(tmp_path.iterdir())
    monkeypatch.setitem(artefacts.MAKERS, 'onnx', works)
    for _ in range(2): assert (make_artefact(one, tmp_path/'a')/'network.onnx').read_bytes() == b'whole'
    assert calls == ['onnx-fp32'] and about_artefact(tmp_path/'a')['names'] == {0: 'cow', 1: 'pig'}
    make_artefact(one._replace(imgsz=96), tmp_path/'a')
    assert len(calls) == 2 and about_artefact(tmp_path/'a')['imgsz'] == 96, 'another recipe is made anew'
    ids = {recipe_id(r) for r in (one, one._replace(kind='onnx-int8'), one._replace(imgsz=96), one._replace(weights=home/'split/data.yaml'))}
    assert len(ids) == 4 and recipe_id(one._replace(shape=(1, 1))) == recipe_id(one), 'onnx takes any shape'


def test_a_damaged_artefact_is_said_in_a_line(tmp_path):
    with pytest.raises(InputError, match='holds no artefact'): open_artefact(tmp_path)
    save_json(dict(recipe='', kind='onnx-fp32', imgsz=64, shape=None, names={0: 'cow'}, stride=32), tmp_path/'about.json')
    (tmp_path/'network.onnx').write_bytes(b'not onnx')
    with pytest.raises(InputError, match='cannot be opened') as e: open_artefact(tmp_path)
    assert '\n' not in str(e.value)
    for page in ('', '{"recipe": ', '[]', '{"names": ["cow"]}'):
        (tmp_path/'about.json').write_text(page)
        with pytest.raises(InputError, match='about.json is spoilt: make the artefact again') as e: open_artefact(tmp_path)
        assert '\n' not in str(e.value)


# ---- the whole

@pytest.mark.parametrize('kind', ['onnx-fp32', 'openvino-int8', 'ncnn-fp32', 'torchscript-fp32'])
def test_the_card_runs_with_nothing_of_ours(kind, made, home, tmp_path):
    folder = made[kind]
    (tmp_path/'frame.jpg').write_bytes((home/'split/images/0.jpg').read_bytes())
    for p in folder.iterdir(): (tmp_path/p.name).symlink_to(p)
    lines = how_to_run(about_artefact(folder))
    program = "import sys\nsys.modules['livestock_nb'] = None\n" + lines.replace('.25, .68', '.0001, .68')
    done = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[0] in SPECIES, done.stderr
    assert len(lines.splitlines()) <= 14


def test_one_failing_export_is_named_and_the_rest_goes_on(home, tmp_path, monkeypatch):
    def missing(recipe, folder): raise InputError('ncnn is not installed: run `pip install ncnn`')
    monkeypatch.setitem(artefacts.MAKERS, 'ncnn', missing)
    asked = []

    def ask(task, folder, images, probe, out):
        asked.append(Path(folder).name)
        Path(out).mkdir(parents=True)
        np.save(Path(out)/'answer.npy', np.load(probe)[:, :6, 0])
    monkeypatch.setattr(measure, 'in_fresh_process', ask)
    images, answer = valid_answer(home/'split')
    assert answer.LabelName.tolist() == ['pig'] and images.image.tolist() == ['3.jpg']
    plan = plan_artefacts(dict(whole=home/'random.pt'), 128, 0, ['ncnn-fp16', 'onnx-fp32', 'engine-fp16'])
    for _ in range(2): problems = measure.make_all(plan, dict(whole=home/'random.pt'), home/'split', images, tmp_path)
    assert problems.artefact.tolist() == ['whole-128-ncnn-fp16', 'whole-128-engine-fp16'] and 'pip install ncnn' in problems.detail[0]
    assert asked == ['whole-128-onnx-fp32'], 'asked once, though said twice'
    (tmp_path/'found'/asked[0]/'difference.json').write_text('{"difference": ')
    measure.make_all(plan, dict(whole=home/'random.pt'), home/'split', images, tmp_path)
    assert len(asked) == 2, 'half an answer is none'


def test_a_failing_process_is_said_in_a_line(tmp_path):
    with pytest.raises(InputError, match='ask_artefact failed: .*holds no artefact') as e:
        in_fresh_process('ask_artefact', folder=str(tmp_path), images='', probe='', out='')
    assert '\n' not in str(e.value)


def a_run(made, run):
    "A run whose stage edge is done: one artefact that passes, one that does not."
    out = run/'edge'
    (out/'artefacts').mkdir(parents=True)
    rows = []
    for kind, score in (('onnx-fp32', .9), ('onnx-int8', .5)):
        (out/'artefacts'/kind).symlink_to(made[kind])
        scores = {f'{d}{side}': score for d in ('challenge', 'coco') for side in ('', '_low', '_high')}
        rows.append(row(kind, kind.split('-')[1], bytes=artefact_bytes(made[kind]), jpeg_ms=9., frame_ms_2=4., jpeg_ms_2=7., **scores) | scores)
    save_table(pd.DataFrame(rows), out/'table.csv')
    facts = dict(architecture='yolov5n', train=3, calibration='int8 was calibrated on 2', judged=1, boxes=1, side='valid', processor='P', licence='L')
    save_json(facts, out/'facts.json')
    return out


def test_delivered_with_its_card_or_refused_and_kept(made, tmp_path):
    out = a_run(made, tmp_path)
    folder, table = deliver_edge(tmp_path, .75, 'challenge', 100, 'cpu', 'size')
    assert folder == out/'delivered' and table.refused.tolist() == ['', 'mAP@.75 0.5000 is below 0.75']
    assert {p.name for p in folder.iterdir()} == {'network.onnx', 'about.json', 'README.md', 'scores.json'}
    card = (folder/'README.md').read_text()
    for said in ('0.9000', '3 images', '6.00 | 9.00', 'onnxruntime.InferenceSession', 'at most 100 MB', '## Licence\nL'): assert said in card, said
    assert json.loads((folder/'scores.json').read_text())['challenge'] == .9
    open_artefact(folder)
    with pytest.raises(InputError, match='Nothing is delivered'): deliver_edge(tmp_path, .95)
    assert (folder/'README.md').read_text() == card, 'a refusal leaves what was delivered before'
    (folder/'stray').touch()
    deliver_edge(tmp_path, by='latency')
    assert not (folder/'stray').exists() and not list(out.glob('.*')), 'replaced whole'


@pytest.mark.parametrize('record, said', [
    (None, 'is no run with a training'), (dict(stages=[]), 'is no run with a training'), ('{"stages": [', 'is no run with a training'),
    (dict(stages=[dict(notebook='09_train.ipynb', params=dict(out='nowhere', data='x'))]), 'nowhere/best.pt is missing')])
def test_a_run_without_a_detector_is_said_in_a_line(record, said, tmp_path):
    if record: (tmp_path/'record.json').write_text(record if isinstance(record, str) else json.dumps(record))
    with pytest.raises(InputError, match=said) as e: deliver_edge(tmp_path)
    assert '\n' not in str(e.value)


# ---- pruning

def test_what_cannot_be_pruned_is_named(tmp_path):
    from livestock_nb.prune import check_teacher, prune_weights, refuse_splitting
    for name, part in (('yolov8n.yaml', 'C2f'), ('yolo11n.yaml', 'C2PSA, C3k2'), ('yolov9t.yaml', 'ELAN1, RepNCSPELAN4')):
        with pytest.raises(InputError, match=f'A detector with {part}.* cannot be pruned'): refuse_splitting(load_model(name).model)
    with pytest.raises(InputError, match=r'A detector with C2f cannot be pruned.*prune=0\.$'): prune_weights('yolov8n.yaml', tmp_path/'a.pt')
    with pytest.raises(InputError, match='came to no end in 0.1 s'): prune_weights('yolov5n.yaml', tmp_path/'a.pt', seconds=.1)
    with pytest.raises(InputError, match='share of channels to prune is 1.5'): prune_weights('yolov5n.yaml', tmp_path/'a.pt', 1.5)
    with pytest.raises(InputError, match='have 4 and 3 levels'): check_teacher('yolov5n.yaml', 'yolov5n-p6.yaml')
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_tuned_is_named(home, tmp_path):
    from livestock_nb.prune import tune_weights
    with pytest.raises(InputError, match='epochs 0, batch 8, imgsz 96'): tune_weights(home/'random.pt', home/'split', tmp_path, 96, 0, device='cpu')


def test_pruned_weights_are_smaller_answer_alike_and_keep_their_names(home, tmp_path):
    from livestock_nb.prune import answering_layers, prune_weights
    path = prune_weights(home/'random.pt', tmp_path/'small.pt', .5)
    small, whole = load_model(path), load_model(home/'random.pt')
    count = {n: sum(p.numel() for p in m.model.parameters()) for n, m in dict(small=small, whole=whole).items()}
    assert .2 < count['small']/count['whole'] < .35, 'half of the channels is about a quarter of the weights'
    outputs = [[getattr(layer, 'out_channels', 0) for layer in answering_layers(m.model.model[-1])[:-1]] for m in (small, whole)]
    assert outputs[0] == outputs[1] == [64]*2 + [2]*2, 'what answers is not cut'
    assert small.names == {0: 'cow', 1: 'pig'}


@LONG
def test_pruned_weights_are_trained_on_in_their_shape_and_not_twice(home, tmp_path):
    from livestock_nb.prune import prune_weights, tune_weights
    cut = prune_weights(home/'random.pt', tmp_path/'small.pt', .5)
    best = tune_weights(cut, home/'split', tmp_path/'tuned', 96, 1, teacher=home/'random.pt', batch=2, device='cpu')
    count = [sum(p.numel() for p in load_model(p).model.parameters()) for p in (cut, best)]
    assert count[0] == count[1] and 'train/dis_loss' in pd.read_csv(tmp_path/'tuned/results.csv')
    made_at = best.stat().st_mtime_ns
    assert tune_weights(cut, home/'split', tmp_path/'tuned', 96, 1, teacher=home/'random.pt', batch=2, device='cpu').stat().st_mtime_ns == made_at


@LONG
def test_the_whole_way_and_again(home, tmp_path):
    asked = SimpleNamespace(split=home/'split', weights=home/'random.pt', test_zips=None, out=tmp_path, imgsz=128, frames=1)
    kinds = ['onnx-fp32', 'openvino-int8', 'engine-fp16']
    table, problems = edge.build_edge(**vars(asked), kinds=kinds)
    assert table.artefact.tolist() == ['whole-128-onnx-fp32', 'whole-128-openvino-int8'] and problems.artefact.tolist() == ['whole-128-engine-fp16']
    assert (table[['frame_ms', 'jpeg_ms', 'network_ms']] > 0).all(axis=None) and table.challenge.notna().all()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob('*/**/*') if p.is_file()}
    again, _ = edge.build_edge(**vars(asked), kinds=kinds)
    pd.testing.assert_frame_equal(table, again)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob('*/**/*') if p.is_file()}, 'nothing is done twice'
    assert deliver_artefact(table.iloc[0], tmp_path, json.loads((tmp_path/'facts.json').read_text()), 'by hand').name == 'delivered'
