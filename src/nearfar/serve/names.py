"""Ids as JSON can say them: a string or an integer, whichever type the model's own ids have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nearfar.data.ids import Ids
from nearfar.runtime.arrays import Int32

EXACT_INTEGER: Final = 2**53
"""Beyond it a browser reads two neighbouring integers as one, so such ids are given as text."""
_FEW: Final = 100
"""Up to so many ids are taken one by one: gathering them costs as much as that."""


class Names:
    """The ids of one axis, as requests and answers say them.

    Integers may be given as text, and text that is an integer as a number.

    Examples
    --------
    >>> Names(Ids([7, 196])).rows(["196", 7]).tolist()
    [1, 0]
    >>> Names(Ids(["196", "7"])).rows([196, "7"]).tolist()
    [0, 1]
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    def row(self, given: str | int) -> int:
        """Give the row of one id.

        Raises
        ------
        UnknownIdError
            It is not there.
        """
        return int(self.rows([given])[0])

    def rows(self, given: Iterable[str | int]) -> Int32:
        """Give the row of each id, int32, in the order given.

        Raises
        ------
        UnknownIdError
            One of them is not there.
        """
        return self.ids.rows(self.ids.typed(map(str, given)))

    def shown(self, rows: Iterable[int]) -> list[str | int]:
        """Give the ids of rows as JSON can say them."""
        listed = list(rows)
        if len(listed) > _FEW:
            return [_shown(one) for one in self.ids.take(listed).to_list()]
        return [_shown(self.ids.id(row)) for row in listed]


def _shown(one: str | int) -> str | int:
    return one if isinstance(one, int) and abs(one) <= EXACT_INTEGER else str(one)
