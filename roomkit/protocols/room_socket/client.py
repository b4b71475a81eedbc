"""A client's side of the room socket, without I/O: what to send, what to believe, and where we stand."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from typing import Any

from pydantic import ValidationError

from roomkit.errors import LocalProtocolError, RemoteProtocolError
from roomkit.models.content import Content
from roomkit.protocols.room_socket.messages import (
    SERVER_FRAME,
    VERSION,
    Ack,
    ErrorFrame,
    EventFrame,
    Nack,
    Resumed,
    ResyncRequired,
    ServerFrame,
    Snapshot,
    StreamChunkFrame,
    StreamEndFrame,
    StreamErrorFrame,
    StreamStartFrame,
    Welcome,
)


class ClientSession:
    """One viewer of one room over any number of connections.

    For each connection: `connected(token)`, then send whatever `data_to_send()` gives, and pass every message to
    `receive`, which returns the frames worth showing: repetitions are dropped, a gap makes it join again by itself.
    What was given to `send` is kept until it is acknowledged, and sent again after each `connected`.
    """

    def __init__(self, room_id: str, *, tail: int = 50) -> None:
        self.room_id = room_id
        self.epoch: str | None = None
        self.position = -1
        self.live = False
        """True between a snapshot (or resumed) and the end of the connection."""
        self.streams: dict[str, str] = {}
        """The text so far of each reply in the making."""
        self.unacknowledged: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._tail = tail
        self._out: deque[str] = deque()
        self._rejoining = False

    def connected(self, token: str | None) -> None:
        """A connection is open. `token` None means that the handshake carried it."""
        self._out.clear()
        self.live = False
        if token is not None:
            self._say(type="auth", token=token, v=VERSION)

    def renew(self, token: str) -> None:
        """Renews the session in place, before its token expires."""
        self._say(type="auth", token=token, v=VERSION)

    def send(self, client_id: str, body: str | Content, *, parent: str | None = None) -> None:
        """Queues a message. Raises `LocalProtocolError` for an id that is still under way."""
        if client_id in self.unacknowledged:
            raise LocalProtocolError(f'client id "{client_id}" is under way already; give each message its own')
        frame: dict[str, Any] = {"type": "send", "client_id": client_id}
        if isinstance(body, str):
            frame["text"] = body
        else:
            frame["content"] = body.model_dump(mode="json", exclude_none=True)
        if parent is not None:
            frame["parent"] = parent
        self.unacknowledged[client_id] = frame
        if self.live:
            self._say(**frame)

    def resend(self, client_id: str) -> None:
        """Sends one message again, after its `nack` with `retry_after`."""
        frame = self.unacknowledged.get(client_id)
        if frame is not None and self.live:
            self._say(**frame)

    def say(self, kind: str, **fields: Any) -> None:
        """Any frame that is not kept: typing, presence, read, history, watch, ping. Dropped while not connected."""
        if self.live or kind == "ping":
            self._say(type=kind, **fields)

    def data_to_send(self) -> list[str]:
        """What must go out now, in order."""
        out = list(self._out)
        self._out.clear()
        return out

    def receive(self, data: str) -> list[ServerFrame]:
        """Takes one message. Raises `RemoteProtocolError` for what is not a frame; unknown types are skipped."""
        frame = _parse(data)
        match frame:
            case None:
                return []
            case Snapshot() | Resumed():
                return self._enter(frame)
            case EventFrame() | StreamEndFrame():
                return self._advance(frame)
            case StreamChunkFrame():
                return self._grow(frame)
            case _:
                self._note(frame)
                return [frame]

    def _note(self, frame: ServerFrame) -> None:
        match frame:
            case Welcome() if not self.live:
                self._join()
            case ResyncRequired():
                self.epoch, self.position = None, -1
            case StreamStartFrame():
                self.streams[frame.stream_id] = ""
            case StreamErrorFrame():
                self.streams.pop(frame.stream_id, None)
            case Ack():
                self.unacknowledged.pop(frame.client_id, None)
            case Nack(retry_after=None):
                self.unacknowledged.pop(frame.client_id, None)
            case ErrorFrame(ref="join"):
                self._rejoining = False
            case _:
                pass

    def _join(self) -> None:
        resume = {} if self.epoch is None else {"resume": {"epoch": self.epoch, "index": self.position}}
        self._rejoining = True
        self._say(type="join", room_id=self.room_id, tail=self._tail, **resume)

    def _enter(self, frame: Snapshot | Resumed) -> list[ServerFrame]:
        if frame.room_id != self.room_id:
            return []
        first = not self.live
        self.epoch, self.position, self.live, self._rejoining = frame.epoch, frame.index, True, False
        self.streams = {stream.stream_id: stream.text for stream in frame.streams}
        if first:
            for kept in self.unacknowledged.values():
                self._say(**kept)
        return [frame]

    def _advance(self, frame: EventFrame | StreamEndFrame) -> list[ServerFrame]:
        if not self.live or frame.index <= self.position:
            return []
        if frame.prev != self.position:
            return self._gap()
        self.position = frame.index
        if isinstance(frame, StreamEndFrame):
            self.streams.pop(frame.stream_id, None)
        return [frame]

    def _grow(self, frame: StreamChunkFrame) -> list[ServerFrame]:
        have = self.streams.get(frame.stream_id)
        if have is None:
            return []
        if frame.offset > len(have):
            return self._gap()
        new = frame.delta[len(have) - frame.offset :]
        if not new:
            return []
        self.streams[frame.stream_id] = have + new
        return [frame.model_copy(update={"offset": len(have), "delta": new})]

    def _gap(self) -> list[ServerFrame]:
        """Something was lost on the way: one new join brings it."""
        if not self._rejoining:
            self._join()
        return []

    def _say(self, **frame: Any) -> None:
        self._out.append(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))


def _parse(data: str) -> ServerFrame | None:
    try:
        raw: Any = json.loads(data)
    except ValueError as error:
        raise RemoteProtocolError("the server sent something that is not JSON", offending=data) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):  # pyright: ignore[reportUnknownMemberType]
        raise RemoteProtocolError("the server sent something that is not a frame", offending=data)
    try:
        return SERVER_FRAME.validate_python(raw)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "union_tag_invalid":
            return None
        raise RemoteProtocolError(f"the server sent a broken {raw['type']} frame: {error}", offending=data) from error
