"""Several processes against one: the same draws, the same points, and what is sent for them."""

from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import scipy.sparse as sp

from conftest import SAMPLERS, plain, random_data
from nearfar.engine import Problem
from nearfar.engine.cluster.cluster_engine import AHEAD, ClusterEngine
from nearfar.engine.cluster.shards import make_shards, n_rows_of, rows_of_rank
from nearfar.engine.content import as_matrix, make_content
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import OptionError
from nearfar.method.hybrid import Hybrid, Linear
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from ranks import on_ranks

DATA = random_data(crowded=True)
HYBRID = Hybrid(Linear(decay=0.02), id_dropout=0.4, id_decay=0.05)
STEPS = 40
SOFT = Triplet(0.5, temperature=0.3)
DEFAULT = {
    "own, adam": {"sampler": Popularity(0.7), "negatives": 3, "optimiser": Adam(0.01)},
    "shared, adam": {
        "sampler": Shared(0.7),
        "negatives": 25,
        "triplet": SOFT,
        "optimiser": Adam(0.01),
    },
    "two-stage, adam": {"sampler": TwoStage(20), "negatives": 3, "optimiser": Adam(0.01)},
}
ALL = {
    **DEFAULT,
    "own, sgd": {"sampler": Uniform(), "negatives": 3, "optimiser": SGD(0.05)},
    "own, distinct": {
        "sampler": Popularity(distinct=True, redraws=3), "negatives": 3,
        "optimiser": Adam(0.05), "triplet": Triplet(1.5),
    },
    "own, adagrad, rank, free": {
        "sampler": Uniform(), "negatives": 3, "geometry": "free",
        "optimiser": Adagrad(0.1), "triplet": Triplet(0.5, rank_weight=True),
    },
    "own, adam, ball": {
        "sampler": Uniform(), "negatives": 3, "geometry": "ball", "optimiser": Adam(0.05),
    },
    "shared, sgd, ball": {
        "sampler": Shared(0.0), "negatives": 11, "geometry": "ball", "optimiser": SGD(0.05),
    },
    "two-stage, adam, ball": {
        "sampler": TwoStage(20), "negatives": 3, "geometry": "ball", "optimiser": Adam(0.05),
    },
    "shared, sgd": {"sampler": Shared(0.0), "negatives": 11, "optimiser": SGD(0.05)},
    **{
        f"{name}, sgd": {"sampler": SAMPLERS[name], "negatives": 3, "optimiser": SGD(0.05)}
        for name in SAMPLERS if name.startswith("two-stage")
    },
}  # fmt: skip
SETTINGS = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.full) for name in ALL]


HYBRIDS = {
    "own, items": DEFAULT["own, adam"] | {"items": HYBRID},
    "own, both, adagrad": DEFAULT["own, adam"]
    | {"items": HYBRID, "users": HYBRID, "optimiser": Adagrad(0.05)},
    "shared, both": DEFAULT["shared, adam"] | {"items": HYBRID, "users": HYBRID},
    "shared, users, sgd": ALL["shared, sgd"] | {"users": HYBRID},
    "two-stage, items": DEFAULT["two-stage, adam"] | {"items": HYBRID},
    "two-stage, both": DEFAULT["two-stage, adam"]
    | {"items": HYBRID, "users": HYBRID, "sampler": TwoStage(20, towards="user")},
    "two-stage, initial": DEFAULT["two-stage, adam"]
    | {"items": HYBRID, "sampler": TwoStage(12, vectors="initial")},
}
ALL |= HYBRIDS
THREE = ("own, items", "shared, both", "two-stage, items")
OF_HYBRIDS = [
    pytest.param(name, marks=() if name in THREE else pytest.mark.full) for name in HYBRIDS
]


