"""What a client sends, checked, and what it is told, built."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from roomkit.errors import ProtocolError
from roomkit.models.content import valid_text

LABEL, VERSION = "rtvi-ai", "2.2.0"
MOST_CHARS = 1_048_576
"""Characters of one message; the clients send no larger ones."""


class _Data(BaseModel):
    """Newer clients may send more than we know."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class ClientReady(_Data):
    version: str = ""
    about: Any = None


class ClientMessage(_Data):
    t: str
    d: Any = None


class TextOptions(_Data):
    run_immediately: bool = True
    audio_response: bool = True


class SendText(_Data):
    content: str
    options: TextOptions = Field(default_factory=TextOptions)


class AppendToContext(_Data):
    """Of clients before 2.0."""

    role: Literal["user", "assistant", "system"] = "user"
    content: Any
    run_immediately: bool = False


class Dtmf(_Data):
    buttons: list[str] = []
    button: str | None = None

    @field_validator("buttons", "button")
    @classmethod
    def _keys(cls, value: list[str] | str | None) -> list[str] | str | None:
        pressed = value if isinstance(value, list) else [] if value is None else [value]
        if any(len(one) != 1 or one not in "0123456789*#" for one in pressed):
            raise ValueError("a button is one of 0-9, * and #")
        return value

    @property
    def pressed(self) -> str:
        return "".join(self.buttons) or (self.button or "")


class FunctionResult(_Data):
    function_name: str = ""
    tool_call_id: str
    arguments: Any = None
    result: Any = None


class RawAudio(_Data):
    """Sound of clients whose transport has no way of its own for it."""

    base64Audio: str | None = None  # noqa: N815 - the protocol's name
    base64AudioBatch: list[str] = Field(default=[], max_length=1_000)  # noqa: N815 - the protocol's name
    sampleRate: int  # noqa: N815 - the protocol's name
    numChannels: int  # noqa: N815 - the protocol's name

    @property
    def pcm(self) -> bytes:
        """Raises `ValueError` for what is not base64."""
        return b"".join(b64decode(one, validate=True) for one in (self.base64Audio, *self.base64AudioBatch) if one)


class FileSource(_Data):
    type: Literal["bytes", "url"]
    bytes: str = ""
    url: str = ""


class SentFile(_Data):
    format: str = Field(max_length=200)
    name: str | None = Field(default=None, max_length=255)
    source: FileSource


class SendFile(_Data):
    content: str = ""
    file: SentFile
    options: TextOptions = Field(default_factory=TextOptions)


class UICancel(_Data):
    job_id: str
    reason: str | None = None


class UIEvent(_Data):
    event: str
    payload: Any = None


class UISnapshot(_Data):
    tree: dict[str, Any]


class Nothing(_Data):
    pass


KINDS: dict[str, type[_Data]] = {
    "client-ready": ClientReady,
    "disconnect-bot": Nothing,
    "client-message": ClientMessage,
    "send-text": SendText,
    "send-file": SendFile,
    "append-to-context": AppendToContext,
    "raw-audio": RawAudio,
    "raw-audio-batch": RawAudio,
    "dtmf": Dtmf,
    "llm-function-call-result": FunctionResult,
    "ui-event": UIEvent,
    "ui-snapshot": UISnapshot,
    "ui-cancel-job-group": UICancel,
    "describe-config": Nothing,
    "get-config": Nothing,
    "update-config": Nothing,
    "describe-actions": Nothing,
    "action": Nothing,
}


class BadMessage(ProtocolError):
    """A client message that cannot be taken; `id` is the one to answer, empty when it has none."""

    def __init__(self, message: str, message_id: str = "") -> None:
        super().__init__(message)
        self.id = message_id


def parse(text: str) -> tuple[str, str, Any] | None:
    """(type, id, data) of a client's message; None for what is no message of this protocol. Raises `BadMessage`."""
    if len(text) > MOST_CHARS:
        raise BadMessage(f"a message has at most {MOST_CHARS} characters")
    try:
        envelope: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("the message is not JSON") from None
    if not isinstance(envelope, dict) or envelope.get("label") != LABEL:  # pyright: ignore[reportUnknownMemberType]
        return None
    kind, message_id, data = (envelope.get(name) for name in ("type", "id", "data"))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(kind, str) or not isinstance(message_id, str):
        raise BadMessage("Invalid message: it needs a type and an id")
    if valid_text(message_id) != message_id or len(message_id) > 200:
        raise BadMessage("Invalid message: its id is no short, valid text")
    model = KINDS.get(kind)
    if model is None:
        raise BadMessage(f"Unsupported type {kind[:100]}", message_id)
    try:
        return kind, message_id, model.model_validate({} if data is None else data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadMessage(f"Invalid message: {where}: {first['msg']}", message_id) from None


def message(kind: str, data: Any = None, *, message_id: str | None = None) -> str:
    """The text of a message to the client: null values are left out, and an id stands in answers alone."""
    envelope: dict[str, Any] = {"label": LABEL, "type": kind}
    if message_id is not None:
        envelope["id"] = message_id
    if data is not None:
        envelope["data"] = data
    return json.dumps(envelope, separators=(",", ":"))


def version_of(text: str) -> tuple[int, int, int] | None:
    """Exactly three numbers, or None."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() and len(part) < 6 for part in parts):
        return None
    major, minor, patch = map(int, parts)
    return major, minor, patch
