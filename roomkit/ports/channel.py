"""Channel: what stands around a room; and RoomPort, what a channel may do to its room."""

from __future__ import annotations

from abc import ABC
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from roomkit.models.content import ToolCallContent
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, InboundMessage, draft_of
from roomkit.models.event import EventDraft, RoomEvent
from roomkit.models.room import (
    Category,
    ChannelBinding,
    ChannelCapabilities,
    Observation,
    Participant,
    Room,
    Task,
)
from roomkit.models.stream import Ephemeral, ReplyPart, StreamMessage

if TYPE_CHECKING:
    from roomkit.ports.audio import LivePort


@dataclass(frozen=True, slots=True)
class TurnPolicy:
    """What an intelligence channel does with messages that arrive while it is at work (D17).

    `coalesce` lets them join the next turn; `queue` gives each its own turn; `interrupt` cancels the running one.
    `quiet_s` overrides the source channel's quiet window. `on_crash` says whether an interrupted turn is asked again.
    """

    mode: Literal["coalesce", "queue", "interrupt"] = "coalesce"
    quiet_s: float | None = None
    on_crash: Literal["close", "ask_again"] = "close"


@dataclass(frozen=True, slots=True)
class ChannelOutput:
    """What a channel answers to an event: whole events or one stream, never both; and side records, kept always."""

    response_events: tuple[EventDraft, ...] = ()
    response_stream: AsyncIterator[ReplyPart] | None = None
    tasks: tuple[Task, ...] = ()
    observations: tuple[Observation, ...] = ()
    metadata_updates: dict[str, Any] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """A person's answer to a tool call: granted or not, by whom, and why."""

    granted: bool
    by: str | None = None
    reason: str | None = None
    expired: bool = False


class WatchPort(Protocol):
    """How a channel of cursors finds its rooms and reads their logs as itself."""

    async def open_view(
        self, room_id: str, deliver: Callable[[Any], None], *, after: int | None = None, tail: int = 0
    ) -> Any:
        """As `kit.open_view`, seen as this channel: a `View` of what was missed, then everything live."""
        ...

    async def open_rooms(self, limit: int = 100) -> list[str]:
        """The open rooms that this channel has a seat in."""
        ...

    def resident_rooms(self) -> list[str]:
        """Those of them that are in memory now."""
        ...


