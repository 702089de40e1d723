"""The arguments that commands about a saved model share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder written by `nearfar fit`.")]
Threads = Annotated[int | None, typer.Option(help="Threads. [default: all available cores]")]
Device = Annotated[
    str,
    typer.Option(help="Device: cpu; cuda, cuda:1 and so on; auto, a GPU if there is one."),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option("--index", metavar="INDEX", help="Search with an index by `nearfar index`."),
]
Length = Annotated[int, typer.Option("--k", min=1, help="Length of a list.")]
Dial = Annotated[
    float | None,
    typer.Option(
        "--popularity",
        min=0,
        help="The popularity dial of a model with a prior: 0 is distance alone, 1 as it was"
        " calibrated. [default: that of its prior, 1]",
    ),
]


Diversity = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="How much the items of a list shall differ: 0 not at all, 1 most."
    ),
]


class WhenUnknown(StrEnum):
    """What to do with users that a model does not know."""

    error = "error"
    skip = "skip"


Unknown = Annotated[
    WhenUnknown,
    typer.Option(help="Refuse users that the model does not know, or skip and count them."),
]


def ids_option(what: str) -> Any:
    """Return an option that takes ids, or files with ids."""
    return typer.Option(
        metavar="ID|@FILE", help=f"{what} An id, or @ and a file with one per line; repeatable."
    )


IncludeSeen = Annotated[
    bool, typer.Option("--include-seen", help="Recommend also items that the user has already.")
]
Allow = Annotated[list[str] | None, ids_option("Recommend only these items.")]
Deny = Annotated[list[str] | None, ids_option("Never recommend these items.")]
