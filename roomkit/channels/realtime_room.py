"""The speech-to-speech calls of one room: what is said becomes events, what others write reaches the models."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.ai.tools import ToolContext
from roomkit.channels.live_room import LiveRoom
from roomkit.channels.live_tools import LiveTools, cut
from roomkit.channels.realtime_account import Account
from roomkit.errors import Elsewhere, StateError
from roomkit.models import voice as told
from roomkit.models.ai import ToolCallPart, Usage
from roomkit.models.audio import AudioFrame, Transcript
from roomkit.models.content import SystemContent, TextContent, ToolCallContent
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventDraft, EventSource, EventType, RoomEvent, who_left
from roomkit.models.realtime import InjectedRole, PastTurn
from roomkit.models.room import ChannelBinding, FloorMode, Room
from roomkit.models.stream import Ephemeral, StreamEnd
from roomkit.ports.audio import LivePort
from roomkit.ports.channel import RoomContext, RoomPort, TurnPort
from roomkit.runtime import monotonic
from roomkit.voice.bridge import Bridge
from roomkit.voice.realtime.call import RealtimeCall
from roomkit.voice.realtime.minutes import Entry
from roomkit.voice.realtime.order import Placed
from roomkit.voice.realtime.toolruns import Ready, ToolOutput

if TYPE_CHECKING:
    from roomkit.channels.realtime import RealtimeVoiceChannel

log = logging.getLogger(__name__)
_REMEMBERED_RESULT = 500
HUMAN = frozenset({FloorMode.HUMAN, FloorMode.WAITING, FloorMode.NONE})
"""Floors in which no machine speaks."""


@dataclass(slots=True)
class Asked:
    """What one call's model is answering: the caller, and everybody whose words have come since the last reply. `said`
    is what was last said on the line, `read` up to which event the model was seeded with the log."""

    others: list[RoomEvent] = field(default_factory=lambda: [])
    answered: bool = False
    caller: RoomEvent | None = None
    said: RoomEvent | None = None
    read: int = -1

    def add(self, event: RoomEvent) -> None:
        """Somebody else's words."""
        if self.answered:
            self.others, self.answered = [], False
        self.others.append(event)

    @property
    def events(self) -> tuple[RoomEvent, ...]:
        return (*self.others, *filter(None, [self.caller]))

    def spoke(self, event: RoomEvent) -> None:
        self.caller = self.said = event
        if self.answered:
            self.others, self.answered = [], False

    def knows(self, event: RoomEvent) -> bool:
        return event.index <= self.read