class RoomPort(Protocol):
    """The narrow way from a channel back to the rooms; channels never hold the RoomKit (D48)."""

    @property
    def tenant(self) -> str:
        """Whose rooms these are."""
        ...

    def of_tenant(self, tenant: str) -> RoomPort:
        """The same for another tenant's rooms; `ChannelNotFound` unless the channel is shared by all tenants."""
        ...

    @property
    def watch(self) -> WatchPort:
        """For channels that read the log at their own pace."""
        ...

    @property
    def vault(self) -> VaultPort:
        """For what a channel has to remember."""
        ...

    @property
    def links(self) -> LinkPort:
        """For channels whose messages refer to others."""
        ...

    @property
    def live(self) -> LivePort:
        """For channels that carry calls."""
        ...

    async def process_inbound(self, message: InboundMessage, *, room_id: str | None = None) -> Any:
        """Hands an inbound message to the kit, for a room that it finds or is told; returns its InboundResult."""
        ...

    async def submit(self, room_id: str, draft: EventDraft) -> RoomEvent:
        """Commits an event of this channel's own in a room it is bound to."""
        ...

    def publish(self, message: Ephemeral) -> None:
        """Sends a sign of life to whoever watches the room; never stored, never waits."""
        ...

    def subscribe(self, room_id: str, deliver: Callable[[Any], None], *, channel_id: str) -> Callable[[], None]:
        """Hears replies in the making, then events and stream messages that `channel_id` may see; returns the way out.

        Only for rooms in memory: `RoomNotFound` otherwise, then `watch.open_view` loads it."""
        ...

    def now(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Statement:
    """What was spent, by kind: (age in seconds, amount), the oldest first, as it was `age_s` seconds ago. `by` is the
    process that wrote it down; `mine` says that it was this one."""

    by: str
    mine: bool
    age_s: float
    spent: Mapping[str, Sequence[Sequence[float]]]


Account = Callable[[], Mapping[str, Sequence[Sequence[float]]]]


class LedgerPort(Protocol):
    """Where what a turn spends is written down (D44)."""

    async def recall(self, name: str) -> tuple[Statement | None, list[Statement]]:
        """What this room has spent, and what its tenant has according to each other process (or earlier run)."""
        ...

    def remember(self, name: str, room: Account, tenant: Account) -> None:
        """Writes both down with the room's next commit; they are asked for then."""
        ...


class VaultPort(Protocol):
    """Small durable values of a channel's own, by name, that live as long as the store; one whose name ends in " " and
    an address, until whoever is reached there is erased."""

    async def get(self, name: str) -> dict[str, Any] | None: ...

    async def put(self, name: str, value: dict[str, Any]) -> None: ...


class TurnPort(Protocol):
    """What a running turn may ask of its room."""

    @property
    def turn_id(self) -> str: ...

    @property
    def ledger(self) -> LedgerPort: ...

    async def approve(self, call: ToolCallContent, *, expires_s: float) -> ApprovalAnswer:
        """Durably asks a person (D36); the answer is bound to the name and arguments of `call`."""
        ...

    async def request_human(self, reason: str) -> None:
        """Puts the room into the attention queue (D27)."""
        ...

    async def guard_generation(self, request: Any) -> Any:
        """Runs the `BeforeGeneration` guards: returns the request to use or a `Block`."""
        ...

    def for_model(self, events: Sequence[RoomEvent]) -> Sequence[RoomEvent]:
        """The events without what the kit's redaction keeps from models: for who sums them up or makes an index."""
        ...

    async def guard_tool(self, call: ToolCallContent) -> Any:
        """Runs the `BeforeToolUse` guards: returns the call to run or a `Block`."""
        ...

    async def tool_progress(self, call: ToolCallContent, note: str = "") -> None:
        """Tells watchers that a tool is running (ephemeral)."""
        ...

    def spent(self, usage: Mapping[str, int], model: str | None, money: float) -> None:
        """Counts what one generation of this turn used: tokens by kind, and money where it has a price."""
        ...


class LinkPort(Protocol):
    """What a vendor calls the messages of a room."""

    async def ids_of(self, room_id: str, event_id: str, *, sent: bool = False) -> tuple[str, ...]:
        """The vendor's ids of an event on this channel: one as it was received, or one for each part as it was
        delivered; with `sent` only the latter. Empty where the vendor never saw it."""
        ...

    async def heard_since(self, room_id: str, since: datetime) -> bool:
        """Whether anybody has written into the room through this channel after that moment."""
        ...


MediaReader = Callable[[str, int], Awaitable[bytes | None]]
"""(blob: URL, most bytes) -> the file; None when this room has no such file or it is larger."""


@dataclass(slots=True)
class RoomContext:
    """What a channel knows of its room while it handles one event. `history` reads what this channel may see,
    oldest first, newest at the end; `events` are those that made this turn, oldest first;
    `media` reads stored files of the room; `answers` is set in a fork, where no tool may run: it tells what a call came
    to in the original, None when it was not made there."""

    room: Room
    binding: ChannelBinding
    bindings: Sequence[ChannelBinding]
    participants: Sequence[Participant]
    history: Callable[[int], Awaitable[list[RoomEvent]]]
    turn: TurnPort | None = None
    events: Sequence[RoomEvent] = ()
    state: dict[str, Any] = field(default_factory=lambda: {})
    media: MediaReader | None = None
    answers: Callable[[ToolCallContent], Awaitable[ToolCallContent | None]] | None = None


class Channel(ABC):  # noqa: B024 - every method has a sensible default; a channel overrides what it has
    """A way into and out of rooms. One object serves many rooms: keep no room's state on it without its id.

    `reach` says how the room gets to it (D16): "outbox" through durable delivery rows, "cursor" as a reader of the
    log (sockets), "turn" as a durable turn that may answer (intelligence).
    """

    reach: Literal["outbox", "cursor", "turn"] = "outbox"
    category: Category = Category.TRANSPORT
    direction: Literal["both", "inbound", "outbound"] = "both"
    turn_policy: TurnPolicy = TurnPolicy()
    delivery_policy: DeliveryPolicy = DeliveryPolicy()
    names_senders: bool = False
    """True where the channel itself tells who writes, so that identity resolution is skipped."""

    personal: bool | None = None
    """Whether each sender has rooms of their own, found again by address; None: where the room writes to them there."""

    def __init__(self, channel_id: str, channel_type: str, *, capabilities: ChannelCapabilities | None = None) -> None:
        self.personal = self.reach == "outbox" if self.personal is None else self.personal
        self.channel_id = channel_id
        self.channel_type = channel_type
        self.capabilities = capabilities or ChannelCapabilities()
        self.port: RoomPort | None = None

    @property
    def supports_streaming_delivery(self) -> bool:
        return False

    @property
    def taken_back(self) -> Callable[[str, str, str], Awaitable[None]] | None:
        """What hears (tenant, room, event id) of what is deleted, edited or erased; for a channel that keeps words."""
        return None

    def set_framework(self, port: RoomPort) -> None:
        """Called once at registration with the narrow port."""
        self.port = port

    async def handle_inbound(self, message: InboundMessage, context: Any = None) -> EventDraft:
        """Turns an inbound message into the event to be committed."""
        return draft_of(message, self.channel_type)

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        """Reacts to an event of the room (intelligence channels answer here). Default: nothing."""
        return ChannelOutput()

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        """Takes an event to the other side; called for "outbox" channels, in room order, at least once."""
        return DeliveryResult.made(success=True)

    async def deliver_stream(
        self, stream: AsyncIterator[StreamMessage], binding: ChannelBinding, context: RoomContext
    ) -> None:
        """Takes a reply to the other side while it is made. Default: reads it to its end."""
        async for _ in stream:
            pass

    async def connect_session(self, session: Any, room_id: str, binding: ChannelBinding) -> None:
        """A live session arrived with an inbound message. Default: nothing."""

    async def disconnect_session(self, session: Any, room_id: str) -> None:
        """The far end of a live session has gone. Default: nothing."""

    def update_binding(self, binding: ChannelBinding) -> None:
        """The binding changed (mute, access, visibility); live gates must see it at once. Default: nothing."""

    async def close(self) -> None:
        """Releases what the channel holds. Default: nothing."""
