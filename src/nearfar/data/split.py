"""Splits of interactions into a training part and a test part.

Every function returns `Interactions` on the axes of its input: rows and ids mean the same in all
parts. Random choices are hashes of (seed, position of the pair in the sorted order), so a split
depends on the set of interactions and the seed, never on the order in which they were read.
"""

from __future__ import annotations

import math
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from nearfar.data.moments import is_date, moment
from nearfar.errors import DataError
from nearfar.runtime import counter
from nearfar.runtime.arrays import Bool, Int64
from nearfar.runtime.checks import checked_seed, one_of, switch, whole
from nearfar.runtime.checks import share as checked_share
from nearfar.runtime.counter import Purpose

if TYPE_CHECKING:
    from nearfar.data.interactions import Interactions
    from nearfar.data.pairs import Times

Split: TypeAlias = "tuple[Interactions, Interactions]"
"""Training part, test part."""
Thirds: TypeAlias = "tuple[Interactions, Interactions, Interactions]"
"""Training part, given part, test part."""

_SHUFFLE, _USERS, _ITEMS = 0, 1, 2  # the steps of the stream: for pairs, users and items


def k_fold(data: Interactions, folds: int = 4, *, seed: int = 0) -> list[Split]:
    """Split each user's items into folds; each fold is the test part once.

    A user's shuffled items are dealt round-robin into the folds, starting at a random fold, so
    every interaction is in exactly one test part, and the parts of a user differ in size by at most
    one.

    Parameters
    ----------
    data : Interactions
        The interactions to split.
    folds : int
        Number of folds, at least 2. The paper uses 4.
    seed : int
        Seed of the split.

    Returns
    -------
    list of (Interactions, Interactions)
        The training and test part of every fold.

    Raises
    ------
    OptionError
        If `folds` is not an integer of at least 2.

    Examples
    --------
    >>> from nearfar import Interactions
    >>> data = Interactions.from_pairs([("ann", item) for item in "abcdef"])
    >>> [len(test) for train, test in k_fold(data, 3)]
    [2, 2, 2]
    """
    data, seed = _checked(data), checked_seed(seed)
    folds = whole("folds", folds, 2, 10_000)
    start = counter.bits(counter.stream(seed, Purpose.SPLIT, _USERS), np.arange(data.n_users))
    first = (start % np.uint64(folds)).astype(np.int64)
    fold = (_places(data, seed) + first[data.pair_users()]) % folds
    return [_parts(data, fold == number) for number in range(folds)]


def ratio(data: Interactions, test: float = 0.25, *, seed: int = 0) -> Split:
    """Put a random share of each user's items into the test part.

    Of a user's n items, ``floor(n * test + r)`` are tested on, with r uniform in [0, 1) for each
    user: n * test on average, so the overall share is right even if users have few items. Every
    user keeps at least one item for training; a user with a single item is in the training part
    only.

    Parameters
    ----------
    data : Interactions
        The interactions to split.
    test : float
        The share of the test part, between 0 and 1.
    seed : int
        Seed of the split.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    OptionError
        If `test` is not between 0 and 1.
    """
    data, seed, test = _checked(data), checked_seed(seed), checked_share("test", test)
    r = counter.uniform(counter.stream(seed, Purpose.SPLIT, _USERS), np.arange(data.n_users))
    count = np.floor(data.user_counts * test + r).astype(np.int64)
    count = np.minimum(count, np.maximum(data.user_counts - 1, 0))
    return _parts(data, _places(data, seed) < count[data.pair_users()])


def leave_one_out(data: Interactions, *, seed: int = 0, last: bool = False) -> Split:
    """Put one item of each user with at least two items into the test part.

    Parameters
    ----------
    data : Interactions
        The interactions to split.
    seed : int
        Seed of the choice; with `last`, it only breaks ties between items of the same latest time.
    last : bool
        Choose the user's latest item instead of a random one.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    DataError
        With `last`, if the interactions have no times.
    """
    data, seed = _checked(data), checked_seed(seed)
    times = _times(data, "`last=True`") if switch("last", last) else None
    places = _places(data, seed, times)
    counts = data.user_counts[data.pair_users()]
    return _parts(data, (places == counts - 1) & (counts >= 2))


