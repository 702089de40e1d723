"""What a hybrid has learned besides its points, and what it needs to encode content.

The point of row r is p_r = z_r / |z_r| with z_r = g(x_r) + delta_r (`nearfar.method.hybrid`). Kept
are the points, the vectors of g and the lengths |z_r|: delta_r = |z_r| p_r - g(x_r), with which
training can go on.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.feature_space import FeatureSpace
from nearfar.data.features import Features, checked_features
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.engine.content import Content, encode, has_content, make_content, rows_of
from nearfar.method.geometry import normalise
from nearfar.method.options import Options
from nearfar.runtime.arrays import Arrays, Bool, Float32, Float64, Int32, Int64

SIDES = ("users", "items")
_ROWS_A_PART = 2**16


class Encoders(NamedTuple):
    """The fitted state of a hybrid besides its points."""

    content: Content
    """The features on the axes of the model."""
    vectors: Float32
    """(F, d) the vectors of the columns, those of users first."""
    lengths: Float32
    """(N + M,) |z| of users, then of items."""
    spaces: dict[str, FeatureSpace]
    """How features become columns, by "users" and "items"."""

    @classmethod
    def of(cls, content: Content, tables: Float32, spaces: dict[str, FeatureSpace]) -> Self:
        """Return the state after training, from `nearfar.engine.Engine.tables`."""
        n = len(content.indptr) - 1
        lengths = np.empty(n, np.float32)
        for start in range(0, n, _ROWS_A_PART):
            part = slice(start, min(start + _ROWS_A_PART, n))
            raw = np.empty_like(tables[part])
            encode(content, np.arange(n)[part], tables[n:], tables[part], raw, False)
            lengths[part] = np.linalg.norm(raw, axis=1)
        return cls(content, tables[n:].copy(), lengths, spaces)

    def arrays(self) -> Arrays:
        """Return the arrays to save."""
        content = self.content
        return {
            "indptr": content.indptr, "columns": content.columns, "values": content.values,
            "vectors": self.vectors, "lengths": self.lengths,
        }  # fmt: skip

    def to_store(self) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
        """Return how features become columns, as JSON and tables."""
        metas: dict[str, Any] = {}
        frames: dict[str, pl.DataFrame] = {}
        for side, space in self.spaces.items():
            metas[side], tables = space.to_store()
            frames |= {f"{side}_{name}": table for name, table in tables.items()}
        return metas, frames

    @classmethod
    def from_store(
        cls,
        options: Options,
        data: Interactions,
        arrays: Arrays,
        metas: dict[str, Any],
        frames: dict[str, pl.DataFrame],
    ) -> Self:
        """Read what `arrays` and `to_store` returned; refuse what does not fit together."""
        spaces = {}
        for side, meta in metas.items():
            own = {
                name.removeprefix(f"{side}_"): table
                for name, table in frames.items()
                if name.startswith(f"{side}_")
            }
            spaces[side] = FeatureSpace.from_store(meta, own)
        n, n_users = data.n_users + data.n_items, data.n_users
        widths = [spaces[side].n_columns if side in spaces else 0 for side in SIDES]
        whole = sp.csr_array(
            (arrays["values"], arrays["columns"], arrays["indptr"]), (n, sum(widths))
        )
        parts = {
            "users": whole[:n_users, : widths[0]],
            "items": whole[n_users:, widths[0] :],
        }
        content = linear_content(
            options, data, {side: sp.csr_array(parts[side]) for side in spaces}
        )
        vectors, lengths = arrays["vectors"], arrays["lengths"]
        shapes = (sum(widths), options.dim), (n,)
        if (vectors.shape, lengths.shape) != shapes or content.columns.size != whole.nnz:
            raise ValueError("the encoder and the features do not fit together")
        if not all(np.isfinite(part).all() for part in (vectors, lengths, content.values)):
            raise ValueError("the encoder has a value that is not a finite number")
        return cls(content, vectors, lengths, spaces)

    def checked(self, name: str, given: Any) -> Features:
        """Return features that a caller passed, and refuse anything else."""
        return checked_features(name, given)

    @property
    def item_rows(self) -> sp.csr_array | None:
        """The features of items, (M, F)."""
        return rows_of(self.content, "items")

    @property
    def placed(self) -> Bool:
        """Which joint rows have content, (N + M,)."""
        return has_content(self.content)

    def encode(self, side: str, features: Features) -> tuple[Float32, Bool]:
        """Return the points g(x) of features, in the order of their ids, and which have none.

        Returns
        -------
        float32 array of shape (n, d), bool array of shape (n,)
            A row without any known feature is missing; its point is 0.
        """
        encoded = self.spaces[side].encode(features)
        columns = self.content.n_user_columns
        part = self.vectors[:columns] if side == "users" else self.vectors[columns:]
        points = np.asarray(encoded.matrix @ part, np.float32)
        missing = encoded.missing
        points[~missing] = normalise(points[~missing])
        return points, missing

    def encoded(self, rows: Int64) -> Float32:
        """Return g(x) of joint rows, (n, d), not normalised."""
        made = np.zeros((len(rows), self.vectors.shape[1]), np.float32)
        encode(self.content, rows, self.vectors, made, made, False)
        return made

    def content_part(self, row: int) -> Float64 | None:
        """Return g(x) / |z| of a joint row, (d,); None if it has no content."""
        if not self.placed[row]:
            return None
        part: Float64 = self.encoded(np.array([row]))[0].astype(np.float64) / self.lengths[row]
        return part

    def deltas(self, points: Float32) -> Float32:
        """Return delta of the joint rows with content, and the points of the others, (N + M, d)."""
        own, some = points.copy(), np.flatnonzero(self.placed)
        own[some] = points[some] * self.lengths[some, None] - self.encoded(some)
        return own

    def moved(
        self, options: Options, old: Interactions, new: Interactions, features: dict[str, Any]
    ) -> Encoders:
        """Return the state on the axes of more data, with the features of new users and items.

        Features of users and items that the state has already replace those that it has, except
        that they keep their delta. New rows have delta 0.
        """
        matrices, lengths = {}, []
        bounds = {"users": (0, old.n_users), "items": (old.n_users, old.n_users + old.n_items)}
        axes = {"users": (old.user_ids, new.user_ids), "items": (old.item_ids, new.item_ids)}
        for side in SIDES:
            first, last = bounds[side]
            before, after = axes[side]
            places = after.places(before)
            length = np.ones(len(after), np.float32)
            length[places] = self.lengths[first:last]
            lengths.append(length)
            if side in self.spaces:
                own = rows_of(self.content, side)
                matrices[side] = _merged(self.spaces[side], own, places, after, features.get(side))
        content = linear_content(options, new, matrices)
        made = self._replace(content=content, lengths=np.concatenate(lengths))
        fresh = made.placed.copy()
        fresh[: new.n_users][axes["users"][1].places(old.user_ids)] = False
        fresh[new.n_users :][axes["items"][1].places(old.item_ids)] = False
        made.lengths[fresh] = np.linalg.norm(made.encoded(np.flatnonzero(fresh)), axis=1)
        return made


def _merged(
    space: FeatureSpace, own: sp.csr_array, places: Int32, ids: Ids, features: Features | None
) -> sp.csr_array:
    """Return the rows of `own` at their places among `ids`, with those of the features."""
    n, data = len(ids), own.tocoo()
    parts = [(data.data, places[data.row], data.col)]
    if features is not None:
        new = space.encode(features, ids)
        given = ids.places(features.ids)
        given = given[given >= 0]
        replaced = np.zeros(n, np.bool_)
        replaced[given] = True
        kept = ~replaced[parts[0][1]]
        coo = new.matrix.tocoo()
        parts = [tuple(part[kept] for part in parts[0]), (coo.data, coo.row, coo.col)]  # type: ignore
    values, rows, columns = (np.concatenate(one) for one in zip(*parts, strict=True))
    merged = sp.csr_array((values.astype(np.float32), (rows, columns)), (n, space.n_columns))
    merged.sort_indices()
    return merged


def linear_content(
    options: Options, data: Interactions, matrices: dict[str, sp.csr_array]
) -> Content:
    """Return the content of users and items, from their features by "users" and "items"."""
    return make_content(
        data.n_users,
        data.n_items,
        options.users,
        options.items,
        matrices.get("users"),
        matrices.get("items"),
    )
