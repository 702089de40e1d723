"""A path prefix, HEAD requests, and access from pages of other origins (CORS).

Only the log is a layer outside `Gateway`. A proxy may remove the prefix from the path of
a request or leave it there; both are understood. The page and its requests use relative addresses,
so they work under any prefix.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearfar.errors import OptionError
from nearfar.runtime.checks import said
from nearfar.serve.tracing import REQUEST_ID, TRACEPARENT

ANY: Final = "*"
"""Stands for every origin."""
_PREFIX: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_USUAL_PORTS: Final = {"http": 80, "https": 443}


class Gateway:
    """Sets the prefix of the paths, and answers HEAD like GET, without a body.

    Parameters
    ----------
    app : ASGI application
    root_path : str
        The prefix, such as "/films"; "" for none, or for that of the server that runs the
        application.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self.root_path:
            scope = {**scope, "root_path": self.root_path}
        if scope["path"] and scope["path"] == scope.get("root_path"):  # relative to "/", otherwise
            query = scope["query_string"].decode("latin-1")
            where = f"{scope['path']}/{'?' if query else ''}{query}"
            return await Response(status_code=307, headers={"Location": where})(
                scope, receive, send
            )
        if scope["method"] == "HEAD":
            return await self.app({**scope, "method": "GET"}, receive, _without_body(send))
        return await self.app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return sending


def route_of(scope: Scope) -> str:
    """Return the path of a request without the prefix."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


def checked_root_path(value: Any, paths: Collection[str]) -> str:
    """Return a path prefix without a slash at its end; "" if there is none.

    Parameters
    ----------
    value : object
    paths : collection of str
        The paths of the application. The prefix must not be the beginning of one: a request would
        have two meanings.

    Raises
    ------
    OptionError
        It is not a prefix, or is the beginning of a path of the application.
    """
    prefix = value.rstrip("/") if isinstance(value, str) else None
    if prefix is None or (prefix and not _PREFIX.fullmatch(prefix)):
        raise OptionError(
            f"`root_path` must be the path under which a proxy offers the server, such as '/films';"
            f" got {said(value)}."
        )
    own = next((path for path in paths if prefix and f"{path}/".startswith(f"{prefix}/")), None)
    if own is not None:
        raise OptionError(
            f"`root_path` is {value!r}, but the server has a path {own!r} of its own; choose"
            " another, such as '/films'."
        )
    return prefix


def checked_origins(values: Any) -> tuple[str, ...]:
    """Return the origins whose pages may use the server.

    Raises
    ------
    OptionError
        A value is not an origin as browsers write it, or "*" is not the only one.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise OptionError(f"`cors_origins` must be a list of origins; got {said(values)}.")
    origins = tuple(values)
    for origin in origins:
        if origin != ANY and not _is_origin(origin):
            raise OptionError(
                "`cors_origins` must be origins as browsers write them: scheme, host and any"
                " unusual port, in small letters, without a path, such as 'https://example.org' or"
                f" 'http://localhost:3000', or '*' for all; got {said(origin)}."
            )
    if ANY in origins and len(origins) > 1:
        raise OptionError("`cors_origins` has '*' and others; pass '*' alone, or only the others.")
    return origins


def _is_origin(value: Any) -> bool:
    if not isinstance(value, str) or not _ORIGIN.fullmatch(value):
        return False
    address = urlsplit(value)
    try:
        return address.port is None or address.port != _USUAL_PORTS.get(address.scheme)
    except ValueError:  # a port above 65535
        return False


def cross_origin(origins: Collection[str]) -> dict[str, Any]:
    """Return the arguments of Starlette's CORS layer.

    A token can be sent only from pages of origins that are listed, not from those of any.
    """
    headers = ("Content-Type", REQUEST_ID, TRACEPARENT)
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "HEAD", "POST"),
        "allow_headers": headers if ANY in origins else ("Authorization", *headers),
        "expose_headers": ("Retry-After", REQUEST_ID, TRACEPARENT),
    }
