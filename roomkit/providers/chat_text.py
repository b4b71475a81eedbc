"""Formatted text in the spelling of a chat network: Markdown or HTML in, the network's own marks out. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape, unescape
from html.parser import HTMLParser

from roomkit.models.content import RichContent

Marks = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a network writes: the marks around each style, what must be escaped in text, and links."""

    marks: Marks
    escape: Callable[[str], str]
    link: Callable[[str, str], str]
    """(href, text already in the dialect) -> the link."""


def _plain(text: str) -> str:
    return text


def _html_link(href: str, text: str) -> str:
    return f'<a href="{escape(href)}">{text}</a>'


def _written_link(href: str, text: str) -> str:
    return text if text == href else f"{text} ({href})"


def _tag(name: str) -> tuple[str, str]:
    return f"<{name}>", f"</{name}>"


TELEGRAM = Dialect(
    {name: _tag(name) for name in ("b", "i", "u", "s", "code", "pre", "blockquote")},
    lambda text: escape(text, quote=False),
    _html_link,
)
WHATSAPP = Dialect(
    {"b": ("*", "*"), "i": ("_", "_"), "s": ("~", "~"), "code": ("`", "`"), "pre": ("```", "```")},
    _plain,
    _written_link,
)
PLAIN = Dialect({}, _plain, _written_link)


def chat_text(content: RichContent, dialect: Dialect) -> str:
    """The text of `content` in the dialect. Marks that nothing closes are closed at the end."""
    html = content.text if content.format == "html" else markdown_to_html(content.text)
    writer = _Writer(dialect)
    writer.feed(_whole_tags(html))
    writer.close()
    return writer.text()


# Spans are bounded, so that a hostile text cannot make matching quadratic.
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)|`([^`\n]{1,500})`", re.MULTILINE | re.DOTALL)
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!<>~|])")
_SPANS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"^[ \t]{0,3}#{1,6}[ \t]+([^\n]{1,500})$", r"<b>\1</b>"),
        (r"^([ \t]*)[-*+][ \t]+", r"\1• "),
        (r"!?\[([^\]\n]{1,300})\]\((https?://[^()\s]{1,2000})[^()\n]{0,300}\)", r'<a href="\2">\1</a>'),
        (r"(\*\*|__)(?=\S)([^\n]{1,500}?)(?<=\S)\1", r"<b>\2</b>"),
        (r"(?<![\w*_])([*_])(?=[^\s*_])([^\n]{1,500}?)(?<=[^\s*_])\1(?![\w*_])", r"<i>\2</i>"),
        (r"~~(?=\S)([^\n]{1,500}?)(?<=\S)~~", r"<s>\1</s>"),
    )
)
_HIDDEN = 0xE000  # where escaped characters wait until the marks have been read


def markdown_to_html(text: str) -> str:
    """The everyday part of Markdown; everything else stays as it is written."""
    out: list[str] = []
    at = 0
    for match in _FENCE.finditer(text):
        out.append(_spans(text[at : match.start()]))
        block, span = match[1], match[2]
        out.append(f"<code>{escape(span)}</code>" if span else f"<pre>{escape((block or '').rstrip())}</pre>\n")
        at = match.end()
    out.append(_spans(text[at:]))
    return "".join(out).replace("\n", "<br>")


def _spans(text: str) -> str:
    text = _ESCAPED.sub(lambda match: chr(_HIDDEN + ord(match[1])), text)
    text = escape(text)
    for pattern, replacement in _SPANS:
        text = pattern.sub(replacement, text)
    return "".join(escape(chr(ord(c) - _HIDDEN)) if _HIDDEN < ord(c) < _HIDDEN + 128 else c for c in text)


_NEVER_ENDS = re.compile(r"<(?=[^<>]*+(?:<|\Z))")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


def _whole_tags(html: str) -> str:
    """Without comments; a `<` that begins no whole tag is text, or the parser would read to the end from each."""
    return _NEVER_ENDS.sub("&lt;", _COMMENT.sub("", html))


_SAME = {"strong": "b", "em": "i", "ins": "u", "strike": "s", "del": "s", **{f"h{n}": "b" for n in range(1, 7)}}
_BLOCKS = frozenset({"p", "div", "ul", "ol", "table", "tr", "blockquote", "pre", *(f"h{n}" for n in range(1, 7))})
_SILENT = frozenset({"script", "style", "head", "title", "template"})


class _Writer(HTMLParser):
    """Keeps the marks properly nested whatever the tags do: networks refuse a text whose marks cross."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(convert_charrefs=True)
        self._dialect = dialect
        self._out: list[str] = []
        self._open: list[tuple[str, str, int]] = []
        """(tag, href, where its text begins)"""
        self._silent = 0

    def text(self) -> str:
        while self._open:
            self._end()
        lines = (line.rstrip() for line in "".join(self._out).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag == "br":
            self._out.append("\n")
        elif tag == "li":
            self._out.append("\n• ")
        elif tag in _BLOCKS and self._out:
            self._out.append("\n")
        style = _SAME.get(tag, tag)
        if style in self._dialect.marks and not self._inside(style):
            self._open.append((style, "", len(self._out)))
        elif tag == "a" and not self._inside("a"):
            href = unescape(dict(attrs).get("href") or "")
            if href.startswith(("http://", "https://", "tg://", "mailto:", "tel:")):
                self._open.append(("a", href, len(self._out)))

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        style = _SAME.get(tag, tag)
        if self._inside(style):
            while self._end() != style:
                pass
        if tag in _BLOCKS:
            self._out.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            kept = data if self._inside("pre") else re.sub(r"[ \t\r\n\f\v]+", " ", data)
            self._out.append(self._dialect.escape(kept))

    def _inside(self, style: str) -> bool:
        return any(one[0] == style for one in self._open)

    def _end(self) -> str:
        """Closes what was opened last; what has no text needs no marks."""
        style, href, start = self._open.pop()
        inner = "".join(self._out[start:])
        words = inner.strip()
        if words:
            before, _, after = inner.partition(words)
            if style == "a":
                words = self._dialect.link(href, words)
            else:
                opening, closing = self._dialect.marks[style]
                words = f"{opening}{words}{closing}"
            inner = f"{before}{words}{after}"
        self._out[start:] = [inner]
        return style
