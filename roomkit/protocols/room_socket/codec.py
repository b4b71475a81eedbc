"""The server's side of the room socket, without I/O and without a clock: text in, decisions and text out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from roomkit.errors import LocalProtocolError
from roomkit.models.content import text_of
from roomkit.models.stream import StreamMessage, StreamStart
from roomkit.protocols.room_socket.messages import (
    CLIENT_TYPES,
    NEEDS_ROOM,
    VERSION,
    Auth,
    ClientFrame,
    Limits,
    Send,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that was not accepted; `reply` is what the client is told. The connection stays."""

    reply: str
    code: str


@dataclass(frozen=True, slots=True)
class Close:
    """The connection must end with this code."""

    code: int
    reason: str


@dataclass(slots=True)
class Chunk:
    """A piece of a reply on its way out. Kept apart from other frames so that a slow reader gets fewer, larger ones.
    One object may go to many viewers: its text is made once."""

    room_id: str
    stream_id: str
    offset: int
    delta: str
    text: str | None = field(default=None, compare=False, repr=False)


Outgoing = str | Chunk


def wire(item: Outgoing) -> str:
    """The text message for something to be sent."""
    if isinstance(item, str):
        return item
    if item.text is None:
        item.text = (
            f'{{"type":"stream_chunk","room_id":{_quote(item.room_id)},"stream_id":{_quote(item.stream_id)},'
            f'"offset":{item.offset},"delta":{_quote(item.delta)}}}'
        )
    return item.text


def merge_outgoing(last: Outgoing, new: Outgoing) -> Outgoing | None:
    """Joins two adjacent chunks of one reply; everything else stays apart."""
    if type(last) is not Chunk or type(new) is not Chunk or last.stream_id != new.stream_id:
        return None
    if last.offset + len(last.delta) != new.offset or last.room_id != new.room_id:
        return None
    return Chunk(last.room_id, last.stream_id, last.offset, last.delta + new.delta)


def size_outgoing(item: Outgoing) -> int:
    """The share of a connection's buffer, in characters."""
    return len(item) if isinstance(item, str) else len(item.delta) + 64


