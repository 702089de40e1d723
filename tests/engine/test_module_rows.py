"""A torch module as encoder: the steps of `Linear`, exactly, and whatever else a module does."""

import numpy as np
import pytest

from conftest import random_data
from engine.test_content import LEARNING, features
from nearfar.data.contents import Contents
from nearfar.engine import Problem, make_engine
from nearfar.engine.content import has_content, make_content
from nearfar.engine.item_module import ItemModule, make_module_content
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import DataError, DivergedError, OptionError
from nearfar.method.hybrid import Hybrid, Linear, Module
from nearfar.method.optimiser import SGD, Averaging
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage

torch = pytest.importorskip("torch")

DATA = random_data(crowded=True)
COLUMNS, DIM = 25, 7


def linear(dim):
    return torch.nn.Linear(COLUMNS, dim, bias=False)


def dropping(dim):
    return torch.nn.Sequential(
        torch.nn.Linear(COLUMNS, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(),
        torch.nn.Dropout(0.3), torch.nn.Linear(16, dim),
    )  # fmt: skip


def matrix():
    return features(DATA.n_items, COLUMNS, 2)


def module_problem(
    build=linear,
    *,
    rate=0.01,
    chunk=None,
    seed=3,
    load=None,
    decay=0.0,
    fresh=None,
    at_most=None,
    **options,
):
    """A problem whose items have the rows of `matrix` as contents, read by `load`."""
    encoder = Module(build, learning_rate=rate, decay=decay, chunk=chunk, fresh=fresh)
    hybrid = Hybrid(encoder, id_dropout=0.4, id_decay=0.05)
    rows = matrix()
    has = np.diff(rows.indptr) > 0
    has &= np.cumsum(has) <= (len(has) if at_most is None else at_most)
    ids = [DATA.item_ids.id(int(at)) for at in np.flatnonzero(has)]
    dense = rows.toarray()[has]
    contents = Contents.from_array(dense, ids)
    if load is not None:
        contents = Contents.from_callable(load(contents), ids)
    options = Options(dim=DIM, items=hybrid, **{"batch": 16, "averaging": None} | options)
    module = ItemModule(encoder, DIM, contents, contents.ids.places(DATA.item_ids), seed)
    content = make_module_content(DATA.n_users, DATA.n_items, hybrid, module, has)
    return Problem(DATA, options, seed, horizon=60, content=content, module=module)


def linear_problem(*, seed=3, decay=0.0, **options):
    hybrid = Hybrid(Linear(decay=decay), id_dropout=0.4, id_decay=0.05)
    options = Options(dim=DIM, items=hybrid, **{"batch": 16, "averaging": None} | options)
    content = make_content(DATA.n_users, DATA.n_items, None, hybrid, None, matrix())
    return Problem(DATA, options, seed, horizon=60, content=content)


def as_weights(vectors):
    """The vectors (F, d) of `Linear` as the rows of `torch.nn.Linear`'s weight (d, F)."""
    return vectors.T.reshape(-1, DIM)


def engine_of(problem, state=None):
    return make_engine(problem, state, device="cpu", threads=1)


@pytest.mark.parametrize("learning", LEARNING)
def test_a_linear_module_takes_the_steps_of_linear(learning):
    options = LEARNING[learning]
    rate = options["optimiser"].learning_rate
    oracle = ReferenceEngine(linear_problem(**options))
    problem = module_problem(rate=rate, **options)
    state = problem.initial_state()
    n = problem.n_rows
    state.rows[:n] = oracle.state.rows[:n]
    state.rows[n:, 0] = as_weights(oracle.state.rows[n:, 0])
    engine = engine_of(problem, state)
    np.testing.assert_allclose(engine.points(), oracle.points(), atol=1e-6)
    expected, found = oracle.run(40), engine.run(40)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-4, rtol=2e-4)
    engine.settle()
    there, here = oracle.tables(), engine.tables()
    np.testing.assert_allclose(here[:n], there[:n], atol=2e-4)
    np.testing.assert_allclose(here[n:], as_weights(there[n:]), atol=2e-4)
    np.testing.assert_allclose(engine.points(), oracle.points(), atol=2e-4)
    np.testing.assert_allclose(problem.encoded(here), engine.points(), atol=1e-6)


def test_a_step_encodes_its_distinct_items_once():
    problem = module_problem(sampler=Popularity(0.5), negatives=2)
    engine, oracle = engine_of(problem), ReferenceEngine(linear_problem(
        sampler=Popularity(0.5), negatives=2))  # fmt: skip
    has = has_content(problem.content)[problem.n_users :]
    wanted = 0
    for step in range(20):
        pairs = oracle.pairs(step)
        drawn = [k for row in oracle.negatives(step, pairs) for k in row if k >= 0]
        wanted += has[np.unique([*drawn, *(item for _, item in pairs)])].sum()
    engine.run(20)
    assert engine.modules.n_encoded == wanted
    assert engine.modules.n_refreshed == 0


