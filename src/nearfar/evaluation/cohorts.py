"""Who is evaluated: users with training interactions, and new users.

A recommender has learned nothing about a user without training interactions: the point of such a
user in `nearfar.CML` is where it started, at random. New users are therefore left out, or folded in
from some of their items, which measures *strong generalisation* (Liang et al., *Variational
Autoencoders for Collaborative Filtering*, WWW 2018): the model is trained on some users, and tested
on others from a part of their items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.runtime.arrays import Int32, Int64
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import one_of

NEW_USERS: Final = ("leave_out", "fold_in", "error")
"""What to do with users who have test items but no training interactions."""
_REMEDY: Final = (
    "To evaluate them pass new_users='fold_in' and their other items as `given`;"
    " nearfar.split.by_user(data, given=0.8) makes these parts."
)


@dataclass(frozen=True, eq=False)
class Cohorts:
    """The rows of the users to evaluate, ascending."""

    known: Int32
    """Users with training interactions."""
    folded: Int32
    """New users who are folded in."""
    n_left_out: int
    """Number of the other new users."""
    given: Interactions | None = None
    """The given items of the users in `folded`."""

    @property
    def n_users(self) -> int:
        """Number of users to evaluate."""
        return len(self.known) + len(self.folded)

    def hidden(self, users: Int32, left_out: Interactions) -> tuple[Int64, Int32]:
        """Return the items that the lists of new users leave out, as ``indptr`` and ``items``."""
        assert self.given is not None
        parts = (self.given, left_out)
        own = [
            np.unique(np.concatenate([part.positives(int(user)) for part in parts]))
            for user in users
        ]
        return np.cumsum([0, *map(len, own)], dtype=np.int64), np.concatenate(own)


@dataclass(frozen=True, eq=False)
class NewUsers:
    """What `nearfar.evaluate` does with new users.

    Raises
    ------
    OptionError
        `what` is not one of `NEW_USERS`, or `given` and "fold_in" do not go together.
    """

    what: str
    given: Interactions | None

    def __post_init__(self) -> None:
        one_of("new_users", self.what, NEW_USERS)
        if self.what == "fold_in" and self.given is None:
            raise OptionError(
                "new_users='fold_in' needs `given`, the items from which new users are folded in;"
                " nearfar.split.by_user(data, given=0.8) and nearfar.split.for_fold_in make it."
            )
        if self.what != "fold_in" and self.given is not None:
            raise OptionError(
                f"`given` is only used with new_users='fold_in'; got new_users={self.what!r}."
            )

    def cohorts(self, recommender: Any, train: Interactions, test: Interactions) -> Cohorts:
        """Return who is evaluated; warn of those who are left out.

        Raises
        ------
        OptionError
            `recommender` cannot fold in.
        DataError
            With "error": there are new users.
        EmptyDataError
            Nobody is left.
        """
        tested = np.flatnonzero(test.user_counts).astype(np.int32)
        known = train.user_counts[tested] > 0
        new = tested[~known]
        if len(new) and self.what == "error":
            raise DataError(
                f"{len(new):,} of the {len(tested):,} users with test items have no training"
                f" interactions, such as {train.user_ids.id(int(new[0]))!r}. {_REMEDY}"
            )
        folded = self._foldable(recommender, train, new)
        made = Cohorts(tested[known], folded, len(new) - len(folded), self.given)
        if made.n_left_out:
            told = self._told(made.n_left_out, len(tested))
            if not made.n_users:
                raise EmptyDataError(f"{told} Nobody is left to evaluate. {_REMEDY}")
            warn(f"{told} They are left out of the metrics. {_REMEDY}")
        return made

    def _foldable(self, recommender: Any, train: Interactions, new: Int32) -> Int32:
        """Return the new users with a given item that has training interactions."""
        if self.given is None:
            return new[:0]
        if not hasattr(recommender, "fold_in_scorer"):
            raise OptionError(
                "new_users='fold_in' needs a recommender with fold_in_scorer(given, users), such as"
                f" a CML; got a {type(recommender).__name__}."
            )
        trained = self.given.subset(train.item_counts[self.given.items] > 0)
        return new[trained.user_counts[new] > 0]

    def _told(self, n: int, of: int) -> str:
        lack = (
            "neither training interactions nor a given item that has some"
            if self.what == "fold_in"
            else "no training interactions, so nothing has been learned about them"
        )
        return f"{n:,} of the {of:,} users with test items have {lack}."
