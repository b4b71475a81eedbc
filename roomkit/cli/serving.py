"""One server process: its port, its signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from typing import Any

from roomkit.cli.console import say
from roomkit.errors import ConfigError, UsageError
from roomkit.runtime import Scope, Wakeup

DEFAULT_PORT = 8000
SEARCHED = 20
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TICK_S = 0.01
BACKLOG = 4096
"""As many as Linux queues by default: after a restart thousands come at once, and a full queue costs them seconds."""


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. Port None is the first free one from 8000 on; 0 any free one. Raises `UsageError` for a
    taken port, `ConfigError` for an address that is not this machine's."""
    if port is not None and not 0 <= port <= 65535:
        raise UsageError(f"--port {port} is not a port; use 1 to 65535, or 0 for any free one")
    tries = [port] if port is not None else range(DEFAULT_PORT, DEFAULT_PORT + SEARCHED)
    for one in tries:
        try:
            return _bind(host, one)
        except OSError as error:
            if error.errno == errno.EACCES:
                raise ConfigError(f"port {one} needs more rights than this process has; use --port 8000") from None
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f'--host "{host}" cannot be listened on ({error}); use --host 127.0.0.1') from None
    if port is None:
        last = DEFAULT_PORT + SEARCHED - 1
        raise UsageError(f"ports {DEFAULT_PORT} to {last} on {host} are all taken; choose one with --port")
    raise UsageError(f"port {port} on {host} is taken by another program; stop that one, or use --port {port + 1}")


def _bind(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


GARBAGE = (10_000, 20, 20)
"""A server keeps what it makes for long: looked through as often as in a script, ten thousand sockets cost a fifth more
CPU and a third of a second at a time."""

Ready = Callable[[], Awaitable[object] | None]


class Serving:
    """Serves one app on one socket until it is told to stop.

    The first SIGTERM or SIGINT drains: no new work, replies in the making are finished or kept, sockets are told to
    come back. The second one ends at once."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        from roomkit.servers.run import server

        self._listener = listener
        self._server = server(app, ws="websockets-sansio")
        # Uvicorn would raise the signal again when it is done, and end the process before the rooms are closed.
        setattr(self._server, "capture_signals", nullcontext)  # noqa: B010 - the types forbid replacing a method
        self._stopped = Wakeup()
        self._scope = Scope("serving")
        self.stopping = self._asked = False
        self.quietly = False
        self.forced = False

    def stop(self) -> None:
        """Ends gracefully; called again, at once."""
        self.forced = self._asked
        self._asked = True
        if self.forced:  # It is cut off in the middle of everything, and would say so at length.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.stopping = True
        self._stopped.set()

    def finish(self) -> None:
        """Ends gracefully and quietly because there is nothing more to do; a signal on top of it forces nothing."""
        self.quietly = self.stopping = True
        self._stopped.set()

    async def run(self, ready: Ready | None = None) -> int:
        """Returns the exit code: 0, or 1 when it was forced or could not start. `ready` is called once it serves."""
        loop = asyncio.get_running_loop()
        for one in SIGNALS:
            loop.add_signal_handler(one, self.stop)
        task = self._scope.spawn(self._server.serve(sockets=[self._listener]), name="uvicorn")
        thresholds = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        try:
            while not self._server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(_TICK_S)
            if not task.done() and ready is not None and (answer := ready()) is not None:
                await answer
            await self._end(task)
            return 1 if self.forced or not self._server.started else 0
        except BaseException:  # such as a Ctrl-C that came before the signals were ours
            await self._scope.aclose()
            if (lifespan := getattr(self._server, "lifespan", None)) is not None:
                await lifespan.shutdown()
            raise
        finally:
            for one in SIGNALS:
                loop.remove_signal_handler(one)
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            await self._scope.aclose()
            self._listener.close()

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Waits for the end of the server, or for the signals that bring it about."""
        while True:
            waiting = self._scope.spawn(self._stopped.wait(), name="signals")
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done() or self.forced:
                return
            if not self.quietly:
                say("stopping: running replies are finished or kept (again to end at once)")
            self._server.should_exit = True


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Runs a server command to its end, and leaves no task behind."""
    with asyncio.Runner() as runner:
        return runner.run(main)


def own_origins(url: str) -> tuple[str, ...]:
    """The other names of this machine under which a person may open the pages."""
    port = url.rpartition(":")[2]
    return tuple(f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]"))
