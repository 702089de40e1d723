"""A saved model behind HTTP: ``nearfar serve``, or `create_app` for use in another server.

It needs FastAPI, uvicorn and prometheus_client (``pip install "nearfar[serve]"``). The types of
requests and responses are in `nearfar.serve.schemas`, from which ``/openapi.json`` is generated.

A request passes `limits` (size, number, time), is parsed by `schemas`, and uses the `loaded`
version of the model that was current when it started; `holder` swaps versions. Lists that are
requested at the same time are computed together, in `batches`: the products of 64 users with a
catalogue cost only a few times as much as those of one user.
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
