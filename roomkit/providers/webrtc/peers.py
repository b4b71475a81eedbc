"""Peers of Pipecat's SmallWebRTC: sound both ways beside one data channel of text, with candidates that come later.

Its clients offer sound, pictures and a data channel, in this order; pictures are declined. A client whose microphone is
off sends no sound at all: what tells that it is there is the ping it sends on the data channel every second.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from roomkit.errors import ProtocolError
from roomkit.models.audio import VoiceSession
from roomkit.ports.audio import BackendEvent
from roomkit.ports.rtvi import Hearer
from roomkit.providers.live_audio import LiveCall
from roomkit.providers.webrtc.audio import WebRTCBackend, WebRTCOptions, Wire
from roomkit.runtime import monotonic

log = logging.getLogger(__name__)
MOST_CANDIDATES = 100
PEER_LEFT = '{"type":"signalling","message":{"type":"peerLeft"}}'
MOST_UNSENT = 4_194_304
"""Bytes that a peer may leave unread on its data channel; then it is gone."""


class Peer:
    """One peer connection with its data channel; `id` is what the client calls it by."""

    def __init__(self, session: VoiceSession, hearer: Hearer) -> None:
        self.id = secrets.token_urlsafe(16)
        self.session = session
        self.hearer = hearer
        self.wire: Wire | None = None
        self.candidates = 0
        self._channel: Any = None
        self._waiting: list[str] = []

    def send(self, text: str) -> bool:
        """False for a peer that takes nothing any more."""
        if self._channel is None:
            self._waiting.append(text)
            return len(self._waiting) < 1_000
        if self._channel.readyState != "open" or self._channel.bufferedAmount > MOST_UNSENT:
            return False
        self._channel.send(text)
        return True

    async def drained(self) -> None:
        """Waits until what was sent is on its way, but not long."""
        for _ in range(10):
            await asyncio.sleep(0.02)
            if self._channel is None or not self._channel.bufferedAmount:
                break
        await asyncio.sleep(0.05)

    def prepare(self, wire: Wire) -> None:
        self.wire = wire
        kinds = [transceiver.kind for transceiver in wire.peer.getTransceivers()]
        if kinds[:1] != ["audio"] or "audio" in kinds[1:] or len(kinds) > 3 or wire.peer.sctp is None:
            raise ValueError("an offer has sound first, at most two streams of pictures, and a data channel")
        for transceiver in wire.peer.getTransceivers()[1:]:
            transceiver.direction = "inactive"
        wire.peer.on("datachannel", self._opened)

    def _opened(self, channel: Any) -> None:
        if self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._heard)
        waiting, self._waiting = self._waiting, []
        for text in waiting:
            self.send(text)

    def _heard(self, message: Any) -> None:
        if self.wire is not None:
            self.wire.came_at = monotonic()
        if isinstance(message, str) and not message.startswith("ping: "):
            self.hearer.told(self, message)


class PeerBackend(WebRTCBackend):
    """The `VoiceBackend` of such peers."""

    def __init__(self, options: WebRTCOptions | None = None) -> None:
        super().__init__(options)
        self.peers: dict[str, Peer] = {}
        self._of: dict[str, Peer] = {}
        self._candidate: Callable[[str], Any] = import_module("aiortc.sdp").candidate_from_sdp
        self.on_event(self._event)

    async def connect(
        self, session: VoiceSession, sdp: str, answer: Callable[[], Awaitable[None]], hearer: Hearer
    ) -> tuple[Peer, str]:
        """The peer of an offer, and the description that answers it. `answer` is called once when sound can flow.
        Raises `ProtocolError` for an offer that is none."""
        peer = Peer(session, hearer)
        reply = await self.agree(session, sdp, answer, peer.prepare)
        self.peers[peer.id] = self._of[session.id] = peer
        return peer, reply["sdp"]

    async def renegotiate(self, peer: Peer, sdp: str) -> str:
        """The answer to a further offer of a peer that is there. Raises `ProtocolError`."""
        assert peer.wire is not None
        rtc = peer.wire.peer
        try:
            await rtc.setRemoteDescription(self._rtc.RTCSessionDescription(sdp, "offer"))
            await rtc.setLocalDescription(await rtc.createAnswer())
        except self.unreadable as error:
            raise ProtocolError("the offer cannot be read") from error
        return rtc.localDescription.sdp

    async def candidate(self, peer: Peer, candidate: str, mid: str | None, line: int | None) -> None:
        """Another way to the peer; "" says that there are no more. Raises `ProtocolError`."""
        peer.candidates += 1
        if peer.candidates > MOST_CANDIDATES:
            raise ProtocolError(f"a peer has at most {MOST_CANDIDATES} candidates")
        assert peer.wire is not None
        try:
            found = self._candidate(candidate.removeprefix("candidate:")) if candidate else None
            if found is not None:
                found.sdpMid, found.sdpMLineIndex = mid, line
            await peer.wire.peer.addIceCandidate(found)
        except self.unreadable as error:
            raise ProtocolError("a candidate cannot be read") from error

    def ice(self) -> Sequence[str]:
        """Only those without a password: what we have to log in with is not for the clients."""
        return [url for url in self._options.ice_servers if url.startswith("stun:")]

    def _event(self, event: BackendEvent) -> None:
        if event.kind == "disconnected" and (peer := self._of.pop(event.session.id, None)) is not None:
            self.peers.pop(peer.id, None)
            peer.hearer.gone(peer)

    async def leave(self, call: LiveCall[Wire]) -> None:
        peer = self._of.get(call.session.id)
        if peer is not None and peer.send(PEER_LEFT):
            await peer.drained()
        await super().leave(call)

    async def hang_up(self, session: VoiceSession) -> None:
        await super().hang_up(session)
        peer = self._of.pop(session.id, None)
        if peer is not None:
            self.peers.pop(peer.id, None)
            peer.hearer.gone(peer)


def provider(_account: str | None = None, **options: Any) -> PeerBackend:
    return PeerBackend(WebRTCOptions(**options))
