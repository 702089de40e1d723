"""The diagnostics, against counting by hand and against the reference engine's own draws."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from conftest import plain, random_data
from nearfar import Interactions, evaluate
from nearfar.data.split import ratio
from nearfar.engine import Problem
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import DataError, OptionError
from nearfar.experiment.analysis import cosines, diagnose, exposure
from nearfar.experiment.cells import Outcome, folder_of, load, save
from nearfar.method.geometry import density, released_overflow_gap
from nearfar.method.loss import Triplet
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.search.scoring import scorer_of
from nearfar.training.drawn import sampling


def points_of(data, dim, seed=1, near=0.0):
    """Random unit points; with `near`, pulled towards one direction."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(data.n_users + data.n_items, dim))
    rows[:, 0] += near
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# ------------------------------------------------------------------------------------ exposure


def test_exposure_by_hand():
    counts = np.array([1, 9, 5, 5, 0, 7, 2, 2, 2, 3, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0])
    #   order: 1 5 | 11 2 | 3 10 | 9 6 | 7 8 | 0 4 | ...
    lists = np.array([[1, 5, 2], [1, 3, -1], [0, 19, 7]])
    found = exposure(lists, counts)
    assert found["decile"].to_list() == list(range(1, 11))
    assert found["items"].to_list() == [2] * 10
    assert found["recommendations"].to_list() == [x / 8 for x in (3, 1, 1, 0, 1, 1, 0, 0, 0, 1)]
    total = counts.sum()
    expected = [x / total for x in (16, 11, 9, 5, 4, 1, 0, 0, 0, 0)]
    assert found["interactions"].to_list() == pytest.approx(expected)


def test_exposure_agrees_with_a_loop_whatever_the_number_of_items():
    rng = np.random.default_rng(0)
    for n_items in (1, 3, 9, 10, 11, 57):
        counts = rng.integers(0, 4, n_items)
        lists = rng.integers(-1, n_items, (20, 5))
        found = exposure(lists, counts)
        order = sorted(range(n_items), key=lambda j: (-counts[j], j))
        for t in range(10):
            places = [p for p in range(n_items) if n_items * t <= 10 * p < n_items * (t + 1)]
            members = [order[p] for p in places]
            assert found["items"][t] == len(members)
            share = sum(int((lists == j).sum()) for j in members) / int((lists >= 0).sum())
            assert found["recommendations"][t] == pytest.approx(share)


def test_exposure_without_anything_is_nan():
    found = exposure(np.full((2, 3), -1), np.zeros(20, np.int64))
    assert np.isnan(found["recommendations"].to_numpy()).all()
    assert np.isnan(found["interactions"].to_numpy()).all()
    assert exposure(np.empty((0, 3), np.int32), np.zeros(0, np.int64))["items"].sum() == 0


def test_exposure_refuses_items_that_are_not_there():
    for lists in ([[0, 3]], [[-2, 0]]):
        with pytest.raises(DataError, match=r"rows in 0 \.\.\. 2, or -1"):
            exposure(np.array(lists), np.array([1, 1, 1]))


# ------------------------------------------------------------------------------------- cosines


