"""Cutting what is too long for a channel into ordered parts, at the best border near the limit (D8). Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    RichContent,
    TextContent,
    VideoContent,
)
from roomkit.models.room import ChannelCapabilities

File = MediaContent | AudioContent | VideoContent

# Best first. A border before the middle would leave a part half empty; only words may be cut that early.
_BORDERS = (
    (re.compile(r"\n[ \t]*\n\s*"), 0.5),
    (re.compile(r"\n\s*"), 0.5),
    (re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'»”’)\]]))\s+|(?<=[。！？])\s*"), 0.5),
    (re.compile(r"\s+"), 0.0),
)
_JOINER = "\u200d"


def split_text(text: str, limit: int | None, segments: int | None = None) -> list[str]:
    """`text` in parts of at most `limit` characters: at paragraphs, lines, sentences or words, whichever fits first.

    With `segments` each part also goes into as many SMS segments, in the alphabet that the part itself needs. Only
    white space at the borders is lost. A word longer than the limit is cut between visible characters. Empty parts do
    not occur; a blank text gives none.
    """
    parts: list[str] = []
    rest = text.strip()
    while (most := _room(rest, limit, segments)) < len(rest):
        end, start = _cut(rest, most)
        parts.append(rest[:end].rstrip())
        rest = rest[start:].lstrip()
    return [part for part in (*parts, rest) if part]


def _room(text: str, limit: int | None, segments: int | None) -> int:
    most = len(text) if limit is None else min(limit, len(text))
    # A segment holds 33 characters at the least: of those that take two units of the wide alphabet.
    if segments is None or most <= 33 * segments:
        return most
    from roomkit.core.segments import fitting

    return fitting(text[:most], segments)


def split_content(content: Content, capabilities: ChannelCapabilities) -> tuple[Content, ...]:
    """The ordered parts in which `content`, already transcoded, goes through a channel."""
    limit, segments = capabilities.max_length, capabilities.max_segments
    match content:
        case TextContent():
            return tuple(
                content.model_copy(update={"text": part}) for part in split_text(content.text, limit, segments)
            )
        case RichContent() if limit is not None and len(content.text) > limit:
            return _rich(content, limit)
        case MediaContent(caption=str(words)) | VideoContent(caption=str(words)) if _too_long(words, capabilities):
            bare = content.model_copy(update={"caption": None})
            return (*(TextContent(text=part) for part in split_text(words, limit, segments)), bare)
        case CompositeContent():
            return tuple(_composite(content, capabilities))
        case _:
            return (content,)


def _too_long(caption: str, capabilities: ChannelCapabilities) -> bool:
    limit = capabilities.max_length if capabilities.max_caption is None else capabilities.max_caption
    return limit is not None and len(caption) > limit


def _rich(content: RichContent, limit: int) -> tuple[Content, ...]:
    """Cutting would break HTML's tags, so that goes as text; buttons stay with the last part."""
    if content.format == "html":
        from roomkit.core.transcode import rich_to_text

        return tuple(TextContent(text=part) for part in split_text(rich_to_text(content), limit))
    *first, last = split_text(content.text, limit)
    return (*(RichContent(text=part) for part in first), content.model_copy(update={"text": last, "plain_text": None}))


def _composite(content: CompositeContent, capabilities: ChannelCapabilities) -> Iterator[Content]:
    """Neighbouring texts and files travel together as far as the channel allows; everything else on its own."""
    texts: list[str] = []
    files: list[File] = []
    for part in _flat(content):
        match part:
            case TextContent():
                texts.append(part.text)
            case MediaContent() | AudioContent() | VideoContent():
                files.append(part)
            case _:
                yield from _bundles(texts, files, capabilities)
                texts, files = [], []
                yield from split_content(part, capabilities)
    yield from _bundles(texts, files, capabilities)


def _bundles(texts: Sequence[str], files: Sequence[File], capabilities: ChannelCapabilities) -> Iterator[Content]:
    limits = capabilities.max_length, capabilities.max_segments
    chunks: list[Content] = [TextContent(text=t) for t in split_text("\n".join(texts), *limits)]
    size = max(1, capabilities.media_per_message)
    groups: list[Sequence[Content]] = [files[at : at + size] for at in range(0, len(files), size)]
    if size > 1 and chunks and groups:
        groups[0] = [chunks.pop(), *groups[0]]
    yield from chunks
    for group in groups:
        yield group[0] if len(group) == 1 else CompositeContent(parts=tuple(group))


def _flat(content: CompositeContent) -> Iterator[Content]:
    for part in content.parts:
        if isinstance(part, CompositeContent):
            yield from _flat(part)
        else:
            yield part


def _cut(text: str, limit: int) -> tuple[int, int]:
    """Where the first part ends and where the next begins."""
    window = text[: limit + 1]
    for border, share in _BORDERS:
        best = None
        for match in border.finditer(window):
            if match.start() > limit:
                break
            if match.start() >= max(1, limit * share):
                best = match
        if best is not None:
            return best.start(), best.end()
    end = _between_characters(text, limit)
    return end, end


def _between_characters(text: str, at: int) -> int:
    """The last position up to `at` which does not tear a visible character (accents, emoji sequences, flags) apart."""
    cut = at
    while cut > 0 and _belongs_together(text, cut):
        cut -= 1
    return cut or at


def _belongs_together(text: str, cut: int) -> bool:
    after = text[cut]
    if text[cut - 1] == _JOINER or after == _JOINER or unicodedata.combining(after):
        return True
    if "\ufe00" <= after <= "\ufe0f" or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    if _is_flag_half(after):
        halves = 0
        while halves < cut and _is_flag_half(text[cut - 1 - halves]):
            halves += 1
        return halves % 2 == 1
    return False


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
