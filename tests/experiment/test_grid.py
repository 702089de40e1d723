"""Grids: every cell once, whoever computes it and whatever interrupts; a broken one stops none."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import hopeless, import_path, plain, random_data
from nearfar import split
from nearfar.engine import Problem
from nearfar.errors import NearfarWarning, OptionError, StoreError
from nearfar.experiment import cells, table2
from nearfar.experiment.cells import Outcome, Setting
from nearfar.experiment.grid import RATES, Grid
from nearfar.experiment.paper import PAPER
from nearfar.experiment.pool import Processes
from nearfar.experiment.rates import chosen_rate, next_rate, rate_of
from nearfar.experiment.worker import compute
from nearfar.method.options import Options
from nearfar.method.prior import item_weight
from nearfar.runtime import store
from nearfar.runtime.file_lock import locked
from nearfar.training.calibration import by_rule, gammas
from nearfar.training.schedule import Schedule

SMALL = plain(dim=6, batch=32, negatives=2)
SETTINGS = (
    Setting("uniform", SMALL),
    Setting("popularity", replace(SMALL, sampler=nf.Popularity())),
)
GRID = Grid(
    SETTINGS, learning_rates=(0.003, 0.03), folds=3, tested_folds=2,
    schedule=Schedule(epochs=4, every=1, patience=2, k=5), validation=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return random_data(40, 50, share=0.25, seed=3)


def figures(results):
    """What was computed, without what depends on the machine."""
    return {
        outcome.cell["setting"]["name"] + str(cells_key(outcome)): (
            outcome.best_epoch, outcome.last_epoch, outcome.metrics,
            outcome.history.drop("seconds").rows(),
            {which: frame.rows() for which, frame in outcome.per_user.items()},
        )
        for outcome in cells.load_all(results)
    }  # fmt: skip


def cells_key(outcome):
    return outcome.cell["fold"], json.dumps(outcome.cell["setting"])


@pytest.fixture(scope="module")
def computed(data, tmp_path_factory):
    """The whole grid, computed in this process."""
    results = tmp_path_factory.mktemp("results")
    assert GRID.run({"d": data}, results, workers=0, progress=False) == {}
    return results


def test_every_cell_is_there_once(data, computed):
    outcomes = cells.load_all(computed)
    assert sorted((o.cell["setting"]["name"], o.cell["fold"]) for o in outcomes) == sorted(
        (name, fold) for name in ("uniform", "popularity") for fold in (0, 0, 1)
    )
    versions = {"best", "prior", "last"}
    assert all(set(o.metrics) == set(o.per_user) == versions for o in outcomes)
    assert {o.cell["fingerprint"] for o in outcomes} == {data.fingerprint}


def test_the_rate_is_the_one_that_is_best_on_validation(computed):
    outcomes = cells.load_all(computed)
    for setting in SETTINGS:
        own = [o for o in outcomes if o.cell["setting"]["name"] == setting.name]
        tried = {rate_of(o): o for o in own if o.cell["fold"] == 0}
        assert set(tried) == {0.003, 0.03}
        best = max(tried, key=lambda rate: tried[rate].history["validation_ndcg"].max())
        assert chosen_rate(tried) == best
        assert {rate_of(o) for o in own if o.cell["fold"] == 1} == {best}


def test_users_with_one_item_are_not_tested_and_the_outcome_says_so(data):
    singles = nf.Interactions.from_pairs([(100 + u, u) for u in range(9)])
    (cell,) = GRID.cells("d", "f", SETTINGS[0], 0.01)[:1]
    outcome = compute(cell, data.union(singles))
    assert "users with test items have no training interactions" in outcome.warnings[-1]
    for per_user in outcome.per_user.values():
        assert max(per_user["user_id"]) < 100


def trial(figure, metric="ndcg"):
    """An outcome with this figure at its best epoch."""
    cell = GRID.cells("d", "f", SETTINGS[0], 0.01)[0].to_dict()
    cell["schedule"]["metric"] = metric
    column = {f"validation_{metric}": [None, figure, np.nan]}
    return Outcome(cell, 1, 3, 1.0, 1.0, pl.DataFrame(column, strict=False))


@pytest.mark.parametrize(
    ("figures", "order"),
    [
        ((1, 2, 9, 3, 4), (1e-3, 3e-3, 3e-4)),
        ((1, 2, 3, 4, 5), (1e-3, 3e-3, 1e-2)),
        ((5, 4, 3, 2, 1), (1e-3, 3e-3, 3e-4, 1e-4)),
        ((9, 1, 3, 4, 2), (1e-3, 3e-3, 1e-2)),  # a climb sees no second top
        ((1, 4, 4, 4, 1), (1e-3, 3e-3, 3e-4, 1e-4)),  # the smaller of equals
        ((1, 2, 5, None, None), (1e-3, 3e-3, 3e-4)),
        ((1, 2, None, 3, 4), (1e-3, 3e-4, 1e-4)),  # what fails is too high
        ((None,) * 5, (1e-3, 3e-4, 1e-4)),
    ],
)
def test_the_climb_of_the_learning_rate(figures, order):
    ladder = RATES[1:-1]
    known, tried = dict(zip(ladder, figures, strict=True)), {}
    while (rate := next_rate(ladder[::-1], tried)) is not None:
        assert rate not in tried
        tried[rate] = None if known[rate] is None else trial(known[rate])
    assert tuple(tried) == order
    figures = [(known[rate], -rate) for rate in tried if known[rate] is not None]
    assert chosen_rate(tried) == (-max(figures)[1] if figures else None)
    mirrored = {rate: trial(-known[rate], "mmr") for rate in tried if known[rate] is not None}
    assert chosen_rate(mirrored) == chosen_rate(tried)


def test_a_trial_without_a_figure_is_not_chosen():
    assert chosen_rate({0.1: trial(np.nan), 0.2: trial(0.5), 0.3: None}) == 0.2
    assert chosen_rate({0.1: trial(np.nan)}) is None


def test_a_cell_is_what_cml_and_evaluate_give(data, computed):
    outcome = next(o for o in cells.load_all(computed) if o.cell["fold"] == 1)
    options = Options.from_dict(outcome.cell["setting"]["options"])
    train, test = split.k_fold(data, 3, seed=0)[1]
    with pytest.warns(NearfarWarning, match="recommending the most popular items") as said:
        model = nf.CML(options).fit(train, epochs=4, validation=0.2, patience=2, k=5, threads=1)
    assert outcome.warnings == tuple(str(one.message) for one in said)
    expected = nf.evaluate(model, train, test, k=5)
    assert outcome.metrics["best"] == pytest.approx(expected.metrics, nan_ok=True)
    assert outcome.per_user["best"].equals(expected.per_user)
    assert outcome.best_epoch == model.best_epoch
    one = nf.CML(options).fit(split.ratio(train, 0.2, seed=0)[0], epochs=outcome.last_epoch)
    last = nf.evaluate(one.scorer(), train, test, k=5).metrics
    assert outcome.metrics["last"] == pytest.approx(last, nan_ok=True)
    assert outcome.seconds > 0
    assert outcome.machine_seconds >= outcome.seconds * 0.5


def test_the_prior_is_chosen_on_the_validation_part_and_added_at_the_best_epoch(data, computed):
    outcome = next(o for o in cells.load_all(computed) if o.cell["fold"] == 1)
    options = Options.from_dict(outcome.cell["setting"]["options"])
    train, test = split.k_fold(data, 3, seed=0)[1]
    learned, held_out = split.ratio(train, 0.2, seed=0)
    points = nf.CML(options).fit(learned, epochs=outcome.best_epoch, threads=1).scorer()

    def ndcg(gamma):
        weighted = points.weighted(item_weight(gamma, learned.item_counts))
        return nf.evaluate(weighted, learned, held_out, k=5)["ndcg"]

    assert outcome.gamma == max(gammas(by_rule(Problem(learned, options))), key=ndcg) > 0
    weighted = points.weighted(item_weight(outcome.gamma, train.item_counts))
    expected = nf.evaluate(weighted, train, test, k=5)
    assert outcome.metrics["prior"] == pytest.approx(expected.metrics, nan_ok=True)
    assert outcome.per_user["prior"].equals(expected.per_user)
    assert outcome.metrics["prior"]["mmr"] > outcome.metrics["best"]["mmr"]


@hopeless
def test_a_setting_with_a_prior_is_tested_with_its_own(data):
    options = replace(SMALL, sampler=nf.Popularity(), prior=nf.Prior(0.5, gamma=0.2))
    (cell, *_) = GRID.cells("d", data.fingerprint, Setting("own", options), 0.03)
    outcome = compute(cell, data)
    train, test = split.k_fold(data, 3, seed=0)[0]
    model = nf.CML(cell.setting.options)
    model = model.fit(train, epochs=4, validation=0.2, patience=2, k=5, threads=1)
    assert set(outcome.metrics) == {"best", "last"}
    assert outcome.gamma == model.gamma == 0.2
    expected = nf.evaluate(model, train, test, k=5)
    assert outcome.metrics["best"] == pytest.approx(expected.metrics, nan_ok=True)
    assert outcome.metrics["last"]["mmr"] > nf.evaluate(
        model.scorer(popularity=0.0), train, test, k=5)["mmr"]  # fmt: skip
    front = nf.front(model, train, test, popularity=[0.5], k=5).frame
    shares = front.select(f"decile_{t}" for t in range(1, 11)).row(0)
    assert outcome.diagnostics["exposure"]["recommendations"].to_list() == pytest.approx(shares)


@pytest.mark.full  # long
def test_processes_give_the_same_and_nothing_is_computed_twice(data, computed, tmp_path):
    data.save(tmp_path / "d")
    assert GRID.run({"d": tmp_path / "d"}, tmp_path / "r", workers=2, progress=False) == {}
    assert figures(tmp_path / "r") == figures(computed)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "r").rglob("nearfar.json")}
    assert len(before) == 6
    assert GRID.run({"d": data}, tmp_path / "r", workers=0, progress=False) == {}
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "r").rglob("nearfar.json")} == before


def test_a_broken_cell_is_reported_and_does_not_stop_the_others(data, tmp_path, capfd):
    broken = Setting("broken", replace(SMALL, optimiser=nf.SGD(1e38), geometry="free"))
    grid = replace(GRID, settings=(broken, SETTINGS[0]), learning_rates=(), tested_folds=1)
    failures = grid.run({"d": data}, tmp_path, workers=1, progress=True)
    (key,) = failures
    assert failures[key].startswith("DivergedError: the loss is")
    record = json.loads((tmp_path / "failed" / f"{key}.json").read_text())
    assert record["cell"]["setting"]["name"] == "broken"
    assert record["error"] == failures[key]
    assert "Traceback" in record["traceback"]
    assert [o.cell["setting"]["name"] for o in cells.load_all(tmp_path)] == ["uniform"]
    err = capfd.readouterr().err
    assert "d: broken, fold 1, learning rate 1e+38: DivergedError" in err
    assert "about 1 cells and 0 min left" in err


def test_a_rate_that_diverges_is_not_chosen(data, tmp_path):
    free = Setting("free", replace(SMALL, optimiser=nf.SGD(), geometry="free"))
    grid = replace(GRID, settings=(free,), learning_rates=(1e38, 0.01), tested_folds=1)
    failures = grid.run({"d": data}, tmp_path, workers=0, progress=False)
    assert len(failures) == 1
    assert [rate_of(outcome) for outcome in cells.load_all(tmp_path)] == [0.01]


def test_a_worker_that_dies_takes_only_its_cell(data, tmp_path, monkeypatch):
    give, killed = Processes.give, []

    def deadly(self, cell, path):
        give(self, cell, path)
        if not killed:
            killed.append(cell.key)
            process, _ = next(iter(self._busy.values()))
            os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(Processes, "give", deadly)
    grid = replace(GRID, learning_rates=())
    failures = grid.run({"d": data}, tmp_path, workers=1, progress=False)
    assert failures == {killed[0]: "the worker died (exit code -9)"}
    assert len(cells.load_all(tmp_path)) == 3
    assert grid.run({"d": data}, tmp_path, workers=1, progress=False) == {}
    assert len(cells.load_all(tmp_path)) == 4
    assert list((tmp_path / "failed").iterdir()) == []


@pytest.mark.full
def test_a_killed_run_goes_on(data, computed, tmp_path):
    data.save(tmp_path / "d")
    script = (
        "import os, sys; sys.path += sys.argv[3].split(os.pathsep)\n"
        "from test_grid import GRID\n"
        "if __name__ == '__main__':\n"
        "    GRID.run({'d': sys.argv[1]}, sys.argv[2], workers=2, progress=False)\n"
    )
    (tmp_path / "run.py").write_text(script)
    words = [sys.executable, tmp_path / "run.py", tmp_path / "d", tmp_path / "r",
             import_path(__file__)]  # fmt: skip
    with (tmp_path / "err").open("w") as errors:
        child = subprocess.Popen(words, stderr=errors)
        manifests = []
        while not manifests and child.poll() is None:
            time.sleep(0.05)
            manifests = list((tmp_path / "r").rglob("nearfar.json"))
        child.kill()
        child.wait()
        time.sleep(0.5)  # its workers end when they find the pipe closed
    assert manifests
    GRID.run({"d": data}, tmp_path / "r", workers=0, progress=False)
    assert figures(tmp_path / "r") == figures(computed)
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the size of files")
@pytest.mark.full
def test_a_full_disk_is_an_error_of_the_cell(data, tmp_path):
    data.save(tmp_path / "d")
    script = (
        "import os, resource, signal, sys; sys.path += sys.argv[3].split(os.pathsep)\n"
        "from test_grid import GRID, replace\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "grid = replace(GRID, learning_rates=())\n"
        "import nearfar.experiment.worker as worker\n"
        "done = grid.run({'d': sys.argv[1]}, sys.argv[2] + '0', workers=0, progress=False)\n"
        "assert done == {}, done\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "failures = grid.run({'d': sys.argv[1]}, sys.argv[2], workers=0, progress=False)\n"
        "print(len(failures), set(e.split(':')[0] for e in failures.values()))\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "d"), str(tmp_path / "r"),
             import_path(__file__)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "4 {'StoreError'}", done.stdout + done.stderr
    assert cells.load_all(tmp_path / "r") == []
    assert GRID.run({"d": data}, tmp_path / "r", workers=0, progress=False) == {}


def test_whoever_saves_first_wins(computed, tmp_path):
    """The worker of a killed process may save a cell that the next process computes anew."""
    first, second = cells.load_all(computed)[:2]
    saves = [
        threading.Thread(target=cells.save, args=(first, tmp_path, f"x{n % 5}")) for n in range(40)
    ]
    cells.save(second, tmp_path, "x0")
    for thread in saves:
        thread.start()
    for thread in saves:
        thread.join()
    assert cells.load(cells.folder_of(tmp_path, "x0")).cell == second.cell
    assert [cells.load(cells.folder_of(tmp_path, f"x{n}")).cell for n in range(1, 5)] == (
        [first.cell] * 4
    )


def test_a_cell_is_saved_by_one_process_at_a_time(computed, tmp_path):
    outcome = cells.load_all(computed)[0]
    cells.save(outcome, tmp_path, "x")
    saving = threading.Thread(target=cells.save, args=(outcome, tmp_path, "y"))
    with locked(cells.folder_of(tmp_path, "x").parent / "writing.lock"):
        saving.start()
        saving.join(0.2)
        assert saving.is_alive()
        assert not cells.is_saved(tmp_path, "y")
    saving.join()
    assert cells.is_saved(tmp_path, "y")


def test_an_outcome_comes_back(computed, tmp_path):
    for key, outcome in zip("xyzuvw", cells.load_all(computed), strict=True):
        cells.save(outcome, tmp_path, key)
        again = cells.load(cells.folder_of(tmp_path, key))
        assert (again.cell, again.metrics, again.best_epoch, again.last_epoch, again.gamma) == (
            outcome.cell, outcome.metrics, outcome.best_epoch, outcome.last_epoch, outcome.gamma,
        )  # fmt: skip
        assert again.per_user["prior"].equals(outcome.per_user["prior"])
        assert again.history.equals(outcome.history)
        assert set(again.diagnostics) == set(outcome.diagnostics)
    manifest = cells.folder_of(tmp_path, "x") / store.MANIFEST
    manifest.write_text(manifest.read_text()[:-5])
    with pytest.raises(StoreError):
        cells.load_all(tmp_path)


def test_an_outcome_of_before_there_was_a_prior_is_read(tmp_path):
    meta = {"cell": {}, "best_epoch": 1, "last_epoch": 2, "seconds": 1.0, "machine_seconds": 2.0,
            "metrics": {"best": {"map": 0.5}}, "diagnostics": [], "warnings": []}  # fmt: skip
    frames = {name: pl.DataFrame({"epoch": [1, 2]}) for name in ("history", "users_best")}
    store.save_folder(cells.folder_of(tmp_path, "old"), kind=cells.KIND, meta=meta, frames=frames)
    (found,) = cells.load_all(tmp_path)
    assert (found.gamma, found.metrics) == (None, {"best": {"map": 0.5}})


def test_the_key_tells_every_part_of_a_description_apart(data):
    (cell, *_) = GRID.cells("d", data.fingerprint, SETTINGS[0], 0.01)
    others = [
        replace(cell, data="e"), replace(cell, fingerprint="x"), replace(cell, fold=1),
        replace(cell, seed=1), replace(cell, validation=0.3), replace(cell, folds=4),
        replace(cell, setting=SETTINGS[1]), replace(cell, schedule=Schedule()),
    ]  # fmt: skip
    assert len({one.key for one in [cell, *others]}) == 9
    assert replace(cell).key == cell.key


def test_rows_of_table_2():
    made = table2.rows(beta=0.8, dim=16)
    assert [(type(row.options.sampler).__name__, row.options.negatives, row.options.batch)
            for row in made] == list(PAPER)  # fmt: skip
    assert len(made) == 15
    assert len({row.name for row in made}) == 15
    assert sum(isinstance(row.options.sampler, nf.Uniform) for row in made) == 9
    assert {
        row.options.batch for row in made if not isinstance(row.options.sampler, nf.Uniform)
    } == {256}
    assert {row.options.dim for row in made} == {16}
    assert {row.options.sampler.beta for row in made[9:]} == {0.8}
    paper = nf.presets.paper_2019("uniform", negatives=1, batch=4096, beta=0.8)
    assert made[0].options == replace(paper, dim=16)
    released = table2.rows("released_2019")
    assert released[-1].options.sampler.vectors == "initial"
    assert released[-1].name == "released two-stage, 5 negatives, batch 256"
    (cml,) = table2.rows("cml_2017", dim=8)
    assert cml.name == "CML 2017, 20 negatives, batch 50000"
    assert cml.options == nf.presets.cml_2017(dim=8)


def test_some_rows_of_table_2():
    every = table2.rows()
    uniform = table2.rows(samplers=["uniform"], negatives=[1, 5], batches=[4096])
    assert uniform == (every[0], every[6])
    assert table2.rows(negatives=[2], batches=[256]) == (every[5], every[10], every[13])
    for asked in ({"samplers": ["two-stage"], "batches": [1024]}, {"negatives": [3]}):
        with pytest.raises(OptionError, match="No row of the table has one of the samplers"):
            table2.rows(**asked)
    with pytest.raises(OptionError, match="`preset` must be one of paper_2019"):
        table2.rows("x")


def test_rows_with_another_proposal_or_second_stage_say_so():
    made = table2.rows(beta=0.5, two_stage={"candidates": 500}, negatives=[5], batches=[256])
    assert [row.name for row in made] == [
        "uniform, 5 negatives, batch 256",
        "popularity (beta 0.5), 5 negatives, batch 256",
        "two-stage (beta 0.5, candidates 500), 5 negatives, batch 256",
    ]
    assert made[2].options.sampler == nf.TwoStage(500, 0.5)
    (released,) = table2.rows("released_2019", samplers=["two-stage"], negatives=[1],
                              two_stage={"vectors": "live"})  # fmt: skip
    assert released.name == "released two-stage (vectors live), 1 negative, batch 256"
    assert released.options.sampler == nf.TwoStage(2000, vectors="live", released_weight=True)
    for how, message in (
        ({"two_stage": {"beta": 2.0}}, "`two_stage` must be one of candidates, .*; got 'beta'"),
        ({"two_stage": {"candidates": 0}}, "`candidates`"),
        ({"two_stage": {"distinct": False}, "samplers": ["uniform"]}, "there is no such row"),
        ({"two_stage": {"distinct": False}, "preset": "cml_2017"}, "there is no such row"),
    ):
        with pytest.raises(OptionError, match=message):
            table2.rows(**how)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": ()}, "`settings` must not be empty"),
        ({"settings": SETTINGS * 2}, "distinct names; got 'popularity' more than once"),
        ({"folds": 1}, "`folds` must be at least 2 and"),
        ({"tested_folds": 4}, "`tested_folds` not more than that; got 3 and 4"),
        ({"tested_folds": 0}, "`tested_folds` must be a whole number"),
        ({"validation": 1.0}, "`validation` must lie between 0 and 1, .*; got 1.0"),
        ({"learning_rates": (-1.0,)}, "learning_rate"),
    ],
)
def test_grids_are_checked(change, message):
    with pytest.raises(OptionError, match=message):
        replace(GRID, **change)


def test_a_run_is_checked(data, tmp_path):
    for how, message in (({"workers": -1}, "`workers`"), ({"threads": 0}, "`threads`")):
        with pytest.raises(OptionError, match=message):
            GRID.run({"d": data}, tmp_path, **how)
    with pytest.raises(OptionError, match="`data` must have at least one data set"):
        GRID.run({}, tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        GRID.run({"d": tmp_path / "none"}, tmp_path, workers=0)


def test_figures_of_each_user_are_saved_under_their_ids(tmp_path):
    pairs = [(f"user {u}", i) for u in range(8) for i in range(8) if u != i]
    grid = replace(GRID, settings=SETTINGS[:1], learning_rates=(), tested_folds=1)
    data = nf.Interactions.from_pairs(pairs)
    assert grid.run({"d": data}, tmp_path, workers=0, progress=False) == {}
    (outcome,) = cells.load_all(tmp_path)
    assert outcome.per_user["best"]["user_id"].to_list() == [f"user {u}" for u in range(8)]


def test_compute_does_not_depend_on_threads(data):
    (cell, *_) = GRID.cells("d", data.fingerprint, SETTINGS[0], 0.01)
    one, two = compute(cell, data, threads=1), compute(cell, data, threads=2)
    assert one.metrics == two.metrics
    assert one.history.drop("seconds").equals(two.history.drop("seconds"))


def test_a_setting_with_neighbours_is_refused():
    with pytest.raises(OptionError, match=r"`options` of a setting must be without neighbours"):
        Setting("near", replace(SMALL, neighbours=nf.CoOccurrence()))
