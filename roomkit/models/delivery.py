"""What comes in, what goes out, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from roomkit.models.content import Content, Frozen, TextContent, VendorText, blank, text_of
from roomkit.models.event import EventDraft, EventSource, EventType
from roomkit.models.room import Assurance


class Attachment(Frozen):
    """A file that the vendor holds: fetched with the vendor's own credentials, before the room sees the message."""

    url: str
    mime_type: str | None = None
    filename: str | None = None
    size_bytes: int | None = None
    needs_auth: bool = False


class InboundMessage(Frozen):
    """A message as a channel received it, before a room is found for it.

    `external_id` is the provider's id of the message: the dedupe key (D22). `sender_id` is the address it claims
    to come from. `session` carries a live voice session where there is one.

    `conversation_id` is where it was said, when that is not the sender's own address (a group, a channel of a team):
    the room is found by it and answers go there; with `group` the seat is nobody's own. `about_id` is the vendor's id
    of the message that this one answers, edits, deletes or reacts to: the kit puts our own id in its place, and in
    `about_room` the room of what it answers, which is then preferred among the sender's own.
    """

    channel_id: str
    sender_id: str
    content: Content
    external_id: VendorText | None = None
    type: EventType = EventType.MESSAGE
    recipient_id: str | None = None
    conversation_id: VendorText | None = None
    group: bool = False
    about_id: VendorText | None = None
    about_room: str | None = None
    sender_name: str | None = None
    participant_id: str | None = None
    parent_event_id: str | None = None
    addressed_to: tuple[str, ...] | None = None
    visibility: str = "all"
    attachments: tuple[Attachment, ...] = ()
    provider: str | None = None
    assurance: Assurance = Assurance.CLAIMED
    """How sure the channel is of its sender: an address alone is a claim (D30)."""
    sent_at: datetime | None = None
    raw_payload: Any = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    channel_data: dict[str, Any] = Field(default_factory=dict)
    session: Any = None

    @property
    def address(self) -> str:
        """Where answers go: the conversation, or the sender."""
        return self.conversation_id or self.sender_id

    @classmethod
    def text(cls, channel_id: str, sender_id: str, text: str, **more: Any) -> InboundMessage:
        """The short form for a plain text message."""
        return cls(channel_id=channel_id, sender_id=sender_id, content=TextContent(text=text), **more)


class Outgoing(Frozen):
    """One part of one event on its way to one recipient; what a MessageProvider sends.

    `idempotency_key` is room:index:channel:part (by a second way room:index:channel:way:part), stable over retries.
    `extra` holds the channel's `defaults`, resolved against the binding (S24, S25). `about_ids` are the vendor's ids of
    the message that this one edits, deletes, reacts to, or answers in a thread: one for each part that it was sent in.
    `window_open` says, of a network that lets businesses only answer, whether somebody has written lately enough.
    """

    recipient: str
    content: Content
    channel_id: str
    room_id: str
    event_id: str
    idempotency_key: str
    part: int = 0
    parts: int = 1
    tenant: str = "default"
    about_ids: tuple[VendorText, ...] = ()
    window_open: bool | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        return text_of(self.content)


class DeliveryState(StrEnum):
    """A lattice: a state only moves forward, and FAILED is terminal."""

    HELD = "held"
    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    SKIPPED = "skipped"


_RANK = {
    DeliveryState.HELD: 0,
    DeliveryState.QUEUED: 1,
    DeliveryState.SENT: 2,
    DeliveryState.DELIVERED: 3,
    DeliveryState.READ: 4,
    DeliveryState.FAILED: 5,
    DeliveryState.SKIPPED: 5,
}


def forward(old: DeliveryState, new: DeliveryState) -> DeliveryState:
    """The state after hearing `new` while in `old`: late and repeated news change nothing."""
    if old in (DeliveryState.FAILED, DeliveryState.SKIPPED):
        return old
    if new is DeliveryState.FAILED and _RANK[old] >= _RANK[DeliveryState.DELIVERED]:
        return old
    return new if _RANK[new] > _RANK[old] else old


def together(states: Collection[DeliveryState]) -> DeliveryState:
    """The state of a message in several parts: failed with any of them, else as far as the one that is least far."""
    least = min(states, key=_RANK.__getitem__)
    return DeliveryState.FAILED if DeliveryState.FAILED in states else least


