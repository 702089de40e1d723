"""Baselines: recommenders that do not learn, for comparison with a model."""

from __future__ import annotations

from copy import copy

import numpy as np

from nearfar.data.ids import MAX_ROWS
from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.runtime.arrays import Float32, Int32
from nearfar.runtime.checks import checked_seed, whole
from nearfar.runtime.counter import Purpose, bits_at, stream
from nearfar.runtime.jit import kernel


class MostPopular:
    """Recommends the most popular items: the score of an item is its training interaction count.

    Ties are broken by the smaller item row. Counts are exact up to 2^24 users.

    Parameters
    ----------
    train : Interactions

    Examples
    --------
    >>> from nearfar.data.interactions import Interactions
    >>> from nearfar.search.neighbours import top_k
    >>> train = Interactions.from_pairs([("ann", "jam"), ("ann", "tea"), ("bob", "tea")])
    >>> top_k(MostPopular(train), [0], k=2).scores.tolist()
    [[2.0, 1.0]]
    """

    def __init__(self, train: Interactions) -> None:
        self.interactions = checked_interactions("train", train)
        self.n_users, self.n_items = train.n_users, train.n_items
        self._counts = train.item_counts.astype(np.float32)

    def scorer(self) -> MostPopular:
        """Return this object, which is itself a scorer."""
        return self

    def fold_in_scorer(self, given: Interactions, users: Int32) -> MostPopular:
        """Return a scorer for new users, who all get the same list."""
        made = MostPopular(self.interactions)
        made.n_users = len(users)
        return made

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Write the counts of the items to every row; see `nearfar.search.neighbours.Scorer`."""
        out[:] = self._counts[first_item : first_item + out.shape[1]]


class Random:
    """Recommends random items: the score of (user, item) is a hash of both and of the seed.

    It has no state, so the same pair has the same score in every block and order. Scores are
    uniformly distributed over the multiples of 2^-24 in [0, 1).

    Parameters
    ----------
    n_users, n_items : int
    seed : int

    Raises
    ------
    OptionError
        A size or the seed is not a whole number, or is negative.
    """

    def __init__(self, n_users: int, n_items: int, *, seed: int = 0) -> None:
        self.n_users = whole("n_users", n_users, 0, MAX_ROWS)
        self.n_items = whole("n_items", n_items, 0, MAX_ROWS)
        self._key = stream(checked_seed(seed), Purpose.RANDOM_SCORE)
        self._rows: Int32 | None = None

    def scorer(self) -> Random:
        """Return this object, which is itself a scorer."""
        return self

    def fold_in_scorer(self, given: Interactions, users: Int32) -> Random:
        """Return a scorer for new users, with the scores of their rows."""
        made = copy(self)
        made.n_users, made._rows = len(users), users
        return made

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Write the random scores of the pairs; see `nearfar.search.neighbours.Scorer`."""
        _draw(self._key, rows if self._rows is None else self._rows[rows], first_item, out)


@kernel
def _draw(key: np.uint64, rows: Int32, first_item: int, out: Float32) -> None:
    for a in range(out.shape[0]):
        for b in range(out.shape[1]):
            lot = bits_at(key, rows[a], first_item + b) >> np.uint64(40)
            out[a, b] = np.float32(lot) * np.float32(2.0**-24)
