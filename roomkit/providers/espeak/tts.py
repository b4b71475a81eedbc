"""eSpeak NG as a `TTS`: first sound after some 10 ms, many languages, and the voice of a machine."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from roomkit.errors import ConfigError
from roomkit.models.audio import SpokenText
from roomkit.providers.program import in_frames, output_of, program

NAME = "espeak"
_VOICE = re.compile(r"[A-Za-z0-9][\w+-]*")
_USUAL = {"en": "en-us", "fr": "fr-fr", "es-mx": "es-419", "pt": "pt-br"}
_REGIONAL = frozenset({"en-us", "en-gb", "en-029", "fr-fr", "fr-be", "fr-ch", "es-419", "pt-br", "vi-vn"})


class EspeakTTS:
    """See `TTS`. `voice` as `espeak-ng --voices` lists them ("de", "en-gb", "en-us+f3"); a `language` alone is enough.
    `speed` in words a minute, `pitch` 0 to 99. Raises `ConfigError` where the program is missing."""

    name = NAME
    streaming_input = False
    rate = 22_050

    def __init__(self, voice: str | None = None, *, speed: int = 165, pitch: int = 50) -> None:
        if not 80 <= speed <= 450 or not 0 <= pitch <= 99:
            raise ConfigError("EspeakTTS: speed is 80 to 450 words a minute and pitch 0 to 99; correct the arguments")
        self._program = program("espeak-ng", "espeak-ng")
        self._voice = None if voice is None else _checked(voice)
        self._options = ("-s", str(speed), "-p", str(pitch), "--stdin", "--stdout")

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        chosen = _checked(voice) if voice else self._voice or voice_for(language or "en")
        position = said = 0
        async for piece in text:
            said += len(piece)
            if not piece.strip():
                continue
            command = (self._program, "-v", chosen, *self._options)
            async with (
                aclosing(output_of(NAME, command, piece)) as sound,
                aclosing(in_frames(NAME, sound, self.rate, position, said)) as frames,
            ):
                async for spoken in frames:
                    position = spoken.frame.end
                    yield spoken

    async def aclose(self) -> None:
        """Nothing is kept: a process ends with its sentence."""


def voice_for(language: str) -> str:
    """The usual voice of a BCP 47 language: "de-AT" is spoken by "de", "en" by "en-us"."""
    name = _checked(language.lower().replace("_", "-"))
    name = _USUAL.get(name, name)
    if name in _REGIONAL:
        return name
    plain = name.partition("-")[0]
    return _USUAL.get(plain, plain)


def _checked(voice: str) -> str:
    if not _VOICE.fullmatch(voice):
        raise ConfigError(f"{voice!r} is no voice of espeak-ng; `espeak-ng --voices` lists them")
    return voice


def provider(model: str | None = None, **options: Any) -> EspeakTTS:
    """What the names `"espeak"` and `"espeak:VOICE"` make."""
    return EspeakTTS(model, **options)
