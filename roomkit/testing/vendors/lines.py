"""What the fake speech vendors have in common: connections in memory (virtual time) or real ones, faults, coded sound.

The sound of these vendors says what it is: each word heard, or character spoken, is a stretch of samples of one value.
So a test sees exactly which part was heard or said, once, twice or not at all, also across a broken connection.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from roomkit.errors import ProviderError
from roomkit.models.audio import AudioFrame
from roomkit.net.client import error_from_status
from roomkit.net.redial import Data
from roomkit.net.room_client import Disconnected
from roomkit.runtime import BlockingBuffer, BufferClosed, Scope

JSON = dict[str, Any]
STEP_MS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one connection. `status` refuses it; `slow_s` is waited before each answer; it is cut after
    `cut_after` messages of the client, or when `cut_after_answers` were sent; `silent` never answers; `twice` repeats
    every answer; `garbage` answers with no JSON; `close` is (code, reason) instead of the first answer."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    slow_s: float = 0.0
    cut_after: int | None = None
    cut_after_answers: int | None = None
    silent: bool = False
    twice: bool = False
    garbage: bool = False
    close: tuple[int, str] | None = None


class Line:
    """The vendor's end of a connection."""

    def __init__(self, fault: Fault, wire: Any) -> None:
        self._fault = fault
        self._wire = wire
        self._received = 0
        self._answered = 0
        self.closed_by_client = False

    async def recv(self, timeout: float | None = None) -> Data:
        """Raises `Disconnected` when the client went away, `TimeoutError` after `timeout` seconds without a word."""
        if self._fault.cut_after is not None and self._received >= self._fault.cut_after:
            self.cut()
        try:
            async with asyncio.timeout(timeout):
                data = await self._wire.recv()
        except Disconnected:
            self.closed_by_client = True
            raise
        self._received += 1
        return data

    async def answer(self, message: JSON | bytes) -> None:
        fault = self._fault
        if fault.slow_s:
            await asyncio.sleep(fault.slow_s)
        if fault.silent:
            return
        if fault.close is not None:
            await self.close(*fault.close)
        if fault.cut_after_answers is not None and self._answered >= fault.cut_after_answers:
            self.cut()
        data: Data = message if isinstance(message, bytes) else json.dumps(message)
        for _ in range(1 + fault.twice):
            await self._wire.send('{"type": "Res' if fault.garbage else data)
            self._answered += 1

    async def close(self, code: int = 1000, reason: str = "") -> None:
        while self._fault.silent:
            await self.recv()
        await self._wire.close(code, reason)
        raise Disconnected(code, reason)

    def cut(self) -> None:
        """Breaks without a word; what was on its way is lost."""
        self._wire.abort()
        raise Disconnected


