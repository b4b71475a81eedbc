"""Files that only we have, on their way to vendors that take bytes: `data:` URLs, and the kit's own store."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from roomkit.errors import Refused
from roomkit.models.content import AudioContent, CompositeContent, Content, MediaContent, VideoContent
from roomkit.models.delivery import Outgoing
from roomkit.models.event import RoomEvent
from roomkit.ports.channel import RoomContext

File = MediaContent | AudioContent | VideoContent
_EXTRA = "files"


async def stored_files(event: RoomEvent, context: RoomContext, at_most: int) -> dict[str, Any]:
    """For a provider's `continuing`: the event's files of the kit's store that have no public address, in
    `Outgoing.extra`. One that is larger than `at_most` bytes, or not there, is left out."""
    found: dict[str, bytes] = {}
    for file in _files(event.content):
        if context.media is not None and file.url.startswith("blob:"):
            data = await context.media(file.url, at_most)
            found |= {} if data is None else {file.url: data}
    return {_EXTRA: found} if found else {}


def bytes_of(file: File, message: Outgoing, vendor: str) -> bytes | None:
    """What the vendor has to be sent of `file`; None where it has an address to be fetched from. Raises `Refused` for a
    broken `data:` URL."""
    if not file.url.startswith("data:"):
        return cast("Mapping[str, bytes]", message.extra.get(_EXTRA, {})).get(file.url)
    head, _, data = file.url.partition(",")
    try:
        return base64.b64decode(data) if head.endswith(";base64") else unquote_to_bytes(data)
    except ValueError as error:
        raise Refused(vendor, "the data: URL is broken") from error


def name_of(file: File) -> str:
    return (file.filename if isinstance(file, MediaContent) else None) or "file"


def _files(content: Content) -> Iterator[File]:
    match content:
        case MediaContent() | AudioContent() | VideoContent():
            yield content
        case CompositeContent(parts=parts):
            for part in parts:
                yield from _files(part)
        case _:
            return
