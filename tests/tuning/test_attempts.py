"""A trial: what ends it early, and what becomes of it."""

import os

import pytest

import nearfar as nf
from conftest import checkerboard
from nearfar.errors import NotFittedError
from nearfar.tuning import attempts, tuner

BOARD = checkerboard(24)
SHORT = {"epochs": 2, "every": 1, "k": 5, "progress": False}


def test_a_limit_of_time_ends_every_training_and_begins_no_trial():
    tuned = nf.tune(BOARD, trials=2, trial_seconds=1e-9, **SHORT)
    assert tuned.table["epochs"].to_list() == [1, 1]
    assert tuned.fit().history.height == 1
    with pytest.raises(NotFittedError, match=r"No trial was completed, of 0 that ended\. Allow"):
        nf.tune(BOARD, seconds=1e-9, **SHORT)


def test_a_training_that_diverges_fails_its_trial_alone(monkeypatch):
    def trained(job, options, *args, **how):
        if options != nf.Options():
            raise nf.errors.DivergedError("the loss is inf")
        return right(job, options, *args, **how)

    right = attempts.trained
    monkeypatch.setattr(attempts, "trained", trained)
    tuned = nf.tune(BOARD, trials=3, **SHORT)
    assert tuned.table["state"].to_list() == ["complete", "failed", "failed"]
    assert tuned.table["error"].to_list() == [None, "the loss is inf", "the loss is inf"]
    assert tuned.best == nf.Options()


def test_a_worker_ends_when_there_is_nobody_to_work_for():
    job = tuner.TuningJob.of(tuner.TuningPlan(epochs=2), BOARD, {})
    with pytest.raises(attempts.AbandonedError):
        attempts.attempt(None, job, nf.Options(), parent=os.getppid() + 1)