def test_the_second_stage_encodes_only_what_it_chooses():
    problem = module_problem(sampler=TwoStage(12, 0.5), negatives=2)
    engine, steps = engine_of(problem), problem.steps_per_epoch
    engine.run(steps)
    has = has_content(problem.content)
    assert engine.modules.n_refreshed == has.sum()  # each once an epoch
    assert engine.modules.n_encoded <= steps * 16 * 3  # not the 12 candidates


@pytest.mark.parametrize("sampler", [Shared(0.5), Popularity(0.5)])
def test_chunks_give_the_same_gradients(sampler):
    options = {"sampler": sampler, "negatives": 9, "optimiser": SGD(0.02)}
    whole, parts = (engine_of(module_problem(chunk=n, **options)) for n in (None, 3))
    whole.run(20)
    parts.run(20)
    np.testing.assert_allclose(parts.tables(), whole.tables(), atol=1e-5)
    assert parts.modules.n_encoded == whole.modules.n_encoded


def test_shared_negatives_partly_from_the_cache():
    options = {"sampler": Shared(0.5), "negatives": 12, "optimiser": SGD(0.02), "rate": 0.02}
    plain, all_fresh = (engine_of(module_problem(fresh=n, **options)) for n in (None, 12))
    plain.run(10)
    all_fresh.run(10)
    assert np.array_equal(all_fresh.tables(), plain.tables())
    assert all_fresh.modules.n_encoded == plain.modules.n_encoded

    problem = module_problem(fresh=3, **options)
    engine, has = engine_of(problem), has_content(problem.content)
    for step in range(8):
        before, encoded = engine.tables(), engine.modules.n_encoded
        engine.run(1)
        moved = np.flatnonzero((engine.tables() != before)[: problem.n_rows].any(1))
        pairs = ReferenceEngine(linear_problem(sampler=Shared(0.5), negatives=12)).pairs(step)
        candidates = ReferenceEngine(linear_problem(sampler=Shared(0.5), negatives=12)).candidates(
            step
        )
        turn = [k for at, k in enumerate(candidates) if (at - step * 3) % 12 < 3]
        asked = np.unique([*turn, *(item for _, item in pairs)])
        assert engine.modules.n_encoded - encoded == has[problem.n_users + asked].sum()
        items = moved[has[moved]] - problem.n_users
        assert set(items) <= set(asked)  # the others have no gradient


def test_cached_negatives_are_those_of_the_last_encoding():
    options = {"sampler": Shared(0.5), "negatives": 12, "optimiser": SGD(1e-9), "rate": 1e-9}
    exact = engine_of(module_problem(**options))
    cached = engine_of(module_problem(fresh=1, **options))
    # nothing moves, and delta is 0
    assert np.allclose(exact.points(), cached.points())
    assert np.allclose(cached.modules.cache.numpy(), cached.points()[DATA.n_users :], atol=1e-6)
    log, other = exact.run(6), cached.run(6)
    np.testing.assert_allclose(log["triplet"], other["triplet"], rtol=1e-5)


def test_a_step_is_the_same_in_any_chunk_of_steps_and_from_any_state():
    options = {"sampler": TwoStage(12, 0.5), "negatives": 2, "averaging": Averaging()}
    problem = module_problem(dropping, **options)
    one, other = engine_of(problem), engine_of(problem)
    one.run(33)
    for count in (1, 11):
        other.run(count)
    again = engine_of(module_problem(dropping, **options), other.state.copy())
    again.run(21)
    for engine in (one, again):
        engine.settle()
        engine.average(0.5)
    assert np.array_equal(one.tables(), again.tables())
    assert np.array_equal(one.points(), again.points())
    assert np.array_equal(one.state.cache, again.state.cache)
    assert np.array_equal(one.state.cached_at, again.state.cached_at)
    noted = np.zeros(problem.n_items, int)
    for step in range(33):
        noted[np.array(problem.refreshed(step), int) - problem.n_users] = step
    assert one.state.cached_at.tolist() == noted.tolist()


def test_points_of_some_rows_are_those_of_all():
    """Only these contents are encoded; with `alone` as if every delta were 0."""
    problem = module_problem(sampler=Shared(0.5), negatives=9)
    engine, rows = engine_of(problem), problem.n_users + np.array([7, 3, 5])
    engine.run(20)
    tables = engine.tables()
    np.testing.assert_allclose(problem.encoded(tables, rows), engine.points(rows), atol=1e-6)
    alone = problem.encoded(tables, rows, alone=True)
    tables[: problem.n_rows] = 0.0
    np.testing.assert_allclose(alone, problem.encoded(tables)[rows], atol=1e-6)
    assert not np.allclose(alone, engine.points(rows))


def test_steps_without_any_content_are_taken():
    problem = module_problem(at_most=1, batch=2, sampler=Popularity(0.5), negatives=1)
    engine, encoded = engine_of(problem), []
    for _ in range(30):
        before = engine.modules.n_encoded
        engine.run(1)
        encoded.append(engine.modules.n_encoded - before)
    assert set(encoded) == {0, 1}
    assert np.isfinite(engine.points()).all()


