"""The fitted state of a model, and its files: safetensors, Parquet, JSON, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from os import PathLike
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, OptionError, StoreError
from nearfar.method.options import Options
from nearfar.model.card import Effective, card
from nearfar.model.given_content import AnyEncoders, read_encoders, with_build
from nearfar.model.item_map import METHODS, Projection, project
from nearfar.runtime import store
from nearfar.runtime.arrays import Arrays, Bool, Float32
from nearfar.search.item_item import NearItems
from nearfar.training.calibration import Calibration
from nearfar.training.content_diagnostics import ContentSight

KIND: Final = "model"
"""The kind of a folder with a model, for `nearfar.runtime.store`."""
SHARDS: Final = ("users_part", "items_part")
"""The entries of points that several processes have written, without their numbers."""
_VALIDATION: Final = "validation_"
_CALIBRATED: Final = ("popularity", "gamma", "k", "ndcg", "mmr")


class Fitted(NamedTuple):
    """The fitted state of a model; immutable."""

    users: Float32
    """(N, d) points of the users."""
    items: Float32
    """(M, d) points of the items."""
    history: pl.DataFrame
    best_epoch: int
    interactions: Interactions
    effective: Effective
    evaluation: dict[str, Any] | None = None
    projection: Projection | None = None
    gamma: float = 0.0
    """The factor of log f_j in the score; see `nearfar.method.prior`."""
    calibration: pl.DataFrame | None = None
    """The front from which gamma was chosen; see `nearfar.CML.calibration`."""
    neighbour_weight: float = 0.0
    """lambda of the co-occurrence term; see `nearfar.method.co_occurrence`."""
    neighbours: NearItems | None = None
    """The neighbours of the items; None if lambda is 0."""
    encoders: AnyEncoders | None = None
    """What a hybrid has learned besides its points."""

    @property
    def placed_users(self) -> Bool:
        """Which users have a point, learned from interactions or content, (N,)."""
        placed: Bool = self.interactions.user_counts > 0
        if self.encoders is not None:
            placed = placed | self.encoders.placed[: len(placed)]
        return placed

    @property
    def placed_items(self) -> Bool:
        """Which items have a point, learned from interactions or content, (M,)."""
        placed: Bool = self.interactions.item_counts > 0
        if self.encoders is not None:
            placed = placed | self.encoders.placed[-len(placed) :]
        return placed

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Metrics by name; see `nearfar.CML.metrics`."""
        found = {}
        names = [name for name in self.history.columns if name.startswith(_VALIDATION)]
        rows = self.history.iter_rows(named=True) if names else iter(())
        best = next((row for row in rows if row["epoch"] == self.best_epoch), None)
        if best is not None:
            values = {name.removeprefix(_VALIDATION): best[name] for name in names}
            found["validation"] = {name: v for name, v in values.items() if v is not None}
        if self.evaluation is not None:
            found["test"] = self.evaluation
        return found

    @property
    def content_diagnostics(self) -> dict[str, float] | None:
        """The last diagnostics of a hybrid by name, those there are; None for other models."""
        if self.encoders is None:
            return None
        names = [one.name for one in fields(ContentSight) if one.name in self.history.columns]
        known = {name: self.history[name].drop_nulls() for name in names}
        return {name: values[-1] for name, values in known.items() if len(values)}

    def card(self, options: Options) -> str:
        """Return the model card, in Markdown."""
        return card(
            self.interactions,
            options,
            effective=self.effective,
            found=Calibration(self.gamma, self.calibration, self.neighbour_weight, self.neighbours),
            epochs=self.history.height,
            best_epoch=self.best_epoch,
            metrics=self.metrics,
            content=self.content_diagnostics,
        )

    def projected(self) -> tuple[Fitted, Projection]:
        """Return the state with its projection, and the projection, by PCA if there is none yet."""
        made = project(self.items) if self.projection is None else self.projection
        return self._replace(projection=made), made


def write_model(path: str | PathLike[str], fitted: Fitted, options: Options) -> None:
    """Write a model to a folder, with a model card; see `nearfar.CML.save`.

    Raises
    ------
    StoreError
        The folder contains something else, or writing fails.
    """
    fitted, projected = fitted.projected()
    meta, arrays, frames, texts = _besides(fitted, options)
    store.save_folder(
        path,
        kind=KIND,
        meta={**meta, "projection": projected.method},
        arrays={
            "points": {"users": fitted.users, "items": fitted.items},
            "projection": {
                "points": projected.points,
                "mean": projected.mean,
                "axes": projected.axes,
            },
            **arrays,
        },
        frames=frames,
        texts=texts,
    )


