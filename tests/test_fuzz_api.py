"""Random calls of the public interface: a right result or a NearfarError, nothing else.

Each example is one call with arguments of which some are odd. A call that returns is checked
against what it must keep: the pairs that went in, the length of a list, the parts of a split. So a
foreign exception, a call that does not end and a loss that nobody mentions all fail.
"""

import datetime as dt
import math
import time
import uuid
import warnings
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nearfar as nf
from conftest import checkerboard, plain
from nearfar.errors import NearfarError, NearfarWarning

LONGEST = 30.0
"""Seconds that a call may take, compilation included; none of these takes one without it."""

# ------------------------------------------------------------------------------ odd arguments

ODD = st.sampled_from([
    None, True, False, "", "3", "0.1", b"x", [], (), {}, object(), 1j, float("nan"), float("inf"),
    -1, 0, 2**70, Decimal("0.5"), Fraction(1, 3), np.float32(0.25), np.int64(3), np.array([1, 2]),
    np.bool_(True), dt.date(2024, 1, 1), pl.Series([1]), lambda: 0, range(2), {1, 2},
])  # fmt: skip


def mostly(usual, odd):
    """Three in four from `usual`; `st.one_of` takes a strategy once, however often it is named."""
    return st.sampled_from([usual, usual, usual, odd]).flatmap(lambda chosen: chosen)


def maybe(usual):
    """Mostly a usual value, sometimes an odd one."""
    return mostly(usual, ODD)


COUNT = maybe(st.sampled_from([1, 2, 5, np.int32(3), np.uint8(4), 10**6]))
SHARE = maybe(st.sampled_from([0.1, 0.25, np.float32(0.5), Fraction(1, 4), Decimal("0.3")]))
SEED = maybe(st.sampled_from([0, 1, np.int64(7), 2**40]))
NUMBER = maybe(st.sampled_from([0.01, 0.1, np.float64(0.2), Fraction(1, 2), 1]))
ID = st.one_of(
    st.integers(-3, 25),
    st.sampled_from(["a", "7", " 7", "07", "ä", "", "x y", "\ufeffa"]),
    st.sampled_from([3.0, 2.5, float("nan"), None, True, b"7", 2**63, 2**64, np.int8(5)]),
    st.sampled_from([uuid.UUID(int=1), Decimal(3), dt.datetime(2024, 1, 1), ("a", 1)]),
)
PLAIN_ID = st.integers(0, 19)
SOME = st.lists(PLAIN_ID, min_size=1, max_size=4)
IDS = mostly(SOME, st.one_of(st.lists(ID, max_size=4), ODD, ID))


def column(n):
    """Mostly ids of one type, sometimes odd ones."""
    usual = st.lists(PLAIN_ID, min_size=n, max_size=n)
    text = st.lists(st.sampled_from(["a", "7", "ä", "x y"]), min_size=n, max_size=n)
    odd = st.lists(ID, min_size=n, max_size=n)
    return mostly(st.one_of(usual, text), odd)


TYPES = st.sampled_from([object, object, None])


def arguments(draw, **strategies):
    """Draw some keyword arguments."""
    names = draw(st.lists(st.sampled_from(sorted(strategies)), unique=True, max_size=3))
    return {name: draw(strategies[name]) for name in names}


# -------------------------------------------------------------------------------------- calls


def same_ids(kept, given):
    """Whether the ids of a result are those that went in, as integers or as text."""
    return {(type(one) is str, one) for one in kept} == {
        (isinstance(one, str), one if isinstance(one, str) else int(one)) for one in given
    }


def from_pairs(draw, model, folder):
    pairs = draw(st.lists(st.tuples(ID, ID), max_size=6))
    data = nf.Interactions.from_pairs(pairs)
    assert same_ids(data.user_ids, [user for user, _ in pairs])
    assert same_ids(data.item_ids, [item for _, item in pairs])
    assert data.n_pairs == len({(str(user), str(item)) for user, item in data.to_frame().rows()})


