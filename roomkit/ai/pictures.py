"""Stored pictures for models that see: what lies in the kit's blob store goes along as a data: URL, within limits."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from roomkit.models.content import CompositeContent, Content, MediaContent
from roomkit.models.event import RoomEvent
from roomkit.ports.channel import MediaReader

MAX_BYTES = 3_750_000
"""Of one picture: 5 MB as base64, which is what vendors take."""
MAX_PICTURES = 8
"""Of one prompt, the newest; the others stay a note that a file was sent."""

# By what the bytes say: a vendor refuses the whole prompt for a picture which is not what it is called.
_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


async def with_pictures(events: Sequence[RoomEvent], media: MediaReader | None, own: str) -> list[RoomEvent]:
    """The events with the stored pictures of everybody but `own` inlined; what cannot be, is left as it is."""
    left = MAX_PICTURES

    async def inlined(content: Content) -> Content:
        nonlocal left
        if isinstance(content, CompositeContent):
            return content.replaced(parts=tuple([await inlined(part) for part in content.parts]))
        if not isinstance(content, MediaContent) or not content.url.startswith("blob:") or left <= 0 or media is None:
            return content
        if not content.mime_type.startswith("image/"):
            return content
        left -= 1
        data = await media(content.url, MAX_BYTES)
        kind = _kind(data) if data else None
        if data is None or kind is None:
            return content
        return content.replaced(url=f"data:{kind};base64,{base64.b64encode(data).decode()}", mime_type=kind)

    shown: list[RoomEvent] = []
    for event in reversed(events):
        if isinstance(event.content, MediaContent | CompositeContent) and event.source.channel_id != own:
            content = await inlined(event.content)
            shown.append(event if content is event.content else event.model_copy(update={"content": content}))
        else:
            shown.append(event)
    shown.reverse()
    return shown


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in _KINDS if data.startswith(mark)), None)