def features(n_rows, n_columns, seed):
    """Random sparse rows, some of them empty."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n_rows, n_columns)) < 0.2, rng.normal(size=(n_rows, n_columns)), 0)
    dense[rng.random(n_rows) < 0.15] = 0.0
    return sp.csr_array(dense.astype(np.float32))


def content_of(options, data):
    """Features of what is a hybrid."""
    if options.users is None and options.items is None:
        return None
    return make_content(
        data.n_users, data.n_items, options.users, options.items,
        None if options.users is None else features(data.n_users, 9, 1),
        None if options.items is None else features(data.n_items, 25, 2),
    )  # fmt: skip


def problem_of(name, data=DATA, **changes):
    options = plain(**{"batch": 16, "dim": 9} | ALL[name] | changes)
    return Problem(data, options, 3, horizon=STEPS, content=content_of(options, data))


def precise(problem):
    """The start in float64, and within the ball.

    Points of length 1 in float32 lie up to 6e-8 outside of it. The reference clips all rows in its
    first step, the engines a row when they move it.
    """
    state = problem.initial_state()
    state.rows = state.rows.astype(np.float64)
    if problem.options.geometry == "ball":
        length = np.linalg.norm(state.rows[:, 0], axis=1, keepdims=True)
        state.rows[:, 0] /= np.maximum(length, 1.0)
    return state


@lru_cache(maxsize=2)
def specified(name):
    problem = problem_of(name)
    reference = ReferenceEngine(problem, precise(problem))
    return reference.run(STEPS), reference._vectors()


def trained(problem, group, state=None, chunks=(STEPS,), threads=1):
    """Log and points of a rank, and what it has sent."""
    engine = ClusterEngine(problem, state, group=group, threads=threads)
    logs = [engine.run(count) for count in chunks]
    engine.settle()
    points = engine.points_exactly()
    engine.close()
    log = {field: np.concatenate([one[field] for one in logs]) for field in logs[0]}
    return log, points, group.traffic


@pytest.mark.parametrize("name", SETTINGS + OF_HYBRIDS)
def test_any_number_of_ranks_computes_what_the_reference_specifies(name):
    problem, (expected, points) = problem_of(name), specified(name)
    for size in (1, 2, 3):
        for log, found, _ in on_ranks(size, lambda g: trained(problem, g, precise(problem))):
            assert np.abs(found - points).max() <= 1e-10
            for field, values in expected.items():
                assert np.abs(log[field] - values).max() <= 1e-8, field
    assert np.abs(points - problem.initial_state().rows[:, 0]).max() > 0.02, "nothing was learned"


@pytest.mark.parametrize("name", SETTINGS + OF_HYBRIDS)
def test_one_rank_has_the_bits_of_the_processor_s_engine(name):
    problem = problem_of(name)
    engine = CPUEngine(problem, threads=1)
    log = engine.run(STEPS)
    engine.settle()
    expected = engine.points() if problem.content is None else engine.tables()
    engine.close()
    ((found, points, _),) = on_ranks(1, lambda group: trained(problem, group))
    assert points.tobytes() == expected.tobytes()
    for field, values in log.items():
        assert np.array_equal(found[field], values), field


@pytest.mark.parametrize("name", DEFAULT)
def test_bits_depend_on_the_number_of_ranks_only(name):
    problem = problem_of(name)
    results = set()
    for threads, chunks in ((1, (STEPS,)), (2, (STEPS,)), (1, (1, 7, 32)), (2, (17, 23))):
        work = partial(trained, problem, chunks=chunks, threads=threads)
        for log, points, _ in on_ranks(2, work):
            results.add((points.tobytes(), log["triplet"].tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("name", DEFAULT)
def test_float32_is_near_for_any_number_of_ranks(name):
    problem = problem_of(name)
    one, two, three = (on_ranks(n, lambda g: trained(problem, g))[0][1] for n in (1, 2, 3))
    for other in (two, three):
        far = np.abs(one - other)
        assert np.sqrt(np.mean(far**2)) <= 1e-5
        assert np.quantile(far, 0.999) <= 1e-5


def test_a_state_is_cut_and_put_together_again():
    problem = problem_of("own, adam")
    whole = CPUEngine(problem)
    whole.run(30)
    whole.average(1.0)

    def work(group):
        engine = ClusterEngine(problem, whole.state.copy(), group=group)
        state, some = engine.state, engine.points(np.array([DATA.n_users, 3, 0]))
        engine.close()
        return state, some, len(engine.own_rows)

    found = on_ranks(3, work)
    for state, some, _ in found:
        assert state.rows.tobytes() == whole.state.rows.tobytes()
        assert np.array_equal(state.last, whole.state.last)
        assert np.array_equal(state.mean, whole.state.mean)
        assert state.step == 30
        assert np.array_equal(some, whole.points(np.array([DATA.n_users, 3, 0])))
    assert sum(n for _, _, n in found) == problem.n_rows
    whole.close()


def test_a_mean_over_epochs_is_that_of_one_process():
    problem = problem_of("own, sgd")

    def work(group):
        engine = ClusterEngine(problem, precise(problem), group=group)
        for epoch in (1, 2):
            engine.run(20)
            engine.average(1.0 / epoch)
        return engine.finish()

    reference = ReferenceEngine(problem)
    for epoch in (1, 2):
        reference.run(20)
        reference.average(1.0 / epoch)
    for points in on_ranks(3, work):
        assert np.abs(points - reference.points()).max() < 1e-6


def test_points_of_a_hybrid_are_encoded_by_the_rank_that_has_them():
    problem = problem_of("shared, both")
    whole = CPUEngine(problem)
    whole.run(20)
    some = np.array([DATA.n_users + 2, 5, 0])

    def work(group):
        engine = ClusterEngine(problem, whole.state.copy(), group=group)
        seen = []
        for _ in range(2):  # as they are now, then those of a mean
            kept = engine.own_tables()
            seen.append((engine.own_points(), engine.own_encoded(kept), engine.points(some),
                         engine.tables(), kept))  # fmt: skip
            engine.average(1.0)
        engine.close()
        return engine.own_rows, engine.table_rows, seen

    found = on_ranks(3, work)
    for now in range(2):
        points, tables = whole.points(), whole.tables()
        for own_rows, table_rows, seen in found:
            own, encoded, chosen, all_rows, kept = seen[now]
            assert own.tobytes() == encoded.tobytes() == points[own_rows].tobytes()
            assert chosen.tobytes() == points[some].tobytes()
            assert all_rows.tobytes() == tables.tobytes()
            assert kept.tobytes() == tables[table_rows].tobytes()
        whole.average(1.0)
    listed = np.sort(np.concatenate([table_rows for _, table_rows, _ in found]))
    assert np.array_equal(listed, np.arange(problem.n_table_rows))
    assert all(len(rows) < len(table) for rows, table, _ in found), "a rank has no columns"
    whole.close()


@pytest.mark.parametrize("name", ["own, items", "shared, both"])
def test_the_columns_that_a_step_reads_are_asked_for_once(name):
    problem, size = problem_of(name), 3

    def work(group):
        engine = ClusterEngine(problem, group=group)
        engine._plan(0)
        plans = [engine._steps[t] for t in range(AHEAD)]
        wanted = [int(one.plan.content.size[0]) for one in plans]
        got = [one.expected.copy() for one in plans]
        engine.close()
        return wanted, got

    found, n = on_ranks(size, work), problem.n_rows
    matrix = as_matrix(problem.content)
    for t in range(AHEAD):
        owner, items, shared = asked(problem, size, t)
        users = [set() for _ in range(size)]
        for user, _ in ReferenceEngine(problem).pairs(t):
            users[owner[user]].add(user)
        for rank, (wanted, got) in enumerate(found):
            read = [*users[rank], *(problem.n_users + k for k in items[rank] | shared)]
            columns = np.unique(matrix[np.array(read)].indices)
            assert wanted[t] == len(columns)
            asked_for = {*(problem.n_users + k for k in items[rank] | shared), *(n + columns)}
            elsewhere = sum(owner[row] != rank for row in asked_for)
            assert got[t].sum() - got[t][rank] == elsewhere


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_has_one_owner_and_pairs_are_divided_evenly(size):
    problem = problem_of("own, adam", random_data(300, 200))
    shards = make_shards(problem, size)
    rows = [rows_of_rank(shards, rank) for rank in range(size)]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(problem.n_rows))
    assert [len(part) for part in rows] == [n_rows_of(shards, rank) for rank in range(size)]
    pairs = np.diff(shards.pairs)
    most = problem.interactions.user_counts.max()
    assert pairs.sum() == problem.interactions.n_pairs
    assert pairs.max() - pairs.min() <= 2 * most
    items = [len(part) - n for part, n in zip(rows, np.diff(shards.users), strict=True)]
    assert max(items) == -(-problem.n_items // size)
    # the most popular items do not lie together
    popular = problem.n_users + np.argsort(problem.interactions.item_counts)[-70:]
    assert size == 1 or max(np.isin(popular, part).sum() for part in rows) < 70 * 0.8


def test_more_ranks_than_users_train_too():
    data = random_data(3, 20)
    problem = problem_of("own, sgd", data)
    reference = ReferenceEngine(problem)
    reference.run(STEPS)
    for _, points, _ in on_ranks(5, lambda g: trained(problem, g, precise(problem))):
        assert np.abs(points - reference._points()).max() <= 1e-10


def asked(problem, size, step):
    """By the reference's draws: the owner of each row; each rank's items; the shared items."""
    shards, engine = make_shards(problem, size), ReferenceEngine(problem)
    owner = np.empty(problem.n_table_rows, np.int64)
    for rank in range(size):
        owner[rows_of_rank(shards, rank)] = rank
    pairs = engine.pairs(step)
    own = engine.negatives(step, pairs) if problem.n_own else [[] for _ in pairs]
    shared = set(engine.candidates(step))
    two_stage = problem.n_own and problem.n_candidates
    items = [set() for _ in range(size)]
    for (user, item), drawn in zip(pairs, own, strict=True):
        items[owner[user]] |= {item} | (set() if two_stage else {k for k in drawn if k >= 0})
    return owner, [some - shared for some in items], shared


def rows_sent(problem, size, step):
    """By the reference's draws: of each rank, the items that it asks of others and is asked for."""
    owner, items, shared = asked(problem, size, step)
    counts = np.zeros((size, size), np.int64)  # from the owner, to the one who asks
    for rank, some in enumerate(items):
        for item in some | shared:
            counts[owner[problem.n_users + item], rank] += 1
    counts[np.arange(size), np.arange(size)] = 0
    return counts


