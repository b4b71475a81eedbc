"""VoiceLine: the calls of one room; what the room says is spoken to them, and what they say goes into the room."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from roomkit.channels.live_room import LiveRoom
from roomkit.core.catalogue import phrase
from roomkit.core.policy import ai_may_answer
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.models.content import SystemContent, TextContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventDraft, EventSource, EventType, RoomEvent, who_left
from roomkit.models.room import ChannelBinding, Floor, FloorMode, Room
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.ports.audio import LivePort
from roomkit.ports.channel import RoomPort
from roomkit.voice.bridge import Bridge
from roomkit.voice.call import Call
from roomkit.voice.mouth import Utterance

if TYPE_CHECKING:
    from roomkit.channels.voice import VoiceChannel

UNSPOKEN = "unspoken_answer"
"""Metadata of a message: whoever sent it wants to read the answer, and their own call does not speak it."""


class VoiceLine:
    """The calls of one room: hears the room once for all of them. A `CallHost`."""

    def __init__(self, channel: VoiceChannel, port: RoomPort, room_id: str) -> None:
        self.channel = channel
        self.room_id = room_id
        self.key = key_of(port.tenant, room_id)
        self.live: LivePort = port.live
        self.calls: dict[str, Call] = {}
        self.bridge = Bridge(channel.rate)
        self._port = port
        self._seen = LiveRoom(port, room_id, channel.channel_id, self._take)
        self._growing: dict[str, dict[str, Utterance]] = {}
        self._attended = False
        """A person has the floor, or is waited for."""
        self._taken = False
        """A person has the floor."""
        self._unspoken: dict[str, str] = {}
        """Who wants to read the answer to their last message, and not to hear it."""

    async def opened(self) -> None:
        room = await self._seen.opened()
        if room is not None:
            self._floor(room.floor)
            self._attended = self._attended or room.attention is not None

    def close(self) -> None:
        if self._seen.close() and self.channel.options.ahead is not None:
            self.channel.options.ahead.leave(self._port.tenant, self.room_id)

    def welcome(self, call: Call) -> None:
        call.hearing.open = True
        if self._seen.binding is not None:
            self._gate(call, self._seen.binding)
        alone = not self.bridge.busy
        self.bridge.join(call.session.id, call.overhear, speaks=not call.session.listen_only)
        if alone and self.bridge.busy:
            self.channel.spawn(self.bridge.run(), f"bridge of {self.room_id}")

    def part(self, session: VoiceSession) -> None:
        self.calls.pop(session.id, None)
        self.bridge.leave(session.id)

    def gate(self, binding: ChannelBinding) -> None:
        self._seen.binding = binding
        for call in self.calls.values():
            self._gate(call, binding)

    def _gate(self, call: Call, binding: ChannelBinding) -> None:
        call.hearing.open = binding.can_write and not binding.muted
        call.open_out = binding.can_read and not binding.output_muted
        self.channel.trace("turn", call.session.id, kind="voice_gate", hears=call.hearing.open, speaks=call.open_out)
        if not call.open_out:
            call.interrupt("output_muted")

    # -- what the room says ---------------------------------------------------------------------------

    def _take(self, item: Any) -> None:
        match item:
            case StreamStart(stream_id=stream_id, source=source) if source.channel_id != self.channel.channel_id:
                for call in self._told():
                    utterance = Utterance(source.channel_id, event_id=stream_id)
                    self._growing.setdefault(stream_id, {})[call.session.id] = utterance
                    if self.channel.supports_streaming_delivery:
                        call.speak(utterance, answer=True)
            case StreamChunk(stream_id=stream_id, delta=delta):
                for utterance in self._growing.get(stream_id, {}).values():
                    utterance.write(delta)
            case StreamEnd(stream_id=stream_id):
                self._end(stream_id)
            case StreamError(stream_id=stream_id):
                for session_id, utterance in self._growing.pop(stream_id, {}).items():
                    if session_id in self.calls:
                        self.calls[session_id].withdraw(utterance, "withdrawn")
            case RoomEvent():
                self._event(item)
            case _:
                pass

    def _end(self, stream_id: str) -> None:
        for session_id, utterance in self._growing.pop(stream_id, {}).items():
            utterance.close()
            call = self.calls.get(session_id)
            if call is not None and not self.channel.supports_streaming_delivery:
                call.speak(utterance, answer=True)

    def _event(self, event: RoomEvent) -> None:
        match event:
            case RoomEvent(type=EventType.FLOOR_CHANGED, content=SystemContent(data=data)):
                room = self._seen.floor_changed(data)
                if room is not None:
                    self._floor(room.floor)
            case RoomEvent(type=EventType.ATTENTION_CHANGED, content=SystemContent(code=code)):
                self._attended = code == "human_requested"
            case RoomEvent(type=EventType.MESSAGE) if event.text:
                self._message(event)
            case RoomEvent(type=EventType.PARTICIPANT_LEFT):
                for call in tuple(self.calls.values()):
                    if call.session.participant_id == who_left(event):
                        self.channel.spawn(self.channel.disconnect_session(call.session, self.room_id), "hang up")
            case RoomEvent(type=EventType.ROOM_CLOSED | EventType.ROOM_ARCHIVED):
                self.channel.spawn(self._over(), f"end the calls of {self.room_id}")
            case _:
                pass

    def _floor(self, floor: Floor) -> None:
        """While a person has the word no model hears, not even ahead, what is said to them; and what a model was saying
        when they took it is said no further."""
        taken = floor.mode is FloorMode.HUMAN
        if taken and not self._taken:
            for call in self.calls.values():
                call.interrupt("taken_over")
        self._taken = taken
        self._attended = not ai_may_answer(floor)
        if (ahead := self.channel.options.ahead) is not None:
            (ahead.leave if self._attended else ahead.attend)(self._port.tenant, self.room_id)

    async def _over(self) -> None:
        """Nobody says anything more here: everybody is hung up when they have heard what is being said."""
        with contextlib.suppress(TimeoutError):
            await self.channel.wait_playback_done(self.room_id)
        for call in tuple(self.calls.values()):
            await self.channel.disconnect_session(call.session, self.room_id)

    def _message(self, event: RoomEvent) -> None:
        """A whole message: of another channel's people, or of a brain that does not stream."""
        if who := event.source.participant_id:
            self._unspoken.pop(who, None)
            if event.metadata.get(UNSPOKEN):
                self._unspoken[who] = event.id
        if event.source.channel_id == self.channel.channel_id:
            return
        for call in self._told(event.correlation_id):
            if event.source.participant_id and event.source.participant_id == call.session.participant_id:
                continue
            utterance = Utterance(event.source.channel_id, event_id=event.id)
            utterance.write(event.text)
            utterance.close()
            call.speak(utterance, answer=event.source.direction == "outbound")

    def _told(self, asked: str | None = "") -> list[Call]:
        """The calls that speak a reply: the answer to the message `asked`, or one that begins now."""
        silent = {who for who, event_id in self._unspoken.items() if asked in ("", event_id)}
        return [call for call in self.calls.values() if call.session.participant_id not in silent]

    # -- what a call asks (CallHost) ------------------------------------------------------------------

    def room(self, room_id: str) -> Room:
        return self._seen.known()

    def alone(self, call: Call) -> bool:
        return not self._attended and not self.bridge.busy and not call.session.listen_only

    def phrase(self, kind: str) -> str | None:
        """The channel's own words, or the house's in the language of the call."""
        options = self.channel.options
        words = getattr(options, kind)
        language = options.language or (self._seen.room.language if self._seen.room is not None else "en")
        return phrase(f"call_{kind}", language) if words is True else words

    async def submit(self, call: Call, text: str, generation: int) -> Any:
        session = call.session
        message = InboundMessage(
            channel_id=self.channel.channel_id,
            sender_id=session.participant_id or session.id,
            participant_id=session.participant_id or None,
            content=TextContent(text=text),
            external_id=f"{session.id}:{generation}",
            assurance=session.assurance or self.channel.options.assurance,
            metadata={"voice_session_id": session.id, "spoken": True, "turn": call.turns},
        )
        return await self._port.process_inbound(message, room_id=session.room_id)

    async def pressed(self, call: Call, digit: str) -> None:
        source = EventSource(
            channel_id=self.channel.channel_id,
            channel_type=self.channel.channel_type,
            direction="inbound",
            participant_id=call.session.participant_id or None,
        )
        content = SystemContent(code="dtmf", data={"digit": digit, "session": call.session.id})
        await self._port.submit(self.room_id, EventDraft(source=source, content=content, type=EventType.DTMF))

    def overheard(self, call: Call, frame: AudioFrame) -> None:
        if self.bridge.busy:
            self.bridge.push(call.session.id, frame)

    def sign(self, call: Call, kind: str, data: dict[str, Any]) -> None:
        channel_id, screen = self.channel.channel_id, self.live.screen
        if screen is not None and "text" in data:
            data = {**data, "text": screen(data["text"])}
        to = channel_id if kind == "voice_spoken" else "all"  # what is spoken may be for this channel alone
        told = {"session": call.session.id, **data}
        self._port.publish(Ephemeral(kind=kind, room_id=self.room_id, sender=channel_id, visibility=to, data=told))
        self.channel.trace("turn", call.session.id, kind=kind, **data)


def key_of(tenant: str, room_id: str) -> str:
    return f"{tenant}\n{room_id}"
