"A training killed with kill -9 and run again equals one left in peace; checkpoints cut off, damaged or foreign; memory that runs out."
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from test_train import TINY, files, make_dataset

from livestock_nb import resume
from livestock_nb.data import InputError
from livestock_nb.resume import ResumableTraining, checkpoints, load_state, newest_state, save_state, seed_epoch
from livestock_nb.train import TrainingSteps, out_of_memory, quiet_ultralytics, read_recipe, train_model, training_key

ROOT = Path(__file__).parents[1]
KEY = 'a'*64
LONG = pytest.mark.skipif(os.environ.get('LIVESTOCK_LONG') != '1', reason='takes many minutes: set LIVESTOCK_LONG=1')
# gradients wait over the epoch's end (5 batches an epoch, a step every 4), mosaics pick from a buffer, sizes vary, mosaic ends before the last epoch
SETTINGS = dict(imgsz=96, epochs=3, batch=2, seed=3, hyp=dict(optimizer='SGD', lr0=.01, nbs=8, mosaic=1., mixup=.3, multi_scale=.3, close_mosaic=1,
                                                             warmup_epochs=1., cache=False))
CHILD = """
import json, os, signal, sys
from livestock_nb import resume
from livestock_nb.train import train_model
data, out, mirror, kill, settings = sys.argv[1:]
seen, first, real = 0, None, resume.ResumableTraining.preprocess_batch
def preprocess_batch(self, batch):
    global seen, first
    if first is None: first = self.epoch*len(self.train_loader)
    if int(kill) < 0: print(first+seen, flush=True)  # the number of the batch, from 0
    seen += 1
    if seen == int(kill): os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batch)
resume.ResumableTraining.preprocess_batch = preprocess_batch
train_model(data, out, device='cpu', mirror=mirror, **json.loads(settings))
"""


def child(data:Path, out:Path, mirror:Path, settings:dict, kill:int=0, told:bool=False) -> subprocess.Popen:
    "A training in a process of its own, which kills itself at the start of batch number `kill`, from 1; `told` has it print every batch's number."
    quiet_ultralytics()  # sets the number of threads for the child as well
    words = [sys.executable, '-c', CHILD, *map(str, (data, out, mirror, -1 if told else kill)), json.dumps(settings)]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE if told else None, cwd=out.parent, text=True)


def final_state(mirror:Path) -> dict:
    "The last epoch's state of a finished training."
    return torch.load(sorted(mirror.glob('*.pt'))[-1], weights_only=True)


def assert_equal(a:object, b:object, where:str='state') -> None:
    "Every tensor, number and text of two states."
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor): assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for k in a: assert_equal(a[k], b[k], f'{where}/{k}')
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)): assert_equal(x, y, f'{where}/{i}')
    else: assert a == b or a != a, where


def assert_same_training(home:Path, one:str, two:str) -> None:
    "Delivered bytes, and the final state but for ultralytics' own checkpoint files, which hold the time and the place."
    assert files(home/one) == files(home/two) and sorted(files(home/one)) == ['args.yaml', 'best.pt', 'results.csv']
    a, b = (final_state(home/f'{n}_mirror') for n in (one, two))
    assert_equal(*({k: v for k, v in s.items() if k not in ('best', 'last')} for s in (a, b)))


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    "A dataset and a training that nothing disturbs."
    home = tmp_path_factory.mktemp('resume')
    make_dataset(home/'data', count=12)
    train_model(home/'data', home/'calm', device='cpu', mirror=home/'calm_mirror', **SETTINGS)
    return home


# ---- a killed training
def test_killed_in_mid_epoch(home):
    "Killed in the second and in the third epoch; the newest checkpoint is cut off in both folders, so the second epoch is done once more."
    for kill in (8, 8):  # of 5 batches an epoch: the second life begins with the second epoch
        assert child(home/'data', home/'killed', home/'killed_mirror', SETTINGS, kill).wait(60) == -signal.SIGKILL
    assert not (home/'killed'/'best.pt').exists()
    for folder in (home/'killed'/'work', home/'killed_mirror'):
        newest, older = folder.glob('*-00001.pt'), folder.glob('*-00000.pt')
        for path in newest: path.write_bytes(path.read_bytes()[:-1000])
        [older] = [torch.load(p, weights_only=True) for p in older]
        assert older['since'] and any(g is not None for g in older['grads']), 'the settings leave gradients waiting at the end of an epoch'
    (home/'killed'/'work'/'weights'/'last.pt').write_bytes(b'')
    train_model(home/'data', home/'killed', device='cpu', mirror=home/'killed_mirror', **SETTINGS)
    assert_same_training(home, 'calm', 'killed')


