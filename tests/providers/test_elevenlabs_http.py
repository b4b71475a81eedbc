"""ElevenLabs over HTTP, against a strict stand-in of its documented requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import pytest

from roomkit.errors import BadResponse, ConfigError, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.audio import SpokenText
from roomkit.providers.elevenlabs.http import ElevenLabsHttpTTS
from roomkit.providers.elevenlabs.tts import ElevenLabsOptions
from roomkit.testing.speech import check_tts
from roomkit.testing.vendors.lines import spoken, text_of

RATE, CHAR_MS = 16_000, 40
KEY = "fake-elevenlabs-key"
KNOWN = {"text", "model_id", "previous_text", "language_code", "voice_settings"}


class Vendor:
    """Answers `POST /v1/text-to-speech/{voice}/stream` with sound in small pieces. `faults` are statuses to give first;
    `cut` breaks the answer after so many pieces."""

    def __init__(self, *faults: int, cut: int | None = None) -> None:
        self.faults = list(faults)
        self.cut = cut
        self.asked: list[dict[str, Any]] = []
        self.voices: list[str] = []
        self.closed = 0

    def tts(self, **options: Any) -> ElevenLabsHttpTTS:
        options.setdefault("options", ElevenLabsOptions(rate=RATE))
        return ElevenLabsHttpTTS(api_key=KEY, transport=httpx2.MockTransport(self.answer), **options)

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        _, version, kind, voice, how = request.url.path.split("/")
        body = json.loads(request.content)
        assert (request.method, version, kind, how) == ("POST", "v1", "text-to-speech", "stream")
        assert dict(request.url.params) == {"output_format": f"pcm_{RATE}"}
        assert set(body) <= KNOWN
        if request.headers["xi-api-key"] != KEY:
            return httpx2.Response(401, json={"detail": {"status": "invalid_api_key"}})
        self.asked.append(body)
        self.voices.append(voice)
        if self.faults:
            return httpx2.Response(self.faults.pop(0), json={"detail": {"status": "by script"}})
        return httpx2.Response(200, stream=Sound(self, body["text"]))


class Sound(httpx2.AsyncByteStream):
    def __init__(self, vendor: Vendor, text: str) -> None:
        self.vendor, self.text = vendor, text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pcm = spoken(self.text, RATE, CHAR_MS)
        for number, at in enumerate(range(0, len(pcm), 1_001)):
            if number == self.vendor.cut:
                raise httpx2.ReadError("cut")
            yield pcm[at : at + 1_001]

    async def aclose(self) -> None:
        self.vendor.closed += 1


async def words(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def say(tts: ElevenLabsHttpTTS, *pieces: str, **more: str) -> list[SpokenText]:
    try:
        return [one async for one in tts.speak(words(*pieces), **more)]
    finally:
        await tts.aclose()


async def test_each_sentence_is_asked_for_with_what_was_said_before() -> None:
    vendor = Vendor()
    options = ElevenLabsOptions(rate=RATE, stability=0.4)
    said = await say(
        vendor.tts(options=options), "It is on its way. ", "It comes tomorrow.", voice="Anna", language="de-AT"
    )
    assert text_of([one.frame for one in said], CHAR_MS).strip() == "It is on its way. It comes tomorrow."
    assert [one.text_end for one in said if one.text_end is not None] == [18, 36]
    assert vendor.voices == ["Anna", "Anna"]
    common = {"model_id": "eleven_flash_v2_5", "language_code": "de", "voice_settings": {"stability": 0.4}}
    assert vendor.asked == [
        {"text": "It is on its way. ", **common},
        {"text": "It comes tomorrow.", "previous_text": "It is on its way. ", **common},
    ]


async def test_conformance() -> None:
    await check_tts(Vendor().tts)


@pytest.mark.parametrize(
    "status, kind, tries", [(422, Refused, 1), (403, Unauthorized, 1), (429, RateLimited, 3), (503, Unavailable, 3)]
)
async def test_what_may_get_better_is_tried_three_times(status: int, kind: type[Exception], tries: int) -> None:
    vendor = Vendor(*[status] * 9)
    with pytest.raises(kind):
        await say(vendor.tts(), "Hello.")
    assert len(vendor.asked) == tries
    vendor = Vendor(503, 429)
    assert await say(vendor.tts(), "Hello.")


async def test_a_cut_within_a_sentence_is_told_and_before_its_first_sound_it_is_asked_again() -> None:
    vendor = Vendor(cut=3)
    with pytest.raises(Unavailable):
        await say(vendor.tts(), "A sentence that is long enough to be cut.")
    assert len(vendor.asked) == 1
    vendor = Vendor(cut=0)
    with pytest.raises(Unavailable):
        await say(vendor.tts(), "Hello.")
    assert len(vendor.asked) == 3


async def test_closing_the_iterator_closes_the_request() -> None:
    vendor = Vendor()
    tts = vendor.tts()
    async with aclosing(tts.speak(words("A long sentence. " * 20))) as stream:
        await anext(stream)
    assert vendor.closed == 1
    await tts.aclose()


async def test_a_wrong_key_is_said_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    tts = ElevenLabsHttpTTS(
        api_key="a-wrong-key", options=ElevenLabsOptions(rate=RATE), transport=httpx2.MockTransport(Vendor().answer)
    )
    with pytest.raises(Unauthorized) as told:
        await say(tts, "Hello.")
    assert "a-wrong-key" not in f"{told.value} {tts!r}"
    monkeypatch.delenv("ELEVENLABS_API_KEY", raising=False)
    with pytest.raises(ConfigError):
        ElevenLabsHttpTTS()


async def test_an_answer_without_sound_is_none() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b""))
    with pytest.raises(BadResponse):
        await say(ElevenLabsHttpTTS(api_key=KEY, transport=transport), "Hello.")