class FakeSpeech:
    """A vendor reached by web socket. Subclasses speak its protocol in `serve` and refuse what it does not document.

    `faults` are used up one per connection. `violations` is what was wrong with the client, `urls` what it asked for,
    `open` how many connections there are now and `left` how many the client dropped before the end."""

    def __init__(self, *, key: str = "fake-speech-key") -> None:
        self.key = key
        self.faults: deque[Fault] = deque()
        self.violations: list[str] = []
        self.urls: list[str] = []
        self.open = 0
        self.left = 0
        self._scope = Scope("fake vendor")

    async def connect(self, url: str, headers: Mapping[str, str]) -> Any:
        """For a provider's `connect=`: a connection in memory."""
        fault = self.faults.popleft() if self.faults else Fault()
        refusal = self._refusal(fault, url, headers)
        if refusal is not None:
            status, told, message = refusal
            raise self._error(status, told, message)
        client, server = _End(), _End()
        client.other, server.other = server, client
        self._scope.spawn(self._serve(Line(fault, server), url, server), name="fake vendor connection")
        return client

    async def aclose(self) -> None:
        await self._scope.aclose()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str]:
        """The same on a real socket; gives its base url."""
        from websockets.asyncio.server import serve

        faults: dict[Any, Fault] = {}

        def check(connection: Any, request: Any) -> Any:
            fault = faults[connection] = self.faults.popleft() if self.faults else Fault()
            refusal = self._refusal(fault, request.path, request.headers)
            if refusal is None:
                return None
            response = connection.respond(refusal[0], refusal[2])
            for name, value in refusal[1].items():
                response.headers[name] = value
            return response

        async def handle(connection: Any) -> None:
            await self._serve(Line(faults.pop(connection), _Real(connection)), connection.request.path, None)

        async with serve(handle, "127.0.0.1", 0, process_request=check, compression=None) as server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def serve(self, line: Line, path: str, query: JSON) -> None:
        raise NotImplementedError

    def problems(self, path: str, query: JSON, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Why the handshake is refused: (status, reason)."""
        raise NotImplementedError

    def wrong(self, what: str) -> None:
        self.violations.append(what)

    def unknown(self, message: Mapping[str, Any], allowed: Iterable[str]) -> bool:
        """Notes keys that the vendor does not know."""
        extra = sorted(set(message) - set(allowed))
        if extra:
            self.wrong(f"unknown keys {extra}")
        return bool(extra)

    def _error(self, status: int, headers: Mapping[str, str], message: str) -> ProviderError:
        return error_from_status("fake", status, headers, message)

    def _refusal(self, fault: Fault, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str] | None:
        self.urls.append(url)
        if fault.status is not None:
            return fault.status, fault.headers, "refused by script"
        parts = urlsplit(url)
        lowered = {name.lower(): value for name, value in headers.items()}
        found = self.problems(parts.path, _query(parts.query), lowered)
        if found is None:
            return None
        if found[0] == 400:
            self.wrong(found[1])
        return found[0], {"dg-error": found[1]}, found[1]

    async def _serve(self, line: Line, url: str, end: _End | None) -> None:
        parts = urlsplit(url)
        self.open += 1
        try:
            await self.serve(line, parts.path, _query(parts.query))
        except Disconnected:
            self.left += line.closed_by_client
        finally:
            self.open -= 1
            if end is not None:
                await end.close(1000, "")


def _query(text: str) -> JSON:
    query: JSON = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


class _End:
    """One end of a connection in memory."""

    other: _End

    def __init__(self) -> None:
        self._coming: BlockingBuffer[Data] = BlockingBuffer(1000)
        self._code = (1006, "")

    async def send(self, data: Data) -> None:
        try:
            await self.other._coming.put(data)
        except BufferClosed:
            raise Disconnected(*self._code) from None

    async def recv(self) -> Data:
        try:
            return await self._coming.get()
        except BufferClosed:
            raise Disconnected(*self._code) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if not self._coming.closed:
            self._code = self.other._code = (code, reason)
            self._coming.close()
            self.other._coming.close()

    def abort(self) -> None:
        if not self._coming.closed:
            for end in (self, self.other):
                end._coming.clear()
                end._coming.close()


class _Real:
    """The server's end of a real web socket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, data: Data) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed:
            raise Disconnected from None

    async def recv(self) -> Data:
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._connection.recv()
        except ConnectionClosed:
            raise Disconnected from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def abort(self) -> None:
        self._connection.transport.abort()


class Lexicon:
    """Words as sound: each occurrence has a sample value of its own."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def speech(self, text: str, rate: int, *, word_ms: int = 200, silence_ms: int = 500) -> list[AudioFrame]:
        """`text`, then silence, as frames of 20 ms."""
        pieces: list[bytes] = []
        size = rate * STEP_MS // 1000
        for word in text.split():
            self.words.append(word)
            pieces += [np.full(size, len(self.words), dtype="<i2").tobytes()] * (word_ms // STEP_MS)
        pieces += [bytes(2 * size)] * (silence_ms // STEP_MS)
        return [AudioFrame(pcm, rate, at * size) for at, pcm in enumerate(pieces)]

    def word(self, value: int) -> str:
        return self.words[value - 1]


def spoken(text: str, rate: int, char_ms: int) -> bytes:
    """Characters as sound, each `char_ms` long."""
    size = rate * char_ms // 1000
    return b"".join(np.full(size, min(ord(char), 32_000), dtype="<i2").tobytes() for char in text)


def text_of(frames: Sequence[AudioFrame], char_ms: int) -> str:
    """What `spoken` sound says; silence at its end is left out."""
    if not frames:
        return ""
    values = np.frombuffer(b"".join(frame.pcm for frame in frames), dtype="<i2")
    size = frames[0].rate * char_ms // 1000
    return "".join(chr(value) for value in values[::size] if value)
