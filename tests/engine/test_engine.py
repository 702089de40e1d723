"""The engines against the reference: the same integers, numbers within rounding."""

import itertools
from functools import lru_cache

import numpy as np
import pytest

from conftest import SAMPLERS, TORCH_DEVICES, plain, random_data
from nearfar import Interactions
from nearfar.engine import Problem, State, make_engine
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import OptionError
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

NEGATIVES = {"shared": 11, "shared popular": 25}
"""3 for the others."""
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
    "sgd, soft": {"triplet": Triplet(temperature=0.3), "optimiser": SGD(0.01), "dim": 11},
    "adam, soft, rank, squared covariance": {
        "triplet": Triplet(0.7, rank_weight=True, temperature=0.6),
        "decorrelate": Decorrelate(200.0, squared=True),
        "optimiser": Adam(0.01),
        "dim": 6,
    },
    "adagrad, soft, spread-out": {
        "triplet": Triplet(0.0, temperature=0.1),
        "spread_out": SpreadOut(1.0),
        "optimiser": Adagrad(0.1),
        "dim": 5,
    },
}
PAIRED = [
    (sampler, learning)
    for sampler, learning in itertools.product(SAMPLERS, LEARNING)
    if not (sampler.startswith("shared") and "spread_out" in LEARNING[learning])  # refused
]
GEOMETRIES = ["sphere", "ball", "free"]
PAIRS = {
    "own": ("adam, squared covariance", "adagrad, soft, spread-out", "sgd, all"),
    "two-stage": ("adam, spread-out", "adagrad, rank, printed covariance", "sgd, soft"),
    "shared": (
        "adam, soft, rank, squared covariance",
        "sgd, soft",
        "adagrad, rank, printed covariance",
    ),
}
"""What the default run learns with each kind of negatives: all pairs, not the whole product.

How a step is computed depends on the kind of negatives (a pair's own, those chosen in a second
stage, a batch's), the optimiser, hard or soft, spread-out or not, decorrelation or not. Each two of
these meet in a piece of code (a kernel that takes the records of both) or not at all, and no piece
takes three: so every pair of them is here, in nine kernels instead of eighteen. Samplers of a
kind differ by numbers that only the drawing reads, and the geometry is a number that only the
rows read: every sampler and every part meets every geometry. The whole product is for
`make test-all`.
"""


def kind_of(sampler):
    needs = SAMPLERS[sampler].needs
    return "shared" if needs.shared else "two-stage" if needs.candidates else "own"


def in_pairs(sampler, learning, geometry):
    """Whether the default run has this setting: of each sampler one in each geometry."""
    learnings = PAIRS[kind_of(sampler)]
    if learning not in learnings:
        return False
    turn = list(SAMPLERS).index(sampler) + learnings.index(learning)
    return geometry == GEOMETRIES[turn % len(GEOMETRIES)]


SETTINGS = [
    pytest.param(*setting, marks=() if in_pairs(*setting) else pytest.mark.full)
    for setting in ((*pair, geometry) for pair in PAIRED for geometry in GEOMETRIES)
]
DATA = random_data(crowded=True)
each_engine = pytest.mark.parametrize("device", ["cpu", *TORCH_DEVICES])


@lru_cache(maxsize=2)
def specified(options, steps, data):
    """What the reference comes to; the engines are tested one after the other, it runs once."""
    reference = ReferenceEngine(Problem(data, options, seed=3, horizon=steps))
    return reference, reference.run(steps)


def agree(device, options, steps=40, threads=2, data=DATA, tolerance=2e-4):
    """An engine and the reference side by side; the log and the points agree."""
    problem = Problem(data, options, seed=3, horizon=steps)
    reference, expected = specified(options, steps, data)
    engine = make_engine(problem, None, device=device, threads=threads)
    found = engine.run(steps)
    before = engine.points()
    engine.settle()
    for name in ("pairs", "violated", "missed"):
        assert np.array_equal(expected[name], found[name]), name
    for name in ("triplet", "spread_out", "decorrelate"):
        scale = 1 + np.abs(expected[name]).max()
        assert np.abs(expected[name] - found[name]).max() < tolerance * scale, name
    assert np.abs(reference.points() - engine.points()).max() < tolerance
    assert np.abs(before - engine.points()).max() < 1e-6
    state, start = engine.state, problem.initial_state()
    assert np.abs(state.rows - reference.state.rows).max() < 100 * tolerance
    assert np.abs(state.rows[:, 0] - start.rows[:, 0]).max() > 0.02, "nothing was learned"
    engine.close()