def from_frame(draw, model, folder):
    usual = st.permutations(["user", "item"])
    odd = st.lists(st.sampled_from(["user", "item", "user_id", "x", 0, 1]), min_size=1, max_size=4)
    names, n = draw(mostly(usual, odd)), draw(st.integers(0, 4))
    columns = [draw(column(n)) for _ in names]
    frame = pd.DataFrame(dict(enumerate(columns)), dtype=draw(TYPES))
    frame.columns = names
    asked = arguments(
        draw,
        user=st.sampled_from([*names, *names, "no", 7, None]),
        item=st.sampled_from([*names, *names, "no", 7, None]),
        time=st.sampled_from(names),
    )
    data = nf.Interactions.from_frame(frame, **asked)
    user, item = asked.get("user"), asked.get("item")
    if user in names and item in names and 0 not in names and 1 not in names:
        assert same_ids(data.user_ids, columns[names.index(user)])
        assert same_ids(data.item_ids, columns[names.index(item)])


PARTS = {nf.Adam: "optimiser", nf.Adagrad: "optimiser", nf.SGD: "optimiser", nf.Shared: "sampler",
         nf.TwoStage: "sampler", nf.Popularity: "sampler", nf.Uniform: "sampler",
         nf.Triplet: "triplet", nf.SpreadOut: "spread_out", nf.Averaging: "averaging"}  # fmt: skip


def options(draw, model, folder):
    part = draw(st.sampled_from(list(PARTS)))
    made = part(*draw(st.lists(NUMBER, max_size=len(fields(part)))))
    more = arguments(draw, dim=COUNT, negatives=COUNT, batch=COUNT, geometry=ODD)
    chosen = nf.CML(**{PARTS[part]: made, **more}).options
    assert nf.Options.from_dict(chosen.to_dict()) == chosen
    plain_types = (int, float, bool, str, type(None))
    assert all(type(value) in plain_types for value in vars(made).values()), made


def fit(draw, model, folder):
    asked = arguments(draw, epochs=maybe(st.sampled_from([1, np.int64(2)])), seed=SEED, k=COUNT,
                      validation=SHARE, every=COUNT, patience=COUNT, threads=maybe(st.just(1)),
                      metric=maybe(st.sampled_from(["ndcg", "map"])),
                      progress=maybe(st.just(False)),
                      callbacks=maybe(st.just([lambda epoch: np.True_])))  # fmt: skip
    train = draw(maybe(st.just(model.interactions)))
    fitted = nf.CML(model.options).fit(train, **{"epochs": 1, "threads": 1, **asked})
    if "callbacks" not in asked:
        assert 1 <= fitted.history.height <= int(asked.get("epochs", 1))
    share = asked.get("validation")
    assert ("validation_ndcg" in fitted.history.columns) == (share is not None)


def lists(draw, model, folder):
    name = draw(st.sampled_from(["recommend", "recommend_all", "similar_items", "similar_users"]))
    asked = {"k": COUNT, "threads": maybe(st.just(1))}
    if name.startswith("recommend"):
        asked |= {"exclude_seen": maybe(st.booleans()), "allow": IDS, "deny": IDS}
    given = [] if name == "recommend_all" else [draw(IDS)]
    more = arguments(draw, **asked)
    found = getattr(model, name)(*given, **more)
    longest = min(int(more.get("k", 10)), model.interactions.n_items)
    assert found.height == 0 or found["rank"].max() <= longest
    ids = model.interactions.user_ids if name == "similar_users" else model.interactions.item_ids
    assert all(one in ids for one in found[:, -2])
    assert found["score"].is_finite().all()


def new_user(draw, model, folder):
    liked = draw(IDS)
    steps = maybe(st.sampled_from([1, 2, 5, np.int32(3)]))  # a million are as many as they say
    more = arguments(draw, seed=SEED, steps=steps)
    if draw(st.booleans()):
        point = model.fold_in(liked, **{"steps": 2, **more})
        assert point.shape == (model.options.dim,)
        assert math.isclose(np.linalg.norm(point), 1, rel_tol=1e-5)
    else:
        found = model.recommend(liked=liked, k=3)
        assert not set(found["item_id"]) & set(liked)


