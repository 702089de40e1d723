"""A saved model behind HTTP: ``nearfar serve``, or `create_app` inside a server of one's own.

It needs FastAPI, uvicorn and prometheus_client (``pip install "nearfar[serve]"``). What is asked
and answered is in `nearfar.serve.schemas`, which is also what ``/openapi.json`` is made of.

A request goes through `limits` (too large, too many, too late), is understood by `schemas`, and
reads the `loaded` version of the model that was current when it began; `holder` swaps versions.
Lists that are wanted at the same time are made together, in `batches`: the products of 64 users
with a catalogue cost a few times those of one.
"""

from __future__ import annotations

from nearfar.errors import MissingExtraError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as _error:
    raise MissingExtraError(
        f"Serving needs {_error.name}, which is not installed: `pip install nearfar[serve]`."
    ) from _error

from nearfar.serve.app import create_app

__all__ = ["create_app"]
