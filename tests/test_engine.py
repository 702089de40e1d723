"""The CPU engine against the reference: the same integers, numbers within rounding."""

import itertools

import numpy as np
import pytest

from conftest import random_data
from nearfar.engine import Problem, State, make_engine
from nearfar.engine.cpu import CPUEngine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import OptionError
from nearfar.objective import Decorrelate, SpreadOut, Triplet
from nearfar.optimiser import SGD, Adagrad, Adam
from nearfar.options import Options
from nearfar.sampling import Popularity, TwoStage, Uniform

SAMPLERS = {
    "uniform": Uniform(),
    "popularity": Popularity(0.7),
    "popularity distinct": Popularity(distinct=True, redraws=3),
    "two-stage": TwoStage(20),
    "two-stage replaced": TwoStage(25, -0.5, distinct=False),
    "two-stage initial": TwoStage(20, vectors="initial"),
    "two-stage released": TwoStage(1000, released_weight=True),
}
LEARNING = {
    "adam, spread-out": {"spread_out": SpreadOut(1.0), "optimiser": Adam(0.01), "dim": 9},
    "adagrad, rank, printed covariance": {
        "triplet": Triplet(0.5, rank_weight=True),
        "decorrelate": Decorrelate(1.0),
        "optimiser": Adagrad(0.1),
        "dim": 8,
    },
    "adam, squared covariance": {
        # strong, for Adam would blow up the rounding of a tiny gradient
        "decorrelate": Decorrelate(200.0, squared=True),
        "optimiser": Adam(0.01),
        "dim": 16,
    },
    "sgd, all": {
        "triplet": Triplet(1.5, rank_weight=True),
        "spread_out": SpreadOut(0.5),
        "decorrelate": Decorrelate(1.0),
        "optimiser": SGD(0.01),
        "dim": 2,
    },
}
DATA = random_data(crowded=True)


def agree(options, steps=40, threads=2, data=DATA, tolerance=2e-4):
    """Both engines side by side; the log and the points agree."""
    problem = Problem(data, options, seed=3, horizon=steps)
    reference, cpu = ReferenceEngine(problem), CPUEngine(problem, threads=threads)
    expected, found = reference.run(steps), cpu.run(steps)
    cpu.settle()
    for name in ("pairs", "violated", "missed"):
        assert np.array_equal(expected[name], found[name]), name
    for name in ("triplet", "spread_out", "decorrelate"):
        scale = 1 + np.abs(expected[name]).max()
        assert np.abs(expected[name] - found[name]).max() < tolerance * scale, name
    assert np.abs(reference.points() - cpu.points()).max() < tolerance
    start = problem.initial_state().rows[:, 0]
    assert np.abs(cpu.state.rows[:, 0] - start).max() > 0.02, "nothing was learned"
    cpu.close()


@pytest.mark.parametrize("geometry", ["sphere", "ball", "free"])
@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_cpu_engine_agrees_with_the_reference(geometry, learning, sampler):
    agree(
        Options(
            geometry=geometry,
            sampler=SAMPLERS[sampler],
            negatives=3,
            batch=16,
            **LEARNING[learning],
        )
    )


@pytest.mark.parametrize(
    ("dim", "negatives", "batch"), [(2, 1, 1), (3, 2, 7), (128, 1, 64), (67, 5, 500), (130, 9, 33)]
)
def test_engines_agree_for_any_shape(dim, negatives, batch):
    agree(
        Options(dim=dim, negatives=negatives, batch=batch, optimiser=Adam(0.01)),
        steps=10 if batch > 100 else 25,
    )


def test_the_integers_of_a_step_are_the_same():
    for name, sampler in SAMPLERS.items():
        options = Options(dim=8, sampler=sampler, negatives=3, batch=16, optimiser=SGD(1e-30))
        problem = Problem(DATA, options, seed=9)
        reference, cpu = ReferenceEngine(problem), CPUEngine(problem)
        for step in range(30):
            pairs = reference.pairs(step)
            negatives = reference.negatives(step, pairs)
            cpu.run(1)
            plan = cpu._plans
            size = plan.size[0, 0]
            entries = plan.entries[0, :size].copy()
            entries[:, 1:] -= np.where(entries[:, 1:] >= 0, problem.n_users, 0)
            expected = [[u, i, *ks] for (u, i), ks in zip(pairs, negatives, strict=True)]
            assert entries.tolist() == expected, (name, step)
            reference.state.step += 1
        cpu.close()