def expected_cosines(points, data):
    """The exact probability of each bin, by listing all that can be drawn."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    mass = np.zeros((2, 100))
    n_usable = 0
    for user in range(data.n_users):
        own = data.positives(user).tolist()
        others = [k for k in range(data.n_items) if k not in own]
        if len(own) < 2 or not others:
            continue
        n_usable += len(own)
        for j in own:
            for row, partners in ((0, [k for k in own if k != j]), (1, others)):
                for k in partners:
                    s = float(unit[j] @ unit[k])
                    mass[row, min(int((s + 1) * 50), 99)] += 1 / len(partners)
    return mass / n_usable


def test_cosines_are_distributed_as_they_should_be():
    data = random_data(n_users=12, n_items=25, crowded=True)
    points = points_of(data, 5)[data.n_users :] * 3
    n = 40_000
    found = cosines(points, data, n=n, seed=3)
    expected = expected_cosines(points, data)
    for row, name in enumerate(("positives", "negatives")):
        seen = found[name].to_numpy() * n * 0.02
        assert np.allclose(seen, seen.round(), atol=1e-6)
        assert seen.sum() == pytest.approx(n)
        possible = expected[row] > 0
        assert not seen[~possible].any()
        test = stats.chisquare(seen[possible], expected[row][possible] * n)
        assert test.pvalue > 1e-4
    assert not np.allclose(expected[0], expected[1])


def test_cosines_know_apart_what_goes_together():
    """Two groups of users and items at opposite poles: 1 for positives, -1 for negatives."""
    data = Interactions.from_pairs([(u, i) for u in range(6) for i in range(6) if u % 2 == i % 2])
    points = np.array([[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0]] * 3, np.float32)
    found = cosines(points, data, n=500)
    assert found["positives"].to_list() == [0.0] * 99 + [50.0]
    assert found["negatives"].to_list() == [50.0] + [0.0] * 99


def test_cosines_stand_beside_the_density_of_the_dimension():
    data = random_data()
    for dim in (3, 8):
        found = cosines(points_of(data, dim)[data.n_users :], data, n=10)
        assert found["bin_low"].to_numpy() == pytest.approx(np.arange(-1, 1, 0.02))
        assert found["bin_high"].to_numpy() == pytest.approx(np.arange(-0.98, 1.02, 0.02))
        middle = (found["bin_low"] + found["bin_high"]).to_numpy() / 2
        assert found["density"].to_numpy() == pytest.approx(density(middle, dim))
        assert found["density"].sum() * 0.02 == pytest.approx(1, abs=1e-3)


def test_random_points_have_the_density():
    data = random_data(n_users=60, n_items=800, share=0.05)
    found = cosines(points_of(data, 8)[data.n_users :], data, n=50_000)
    for name in ("positives", "negatives"):
        assert np.abs(found[name] - found["density"]).max() < 0.15


def test_cosines_depend_on_the_seed_alone():
    data = random_data()
    items = points_of(data, 4)[data.n_users :]
    assert cosines(items, data, n=200).equals(cosines(items, data, n=200))
    assert not cosines(items, data, n=200).equals(cosines(items, data, n=200, seed=1))


def test_cosines_without_a_user_who_can_take_part():
    single = Interactions.from_pairs([(0, 0), (1, 1)])
    everything = Interactions.from_pairs([(0, 0), (0, 1)])
    for data in (single, everything):
        found = cosines(np.eye(2, dtype=np.float32), data, n=10)
        assert np.isnan(found["positives"].to_numpy()).all()
        assert np.isnan(found["negatives"].to_numpy()).all()
        assert found.height == 100
    with pytest.raises(OptionError, match="`n`"):
        cosines(np.eye(2, dtype=np.float32), single, n=0)


# ------------------------------------------------------------------------------------ sampling

SAMPLERS = {
    "uniform": Uniform(),
    "popularity": Popularity(0.7),
    "rare": Popularity(-0.5),
    "distinct": Popularity(distinct=True),
    "two-stage": TwoStage(40, beta=0.8),
    "all": TwoStage(1000, beta=0.0),
    "with replacement": TwoStage(30, beta=1.0, distinct=False),
    "initial": TwoStage(40, vectors="initial"),
    "released": TwoStage(40, vectors="initial", released_weight=True),
    "user": TwoStage(40, towards="user", sharpness=0.7),
    "user initial": TwoStage(40, vectors="initial", towards="user", sharpness=2.0),
    "shared": Shared(),
    "shared popular": Shared(0.8),
}
LOSSES = {
    "hard": Triplet(margin=0.3),
    "soft": Triplet(margin=0.3, temperature=0.4),
    "ranked": Triplet(margin=0.3, rank_weight=True, temperature=0.4),
}


def chances(engine, step, user, positive):
    """Pr of each item for a place of a pair, by the formulas written again; {} if none can be."""
    problem, sampler = engine.problem, engine.problem.options.sampler
    own = set(problem.interactions.positives(user).tolist())
    counts, dim = problem.interactions.item_counts, problem.options.dim
    if not isinstance(sampler, TwoStage):
        beta = getattr(sampler, "beta", 0.0)
        weight = {
            j: float(f) ** beta for j, f in enumerate(counts) if j not in own and (f or not beta)
        }
    else:
        rows = engine.state.rows[:, 0].astype(float)
        if sampler.vectors == "initial":
            rows = problem.initial_state().rows[:, 0].astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        items, to_user = rows[problem.n_users :], sampler.towards == "user"
        anchor = rows[user] if to_user else items[positive]
        candidates = engine.candidates(step)
        s = {c: float(anchor @ items[c]) for c in candidates}
        gap = released_overflow_gap(dim)
        overflows = [1 - min(x * x, 1.0) + 1e-8 < gap for x in s.values()]
        flat = sampler.released_weight and any(overflows)
        weight = {}
        for c in candidates:
            if c not in own and (flat or to_user or s[c] >= 0):
                power = sampler.sharpness * (dim - 3) / 2
                w = 1.0 if flat else (1 - max(s[c], 0.0) ** 2) ** -power
                weight[c] = weight.get(c, 0.0) + w
    total = sum(weight.values())
    return {j: w / total for j, w in weight.items()}


def shares(gaps, rule, n_items):
    """How much of a pair's gradient pushes each negative; gaps are D^2(i, j) - D^2(i, k)."""
    x = [rule.margin + gap for gap in gaps]
    weight = 1.0
    if rule.rank_weight and x:
        weight = np.log(n_items * sum(v > 0 for v in x) // len(x) + 1)
    if rule.temperature == 0:
        nearest = x.index(max(x)) if x else -1
        return [weight * (k == nearest and x[k] > 0) for k in range(len(x))]
    part = [np.exp(v / rule.temperature) for v in x]
    return [weight * p / (1 + sum(part)) for p in part]


def by_loops(points, train, held_out, options, seed, n_steps):
    """What `sampling` should say, from the reference engine's draws, pair by pair."""
    problem = Problem(train, options, seed)
    state = problem.initial_state()
    state.rows[:, 0] = points
    engine = ReferenceEngine(problem, state)
    place = lambda v: v.astype(float)  # noqa: E731
    missed = places = draws = violated = pairs = false = 0
    pushed = wrongly = 0.0
    effective = []
    for step in range(n_steps):
        batch = engine.pairs(step)
        for (user, item), negatives in zip(batch, engine.negatives(step, batch), strict=True):
            pairs += 1
            places += len(negatives)
            missed += negatives.count(-1)
            drawn = [k for k in negatives if k >= 0]
            draws += len(drawn)
            bad = [any(k in other.positives(user) for other in held_out[:1]) for k in drawn]
            false += sum(bad)
            near = np.sum((place(points[user]) - place(points[train.n_users + item])) ** 2)
            far = [
                np.sum((place(points[user]) - place(points[train.n_users + k])) ** 2) for k in drawn
            ]
            violated += bool(far) and near - min(far) + options.triplet.margin > 0
            share = shares([near - x for x in far], options.triplet, train.n_items)
            pushed += sum(share)
            wrongly += sum(p for p, is_bad in zip(share, bad, strict=True) if is_bad)
            if isinstance(options.sampler, Shared):
                squares = sum(p * p for p in share)
                effective += [sum(share) ** 2 / squares] if squares else []
            elif chance := chances(engine, step, user, item):
                effective.append(1 / sum(p * p for p in chance.values()))
    return {
        "steps": n_steps,
        "pairs": pairs,
        "draws": draws,
        "missed": missed / places,
        "violated": violated / pairs,
        "held_out": false / draws,
        "false_push": wrongly / pushed,
        "effective_mean": np.mean(effective),
        "effective_p10": np.percentile(effective, 10),
        "effective_p50": np.percentile(effective, 50),
        "effective_p90": np.percentile(effective, 90),
    }


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("dim", "geometry", "loss"),
    [(6, "sphere", "hard"), (7, "ball", "soft"), (2, "sphere", "ranked")],
)
def test_sampling_agrees_with_loops_over_the_reference_engine(name, dim, geometry, loss):
    train, held_out = ratio(random_data(share=0.2), 0.3)
    options = plain(
        dim=dim,
        geometry=geometry,
        sampler=SAMPLERS[name],
        negatives=12 if name.startswith("shared") else 3,
        batch=16,
        triplet=LOSSES[loss],
    )
    points = points_of(train, dim, near=0.5)
    if geometry == "ball":
        points *= 0.7
    found = sampling(points, train, [held_out], options, seed=4, n_steps=6)
    expected = by_loops(points, train, [held_out], options, seed=4, n_steps=6)
    assert found.height == 1
    row = found.row(0, named=True)
    if name == "distinct":
        for column in ("effective_mean", "effective_p10", "effective_p50", "effective_p90"):
            assert row.pop(column) is None
            del expected[column]
    assert row == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert 0 < row["held_out"] < 1
    assert 0 < row["false_push"] < 1
    assert (row["missed"] == 0) >= name.startswith("shared")


