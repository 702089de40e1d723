"""The loop: validation, early stopping, callbacks, checkpoints, interrupts, divergence."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from conftest import PLAIN, checkerboard, hopeless, import_path, plain, random_data
from nearfar import CML, Interactions, evaluate, split
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.errors import (
    DataError,
    DivergedError,
    EmptyDataError,
    NearfarWarning,
    OptionError,
    StoreError,
)
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import SGD, Adam, Averaging
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.training.run import Run

DATA = random_data(40, 80, 0.2, seed=1)
SMALL = {"dim": 8, "batch": 16, "negatives": 2}


def tables(model):
    return model.user_vectors.tobytes() + model.item_vectors.tobytes()


def test_history_has_a_row_an_epoch():
    model = CML(PLAIN, **SMALL).fit(DATA, epochs=4, validation=0.2, every=2, k=5)
    history = model.history
    assert history["epoch"].to_list() == [1, 2, 3, 4]
    assert history["loss"].is_finite().all()
    assert (history["violated"] > 0).all()
    assert history["violated"].max() <= 1
    assert history["seconds"].is_sorted()
    assert history["validation_ndcg"].is_null().to_list() == [True, False, True, False]


def test_loss_is_the_mean_over_the_epochs_pairs():
    model = CML(PLAIN, **SMALL, optimiser=SGD(1e-30)).fit(DATA, epochs=2)
    # nothing moves, so the loss only varies with the draws; by hand: the mean hinge of a pair
    assert model.history["loss"][0] == pytest.approx(model.history["loss"][1], rel=0.1)
    assert 0.5 < model.history["loss"][0] < 4


@hopeless
def test_the_best_epoch_is_kept():
    train, held_out = split.ratio(DATA, 0.25, seed=1)
    points, scores = {}, {}

    def remember(event):
        points[event.epoch] = event.points()
        scores[event.epoch] = event.record["validation_ndcg"]

    model = CML(PLAIN, **SMALL, optimiser=Adam(0.2)).fit(
        train, epochs=20, validation=held_out, callbacks=[remember], k=10
    )
    best = max(scores, key=lambda epoch: (scores[epoch], -epoch))
    assert 1 < best < 20, "choose a case where the last epoch is not the best"
    assert model.best_epoch == best
    assert np.array_equal(model.user_vectors, points[best][: DATA.n_users])
    again = evaluate(model.scorer(), train, held_out, k=10)
    assert again["ndcg"] == pytest.approx(scores[best], rel=1e-12)


@pytest.mark.parametrize("geometry", ["sphere", "free"])
def test_averaging_is_the_mean_of_the_points_after_each_epoch(geometry):
    options, points = {**SMALL, "geometry": geometry}, []
    plain = CML(PLAIN, **options).fit(
        DATA, epochs=5, callbacks=[lambda e: points.append(e.points())]
    )
    told = []
    model = CML(PLAIN, **options, averaging=Averaging(1.5)).fit(
        DATA, epochs=5, callbacks=[lambda e: told.append(e.points())]
    )
    mean = np.zeros_like(points[0], np.float64)
    for epoch, (now, said) in enumerate(zip(points, told, strict=True), 1):
        mean += (now - mean) * (1.5 + 1) / (1.5 + epoch)
        expected = normalise(mean) if geometry == "sphere" else mean
        assert said == pytest.approx(expected, abs=1e-6)
    assert np.concatenate([model.user_vectors, model.item_vectors]).tobytes() == told[-1].tobytes()
    assert plain.history["loss"].to_list() == model.history["loss"].to_list()


@hopeless
def test_averaged_points_are_what_is_validated_and_kept():
    train, held_out = split.ratio(DATA, 0.25, seed=1)
    model = CML(PLAIN, **SMALL, optimiser=Adam(0.2), averaging=Averaging(1.0)).fit(
        train, epochs=12, validation=held_out, k=10
    )
    found = evaluate(model.scorer(), train, held_out, k=10)["ndcg"]
    best = model.history["validation_ndcg"].max()
    assert found == pytest.approx(best, rel=1e-12)
    assert model.history["validation_ndcg"][model.best_epoch - 1] == best


def test_a_metric_of_which_less_is_better():
    model = CML(PLAIN, **SMALL).fit(DATA, epochs=6, validation=0.25, metric="mmr", k=10)
    history = model.history
    assert model.best_epoch == int(history["epoch"][int(history["validation_mmr"].arg_min())])


@hopeless
def test_patience_stops():
    model = CML(PLAIN, **SMALL, optimiser=Adam(0.2)).fit(
        DATA, epochs=100, validation=0.25, patience=3, k=10
    )
    assert len(model.history) == model.best_epoch + 3 < 100


def test_a_callback_can_stop_and_sees_every_epoch():
    seen = []

    def stop(event):
        seen.append((event.epoch, event.record["epoch"]))
        return event.epoch == 3

    model = CML(PLAIN, **SMALL).fit(DATA, epochs=10, callbacks=[stop, lambda event: None])
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert len(model.history) == 3


@pytest.mark.parametrize("answer", [np.True_, np.array(True), 1, np.int64(1), "stop"])
def test_a_callback_stops_with_whatever_is_true(answer):
    model = CML(PLAIN, **SMALL).fit(DATA, epochs=3, callbacks=[lambda _: answer])
    assert model.history.height == 1


@pytest.mark.parametrize("answer", [np.False_, np.array(False), 0, None, ""])
def test_a_callback_goes_on_with_whatever_is_false(answer):
    model = CML(PLAIN, **SMALL).fit(DATA, epochs=2, callbacks=[lambda _: answer])
    assert model.history.height == 2


@pytest.mark.parametrize("answer", [np.array([True, False]), pl.DataFrame({"a": [1]})])
def test_an_answer_that_is_neither_is_refused(answer):
    with pytest.raises(OptionError, match=r"A callback must return True to stop, or None; got"):
        CML(PLAIN, **SMALL).fit(DATA, epochs=2, callbacks=[lambda _: answer])


@pytest.mark.parametrize("callbacks", [None, print, 3, [3], "stop"])
def test_what_cannot_be_called_is_refused_before_training(callbacks, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda self: pytest.fail("it trains"))
    with pytest.raises((OptionError, DataError), match="`callbacks` must be"):
        CML(PLAIN, **SMALL).fit(DATA, epochs=1, callbacks=callbacks)


@pytest.mark.parametrize(
    "share", [np.float32(0.25), Fraction(1, 4), Decimal("0.25"), np.array(0.25)]
)
def test_a_validation_share_is_any_real_number(share):
    models = [CML(PLAIN, **SMALL).fit(DATA, epochs=1, validation=v) for v in (share, 0.25)]
    one, other = (
        [*model.history["validation_ndcg"], model.user_vectors.tobytes()] for model in models
    )
    assert one == other


@pytest.mark.parametrize(
    "wrong", ["0.1", True, (0.1,), DATA.to_csr(), DATA.to_frame(), (DATA, DATA), Interactions, 1, 0]
)
def test_a_validation_part_of_another_type_is_refused(wrong):
    with pytest.raises(OptionError, match=r"`validation` must lie between 0 and 1.*Interactions"):
        CML(PLAIN, **SMALL).fit(DATA, epochs=1, validation=wrong)


def test_validation_share_is_left_out_of_training(monkeypatch):
    seen = {}
    original = CPUEngine.__init__

    def spy(self, problem, state=None, *, threads=1):
        seen["n"] = problem.interactions.n_pairs
        original(self, problem, state, threads=threads)

    monkeypatch.setattr(CPUEngine, "__init__", spy)
    model = CML(PLAIN, **SMALL).fit(DATA, epochs=1, validation=0.25)
    assert seen["n"] == pytest.approx(0.75 * DATA.n_pairs, rel=0.1)
    assert model.interactions is DATA


def test_a_warning_when_most_places_for_negatives_stay_empty():
    pairs = [(u, i) for u in range(4) for i in range(4) if (u, i) != (3, 3)]
    nearly = Interactions.from_pairs(pairs)
    with pytest.warns(NearfarWarning, match=r"60 of 75 places .* stayed empty .* another sampler"):
        model = CML(PLAIN, dim=4).fit(nearly, epochs=2)
    assert model.history["missed"].to_list() == [60, 60]


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")  # of so little data
@pytest.mark.parametrize("sampler", [Uniform(), Popularity(), TwoStage(20), Shared()])
def test_data_in_which_everybody_has_everything_is_refused(sampler):
    everything = Interactions.from_pairs([(u, i) for u in range(4) for i in range(4)])
    options = plain(dim=4, sampler=sampler)
    with pytest.raises(DataError, match=r"every one of the 4 items .* nothing to learn.*min_value"):
        CML(options).fit(everything, epochs=1)
    most = everything.subset(np.arange(16) != 15)
    model = CML(options).fit(most.compact(), epochs=1, callbacks=[lambda _: True])
    with pytest.raises(DataError, match="nothing to learn"):
        model.partial_fit(everything)
    assert model.interactions.n_pairs == 15


def test_items_that_cannot_be_drawn_are_no_negatives():
    """An item without training pairs has weight 0 by popularity, so nobody can learn from it."""
    pairs = [(u, i) for u in range(4) for i in range(4)]
    grown = Interactions.from_pairs([*pairs, (4, 9)])
    known = grown.subset(grown.pair_users() < 4)
    with pytest.raises(DataError, match="every one of the 4 items"):
        CML(plain(dim=4, sampler=Popularity())).fit(known, epochs=1)
    CML(plain(dim=4, sampler=Uniform())).fit(known, epochs=1)


@pytest.mark.parametrize("nothing", [1e-12, DATA.subset(np.zeros(DATA.n_pairs, np.bool_))])
def test_nothing_to_validate_on_is_refused_before_training(nothing, monkeypatch):
    monkeypatch.setattr(Run, "train", lambda self: pytest.fail("it trains"))
    with pytest.raises(EmptyDataError, match="`validation` leaves no interaction"):
        CML(PLAIN, **SMALL).fit(DATA, epochs=1, validation=nothing)


def test_validation_on_other_axes_is_refused():
    with pytest.raises(DataError, match="same users and items"):
        CML(PLAIN, **SMALL).fit(DATA, epochs=1, validation=random_data(5, 5))


def test_a_diverging_run_stops_with_epoch_and_step():
    model = CML(PLAIN, **SMALL, geometry="free", optimiser=SGD(1e6))
    with pytest.raises(DivergedError, match=r"the loss is .* in epoch 1, step \d+ of \d+; lower"):
        model.fit(DATA, epochs=5)


def test_divergence_keeps_the_best_epoch(monkeypatch):
    original = CPUEngine.run

    def poisoned(self, count):
        log = original(self, count)
        if self.state.step > 3 * self.problem.steps_per_epoch:
            log["triplet"][-1] = np.nan
        return log

    monkeypatch.setattr(CPUEngine, "run", poisoned)
    model = CML(PLAIN, **SMALL)
    with pytest.raises(DivergedError, match="epoch 4"):
        model.fit(DATA, epochs=9, validation=0.2)
    assert 1 <= model.best_epoch <= 3
    assert len(model.recommend(0, k=3)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a whole number from 1 to 1,000,000; got 0"),
        ({"every": 1.5}, "every"),
        ({"metric": "auc"}, "`metric` must be one of map, ndcg"),
        ({"patience": 0}, "patience"),
        ({"patience": 2}, "`patience` is 2, .* it needs `validation`"),
        ({"threads": 0}, "threads"),
        ({"device": "abacus"}, "device"),
        ({"validation": 1.5}, "1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(OptionError, match=message):
        CML(PLAIN, **SMALL).fit(DATA, **{"epochs": 1, **arguments})


def test_what_is_not_interactions_is_refused():
    with pytest.raises(DataError, match=r"`train` must be nearfar\.Interactions; got DataFrame"):
        CML(PLAIN, **SMALL).fit(pl.DataFrame({"user": [1], "item": [2]}))


# ------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": TwoStage(30)},
        {"sampler": Shared(0.5), "negatives": 30, "triplet": Triplet(temperature=0.5)},
        {"averaging": Averaging(2.0)},
        {"averaging": Averaging(), "geometry": "ball"},
    ],
)
def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path, changes):
    options = {**SMALL, **changes}
    whole = CML(PLAIN, **options).fit(DATA, epochs=8, validation=0.2, seed=5)
    first = CML(PLAIN, **options)
    first.fit(DATA, epochs=3, validation=0.2, seed=5, checkpoint=tmp_path / "run")
    second = CML(PLAIN, **options)
    second.fit(DATA, epochs=8, validation=0.2, seed=5, checkpoint=tmp_path / "run")
    assert tables(second) == tables(whole)
    assert_frame_equal(
        second.history.drop("seconds"), whole.history.drop("seconds"), check_exact=True
    )


def test_an_interrupt_in_mid_epoch_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole = CML(PLAIN, **SMALL).fit(DATA, epochs=5, validation=0.2)
    original = CPUEngine.run

    def interrupted(self, count):
        log = original(self, count)
        if self.state.step > 2.4 * self.problem.steps_per_epoch:
            raise KeyboardInterrupt
        return log

    monkeypatch.setattr(CPUEngine, "run", interrupted)
    model = CML(PLAIN, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(DATA, epochs=5, validation=0.2, checkpoint=tmp_path)
    assert model.best_epoch in (1, 2)
    assert len(model.recommend(0)) > 0
    monkeypatch.undo()
    model.fit(DATA, epochs=5, validation=0.2, checkpoint=tmp_path)
    # the log of the interrupted chunk was lost with the exception, the tables were not
    assert tables(model) == tables(whole)


def test_a_real_interrupt_is_raised_after_the_chunk_and_leaves_a_whole_model(monkeypatch):
    original = CPUEngine.run

    def signalled(self, count):
        if self.state.step > 1.5 * self.problem.steps_per_epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, count)

    monkeypatch.setattr(CPUEngine, "run", signalled)
    model = CML(PLAIN, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(DATA, epochs=50)
    assert len(model.history) in (1, 2)  # a chunk may reach to the end of the second epoch
    assert np.isfinite(model.user_vectors).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"options": {"dim": 9}}, "options"),
        ({"k": 7}, "schedule"),
        ({"validation": 0.3}, "data is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    base = {"epochs": 1, "validation": 0.2, "checkpoint": tmp_path, "k": 5}
    CML(PLAIN, **SMALL).fit(DATA, **base)
    options = {**SMALL, **change.pop("options", {})}
    with pytest.raises(StoreError, match=f"is of another run.*{message}"):
        CML(PLAIN, **options).fit(DATA, **{**base, **change})


RUN = """
import os, sys, numpy as np
sys.path += sys.argv[3].split(os.pathsep)
from conftest import random_data
from nearfar import CML, Averaging
from nearfar.method.sampling import TwoStage
data = random_data(200, 300, 0.2, seed=2)
model = CML(dim=32, batch=32, sampler=TwoStage(100), negatives=2, averaging=Averaging())
model.fit(data, epochs=6, validation=0.2, k=10, checkpoint=sys.argv[1] or None,
          checkpoint_seconds=0.05, threads=2)
