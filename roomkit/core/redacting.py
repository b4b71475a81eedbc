"""Redaction at the edges of the room machine: before the store, a model, an export. Absent unless switched on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from roomkit.core.actor import Change, Entry
from roomkit.models.ai import AIMessage, AIRequest, Part, TextPart, ToolCallPart, ToolResultPart
from roomkit.models.consent import of_tenant
from roomkit.models.content import Content, Frozen, SystemContent
from roomkit.models.redaction import Redaction
from roomkit.net.personal import Redactor, StreamRedactor

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.models.event import RoomEvent
    from roomkit.ports.store import Record

Point = Literal["store", "model", "export"]
_RECORDS = ("journal", "draft", "task", "observation")
_ADDRESSES = frozenset(
    {"type", "url", "mime_type", "template_id", "target_event_id", "call_id", "id", "event_id", "room_id", "channel_id"}
    | {"image_url", "thumbnail_url", "emoji", "edit_source", "delete_type", "format", "status", "key", "name", "reply"}
    | {"channel", "by", "value", "provider_message_id", "created_at", "updated_at", "at"}
)
"""What a text under this name is: no words of anybody's, and a promise that it stays as it is."""
_BESIDE = ("subject", "quoted", "signature", "html")
"""What stands beside the content and is words all the same."""
_SAID = ("arguments", "reason")
"""In what the framework writes, the words that are not its own."""
_OPEN = ("pending", "granted")
"""An approval that is still good for a call."""


class Redactions:
    """What one engine takes out, tenant by tenant."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: dict[str, tuple[Redaction, Redactor] | None] = {}

    def at(self, point: Point, tenant: str) -> Redactor | None:
        if tenant not in self._made:
            found = of_tenant(self._engine.options.redaction, tenant)
            self._made[tenant] = (
                (found, Redactor(found.kinds, found.finders, found.mask)) if found is not None else None
            )
        made = self._made[tenant]
        return made[1] if made is not None and getattr(made[0], point) else None

    def stream(self, tenant: str) -> StreamRedactor | None:
        """For a reply in the making, where the store's redaction is on."""
        redactor = self.at("store", tenant)
        return redactor.stream() if redactor is not None else None

    def change(self, tenant: str, change: Change) -> None:
        """Takes it out of everything that a commit is about to keep."""
        redactor = self.at("store", tenant)
        if redactor is None:
            return
        for entry in change.entries:
            _entry(redactor, entry)
        change.put[:] = [_record(redactor, record) for record in change.put]
        change.tasks[:] = [_words(redactor, one) for one in change.tasks]
        change.observations[:] = [_words(redactor, one) for one in change.observations]
        room = change.room
        if room is not None and (call := room.attention) is not None:
            reason = redactor.text(call.reason)
            change.room = room if reason is call.reason else room.replaced(attention=call.replaced(reason=reason))

    def request(self, tenant: str, request: AIRequest) -> AIRequest:
        """What a model is told: the people's words, and what tools said. Your own prompt stays."""
        redactor = self.at("model", tenant)
        if redactor is None:
            return request
        told = tuple(_message(redactor, message) for message in request.messages)
        same = all(new is old for new, old in zip(told, request.messages, strict=True))
        return request if same else request.replaced(messages=told)

    def told(self, tenant: str, events: Sequence[RoomEvent]) -> Sequence[RoomEvent]:
        """The events as a model may be told of them, or whoever makes a summary or an index of them."""
        redactor = self.at("model", tenant)
        if redactor is None:
            return events
        words = [(event, _content(redactor, event.content)) for event in events]
        return [event if new is event.content else event.replaced(content=new) for event, new in words]

    def enqueued(self, tenant: str, value: dict[str, Any]) -> dict[str, Any]:
        """A row of the host's inbox, which stays where no room takes it."""
        redactor = self.at("store", tenant)
        if redactor is None:
            return value
        found = _found(redactor, value["content"])
        beside = {"metadata": _without(redactor, value["metadata"], found)} if "metadata" in value else {}
        return {**value, **beside, "content": _walk(redactor, value["content"])}

    def exported(self, tenant: str, kind: str, value: Any) -> Any:
        """One line of an export."""
        redactor = self.at("export", tenant)
        if redactor is None or kind == "blob":
            return value
        if kind == "event":
            before = value["content"]
            content = _walk(redactor, before)
            found = _found(redactor, [before, _spoken(value["channel_data"])])
            source = value["source"]
            if found or _found(redactor, source.get("raw_payload")):
                source = {**source, "raw_payload": None}
            beside = {name: _without(redactor, value[name], found) for name in ("metadata", "channel_data")}
            return {**value, "content": content, "source": source, **beside}
        if kind == "record":
            return {**value, "value": _value(redactor, value["kind"], value["value"])}
        return value


def _entry(redactor: Redactor, entry: Entry) -> None:
    draft = entry.draft
    content = _content(redactor, draft.content)
    raw, spoken = draft.source.raw_payload, _spoken(draft.channel_data)
    found = _found(redactor, spoken) if spoken else frozenset[str]()
    if content is not draft.content:
        found |= _found(redactor, draft.content.model_dump(mode="json"))
    source = draft.source
    if raw is not None and (found or content is not draft.content or _found(redactor, raw)):
        source = source.replaced(raw_payload=None)
    if content is draft.content and source is draft.source and not found:
        return
    entry.draft = draft.replaced(
        content=content,
        source=source,
        metadata=_without(redactor, draft.metadata, found),
        channel_data=_without(redactor, draft.channel_data, found),
    )


