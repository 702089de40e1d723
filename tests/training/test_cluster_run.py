"""Whole trainings in several processes: `CML.fit`, checkpoints, and processes that are killed."""

import shutil
import signal
import time

import numpy as np
import pytest

from conftest import PLAIN, import_path, random_data, torch
from engine.test_cluster import DEFAULT, precise, problem_of, specified
from nearfar import CML
from nearfar.engine.cluster.cluster_engine import ClusterEngine
from nearfar.errors import StoreError
from nearfar.method.loss import Triplet
from nearfar.method.sampling import Shared
from nearfar.runtime import store
from nearfar.training.checkpoint import Checkpoint
from nearfar.training.schedule import Schedule
from ranks import ended, on_ranks, start

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def checkpoint_of(problem, folder):
    return Checkpoint(folder, problem, Schedule(), None, 60.0)


def resumed(problem, folder, steps, group):
    """Go on from a checkpoint, or begin; save, and return the exact points."""
    checkpoint = checkpoint_of(problem, folder)
    saved = checkpoint.load()
    state = precise(problem) if saved is None else saved.state
    engine = ClusterEngine(problem, state, group=group)
    engine.run(steps)
    checkpoint.save_part(engine, None, {"epoch": engine.step})
    points = engine.points_exactly()
    engine.close()
    return points


@pytest.mark.parametrize("name", [*DEFAULT, "two-stage, items"])
def test_a_run_goes_on_with_another_number_of_processes(name, tmp_path):
    problem, (_, expected) = problem_of(name), specified(name)
    for size, steps in ((2, 13), (1, 9), (3, 18)):
        for points in on_ranks(size, lambda g, n=steps: resumed(problem, tmp_path, n, g)):
            exact = points
    assert np.abs(exact - expected).max() <= 1e-10
    assert sorted(store.load_folder(tmp_path, kind="checkpoint").arrays) == [
        "part0", "part1", "part2",
    ]  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 4  # the parts of the others are gone


def test_a_part_that_cannot_be_written_leaves_the_checkpoint_as_it_was(tmp_path, monkeypatch):
    problem = problem_of("own, adam")
    on_ranks(2, lambda group: resumed(problem, tmp_path, 5, group))
    before = (tmp_path / store.MANIFEST).read_bytes()
    keep = store.keep_part

    def full(path, entry, tables, *, kind):
        if entry == "part1":
            raise StoreError("the disk is full.")
        return keep(path, entry, tables, kind=kind)

    monkeypatch.setattr(store, "keep_part", full)
    told = []

    def work(group):
        with pytest.raises(StoreError) as error:
            resumed(problem, tmp_path, 5, group)
        told.append(str(error.value))

    on_ranks(2, work)
    assert sorted(told)[0].startswith("1 of 2 processes could not write the checkpoint")
    assert sorted(told)[1] == "the disk is full."
    assert (tmp_path / store.MANIFEST).read_bytes() == before
    assert checkpoint_of(problem, tmp_path).load().state.step == 5


def test_processes_must_see_the_same_folder(tmp_path):
    problem = problem_of("own, adam")

    def work(group):
        with pytest.raises(StoreError, match=r"lacks 'part1-.*all processes share|1 of 2 proc"):
            resumed(problem, tmp_path / str(group.rank), 5, group)

    on_ranks(2, work)


FIT = """
import os, sys, warnings
warnings.simplefilter("error")
sys.path += sys.argv[1].split(os.pathsep)
import numpy as np
from nearfar.errors import NearfarWarning
warnings.simplefilter("ignore", NearfarWarning)  # popularity is all there is to learn
from training.test_cluster_run import fitted
model = fitted(sys.argv[2] or None, device="cluster")
rank = os.environ["RANK"]
points = np.concatenate([model.user_vectors, model.item_vectors])
np.savez(f"{sys.argv[3]}/{rank}.npz", points=points,
         ndcg=model.history["validation_ndcg"], loss=model.history["loss"], gamma=model.gamma)
"""
LONG = random_data(150, 120, 0.2, seed=2)


def fitted(checkpoint, **circumstances):
    triplet = Triplet(0.5, temperature=0.8)
    model = CML(PLAIN, dim=8, batch=64, negatives=20, sampler=Shared(0.5), triplet=triplet)
    return model.fit(
        LONG, epochs=40, validation=0.2, k=10, threads=1, checkpoint=checkpoint,
        checkpoint_seconds=0.0, progress=False, **circumstances,
    )  # fmt: skip


def results(folder, size):
    found = [np.load(folder / f"{rank}.npz") for rank in range(size)]
    assert len({one["points"].tobytes() for one in found}) == 1
    assert len({one["ndcg"].tobytes() for one in found}) == 1
    return found[0]


@needs_torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NDCG on the validation part", "ignore:training goes badly")
def test_killed_processes_go_on_to_the_same_bits_and_in_other_numbers(tmp_path):
    here, folder = import_path(__file__), tmp_path / "run"
    outs = [tmp_path / name for name in ("whole", "killed", "again", "three")]
    for out in outs:
        out.mkdir()
    ended(start(2, FIT, here, "", outs[0]))
    whole, alone = results(outs[0], 2), fitted(None)
    assert np.allclose(whole["ndcg"], alone.history["validation_ndcg"], atol=5e-5)
    assert np.allclose(whole["loss"], alone.history["loss"], rtol=1e-5)

    running = start(2, FIT, here, folder, outs[1])
    deadline = time.monotonic() + 240
    while not (folder / store.MANIFEST).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    running[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    told, _ = ended(running, (1, -signal.SIGKILL))
    assert "ClusterError: another process of the cluster has ended" in told
    assert time.monotonic() - begun < 20
    shutil.copytree(folder, tmp_path / "copy")

    saved = (folder / store.MANIFEST).stat().st_mtime_ns
    running = start(2, FIT, here, folder, outs[2])
    while (folder / store.MANIFEST).stat().st_mtime_ns == saved and time.monotonic() < deadline:
        time.sleep(0.005)
    running[1].send_signal(signal.SIGINT)  # one of them; all stop after the same step
    for told in ended(running, (1, -signal.SIGINT)):
        assert "KeyboardInterrupt" in told

    ended(start(2, FIT, here, folder, outs[2]))
    assert results(outs[2], 2)["points"].tobytes() == whole["points"].tobytes()
    ended(start(3, FIT, here, tmp_path / "copy", outs[3]))
    three = results(outs[3], 3)
    assert np.sqrt(np.mean((three["points"] - whole["points"]) ** 2)) <= 1e-5
    assert np.allclose(three["ndcg"], whole["ndcg"], atol=5e-5)
