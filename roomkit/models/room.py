"""Rooms, the seats of channels in them, and the people."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from roomkit.models.content import Frozen


class ChannelType(StrEnum):
    """Well-known channel types. The type is an open string: any other name works too."""

    SMS = "sms"
    RCS = "rcs"
    EMAIL = "email"
    WHATSAPP = "whatsapp"
    WHATSAPP_PERSONAL = "whatsapp_personal"
    MESSENGER = "messenger"
    TEAMS = "teams"
    TELEGRAM = "telegram"
    SLACK = "slack"
    DISCORD = "discord"
    HTTP = "http"
    WEBSOCKET = "websocket"
    AI = "ai"
    APP = "app"
    VOICE = "voice"
    REALTIME_VOICE = "realtime_voice"
    SYSTEM = "system"


class ChannelCapabilities(Frozen):
    """What a channel can carry; data, so that core never asks for a class.

    `max_length` is in characters, None is unlimited; `max_caption` is for what goes with a file, None is as long as
    any text, 0 is none. `media_per_message` is how many files go together in one.
    `shows_sender` is true where the other side sees who writes; elsewhere bridged messages are prefixed with the
    sender's name (D29).
    """

    text: bool = True
    rich: bool = False
    media: bool = False
    audio: bool = False
    video: bool = False
    location: bool = False
    templates: bool = False
    buttons: int = 0
    cards: bool = False
    quick_replies: bool = False
    threading: bool = False
    reactions: bool = False
    edit: bool = False
    delete: bool = False
    typing: bool = False
    read_receipts: bool = False
    tool_calls: bool = False
    shows_sender: bool = False
    max_length: int | None = None
    max_caption: int | None = None
    max_segments: int | None = None
    """How many SMS segments one text may take, where that counts."""
    media_types: tuple[str, ...] = ()
    max_media_bytes: int | None = None
    media_per_message: int = 1
    quiet_window_s: float = 0.0
    """How long an AI waits for further messages from this channel before its turn starts (D17)."""


class RoomStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    CLOSED = "closed"
    ARCHIVED = "archived"


_OPEN = (RoomStatus.ACTIVE, RoomStatus.PAUSED)  # Looked up once: in Python 3.11 that is a call each time.


class RoomTimers(Frozen):
    """Seconds of silence until PAUSED, and from PAUSED until CLOSED (D6). None never fires."""

    inactive_after_seconds: float | None = None
    closed_after_seconds: float | None = None


class FloorMode(StrEnum):
    AI = "ai"
    HUMAN = "human"
    BOTH = "both"
    NONE = "none"
    WAITING = "waiting"


class Floor(Frozen):
    """Who answers in this room (D26). `generation` rises whenever the AI loses the right to
    answer (or is kept from it); a reply commits only under its own."""

    mode: FloorMode = FloorMode.AI
    holder: str | None = None
    generation: int = 0
    lease_until: datetime | None = None
    lease_seconds: float = 120.0


class Attention(Frozen):
    """Somebody waits for a person (D27)."""

    reason: str
    requested_by: str
    since: datetime
    priority: int = 0


class OpenQuestion(Frozen):
    """A tool call that waits for a person's yes or no (D36). `id` is the approval's; `visibility` is who may know that
    something is asked."""

    id: str
    name: str
    since: datetime
    visibility: str = "all"


class AgentResponsePolicy(StrEnum):
    AGENT_CHAIN = "agent_chain"
    ADDRESSED_ONLY = "addressed_only"


class Origin(Frozen):
    """The event of another room after which a fork begins; up to it the two logs are alike."""

    room_id: str
    index: int
    event_id: str


class Room(Frozen):
    """A conversation: no content of its own, only its state. `latest_index` is -1 while the room is empty."""

    NOT_STORED: ClassVar = frozenset({"latest_index", "last_activity_at"})
    id: str
    tenant: str = "default"
    status: RoomStatus = RoomStatus.ACTIVE
    created_at: datetime
    updated_at: datetime
    paused_at: datetime | None = None
    closed_at: datetime | None = None
    external_id: str | None = None
    timers: RoomTimers = RoomTimers()
    floor: Floor = Floor()
    attention: Attention | None = None
    approvals: tuple[OpenQuestion, ...] = ()
    agent_response_policy: AgentResponsePolicy = AgentResponsePolicy.AGENT_CHAIN
    delivery: Literal["reach_once", "every_channel"] = "reach_once"
    language: str = "en"
    metadata: dict[str, Any] = Field(default_factory=dict)
    forked_from: Origin | None = None
    """Set in a fork: nothing leaves it, and its tools are answered from what they said in the original."""
    latest_index: int = -1
    last_activity_at: datetime | None = None

    @property
    def event_count(self) -> int:
        return self.latest_index + 1

    @property
    def waiting_since(self) -> datetime | None:
        """Since when a person is waited for: by somebody who asked for one, or by a tool call; None is not at all."""
        if self.attention is None and not self.approvals:
            return None
        asked = [one.since for one in self.approvals]
        return min([self.attention.since, *asked] if self.attention else asked, default=None)

    @property
    def open(self) -> bool:
        return self.status in _OPEN


class Access(StrEnum):
    READ_WRITE = "read_write"
    READ_ONLY = "read_only"
    WRITE_ONLY = "write_only"
    NONE = "none"


_READING, _WRITING = (Access.READ_WRITE, Access.READ_ONLY), (Access.READ_WRITE, Access.WRITE_ONLY)  # as `_OPEN`


class Category(StrEnum):
    TRANSPORT = "transport"
    INTELLIGENCE = "intelligence"


class Assurance(StrEnum):
    """How sure we are who is at the other end of a binding (D30)."""

    CLAIMED = "claimed"
    VERIFIED = "verified"
    AUTHENTICATED = "authenticated"

    @property
    def rank(self) -> int:
        """The surer, the higher."""
        return _RANKS[self]


_RANKS = {one: rank for rank, one in enumerate(Assurance)}


class ChannelBinding(Frozen):
    """A channel's seat in a room: its rights, its marks, and the address it reaches (in `metadata`)."""

    NOT_STORED: ClassVar = frozenset({"capabilities"})
    channel_id: str
    room_id: str
    channel_type: str
    tenant: str = "default"
    category: Category = Category.TRANSPORT
    direction: Literal["both", "inbound", "outbound"] = "both"
    access: Access = Access.READ_WRITE
    muted: bool = False
    output_muted: bool = False
    visibility: str = "all"
    participant_id: str | None = None
    assurance: Assurance = Assurance.CLAIMED
    last_read_index: int = -1
    attached_at: datetime
    capabilities: ChannelCapabilities = ChannelCapabilities()
    fallback_after_s: float | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def can_read(self) -> bool:
        return self.access in _READING

    @property
    def can_write(self) -> bool:
        return self.access in _WRITING


