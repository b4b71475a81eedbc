"""VoiceBackend: where a call's audio comes from and goes to; AudioStage: one step of what happens to it in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from roomkit.models.audio import AudioFrame, AudioSignal, VoiceSession
from roomkit.models.delivery import WebhookReply, WebhookRequest
from roomkit.models.event import RoomEvent
from roomkit.models.hooks import Moment, Notice

if TYPE_CHECKING:
    from roomkit.ports.channel import TurnPort


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """What a transport does by itself; a stage that it does natively is skipped. `marks` says that `played` comes from
    the far end (Twilio's marks, a browser's report), not from a clock. Rates in Hz."""

    rate: int = 16_000
    native_aec: bool = False
    native_agc: bool = False
    native_noise_suppression: bool = False
    native_dtmf: bool = False
    marks: bool = False
    detects_speech: bool = False


@dataclass(frozen=True, slots=True)
class BackendEvent:
    """Something that is not audio: "connected", "disconnected", "dtmf" (data: digit), "speech_started", "speech_ended",
    "played" (data: position in samples), "error" (data: reason)."""

    kind: str
    session: VoiceSession
    data: Any = None


class VoiceBackend(Protocol):
    """An audio transport: WebRTC, a web socket, a phone stream, a microphone, files. One object carries many sessions.

    `check_voice_backend` in roomkit.testing proves an implementation."""

    @property
    def traits(self) -> BackendTraits: ...

    def receive(self, session: VoiceSession) -> AsyncIterator[AudioFrame]:
        """The caller's audio in order, until the call ends. Late audio is dropped oldest first, never queued without
        bound. One reader."""
        ...

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        """Hands over one frame to be played after those before it. Returns when it is on its way; raises `SessionEnded`
        when the call is over."""
        ...

    async def clear(self, session: VoiceSession) -> None:
        """Forgets everything that was handed over and is not played yet. Silence follows within one frame."""
        ...

    def played(self, session: VoiceSession) -> int:
        """How many of the samples handed over have really been played; what `clear` forgot does not count."""
        ...

    def on_event(self, observer: Callable[[BackendEvent], None]) -> Callable[[], None]:
        """Tells `observer` on the kit's loop what happens to calls; returns the way out."""
        ...

    async def hang_up(self, session: VoiceSession) -> None:
        """Ends one call. Idempotent."""
        ...

    async def aclose(self) -> None: ...


class AudioStage(Protocol):
    """One step of a pipeline for one stream. Synchronous: it runs for every frame of every call, so a frame may cost
    microseconds and never waits. State is per stage object and a stage object serves one stream."""

    @property
    def name(self) -> str: ...

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        """The frame as it goes on (None while the stage holds it back) and what was noticed."""
        ...

    def reset(self) -> None:
        """Before the first frame of a stream and after a gap."""
        ...


class EchoStage(AudioStage, Protocol):
    """A stage that takes what is played out of what is heard."""

    def reference(self, frame: AudioFrame) -> None:
        """What the far end plays just now, at the stage's rate. Exactly one feeder: the playout."""
        ...


@runtime_checkable
class Echoing(Protocol):
    """What an `EchoStage` may have beside: whether there can be any echo now."""

    @property
    def echoing(self) -> bool: ...


@runtime_checkable
class BesideEcho(Protocol):
    """What a stage after the echo stage may have, if it listens otherwise meanwhile: the pipeline sets `echo`."""

    echo: Echoing | None


class SpeechDetector(Protocol):
    """How likely it is that a window of sound is speech; `VadStage` makes starts and ends of it."""

    @property
    def window(self) -> int:
        """Samples it wants at a time, at 16 kHz."""
        ...

    def probability(self, pcm: bytes) -> float:
        """0 to 1 for one window of 16-bit samples at 16 kHz."""
        ...

    def reset(self) -> None: ...


