"""What a hybrid with a torch module has learned besides its points, and how it encodes content.

Kept are the deltas of the items with content and the weights of the module by their names. The
contents themselves stay with the caller: a model in memory knows where they are read from, and one
that was loaded from a folder encodes new contents only.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.contents import Contents, checked_contents
from nearfar.data.feature_space import check_cover
from nearfar.data.interactions import Interactions
from nearfar.engine.content import Content, has_content
from nearfar.engine.item_module import ItemModule, make_module_content
from nearfar.errors import DataError, OptionError
from nearfar.method.geometry import normalise
from nearfar.method.hybrid import Hybrid, Module
from nearfar.method.options import Options
from nearfar.runtime.arrays import Arrays, Bool, Float32, Float64, Int64

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""The names and shapes of the weights and buffers of a module, in their order in the tables."""
_NAMED = "module."


class ContentField(NamedTuple):
    """The one field of contents, as `nearfar.CML.features_of` names it."""

    name: str
    kind: str


class ContentSpace(NamedTuple):
    """What every content must be like."""

    shape: tuple[int, ...]
    """The shape of one content."""

    @property
    def fields(self) -> tuple[ContentField, ...]:
        """The field of the contents."""
        return (ContentField("content", f"array of shape {self.shape}"),)


class ModuleEncoders(NamedTuple):
    """The fitted state of a hybrid with a module besides its points."""

    content: Content
    """Which items have content."""
    module: ItemModule
    vectors: Float32
    """(F, d) the weights, as `nearfar.engine.item_module` lays them out."""
    own: Float32
    """(M, d) delta; 0 without content."""
    layout: Layout
    spaces: dict[str, ContentSpace]

    @classmethod
    def of(cls, content: Content, module: ItemModule, tables: Float32) -> Self:
        """Return the state after training, from `nearfar.engine.Engine.tables`."""
        n, n_users = len(content.indptr) - 1, content.n_users
        own = tables[n_users:n] * has_content(content)[n_users:, None]
        spaces = {"items": ContentSpace(module.contents.shape)}
        return cls(content, module, tables[n:].copy(), own, layout_of(module), spaces)

    def arrays(self) -> Arrays:
        """Return the arrays to save: the weights by their names in the module."""
        flat, at, named = self.vectors.ravel(), 0, {}
        for name, shape in self.layout:
            named[_NAMED + name] = flat[at : at + prod(shape)].reshape(shape)
            at += prod(shape)
        return {"own": self.own, "placed": self.placed[self.content.n_users :], **named}

    def to_store(self) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
        """Return the shapes, as JSON, and no tables."""
        shape = list(self.spaces["items"].shape)
        layout = [[name, list(shape)] for name, shape in self.layout]
        return {"items": {"shape": shape, "layout": layout}}, {}

    @classmethod
    def from_store(
        cls, options: Options, data: Interactions, arrays: Arrays, metas: dict[str, Any]
    ) -> Self:
        """Read what `arrays` and `to_store` returned; refuse what does not fit together."""
        hybrid, encoder = hybrid_of(options)
        meta, dim = metas["items"], options.dim
        layout = tuple((str(name), tuple(map(int, shape))) for name, shape in meta["layout"])
        parts = [arrays[_NAMED + name] for name, _ in layout]
        shapes = [part.shape for part in parts]
        own, placed = arrays["own"], arrays["placed"]
        expected = [(data.n_items, dim), (data.n_items,), [shape for _, shape in layout]]
        if [own.shape, placed.shape, shapes] != expected or placed.dtype != np.bool_:
            raise ValueError("the deltas and the weights of the module do not fit together")
        if not all(np.isfinite(part).all() for part in (own, *parts)):
            raise ValueError("the module has a weight, or an item a delta, that is not finite")
        size = sum(map(prod, shapes))
        vectors = np.zeros((-(-size // dim), dim), np.float32)
        vectors.ravel()[:size] = np.concatenate([part.ravel() for part in parts] or [vectors[0]])
        none = Contents(data.item_ids.subset([]), lambda wanted: np.empty((0, 1)))
        places = np.full(data.n_items, -1, np.int32)
        module = ItemModule(encoder, dim, none, places, known_rows=len(vectors))
        content = make_module_content(data.n_users, data.n_items, hybrid, module, placed)
        spaces = {"items": ContentSpace(tuple(map(int, meta["shape"])))}
        return cls(content, module, vectors, np.array(own), layout, spaces)

    def checked(self, name: str, given: Any) -> Contents:
        """Return contents that a caller passed, and refuse anything else."""
        contents = checked_contents(name, given)
        shape = self.spaces["items"].shape
        if len(contents) and contents.shape != shape:
            raise DataError(
                f"`{name}` must have contents of the shape {shape}, that of the training; got"
                f" {contents.shape}."
            )
        return contents

    @property
    def placed(self) -> Bool:
        """Which joint rows have content, (N + M,)."""
        return has_content(self.content)

    @property
    def item_rows(self) -> sp.csr_array | None:
        """None: there are no features of items in columns."""
        return None

    def encode(self, side: str, contents: Contents) -> tuple[Float32, Bool]:
        """Return the points g(x) of contents, in the order of their ids; none is missing.

        Returns
        -------
        float32 array of shape (n, d), bool array of shape (n,)
        """
        n = len(contents)
        of_all = self.module.reading(contents, np.arange(n, dtype=np.int32))
        self._check_layout()
        points = normalise(of_all.encode(np.arange(n), self.vectors))
        bad = np.flatnonzero(~np.isfinite(points).all(1))
        if len(bad):
            raise DataError(
                f"The module {self.module.encoder.name} returned a value that is not finite for"
                f" the content of the id {contents.ids.id(int(bad[0]))!r}."
            )
        return points, np.zeros(n, np.bool_)

    def encoded(self, rows: Int64) -> Float32:
        """Return g(x) of joint rows, (n, d), not normalised; 0 without content."""
        made = np.zeros((len(rows), self.module.dim), np.float32)
        some = self.placed[rows]
        self._check_layout()
        made[some] = self.module.encode(rows[some] - self.content.n_users, self.vectors)
        return made

    def content_part(self, row: int) -> Float64 | None:
        """Return g(x) / |z| of a joint row, (d,).

        None if it has no content, or the model was loaded: its contents are not saved with it.
        """
        item = row - self.content.n_users
        if item < 0 or self.module.places[item] < 0:
            return None
        encoded = self.encoded(np.array([row]))[0].astype(np.float64)
        part: Float64 = encoded / np.linalg.norm(encoded + self.own[item])
        return part

    def deltas(self, points: Float32) -> Float32:
        """Return delta of the joint rows with content, and the points of the others, (N + M, d)."""
        own, n = points.copy(), self.content.n_users
        own[n:] = np.where(self.placed[n:, None], self.own, points[n:])
        return own

    def moved(
        self, options: Options, old: Interactions, new: Interactions, features: dict[str, Any]
    ) -> ModuleEncoders:
        """Return the state on the axes of more data, with the contents of new items.

        Contents of items that the state has already replace those that it has, except that they
        keep their delta. New rows have delta 0.
        """
        hybrid, _ = hybrid_of(options)
        places = new.item_ids.places(old.item_ids)
        own = np.zeros((new.n_items, self.module.dim), np.float32)
        placed = np.zeros(new.n_items, np.bool_)
        own[places], placed[places] = self.own, self.placed[old.n_users :]
        contents = self.module.contents
        if (given := features.get("items")) is not None:
            contents = contents.updated(given) if len(contents) else given
            placed |= given.ids.places(new.item_ids) >= 0
        module = self.module.reading(contents, contents.ids.places(new.item_ids))
        content = make_module_content(new.n_users, new.n_items, hybrid, module, placed)
        return self._replace(content=content, module=module, own=own)

    def _check_layout(self) -> None:
        """Refuse a `build` that makes another module than the one that was trained."""
        mine = layout_of(self.module)
        if mine == self.layout:
            return
        here, there = dict(mine), dict(self.layout)
        name = next(one for one in {**there, **here} if here.get(one) != there.get(one))
        raise OptionError(
            f"`encoder` must build the module that was trained: its {name!r} is"
            f" {here.get(name, 'missing')}, and that of the model {there.get(name, 'missing')}."
        )


def layout_of(module: ItemModule) -> Layout:
    """Return the names and shapes of the weights and buffers of a module."""
    named = [*module.net.named_parameters(), *module.net.named_buffers()]
    return tuple((name, tuple(one.shape)) for name, one in named)


def hybrid_of(options: Options) -> tuple[Hybrid, Module]:
    """Return how items are learned, and their module."""
    hybrid = options.items
    if hybrid is None or not isinstance(hybrid.encoder, Module):
        raise ValueError("no module encodes the items")
    return hybrid, hybrid.encoder


def make_item_module(
    options: Options, train: Interactions, contents: Contents, seed: int, device: str
) -> tuple[Content, ItemModule]:
    """Return the content that a model is to learn from by a module, on the axes of the data.

    Warns
    -----
    NearfarWarning
        Less than 90 % of the items with training interactions have content.

    Raises
    ------
    DataError
        None of them has, such as because the ids are integers here and text there.
    """
    hybrid, encoder = hybrid_of(options)
    places = contents.ids.places(train.item_ids)
    used = train.item_counts > 0
    n_known, n = int(used.sum()), int((used & (places >= 0)).sum())
    check_cover(contents.ids, n, train.item_ids, n_known, "contents")
    module = ItemModule(encoder, options.dim, contents, places, seed, device)
    content = make_module_content(train.n_users, train.n_items, hybrid, module, places >= 0)
    return content, module