class ServerSession:
    """One connection: what has been said, what may be said next, and where this viewer stands in the log.

    `receive` takes the loop's time as an argument. The session knows neither rooms nor principals: its owner
    decides, and tells it with `authenticated`, `entered` and `left`.
    """

    __slots__ = ("_bad", "_frames", "_limits", "_sends", "authenticated", "position", "room_id")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._frames = _Bucket(self._limits.frames_per_s, self._limits.frames_burst)
        self._sends = _Bucket(self._limits.sends_per_s, self._limits.sends_burst)
        self._bad = 0
        self.authenticated = False
        self.room_id: str | None = None
        self.position = -1

    def receive(self, data: str | bytes, now: float) -> ClientFrame | Refused | Close:
        """Judges one message of the client at loop time `now` (seconds)."""
        if isinstance(data, bytes):
            return Close(4400, "binary messages are not part of this protocol")
        verdict = self._judge(data, now)
        if not isinstance(verdict, Refused):
            self._bad = 0
            return verdict
        if not self.authenticated:
            return Close(4400, "the first frame must be a valid auth")
        self._bad += 1
        if self._bad >= self._limits.violations:
            if verdict.code == "rate_limited":
                return Close(4429, "over the rate limit for too long")
            return Close(4400, f"{self._bad} frames in a row were refused")
        return verdict

    def _judge(self, data: str, now: float) -> ClientFrame | Refused | Close:
        if len(data) > self._limits.frame_bytes or len(data.encode("utf-8", "replace")) > self._limits.frame_bytes:
            return _refused("too_large", f"a frame has at most {self._limits.frame_bytes} bytes")
        raw = _object(data)
        if raw is None:
            return _refused("bad_json", "a frame is one JSON object")
        kind = raw.get("type")
        model = CLIENT_TYPES.get(kind) if isinstance(kind, str) else None
        if not self._frames.take(now):
            return self._about(raw, "rate_limited", "too many frames; slow down", self._frames.wait())
        if model is None:
            return _refused("unknown_type", f"there is no frame of type {kind!r:.60}")
        try:
            frame: Any = model.model_validate(raw)
        except ValidationError as error:
            return self._about(raw, "invalid" if model is Send else "bad_frame", _explain(error))
        return self._allowed(frame, raw, now)

    def _allowed(self, frame: Any, raw: dict[str, Any], now: float) -> ClientFrame | Refused | Close:
        if isinstance(frame, Auth):
            return frame if frame.v == VERSION else _refused("unsupported_version", f"this server speaks {VERSION}")
        if not self.authenticated:
            return Close(4400, "the first frame must be auth")
        if isinstance(frame, NEEDS_ROOM) and self.room_id is None:
            return self._about(raw, "not_joined", "join a room first")
        if isinstance(frame, Send):
            if len(text_of(frame.body)) > self._limits.text_chars:
                return self._about(raw, "too_large", f"a message has at most {self._limits.text_chars} characters")
            if not self._sends.take(now):
                return self._about(raw, "rate_limited", "too many messages; slow down", self._sends.wait())
        return frame

    def _about(self, raw: dict[str, Any], code: str, message: str, retry_after: float | None = None) -> Refused:
        """A refused `send` is answered by its own id, so that the client knows which one."""
        client_id = raw.get("client_id")
        if raw.get("type") == "send" and isinstance(client_id, str) and 0 < len(client_id) <= 64:
            return Refused(self.nack(client_id, code, message, retry_after), code)
        kind = raw.get("type")
        ref = kind[:32] if isinstance(kind, str) else None
        return Refused(self.error("bad_frame" if code == "invalid" else code, message, ref, retry_after), code)

    # What the server says.

    def welcome(self, principal: dict[str, Any], *, heartbeat_s: float, expires_at: float | None) -> str:
        self.authenticated = True
        limits = self._limits
        return _dump(
            type="welcome",
            v=VERSION,
            principal=principal,
            heartbeat_s=heartbeat_s,
            expires_at=expires_at,
            limits={
                "frame_bytes": limits.frame_bytes,
                "text_chars": limits.text_chars,
                "sends_per_s": limits.sends_per_s,
                "history_limit": limits.history_limit,
            },
        )

    def view(self, fields: dict[str, Any], *, events: list[str], resumed_from: int | None = None) -> str:
        """A `snapshot`, or `resumed` when `resumed_from` is given. `fields` hold room_id, epoch, index and the
        state; `events` are JSON texts, oldest first. Sets room and position."""
        self.room_id, self.position = fields["room_id"], fields["index"]
        head: dict[str, Any] = (
            {"type": "snapshot"} if resumed_from is None else {"type": "resumed", "from": resumed_from}
        )
        return f'{_dump(**head, **fields)[:-1]},"events":[{",".join(events)}]}}'

    def resync_required(self, room_id: str, reason: str) -> str:
        return _dump(type="resync_required", room_id=room_id, reason=reason)

    def left(self) -> None:
        self.room_id, self.position = None, -1

    def event(self, index: int, event: str) -> str | None:
        """An event at `index`, given as JSON text; None if this viewer has it already."""
        prev = self.position
        if index <= prev:
            return None
        self.position = index
        return f'{{"type":"event","index":{index},"prev":{prev},"event":{event}}}'

    def stream_end(self, stream_id: str, index: int, event: str) -> str | None:
        """The stored end of a reply; None if this viewer has the event already."""
        prev = self.position
        if index <= prev:
            return None
        self.position = index
        return (
            f'{{"type":"stream_end","room_id":{_quote(self._here())},"stream_id":{_quote(stream_id)},'
            f'"index":{index},"prev":{prev},"event":{event}}}'
        )

    def stream(self, message: StreamMessage) -> Outgoing:
        """Start, chunk or error of a reply (its end is `stream_end`)."""
        match message.type:
            case "stream_chunk":
                return Chunk(message.room_id, message.stream_id, message.offset, message.delta)
            case "stream_start":
                return _dump(**_start(message))
            case "stream_error":
                return message.model_dump_json()
            case _:
                raise LocalProtocolError("the end of a stream has a position: use stream_end()", offending=message)

    def ack(self, client_id: str, index: int, event_id: str, *, duplicate: bool) -> str:
        return _dump(type="ack", client_id=client_id, index=index, event_id=event_id, duplicate=duplicate)

    def nack(self, client_id: str, code: str, message: str, retry_after: float | None = None) -> str:
        return _dump(type="nack", client_id=client_id, code=code, message=message, **_retry(retry_after))

    def error(self, code: str, message: str, ref: str | None = None, retry_after: float | None = None) -> str:
        return _dump(type="error", code=code, message=message, ref=ref, **_retry(retry_after))

    def say(self, kind: str, /, **fields: Any) -> str:
        """Any frame without a position: ephemeral, room, rooms, pong."""
        return _dump(type=kind, **fields)

    def history(self, room_id: str, events: list[str], *, more: bool) -> str:
        return f'{_dump(type="history", room_id=room_id, more=more)[:-1]},"events":[{",".join(events)}]}}'

    def _here(self) -> str:
        if self.room_id is None:
            raise LocalProtocolError("nothing of a room can be said before its snapshot")
        return self.room_id


class _Bucket:
    """Tokens by the time it is given; starts full."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._tokens = rate, burst, burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        passed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait(self) -> float:
        return round((1 - self._tokens) / self._rate, 3)


def _object(data: str) -> dict[str, Any] | None:
    try:
        raw = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _explain(error: ValidationError) -> str:
    """Where and why, never the value: it may be a token."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"][:4])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _start(message: StreamStart) -> dict[str, Any]:
    source = message.source
    return {
        "type": "stream_start",
        "room_id": message.room_id,
        "stream_id": message.stream_id,
        "parent_event_id": message.parent_event_id,
        "source": {
            "channel_id": source.channel_id,
            "channel_type": source.channel_type,
            "direction": source.direction,
            "participant_id": source.participant_id,
        },
    }


def _refused(code: str, message: str) -> Refused:
    return Refused(_dump(type="error", code=code, message=message, ref=None), code)


def _retry(retry_after: float | None) -> dict[str, float]:
    return {} if retry_after is None else {"retry_after": retry_after}


def _dump(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
