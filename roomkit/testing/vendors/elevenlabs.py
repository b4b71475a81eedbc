"""A fake ElevenLabs: stream-input over a web socket, strict about keys, order, spaces and silence.

fake = FakeElevenLabs()
tts = ElevenLabsTTS(api_key=fake.key, connect=fake.connect)
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from roomkit.testing.vendors.lines import JSON, FakeSpeech, Line, spoken

CHAR_MS = 40
_QUERY = frozenset(
    {"model_id", "language_code", "enable_logging", "enable_ssml_parsing", "output_format", "inactivity_timeout"}
    | {"sync_alignment", "auto_mode", "apply_text_normalization", "seed"}
)
_HELLO = frozenset({"text", "voice_settings", "generation_config", "pronunciation_dictionary_locators", "xi-api-key"})
_SEND = frozenset({"text", "try_trigger_generation", "voice_settings", "generator_config", "flush"})
_SETTINGS = frozenset({"stability", "similarity_boost", "style", "use_speaker_boost", "speed"})


class FakeElevenLabs(FakeSpeech):
    """See `FakeSpeech`. Every character sounds for `CHAR_MS`. `texts` is what it was given, a list for each connection,
    `greetings` the first messages. Without `aligned` it tells no times; `refuse` is an error told inside the socket."""

    def __init__(self, *, key: str = "fake-elevenlabs-key", voices: frozenset[str] | None = None) -> None:
        super().__init__(key=key)
        self.voices = voices
        self.texts: list[list[str]] = []
        self.greetings: list[JSON] = []
        self.alive = 0
        self.aligned = True
        self.refuse: str | None = None

    def problems(self, path: str, query: JSON, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if headers.get("xi-api-key") != self.key:
            return 401, f"Invalid API key {headers.get('xi-api-key')}"
        if not re.fullmatch(r"/v1/text-to-speech/[^/]+/stream-input", path):
            return 404, "no such endpoint"
        if unknown := sorted(set(query) - _QUERY):
            return 400, f"unknown query parameters {unknown}"
        if not re.fullmatch(r"pcm_\d+", query.get("output_format", [""])[0]):
            return 400, "the fake speaks pcm only"
        return None

    async def serve(self, line: Line, path: str, query: JSON) -> None:
        rate = int(query["output_format"][0].removeprefix("pcm_"))
        patience = float(query.get("inactivity_timeout", ["20"])[0])
        if self.voices is not None and path.split("/")[3] not in self.voices:
            await self._fail(line, "voice_id_does_not_exist", "A voice with this id does not exist.")
        if self.refuse is not None:
            await self._fail(line, self.refuse, "refused by script")
        told: list[str] = []
        self.texts.append(told)
        waiting, first = "", True
        while True:
            try:
                message = json.loads(await line.recv(patience))
            except TimeoutError:
                await self._fail(line, "input_timeout_exceeded", "Have not received a new text input in time.")
                return
            await self._check(line, message, first=first)
            text = message["text"]
            if first:
                first = False
                self.greetings.append(message)
                continue
            if text == " ":
                self.alive += 1
                continue
            told.append(text)
            waiting += text
            if text == "" or message.get("flush") or re.search(r"[.!?]\s*$", waiting):
                await self._generate(line, waiting, rate)
                waiting = ""
            if text == "":
                await line.answer({"audio": None, "isFinal": True})
                await line.close(1000)

    async def _check(self, line: Line, message: Any, *, first: bool) -> None:
        extra = self.unknown(message, _HELLO if first else _SEND)
        extra = self.unknown(message.get("voice_settings") or {}, _SETTINGS) or extra
        text = message.get("text")
        wrong_order = first and text != " "
        if not isinstance(text, str) or extra or wrong_order or (text and not text.endswith((" ", "\n"))):
            self.wrong(f"message {message!r}")
            await self._fail(line, "invalid_input_message", "Could not parse input message.")

    async def _generate(self, line: Line, text: str, rate: int) -> None:
        """In chunks of some words, each with its alignment, times from the start of the chunk."""
        for chunk in re.findall(r"(?:\S+\s*){1,3}", text):
            times = [at * CHAR_MS for at in range(len(chunk))]
            alignment = {"chars": list(chunk), "charStartTimesMs": times, "charDurationsMs": [CHAR_MS] * len(chunk)}
            sound = base64.b64encode(spoken(chunk, rate, CHAR_MS)).decode()
            known = alignment if self.aligned else None
            await line.answer({"audio": sound, "alignment": known, "normalizedAlignment": known, "isFinal": None})

    async def _fail(self, line: Line, error: str, message: str) -> None:
        await line.answer({"message": message, "error": error, "code": 1008})
        await line.close(1008, message)