def by_time(
    data: Interactions,
    test: float = 0.2,
    *,
    at: float | date | np.datetime64 | str | None = None,
    seed: int = 0,
) -> Split:
    """Train on the past and test on the future, split at one time for all users.

    Parameters
    ----------
    data : Interactions
        The interactions to split; they must have times.
    test : float
        The share of all interactions to test on: the latest ``round(n * test)``.
    at : float, date, datetime, datetime64 or str, optional
        The time of the split, instead of a share: interactions at or after it are tested on. A
        number is in the unit of the times. A date, a datetime or ISO text is for times that were
        dates, which are kept as microseconds since 1970 (`nearfar.data.moments`).
    seed : int
        Breaks ties between interactions at the time of the split, if a share is given.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    OptionError
        If `test` is not between 0 and 1, or `at` is not a time.
    DataError
        If there are no times, or one of the parts would be empty.

    Examples
    --------
    >>> from nearfar import Interactions
    >>> data = Interactions.from_pairs([("ann", 1, "2019-04-30"), ("ann", 2, "2019-05-01T08:30")])
    >>> [len(part) for part in by_time(data, at="2019-05-01")]
    [1, 1]
    """
    data, seed = _checked(data), checked_seed(seed)
    times = _times(data, "`by_time`")
    if at is not None:
        cut = moment("at", at)
        later = np.asarray(times >= (math.ceil(cut) if times.dtype == np.int64 else cut))
    else:
        test = checked_share("test", test)
        order = np.lexsort((_shuffle(data, seed), times))
        later = np.zeros(data.n_pairs, np.bool_)
        later[order[data.n_pairs - round(data.n_pairs * test) :]] = True
    if later.all() or not later.any():
        what = f"at={at!r}" if at is not None else f"test={test!r}"
        span = (
            f"the times go from {times.min()} to {times.max()}" if times.size else "there are none"
        )
        unit = ""
        if is_date(at):
            unit = (
                f" `at` is {moment('at', at)} in microseconds since 1970; if the times are in"
                " another unit, such as seconds, pass a number in that unit."
            )
        raise DataError(
            f"`{what}` leaves one part of the {data.n_pairs:,} pairs empty; {span}.{unit}"
        )
    return _parts(data, later)


@overload
def by_user(
    data: Interactions, test: float = 0.1, *, given: None = None, seed: int = 0
) -> Split: ...


@overload
def by_user(data: Interactions, test: float = 0.1, *, given: float, seed: int = 0) -> Thirds: ...


def by_user(
    data: Interactions, test: float = 0.1, *, given: float | None = None, seed: int = 0
) -> Split | Thirds:
    """Test on some users, train on the others (strong generalisation).

    A model has learned nothing about the test users, so their interactions are split once more for
    `nearfar.evaluate`: those *given* to it, from which it folds the user in, and those that it must
    find. Liang et al. (*Variational Autoencoders for Collaborative Filtering*, WWW 2018) give 80 %.

    Parameters
    ----------
    data : Interactions
        The interactions to split.
    test : float
        The share of the users with interactions to hold out; their number is rounded, at least 1.
    given : float, optional
        The share of each test user's items that is given; see `for_fold_in`. If None, all are in
        the test part, and `nearfar.evaluate` leaves these users out.
    seed : int
        Seed of the choice of users, and of the given items.

    Returns
    -------
    (Interactions, Interactions) or (Interactions, Interactions, Interactions)
        The training and the test part; a user has pairs in one of them only. With `given`: the
        training part, the given part and the test part.

    Raises
    ------
    OptionError
        If `test` or `given` is not between 0 and 1.
    DataError
        If fewer than two users have interactions.

    Examples
    --------
    >>> import nearfar as nf
    >>> liked = [(u, i) for u in range(8) for i in range(8) if (u + i) % 2 == 0]
    >>> data = nf.Interactions.from_pairs(liked)
    >>> train, given, test = nf.split.by_user(data, 0.25, given=0.5)
    >>> len(train), len(given), len(test)
    (24, 4, 4)
    >>> model = nf.CML(dim=3, batch=8).fit(train, epochs=1)
    >>> nf.evaluate(model, train, test, k=2, new_users="fold_in", given=given).n_folded_in
    2
    """
    data, seed, test = _checked(data), checked_seed(seed), checked_share("test", test)
    given = None if given is None else checked_share("given", given)
    active = np.flatnonzero(data.user_counts)
    if active.size < 2:
        raise DataError(
            f"`by_user` needs at least 2 users with interactions, to hold one out; got "
            f"{active.size}."
        )
    drawn = counter.bits(counter.stream(seed, Purpose.SPLIT, _USERS), active)
    count = min(max(round(active.size * test), 1), active.size - 1)
    held_out = np.zeros(data.n_users, np.bool_)
    held_out[active[np.argsort(drawn, kind="stable")[:count]]] = True
    train, tested = _parts(data, held_out[data.pair_users()])
    return (train, tested) if given is None else (train, *for_fold_in(tested, given, seed=seed))


