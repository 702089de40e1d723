"""The door: each parameter of the public interface is refused or converted, never ignored.

The public functions, classes and methods are found by name, and their parameters by signature. A
parameter without a rule fails a test, so a new one gets its rule here. A rule has values that must
be refused with a `NearfarError` that names the parameter, and odd values that must do exactly what
plain ones do.
"""

import inspect
from copy import copy
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

import nearfar as nf
from conftest import checkerboard, plain
from nearfar import readers
from nearfar.data.ids import Ids
from nearfar.errors import NearfarError
from nearfar.experiment import table2
from nearfar.method.prior import ItemWeights, log_popularity
from nearfar.model.batch import recommend_to
from nearfar.serve import create_app
from nearfar.tuning.tuned import Tuned

# --------------------------------------------------------------------------------- the interface

MODULES = {"split": nf.split, "presets": nf.presets, "baselines": nf.baselines,
           "datasets": nf.datasets, "table2": table2}  # fmt: skip
BESIDE = {"recommend_to": recommend_to, "create_app": create_app, "scan": readers.scan}
"""Documented functions that are not among the names of the package."""
RESULTS = {
    "Contents",
    "Evaluation",
    "Features",
    "Front",
    "Interactions",
    "ItemIndex",
    "Outcome",
    "Dataset",
    "RemoteFile",
}
"""Classes that are made by the library or by their own class methods."""
FORMULAS = {"at", "term", "pair_weight", "soft_maximum", "shares", "coefficients", "weight", "step",
            "start", "proposal", "draw", "score_block", "improves", "cells",
            "fold_in_scorer", "take"}  # fmt: skip
"""Methods that engines, searches and grids call, with arrays and checked values."""
STORED = {"to_store", "from_store"}
"""Methods that read and write what lies in a saved folder."""


def public():
    """The callables of the public interface, by name."""
    found = dict(BESIDE)
    named = {name: getattr(nf, name) for name in nf.__all__}
    named |= {name: getattr(nf.experiment, name) for name in nf.experiment.__all__}
    named["prepare"] = named["prepare"].prepare
    for module in MODULES.values():
        own = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in own:
            one = getattr(module, name)
            if getattr(one, "__module__", "").startswith(module.__name__):
                named[f"{module.__name__.rpartition('.')[2]}.{name}"] = one
    for name, one in named.items():
        if isinstance(one, ModuleType) or not callable(one):
            continue
        if not inspect.isclass(one):
            found[name] = one
            continue
        if issubclass(one, Exception) or getattr(one, "__module__", "") == "typing":
            continue
        if name.rpartition(".")[2] not in RESULTS:
            found[name] = one
        for method, value in vars(one).items():
            value = getattr(value, "__func__", value)
            ours = inspect.isfunction(value) and method not in FORMULAS | STORED
            if ours and not method.startswith("_"):
                found[f"{name}.{method}"] = value
    return found


def parameters(one):
    """The names of the parameters that a caller passes."""
    kept = inspect.signature(one).parameters
    return [name for name in kept if name not in {"self", "cls", "unknown", "changes", "params"}]


PUBLIC = public()
CASES = [(name, part) for name, one in PUBLIC.items() for part in parameters(one)]


# ------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True)
class Rule:
    """What a parameter refuses, and what stands for something plain."""

    bad: tuple = ()
    same: tuple = ()
    """Pairs of an odd value and the plain value that it stands for."""
    named: bool = True
    """Whether the error names the parameter; the errors about ids name the id."""

    def also(self, *values):
        """The same rule with more bad values."""
        return Rule((*self.bad, *values), self.same, self.named)

    def but(self, *allowed):
        """The same rule without some of the bad values."""
        kept = tuple(one for one in self.bad if not any(one is this for this in allowed))
        return Rule(kept, self.same, self.named)


NOTHING = (True, "3", b"3", [2], {}, object(), 2 + 1j, float("nan"), pd.NA,
           np.datetime64("NaT", "s"), np.timedelta64(3, "s"))  # fmt: skip
HUGE = 10**400
COUNT = Rule(
    (*NOTHING, None, 0, -1, 2.5, 3.0, float("inf"), Decimal("2.5"), Fraction(5, 2), np.array([2])),
    ((np.int64(2), 2), (np.uint8(2), 2), (np.array(2), 2)),
)
LENGTH = Rule(COUNT.bad, (*COUNT.same, (10**9, 20), (10**40, 20)))
FROM_0 = Rule(COUNT.but(0).bad, ((np.int32(2), 2),))
HALVES = tuple((one, 0.5) for one in (np.float32(0.5), np.float16(0.5), np.array(0.5),
                                      Fraction(1, 2), Decimal("0.5")))  # fmt: skip