class _Besides(NamedTuple):
    """What a folder with a model has besides its points."""

    meta: dict[str, Any]
    arrays: dict[str, Arrays]
    frames: dict[str, pl.DataFrame]
    texts: dict[str, str]


def _besides(fitted: Fitted, options: Options) -> _Besides:
    """Return the content of a folder besides the points and their projection."""
    data = fitted.interactions
    meta, frames = data.to_store()
    spaces, of_spaces = ({}, {}) if fitted.encoders is None else fitted.encoders.to_store()
    return _Besides(
        meta={
            "interactions": meta,
            "options": options.to_dict(),
            "evaluation": fitted.evaluation,
            "fingerprint": data.fingerprint,
            "best_epoch": fitted.best_epoch,
            "effective": fitted.effective._asdict(),
            "gamma": fitted.gamma,
            "neighbour_weight": fitted.neighbour_weight,
            **({} if fitted.encoders is None else {"spaces": spaces}),
        },
        arrays={
            **_arrays_of(fitted.neighbours),
            **({} if fitted.encoders is None else {"encoders": fitted.encoders.arrays()}),
        },
        frames={
            **frames,
            **of_spaces,
            "history": fitted.history,
            **_optional(calibration=fitted.calibration),
        },
        texts={"card": fitted.card(options)},
    )


def keep_shards(
    path: str | PathLike[str], number: int, users: Float32, items: Float32
) -> list[store.Kept]:
    """Write a process's part of the points, which follows that of process ``number - 1``.

    The bytes of all but the last part must fill whole pages, see `nearfar.runtime.joined_files`, if
    the tables are to be mapped.

    Returns
    -------
    list
        What `nearfar.runtime.store` keeps of the part of each of `SHARDS`.
    """
    each = zip(SHARDS, (users, items), strict=True)
    return [
        store.keep_part(path, f"{stem}{number}", {"points": table}, kind=KIND, aligned=True)
        for stem, table in each
    ]


def map_shards(
    path: str | PathLike[str], kept: Mapping[str, store.Kept]
) -> tuple[Float32, Float32]:
    """Map the points of users and items that all processes have written by `keep_shards`."""
    n = len(kept) // len(SHARDS)
    users, items = (
        store.map_parts(path, [kept[f"{stem}{i}"] for i in range(n)])["points"] for stem in SHARDS
    )
    return users, items


def commit_shards(
    path: str | PathLike[str], kept: Mapping[str, store.Kept], fitted: Fitted, options: Options
) -> None:
    """Write a model whose points processes have written by `keep_shards`; one process calls it.

    The projection of the items is left to the first who asks for it.

    Raises
    ------
    StoreError
        A part is not there, or writing fails.
    """
    meta, arrays, frames, texts = _besides(fitted, options)
    store.save_folder(
        path, kind=KIND, meta=meta, arrays=arrays, frames=frames, texts=texts, cut=kept
    )


def read_model(
    path: str | PathLike[str], *, mmap: bool, build: Callable[[int], Any] | None = None
) -> tuple[Options, Fitted]:
    """Read what `write_model` wrote; see `nearfar.CML.load`.

    Raises
    ------
    StoreError
        The folder is missing, damaged or inconsistent, or contains something else.
    OptionError
        `build` is given, and the model has no module.
    """
    folder = store.load_folder(path, kind=KIND, mmap=mmap)
    try:
        options = Options.from_dict(folder.meta["options"])
    except (KeyError, OptionError) as error:
        raise StoreError(f"{str(path)!r} is not a readable model: {error}.") from error
    if build is not None:
        options = with_build(options, build)
    try:
        return options, _read(folder, options)
    except (KeyError, TypeError, ValueError, AttributeError, DataError, OptionError) as error:
        raise StoreError(f"{str(path)!r} is not a readable model: {error}.") from error


