"""The model card: a description of a saved model in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.evaluation.metrics import names
from nearfar.method.options import Options
from nearfar.search.item_item import NearItems
from nearfar.training.calibration import Calibration
from nearfar.version import VERSION


class Effective(NamedTuple):
    """The values that training used for options that depend on the data."""

    temperature: float
    """The temperature T of the triplet loss."""
    negatives: int
    """Negatives per pair, or shared by a batch; at most the number of items that can be drawn."""


def card(
    data: Interactions,
    options: Options,
    *,
    effective: Effective,
    found: Calibration,
    epochs: int,
    best_epoch: int,
    metrics: Mapping[str, Mapping[str, Any]],
    content: Mapping[str, float] | None = None,
) -> str:
    """Return the card of a model.

    Parameters
    ----------
    data : Interactions
        The training data.
    options : Options
    effective : Effective
        The values that training used.
    found : Calibration
        The factors of the score, and how they were found.
    epochs, best_epoch : int
    metrics : mapping
        As `nearfar.CML.metrics`.
    content : mapping, optional
        The last diagnostics of a hybrid, by `nearfar.training.content_diagnostics`; None for a
        model of interactions alone.
    """
    default, shown = Options(), dict(vars(options))
    usual = {name for name, value in shown.items() if value == getattr(default, name)}
    shown["triplet"] = replace(options.triplet, temperature=effective.temperature)
    shown["negatives"] = effective.negatives
    if options.prior is not None:
        shown["prior"] = replace(options.prior, gamma=found.gamma)
    if options.neighbours is not None:
        shown["neighbours"] = replace(options.neighbours, weight=found.weight)
    parts = [
        f"# A nearfar model: {data.n_users:,} users, {data.n_items:,} items",
        "A model of collaborative metric learning: users and items are points on a sphere, and the"
        " items that a user likes are near. It recommends items to known users and, from a few"
        " items that they like, to new users, and finds similar items and users.",
        "## Data",
        _table(
            ("what", "value"),
            [
                ("users", f"{data.n_users:,}"),
                ("items", f"{data.n_items:,}"),
                ("interactions", f"{data.n_pairs:,}"),
                ("density", f"{100 * data.density:.3g}%"),
                ("fingerprint (SHA-256)", f"`{data.fingerprint}`"),
            ],
        ),
        "## Training",
        f"nearfar {VERSION}, {epochs} epochs; the points are those after epoch"
        f" {best_epoch}. Options in bold differ from the defaults; the temperature, the number of"
        " negatives, gamma of the prior and the weight of neighbours are those that the model has.",
        _table(("option", "value"), [
            (name if name in usual else f"**{name}**", f"`{value!r}`")
            for name, value in shown.items()
        ]),
        "## Metrics",
        _measured(metrics),
        *([] if found.table is None else ["## The popularity dial", _settings(found.table)]),
        *([] if found.near is None else ["## Neighbours", _neighbours(found.weight, found.near)]),
        *([] if content is None else ["## Content", _content(content)]),
        "## Limits",
        f"{_LEARNED_FROM[content is not None]} Recommendations are biased towards popular items;"
        " MMR measures how much (the median, over a list, of the number of users who have an item)."
        " The folder also contains the interactions themselves, which may be personal data.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _measured(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    found = {part: values for part, values in metrics.items() if values}
    if not found:
        return (
            "The model has not been evaluated. `nearfar evaluate MODEL DATA --keep` evaluates it"
            " and saves the metrics."
        )
    shown = [name for name in names("card") if any(name in values for values in found.values())]
    rows = [(name, *(_number(values.get(name)) for values in found.values())) for name in shown]
    length = [
        f"{part}: the best {values['k']}{_dial(values)}{_new_users(values)}"
        for part, values in found.items()
        if "k" in values
    ]
    return "\n\n".join(
        [_table(("metric", *found), rows), *[f"({'; '.join(length)})"][: len(length)]]
    )


def _settings(table: pl.DataFrame) -> str:
    """Return what the settings of the dial do, up to twice the calibrated one."""
    shown = [name for name in names("card") if name in table.columns]
    rows = [
        (f"{row['popularity']:.2f}", f"{row['gamma']:g}", *(_number(row[name]) for name in shown))
        for row in table.iter_rows(named=True)
        if row["popularity"] <= 2.0
    ]
    said = (
        f"The best {table['k'][0]} on the validation part, on which gamma was chosen: lists"
        " at setting 0 are by distance alone."
    )
    return f"{said}\n\n{_table(('popularity', 'gamma', *shown), rows)}"


def _neighbours(weight: float, near: NearItems) -> str:
    """Return what the co-occurrence term is, and its size."""
    return (
        f"Items that are found together with those of the user score higher, by a term of weight"
        f" {weight:g}. It has {len(near.items):,} values, {near.n_bytes / 2**20:.1f} MiB. Lists of"
        " an index and exported vectors are without it."
    )


_LEARNED_FROM: Final = (
    "The model is learned from interactions only: users and items without interactions in the"
    " training data have no point.",
    "Users and items without interactions in the training data have a point only if they have"
    " content that the model knows.",
)


def _content(seen: Mapping[str, float]) -> str:
    """Return what the last diagnostics of training say of the content."""
    said = [
        f"Content explains {100 * seen[name]:.0f} % of the points of {side} with interactions."
        for side, name in (("items", "explained_items"), ("users", "explained_users"))
        if name in seen
    ]
    if "similar_push" in seen:
        said.append(
            "In training, items whose content is like that of the user's own were pushed away"
            f" {seen['similar_push']:.1f} times as often as by chance."
        )
    if "cache_age" in seen:
        said.append(
            f"Cached points, by which negatives were chosen or compared, were"
            f" {seen['cache_age']:.2f} epochs old on average, and at most"
            f" {seen['cache_oldest']:.2f}."
        )
    return " ".join(said) or "There are no diagnostics: training ended before the first."


def _dial(values: Mapping[str, Any]) -> str:
    """Return at which setting of the popularity dial, if it was not the model's own."""
    return f" at popularity {values['popularity']:g}" if "popularity" in values else ""


def _new_users(values: Mapping[str, Any]) -> str:
    """Return how many of the users had no training interactions, if any."""
    folded = values.get("n_folded_in", 0)
    return f", {folded:,} of {values['n_users']:,} users folded in" if folded else ""


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
