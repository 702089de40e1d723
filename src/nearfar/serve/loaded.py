"""A loaded version of a model, prepared for answering requests; immutable."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from os import PathLike
from typing import Any, Final, Self

import numpy as np
import polars as pl

from nearfar.data.feature_columns import by_kind
from nearfar.data.features import Features
from nearfar.errors import OptionError
from nearfar.model.asked import Axis
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Float32
from nearfar.search.item_index import ItemIndex
from nearfar.search.scoring import scorer_of
from nearfar.serve.names import Names
from nearfar.serve.space import Space, Wish
from nearfar.serve.titles import Titles

Path = str | PathLike[str]
_USER_REMEDY: Final = "Send the items that the user likes as `items` instead of `user`."
_ITEM_REMEDY: Final = "Ask for another item, or serve a model that was trained with it."


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version of a model to be served."""

    model: CML
    loaded_at: datetime
    users: Names
    """The user ids as JSON values."""
    items: Names
    """The item ids as JSON values."""
    titles: Titles
    user_space: Space
    item_space: Space
    user_axis: Axis
    """The users, and what to do about one without training interactions."""
    item_axis: Axis
    """The items, likewise."""

    @cached_property
    def version(self) -> str:
        """The fingerprint of the training data, shortened, and when the model was loaded."""
        return f"{self.model.fingerprint[:12]}@{self.loaded_at:%Y-%m-%dT%H:%M:%SZ}"

    @classmethod
    def load(cls, path: Path, index: Path | None = None) -> Self:
        """Read a model and its index, and compute one list of items and one of users as a test.

        Everything that is compiled or built on first use is thus ready before the first request.

        Raises
        ------
        StoreError
            The folder is missing or damaged or contains something else, or the index belongs to
            another model.
        MissingExtraError
            The index needs faiss.
        """
        model = CML.load(path, mmap=True)
        return cls.of(model, None if index is None else ItemIndex.load(index, model))

    @classmethod
    def of(cls, model: CML, searched: ItemIndex | None) -> Self:
        """Prepare a model and its index, and test them as `load` does."""
        data, geometry = model.interactions, model.options.geometry
        users, items = model.user_vectors, model.item_vectors
        with_users, with_items = model.placed_users, model.placed_items
        made = cls(
            model=model,
            loaded_at=datetime.now(UTC),
            users=Names(data.user_ids),
            items=Names(data.item_ids),
            titles=Titles(data),
            user_space=Space(scorer_of(users, users, geometry), geometry, allowed=with_users),
            item_space=Space(
                scorer_of(items, items, geometry),
                geometry,
                searched,
                with_items,
                model.weights,
                model.neighbours,
                model.neighbour_weight,
            ),
            user_axis=Axis(data.user_ids, with_users, _USER_REMEDY),
            item_axis=Axis(data.item_ids, with_items, _ITEM_REMEDY),
        )
        made._try()
        return made

    def _try(self) -> None:
        """Compute one list of each kind and a position on the map, and discard them."""
        data, empty = self.model.interactions, np.empty(0, np.int32)
        user = self.users.shown([int(np.argmax(data.user_counts))])[0]
        item = self.items.shown([int(np.argmax(data.item_counts))])[0]
        whole = replace(self.item_space, index=None)
        for vector in (self.vector(user, None), self.vector(None, [item])):
            self.model.projection.place(vector)
            trial = Wish(vector, 1, empty)
            for space in (self.user_space, self.item_space, whole):
                space.nearest([trial])
            self.item_space.nearest([replace(trial, own=self.items.rows([item]))])

    def with_items(self, new: Mapping[str | int, Mapping[str, Any]]) -> Self:
        """Return this version with more items, by their content; see `nearfar.CML.add_items`.

        Parameters
        ----------
        new : mapping
            From the id of each item to its fields; a field that is missing has no value.

        Raises
        ------
        OptionError
            There is an index, the model was trained without features, or a field is not one of its.
        DataError
            A value cannot be used, an item is there already, or has no feature that is known.
        """
        if self.item_space.index is not None:
            raise OptionError(
                "the server searches an index, which lacks new items; add them with `nearfar"
                " add-items`, build the index again, and reload."
            )
        kinds, ids = self.model.features_of("items"), self.model.interactions.item_ids
        if not kinds:
            raise OptionError("the model was trained without features of items.")
        columns: dict[str, Any] = by_kind(kinds)
        others = [name for name, kind in kinds.items() if kind not in columns]
        if others:
            raise OptionError(
                f"the field {others[0]!r} is of the kind {kinds[others[0]]!r}, which a request"
                " cannot have; use CML.add_items in Python, save, and reload."
            )
        unknown = sorted({name for fields in new.values() for name in fields} - set(kinds))
        if unknown:
            raise OptionError(f"{unknown[0]!r} is not a field of the model; it has {list(kinds)}.")
        rows = [{name: fields.get(name) for name in kinds} for fields in new.values()]
        frame = pl.DataFrame(rows, infer_schema_length=None, strict=False).with_columns(
            item_id=pl.Series(ids.typed(map(str, new)))
        )
        features = Features.from_frame(frame, id="item_id", **columns)
        return self.of(copy(self.model).add_items(features), None)

    def vector(self, user: str | int | None, items: list[str | int] | None) -> Float32:
        """Return the point of a user, or of a new user who likes `items`; (d,).

        Raises
        ------
        UnknownIdError
            The user or an item is not in the model, or has no training interactions.
        """
        if user is not None:
            row = self.users.row(user)
            if (error := self.user_axis.untrained(np.array([row], np.int32))) is not None:
                raise error
            known: Float32 = self.model.user_vectors[row]
            return known
        rows = self.items.rows(items or [])
        if (error := self.item_axis.untrained(rows)) is not None:
            raise error
        return self.model.fold_in(self.items.ids.take(rows).to_list())
