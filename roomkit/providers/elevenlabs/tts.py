"""ElevenLabs as a `TTS`: text goes in while it is written, sound comes out with the time of each character."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote, urlencode

from roomkit.dsp.framing import Reblock
from roomkit.errors import BadResponse, ConfigError, ProviderError, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.audio import FRAME_MS, AudioFrame, SpokenText
from roomkit.net.redaction import redact
from roomkit.net.redial import Data, Dialler, DialOptions, Wire, dial, hung_up
from roomkit.net.room_client import Disconnected
from roomkit.providers.sdk import read_key
from roomkit.runtime import Scope

NAME = "elevenlabs"
ADDRESS = "wss://api.elevenlabs.io"
RATES = (8_000, 16_000, 22_050, 24_000, 44_100)
DEFAULT_VOICE = "21m00Tcm4TlvDq8ikWAM"
_LOOK_AHEAD = 40
_FULL = 5_000
_KINDS: dict[str, tuple[type[ProviderError], bool]] = {
    "invalid_api_key": (Unauthorized, False),
    "needs_authorization": (Unauthorized, False),
    "missing_permissions": (Unauthorized, False),
    "detected_unusual_activity": (Unauthorized, False),
    "quota_exceeded": (RateLimited, False),
    "too_many_concurrent_requests": (RateLimited, True),
    "rate_limit_exceeded": (RateLimited, True),
    "system_busy": (Unavailable, True),
    "internal_server_error": (Unavailable, True),
    "input_timeout_exceeded": (Unavailable, True),
    "voice_not_found": (Refused, False),
    "voice_id_does_not_exist": (Refused, False),
    "model_not_found": (Refused, False),
}

Connect = Callable[[str, dict[str, str]], Awaitable[Wire]]


@dataclass(frozen=True, slots=True)
class ElevenLabsOptions:
    """`rate` in Hz, one of `RATES`. `stability`, `similarity` (0 to 1) and `speed` (0.7 to 1.2) as the vendor means
    them; None leaves them to the voice."""

    rate: int = 24_000
    stability: float | None = None
    similarity: float | None = None
    speed: float | None = None
    dialling: DialOptions = field(default_factory=lambda: DialOptions(keepalive_s=10.0))

    def __post_init__(self) -> None:
        if self.rate not in RATES:
            raise ConfigError(f"ElevenLabsOptions: rate is one of {', '.join(map(str, RATES))}, not {self.rate}")

    @property
    def voice_settings(self) -> dict[str, float]:
        asked = {"stability": self.stability, "similarity_boost": self.similarity, "speed": self.speed}
        return {name: value for name, value in asked.items() if value is not None}


class ElevenLabsTTS:
    """See `TTS`. `voice` is the id of a voice. The key comes from `api_key` or ELEVENLABS_API_KEY. A broken connection
    is dialled again and goes on with the first character that was not spoken. `connect` replaces the network, in tests.
    """

    name = NAME
    streaming_input = True

    def __init__(
        self,
        model: str = "eleven_flash_v2_5",
        *,
        voice: str = DEFAULT_VOICE,
        api_key: str | None = None,
        options: ElevenLabsOptions | None = None,
        base_url: str = ADDRESS,
        connect: Connect | None = None,
    ) -> None:
        key = read_key("ElevenLabsTTS", api_key, "ELEVENLABS_API_KEY" if base_url == ADDRESS else None)
        self.model = model
        self.voice = voice
        self._options = options or ElevenLabsOptions()
        self._base_url = base_url.rstrip("/")
        self._headers = {"xi-api-key": key or ""}
        self._connect: Connect = connect or _dial
        self._goodbyes = Scope("elevenlabs")

    def __repr__(self) -> str:
        return f"ElevenLabsTTS({self.model!r}, voice={self.voice!r}, base_url={self._base_url!r})"

    @property
    def rate(self) -> int:
        return self._options.rate

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        asked = {
            "model_id": self.model,
            "output_format": f"pcm_{self.rate}",
            "inactivity_timeout": "60",
            "auto_mode": "true",
            "sync_alignment": "true",
        }
        if language:
            asked["language_code"] = language.partition("-")[0].lower()
        where = quote(voice or self.voice, safe="")
        url = f"{self._base_url}/v1/text-to-speech/{where}/stream-input?{urlencode(asked)}"

        async def connect() -> Wire:
            return await self._connect(url, self._headers)

        dialler: Dialler[str, SpokenText] = Dialler(connect, self._options.dialling)
        dialogue = _Speaking(self.rate, self._options.voice_settings)
        async with aclosing(dialler.converse(dialogue, text, self._goodbyes)) as spoken:
            async for piece in spoken:
                yield piece

    async def aclose(self) -> None:
        await hung_up(self._goodbyes)


class _Speaking:
    """The dialogue of one reply. `_spoken` is how much of the text has become sound, by the vendor's alignment."""

    provider = NAME

    def __init__(self, rate: int, settings: dict[str, float]) -> None:
        self._rate = rate
        self._settings = settings
        self._text = ""
        self._sent = self._spoken = 0
        self._opened = self._ended = self._closing = False
        self._blind = False
        self._position = 0
        self.done = False

    def connected(self) -> None:
        self._sent = self._spoken
        self._opened = self._closing = False

    def add(self, piece: str) -> None:
        self._text += piece

    def end(self) -> None:
        self._ended = True

    @property
    def full(self) -> bool:
        return len(self._text) - self._spoken > _FULL

    @property
    def waiting(self) -> bool:
        return self._closing

    def data_to_send(self) -> list[Data]:
        said: list[Data] = []
        if not self._opened:
            self._opened = True
            hello: dict[str, Any] = {"text": " "}
            if self._settings:
                hello["voice_settings"] = self._settings
            said.append(json.dumps(hello))
        if (words := self._words()).strip():
            # The vendor wants each piece to end with a space; one that it adds itself is in no alignment.
            said.append(json.dumps({"text": words if words[-1].isspace() else words + " "}))
        if self._ended and not self._closing:
            self._closing = True
            said.append(json.dumps({"text": ""}))
        return said

    def receive(self, data: Data) -> list[SpokenText]:
        message = _read(data)
        if message.get("error"):
            raise _complaint(message)
        if message.get("isFinal"):
            self.done = True
        if not message.get("audio"):
            return []
        try:
            pcm = base64.b64decode(message["audio"], validate=True)
            return self._sound(pcm, message.get("alignment"))
        except (binascii.Error, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadResponse(NAME, f"a message is not what the vendor documents ({type(error).__name__})") from error

    def quiet(self) -> list[Data]:
        return [] if self._closing else [json.dumps({"text": " "})]

    def closed(self, end: Disconnected) -> ProviderError:
        if self._closing and end.code == 1000 and not self._text[self._spoken :].strip():
            self.done = True
        if end.code == 1008:
            return BadResponse(NAME, f"the vendor does not understand the request: {redact(end.reason)}", code="1008")
        told = f"the connection was cut: {end.code} {redact(end.reason)}".rstrip()
        return Unavailable(NAME, told, retryable=not self._blind, code="cut")

    def _words(self) -> str:
        """The whole words that were not sent yet."""
        end = len(self._text)
        if not self._ended:
            while end > self._sent and not self._text[end - 1].isspace():
                end -= 1
        words = self._text[self._sent : end]
        self._sent = end
        return words

    def _sound(self, pcm: bytes, alignment: Any) -> list[SpokenText]:
        ends = self._ends(alignment)
        if alignment is None:
            self._blind = True  # nobody knows what was said: this cannot be taken up again
        blocks = Reblock(self._rate * FRAME_MS // 1000 * 2)
        pieces = blocks.push(pcm)
        if rest := blocks.flush(pad=False):
            pieces.append(rest[: len(rest) // 2 * 2])
        spoken: list[SpokenText] = []
        heard_ms, at = 0.0, 0
        for piece in pieces:
            frame = AudioFrame(piece, self._rate, self._position)
            self._position = frame.end
            heard_ms += frame.duration_ms
            before = at
            while at < len(ends) and ends[at][0] <= heard_ms:
                at += 1
            spoken.append(SpokenText(frame, ends[at - 1][1] if at > before else None))
        if spoken and ends and at < len(ends):  # the vendor's last times lie a little beyond its sound
            spoken[-1] = SpokenText(spoken[-1].frame, ends[-1][1])
        return spoken

    def _ends(self, alignment: Any) -> list[tuple[float, int]]:
        """(milliseconds into this piece of sound, characters of our text spoken by then)."""
        if alignment is None:
            return []
        ends: list[tuple[float, int]] = []
        times = zip(alignment["chars"], alignment["charStartTimesMs"], alignment["charDurationsMs"], strict=True)
        for char, start, duration in times:
            if not char.isspace():
                found = self._text.find(char, self._spoken, min(self._spoken + _LOOK_AHEAD, self._sent))
                if found < 0:
                    continue  # the vendor reads it otherwise than it is written
                self._spoken = found + len(char)
                ends.append((float(start) + float(duration), self._spoken))
        return ends


async def _dial(url: str, headers: dict[str, str]) -> Wire:
    return await dial(NAME, url, headers)


def _read(data: Data) -> dict[str, Any]:
    try:
        message: Any = json.loads(data)
    except ValueError as error:
        raise BadResponse(NAME, "a message is no JSON") from error
    if not isinstance(message, dict):
        raise BadResponse(NAME, "a message is no object")
    return cast("dict[str, Any]", message)


def _complaint(message: dict[str, Any]) -> ProviderError:
    code = str(message["error"])
    kind, retryable = _KINDS.get(code, (BadResponse, False))
    told = redact(str(message.get("message") or code))
    return kind(NAME, told, retryable=retryable, code=code)


def provider(model: str | None = None, **options: Any) -> ElevenLabsTTS:
    """What the names `"elevenlabs"`, `"elevenlabs:MODEL"` and `"elevenlabs:MODEL/VOICE"` make."""
    name, _, voice = (model or "").partition("/")
    if voice:
        options.setdefault("voice", voice)
    return ElevenLabsTTS(name or "eleven_flash_v2_5", **options)
