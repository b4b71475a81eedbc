"""OpenAI's voices as a `TTS`, or any server that speaks their protocol: a request per sentence, its sound streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from roomkit.dsp.framing import Reblock
from roomkit.errors import BadResponse, ConfigError
from roomkit.models.audio import FRAME_MS, AudioFrame, SpokenText
from roomkit.net import ClientOptions
from roomkit.providers.openai.sdk_client import NAME, speech_client
from roomkit.providers.sdk import sdk_errors

if TYPE_CHECKING:
    import httpx2

_LONGEST = 4_096


class OpenAITTS:
    """See `TTS`. `instructions` say how to speak, where the model can be told. The key comes from `api_key` or
    OPENAI_API_KEY, which a foreign `base_url` never gets; `rate` is what a foreign server's pcm has."""

    name = NAME
    streaming_input = False

    def __init__(
        self,
        model: str | None = None,
        *,
        voice: str = "alloy",
        instructions: str | None = None,
        speed: float | None = None,
        rate: int = 24_000,
        api_key: str | None = None,
        base_url: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        if speed is not None and not 0.25 <= speed <= 4:
            raise ConfigError(f"OpenAITTS: speed={speed} is not offered; use 0.25 to 4")
        self.model = model or "gpt-4o-mini-tts"
        self.voice = voice
        self.rate = rate
        self._asked = {"instructions": instructions, "speed": speed}
        self._client = speech_client(
            "OpenAITTS", api_key=api_key, base_url=base_url, options=ClientOptions(read_s=15.0), transport=transport
        )

    def __repr__(self) -> str:
        return f"OpenAITTS({self.model!r}, voice={self.voice!r})"

    async def start(self) -> None:
        """Loads the SDK now instead of at the first word."""
        await self._client.get()

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        position = said = 0
        async for piece in text:
            for at in range(0, len(piece), _LONGEST):
                part = piece[at : at + _LONGEST]
                said += len(part)
                if not part.strip():
                    continue
                async with aclosing(self._sound(part, voice or self.voice)) as sound:
                    last: AudioFrame | None = None
                    async for pcm in sound:
                        if last is not None:
                            yield SpokenText(last)
                        last = AudioFrame(pcm, self.rate, position)
                        position = last.end
                if last is None:
                    raise BadResponse(NAME, "it gave no sound")
                yield SpokenText(last, said)

    async def aclose(self) -> None:
        client = self._client.dropped()
        if client is not None:
            await client.close()

    async def _sound(self, text: str, voice: str) -> AsyncGenerator[bytes]:
        """Frames of one request; closing it closes the connection."""
        client = await self._client.get()
        import openai

        asked = {name: value for name, value in self._asked.items() if value is not None}
        create = cast("Any", client.audio.speech.with_streaming_response.create)
        blocks = Reblock(self.rate * FRAME_MS // 1000 * 2)
        with sdk_errors(NAME, openai, streaming=False):
            opened = create(model=self.model, voice=voice, input=text, response_format="pcm", **asked)
            answer = await opened.__aenter__()
        try:
            with sdk_errors(NAME, openai, streaming=True):
                async for data in answer.iter_bytes():
                    for pcm in blocks.push(data):
                        yield pcm
        finally:
            await opened.__aexit__(None, None, None)
        if rest := blocks.flush():
            yield rest


def provider(model: str | None = None, **options: Any) -> OpenAITTS:
    """What the names `"openai"` and `"openai:MODEL"` make."""
    return OpenAITTS(model, **options)
