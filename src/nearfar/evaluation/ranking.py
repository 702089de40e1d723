"""Full ranking: every item, for every user with test items.

`evaluate` ranks all items that a user does not already have, block by block, and computes metrics
of the first k: accuracy from the test items, popularity from the training counts.

New users, those without training interactions, are left out or folded in, see `nearfar.evaluation.
cohorts`. Items without training interactions are candidates like all others, at the score that the
recommender has for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from itertools import chain
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.evaluation import metrics
from nearfar.evaluation.averages import ALONE, Averages
from nearfar.evaluation.cohorts import Cohorts, NewUsers
from nearfar.evaluation.metrics import MOST_K
from nearfar.evaluation.result import Evaluation
from nearfar.method.prior import checked_setting
from nearfar.runtime.arrays import Bool, Float64, Int32, Int64
from nearfar.runtime.checks import one_of, said, switch, whole
from nearfar.runtime.devices import resolve_ranking
from nearfar.runtime.jit import kernel
from nearfar.runtime.progress import Bars
from nearfar.runtime.threads import checked_threads
from nearfar.search.heap import first_at_least
from nearfar.search.neighbours import Scorer, TopK, top_k

__all__ = ["Evaluation", "evaluate"]

_PART, _PART_PLACES = 2**15, 2**25
"""Maximum number of users whose lists are in memory at the same time, and of their places."""
_FOLDED_PART = 2**8
"""New users are folded in and ranked in smaller parts: each fold-in takes milliseconds."""
CANDIDATES: Final = ("all", "warm", "cold")
"""Which items can be ranked: all, those with training interactions, and those without."""
_FITTED = "pass the interactions that it was fitted on."


def evaluate(
    recommender: Any,
    train: Interactions,
    test: Interactions,
    *,
    k: int = 50,
    threads: int | None = None,
    progress: bool = False,
    exclude: Interactions | None = None,
    new_users: str = "leave_out",
    given: Interactions | None = None,
    popularity: float | None = None,
    candidates: str = "all",
    device: str = "cpu",
) -> Evaluation:
    """Rank every item for every user with test items, and compute metrics of the first k.

    Parameters
    ----------
    recommender : object
        A fitted model, any other object with a ``scorer()`` method, or a `Scorer`. With
        ``new_users="fold_in"`` it also needs ``fold_in_scorer(given, users)``, which returns a
        `Scorer` whose row a is the new user ``users[a]``, a row of `given`.
    train : Interactions
        Popularity metrics use its item counts; its pairs are left out of the lists.
    test : Interactions
        The relevant items, on the axes of `train` (`Interactions.aligned` moves other data there).
        Users without any are skipped.
    k : int
        Length of the lists. Above the number of items, a list has all items: time, memory and
        metrics are those for k = the number of items, except precision, which is divided by k.
    threads : int, optional
        By default, every core that this process may use. The metrics do not depend on it.
    progress : bool
        Show a progress bar, if standard error is a terminal.
    exclude : Interactions, optional
        Pairs to leave out of the lists *instead* of those of `train`: training and validation
        pairs together, for example.
    new_users : {"leave_out", "fold_in", "error"}
        What to do with users who have test items but no training interactions, about whom the
        recommender has learned nothing: leave them out of all metrics, with a warning that counts
        them; fold them in from the items in `given`; or refuse. `Evaluation.n_new_users` and
        ``n_folded_in`` count them in any case.
    given : Interactions, optional
        With "fold_in": the items of new users that the recommender is given, on the axes of
        `train`, as by `nearfar.split.by_user`. They are left out of the lists. New users without a
        given item that has training interactions are left out.
    popularity : float, optional
        The setting of the popularity dial, as in `nearfar.CML.recommend`; if None, the model's own.
        `nearfar.front` measures several settings in one pass.
    candidates : {"all", "warm", "cold"}
        The items that are ranked, and that count as relevant: all, those with training
        interactions, or those without. Users without a relevant candidate are skipped. Where there
        are cold items in the test part, look at all three: a model can rank each kind well and put
        one of them behind the other.
    device : str
        Where to rank: "cpu", "cuda", "cuda:1", ..., "auto" or "torch:" followed by a device of
        PyTorch, as in `nearfar.CML.fit`. For a recommender whose ``scorer()`` takes no `device`,
        only "cpu" and "auto" are accepted, and it determines itself where it ranks.

    Returns
    -------
    Evaluation

    Raises
    ------
    OptionError
        `k` or `threads` is not a whole number of at least 1, `progress` is not True or False,
        `recommender` cannot score, cannot fold in or cannot use `device`, the device does not
        exist, `popularity` is not a number from 0 to 1,000 or `recommender` has no popularity dial,
        `candidates` is something else, or `new_users` and `given` do not go together.
    MissingExtraError
        `device` needs PyTorch, which is not installed.
    DataError
        An argument is not `Interactions`, the axes differ, a test pair is among those left out, a
        given pair is of a user with training interactions, a score is NaN; or, with "error", there
        are new users.
    EmptyDataError
        No user has a test item that is a candidate, or all who have are left out.

    Warns
    -----
    NearfarWarning
        New users were left out.
    """
    new = NewUsers(new_users, given)
    train, test = checked_interactions("train", train), checked_interactions("test", test)
    left_out = train if exclude is None else checked_interactions("exclude", exclude)
    if given is not None:
        checked_interactions("given", given)
    k, n_threads = whole("k", k, 1, MOST_K), checked_threads(threads)
    shown = switch("progress", progress)
    dial = None if popularity is None else checked_setting(popularity)
    scorer = _scorer(recommender, device, dial)
    check_data(recommender, scorer, train, test, left_out)
    if given is not None:
        _check_given(given, train, test)
    allowed, test = _candidates(candidates, train, test)
    cohorts = new.cohorts(recommender, train, test)
    fold_in: Any = None
    if len(cohorts.folded):
        how = _arguments(recommender, "fold_in_scorer", device, dial)
        fold_in = partial(recommender.fold_in_scorer, **how)
    exposed, parts = np.zeros(train.n_items, np.int64), []
    at_once = users_at_once(min(k, train.n_items))
    with ranking_bar(cohorts.n_users, shown) as advance:
        search = partial(top_k, k=k, allow=allowed, threads=n_threads, progress=advance)
        ranked = chain(
            _ranked(search, scorer, cohorts.known, left_out, at_once),
            _folded_in(search, fold_in, cohorts, left_out),
        )
        for users, items in ranked:
            exposed += metrics.exposure(items, train.n_items)
            parts.append(measured(items, k, users, train, test))
    per_user = reduce(pl.DataFrame.vstack, parts)  # unlike `concat`, it works in a forked process
    if len(cohorts.folded):
        order = pl.Series(np.argsort(np.concatenate([cohorts.known, cohorts.folded])))
        per_user = pl.DataFrame([column[order] for column in per_user.get_columns()])
    return Evaluation(
        k=k,
        n_users=cohorts.n_users,
        n_skipped=train.n_users - cohorts.n_users - cohorts.n_left_out,
        metrics=on_average(values_of(per_user), exposed, train.item_counts),
        per_user=per_user,
        n_new_users=len(cohorts.folded) + cohorts.n_left_out,
        n_folded_in=len(cohorts.folded),
        popularity=dial,
        candidates=candidates,
    )


def _candidates(
    which: str, train: Interactions, test: Interactions
) -> tuple[Bool | None, Interactions]:
    """Return the items that are ranked, None for all, and the test pairs of these."""
    one_of("candidates", which, CANDIDATES)
    if which == "all":
        return None, test
    allowed = (train.item_counts > 0) == (which == "warm")
    part = test.subset(allowed[test.items])
    if part.n_pairs == 0:
        raise EmptyDataError(
            f"No test item is {which}: candidates={which!r} ranks the {np.count_nonzero(allowed):,}"
            f" items {'with' if which == 'warm' else 'without'} training interactions."
        )
    return allowed, part


def users_at_once(places: int) -> int:
    """Return how many users to rank before their metrics are computed.

    `places` is the number of places in their lists that are in memory for each.
    """
    return max(1, min(_PART, _PART_PLACES // max(places, 1)))


Lists = Iterator[tuple[Int32, Int32]]
"""Rows of users, and the rows of the items in their lists."""


def _ranked(
    search: Callable[..., TopK], scorer: Scorer, users: Int32, left_out: Interactions, at_once: int
) -> Lists:
    """Rank for users with training interactions, `at_once` at a time."""
    hidden = (left_out.indptr, left_out.items)
    for start in range(0, len(users), at_once):
        part = users[start : start + at_once]
        yield part, search(scorer, part, exclude=hidden).items


def _folded_in(
    search: Callable[..., TopK],
    make: Callable[..., Scorer],
    cohorts: Cohorts,
    left_out: Interactions,
) -> Lists:
    """Fold new users in and rank for them, part by part."""
    for start in range(0, len(cohorts.folded), _FOLDED_PART):
        part = cohorts.folded[start : start + _FOLDED_PART]
        rows = np.arange(len(part), dtype=np.int32)
        scorer, hidden = make(cohorts.given, part), cohorts.hidden(part, left_out)
        yield part, search(scorer, rows, exclude=hidden).items


def _arguments(recommender: Any, method: str, device: str, dial: float | None) -> dict[str, Any]:
    """Return the arguments of a method of the recommender for a device and a setting of the dial.

    On the CPU, or if the method takes no device, none is passed.
    """
    make, name = getattr(recommender, method, None), resolve_ranking(device)
    takes = () if make is None else inspect.signature(make).parameters
    if dial is not None and "popularity" not in takes:
        raise OptionError(
            f"`popularity` is {dial:g}, but a {type(recommender).__name__} has no popularity dial:"
            f" {method}(popularity=...). Omit `popularity`."
        )
    how: dict[str, Any] = {} if dial is None else {"popularity": dial}
    return how | ({"device": name} if name != "cpu" and "device" in takes else {})


def _scorer(recommender: Any, device: str, dial: float | None) -> Scorer:
    name, kind = resolve_ranking(device), type(recommender).__name__
    if isinstance(recommender, type):
        raise OptionError(f"`recommender` must be an object; got the class {said(recommender)}.")
    make, how = (
        getattr(recommender, "scorer", None),
        _arguments(recommender, "scorer", device, dial),
    )
    if name != "cpu" and device != "auto" and "device" not in how:
        raise OptionError(
            f"`device` is {device!r}, but a {kind} cannot use it; omit `device`, or pass 'auto'."
        )
    scorer = recommender if make is None else make(**how)
    if not all(hasattr(scorer, part) for part in ("score_block", "n_users", "n_items")):
        raise OptionError(f"`recommender` must have scorer() or be a Scorer; got a {kind}.")
    return scorer  # type: ignore[no-any-return]


def check_data(
    recommender: Any,
    scorer: Scorer,
    train: Interactions,
    test: Interactions,
    left_out: Interactions,
) -> None:
    if (scorer.n_users, scorer.n_items) != (train.n_users, train.n_items):
        raise DataError(
            f"The recommender has {scorer.n_users} users and {scorer.n_items} items, `train` has "
            f"{train.n_users} and {train.n_items}; {_FITTED}"
        )
    _check_axes("`test`", test, train, _moved("test"))
    _check_axes("`exclude`", left_out, train, _moved("exclude"))
    known = getattr(recommender, "interactions", None)
    if known is not None:
        _check_axes("the recommender", known, train, _FITTED)
    if test.n_pairs == 0:
        raise EmptyDataError("No user has a test item; there is nothing to evaluate.")
    common = _n_common(test.indptr, test.items, left_out.indptr, left_out.items)
    if common:
        raise DataError(
            f"{common} of the {test.n_pairs} test pairs are left out of the lists, so they can "
            "never be found; remove them from `test`, or pass the pairs to leave out as `exclude`."
        )


def _check_given(given: Interactions, train: Interactions, test: Interactions) -> None:
    _check_axes("`given`", given, train, _moved("given"))
    common = _n_common(test.indptr, test.items, given.indptr, given.items)
    if common:
        raise DataError(
            f"{common} of the {test.n_pairs} test pairs are also in `given`, so they can never be"
            " found; `nearfar.split.by_user(data, given=0.8)` makes parts without common pairs."
        )
    known = np.flatnonzero((given.user_counts > 0) & (train.user_counts > 0))
    if len(known):
        raise DataError(
            f"`given` has items of {len(known):,} users with training interactions, such as"
            f" {train.user_ids.id(int(known[0]))!r}; it is for new users only. Pass other pairs to"
            " leave out of the lists as `exclude`."
        )


def _moved(name: str) -> str:
    """Return the remedy for an argument whose axes differ from those of `train`."""
    return (
        "split both from the same interactions, `nearfar.split` keeps the axes; or move data from"
        f" elsewhere to the axes of `train`: {name}.aligned(train.user_ids, train.item_ids)."
    )


def _check_axes(label: str, other: Interactions, train: Interactions, remedy: str) -> None:
    for axis, ours, theirs in (
        ("user", train.user_ids, other.user_ids),
        ("item", train.item_ids, other.item_ids),
    ):
        if ours is not theirs and not ours.matches(theirs):
            raise DataError(
                f"The {axis}s of {label} and `train` differ ({len(theirs)} and {len(ours)} ids"
                f"{_of_types(theirs, ours)}); {remedy}"
            )


def _of_types(theirs: Ids, ours: Ids) -> str:
    """Return the types of ids, if they differ and the ids could not be matched."""
    return "" if theirs.kind == ours.kind else f", {theirs.kind} and {ours.kind}: convert one"


def measured(
    items: Int32, k: int, users: Int32, train: Interactions, test: Interactions
) -> pl.DataFrame:
    """Compute the per-user metrics of one part of the users."""
    hits = np.empty(items.shape, np.bool_)
    _mark_hits(items, users, test.indptr, test.items, hits)
    n_relevant = test.user_counts[users]
    given: dict[str, tuple[Any, ...]] = {
        "hits": (hits, n_relevant),
        "hits and k": (hits, n_relevant, k),
        "items": (items, train.item_counts),
    }
    known = {name: metrics.REGISTRY[name] for name in metrics.per_user()}
    columns = {name: metric.measure(*given[metric.of]) for name, metric in known.items()}
    frame = pl.DataFrame({"n_relevant": n_relevant, **columns})
    return frame.insert_column(0, train.user_ids.take(users).alias("user_id"))


def values_of(per_user: pl.DataFrame) -> dict[str, Float64]:
    """Return the values of each metric that are not NaN."""
    each = {name: per_user[name].to_numpy() for name in metrics.per_user()}
    return {name: values[~np.isnan(values)] for name, values in each.items()}


def on_average(
    values: dict[str, Float64], exposed: Int64, item_counts: Int64, pool: Averages = ALONE
) -> dict[str, float]:
    """Average each metric over the users that have a value, NaN if none has; add the others.

    `exposed` is of all processes.
    """
    means = {name: pool.mean(v) for name, v in values.items()}
    known = {name: metrics.REGISTRY[name] for name in metrics.overall()}
    return means | {name: one.measure(exposed, item_counts) for name, one in known.items()}


@contextmanager
def ranking_bar(total: int, shown: bool) -> Iterator[Callable[[int], None] | None]:
    if not shown:
        yield None
        return
    with Bars(True, "share", terminal_only=True, transient=True) as bar:
        bar.show("Ranking users", total=total)
        yield lambda n: bar.show("Ranking users", advance=n)


@kernel
def _mark_hits(items: Int32, users: Int32, indptr: Int64, relevant: Int32, hits: Bool) -> None:
    if items.shape[0] == 0:  # a process without users
        return
    last = np.full(max(relevant.max(), items.max()) + 1, -1, np.int32)  # row that an item is of
    for a in range(items.shape[0]):
        for at in range(indptr[users[a]], indptr[users[a] + 1]):
            last[relevant[at]] = a
        for r in range(items.shape[1]):
            hits[a, r] = items[a, r] >= 0 and last[items[a, r]] == a


@kernel
def _n_common(indptr: Int64, items: Int32, other_indptr: Int64, other_items: Int32) -> int:
    """Count the pairs that two sets of interactions have in common."""
    n = 0
    for user in range(indptr.shape[0] - 1):
        end = other_indptr[user + 1]
        at = other_indptr[user]
        for p in range(indptr[user], indptr[user + 1]):
            at = first_at_least(other_items, at, end, items[p])
            n += at < end and other_items[at] == items[p]
    return n
