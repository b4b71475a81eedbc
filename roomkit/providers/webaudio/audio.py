"""WebAudioBackend: a page's microphone and loudspeaker over a web socket (`voice.js` is the page's half).

Both ways 16 kHz, 20 ms a message. Up: a binary message is the position of its first sample (4 bytes, little-endian) and
its samples; text is JSON. Down: a binary message is samples; `clear` tells the page to forget what it has not played,
and with its number the page's `played` reports say which side of it they belong to. Sound over a web socket comes late
but never out of order: there is nothing to reorder or conceal.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from roomkit.errors import ProtocolError, SessionEnded
from roomkit.models.audio import FRAME_MS, AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits, SocketLine
from roomkit.providers.live_audio import LiveBackend, LiveCall
from roomkit.runtime import Scope

log = logging.getLogger(__name__)
RATE = 16_000
FRAME_BYTES = RATE * FRAME_MS // 1000 * 2
MAX_TEXT = 1_000
NOT_TAKEN = 4406
"""The close code of a call that its room does not take."""


class WebAudioBackend(LiveBackend[SocketLine]):
    """A `VoiceBackend` for browsers, mounted by `kit.asgi()`. The browser takes out echo and noise itself."""

    entry: Literal["token"] = "token"

    def __init__(self) -> None:
        super().__init__(
            BackendTraits(rate=RATE, native_aec=True, native_agc=True, native_noise_suppression=True, marks=True)
        )

    async def serve(self, line: SocketLine, session: VoiceSession, answer: Callable[[], Awaitable[None]]) -> None:
        """Carries one page's call until it ends. Raises `ProtocolError` when the page sends nonsense."""
        call = self.opened(session, line)
        async with Scope(f"page {session.id}") as scope:
            try:
                await _say(line, "ready", session=session.id, rate=RATE, listen_only=session.listen_only)
                scope.spawn(self.introduce(call, answer), name="answer")
                while (message := await line.receive()) is not None:
                    if isinstance(message, bytes):
                        self._heard(call, message)
                    elif not self._told(call, message):
                        break
            except SessionEnded:
                pass
            finally:
                self.gone(call)
                await scope.drain(5)

    def _heard(self, call: LiveCall[SocketLine], message: bytes) -> None:
        if len(message) != FRAME_BYTES + 4:
            raise ProtocolError(f"a message of sound has {FRAME_BYTES + 4} bytes, not {len(message)}")
        (position,) = struct.unpack_from("<I", message)
        self.take(call, message[4:], position)

    def _told(self, call: LiveCall[SocketLine], text: str) -> bool:
        """Whether the call goes on."""
        try:
            told = json.loads(text) if len(text) <= MAX_TEXT else None
        except (ValueError, RecursionError):
            told = None
        match told:
            case {"type": "played", "epoch": int(epoch), "position": int(position)} if position >= 0:
                call.sound.confirm(epoch, position)
            case {"type": "bye"}:
                return False
            case {"type": str()}:  # a newer page may say more than we know
                pass
            case _:
                raise ProtocolError("a text message is a JSON object with a type")
        return True

    async def put(self, call: LiveCall[SocketLine], frame: AudioFrame) -> None:
        await call.wire.send(frame.pcm)

    async def forget(self, call: LiveCall[SocketLine], epoch: int) -> None:
        await _say(call.wire, "clear", epoch=epoch)

    async def leave(self, call: LiveCall[SocketLine]) -> None:
        if call.session.refused:
            await call.wire.close(NOT_TAKEN, "the call was not taken")
        else:
            await call.wire.close(1000, "hung up")


async def _say(line: SocketLine, kind: str, **fields: Any) -> None:
    await line.send(json.dumps({"type": kind, **fields}))


def provider(_account: str | None = None) -> WebAudioBackend:
    return WebAudioBackend()
