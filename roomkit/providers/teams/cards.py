"""What Teams shows of our content: text with a little HTML, Adaptive Cards, pictures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from roomkit.models.content import (
    AudioContent,
    Button,
    Card,
    CompositeContent,
    Content,
    MediaContent,
    RichContent,
    VideoContent,
    text_of,
)
from roomkit.providers.chat_text import Dialect, chat_text

ADAPTIVE = "application/vnd.microsoft.card.adaptive"
_TAGS = ("b", "i", "u", "s", "code", "pre", "blockquote")


def _escaped(text: str) -> str:
    return escape(text, quote=False).replace("\n", "<br/>")


TEAMS = Dialect(
    {name: (f"<{name}>", f"</{name}>") for name in _TAGS},
    _escaped,
    lambda href, text: f'<a href="{escape(href)}">{text}</a>',
)


def activity_of(content: Content) -> dict[str, Any]:
    """The fields of a message activity that say something; empty where there is nothing to say.

    Plain text goes as HTML too (`textFormat` "xml"): as Markdown, which is what Teams takes text for, it would be
    changed."""
    words, attachments = _rendered(content)
    made: dict[str, Any] = {}
    if words:
        made |= {"text": words, "textFormat": "xml"}
    if attachments:
        made["attachments"] = attachments
    return made


def _rendered(content: Content) -> tuple[str, list[dict[str, Any]]]:
    match content:
        case RichContent():
            return _html(content), [*map(_card, content.cards), *_loose(content)]
        case CompositeContent(parts=many):
            rendered = [_rendered(one) for one in many]
            words = "<br/>".join(words for words, _ in rendered if words)
            return words, [one for _, attachments in rendered for one in attachments]
        case MediaContent() | AudioContent() | VideoContent():
            return _file(content)
        case _:
            return _escaped(text_of(content)), []


def _html(content: RichContent) -> str:
    return chat_text(content, TEAMS).replace("\n", "<br/>")


def _file(content: MediaContent | AudioContent | VideoContent) -> tuple[str, list[dict[str, Any]]]:
    """Pictures are shown; of other files Teams takes only their address."""
    name = content.filename if isinstance(content, MediaContent) else None
    words = _escaped(text_of(content))
    if content.mime_type in {"image/png", "image/jpeg", "image/gif"}:
        shown = {"contentType": content.mime_type, "contentUrl": content.url}
        return words, [{**shown, "name": name} if name else shown]
    link = f'<a href="{escape(content.url)}">{_escaped(name or content.mime_type)}</a>'
    return "<br/>".join(filter(None, (words, link))), []


def _loose(content: RichContent) -> list[dict[str, Any]]:
    """Buttons without a card get one."""
    buttons = [*content.buttons, *(Button(label=reply) for reply in content.quick_replies)]
    return [_adaptive([], buttons)] if buttons else []


def _card(card: Card) -> dict[str, Any]:
    body: list[dict[str, Any]] = [{"type": "TextBlock", "text": card.title, "weight": "bolder", "wrap": True}]
    if card.text:
        body.append({"type": "TextBlock", "text": card.text, "wrap": True})
    if card.image_url:
        body.append({"type": "Image", "url": card.image_url, "altText": card.title})
    return _adaptive(body, card.buttons)


def _adaptive(body: list[dict[str, Any]], buttons: Sequence[Button]) -> dict[str, Any]:
    made = {
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.4",
        "body": body,
        "actions": [_action(button) for button in buttons],
    }
    return {"contentType": ADAPTIVE, "content": made}


def _action(button: Button) -> dict[str, Any]:
    if button.url:
        return {"type": "Action.OpenUrl", "title": button.label, "url": button.url}
    said = {"button": button.value or button.label}
    back = {"type": "messageBack", "displayText": button.label, "text": button.label, "value": said}
    return {"type": "Action.Submit", "title": button.label, "data": {"msteams": back}}