def for_fold_in(data: Interactions, given: float = 0.8, *, seed: int = 0) -> Split:
    """Split each user's items into those given for a fold-in and those to be found.

    Of n items, ``round(n * given)`` are given, at least 1 and at most n - 1. The item of a user
    with a single one is given, so that this user is not tested.

    Parameters
    ----------
    data : Interactions
        The interactions of new users.
    given : float
        The share that is given, between 0 and 1.
    seed : int
        Seed of the choice.

    Returns
    -------
    (Interactions, Interactions)
        The given part and the test part.

    Raises
    ------
    OptionError
        If `given` is not between 0 and 1.
    """
    data, seed = _checked(data), checked_seed(seed)
    part, n = checked_share("given", given), data.user_counts
    count = np.clip(np.rint(n * part).astype(np.int64), 1, np.maximum(n - 1, 1))
    return _parts(data, _places(data, seed) >= count[data.pair_users()])


def cold_items(
    data: Interactions, share: float = 0.2, *, by: str = "random", seed: int = 0
) -> Split:
    """Hold out all interactions of some items, which then nobody has used: cold items.

    Parameters
    ----------
    data : Interactions
        The interactions to split.
    share : float
        The share of the items with interactions that are cold, between 0 and 1; at least one item
        is, and one is not.
    by : {"random", "popularity", "time"}
        Which items: any, with equal probability; the same share among popular and among rare items,
        so that cold items are as popular as others; or the newest, those whose first interaction is
        the latest.
    seed : int
        Seed of the split; with "time" only of ties.

    Returns
    -------
    (Interactions, Interactions)
        The interactions of the other items, and those of the cold items. For a test part of the
        other items, split the first once more: ``split.ratio(train)``.

    Raises
    ------
    OptionError
        If `share` is not between 0 and 1, or `by` is something else.
    DataError
        If there are fewer than two items with interactions, or no times for "time".

    Examples
    --------
    >>> from nearfar.data.interactions import Interactions
    >>> data = Interactions.from_pairs([(u, i) for u in range(3) for i in range(10)])
    >>> train, test = cold_items(data, 0.2)
    >>> int((train.item_counts > 0).sum()), int((test.item_counts > 0).sum())
    (8, 2)
    """
    data, held_out = _checked(data), checked_share("share", share)
    one_of("by", by, ("random", "popularity", "time"))
    items = np.flatnonzero(data.item_counts)
    if len(items) < 2:
        raise DataError(f"cold items need at least two items with interactions; got {len(items)}.")
    n_cold = min(max(1, round(held_out * len(items))), len(items) - 1)
    lots = counter.bits(counter.stream(checked_seed(seed), Purpose.SPLIT, _ITEMS), items)
    if by == "popularity":
        order = items[np.lexsort((lots, data.item_counts[items]))]
        steps = (np.arange(len(items) + 1) * n_cold + int(lots[0] % len(items))) // len(items)
        chosen = order[np.diff(steps) > 0]
    else:
        first = np.zeros(data.n_items)
        if by == "time":
            first = np.full(data.n_items, np.inf)
            np.minimum.at(first, data.items, _times(data, "cold items by time").astype(float))
        chosen = items[np.lexsort((lots, -first[items]))[:n_cold]]
    cold = np.zeros(data.n_items, np.bool_)
    cold[chosen] = True
    return _parts(data, cold[data.items])


def _checked(data: Any) -> Interactions:
    from nearfar.data.interactions import checked_interactions  # loads polars, as `data` has

    return checked_interactions("data", data)


def _parts(data: Interactions, tested: Bool) -> Split:
    return data.subset(~tested), data.subset(tested)


def _shuffle(data: Interactions, seed: int) -> npt.NDArray[np.uint64]:
    return counter.bits(counter.stream(seed, Purpose.SPLIT, _SHUFFLE), np.arange(data.n_pairs))


def _places(data: Interactions, seed: int, times: Times | None = None) -> Int64:
    """Return the position of each pair, from 0, among its user's: by time if given, then random."""
    users = data.pair_users()
    drawn = _shuffle(data, seed)
    order = np.lexsort((drawn, users) if times is None else (drawn, times, users))
    places = np.empty(data.n_pairs, np.int64)
    places[order] = np.arange(data.n_pairs) - data.indptr[users]
    return places


def _times(data: Interactions, what: str) -> Times:
    if data.times is None:
        raise DataError(
            f"{what} needs the times of the interactions, and these have none; name their column "
            "when reading: `time=`."
        )
    return data.times
