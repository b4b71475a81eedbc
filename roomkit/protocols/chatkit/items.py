"""Items of a thread from the events of a room, and what a room keeps of items that are no messages.

Messages are events like all others. Whatever else a thread may hold (widgets, client tool calls, tasks, hidden context)
stands in a system event of its own, seen by the ChatKit channel alone; the same item again replaces it in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    SystemContent,
    TextContent,
    VideoContent,
    text_of,
)
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Room
from roomkit.protocols.chatkit.package import (
    AssistantMessageContent,
    AssistantMessageItem,
    ClosedStatus,
    LockedStatus,
    Page,
    ThreadItem,
    ThreadMetadata,
    UserMessageItem,
    UserMessageTextContent,
)

ITEM, REMOVED, KEY = "chatkit_item", "chatkit_removed", "chatkit"
"""Codes of our system events, and the name under which rooms and events keep what is ChatKit's own."""
Link = Callable[[str], str | None]
"""The address under which the page fetches a file of the room, if it can."""
_UNBRACKETED = str.maketrans("[]()", "    ")
_items: TypeAdapter[Any] = TypeAdapter(ThreadItem)
_THREADS = ("title", "allowed_image_domains", "metadata", "status")


def _kept(told: Mapping[str, Any]) -> dict[str, Any]:
    """What stands under our name. Apps and imports write there too: anything may."""
    found = told.get(KEY)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def thread_of(room: Room) -> ThreadMetadata:
    """The thread that a room is. Its own metadata stand under "chatkit" in the room's; what is none is left out."""
    own: dict[str, Any] = {"id": room.id, "created_at": room.created_at}
    if not room.open:
        own["status"] = ClosedStatus()
    kept = {name: value for name, value in _kept(room.metadata).items() if name in _THREADS and value is not None}
    try:
        return ThreadMetadata.model_validate({**deepcopy(kept), **own})  # The package's server changes what it loads.
    except ValidationError:
        return ThreadMetadata.model_validate(own)


def kept_of(thread: ThreadMetadata) -> dict[str, Any]:
    """What the room keeps of a thread: never its items, which a `Thread` carries along."""
    status = thread.status.model_dump(mode="json") if isinstance(thread.status, (LockedStatus, ClosedStatus)) else None
    return {
        "title": thread.title,
        "allowed_image_domains": thread.allowed_image_domains,
        "metadata": deepcopy(thread.metadata),
        "status": status,
    }


def dumped(item: Any, thread_id: str) -> dict[str, Any]:
    """An item without its thread, which its room tells: a fork's items are the fork's."""
    return item.model_dump(mode="json", exclude={"thread_id"} if item.thread_id == thread_id else None)


def stored(item: Any, thread_id: str) -> SystemContent:
    """An item that is no message, as an event's content."""
    return SystemContent(code=ITEM, data={"item": dumped(item, thread_id)})


def removed(item_id: str) -> SystemContent:
    return SystemContent(code=REMOVED, data={"id": item_id})


def words_of(item: UserMessageItem) -> str:
    """What the user has said, quotes and tags written out."""
    quoted = "".join(f"> {line}\n" for line in (item.quoted_text or "").splitlines())
    return quoted + "".join(part.text for part in item.content)


def content_of(item: UserMessageItem, urls: dict[str, str]) -> Content | None:
    """The message as a room has it; `urls` are the files of its attachments by id. None when it says nothing."""
    text = words_of(item)
    parts: list[Content] = [TextContent(text=text)] if text else []
    parts += [
        MediaContent(url=urls[one.id], mime_type=one.mime_type, filename=one.name)
        for one in item.attachments
        if one.id in urls
    ]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts))


def plain(url: str) -> str | None:
    """The link to a file that anybody can fetch; None for others."""
    return url if url.startswith(("https:", "http:")) else None


def said(event: RoomEvent, link: Link = plain) -> str:
    """An event's words for a thread: files as links, which is all that ChatKit shows of them."""
    parts = event.content.parts if isinstance(event.content, CompositeContent) else (event.content,)
    links = [
        f"[{(getattr(part, 'filename', None) or part.type).translate(_UNBRACKETED)}]({url})"
        for part in parts
        if isinstance(part, (MediaContent, AudioContent, VideoContent)) and (url := link(part.url)) is not None
    ]
    return "\n\n".join(filter(None, (text_of(event.content), *links)))


def item_of(event: RoomEvent, person: str, link: Link = plain) -> Any:
    """The item that a message is for `person`: their own words, or somebody else's."""
    own = event.source.participant_id == person
    kept = _kept(event.channel_data)
    if own and kept:
        try:
            return _items.validate_python({"thread_id": event.room_id, **kept})
        except ValidationError:
            pass  # An older package wrote it: its words are there all the same.
    if own:
        name = kept.get("id")
        return UserMessageItem.model_validate(
            {
                "id": name if name and isinstance(name, str) else event.id,
                "thread_id": event.room_id,
                "created_at": event.created_at,
                "content": [UserMessageTextContent(text=said(event, link))],
                "inference_options": {},
            }
        )
    return AssistantMessageItem(
        id=event.id,
        thread_id=event.room_id,
        created_at=event.created_at,
        content=[AssistantMessageContent(text=said(event, link))],
    )


def items_of(events: Iterable[RoomEvent], person: str, link: Link = plain) -> list[Any]:
    """The thread as `person` has it, oldest first: edits applied, deleted messages and removed items left out."""
    found: dict[str, Any] = {}
    for event in events:
        if event.blocked:
            continue
        if event.type is EventType.MESSAGE:
            item = item_of(event, person, link)
            if event.metadata.get("deleted"):
                continue
            if not said(event, link) and isinstance(item, AssistantMessageItem):
                continue
            found.pop(item.id, None)  # A message that was sent again stands where it was said last.
            found[item.id] = item
        elif isinstance(event.content, SystemContent) and event.content.code == ITEM:
            try:
                item = _items.validate_python({"thread_id": event.room_id, **event.content.data["item"]})
            except (ValidationError, KeyError, TypeError):  # An import may bring anything.
                continue
            found[item.id] = item
        elif isinstance(event.content, SystemContent) and event.content.code == REMOVED:
            found.pop(str(event.content.data.get("id")), None)
    return list(found.values())


def page_of(rows: Sequence[Any], after: str | None, limit: int, order: str) -> Page[Any]:
    """`after` is the id of the last row that was given; an unknown one begins anew."""
    limit = max(1, min(limit, 1_000))
    ordered = list(rows) if order == "asc" else list(rows)[::-1]
    start = next((at + 1 for at, row in enumerate(ordered) if row.id == after), 0) if after else 0
    data = ordered[start : start + limit]
    more = start + limit < len(ordered)
    return Page(data=data, has_more=more, after=data[-1].id if more and data else None)
