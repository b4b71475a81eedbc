"""Speech-to-speech as values: how a session is set up, what it is told (commands) and what it tells (events).

Slots dataclasses, like the other audio values: none of them crosses a store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from roomkit.errors import ProviderError
from roomkit.models.ai import ToolCallPart, ToolSpec, Usage
from roomkit.models.audio import AudioFrame
from roomkit.models.voice import CallNotice

InjectedRole = Literal["user", "system"]


@dataclass(frozen=True, slots=True)
class PastTurn:
    """One thing that was said before the session began: it is seeded with these, oldest first."""

    role: Literal["user", "assistant", "system"]
    text: str


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """How one session is to be. Rates in Hz. `own_vad` says that we tell where speech begins and ends (`UserSpeech`),
    else the provider finds it. `interruptible` False means that the caller's speech stops no reply; `responds` False
    that it only listens and writes down (a person has taken over). `extra` is the provider's own."""

    system_prompt: str | None = None
    voice: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    language: str | None = None
    input_rate: int = 16_000
    output_rate: int = 24_000
    own_vad: bool = False
    interruptible: bool = True
    responds: bool = True
    history: tuple[PastTurn, ...] = ()
    extra: dict[str, Any] = field(default_factory=lambda: {})


# -- what a session is told -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """More of the caller's voice: 16-bit samples at `RealtimeConfig.input_rate`."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class UserSpeech:
    """With `own_vad`: the caller began to speak, or has finished and is to be answered."""

    speaking: bool


@dataclass(frozen=True, slots=True)
class InjectText:
    """A text turn. With `respond` it is answered, else it is only known from now on."""

    text: str
    role: InjectedRole = "user"
    respond: bool = True


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The one result of one call. The reply goes on once every call of its reply has one; `silent` does not ask for
    it."""

    call_id: str
    name: str
    output: str
    is_error: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True)
class CutReply:
    """Stop the reply under way; of `item_id` only `played_ms` has been heard."""

    item_id: str | None = None
    played_ms: int = 0


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer now, without further input."""


@dataclass(frozen=True, slots=True)
class ForgetInput:
    """What of the caller's voice is not answered yet counts no more (the microphone was shut)."""


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """From now on the session is as `config` says."""

    config: RealtimeConfig


RealtimeCommand = AppendAudio | UserSpeech | InjectText | ToolAnswer | CutReply | Respond | ForgetInput | Reconfigure

# -- what a session tells ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionReady:
    """The session is set up. `resumed` says that it remembers what was said before the connection was made."""

    session_id: str = ""
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """The provider hears the caller speak. `item_id` names what will be heard, "" where the provider has no names."""

    item_id: str = ""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    item_id: str = ""


@dataclass(frozen=True, slots=True)
class UserText:
    """What the caller was heard to say: all of this item so far, or (`final`) for good."""

    item_id: str
    text: str
    final: bool = True


@dataclass(frozen=True, slots=True)
class UserTextFailed:
    """What was said in this item cannot be written down."""

    item_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReplyBegan:
    reply_id: str


@dataclass(frozen=True, slots=True)
class ReplyAudio:
    """More of the voice of a reply. `item_id` is what `CutReply` names."""

    reply_id: str
    item_id: str
    frame: AudioFrame


@dataclass(frozen=True, slots=True)
class ReplyText:
    """More of the words that are spoken."""

    reply_id: str
    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ReplySaid:
    """One item of a reply is complete. `text` replaces the deltas; None where only they were told."""

    reply_id: str
    item_id: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyOver:
    """Nothing more comes of this reply."""

    reply_id: str
    status: Literal["completed", "cancelled", "failed", "incomplete"] = "completed"
    reason: str = ""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class ToolAsked:
    """A tool is to be called. Several may be asked for at once."""

    reply_id: str
    call: ToolCallPart


@dataclass(frozen=True, slots=True)
class ToolsCancelled:
    """The provider no longer waits for these calls: their results are not to be told."""

    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The provider itself has stopped its reply because the caller speaks."""


@dataclass(frozen=True, slots=True)
class ResumeHandle:
    """With this a new connection remembers everything; None: not at the moment."""

    handle: str | None


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The provider ends the connection in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class LimitsTold:
    """What is left of a rate limit, and in how many seconds it is full again."""

    name: str
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Complaint:
    """The provider refuses one command; the session goes on. `error.retryable` says whether it may be told again."""

    error: ProviderError


RealtimeEvent = (
    SessionReady
    | SpeechBegan
    | SpeechStopped
    | UserText
    | UserTextFailed
    | ReplyBegan
    | ReplyAudio
    | ReplyText
    | ReplySaid
    | ReplyOver
    | ToolAsked
    | ToolsCancelled
    | Interrupted
    | ResumeHandle
    | GoingAway
    | LimitsTold
    | Complaint
)

# -- what observers hear ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextInjected(CallNotice):
    """A text went into the session of a call."""

    text: str
    role: InjectedRole


@dataclass(frozen=True, slots=True)
class SessionMoved(CallNotice):
    """The call goes on over a new connection to its provider: "resumed" or "seeded" from the room's log."""

    how: Literal["resumed", "seeded"]
    reason: str


@dataclass(frozen=True, slots=True)
class LimitNear(CallNotice):
    """The provider tells what is left of a rate limit."""

    name: str
    remaining: int
    reset_s: float
