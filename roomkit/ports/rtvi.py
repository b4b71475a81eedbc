"""What RTVI's door asks of the sound of its clients: over their web socket, or by WebRTC beside a data channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from roomkit.models.audio import VoiceSession
from roomkit.ports.audio import VoiceBackend

Answer = Callable[[], Awaitable[None]]
"""Takes a call into its room; called once, when sound can flow."""


class SoundWire(Protocol):
    """How sound gets to one client. Nothing here waits."""

    def play(self, pcm: bytes) -> None:
        """Mono, 16 bit, little-endian, at the backend's `player_rate`."""
        ...

    def forget(self) -> None:
        """What has not left yet shall not leave."""
        ...

    def leave(self) -> None:
        """The call is hung up from our side."""
        ...


class SocketSound(Protocol):
    """Sound over web sockets which somebody else has. What `open` gives is handed back to the others."""

    def open(self, session: VoiceSession, wire: SoundWire) -> Any:
        """A client is there whose sound goes through `wire`."""
        ...

    async def introduce(self, call: Any, answer: Answer) -> None:
        """Has the call taken into its room, and hangs up when the room does not take it."""
        ...

    def hear(self, call: Any, pcm: bytes, rate: int, channels: int) -> None:
        """Sound of the client's. Raises `ProtocolError` for what is none."""
        ...

    def gone(self, call: Any) -> None:
        """The client has gone. Idempotent."""
        ...


class Peer(Protocol):
    """One peer connection with a data channel of text; `id` is what the client calls it by, and a secret of theirs."""

    id: str
    session: VoiceSession
    hearer: Hearer

    def send(self, text: str) -> bool:
        """False for a peer that takes nothing any more."""
        ...


class Hearer(Protocol):
    """What a peer's data channel brings. Nothing here waits."""

    def told(self, peer: Any, text: str) -> None: ...

    def gone(self, peer: Any) -> None:
        """The peer has gone, or was never there. Told once."""
        ...


class PeerSound(VoiceBackend, Protocol):
    """Sound of such peers. The descriptions are SDP; all three raise `ProtocolError` for what cannot be read."""

    @property
    def peers(self) -> Mapping[str, Peer]: ...

    async def connect(self, session: VoiceSession, sdp: str, answer: Answer, hearer: Hearer) -> tuple[Peer, str]:
        """The peer of an offer, and the description that answers it."""
        ...

    async def renegotiate(self, peer: Any, sdp: str) -> str:
        """The answer to a further offer of a peer that is there."""
        ...

    async def candidate(self, peer: Any, candidate: str, mid: str | None, line: int | None) -> None:
        """Another way to the peer; "" says that there are no more."""
        ...

    def ice(self) -> Sequence[str]:
        """URLs of servers that anybody may use."""
        ...


class ClientSound(VoiceBackend, Protocol):
    """Both, as one transport of one voice channel."""

    entry: Literal["rtvi"]
    player_rate: int

    @property
    def sockets(self) -> SocketSound: ...

    @property
    def peers(self) -> PeerSound | None: ...

    def pressed(self, session: VoiceSession, keys: str) -> None:
        """The client pressed keys."""
        ...

    def meter(self, session: VoiceSession, told: Callable[[str, float], None]) -> None:
        """Tells how loud "user" and "bot" are, 0 to 1, until the call ends."""
        ...