@pytest.mark.parametrize("name", DEFAULT)
def test_a_rank_copies_of_its_rows_those_that_others_need_too(name):
    problem, size = problem_of(name), 3

    def work(group):
        engine = ClusterEngine(problem, group=group)
        engine._plan(0)
        copied = [engine._steps[t].expected for t in range(AHEAD)]
        engine.close()
        return copied

    found = on_ranks(size, work)
    for t in range(AHEAD):
        owner, items, shared = asked(problem, size, t)
        for rank in range(size):
            others = set().union(*(items[r] for r in range(size) if r != rank))
            both = {k for k in items[rank] & others if owner[problem.n_users + k] == rank}
            common = sum(owner[problem.n_users + k] == rank for k in shared)
            assert found[rank][t][rank] == len(both) + common
    assert sum(one[t][rank] for rank, one in enumerate(found) for t in range(AHEAD)) > 0


def test_one_rank_copies_and_sends_nothing():
    problem = problem_of("own, adam")

    def work(group):
        engine = ClusterEngine(problem, group=group)
        engine.run(STEPS)
        copied = sum(int(step.expected.sum()) for step in engine._steps.values())
        engine.close()
        return np.array_equal(engine.own_rows, np.arange(problem.n_rows)), copied

    assert on_ranks(1, work) == [(True, 0)]


