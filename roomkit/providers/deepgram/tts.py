"""Deepgram's voices as a `TTS`: /v1/speak over a web socket."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode

from roomkit.dsp.framing import Reblock
from roomkit.errors import BadResponse, ConfigError, ProviderError, Refused, Unavailable
from roomkit.models.audio import FRAME_MS, AudioFrame, SpokenText
from roomkit.net.redaction import redact
from roomkit.net.redial import Data, Dialler, DialOptions, Wire, dial, hung_up
from roomkit.net.room_client import Disconnected
from roomkit.providers.deepgram.stt import ADDRESS, NAME, Connect
from roomkit.providers.sdk import read_key
from roomkit.runtime import Scope

RATES = (8_000, 16_000, 24_000, 32_000, 48_000)
_LONGEST = 2_000


class DeepgramTTS:
    """See `TTS`. The model is the voice ("aura-2-thalia-en"). The key comes from `api_key` or DEEPGRAM_API_KEY.

    Every piece of text is flushed: given whole sentences, each is spoken as soon as it is there. A connection cut
    between two pieces is dialled again; cut within one, `Unavailable` says so: nobody knows what was spoken of it."""

    name = NAME
    streaming_input = False

    def __init__(
        self,
        model: str = "aura-2-thalia-en",
        *,
        api_key: str | None = None,
        rate: int = 24_000,
        base_url: str = ADDRESS,
        connect: Connect | None = None,
        dialling: DialOptions | None = None,
    ) -> None:
        if rate not in RATES:
            raise ConfigError(f"DeepgramTTS: rate={rate} is not offered; use one of {', '.join(map(str, RATES))}")
        key = read_key("DeepgramTTS", api_key, "DEEPGRAM_API_KEY" if base_url == ADDRESS else None)
        self.model = model
        self.rate = rate
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Token {key}"}
        self._connect: Connect = connect or _dial
        self._dialling = dialling or DialOptions()
        self._goodbyes = Scope("deepgram voices")

    def __repr__(self) -> str:
        return f"DeepgramTTS({self.model!r}, base_url={self._base_url!r})"

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        asked = {"model": voice or self.model, "encoding": "linear16", "sample_rate": self.rate}
        url = f"{self._base_url}/v1/speak?{urlencode(asked)}"

        async def connect() -> Wire:
            return await self._connect(url, self._headers)

        dialler: Dialler[str, SpokenText] = Dialler(connect, self._dialling)
        async with aclosing(dialler.converse(_Speaking(self.rate), text, self._goodbyes)) as spoken:
            async for piece in spoken:
                yield piece

    async def aclose(self) -> None:
        await hung_up(self._goodbyes)


class _Speaking:
    """The dialogue of one reply: Speak and Flush for each piece; Flushed confirms it."""

    provider = NAME

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._pieces: deque[tuple[str, int]] = deque()
        self._asked = 0
        self._given = 0
        self._ended = self._closing = False
        self._begun = False
        self._blocks = Reblock(rate * FRAME_MS // 1000 * 2)
        self._position = 0
        self._last: AudioFrame | None = None

    def connected(self) -> None:
        self._asked = 0
        self._closing = False

    def add(self, piece: str) -> None:
        self._given += len(piece)
        for at in range(0, len(piece), _LONGEST):
            part = piece[at : at + _LONGEST]
            if part.strip():
                self._pieces.append((part, self._given - len(piece) + at + len(part)))

    def end(self) -> None:
        self._ended = True

    @property
    def full(self) -> bool:
        return len(self._pieces) - self._asked > 8

    @property
    def waiting(self) -> bool:
        return self._asked > 0

    @property
    def done(self) -> bool:
        return self._ended and not self._pieces

    def data_to_send(self) -> list[Data]:
        said: list[Data] = []
        # One at a time: what Flushed confirms is then never in doubt.
        if not self._asked and self._pieces:
            self._asked = 1
            said += [json.dumps({"type": "Speak", "text": self._pieces[0][0]}), json.dumps({"type": "Flush"})]
        if self.done and not self._closing:
            self._closing = True
            said.append(json.dumps({"type": "Close"}))
        return said

    def receive(self, data: Data) -> list[SpokenText]:
        if isinstance(data, bytes):
            return self._sound(self._blocks.push(data))
        try:
            message: Any = json.loads(data)
            kind = message["type"]
        except (ValueError, TypeError, KeyError) as error:
            raise BadResponse(NAME, "a message is not what the vendor documents") from error
        if kind == "Flushed" and self._asked:
            return self._flushed()
        if kind in {"Error", "Warning"}:
            told = redact(str(message.get("description") or message.get("err_msg") or "no reason"))
            if kind == "Error":
                raise Refused(NAME, told, code=str(message.get("code") or "") or None)
        return []

    def quiet(self) -> list[Data]:
        return []

    def closed(self, end: Disconnected) -> ProviderError:
        if end.code == 1008:
            return BadResponse(NAME, f"the vendor does not understand the request: {redact(end.reason)}", code="1008")
        where = "in the middle of a sentence" if self._begun else "between two sentences"
        return Unavailable(NAME, f"the connection was cut {where} ({end.code})", retryable=not self._begun, code="cut")

    def _sound(self, blocks: list[bytes]) -> list[SpokenText]:
        spoken: list[SpokenText] = []
        for pcm in blocks:
            self._begun = True
            if self._last is not None:
                spoken.append(SpokenText(self._last))
            self._last = AudioFrame(pcm, self._rate, self._position)
            self._position = self._last.end
        return spoken

    def _flushed(self) -> list[SpokenText]:
        rest = self._blocks.flush()
        spoken = self._sound([rest]) if rest else []
        _, text_end = self._pieces.popleft()
        self._asked = 0
        self._begun = False
        if self._last is not None:
            spoken.append(SpokenText(self._last, text_end))
            self._last = None
        return spoken


async def _dial(url: str, headers: dict[str, str]) -> Wire:
    return await dial(NAME, url, headers)


def provider(model: str | None = None, **options: Any) -> DeepgramTTS:
    """What the names `"deepgram"` and `"deepgram:VOICE"` make."""
    return DeepgramTTS(model or "aura-2-thalia-en", **options)
