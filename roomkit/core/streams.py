"""The room's hub: committed events, replies in the making and signs of life, to everyone who may see them.

Delivery is a plain call into each subscriber, in log order, and must not wait: a subscriber keeps its own bounded
buffer, so that a slow one costs only its own latency (D50).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roomkit.core.policy import may_see, own, visible
from roomkit.models.access import Principal
from roomkit.models.event import RoomEvent
from roomkit.models.room import Category, ChannelBinding, Participant, Room
from roomkit.models.stream import Ephemeral, StreamEnd, StreamError, StreamStart, chunk_of

log = logging.getLogger(__name__)
Deliver = Callable[[Any], None]
"""Takes a RoomEvent, a StreamMessage or an Ephemeral; must return at once."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A way of looking at a room: as a channel bound to it, as the `person` who sits there (one of several, maybe), or
    `internal`, which sees the whole log (D34)."""

    channel_id: str | None = None
    internal: bool = False
    person: str | None = None

    @classmethod
    def of(cls, principal: Principal, channel_id: str = "web") -> Viewer:
        return cls(internal=True) if principal.sees_internal else cls(channel_id=channel_id, person=principal.id)

    def sees(self, event: RoomEvent, bindings: Mapping[str, ChannelBinding]) -> bool:
        if self.internal:
            return True
        binding = bindings.get(self.channel_id or "")
        return binding is not None and may_see(event, binding, self.person)

    def hears(self, bindings: Mapping[str, ChannelBinding]) -> bool:
        """Whether anything may be told to it now; what it missed while its output was muted it can still read."""
        if self.internal:
            return True
        binding = bindings.get(self.channel_id or "")
        return binding is not None and not binding.output_muted

    def sees_visibility(
        self, visibility: str, source_id: str, bindings: Mapping[str, ChannelBinding], author: str | None = None
    ) -> bool:
        """As `sees`, for what is no event (yet): `source_id` is the channel it comes from, `author` who wrote it."""
        if self.internal:
            return True
        binding = bindings.get(self.channel_id or "")
        if binding is None or not binding.can_read:
            return False
        if source_id == binding.channel_id and own(author, self.person):
            return True
        return visible(visibility, binding.channel_id, binding.category, self.person or binding.participant_id)


INTERNAL = Viewer(internal=True)


@dataclass(slots=True)
class OpenStream:
    """A reply in the making. `visibility` is what its event will carry; `silent` streams are shown to nobody.
    `mute` tells whether this one has become so; `bindings` are the room's, as they are at any time."""

    start: StreamStart
    visibility: str
    bindings: Mapping[str, ChannelBinding]
    mute: Callable[[], bool] = lambda: False
    parts: list[str] = field(default_factory=lambda: [])
    length: int = 0
    silent: bool = False
    audience: tuple[Deliver, ...] = ()
    audience_of: int = -1
    judged_of: int = -1
    told: dict[int, Deliver] = field(default_factory=dict[int, Deliver])
    """Subscriptions that have seen it start, and must see its end."""
    lost: set[int] = field(default_factory=set[int])
    """Subscriptions that it was taken away from: they get the whole event at its end."""
    room_id: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        self.room_id, self.id = self.start.room_id, self.start.stream_id

    @property
    def text(self) -> str:
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""


@dataclass(slots=True)
class View:
    """A subscription with everything that came before it. `events` are the missed ones (or the tail), oldest first;
    `resync` says that too much was missed and that they are the tail instead; `start` is the index from which on the
    log was read for them. Later items go to `deliver`."""

    events: list[RoomEvent]
    index: int
    epoch: str
    resync: bool
    room: Room
    bindings: list[ChannelBinding]
    participants: list[Participant]
    streams: list[tuple[StreamStart, str]]
    close: Callable[[], None]
    start: int = 0


@dataclass(frozen=True, slots=True)
class ViewLost:
    """Nothing more comes to this subscription: the room has gone to another process. Open the view again, from the last
    index."""

    room_id: str


