"""A fake Deepgram: /v1/listen and /v1/speak over web sockets, strict about keys, messages and silence.

fake = FakeDeepgram()
frames = fake.lexicon.speech("where is my order", 16_000)
stt = DeepgramSTT(api_key=fake.key, connect=fake.connect)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from roomkit.net.redial import Data
from roomkit.testing.vendors.lines import JSON, STEP_MS, FakeSpeech, Lexicon, Line, spoken

_SILENT_S = 10.0
_LISTEN_KEYS = frozenset(
    {"model", "language", "encoding", "sample_rate", "channels", "interim_results", "endpointing", "smart_format"}
    | {"utterance_end_ms", "keyterm", "punctuate", "numerals", "profanity_filter", "redact", "vad_events", "tag"}
    | {"diarize_model", "mip_opt_out", "multichannel", "replace", "search", "version", "callback", "extra", "dictation"}
)
_SPEAK_KEYS = frozenset({"model", "encoding", "sample_rate", "mip_opt_out", "speed", "container", "bit_rate"})
_CONTROL = frozenset({"KeepAlive", "Finalize", "CloseStream"})
CHAR_MS = 40


class FakeDeepgram(FakeSpeech):
    """See `FakeSpeech`. Words are heard from the sound of `lexicon`; `heard` is every final text, `finalised` how often
    the client asked to finalise, `alive` how often it kept alive, `spoken` the texts it wanted spoken."""

    def __init__(self, *, key: str = "fake-deepgram-key", models: frozenset[str] = frozenset({"nova-3"})) -> None:
        super().__init__(key=key)
        self.lexicon = Lexicon()
        self.models = models
        self.heard: list[str] = []
        self.spoken: list[str] = []
        self.finalised = 0
        self.alive = 0

    def problems(self, path: str, query: JSON, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if headers.get("authorization") != f"Token {self.key}":
            return 401, f"Invalid credentials: {headers.get('authorization', '')}"
        if path not in {"/v1/listen", "/v1/speak"}:
            return 404, "no such endpoint"
        unknown = sorted(set(query) - (_LISTEN_KEYS if path == "/v1/listen" else _SPEAK_KEYS))
        if unknown:
            return 400, f"unknown query parameters {unknown}"
        if path == "/v1/listen" and query["model"][0] not in self.models:
            return 400, "No such model/language/tier combination found."
        if query.get("encoding") != ["linear16"] or not query.get("sample_rate", [""])[0].isdigit():
            return 400, "encoding and sample_rate go together"
        return None

    async def serve(self, line: Line, path: str, query: JSON) -> None:
        if path == "/v1/speak":
            await self._speak(line, int(query["sample_rate"][0]))
            return
        hearing = _Hearing(self, line, query)
        while True:
            try:
                data = await line.recv(_SILENT_S)
            except TimeoutError:
                await line.close(1011, "NET-0001: Deepgram did not receive audio data or a text message in time.")
                return
            if isinstance(data, bytes):
                if not data or len(data) % 2:
                    self.wrong("audio that is empty or cuts a sample")
                    await line.close(1008, "DATA-0000: The payload cannot be decoded as audio.")
                await hearing.audio(data)
            elif await hearing.control(_message(data)):
                return

    async def _speak(self, line: Line, rate: int) -> None:
        await line.answer({"type": "Metadata", "request_id": "r", "model_name": "aura", "model_version": "1"})
        waiting, number = "", 0
        while True:
            message = _message(await line.recv(60.0))
            if self.unknown(message, {"type", "text"}):
                await line.close(1008, "unknown keys")
            kind = message.get("type")
            if kind == "Speak" and isinstance(message.get("text"), str) and len(message["text"]) <= 2000:
                waiting += message["text"]
            elif kind == "Flush":
                self.spoken.append(waiting)
                sound = spoken(waiting, rate, CHAR_MS)
                for at in range(0, len(sound), 8000):
                    await line.answer(sound[at : at + 8000])
                await line.answer({"type": "Flushed", "sequence_id": number})
                waiting, number = "", number + 1
            elif kind == "Close":
                await line.close(1000)
            else:
                self.wrong(f"message {kind!r}")
                await line.close(1008, "DATA-0001")


class _Hearing:
    """One stream: words from the values of samples, results as they are documented."""

    def __init__(self, vendor: FakeDeepgram, line: Line, query: JSON) -> None:
        self._vendor = vendor
        self._line = line
        self._rate = int(query["sample_rate"][0])
        self._interim = query.get("interim_results") == ["true"]
        self._endpointing = int(query.get("endpointing", ["10"])[0])
        self._rest = b""
        self._at = 0  # samples
        self._start = 0
        self._words: list[tuple[int, int, int]] = []
        self._silent_ms = 0

    async def audio(self, data: bytes) -> None:
        size = self._rate * STEP_MS // 1000 * 2
        data = self._rest + data
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        for at in range(0, whole, size):
            await self._step(int(np.frombuffer(data[at : at + 2], dtype="<i2")[0]), size // 2)

    async def control(self, message: JSON) -> bool:
        """True when the connection is over."""
        kind = message.get("type")
        if self._vendor.unknown(message, {"type"}) or kind not in _CONTROL:
            self._vendor.wrong(f"message {kind!r}")
            await self._line.close(1008, "DATA-0001")
        if kind == "KeepAlive":
            self._vendor.alive += 1
        elif kind == "Finalize":
            self._vendor.finalised += 1
            await self._tell(final=True, endpoint=False, from_finalize=True)
        else:
            if self._words:
                await self._tell(final=True, endpoint=True)
            seconds = self._at / self._rate
            summary = {"transaction_key": "deprecated", "request_id": "r", "sha256": "", "created": ""}
            await self._line.answer({"type": "Metadata", **summary, "duration": seconds, "channels": 1})
            await self._line.close(1000)
            return True
        return False

    async def _step(self, value: int, samples: int) -> None:
        before, self._at = self._at, self._at + samples
        if value:
            self._silent_ms = 0
            if not self._words or self._words[-1][0] != value:
                self._words.append((value, before, self._at))
                if self._interim and len(self._words) % 2 == 0:
                    await self._tell(final=False, endpoint=False)
            return
        self._silent_ms += STEP_MS
        if self._words and self._silent_ms >= self._endpointing:
            await self._tell(final=True, endpoint=True)

    async def _tell(self, *, final: bool, endpoint: bool, from_finalize: bool = False) -> None:
        words = [
            {"word": self._vendor.lexicon.word(v), "start": s / self._rate, "end": e / self._rate, "confidence": 0.99}
            for v, s, e in self._words
        ]
        text = " ".join(str(word["word"]) for word in words)
        best = {"transcript": text, "confidence": 0.98 if words else 0.0, "words": words}
        start, end = self._start / self._rate, self._at / self._rate
        if final:
            if text:
                self._vendor.heard.append(text)
            self._start, self._words, self._silent_ms = self._at, [], 0
        model = {"name": "nova", "version": "1", "arch": "nova-3"}
        await self._line.answer(
            {
                "type": "Results",
                "channel_index": [0, 1],
                "duration": end - start,
                "start": start,
                "is_final": final,
                "speech_final": endpoint,
                "from_finalize": from_finalize,
                "channel": {"alternatives": [best]},
                "metadata": {"request_id": "r", "model_info": model, "model_uuid": "u"},
            }
        )


def _message(data: Data) -> JSON:
    message: Any = json.loads(data)
    return cast("JSON", message) if isinstance(message, dict) else {"type": None}
