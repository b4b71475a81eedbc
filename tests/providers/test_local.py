"""The microphone and loudspeaker of this machine, with a sound card whose thread is a real one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from roomkit.errors import ConfigError, StateError
from roomkit.models.audio import VoiceSession
from roomkit.providers.local.audio import LocalBackend
from roomkit.testing.voice import FarEnd, check_voice_backend, loud


class Card:
    """What is used of sounddevice: each stream calls back from a thread of its own, every 20 ms."""

    class PortAudioError(Exception): ...

    def __init__(self, *, broken: bool = False) -> None:
        self.said: deque[bytes] = deque()
        self.heard = 0
        self.open = 0
        self._broken = broken

    def RawInputStream(self, **shape: Any) -> Any:  # noqa: N802 - sounddevice's name
        return Stream(self, shape, self._said)

    def RawOutputStream(self, **shape: Any) -> Any:  # noqa: N802 - sounddevice's name
        if self._broken:
            raise self.PortAudioError("no such device")
        return Stream(self, shape, self._plays)

    def _said(self, shape: dict[str, Any]) -> None:
        size = shape["blocksize"]
        shape["callback"](memoryview(self.said.popleft() if self.said else bytes(size * 2)), size, None, None)

    def _plays(self, shape: dict[str, Any]) -> None:
        out = bytearray(shape["blocksize"] * 2)
        shape["callback"](memoryview(out), shape["blocksize"], None, None)
        self.heard += loud(bytes(out))


class Stream:
    def __init__(self, card: Card, shape: dict[str, Any], work: Callable[[dict[str, Any]], None]) -> None:
        self._card, self._shape, self._work = card, shape, work
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        card.open += 1

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            self._work(self._shape)
            due += 0.02
            time.sleep(max(due - time.monotonic(), 0))

    def abort(self) -> None:
        self._over.set()

    def close(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._card.open -= 1


def real(test: Callable[[], Awaitable[None]]) -> None:
    """Threads have their own time: a real loop, in a thread beside the virtual one."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(test())  # type: ignore[arg-type]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Person:
    def __init__(self, backend: LocalBackend, card: Card, session: VoiceSession) -> None:
        self.session, self._backend, self._card = session, backend, card

    async def say(self, pcm: bytes) -> None:
        self._card.said.append(pcm)

    def heard(self) -> int:
        return self._card.heard

    async def hang_up(self) -> None:
        """Nobody hangs up at the far end of a sound card: it is unplugged."""
        self._backend.gone(self._backend._calls[self.session.id])


def test_conformance() -> None:
    async def run() -> None:
        cards: list[Card] = []

        async def connect(listen_only: bool) -> tuple[LocalBackend, FarEnd]:
            cards.append(Card())
            backend = LocalBackend(sounddevice=cards[-1])
            session = backend.call()
            session.listen_only = listen_only
            return backend, Person(backend, cards[-1], session)

        await check_voice_backend(connect, slack_ms=150, share=0.9)
        assert [card.open for card in cards[:4]] == [0] * 4, "a stream was left open"

    real(run)


async def test_devices_that_cannot_be_opened_and_a_second_call() -> None:
    card = Card(broken=True)
    with pytest.raises(ConfigError, match="no such device"):
        LocalBackend(sounddevice=card).call()
    assert card.open == 0
    backend = LocalBackend(sounddevice=Card())
    backend._calls["x"] = None  # type: ignore[assignment]
    with pytest.raises(StateError, match="already"):
        backend.call()
