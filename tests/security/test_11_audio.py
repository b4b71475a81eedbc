"""Line 11: sound that lies about itself. What a page or a telephone company says ends the call or is left out; nobody
waits for sound that never comes. (Floods: `tests/providers/test_webaudio.py`.)"""

from __future__ import annotations

import json

import pytest

from roomkit.dsp.jitter import JitterBuffer
from roomkit.errors import ProtocolError
from roomkit.models.audio import VoiceSession
from roomkit.protocols.twilio_media import TwilioMedia
from roomkit.protocols.twilio_media.codec import Media
from roomkit.providers.webaudio.audio import MAX_TEXT, WebAudioBackend
from roomkit.testing.voice import MemoryLine


async def nothing() -> None: ...


async def test_a_text_of_a_page_that_is_too_long_ends_the_call() -> None:
    backend, line = WebAudioBackend(), MemoryLine()
    line.put(json.dumps({"type": "hello", "more": "x" * MAX_TEXT}))
    with pytest.raises(ProtocolError):
        await backend.serve(line, VoiceSession("page"), nothing)
    assert len(backend) == 0


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "NaN", "1e9", "\u0663"])
def test_a_number_that_is_none_is_not_read(number: str) -> None:
    codec = TwilioMedia()
    codec.receive(json.dumps({"event": "start", "start": {"streamSid": "MZ1"}}))
    media = {"payload": "", "chunk": number, "timestamp": number}
    told = codec.receive(json.dumps({"event": "media", "media": media}))
    assert isinstance(told, Media)
    assert codec.lost == 0


@pytest.mark.parametrize("position", [1 << 32, 1 << 62])
def test_who_jumps_ahead_is_not_waited_for(position: int) -> None:
    """A time stamp years ahead: it is a new beginning, and no hole of so many years."""
    buffer = JitterBuffer(8_000)
    loud = b"\x00\x20" * buffer.size
    for at in (*range(5), *(position // buffer.size + n for n in range(5))):
        buffer.put(at * buffer.size, loud)
    assert [buffer.pull() for _ in range(10)][-5:] == [loud] * 5
    assert buffer.lost == 0
