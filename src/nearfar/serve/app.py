"""The ASGI application: a model, its paths and its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from nearfar.errors import OptionError
from nearfar.runtime.checks import local_path, real, whole
from nearfar.runtime.threads import MOST, one_blas_thread
from nearfar.serve.batches import Batches
from nearfar.serve.failures import HANDLERS
from nearfar.serve.gateway import Gateway, checked_origins, checked_root_path, cross_origin
from nearfar.serve.holder import Holder
from nearfar.serve.limits import Admission, BodyLimit, Deadline
from nearfar.serve.loaded import Loaded
from nearfar.serve.request_log import Logged
from nearfar.serve.routes import Endpoints
from nearfar.serve.telemetry import Measured, Metrics
from nearfar.version import VERSION

_OPERATION: Final = frozenset({"/health", "/healthz", "/readyz", "/metrics", "/reload"})
"""Paths that are answered even if there are too many requests."""
_SLOW: Final = frozenset({"/reload"})
"""Paths without a timeout."""
_WORKERS: Final = 2
"""Number of threads for other work than lists: search, the map, points of new users."""


def create_app(
    model_path: str | PathLike[str],
    *,
    index: str | PathLike[str] | None = None,
    token: str | None = None,
    max_body: int = 2**20,
    max_concurrent: int = 64,
    max_waiting: int = 256,
    timeout: float = 10.0,
    threads: int = 1,
    root_path: str = "",
    cors_origins: Iterable[str] = (),
) -> FastAPI:
    """Load a model and create the application that serves it.

    Parameters
    ----------
    model_path : path
        A folder written by `nearfar.CML.save`. A reload reads it again.
    index : path, optional
        A folder with an approximate index of the items of this model.
    token : str, optional
        The token that ``POST /reload`` and ``POST /v1/items`` require. Without a token they always
        answer 403.
    max_body : int
        Maximum size in bytes of the body of a request.
    max_concurrent : int
        Maximum number of requests processed at the same time.
    max_waiting : int
        Maximum number of further requests that wait; the rest are answered with 503.
    timeout : float
        Seconds after which a request is answered with 504.
    threads : int
        Number of threads that compute lists, each its own batch.
    root_path : str
        The path under which a proxy offers the server, such as "/films"; whether the proxy removes
        it from requests or not.
    cors_origins : iterable of str
        The origins, such as "https://example.org", whose pages may use the server from a browser;
        ("*",) for all. Pages of other origins can reload the model only if theirs is listed.

    Returns
    -------
    FastAPI
        Its threads start and stop with its lifespan.

    Raises
    ------
    OptionError
        An option is out of range, or not a path prefix or an origin.
    StoreError
        The model or the index cannot be read.

    Examples
    --------
    >>> import nearfar as nf
    >>> from tempfile import TemporaryDirectory
    >>> liked = [(u, i) for u in range(8) for i in range(8) if (u + i) % 2 == 0 and u != i]
    >>> model = nf.CML(dim=3, batch=8).fit(nf.Interactions.from_pairs(liked), epochs=1)
    >>> with TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     app = create_app(folder)
    >>> app.title
    'nearfar'
    """
    model_path, token = local_path(model_path, "model_path"), _checked_token(token)
    index = None if index is None else local_path(index, "index")
    max_body, max_concurrent = whole("max_body", max_body), whole("max_concurrent", max_concurrent)
    max_waiting, timeout = whole("max_waiting", max_waiting, 0), real("timeout", timeout, above=0.0)
    threads = whole("threads", threads, 1, MOST)
    origins = checked_origins(cors_origins)
    checked_root_path(root_path, ())
    holder = Holder(partial(Loaded.load, model_path, index))
    batches = Batches(threads)
    workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="nearfar-work")
    metrics = Metrics()
    metrics.serves(holder.current)
    endpoints = Endpoints(holder, batches, workers, metrics, token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with batches, workers, one_blas_thread(), endpoints.answering():
            yield

    app = FastAPI(
        title="nearfar",
        version=VERSION,
        description="Collaborative metric learning: the items that a user likes are near.",
        docs_url=None,  # both pages load their scripts from other servers
        redoc_url=None,
        redirect_slashes=False,  # to an address that a proxy may not know
        lifespan=lifespan,
        exception_handlers=HANDLERS,
    )
    app.include_router(endpoints.router())
    app.state.endpoints = endpoints
    paths = frozenset({*app.openapi()["paths"], *endpoints.page, "/openapi.json"})
    prefix = checked_root_path(root_path, paths)
    # the last layer is the outermost
    app.add_middleware(Admission, at_once=max_concurrent, waiting=max_waiting, free=_OPERATION)
    app.add_middleware(BodyLimit, most=max_body)
    app.add_middleware(Deadline, seconds=timeout, free=_SLOW)
    if origins:
        app.add_middleware(CORSMiddleware, **cross_origin(origins))
    app.add_middleware(Measured, metrics=metrics, routes=paths)
    app.add_middleware(Gateway, root_path=prefix)
    app.add_middleware(Logged, version=lambda: holder.current.version)
    return app


def _checked_token(token: Any) -> str | None:
    if token is None:
        return None
    if isinstance(token, str) and token.isascii() and token.isprintable() and token.strip():
        return str(token)
    raise OptionError("`token` must be printable ASCII and not empty.")  # it is not shown
