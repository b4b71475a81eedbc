"""Every frame of the room socket. The server refuses unknown fields of a client; a client ignores those of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from roomkit.models.content import Content, Frozen, TextContent

VERSION = 1

CLOSE_CODES = {
    1001: "the server is going away: reconnect and resume",
    1009: "a frame is over the size limit",
    1011: "internal error: reconnect and resume",
    1013: "too many connections: reconnect and resume later",
    4400: "the protocol was broken",
    4401: "not authenticated: get a token, then resume",
    4403: "this principal may not use the socket",
    4408: "read too slowly: reconnect and resume",
    4409: "silent for too long: reconnect and resume",
    4429: "over the rate limit for too long: pause, then reconnect and resume",
}
FINAL_CODES = frozenset({1009, 4400, 4403})
"""After these a client must not come back as it is; 4401 needs a new token first, all others are resumable."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do. Rates are per second; `*_burst` is what may come at once."""

    frame_bytes: int = 65_536
    text_chars: int = 8_000
    sends_per_s: float = 10.0
    sends_burst: float = 20.0
    frames_per_s: float = 40.0
    frames_burst: float = 80.0
    history_limit: int = 200
    violations: int = 100
    """Frames in a row that may be refused before the connection is closed."""


# What a client says. Strict: "1" is not 1, and nothing unknown passes.


class _Client(Frozen):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Auth(_Client):
    type: Literal["auth"] = "auth"
    token: str = Field(min_length=1, max_length=4096, repr=False)
    v: int


class Resume(_Client):
    epoch: str = Field(max_length=128)
    index: int = Field(ge=-1, lt=2**53)


class Join(_Client):
    type: Literal["join"] = "join"
    room_id: str = Field(min_length=1, max_length=256)
    resume: Resume | None = None
    tail: int = Field(default=50, ge=0, le=200)


class Leave(_Client):
    type: Literal["leave"] = "leave"


class Send(_Client):
    """Exactly one of `text` and `content`."""

    type: Literal["send"] = "send"
    client_id: str = Field(min_length=1, max_length=64)
    text: str | None = Field(default=None, min_length=1)
    content: Content | None = None
    parent: str | None = Field(default=None, min_length=1, max_length=128)

    @model_validator(mode="after")
    def _one_body(self) -> Send:
        if (self.text is None) == (self.content is None):
            raise ValueError("give exactly one of text and content")
        return self

    @property
    def body(self) -> Content:
        return self.content if self.content is not None else TextContent(text=self.text or "")


class Typing(_Client):
    type: Literal["typing"] = "typing"
    on: bool


class Presence(_Client):
    type: Literal["presence"] = "presence"
    state: Literal["online", "away", "offline"]


class Read(_Client):
    type: Literal["read"] = "read"
    index: int = Field(ge=0, lt=2**53)


class History(_Client):
    type: Literal["history"] = "history"
    before: int = Field(ge=0, lt=2**53)
    limit: int = Field(default=50, ge=1, le=200)


class Watch(_Client):
    type: Literal["watch"] = "watch"
    on: bool


class Ping(_Client):
    type: Literal["ping"] = "ping"
    t: int | float | str | None = Field(default=None)


ClientFrame = Auth | Join | Leave | Send | Typing | Presence | Read | History | Watch | Ping
CLIENT_TYPES: dict[str, type[_Client]] = {
    str(model.model_fields["type"].default): model
    for model in (Auth, Join, Leave, Send, Typing, Presence, Read, History, Watch, Ping)
}
NEEDS_ROOM = (Leave, Send, Typing, Presence, Read, History)


# What a server says. Lenient, so that an older client survives a newer server.


class _Server(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Welcome(_Server):
    type: Literal["welcome"] = "welcome"
    v: int
    principal: dict[str, Any]
    heartbeat_s: float
    expires_at: float | None = None
    limits: dict[str, Any] = Field(default_factory=dict)


class OpenStream(_Server):
    """A reply in the making. `offset` is the length of `text` in code points: the next chunk goes on there."""

    stream_id: str
    source: dict[str, Any] = Field(default_factory=dict)
    parent_event_id: str | None = None
    text: str = ""
    offset: int = 0


class _View(_Server):
    room_id: str
    epoch: str
    index: int
    room: dict[str, Any]
    participants: list[dict[str, Any]]
    events: list[dict[str, Any]]
    more: bool = False
    streams: list[OpenStream] = Field(default_factory=list[OpenStream])
    bindings: list[dict[str, Any]] | None = None
    viewers: list[dict[str, Any]] | None = None


class Snapshot(_View):
    type: Literal["snapshot"] = "snapshot"


class Resumed(_View):
    """`events` are exactly those after `from_index` that this viewer may see."""

    type: Literal["resumed"] = "resumed"
    from_index: int = Field(alias="from")


class ResyncRequired(_Server):
    type: Literal["resync_required"] = "resync_required"
    room_id: str
    reason: str


class EventFrame(_Server):
    type: Literal["event"] = "event"
    index: int
    prev: int
    event: dict[str, Any]


class StreamStartFrame(_Server):
    type: Literal["stream_start"] = "stream_start"
    room_id: str
    stream_id: str
    source: dict[str, Any] = Field(default_factory=dict)
    parent_event_id: str | None = None


class StreamChunkFrame(_Server):
    type: Literal["stream_chunk"] = "stream_chunk"
    room_id: str
    stream_id: str
    offset: int
    delta: str


class StreamEndFrame(_Server):
    type: Literal["stream_end"] = "stream_end"
    room_id: str
    stream_id: str
    index: int
    prev: int
    event: dict[str, Any]


class StreamErrorFrame(_Server):
    type: Literal["stream_error"] = "stream_error"
    room_id: str
    stream_id: str
    error: str


class Ack(_Server):
    type: Literal["ack"] = "ack"
    client_id: str
    index: int
    event_id: str
    duplicate: bool = False


class Nack(_Server):
    type: Literal["nack"] = "nack"
    client_id: str
    code: str
    message: str
    retry_after: float | None = None


class EphemeralFrame(_Server):
    type: Literal["ephemeral"] = "ephemeral"
    room_id: str
    kind: str
    sender: str
    data: dict[str, Any] = Field(default_factory=dict)


class RoomFrame(_Server):
    type: Literal["room"] = "room"
    room: dict[str, Any]


class RoomsFrame(_Server):
    type: Literal["rooms"] = "rooms"
    rooms: list[dict[str, Any]]


class HistoryFrame(_Server):
    type: Literal["history"] = "history"
    room_id: str
    events: list[dict[str, Any]]
    more: bool = False


class ErrorFrame(_Server):
    type: Literal["error"] = "error"
    code: str
    message: str
    ref: str | None = None
    retry_after: float | None = None


class Pong(_Server):
    type: Literal["pong"] = "pong"
    t: int | float | str | None = None


ServerFrame = Annotated[
    Welcome
    | Snapshot
    | Resumed
    | ResyncRequired
    | EventFrame
    | StreamStartFrame
    | StreamChunkFrame
    | StreamEndFrame
    | StreamErrorFrame
    | Ack
    | Nack
    | EphemeralFrame
    | RoomFrame
    | RoomsFrame
    | HistoryFrame
    | ErrorFrame
    | Pong,
    Field(discriminator="type"),
]
SERVER_FRAME: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)