class Role(StrEnum):
    OWNER = "owner"
    AGENT = "agent"
    MEMBER = "member"
    OBSERVER = "observer"
    BOT = "bot"


class Membership(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"
    LEFT = "left"
    BANNED = "banned"


class Identification(StrEnum):
    IDENTIFIED = "identified"
    PENDING = "pending"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    CHALLENGE_SENT = "challenge_sent"
    REJECTED = "rejected"


def person_token(participant_id: str) -> str:
    """How a visibility names one person, beside channel ids: `person:` and the participant's id, whose commas, spaces
    and `%` are percent-encoded."""
    return "person:" + _SEPARATING.sub(lambda found: f"%{ord(found[0]):02X}", participant_id)


_SEPARATING = re.compile(r"[%,\s]")


class Participant(Frozen):
    """A person or bot in a room. `channel_id` is where they first appeared, `last_channel_id` where last."""

    id: str
    room_id: str
    tenant: str = "default"
    channel_id: str
    last_channel_id: str | None = None
    connected_via: tuple[str, ...] = ()
    display_name: str | None = None
    role: Role = Role.MEMBER
    status: Membership = Membership.ACTIVE
    identification: Identification = Identification.UNKNOWN
    identity_id: str | None = None
    candidates: tuple[str, ...] = ()
    address: str | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    joined_at: datetime
    metadata: dict[str, Any] = Field(default_factory=dict)


class Identity(Frozen):
    """Somebody the host knows. `addresses` maps a channel type to the addresses used there."""

    id: str
    tenant: str = "default"
    display_name: str | None = None
    addresses: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


class TaskStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Task(Frozen):
    """Work that somebody noted beside the conversation; kept even when the words were blocked."""

    id: str
    room_id: str = ""
    tenant: str = "default"
    title: str
    description: str = ""
    status: TaskStatus = TaskStatus.PENDING
    created_by: str | None = None
    created_at: datetime | None = None
    event_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class Observation(Frozen):
    """Something noticed beside the conversation (a mood, a fact, a score)."""

    id: str
    room_id: str = ""
    tenant: str = "default"
    kind: str
    content: str = ""
    confidence: float | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    event_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
