"""The process: an application on a socket, until a signal ends it.

SIGTERM and SIGINT (Ctrl-C) end it: the port is closed, requests in flight are finished, and then it
returns. A second SIGINT does not wait for them. SIGHUP loads the model again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Generator
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from nearfar.errors import NearfarError, OptionError
from nearfar.serve.routes import Endpoints

Say = Callable[[str], None]

_LAST_SECONDS: Final = 30
"""How long requests in flight may take after the signal to end."""


def open_socket(host: str, port: int) -> socket.socket:
    """Take a port; 0 takes any that is free.

    Raises
    ------
    OptionError
        The port is taken, or the address is not one of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"The address {host} with port {port} cannot be taken: {reason}. Choose another with"
            " `--host` and `--port`; `--port 0` takes a free one."
        ) from error


def address_of(opened: socket.socket) -> str:
    """Give the URL that a socket answers at."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(opened: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback


def run(app: FastAPI, opened: socket.socket, say: Say) -> signal.Signals:
    """Serve until a signal, in the main thread; give the signal.

    Parameters
    ----------
    app : FastAPI
        What `nearfar.serve.create_app` made.
    opened : socket
        It is closed in the end.
    say : callable
        Takes what there is to tell about reloads.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_LAST_SECONDS,
        server_header=False,
    )
    return asyncio.run(_serve(config, app.state.endpoints, opened, say))


class _Server(uvicorn.Server):
    """A server that says which signal ended it, and is not ended by it a second time."""

    def __init__(self, config: uvicorn.Config, reload: Callable[[], None]) -> None:
        super().__init__(config)
        self.ended_by = signal.SIGTERM
        self._reload = reload

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals while it serves."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGTERM: self._end,
            signal.SIGINT: self._end,
        }
        if hasattr(signal, "SIGHUP"):  # not on Windows
            handlers[signal.SIGHUP] = lambda *_: _soon(loop, self._reload)
        before = {which: signal.signal(which, handler) for which, handler in handlers.items()}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def _end(self, which: int, frame: FrameType | None) -> None:
        self.ended_by = signal.Signals(which)
        self.handle_exit(which, frame)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


async def _serve(
    config: uvicorn.Config, endpoints: Endpoints, opened: socket.socket, say: Say
) -> signal.Signals:
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(endpoints, say))
        reloads.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(reloads.discard)

    server = _Server(config, reload)
    await server.serve([opened])
    return server.ended_by


async def _reload(endpoints: Endpoints, say: Say) -> None:
    try:
        loaded = await endpoints.renew()
    except (NearfarError, OSError) as error:
        say(f"the new model was refused, and the old one is still served: {error}")
    else:
        say(f"loaded again: {loaded.model.interactions!r}.")