def _read(folder: store.Folder, options: Options) -> Fitted:
    """Read the saved state, and check that its parts fit together."""
    dim = options.dim
    meta, points = folder.meta, _points_of(folder)
    data = Interactions.from_store(meta["interactions"], folder.frames)
    users = _checked(points["users"], "users", (data.n_users, dim))
    items = _checked(points["items"], "items", (data.n_items, dim))
    history, best, evaluation = folder.frames["history"], meta["best_epoch"], meta["evaluation"]
    if isinstance(best, bool) or not isinstance(best, int) or best < 0:
        raise ValueError(f"`best_epoch` must be a whole number from 0; got {best!r}")
    if evaluation is not None and not isinstance(evaluation, dict):
        raise ValueError(f"`evaluation` must be metrics by name; got {evaluation!r}")
    projection = None if "points" not in folder.arrays else _projection(folder, items)
    used = meta["effective"]
    effective = Effective(float(used["temperature"]), int(used["negatives"]))
    gamma = float(meta.get("gamma", 0.0))  # models saved before there was a prior have none
    found = _checked_calibration(folder.frames.get("calibration"))
    weight = float(meta.get("neighbour_weight", 0.0))  # and none of these
    near = _neighbours(folder.arrays.get("neighbours"), data.n_items)
    if (weight > 0.0) != (near is not None):
        there = "no neighbours" if near is None else "neighbours"
        raise ValueError(f"`neighbour_weight` is {weight}, and there are {there}")
    encoders = None
    if "encoders" in folder.arrays:
        encoders = read_encoders(
            options, data, folder.arrays["encoders"], meta["spaces"], folder.frames
        )
    if (encoders is None) != (options.users is None and options.items is None):
        raise ValueError("the options and the encoders do not belong together")
    return Fitted(
        users, items, history, best, data, effective, evaluation, projection, gamma, found,
        weight, near, encoders,
    )  # fmt: skip


def _points_of(folder: store.Folder) -> Arrays:
    """Return the points of users and items, from one file or from parts."""
    if "points" in folder.arrays:
        return folder.arrays["points"]
    return {name: folder.arrays[name]["points"] for name in ("users", "items")}


def _projection(folder: store.Folder, items: Float32) -> Projection:
    """Return the saved projection; a model in parts has none."""
    saved, method = folder.arrays["projection"], folder.meta["projection"]
    if method not in METHODS:
        raise ValueError(f"`projection` must be one of {', '.join(METHODS)}; got {method!r}")
    n, dim = items.shape
    return Projection(
        method,
        _checked(saved["points"], "projection", (n, 2)),
        items,
        _checked(saved["mean"], "its mean", (dim,)),
        _checked(saved["axes"], "its axes", (dim, 2)),
    )


def _arrays_of(near: NearItems | None) -> dict[str, Arrays]:
    """Return the arrays of the neighbours, if there are any."""
    if near is None:
        return {}
    return {"neighbours": {"indptr": near.indptr, "items": near.items, "values": near.values}}


def _neighbours(saved: Arrays | None, n_items: int) -> NearItems | None:
    """Return saved neighbours; refuse what a search could not use."""
    if saved is None:
        return None
    near = NearItems(saved["indptr"], saved["items"], saved["values"])
    types = [part.dtype for part in (near.indptr, near.items, near.values)]
    n = len(near.items)
    if types != [np.int64, np.int32, np.float32] or near.indptr.shape != (n_items + 1,):
        raise ValueError(f"the neighbours of {n_items} items are of other types or shapes")
    ends = near.indptr[0], near.indptr[-1], len(near.values)
    first = np.zeros(n + 1, np.bool_)
    if ends != (0, n, n) or np.any(np.diff(near.indptr) < 0):
        raise ValueError("the neighbours are not those of one item after the other")
    first[near.indptr] = True
    ascending = first[1:n] | (np.diff(near.items) > 0)
    inside = n == 0 or (near.items.min() >= 0 and near.items.max() < n_items)
    if not (inside and np.all(ascending) and np.all(np.isfinite(near.values))):
        raise ValueError("the neighbours are not items in order with finite values")
    return near


def _checked_calibration(table: pl.DataFrame | None) -> pl.DataFrame | None:
    """Refuse a table of the calibration without numbers in the columns that are shown."""
    numbers = [] if table is None else [c for c, kind in table.schema.items() if kind.is_numeric()]
    if table is not None and (table.is_empty() or not {*_CALIBRATED} <= {*numbers}):
        raise ValueError(f"`calibration` must have numbers {', '.join(_CALIBRATED)}; got {table!r}")
    return table


def _optional(**frames: pl.DataFrame | None) -> dict[str, pl.DataFrame]:
    """Return the frames that there are."""
    return {name: frame for name, frame in frames.items() if frame is not None}


def _checked(table: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> Float32:
    """Refuse a table of a wrong type or shape, or with a value that is not finite."""
    if table.dtype != np.float32 or table.shape != shape:
        raise ValueError(
            f"the table of {name} must be float32 of shape {shape}; got {table.dtype} of"
            f" {table.shape}"
        )
    if not all_finite(table):
        raise ValueError(f"the table of {name} has a value that is not a finite number")
    return table


def all_finite(table: npt.NDArray[Any]) -> bool:
    """Return whether all values are finite; in blocks, because a whole mask needs much memory."""
    return all(np.isfinite(table[at : at + 4096]).all() for at in range(0, len(table), 4096))
