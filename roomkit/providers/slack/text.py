"""Slack's own spellings: mrkdwn, Block Kit, and the names of emoji. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any

from roomkit.models.content import Button, Card, RichContent
from roomkit.providers.chat_text import Dialect, chat_text

Block = dict[str, Any]
SECTION = 3000
"""Most characters of one section; a message has at most 50 blocks, a row of buttons at most 25."""
_BLOCKS = 50
_ROW = 25
_CONTROL = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_REFERENCE = re.compile(r"<([@#!]?)([^<>|]{1,2000})(?:\|([^<>]{0,500}))?>")

EMOJI = {
    "thumbsup": "👍",
    "+1": "👍",
    "thumbsdown": "👎",
    "-1": "👎",
    "heart": "❤️",
    "joy": "😂",
    "smile": "😄",
    "open_mouth": "😮",
    "cry": "😢",
    "rage": "😡",
    "tada": "🎉",
    "eyes": "👀",
    "fire": "🔥",
    "pray": "🙏",
    "clap": "👏",
    "raised_hands": "🙌",
    "rocket": "🚀",
    "white_check_mark": "✅",
    "heavy_check_mark": "✔️",
    "x": "❌",
    "100": "💯",
    "wave": "👋",
    "thinking_face": "🤔",
    "ok_hand": "👌",
}
_NAMES = {mark.removesuffix("\ufe0f"): name for name, mark in reversed(EMOJI.items())}


def emoji_of(name: str) -> str:
    """The emoji that Slack calls `name`; one that is not in the table keeps its name, as `:name:`."""
    return EMOJI.get(name.partition("::")[0], f":{name}:")


def name_of(emoji: str) -> str | None:
    """Slack's name of an emoji, None where it is not known."""
    return emoji.strip(":") if emoji.startswith(":") else _NAMES.get(emoji.removesuffix("\ufe0f"))


def escaped(text: str) -> str:
    """Text in which nothing is a control sequence: nobody is called by what somebody else wrote."""
    return re.sub("[&<>]", lambda found: _CONTROL[found[0]], text)


def readable(text: str, me: str | None = None) -> str:
    """mrkdwn as a person reads it; where the message begins by calling the app (`me`), without that."""
    if me is not None:
        text = re.sub(rf"^\s*<@{re.escape(me)}(?:\|[^>]*)?>[:,]?\s*", "", text)
    return unescape(_REFERENCE.sub(_named, text))


def _named(found: re.Match[str]) -> str:
    kind, target, label = found[1], found[2], found[3]
    if kind == "!":
        word = target.partition("^")[0]
        return label or (f"@{word}" if word in {"here", "channel", "everyone"} else word)
    if kind:
        return kind + (label or target)
    target = target.removeprefix("mailto:").removeprefix("tel:")
    return target if not label or label in target else f"{label} ({target})"


def link(href: str, text: str) -> str:
    """A link with a label that is mrkdwn already."""
    return f"<{escaped(href.replace('|', '%7C'))}|{text}>"


SLACK = Dialect(
    {"b": ("*", "*"), "i": ("_", "_"), "s": ("~", "~"), "code": ("`", "`"), "pre": ("```", "```")}, escaped, link
)


def blocks_of(content: RichContent) -> list[Block]:
    """Formatted text with its cards and buttons in Block Kit. Buttons beyond a row's 25 begin another row."""
    blocks = sections(chat_text(content, SLACK))
    for number, card in enumerate(content.cards):
        blocks += _card(card, number)
    replies = [Button(label=reply) for reply in content.quick_replies]
    blocks += _rows([*content.buttons, *replies], "b")
    return blocks[:_BLOCKS]


def sections(text: str) -> list[Block]:
    return [{"type": "section", "text": {"type": "mrkdwn", "text": piece}} for piece in _pieces(text)]


def picture(url: str, words: str) -> Block:
    return {"type": "image", "image_url": url, "alt_text": words[:2000] or "picture"}


def _pieces(text: str) -> Iterator[str]:
    while len(text) > SECTION:
        cut = max(text.rfind("\n", 1, SECTION), text.rfind(" ", SECTION // 2, SECTION))
        cut = cut if cut > 0 else SECTION
        yield text[:cut]
        text = text[cut:].lstrip()
    if text:
        yield text


def _card(card: Card, number: int) -> list[Block]:
    words = f"*{escaped(card.title)}*" + (f"\n{escaped(card.text)}" if card.text else "")
    blocks = sections(words)
    if card.image_url:
        blocks[0]["accessory"] = picture(card.image_url, card.title)
    return [*blocks, *_rows(card.buttons, f"c{number}")]


def _rows(buttons: Sequence[Button], prefix: str) -> list[Block]:
    made = [_button(button, f"{prefix}{number}") for number, button in enumerate(buttons)]
    return [{"type": "actions", "elements": made[at : at + _ROW]} for at in range(0, len(made), _ROW)]


def _button(button: Button, action_id: str) -> Block:
    made: Block = {
        "type": "button",
        "text": {"type": "plain_text", "text": button.label[:75] or "…"},
        "action_id": action_id,
        "value": (button.value or button.label)[:2000] or "…",
    }
    return {**made, "url": button.url} if button.url else made