def test_sampling_in_the_papers_dimension():
    """More than one block of pairs, and a weight so steep that hardly a choice is left."""
    data = random_data(n_users=60, n_items=100)
    train, held_out = ratio(data, 0.3)
    options = plain(sampler=TwoStage(60), negatives=2, batch=200)
    points = points_of(train, 128, near=12.0)
    found = sampling(points, train, [held_out], options, n_steps=1).row(0, named=True)
    expected = by_loops(points, train, [held_out], options, seed=0, n_steps=1)
    assert found["pairs"] == 200
    assert found == pytest.approx(expected, rel=1e-3)
    flat = replace(options, sampler=Uniform())
    even = sampling(points, train, [held_out], flat, n_steps=1).row(0, named=True)
    assert found["effective_mean"] < even["effective_mean"] / 2


def test_released_weight_flattens_the_choice_where_it_overflows():
    """A positive item is its own candidate: s = 1, so the script chose uniformly."""
    data = random_data(n_users=20, n_items=30)
    sampler = TwoStage(30, beta=0.0, released_weight=True)
    options = plain(dim=128, sampler=sampler, negatives=1, batch=50)
    row = sampling(points_of(data, 128), data, [], options, n_steps=1).row(0, named=True)
    left = [data.n_items - len(data.positives(u)) for u, _ in reference_pairs(data, options)]
    assert row["effective_mean"] == pytest.approx(np.mean(left))


