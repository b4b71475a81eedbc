"""A TCP proxy that breaks connections on purpose: late, cut at a byte, fallen silent, dripping.

    async with FaultProxy(server_port) as proxy:
        proxy.fault = Fault(cut_at=100)              # every connection ends after 100 bytes of the server's
        client = RoomClient(f"ws://127.0.0.1:{proxy.port}/socket", ...)

Needs an ordinary loop (`@pytest.mark.real_time`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from roomkit.runtime import Scope

Direction = Literal["to_client", "to_server"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the bytes of one connection that go in `direction`; those of the other way pass.

    `delay_s`: each piece is late. `cut_at`: after so many bytes both sides see the connection break. `silent_at`: after
    so many bytes nothing more passes in either direction, and nobody is told (half-open). `drip`: bytes at a time, and
    the pause in seconds between them.
    """

    direction: Direction = "to_client"
    delay_s: float = 0.0
    cut_at: int | None = None
    silent_at: int | None = None
    drip: tuple[int, float] | None = None


class FaultProxy:
    """Stands on `port` of 127.0.0.1 before another port. `fault` holds for connections from now on; it may be a
    function of the connection's number, from 0. `accepting` False refuses new connections."""

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self.fault: Fault | Callable[[int], Fault | None] | None = None
        self.accepting = True
        self.port = 0
        self.connections = 0
        self.broken = 0
        self.passed: dict[Direction, int] = {"to_client": 0, "to_server": 0}
        """Bytes that got through so far."""
        self._target = (host, target)
        self._scope = Scope("fault proxy")
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._scope.aclose()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Breaks every open connection now."""
        for connection in tuple(self._open):
            connection.cut()

    def silence(self) -> None:
        """Lets every open connection fall silent now, in both directions."""
        for connection in tuple(self._open):
            connection.silent = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            if not self.accepting:
                raise ConnectionRefusedError
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        fault = self.fault(number) if callable(self.fault) else self.fault
        connection = _Connection(self, fault or Fault(), writer, there_writer)
        self._open.add(connection)
        self._scope.spawn(connection.pump("to_server", reader, there_writer), name="bytes to the server")
        self._scope.spawn(connection.pump("to_client", there_reader, writer), name="bytes to the client")

    def forget(self, connection: _Connection) -> None:
        """Called by a connection that has ended."""
        self._open.discard(connection)


class _Connection:
    """One connection, and the one on to the target."""

    def __init__(
        self, proxy: FaultProxy, fault: Fault, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self.silent = False
        self._proxy = proxy
        self._fault = fault
        self._writers = (client, server)
        self._closed = 0
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(high=0)  # so that drained is sent

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._proxy.forget(self)

    async def pump(self, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        fault = self._fault if self._fault.direction == direction else Fault(direction)
        done = 0
        try:
            while data := await source.read(65_536):
                if self.silent:
                    continue
                if fault.delay_s:
                    await asyncio.sleep(fault.delay_s)
                end = min((at for at in (fault.cut_at, fault.silent_at) if at is not None), default=None)
                reached = end is not None and done + len(data) >= end
                await self._send(direction, data[: end - done] if end is not None and reached else data, sink, fault)
                done += len(data)
                if reached:
                    self._proxy.broken += 1
                    self.silent = fault.cut_at is None
                    if not self.silent:
                        self.cut()
                        return
            if not self.silent:
                sink.write_eof()
        except (OSError, RuntimeError):  # One side has gone: the other one hears of it.
            self.cut()
        finally:
            self._closed += 1
            if self._closed == len(self._writers) and not self.silent:
                for writer in self._writers:
                    writer.close()
                self._proxy.forget(self)

    async def _send(self, direction: Direction, data: bytes, sink: asyncio.StreamWriter, fault: Fault) -> None:
        size, pause = fault.drip or (len(data) or 1, 0.0)
        for at in range(0, len(data), size):
            sink.write(data[at : at + size])
            await sink.drain()
            self._proxy.passed[direction] += len(data[at : at + size])
            if pause:
                await asyncio.sleep(pause)