def _content(redactor: Redactor, content: Content) -> Content:
    if isinstance(
        content, SystemContent
    ):  # written by the framework: ids, and what somebody gave as arguments or reason
        data = _parts(redactor, content.data, _SAID)
        if data is content.data:
            return content
        return content.replaced(data=data, message=redactor.text(content.message))
    return _words(redactor, content)


def _words(redactor: Redactor, model: Any) -> Any:
    """A model with its texts redacted; the very same one where nothing was found."""
    changed = {
        name: new
        for name, old in cast("dict[str, Any]", vars(model)).items()
        if name not in _ADDRESSES and (new := _inside(redactor, old)) is not old
    }
    return model.replaced(**changed) if changed else model


def _inside(redactor: Redactor, value: Any) -> Any:
    if isinstance(value, Frozen):
        return _words(redactor, value)
    if isinstance(value, tuple):
        items = cast("tuple[Any, ...]", value)
        new = tuple(_inside(redactor, one) for one in items)
        return new if any(a is not b for a, b in zip(new, items, strict=True)) else items
    return _walk(redactor, value)


def _walk(redactor: Redactor, value: Any) -> Any:
    """As `Redactor.value`, without what a name in `_ADDRESSES` says to be no words."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        fresh = {name: one if name in _ADDRESSES else _walk(redactor, one) for name, one in table.items()}
        return fresh if any(fresh[name] is not one for name, one in table.items()) else table
    if isinstance(value, list):
        items = cast("list[Any]", value)
        new = [_walk(redactor, one) for one in items]
        return new if any(a is not b for a, b in zip(new, items, strict=True)) else items
    return redactor.text(value) if type(value) is str else value


def _found(redactor: Redactor, value: Any) -> frozenset[str]:
    """The very words that are taken out."""
    found: set[str] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            stack.extend(inner for name, inner in cast("dict[str, Any]", one).items() if name not in _ADDRESSES)
        elif isinstance(one, (list, tuple)):
            stack.extend(cast("Iterable[Any]", one))
        elif isinstance(one, str):
            found.update(one[start:end] for start, end, _ in redactor.spans(one))
    return frozenset(found)


def _spoken(channel_data: Any) -> list[str]:
    """The words in what a channel keeps beside the content."""
    found: list[str] = []
    stack = [channel_data]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            table = cast("dict[str, Any]", one)
            found += [words for name in _BESIDE if isinstance(words := table.get(name), str)]
            stack.extend(table.values())
    return found


def _without(redactor: Redactor, value: Any, found: frozenset[str]) -> Any:
    """What stands beside the words loses only the same: a vendor's ids may look like addresses."""
    if isinstance(value, dict):
        return {name: _without(redactor, one, found) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_without(redactor, one, found) for one in cast("Iterable[Any]", value)]
    if isinstance(value, str) and any(one in value for one in found):
        return redactor.text(value)
    return value


def _record(redactor: Redactor, record: Record) -> Record:
    """A call that has not ended, or still needs its permission, keeps its arguments: it is run with them."""
    status = record.value.get("status")
    if (record.kind == "journal" and status == "pending") or (record.kind == "approval" and status in _OPEN):
        return record
    value = _value(redactor, record.kind, record.value)
    return record if value is record.value else record._replace(value=value)


def _value(redactor: Redactor, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """A record's words redacted; names and marks beside them stay, or they would fit the log no more."""
    if kind == "approval":
        return _parts(redactor, value, _SAID)
    if kind == "mutation":
        edits = value.get("edits", ())
        new = [_parts(redactor, edit, ("content",)) for edit in edits]
        if any(a is not b for a, b in zip(new, edits, strict=True)):
            value = {**value, "edits": new}
        return _parts(redactor, value, _SAID)
    return _walk(redactor, value) if kind in _RECORDS else value


def _parts(redactor: Redactor, table: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The table with what stands under these names redacted; the very same one where nothing was found."""
    fresh = {name: new for name in names if name in table and (new := _walk(redactor, table[name])) is not table[name]}
    return {**table, **fresh} if fresh else table


def _message(redactor: Redactor, message: AIMessage) -> AIMessage:
    if message.role == "system":
        return message
    parts = tuple(_part(redactor, part) for part in message.parts)
    same = all(new is old for new, old in zip(parts, message.parts, strict=True))
    return message if same else message.replaced(parts=parts)


def _part(redactor: Redactor, part: Part) -> Part:
    match part:
        case TextPart(text=text):
            new = redactor.text(text)
            return part if new is text or new == text else part.replaced(text=new)
        case ToolResultPart(output=text):
            new = redactor.text(text)
            return part if new == text else part.replaced(output=new)
        case ToolCallPart(arguments=arguments):
            fresh = redactor.value(arguments)
            return part if fresh is arguments else part.replaced(arguments=fresh)
        case _:
            return part
