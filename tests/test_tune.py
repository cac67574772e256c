"The samplers against a slow transcript, kills, failed and pruned trials, budgets, the early end, and the stage's own pieces."
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import optuna
import pandas as pd
import pytest
import yaml

from livestock_nb import tune
from livestock_nb.data import InputError, box_table
from livestock_nb.samplers import (
    SAMPLERS,
    GASampler,
    ask,
    constrain,
    distributions,
    expected_gain,
    finished_trials,
    from_unit,
    grid_points,
    paired_noise,
    read_space,
    to_unit,
    vary,
)
from livestock_nb.train import read_hyp
from livestock_nb.tune import (
    compare_best,
    fill_start,
    group_rows,
    importance,
    plot_history,
    plot_importance,
    plot_parallel,
    plot_slices,
    read_budget,
    read_groups,
    read_objective,
    save_best,
    score_found,
    search,
    start_hyp,
    training_trial,
    used,
    valid_boxes,
    why_stop,
)

ROOT = Path(__file__).parents[1]
GROUPS = ["lr", "loss", "hsv", "geometry", "mix"]
START = dict(lr=dict(lr0=.01, lrf=.01, momentum=.937), hsv=dict(hsv_h=.015, hsv_s=.7, hsv_v=.4))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch): monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("cache")))


def made_up(hyp: dict, trial=None) -> dict:
    "A smooth fitness with one top, whatever the names."
    return dict(fitness=round(sum(math.exp(-(math.log10(v+1e-6)+1.5)**2) for v in hyp.values()), 6))


def start_of(group: str) -> dict: return fill_start({}, pd.concat(read_groups(group).values()))


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a.drop(columns="seconds"), b.drop(columns="seconds"), check_exact=True)


def transcript(space: dict, start: dict, generations: int, seed: int) -> list[dict]:
    "The reference's formula, one number at a time, from the same draws. `space` has (gain, low, high) by name."
    done = []  # (fitness, values)
    for g in range(generations):
        rng, names = np.random.default_rng((seed, g)), list(space)
        values = dict(start)
        if g:
            order = sorted(range(len(done)), key=lambda i: (-done[i][0], i))[:5]
            worst = min(done[i][0] for i in order)
            weights = [done[i][0]-worst+1e-6 for i in order]
            ball, at = rng.random()*sum(weights), 0
            while at < len(weights)-1 and ball >= sum(weights[:at+1]): at += 1
            parent = done[order[at]][1]
            factors = [1.]*len(names)
            while all(f == 1 for f in factors):
                coins = [rng.random() for _ in names]
                bells = [rng.standard_normal() for _ in names]
                one = rng.random()
                for i, k in enumerate(names): factors[i] = min(max(1 + (space[k][0]*bells[i]*one*.2 if coins[i] < .8 else 0), .3), 3)
            values = {k: parent[k]*f for k, f in zip(names, factors, strict=True)}
        for k, (_, low, high) in space.items():
            values[k] = round(low if values[k] < low else high if values[k] > high else values[k], 5)
        done.append((made_up(values)["fitness"], values))
    return [v for _, v in done]


REFERENCE = dict(lr=dict(lr0=(1, 1e-5, 1e-1), lrf=(1, .01, 1), momentum=(.3, .6, .98)),
                 hsv=dict(hsv_h=(1, 0, .1), hsv_s=(1, 0, .9), hsv_v=(1, 0, .9)))


@pytest.mark.parametrize("group", ["lr", "hsv"])  # hsv: the edited original ends in an IndexError (trap 13)
@pytest.mark.parametrize("seed", [0, 7])
def test_ga_equals_transcript(group, seed, tmp_path):
    trials, _ = search(made_up, group, START[group], tmp_path, "50 trials", "ga", seed=seed)
    want = pd.DataFrame(transcript(REFERENCE[group], START[group], 50, seed))
    pd.testing.assert_frame_equal(trials[list(START[group])], want, check_exact=True)
    assert trials.fitness.max() > trials.fitness[0] and trials[list(START[group])].drop_duplicates().shape[0] > 40


