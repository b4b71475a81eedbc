"""ElevenLabs over HTTP as a `TTS`: a streamed answer for each sentence, for models and networks without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from roomkit.dsp.framing import Reblock
from roomkit.errors import BadResponse, MissingExtra, ProviderError, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.audio import FRAME_MS, AudioFrame, SpokenText
from roomkit.net.redaction import redact
from roomkit.providers.elevenlabs.tts import DEFAULT_VOICE, NAME, ElevenLabsOptions
from roomkit.providers.sdk import read_key

if TYPE_CHECKING:
    import httpx2

ADDRESS = "https://api.elevenlabs.io"
_LONGEST = 2_000
_BEFORE = 300
"""How much of what was said before is told along: the melody goes on."""
_TRIES = 3
_FIRST_S, _READ_S = 5.0, 15.0


class ElevenLabsHttpTTS:
    """See `TTS`. As `ElevenLabsTTS`, sentence by sentence; where in a sentence somebody interrupted is estimated. A
    request that fails before its first sound is made again, twice. `transport` replaces the network, in tests."""

    name = NAME
    streaming_input = False

    def __init__(
        self,
        model: str = "eleven_flash_v2_5",
        *,
        voice: str = DEFAULT_VOICE,
        api_key: str | None = None,
        options: ElevenLabsOptions | None = None,
        base_url: str = ADDRESS,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        key = read_key("ElevenLabsHttpTTS", api_key, "ELEVENLABS_API_KEY" if base_url == ADDRESS else None)
        self.model = model
        self.voice = voice
        self._options = options or ElevenLabsOptions()
        self._base_url = base_url.rstrip("/")
        self._headers = {"xi-api-key": key or ""}
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"ElevenLabsHttpTTS({self.model!r}, voice={self.voice!r}, base_url={self._base_url!r})"

    @property
    def rate(self) -> int:
        return self._options.rate

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        given, position = "", 0
        async for piece in text:
            for at in range(0, len(piece), _LONGEST):
                part = piece[at : at + _LONGEST]
                before, given = given, given + part
                if not part.strip():
                    continue
                last: AudioFrame | None = None
                async with aclosing(self._sound(part, before[-_BEFORE:], voice or self.voice, language)) as sound:
                    async for pcm in sound:
                        if last is not None:
                            yield SpokenText(last)
                        last = AudioFrame(pcm, self.rate, position)
                        position = last.end
                if last is None:
                    raise BadResponse(NAME, "it gave no sound")
                yield SpokenText(last, len(given))

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _sound(self, text: str, before: str, voice: str, language: str | None) -> AsyncGenerator[bytes]:
        asked: dict[str, Any] = {"text": text, "model_id": self.model, "previous_text": before or None}
        asked["language_code"] = language.partition("-")[0].lower() if language else None
        asked["voice_settings"] = self._options.voice_settings or None
        body = {name: value for name, value in asked.items() if value is not None}
        for attempt in range(1, _TRIES + 1):
            begun = False
            try:
                async with aclosing(self._once(quote(voice, safe=""), body)) as sound:
                    async for pcm in sound:
                        begun = True
                        yield pcm
                return
            except ProviderError as error:
                if begun or not error.retryable or attempt == _TRIES:
                    raise
            await asyncio.sleep(0.2 * 2**attempt)

    async def _once(self, voice: str, body: dict[str, Any]) -> AsyncGenerator[bytes]:
        """Frames of one request; closing it closes the connection."""
        import httpx2

        url = f"{self._base_url}/v1/text-to-speech/{voice}/stream"
        blocks = Reblock(self.rate * FRAME_MS // 1000 * 2)
        try:
            asking = self._ready().stream("POST", url, params={"output_format": f"pcm_{self.rate}"}, json=body)
            async with asking as answer:
                if answer.status_code != 200:
                    raise _complaint(answer.status_code, await answer.aread())
                async for data in answer.aiter_bytes():
                    for pcm in blocks.push(data):
                        yield pcm
        except httpx2.HTTPError as error:
            raise Unavailable(NAME, f"the connection failed ({type(error).__name__})", retryable=True) from error
        if rest := blocks.flush():
            yield rest

    def _ready(self) -> httpx2.AsyncClient:
        if self._client is None:
            try:
                import httpx2
            except ImportError as error:
                raise MissingExtra("ElevenLabsHttpTTS", "httpx2", "elevenlabs") from error
            limits = httpx2.Timeout(_FIRST_S, read=_READ_S)
            self._client = httpx2.AsyncClient(headers=self._headers, timeout=limits, transport=self._transport)
        return self._client


def _complaint(status: int, body: bytes) -> ProviderError:
    told = redact(body[:300].decode("utf-8", "replace")) or "no reason"
    if status in (401, 403):
        return Unauthorized(NAME, told, status=status)
    if status == 429:
        return RateLimited(NAME, told, status=status, retryable=True)
    if status >= 500 or status == 408:
        return Unavailable(NAME, told, status=status, retryable=True)
    return Refused(NAME, told, status=status)