class Hub:
    """Subscribers of one room, grouped by viewer so that each visibility question is asked once per event."""

    __slots__ = ("_groups", "_ids", "_version", "streams")

    def __init__(self) -> None:
        self._groups: dict[Viewer, dict[int, Deliver]] = {}
        self._ids = 0
        self._version = 0
        self.streams: dict[str, OpenStream] = {}

    @property
    def idle(self) -> bool:
        return not self._groups and not self.streams

    @property
    def watched(self) -> bool:
        """Whether anybody looks on who sees what is internal."""
        return bool(self._groups) and any(viewer.internal for viewer in self._groups)

    def subscribe(self, viewer: Viewer, deliver: Deliver) -> Callable[[], None]:
        return self._subscribe(viewer, deliver)[1]

    def join(
        self, viewer: Viewer, deliver: Deliver, bindings: Mapping[str, ChannelBinding]
    ) -> tuple[Callable[[], None], list[tuple[StreamStart, str]]]:
        """Subscribes, and returns the replies in the making as far as they are."""
        number, leave = self._subscribe(viewer, deliver)
        growing = [s for s in self.streams.values() if viewer.hears(bindings) and self._shown(s, viewer, bindings)]
        for stream in growing:
            stream.told[number] = deliver
        return leave, [(stream.start, stream.text) for stream in growing]

    def _subscribe(self, viewer: Viewer, deliver: Deliver) -> tuple[int, Callable[[], None]]:
        self._ids += 1
        number = self._ids
        self._groups.setdefault(viewer, {})[number] = deliver
        self._version += 1

        def leave() -> None:
            self._version += 1
            for stream in self.streams.values():
                stream.told.pop(number, None)
            group = self._groups.get(viewer)
            if group is not None:
                group.pop(number, None)
                if not group:
                    self._groups.pop(viewer, None)

        return number, leave

    def reseat(self) -> None:
        """Seats have changed: who may hear a growing reply no more loses it at once."""
        self._version += 1
        for stream in self.streams.values():
            self._tune(stream)

    def viewers(self) -> int:
        return sum(map(len, self._groups.values()))

    def event(self, event: RoomEvent, bindings: Mapping[str, ChannelBinding]) -> None:
        for viewer, group in tuple(self._groups.items()):
            if viewer.sees(event, bindings) and viewer.hears(bindings):
                _hand(tuple(group.values()), event)

    def begin(self, stream: OpenStream) -> None:
        self.streams[stream.id] = stream
        stream.silent, stream.judged_of = stream.mute(), self._version
        self._tune(stream)

    def chunk(self, stream: OpenStream, delta: str) -> None:
        """The reply has grown. What may have changed with the room is asked only when that has changed."""
        if stream.judged_of != self._version:
            self._judge(stream)
        if stream.audience:
            item = chunk_of(stream.room_id, stream.id, stream.length, delta)
            for deliver in stream.audience:
                try:
                    deliver(item)
                except Exception:  # as in `_hand`
                    log.exception(_FAILED)
        stream.parts.append(delta)
        stream.length += len(delta)

    def _judge(self, stream: OpenStream) -> None:
        stream.judged_of = self._version
        if not stream.silent and stream.mute():
            self.silence(stream, "muted")
        if stream.audience_of != self._version:
            self._tune(stream)

    def _tune(self, stream: OpenStream) -> None:
        """Whoever may hear the reply now has it from its start; whoever may not any more loses it for good."""
        stream.audience_of = self._version
        now = {} if stream.silent else self._audience(stream)
        told = stream.told
        if now.keys() != told.keys():
            start = stream.start
            new = tuple(deliver for number, deliver in now.items() if number not in told)
            gone = {number: deliver for number, deliver in told.items() if number not in now}
            if gone:
                stream.lost.update(gone)
                _hand(tuple(gone.values()), _error(start, "withheld"))
            _hand(new, start)
            if stream.length:
                _hand(new, chunk_of(stream.room_id, stream.id, 0, stream.text))
        stream.told, stream.audience = now, tuple(now.values())

    def end(self, stream_id: str, event: RoomEvent, bindings: Mapping[str, ChannelBinding]) -> None:
        """The reply is stored: viewers of the event get it as StreamEnd, those who only saw it grow lose it again, and
        those who had lost it already get the plain event."""
        stream = self.streams.pop(stream_id, None)
        told: Mapping[int, Deliver] = stream.told if stream is not None else {}
        lost = stream.lost if stream is not None else frozenset[int]()
        done = StreamEnd.made(room_id=event.room_id, stream_id=stream_id, event=event)
        for viewer, group in tuple(self._groups.items()):
            if viewer.sees(event, bindings) and viewer.hears(bindings):
                _hand(tuple([deliver for n, deliver in group.items() if n not in lost]), done)
                _hand(tuple([deliver for n, deliver in group.items() if n in lost]), event)
            elif gone := tuple([deliver for n, deliver in group.items() if n in told]):
                error = _public(event.blocked_by or "withheld")
                _hand(gone, StreamError(room_id=event.room_id, stream_id=stream_id, error=error))

    def fail(self, stream_id: str, error: str) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            _hand(tuple(stream.told.values()), _error(stream.start, error))

    def lose(self, room_id: str) -> None:
        """The room goes to another process: everybody is told to look there."""
        groups, self._groups = self._groups, {}
        self.streams.clear()
        self._version += 1
        for group in groups.values():
            _hand(tuple(group.values()), ViewLost(room_id))

    def silence(self, stream: OpenStream, error: str) -> None:
        """The reply grows on unheard."""
        stream.silent = True
        stream.lost.update(stream.told)
        _hand(tuple(stream.told.values()), _error(stream.start, error))
        stream.told, stream.audience = {}, ()

    def ephemeral(self, message: Ephemeral, bindings: Mapping[str, ChannelBinding]) -> None:
        # A sign about a channel is not a sign of that channel: only its own public ones come back to it.
        visibility = _sign_visibility(message, bindings.get(message.sender))
        sender = message.sender if visibility not in ("internal", "none") else ""
        outside = message
        if message.kind == "tool":  # that something is done is for everybody, which tool does it is not
            outside = message.replaced(data={k: v for k, v in message.data.items() if k == "status"})
        for viewer, group in tuple(self._groups.items()):
            if viewer.sees_visibility(visibility, sender, bindings) and viewer.hears(bindings):
                _hand(tuple(group.values()), message if viewer.internal else outside)

    def _audience(self, stream: OpenStream) -> dict[int, Deliver]:
        bindings = stream.bindings
        return {
            number: deliver
            for viewer, group in self._groups.items()
            if self._shown(stream, viewer, bindings) and viewer.hears(bindings)
            for number, deliver in group.items()
            if number not in stream.lost
        }

    @staticmethod
    def _shown(stream: OpenStream, viewer: Viewer, bindings: Mapping[str, ChannelBinding]) -> bool:
        if stream.silent:
            return False
        source = stream.start.source
        return viewer.sees_visibility(stream.visibility, source.channel_id, bindings, source.participant_id)


_FAILED = "a subscriber of the room failed"


def _hand(audience: tuple[Deliver, ...], item: Any) -> None:
    for deliver in audience:
        try:
            deliver(item)
        except Exception:  # one broken subscriber must not cost the others their event
            log.exception(_FAILED)


def _error(start: StreamStart, error: str) -> StreamError:
    return StreamError(room_id=start.room_id, stream_id=start.stream_id, error=_public(error))


_CODES = {"source_muted": "muted", "source_read_only": "muted"}
_PUBLIC = frozenset({"cancelled", "error", "floor_changed", "interrupted", "muted", "room_closed", "timeout"})


def _public(reason: str) -> str:
    """A code for everybody: the names of guards and what a supervisor wrote are nobody else's business."""
    code = _CODES.get(reason, reason)
    return code if code in _PUBLIC else "withheld"


def _sign_visibility(message: Ephemeral, seat: ChannelBinding | None) -> str:
    """Signs of a channel go where its words would; those of an AI nowhere while it is muted."""
    if seat is None or message.visibility != "all":
        return message.visibility
    silent = seat.category is Category.INTELLIGENCE and (seat.muted or not seat.can_write)
    return "internal" if silent else seat.visibility
