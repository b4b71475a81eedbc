"""A crowd at room sockets: thousands of small WebSocket clients in one process. Each follows one room, writes down a
checksum of what it sees, and comes back whenever it is cut. `python -m proofs.crowd` takes its orders on stdin."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import resource
import socket
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from proofs.patience import patience
from roomkit.net.tokens import Tokens

STATUS_S = 0.1
TAIL = 200
CONNECT_S = 10.0
"""As our clients: where a full queue drops a connection, the system would wait a minute."""
SILENT_S = 30.0
"""Nor does it say that a connection which it holds for made is not: who hears nothing for so long comes again."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which clients one process plays: number `first` to `first + count - 1`, client n in room n % len(rooms)."""

    port: int
    secret: str
    rooms: tuple[str, ...]
    first: int
    count: int
    backoff_s: float = 0.3
    max_backoff_s: float = 15.0

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Crowd:
    """All clients of one process."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.wrong: list[str] = []
        self.live = 0
        self.resumed = 0
        self.gave_up = 0
        self.writing = self.hushed = False
        self.acked: dict[str, list[Any]] = {}
        tokens = Tokens([part.secret])
        self.clients = [
            Client(self, number, part.rooms[number % len(part.rooms)], tokens)
            for number in range(part.first, part.first + part.count)
        ]

    async def run(self, orders: asyncio.StreamReader) -> None:
        telling = asyncio.create_task(self._tell())
        for client in self.clients:
            client.connect()
        while order := await orders.readline():
            if order == b"write\n":
                self.writing = True
                for client in self.clients:
                    client.write_on()
            elif order == b"hush\n":
                self.writing, self.hushed = False, True
        telling.cancel()

    async def _tell(self) -> None:
        """Little while all are busy, everything once they are quiet."""
        writers = [client for client in self.clients if client.writes]
        while True:
            told: dict[str, Any] = {name: getattr(self, name) for name in ("live", "resumed", "gave_up")}
            told["wrong"] = self.wrong[:20]
            if self.hushed:
                told["under_way"] = sum(client.under_way is not None for client in writers)
                told["acked"] = self.acked
                told["seen"] = self._seen()
            print(json.dumps(told), flush=True)
            await asyncio.sleep(STATUS_S)

    def _seen(self) -> dict[str, dict[str, int]]:
        """Per room, how many clients have got how far, and what they have seen."""
        seen: dict[str, dict[str, int]] = {}
        for client in self.clients:
            said = seen.setdefault(client.room, {})
            key = f"{client.position}:{client.checksum:08x}"
            said[key] = said.get(key, 0) + 1
        return seen


class Client(asyncio.Protocol):
    """One viewer. The first one of each room also writes."""

    __slots__ = (
        "_buffer",
        "_crowd",
        "_epoch",
        "_heartbeat_s",
        "_live",
        "_open",
        "_step",
        "_token",
        "_transport",
        "_tries",
        "checksum",
        "name",
        "position",
        "room",
        "sent",
        "under_way",
        "writes",
    )

    def __init__(self, crowd: Crowd, number: int, room: str, tokens: Tokens) -> None:
        self._crowd = crowd
        self._buffer = b""
        self._epoch: str | None = None
        self._open = self._live = False
        self._transport: asyncio.Transport | None = None
        self._step: asyncio.TimerHandle | None = None
        self._heartbeat_s = 0.0
        self._tries = 0
        self._token = tokens.mint("guest", room, 86_400, id=f"c{number}")
        self.name = f"c{number}"
        self.room = room
        self.position = -1
        self.checksum = 0
        self.writes = number < len(crowd.part.rooms)
        self.sent = 0
        self.under_way: str | None = None

    def connect(self) -> None:
        asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        """A try that took too long leaves nothing behind: with a second line one client would be two for ever."""
        loop, line = asyncio.get_running_loop(), socket.socket()
        line.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_S * patience()):
                await loop.sock_connect(line, ("127.0.0.1", self._crowd.part.port))
            await loop.create_connection(lambda: self, sock=line)
        except (OSError, TimeoutError):
            line.close()
            self._again()

    def _again(self) -> None:
        part = self._crowd.part
        most = min(part.max_backoff_s, part.backoff_s * 2 ** min(self._tries, 16))
        self._tries += 1
        asyncio.get_running_loop().call_later(most * random.uniform(0.5, 1.0), self.connect)

    # -- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport, self._buffer, self._open = transport, b"", False
        self._next_step(SILENT_S * patience(), self._give_up)
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def _next_step(self, seconds: float, step: Callable[[], None]) -> None:
        """What this client does by itself next, in place of what it was to do."""
        if self._step is not None:
            self._step.cancel()
        self._step = asyncio.get_running_loop().call_later(seconds, step)

    def _give_up(self) -> None:
        self._crowd.gave_up += 1
        self._end()

    def _ping(self) -> None:
        self._say(type="ping")
        self._next_step(self._heartbeat_s, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._step is not None:
            self._step.cancel()
        self._transport = None
        if self._live:
            self._live = False
            self._tries = 0
            self._crowd.live -= 1
        self._again()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._end()
                return
            self._open = True
            self._say(type="auth", token=self._token, v=1)
        while (frame := self._next()) is not None:
            kind, payload = frame
            if kind == 1:
                self._hear(json.loads(payload))
            elif kind == 9:
                self._send(10, payload)
            elif kind == 8:
                self._end()

    def _next(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            return None
        self._buffer = data[start + length :]
        return data[0] & 15, data[start : start + length]

    def _send(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([128 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        if self._transport is not None:  # The mask is zero, so that the payload stays as it is.
            self._transport.write(bytes([128 | kind]) + length + b"\0\0\0\0" + payload)

    def _say(self, **frame: Any) -> None:
        self._send(1, json.dumps(frame).encode())

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- the room -----------------------------------------------------------------------------------------------------

    def _hear(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "welcome":
                self._heartbeat_s = frame["heartbeat_s"]
                self._next_step(self._heartbeat_s, self._ping)
                where = {} if self._epoch is None else {"resume": {"epoch": self._epoch, "index": self.position}}
                self._say(type="join", room_id=self.room, tail=TAIL, **where)
            case "snapshot" | "resumed":
                self._enter(frame)
            case "event":
                if frame["prev"] != self.position:
                    self._crowd.wrong.append(f"{self.name} was at {self.position} and heard {frame['index']}")
                self._see(frame["event"])
                self.position = frame["index"]
            case "ack" if frame["client_id"] == self.under_way:
                self._crowd.acked[self.under_way] = [self.room, frame["index"], frame["event_id"]]
                self.under_way = None
                asyncio.get_running_loop().call_later(random.uniform(0.2, 1.0), self.write_on)
            case "ack" | "room" | "pong" | "ephemeral" | "stream_start" | "stream_chunk":
                pass
            case other:
                self._crowd.wrong.append(f"{self.name} heard {other}: {json.dumps(frame)[:200]}")

    def _enter(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "resumed":
            self._crowd.resumed += 1
        elif self._epoch is not None:
            self._crowd.wrong.append(f"{self.name} had to begin anew")
        for event in frame["events"]:
            self._see(event)
        self._epoch, self.position = frame["epoch"], frame["index"]
        self._live = True
        self._crowd.live += 1
        if self.under_way is not None:
            self._write()

    def _see(self, event: dict[str, Any]) -> None:
        self.checksum = zlib.crc32(f"{event['index']} {event['id']}\n".encode(), self.checksum)

    def write_on(self) -> None:
        if self.writes and self._crowd.writing and self.under_way is None:
            self.sent += 1
            self.under_way = f"{self.name}-{self.sent}"
            self._write()

    def _write(self) -> None:
        if self._live:
            self._say(type="send", client_id=self.under_way, text=f"message {self.under_way}")


async def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await Crowd(Part(**json.loads(await orders.readline()))).run(orders)


if __name__ == "__main__":
    asyncio.run(main())
