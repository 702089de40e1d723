"""The ids of a request: ``X-Request-ID``, and W3C's Trace Context (``traceparent``).

Ids that a caller sends are taken over if they are valid, and made otherwise, so that the lines of
several services about one request can be put together. They are those of OpenTelemetry, which is
not needed for them: this server makes no spans of its own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Self

REQUEST_ID: Final = "X-Request-ID"
TRACEPARENT: Final = "traceparent"
_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""A request id that is taken over: it can stand in a line of a log as it is."""
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_INVALID_VERSION: Final = "ff"
_KNOWN_FLAGS: Final = 0b11
"""Flags that are passed on: "sampled", and "random" of the second edition."""


@dataclass(frozen=True)
class RequestIds:
    """The ids of one request."""

    request_id: str
    """The ``X-Request-ID``; 32 hexadecimal digits if it was made here."""
    trace_id: str
    """32 hexadecimal digits, shared by all services that work on one request."""
    span_id: str
    """16 hexadecimal digits: this server's part of the trace."""
    trace_flags: str
    """2 hexadecimal digits; 01 means that the caller records the trace."""

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Take over the ids in the headers of a request, or make them.

        A header that is there twice, or is not valid, counts as missing.

        Parameters
        ----------
        headers : iterable of (name, value)
            As ASGI has them: bytes, the names in small letters.

        Examples
        --------
        >>> parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        >>> ids = RequestIds.of([(b"traceparent", parent), (b"x-request-id", b"order-7")])
        >>> ids.request_id, ids.trace_id, ids.trace_flags
        ('order-7', '0af7651916cd43dd8448eb211c80319c', '01')
        """
        listed = list(headers)
        sent, parent = _only(listed, REQUEST_ID), _only(listed, TRACEPARENT)
        trace_id, flags = _trace(parent) or (secrets.token_hex(16), "00")
        request_id = sent if _ID.fullmatch(sent) else secrets.token_hex(16)
        return cls(request_id, trace_id, secrets.token_hex(8), flags)

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        parent = f"00-{self.trace_id}-{self.span_id}-{self.trace_flags}"
        return {REQUEST_ID: self.request_id, TRACEPARENT: parent}


CURRENT: ContextVar[RequestIds | None] = ContextVar("nearfar_request_ids", default=None)
"""The ids of the request that is being handled."""


def _only(headers: list[tuple[bytes, bytes]], name: str) -> str:
    """Return the value of a header, or "" unless it is there once."""
    key = name.lower().encode()
    found = [value for one, value in headers if one == key]
    return found[0].decode("latin-1").strip() if len(found) == 1 else ""


def _trace(parent: str) -> tuple[str, str] | None:
    """Return the trace id and the flags of a ``traceparent``, or None if it is not valid."""
    parts = _PARENT.fullmatch(parent)
    if parts is None:
        return None
    version, trace_id, span_id, flags, more = parts.groups()
    if version == _INVALID_VERSION or (version == "00" and more is not None):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return trace_id, f"{int(flags, 16) & _KNOWN_FLAGS:02x}"
