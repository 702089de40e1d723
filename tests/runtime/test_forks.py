"""Processes made by fork after nearfar was used: they work, or say at once what to do instead.

All of it happens in `forked.py`, in a process of its own: the tests' has threads and pools already.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import import_path
from nearfar.errors import ForkError, NearfarError
from nearfar.runtime import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SCRIPT = Path(__file__).with_name("forked.py")
REFUSED = {
    "partial_fit", "with_ids_like", "union", "union with new ids", "with_item_table", "ids",
    "from_pairs", "from_pairs with times", "from_csr", "from_frame", "from a lazy frame",
    "read csv", "read parquet", "prepare", "save data", "load data", "save", "load", "load mapped",
    "export", "export numpy", "batch", "datasets", "grid", "report",
}  # fmt: skip
"""What polars computes on its threads; all else works in a forked process, faiss too."""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, import_path(__file__)])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_fork_before_polars_was_used_changes_nothing(found):
    assert found["before any use"] == {"from_pairs": "done"}


def test_a_forked_process_works_or_says_at_once_to_spawn(found):
    refusals = {name: told for name, told in found["after"].items() if told != "done"}
    assert set(refusals) == REFUSED, refusals
    for told in refusals.values():
        assert told.startswith("ForkError: ")
        assert 'get_context("spawn")' in told
    assert found["left behind"] == []


def test_pools_of_processes(found):
    forked, spawned = found["pools"]["fork"], found["pools"]["spawn"]
    assert forked["learn"]
    assert spawned["learn"]
    assert forked["reread"].startswith("ForkError: ")
    assert spawned["reread"] == [3, 3]


def test_a_server_that_was_loaded_before_the_fork_answers(found):
    pytest.importorskip("nearfar.serve")
    status, told = found["server"].pop("/reload")
    assert (status, "ForkError" in told, "spawn" in told) == (409, True, True)
    status, told = found["server"].pop("/v1/items")
    assert (status, "without features" in told) == (409, True)
    assert len(found["server"]) > 10
    assert {path: got for path, got in found["server"].items() if got[0] != 200} == {}


ONLY_POLARS = """
import multiprocessing
import polars as pl
import nearfar as nf

def use():
    try:
        nf.Interactions.from_frame(frame)
    except nf.errors.NearfarError as error:
        print(error)

frame = pl.DataFrame({"user": [1, 2], "item": [2, 3]})
if USED:
    frame.sort("user").join(frame, on="user").filter(pl.col("item") > 2)
process = multiprocessing.get_context("fork").Process(target=use)
process.start()
process.join(60)
print(process.exitcode)
process.kill()
"""


@pytest.mark.parametrize("used", [False, True])
def test_a_parent_that_used_only_polars(used):
    done = subprocess.run(
        [sys.executable, "-c", ONLY_POLARS.replace("USED", str(used))],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *told, code = done.stdout.splitlines()
    assert code == "0"
    assert ["spawn" in line for line in told] == [True] * used


def test_it_is_an_error_of_ours():
    assert issubclass(ForkError, NearfarError)
    assert issubclass(ForkError, RuntimeError)
    assert not forks.is_cut_off()
    forks.check_fork()


def test_a_child_of_a_child_is_cut_off_as_well(monkeypatch):
    monkeypatch.setattr(forks._State, "is_cut_off", True)
    monkeypatch.setattr(forks, "_polars_runs", lambda: False)
    monkeypatch.setattr(forks._State, "threads_run", False)
    forks.before_fork()
    forks._after_fork_in_child()
    with pytest.raises(ForkError, match="spawn"):
        forks.check_fork()


def test_where_threads_cannot_be_seen_polars_is_taken_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(forks, "_TASKS", tmp_path / "nothing")
    assert forks._polars_runs()
    monkeypatch.delitem(sys.modules, "polars")
    assert not forks._polars_runs()
