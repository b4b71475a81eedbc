"""What a channel can carry of a content: the same meaning in the forms it knows, or None. Pure.

Core calls this before `Channel.deliver`, with the capabilities of the binding. A kit may bring its own `Transcoder`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from roomkit.core.catalogue import phrase
from roomkit.models.content import (
    AudioContent,
    Button,
    Card,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    SystemContent,
    TemplateContent,
    TextContent,
    ToolCallContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.room import ChannelCapabilities


class Transcoder(Protocol):
    """Turns content into what `capabilities` allow, or None when nothing worth sending is left."""

    def __call__(
        self, content: Content, capabilities: ChannelCapabilities, *, language: str = "en"
    ) -> Content | None: ...


def transcode(content: Content, capabilities: ChannelCapabilities, *, language: str = "en") -> Content | None:
    """The default `Transcoder`. What a channel supports passes unchanged, the rest becomes text; None is "skip"."""
    match content:
        case TextContent():
            return content if capabilities.text else None
        case RichContent():
            return _rich(content, capabilities)
        case MediaContent() | AudioContent() | VideoContent():
            return _file(content, capabilities, language)
        case CompositeContent():
            return _composite(content, capabilities, language)
        case EditContent():
            return _edit(content, capabilities, language)
        case _:
            return _small(content, capabilities, language)


def with_sender(content: Content, name: str, *, language: str = "en") -> Content:
    """`content` with the writer's name in front, for channels which cannot show one (D29). The name is the writer's own
    word: it is one line, and text."""
    name = " ".join(name.split())

    def named(text: str, name: str = name) -> str:
        return phrase("sender", language, name=name, text=text)

    match content:
        case TextContent():
            return content.model_copy(update={"text": named(content.text)})
        case RichContent():
            plain = None if content.plain_text is None else named(content.plain_text)
            marked = named(content.text, _escaped(name, content.format))
            return content.model_copy(update={"text": marked, "plain_text": plain})
        case MediaContent(caption=str(caption)) | VideoContent(caption=str(caption)) if caption:
            return content.model_copy(update={"caption": named(caption)})
        case CompositeContent(parts=(TextContent() as first, *rest)):
            return CompositeContent(parts=(with_sender(first, name, language=language), *rest))
        case CompositeContent(parts=parts):
            return CompositeContent(parts=(TextContent(text=named("").strip()), *parts))
        case _:
            return CompositeContent(parts=(TextContent(text=named("").strip()), content))


def _rich(content: RichContent, capabilities: ChannelCapabilities) -> Content | None:
    if not capabilities.rich:
        return _text(rich_to_text(content), capabilities)
    # What has no place of its own is written out rather than lost.
    lines: list[str] = []
    kept: dict[str, object] = {}
    if len(content.buttons) > capabilities.buttons:
        lines += _button_lines(content.buttons)
        kept["buttons"] = ()
    if content.cards and not capabilities.cards:
        lines += _card_lines(content.cards)
        kept["cards"] = ()
    if content.quick_replies and not capabilities.quick_replies:
        lines.append(" / ".join(content.quick_replies))
        kept["quick_replies"] = ()
    if not kept:
        return content
    plain = None if content.plain_text is None else "\n".join([content.plain_text, *lines])
    joint = "<br>" if content.format == "html" else "\n\n"
    body = joint.join([content.text, *(_escaped(line, content.format) for line in lines)])
    return content.model_copy(update={**kept, "text": body, "plain_text": plain})


def rich_to_text(content: RichContent) -> str:
    """The plain text of formatted content: the author's own, or else the markup stripped."""
    if content.plain_text is not None:
        return content.plain_text
    # Imported on use: most rooms never see markup.
    from roomkit.core.markup import html_to_text, markdown_to_text

    body = html_to_text(content.text) if content.format == "html" else markdown_to_text(content.text)
    lines = [body, *_card_lines(content.cards), *_button_lines(content.buttons)]
    if content.quick_replies:
        lines.append(" / ".join(content.quick_replies))
    return "\n".join(filter(None, lines))


def _button_lines(buttons: Sequence[Button]) -> list[str]:
    return [f"{button.label}: {button.url}" if button.url else f"- {button.label}" for button in buttons]


def _card_lines(cards: Sequence[Card]) -> list[str]:
    lines: list[str] = []
    for card in cards:
        lines += [part for part in (card.title, card.text) if part]
        lines += _button_lines(card.buttons)
    return lines


def _escaped(line: str, form: str) -> str:
    if form == "html":
        return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", line)


def _file(
    content: MediaContent | AudioContent | VideoContent, capabilities: ChannelCapabilities, language: str
) -> Content | None:
    match content:
        case AudioContent():
            can, words = capabilities.audio, content.transcript or phrase("voice_message", language)
        case VideoContent():
            can, words = capabilities.video, content.caption or phrase("video", language)
        case MediaContent():
            can, words = capabilities.media, content.caption or _file_name(content, language)
    fits = not capabilities.media_types or any(fnmatchcase(content.mime_type, p) for p in capabilities.media_types)
    limit = capabilities.max_media_bytes
    if can and fits and (limit is None or content.size_bytes is None or content.size_bytes <= limit):
        return content
    return _text(words, capabilities)


def _file_name(content: MediaContent, language: str) -> str:
    if content.filename:
        return phrase("file_named", language, name=content.filename)
    return content.url if content.url.startswith(("https://", "http://")) else phrase("file", language)


def _composite(content: CompositeContent, capabilities: ChannelCapabilities, language: str) -> Content | None:
    parts = [part for p in content.parts if (part := transcode(p, capabilities, language=language)) is not None]
    if not parts:
        return None
    if all(isinstance(part, TextContent) for part in parts):
        return TextContent(text="\n".join(part.text for part in parts if isinstance(part, TextContent)))
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts))


def _edit(content: EditContent, capabilities: ChannelCapabilities, language: str) -> Content | None:
    inner = transcode(content.new_content, capabilities, language=language)
    if inner is None:
        return None
    if capabilities.edit:
        return content.model_copy(update={"new_content": inner})
    match inner:
        case TextContent():
            return TextContent(text=phrase("correction", language, text=inner.text))
        case RichContent():
            return _text(phrase("correction", language, text=rich_to_text(inner)), capabilities)
        case _:
            return CompositeContent(parts=(TextContent(text=phrase("correction", language, text="").strip()), inner))


def _small(content: Content, capabilities: ChannelCapabilities, language: str) -> Content | None:
    match content:
        case LocationContent():
            return content if capabilities.location else _text(_place(content), capabilities)
        case TemplateContent():
            return content if capabilities.templates else _text(content.fallback, capabilities)
        case DeleteContent():
            return content if capabilities.delete else _text(phrase("deleted", language), capabilities)
        case ReactionContent():
            return content if capabilities.reactions else None
        case ToolCallContent():
            return content if capabilities.tool_calls else None
        case SystemContent():
            return _text(content.message, capabilities)
        case UnknownContent():
            return _text(content.text or phrase("unknown", language, kind=content.kind), capabilities)
        case _:
            return None


def _place(content: LocationContent) -> str:
    position = f"{content.latitude:g}, {content.longitude:g}"
    return "\n".join(filter(None, (content.label, content.address, position)))


def _text(text: str | None, capabilities: ChannelCapabilities) -> TextContent | None:
    return TextContent(text=text) if text and capabilities.text else None
