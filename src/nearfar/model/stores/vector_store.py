"""What a store of vectors must do for an export, and the layout of its tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Protocol, Self

import polars as pl

from nearfar.errors import StoreError, first_line
from nearfar.runtime.arrays import Float32

FORMAT: Final = 1
"""The format of the tables."""
MARKER: Final = "nearfar"
"""The key in the description of a table that says that nearfar made it."""
LONGEST_REASON: Final = 300
"""How much of a client's error a message quotes: some quote the whole request."""


@dataclass(frozen=True)
class Layout:
    """The layout of a table, which its description keeps."""

    what: str
    """"items" or "users"."""
    ids: str
    """"integer" or "text"."""
    dim: int
    """The number of coordinates of a point."""
    norm: bool
    """Whether there is a coordinate for the length of the points; off the sphere."""
    weight: bool
    """Whether there is a coordinate for the popularity prior."""

    @property
    def width(self) -> int:
        """The number of coordinates of a vector."""
        return self.dim + self.norm + self.weight

    @property
    def titled(self) -> bool:
        """Whether the rows have titles."""
        return self.what == "items"

    def to_text(self) -> str:
        """Return the description of a table.

        Examples
        --------
        >>> layout = Layout("items", "text", 2, norm=False, weight=True)
        >>> layout.to_text()
        '{"nearfar": 1, "what": "items", "ids": "text", "dim": 2, "norm": false, "weight": true}'
        >>> Layout.from_text(layout.to_text()) == layout, layout.width
        (True, 3)
        """
        return json.dumps({MARKER: FORMAT, **asdict(self)})

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Return the layout in a description; None if nearfar did not write it."""
        try:
            known = json.loads(text or "")
            return cls(**known) if known.pop(MARKER) == FORMAT else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def differences(self, other: Layout) -> str:
        """Return what another layout has instead, for a message.

        Examples
        --------
        >>> Layout("items", "text", 2, False, False).differences(
        ...     Layout("items", "text", 3, False, False)
        ... )
        'dim=3 instead of dim=2'
        """
        mine, theirs = asdict(self), asdict(other)
        differ = [name for name in mine if mine[name] != theirs[name]]
        found = ", ".join(f"{name}={theirs[name]!r}" for name in differ)
        wanted = ", ".join(f"{name}={mine[name]!r}" for name in differ)
        return f"{found} instead of {wanted}"


class VectorRows(NamedTuple):
    """Rows of a table, n of them."""

    ids: pl.Series
    """The ids, String or Int64."""
    vectors: Float32
    """float32 (n, width)."""
    titles: list[str | None] | None
    """The titles; None in a table of users."""
    version: str
    """The version of all rows."""


class VectorStore(Protocol):
    """A table of a store, which need not exist.

    Clients' errors are raised as `StoreError`, and each call is done completely or not at all.
    """

    place: str
    """The table and where it is, for messages; without a password."""

    def found(self) -> Layout | None:
        """Return the layout of the table; None if there is no table.

        Raises
        ------
        StoreError
            There is a table of this name that nearfar did not make.
        """
        ...

    def create(self) -> None:
        """Create the table."""
        ...

    def count(self, version: str | None = None) -> int:
        """Return the number of rows, of a version or of all."""
        ...

    def present(self, ids: pl.Series, version: str) -> Set[Any]:
        """Return which of some ids have a row of a version."""
        ...

    def upsert(self, rows: VectorRows) -> None:
        """Insert rows, or replace those with the same ids."""
        ...

    def remove_others(self, version: str) -> None:
        """Remove the rows of other versions."""
        ...

    def finish(self, version: str) -> None:
        """Build or complete the index for searches by inner product, of rows of a version."""
        ...


def foreign(place: str) -> StoreError:
    """Return the error for a table that nearfar did not make."""
    return StoreError(
        f"The {place} exists and was not made by nearfar; it is unchanged. Choose another `table`."
    )


@contextmanager
def explained(place: str, doing: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise errors of a client as one `StoreError` that says what was done, and where.

    Parameters
    ----------
    place : str
        The table and where it is.
    doing : str
        What was done, such as "Writing".
    errors : classes of exceptions
        The errors of the client.
    """
    try:
        yield
    except StoreError:
        raise
    except errors as error:
        raise StoreError(
            f"{doing} the {place} failed: {first_line(error)[:LONGEST_REASON]}. The same export"
            " continues where it stopped when it is run again."
        ) from error
