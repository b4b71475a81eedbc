"""From a room's events to a model's messages. Pure: what may be seen was decided when the history was read."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roomkit.ai.results import shown
from roomkit.models.ai import AIMessage, ImagePart, Part, TextPart, ToolCallPart, ToolResultPart
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    SystemContent,
    ToolCallContent,
    UnknownContent,
    VideoContent,
    text_of,
)
from roomkit.models.event import EventStatus, EventType, RoomEvent
from roomkit.models.room import Participant

PROMPT_TYPES = frozenset({EventType.MESSAGE, EventType.NOTE, EventType.TOOL_CALL_START, EventType.TOOL_CALL_END})
_LONGEST_NAME = 64
_NO_RESULT = "No result was recorded: whether this call took effect is unknown. Do not repeat it without asking."


@dataclass(frozen=True, slots=True)
class Perspective:
    """Whose memory this is: its own events are "assistant", those of all others are not. `names` maps participant
    ids to what they are called; senders are named where several people are present."""

    channel_id: str
    vision: bool = False
    names: Mapping[str, str] = field(default_factory=lambda: {})

    @classmethod
    def of(cls, channel_id: str, participants: Sequence[Participant], *, vision: bool = False) -> Perspective:
        return cls(channel_id, vision, {person.id: person.display_name or person.id for person in participants})

    def own(self, event: RoomEvent) -> bool:
        return event.source.channel_id == self.channel_id


def remembered(events: Sequence[RoomEvent], channel_id: str) -> list[RoomEvent]:
    """The events that belong into a prompt, as they read today: nothing blocked, deleted or still a draft; edits in
    place; of tool calls only our own, each with its start and its end."""
    edits: dict[str, Content] = {}
    deleted: set[str] = set()
    for event in events:
        if event.status is EventStatus.COMMITTED:
            if isinstance(event.content, EditContent):
                edits[event.content.target_event_id] = event.content.new_content
            elif isinstance(event.content, DeleteContent):
                deleted.add(event.content.target_event_id)
    kept: list[RoomEvent] = []
    for event in events:
        if event.type not in PROMPT_TYPES or event.status is not EventStatus.COMMITTED:
            continue
        if event.id in deleted or event.metadata.get("deleted"):
            continue
        if isinstance(event.content, ToolCallContent) and event.source.channel_id != channel_id:
            continue
        kept.append(event.model_copy(update={"content": edits[event.id]}) if event.id in edits else event)
    return kept


def messages_of(events: Sequence[RoomEvent], who: Perspective) -> list[AIMessage]:
    """`remembered` events as messages: every tool call has its result right behind it, whatever was recorded."""
    several = len({_sender(event) for event in events if _is_talk(event) and not who.own(event)}) > 1
    ends = {
        event.content.call_id: event.content
        for event in reversed(events)  # The first word about a call is the one that counts.
        if isinstance(event.content, ToolCallContent) and event.content.status != "pending"
    }
    messages: list[AIMessage] = []
    told: set[str] = set()
    for event in events:
        content = event.content
        if isinstance(content, ToolCallContent):
            if content.call_id not in told:
                told.add(content.call_id)
                messages += _call_and_result(event.id, content, ends.get(content.call_id))
            continue
        message = _message(event, who, named=several)
        if message is not None:
            messages.append(message)
    return messages


def _is_talk(event: RoomEvent) -> bool:
    return event.type is EventType.MESSAGE


def _sender(event: RoomEvent) -> str:
    return event.source.participant_id or event.source.external_id or event.source.channel_id


def _call_and_result(event_id: str, start: ToolCallContent, end: ToolCallContent | None) -> list[AIMessage]:
    call = ToolCallPart(call_id=start.call_id, name=start.name, arguments=start.arguments)
    if end is None:
        output, good = _NO_RESULT, False
    else:
        good = end.status == "completed"
        text = end.result if good else end.error or end.result
        output = shown(end.call_id, end.name, text or ("(done, no output)" if good else _NO_RESULT))
    result = ToolResultPart(call_id=start.call_id, name=start.name, output=output, is_error=not good)
    return [
        AIMessage(role="assistant", parts=(call,), event_id=event_id),
        AIMessage(role="tool", parts=(result,), event_id=event_id),
    ]


def _message(event: RoomEvent, who: Perspective, *, named: bool) -> AIMessage | None:
    parts = _parts(event.content, vision=who.vision and not who.own(event))
    if not parts:
        return None
    if who.own(event):
        return AIMessage(role="assistant", parts=parts, event_id=event.id)
    if event.type is not EventType.MESSAGE and event.source.direction == "internal":
        # Only the host's own methods write internal events, so nobody outside can speak as the system (D10).
        told = _prefixed("Note from the team", parts) if event.type is EventType.NOTE else parts
        return AIMessage(role="system", parts=told, event_id=event.id)
    if named:
        sender = _sender(event)
        parts = _prefixed(quoted(who.names.get(sender, sender)), parts)
    return AIMessage(role="user", parts=parts, event_id=event.id)


def quoted(name: str) -> str:
    """What somebody calls themselves, as a prompt may hold it: one short line in quotation marks, which nobody can
    leave to speak as somebody else."""
    plain = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in name[: _LONGEST_NAME * 4])
    plain = " ".join(plain.replace('"', "'").split())[:_LONGEST_NAME].rstrip()
    return f'"{plain or "somebody"}"'


def _prefixed(name: str, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    first = parts[0]
    if isinstance(first, TextPart):
        return (TextPart(text=f"{name}: {first.text}"), *parts[1:])
    return (TextPart(text=f"{name}:"), *parts)


def _parts(content: Content, *, vision: bool) -> tuple[Part, ...]:
    if isinstance(content, CompositeContent):
        return tuple(part for inner in content.parts for part in _parts(inner, vision=vision))
    text = _described(content)
    if vision and isinstance(content, MediaContent) and _is_open_image(content):
        image = ImagePart(url=content.url, mime_type=content.mime_type)
        return (TextPart(text=content.caption), image) if content.caption else (image,)
    return (TextPart(text=text),) if text else ()


def _is_open_image(content: MediaContent) -> bool:
    """True for an image at an address that a vendor can read."""
    return content.mime_type.startswith("image/") and content.url.startswith(("http:", "https:", "data:"))


def _described(content: Content) -> str:
    """A text for whatever the model cannot be shown, so that it knows that something was sent."""
    text = text_of(content)
    match content:
        case MediaContent(filename=name, mime_type=mime):
            return f"[sent a file: {name or mime}] {text}".rstrip()
        case AudioContent():
            return text or "[sent a voice message]"
        case VideoContent():
            return f"[sent a video] {text}".rstrip()
        case LocationContent(latitude=latitude, longitude=longitude):
            return f"[sent a location: {latitude}, {longitude}] {text}".rstrip()
        case UnknownContent(kind=kind):
            return f"[sent something of the kind {kind}] {text}".rstrip()
        case SystemContent(code="approval_answered", data={"granted": True, "name": name}):
            again = f"{name}({arguments})" if (arguments := content.data.get("arguments")) else name
            return f"{text} It has not run yet: call {again} again with the same arguments to run it now."
        case ReactionContent() | EditContent() | DeleteContent():
            return ""
        case _:
            return text