REAL = Rule((*NOTHING, None, float("inf"), HUGE, Decimal("sNaN"), np.array([0.5])), HALVES)
POSITIVE = REAL.also(0, -1.0, np.float32(-1))
SHARE = POSITIVE.also(1, 1.5, np.float64(1))
SWITCH = Rule(
    ("no", "False", 1, 0, 1.0, None, [], np.int64(1), object()),
    ((np.True_, True), (np.False_, False)),
)
SEED = Rule(
    (*NOTHING, None, -1, 2.5, 2**64, np.random.default_rng(0)),
    ((np.int64(3), 3), (np.array(3), 3), (np.uint64(2**64 - 1), 2**64 - 1)),
)
PATH = Rule(
    ("s3://bucket/x", "gs://b/x", Path("hdfs://h/x"), "", b"", "a\0b", 3, 2.5, None, ["x"], {})
)
CHOICE = Rule((3, None, True, ["a"], b"a", "", "nothing", np.array(["a"]), {}))
TEXT = Rule((3, None, True, ["a"], b"a", "", {}))
DEVICE = Rule(("", "tpu", "gpu", 3, None, b"cpu", ["cpu"], True, np.array(["cpu", "cpu"])))
IDS = Rule(
    ("ab", b"ab", 3, 2.5, True, [[0, 2]], [b"0"], [None], [True], [2.5], np.array(4), object(),
     {0: 1}, np.array([[0, 2]]), pl.DataFrame({"id": [0, 2]})),
    ((np.array([0, 2]), [0, 2]), ((0, 2), [0, 2]), (pl.Series([0, 2]), [0, 2]),
     (pd.Series([0, 2]), [0, 2]), (pl.Series([0, 2], dtype=pl.Int32), [0, 2])),
    named=False,
)  # fmt: skip
ONE_OR_MANY = Rule(
    ("ab", b"ab", 2.5, True, [[0, 2]], [b"0"], [None], [True], object(), {0: 1},
     pl.DataFrame({"id": [0]})),
    ((np.int64(4), 4), (np.array(4), 4), (np.array([0, 2]), [0, 2]), ((0, 2), [0, 2])),
    named=False,
)  # fmt: skip
ONE_ID = Rule(
    ("ab", b"ab", 2.5, True, [0, 2], [0], (0,), {0: 1}, np.array([0]), object(), pl.Series([0]),
     pl.DataFrame({"id": [0]})),
    ((np.int64(4), 4), (np.array(4), 4)),
    named=False,
)  # fmt: skip
FRAME = pl.DataFrame({"user": [0, 1], "item": [0, 1]})
DATA = Rule(
    (None, "data", 3, True, 0.1, FRAME, FRAME.lazy(), FRAME.to_pandas(), np.eye(2), [(0, 0)],
     sp.csr_array(np.eye(2)), nf.Interactions, (checkerboard(4), checkerboard(4)), {}, object()),
)  # fmt: skip
MODEL = Rule((None, "model", 3, nf.CML, FRAME, np.eye(2), checkerboard(4), Path("model"), {}))
OPTIONS = Rule(("paper_2019", {"dim": 3}, 3, True, nf.Options, nf.presets.paper_2019, nf.Adam()))
PART = Rule((3, True, "adam", {}, nf.Options(), nf.Interactions, ["x"], np.float32(0.1)))
INDEX = Rule((3, "index", Path("index"), nf.ItemIndex, np.eye(2), {}, True))
FEATURES = Rule((3, True, "x", [1], {}, FRAME, sp.csr_array(np.eye(2)), nf.Features, object()))
CALLBACKS = Rule((None, 3, "stop", print, [3], ["stop"], [None], [print, 3], True))
CALLABLE = Rule((3, True, "x", [print], {}))
TABLE = Rule((None, 3, "x", [[1], [1, 2]], np.zeros((2, 2, 2)), np.array([["a"]]), {}, object()))
ROWS = Rule(([[0], [0, 1]], [0.5], ["a"], [True], [10**6], [-1], object(), [[0, 1]], None))
CELLS = Rule(([[0], [0, 1]], 0.5, [0.5], "0", ["a"], [True], 10**6, [-1], object(), None))
MAPPING = Rule((3, "x", [1], True, object()))
COLUMNS = Rule((2.5, b"user", {}, "nothing", None, [2.5], [["user"]], ["value", "value"]))
COLUMN = Rule((2.5, b"user", ["user"], {}, "nothing"), named=False)
ANY = Rule()
"""What has tests of its own: `at` takes numbers, dates and their text."""

