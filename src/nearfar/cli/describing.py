"""The features of items and users on the command line: files, and the flags of a hybrid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nearfar.cli.binding import FlagError
from nearfar.cli.flags import flags_of, kebab
from nearfar.data.feature_columns import by_kind
from nearfar.data.features import Features
from nearfar.data.interactions import Interactions
from nearfar.method.hybrid import Hybrid, Linear
from nearfar.method.options import Options
from nearfar.model.cml import CML

SIDES = {"items": "item", "users": "user"}


@dataclass(frozen=True)
class Descriptions:
    """Files with features, and which of their columns are used."""

    item_features: Path | None = None
    """A CSV, TSV, JSON lines or Parquet file of what items are: the model learns from it too."""
    item_id: str | None = None
    """Its column of ids; by default found by its name."""
    categories: str | None = None
    """Its columns of categories, separated by commas; their values can be lists."""
    text: str | None = None
    """Its columns of text, separated by commas."""
    numbers: str | None = None
    """Its columns of numbers, separated by commas."""
    item_vectors: str | None = None
    """Its columns of vectors, separated by commas."""
    list_separator: str | None = None
    """What separates several values in one column of a text file, such as "|"."""
    user_features: Path | None = None
    """A file of what users are, as --item-features."""
    user_id: str | None = None
    """Its column of ids."""
    user_categories: str | None = None
    """Its columns of categories."""
    user_text: str | None = None
    """Its columns of text."""
    user_numbers: str | None = None
    """Its columns of numbers."""
    user_vectors: str | None = None
    """Its columns of vectors."""
    id_dropout: float | None = None
    """With features: the probability with which a step leaves out what the content of an item does
    not say."""
    id_decay: float | None = None
    """With features: how strongly that is pulled to 0."""
    encoder_decay: float | None = None
    """With features: how strongly the vectors of words, categories and numbers are pulled to 0."""


DESCRIPTION_FLAGS = flags_of(Descriptions)
STRENGTHS = ("id_dropout", "id_decay", "encoder_decay")
"""The options of a hybrid, among the fields of `Descriptions`."""
_PARTS = tuple(by_kind({}))


def features_of(given: Mapping[str, Any], like: Interactions) -> dict[str, Any]:
    """Read the files, with ids of the kinds that `like` has: ``item_features``, ``user_features``.

    Raises
    ------
    FlagError
        A flag is about a file that was not given.
    DataError
        A file cannot be read.
    """
    asked = Descriptions(**given)
    found: dict[str, Any] = {}
    for side, one in SIDES.items():
        file = getattr(asked, f"{one}_features")
        names = {part: _flag_of(one, part) for part in _PARTS}
        columns: dict[str, Any] = {
            part: _listed(getattr(asked, name)) for part, name in names.items()
        }
        key = getattr(asked, f"{one}_id")
        if file is None:
            given_columns = {names[part]: value for part, value in columns.items()}
            _refuse(given_columns | {f"{one}_id": key}, f"--{one}-features")
            found[f"{one}_features"] = None
            continue
        ids = like.item_ids if side == "items" else like.user_ids
        separator = asked.list_separator
        read = Features.read(file, id=key, list_separator=separator, **columns)
        found[f"{one}_features"] = read.with_ids_like(ids)
    if not any(found.values()):
        rest = {name: getattr(asked, name) for name in ("list_separator", *STRENGTHS)}
        _refuse(rest, "--item-features or --user-features")
    return found


def hybrid_options(options: Options, given: Mapping[str, Any]) -> Options:
    """Return the options with a hybrid for each side that has a file of features."""
    asked = Descriptions(**given)
    rates = {name: value for name in STRENGTHS if (value := getattr(asked, name)) is not None}
    if (decay := rates.pop("encoder_decay", None)) is not None:
        rates["encoder"] = Linear(decay)
    sides = [side for side, one in SIDES.items() if getattr(asked, f"{one}_features") is not None]
    changed: dict[str, Any] = {side: Hybrid(**rates) for side in sides}
    return replace(options, **changed)


def _flag_of(one: str, part: str) -> str:
    """Return the field of `Descriptions` with the columns of a kind, of items or users."""
    return part if one == "item" and part != "vectors" else f"{one}_{part}"


def _listed(words: str | None) -> list[str]:
    return [] if words is None else [word.strip() for word in words.split(",")]


def _refuse(given: Mapping[str, Any], needed: str) -> None:
    """Refuse flags without the file that they are about."""
    used = [f"--{kebab(one.name)}" for one in fields(Descriptions) if given.get(one.name)]
    if used:
        raise FlagError(f"`{used[0]}` is only used with {needed}.")


def features_like(file: Path, side: str, model: CML, list_separator: str | None) -> Features:
    """Read features of the columns that a hybrid was trained with.

    Raises
    ------
    FlagError
        The model was trained without features of that side, or with a matrix.
    DataError
        The file cannot be read, or lacks a column.
    """
    kinds = model.features_of(side)
    if not kinds:
        raise FlagError(f"the model was trained without features of {side}.")
    columns: dict[str, Any] = by_kind(kinds)
    others = [name for name, kind in kinds.items() if kind not in columns]
    if others:
        raise FlagError(
            f"the field {others[0]!r} is of the kind {kinds[others[0]]!r}, which no file of"
            " features has; use CML.add_items in Python."
        )
    ids = model.interactions.item_ids if side == "items" else model.interactions.user_ids
    return Features.read(file, list_separator=list_separator, **columns).with_ids_like(ids)