class LivePort(Protocol):
    """What a live call asks of its room beyond messages; `RoomPort.live`."""

    @property
    def veil(self) -> Callable[[str], str]:
        """Takes out of words what the kit's redaction keeps from models."""
        ...

    @property
    def screen(self) -> Callable[[str], str] | None:
        """Takes out of words that are shown before they are kept what the store is not to keep; None where it keeps
        everything."""
        ...

    def wanted(self, kind: type[Any]) -> bool:
        """Whether any guard or observer is registered for this kind of moment or notice."""
        ...

    async def guard(self, moment: Moment[Any]) -> Any:
        """Runs the guards of a moment: its value, perhaps changed, or None when one of them stops it."""
        ...

    def tell(self, notice: Notice) -> None:
        """To the observers; never waits."""
        ...

    def answering(self, room_id: str, event_id: str) -> bool:
        """Whether an intelligence is at work on an answer to this event, or about to begin."""
        ...

    async def request_human(self, room_id: str, reason: str, *, by: str, language: str | None = None) -> str:
        """Puts the room into the queue for a person; what to tell the caller: that somebody was called, or that nobody
        is there now."""
        ...

    async def silence(
        self, room_id: str, event_id: str, reason: str, *, heard: str | None = None, share: float = 0.0
    ) -> None:
        """Stops the answer to `event_id`, or the reply with that id. With `heard` the reply reads from now on as what
        was heard of it (a later event, D21); "" takes it away."""
        ...

    async def turn(self, room_id: str, channel_id: str, turn_id: str, events: Sequence[RoomEvent]) -> TurnPort:
        """What a brain outside the rooms' own turns may ask of its room for the call of a tool: guards, a person's
        approval, a person. `events` are what it answers."""
        ...


class AudioTap(Protocol):
    """Hears the audio of a call on its way and changes nothing: a recorder, a meter, a debug file."""

    def inbound(self, frame: AudioFrame) -> None: ...

    def outbound(self, frame: AudioFrame) -> None: ...

    def close(self) -> None: ...


class SocketLine(Protocol):
    """An accepted web socket, as a transport sees it."""

    async def receive(self) -> str | bytes | None:
        """The next message; None when the far end has gone."""
        ...

    async def send(self, data: str | bytes) -> None:
        """Raises `SessionEnded` when the far end has gone, or takes nothing for too long."""
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Idempotent."""
        ...


class SocketBackend(VoiceBackend, Protocol):
    """A transport that callers reach by a web socket; `kit.asgi()` mounts it at `/voice/{channel}`."""

    @property
    def entry(self) -> Literal["token", "vendor"]:
        """Who lets a caller in: the token of a room, as at the room socket, or a vendor that proves itself; then there
        are also `admit` and `reply` (see `VendorSocketBackend`)."""
        ...

    async def serve(self, line: SocketLine, session: VoiceSession, answer: Callable[[], Awaitable[None]]) -> None:
        """Carries one call until it ends. `session` is new; `answer` is called once when audio can flow."""
        ...


class VendorSocketBackend(SocketBackend, Protocol):
    """A phone company that asks by webhook what to do with a call, and then connects."""

    def admit(self, request: WebhookRequest) -> None:
        """Raises `AccessDenied` unless the vendor itself asks for the web socket."""
        ...

    def reply(self, request: WebhookRequest, stream_url: str) -> WebhookReply:
        """What to do with a call: connect it to `stream_url`. Raises `AccessDenied` unless the vendor itself asks."""
        ...


class OfferBackend(VoiceBackend, Protocol):
    """A transport that is agreed upon by an offer and an answer: WebRTC."""

    async def offer(
        self, session: VoiceSession, description: dict[str, str], answer: Callable[[], Awaitable[None]]
    ) -> dict[str, str]:
        """The reply to a caller's session description (`type`, `sdp`); `answer` is called once when audio can flow.
        Raises `ProtocolError` for a description that cannot be read."""
        ...