RULES = {
    "dim": COUNT.also(1, 5000), "negatives": COUNT.but(None).also(HUGE), "batch": COUNT.also(HUGE),
    "epochs": COUNT.also(10**7, HUGE), "every": COUNT, "patience": COUNT.but(None), "k": LENGTH,
    "steps": COUNT.also(10**6, HUGE),
    "redraws": COUNT.also(HUGE), "candidates": COUNT.also(HUGE), "n": COUNT.also(HUGE),
    "folds": COUNT.also(1, HUGE),
    "tested_folds": COUNT.but(None).also(5), "threads": COUNT.but(None).also(10**6, HUGE),
    "workers": FROM_0.but(None).also(10**6), "min_user_items": COUNT, "min_item_users": COUNT,
    "n_users": FROM_0.also(2**31), "n_items": FROM_0.also(2**31), "max_body": COUNT,
    "max_concurrent": COUNT, "max_waiting": FROM_0,
    "seed": SEED,
    "learning_rate": POSITIVE, "epsilon": POSITIVE, "initial": REAL.also(-1.0), "eta": POSITIVE,
    "beta1": REAL.also(1, 2, -0.1), "beta2": REAL.also(1, 2, -0.1), "beta": REAL,
    "margin": POSITIVE, "temperature": REAL.but(None).also(-1.0, 1e-9), "weight": POSITIVE,
    "recall": POSITIVE.also(1.5), "timeout": POSITIVE, "min_value": REAL.but(None),
    "checkpoint_seconds": REAL.also(-1.0), "level": SHARE,
    "gamma": REAL.but(None).also(-1.0), "popularity": REAL.but(None).also(-1.0),
    "diversity": REAL.also(-0.1, 1.1),
    "one_error": SWITCH, "sharpness": REAL.also(-1.0, 8.5),
    "rank_weight": SWITCH, "squared": SWITCH, "distinct": SWITCH, "released_weight": SWITCH,
    "deep": SWITCH, "exclude_seen": SWITCH, "mmap": SWITCH,
    "fast": Rule(SWITCH.bad, ((np.False_, False),)),
    "last": SWITCH, "strictly": SWITCH, "force": SWITCH, "has_header": SWITCH,
    "quotes": SWITCH.but(None),
    "path": PATH, "model_path": PATH, "results": PATH, "checkpoint": PATH.but(None),
    "out": PATH.but(None),
    "scratch": PATH.but(None).also("nowhere"), "folder": PATH.but(None),
    "geometry": CHOICE, "vectors": CHOICE, "towards": CHOICE, "metric": CHOICE, "method": CHOICE,
    "form": CHOICE, "what": CHOICE, "core": CHOICE, "repeats": CHOICE, "order": CHOICE,
    "which": CHOICE, "preset": CHOICE, "name": CHOICE, "device": DEVICE,
    "encoding": CHOICE.but(None), "separator": CHOICE.but(None).also("ab", "\n"),
    "token": TEXT.but(None).also("é"),
    "train": DATA, "new": DATA, "test": DATA, "data": DATA, "other": DATA,
    "exclude": DATA.but(None), "learned": DATA.but(None), "new_users": CHOICE,
    "liked": IDS.also([], None), "liked_by": IDS.also([], None), "items": ONE_OR_MANY.also(None),
    "users": ONE_OR_MANY.also(None), "allow": IDS, "deny": IDS,
    "options": OPTIONS, "sampler": PART.also(nf.Uniform), "triplet": PART.also(nf.Triplet, None),
    "spread_out": PART, "decorrelate": PART, "optimiser": PART.also(nf.Adam, None),
    "averaging": PART, "prior": PART.also(nf.Prior), "neighbours": PART.also(nf.CoOccurrence),
    "nearest": COUNT.also(10**6, HUGE), "schedule": PART.also(None), "rules": PART,
    "item_features": FEATURES, "user_features": FEATURES, "features": FEATURES,
    "side": CHOICE, "id_dropout": REAL.also(-0.1, 1.1), "id_decay": REAL.also(-1.0),
    "build": CALLABLE, "chunk": COUNT.but(None), "fresh": COUNT.but(None), "precision": CHOICE,
    "decay": REAL.also(-1.0), "encoder": PART.also(nf.Linear, None),
    "gains": Rule((3, "x", [1], True, object(), {"a": 0}, {"a": "x"})),
    "index": INDEX, "callbacks": CALLBACKS, "model": MODEL, "evaluation": MODEL,
    "plain": MAPPING.also(None),
    "space": CHOICE.also("hybrid"), "trials": COUNT.also(10**6, HUGE),
    "seconds": Rule(POSITIVE.but(None).bad, ((Fraction(600), 600.0), (np.array(600.0), 600.0))),
    "trial_seconds": POSITIVE.but(None), "study": PATH.but(None),
    "objectives": Rule((None, 3, "ndcg", b"ndcg", {}, [], ["luck"], [3], ["ndcg", "ndcg"]),
                       ((("ndcg",), ["ndcg"]),)),
}  # fmt: skip
"""By the name of the parameter."""

PROGRESS = Rule(("no", 1, 0, "x", [], object()), ((np.False_, False),))
OF_DATASETS = {"path": PATH.but(None), "scratch": PATH.but(None).also("nowhere"),
               "progress": CALLABLE, "tell": CALLABLE,
               "name": Rule(CHOICE.bad, named=False)}  # fmt: skip
