"""``nearfar serve``: a saved model behind HTTP."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from nearfar.cli import show
from nearfar.cli.using import Model
from nearfar.errors import DataError

_TOKEN: Final = "NEARFAR_TOKEN"
_INTERRUPTED: Final = 130


class LogFormat(StrEnum):
    """What the server writes about each request."""

    off = "off"
    text = "text"
    json = "json"


def serve(
    model: Model,
    *,
    index: Annotated[
        Path | None, typer.Option(metavar="INDEX", help="An approximate index of its items.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine can reach the default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 uses a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with the token for `POST /reload` and `POST /v1/items`."
            f" [default: the variable {_TOKEN}]",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute lists.")] = 1,
    max_body: Annotated[int, typer.Option(min=1, help="Maximum bytes of a body.")] = 2**20,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Maximum active requests.")] = 64,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Maximum waiting requests; further ones get 503.")
    ] = 256,
    timeout: Annotated[float, typer.Option(help="Seconds until a request gets 504.")] = 10.0,
    root_path: Annotated[
        str,
        typer.Option(metavar="PATH", help="Path under which a proxy offers it, such as /films."),
    ] = "",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin use it, such as https://example.org; * for all.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="One line on stderr for each request.")
    ] = LogFormat.off,
    drain: Annotated[
        float,
        typer.Option(min=0, help="Seconds from SIGTERM, when /readyz fails, to closing the port."),
    ] = 0.0,
) -> None:
    """Serve a model over HTTP, with a page to explore it, until SIGTERM or Ctrl-C.

    SIGHUP, or POST /reload with the token, loads the model again without interrupting requests.
    """
    from nearfar.serve import create_app, server

    with server.open_socket(host, port) as opened:
        app = create_app(
            model,
            index=index,
            token=_token(token_file),
            max_body=max_body,
            max_concurrent=max_concurrent,
            max_waiting=max_waiting,
            timeout=timeout,
            threads=threads,
            root_path=root_path,
            cors_origins=cors_origin or (),
        )
        note = _notes(log_format)
        if not server.is_local(opened):
            note("open to the network: anyone who can reach this address has access.")
        ended_by = server.run(
            app,
            opened,
            ready=lambda: show.say(f"Serving {model} at {server.address_of(opened)}"),
            say=note,
            drain=drain,
            logs=log_format is not LogFormat.off,
        )
    if ended_by == signal.SIGINT:
        raise typer.Exit(_INTERRUPTED)


def _notes(log_format: LogFormat) -> Callable[[str], None]:
    """Set up the log, and return what writes a message of the server: into it, if there is one."""
    from nearfar.serve import request_log

    if log_format is LogFormat.off:
        return lambda text: show.note(f"nearfar: {text}")
    lines = request_log.JsonLines if log_format is LogFormat.json else request_log.TextLines
    request_log.set_up(lines())
    return logging.getLogger("nearfar.serve").info


def _token(file: Path | None) -> str | None:
    """Return the token for reloads, if there is one."""
    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        return file.read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{str(file)!r} must be text and contain only the token.") from error
