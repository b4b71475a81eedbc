"""RoomEvent: one committed fact of a room. It never changes after its commit."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from roomkit.models.content import Content, Frozen, SystemContent, text_of

SCHEMA_VERSION = 1
"""Version of the stored form of an event; raised together with a migration."""


class EventType(StrEnum):
    __hash__ = str.__hash__  # an enum's own is a Python call, and this is a key everywhere

    MESSAGE = "message"
    SYSTEM = "system"
    NOTE = "note"
    REACTION = "reaction"
    EDIT = "edit"
    DELETE = "delete"
    TOOL_CALL_START = "tool_call_start"
    TOOL_CALL_END = "tool_call_end"
    STREAM_START = "stream_start"
    PARTICIPANT_JOINED = "participant_joined"
    PARTICIPANT_LEFT = "participant_left"
    PARTICIPANT_IDENTIFIED = "participant_identified"
    PARTICIPANT_UPDATED = "participant_updated"
    CHANNEL_ATTACHED = "channel_attached"
    CHANNEL_DETACHED = "channel_detached"
    CHANNEL_MUTED = "channel_muted"
    CHANNEL_UNMUTED = "channel_unmuted"
    CHANNEL_UPDATED = "channel_updated"
    ROOM_CREATED = "room_created"
    ROOM_PAUSED = "room_paused"
    ROOM_RESUMED = "room_resumed"
    ROOM_CLOSED = "room_closed"
    ROOM_REOPENED = "room_reopened"
    ROOM_ARCHIVED = "room_archived"
    FLOOR_CHANGED = "floor_changed"
    ATTENTION_CHANGED = "attention_changed"
    APPROVAL_REQUESTED = "approval_requested"
    APPROVAL_ANSWERED = "approval_answered"
    TASK_CREATED = "task_created"
    OBSERVATION = "observation"
    DELIVERY_FAILED = "delivery_failed"
    DTMF = "dtmf"
    RECORDING_STARTED = "recording_started"
    RECORDING_STOPPED = "recording_stopped"


CONVERSATION_TYPES = frozenset({EventType.MESSAGE, EventType.EDIT, EventType.DELETE, EventType.REACTION})
"""Events that people and agents write; the rest is the framework's timeline."""


class EventStatus(StrEnum):
    """What the commit decided. Delivery and read state live in their own records (D21)."""

    COMMITTED = "committed"
    BLOCKED = "blocked"
    DRAFT = "draft"


_BLOCKED = EventStatus.BLOCKED  # Looked up once: in Python 3.11 that is a call each time.


class EventSource(Frozen):
    """Where an event came from. `raw_payload` is the vendor's body, unmodified."""

    channel_id: str
    channel_type: str
    direction: Literal["inbound", "outbound", "internal"] = "inbound"
    participant_id: str | None = None
    external_id: str | None = None
    provider: str | None = None
    provider_message_id: str | None = None
    raw_payload: Any = None


class RoomEvent(Frozen):
    """One fact of a room's log.

    `index` is gapless from 0 within the room. `visibility` is stamped at commit (D9): "all", "none", "internal",
    "transport", "intelligence", or names separated by commas: channel ids and persons (`person_token`).
    `addressed_to`: None is everybody, () nobody, else the intelligence channels asked to answer. `chain_depth` is 0 for
    what comes from outside.
    """

    id: str
    room_id: str
    index: int = Field(ge=0)
    type: EventType = EventType.MESSAGE
    source: EventSource
    content: Content
    created_at: datetime
    tenant: str = "default"
    status: EventStatus = EventStatus.COMMITTED
    blocked_by: str | None = None
    blocked_reason: str | None = None
    visibility: str = "all"
    addressed_to: tuple[str, ...] | None = None
    chain_depth: int = Field(default=0, ge=0)
    parent_event_id: str | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    channel_data: dict[str, Any] = Field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def text(self) -> str:
        """The human-readable text of the content, empty when there is none."""
        return text_of(self.content)

    @property
    def blocked(self) -> bool:
        return self.status is _BLOCKED


class EventDraft(Frozen):
    """An event before its commit: what the writer wants; the room adds id, index, time and the verdict."""

    source: EventSource
    content: Content
    type: EventType = EventType.MESSAGE
    event_id: str | None = None
    visibility: str = "all"
    addressed_to: tuple[str, ...] | None = None
    chain_depth: int = Field(default=0, ge=0)
    parent_event_id: str | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    channel_data: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        return text_of(self.content)


def who_left(event: RoomEvent) -> str | None:
    """The participant of whom this event tells that they left, or were removed or banned."""
    content = event.content
    if event.type is not EventType.PARTICIPANT_LEFT or not isinstance(content, SystemContent):
        return None
    return content.data.get("participant_id")
