"Compression: each way equals a hand-computed or independent slow case, is held through a training, and gives weights that load in a fresh process."
import subprocess
import sys
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
from test_edge import home  # noqa: F401  a detector with random weights, and a split of four images
from torch import nn
from ultralytics.nn.modules import Conv

from livestock_nb.artefacts import Recipe, calibration_files, make_artefact, open_artefact
from livestock_nb.compress import (
    RoundedConv,
    check_answers,
    convolutions,
    distil_answers,
    factorise,
    factors,
    filter_steps,
    input_ranges,
    leading,
    on_grid,
    prune_magnitude,
    round_layers,
    save_network,
    soft_loss,
    taught_by,
    thin,
    thin_layers,
    train_rounded,
    tune_inside,
    unround_layers,
    zero_share,
    zero_weights,
)
from livestock_nb.data import InputError
from livestock_nb.train import load_model

SHORT = dict(imgsz=64, epochs=1, batch=2, device='cpu')


@pytest.fixture(scope='module')
def made(home, tmp_path_factory):  # noqa: F811
    "What each way makes of a detector in an epoch, in folders of their own."
    root, split = tmp_path_factory.mktemp('made'), home/'split'
    return dict(
        zeros=prune_magnitude(home/'random.pt', split, root/'zeros', .5, **SHORT), thin=factorise(home/'random.pt', split, root/'thin', .6, **SHORT),
        taught=distil_answers(home/'random.pt', home/'random.pt', split, root/'taught', **SHORT),
        rounded=train_rounded(home/'random.pt', split, root/'rounded', images=2, **SHORT))