def reference_pairs(data, options):
    return ReferenceEngine(Problem(data, options)).pairs(0)


def test_uniform_is_effectively_all_items_the_user_does_not_have():
    data = random_data()
    options = plain(dim=4, negatives=2, batch=data.n_pairs)
    row = sampling(points_of(data, 4), data, [], options, n_steps=1).row(0, named=True)
    left = data.n_items - data.user_counts
    mean = np.sum(left * data.user_counts) / data.n_pairs
    assert row["effective_mean"] == pytest.approx(mean)
    assert row["held_out"] == 0


def test_a_user_who_has_everything_has_only_empty_places():
    data = Interactions.from_pairs([(0, 0), (0, 1), (0, 2)])
    for sampler in (Uniform(redraws=3), Popularity(), TwoStage(3), Shared()):
        for triplet in (Triplet(), Triplet(temperature=0.5)):
            options = plain(dim=3, sampler=sampler, negatives=2, batch=2, triplet=triplet)
            row = sampling(points_of(data, 3), data, [data], options, n_steps=2).row(0, named=True)
            missed = 0.0 if isinstance(sampler, Shared) else 1.0  # of places that there are not
            assert (row["draws"], row["missed"], row["violated"]) == (0, missed, 0.0)
            assert np.isnan(row["held_out"])
            assert np.isnan(row["false_push"])
            assert row["effective_mean"] is None


