"""Cutting interactions into what is trained on and what is tested on.

Every function gives `Interactions` on the axes of what it was given: rows and ids mean the same in
all parts. Random choices are hashes of (seed, place of the pair in the sorted order), so a split
depends on the set of interactions and the seed, never on the order in which they were read.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError, OptionError
from nearfar.runtime import counter
from nearfar.runtime.arrays import Bool, Int64
from nearfar.runtime.counter import Purpose

if TYPE_CHECKING:
    from nearfar.data.interactions import Interactions, Times

Split: TypeAlias = "tuple[Interactions, Interactions]"
"""Training part, test part."""

_SHUFFLE, _USERS = 0, 1  # the steps of the stream: one for pairs, one for users


def k_fold(data: Interactions, folds: int = 4, *, seed: int = 0) -> list[Split]:
    """Deal each user's items into folds; each fold is tested on once, the others train.

    A user's shuffled items go round-robin into the folds from a random start, so every interaction
    is in exactly one test part, and the parts of a user differ by at most one in size.

    Parameters
    ----------
    data : Interactions
        What to cut.
    folds : int
        How many folds, at least 2. The paper has 4.
    seed : int
        Another one gives another split.

    Returns
    -------
    list of (Interactions, Interactions)
        The training and test part of every fold.

    Raises
    ------
    OptionError
        If `folds` is not an integer from 2.

    Examples
    --------
    >>> from nearfar import Interactions
    >>> data = Interactions.from_pairs([("ann", item) for item in "abcdef"])
    >>> [len(test) for train, test in k_fold(data, 3)]
    [2, 2, 2]
    """
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise OptionError(f"`folds` must be an integer of at least 2; got {folds!r}.")
    start = counter.bits(counter.stream(seed, Purpose.SPLIT, _USERS), np.arange(data.n_users))
    first = (start % np.uint64(folds)).astype(np.int64)
    fold = (_places(data, seed) + first[data.pair_users()]) % folds
    return [_parts(data, fold == number) for number in range(folds)]


def ratio(data: Interactions, test: float = 0.25, *, seed: int = 0) -> Split:
    """Test on a random share of each user's items.

    A user with n items gives ``floor(n * test + r)`` of them, r uniform in [0, 1) for each user:
    n * test on average, so the overall share is right however short the users are. Every user keeps
    at least one item for training; a user with a single one is in the training part only.

    Parameters
    ----------
    data : Interactions
        What to cut.
    test : float
        The share to test on, between 0 and 1.
    seed : int
        Another one gives another split.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    OptionError
        If `test` is not between 0 and 1.
    """
    _check_share(test)
    r = counter.uniform(counter.stream(seed, Purpose.SPLIT, _USERS), np.arange(data.n_users))
    count = np.floor(data.user_counts * test + r).astype(np.int64)
    count = np.minimum(count, np.maximum(data.user_counts - 1, 0))
    return _parts(data, _places(data, seed) < count[data.pair_users()])


def leave_one_out(data: Interactions, *, seed: int = 0, last: bool = False) -> Split:
    """Test on one item of each user that has at least two.

    Parameters
    ----------
    data : Interactions
        What to cut.
    seed : int
        Decides which one; with `last`, only among items of the same latest time.
    last : bool
        Take the user's latest item instead of a random one.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    DataError
        With `last`, if the interactions have no times.
    """
    places = _places(data, seed, _times(data, "`last=True`") if last else None)
    counts = data.user_counts[data.pair_users()]
    return _parts(data, (places == counts - 1) & (counts >= 2))


def by_time(
    data: Interactions, test: float = 0.2, *, at: float | None = None, seed: int = 0
) -> Split:
    """Train on the past and test on the future, cut at one moment for all users.

    Parameters
    ----------
    data : Interactions
        What to cut; must have times.
    test : float
        The share of all interactions to test on, the latest ones: ``round(n * test)``.
    at : float, optional
        Instead of a share the moment itself: what happened then or later is tested on.
    seed : int
        Decides, for a share, which of the interactions at the very moment of the cut go where.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part.

    Raises
    ------
    OptionError
        If `test` is not between 0 and 1.
    DataError
        If there are no times, or one of the parts would be empty.
    """
    times = _times(data, "`by_time`")
    if at is not None:
        later = np.asarray(times >= at)
    else:
        _check_share(test)
        order = np.lexsort((_shuffle(data, seed), times))
        later = np.zeros(data.n_pairs, np.bool_)
        later[order[data.n_pairs - round(data.n_pairs * test) :]] = True
    if later.all() or not later.any():
        what = f"at={at!r}" if at is not None else f"test={test!r}"
        span = (
            f"the times go from {times.min()} to {times.max()}" if times.size else "there are none"
        )
        raise DataError(f"`{what}` leaves one part of the {data.n_pairs:,} pairs empty; {span}.")
    return _parts(data, later)


def by_user(data: Interactions, test: float = 0.1, *, seed: int = 0) -> Split:
    """Test on all interactions of some users, train on the others (strong generalisation).

    Parameters
    ----------
    data : Interactions
        What to cut.
    test : float
        The share of the users with interactions that are held out: rounded, at least one of them.
    seed : int
        Another one holds other users out.

    Returns
    -------
    (Interactions, Interactions)
        The training and the test part; a user has pairs in one of them only.

    Raises
    ------
    OptionError
        If `test` is not between 0 and 1.
    DataError
        If fewer than two users have interactions.
    """
    _check_share(test)
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
    return _parts(data, held_out[data.pair_users()])


def _parts(data: Interactions, tested: Bool) -> Split:
    return data.subset(~tested), data.subset(tested)


def _shuffle(data: Interactions, seed: int) -> npt.NDArray[np.uint64]:
    return counter.bits(counter.stream(seed, Purpose.SPLIT, _SHUFFLE), np.arange(data.n_pairs))


def _places(data: Interactions, seed: int, times: Times | None = None) -> Int64:
    """Give each pair its place, from 0, among its user's: by time if given, then shuffled."""
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


def _check_share(test: float) -> None:
    if not isinstance(test, Real) or not 0 < float(test) < 1:
        raise OptionError(f"`test` must lie between 0 and 1, neither included; got {test!r}.")