def test_finished_training_comes_from_the_mirror(home, monkeypatch):
    "The machine is gone after the last epoch: nothing is trained again."
    monkeypatch.setattr('livestock_nb.train.train_once', lambda *args: 1/0)
    train_model(home/'data', home/'moved', device='cpu', mirror=home/'calm_mirror', **SETTINGS)
    assert files(home/'moved') == files(home/'calm')
    with pytest.raises(ZeroDivisionError):
        train_model(home/'data', home/'other', device='cpu', mirror=home/'calm_mirror', **SETTINGS | dict(seed=4))


def test_the_best_epoch_outlives_the_session(tmp_path, monkeypatch):
    "The first epoch is the best one; the training ends in the third and goes on in another place, from the mirror alone."
    real = ResumableTraining.preprocess_batch

    def validate(self):
        score = 1/(self.epoch+1)
        self.best_fitness = max(score, self.best_fitness or 0)
        return {}, score

    def preprocess_batch(self, batch):
        if self.epoch == 2 and 'torn' in str(self.save_dir): raise KeyboardInterrupt
        return real(self, batch)
    monkeypatch.setattr(TrainingSteps, 'validate', validate)
    monkeypatch.setattr(ResumableTraining, 'preprocess_batch', preprocess_batch)
    (tmp_path/'tiny.yaml').write_text(TINY)
    data, settings = make_dataset(tmp_path/'data'), dict(weights=tmp_path/'tiny.yaml', imgsz=64, epochs=3, batch=2, device='cpu')
    train_model(data, tmp_path/'calm', **settings)
    with pytest.raises(KeyboardInterrupt): train_model(data, tmp_path/'torn', mirror=tmp_path/'mirror', **settings)
    state = final_state(tmp_path/'mirror')
    assert state['epoch'] == 1 and state['stopper_epoch'] == 1 and not torch.equal(state['best'], state['last'])
    train_model(data, tmp_path/'new', mirror=tmp_path/'mirror', **settings)
    assert files(tmp_path/'new') == files(tmp_path/'calm')


def test_memory_runs_out(tmp_path, monkeypatch, capsys):
    "In the middle of the second epoch: it is done again with half the batch, from the first one's weights."
    real, seen = ResumableTraining.preprocess_batch, []

    def preprocess_batch(self, batch):
        seen.append((self.epoch, len(batch['img'])))
        if self.epoch == 1 and len(batch['img']) == 4: raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return real(self, batch)
    monkeypatch.setattr(ResumableTraining, 'preprocess_batch', preprocess_batch)
    data = make_dataset(tmp_path/'data', count=10)
    (tmp_path/'tiny.yaml').write_text(TINY)
    settings = dict(weights=tmp_path/'tiny.yaml', imgsz=64, epochs=2, batch=4, device='cpu', validate=False)
    train_model(data, tmp_path/'out', mirror=tmp_path/'mirror', **settings)
    assert seen == [(0, 4), (0, 4), (1, 4), *[(1, 2)]*4]
    assert 'half' not in capsys.readouterr().err and yaml.safe_load((tmp_path/'out'/'args.yaml').read_text())['batch'] == 2
    assert pd.read_csv(tmp_path/'out'/'results.csv').epoch.tolist() == [1, 2]
    assert final_state(tmp_path/'mirror')['batch'] == 2


def test_no_memory_for_one_image(tmp_path, monkeypatch):
    def preprocess_batch(self, batch): raise RuntimeError('DefaultCPUAllocator: can\'t allocate memory')
    monkeypatch.setattr(ResumableTraining, 'preprocess_batch', preprocess_batch)
    with pytest.raises(InputError, match='96 px'):
        train_model(make_dataset(tmp_path/'data'), tmp_path/'out', imgsz=96, epochs=1, batch=2, device='cpu')