def test_what_pushes_false_negatives_by_hand():
    """The user has item 0 at D^2 = 2; the others, at 0, 2 and 4, are 3, 1 and -1 in the margin."""
    everything = Interactions.from_pairs([(0, item) for item in range(4)])
    train = everything.subset(everything.items == 0)
    points = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [-1, 0]], np.float32)
    soft = np.exp([3 / 0.8, 1 / 0.8, -1 / 0.8])
    soft /= soft.sum()
    for item in (1, 2, 3):
        held_out = everything.subset(everything.items == item)
        for temperature, push, effective in (
            (0.0, float(item == 1), 1.0),
            (0.8, soft[item - 1], 1 / np.sum(soft**2)),
        ):
            options = plain(
                dim=2, sampler=Shared(0.0), negatives=4, batch=1,
                triplet=Triplet(temperature=temperature),
            )  # fmt: skip
            row = sampling(points, train, [held_out], options, n_steps=1).row(0, named=True)
            assert (row["draws"], row["violated"]) == (3, 1)
            assert row["held_out"] == pytest.approx(1 / 3)
            assert row["false_push"] == pytest.approx(push)
            assert row["effective_mean"] == pytest.approx(effective)


def test_held_out_items_are_counted_once_however_many_parts_have_them():
    data = random_data(share=0.3)
    train, rest = ratio(data, 0.5)
    options = plain(dim=4, negatives=3, batch=32)
    points = points_of(train, 4)

    def share(*parts):
        return sampling(points, train, parts, options, n_steps=4)["held_out"][0]

    assert share(rest) == share(rest, rest) == share(data) == share(rest, train) > 0
    assert share() == share(train) == 0


def test_sampling_refuses_what_does_not_fit():
    data = random_data()
    options = plain(dim=4)
    with pytest.raises(DataError, match=r"shape \(90, 4\); got \(90, 5\)"):
        sampling(points_of(data, 5), data, [], options)
    with pytest.raises(OptionError, match="`n_steps`"):
        sampling(points_of(data, 4), data, [], options, n_steps=0)


# ------------------------------------------------------------------------------- all of them


def test_diagnose_puts_them_together(tmp_path):
    data = random_data(n_users=40, n_items=70, share=0.2)
    train, test = ratio(data, 0.25)
    test = test.subset(test.pair_users() >= 12)  # the others are not evaluated
    learned, validation = ratio(train, 0.2)
    options = plain(dim=6, sampler=TwoStage(30), negatives=2, batch=16)
    points = points_of(data, 6)
    tables = diagnose(points, train, test, options, k=5, seed=2, learned=learned)
    assert set(tables) == {"exposure", "cosines", "sampling"}
    assert tables["cosines"].equals(cosines(points[40:], train, seed=2))
    n_steps = -(-learned.n_pairs // 16)
    expected = sampling(points, learned, [test, validation], options, seed=2, n_steps=n_steps)
    assert tables["sampling"].equals(expected)
    scorer = scorer_of(points[:40], points[40:], "sphere")
    per_user = evaluate(scorer, train, test, k=5).per_user
    tenth = tables["exposure"]
    assert tenth["recommendations"].sum() == pytest.approx(1)
    lists = brute_force_lists(points, train, test, 5)
    assert tenth.equals(exposure(lists, train.item_counts))
    assert len(lists) == per_user.height
    again = diagnose(points, train, test, options, k=5, seed=2, threads=2, learned=learned)
    assert all(tables[name].equals(again[name]) for name in tables)
    outcome = Outcome({}, 1, 1, 0.0, 0.0, tables["exposure"], diagnostics=tables)
    save(outcome, tmp_path, "key")
    kept = load(folder_of(tmp_path, "key")).diagnostics
    assert all(tables[name].equals(kept[name]) for name in tables)


def brute_force_lists(points, train, test, k):
    lists = []
    for user in range(train.n_users):
        if len(test.positives(user)):
            s = points[train.n_users :] @ points[user]
            s[train.positives(user)] = -np.inf
            lists.append(np.argsort(-s, kind="stable")[:k])
    return np.array(lists)


def test_diagnose_takes_all_of_train_for_learned():
    train, test = ratio(random_data(share=0.2), 0.3)
    options = plain(dim=4, negatives=2, batch=64)
    points = points_of(train, 4)
    one = diagnose(points, train, test, options)
    other = diagnose(points, train, test, options, learned=train)
    assert one["sampling"].equals(other["sampling"])
    with pytest.raises(DataError, match="`points`"):
        diagnose(points[1:], train, test, options)