SPECIAL = {
    "CoOccurrence": {"weight": REAL.but(None).also(-1.0)},
    "CML.fit": {"k": COUNT.also(HUGE), "progress": PROGRESS,
                "validation": SHARE.but(None).also(*DATA.but(None, 0.1).bad)},
    "CML.partial_fit": {"progress": PROGRESS},
    "CML": {"items": PART.also(nf.Hybrid), "users": PART.also(nf.Hybrid)},
    "Options": {"items": PART.also(nf.Hybrid), "users": PART.also(nf.Hybrid)},
    "CML.add_items": {"features": FEATURES.also(None)},
    "CML.load": {"encoder": CALLABLE},
    "Contents.from_array": {
        "array": Rule((None, 3, "x", [[1], [1, 2]], [[1, 2]], [1, 2], np.array([["a"], ["b"]]),
                       {})),
        "ids": Rule(("ab", 3, [0], [0, 0], [[0], [1]]), named=False)},
    "Contents.from_callable": {
        "function": CALLABLE, "ids": Rule(("ab", 3, [0, 0], [[0], [1]]), named=False)},
    "Contents.read": {"ids": IDS.also(None)},
    "Contents.of": {"ids": IDS.also(None)},
    "Contents.with_ids_like": {"ids": Rule((None, 3, [0, 1], "ab"))},
    "Contents.updated": {"newer": Rule((None, 3, "x", FRAME, nf.Contents))},
    "CML.similar_items": {"popularity": REAL.also(-1.0), "items": ONE_OR_MANY},
    "CML.recommend": {"users": ONE_OR_MANY, "liked": IDS, "among": IDS},
    "CML.explain": {"liked": IDS.also([]), "user": ONE_ID, "item": ONE_ID.also(None)},
    "CML.user_rows": {"users": IDS},
    "CML.with_users": {"user_ids": Rule((None, 3, [0, 1], "ab"))},
    "front": {"k": COUNT.also(HUGE), "progress": SWITCH,
              "popularity": Rule((1.0, "0", [], ["x"], [None], [-1], [float("nan")]),
                                 (([np.float32(0.5)], [0.5]), ((Fraction(1, 2),), [0.5]))),
              "diversity": Rule((1.0, "0", [], ["x"], [None], [-1], [1.1], [float("nan")]),
                                (([np.float32(0.5)], [0.5]), ((Fraction(1, 2),), [0.5])))},
    "evaluate": {"candidates": CHOICE, "k": COUNT.also(HUGE), "progress": SWITCH,
                 "recommender": MODEL.but(np.eye(2)), "given": DATA.but(None)},
    "recommend_to": {"users": IDS, "progress": PROGRESS},
    "export_to": {"store": CHOICE, "where": TEXT, "table": TEXT.but(None), "progress": PROGRESS,
                  "batch": COUNT.but(None).also(10**6, HUGE)},
    "Grid": {"settings": Rule((None, 3, "x", (), ["x"], (3,), nf.Options())),
             "learning_rates": Rule((3, "x", ("x",), (0.0,), (True,), (None,), (-1,)),
                                    (([np.float32(0.5)], (0.5,)), ((Fraction(1, 2),), (0.5,)))),
             "validation": SHARE},
    "Grid.run": {"data": Rule((None, 3, "x", {}, [checkerboard(4)], {"a": 3}, {3: "x"}, FRAME)),
                 "progress": PROGRESS},
    "Setting": {"name": TEXT, "options": OPTIONS.also(None)},
    "ItemIndex.build": {"model": MODEL},
    "ItemIndex.load": {"model": MODEL},
    "ItemIndex.measure": {"queries": TABLE, "rows": ROWS,
                          "exclude": Rule((3, "ab", (1,), ([0], "x")))},
    "ItemIndex.scorer": {"queries": TABLE},
    "ItemIndex.check": {"item_vectors": Rule((None, 3, "x", [[1], [1, 2]], {}, object())),
                        "weights": Rule((None, 3, "x", np.eye(2), ItemWeights))},
    "Features.from_frame": {
        "frame": Rule((None, 3, "x", [1], object()), named=False), "id": COLUMN,
        "categories": COLUMNS, "text": COLUMNS, "numbers": COLUMNS, "vectors": COLUMNS},
    "Features.read": {
        "id": COLUMN, "list_separator": Rule((3, True, ["a"], b"a", "", {})),
        "categories": COLUMNS, "text": COLUMNS, "numbers": COLUMNS, "vectors": COLUMNS},
    "Features.from_matrix": {
        "matrix": TABLE.also([1], sp.csr_array(np.eye(2) * np.nan)), "name": TEXT,
        "ids": Rule(("ab", 3, [0], [0, 0], [[0], [1]]), named=False),
        "columns": Rule(("ab", 3, ["a"], ["a", "a"], [1, 2])), "weight": CHOICE.but(None)},
    "Features.with_ids_like": {"ids": Rule((None, 3, [0, 1], "ab"))},
    "Features.of": {"ids": IDS.also(None)},
    "Features.joined": {"others": Rule((None, 3, "x", FRAME, nf.Features))},
    "Interactions.from_pairs": {"pairs": Rule((None, 3, "ab", [3], [(1,)], {}, FRAME))},
    "Interactions.from_frame": {
        "frame": Rule((None, 3, "x", [1], object()), named=False),
        "user": COLUMN, "item": COLUMN, "value": COLUMN, "time": COLUMN},
    "Interactions.read": {"user": COLUMN, "item": COLUMN, "value": COLUMN, "time": COLUMN},
    "Interactions.from_csr": {
        "matrix": Rule((None, 3, "x", np.eye(2), FRAME)),
        "user_ids": Rule(("ab", 3, [0], [0, 0], [[0], [1]]), named=False),
        "item_ids": Rule(("ab", 3, [0], [0, 0], [[0], [1]]), named=False)},
    "Interactions.from_rows": {
        "users": ROWS, "items": ROWS,
        "times": Rule(("x", ["a"], [None], object())),
        "user_ids": Rule((None, 3, [0, 1], "ab")), "item_ids": Rule((None, 3, [0, 1], "ab"))},
    "Interactions.aligned": {
        "user_ids": Rule((None, 3, [0, 1], "ab")), "item_ids": Rule((None, 3, [0, 1], "ab"))},
    "Interactions.positives": {
        "user": Rule(("0", True, None, 0.5, [0], -1, 10**6), ((np.int64(2), 2),))},
    "Interactions.contains": {"user": CELLS, "item": CELLS},
    "Interactions.subset": {"mask": Rule((None, "x", 3, [True], [[True], [1, 2]], object()))},
    "Interactions.with_item_table": {"table": Rule((None, 3, "x", [1]), named=False)},
    "Interactions.titles": {"item_ids": Rule(("ab", 3, None))},
    "Interactions.save": {"made": MAPPING, "more": MAPPING.also({"a": 3})},
    "Evaluation.standard_error": {"name": CHOICE.also("gini")},
    "Evaluation.bootstrap": {"name": CHOICE.also("gini")},
    "prepare": {"table": Rule((None, 3, "x", [1]), named=False), "progress": PROGRESS},
    "split.by_time": {"test": SHARE, "at": ANY},
    "split.by_user": {"test": SHARE, "given": SHARE.but(None)},
    "split.for_fold_in": {"given": SHARE},
    "split.ratio": {"test": SHARE},
    "split.cold_items": {"share": SHARE, "by": CHOICE},
    "presets.paper_2019": {"sampler": CHOICE, "negatives": COUNT.also(3)},
    "presets.released_2019": {"sampler": CHOICE},
    "table2.rows": {"samplers": Rule((3, None, "uniform", ["x"])),
                    "negatives": Rule((3, None, "x", [7])), "batches": Rule((3, None, "x", [7])),
                    "two_stage": MAPPING.also({"beta": 1.0})},
    "diagnose": {"points": TABLE.also(np.zeros((2, 2))), "options": OPTIONS.also(None)},
    "paired": {"a": Rule((None, 3, "x", FRAME.to_pandas())), "b": Rule((None, 3, "x", [1])),
               "metric": TEXT},
    "summary": {"outcomes": Rule((None, 3, "x", [3], []), named=False)},
    "tidy": {"outcomes": Rule((None, 3, "x", [3], []), named=False)},
    "write_report": {"paper": MAPPING.also({"x": "amazon"})},
    "create_app": {"index": PATH.but(None),
                   "root_path": Rule((3, None, True, ["/a"], b"/a", "a b", "/v1")),
                   "cors_origins": Rule((3, None, "*", ["x"], [3], True))},
    "scan": {"columns": Rule(("user", 3, [], [3], ["user", "user"], [["user"]]))},
    "datasets.fetch": OF_DATASETS, "datasets.load": OF_DATASETS, "datasets.locate": OF_DATASETS,
    "datasets.opened": OF_DATASETS, "datasets.info": OF_DATASETS,
    "Schedule": {"k": COUNT.also(HUGE)},
    "tune": {"k": COUNT.also(HUGE), "progress": PROGRESS,
             "validation": SHARE.also(*DATA.but(0.1).bad),
             "folds": COUNT.also(HUGE), "workers": COUNT.also(10**6)},
}  # fmt: skip
"""Rules of one function, before those of the name."""