def evaluate(draw, model, folder):
    train, test = nf.split.ratio(model.interactions, test=0.3)
    asked = arguments(draw, k=COUNT, threads=maybe(st.just(1)), exclude=maybe(st.just(train)),
                      progress=maybe(st.just(False)))  # fmt: skip
    scored = draw(maybe(st.just(nf.baselines.MostPopular(train))))
    found = nf.evaluate(scored, draw(maybe(st.just(train))), draw(maybe(st.just(test))), **asked)
    assert found.n_users == np.count_nonzero(test.user_counts)
    assert 0 <= found["ndcg"] <= 1


def split(draw, model, folder):
    name = draw(st.sampled_from(["k_fold", "ratio", "leave_one_out", "by_user", "by_time"]))
    number = {"k_fold": COUNT, "leave_one_out": SEED}.get(name, SHARE)
    data = draw(maybe(st.just(model.interactions)))
    key = {"k_fold": "folds", "leave_one_out": "seed"}.get(name, "test")
    parts = getattr(nf.split, name)(data, **{key: draw(number)}, **(
        arguments(draw, seed=SEED) if name != "leave_one_out" else {}))  # fmt: skip
    for train, test in parts if name == "k_fold" else [parts]:
        assert train.n_pairs + test.n_pairs == data.n_pairs
        assert train.union(test) == data.union(data)


def on_disk(draw, model, folder):
    bad = ["s3://bucket/model", "gs://b", "", "a\0b"]
    place = draw(st.sampled_from(["model", "new/er", "ä", *bad]))
    path = place if place in bad else folder / uuid.uuid4().hex / place
    what = draw(st.sampled_from([model, model.interactions]))
    what.save(draw(maybe(st.just(path))) if draw(st.booleans()) else path)
    again = type(what).load(path)
    assert (again.interactions if what is model else again) == model.interactions


def prepare(draw, model, folder):
    words = {"repeats": ["any", "sum"], "core": ["once", "fixed-point"], "strictly": [True]}
    names = ["min_value", "min_user_items", "min_item_users"]
    numbers = {name: [1, 2, np.int64(2)] for name in names}
    kinds = {name: maybe(st.sampled_from(usual)) for name, usual in (words | numbers).items()}
    rules = nf.Rules(**(arguments(draw, **kinds) if draw(st.booleans()) else {}))
    n = draw(st.sampled_from([5, 4, 3, 2, 1, 0]))
    odd = st.one_of(st.integers(0, 5), st.sampled_from(["3", "3,5", "x", None, 2.5]))
    values = draw(st.sampled_from([st.integers(0, 5), st.sampled_from(["3", "4.5"]), odd]))
    value = draw(st.lists(values, min_size=n, max_size=n))
    table = pd.DataFrame(
        {"user": draw(column(n)), "item": draw(column(n)), "value": value}, dtype=draw(TYPES)
    )
    data, report = nf.prepare(draw(maybe(st.just(table))), rules)
    assert report.steps[0].n_pairs == n
    assert report.n_pairs == data.n_pairs <= n


CALLS = [from_pairs, from_frame, options, fit, lists, new_user, evaluate, split, on_disk, prepare]


@pytest.fixture(scope="module")
def model():
    return nf.CML(plain(dim=3, batch=8, negatives=3)).fit(checkerboard(), epochs=1, threads=1)


@st.composite
def outcomes(draw, model, folder):
    call = draw(st.sampled_from(CALLS))
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)
        try:
            call(draw, model, folder)
            outcome = "right"
        except NearfarError as error:
            outcome = "refused" if str(error).strip() else "refused without a word"
    assert time.monotonic() - begun < LONGEST
    return call.__name__, outcome


def run(n, model, folder):
    seen = set()

    @settings(max_examples=n, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(outcomes(model, folder))
    def each(outcome):
        seen.add(outcome)

    each()
    # a call that is always refused, or never, would not be tried
    assert seen == {(call.__name__, outcome) for call in CALLS for outcome in ("right", "refused")}


def test_calls_are_right_or_refused(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path such as "3" is one of this folder
    run(200, model, tmp_path)


@pytest.mark.slow
def test_thousands_of_calls(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(2000, model, tmp_path)
