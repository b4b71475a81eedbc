"""What people write through our doors, on its way into a room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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
)
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
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
_TYPES = {EditContent: EventType.EDIT, DeleteContent: EventType.DELETE, ReactionContent: EventType.REACTION}


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
    check(principal, content)
    metadata = {"client_id": client_id} if client_id else {}
    if principal.display_name:
        metadata["sender_name"] = principal.display_name
    message = InboundMessage(
        channel_id=door.options.web_channel,
        sender_id=principal.id,
        content=content,
        external_id=f"{principal.id}:{client_id}" if client_id else None,
        type=_TYPES.get(type(content), EventType.MESSAGE),
        sender_name=principal.display_name,
        participant_id=principal.id,
        parent_event_id=parent,
        provider="roomkit",
        metadata=metadata,
    )
    return await door.rooms(principal).process_inbound(message, room_id=room_id)


def check(principal: Principal, content: Content) -> None:
    """Refuses what only the framework writes, and links of guests to foreign files."""
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


def _parts(content: Content) -> Iterator[Content]:
    if isinstance(content, CompositeContent):
        for part in content.parts:
            yield from _parts(part)
    elif isinstance(content, EditContent):
        yield content
        yield from _parts(content.new_content)
    else:
        yield content