def try_all(sampler, space, start, trials, seed=0) -> pd.DataFrame:
    study = optuna.create_study(direction="maximize")
    for _ in range(trials):
        trial = ask(study, sampler, space, start, seed)
        study.tell(trial, made_up(trial.params)["fitness"])
    return finished_trials(study, space)


@pytest.mark.parametrize("group", [*GROUPS, "lr+hsv+loss"])
@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s != "grid"])
def test_every_sampler_stays_in_every_space(sampler, group):
    space = read_space(group)
    trials = try_all(sampler, space, start_of(group), 13)
    for s in space.itertuples(): assert trials[s.Index].between(s.low, s.high).all()
    assert trials.iloc[0][list(space.index)].to_dict() == constrain(start_of(group), space), "trial 0 is the known-good start"
    assert trials[list(space.index)].drop_duplicates().shape[0] > 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_and_results_same_suggestions(sampler):
    space, n = read_space("lr"), 5 if sampler == "grid" else 14
    a, b, other = (try_all(sampler, space, START["lr"], n, seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert sampler == "grid" or not a.equals(other)


def test_population():
    "Random first generation; then ten children of each of the ten best of all before."
    space, names = read_space("lr"), ["lr0", "lrf", "momentum"]
    trials = try_all("population", space, START["lr"], 210)
    x = to_unit(trials.loc[1:99], space)
    assert (x.min(axis=0) < .1).all() and (x.max(axis=0) > .9).all(), "spread over the space"
    for born in (100, 200):
        top = trials.loc[:born-1].sort_values("fitness", ascending=False, kind="stable").head(10)
        for n in (0, 5, 9, *([10, 37, 99] if born == 100 else [])):
            child = vary(top.iloc[n//10], space, np.random.default_rng((0, born+n)))
            assert trials.loc[born+n, names].to_dict() == child


def test_population_of_few_survivors():
    "With fewer finished trials than parents those there are have children; with none the start has."
    space = read_space("lr")
    for finished in (0, 1):
        study = optuna.create_study(direction="maximize", sampler=GASampler(space, START["lr"], parents=2, children=2))
        for i in range(8):
            trial = study.ask(distributions(space))
            study.tell(trial, **dict(values=.5) if i < finished else dict(state=optuna.trial.TrialState.FAIL))
        assert all(0 < t.params["lr0"] <= .1 for t in study.trials)


def test_grid(tmp_path):
    trials, ended = search(made_up, "lr", START["lr"], tmp_path, "99 trials", "grid")
    assert trials.lr0.tolist() == [.01, .001, .005, .01, .05] and trials.momentum.eq(.937).all()  # the start, then the guide's values
    assert ended == dict(lr="every point of the grid was tried")
    both = (tmp_path/"own.yaml")
    both.write_text("box: {low: 1, high: 9, grid: [2, 4]}\ncls: {low: .1, high: 1, grid: [.2, .5]}\ndfl: {low: 1, high: 2}\n")
    assert [list(p.values()) for p in grid_points(read_space(str(both)), dict(dfl=1.5))] == [[2, .2, 1.5], [2, .5, 1.5], [4, .2, 1.5], [4, .5, 1.5]]
    with pytest.raises(InputError, match="grid: "): search(made_up, "hsv", START["hsv"], tmp_path, "9 trials", "grid")


def test_unit_cube_and_back():
    space = read_space("lr+hsv")
    x = np.random.default_rng(0).random((20, 6))
    assert np.allclose(to_unit(from_unit(x, space), space), x)
    assert np.allclose(from_unit(np.full((1, 6), .5), space).lr0, .001)  # the middle of 1e-5 … 1e-1 where ratios count


@pytest.mark.parametrize(("text", "said"), [
    ("lr0: {low: 1, high: 0}", "low must be below high"), ("lr0: {low: 0, high: 1, log: true}", "with log low above 0"),
    ("lr0: [0, 1]", "write e.g."), ("lr0: {low: 0, high: 1, gian: 2}", "write e.g."), ("lr0: {low: a, high: 1}", "numbers"),
    ("- lr0", "not a list of"), ("lr0: {low: 0, high: .inf}", "low must be below high"),
    ("lr0: {low: 0, high: 1, grid: [2]}", "outside its bounds"), ("lr0: {low: 0", "cannot be read")])
def test_bad_spaces(text, said, tmp_path):
    (tmp_path/"own.yaml").write_text(text)
    with pytest.raises(InputError, match=said): read_space(str(tmp_path/"own.yaml"))


@pytest.mark.parametrize(("args", "said"), [
    (dict(group="colour"), "geometry, hsv, loss, lr, mix"), (dict(group="lr, lr"), "each once"), (dict(group=" "), "name one"),
    (dict(sampler="bayes"), "gp, tpe"),
    (dict(prune="soon"), "none, median, halving"), (dict(budget="many"), "30 trials"), (dict(budget="0 trials"), "30 trials")])
def test_what_is_misspelt_is_said_before_anything_is_tried(args, said, tmp_path):
    def evaluate(hyp, trial): raise AssertionError
    with pytest.raises(InputError, match=said): search(evaluate, **dict(group="lr") | dict(start=START["lr"], out=tmp_path) | args)


def test_name_that_ultralytics_has_not(tmp_path):
    (tmp_path/"own.yaml").write_text("obj: {low: 0, high: 1}")
    with pytest.raises(InputError, match="obj"): fill_start({}, read_space(str(tmp_path/"own.yaml")))


def test_start_is_clipped():
    assert constrain(dict(lr0=.5, lrf=.001, momentum=.9373333), read_space("lr")) == dict(lr0=.1, lrf=.01, momentum=.93733)


@pytest.mark.parametrize("sampler", ["ga", "gp", "tpe"])
@pytest.mark.parametrize("prune", ["none", "median", "halving"])
def test_interrupted_search_goes_on(sampler, prune, tmp_path):
    "An interrupt inside trial k loses that trial only: the rest is as if nothing had happened, with what pruners remember."
    tried = []

    def evaluate(hyp, trial, kill=None):
        tried.append(trial.number)
        for epoch in (1, 2, 3, 4):
            trial.report(made_up(hyp)["fitness"]*epoch, epoch)
            if (trial.number, epoch) == kill: raise KeyboardInterrupt
            if trial.should_prune(): raise optuna.TrialPruned
        return made_up(hyp)
    args = dict(group="lr", start=START["lr"], budget="14 trials", sampler=sampler, prune=prune)
    whole, _ = search(evaluate, **args, out=tmp_path/"a")
    tried.clear()
    for kill in [(0, 2), (3, 1), (3, 1), (12, 1), None]:
        try: again, _ = search(lambda hyp, trial, kill=kill: evaluate(hyp, trial, kill), **args, out=tmp_path/"b")
        except KeyboardInterrupt: continue
    same(whole, again)
    assert sorted(tried) == sorted([*range(14), 0, 3, 3, 12]), "no finished trial runs again"
    assert prune == "none" or whole.state.eq("pruned").any()


KILLED = """
import sys, time
from pathlib import Path
from livestock_nb.tune import search
out, sampler, nap = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def evaluate(hyp, trial):
    with (out/'begun.txt').open('a') as f: f.write(f'{trial.number}\\n')
    time.sleep(nap)
    value = .9 - 10*(hyp['lr0']-.03)**2 - (hyp['momentum']-.8)**2
    trial.set_user_attr('epochs', 2)
    return dict(fitness=value, draws=[value-.1, value, value+.1])
search(evaluate, 'lr', dict(lr0=.01, lrf=.01, momentum=.937), out, '18 trials', sampler, patience=0)
"""


def begun(out: Path) -> list[int]: return [int(v) for v in (out/"begun.txt").read_text().split()] if (out/"begun.txt").exists() else []


def run_killed(out: Path, sampler: str, kill_at: int | None, wait: float = 0.) -> None:
    "The search in a process of its own; killed `wait` seconds after it has begun its trial number `kill_at`."
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    p = subprocess.Popen([sys.executable, "-c", KILLED, str(out), sampler, ".03"], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if kill_at is not None:
        while p.poll() is None and max(begun(out), default=-1) < kill_at: time.sleep(.002)
        time.sleep(wait)
        p.kill()
        return p.wait()
    assert p.wait() == 0, p.stderr.read()


def kills(out: Path, sampler: str, moments: list[tuple[int, float]]) -> None:
    for name in ("a", "b"): (out/name).mkdir()
    run_killed(out/"a", sampler, None)
    for at, wait in moments:
        run_killed(out/"b", sampler, at, wait)
        kept = (out/"b"/"study.journal").exists()
        assert kept or at == 0
    run_killed(out/"b", sampler, None)
    rows = {}
    for name in ("a", "b"):
        with tune.open_journal(out/name) as (storage, _):
            study, = optuna.get_all_study_summaries(storage)
            rows[name] = tune.trial_rows(optuna.load_study(study_name=study.study_name, storage=storage))
    same(rows["a"], rows["b"])
    assert rows["b"].fitness.idxmax() == rows["a"].fitness.idxmax() and len(rows["b"]) == 18
    assert len(begun(out/"b")) <= 18+len(moments), "each kill costs one trial at most"
    assert set(begun(out/"b")) == set(range(18))


def test_killed_search(tmp_path): kills(tmp_path, "gp", [(3, .01), (13, .035)])


@pytest.mark.skipif(os.environ.get("LIVESTOCK_LONG") != "1", reason="takes a minute: LIVESTOCK_LONG=1 runs it")
@pytest.mark.parametrize("sampler", ["ga", "gp", "tpe"])
def test_killed_search_at_ten_moments(sampler, tmp_path):
    kills(tmp_path, sampler, [(at, .008*i) for i, at in enumerate([0, 1, 3, 5, 8, 10, 11, 13, 15, 17])])


def test_finished_search_tries_nothing(tmp_path):
    whole, _ = search(made_up, "lr", START["lr"], tmp_path, "3 trials")
    again, _ = search(lambda hyp, trial: 1/0, "lr", START["lr"], tmp_path, "3 trials")
    pd.testing.assert_frame_equal(whole, again)


@pytest.mark.parametrize("change", [
    dict(seed=1), dict(start=START["lr"] | dict(lr0=.02)), dict(about=dict(epochs=2)), dict(sampler="tpe"), dict(prune="median")])
def test_another_search_begins_anew_and_the_old_one_stays(change, tmp_path):
    args, seen = dict(group="lr", start=START["lr"], out=tmp_path, budget="4 trials", about=dict(epochs=1)), []
    first, _ = search(made_up, **args)
    search(lambda hyp, trial: seen.append(trial.number) or made_up(hyp), **args | change)
    assert seen == [0, 1, 2, 3]
    same(first, search(lambda hyp, trial: 1/0, **args)[0])


def test_more_budget_extends(tmp_path):
    search(made_up, "lr", START["lr"], tmp_path/"a", "4 trials")
    longer, whole = (search(made_up, "lr", START["lr"], tmp_path/d, "13 trials")[0] for d in "ab")
    same(longer, whole)


@pytest.mark.parametrize("bad", [{0}, {2, 3}, {0, 1, 2, 3}])
def test_failed_trials_are_recorded_and_not_scored(bad, tmp_path):
    def evaluate(hyp, trial):
        if trial.number in bad: raise RuntimeError("CUDA out of memory.\nand a long trace")
        return made_up(hyp)
    trials, ended = search(evaluate, "lr", START["lr"], tmp_path, "7 trials", "ga")
    assert set(trials.trial[trials.state == "failed"]) == bad and len(trials) == 7
    assert trials.error[min(bad)] == "RuntimeError: CUDA out of memory." and trials.fitness[list(bad)].isna().all()
    assert trials[["lr0", "lrf", "momentum"]].drop_duplicates().shape[0] > 3, "goes on mutating, also without a finished parent"
    assert group_rows(trials, ended)[["finished", "pruned", "failed"]].values.tolist() == [[7-len(bad), 0, len(bad)]]
    assert plot_history(trials).axes


def test_all_failed(tmp_path):
    with pytest.raises(InputError, match="five trials in a row failed.*ZeroDivisionError"):
        search(lambda hyp, trial: 1/0, "lr", START["lr"], tmp_path, "90 minutes")
    assert search(made_up, "lr", START["lr"], tmp_path, "3 trials")[0].state.eq("finished").all(), "mended, it begins anew"


def test_five_failures_in_a_row_end_this_session_only(tmp_path):
    def evaluate(hyp, trial): return made_up(hyp) if trial.number == 0 else 1/0
    assert search(evaluate, "lr", START["lr"], tmp_path, "20 trials")[1] == dict(lr="five trials in a row failed")
    trials, ended = search(made_up, "lr", START["lr"], tmp_path, "20 trials")
    assert trials.state.tolist() == ["finished"] + ["failed"]*5 + ["finished"]*14 and ended == dict(lr="20 trials used")


def test_fitness_that_is_no_number(tmp_path):
    trials, _ = search(lambda hyp, trial: made_up(hyp) if trial.number else dict(fitness=math.nan), "lr", START["lr"], tmp_path, "2 trials")
    assert trials.state.tolist() == ["failed", "finished"] and trials.error[0] == "the fitness is not a number"


def test_user_faults_stop_at_once(tmp_path):
    def evaluate(hyp, trial): raise InputError("no weights")
    with pytest.raises(InputError, match="no weights"): search(evaluate, "lr", START["lr"], tmp_path, "3 trials")


def test_groups_one_after_the_other_and_together(tmp_path):
    "The second group starts from the best of the first, which is not tried again; what a group does not change stays."
    seen, groups = [], "lr, hsv"
    trials, ended = search(lambda hyp, trial: seen.append(hyp) or made_up(hyp), groups, start_of(groups), tmp_path/"a", "12 trials", "ga")
    lr, hsv = (trials[trials.group == g] for g in ("lr", "hsv"))
    best = lr.loc[lr.fitness.idxmax()]
    assert len(seen) == 12 and (len(lr), len(hsv)) == (6, 7) and hsv.state.iloc[0] == "taken over"
    assert lr[["hsv_h", "hsv_s", "hsv_v"]].drop_duplicates().shape[0] == 1
    assert (hsv[["lr0", "lrf", "momentum"]] == best[["lr0", "lrf", "momentum"]]).all(axis=None) and hsv.fitness.iloc[0] == best.fitness
    assert hsv.fitness.max() > best.fitness and list(ended) == ["lr", "hsv"] and used(trials, "trials") == 12
    again, _ = search(lambda hyp, trial: 1/0, groups, start_of(groups), tmp_path/"a", "12 trials", "ga")
    same(trials, again)
    seen.clear()
    both, _ = search(lambda hyp, trial: seen.append(hyp) or made_up(hyp), "lr+hsv", start_of("lr+hsv"), tmp_path/"b", "6 trials", "ga")
    assert len(seen[0]) == 6 and both[["lr0", "hsv_s"]].drop_duplicates().shape[0] > 4


@pytest.mark.parametrize(("text", "want"), [("30 trials", (30, "trials")), ("1 trial", (1, "trials")), ("210 epochs", (210, "epochs")),
                                            ("1.5 minutes", (1.5, "minutes")), ("7", (7, "trials")), (7, (7, "trials"))])
def test_budgets(text, want): assert read_budget(text) == want


def test_epochs_and_minutes(tmp_path):
    def evaluate(hyp, trial):
        trial.set_user_attr("epochs", 3)
        time.sleep(.03)
        return made_up(hyp)
    trials, ended = search(evaluate, "lr", START["lr"], tmp_path/"a", "10 epochs", "ga")
    assert len(trials) == 4 and ended == dict(lr="10 epochs used")
    trials, _ = search(evaluate, "lr", START["lr"], tmp_path/"b", "0.003 minutes", "ga")
    assert 1 <= len(trials) <= 6 and trials.seconds.sum() >= .18
    trials, _ = search(evaluate, "lr, hsv", start_of("lr, hsv"), tmp_path/"c", "12 epochs", "ga")
    assert trials[trials.state != "taken over"].group.tolist() == ["lr"]*2 + ["hsv"]*2


def noisy(scale: float):
    "A plateau, as a valid set of 60 images sees it: images scatter alike for all trials, differences by `scale`."
    images = np.random.default_rng(0).normal(0, .03, 100)

    def evaluate(hyp, trial):
        rng, value = np.random.default_rng(trial.number), .8 - .0005*(math.log10(hyp["lr0"])+2)**2
        return dict(fitness=value, draws=(value + images + rng.normal(0, scale, 100)).tolist())
    return evaluate


@pytest.mark.parametrize(("scale", "patience", "trials"), [(.01, 6, 6), (.01, 0, 20), (1e-9, 6, 20)])
def test_ends_where_nothing_can_be_told_apart(scale, patience, trials, tmp_path):
    "By the paired noise: images that are hard for all (.03 here) do not end a search whose differences show."
    found, ended = search(noisy(scale), "lr", START["lr"], tmp_path, "20 trials", "random", patience=patience)
    assert len(found) == trials
    assert ("cannot tell differences under" in ended["lr"]) == (trials == 6)
    again, said = search(noisy(scale), "lr", START["lr"], tmp_path, "20 trials", "random", patience=patience)
    same(found, again)
    assert said == ended


def test_expected_gain():
    space, rng = read_space("lr"), np.random.default_rng(0)
    flat = from_unit(rng.random((20, 3)), space)
    slope = flat.assign(fitness=to_unit(flat, space)[:, 0])
    few = slope[slope.fitness < .5]  # it has seen the slope's foot only
    assert expected_gain(slope.head(3), space) == math.inf and expected_gain(flat.assign(fitness=.5), space) == 0
    assert expected_gain(few, space) > .1 > 5*expected_gain(pd.concat([slope, from_unit(np.array([[1, .5, .5]]), space).assign(fitness=1.)]), space)
    assert expected_gain(few, space) == expected_gain(few, space)


def test_paired_noise():
    draws = pd.DataFrame([[1., 2, 3, 4], [2, 3, 4, 5], [1, 2, 3, 4.5]], index=[4, 7, 9])
    assert paired_noise(draws, pd.Series([.5, .9, .4], index=[4, 7, 9])) == pytest.approx(np.median([0, np.std([-1, -1, -1, -.5], ddof=1)]))
    assert paired_noise(draws.head(1), pd.Series([.5], index=[4])) == 0


def test_why_stop_says_numbers():
    study, space = optuna.create_study(direction="maximize"), read_space("lr")
    for i in range(8):
        trial = ask(study, "random", space, START["lr"])
        tune.run_trial(study, trial, noisy(.01))
        assert bool(why_stop(study, space, (99, "trials"), "random", 8)) == (i == 7)


@pytest.mark.parametrize(("text", "want"), [
    ("mAP@.75", dict(definition="coco", label=None, measure="mAP", ious=[.75], sign=1)),
    ("challenge mAP@0.75", dict(definition="challenge", ious=[.75])), ("mAP@.5:.95", dict(ious=[i/100 for i in range(50, 100, 5)])),
    ("pig AP@.5", dict(label="pig", measure="AP")), ("cow off_by@.5 conf .4", dict(label="cow", measure="off_by", conf=.4, sign=-1))])
def test_objectives(text, want): assert {k: v for k, v in read_objective(text).items() if k in want} == want


@pytest.mark.parametrize("text", ["", "map@.75", "mAP", "mAP@75", "mAP@1.5", "goat AP@.5", "pig mAP@.5", "recall@.5:.95", "mAP@.9:.5", "voc mAP@.5"])
def test_bad_objectives(text):
    with pytest.raises(InputError, match="objective"): read_objective(text)


def test_score_of_a_trial():
    "Two images of pigs, one of which is found; and one without a box, where something is found."
    box = dict(label="pig", x1=0., y1=0., x2=10., y2=10.)
    gold = box_table([dict(image="a", **box), dict(image="b", **box)])
    found = box_table([dict(image="a", confidence=.9, source="model", **box), dict(image="c", confidence=.95, source="model", **box)])
    score = lambda text: score_found(gold, found, ["a", "b", "c"], read_objective(text))[0]
    assert score("challenge mAP@.75") == .5 and score("pig AP@.75") == pytest.approx(51/101*.5, abs=1e-6)  # coco counts the false box in c
    assert score("recall@.5 conf .92") == 0 and score("recall@.5 conf .5") == .5 and score("off_by@.5 conf .5") == pytest.approx(-2/3, abs=1e-6)
    with pytest.raises(ValueError, match="no cow"): score("cow AP@.5")
    value, draws = score_found(gold, box_table([]), ["a", "b", "c"], read_objective("mAP@.75"))
    assert value == 0 and len(draws) == 200


def test_best_hyp_is_readable(tmp_path):
    base = start_hyp(None)
    trials, _ = search(made_up, "lr", fill_start(base, read_space("lr")), tmp_path, "10 trials")
    table = save_best(trials, base, ["lr0", "lrf", "momentum"], tmp_path/"hyp.yaml")
    args, report = read_hyp(tmp_path/"hyp.yaml")
    best = trials.loc[trials.fitness.idxmax()]
    assert args == dict(optimizer="SGD", lr0=best.lr0, lrf=best.lrf, momentum=best.momentum) and report.fate.eq("mapped").all()
    assert table.name.tolist() == ["lr0", "lrf", "momentum"] and table.best.tolist() == [best.lr0, best.lrf, best.momentum]
    assert table.default.tolist() == [.01, .01, .937]


def test_comparison_is_paired(tmp_path):
    def evaluate(hyp, trial):
        images = np.random.default_rng(0).normal(0, .05, 200)  # hard or easy for all
        return dict(fitness=.5+.01*trial.number, draws=(.5 + .01*trial.number + images).tolist())
    row = compare_best(search(evaluate, "lr", START["lr"], tmp_path, "4 trials")[0]).iloc[0]
    assert row.shown and row.difference == pytest.approx(.03) and row.low == pytest.approx(.03) == row.high


def test_figures_of_little(tmp_path):
    "One trial, and trials that are all alike, give figures too."
    for n, evaluate in ((1, made_up), (5, lambda hyp, trial: dict(fitness=.5))):
        trials, _ = search(evaluate, "lr, hsv", start_of("lr, hsv"), tmp_path/str(n), f"{2*n} trials", "random")
        spaces = read_groups("lr, hsv")
        assert importance(trials, spaces).empty
        assert plot_history(trials).axes and plot_importance(importance(trials, spaces)).axes
        assert plot_parallel(trials, spaces).axes and plot_slices(trials, spaces).axes
    trials, _ = search(made_up, "lr", START["lr"], tmp_path/"more", "12 trials", "random")
    assert importance(trials, read_groups("lr")).importance.sum() == pytest.approx(1)


def test_damaged_journal(tmp_path):
    search(made_up, "lr", START["lr"], tmp_path, "2 trials")
    path = tmp_path/"study.journal"
    path.write_bytes(b"\x00"*100 + b"\n" + path.read_bytes()[150:])
    with pytest.raises(InputError, match="study.journal is damaged"): search(made_up, "lr", START["lr"], tmp_path, "2 trials")


def test_two_searches_in_one_folder(tmp_path):
    def evaluate(hyp, trial):
        with pytest.raises(InputError, match="Another process"): search(made_up, "lr", START["lr"], tmp_path, "2 trials")
        return made_up(hyp)
    search(evaluate, "lr", START["lr"], tmp_path, "1 trial")


def make_mini(folder, shade: int = 255):
    for d in ("images", "labels"): (folder/d).mkdir(parents=True)
    for i in range(4):
        img = np.full((64, 64, 3), 30, np.uint8)
        cv2.rectangle(img, (10+4*i, 10), (40+4*i, 40), (shade,)*3, -1)
        cv2.imwrite(str(folder/"images"/f"{i}.png"), img)
        (folder/"labels"/f"{i}.txt").write_text(f"{i%2} {(25+4*i)/64} {25/64} {30/64} {30/64}\n")
    for k in ("train", "valid"): (folder/f"{k}.txt").write_text("".join(f"./images/{i}.png\n" for i in range(4)))
    (folder/"data.yaml").write_text(yaml.safe_dump(dict(path=str(folder), train="train.txt", val="valid.txt", names={0: "cow", 1: "pig"})))
    return folder


def test_valid_boxes(tmp_path):
    mini = make_mini(tmp_path/"mini")
    images, gold = valid_boxes(mini)
    assert images.image.tolist() == [f"{i}.png" for i in range(4)] and gold.label.tolist() == ["cow", "pig"]*2
    assert np.allclose(gold[["x1", "y1", "x2", "y2"]], [[10+4*i, 10, 40+4*i, 40] for i in range(4)])
    info = yaml.safe_load((mini/"data.yaml").read_text())
    (mini/"data.yaml").write_text(yaml.safe_dump(info | dict(val="train.txt")))
    with pytest.raises(InputError, match="no valid set"): valid_boxes(mini)


@pytest.mark.parametrize(("objective", "told"), [
    ("mAP@.5", .5), ("mAP@.75", .75), ("mAP@.5:.95", .9),  # what validation knows
    ("challenge pig AP@.75", .75), ("off_by@.5", .5), ("mAP@.6", .9), ("mAP@.5:.75", .9)])  # what the nearest mAP stands in for
def test_trials_are_pruned_by_their_objective(objective, told):
    row = {"epoch": 1, "metrics/mAP50(B)": .5, "metrics/mAP75(B)": .75, "metrics/mAP50-95(B)": .9}
    trial, seen = optuna.create_study().ask(), set()
    for _ in range(2): tune.report_epochs(trial, [row], tune.epoch_column(tune.read_objective(objective)), 2, seen)
    assert trial.storage.get_trial(trial._trial_id).intermediate_values == {1: told} and seen == {1}


def test_interrupted_training_goes_on(tmp_path):
    "A trial that was interrupted in its second epoch trains that epoch only, and ends as it would have."
    from ultralytics.utils.callbacks.base import default_callbacks
    mini, seen = make_mini(tmp_path/"mini"), []

    def run(out, interrupt):
        def note(t):
            if t.epoch == interrupt: raise KeyboardInterrupt
            seen.append(t.epoch)
        trial = training_trial(mini, tune.work_folder(out), dict(optimizer="SGD"), prune="median", weights="yolov5n.yaml", imgsz=64, epochs=2,
                               batch=4, device="cpu", seed=0)
        with patch.dict(default_callbacks, on_train_epoch_start=[note]):
            return search(trial, "lr", START["lr"], out, "1 trial", prune="median")[0]
    whole = run(tmp_path/"a", None)
    with pytest.raises(KeyboardInterrupt): run(tmp_path/"b", 1)
    again = run(tmp_path/"b", None)
    same(whole, again)
    assert seen == [0, 1, 0, 1] and again.epochs[0] == 2
    values = []
    for name in "ab":
        with tune.open_journal(tmp_path/name) as (storage, _):
            values.append(storage.get_all_trials(storage.get_all_studies()[0]._study_id)[0].intermediate_values)
    assert values[0] == values[1] and list(values[0]) == [1, 2]


def test_real_trials(tmp_path, monkeypatch):
    "Three trainings: one reports its epochs, one loses memory, one cannot finish; memory for half the batch is no trial."
    mini, real = make_mini(tmp_path/"mini"), tune.train_model
    trial = training_trial(mini, tmp_path/"work", dict(optimizer="SGD"), prune="median", weights="yolov5n.yaml", imgsz=64, epochs=2, batch=4,
                           device="cpu", seed=0)

    def train(*args, **kwargs):
        if calls.append(1) or len(calls) == 1: return real(*args, **kwargs)
        if len(calls) == 3: return 1/0
        from ultralytics.models.yolo.detect import DetectionTrainer
        step, once = DetectionTrainer.optimizer_step, []

        def forgetful(self):
            if not once.append(1) and len(once) == 1: raise MemoryError("out of memory")
            return step(self)
        with monkeypatch.context() as m:
            m.setattr(DetectionTrainer, "optimizer_step", forgetful)
            return real(*args, **kwargs)
    calls = []
    monkeypatch.setattr(tune, "train_model", train)
    trials, _ = search(trial, "lr", START["lr"], tmp_path/"out", "3 trials", prune="median")
    assert trials.state.tolist() == ["finished", "failed", "failed"] and trials.epochs[0] == 2 and len(trials.draws[0]) == 200
    assert trials.error.tolist()[1:] == ["ValueError: memory did not suffice for batch 4", "ZeroDivisionError: division by zero"]
    with tune.open_journal(tmp_path/"out") as (storage, _): first = storage.get_all_trials(storage.get_all_studies()[0]._study_id)[0]
    assert list(first.intermediate_values) == [1, 2]
    assert [p.name for p in (tmp_path/"out").iterdir()] == ["study.journal"]
