"""Limits of requests: the size of the body, the time, and the number of concurrent requests.

Three layers around an ASGI application, from the outside: `Deadline`, `BodyLimit`, `Admission`. The
body is read before a request counts as active, so a client that sends slowly does not use up the
limit of concurrent requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearfar.serve.failures import failure
from nearfar.serve.gateway import route_of

_READ_ON: Final = 2**24
"""Bytes beyond the limit that are read and discarded."""


class Deadline:
    """Answers with 504 if there is no response after some seconds.

    A response that has started and does not end is aborted: the connection is closed.
    """

    def __init__(self, app: ASGIApp, seconds: float, free: Collection[str]) -> None:
        self.app, self.seconds, self.free = app, seconds, free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if not _limited(scope, self.free):
            return await self.app(scope, receive, send)
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, sending)
        except TimeoutError:
            if begun:
                raise
            late = (
                f"The response took longer than {self.seconds:g} seconds; request less, or try"
                " again later."
            )
            await failure(504, "TimeoutError", late)(scope, receive, send)


class BodyLimit:
    """Answers with 413 if the body is too large, with or without a Content-Length.

    A limited number of excess bytes is read and discarded: if a connection is closed with unread
    bytes, its client gets an error instead of the response.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        parts: list[bytes] = []
        size, more = 0, True
        while more and size <= self.most + _READ_ON:
            message = await receive()
            if message["type"] != "http.request":  # the client disconnected
                return None
            size += len(message.get("body", b""))
            if size <= self.most:
                parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        if size > self.most:
            return await self._too_large()(scope, receive, send)
        body = b"".join(parts)
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def receiving() -> Message:
            nonlocal whole
            message, whole = whole, None
            return await receive() if message is None else message

        return await self.app(scope, receiving, send)

    def _too_large(self) -> Response:
        message = f"The body of a request must have at most {self.most} bytes; this one has more."
        return failure(413, "BodyTooLarge", message, {"Connection": "close"})


class Admission:
    """Processes some requests at a time, lets some more wait, and answers the rest with 503."""

    def __init__(self, app: ASGIApp, at_once: int, waiting: int, free: Collection[str]) -> None:
        self.app, self.free = app, free
        self.most = at_once + waiting
        self.inside = 0
        self.places = asyncio.Semaphore(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if not _limited(scope, self.free):
            return await self.app(scope, receive, send)
        if self.inside >= self.most:
            busy = f"{self.inside} requests are active or waiting; try again in a second."
            return await failure(503, "TooBusy", busy, {"Retry-After": "1"})(scope, receive, send)
        self.inside += 1
        try:
            async with self.places:
                return await self.app(scope, receive, send)
        finally:
            self.inside -= 1


def _limited(scope: Scope, free: Collection[str]) -> bool:
    return scope["type"] == "http" and route_of(scope) not in free