@each_engine  # the first of the decorators varies fastest
@pytest.mark.parametrize(("sampler", "learning", "geometry"), SETTINGS)
def test_engines_agree_with_the_reference(device, geometry, learning, sampler):
    agree(
        device,
        plain(
            geometry=geometry,
            sampler=SAMPLERS[sampler],
            negatives=NEGATIVES.get(sampler, 3),
            batch=16,
            **LEARNING[learning],
        ),
    )


@each_engine
def test_engines_agree_where_stage_two_compares_initial_users(device):
    sampler = TwoStage(25, 0.5, distinct=False, vectors="initial", towards="user", sharpness=0.4)
    agree(device, plain(sampler=sampler, negatives=3, batch=16, dim=11, optimiser=SGD(0.1)))


@pytest.mark.parametrize(
    ("dim", "negatives", "batch"), [(2, 1, 1), (3, 2, 7), (128, 1, 64), (67, 5, 500), (130, 9, 33)]
)
@each_engine
def test_engines_agree_for_any_shape(device, dim, negatives, batch):
    agree(
        device,
        plain(dim=dim, negatives=negatives, batch=batch, optimiser=Adam(0.01)),
        steps=10 if batch > 100 else 25,
    )


@each_engine
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_a_temperature_that_is_left_to_the_data_counts_the_items_that_are_drawn(device, beta):
    thin = DATA.subset(DATA.items >= 20)  # the axis still has the others
    assert thin.n_items == DATA.n_items
    q = thin.item_counts[20:] ** beta
    effective = 1 / np.sum((q / q.sum()) ** 2)
    assert effective == pytest.approx(DATA.n_items - 20) or (beta and effective < thin.n_items - 20)
    temperature = round((50 / effective) ** 0.25, 6)
    points = {}
    for given in (None, temperature, 1.2 * temperature):
        options = plain(
            sampler=Shared(beta), negatives=11, batch=16, dim=8, optimiser=Adam(0.01),
            triplet=Triplet(0.2, temperature=given),
        )  # fmt: skip
        agree(device, options, data=thin)
        engine = make_engine(Problem(thin, options, horizon=20), None, device=device, threads=1)
        engine.run(20)
        points[given] = engine.points()
        engine.close()
    assert np.array_equal(points[None], points[temperature])
    assert not np.array_equal(points[None], points[1.2 * temperature])


SHAPES = [
    (2, 1, 1),
    (3, 30, 7),
    (9, 59, 128),  # one block of pairs, and all items but one
    (128, 40, 300),  # several blocks, the last one smaller
    (130, 1000, 500),  # more than there are items, and two steps an epoch
]
# beta says what is drawn, before anything is computed with it: of three things, each pair
SHAPED = [
    pytest.param(*shape, beta, heat, marks=() if (a + b + c) % 2 == 0 else pytest.mark.full)
    for a, shape in enumerate(SHAPES)
    for b, beta in enumerate([0.0, -0.5])
    for c, heat in enumerate([0.0, 0.3])
]


@pytest.mark.parametrize(("dim", "negatives", "batch", "beta", "temperature"), SHAPED)
@each_engine
def test_engines_agree_for_any_shape_of_shared_negatives(
    device, dim, negatives, batch, beta, temperature
):
    agree(
        device,
        plain(
            dim=dim,
            sampler=Shared(beta),
            negatives=negatives,
            batch=batch,
            triplet=Triplet(temperature=temperature),
            optimiser=Adam(0.01),
        ),
        steps=10 if batch > 100 else 25,
    )


@each_engine
def test_engines_agree_where_users_have_all_or_none_of_the_shared_negatives(device):
    # user 0 has all items, user 1 one of them: of two shared negatives mostly none
    data = Interactions.from_pairs([(0, i) for i in range(30)] + [(1, 3), (2, 3), (2, 5), (3, 29)])
    for temperature, negatives in itertools.product((0.0, 0.3), (2, 30)):
        triplet = Triplet(rank_weight=True, temperature=temperature)
        options = plain(
            dim=5, sampler=Shared(), negatives=negatives, batch=9, triplet=triplet,
            optimiser=Adam(0.01),
        )  # fmt: skip
        agree(device, options, data=data)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
@pytest.mark.parametrize("sampler", [Shared(), Uniform(redraws=2)])
@each_engine
def test_a_batch_without_any_negative_changes_nothing(device, sampler, temperature):
    data = Interactions.from_pairs([(u, i) for u in range(20) for i in range(10)])
    triplet = Triplet(rank_weight=True, temperature=temperature)
    options = plain(dim=5, sampler=sampler, negatives=4, batch=150, triplet=triplet)
    problem = Problem(data, options)
    before = problem.initial_state()
    engine = make_engine(problem, before.copy(), device=device, threads=2)
    log = engine.run(4)
    engine.close()
    for name in ("triplet", "violated"):
        assert not log[name].any(), name
    assert log["missed"].any() == isinstance(sampler, Uniform)  # shared ones are never missed
    after = engine.state
    assert after.rows.tobytes() == before.rows.tobytes()
    assert not after.last.any()