class DeliveryResult(Frozen):
    """What a channel or provider says about one delivery. `success=False` reaches retry, breaker and report.

    `reference` is our own name of the message, where answers to it carry that one and not the vendor's."""

    success: bool
    state: DeliveryState = DeliveryState.SENT
    provider_message_id: VendorText | None = None
    reference: VendorText | None = None
    error: VendorText | None = None
    code: VendorText | None = None
    retryable: bool = False
    retry_after: float | None = None
    ambiguous: bool = False
    parts: tuple[VendorText, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)


class DeliveryStatus(Frozen):
    """News from a vendor about a message sent earlier (a status callback); with `until`, about everything that went to
    `recipient` up to then."""

    channel_id: str
    provider_message_id: VendorText
    state: DeliveryState
    error: VendorText | None = None
    code: VendorText | None = None
    at: datetime | None = None
    recipient: VendorText | None = None
    until: datetime | None = None
    via: str | None = None
    """What has carried it, where a channel has two ways ("rcs" or "sms")."""
    raw_payload: Any = None


class DeliveryRecord(Frozen):
    """The durable record of one event's delivery to one channel: what a dashboard shows, with the reason.

    `parts` are the vendor's names of the parts that a message went in, `part_states` what it has said of each where
    there are several. `details` is what the channel tells: `via` and `instead_of` (why not the usual way), `segments`
    and `encodings` of each part of an SMS.
    """

    room_id: str
    index: int
    event_id: str
    channel_id: str
    state: DeliveryState
    reason: str | None = None
    attempts: int = 0
    provider_message_id: str | None = None
    maybe_duplicate: bool = False
    parts: tuple[str, ...] = ()
    part_states: dict[str, DeliveryState] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A webhook as received: the signature is checked over `body`, byte for byte. `url` is the configured public
    URL with path and query, never one guessed from headers. Header names are lower-case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """What the door answers to the vendor after the commit."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"


def draft_of(message: InboundMessage, channel_type: str, participant_id: str | None = None) -> EventDraft:
    """The plain translation of an inbound message; channels refine it. `participant_id` says whose it really is."""
    said = vars(message)
    source = _source()
    source["channel_id"] = said["channel_id"]
    source["channel_type"] = channel_type
    source["participant_id"] = participant_id or said["participant_id"]
    source["external_id"] = said["sender_id"]
    source["provider"] = said["provider"] or channel_type
    source["provider_message_id"] = said["external_id"]
    source["raw_payload"] = said["raw_payload"]
    draft = _draft()
    draft["source"] = EventSource.trusted(source)
    draft["content"] = said["content"].lean()
    draft["type"] = said["type"]
    draft["visibility"] = said["visibility"]
    draft["addressed_to"] = said["addressed_to"]
    draft["parent_event_id"] = said["parent_event_id"]
    draft["idempotency_key"] = said["external_id"]
    draft["metadata"] = said["metadata"]
    draft["channel_data"] = said["channel_data"]
    return EventDraft.trusted(draft)


_source, _draft = blank(EventSource), blank(EventDraft)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How an "outbox" channel is delivered to; all times in seconds (R4, R5, D23).

    After `max_retries` failed retries an item goes to the dead letters and the lane goes on; with `on_poison="hold"`
    the lane waits for a person, who sends the letter again or discards it. `idempotent` says that the far end
    recognises a repeated idempotency key; otherwise the attempt is noted durably before it is made (in the event's own
    transaction where it follows at once), so that a crash in between shows as `maybe_duplicate`, and
    `on_ambiguous="stop_and_ask"` sends such an item to the dead letters instead of again.
    `rate_per_s` limits the channel, `recipient_rate_per_s` each address; `destinations` are the only beginnings of an
    address that are allowed (empty: all), against toll fraud (D44).
    """

    max_retries: int = 3
    base_delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    timeout_s: float = 30.0
    on_poison: str = "continue"
    on_ambiguous: str = "retry"
    idempotent: bool = False
    rate_per_s: float | None = None
    burst: float | None = None
    recipient_rate_per_s: float | None = None
    destinations: tuple[str, ...] = ()
    holds: bool = field(init=False, repr=False, compare=False)
    """Whether what fails for good holds up what comes after it."""
    paced: bool = field(init=False, repr=False, compare=False)
    """Whether a delivery may have to wait for its turn."""
    slow: bool = field(init=False, repr=False, compare=False)
    """Whether a delivery may not simply be made: it is paced, held up, or not allowed to go just anywhere."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", self.on_poison == "hold")
        object.__setattr__(self, "paced", self.rate_per_s is not None or self.recipient_rate_per_s is not None)
        object.__setattr__(self, "slow", self.paced or self.holds or bool(self.destinations))
