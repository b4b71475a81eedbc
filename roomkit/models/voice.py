"""The moments of a call: guards look at the first two before they happen, observers hear of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from roomkit.models.audio import Transcript, VoiceSession
from roomkit.models.hooks import Moment, Notice


class FinalTranscript(Moment[Transcript]):
    """What a caller was heard to say, before it becomes a message. A guard may change or withhold it; when one fails,
    it is withheld (D19). The seed's ON_TRANSCRIPTION."""

    __slots__ = ("session",)
    on_error = "block"

    def __init__(self, room: Any, value: Transcript, session: VoiceSession, **more: Any) -> None:
        super().__init__(room, value, **more)
        self.session = session


class BeforeTTS(Moment[str]):
    """A sentence is about to be spoken. A guard may change it or keep it unsaid; when one fails, it is unsaid (D19)."""

    __slots__ = ("session",)
    on_error = "block"

    def __init__(self, room: Any, value: str, session: VoiceSession, **more: Any) -> None:
        super().__init__(room, value, **more)
        self.session = session


@dataclass(frozen=True, slots=True)
class CallNotice(Notice):
    """Base of what is told about one call. `at_ms` counts from the start of the call."""

    session: VoiceSession
    at_ms: float


@dataclass(frozen=True, slots=True)
class SessionStarted(CallNotice):
    """The call is bound to its room and its audio flows."""


@dataclass(frozen=True, slots=True)
class SessionFinished(CallNotice):
    reason: str


@dataclass(frozen=True, slots=True)
class SpeechStart(CallNotice):
    """The caller began to speak."""


@dataclass(frozen=True, slots=True)
class SpeechEnd(CallNotice):
    duration_ms: float


@dataclass(frozen=True, slots=True)
class PartialTranscript(CallNotice):
    text: str


@dataclass(frozen=True, slots=True)
class TurnTaken(CallNotice):
    """The caller's turn is complete, or (`complete` False) waits for more."""

    text: str
    complete: bool


@dataclass(frozen=True, slots=True)
class BackchannelHeard(CallNotice):
    text: str


@dataclass(frozen=True, slots=True)
class AfterTTS(CallNotice):
    """A reply has been spoken to its end."""

    text: str


@dataclass(frozen=True, slots=True)
class BargeIn(CallNotice):
    """The caller interrupted a reply of which `heard` was heard, `share` of all its text (0 to 1)."""

    heard: str
    share: float


@dataclass(frozen=True, slots=True)
class TTSCancelled(CallNotice):
    """A reply was silenced before its end, for whatever reason."""

    reason: str
    heard: str
    share: float


@dataclass(frozen=True, slots=True)
class SilenceHeard(CallNotice):
    duration_ms: float


@dataclass(frozen=True, slots=True)
class LevelHeard(CallNotice):
    """At most `levels_per_s` times a second, in dBFS."""

    rms_dbfs: float
    peak_dbfs: float
    direction: Literal["inbound", "outbound"]


@dataclass(frozen=True, slots=True)
class SpeakerChange(CallNotice):
    speaker_id: str
    score: float


@dataclass(frozen=True, slots=True)
class DTMFPressed(CallNotice):
    digit: str


@dataclass(frozen=True, slots=True)
class RecordingChanged(CallNotice):
    """A recording of the call began (`on`) or ended; `path` is where it lies."""

    on: bool
    path: str


@dataclass(frozen=True, slots=True)
class TurnTimes(CallNotice):
    """One turn's stages in ms after the end of the caller's speech; None where it never came."""

    turn: int
    transcript_ms: float | None
    decided_ms: float | None
    first_token_ms: float | None
    first_sentence_ms: float | None
    tts_first_byte_ms: float | None
    first_audio_ms: float | None
