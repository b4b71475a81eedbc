"""The moments of a room's life: each class is a trigger for `kit.before` (guards) or `kit.on` (observers).

Guards may look at, change or stop what is about to happen; observers are told afterwards. A guard returns None or
`Allow()`, `Block(reason)` or `Modify(value)`, where `value` replaces the moment's `value`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar

from roomkit.models.ai import AIRequest
from roomkit.models.content import ToolCallContent
from roomkit.models.delivery import DeliveryRecord, InboundMessage, Outgoing
from roomkit.models.event import EventDraft, RoomEvent
from roomkit.models.room import Identity, Observation, Participant, Room, Task

T = TypeVar("T")


class Moment(Generic[T]):
    """One thing that is about to happen (`value` can be replaced by a guard) in `room`."""

    __slots__ = ("_room", "channel_id", "channel_type", "direction", "value")

    on_error: ClassVar[Literal["allow", "block"]] = "allow"
    """What becomes of it when a guard fails that was registered without `on_error`."""

    def __init__(
        self,
        room: Room | Callable[[], Room],
        value: T,
        channel_id: str = "",
        channel_type: str = "",
        direction: str = "",
    ) -> None:
        """`room` may be a function that makes it, for guards that never look."""
        self._room = room
        self.value = value
        self.channel_id = channel_id
        self.channel_type = channel_type
        self.direction = direction

    @property
    def room(self) -> Room:
        if not isinstance(self._room, Room):
            self._room = self._room()
        return self._room


class BeforeCommit(Moment[EventDraft]):
    """An event is about to be committed: inbound, injected or a reply. The seed's BEFORE_BROADCAST."""

    __slots__ = ()


class BeforeDelivery(Moment[Outgoing]):
    """One message is about to leave through a provider."""

    __slots__ = ()


class BeforeGeneration(Moment[AIRequest]):
    """A request is about to go to a model."""

    __slots__ = ()


class BeforeToolUse(Moment[ToolCallContent]):
    """A tool is about to run; runs after policy and schema, which are checked again after a change.

    What a tool has done cannot be undone: when its guard fails it does not run, unless the guard says otherwise."""

    __slots__ = ()
    on_error = "block"


class IdentityQuestion(Moment[InboundMessage]):
    """A sender could not be told for sure (`status` ambiguous, pending, unknown or rejected); a guard may answer with
    `Modify(IdentityAnswer)`."""

    __slots__ = ("candidates", "status")

    def __init__(self, room: Room, value: InboundMessage, status: str, candidates: tuple[Identity, ...], **more: Any):
        super().__init__(room, value, **more)
        self.status = status
        self.candidates = candidates


@dataclass(frozen=True, slots=True)
class IdentityAnswer:
    """What a guard decides about a sender: exactly one of resolved, pending, challenge, reject, create.

    `proof` goes with resolved and create: the message is the answer to a challenge (a code). It is kept, nobody else
    sees it, and what the sender wrote before it goes on."""

    outcome: str
    identity: Identity | None = None
    message: str | None = None
    reason: str | None = None
    proof: bool = False


@dataclass(frozen=True, slots=True)
class Injected:
    """An event that a guard adds after the one it looked at: stored, and shown to `targets` (None: stored only).
    It never wakes an AI."""

    draft: EventDraft
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    inject: tuple[Injected, ...] = ()
    tasks: tuple[Task, ...] = ()
    observations: tuple[Observation, ...] = ()
    metadata: dict[str, Any] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True)
class Block:
    reason: str
    inject: tuple[Injected, ...] = ()
    tasks: tuple[Task, ...] = ()
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class Modify:
    value: Any
    inject: tuple[Injected, ...] = ()
    tasks: tuple[Task, ...] = ()
    observations: tuple[Observation, ...] = ()
    metadata: dict[str, Any] = field(default_factory=lambda: {})


Decision = Allow | Block | Modify | None


@dataclass(frozen=True, slots=True)
class Notice:
    """Base of what observers hear: things that have happened. Not stored."""

    tenant: str
    room_id: str


@dataclass(frozen=True, slots=True)
class Committed(Notice):
    """An event is in the log: a message, or a record of the room's own life (created, muted, closed, joined ...)."""

    event: RoomEvent


@dataclass(frozen=True, slots=True)
class PersonErased(Notice):
    """Somebody's words are gone from this room: whoever keeps copies elsewhere (a search index) drops these events."""

    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivered(Notice):
    record: DeliveryRecord


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Notice):
    record: DeliveryRecord


@dataclass(frozen=True, slots=True)
class StatusChanged(Notice):
    """A vendor reported progress of an earlier delivery."""

    record: DeliveryRecord


@dataclass(frozen=True, slots=True)
class RoomRefused(Notice):
    """A closed or archived room refused an event; nothing was stored."""

    reason: str
    channel_id: str


@dataclass(frozen=True, slots=True)
class ChainDepthExceeded(Notice):
    event: RoomEvent


@dataclass(frozen=True, slots=True)
class HookFailed(Notice):
    hook: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class BreakerChanged(Notice):
    provider: str
    state: str


@dataclass(frozen=True, slots=True)
class IdentityResolved(Notice):
    participant: Participant


@dataclass(frozen=True, slots=True)
class IdentityTimedOut(Notice):
    channel_id: str
    sender_id: str


@dataclass(frozen=True, slots=True)
class SourceChanged(Notice):
    source: str
    connected: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskCreated(Notice):
    task: Task


@dataclass(frozen=True, slots=True)
class ReplyFinished(Notice):
    """An AI's reply ended; `event` is None when nothing was stored. Times in seconds."""

    channel_id: str
    reason: str
    event: RoomEvent | None
    usage: dict[str, int]
    first_token_s: float | None
    total_s: float
    started_at: datetime
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Thought(Notice):
    channel_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Trouble(Notice):
    """Something went wrong away from any caller (the seed's ON_ERROR)."""

    where: str
    error: BaseException