def parts_of(sampler, learning):
    """What the kernels of a step are compiled for, part by part."""
    found = LEARNING[learning]
    return (
        kind_of(sampler),
        type(found["optimiser"]).__name__,
        found.get("triplet", Triplet()).temperature > 0,
        "spread_out" in found,
        "decorrelate" in found,
    )


def test_the_default_run_has_every_pair_of_the_whole_product():
    whole = [one.values for one in SETTINGS]
    chosen = [one.values for one in SETTINGS if not one.marks]
    assert len({parts_of(*one[:2]) for one in chosen}) == 9 < len(chosen) < len(whole) / 5

    def met(settings, *at):
        found = ((*parts_of(*one[:2]), one[0], one[2]) for one in settings)
        return {tuple(one[i] for i in at) for one in found}

    parts, sampler, geometry = range(5), 5, 6
    for first, second in [
        *itertools.combinations(parts, 2),
        *itertools.product((*parts, sampler), [geometry]),
    ]:
        assert met(chosen, first, second) == met(whole, first, second)


def planned(engine, problem):
    """Entries and candidates of the last step, whichever engine has planned it."""
    plan = engine._plans if isinstance(engine, CPUEngine) else engine._plan
    entries, candidates = (np.array(part[0].tolist()) for part in (plan.entries, plan.candidates))
    entries[:, 1:] -= np.where(entries[:, 1:] >= 0, problem.n_users, 0)
    return entries, candidates.tolist()


@pytest.mark.parametrize("name", SAMPLERS)
@each_engine
def test_the_integers_of_a_step_are_the_same(device, name):
    sampler = SAMPLERS[name]
    options = plain(
        dim=8, sampler=sampler, negatives=NEGATIVES.get(name, 3), batch=16, optimiser=SGD(1e-30)
    )
    problem = Problem(DATA, options, seed=9)
    reference = ReferenceEngine(problem)
    engine = make_engine(problem, None, device=device, threads=1)
    for step in range(30):
        pairs = reference.pairs(step)
        negatives = reference.negatives(step, pairs)
        engine.run(1)
        entries, candidates = planned(engine, problem)
        if isinstance(sampler, Shared):
            shared = reference.candidates(step)
            assert candidates == shared, step
            left = [[k for k in shared if not DATA.contains(u, k)] for u, _ in pairs]
            assert negatives == left, step
            negatives = [[]] * len(pairs)
        expected = [[u, i, *ks] for (u, i), ks in zip(pairs, negatives, strict=True)]
        assert entries[: len(pairs)].tolist() == expected, step
        reference.state.step += 1
    engine.close()


def test_an_epoch_visits_every_pair_once():
    options = plain(dim=4, batch=32, negatives=1)
    problem = Problem(DATA, options)
    engine = ReferenceEngine(problem)
    for epoch in range(2):
        steps = range(epoch * problem.steps_per_epoch, (epoch + 1) * problem.steps_per_epoch)
        pairs = [pair for step in steps for pair in engine.pairs(step)]
        assert len(pairs) == DATA.n_pairs
        assert set(pairs) == set(zip(DATA.pair_users().tolist(), DATA.items.tolist(), strict=True))
    assert engine.pairs(0) != engine.pairs(problem.steps_per_epoch)


SOFT = Triplet(temperature=0.3)
VARIED = [
    plain(dim=32, negatives=3, batch=50, **changes)
    for changes in (
        {},
        {"triplet": SOFT},
        {"sampler": Popularity(), "spread_out": SpreadOut(0.1)},
        {"sampler": Popularity(), "decorrelate": Decorrelate(1.0), "geometry": "ball"},
        {"sampler": TwoStage(40), "spread_out": SpreadOut(0.1), "triplet": SOFT},
    )
] + [
    # several blocks of pairs, and neither items nor pairs a multiple of anything
    plain(dim=33, sampler=Shared(0.5), negatives=47, batch=300, **changes)
    for changes in (
        {},
        {"triplet": SOFT},
        {"triplet": SOFT, "decorrelate": Decorrelate(1.0), "geometry": "ball"},
    )
]


