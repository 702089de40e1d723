"""``nearfar prepare``: a raw table in, a folder of interactions out."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from nearfar import datasets, tables
from nearfar.cli import show
from nearfar.cli.binding import FlagError, build, with_flags
from nearfar.cli.inputs import RULE_FLAGS
from nearfar.cli.training import Json
from nearfar.errors import MissingColumnError
from nearfar.prepare import Rules
from nearfar.prepare import prepare as binarise

Recipe = Enum("Recipe", {name: name for name in ("table", *datasets.names())}, type=str)  # type: ignore[misc]


_TABLE = Recipe("table")


def _column(what: str) -> Any:
    return typer.Option(metavar="COLUMN", help=what)


@with_flags(RULE_FLAGS, into="rules")
def prepare(
    raw: Annotated[Path, typer.Argument(metavar="RAW", help="The raw file.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DATA", help="Folder to save the result in.")
    ],
    *,
    recipe: Annotated[
        Recipe, typer.Option(help="How RAW is read: any table, or a data set by name.")
    ] = _TABLE,
    user: Annotated[str | None, _column("Users; recognised by names such as user_id.")] = None,
    item: Annotated[str | None, _column("Items; recognised by names such as item_id.")] = None,
    value: Annotated[str | None, _column("A rating or a count, for --min-value.")] = None,
    time: Annotated[str | None, _column("When it happened.")] = None,
    separator: Annotated[str | None, typer.Option(help="By default what the suffix says.")] = None,
    no_header: Annotated[
        bool,
        typer.Option(
            "--no-header",
            help="The first line is data; columns are numbered from 0, users and items first.",
        ),
    ] = False,
    json: Json = False,
    rules: dict[str, Any],
) -> None:
    """Turn a raw CSV, TSV or Parquet file into interactions on disk."""
    kept = build(Rules(), RULE_FLAGS, rules)
    columns = {"user": user, "item": item, "value": value, "time": time}
    form = {"separator": separator, "no-header": no_header or None, **columns}
    if recipe is _TABLE:
        table = _table(raw, columns, separator, no_header=no_header)
    else:
        for name, given in form.items():
            if given is not None:
                raise FlagError(
                    f"`--{name}` belongs to --recipe table; the recipe is {recipe.value}."
                )
        table = datasets.load_table(recipe.value, raw)
    data, report = binarise(table, kept)
    data.save(out)
    if json:
        show.emit({"data": str(out), **asdict(report)})
    else:
        show.say(report)
        show.say(f"Saved in {out}. Next: nearfar fit {out} -o model/")


def _table(
    raw: Path, columns: dict[str, str | None], separator: str | None, *, no_header: bool
) -> pl.LazyFrame:
    named: dict[str, Any] = dict(columns)
    if no_header:
        named = {"user": "0", "item": "1"} | {part: name for part, name in named.items() if name}
        named = {part: int(name) if name.isdigit() else name for part, name in named.items()}
    table = tables.scan(raw, separator=separator, has_header=not no_header)
    with tables.reading(raw):
        try:
            return tables.select(table, **named)
        except MissingColumnError as error:
            # The library speaks of arguments, the command line of flags.
            raise MissingColumnError(
                str(error).replace("`user=`", "`--user`").replace("`item=`", "`--item`")
            ) from error