class RealtimeRoom:
    """A `RealtimeHost`: hears the room once for all its calls."""

    def __init__(self, channel: RealtimeVoiceChannel, port: RoomPort, room_id: str, key: str) -> None:
        self.channel = channel
        self.room_id = room_id
        self.key = key
        self.live: LivePort = port.live
        self.calls: dict[str, RealtimeCall] = {}
        self.tools: dict[str, LiveTools] = {}
        self.bridge = Bridge(channel.rate)
        self._port = port
        self._seen = LiveRoom(port, room_id, channel.channel_id, self._take)
        self.asked: defaultdict[str, Asked] = defaultdict(Asked)
        self.account = Account(channel, port.live)
        self._written = 0

    # -- the room ----------------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        await self._seen.opened()

    def close(self) -> None:
        self._seen.close()

    def welcome(self, call: RealtimeCall) -> None:
        """The call is live: it is under the room's rules, and hears who else is on the line."""
        if self._seen.binding is not None:
            self.gate(self._seen.binding)
        if self.floor_held:
            self.channel.spawn(call.hold(True), "a person has the floor")
        alone = not self.bridge.busy
        self.bridge.join(call.session.id, call.overhear, speaks=not call.session.listen_only)
        if alone and self.bridge.busy:
            self.channel.spawn(self.bridge.run(), f"bridge of {self.room_id}")

    def part(self, session_id: str) -> None:
        self.calls.pop(session_id, None)
        self.tools.pop(session_id, None)
        self.asked.pop(session_id, None)
        self.bridge.leave(session_id)

    def gate(self, binding: ChannelBinding) -> None:
        self._seen.binding = binding
        for call in self.calls.values():
            call.gate(
                hears=binding.can_write and not binding.muted, speaks=binding.can_read and not binding.output_muted
            )

    @property
    def floor_held(self) -> bool:
        return self._seen.room is not None and self._seen.room.floor.mode in HUMAN

    def _take(self, item: Any) -> None:
        match item:
            case StreamEnd(event=event):
                self.event(event)
            case RoomEvent(type=EventType.FLOOR_CHANGED, content=SystemContent(data=data)):
                if self._seen.floor_changed(data) is not None:
                    self._floor()
            case RoomEvent(type=EventType.ROOM_CLOSED | EventType.ROOM_ARCHIVED):
                for call in tuple(self.calls.values()):
                    self.ended(call, "room_closed")
            case RoomEvent(type=EventType.PARTICIPANT_LEFT):
                for call in tuple(self.calls.values()):
                    if call.session.participant_id == who_left(item):
                        self.ended(call, "removed")
            case RoomEvent():
                self.event(item)
            case _:
                pass

    def _floor(self) -> None:
        for call in self.calls.values():
            self.channel.spawn(call.hold(self.floor_held), "the floor has changed")

    def event(self, event: RoomEvent) -> None:
        """Words of another channel go into every session of the room."""
        own = event.source.channel_id == self.channel.channel_id
        if own or event.type is not EventType.MESSAGE or event.blocked or not event.text:
            return
        role, veil = self._role(event), self.live.veil
        for call in self.calls.values():
            text = event.text if event.source.participant_id == call.session.participant_id else _named(event)
            asked = self.asked[call.session.id]
            if role == "user":  # who guides the model has asked it for nothing
                asked.add(event)
            known = partial(asked.knows, event)
            self.channel.spawn(
                call.inject(veil(text), role, respond=role == "user", known=known), "a text for the model"
            )

    def _role(self, event: RoomEvent) -> InjectedRole:
        """From above the model hears the host's own whisper, and whom the host has made a supervisor (D10)."""
        source = event.source
        if source.participant_id is not None and source.participant_id in self.channel.options.supervisors:
            return "system"
        whispered = source.channel_id == "host" and event.metadata.get("whisper") == self.channel.channel_id
        return "system" if whispered else "user"

    # -- what a call asks (RealtimeHost) -------------------------------------------------------------------------------

    def room(self, room_id: str) -> Room:
        return self._seen.known()

    async def write(self, call: RealtimeCall, placed: Placed[Entry]) -> None:
        entry = placed.item
        if entry.call is not None:
            kind = EventType.TOOL_CALL_START if entry.kind == "tool_start" else EventType.TOOL_CALL_END
            await self._own(call, entry.call, kind, visibility="internal", metadata={"tool_record": True})
            return
        if not self.channel.emits_transcripts:
            return
        metadata = {**entry.metadata, "voice_session_id": call.session.id, "source": "realtime", "spoken": True}
        metadata["spoken_at"] = self._stamp(placed.spoken_at).isoformat()
        if placed.late:
            metadata["late"] = True
        if entry.kind == "assistant":
            metadata["role"] = "assistant"
            shown = self.channel.options.transcripts_to
            await self._own(call, TextContent(text=entry.text), EventType.MESSAGE, metadata=metadata, visibility=shown)
        else:
            await self._user(call, entry.text, placed, {**metadata, "role": "user"})

    async def _user(self, call: RealtimeCall, text: str, placed: Placed[Entry], metadata: dict[str, Any]) -> None:
        session = call.session
        if self.live.wanted(told.FinalTranscript):
            where = {"channel_id": session.channel_id, "channel_type": self.channel.channel_type}
            moment = told.FinalTranscript(call.room, Transcript(text), session, direction="inbound", **where)
            kept = await self.live.guard(moment)
            if kept is None or not kept.text:
                return
            text = kept.text
        self._written += 1
        message = InboundMessage(
            channel_id=self.channel.channel_id,
            sender_id=session.participant_id or session.id,
            participant_id=session.participant_id or None,
            content=TextContent(text=text),
            external_id=f"{session.id}:{self._written}",
            addressed_to=self.channel.options.addressed_to,
            visibility=self.channel.options.transcripts_to,
            assurance=session.assurance or self.channel.options.assurance,
            sent_at=self._stamp(placed.spoken_at),
            metadata=metadata,
        )
        result = await self._port.process_inbound(message, room_id=self.room_id)
        if result.event is not None:
            self.asked[session.id].spoke(result.event)

    async def _own(
        self, call: RealtimeCall, content: Any, kind: EventType, *, metadata: dict[str, Any], visibility: str = "all"
    ) -> None:
        channel = self.channel
        source = EventSource(channel_id=channel.channel_id, channel_type=channel.channel_type, direction="outbound")
        said = self.asked[call.session.id].said
        draft = EventDraft(
            source=source,
            content=content,
            type=kind,
            visibility=visibility,
            addressed_to=channel.options.addressed_to,
            correlation_id=said.id if said is not None else None,
            metadata={"voice_session_id": call.session.id, **metadata},
        )
        await self._port.submit(self.room_id, draft)

    def _stamp(self, at: float) -> Any:
        return self._port.now() - timedelta(seconds=monotonic() - at)

    async def context(self, call: RealtimeCall) -> tuple[RoomContext, TurnPort | None]:
        """The room as it is now, for the gate; no turn where another process has the room: then no tool may run."""
        view = await self._port.watch.open_view(self.room_id, _nobody, tail=0)
        view.close()
        events = self.asked[call.session.id].events
        binding = next((one for one in view.bindings if one.channel_id == self.channel.channel_id), self._seen.binding)
        if binding is None:
            raise StateError(f'channel "{self.channel.channel_id}" has no seat in room "{self.room_id}"')
        turn_id = f"{call.session.id}-{call.turns}"
        try:
            turn = await self.live.turn(self.room_id, self.channel.channel_id, turn_id, events)
        except Elsewhere:
            turn = None
        people = view.participants
        return RoomContext(view.room, binding, view.bindings, people, self._history, turn, events), turn

    async def _history(self, limit: int) -> list[RoomEvent]:
        view = await self._port.watch.open_view(self.room_id, _nobody, tail=limit)
        view.close()
        return view.events

    async def run_tool(self, call: RealtimeCall, asked: ToolCallPart, ready: Ready) -> ToolOutput:
        try:
            context, turn = await self.context(call)
        except StateError as error:
            refused = ToolCallContent(call_id=asked.call_id, name=asked.name, status="failed", error=str(error))
            return ToolOutput(refused, "Not run: the room is gone.", is_error=True)
        if turn is None:
            told = "Not run: another process has this room, and its guards cannot be asked from here."
            refused = ToolCallContent(call_id=asked.call_id, name=asked.name, status="denied", error=told)
            return ToolOutput(refused, told, is_error=True)
        caller = call.session.participant_id
        tool_context = ToolContext(
            room_id=self.room_id,
            tenant=call.session.tenant,
            channel_id=self.channel.channel_id,
            participant=next((one for one in context.participants if one.id == caller), None),
            turn_id=call.session.id,
            history=context.history,
        )
        record, text = await self.tools[call.session.id].run(asked, context, tool_context, turn, ready)
        shown = cut(self.live.veil(text), self.channel.tool_result_max_length)
        return ToolOutput(record, shown, record.status != "completed")

    async def past(self, call: RealtimeCall) -> tuple[PastTurn, ...]:
        limit = self.channel.options.history_events
        if not limit:
            return ()
        view = await self._port.watch.open_view(self.room_id, _nobody, tail=limit)
        view.close()
        self.asked[call.session.id].read = view.index
        turns = [turn for event in view.events if (turn := self._past(event)) is not None]
        return tuple(PastTurn(turn.role, self.live.veil(turn.text)) for turn in turns)

    def _past(self, event: RoomEvent) -> PastTurn | None:
        if event.blocked or event.metadata.get("deleted"):
            return None
        own = event.source.channel_id == self.channel.channel_id
        if isinstance(event.content, ToolCallContent):
            ended = own and event.type is EventType.TOOL_CALL_END
            return PastTurn("system", _result(event.content)) if ended else None
        if event.type not in (EventType.MESSAGE, EventType.NOTE) or not event.text:
            return None
        if own:
            return PastTurn("assistant" if event.source.direction == "outbound" else "user", event.text)
        role = self._role(event) if event.type is EventType.MESSAGE else "system"
        return PastTurn(role, event.text if event.source.direction == "inbound" else _named(event))

    def sign(self, call: RealtimeCall, kind: str, data: dict[str, Any]) -> None:
        channel, screen = self.channel, self.live.screen
        words = not data.keys().isdisjoint(("text", "delta"))
        if screen is not None and "text" in data:
            data = {**data, "text": screen(data["text"])}
        told = {"session": call.session.id, **data}
        if screen is None or "delta" not in data:  # of words in pieces nobody can tell what they will be
            to = channel.options.transcripts_to if words else "all"
            sender = channel.channel_id
            self._port.publish(Ephemeral(kind=kind, room_id=self.room_id, sender=sender, visibility=to, data=told))
        channel.trace("realtime", call.session.id, kind=kind, **data)

    def spent(self, call: RealtimeCall, usage: Usage) -> None:
        self.asked[call.session.id].answered = True
        self.channel.trace("usage", call.session.id, input=usage.input_tokens, output=usage.output_tokens)
        if usage != Usage() and self.account.charge(call, usage):
            self.sign(call, "voice_trouble", {"error": "budget"})
            self.ended(call, "budget")

    def overheard(self, call: RealtimeCall, frame: AudioFrame) -> None:
        if self.bridge.busy:
            self.bridge.push(call.session.id, frame)

    async def pressed(self, call: RealtimeCall, digit: str) -> None:
        source = EventSource(
            channel_id=self.channel.channel_id,
            channel_type=self.channel.channel_type,
            participant_id=call.session.participant_id or None,
        )
        content = SystemContent(code="dtmf", data={"digit": digit, "session": call.session.id})
        await self._port.submit(self.room_id, EventDraft(source=source, content=content, type=EventType.DTMF))
        await call.inject(f"(The caller pressed {digit} on the keypad.)", "user", respond=True)

    def ended(self, call: RealtimeCall, reason: str) -> None:
        self.channel.spawn(self.channel.finish(call.session, reason), "end a call")


def _nobody(_: Any) -> None:
    """A view of this moment only."""


def _named(event: RoomEvent) -> str:
    who = event.metadata.get("sender_name") or event.source.participant_id or event.source.channel_id
    return f"{who}: {event.text}"


def _result(call: ToolCallContent) -> str:
    text = cut(call.result or call.error or call.status, _REMEMBERED_RESULT)
    return f"(The tool {call.name} was called with {call.arguments} and gave, {call.status}: {text})"
