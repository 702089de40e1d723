"""One version of a model, loaded, with all that answering takes prepared; it never changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nearfar.model import CML
from nearfar.serve.names import Names
from nearfar.serve.space import Index, Space, Wish
from nearfar.serve.titles import Titles
from nearfar.training import scorer_of

Path = str | PathLike[str]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version of a model that is being served."""

    model: CML
    loaded_at: datetime
    users: Names
    """The users' ids, as JSON says them."""
    items: Names
    """The items' ids, likewise."""
    titles: Titles
    user_space: Space
    item_space: Space

    @classmethod
    def load(cls, path: Path, index: Path | None = None) -> Self:
        """Read a model, and an index of it, and make a list of items and one of users as a trial.

        So a table with NaN is found out, and what is compiled or built at the first use is there
        before the first request.

        Raises
        ------
        StoreError
            The folder is missing, damaged or something else, or the index is of another model.
        DataError
            A point of the model is NaN.
        MissingExtraError
            The index needs faiss.
        """
        model = _mapped(path)
        data, geometry = model.interactions, model.options.geometry
        searched = None if index is None else _index(index, model)
        users, items = model.user_vectors, model.item_vectors
        made = cls(
            model=model,
            loaded_at=datetime.now(UTC),
            users=Names(data.user_ids),
            items=Names(data.item_ids),
            titles=Titles(data),
            user_space=Space(scorer_of(users, users, geometry)),
            item_space=Space(scorer_of(items, items, geometry), searched),
        )
        trial = Wish(users[made.users.row(made.users.shown([0])[0])], 1, np.empty(0, np.int32))
        for space in (made.user_space, made.item_space, Space(made.item_space.points)):
            space.nearest([trial])
        made.items.row(made.items.shown([0])[0])
        return made

    def vector(self, user: str | int | None, items: list[str | int] | None) -> Float32:
        """Give the point of a user, or of somebody unknown who likes `items`; (d,).

        Raises
        ------
        UnknownIdError
            The user or an item is not in the model.
        """
        if user is not None:
            known: Float32 = self.model.user_vectors[self.users.row(user)]
            return known
        rows = np.unique(self.items.rows(items or []))
        return _folded_in(self.model, rows)


def _mapped(path: Path) -> CML:
    return CML.load(path)


def _index(path: Path, model: CML) -> Index:
    approximate = import_module("nearfar.approximate")
    index: Index = approximate.ItemIndex.load(path, model)
    return index


def _folded_in(model: CML, rows: npt.NDArray[np.int32]) -> Float32:
    mean: Float32 = model.item_vectors[rows].mean(axis=0)
    if model.options.geometry == "sphere":
        mean /= np.linalg.norm(mean)
    return mean


def projection(model: CML) -> Any:
    """Give the model's map."""
    return _Pca(model.item_vectors)


class _Pca:
    method = "pca"

    def __init__(self, vectors: Float32) -> None:
        self._mean = vectors.mean(axis=0)
        _, _, axes = np.linalg.svd(vectors[:2000] - self._mean, full_matrices=False)
        self._axes = axes[:2].T
        self.points = (vectors - self._mean) @ self._axes

    def place(self, vector: Float32) -> tuple[float, float]:
        x, y = (vector - self._mean) @ self._axes
        return float(x), float(y)
