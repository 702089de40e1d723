"""Error responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from nearfar.errors import DataError, OptionError, UnknownIdError
from nearfar.serve.schemas import ErrorText, Failure
from nearfar.serve.tracing import CURRENT

_SHOWN: Final = 3
_INTERNAL: Final = "Internal server error; see the server's log on stderr."


def failure(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response with an error message."""
    # half of a surrogate pair, quoted from a request, cannot be encoded
    text = message.encode("utf-8", "backslashreplace").decode()
    told = Failure(error=ErrorText(type=kind, message=text))
    return Response(told.model_dump_json(), status, headers, "application/json")


async def unknown(request: Request, error: Exception) -> Response:
    """Answer a request with an id that is not in the model."""
    return failure(404, type(error).__name__, str(error))


async def refused(request: Request, error: Exception) -> Response:
    """Answer a request that the model refuses."""
    return failure(422, type(error).__name__, str(error))


async def misunderstood(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit its schema."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(tuple(fault["loc"]) == ("body",) for fault in faults) and not _says_json(request):
        sent = request.headers.get("content-type")
        its = f"this one says {sent[:100]!r}" if sent else "this one does not name a type"
        return failure(
            422,
            "RequestError",
            "`body`: a request must have a JSON object as its body and the header `Content-Type:"
            f" application/json`; {its}.",
        )
    told = [_fault(fault) for fault in faults[:_SHOWN]]
    more = f" And {len(faults) - _SHOWN} more." if faults[_SHOWN:] else ""
    return failure(422, "RequestError", " ".join(told) + more)


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind.startswith("application/") and kind.endswith(("/json", "+json"))


def _fault(fault: Mapping[str, Any]) -> str:
    parts = [str(part)[:50] for part in fault["loc"]]
    where = ".".join(part for part in parts if not part.startswith("constrained-"))  # of an Id
    if fault["type"] == "extra_forbidden":
        return f"`{where}`: there is no such field; /openapi.json lists the fields of each request."
    return f"`{where}`: {fault['msg'].removeprefix('Value error, ')}."


async def unroutable(request: Request, error: Exception) -> Response:
    """Answer a request with an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # the body could not be decoded for the JSON parser
        return failure(422, "RequestError", "`body`: it cannot be read as JSON.")
    message = f"{request.method} {request.url.path}: {error.detail}."
    return failure(error.status_code, "HttpError", message, error.headers)


async def broken(request: Request, error: Exception) -> Response:
    """Answer an internal error; uvicorn closes the connection afterwards."""
    ids = CURRENT.get()  # the layer that adds their headers is inside the one that answers here
    headers = {} if ids is None else ids.headers()
    return failure(500, "InternalError", _INTERNAL, {"Connection": "close", **headers})


HANDLERS: Final[dict[Any, Any]] = {
    UnknownIdError: unknown,
    OptionError: refused,
    DataError: refused,
    RequestValidationError: misunderstood,
    HTTPException: unroutable,
    Exception: broken,
}
"""The handlers by type of error."""
