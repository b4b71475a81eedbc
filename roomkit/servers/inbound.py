"""What people write through our doors, on its way into a room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from roomkit.errors import UsageError
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TemplateContent,
    TextContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType
from roomkit.models.room import Assurance
from roomkit.servers.problems import TooLarge

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.protocols.room_socket import Limits
    from roomkit.servers.door import Door

_GUEST = (
    TextContent,
    MediaContent,
    AudioContent,
    VideoContent,
    LocationContent,
    ReactionContent,
    EditContent,
    DeleteContent,
)
_STAFF = (*_GUEST, RichContent, TemplateContent)
_TYPES: dict[type[Any], EventType] = {
    EditContent: EventType.EDIT,
    DeleteContent: EventType.DELETE,
    ReactionContent: EventType.REACTION,
}


async def write(
    door: Door,
    principal: Principal,
    room_id: str,
    content: Content,
    *,
    client_id: str | None = None,
    parent: str | None = None,
) -> InboundResult:
    """Hands a message of `principal` to its room; `client_id` makes repetitions harmless. Raises `UsageError` for
    content that may not be written from outside."""
    check(principal, content, door.options.limits)
    await _check_pointers(door, principal, room_id, content, parent)
    metadata = {"client_id": client_id} if client_id else {}
    if principal.display_name:
        metadata["sender_name"] = principal.display_name
    kind = _TYPES.get(type(content), EventType.MESSAGE)
    # JSON, because both ids are the caller's: no other room and nobody else can have the same key.
    dedupe = json.dumps([room_id, principal.id, client_id]) if client_id else None
    rooms = door.rooms(principal)
    if principal.sees_internal:
        # Staff speak for the house, to people: no AI is asked to answer them.
        return await rooms.send(
            room_id,
            content,
            by=principal.id,
            type=kind,
            addressed_to=(),
            parent_event_id=parent,
            metadata=metadata,
            idempotency_key=dedupe,
        )
    await door.seat(principal, room_id)
    message = InboundMessage(
        channel_id=door.options.web_channel,
        sender_id=principal.id,
        content=content,
        external_id=dedupe,
        type=kind,
        sender_name=principal.display_name,
        participant_id=principal.id,
        parent_event_id=parent,
        provider="roomkit",
        assurance=Assurance.AUTHENTICATED,
        metadata=metadata,
    )
    return await rooms.process_inbound(message, room_id=room_id)


class Refusal(NamedTuple):
    """Why a message was not taken; with `retry_after` (seconds) it may be sent again."""

    code: str
    message: str
    retry_after: float | None = None


def refusal_of(result: InboundResult, *, staff: bool) -> Refusal:
    """Staff hear the rule's own reason; a guest hears only that it was not sent (a guard may inject words for them)."""
    match result.reason:
        case "room_closed":
            return Refusal("room_closed", "the room is closed")
        case "rate_limited":
            return Refusal("rate_limited", "too many messages; slow down", 1.0)
        case "process_timeout":
            return Refusal("unavailable", "the message could not be handled in time", 1.0)
        case reason:
            return Refusal("blocked", (staff and reason) or "this message could not be sent")


def check(principal: Principal, content: Content, limits: Limits) -> None:
    """Refuses what only the framework writes, what is larger than a socket would take, and links of guests to foreign
    files. The limits are those of the socket, whichever way the content came."""
    if len(text_of(content)) > limits.text_chars:
        raise TooLarge(f"a message has at most {limits.text_chars} characters")
    if len(content.model_dump_json().encode()) > limits.frame_bytes:
        raise TooLarge(f"a message has at most {limits.frame_bytes} bytes; upload files first")
    guest = principal.role is PrincipalRole.GUEST
    for part in _parts(content):
        if not isinstance(part, _GUEST if guest else _STAFF):
            raise UsageError(f"content of type {part.type} cannot be written here")
        if guest and isinstance(part, (MediaContent, AudioContent, VideoContent)) and not part.url.startswith("blob:"):
            raise UsageError("upload the file first and send its blob: URL")
        if isinstance(part, EditContent) and part.edit_source != "sender":
            raise UsageError("only your own messages can be edited here")
        if isinstance(part, DeleteContent) and part.delete_type != "sender":
            raise UsageError("only your own messages can be deleted here")


async def _check_pointers(door: Door, principal: Principal, room_id: str, content: Content, parent: str | None) -> None:
    """A guest answers, edits and reacts to what it can see; of the rest it does not even hear that it is there."""
    if principal.sees_internal:
        return
    targets = {
        p.target_event_id for p in _parts(content) if isinstance(p, (EditContent, DeleteContent, ReactionContent))
    }
    for event_id in {*targets, parent} - {None}:
        if event_id is not None and not await door.shows(principal, room_id, event_id):
            raise UsageError("there is no such event in this room")
    for part in _parts(content):
        if isinstance(part, (MediaContent, AudioContent, VideoContent)) and part.url.startswith("blob:"):
            info = await door.kit.blobs.info(principal.tenant, part.url.removeprefix("blob:"))
            # Whoever sees the message gets a link to its file, so that naming one is as good as showing it.
            if info is None or info.room_id != room_id:
                raise UsageError("there is no such file in this room")


def _parts(content: Content) -> Iterator[Content]:
    if isinstance(content, CompositeContent):
        for part in content.parts:
            yield from _parts(part)
    elif isinstance(content, EditContent):
        yield content
        yield from _parts(content.new_content)
    else:
        yield content