def test_what_is_made_loads_in_a_fresh_process(made):
    code = 'import sys, torch; from livestock_nb.train import load_model\n'
    code += 'for f in sys.argv[1:]: m = load_model(f); print(list(m.names.values()), *m.model.eval()(torch.zeros(1, 3, 64, 64))[0].shape)'
    done = subprocess.run([sys.executable, '-c', code, *map(str, made.values())], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['cow', 'pig'] 1 6 80"]*4


# ---- zeros

def test_zeros_are_the_smallest_of_all_layers_together(home):  # noqa: F811
    net = load_model(home/'random.pt').model.float()
    before = {k: m.weight.detach().clone() for k, m in convolutions(net).items()}
    answers = net.model[-1].cv3[0][-1].weight.clone()
    zero_weights(net, .4)
    everything = np.sort(np.concatenate([w.abs().flatten().numpy() for w in before.values()]))
    edge = everything[round(.4*len(everything))]
    for k, m in convolutions(net).items():
        assert (m.weight[before[k].abs() < edge] == 0).all() and not hasattr(m, 'weight_orig'), k
        assert torch.equal(m.weight[before[k].abs() > edge], before[k][before[k].abs() > edge]), k
    assert zero_share(net) == pytest.approx(.4, abs=1e-4) and torch.equal(net.model[-1].cv3[0][-1].weight, answers)


@pytest.mark.parametrize('share', [0, 1, -1, 2])
def test_a_share_of_zeros_that_is_none_is_refused(home, share):  # noqa: F811
    with pytest.raises(InputError, match=f'is {share}: give one above 0 and below 1'): zero_weights(load_model(home/'random.pt').model, share)


def test_zeros_stay_zero_through_a_training_and_the_others_move(home, made):  # noqa: F811
    best = made['zeros']
    cut, tuned = (convolutions(load_model(p).model) for p in (best.parent/'cut.pt', best))
    for k in cut: assert (tuned[k].weight[cut[k].weight == 0] == 0).all(), k
    assert any((tuned[k].weight != cut[k].weight).any() for k in cut)
    assert zero_share(load_model(best).model) >= .5
    stamp = best.stat().st_mtime_ns
    assert prune_magnitude(home/'random.pt', home/'split', best.parent, .5, **SHORT).stat().st_mtime_ns == stamp, 'the same call finds its result'


@pytest.mark.parametrize('about', ['zeros 0.5', 'zeros 0.6'])
def test_another_setting_begins_anew(tmp_path, monkeypatch, about):
    monkeypatch.setattr('livestock_nb.compress.tune_weights', lambda weights, data, out, **_: sorted(p.name for p in out.iterdir()))
    (tmp_path/'work').mkdir()
    for name, text in {'abc.key': '', 'about.txt': 'zeros 0.5'}.items(): (tmp_path/name).write_text(text)
    left = tune_inside(nullcontext(), about, '', '', tmp_path)
    assert left == (['abc.key', 'about.txt', 'work'] if about == 'zeros 0.5' else ['about.txt'])


# ---- thin factors

def slow_tucker(w: np.ndarray, out: int, into: int) -> np.ndarray:
    "Outputs and inputs projected on their leading eigenvectors, written out."
    def basis(m, r): return np.linalg.eigh(m @ m.T)[1][:, ::-1][:, :r]
    o, i = basis(w.reshape(len(w), -1), out), basis(w.transpose(1, 0, 2, 3).reshape(w.shape[1], -1), into)
    kept = np.zeros_like(w)
    for y in range(w.shape[2]):
        for x in range(w.shape[3]): kept[:, :, y, x] = o @ o.T @ w[:, :, y, x] @ i @ i.T
    return kept


@pytest.mark.parametrize('shape, keep', [((8, 6, 3, 3), .6), ((6, 8, 1, 1), .6), ((5, 4, 1, 3), .9), ((4, 4, 3, 3), .9999999)])
def test_factors_equal_the_slow_projection_and_keep_what_they_promise(shape, keep):
    torch.manual_seed(1)
    weight = torch.randn(shape)
    parts = factors(weight, keep)
    if len(parts) == 2: made = torch.einsum('or,ri->oi', parts[1][..., 0, 0], parts[0][..., 0, 0])[..., None, None]
    else: made = torch.einsum('or,rskl,si->oikl', parts[2][..., 0, 0], parts[1], parts[0][..., 0, 0])
    into = shape[1] if len(parts) == 2 else parts[0].shape[0]
    assert np.allclose(made.numpy(), slow_tucker(weight.double().numpy(), parts[-1].shape[1], into), atol=1e-5)
    sides = len(parts) - 1
    assert ((made - weight)**2).sum() <= sides*(1 - keep)*(weight**2).sum() + 1e-6


def test_leading_vectors_by_hand():
    "Of a matrix with singular values 2 and 1, the first holds 4/5 of the squares."
    m = torch.tensor([[2., 0], [0, 1]])
    assert leading(m, .8).abs().tolist() == [[1], [0]] and leading(m, .81).shape == (2, 2)


def test_a_thin_layer_of_low_rank_answers_as_before_with_its_stride_and_norm():
    torch.manual_seed(2)
    conv = Conv(16, 16, 3, 2).eval()
    conv.conv.weight.data = torch.einsum('or,ri,rkl->oikl', torch.randn(16, 2), torch.randn(2, 16), torch.randn(2, 3, 3))
    conv.bn.running_mean.normal_()
    conv.i, conv.f = 3, -1
    x = torch.randn(2, 16, 9, 9)
    with torch.no_grad(): before = conv(x)
    size = sum(p.numel() for p in conv.parameters())
    made = thin(conv, .99999)
    with torch.no_grad(): assert torch.allclose(made(x), before, atol=1e-4)
    assert [tuple(m.weight.shape[:2]) for m in (made[0], made[1], made[2].conv)] == [(2, 16), (2, 2), (16, 2)] and (made.i, made.f) == (3, -1)
    assert sum(p.numel() for p in made.parameters()) < size
    assert thin(Conv(4, 4, 1), .9999) is None, 'full rank would be larger'


def test_a_factorised_detector_is_smaller_and_fuses(home, made):  # noqa: F811
    whole, net = load_model(home/'random.pt').model, load_model(made['thin']).model
    assert sum(p.numel() for p in net.parameters()) < .8*sum(p.numel() for p in whole.parameters())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain = net.float().eval()(x)[0]
        assert torch.allclose(net.fuse(verbose=False)(x)[0], plain, atol=1e-2)


def test_nothing_that_gets_smaller_is_said(home):  # noqa: F811
    with pytest.raises(InputError, match='No convolution of a detector of Conv, C3, .* gets smaller when 0.99999'):
        thin_layers(load_model(home/'random.pt').model.float(), .99999)
    with pytest.raises(InputError, match='is 1.5: give one above 0'): thin_layers(load_model(home/'random.pt').model, 1.5)


# ---- a teacher's answers

def test_the_soft_loss_by_hand_with_its_gradient():
    "Logits 0 and 4 at T = 4: p = σ(1) = .731, q = .5, KL = Σ p ln(p/q) = .1109, times 16; its slope is T(q - p) = -.924."
    s = torch.tensor([0., 4.], requires_grad=True)
    loss = soft_loss(s, torch.tensor([4., 4.]), 4.)
    p = 1/(1 + np.exp(-1))
    assert loss[0].item() == pytest.approx(16*(p*np.log(p/.5) + (1-p)*np.log((1-p)/.5)), abs=1e-5) and loss[1].item() == pytest.approx(0, abs=1e-6)
    loss.sum().backward()
    assert s.grad.tolist() == pytest.approx([4*(.5 - p), 0], abs=1e-5)


def test_the_soft_loss_has_the_gradient_that_numbers_give():
    torch.manual_seed(0)
    s, t = torch.randn(5, dtype=torch.double, requires_grad=True), torch.randn(5, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda v: soft_loss(v, t, 3.), s)


def batch_of(count: int = 2) -> dict:
    torch.manual_seed(3)
    return dict(img=torch.rand(count, 3, 64, 64), batch_idx=torch.arange(count), cls=torch.zeros(count, 1), bboxes=torch.full((count, 4), .5))


def loss_of(path) -> torch.Tensor:
    from ultralytics.cfg import get_cfg
    net = load_model(path).model.float()
    net.args = get_cfg()
    net.eval()
    batch = batch_of()
    net.criterion = net.init_criterion()
    return net.loss(batch, net(batch['img']))[0]/2


def test_a_teacher_changes_the_class_loss_by_its_part_alone(home):  # noqa: F811
    plain = loss_of(home/'random.pt')
    with taught_by(home/'random.pt', 4., .7): own = loss_of(home/'random.pt')
    assert own.tolist() == pytest.approx([plain[0].item(), .3*plain[1].item(), plain[2].item()], rel=1e-4), 'of itself it learns nothing'
    other = load_model(home/'random.pt')
    with torch.no_grad(): other.model.model[-1].cv3[0][-1].bias += 2
    save_network(other, home/'other.pt')
    with taught_by(home/'other.pt', 4., .7): taught = loss_of(home/'random.pt')
    answer = lambda k: load_model(home/f'{k}.pt').model.float().eval()(batch_of()['img'])[1]['scores'].detach().double()
    student, teacher = answer('random'), answer('other')
    p, q = 1/(1 + np.exp(-teacher.numpy()/4)), 1/(1 + np.exp(-student.numpy()/4))
    soft = 16*(p*np.log(p/q) + (1-p)*np.log((1-p)/(1-q))).sum()/max((1/(1 + np.exp(-teacher.numpy()))).sum(), 1)
    assert taught[1].item() == pytest.approx(.3*plain[1].item() + .7*.5*soft, rel=1e-3)
    with taught_by(home/'other.pt'), torch.no_grad(): assert torch.equal(loss_of(home/'random.pt'), plain.detach()), 'validation stays as it is'
    assert torch.equal(loss_of(home/'random.pt'), plain), 'and so does everything outside'


def test_what_cannot_be_taught_is_refused(home, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match='temperature 0, weight 0.7'): distil_answers(home/'random.pt', home/'random.pt', home/'split', tmp_path, 0)
    with pytest.raises(InputError, match='cannot teach'): check_answers('yolov5n.yaml', 'yolov5n6.yaml')
    with pytest.raises(InputError, match='a head of .*answers are taught between'): check_answers('nanodet-m', 'nanodet-m')


# ---- eight bits

def test_the_grid_by_hand():
    w = torch.tensor([1.27, .005, -.016, .1249]).view(1, 1, 2, 2)
    assert filter_steps(w).item() == pytest.approx(.01) and on_grid(w).flatten().tolist() == pytest.approx([1.27, 0, -.02, .12], abs=1e-6)


def test_a_rounded_convolution_equals_integers_and_passes_gradients():
    torch.manual_seed(4)
    old, x = nn.Conv2d(3, 4, 3, 2, 1, bias=False), torch.rand(1, 3, 7, 7, requires_grad=True)
    new = RoundedConv(old, -.2, .8)
    step, zero = 1/255, 51
    q = np.clip(np.round(x.detach().numpy()/step) + zero, 0, 255) - zero
    s = np.abs(old.weight.detach().numpy()).max((1, 2, 3))/127
    k = np.round(old.weight.detach().numpy()/s[:, None, None, None])
    wanted = nn.functional.conv2d(torch.tensor(q), torch.tensor(k), stride=2, padding=1).numpy()*step*s[:, None, None]
    found = new(x)
    assert np.allclose(found.detach().numpy(), wanted, atol=2e-3) and not np.allclose(old(x).detach().numpy(), wanted, atol=2e-3)
    found.sum().backward()
    assert (new.weight.grad != 0).any() and (x.grad[x > .81] == 0).all() and (x.grad[x < .79] != 0).any(), 'beyond the range there is no slope'
    assert torch.equal(new.plain().weight, on_grid(old.weight.detach()))


def test_ranges_are_those_of_the_inputs(home):  # noqa: F811
    net = load_model(home/'random.pt').model.float()
    found = input_ranges(net, [torch.full((1, 3, 64, 64), .25), torch.full((1, 3, 64, 64), .75)])
    first = next(iter(convolutions(net)))
    assert found[first] == (.5, .5) and set(found) == set(convolutions(net, answering=True)) and not any(m._forward_pre_hooks for m in net.modules())
    round_layers(net, [torch.rand(1, 3, 64, 64)])
    assert sum(isinstance(m, RoundedConv) for m in net.modules()) == len(found)
    unround_layers(net)
    assert not any(isinstance(m, RoundedConv) for m in net.modules())


def test_weights_trained_with_eight_bits_lie_on_a_grid_and_make_an_artefact(home, made, tmp_path):  # noqa: F811
    best = made['rounded']
    before = convolutions(load_model(home/'random.pt').model, answering=True)
    for k, m in convolutions(load_model(best).model, answering=True).items():
        steps = m.weight/filter_steps(m.weight)[:, None, None, None]
        assert (steps - steps.round()).abs().max() < .13, f'{k}: half precision moves a weight by at most 127/2048 of a step, twice'
    assert any((m.weight != before[k].weight).any() for k, m in convolutions(load_model(best).model, answering=True).items())
    folder = make_artefact(Recipe(best, 'openvino-int8', 64, (64, 64), calibration_files(home/'split', 2)), tmp_path/'int8')
    picture = cv2.imread(str(home/'split/images/0.jpg'))[:64, :64, ::-1].transpose(2, 0, 1)[None].astype(np.float32)/255
    assert open_artefact(folder)(picture).shape == (1, 6, 80)
