"""The server process: an application on a socket, until a signal ends it.

SIGTERM and SIGINT (Ctrl-C) end it: the port is closed, at once or after some seconds in which
``/readyz`` already says that the server is ending, and active requests are completed. After a
second SIGINT it does not wait for them. SIGHUP loads the model again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Generator
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from nearfar.errors import NearfarError, OptionError
from nearfar.runtime.checks import real
from nearfar.serve.routes import Endpoints

Say = Callable[[str], None]

_LAST_SECONDS: Final = 30
"""Timeout for active requests after the signal to end."""


def open_socket(host: str, port: int) -> socket.socket:
    """Bind a port; 0 binds any free port. Clients can connect only once it is served.

    Raises
    ------
    OptionError
        The port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere two servers could use the same port
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except BaseException:
            opened.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"The address {host} with port {port} cannot be used: {reason}. Choose another with"
            " `--host` and `--port`; `--port 0` uses a free one."
        ) from error
    return opened


def address_of(opened: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_local(opened: socket.socket) -> bool:
    """Return whether only this machine can connect to it."""
    return ipaddress.ip_address(opened.getsockname()[0]).is_loopback


def run(
    app: FastAPI,
    opened: socket.socket,
    ready: Callable[[], None],
    say: Say,
    *,
    drain: float = 0.0,
    logs: bool = False,
) -> signal.Signals:
    """Serve in the main thread until a signal, and return the signal.

    Parameters
    ----------
    app : FastAPI
        An application created by `nearfar.serve.create_app`.
    opened : socket
        The socket to serve; it is closed at the end.
    ready : callable
        Called as soon as the server accepts requests.
    say : callable
        Called with messages about reloads.
    drain : float
        Seconds between the first signal to end and the closing of the port. Requests are still
        answered then, but ``/readyz`` says 503, so that a balancer can stop sending them.
    logs : bool
        Whether `nearfar.serve.request_log.set_up` was called, so uvicorn does not set up logging.
    """
    drain = real("drain", drain, least=0.0)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level=None if logs else "warning",
        log_config=None if logs else uvicorn.config.LOGGING_CONFIG,
        timeout_graceful_shutdown=_LAST_SECONDS,
        server_header=False,
    )
    return asyncio.run(_serve(config, app.state.endpoints, opened, ready, say, drain))


class _Server(uvicorn.Server):
    """A server that records the signal that ended it and does not raise the signal again."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        reload: Callable[[], None],
        drain: Callable[[], float],
    ) -> None:
        super().__init__(config)
        self.ended_by = signal.SIGTERM
        self._ready, self._reload, self._drain = ready, reload, drain
        self._ending = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, then call `ready`."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals while serving."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGTERM: lambda which, _: self._end(which, loop),
            signal.SIGINT: lambda which, _: self._end(which, loop),
        }
        if hasattr(signal, "SIGHUP"):  # not on Windows
            handlers[signal.SIGHUP] = lambda *_: _soon(loop, self._reload)
        before = {which: signal.signal(which, handler) for which, handler in handlers.items()}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def _end(self, which: int, loop: asyncio.AbstractEventLoop) -> None:
        """Close the port after the seconds that `drain` returns; at a second signal, at once."""
        self.ended_by = signal.Signals(which)
        seconds = 0.0 if self._ending else self._drain()
        self._ending = True
        if seconds > 0:
            _soon(loop, lambda: loop.call_later(seconds, self._close))
        else:
            self.handle_exit(which, None)

    def _close(self) -> None:
        self.should_exit = True


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    loop.call_soon_threadsafe(call)


async def _serve(
    config: uvicorn.Config,
    endpoints: Endpoints,
    opened: socket.socket,
    ready: Callable[[], None],
    say: Say,
    drain: float,
) -> signal.Signals:
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(endpoints, say))
        reloads.add(task)  # the event loop keeps only weak references to tasks
        task.add_done_callback(reloads.discard)

    def draining() -> float:
        endpoints.ready = False
        return drain

    server = _Server(config, ready, reload, draining)
    await server.serve([opened])
    return server.ended_by


async def _reload(endpoints: Endpoints, say: Say) -> None:
    try:
        loaded = await endpoints.renew()
    except (NearfarError, OSError) as error:
        say(f"the new model was refused; the old one is still served: {error}")
    else:
        say(f"reloaded: {loaded.model.interactions!r}.")
