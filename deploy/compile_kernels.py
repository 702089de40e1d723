"""Compile the kernels that a server of any model uses, into NUMBA_CACHE_DIR.

    NUMBA_CACHE_DIR=/opt/nearfar/kernels python compile_kernels.py

An image is built once and served from many read-only copies, none of which could keep what it
compiles. numba takes a kernel from its cache if the source file has the same path, size and time of
change, and layers of an image keep whole seconds of that time only: it is therefore set to a whole
second before anything is compiled.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHANGED = 1_700_000_000
"""The time of change of the package's files; any whole second."""


def settle() -> None:
    """Set the time of change of the installed package's sources."""
    found = importlib.util.find_spec("nearfar")
    if found is None or found.origin is None:
        raise SystemExit("nearfar is not installed for this Python.")
    for file in Path(found.origin).parent.rglob("*.py"):
        os.utime(file, (CHANGED, CHANGED))


def models() -> Iterator[object]:
    """Train a small model of every kind that a server computes differently."""
    import nearfar as nf

    liked = [(u, i) for u in range(16) for i in range(16) if (u + i) % 2 == 0 and u != i]
    data = nf.Interactions.from_pairs(liked)
    for options in ({}, {"geometry": "free"}, {"prior": None}):
        yield nf.CML(dim=4, batch=8, **options).fit(data, epochs=1)


def serve(folder: str) -> None:
    """Load a saved model as a server does, and ask everything that may compile something."""
    import asyncio
    import json

    from nearfar.serve import create_app

    app = create_app(folder)
    asked = [
        ("/v1/recommend", {"user": 1}),
        ("/v1/recommend", {"user": 1, "diversity": 0.5}),
        ("/v1/recommend", {"user": 1, "allow": [1, 2, 3, 5]}),
        ("/v1/recommend", {"items": [1, 3], "deny": [5]}),
        ("/v1/similar/items", {"item": 1}),
        ("/v1/similar/users", {"user": 1}),
        ("/v1/explain", {"user": 1, "item": 2}),
        ("/v1/explain", {"items": [1, 3], "item": 2}),
        ("/v1/vectors", {"users": [1], "items": [1]}),
        ("/v1/map/position", {"items": [1, 3]}),
    ]

    async def ask() -> None:
        async with app.router.lifespan_context(app):
            for path, body in asked:
                status = await _status(app, path, json.dumps(body).encode())
                if status != 200:
                    raise SystemExit(f"{path} with {body} was answered with {status}.")

    asyncio.run(ask())


async def _status(app: object, path: str, body: bytes) -> int:
    """Send one request to an ASGI application and return the status of its answer."""
    found = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(b"content-type", b"application/json")],
        "client": None, "server": None,
    }  # fmt: skip

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    await app(scope, receive, send)
    return found[0]


def main() -> None:
    """Compile, and report how many kernels there are."""
    if not (cache := os.environ.get("NUMBA_CACHE_DIR")):
        raise SystemExit("Set NUMBA_CACHE_DIR to the folder for the kernels.")
    settle()
    for model in models():
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            serve(folder)
    made = sum(1 for _ in Path(cache).rglob("*.nbc"))
    if not made:
        raise SystemExit(f"Nothing was compiled into {cache}.")
    print(f"{made} kernels in {cache}")


if __name__ == "__main__":
    main()
