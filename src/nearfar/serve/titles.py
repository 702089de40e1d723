"""Titles and categories of the items, and search by a part of a title or id.

The titles and ids of all items are joined into one lower-case text, the most popular items first. A
search scans this text from the beginning, at gigabytes per second, and stops when enough items are
found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.runtime.arrays import Int32, Int64
from nearfar.serve.names import Names

CATEGORIES: Final = ("category", "categories", "genre", "genres")
"""Columns of the item table that can have the categories; the first existing one is used."""
_SEPARATOR: Final = "|"
_BETWEEN, _END = b"\xfe", b"\xff"  # bytes that UTF-8 never uses


class Titles:
    """Titles, categories and popularity of the items of a model, by row.

    Examples
    --------
    >>> data = Interactions.from_pairs([("ann", "t"), ("bob", "t"), ("ann", "j")])
    >>> table = pl.DataFrame({"item_id": ["j", "t"], "title": ["Plum jam", "Green tea"]})
    >>> titles = Titles(data.with_item_table(table))
    >>> titles.of([0, 1]), titles.find("TEA", 5).tolist(), titles.find("", 5).tolist()
    (['Plum jam', 'Green tea'], [1], [1, 0])
    """

    def __init__(self, data: Interactions) -> None:
        self.popularity = data.item_counts
        """Number of users of each item, int64, (M,)."""
        self.best_known = np.argsort(-self.popularity, kind="stable").astype(np.int32)
        """The rows of all items, the most popular first."""
        self.category_column = _category_column(data)
        """The column with the category of an item, if there is one."""
        self._titles = _column(data, "title")
        self._categories = [_first(each) for each in _column(data, self.category_column)]
        self._text, self._starts = self._joined(Names(data.item_ids))

    @property
    def known(self) -> bool:
        """Whether any item has a title."""
        return bool(self._titles)

    def of(self, rows: Iterable[int]) -> list[str | None]:
        """Return the titles of rows, or None for an item without one."""
        return [self._titles[row] if self._titles else None for row in rows]

    def categories(self, rows: Iterable[int]) -> list[str | None]:
        """Return the first category of each row, or None for an item without one."""
        return [self._categories[row] if self._categories else None for row in rows]

    def find(self, text: str, limit: int) -> Int32:
        """Find items whose title or id contains a text, ignoring case.

        Returns
        -------
        int32 array
            Their rows, at most `limit`, the most popular first.
        """
        wanted = _folded(text)
        places: list[int] = []
        at = self._text.find(wanted)
        while at >= 0 and len(places) < limit and at < len(self._text):
            place = int(np.searchsorted(self._starts, at, side="right")) - 1
            places.append(place)
            at = self._text.find(wanted, int(self._starts[place + 1]))
        return self.best_known[places]

    def _joined(self, names: Names) -> tuple[bytes, Int64]:
        """Join all titles and ids; return also the start of each item's part, and the end."""
        rows = self.best_known.tolist()
        shown = zip(self.of(rows), names.shown(rows), strict=True)
        parts = [_folded(title or "") + _BETWEEN + _folded(str(one)) + _END for title, one in shown]
        return b"".join(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _folded(text: str) -> bytes:
    return text.casefold().encode("utf-8", "backslashreplace")


def _column(data: Interactions, name: str | None) -> list[str | None]:
    """Return a column of the item table as text, by row; [] if there is no such column.

    Lists are joined.
    """
    table = data.item_table
    if table is None or name is None or name not in table.columns:
        return []
    values = table[name]
    if values.dtype == pl.List:
        values = values.cast(pl.List(pl.String)).list.join(_SEPARATOR)
    by_row: list[str | None] = [None] * data.n_items
    rows = data.item_ids.rows(table["item_id"]).tolist()
    for row, value in zip(rows, values.cast(pl.String), strict=True):
        by_row[row] = value
    return by_row


def _category_column(data: Interactions) -> str | None:
    columns = () if data.item_table is None else data.item_table.columns
    return next((name for name in CATEGORIES if name in columns), None)


def _first(categories: str | None) -> str | None:
    """Return the first of several categories in one text, as in MovieLens."""
    return (categories or "").split(_SEPARATOR)[0].strip() or None
