"""Discord's own spellings: Markdown, components, embeds. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
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

LIMIT = 2000
"""Most characters of a message; it has at most 10 embeds, and 5 rows of 5 buttons."""
_ROWS, _ROW, _EMBEDS = 5, 5, 10
_MARKS = re.compile(r"([\\*_~`|>#\[\]()<])|(?<=^)([-+](?=\s)|\d+(?=\.\s))", re.MULTILINE)
_PRIMARY, _LINK = 1, 5
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def escaped(text: str) -> str:
    """Text whose marks are shown and not obeyed. Where that makes it too long for a message it stays as it is: marks
    do no harm, and nobody is called by a message of ours."""
    made = _escape(text)
    return made if len(made) <= LIMIT else text


def _escape(text: str) -> str:
    return _MARKS.sub(lambda found: f"\\{found[0]}", text)


def _link(href: str, text: str) -> str:
    return href if text in {href, _escape(href)} else f"[{text}]({href.replace(')', '%29')})"


DISCORD = Dialect(
    {
        "b": ("**", "**"),
        "i": ("*", "*"),
        "u": ("__", "__"),
        "s": ("~~", "~~"),
        "code": ("`", "`"),
        "pre": ("```\n", "\n```"),
    },
    lambda text: re.sub(r"([\\*_~`|])", r"\\\1", text),
    _link,
)


def body_of(content: Content) -> dict[str, Any]:
    """Text, embeds and components of a message; empty where there is nothing to send."""
    made: dict[str, Any] = {}
    match content:
        case RichContent():
            words = chat_text(content, DISCORD)
            made["embeds"] = [_card(card) for card in content.cards]
            replies = [Button(label=reply) for reply in content.quick_replies]
            made["components"] = _rows([*content.buttons, *replies], content.cards)
        case CompositeContent(parts=parts):
            bodies = [body_of(part) for part in parts]
            words = "\n".join(body["content"] for body in bodies if body.get("content"))
            for name in ("embeds", "components"):
                made[name] = [one for body in bodies for one in body.get(name, ())]
        case MediaContent() | AudioContent() | VideoContent():
            words = escaped(text_of(content))
            if content.mime_type in _PICTURES:
                made["embeds"] = [{"image": {"url": content.url}}]
            else:
                words = "\n".join(filter(None, (words, content.url)))
        case _:
            words = escaped(text_of(content))
    made["embeds"], made["components"] = made.get("embeds", [])[:_EMBEDS], made.get("components", [])[:_ROWS]
    return {name: value for name, value in {"content": words, **made}.items() if value}


def _card(card: Card) -> dict[str, Any]:
    made: dict[str, Any] = {"title": card.title[:256]}
    if card.text:
        made["description"] = card.text[:4096]
    if card.image_url:
        made["image"] = {"url": card.image_url}
    return made


def _rows(buttons: Sequence[Button], cards: Sequence[Card]) -> list[dict[str, Any]]:
    made = [_button(button, f"b{number}") for number, button in enumerate(buttons)]
    for number, card in enumerate(cards):
        made += [_button(button, f"c{number}.{at}") for at, button in enumerate(card.buttons)]
    return [{"type": 1, "components": made[at : at + _ROW]} for at in range(0, len(made), _ROW)]


def _button(button: Button, place: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": 2, "label": button.label[:80] or "…"}
    if button.url and len(button.url) <= 512:
        return {**made, "style": _LINK, "url": button.url}
    # No two buttons of a message may have the same id; the place in front keeps them apart.
    return {**made, "style": _PRIMARY, "custom_id": f"{place}:{button.value or button.label}"[:100]}