@pytest.mark.parametrize("name", THREE)
def test_a_hybrid_has_the_same_collectives(name):
    problem = problem_of(name)
    start = 2 if problem.cached else 0  # the vectors that the cache starts from
    for _, collectives in on_ranks(2, lambda group: counted(problem, group)):
        assert collectives == 2 * STEPS + 2 * -(-STEPS // AHEAD) + 1 + start


@pytest.mark.parametrize("name", DEFAULT)
def test_two_collectives_a_step_and_two_a_plan_and_no_byte_more_than_the_rows(name):
    problem, size = problem_of(name), 3
    found = on_ranks(size, lambda group: counted(problem, group))
    counts = [rows_sent(problem, size, t) for t in range(STEPS)]
    row = problem.options.dim * 4
    plans = -(-STEPS // AHEAD)
    for rank, (nbytes, collectives) in enumerate(found):
        assert collectives == 2 * STEPS + 2 * plans + 1  # one for the log of the run
        rows = sum(int(one[rank].sum() + one[:, rank].sum()) for one in counts)
        planned = nbytes - rows * row
        # a number and 4 bytes a row asked for, of the steps that were planned
        most = max(int(one[:, rank].sum()) for one in counts)
        assert 0 < planned <= plans * AHEAD * (8 * (size - 1) + 4 * most)


def counted(problem, group):
    engine = ClusterEngine(problem, group=group)
    engine.run(STEPS)
    sent = group.traffic.bytes_sent, group.traffic.collectives
    engine.close()
    return sent


def test_bytes_stay_within_a_twentieth_of_the_formula():
    """2 (P - 1) / P (B / P + C) d 4 bytes a rank and step."""
    data, size = random_data(400, 3000, share=0.01), 2
    options = {"batch": 256, "dim": 128, "negatives": 128}
    problem = problem_of("shared, adam", data, **options)
    steps = 2 * AHEAD

    def work(group):
        engine = ClusterEngine(problem, group=group)
        engine.run(steps)
        sent = group.traffic.bytes_sent
        engine.close()
        return sent

    floor = 2 * (size - 1) / size * (256 / size + 128) * 128 * 4
    assert np.mean(on_ranks(size, work)) / steps <= 1.05 * floor


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spread_out": SpreadOut(1.0)}, r"`spread_out` ties .* Use spread_out=None, or device='c"),
        ({"decorrelate": Decorrelate(1.0)}, r"`decorrelate` ties .* Use decorrelate=None, or devi"),
    ],
)
def test_what_a_cluster_does_not_compute_is_refused_by_name(changes, told):
    with pytest.raises(OptionError, match=told):
        on_ranks(1, lambda group: ClusterEngine(problem_of("own, adam", **changes), group=group))


def test_a_module_is_refused_by_name():
    problem = replace(problem_of("own, items"), module=object())
    with pytest.raises(OptionError, match="a hybrid with a `Module` does not train on a cluster"):
        on_ranks(1, lambda group: ClusterEngine(problem, group=group))
