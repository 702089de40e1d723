"""The metrics of the server: requests, their duration, reloads, and the served model."""

from __future__ import annotations

from collections.abc import Collection
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearfar.serve.gateway import route_of
from nearfar.serve.loaded import Loaded
from nearfar.version import VERSION

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NO_PATH: Final = "other"


class Metrics:
    """The metrics of one application, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nearfar_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "nearfar_request_seconds",
            "Time from the first line of a request to the end of its response.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "nearfar_requests_in_flight", "Active requests.", registry=self.registry
        )
        self.reloads = Counter(
            "nearfar_reloads", "Reloads of the model.", ["outcome"], registry=self.registry
        )
        self.model = Gauge(
            "nearfar_model_info",
            "1 for the served model.",
            ["version", "fingerprint", "loaded_at"],
            registry=self.registry,
        )
        for outcome in ("taken", "refused"):
            self.reloads.labels(outcome)

    def serves(self, loaded: Loaded) -> None:
        """Record which model is served."""
        self.model.clear()
        when = loaded.loaded_at.isoformat(timespec="seconds")
        fingerprint = loaded.model.fingerprint
        self.model.labels(VERSION, fingerprint, when).set(1)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured:
    """A layer of an ASGI application that counts and times its requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, begun = 500, perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = route_of(scope)
        route = path if path in self.routes else _NO_PATH
        try:
            with self.metrics.in_flight.track_inprogress():
                return await self.app(scope, receive, sending)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(perf_counter() - begun)
