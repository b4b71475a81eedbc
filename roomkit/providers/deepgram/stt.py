"""Deepgram's streaming recogniser as an `STT`: /v1/listen over a web socket."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

from roomkit.errors import BadResponse, ConfigError, ProviderError, Unavailable
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.net.redaction import redact
from roomkit.net.redial import Backlog, Data, Dialler, DialOptions, Wire, dial, hung_up
from roomkit.net.room_client import Disconnected
from roomkit.providers.sdk import read_key
from roomkit.runtime import Scope

NAME = "deepgram"
ADDRESS = "wss://api.deepgram.com"
_AHEAD_S = 5
_KEPT_S = 60

Connect = Callable[[str, dict[str, str]], Awaitable[Wire]]
"""(url, headers) -> a connection."""


@dataclass(frozen=True, slots=True)
class DeepgramOptions:
    """What the vendor is asked for. `endpointing_ms` of silence end a segment, `utterance_end_ms` (1000 or more, None
    for off) an utterance by its words alone, also where noise hides the silence. `extra` goes into the query as it is.
    """

    rate: int = 16_000
    endpointing_ms: int = 300
    utterance_end_ms: int | None = None
    smart_format: bool = True
    keyterms: tuple[str, ...] = ()
    language: str = "en"
    extra: tuple[tuple[str, str], ...] = ()
    dialling: DialOptions = field(default_factory=DialOptions)

    def __post_init__(self) -> None:
        if not 8_000 <= self.rate <= 48_000 or self.endpointing_ms < 10:
            raise ConfigError("DeepgramOptions: rate is 8000 to 48000 Hz and endpointing_ms 10 or more")
        if self.utterance_end_ms is not None and self.utterance_end_ms < 1000:
            raise ConfigError("DeepgramOptions: utterance_end_ms is 1000 or more, or None")


class DeepgramSTT:
    """See `STT`. The key comes from `api_key` or DEEPGRAM_API_KEY. A broken connection is dialled again, and the audio
    which no final transcript covers is told again. `connect` replaces the network, in tests."""

    name = NAME
    streaming = True

    def __init__(
        self,
        model: str = "nova-3",
        *,
        api_key: str | None = None,
        options: DeepgramOptions | None = None,
        base_url: str = ADDRESS,
        connect: Connect | None = None,
    ) -> None:
        key = read_key("DeepgramSTT", api_key, "DEEPGRAM_API_KEY" if base_url == ADDRESS else None)
        self.model = model
        self._options = options or DeepgramOptions()
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Token {key}"}
        self._connect: Connect = connect or _dial
        self._goodbyes = Scope("deepgram")

    def __repr__(self) -> str:
        return f"DeepgramSTT({self.model!r}, base_url={self._base_url!r})"

    @property
    def rate(self) -> int:
        return self._options.rate

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncGenerator[Transcript]:
        url = f"{self._base_url}/v1/listen?{self._query(language)}"

        async def connect() -> Wire:
            return await self._connect(url, self._headers)

        dialler: Dialler[AudioFrame, Transcript] = Dialler(connect, self._options.dialling)
        dialogue = Listening(self.rate)
        async with aclosing(dialler.converse(dialogue, frames, self._goodbyes)) as heard:
            async for transcript in heard:
                yield transcript

    async def aclose(self) -> None:
        await hung_up(self._goodbyes)

    def _query(self, language: str | None) -> str:
        options = self._options
        asked = [
            ("model", self.model),
            ("language", language or options.language),
            ("encoding", "linear16"),
            ("sample_rate", str(options.rate)),
            ("channels", "1"),
            ("interim_results", "true"),
            ("endpointing", str(options.endpointing_ms)),
            ("smart_format", "true" if options.smart_format else "false"),
        ]
        if options.utterance_end_ms is not None:
            asked.append(("utterance_end_ms", str(options.utterance_end_ms)))
        asked += [("keyterm", term) for term in options.keyterms]
        return urlencode([*asked, *options.extra])


class Listening:
    """The dialogue of one stream. Confirmed is what a result with `is_final` covers.

    The vendor counts seconds from the start of a connection, so that times of a later connection are shifted by what
    the earlier ones had confirmed. Audio that stops coming without an end (a muted caller) is finalised after a while:
    endpointing hears silence, but not nothing.
    """

    provider = NAME

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._audio = Backlog(_KEPT_S * rate * 2)
        self._offset_s = 0.0
        self._ended = self._closing = False
        self._finalised = 0
        self._spoke_since_end = False
        self.done = False

    def connected(self) -> None:
        self._audio.rewind()
        self._offset_s = self._audio.start / 2 / self._rate
        self._closing = False
        self._finalised = self._audio.start

    def add(self, piece: AudioFrame) -> None:
        if piece.rate != self._rate:
            raise ConfigError(f"DeepgramSTT hears {self._rate} Hz, not {piece.rate}; resample first")
        self._audio.add(piece.pcm)

    def end(self) -> None:
        self._ended = True

    @property
    def full(self) -> bool:
        return self._audio.unsent >= _AHEAD_S * self._rate * 2

    def data_to_send(self) -> list[Data]:
        said: list[Data] = []
        while self._audio.unsent:
            said.append(self._audio.take(self._rate // 5))  # 100 ms
        if self._ended and not self._closing:
            self._closing = True
            said.append(_say("CloseStream"))
        return said

    def receive(self, data: Data) -> list[Transcript]:
        message = _read(data)
        match message.get("type"):
            case "Results":
                return self._result(message)
            case "UtteranceEnd" if self._spoke_since_end:
                self._spoke_since_end = False
                return [Transcript("", endpoint=True)]
            case "Metadata" if self._closing:
                self.done = True
            case "Error" | "error":
                raise _complaint(message)
            case _:
                pass  # the vendor adds kinds without notice
        return []

    def quiet(self) -> list[Data]:
        if self._closing:
            return []
        if self._audio.sent > max(self._audio.start, self._finalised):
            self._finalised = self._audio.sent
            return [_say("Finalize"), _say("KeepAlive")]
        return [_say("KeepAlive")]

    @property
    def waiting(self) -> bool:
        return self._closing

    def closed(self, end: Disconnected) -> ProviderError:
        if self._closing and end.code == 1000:
            self.done = True  # everything was told; only the summary is missing
        reason = redact(end.reason)
        if end.code == 1008 or "DATA-" in reason:
            return BadResponse(NAME, f"the vendor does not understand the audio: {reason}", code="1008")
        return Unavailable(NAME, f"the connection was cut: {end.code} {reason}".rstrip(), code=str(end.code))

    def _result(self, message: dict[str, Any]) -> list[Transcript]:
        try:
            start, length = float(message["start"]), float(message["duration"])
            best = message["channel"]["alternatives"][0]
            text, confidence = str(best["transcript"]), best.get("confidence")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BadResponse(NAME, f"a result is not what the vendor documents ({type(error).__name__})") from error
        final, endpoint = bool(message.get("is_final")), bool(message.get("speech_final"))
        end_s = self._offset_s + start + length
        if round(end_s * self._rate) * 2 <= self._audio.start:
            return []  # told before
        if final:
            self._audio.confirm(round(end_s * self._rate) * 2)
        if text:
            self._spoke_since_end = not (final and endpoint)
        elif not (final and endpoint and self._spoke_since_end):
            return []
        else:
            self._spoke_since_end = False
        languages = best.get("languages") or [None]
        return [
            Transcript(
                text,
                final=final,
                language=languages[0],
                confidence=float(confidence) if confidence is not None else None,
                start_ms=(self._offset_s + start) * 1000,
                end_ms=end_s * 1000,
                endpoint=endpoint,
            )
        ]


async def _dial(url: str, headers: dict[str, str]) -> Wire:
    return await dial(NAME, url, headers)


def _say(kind: str) -> str:
    return json.dumps({"type": kind})


def _read(data: Data) -> dict[str, Any]:
    try:
        message: Any = json.loads(data)
    except ValueError as error:
        raise BadResponse(NAME, "a message is no JSON") from error
    if not isinstance(message, dict):
        raise BadResponse(NAME, "a message is no object")
    return cast("dict[str, Any]", message)


def _complaint(message: dict[str, Any]) -> ProviderError:
    told = redact(str(message.get("description") or message.get("err_msg") or message.get("message") or "no reason"))
    code = str(message.get("code") or message.get("err_code") or "") or None
    if code is not None and code.startswith("NET-"):
        return Unavailable(NAME, told, code=code)
    return BadResponse(NAME, told, code=code)


def provider(model: str | None = None, **options: Any) -> DeepgramSTT:
    """What the names `"deepgram"` and `"deepgram:MODEL"` make."""
    return DeepgramSTT(model or "nova-3", **options)
