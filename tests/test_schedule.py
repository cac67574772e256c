"Rates by hand and beside ultralytics' own, trainings with each schedule, and what is delivered without an average."
import math

import numpy as np
import pandas as pd
import pytest
from test_augment import tiny, train_tiny  # noqa: F401
from test_resume import final_state
from test_train import same, weights_of

from livestock_nb.data import InputError
from livestock_nb.schedule import SCHEDULES, kept_share, plot_rates, rates, using
from livestock_nb.train import lay_recipes


@pytest.mark.parametrize(('kind', 'epochs', 'lrf', 'wanted'), [
    ('linear', 4, .2, [1, .8, .6, .4]),
    ('cosine', 4, 0, [1, (1+math.cos(math.pi/4))/2, .5, (1-math.cos(math.pi/4))/2]),
    ('step', 10, .5, [1]*8 + [.1, .01]),  # lrf does not matter
    ('step', 3, .01, [1, 1, 1]),  # too short for steps
    ('restarts', 7, 0, [1, 1, .5, 1, (1+math.cos(math.pi/4))/2, .5, (1-math.cos(math.pi/4))/2]),  # cycles of 1, 2 and 4
    ('restarts', 1, 0, [1]),
])
def test_rates_by_hand(kind, epochs, lrf, wanted):
    assert rates(kind, epochs, lrf) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize('epochs', [1, 5, 50, 300])
def test_ultralytics_own(epochs):
    from ultralytics.utils.torch_utils import one_cycle
    x = np.arange(epochs)
    assert rates('linear', epochs, .01) == pytest.approx((1-x/epochs)*.99+.01, abs=1e-9)
    assert rates('cosine', epochs, .01) == pytest.approx([one_cycle(1, .01, epochs)(i) for i in x], abs=1e-9)


@pytest.mark.parametrize('cycle', [1, 3, 10])
def test_restarts_are_torch_s_where_sevenths_are_whole(cycle):
    import torch
    optimizer, wanted = torch.optim.SGD([torch.zeros(1)], lr=1.), []
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, cycle, 2, .01)
    for _ in range(7*cycle):
        wanted.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates('restarts', 7*cycle, .01) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize('epochs', range(1, 30))
def test_restarts_end_low(epochs):
    found = rates('restarts', epochs, 0)
    assert len(found) == epochs and (epochs < 4 or found[-1] < .51) and (epochs < 12 or found[-1] <= .05)


@pytest.mark.parametrize('kind', SCHEDULES)
def test_never_above_the_first_nor_below_the_last(kind):
    assert all(.01 <= r <= 1 for r in rates(kind, 30, .01))


def test_plot(): assert len(plot_rates(10).axes[0].lines) >= len(SCHEDULES)


def test_kept_share():
    import torch
    from ultralytics.utils.torch_utils import ModelEMA
    ema = ModelEMA(torch.nn.Linear(1, 1))
    assert [kept_share(n) for n in (1, 100, 10_000)] == [ema.decay(n) for n in (1, 100, 10_000)]


# ---- trainings
def test_schedules_reach_the_optimizer(tiny):  # noqa: F811
    "Rates of the table of results are those of the schedule, and ultralytics' own two are bit by bit what cos_lr gives."
    epochs = {f'schedule={k}': n for k, n in zip(SCHEDULES, (3, 3, 5, 5), strict=True)} | {'cos_lr=true': 3, 'cos_lr=false': 3}
    out = {c: train_tiny(tiny, c.replace('=', '_'), c, epochs=n, validate=False) for c, n in epochs.items()}
    for kind in SCHEDULES:
        seen = pd.read_csv(out[f'schedule={kind}'].with_name('results.csv'))['lr/pg0']
        assert seen.tolist() == pytest.approx([.01*r for r in rates(kind, len(seen))], abs=1e-6)
    weights = {c: weights_of(p) for c, p in out.items()}
    assert same(weights['schedule=linear'], weights['cos_lr=false']) and same(weights['schedule=cosine'], weights['cos_lr=true'])
    for a, b in (('linear', 'cosine'), ('step', 'restarts')): assert not same(weights[f'schedule={a}'], weights[f'schedule={b}'])


def test_warm_up_stays(tiny):  # noqa: F811
    "Half of the second epoch's rate, and that is the schedule's own, when the warm-up is half over."
    out = train_tiny(tiny, 'warm', 'schedule=step warmup_epochs=2 warmup_bias_lr=0', epochs=5)
    seen = pd.read_csv(out.with_name('results.csv'))['lr/pg0'].tolist()
    assert seen[0] < seen[1] < seen[2] == pytest.approx(.01) and seen[4] == pytest.approx(.01*rates('step', 5)[4])


@pytest.mark.parametrize(('ema', 'equal'), [('off', True), ('0', True), ('.5', False), ('true', False)])
def test_average(ema, equal, tiny):  # noqa: F811
    mirror = tiny/f'ema_{ema}'
    out = train_tiny(tiny, 'ema', f'ema={ema}', mirror=mirror)
    state = final_state(mirror)
    assert same(*({k: v for k, v in state[s].items() if v.is_floating_point()} for s in ('model', 'ema'))) is equal
    assert same(weights_of(out), weights_of(tiny/'plain'/'best.pt')) is (ema == 'true')


# ---- refusals
@pytest.mark.parametrize(('given', 'says'), [
    (dict(schedule='stairs'), 'stairs'), (dict(ema=1.), 'ema is 1.0'), (dict(ema=-1), 'ema is -1'), (dict(ema='of'), "ema is 'of'")])
def test_refused(given, says):
    with pytest.raises(InputError, match=says), using(**given): pass


@pytest.mark.parametrize(('changes', 'says'), [('cos_lr=true schedule=step', 'two schedules'), ('ema=of', 'ema'), ('shedule=step', 'schedule')])
def test_refused_as_typed(changes, says):
    with pytest.raises(InputError, match=says): lay_recipes({}, changes=changes)
