"""SocketLink: the `NodeLink` over WebSockets, one connection for all that one node asks another.

Who connects proves that it knows the shared secret (HMAC over the time, a nonce and the address); see `Tickets`.
What is said then is as private as the network: use https addresses where it is not your own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets as random_secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast

from roomkit.errors import AccessDenied, ConfigError, MissingExtra, UsageError
from roomkit.ports.node import Json, NodeHandler, NodeLost, told_of
from roomkit.runtime import BlockingBuffer, Clock, Scope, bounded
from roomkit.runtime.buffers import BufferClosed

log = logging.getLogger(__name__)
PATH = "/nodes"
CONNECT_S = 2.0
CLOSE_S = 1.0
FRESH_S = 60.0
"""How far apart the clocks of two nodes may be, and how long a ticket is good for."""
NONCES = 100_000
PART = 15_000
"""Characters in one WebSocket message (at most 60 KB); longer ones go in parts."""
LARGEST = 64_000_000
MOST_AT_ONCE = 100_000
BUFFER = 10_000


class Tickets:
    """What a node shows when it connects: good for one connection, for a minute, at one address."""

    def __init__(self, secrets: Sequence[str], clock: Clock) -> None:
        """Raises `ConfigError` without a secret."""
        if not [secret for secret in secrets if secret]:
            raise ConfigError(
                "nodes that talk to each other need a secret that all of them know: "
                "RoomKit(..., token_secrets=[...]) with the same one everywhere, or NodeOptions(secrets=(...,))"
            )
        self._keys = [hashlib.sha256(b"roomkit node link\n" + secret.encode()).digest() for secret in secrets if secret]
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def make(self, address: str) -> str:
        said = f"{self._now():.3f}.{random_secrets.token_hex(16)}"
        return f"{said}.{self._sign(self._keys[0], said, address)}"

    def check(self, ticket: str, address: str) -> None:
        """Raises `AccessDenied`."""
        stamp, dot, rest = ticket.partition(".")
        fraction, _, rest = rest.partition(".")
        nonce, _, signature = rest.partition(".")
        said = f"{stamp}{dot}{fraction}.{nonce}"
        good = [hmac.compare_digest(self._sign(key, said, address).encode(), signature.encode()) for key in self._keys]
        if not any(good):
            raise AccessDenied("the node does not know the secret, or speaks to another address")
        now = self._now()
        if abs(now - float(f"{stamp}.{fraction}")) > FRESH_S:
            raise AccessDenied("the node's clock is more than a minute away from this one's")
        while self._seen and (len(self._seen) >= NONCES or next(iter(self._seen.values())) < now - 3 * FRESH_S):
            self._seen.popitem(last=False)
        if nonce in self._seen:
            raise AccessDenied("this ticket was used before")
        self._seen[nonce] = now

    def _now(self) -> float:
        return self._clock.now().timestamp()

    @staticmethod
    def _sign(key: bytes, said: str, address: str) -> str:
        return hmac.new(key, f"{said}\n{address}".encode(), hashlib.sha256).hexdigest()


class Wire(Protocol):
    """One connection, as messages of text. `recv` returns None at its end; both raise `OSError` when it breaks."""

    async def send(self, text: str) -> None: ...
    async def recv(self) -> str | None: ...
    async def close(self) -> None: ...


class Channel:
    """JSON values over a wire, of any length, whole and in order."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = asyncio.Lock()

    async def send(self, *value: Any) -> None:
        """Raises `UsageError`, before anything is sent, for what JSON cannot hold."""
        text = _as_json(value)
        async with self._lock:
            for first in range(0, len(text), PART):
                last = first + PART >= len(text)
                await self._wire.send(("." if last else "+") + text[first : first + PART])

    async def recv(self) -> list[Any] | None:
        """Kind, number and, where the kind has one, a JSON object. Raises `ConnectionError` for anything else."""
        parts: list[str] = []
        size = 0
        while (text := await self._wire.recv()) is not None:
            parts.append(text[1:])
            size += len(text)
            if size > LARGEST:
                raise ConnectionError("a message of the other node is too large")
            if text[:1] == ".":
                try:
                    return _understood(json.loads("".join(parts)))
                except (ValueError, RecursionError) as error:
                    raise ConnectionError("the other node does not speak JSON") from error
        return None

    async def close(self) -> None:
        try:
            await bounded(self._wire.close(), CLOSE_S, "closing")
        except (TimeoutError, OSError):
            pass