def test_an_epoch_visits_every_pair_once():
    options = Options(dim=4, batch=32, negatives=1)
    problem = Problem(DATA, options)
    engine = ReferenceEngine(problem)
    for epoch in range(2):
        steps = range(epoch * problem.steps_per_epoch, (epoch + 1) * problem.steps_per_epoch)
        pairs = [pair for step in steps for pair in engine.pairs(step)]
        assert len(pairs) == DATA.n_pairs
        assert set(pairs) == set(zip(DATA.pair_users().tolist(), DATA.items.tolist(), strict=True))
    assert engine.pairs(0) != engine.pairs(problem.steps_per_epoch)


VARIED = [
    Options(dim=32, sampler=s, negatives=3, batch=50, spread_out=so, decorrelate=de, geometry=g)
    for (s, so, de, g) in [
        (Uniform(), None, None, "sphere"),
        (Popularity(), SpreadOut(0.1), None, "sphere"),
        (Popularity(), None, Decorrelate(1.0), "ball"),
        (TwoStage(40), SpreadOut(0.1), None, "sphere"),
    ]
]


@pytest.mark.parametrize("options", VARIED)
def test_tables_are_bit_identical_for_any_number_of_threads_and_any_chunks(options):
    problem = Problem(DATA, options, seed=1, horizon=100)
    results = []
    for threads, chunks in itertools.product([1, 2, 4], [[60], [1, 7, 52]]):
        engine = CPUEngine(problem, threads=threads)
        logs = [engine.run(count) for count in chunks]
        engine.points()  # looking changes nothing
        results.append(
            (
                engine.state.rows.tobytes(),
                engine.state.last.tobytes(),
                np.concatenate([log["triplet"] for log in logs]).tobytes(),
                engine.points().tobytes(),
            )
        )
        engine.close()
    assert len(set(results)) == 1


def test_the_bits_do_not_depend_on_where_arrays_lie_in_memory():
    """Short rows beside each other on the heap: the compiler has a slow path for those."""
    rng, kept, results = np.random.default_rng(0), [], set()
    problem = Problem(DATA, Options(dim=8, batch=32), seed=1, horizon=60)
    for _ in range(200):
        kept += [np.empty(rng.integers(1, 4000), np.uint8) for _ in range(40)]
        kept = [kept[i] for i in rng.permutation(len(kept))[: len(kept) // 2]]
        engine = CPUEngine(problem)
        engine.run(40)
        results.add(engine.points().tobytes())
        engine.close()
    assert len(results) == 1


def test_seeds_differ():
    options = Options(dim=8, batch=16)
    results = set()
    for seed in range(3):
        engine = CPUEngine(Problem(DATA, options, seed))
        engine.run(5)
        results.add(engine.points().tobytes())
        engine.close()
    assert len(results) == 3


def test_a_state_can_be_taken_over_by_the_other_engine():
    options = Options(dim=6, batch=16, negatives=2, optimiser=Adam(0.01))
    problem = Problem(DATA, options, horizon=60)
    whole = ReferenceEngine(problem)
    whole.run(60)
    first = CPUEngine(problem)
    first.run(30)
    first.settle()
    state = first.state.copy()
    first.close()
    second = make_engine(problem, state, device="reference", threads=1)
    second.run(30)
    assert np.abs(second.points() - whole.points()).max() < 1e-4


def test_unknown_device_is_refused():
    with pytest.raises(OptionError, match="`device` must be one of cpu, reference; got 'tpu'"):
        make_engine(Problem(DATA, Options()), None, device="tpu", threads=1)


def test_a_poisoned_row_reaches_the_loss():
    """A NaN must not be passed over by a comparison: the guard has to see it."""
    for row in (0, DATA.n_users):
        problem = Problem(DATA, Options(dim=4, batch=DATA.n_pairs))
        state: State = problem.initial_state()
        state.rows[row, 0] = np.nan
        engine = CPUEngine(problem, state)
        assert np.isnan(engine.run(1)["triplet"][0])
        engine.close()


def test_gradient_pulls_the_positive_near_and_pushes_the_negative_away():
    """The sign, on its own: after some steps liked items are nearer than the others."""
    for device in ("cpu", "reference"):
        problem = Problem(DATA, Options(dim=16, batch=16, optimiser=Adam(0.02)), horizon=200)
        engine = make_engine(problem, None, device=device, threads=1)

        def gap(engine=engine):
            points = engine.points()
            score = points[: DATA.n_users] @ points[DATA.n_users :].T
            liked = DATA.to_csr().toarray() > 0
            return score[liked].mean() - score[~liked].mean()

        before = gap()
        engine.run(100)
        assert gap() > before + 0.2
        engine.close()
