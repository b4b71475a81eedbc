"""What vendors of text messages have in common: a text and links to files, in and out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roomkit.errors import Refused
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    RichContent,
    TextContent,
    UnknownContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import Attachment, InboundMessage
from roomkit.providers.chat_text import PLAIN, Dialect, chat_text

if TYPE_CHECKING:
    pass

File = MediaContent | AudioContent | VideoContent


def text_to_send(content: Content, dialect: Dialect = PLAIN) -> str:
    """The words of a content in the network's own spelling."""
    if isinstance(content, RichContent):
        return chat_text(content, dialect)
    if isinstance(content, CompositeContent):
        return "\n".join(filter(None, (text_to_send(part, dialect) for part in content.parts)))
    return text_of(content)


def files_to_send(content: Content, vendor: str) -> list[File]:
    """The files of a content. Raises `Refused` for one that the vendor cannot fetch."""
    parts = content.parts if isinstance(content, CompositeContent) else (content,)
    files = [part for part in parts if isinstance(part, MediaContent | AudioContent | VideoContent)]
    for file in files:
        if not file.url.startswith(("https://", "http://")):
            told = f"media must have a public URL that {vendor.title()} can fetch; configure the kit's public URL"
            raise Refused(vendor, told)
    return files


def media_to_send(content: Content, vendor: str, *, most: int) -> list[str]:
    """The URLs of the files of a content; `Refused` for more than `most`, or for one that the vendor cannot fetch."""
    urls = [file.url for file in files_to_send(content, vendor)]
    if len(urls) > most:
        raise Refused(vendor, f"{len(urls)} files in one message, {most} are possible; send them in several")
    return urls


def file_of(attachment: Attachment, caption: str | None = None) -> File:
    """What came with a message, by its media type."""
    mime, url, size = attachment.mime_type or "application/octet-stream", attachment.url, attachment.size_bytes
    match mime.partition("/")[0]:
        case "audio":
            return AudioContent(url=url, mime_type=mime, size_bytes=size)
        case "video":
            return VideoContent(url=url, mime_type=mime, size_bytes=size, caption=caption)
        case _:
            return MediaContent(url=url, mime_type=mime, size_bytes=size, filename=attachment.filename, caption=caption)


def content_of(text: str, attachments: Sequence[Attachment], more: Content | None = None, *, kind: str) -> Content:
    """Text, files and whatever else as one content; of nothing at all an unknown one of this `kind`."""
    if len(attachments) == 1 and text and more is None:
        alone = file_of(attachments[0], text)
        if not isinstance(alone, AudioContent):
            return alone
    parts: list[Content] = [TextContent(text=text)] if text else []
    parts += [file_of(one) for one in attachments]
    parts += [] if more is None else [more]
    if not parts:
        return UnknownContent(kind=kind[:80])
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts))


def unknown(channel_id: str, vendor: str, kind: str, ident: str, raw: Any, sender: str = "unknown") -> InboundMessage:
    """A webhook of a kind that nobody here knows, as an event that can be seen."""
    return InboundMessage(
        channel_id=channel_id,
        sender_id=sender or "unknown",
        content=UnknownContent(kind=kind[:80]),
        external_id=ident,
        provider=vendor,
        raw_payload=raw,
    )
