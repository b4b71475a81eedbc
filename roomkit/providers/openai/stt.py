"""OpenAI's transcription as an `STT`, or any server that speaks its protocol: hears a whole segment, then tells."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from roomkit.errors import BadResponse, ConfigError
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.net import ClientOptions
from roomkit.providers.openai.sdk_client import NAME, speech_client
from roomkit.providers.sdk import ended_early, sdk_errors

if TYPE_CHECKING:
    import httpx2

MOST_S = 600
"""Ten minutes at 16 kHz are 19 MB; the vendor takes 25."""
_LEAST_S = 0.1


class OpenAISTT:
    """See `STT`. It does not hear while somebody speaks, so it needs a VAD or `batch_mode`; partial transcripts come
    while it writes. The key comes from `api_key` or OPENAI_API_KEY, which a foreign `base_url` never gets. Of more than
    `MOST_S` seconds the beginning is lost. `prompt` tells it names and spellings. `stream` defaults to what the
    vendor's own models can; switch it on for a compatible server that streams."""

    name = NAME
    streaming = False
    rate = 16_000

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        prompt: str | None = None,
        stream: bool | None = None,
        client_options: ClientOptions | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.model = model or ("gpt-4o-mini-transcribe" if base_url is None else "whisper-1")
        self._prompt = prompt
        self._stream = (base_url is None and not self.model.startswith("whisper")) if stream is None else stream
        self._client = speech_client(
            "OpenAISTT", api_key=api_key, base_url=base_url, options=client_options, transport=transport
        )

    def __repr__(self) -> str:
        return f"OpenAISTT({self.model!r})"

    async def start(self) -> None:
        """Loads the SDK now instead of at the first segment."""
        await self._client.get()

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncGenerator[Transcript]:
        audio = bytearray()
        async for frame in frames:
            if frame.rate != self.rate:
                raise ConfigError(f"OpenAISTT hears {self.rate} Hz, not {frame.rate}; resample first")
            audio += frame.pcm
            if len(audio) > MOST_S * self.rate * 2:
                del audio[: len(audio) - MOST_S * self.rate * 2]
        length_ms = len(audio) / 2 / self.rate * 1000
        if length_ms < _LEAST_S * 1000:
            return  # the vendor refuses less
        text = ""
        async for partial in self._heard(bytes(audio), language):
            final = partial.final
            text = partial.text
            if not final:
                yield Transcript(text, final=False, language=language)
        yield Transcript(text.strip(), language=language, start_ms=0.0, end_ms=length_ms, endpoint=True)

    async def aclose(self) -> None:
        client = self._client.dropped()
        if client is not None:
            await client.close()

    async def _heard(self, pcm: bytes, language: str | None) -> AsyncGenerator[Transcript]:
        client = await self._client.get()
        import openai

        asked: dict[str, Any] = {"model": self.model, "file": ("audio.wav", wav(pcm, self.rate), "audio/wav")}
        if language:
            asked["language"] = language.partition("-")[0].lower()
        if self._prompt:
            asked["prompt"] = self._prompt
        create = cast("Any", client.audio.transcriptions.create)
        if not self._stream:
            with sdk_errors(NAME, openai, streaming=False):
                answer = await create(**asked, response_format="json")
            if not isinstance(getattr(answer, "text", None), str):
                raise BadResponse(NAME, "a transcription without a text")
            yield Transcript(answer.text)
            return
        with sdk_errors(NAME, openai, streaming=False):
            events = await create(**asked, response_format="json", stream=True)
        text, done = "", False
        try:
            with sdk_errors(NAME, openai, streaming=True):
                async for event in events:
                    if event.type == "transcript.text.delta":
                        text += event.delta
                        yield Transcript(text, final=False)
                    elif event.type == "transcript.text.done":
                        done = True
                        yield Transcript(event.text)
        finally:
            await events.close()
        if not done:
            raise ended_early(NAME)


def wav(pcm: bytes, rate: int) -> bytes:
    """Mono 16-bit samples as a file."""
    size, fact = len(pcm), (16).to_bytes(4, "little") + b"\x01\x00\x01\x00"
    rates = rate.to_bytes(4, "little") + (rate * 2).to_bytes(4, "little") + b"\x02\x00\x10\x00"
    return b"RIFF" + (size + 36).to_bytes(4, "little") + b"WAVEfmt " + fact + rates + b"data" + _length(size) + pcm


def _length(size: int) -> bytes:
    return size.to_bytes(4, "little")


def provider(model: str | None = None, **options: Any) -> OpenAISTT:
    """What the names `"openai"` and `"openai:MODEL"` make."""
    return OpenAISTT(model, **options)
