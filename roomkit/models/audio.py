"""Audio values: frames, sessions, transcripts and what a pipeline notices.

Slots dataclasses, not pydantic: a call makes fifty of them a second and none crosses a store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from roomkit.models.room import Assurance

FRAME_MS = 20
"""The length of a frame wherever nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A piece of one stream: signed 16-bit little-endian mono samples at `rate` Hz. `position` counts the samples of
    the stream before this frame, so that a gap shows as a jump."""

    pcm: bytes
    rate: int
    position: int = 0

    @property
    def samples(self) -> int:
        return len(self.pcm) // 2

    @property
    def duration_ms(self) -> float:
        return len(self.pcm) * 500 / self.rate

    @property
    def end(self) -> int:
        """The position just after this frame."""
        return self.position + len(self.pcm) // 2


class SessionState(StrEnum):
    """Where a call stands; `ENDED` is for good."""

    CONNECTING = "connecting"
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class VoiceSession:
    """One live audio conversation of one participant. `rate` is the transport's, in Hz, both ways. `metadata` is the
    transport's own: a call id, numbers, what the caller's page said."""

    id: str
    participant_id: str = ""
    room_id: str = ""
    channel_id: str = ""
    tenant: str = "default"
    state: SessionState = SessionState.CONNECTING
    rate: int = 16_000
    listen_only: bool = False
    """A monitor: it hears the room and has no uplink at all."""
    started_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {})
    assurance: Assurance | None = None
    """How well this caller is known; None is as well as the channel says."""
    refused: bool = False
    """Its room did not take it: a transport that can say so does, as it hangs up."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser heard. Only a `final` one is ever more than a guess. `start_ms` and `end_ms` are positions in
    the audio it was given; `confidence` is 0 to 1, None where the vendor does not say."""

    text: str
    final: bool = True
    language: str | None = None
    confidence: float | None = None
    start_ms: float | None = None
    end_ms: float | None = None
    endpoint: bool = False
    """The recogniser thinks that the speaker has finished, not only this segment."""


@dataclass(frozen=True, slots=True)
class SpokenText:
    """What a synthesiser yields: audio, and how much of its text is spoken when this audio has been played.

    `text_end` counts characters from the start of everything the synthesiser was given; None where it does not know."""

    frame: AudioFrame
    text_end: int | None = None


# -- what a pipeline notices ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak at sample `position`; `pre_roll` is the audio just before it was noticed."""

    position: int
    pre_roll: bytes = b""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Somebody fell silent at sample `position`, `silence_ms` ago."""

    position: int
    silence_ms: float = 0.0
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class SilenceLasted:
    """Nobody has spoken for `duration_ms`."""

    duration_ms: float


@dataclass(frozen=True, slots=True)
class Level:
    """Loudness of one frame in dBFS, -100 for digital silence."""

    rms_dbfs: float
    peak_dbfs: float
    position: int
    direction: Literal["inbound", "outbound"] = "inbound"


@dataclass(frozen=True, slots=True)
class DtmfDigit:
    """One press of a key, told once: 0-9, *, #, A-D."""

    digit: str
    position: int = 0
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class SpeakerChanged:
    """Another voice speaks from sample `position` on. `score` is 0 to 1."""

    speaker_id: str
    position: int
    score: float = 1.0


AudioSignal = SpeechStarted | SpeechEnded | SilenceLasted | Level | DtmfDigit | SpeakerChanged
