"""STT and TTS: speech to text and back, and TurnDetector, which says whether somebody has finished."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from roomkit.models.audio import AudioFrame, SpokenText, Transcript


class STT(Protocol):
    """A recogniser. One object serves many calls at once; each `transcribe` is a stream of its own."""

    @property
    def streaming(self) -> bool:
        """Whether it hears while the speaker speaks. One that does not answers after the last frame."""
        ...

    @property
    def rate(self) -> int:
        """The sample rate it wants, in Hz."""
        ...

    def transcribe(
        self, frames: AsyncIterator[AudioFrame], *, language: str | None = None, call: str | None = None
    ) -> AsyncIterator[Transcript]:
        """Partial transcripts while it listens, final ones as segments end; ends after `frames` has ended and all that
        was heard is told. `call` names the call which the audio belongs to: a recogniser may remember how its line
        sounds. Closing the iterator cancels it. Raises `ProviderError`."""
        ...

    async def aclose(self) -> None: ...


class TTS(Protocol):
    """A synthesiser. One object serves many calls at once."""

    @property
    def streaming_input(self) -> bool:
        """Whether it speaks while the text is still being written; one that does not is given sentences."""
        ...

    @property
    def rate(self) -> int:
        """The sample rate it yields, in Hz."""
        ...

    def speak(
        self, text: AsyncIterator[str], *, voice: str | None = None, language: str | None = None
    ) -> AsyncIterator[SpokenText]:
        """Audio for the text as it comes. Closing the iterator stops it at once. Raises `ProviderError`."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TurnVerdict:
    """Whether the speaker has finished. When not, look again after `wait_ms` of further silence."""

    complete: bool
    confidence: float = 1.0
    wait_ms: float = 0.0


class SpokenTurnDetector(Protocol):
    """A `TurnDetector` that goes by how it was said, too: a model of pauses and intonation. A detector that has
    `evaluate_spoken` is asked by it alone."""

    @property
    def hears_s(self) -> float:
        """How many seconds of the caller's last sound it wants, at most 30."""
        ...

    async def evaluate_spoken(
        self, pcm: bytes, rate: int, transcript: str, silence_ms: float, history: Sequence[str] = ()
    ) -> TurnVerdict:
        """`pcm` ends with the silence. Must answer within 200 ms, and leave the loop to others meanwhile (a thread)."""
        ...


class TurnDetector(Protocol):
    """Decides at a pause whether the turn is over. Must answer within 200 ms: it runs between two words."""

    async def evaluate(self, transcript: str, silence_ms: float, history: Sequence[str] = ()) -> TurnVerdict: ...
