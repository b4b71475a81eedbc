"""RtcChannel: a channel of a real-time network that an agent joins as one more user; shaped as in Agora's guide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RtcOptions:
    """Which channel, and as whom. Sound is signed 16-bit mono at `sample_rate` Hz, both ways."""

    channel_name: str
    uid: int
    sample_rate: int = 24_000
    channels: int = 1
    enable_pcm_dump: bool = False


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A text beside the sound. Messages with one `msg_id` belong together."""

    message: str
    msg_id: str


@dataclass(frozen=True, slots=True)
class RtcEvent:
    """ "user_joined" and "user_left" (`uid`), "connection_state_changed" (`data`: "connected", "disconnected"),
    "chat_message" (`uid`, and `data`: the text)."""

    kind: Literal["user_joined", "user_left", "connection_state_changed", "chat_message"]
    uid: int = 0
    data: Any = None


class RtcChannel(Protocol):
    """One agent's place in a channel."""

    @property
    def remote_users(self) -> Mapping[int, Any]:
        """Who else is there."""
        ...

    def observe(self, observer: Callable[[RtcEvent], None]) -> Callable[[], None]:
        """Tells `observer` on the agent's loop what happens; returns the way out."""
        ...

    async def connect(self) -> None:
        """Joins. Raises `ProviderError` when that cannot be."""
        ...

    async def disconnect(self) -> None:
        """Leaves. Idempotent."""
        ...

    async def subscribe_audio(self, uid: int) -> None: ...

    def get_audio_frames(self, uid: int) -> AsyncIterator[bytes]:
        """The voice of a user who was subscribed to; ends when the user, or the agent, leaves."""
        ...

    async def push_audio_frame(self, frame: bytes) -> None:
        """Sound to be played after what was pushed before it."""
        ...

    async def clear_sender_audio_buffer(self) -> None:
        """Forgets what was pushed and is not played yet."""
        ...

    async def send_message(self, message: ChatMessage) -> None: ...


class RtcEngine(Protocol):
    def create_channel(self, options: RtcOptions) -> RtcChannel: ...

    async def aclose(self) -> None: ...
