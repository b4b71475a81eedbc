"""One conversation with a vendor over a connection that may break: it is dialled again and goes on where it was.

What is said is a vendor's own (`Dialogue`, without any waiting); when to connect, to write, to give up and to close is
the same for all and lives here. A cancelled conversation hangs up at once, without the closing handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from roomkit.errors import ConfigError, MissingExtra, ProviderError, ProviderTimeout, Unavailable
from roomkit.net.client import default_user_agent, error_from_status
from roomkit.net.redaction import redact, redact_logs
from roomkit.net.retry import RetryPolicy
from roomkit.net.room_client import Disconnected
from roomkit.runtime import Scope, Wakeup, bounded, monotonic

Data = str | bytes
P = TypeVar("P")
T = TypeVar("T")
Piece = TypeVar("Piece", contravariant=True)  # noqa: PLC0105 - named for what it is


class Wire(Protocol):
    """One connection. `send` and `recv` raise `Disconnected` when it has ended, also by `abort`, which drops it now."""

    async def send(self, data: Data) -> None: ...

    async def recv(self) -> Data: ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...


class Dialogue(Protocol[Piece, T]):
    """What is said to one vendor, and how its words are read. Without waiting and without a clock of its own."""

    provider: str

    def connected(self) -> None:
        """A new connection: what the vendor has not confirmed is to be said again."""
        ...

    def add(self, piece: Piece) -> None: ...

    def end(self) -> None:
        """No more pieces come."""
        ...

    @property
    def full(self) -> bool:
        """More is waiting to be sent than should; no piece is taken until there is less."""
        ...

    def data_to_send(self) -> list[Data]: ...

    def receive(self, data: Data) -> list[T]:
        """Raises `ProviderError` for what the vendor complains about; a retryable one is dialled again."""
        ...

    def quiet(self) -> list[Data]:
        """What to say because nothing was said for `keepalive_s`."""
        ...

    @property
    def waiting(self) -> bool:
        """The vendor owes an answer."""
        ...

    @property
    def done(self) -> bool: ...

    def closed(self, end: Disconnected) -> ProviderError:
        """What it means that the connection ended before the dialogue was done."""
        ...


@dataclass(frozen=True, slots=True)
class DialOptions:
    """Times in seconds. `answer_s` is how long the vendor may owe an answer; `retry` counts attempts in a row in which
    nothing was heard, `most` all of one conversation."""

    connect_s: float = 5.0
    answer_s: float = 10.0
    keepalive_s: float = 4.0
    most: int = 10
    retry: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(max_retries=3, base_delay=0.1, max_delay=1.0, longest_wait=2.0)
    )


class Dialler(Generic[P, T]):
    """Holds the conversations of one provider; `dial` makes a connection and raises `ProviderError`."""

    def __init__(self, dial: Callable[[], Awaitable[Wire]], options: DialOptions | None = None) -> None:
        self._dial = dial
        self._options = options or DialOptions()

    async def converse(self, dialogue: Dialogue[P, T], pieces: AsyncIterator[P], hangups: Scope) -> AsyncGenerator[T]:
        """Says `pieces`, yields what is heard, ends when the dialogue is done. Polite goodbyes go on in `hangups`."""
        talk = _Talk(dialogue, self._options)
        failures = breaks = 0
        async with Scope("conversation") as scope:
            scope.spawn(talk.gather(pieces), name="gather", awaited=True)
            while True:
                wire: Wire | None = None
                try:
                    talk.listening_since = None
                    wire = await self._connected(dialogue.provider)
                    talk.begin(wire)
                    async with Scope("connection") as connection:
                        connection.spawn(talk.write(wire), name="write", awaited=True)
                        while not dialogue.done:
                            talk.listening_since = monotonic()
                            data = await wire.recv()
                            talk.listening_since = None  # what the caller takes its time for is not the vendor's
                            for result in dialogue.receive(data):
                                failures = 0
                                yield result
                            talk.wake.set()
                    hangups.spawn(wire.close(), name="goodbye")
                    wire = None
                    return
                except Disconnected as end:
                    error = talk.error or dialogue.closed(end)
                    if dialogue.done and talk.error is None:
                        return
                except ProviderError as told:
                    error = told
                finally:
                    if wire is not None:
                        wire.abort()
                breaks += 1
                await self._pause(error, failures if breaks <= self._options.most else breaks)
                failures += 1

    async def _connected(self, provider: str) -> Wire:
        try:
            return await bounded(self._dial(), self._options.connect_s, "connecting")
        except TimeoutError as error:
            raise ProviderTimeout(provider, "no connection in time") from error

    async def _pause(self, error: BaseException, failures: int) -> None:
        policy = self._options.retry
        if not isinstance(error, ProviderError) or not error.retryable or failures >= policy.max_retries:
            raise error
        if (error.retry_after or 0) > policy.longest_wait:
            raise error
        await asyncio.sleep(policy.delay(failures, retry_after=error.retry_after))


class _Talk:
    """The two tasks beside the reader. Whatever fails in them ends the connection, and the reader tells it."""

    def __init__(self, dialogue: Dialogue[Any, Any], options: DialOptions) -> None:
        self._dialogue = dialogue
        self._options = options
        self._wire: Wire | None = None
        self._room = Wakeup()
        self._gathered: BaseException | None = None
        self._late: ProviderError | None = None
        self.wake = Wakeup()
        self.listening_since: float | None = None

    @property
    def error(self) -> BaseException | None:
        return self._gathered or self._late

    def begin(self, wire: Wire) -> None:
        if self._gathered is not None:
            wire.abort()
            raise self._gathered
        self._wire, self._late = wire, None
        self._dialogue.connected()

    async def gather(self, pieces: AsyncIterator[Any]) -> None:
        try:
            async for piece in pieces:
                self._dialogue.add(piece)
                self.wake.set()
                while self._dialogue.full:
                    await self._room.wait()
            self._dialogue.end()
            self.wake.set()
        except Exception as error:  # noqa: BLE001 - the caller's own source failed: the caller's own error comes out
            self._gathered = error
            if self._wire is not None:
                self._wire.abort()

    async def write(self, wire: Wire) -> None:
        options, dialogue = self._options, self._dialogue
        tick = min(options.keepalive_s, options.answer_s / 4)
        said_at = monotonic()
        owed_since: float | None = None
        try:
            while True:
                for data in dialogue.data_to_send():
                    await bounded(wire.send(data), options.answer_s, "sending")
                    said_at = monotonic()
                self._room.set()
                owed_since = (owed_since or monotonic()) if dialogue.waiting else None
                try:
                    await bounded(self.wake.wait(), tick, "something to say")
                except TimeoutError:
                    now = monotonic()
                    since = self.listening_since
                    if (
                        owed_since is not None
                        and since is not None
                        and now - max(owed_since, since) >= options.answer_s
                    ):
                        raise
                    if now - said_at >= options.keepalive_s:
                        for data in dialogue.quiet():
                            await wire.send(data)
                        said_at = now
        except TimeoutError:
            self._late = ProviderTimeout(dialogue.provider, f"no answer within {options.answer_s:g} s")
            wire.abort()
        except Disconnected:
            pass  # the reader hears it too


async def hung_up(hangups: Scope) -> None:
    """Lets the last goodbyes be said, for a second. More can follow: a closed provider may be used again."""
    if not await hangups.drain(1.0):
        hangups.cancel()
        await hangups.drain(1.0)


async def dial(provider: str, url: str, headers: Mapping[str, str]) -> Wire:
    """A web socket to a vendor. Raises `ProviderError` as for HTTP where the vendor refuses it, `MissingExtra` without
    the library. The environment's proxies are not used."""
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
    except ImportError as error:
        raise MissingExtra(provider, "websockets", provider) from error
    redact_logs("websockets")
    try:
        connection = await connect(
            url,
            additional_headers=dict(headers),
            user_agent_header=default_user_agent(),
            compression=None,
            open_timeout=None,  # the caller limits it
            close_timeout=1.0,
            ping_timeout=None,  # a caller that takes its time would not see the answer; `answer_s` finds the dead
            max_size=1 << 24,
            proxy=None,
        )
    except InvalidStatus as error:
        answer = error.response
        raise error_from_status(provider, answer.status_code, answer.headers, answer.headers.get("dg-error")) from error
    except InvalidURI as error:
        raise ConfigError(f"{provider}: {redact(str(error))}; check base_url") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise Unavailable(provider, f"no connection: {redact(str(error)) or type(error).__name__}") from error
    return _WebSocket(connection)