np.save(sys.argv[2], np.concatenate([model.user_vectors, model.item_vectors]))
"""


@pytest.mark.full
def test_a_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path):
    def start(checkpoint, out):
        here = import_path(__file__)
        return subprocess.Popen([sys.executable, "-c", RUN, checkpoint, out, here])

    whole = tmp_path / "whole.npy"
    assert start("", str(whole)).wait() == 0
    out, folder, rng, kills = tmp_path / "killed.npy", tmp_path / "run", random.Random(7), 0
    for _ in range(40):
        run = start(str(folder), str(out))
        deadline = time.monotonic() + 60
        while not (folder / "nearfar.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.6) if kills else 0.1)
        if kills < 3 and run.poll() is None:
            run.send_signal(signal.SIGKILL)
            kills += 1
        if run.wait() == 0:
            break
        # what is there is whole at any moment
        assert json.loads((folder / "nearfar.json").read_text())["kind"] == "checkpoint"
    assert kills >= 1, "the run was over before it could be killed"
    assert np.array_equal(np.load(whole), np.load(out))


def test_the_checkpoint_is_read_by_a_process_that_starts_later(tmp_path):
    """Progress is kept: a finished run is not trained again."""
    model = CML(PLAIN, **SMALL)
    model.fit(checkerboard(), epochs=3, checkpoint=tmp_path)
    calls = []
    again = CML(PLAIN, **SMALL)
    again.fit(checkerboard(), epochs=3, checkpoint=tmp_path, callbacks=[calls.append])
    assert calls == []
    assert tables(again) == tables(model)
