"""``nearfar update`` and ``nearfar project``: further training and a new map of a saved model."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import show
from nearfar.cli.describing import SIDES, features_like
from nearfar.cli.fitting import Data, Json
from nearfar.cli.inputs import load_data, training_device
from nearfar.cli.using import Device, Model, Threads
from nearfar.model.cml import CML
from nearfar.model.fitted import KIND
from nearfar.model.item_map import METHODS
from nearfar.runtime import store

Method = Enum("Method", {name: name for name in METHODS}, type=str)  # type: ignore[misc]
PCA = Method("pca")
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="MODEL", help="Folder to save in; MODEL if not given."),
]
FeatureFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file of what new items are, with the columns that the model was trained with.",
    ),
]
ListSeparator = Annotated[
    str | None,
    typer.Option(help='What separates several values in one column of a text file, such as "|".'),
]


def add_items(
    model: Model,
    items: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A file of what the items are, with the columns that the model was trained with.",
        ),
    ],
    *,
    out: Out = None,
    list_separator: ListSeparator = None,
    json: Json = False,
) -> None:
    """Add items that nobody has used yet to a model that was trained with features."""
    target = model if out is None else out
    store.check_replaceable(target, kind=KIND)
    fitted = CML.load(model)
    before = fitted.interactions.n_items
    fitted.add_items(features_like(items, "items", fitted, list_separator))
    fitted.save(target)
    now = fitted.interactions.n_items
    if json:
        show.emit({"model": str(target), "n_items": {"before": before, "now": now}})
        return
    show.say(f"{now - before:,} items added to {before:,}; saved in {target}.")


def update(
    model: Model,
    data: Data,
    *,
    out: Out = None,
    item_features: FeatureFile = None,
    user_features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Likewise for users.")
    ] = None,
    list_separator: ListSeparator = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over all interactions.")] = 8,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue training a model with new interactions, including those of new users and items.

    DATA may repeat interactions that the model knows. It takes a fraction of the time of `fit`.
    """
    target = model if out is None else out
    store.check_replaceable(target, kind=KIND)
    place = training_device(device)
    fitted = CML.load(model)
    before = fitted.interactions
    new, begun = load_data(data, like=before), time.perf_counter()
    files = {"items": item_features, "users": user_features}
    features: dict[str, Any] = {
        f"{SIDES[side]}_features": features_like(file, side, fitted, list_separator)
        for side, file in files.items()
        if file is not None
    }
    fitted.partial_fit(new, **features, epochs=epochs, seed=seed, threads=threads, device=place)
    fitted.save(target)
    now = fitted.interactions
    figures = {
        name: {"before": getattr(before, name), "now": getattr(now, name)}
        for name in ("n_users", "n_items", "n_pairs")
    }
    seconds = time.perf_counter() - begun
    if json:
        show.emit({"model": str(target), **figures, "epochs": epochs, "seconds": seconds})
        return
    rows = [
        (words, f"{figures[name]['before']:,}", f"{figures[name]['now']:,}")
        for name, words in (("n_users", "users"), ("n_items", "items"), ("n_pairs", "interactions"))
    ]
    show.table(f"Saved in {target} after {seconds:.1f} s", ["", "before", "now"], rows)


def project(
    model: Model,
    *,
    method: Annotated[
        Method, typer.Option(help="pca, or umap, which needs the extra `umap`.")
    ] = PCA,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compute the map of a model's items again, for the page of `nearfar serve`."""
    fitted, begun = CML.load(model), time.perf_counter()
    made = fitted.project(method.value, seed=seed)
    fitted.save(model)
    seconds = time.perf_counter() - begun
    if json:
        show.emit({"model": str(model), "method": made.method, "n_items": len(made.points),
                   "seconds": seconds})  # fmt: skip
        return
    show.say(
        f"{len(made.points):,} items by {made.method}, saved in {model} after {seconds:.1f} s."
    )
