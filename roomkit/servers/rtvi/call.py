"""ClientCall: the voice of one client: a session of the kit's voice channel, told to the client in words of RTVI."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

from roomkit.errors import ProtocolError, RoomKitError
from roomkit.models.audio import SessionState, VoiceSession
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Assurance

if TYPE_CHECKING:
    from roomkit.channels.voice import VoiceChannel
    from roomkit.ports.rtvi import ClientSound
    from roomkit.servers.rtvi.client import Client
    from roomkit.servers.rtvi.links import SocketLink

log = logging.getLogger(__name__)


class ClientCall:
    """Made with its client; `start` when the client is ready. A call that its room does not take leaves a client of a
    web socket with its text."""

    def __init__(self, client: Client, channel: VoiceChannel, backend: ClientSound, *, by: str) -> None:
        self.client = client
        self.channel = channel
        self.backend = backend
        self.by = by
        self.session = self._new()
        self._line: Any = None
        self._link: SocketLink | None = None
        self._ready = asyncio.Event()
        self._taken = False
        self._speaks = getattr(channel, "tts", None) is not None
        """Replies are spoken to it."""

    def _new(self) -> VoiceSession:
        who = self.client.who
        metadata = {"by": self.by} | ({"name": who.display_name} if who.display_name else {})
        return VoiceSession(
            f"call-{secrets.token_hex(8)}",
            participant_id=who.id,
            tenant=who.tenant,
            metadata=metadata,
            assurance=Assurance.AUTHENTICATED,
        )

    @property
    def live(self) -> bool:
        return self._taken and self.session.state is not SessionState.ENDED

    def start(self, link: SocketLink | None) -> None:
        """The client is ready: it is heard from now on. `link` is None for a peer, whose sound comes by itself."""
        self._ready.set()
        if link is not None and self._line is None:
            self._link = link
            self._line = self.backend.sockets.open(self.session, self)
            self.client.scope.spawn(self._introduced(self._line), name="call")

    async def _introduced(self, line: Any) -> None:
        await self.backend.sockets.introduce(line, self.answered)

    async def answered(self) -> None:
        """Takes the call into its room."""
        await self._ready.wait()
        client, session = self.client, self.session
        client.server.calls[session.id] = self
        self.backend.meter(session, self._level)
        try:
            await self.channel.answer(session, room_id=client.room_id, sender_id=client.who.id)
        except RoomKitError as error:
            log.info("a client of room %s has no voice: %s", client.room_id, error)
            client.post([client.session.failed("the room does not take this call; text goes on")])
            raise
        self._taken = True
        client.session.speech.live = self._speaks

    def renewed(self) -> None:
        """Another peer takes the place of the one that had this call."""
        self.client.server.calls.pop(self.session.id, None)
        self._taken = False
        self.session = self._new()
        self.session.metadata["again"] = True

    def hear(self, pcm: bytes, rate: int, channels: int) -> None:
        """Sound that came by the link. Raises `ProtocolError` for what is none."""
        if self._line is not None:
            self.backend.sockets.hear(self._line, pcm, rate, channels)
        elif self.by == "webrtc":
            raise ProtocolError("this client's sound comes by its track")

    async def interrupt(self, reason: str) -> bool:
        return self.live and await self.channel.interrupt(self.session, reason=reason)

    def end(self) -> None:
        """The client has gone."""
        self.client.server.calls.pop(self.session.id, None)
        if self._line is not None:
            self.backend.sockets.gone(self._line)

    async def hang_up(self) -> None:
        """Ends it from our side."""
        await self.backend.hang_up(self.session)

    # -- SoundWire ------------------------------------------------------------------------------------------------

    def play(self, pcm: bytes) -> None:
        if self._link is not None:
            self._link.play(pcm)

    def forget(self) -> None:
        if self._link is not None:
            self._link.forget()

    def leave(self) -> None:
        if self._taken:
            self.client.finish(1000, "hung up")

    # -- what it is told of ---------------------------------------------------------------------------------------

    def traced(self, line: dict[str, Any]) -> None:
        """A sign of life of the call, at the moment when it happens."""
        client, speech = self.client, self.client.session.speech
        match line:
            case {"kind": "voice_phase", "phase": str(phase)}:
                if line.get("protocol") == "realtime" and phase == "hearing":
                    speech.interrupted()  # A model that speaks by itself has no sign of its own for it.
                speech.phase(phase)
            case {"kind": "voice_cut"}:
                speech.interrupted()
            case {"kind": "voice_partial", "text": str(text)}:
                speech.partial(text, client.who.id, client.stamp())
            case {"kind": "voice_spoken", "event": event, "text": str(text), "over": over}:
                speech.spoken(event, text, over=bool(over))
            case {"kind": "voice_turn"}:
                speech.times(line)
            case {"kind": "voice_gate", "hears": hears, "speaks": speaks}:
                speech.muted(not hears)
                self._speaks = bool(speaks) and getattr(self.channel, "tts", None) is not None
                speech.live = self._taken and self._speaks
            case {"protocol": "transport", "event": "disconnected"}:
                speech.ends()
            case _:
                return
        client.post(client.session.spoken())

    def told(self, event: RoomEvent) -> bool:
        """An event of the room: True when it was this call's to tell."""
        speech, client = self.client.session.speech, self.client
        if event.type is not EventType.MESSAGE or event.metadata.get("voice_session_id") != self.session.id:
            return False
        theirs = event.source.direction == "inbound"
        if theirs:
            speech.final(event.text, client.who.id, event.created_at.isoformat())
        else:
            speech.phase("listening")  # It has been heard: a model that speaks by itself writes it down then.
        client.post(client.session.spoken())
        return theirs

    def _level(self, who: str, value: float) -> None:
        speech = self.client.session.speech
        speech.level(who, value)
        self.client.post(self.client.session.spoken())