def test_dropout_differs_between_steps_and_seeds():
    first, second = (engine_of(module_problem(dropping, seed=seed)) for seed in (1, 2))
    first.run(1)
    second.run(1)
    rows = np.flatnonzero(has_content(first.problem.content))[:8].astype(np.int64)
    drawn = [first.modules._forward(rows, step, 0).detach().numpy() for step in (5, 5, 6)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_statistics_of_batches_are_kept_in_the_tables():
    problem = module_problem(dropping)
    engine = engine_of(problem)
    engine.run(5)
    net = engine.modules.net
    assert int(net[1].num_batches_tracked) == 5
    saved = problem.module.loaded(torch.from_numpy(engine.tables()[problem.n_rows :]), "cpu")
    for mine, theirs in zip(net.state_dict().values(), saved.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def frozen(dim):
    net = linear(dim)
    net.weight.requires_grad_(False)
    return net


def test_a_frozen_module_is_not_moved_and_deltas_are():
    problem = module_problem(frozen, decay=0.1)
    engine = engine_of(problem)
    before = engine.tables()
    engine.run(20)
    after, n = engine.tables(), problem.n_rows
    assert np.array_equal(before[n:], after[n:])
    items = np.flatnonzero(has_content(problem.content))
    assert np.abs(after[items]).max() > 0.01


def test_decay_pulls_weights_to_zero():
    lengths = []
    for decay in (0.0, 1.0):
        problem = module_problem(decay=decay, optimiser=SGD(0.02), rate=0.02)
        engine = engine_of(problem)
        engine.run(30)
        lengths.append(np.linalg.norm(engine.tables()[problem.n_rows :]))
    assert lengths[1] < 0.8 * lengths[0]


def test_mixed_precision_is_near():
    options = {"sampler": Shared(0.5), "negatives": 9}
    exact = engine_of(module_problem(**options))
    problem = module_problem(**options)
    mixed = Module(linear, learning_rate=0.01, precision="bfloat16")
    problem.module.encoder = mixed
    rounded = engine_of(problem)
    exact.run(10)
    rounded.run(10)
    difference = np.abs(exact.points() - rounded.points()).max()
    assert 0 < difference < 0.1


# ------------------------------------------------------------------------------- what is bad


def wrong_shape(dim):
    return torch.nn.Linear(COLUMNS, dim + 1)


class Nothing(torch.nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return self.made(x)


def test_a_module_that_returns_another_shape_is_refused():
    with pytest.raises(DataError, match=r"wrong_shape must return .*\(\d+, 7\); got \(\d+, 8\)"):
        engine_of(module_problem(wrong_shape)).run(1)
    with pytest.raises(DataError, match="got str for the contents"):
        engine_of(module_problem(lambda dim: Nothing(lambda x: "a"))).run(1)


def test_a_module_that_raises_is_named():
    def raising(x):
        raise KeyError("no such layer")

    with pytest.raises(DataError, match=r"cannot encode contents of the shape .*no such layer"):
        engine_of(module_problem(lambda dim: Nothing(raising))).run(1)


def test_a_vector_that_is_not_finite_is_named_by_its_id():
    problem = module_problem()
    items = DATA.item_ids
    bad = problem.module.contents.ids.id(3)

    def nan_at(contents):
        marked = contents.take([3])[0]
        return lambda ids: np.where(
            (contents.read(ids) == marked).all(1)[:, None],
            1e38, contents.read(ids),
        )  # fmt: skip

    class Squares(torch.nn.Module):
        def forward(self, x):
            return (x * x)[:, :DIM]

    engine = engine_of(module_problem(lambda dim: Squares(), load=nan_at))
    with pytest.raises(DivergedError, match=rf"not finite .* id {bad!r}"):
        engine.run(problem.steps_per_epoch)
    assert bad in items


def test_a_loader_that_raises_is_named_by_its_id():
    def gone(contents):
        bad = contents.ids.id(5)

        def load(ids):
            if bad in ids:
                raise OSError("the disk is gone")
            return contents.read(ids)

        return load

    problem = module_problem(load=gone)
    bad = problem.module.contents.ids.id(5)
    with pytest.raises(DataError, match=rf"id {bad!r} cannot be read: OSError: the disk is gone"):
        engine_of(problem).run(problem.steps_per_epoch)


def test_what_is_no_module_is_refused():
    with pytest.raises(OptionError, match=r"must return a torch.nn.Module; .* returned int"):
        module_problem(lambda dim: 3)
    with pytest.raises(OptionError, match="complex"):
        module_problem(lambda dim: torch.nn.Linear(3, dim, dtype=torch.complex64))


def test_the_reference_refuses_modules():
    with pytest.raises(OptionError, match="Module trains in PyTorch"):
        make_engine(module_problem(), None, device="reference", threads=1)
