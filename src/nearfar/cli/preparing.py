"""``nearfar prepare``: converts a raw log to a folder of interactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import polars as pl
import typer

from nearfar import datasets, readers
from nearfar.cli import show
from nearfar.cli.binding import FlagError, build, with_flags
from nearfar.cli.fetching import download_bar
from nearfar.cli.fitting import Json
from nearfar.cli.inputs import RULE_FLAGS, as_flags
from nearfar.data import table_columns
from nearfar.data.id_values import converted, is_id_type
from nearfar.data.interactions import KIND
from nearfar.datasets.recipes import RECIPES
from nearfar.errors import DataError, EmptyDataError, MissingColumnError
from nearfar.prepare import Rules
from nearfar.prepare import prepare as binarise
from nearfar.prepare.remote_source import remote_log
from nearfar.prepare.rules import Paper
from nearfar.readers.raw import Raw
from nearfar.runtime import store
from nearfar.runtime.checks import local_path
from nearfar.runtime.progress import Stages

ReadBy = Enum("ReadBy", {"polars": "polars", "spark": "spark", "daft": "daft"}, type=str)
Recipe = Enum("Recipe", {name: name for name in ("table", *RECIPES)}, type=str)  # type: ignore[misc]

_TABLE: Final = Recipe("table")
_POLARS: Final = ReadBy("polars")
_LISTED: Final = 5
"""Number of rejected lines that are shown; all of them are in the folder."""


def _column(what: str) -> Any:
    return typer.Option(metavar="COLUMN", help=what)


@with_flags(RULE_FLAGS, into="rules")
def prepare(
    raw: Annotated[
        str,
        typer.Argument(
            metavar="RAW",
            help="The raw file, or a folder of Parquet files; for a recipe also a folder or archive"
            " that contains it; or the name of a data set (`nearfar datasets list`).",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DATA", help="Folder to save the result in.")
    ],
    *,
    recipe: Annotated[
        Recipe,
        typer.Option(
            help="The form of RAW: a table (CSV, TSV, JSON lines, Parquet, Arrow), or the published"
            " form of a data set."
        ),
    ] = _TABLE,
    like_paper: Annotated[
        bool,
        typer.Option(
            "--like-paper",
            help="Start from the rules of the SIGIR 2019 paper for this data set, interpreted"
            " literally, and show its Table 1; other flags override them.",
        ),
    ] = False,
    user: Annotated[str | None, _column("Users; recognised by names such as user_id.")] = None,
    item: Annotated[str | None, _column("Items; recognised by names such as item_id.")] = None,
    value: Annotated[str | None, _column("A rating or a count, for --min-value.")] = None,
    time: Annotated[str | None, _column("The time: numbers, or ISO dates and times.")] = None,
    separator: Annotated[str | None, typer.Option(help="[default: by the file's suffix]")] = None,
    no_header: Annotated[
        bool,
        typer.Option(
            "--no-header",
            help="The first line is data; columns are numbered from 0, by default users, items.",
        ),
    ] = False,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of a text file, such as latin-1. [default: UTF-8]")
    ] = None,
    quotes: Annotated[
        bool | None,
        typer.Option(
            help="Whether fields of a text file can be quoted. [default: yes, except in TSV]"
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table of metadata of the items: title and others, with the ids in a column"
            " named as in RAW, or item_id.",
        ),
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option(help="Show the current step. [default: if stderr is a terminal]"),
    ] = None,
    engine: Annotated[
        ReadBy,
        typer.Option(
            help="What reads RAW: polars, on this machine; or Spark or Daft, by their own"
            " configuration, from any address that they read, of Parquet, JSON, ORC (Spark) or CSV"
            " (Daft)."
        ),
    ] = _POLARS,
    spark_scratch: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine spark or daft: a folder for temporary files that every executor can"
            " write to. [default: a local one, if the engine runs on this machine alone]",
        ),
    ] = None,
    json: Json = False,
    rules: dict[str, Any],
) -> None:
    """Convert a raw log to a folder of interactions."""
    form = {"separator": separator, "encoding": encoding, "quotes": quotes}
    columns = {"user": user, "item": item, "value": value, "time": time}
    if engine is not _POLARS:
        others = {**form, "recipe": None if recipe is _TABLE else recipe.value, "items": items,
                  "no-header": no_header or None, "like-paper": like_paper or None}  # fmt: skip
        kept = build(Rules(), RULE_FLAGS, rules)
        _prepare_where_it_lies(engine.value, raw, out, columns, kept, others, spark_scratch,
                               progress=progress, json=json)  # fmt: skip
        return
    if spark_scratch is not None:
        raise FlagError("`--spark-scratch` belongs to --engine spark or daft.")
    source = _source(raw, recipe, form | columns | {"no-header": no_header or None})
    kept = build(_start(source, like_paper=like_paper), RULE_FLAGS, rules)
    _check_value(source, kept, value)
    store.check_replaceable(out, kind=KIND)
    with store.scratch(out) as scratch, ExitStack() as open_files, readers.reading(raw):
        path = _located(source, progress)
        with Stages(progress) as stages:
            stages.begin("opening the file")
            opening = _opened(source.name, path, form, columns, scratch, no_header=no_header)
            found = open_files.enter_context(opening)
        try:
            data, report = binarise(found, kept, scratch=scratch, progress=progress)
        except EmptyDataError as error:
            raise EmptyDataError(f"{raw!r}: {error}") from error
        if items is not None:
            data = data.with_item_table(_known(items, item, data.item_ids.dtype, scratch))
        made = {"source": raw, "recipe": source.name, "rules": asdict(kept),
                "steps": [asdict(step) for step in report.steps],
                "n_rejected": found.rejected.height}  # fmt: skip
        more = {"rejected": found.rejected} if found.rejected.height else {}
        with Stages(progress) as stages:
            stages.begin("saving")
            data.save(out, made=made, more=more)
    if json:
        show.emit({"data": str(out), **asdict(report), "n_rejected": found.rejected.height})
        return
    show.say(report.text(source.paper if like_paper else None))
    _list_rejected(found.rejected)
    show.say(f"Saved in {out}. Next: nearfar fit {out} -o model/")


def _prepare_where_it_lies(
    engine: Any,
    raw: str,
    out: Path,
    columns: dict[str, str | None],
    rules: Rules,
    others: dict[str, Any],
    scratch: str | None,
    *,
    progress: bool | None,
    json: bool,
) -> None:
    for name, value in others.items():
        if value is not None:
            raise FlagError(f"`--{name}` belongs to --engine polars.")
    store.check_replaceable(out, kind=KIND)
    try:
        log = remote_log(engine, raw, columns)
    except DataError as error:
        raise type(error)(as_flags(error)) from error
    data, report = binarise(log, rules, scratch=scratch, progress=progress)
    made = {"source": raw, "recipe": engine, "rules": asdict(rules),
            "steps": [asdict(step) for step in report.steps], "n_rejected": 0}  # fmt: skip
    data.save(out, made=made)
    if json:
        show.emit({"data": str(out), **asdict(report), "n_rejected": 0})
        return
    show.say(report.text(None))
    show.say(f"Saved in {out}. Next: nearfar fit {out} -o model/")


@dataclass(frozen=True)
class _CommandSource:
    """The kind of RAW, and how it is read."""

    name: str
    """The recipe, the name of a data set, or "table"."""
    path: Path
    by_name: bool = False
    """Whether RAW is the name of a data set, not a path."""

    @property
    def paper(self) -> Paper | None:
        if self.name == _TABLE.value:
            return None
        recipe = datasets.info(self.name).recipe if self.by_name else self.name
        return RECIPES[recipe].paper


def _source(raw: str, recipe: Any, given: dict[str, Any]) -> _CommandSource:
    """Return the kind of RAW; an existing path takes precedence over the name of a data set."""
    path = local_path(raw, "RAW")
    source = _CommandSource(recipe.value, path)
    if recipe is _TABLE and not path.exists() and raw in datasets.names():
        source = _CommandSource(raw, path, by_name=True)
    if source.name != _TABLE.value:
        for name, value in given.items():
            if value is not None:
                raise FlagError(
                    f"`--{name}` belongs to --recipe table; the recipe is {source.name}."
                )
    return source


def _check_value(source: _CommandSource, kept: Rules, value: str | None) -> None:
    """Check that the column for the threshold is named, where no recipe knows it."""
    needed = kept.min_value is not None and kept.repeats == "any"
    if needed and value is None and source.name == _TABLE.value:
        raise FlagError(
            "`--min-value` needs the column of the values: pass its name as `--value`. With"
            " `--repeats sum` each row is worth 1, and no column is needed."
        )


def _start(source: _CommandSource, *, like_paper: bool) -> Rules:
    if not like_paper:
        return Rules()
    if source.paper is None:
        known = ", ".join(name for name, one in RECIPES.items() if one.paper is not None)
        raise FlagError(f"`--like-paper` belongs to --recipe {known}; the recipe is {source.name}.")
    return source.paper.rules


def _located(source: _CommandSource, progress: bool | None) -> Path:
    """Find the raw file of a data set that is given by name, and download it if it is missing."""
    if not source.by_name:
        return source.path
    with download_bar(progress) as moved:
        path, _ = datasets.locate(source.name, progress=moved, tell=show.note)
    return path


@contextmanager
def _opened(
    name: str,
    path: Path,
    form: dict[str, Any],
    columns: dict[str, str | None],
    scratch: Path,
    *,
    no_header: bool,
) -> Iterator[Raw]:
    if name != _TABLE.value:
        with datasets.opened(name, path, scratch=scratch) as raw:
            yield raw
        return
    named: dict[str, Any] = dict(columns)
    if no_header:
        named = {"user": "0", "item": "1"} | {part: word for part, word in named.items() if word}
        named = {part: int(word) if word.isdigit() else word for part, word in named.items()}
    try:
        raw = readers.scan(path, scratch, has_header=not no_header, **form)
        with readers.reading(path):
            rows = table_columns.select(raw.rows, **named, headed=raw.headed)
    except DataError as error:
        raise type(error)(as_flags(error)) from error
    yield replace(raw, rows=rows)


def _known(file: Path, column: str | None, dtype: pl.DataType, scratch: Path) -> pl.DataFrame:
    """Read the metadata of the items; ids are converted to the kind of the data, `dtype`.

    The ids are in `column`, or in the column that is recognised, which becomes item_id.
    Text that is not an integer as it is printed is none of the ids, if these are integers.
    """
    raw = readers.scan(file, scratch)
    with readers.reading(file):
        table = raw.rows.collect(engine="streaming")
    exact = [name for name in ("item_id", column) if name in table.columns]
    known = exact[:1] or table_columns.known_as("item", table.columns)
    if len(known) != 1:
        raise MissingColumnError(
            f"{str(file)!r} must have one column of item ids, named as in the log, or item_id; it"
            f" has {', '.join(table.columns)}."
        )
    table = table.rename({known[0]: "item_id"})
    ids = table["item_id"]
    if (ids.dtype == pl.String) != (dtype == pl.String) and is_id_type(ids.dtype):
        ids = converted(ids, dtype)
        return table.with_columns(ids.alias("item_id")).filter(ids.is_not_null())
    return table


def _list_rejected(rejected: pl.DataFrame) -> None:
    if not rejected.height:
        return
    show.say(f"\n{rejected.height:,} lines could not be read and were left out:")
    for line, reason, text in rejected.head(_LISTED).rows():
        show.say(f"  line {line:,}: {reason}: {text[:60]!r}")
    if rejected.height > _LISTED:
        show.say("  ... all of them are in the folder, in the Parquet file `rejected`.")
