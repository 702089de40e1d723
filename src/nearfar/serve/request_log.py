"""The log of the server: one record a request, as text or JSON.

`Logged` writes to the logger ``nearfar.serve``, at level INFO, and ERROR for a status of 500 or
more. Nothing handles these records unless a program says so: `set_up` does for ``nearfar serve``;
a server of your own adds its own handler, for which `JsonLines` may be the formatter.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearfar.serve.tracing import CURRENT, RequestIds

LOGGER: Final = logging.getLogger("nearfar.serve")
FIELDS: Final = (
    "request_id", "trace_id", "span_id", "trace_flags",
    "method", "path", "status", "ms", "model_version",
)  # fmt: skip
"""What the record of a request has, beside its time, level and message."""


class Logged:
    """A layer of an ASGI application that gives every request its ids and writes its record.

    Parameters
    ----------
    app : ASGI application
    version : callable
        Returns the version of the model that is served; asked when a request starts.
    """

    def __init__(self, app: ASGIApp, version: Callable[[], str]) -> None:
        self.app, self.version = app, version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun, status, version = perf_counter(), 500, self.version()
        ids = RequestIds.of(scope["headers"])
        CURRENT.set(ids)  # not reset: after an error the outermost layer still answers and logs

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(ids.headers())
            await send(message)

        try:
            return await self.app(scope, receive, sending)
        finally:
            ms = round(1e3 * (perf_counter() - begun), 3)
            _write(scope["method"], scope["path"], status, ms, version)


def _write(method: str, path: str, status: int, ms: float, version: str) -> None:
    level = logging.ERROR if status >= 500 else logging.INFO
    told = {"method": method, "path": path, "status": status, "ms": ms, "model_version": version}
    LOGGER.log(level, "%s %s %d", method, ascii(path)[1:-1], status, extra=told)


def with_ids(record: logging.LogRecord) -> bool:
    """Give a record the ids of the request that is being handled; a filter for handlers."""
    if (ids := CURRENT.get()) is not None:
        for name, value in vars(ids).items():
            setattr(record, name, value)
    return True


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``message``, and what `FIELDS` names.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "ready", "levelname": "INFO", "created": 0.5})
    >>> JsonLines().format(record)
    '{"time": "1970-01-01T00:00:00.500Z", "level": "info", "message": "ready"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; an exception is in its field ``exception``."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        told |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


class TextLines(logging.Formatter):
    """The same for people: ``TIME LEVEL MESSAGE name=value ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; the traceback of an exception follows it."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        names = ("ms", "request_id", "trace_id", "model_version")
        told = [f"{name}={getattr(record, name)}" for name in names if hasattr(record, name)]
        line = " ".join([when, record.levelname, record.getMessage(), *told])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(formatter: logging.Formatter) -> None:
    """Write the records of the server, and uvicorn's from WARNING on, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(with_ids)
    for name, level in (("nearfar.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