class _WebSocket:
    """A `websockets` connection as a `Wire`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, data: Data) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed as error:
            raise _ended(error) from error

    async def recv(self) -> Data:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _ended(error) from error

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()


def _ended(error: Any) -> Disconnected:
    return Disconnected(error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else Disconnected()


class Backlog:
    """Bytes on their way to a vendor, kept until it has confirmed them. Positions count from the first byte ever added.

    At most `limit` bytes are kept: of more, the oldest which were sent are `forgotten` and cannot be said again.
    """

    __slots__ = ("_data", "forgotten", "limit", "sent", "start")

    def __init__(self, limit: int) -> None:
        self._data = bytearray()
        self.limit = limit
        self.start = 0
        self.sent = 0
        self.forgotten = 0

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    @property
    def unsent(self) -> int:
        return self.end - self.sent

    def add(self, data: bytes) -> None:
        self._data += data
        self._forget()

    def take(self, most: int) -> bytes:
        """The next `most` bytes that were not sent yet."""
        at = self.sent - self.start
        data = bytes(self._data[at : at + most])
        self.sent += len(data)
        self._forget()
        return data

    def _forget(self) -> None:
        surplus = min(len(self._data) - self.limit, self.sent - self.start)
        if surplus > 0:
            self.forgotten += surplus
            self.confirm(self.start + surplus)

    def confirm(self, position: int) -> None:
        """Nothing before `position` will be needed again."""
        position = min(max(position, self.start), self.sent)
        del self._data[: position - self.start]
        self.start = position

    def rewind(self) -> None:
        self.sent = self.start