def _as_json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"this cannot be told to another node: {error}") from error
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:  # half a character: what is to be done about it is the room's to say
        return json.dumps(value, separators=(",", ":"))
    return text


def _understood(message: Any) -> list[Any]:
    match message:
        case ["stop" | "end", int(), *_] | ["call" | "open" | "answer" | "item", int(), dict(), *_]:
            return cast("list[Any]", message)
        case _:
            raise ConnectionError("the other node says what this one does not understand")


class _Peer:
    """The asking side of one connection."""

    def __init__(self, address: str, channel: Channel) -> None:
        self.address = address
        self.channel = channel
        self.answers: dict[int, asyncio.Future[Json]] = {}
        self.streams: dict[int, BlockingBuffer[Json]] = {}
        self.open = True
        self._number = 0

    def number(self) -> int:
        self._number += 1
        return self._number

    async def ask(self, kind: str, number: int, request: Json) -> None:
        if not self.open:
            raise NodeLost(self.address, "the connection is closed", sent=False)
        try:
            await self.channel.send(kind, number, request)
        except OSError as error:
            raise NodeLost(self.address, str(error), sent=True) from error

    async def read(self) -> None:
        """Hands out answers until the connection ends."""
        why = "it closed the connection"
        try:
            while (message := await self.channel.recv()) is not None:
                kind, number, *rest = message
                if kind == "answer" and (future := self.answers.pop(number, None)) is not None:
                    if not future.done():
                        future.set_result(rest[0])
                elif kind == "item" and (buffer := self.streams.get(number)) is not None:
                    await buffer.put(rest[0])
                elif kind == "end" and (buffer := self.streams.pop(number, None)) is not None:
                    await buffer.put({"end": True})
        except (OSError, ValueError, BufferClosed) as error:
            why = str(error)
        finally:
            self.end(why)

    def end(self, why: str) -> None:
        self.open = False
        answers, self.answers = self.answers, {}
        for future in answers.values():
            if not future.done():
                future.set_exception(NodeLost(self.address, why, sent=True))
        for buffer in self.streams.values():
            buffer.close()
        self.streams.clear()


