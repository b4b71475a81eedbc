"""RoomClient: a room from Python, over the room socket; it comes back by itself and loses or doubles nothing."""

from __future__ import annotations

import asyncio
import inspect
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from roomkit.errors import AccessDenied, MissingExtra, ProtocolError, RoomKitError, StateError
from roomkit.models.content import Content
from roomkit.protocols.room_socket import ClientSession, ServerFrame
from roomkit.protocols.room_socket.messages import CLOSE_CODES, FINAL_CODES, Ack, ErrorFrame, Nack, Welcome
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope, SystemClock, Wakeup, bounded

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that gives a fresh one: asked before each connection and before one expires."""
RENEW_BEFORE_S = 60.0
SILENCE = 2.5
CLOSE_S = 1.0
"""The longest wait for a good-bye of the server's, which a broken line never brings."""


class Wire(Protocol):
    """One connection. `send` and `recv` raise `Disconnected` when it has ended."""

    async def send(self, text: str) -> None: ...

    async def recv(self) -> str: ...

    async def close(self) -> None: ...


class Disconnected(Exception):
    """A connection has ended; `code` is its close code (1006 when it broke)."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class NotSent(StateError):
    """The room refused a message for good; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the message was not accepted ({code}): {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Times in seconds. `frames` received and not yet read are kept; then the socket is read no further."""

    tail: int = 50
    backoff_s: float = 0.3
    max_backoff_s: float = 15.0
    connect_timeout_s: float = 10.0
    frames: int = 1_000


class RoomClient:
    """One viewer of one room.

        async with RoomClient("ws://127.0.0.1:8000/socket", "lobby", token) as room:
            await room.send("Hello")
            async for frame in room:
                print(frame)

    Iterating gives every frame once: `snapshot` first, `event` and `stream_end` in order without gaps or repetitions,
    across any number of reconnections. It ends with `aclose`, or raises when the server refuses for good.
    """

    def __init__(
        self,
        url: str,
        room_id: str,
        token: Token,
        options: ClientOptions | None = None,
        *,
        connect: Callable[[str], Awaitable[Wire]] | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._options = options or ClientOptions()
        self._connect = connect or _connect
        self._session = ClientSession(room_id, tail=self._options.tail)
        self._frames: BlockingBuffer[ServerFrame] = BlockingBuffer(self._options.frames)
        self._receipts: dict[str, asyncio.Future[Ack]] = {}
        self._scope = Scope(f"room client {room_id}")
        self._wake = Wakeup()
        self._heartbeat_s = 20.0
        self._expires_at: float | None = None
        self._error: RoomKitError | None = None
        self.reconnections = 0

    @property
    def live(self) -> bool:
        """Whether the room is being followed right now."""
        return self._session.live

    @property
    def position(self) -> int:
        """The index up to which the log has been received."""
        return self._session.position

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def start(self) -> None:
        """Connects in the background; `async with` does it for you."""
        if not len(self._scope):
            self._scope.spawn(self._run(), name="follow the room")

    async def send(self, body: str | Content, *, client_id: str | None = None, parent: str | None = None) -> Ack:
        """Writes, and returns when it is durable; repeated by itself over reconnections under the same id.

        Raises `NotSent` when the room refuses it. A cancelled call leaves the message on its way."""
        if self._error is not None:
            raise self._error
        client_id = client_id or secrets.token_hex(8)
        receipt: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._session.send(client_id, body, parent=parent)
        self._receipts[client_id] = receipt
        self._wake.set()
        return await asyncio.shield(receipt)

    def say(self, kind: str, **fields: Any) -> None:
        """Sends a frame that is not kept, such as `say("typing", on=True)`; see docs/reference/room-socket.md."""
        self._session.say(kind, **fields)
        self._wake.set()

    async def aclose(self) -> None:
        """Leaves. Messages not yet acknowledged fail with `StateError`. Idempotent."""
        await self._scope.aclose()
        self._end(None)

    async def __aiter__(self) -> AsyncIterator[ServerFrame]:
        while True:
            try:
                frame = await self._frames.get()
            except BufferClosed:
                break
            yield frame
        if self._error is not None:
            raise self._error

    # -- the connection -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        tries = 0
        try:
            while True:
                try:
                    wire = await bounded(self._connect(self._url), self._options.connect_timeout_s, "connecting")
                    try:
                        await self._serve(wire)
                    finally:
                        tries = 0 if self._session.live else tries
                        self._session.live = False
                        await wire.close()
                except Disconnected as end:
                    if self._final(end):
                        return
                except (OSError, TimeoutError):
                    pass
                await asyncio.sleep(self._delay(tries))
                tries += 1
                self.reconnections += 1
        except RoomKitError as error:
            self._end(error)

    def _delay(self, tries: int) -> float:
        most = min(self._options.max_backoff_s, self._options.backoff_s * 2 ** min(tries, 16))
        return most * random.uniform(0.5, 1.0)

    def _final(self, end: Disconnected) -> bool:
        if end.code in FINAL_CODES or (end.code == 4401 and isinstance(self._token, str)):
            why = end.reason or CLOSE_CODES.get(end.code, "")
            self._end(AccessDenied(f"the server closed the socket for good ({end.code}): {why}"))
            return True
        return False

    async def _serve(self, wire: Wire) -> None:
        self._session.connected(await self._fresh())
        self._wake.set()
        async with Scope("room connection") as scope:
            writer = scope.spawn(self._write(wire), name="write", awaited=True)
            reader = scope.spawn(self._read(wire), name="read", awaited=True)
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        errors = [task.exception() for task in (reader, writer) if not task.cancelled()]
        raise next(filter(None, errors), Disconnected())

    async def _write(self, wire: Wire) -> None:
        while True:
            for text in self._session.data_to_send():
                await wire.send(text)
            try:
                await bounded(self._wake.wait(), self._heartbeat_s, "something to say")
            except TimeoutError:
                self._session.say("ping")
                if self._must_renew():
                    self._session.renew(await self._fresh())

    async def _read(self, wire: Wire) -> None:
        while True:
            text = await bounded(wire.recv(), self._heartbeat_s * SILENCE, "hearing from the server")
            for frame in self._session.receive(text):
                self._settle(frame)
                await self._frames.put(frame)
            self._wake.set()

    def _settle(self, frame: ServerFrame) -> None:
        match frame:
            case Welcome():
                self._heartbeat_s, self._expires_at = frame.heartbeat_s, frame.expires_at
            case Ack():
                self._receipt(frame.client_id, frame)
            case Nack(retry_after=None):
                self._receipt(frame.client_id, NotSent(frame.code, frame.message))
            case Nack():
                self._scope.spawn(self._again(frame.client_id, frame.retry_after or 1.0), name="send again")
            case ErrorFrame(ref="join", retry_after=None) if not self._session.live:
                raise AccessDenied(f"the room cannot be joined ({frame.code}): {frame.message}")
            case _:
                pass

    def _receipt(self, client_id: str, outcome: Ack | NotSent) -> None:
        receipt = self._receipts.pop(client_id, None)
        if receipt is None or receipt.done():
            return
        if isinstance(outcome, NotSent):
            receipt.set_exception(outcome)
        else:
            receipt.set_result(outcome)

    async def _again(self, client_id: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._session.resend(client_id)
        self._wake.set()

    async def _fresh(self) -> str:
        if isinstance(self._token, str):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    def _must_renew(self) -> bool:
        if self._expires_at is None or isinstance(self._token, str):
            return False
        return self._expires_at - SystemClock().now().timestamp() < RENEW_BEFORE_S

    def _end(self, error: RoomKitError | None) -> None:
        self._error = self._error or error
        self._frames.close()
        for receipt in self._receipts.values():
            if not receipt.done():
                receipt.set_exception(error or StateError("the client was closed before the message was acknowledged"))
                receipt.exception()  # whoever awaits it still hears it; nobody else has to
        self._receipts.clear()


async def _connect(url: str) -> Wire:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException
    except ImportError as error:
        raise MissingExtra("RoomClient", "websockets", "server") from error
    try:
        return _WebSocket(await connect(url, compression=None, max_size=None, close_timeout=CLOSE_S))
    except InvalidStatus as error:
        if error.response.status_code in (401, 403, 404):
            raise AccessDenied(f"the server refused the socket with {error.response.status_code}") from error
        raise Disconnected(1013, "the server is not ready") from error
    except WebSocketException as error:
        if isinstance(error.__cause__, EOFError):  # The server has died, or was stopped, in mid-handshake.
            raise Disconnected from error
        raise ProtocolError(f"the server did not speak WebSocket: {error}") from error


class _WebSocket:
    """A `websockets` connection as a `Wire`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise _ended(error) from error

    async def recv(self) -> str:
        from websockets.exceptions import ConnectionClosed

        try:
            data = await self._connection.recv()
        except ConnectionClosed as error:
            raise _ended(error) from error
        return data if isinstance(data, str) else data.decode()

    async def close(self) -> None:
        await self._connection.close()


def _ended(error: Any) -> Disconnected:
    return Disconnected(error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else Disconnected()
