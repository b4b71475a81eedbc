"""What keeps a call from dead air beyond words: the key that calls a person, and a sound for when a voice fails or
nobody takes the call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np

from roomkit.dsp.pcm import silence, to_pcm
from roomkit.errors import SessionEnded, UsageError
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import VoiceBackend
from roomkit.runtime import monotonic
from roomkit.voice.sound import frames, frames_of

log = logging.getLogger(__name__)
ALONE_S = 1.5
"""A key that stands for something by itself is pressed alone: in a number it is a digit."""
_NOTES = (523.25, 415.3, 329.63)
TURN_AWAY_S = 2.5
"""A far end that does not tell what it has played is hung up then."""


class HumanKey:
    """Tells `called` when `key` was pressed and no other key within 1.5 s before or after. None is no key."""

    def __init__(self, key: str | None, called: Callable[[], None]) -> None:
        self._key = key
        self._called = called
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def pressed(self, digit: str) -> None:
        now = monotonic()
        alone = now - self._last >= ALONE_S
        self._last = now
        self.cancel()
        if digit == self._key and alone:
            self._timer = asyncio.get_running_loop().call_later(ALONE_S, self._called)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def clip_or_tones(path: str | Path | None, rate: int) -> AsyncIterator[AudioFrame]:
    """The WAV file; three falling notes without one, or when it cannot be read."""
    if path is not None:
        try:
            async for frame in frames_of(path, rate):
                yield frame
            return
        except (OSError, UsageError) as error:
            log.warning("the clip %s cannot be played: %s", path, error)
    async for frame in frames(falling_notes(rate), rate):
        yield frame


def falling_notes(rate: int) -> bytes:
    """What telephones say when something did not work, in every language."""
    at = np.arange(rate // 5) / rate
    fading = np.exp(-6 * at) * np.minimum(at * 200, 1)
    return silence(rate // 20).join(to_pcm(9_000 * fading * np.sin(2 * np.pi * hertz * at)) for hertz in _NOTES)


async def turn_away(backend: VoiceBackend, session: VoiceSession, why: BaseException) -> None:
    """Ends a call that nobody takes, for any transport: three falling notes instead of silence, then it is hung up. It
    takes `TURN_AWAY_S` seconds at most; when `why` is a cancellation there is no time for notes."""
    if session.refused:
        return
    session.refused = True
    try:
        if not isinstance(why, asyncio.CancelledError):
            async with asyncio.timeout(TURN_AWAY_S):
                await _notes(backend, session)
    except (SessionEnded, TimeoutError):
        pass
    finally:
        await backend.hang_up(session)


async def _notes(backend: VoiceBackend, session: VoiceSession) -> None:
    until = backend.played(session)
    async for frame in frames(falling_notes(session.rate), session.rate):
        await backend.send_audio(session, frame)
        until += frame.samples
    while backend.played(session) < until:  # noqa: ASYNC110 - a transport tells this when asked, not by itself
        await asyncio.sleep(FRAME_MS / 1000)
