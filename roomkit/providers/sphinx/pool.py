"""Processes that listen, and lines to them: a `Wire` is one stream in one of them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any

from roomkit.errors import ConfigError, Unavailable
from roomkit.net.redial import Data
from roomkit.net.room_client import Disconnected
from roomkit.providers.program import kill
from roomkit.providers.sphinx.worker import HEADER
from roomkit.runtime import BufferClosed, CoalescingBuffer, Scope, bounded

log = logging.getLogger(__name__)
NAME = "sphinx"
_MOST_TOLD = 10_000
START_S = 30.0


class Line:
    """One stream. What is sent begins with the byte that says what it is, and so does what comes."""

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self._number = number
        self._open = True
        self.told: CoalescingBuffer[bytes] = CoalescingBuffer(_MOST_TOLD, merge=_newer)

    async def send(self, data: Data) -> None:
        assert isinstance(data, bytes), "a worker is told bytes"
        if not self._open or not self.process.alive:
            raise Disconnected(1006, "the recogniser's process has ended")
        await self.process.write(data[:1], self._number, data[1:])

    async def recv(self) -> Data:
        try:
            return await self.told.take()
        except BufferClosed:
            raise Disconnected(1006, "the recogniser's process has ended") from None

    async def close(self) -> None:
        self._leave(forget=False)

    def abort(self) -> None:
        self._leave(forget=True)

    def _leave(self, *, forget: bool) -> None:
        if self._open:
            self._open = False
            self.told.close()
            self.process.leave(self._number, forget=forget)


class Process:
    """One worker process and the streams in it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._child: asyncio.subprocess.Process | None = None
        self._numbers = 0
        self.lines: dict[int, Line] = {}
        self.alive = False

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self.alive else None

    async def start(self, scope: Scope) -> None:
        """Returns when it listens. Raises `Unavailable`, `ConfigError` for a model that cannot be loaded."""
        # The child needs no secrets, and finds what this process imports from.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "roomkit.providers.sphinx.worker",
            json.dumps(self._options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._child = child
        try:
            kind, _, payload = await bounded(self._read(child), START_S, "the recogniser's start")
            if kind == b"!":
                raise ConfigError(f"{NAME}: {json.loads(payload)['message']}; check the model, dictionary and grammar")
        except asyncio.IncompleteReadError as error:
            raise Unavailable(NAME, "its process ended while it started") from error
        except TimeoutError as error:
            raise Unavailable(NAME, f"its process did not start within {START_S:g} s") from error
        finally:
            if sys.exc_info()[0] is not None:
                await self.kill()
        self.alive = True
        scope.spawn(self._listen(child), name="sphinx process")

    def open(self) -> Line:
        self._numbers += 1
        line = self.lines[self._numbers] = Line(self, self._numbers)
        return line

    def leave(self, number: int, *, forget: bool) -> None:
        if self.lines.pop(number, None) is not None and forget and self.alive:
            self._put(b"X", number, b"")

    async def write(self, kind: bytes, number: int, payload: bytes) -> None:
        self._put(kind, number, payload)
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            await self._child.stdin.drain()
        except ConnectionError:
            raise Disconnected(1006, "the recogniser's process has ended") from None

    async def kill(self) -> None:
        """Ends it at once; its streams break."""
        self.alive = False
        for line in tuple(self.lines.values()):
            line.told.close()
        child = self._child
        if child is not None:
            if child.returncode is None:
                kill(child)
            await child.wait()
            if child.stdin is not None:
                child.stdin.close()

    def _put(self, kind: bytes, number: int, payload: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(HEADER.pack(kind, number, len(payload)) + payload)

    async def _read(self, child: asyncio.subprocess.Process) -> tuple[bytes, int, bytes]:
        assert child.stdout is not None
        kind, number, length = HEADER.unpack(await child.stdout.readexactly(HEADER.size))
        return kind, number, await child.stdout.readexactly(length)

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        try:
            while True:
                kind, number, payload = await self._read(child)
                line = self.lines.get(number)
                if line is not None and not line.told.offer(kind + payload):
                    log.warning("a recogniser's caller reads nothing; its stream is ended")
                    line.told.close()
        except asyncio.IncompleteReadError:
            if self.alive:
                log.warning("the recogniser's process %d has ended; the next stream starts another", child.pid)
        finally:
            await self.kill()


class Pool:
    """At most `processes` processes with `streams` streams each, started when they are needed."""

    def __init__(self, options: dict[str, Any], *, processes: int, streams: int) -> None:
        self._options = options
        self._most = processes
        self._streams = streams
        self._processes: list[Process] = []
        self._starting = asyncio.Lock()
        self._scope = Scope("sphinx")

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes if process.pid is not None)

    async def line(self) -> Line:
        """A new stream in the process that has fewest. Raises `Unavailable` when all are full."""
        async with self._starting:
            self._processes = [process for process in self._processes if process.alive]
            least = min(self._processes, key=lambda process: len(process.lines), default=None)
            if least is None or (least.lines and len(self._processes) < self._most):
                least = await self._started()
            if len(least.lines) >= self._streams:
                most = self._most * self._streams
                raise Unavailable(NAME, f"all {most} streams are in use; raise processes= or streams=", retryable=False)
            return least.open()

    async def warm(self) -> None:
        async with self._starting:
            if not any(process.alive for process in self._processes):
                await self._started()

    async def _started(self) -> Process:
        process = Process(self._options)
        await process.start(self._scope)
        self._processes.append(process)
        return process

    async def replace(self, line: Line) -> None:
        """The process of this stream has hung: every stream in it goes on in another."""
        if line.process.alive:
            log.warning("the recogniser's process %s does not answer and is replaced", line.process.pid)
            await line.process.kill()

    async def aclose(self) -> None:
        for process in self._processes:
            await process.kill()
        await self._scope.drain(5.0)
        self._processes.clear()


def _newer(last: bytes, new: bytes) -> bytes | None:
    """A partial transcript that nobody has read gives way to the next; acknowledgements add up."""
    if last[:1] == new[:1] == b"P":
        return new
    if last[:1] == new[:1] == b"K":
        return b"K" + (int.from_bytes(last[1:], "little") + int.from_bytes(new[1:], "little")).to_bytes(4, "little")
    return None
