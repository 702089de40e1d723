"""The paths of the server and their handlers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from nearfar.errors import NearfarError
from nearfar.serve import answers, schemas
from nearfar.serve.batches import Batches
from nearfar.serve.failures import failure
from nearfar.serve.holder import Holder
from nearfar.serve.loaded import Loaded
from nearfar.serve.telemetry import Metrics

T = TypeVar("T")
Text = Annotated[str, Query(max_length=200, description="A part of a title or an id.")]
Limit = Annotated[int, Query(ge=1, le=schemas.MAX_K)]
MapLimit = Annotated[int, Query(ge=1, le=schemas.MAX_MAP)]
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
"""Content types of the files of the page."""
_TOLD: Final = {
    401: "No token.",
    403: "The token is wrong, or the server has none.",
    404: "An id is not in the model.",
    409: "The new model, or the items, were refused; the old model is still served.",
    413: "The body is too large.",
    422: "The request is invalid.",
    503: "Too many requests; `Retry-After` says when to try again.",
    504: "The request took too long.",
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page: content and type by path; the document is at the root."""
    found = {}
    for file in (files("nearfar.serve") / "page").iterdir():
        if kind := _TYPES.get(Path(file.name).suffix):
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found[path] = file.read_bytes(), kind
    return found


class Endpoints:
    """The handlers; each reads the current version of the model once."""

    def __init__(
        self,
        holder: Holder,
        batches: Batches,
        workers: ThreadPoolExecutor,
        metrics: Metrics,
        token: str | None,
    ) -> None:
        self.holder, self.batches, self.workers = holder, batches, workers
        self.metrics, self.token = metrics, token
        self.page = page_files()
        self.ready = False
        """Whether new requests are welcome: from the start to the signal that ends the server."""

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Be ready inside; the model has been loaded, and searched once, before."""
        self.ready = True
        try:
            yield
        finally:
            self.ready = False

    def router(self) -> APIRouter:
        """Return the router with all handlers."""
        router = APIRouter()
        for path, method, handler, model, errors in (
            ("/v1/recommend", "POST", self.recommend, schemas.Results, (404, 413, 422)),
            ("/v1/similar/items", "POST", self.similar_items, schemas.Results, (404, 413, 422)),
            ("/v1/similar/users", "POST", self.similar_users, schemas.Results, (404, 413, 422)),
            ("/v1/explain", "POST", self.explain, schemas.Reasons, (404, 413, 422)),
            ("/v1/vectors", "POST", self.vectors, schemas.PointList, (404, 413, 422)),
            ("/v1/search", "GET", self.search, schemas.FoundItems, (422,)),
            ("/v1/model", "GET", self.model, schemas.ModelFacts, ()),
            ("/v1/map", "GET", self.map, schemas.Map, (422,)),
            ("/v1/map/position", "POST", self.position, schemas.Position, (404, 413, 422)),
        ):
            told = _told(*errors, 503, 504)
            router.add_api_route(
                path, handler, methods=[method], response_model=model, responses=told
            )
        for path in ("/health", "/healthz"):
            router.add_api_route(path, self.health, response_model=schemas.Health)
        router.add_api_route(
            "/readyz", self.readiness, response_model=schemas.Ready,
            responses={503: {"model": schemas.Failure, "description": "The server is ending."}},
        )  # fmt: skip
        router.add_api_route(
            "/reload", self.reload, methods=["POST"], response_model=schemas.ModelFacts,
            responses=_told(401, 403, 409, 422),
        )  # fmt: skip
        router.add_api_route(
            "/v1/items", self.add_items, methods=["POST"], response_model=schemas.Added,
            responses=_told(401, 403, 409, 413, 422),
        )  # fmt: skip
        router.add_api_route("/metrics", self.figures, response_class=_Figures)
        for path, (content, kind) in self.page.items():
            handler = partial(_file, content, kind)
            router.add_route(path, handler, include_in_schema=False)
        return router

    # ------------------------------------------------------------------------------- lists

    async def recommend(self, asked: schemas.Recommend) -> Response:
        """Recommend items to a user of the model, or to a new user who likes some items."""
        loaded = self.holder.current
        wish, unknown = (
            await self._work(answers.recommended, loaded, asked)
            if answers.takes_long(asked)
            else answers.recommended(loaded, asked)
        )
        nearest = await self.batches.nearest(loaded.item_space, wish)
        return _json(answers.results(asked.k, nearest, loaded.items, loaded.titles, unknown))

    async def explain(self, asked: schemas.Explain) -> Response:
        """Return why somebody gets an item: the parts of its score, and their items near it."""
        return await self._answer(answers.explained, asked)

    async def similar_items(self, asked: schemas.SimilarItems) -> Response:
        """Return the items nearest to an item, without the item itself."""
        loaded = self.holder.current
        wish, unknown = (
            await self._work(answers.similar_items, loaded, asked)
            if answers.takes_long(asked)
            else answers.similar_items(loaded, asked)
        )
        nearest = await self.batches.nearest(loaded.item_space, wish)
        return _json(answers.results(asked.k, nearest, loaded.items, loaded.titles, unknown))

    async def similar_users(self, asked: schemas.SimilarUsers) -> Response:
        """Return the users nearest to a user, without the user."""
        loaded = self.holder.current
        row, vectors = loaded.users.row(asked.user), loaded.model.user_vectors
        wish = answers.similar(vectors, loaded.user_axis, row, asked.k)
        nearest = await self.batches.nearest(loaded.user_space, wish)
        return _json(answers.results(asked.k, nearest, loaded.users))

    # -------------------------------------------------------------------------------- facts

    async def vectors(self, asked: schemas.VectorQuery) -> Response:
        """Return the points of users and items."""
        return await self._answer(answers.points, asked)

    async def search(self, q: Text, limit: Limit = 20) -> Response:
        """Find items by a part of their title or id, ignoring case; all items if it is empty."""
        return await self._answer(answers.found, q, limit)

    async def model(self) -> Response:
        """Return the description of the model."""
        return await self._answer(answers.facts)

    async def map(self, limit: MapLimit = 20_000) -> Response:
        """Return the most popular items in two dimensions."""
        return await self._answer(answers.drawn, limit)

    async def position(self, asked: schemas.Somebody) -> Response:
        """Return the position on the map of a user, or of a new user who likes some items."""
        return await self._answer(answers.position, asked)

    # ------------------------------------------------------------------------------ operation

    async def health(self) -> schemas.Health:
        """Return that the server is running."""
        return schemas.Health(status="ok")

    async def readiness(self) -> Response:
        """Return whether to send requests here: a model is loaded, and the server is not ending."""
        if not self.ready:
            told = "The server is ending; send requests to another one."
            return failure(503, "NotReady", told)
        version = self.holder.current.version
        return _json(schemas.Ready(status="ready", model_version=version))

    async def figures(self) -> Response:
        """Return the metrics of the server in Prometheus' text format."""
        return _Figures(self.metrics.text())

    async def reload(self, authorization: Annotated[str, Header()] = "") -> Response:
        """Load the model again from its folder; it is served if it passes the test."""
        if (refused := self._refused(authorization, "send it SIGHUP instead")) is not None:
            return refused
        try:
            await self.renew()
        except (NearfarError, OSError) as error:
            return failure(409, type(error).__name__, str(error))
        return await self.model()

    async def add_items(
        self, asked: schemas.NewItems, authorization: Annotated[str, Header()] = ""
    ) -> Response:
        """Add items by their content, to the served model only: a reload forgets them."""
        other_way = (
            "start it with one (`--token-file`, or NEARFAR_TOKEN in the environment), or add the"
            " items to the saved model with `nearfar add-items` and reload it"
        )
        if (refused := self._refused(authorization, other_way)) is not None:
            return refused
        new = {one.id: one.features for one in asked.items}
        try:
            loaded = await self.holder.replace(lambda current: current.with_items(new))
        except NearfarError as error:
            return failure(409, type(error).__name__, str(error))
        self.metrics.serves(loaded)
        return _json(schemas.Added(added=len(new), n_items=loaded.model.interactions.n_items))

    def _refused(self, authorization: str, other_way: str) -> Response | None:
        """Return the refusal of a request that changes the served model without the token.

        `other_way` is what to do instead where the server has no token.
        """
        if self.token is None:
            return failure(403, "Forbidden", f"This server has no token; {other_way}.")
        if not authorization:
            told = "Send the header `Authorization: Bearer TOKEN`."
            return failure(401, "Unauthorized", told, {"WWW-Authenticate": "Bearer"})
        wanted = f"Bearer {self.token}".encode()
        if not hmac.compare_digest(authorization.encode(), wanted):
            return failure(403, "Forbidden", "The token is wrong.")
        return None

    async def renew(self) -> Loaded:
        """Load the model again, and count the success or failure.

        Raises
        ------
        NearfarError
            The new version was refused.
        """
        outcome = "refused"
        try:
            loaded = await self.holder.reload()
            self.metrics.serves(loaded)
            outcome = "taken"
        finally:
            self.metrics.reloads.labels(outcome).inc()
        return loaded

    async def _answer(self, make: Callable[..., BaseModel], *asked: Any) -> Response:
        """Compute a response and its JSON from the current version, on a thread."""
        loaded = self.holder.current
        return await self._work(lambda: _json(make(loaded, *asked)))

    async def _work(self, make: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.workers, make, *given)


async def _file(content: bytes, kind: str, request: Request) -> Response:
    """Return a file of the page."""
    return Response(content, headers=_PAGE_HEADERS, media_type=kind)


class _Figures(Response):
    media_type = "text/plain; version=0.0.4"


def _json(answer: BaseModel) -> Response:
    """Return a response as JSON; it already has the type of the path, so it is not validated."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _told(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.Failure, "description": _TOLD[status]} for status in statuses}