class SocketLink:
    """A `NodeLink`. `connect` opens a wire to an address with a ticket; by default a WebSocket."""

    def __init__(
        self,
        secrets: Sequence[str],
        clock: Clock,
        *,
        connect: Callable[[str, str], Awaitable[Wire]] | None = None,
    ) -> None:
        self.tickets = Tickets(secrets, clock)
        self._connect = connect or _connect
        self._handler: NodeHandler | None = None
        self._peers: dict[str, _Peer] = {}
        self._connecting: dict[str, asyncio.Lock] = {}
        self._scope = Scope("node link")
        self._serving = Scope("node calls")
        self._callers: set[Channel] = set()

    def serve(self, handler: NodeHandler) -> None:
        self._handler = handler

    async def call(self, address: str, request: Json) -> Json:
        peer = await self._peer(address)
        number = peer.number()
        future = peer.answers[number] = asyncio.get_running_loop().create_future()
        try:
            await peer.ask("call", number, request)
            return await future
        finally:
            peer.answers.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()

    async def stream(self, address: str, request: Json) -> AsyncGenerator[Json]:
        peer = await self._peer(address)
        number = peer.number()
        buffer = peer.streams[number] = BlockingBuffer[Json](BUFFER)
        try:
            await peer.ask("open", number, request)
            while True:
                item = await buffer.get()
                if item.get("end") is True:
                    return
                yield item
        except BufferClosed as error:
            raise NodeLost(address, "the connection broke", sent=True) from error
        finally:
            buffer.close()
            if peer.streams.pop(number, None) is not None and peer.open and not self._scope.closed:
                self._scope.spawn(self._stop(peer, number), name="stop a stream")

    async def aclose(self) -> None:
        await self._serving.aclose()
        for channel in tuple(self._callers):
            await channel.close()
        for peer in tuple(self._peers.values()):
            peer.end("this node stops")
            await peer.channel.close()
        await self._scope.aclose()

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _peer(self, address: str) -> _Peer:
        found = self._peers.get(address)
        if found is not None and found.open:
            return found
        async with self._connecting.setdefault(address, asyncio.Lock()):
            found = self._peers.get(address)
            if found is not None and found.open:
                return found
            if self._scope.closed:
                raise NodeLost(address, "this node stops", sent=False)
            try:
                wire = await bounded(self._connect(address, self.tickets.make(place(address))), CONNECT_S, "connecting")
            except (OSError, TimeoutError) as error:
                raise NodeLost(address, str(error) or type(error).__name__, sent=False) from error
            peer = self._peers[address] = _Peer(address, Channel(wire))
            self._scope.spawn(self._read(peer), name=f"answers of {address}")
            return peer

    async def _read(self, peer: _Peer) -> None:
        try:
            await peer.read()
        finally:
            if self._peers.get(peer.address) is peer:
                del self._peers[peer.address]
            await peer.channel.close()

    async def _stop(self, peer: _Peer, number: int) -> None:
        try:
            await peer.channel.send("stop", number)
        except OSError:
            pass

    # -- being asked --------------------------------------------------------------------------------------------------

    async def answer(self, wire: Wire) -> None:
        """Serves one node that has shown its ticket, until it goes."""
        channel = Channel(wire)
        streams: dict[int, asyncio.Task[None]] = {}
        mine: set[asyncio.Task[None]] = set()
        self._callers.add(channel)
        try:
            while (message := await channel.recv()) is not None and not self._serving.closed:
                kind, number, *rest = message
                if kind == "stop":
                    if (task := streams.pop(number, None)) is not None:
                        task.cancel()
                    continue
                if len(mine) >= MOST_AT_ONCE:
                    raise ConnectionError("it asks too much at once")
                work = self._call(channel, number, rest[0]) if kind == "call" else self._show(channel, number, rest[0])
                task = self._serving.spawn(work, name=f"{kind} of a node")
                mine.add(task)
                task.add_done_callback(mine.discard)
                if kind == "open":
                    streams[number] = task
                    task.add_done_callback(lambda _, number=number: streams.pop(number, None))
        except (OSError, ValueError) as error:
            log.warning("the connection of another node ended: %s", error)
        finally:
            self._callers.discard(channel)
            for task in streams.copy().values():
                task.cancel()
            await channel.close()

    async def _call(self, channel: Channel, number: int, request: Json) -> None:
        assert self._handler is not None
        answer = await self._handler.call(request)
        try:
            try:
                await channel.send("answer", number, answer)
            except UsageError as error:
                await channel.send("answer", number, told_of(error))
        except OSError:
            pass  # Who asked has gone, and asks the next owner.

    async def _show(self, channel: Channel, number: int, request: Json) -> None:
        assert self._handler is not None
        try:
            try:
                async with aclosing(self._handler.stream(request)) as items:
                    async for item in items:
                        await channel.send("item", number, item)
            except OSError:
                raise
            except Exception:  # the lane boundary: whoever looks on hears that it is over
                log.exception("what another node was shown broke off")
            await channel.send("end", number)
        except OSError:
            pass


def place(address: str) -> str:
    """What both sides call an address: without the scheme, which a proxy may have taken away."""
    return address.partition("://")[2].rstrip("/")


async def _connect(address: str, ticket: str) -> Wire:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException
    except ImportError as error:
        raise MissingExtra("the link between nodes", "websockets", "server") from error
    url = f"{address.rstrip('/').replace('http', 'ws', 1)}{PATH}"
    headers = {"authorization": f"RoomKit-Node {ticket}"}
    try:
        connection = await connect(
            url, additional_headers=headers, compression=None, max_size=None, proxy=None, open_timeout=None
        )
    except WebSocketException as error:
        raise ConnectionError(f"no WebSocket there: {error}") from error
    return _Socket(connection)


class _Socket:
    """A `websockets` connection as a `Wire`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise ConnectionError("the connection is closed") from error

    async def recv(self) -> str | None:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def close(self) -> None:
        await self._connection.close()
