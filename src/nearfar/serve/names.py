"""Ids in JSON: a string or an integer, regardless of the type of the model's ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from nearfar.data.ids import Ids
from nearfar.runtime.arrays import Int32

EXACT_INTEGER: Final = 2**53
"""Larger integers are not exact in JavaScript, so such ids are returned as text."""
_FEW: Final = 100
"""Up to this number, ids are read one by one, which is as fast as a gather."""


class Names:
    """The ids of one axis in requests and responses.

    Integer ids may be passed as text, and text ids that look like integers as numbers.

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
        """Return the row of one id.

        Raises
        ------
        UnknownIdError
            There is no such id.
        """
        return int(self.rows([given])[0])

    def rows(self, given: Iterable[str | int]) -> Int32:
        """Return the row of each id, int32, in the order given.

        Raises
        ------
        UnknownIdError
            An id is unknown.
        """
        return self.ids.rows(self.ids.typed(map(str, given)))

    def known(self, given: Iterable[str | int]) -> tuple[Int32, int]:
        """Return the rows of the ids that are known, and the number of distinct others."""
        rows, unknown = self.ids.known(self.ids.typed(map(str, given)))
        return rows, len(set(unknown))

    def shown(self, rows: Iterable[int]) -> list[str | int]:
        """Return the ids of rows as JSON values."""
        listed = list(rows)
        if len(listed) > _FEW:
            return [_shown(one) for one in self.ids.take(listed).to_list()]
        return [_shown(self.ids.id(row)) for row in listed]


def _shown(one: str | int) -> str | int:
    return one if isinstance(one, int) and abs(one) <= EXACT_INTEGER else str(one)
