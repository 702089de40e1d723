"""The model card: what a saved model is, in Markdown, for people who meet the folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from nearfar.data.interactions import Interactions
from nearfar.evaluation.metrics import names
from nearfar.method.options import Options
from nearfar.version import VERSION


class Effective(NamedTuple):
    """What training used where the options leave something to the data."""

    temperature: float
    """T of the triplet loss."""
    negatives: int
    """Negatives of a pair, or that a batch shares: never more than there are items to draw."""


def card(
    data: Interactions,
    options: Options,
    *,
    effective: Effective,
    epochs: int,
    best_epoch: int,
    metrics: Mapping[str, Mapping[str, Any]],
) -> str:
    """Write the card of a model.

    Parameters
    ----------
    data : Interactions
        What it was trained on.
    options : Options
    effective : Effective
        What the data made of the options.
    epochs, best_epoch : int
    metrics : mapping
        As `nearfar.CML.metrics`.
    """
    default, shown = Options(), {**vars(options), "negatives": options.n_negatives}
    usual = {name for name, value in shown.items() if value == getattr(default, name)}
    if options.n_negatives == default.n_negatives:
        usual.add("negatives")
    shown["triplet"] = replace(options.triplet, temperature=effective.temperature)
    shown["negatives"] = effective.negatives
    parts = [
        f"# A nearfar model: {data.n_users:,} users, {data.n_items:,} items",
        "Points on a sphere by collaborative metric learning: what a user likes is near, the rest"
        " is far. It recommends to the users it knows, to new ones from a few items they like, and"
        " tells which items and users are alike.",
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
        f" {best_epoch}. Options that are not in bold are the defaults; the temperature and the"
        " number of negatives are those that training used.",
        _table(("option", "value"), [
            (name if name in usual else f"**{name}**", f"`{value!r}`")
            for name, value in shown.items()
        ]),
        "## Measured",
        _measured(metrics),
        "## Limits",
        "It knows what was in the log and nothing else: users and items without interactions there"
        " have no point of their own. Popular items come up more often than they deserve; MMR says"
        " how much (the median, over a list, of how many users have the item). The folder also"
        " holds the interactions themselves, which may be personal data.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _measured(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    found = {part: figures for part, figures in metrics.items() if figures}
    if not found:
        return "Nothing has been measured: `nearfar evaluate MODEL DATA --keep` does, and notes it."
    shown = [name for name in names("card") if any(name in figures for figures in found.values())]
    rows = [(name, *(_number(figures.get(name)) for figures in found.values())) for name in shown]
    length = [
        f"{part}: the best {figures['k']}" for part, figures in found.items() if "k" in figures
    ]
    return "\n\n".join(
        [_table(("figure", *found), rows), *[f"({'; '.join(length)})"][: len(length)]]
    )


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
