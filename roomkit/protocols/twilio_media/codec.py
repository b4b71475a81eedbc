"""One bidirectional Media Stream. `receive` reads a frame of Twilio's, the other methods write ours.

Pure: no socket, no clock. Events that a newer Twilio may add are ignored; media before `start`, too.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from roomkit.errors import LocalProtocolError, RemoteProtocolError

RATE = 8_000
"""Hz; mu-law, one byte a sample."""
MAX_FRAME = 65_536


@dataclass(frozen=True, slots=True)
class Start:
    """The stream begins. `parameters` are those of the TwiML."""

    stream_sid: str
    call_sid: str
    account_sid: str = ""
    parameters: Mapping[str, str] = field(default_factory=lambda: {})


@dataclass(frozen=True, slots=True)
class Media:
    """Mu-law sound of the caller. `missing` counts the chunks that should have come before it and did not."""

    payload: bytes
    chunk: int = 0
    timestamp_ms: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Digit:
    digit: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything before this mark of ours has been played, or was cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream is over."""


Event = Start | Media | Digit | Mark | Stop
KEYS = frozenset("0123456789*#ABCD")


class TwilioMedia:
    """The server's side of one stream. Raises `RemoteProtocolError` for frames that Twilio does not send."""

    def __init__(self) -> None:
        self.stream_sid = ""
        self.lost = 0
        """Chunks that never came."""
        self._chunk = 0

    def receive(self, text: str | bytes) -> Event | None:
        """What a frame says; None for one that says nothing to us."""
        frame = _object(text)
        match frame.get("event"):
            case "start":
                return self._start(frame)
            case "media" if self.stream_sid:
                return self._media(_part(frame, "media"))
            case "dtmf":
                digit = _part(frame, "dtmf").get("digit")
                return Digit(digit) if isinstance(digit, str) and digit in KEYS else None
            case "mark":
                return Mark(str(_part(frame, "mark").get("name", "")))
            case "stop":
                return Stop()
            case _:
                return None

    def media(self, ulaw: bytes) -> str:
        return self._say("media", media={"payload": base64.b64encode(ulaw).decode()})

    def mark(self, name: str) -> str:
        """Comes back when everything before it has been played, or at once after `clear`."""
        return self._say("mark", mark={"name": name})

    def clear(self) -> str:
        """Empties Twilio's buffer."""
        return self._say("clear")

    def _say(self, event: str, **fields: Any) -> str:
        if not self.stream_sid:
            raise LocalProtocolError("nothing can be said to Twilio before its start")
        return json.dumps({"event": event, "streamSid": self.stream_sid, **fields}, separators=(",", ":"))

    def _start(self, frame: dict[str, Any]) -> Start:
        if self.stream_sid:
            raise RemoteProtocolError("a stream starts once", offending=frame)
        told = _part(frame, "start")
        sid, shape = told.get("streamSid") or frame.get("streamSid"), _optional(told, "mediaFormat")
        if not isinstance(sid, str) or not sid:
            raise RemoteProtocolError("start names no stream", offending=frame)
        if shape and (shape.get("encoding"), shape.get("sampleRate")) != ("audio/x-mulaw", RATE):
            raise RemoteProtocolError(f"only mu-law of {RATE} Hz is spoken, not {shape}", offending=frame)
        self.stream_sid = sid
        parameters = _optional(told, "customParameters")
        return Start(
            sid,
            str(told.get("callSid", "")),
            str(told.get("accountSid", "")),
            {str(name): str(value) for name, value in parameters.items()},
        )

    def _media(self, told: dict[str, Any]) -> Media | None:
        if told.get("track", "inbound") != "inbound":
            return None
        chunk, at = _number(told.get("chunk")), _number(told.get("timestamp"))
        try:
            payload = base64.b64decode(told.get("payload", ""), validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise RemoteProtocolError("the payload is not base64", offending=told) from error
        missing = max(chunk - self._chunk - 1, 0) if self._chunk and chunk else 0
        self.lost += missing
        self._chunk = max(chunk, self._chunk)
        return Media(payload, chunk, at, missing)


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        frame: Any = json.loads(text) if len(text) <= MAX_FRAME else None
    except (ValueError, RecursionError):
        frame = None
    if not isinstance(frame, dict):
        raise RemoteProtocolError("a frame of Twilio is a JSON object")
    return cast("dict[str, Any]", frame)


def _part(frame: dict[str, Any], name: str) -> dict[str, Any]:
    part = frame.get(name)
    if not isinstance(part, dict):
        raise RemoteProtocolError(f"a {name} frame without {name}", offending=frame)
    return cast("dict[str, Any]", part)


def _optional(frame: dict[str, Any], name: str) -> dict[str, Any]:
    return _part(frame, name) if frame.get(name) else {}


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