@pytest.mark.parametrize("options", VARIED)
def test_tables_are_bit_identical_for_any_number_of_threads_and_any_chunks(options):
    problem = Problem(DATA, options, seed=1, horizon=100)
    results = []
    for threads, chunks in itertools.product([1, 2, 4], [[60], [1, 7, 52]]):
        engine, logs = CPUEngine(problem, threads=threads), []
        for count in chunks:
            logs.append(engine.run(count))
            engine.close()
            engine = CPUEngine(problem, engine.state.copy(), threads=threads)  # resumed
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


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"dim": 8, "batch": 32}, 200),
        ({"dim": 7, "batch": 150, "negatives": 13, "sampler": Shared(), "triplet": SOFT}, 100),
    ],
)
def test_the_bits_do_not_depend_on_where_arrays_lie_in_memory(changes, runs):
    """Short rows beside each other on the heap: the compiler has a slow path for those."""
    rng, kept, results = np.random.default_rng(0), [], set()
    problem = Problem(DATA, plain(**changes), seed=1, horizon=60)
    for _ in range(runs):
        kept += [np.empty(rng.integers(1, 4000), np.uint8) for _ in range(40)]
        kept = [kept[i] for i in rng.permutation(len(kept))[: len(kept) // 2]]
        engine = CPUEngine(problem)
        engine.run(40)
        results.add(engine.points().tobytes())
        engine.close()
    assert len(results) == 1


def test_seeds_differ():
    options = plain(dim=8, batch=16)
    results = set()
    for seed in range(3):
        engine = CPUEngine(Problem(DATA, options, seed))
        engine.run(5)
        results.add(engine.points().tobytes())
        engine.close()
    assert len(results) == 3


@pytest.mark.parametrize(
    "changes",
    [{"negatives": 2}, {"negatives": 20, "sampler": Shared(0.5), "triplet": SOFT}],
)
@each_engine
def test_a_state_can_be_taken_over_by_another_engine(device, changes):
    options = plain(dim=6, batch=16, optimiser=Adam(0.01), **changes)
    problem = Problem(DATA, options, horizon=60)
    whole = ReferenceEngine(problem)
    whole.run(60)
    for way in ((device, "reference"), ("cpu", device), (device, "cpu")):
        state = problem.initial_state()
        for name in way:
            engine = make_engine(problem, state, device=name, threads=1)
            engine.run(30)
            engine.settle()
            state, points = engine.state.copy(), engine.points()
            engine.close()
        assert state.step == 60
        assert np.abs(points - whole.points()).max() < 1e-4


def test_unknown_device_is_refused():
    with pytest.raises(OptionError, match=r"`device` must be one of cpu, reference, .*; got 'tpu'"):
        make_engine(Problem(DATA, plain()), None, device="tpu", threads=1)


@pytest.mark.parametrize("device", ["cpu", "reference", TORCH_DEVICES[0]])
def test_fast_is_for_a_gpu(device):
    with pytest.raises(OptionError, match=r"`fast` rounds .* of a GPU, but `device` is .*omit `fa"):
        make_engine(Problem(DATA, plain()), None, device=device, threads=1, fast=True)


@pytest.mark.parametrize("triplet", [pytest.param(Triplet(), marks=pytest.mark.full), SOFT])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": Shared(), "negatives": DATA.n_items},
        pytest.param({"sampler": TwoStage(1000)}, marks=pytest.mark.full),
        pytest.param({"sampler": TwoStage(1000, towards="user")}, marks=pytest.mark.full),
    ],
)
@each_engine
def test_a_poisoned_row_reaches_the_loss(device, changes, triplet):
    """A NaN must not be passed over by a comparison: the guard has to see it."""
    for row in (0, DATA.n_users):
        problem = Problem(DATA, plain(dim=4, batch=DATA.n_pairs, triplet=triplet, **changes))
        state: State = problem.initial_state()
        state.rows[row, 0] = np.nan
        engine = make_engine(problem, state, device=device, threads=1)
        assert np.isnan(engine.run(1)["triplet"][0])
        engine.close()


@pytest.mark.parametrize("changes", [{}, {"sampler": Shared(), "negatives": 20}, {"triplet": SOFT}])
@pytest.mark.parametrize("device", ["cpu", "reference", *TORCH_DEVICES])
def test_gradient_pulls_the_positive_near_and_pushes_the_negative_away(device, changes):
    """The sign, on its own: after some steps liked items are nearer than the others."""
    options = plain(dim=16, batch=16, optimiser=Adam(0.02), **changes)
    problem = Problem(DATA, options, horizon=200)
    engine = make_engine(problem, None, device=device, threads=1)

    def gap():
        points = engine.points()
        score = points[: DATA.n_users] @ points[DATA.n_users :].T
        liked = DATA.to_csr().toarray() > 0
        return score[liked].mean() - score[~liked].mean()

    before = gap()
    engine.run(100)
    assert gap() > before + 0.2
    engine.close()
