"""``nearfar export`` and ``batch``: a model's vectors and recommendations for other programs."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nearfar.cli import show
from nearfar.cli.asking import known_items, unknown_counts
from nearfar.cli.binding import FlagError
from nearfar.cli.fitting import Json
from nearfar.cli.inputs import ids_as_flags, load_index, words_in
from nearfar.cli.launching import is_first, ranking_device, start
from nearfar.cli.using import (
    Allow,
    Deny,
    Device,
    Dial,
    Diversity,
    IncludeSeen,
    IndexFolder,
    Length,
    Model,
    Threads,
    Unknown,
    WhenUnknown,
)
from nearfar.errors import UnknownIdError
from nearfar.model.batch import recommend_to
from nearfar.model.cml import CML
from nearfar.model.export import export as write
from nearfar.model.stores.delivery import Delivered, export_to


class Format(StrEnum):
    """File formats; see `nearfar.model.export`."""

    parquet = "parquet"
    numpy = "numpy"
    word2vec = "word2vec"
    faiss = "faiss"


class What(StrEnum):
    """The tables that can be exported."""

    items = "items"
    users = "users"


class Store(StrEnum):
    """Stores of vectors; see `nearfar.model.stores`."""

    pgvector = "pgvector"
    milvus = "milvus"
    lancedb = "lancedb"


def export(
    model: Model,
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]",
            help="With --to: a connection string of PostgreSQL; an address of Milvus or a .db file"
            " of Milvus Lite; a folder of LanceDB.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="File to write.", show_default=False),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="File format. [default: parquet]", show_default=False),
    ] = None,
    what: Annotated[What, typer.Option(help="The vectors to export.")] = What.items,
    popularity: Dial = None,
    to: Annotated[
        Store | None, typer.Option(help="Write to a store instead, at WHERE.", show_default=False)
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="With --to: the table. [default: nearfar_items or nearfar_users]",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="With --to: rows to write at once. [default: 4 MiB of vectors]"),
    ] = None,
    json: Json = False,
) -> None:
    """Write a model's vectors and their ids to a file, or to a table of a store.

    If the format cannot store the ids (numpy; faiss, unless they are integers), they are written to
    a second file, .ids.parquet. The items of a model with a prior have weights, at the setting of
    --popularity: a column of the Parquet file; for numpy and word2vec of the second file; for faiss
    the last coordinate, for queries that end in 1.

    A table of a store is created or updated. An export that was killed continues when it is started
    again, and rows of items that the model no longer has are removed.
    """
    if to is None:
        _check_unused("with --to", WHERE=where, table=table, batch=batch)
        if out is None:
            raise FlagError("Give `--out` and a file, or `--to`, a store and its address.")
        _export_file(CML.load(model), out, form or Format.parquet, what, popularity, json)
        return
    _check_unused("without --to", out=out, format=form, popularity=popularity)
    if where is None:
        raise FlagError(
            f"`--to {to.value}` needs an address after the model; see `nearfar export --help`."
        )
    fitted = CML.load(model)
    found = export_to(fitted, to.value, where, table=table, what=what.value, batch=batch)
    if json:
        show.emit({"store": to.value, **asdict(found)})
    else:
        show.say(_delivered(found, to, what))


def _check_unused(when: str, **given: object) -> None:
    """Refuse flags that have an effect only with, or without, another one."""
    for name, value in given.items():
        if value is not None:
            shown = name if name.isupper() else f"--{name}"
            raise FlagError(f"`{shown}` is only used {when}.")


def _export_file(
    fitted: CML, out: Path, form: Format, what: What, popularity: float | None, json: bool
) -> None:
    files = write(fitted, out, form.value, what=what.value, popularity=popularity)
    shape = (fitted.item_vectors if what.value == "items" else fitted.user_vectors).shape
    if json:
        show.emit({"files": [str(file) for file in files], "n": shape[0], "dim": shape[1]})
    else:
        named, weights = " and ".join(map(str, files)), ""
        if fitted.gamma and what.value == "items":
            weights = f", with their weights at popularity {fitted.dial(popularity):g},"
        show.say(f"{shape[0]:,} {what.value} in {shape[1]} dimensions{weights} written to {named}.")


def _delivered(found: Delivered, to: Store, what: What) -> str:
    one = what.value.removesuffix("s")
    said = (
        f"{show.counted(found.n_written, 'row')} of {found.width} coordinates written to"
        f" {found.table} of {to.value}, which has {show.counted(found.n_rows, one)}"
    )
    if found.n_removed:
        said += f"; {show.counted(found.n_removed, 'row')} of other versions removed"
    if found.n_left_out:
        said += f"; {show.counted(found.n_left_out, one)} without training interactions left out"
    return f"{said}."


def batch(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.")],
    k: Length = 10,
    users: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ids of users, one per line. [default: all users]"),
    ] = None,
    include_seen: IncludeSeen = False,
    allow: Allow = None,
    deny: Deny = None,
    popularity: Dial = None,
    diversity: Diversity = 0.0,
    unknown: Unknown = WhenUnknown.error,
    index: IndexFolder = None,
    threads: Threads = None,
    device: Device = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Rank in N processes on this machine, each a part of the items; it starts"
            " torchrun. Without it, the processes are those that a launcher has started.",
        ),
    ] = None,
    progress: Annotated[
        bool | None,
        typer.Option(
            "--progress/--no-progress",
            help="Show a progress bar. [default: if stderr is a terminal]",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write the recommendations of all users, or of many, to a folder of Parquet files.

    A run that was killed continues with the missing parts when it is started again.
    """
    if (code := start(processes)) is not None:
        raise typer.Exit(code)
    if users is not None and (users.is_dir() or not users.exists()):
        raise FlagError(f"`--users` must be a file of ids, one per line; got {str(users)!r}.")
    device = ranking_device(device)
    fitted = CML.load(model, mmap=device == "cluster")
    ids = fitted.interactions
    asked = None if users is None else ids.user_ids.typed(words_in(users))
    allowed, n_allow = known_items(ids.item_ids, allow, "--allow")
    denied, n_deny = known_items(ids.item_ids, deny, "--deny")
    try:
        done = recommend_to(
            out,
            fitted,
            None if asked is None else list(dict.fromkeys(asked)),
            k,
            exclude_seen=not include_seen,
            allow=allowed,
            deny=denied,
            unknown=unknown.value,
            popularity=popularity,
            diversity=diversity,
            index=load_index(index, fitted),
            threads=threads,
            device=device,
            progress=progress if is_first() else False,
        )
    except UnknownIdError as error:
        raise ids_as_flags(error) from error
    if not is_first():
        return
    if json:
        show.emit(
            {"folder": str(out), **asdict(done), **unknown_counts(allow=n_allow, deny=n_deny)}
        )
        return
    there = done.n_parts - done.n_made
    before = f"; {there:,} existed already" if there else ""
    show.say(
        f"Lists of {show.counted(done.n_users, 'user')} written to {out},"
        f" {show.counted(done.n_parts, 'part')}{before}."
    )
    if done.n_skipped:
        show.say(
            f"{show.counted(done.n_skipped, 'user')} skipped: unknown to the model, or without"
            " training interactions."
        )