@pytest.mark.parametrize(('error', 'is_memory'), [
    (RuntimeError('CUDA out of memory.'), True), (RuntimeError('MPS backend out of memory'), True), (MemoryError(), True),
    (RuntimeError('CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate'), True), (RuntimeError('size mismatch'), False), (ValueError(), False)])
def test_signs_of_memory(error, is_memory): assert out_of_memory(error) is is_memory


def test_albumentations_is_seeded_where_it_is_installed():
    "Its random numbers are its own; and closing mosaic makes new transforms in mid-epoch."
    quiet_ultralytics()
    said = []
    inner = SimpleNamespace(set_random_seed=said.append)
    loader = SimpleNamespace(generator=torch.Generator(), dataset=SimpleNamespace(
        transforms=SimpleNamespace(transforms=[SimpleNamespace(), SimpleNamespace(transform=None), SimpleNamespace(transform=inner)])))
    seed_epoch(SimpleNamespace(epoch=1, args=SimpleNamespace(seed=7, deterministic=True), train_loader=loader))
    assert said == [2_000_013]


# ---- the key
def test_key_changes_with_all_that_counts(tmp_path):
    a, b = make_dataset(tmp_path/'a'), make_dataset(tmp_path/'b')
    args = dict(imgsz=64, lr0=.1)
    key = training_key(a, 'yolov5n.yaml', args)
    assert training_key(b, 'yolov5n.yaml', dict(lr0=.1, imgsz=64)) == key, 'neither the place nor the order counts'
    assert training_key(a, 'yolov5s.yaml', args) != key != training_key(a, 'yolov5n.yaml', args | dict(lr0=.2))
    weights = tmp_path/'my.pt'
    weights.write_bytes(b'1')
    before = training_key(a, weights, args)
    weights.write_bytes(b'2')
    assert training_key(a, weights, args) != before
    for name in ('images/0.jpg', 'labels/5.txt', 'train.txt', 'data.yaml'):
        path = b/name
        text = path.read_bytes()
        path.write_bytes(text + b'./images/0.jpg\n' if name == 'train.txt' else text.replace(b'pig', b'hog') if name == 'data.yaml' else text + b' ')
        assert training_key(b, 'yolov5n.yaml', args) != key, name
        path.write_bytes(text)
    assert training_key(b, 'yolov5n.yaml', args) == key


# ---- checkpoint files
def saved(folder:Path, *epochs:int, key:str=KEY) -> list[Path]:
    for e in epochs: save_state(dict(epoch=e, w=torch.arange(5000.)), [folder], key)
    return checkpoints(folder, key)


def test_two_are_kept_and_litter_goes(tmp_path):
    (tmp_path/f'.99.{KEY[:12]}-00007.tmp.pt').write_bytes(b'half')
    (tmp_path/'mine.pt').write_bytes(b'not ours')
    saved(tmp_path, 0, key='b'*64)
    assert [p.name[-8:] for p in saved(tmp_path, *range(4))] == ['00003.pt', '00002.pt']
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f'{KEY[:12]}-0000{i}.pt' for i in (2, 3)), 'b'*12 + '-00000.pt', 'mine.pt']


