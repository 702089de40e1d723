"""`nearfar fit` as one of several processes, and the command that starts them."""

import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from conftest import random_data, torch
from nearfar import CML
from nearfar.cli import launching

FLAGS = [
    "--epochs", "2", "--dim", "6", "--batch", "64", "--negatives", "20", "--validation", "0.2",
]  # fmt: skip


@pytest.fixture
def log(tmp_path):
    data = random_data(60, 80, 0.2, seed=4)
    pl.DataFrame({"user_id": data.pair_users(), "item_id": data.items}).write_csv(
        tmp_path / "log.csv"
    )
    return tmp_path / "log.csv"


def test_the_number_of_processes_is_that_of_the_launcher(run, log, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    code, _, err = run("fit", log, "-o", tmp_path / "model", "--processes", 4)
    assert code == 2
    assert "--processes is 4, but this is one of 3 processes" in err


def test_a_device_for_one_process_is_refused_for_lists_of_several(run, log, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    code, _, err = run("batch", tmp_path / "model", "-o", tmp_path / "lists", "--device", "auto")
    assert code == 2
    assert "--device is 'auto', but a launcher has started 3 processes" in err
    code, _, err = run("batch", tmp_path / "model", "-o", tmp_path / "lists", "--processes", 4)
    assert code == 2
    assert "--processes is 4, but this is one of 3 processes" in err


@pytest.mark.parametrize("device", ["reference", "torch:cpu"])
def test_a_device_for_one_process_is_refused_in_several(run, log, tmp_path, monkeypatch, device):
    if device.startswith("torch") and torch is None:
        pytest.skip("PyTorch is not installed")
    monkeypatch.setenv("WORLD_SIZE", "3")
    code, _, err = run("fit", log, "-o", tmp_path / "model", "--device", device)
    assert code == 2
    assert f"--device is '{device}', but a launcher has started 3 processes" in err


def test_the_number_of_processes_must_be_whole_and_positive(run, log, tmp_path):
    code, _, err = run("fit", log, "-o", tmp_path / "model", "--processes", 0)
    assert code == 1
    assert "`--processes` must be" in err


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launching.start(1) is None
    assert launching.start(None) is None


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_the_same_command_is_started_by_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["nearfar", "fit", "data/", "--processes", "2"])
    begun = []

    class Running:
        def __init__(self, command, env):
            begun.append((command, env))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def wait(self):
            if len(begun) == 1:
                begun.append(None)
                raise KeyboardInterrupt  # the processes have it too
            return 7

    monkeypatch.setattr(subprocess, "Popen", Running)
    assert launching.start(2) == 7
    command, environment = begun[0]
    assert command[1:4] == ["-m", "torch.distributed.run", "--standalone"]
    assert command[4:] == ["--nproc-per-node=2", "-m", "nearfar", *sys.argv[1:]]
    assert environment["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")


@pytest.mark.slow
@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_two_processes_print_once_and_save_the_model_of_one(log, tmp_path):
    def fit(out, *flags):
        words = [sys.executable, "-m", "nearfar", "fit", log, "-o", tmp_path / out, *FLAGS, *flags]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True)

    found = {out: fit(out, *flags) for out, flags in (("one", []), ("two", ["--processes", "2"]))}
    for result in found.values():
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("Saved in") == 1
    one, two = (CML.load(tmp_path / out) for out in found)
    assert np.abs(one.item_vectors - two.item_vectors).max() < 1e-3
    assert np.sqrt(np.mean((one.item_vectors - two.item_vectors) ** 2)) < 1e-5
    assert two.history["validation_ndcg"].to_list() == pytest.approx(
        one.history["validation_ndcg"].to_list(), abs=5e-5
    )
    assert len(list((tmp_path / "two").glob("items_part*"))) == 2
    for lists, flags in (("of-one", []), ("of-two", ["--processes", "2"])):
        words = [sys.executable, "-m", "nearfar", "batch", tmp_path / "two", "-o", tmp_path / lists]
        done = subprocess.run([*map(str, words), *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Lists of 60 users") == 1
    each = [pl.read_parquet(tmp_path / lists / "part-*.parquet") for lists in ("of-one", "of-two")]
    assert each[0].equals(each[1])
    refused = fit("three", "--processes", "2", "--sampler", "uniform", "--spread-out", "0.1")
    assert refused.returncode != 0
    assert "`spread_out` ties all pairs of a batch together" in refused.stderr
    assert not (tmp_path / "three").exists()
