"""Real processes with torch.distributed on loopback."""

import numpy as np
import pytest

from conftest import import_path, torch
from engine.test_cluster import DATA, problem_of, specified, trained
from nearfar.engine import make_engine
from nearfar.engine.cluster.process_group import join
from nearfar.errors import OptionError
from ranks import ended, on_ranks, start

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

TRAIN = """
import os, sys, warnings
warnings.simplefilter("error")
sys.path += sys.argv[1].split(os.pathsep)
import numpy as np
from engine.test_cluster import precise, problem_of, trained
from nearfar.engine.cluster.process_group import join
group, found = join(), {}
for name in ("own, adam", "shared, adam"):
    problem = problem_of(name)
    for kind, state in (("exact", precise(problem)), ("usual", None)):
        log, points, traffic = trained(problem, group, state)
        found[f"{name}, {kind}"] = points
        found[f"{name}, {kind}, loss"] = log["triplet"]
found["traffic"] = np.array([traffic.collectives, traffic.bytes_sent])
np.savez(f"{sys.argv[2]}/{group.rank}.npz", **found)
"""


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_compute_what_the_reference_and_threads_compute(size, tmp_path):
    ended(start(size, TRAIN, import_path(__file__), tmp_path))
    for rank in range(size):
        found = np.load(tmp_path / f"{rank}.npz")
        for name in ("own, adam", "shared, adam"):
            log, points = specified(name)
            assert np.abs(found[f"{name}, exact"] - points).max() <= 1e-10
            assert np.abs(found[f"{name}, exact, loss"] - log["triplet"]).max() <= 1e-8
            expected = on_ranks(size, lambda g, name=name: trained(problem_of(name), g))[rank]
            assert found[f"{name}, usual"].tobytes() == expected[1].tobytes()
            traffic = found["traffic"]
        # nobody sends more than the threads' group counts; the counts are of all four trainings
        assert traffic[0] > 0
        assert (traffic[1] > 0) == (size > 1)


def test_a_cluster_needs_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(OptionError, match=r"WORLD_SIZE is not set: run `torchrun .*device='cpu'"):
        join()
    with pytest.raises(OptionError, match="WORLD_SIZE is not set"):
        make_engine(problem_of("own, adam", DATA), None, device="cluster", threads=1)