@pytest.mark.parametrize('harm', [
    lambda b: b[:-1],  # cut off by a byte
    lambda b: b[:len(b)//2],
    lambda b: b'',
    lambda b: b[:9000] + bytes([b[9000] ^ 1]) + b[9001:],  # a flipped bit inside a tensor, which torch.load alone takes
    lambda b: b'\0'*len(b),  # as a disk gives after a power cut
])
def test_a_harmed_checkpoint_falls_back(harm, tmp_path):
    newest, older = saved(tmp_path, 0, 1)
    newest.write_bytes(harm(newest.read_bytes()))
    assert load_state(newest, KEY) is None and newest_state([tmp_path], KEY)['epoch'] == 0
    older.unlink()
    assert newest_state([tmp_path], KEY) is None


def test_another_training_s_checkpoint_is_not_taken(tmp_path):
    path = saved(tmp_path, 0)[0]
    other = KEY[:12] + 'b'*52  # the names are alike, the keys are not
    assert load_state(path, other) is None and newest_state([tmp_path, tmp_path/'missing'], other) is None


def test_no_code_is_read(tmp_path):
    torch.save(dict(key=KEY, epoch=0, w=Path('x')), tmp_path/f'{KEY[:12]}-00000.pt')
    assert newest_state([tmp_path], KEY) is None


def test_the_mirror_helps_and_may_fail(tmp_path, capsys, monkeypatch):
    work, mirror = tmp_path/'work', tmp_path/'mirror'
    for e in range(3): save_state(dict(epoch=e), [work, mirror], KEY)
    assert files(work) == files(mirror) and len(files(mirror)) == 2
    checkpoints(work, KEY)[0].write_bytes(b'')
    assert newest_state([work, mirror], KEY)['epoch'] == 2
    monkeypatch.setattr(resume.shutil, 'copyfile', lambda a, b: (Path(b).write_bytes(Path(a).read_bytes()[:50]), 1)[1])  # as a full Drive does
    before = files(mirror)
    save_state(dict(epoch=3), [work, mirror], KEY)
    assert 'mirror' in capsys.readouterr().err and newest_state([work], KEY)['epoch'] == 3
    assert before.items() <= files(mirror).items(), 'the older ones stay until the new one can be read'


def test_a_full_disk_is_said(tmp_path):
    (tmp_path/'work').write_text('no folder')
    with pytest.raises(InputError, match='make room'): save_state(dict(epoch=0), [tmp_path/'work'], KEY)


# ---- the long form
@LONG
def test_ten_kills_spread_over_a_training(home):
    "From the first batch to the last, each at a random moment after it: reading, training, validating, writing. Nothing finished is lost."
    settings, rng, done = SETTINGS | dict(epochs=8), random.Random(0), []
    train_model(home/'data', home/'quiet', device='cpu', mirror=home/'quiet_mirror', **settings)
    for target in range(0, 40, 4):  # 8 epochs of 5 batches
        process = child(home/'data', home/'killed10', home/'killed10_mirror', settings, told=True)
        for line in process.stdout:
            if int(line) >= target: break
        time.sleep(rng.uniform(0, .4))
        process.kill()
        assert process.wait() == -signal.SIGKILL, 'it was still at work'
        done.append(max([int(p.stem[-5:]) for p in (home/'killed10_mirror').glob('*.pt')], default=-1))
    assert done == sorted(done) and all(d >= t//5-1 for d, t in zip(done, range(0, 40, 4), strict=True)) and len(set(done)) > 5
    assert child(home/'data', home/'killed10', home/'killed10_mirror', settings).wait(600) == 0
    assert_same_training(home, 'quiet', 'killed10')
    quiet, killed = (torch.load(home/n/'best.pt', weights_only=False)['model'].state_dict() for n in ('quiet', 'killed10'))
    assert list(quiet) == list(killed) and all(torch.equal(quiet[k], killed[k]) for k in quiet)


@LONG
@pytest.mark.parametrize('change', [
    dict(hyp=dict(optimizer='AdamW', lr0=.001, cache='ram', nbs=64)), dict(hyp=dict(optimizer='auto', patience=1)), dict(validate=False),
    dict(hyp=dict(optimizer='MuSGD', lr0=.01, freeze=3, cos_lr=True)), dict(weights='yolo26n.yaml'),
    dict(hyp=dict(full=True, background=0., accumulate=3, cls_pw=1., pretrained=False)),
    dict(hyp=read_recipe(ROOT/'configs'/'recipes'/'cpu.yaml') | dict(full=False))],
    ids=['adamw', 'patience', 'valid last', 'musgd', 'end to end', 'ours', 'bf16'])
def test_other_settings(change, home, request):
    name = request.node.callspec.id.replace(' ', '_')
    settings = SETTINGS | change
    train_model(home/'data', home/f'{name}_a', device='cpu', mirror=home/f'{name}_a_mirror', **settings)
    for kill in (2, 9): child(home/'data', home/f'{name}_b', home/f'{name}_b_mirror', settings, kill).wait()
    train_model(home/'data', home/f'{name}_b', device='cpu', mirror=home/f'{name}_b_mirror', **settings)
    assert_same_training(home, f'{name}_a', f'{name}_b')