def rule(name, part):
    return SPECIAL.get(name, {}).get(part, RULES.get(part))


@pytest.mark.parametrize(("name", "part"), CASES, ids=[f"{name}-{part}" for name, part in CASES])
def test_every_parameter_has_a_rule(name, part):
    assert rule(name, part) is not None, f"give `{part}` of {name} a rule"


def test_rules_are_of_parameters_that_exist():
    used = {part for _, part in CASES}
    assert set(SPECIAL) <= {name for name, _ in CASES}
    assert {(name, part) for name in SPECIAL for part in SPECIAL[name]} - set(CASES) <= {
        (name, part) for name in SPECIAL if name.startswith("datasets.") for part in OF_DATASETS
    }
    assert set(RULES) <= used


# ------------------------------------------------------------------------------- calls that work


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Small data, models and files of every kind."""
    place = tmp_path_factory.mktemp("door")
    timed = nf.Interactions.from_pairs(
        [(u, i, u + i) for u in range(20) for i in range(20) if (u + i) % 2 == 0 and u != i]
    )
    train, test = nf.split.ratio(timed, 0.3, seed=0)
    model = nf.CML(TINY, prior=nf.Prior(gamma=0.1)).fit(train, epochs=1)
    model.save(place / "model")
    about = pl.DataFrame({"item": range(20), "colour": ["red", "blue"] * 10})
    colours = nf.Features.from_frame(about, id="item", categories="colour")
    hybrid = nf.CML(TINY, items=nf.Hybrid()).fit(train, item_features=colours, epochs=1)
    index = nf.ItemIndex.build(model, recall=0.5, k=3)
    index.save(place / "index")
    timed.save(place / "data")
    table = pl.DataFrame({"user": [0, 0, 1], "item": [0, 1, 1], "value": [1, 2, 3], "time": 5})
    table.write_csv(place / "table.csv")
    kinds = pl.DataFrame({"user": [0, 1], "value": [1.5, 2.5]})
    kinds.write_csv(place / "kinds.csv")
    arrays = nf.Contents.from_array(np.eye(4), [0, 1, 2, 3])
    (place / "arrays").mkdir()
    np.save(place / "arrays" / "a.npy", np.ones(3))
    grid = nf.experiment.Grid(
        (nf.experiment.Setting("tiny", TINY),),
        learning_rates=(), folds=2, schedule=nf.experiment.Schedule(1),
    )  # fmt: skip
    grid.run({"a": timed}, place / "results", workers=0, progress=False)
    return SimpleNamespace(
        place=place, timed=timed, train=train, test=test, model=model, index=index, table=table,
        colours=colours, hybrid=hybrid, arrays=arrays,
        grid=grid, outcomes=nf.experiment.load_all(place / "results"),
        evaluation=nf.evaluate(model, train, test, k=3),
        front=nf.front(model, train, test, k=3, popularity=[0, 1]),
        kinds=kinds, features=nf.Features.from_frame(kinds, id="user", numbers="value"),
    )  # fmt: skip


TINY = plain(dim=4, batch=64)
NEW = iter(range(10**6))


def calls(w):
    """For each callable of the interface: what is called, and arguments that work."""
    ids, quiet = {"users": 4, "k": 3}, {"threads": 1}
    ext = {"allow": [0, 2], "deny": [4], "exclude_seen": True, "index": None, "device": "cpu"}
    new = w.place / f"new-{next(NEW)}"
    fit = {"epochs": 1, "seed": 0, "threads": 1, "progress": False, "device": "cpu", "fast": False}
    users = np.diff(w.train.indptr).astype(np.int32)[:2] * 0
    points = np.concatenate([w.model.user_vectors, w.model.item_vectors])
    halves = w.evaluation.per_user.with_columns(fold=pl.lit(0))
    kinds = w.kinds
    data, table, csv = w.timed, w.table, w.place / "table.csv"
    return {
        "recommend_to": (recommend_to, {"path": new, "model": w.model, "users": [0, 2], "k": 3,
                                        **ext, **quiet, "progress": False}),
        "create_app": (create_app, {"model_path": w.place / "model",
                                    "index": w.place / "index", "threads": 1}),
        "scan": (readers.scan, {"path": csv, "scratch": w.place}),
        "CML": (nf.CML, {"options": TINY}),
        "CML.fit": (nf.CML(TINY).fit, {"train": w.train, **fit}),
        "CML.partial_fit": (on_a_copy(w, "partial_fit"), {"new": w.test, **fit}),
        "CML.keep_evaluation": (on_a_copy(w, "keep_evaluation"), {"evaluation": w.evaluation}),
        "CML.project": (on_a_copy(w, "project"), {}),
        "CML.scorer": (w.model.scorer, {}),
        "CML.features_of": (w.hybrid.features_of, {"side": "items"}),
        "CML.add_items": (
            lambda features: copy(w.hybrid).add_items(features),
            {"features": nf.Features(Ids([90], "item"), w.colours.of([3]).columns)}),
        "CML.dial": (w.model.dial, {}),
        "CML.get_params": (w.model.get_params, {}),
        "CML.item_weight": (w.model.item_weight, {}),
        "CML.fold_in": (w.model.fold_in, {"liked": [0, 2], "steps": 2}),
        "CML.fold_in_item": (w.model.fold_in_item, {"liked_by": [0, 2], "steps": 2}),
        "CML.recommend": (w.model.recommend, {**ids, **ext, **quiet}),
        "CML.recommend_all": (w.model.recommend_all, {"k": 3, **ext, **quiet}),
        "CML.explain": (w.model.explain, {"user": 4, "item": 6, "k": 2}),
        "CML.user_rows": (w.model.user_rows, {"users": [0, 2]}),
        "CML.with_users": (w.model.with_users, {"user_ids": w.train.user_ids}),
        "CML.similar_items": (w.model.similar_items, {"items": 4, "k": 3, "allow": [0, 2, 6],
                                                      "deny": [2], **quiet}),
        "CML.similar_users": (w.model.similar_users, {**ids, **quiet}),
        "CML.save": (w.model.save, {"path": new}),
        "CML.load": (nf.CML.load, {"path": w.place / "model"}),
        "Contents.from_array": (nf.Contents.from_array, {"array": np.eye(2), "ids": [0, 1]}),
        "Contents.from_folder": (nf.Contents.from_folder, {"path": w.place / "arrays"}),
        "Contents.from_callable": (nf.Contents.from_callable, {
            "function": np.ones_like, "ids": [0, 1]}),
        "Contents.read": (w.arrays.read, {"ids": [0, 2]}),
        "Contents.of": (w.arrays.of, {"ids": [0, 2]}),
        "Contents.with_ids_like": (w.arrays.with_ids_like, {"ids": w.train.item_ids}),
        "Contents.updated": (lambda newer: w.arrays.updated(newer), {"newer": w.arrays}),
        "Module": (nf.Module, {"build": print}),
        "Evaluation.standard_error": (w.evaluation.standard_error, {"name": "ndcg"}),
        "Evaluation.bootstrap": (w.evaluation.bootstrap, {"name": "ndcg", "n": 2}),
        "Features.from_frame": (nf.Features.from_frame, {"frame": kinds, "id": "user",
                                                         "numbers": "value"}),
        "Features.read": (nf.Features.read, {"path": w.place / "kinds.csv", "id": "user",
                                             "numbers": "value"}),
        "Features.from_matrix": (nf.Features.from_matrix, {"matrix": np.eye(2), "ids": [0, 1]}),
        "Features.of": (w.colours.of, {"ids": [0, 2]}),
        "Features.with_ids_like": (w.colours.with_ids_like, {"ids": w.train.item_ids}),
        "Features.joined": (lambda others: w.features.joined(others), {
            "others": nf.Features.from_matrix(np.eye(2), [0, 1])}),
        "Interactions.from_rows": (nf.Interactions.from_rows, {
            "users": users, "items": np.arange(len(users)), "user_ids": data.user_ids,
            "item_ids": data.item_ids}),
        "Interactions.from_pairs": (nf.Interactions.from_pairs, {"pairs": [(0, 0)]}),
        "Interactions.from_frame": (nf.Interactions.from_frame, {
            "frame": table, "value": "value", "min_value": 0}),
        "Interactions.read": (nf.Interactions.read, {
            "path": csv, "user": "user", "item": "item", "value": "value", "min_value": 0}),
        "Interactions.from_csr": (nf.Interactions.from_csr, {"matrix": sp.csr_array(np.eye(2))}),
        "Interactions.positives": (data.positives, {"user": 0}),
        "Interactions.contains": (data.contains, {"user": 0, "item": 0}),
        "Interactions.subset": (data.subset, {"mask": np.ones(data.n_pairs, bool)}),
        "Interactions.aligned": (data.aligned, {"user_ids": data.user_ids,
                                                "item_ids": data.item_ids}),
        "Interactions.has_axes_of": (data.has_axes_of, {"other": w.test}),
        "Interactions.without": (data.without, {"other": w.test}),
        "Interactions.union": (data.union, {"other": w.test}),
        "Interactions.with_ids_like": (data.with_ids_like, {"other": w.test}),
        "Interactions.with_item_table": (data.with_item_table, {
            "table": pl.DataFrame({"item_id": [0]})}),
        "Interactions.titles": (data.titles, {"item_ids": [0]}),
        "Interactions.save": (data.save, {"path": new}),
        "Interactions.load": (nf.Interactions.load, {"path": w.place / "data"}),
        "ItemIndex.build": (nf.ItemIndex.build, {"model": w.model, "recall": 0.5, "k": 3, **quiet}),
        "ItemIndex.measure": (w.index.measure, {"queries": w.model.user_vectors, "rows": [0, 1],
                                                **quiet}),
        "ItemIndex.scorer": (w.index.scorer, {"queries": w.model.user_vectors, **quiet}),
        "ItemIndex.check": (w.index.check, {
            "item_vectors": w.model.item_vectors,
            "weights": ItemWeights(0.1, log_popularity(w.train.item_counts))}),
        "ItemIndex.save": (w.index.save, {"path": new}),
        "ItemIndex.load": (nf.ItemIndex.load, {"path": w.place / "index", "model": w.model}),
        "Options.from_dict": (nf.Options.from_dict, {"plain": TINY.to_dict()}),
        "Rules": (nf.Rules, {"min_value": 0}),
        "baselines.MostPopular": (nf.baselines.MostPopular, {"train": data}),
        "baselines.Random": (nf.baselines.Random, {"n_users": 2, "n_items": 2}),
        "front": (nf.front, {"model": w.model, "train": w.train, "test": w.test, "k": 3,
                             "popularity": [0.5], **quiet}),
        "Front.plot": (w.front.plot, {"path": new.with_suffix(".png")}),
        "evaluate": (nf.evaluate, {"recommender": w.model, "train": w.train, "test": w.test,
                                   "k": 3, **quiet}),
        "export": (nf.export, {"model": w.model, "path": new.with_suffix(".parquet")}),
        "export_to": (nf.export_to, {"model": w.model, "store": "lancedb", "where": str(new)}),
        "prepare": (nf.prepare.prepare, {"table": table}),
        "Grid": (nf.experiment.Grid, {"settings": w.grid.settings, "learning_rates": ()}),
        "Grid.run": (w.grid.run, {"data": {"a": data}, "results": w.place / "results",
                                  "workers": 0, "progress": False}),
        "Setting": (nf.experiment.Setting, {"name": "tiny", "options": TINY}),
        "diagnose": (nf.experiment.diagnose, {"points": points, "train": w.train, "test": w.test,
                                              "options": TINY, "k": 3}),
        "load_all": (nf.experiment.load_all, {"results": w.place / "results"}),
        "paired": (nf.experiment.paired, {"a": halves, "b": halves, "metric": "ndcg"}),
        "summary": (nf.experiment.summary, {"outcomes": w.outcomes}),
        "tidy": (nf.experiment.tidy, {"outcomes": w.outcomes}),
        "write_report": (nf.experiment.write_report, {"results": w.place / "results"}),
        "tune": (nf.tune, {"train": data, "trials": 1, "epochs": 1, "k": 3, "every": 1,
                           "validation": 0.2, "study": None}),
        "split.by_time": (nf.split.by_time, {"data": data, "test": 0.4}),
        "datasets.fetch": (nf.datasets.fetch, {"name": "ml-100k", "folder": csv}),
        "datasets.load": (nf.datasets.load, {"name": "ml-100k", "path": w.place / "nowhere"}),
        "datasets.locate": (nf.datasets.locate, {"name": "ml-100k", "path": w.place / "nowhere"}),
        "datasets.opened": (opened, {"name": "ml-100k", "path": w.place / "nowhere"}),
        "datasets.info": (nf.datasets.info, {"name": "ml-100k"}),
        **{f"split.{name}": (getattr(nf.split, name), {"data": data})
           for name in ("k_fold", "ratio", "leave_one_out", "by_user", "for_fold_in",
                        "cold_items")},
    }  # fmt: skip


def on_a_copy(w, method):
    """A method of a copy of the model, because it changes the model."""
    return lambda **how: getattr(nf.CML.load(w.place / "model"), method)(**how)


def opened(name, **how):
    with nf.datasets.opened(name, **how) as raw:
        return raw


def call(w, name, part, value):
    """Call with one argument replaced."""
    do, good = calls(w).get(name) or (PUBLIC[name], {})
    if name in {"CML.recommend", "CML.explain"} and part == "liked":
        good = {**good, "users" if name == "CML.recommend" else "user": None}
    if name == "CML" and part == "options":
        return do(value)
    if name == "CML":
        good = {}
    if name == "Rules" and part == "strictly":
        good = {"min_value": 1}
    if name == "split.leave_one_out" and part == "seed":
        good = {**good, "last": False}
    if name == "Interactions.from_frame" and part == "value":
        good = {**good, "min_value": 0}
    return do(**{**good, part: value})


def test_calls_that_are_all_right_work(world):
    for name in calls(world):
        if not name.startswith("datasets.") or name == "datasets.info":
            do, good = calls(world)[name]
            do(*good.values()) if do is nf.CML else do(**good)


@pytest.mark.parametrize(("name", "part"), CASES, ids=[f"{name}-{part}" for name, part in CASES])
def test_what_cannot_be_used_is_refused_by_name(world, name, part):
    wanted = rule(name, part) or ANY
    wrong = [outcome(world, name, part, value, wanted) for value in wanted.bad]
    assert [one for one in wrong if one] == []


def outcome(world, name, part, value, wanted):
    """What is wrong with how a bad value is met; None if it is refused as it should be."""
    what = f"{name}({part}={value!r})"[:120]
    try:
        found = call(world, name, part, value)
    except NearfarError as error:
        named = not wanted.named or part in str(error)
        return None if named else f"{what} does not name it: {error}"
    except Exception as error:
        return f"{what} raises {type(error).__name__}: {error}"[:300]
    return f"{what} is accepted: {found!r}"[:300]


@pytest.mark.parametrize(
    ("name", "part"),
    [(name, part) for name, part in CASES if (rule(name, part) or ANY).same
     and not name.startswith("datasets.")],
)  # fmt: skip
def test_an_odd_value_does_what_a_plain_one_does(world, name, part):
    for odd, usual in rule(name, part).same:
        usual = float(odd) if isinstance(odd, np.floating) else usual
        if not allowed(world, name, part, usual):
            continue
        found, expected = call(world, name, part, odd), call(world, name, part, usual)
        assert plainly(found) == plainly(expected), f"{odd!r} is not taken as {usual!r}"
        assert type(getattr(found, part, 0)) is type(getattr(expected, part, 0))


def allowed(w, name, part, value):
    """Whether the plain value works with the other arguments."""
    try:
        call(w, name, part, value)
    except NearfarError:
        return False
    return True


def plainly(result):
    """What can be compared of a result."""
    if isinstance(result, nf.CML):
        tables = () if result._fitted is None else (result.user_vectors, result.item_vectors)
        return repr(result.options), [table.tobytes() for table in tables]
    if isinstance(result, nf.Evaluation):
        return result.to_dict()["metrics"]
    if isinstance(result, pl.DataFrame):
        return result.drop("seconds", strict=False).to_dict(as_series=False).__repr__()
    if isinstance(result, np.ndarray):
        return result.tolist()
    if isinstance(result, readers.Raw):
        return plainly(result.rows.collect())
    if isinstance(result, Tuned):
        return plainly(result.table)
    if isinstance(result, nf.ItemIndex):
        return result.digest()
    if isinstance(result, dict):
        return {key: plainly(one) for key, one in result.items()}
    if isinstance(result, tuple | list):
        return [plainly(one) for one in result]
    if is_dataclass(result) or isinstance(result, nf.Interactions | float | int | None):
        return repr(result)
    return type(result)


PATHS = [(name, part) for name, part in CASES if (rule(name, part) or ANY).bad[:1] == PATH.bad[:1]]


@pytest.mark.parametrize(("name", "part"), PATHS)
def test_a_home_that_the_shell_did_not_expand_is(world, name, part, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(world.place))
    monkeypatch.chdir(tmp_path)
    good = calls(world)[name][1]
    given = world.place if part == "scratch" else good.get(part) or world.place / f"new-{next(NEW)}"
    short = "~" if given == world.place else f"~/{given.relative_to(world.place)}"
    if name.startswith("datasets."):
        with pytest.raises(NearfarError, match=str(world.place)):  # there are no such files
            call(world, name, part, short)
    else:
        call(world, name, part, short)
    assert list(tmp_path.iterdir()) == []
