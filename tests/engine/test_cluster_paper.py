"""research/cluster_paper.py: its formulas against what the engine holds and sends."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from conftest import PLAIN, random_data
from engine.test_cluster import problem_of
from nearfar.engine import Problem
from nearfar.engine.cluster.cluster_engine import AHEAD, ClusterEngine
from nearfar.engine.cluster.part_plan import make_part_plans
from nearfar.method.optimiser import SGD, Adagrad, Adam
from nearfar.method.sampling import Shared
from ranks import on_ranks

sys.path.insert(0, str(Path(__file__).parents[2] / "research"))
import cluster_paper as paper

DATA = random_data(400, 3000, share=0.01)


def nbytes(record):
    if isinstance(record, np.ndarray):
        return record.nbytes
    return sum(map(nbytes, record)) if isinstance(record, tuple) else 0


@pytest.mark.parametrize(("optimiser", "moments"), [(SGD(), 0), (Adagrad(), 1), (Adam(), 2)])
@pytest.mark.parametrize("mean", [0, 1])
def test_the_rows_of_a_process(optimiser, moments, mean):
    options = replace(PLAIN, optimiser=optimiser, dim=16, sampler=Shared(0.5), batch=256)

    def held(group):
        engine = ClusterEngine(Problem(DATA, options), group=group)
        if mean:
            engine.average(1.0)
        own = engine.own
        engine.close()
        mine = (own.rows, own.last, engine.own_rows, *([own.mean] if mean else []))
        return nbytes(mine), len(own.rows)

    for size in (1, 3):
        for found, n in on_ranks(size, held):
            assert found == n * paper.row_bytes(16, moments, mean)


def test_what_every_process_holds():
    problem = Problem(DATA, replace(PLAIN, sampler=Shared(0.5)))
    held = (DATA.indptr[:-1], DATA.item_counts, problem.proposal)
    assert nbytes(held) == paper.shared_bytes(DATA.n_users, DATA.n_items)
    assert nbytes((DATA.items, problem.positive_users)) == 8 * DATA.n_pairs


@pytest.mark.parametrize(("batch", "negatives"), [(256, 64), (2048, 64), (1024, 512)])
def test_the_plans_of_a_process(batch, negatives):
    options = replace(PLAIN, sampler=Shared(0.5), batch=batch, negatives=negatives)
    found = nbytes(make_part_plans(paper.AHEAD, Problem(DATA, options), 2))
    assert found == pytest.approx(paper.plan_bytes(batch, negatives), rel=0.01)
    assert paper.AHEAD == AHEAD


@pytest.mark.parametrize("size", [2, 3])
def test_what_a_process_sends(size):
    problem = problem_of("shared, adam", DATA, batch=256, dim=128, negatives=128)

    def sent(group):
        engine = ClusterEngine(problem, group=group)
        engine.run(2 * AHEAD)
        engine.close()
        return group.traffic.bytes_sent / (2 * AHEAD)

    found = np.mean(on_ranks(size, sent))
    assert 0.85 <= found / sum(paper.sent_bytes(256, 128, 128, size)) <= 1.0


def test_every_input_changes_something():
    given = paper.Paper()
    before = paper.table(given)
    for one in fields(given):
        changed = replace(given, **{one.name: type(one.default)(getattr(given, one.name) * 3)})
        assert paper.table(changed) != before, one.name


def test_parts_add_up():
    given = paper.Paper(users=10, items=20, hosts=2, pairs_per_user=3, dim=4, batch=8, negatives=5)
    memory = paper.host_bytes(given)
    assert memory["rows"] == 15 * (4 * 4 * 4 + 16)
    assert memory["pairs"] == 8 * 15
    back = paper.recovery_seconds(given)
    assert back["between failures"] == 365 * 86_400 / 2
    save = memory["rows"] / given.disk
    assert back["between checkpoints"] == pytest.approx((2 * save * 365 * 43_200) ** 0.5)
    assert paper.step_seconds(given)["latency"] == pytest.approx((2 + 2 / 16) * 50e-6)
