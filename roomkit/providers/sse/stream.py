"""The server-sent event format, read as the WHATWG HTML standard says (section 9.2.6). No I/O."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from roomkit.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event. `id` is the last event id that the stream has set, empty when none; `own_id` says that
    this event has set it."""

    data: str
    event: str = "message"
    id: str = ""
    own_id: bool = False


class EventStream:
    """Bytes in, events out. `last_id` and `retry_s` (None until the server sets it) outlive the connection: call
    `restart` when a new one begins. Raises `RemoteProtocolError` for an event of more than `max_chars`."""

    def __init__(self, *, max_chars: int = 1_048_576) -> None:
        self.last_id = ""
        self.retry_s: float | None = None
        self._max = max_chars
        self.restart()

    def restart(self) -> None:
        """Forgets an event that was cut off."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._begun = False
        self._after_cr = False
        self._id = self.last_id
        self._clear()

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Takes the next bytes of the stream; returns the events that they complete."""
        text = self._decoder.decode(data)
        if text and not self._begun:
            self._begun = True
            text = text.removeprefix("\ufeff")
        if self._after_cr and text:
            # A CR ended the last piece: an LF that follows belongs to the same line end.
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        lines = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        self._line = lines.pop()
        events = [event for line in lines if (event := self._take(line)) is not None]
        if self._size + len(self._line) > self._max:
            raise RemoteProtocolError(f"an event is longer than {self._max} characters", code="too_large")
        return events

    def _clear(self) -> None:
        self._data: list[str] = []
        self._event = ""
        self._own = False
        self._size = 0

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
                self._size += len(value) + 1
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id, self._own = value, True
            case "retry" if value.isascii() and value.isdigit():
                self.retry_s = int(value[:12]) / 1000
            case _:
                pass  # Comments (an empty name) and unknown fields are ignored.
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        event = ServerEvent("\n".join(self._data), self._event or "message", self._id, self._own)
        dispatched = bool(self._data)
        self._clear()
        return event if dispatched else None
