"""Flite as a `TTS`: English, clearer than eSpeak NG; a whole sentence is made before its first sound (20 to 90 ms)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from roomkit.errors import BadResponse, ConfigError
from roomkit.models.audio import SpokenText
from roomkit.providers.program import in_frames, output_of, program

NAME = "flite"
VOICES = frozenset({"slt", "rms", "awb", "kal16"})
"""Those that speak at 16 kHz."""


class FliteTTS:
    """See `TTS`. `voice` is one of `VOICES`. Raises `ConfigError` where the program is missing."""

    name = NAME
    streaming_input = False
    rate = 16_000

    def __init__(self, voice: str = "slt") -> None:
        self._voice = _checked(voice)
        self._program = program("flite", "flite")

    async def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[SpokenText]:
        if language and not language.lower().startswith("en"):
            raise BadResponse(NAME, f'it speaks English only, not "{language}"; use "espeak"')
        chosen = _checked(voice or self._voice)
        position = said = 0
        async for piece in text:
            said += len(piece)
            if not piece.strip():
                continue
            async with (
                aclosing(self._sound(piece, chosen)) as sound,
                aclosing(in_frames(NAME, sound, self.rate, position, said)) as frames,
            ):
                async for spoken in frames:
                    position = spoken.frame.end
                    yield spoken

    async def aclose(self) -> None:
        """Nothing is kept: a process ends with its sentence."""

    async def _sound(self, piece: str, voice: str) -> AsyncGenerator[bytes]:
        """By a file: the program goes back to write the length, which a pipe does not allow."""
        with tempfile.NamedTemporaryFile(prefix="roomkit-", suffix=".wav") as made:
            command = (self._program, "-voice", voice, "-f", "/dev/stdin", "-o", made.name)
            async with aclosing(output_of(NAME, command, piece)) as output:
                async for _ in output:
                    pass  # it writes to its file
            sound = await asyncio.to_thread(Path(made.name).read_bytes)
        yield sound


def _checked(voice: str) -> str:
    if voice not in VOICES:
        raise ConfigError(f"{voice!r} is no voice of flite; use one of {', '.join(sorted(VOICES))}")
    return voice


def provider(model: str | None = None, **options: Any) -> FliteTTS:
    """What the names `"flite"` and `"flite:VOICE"` make."""
    return FliteTTS(model or "slt", **options)
