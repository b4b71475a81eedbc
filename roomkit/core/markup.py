"""Formatted text without its marks: Markdown and HTML as a text message can show them. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# Spans are bounded, so that a hostile text cannot make matching quadratic.
_MARKDOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"^[ \t]*(?:```|~~~)[^\n]*\n?", ""),
        (r"^[ \t]*(?:[-*_][ \t]*){3,}$\n?", ""),
        (r"^[ \t]{0,3}#{1,6}[ \t]+", ""),
        (r"^[ \t]*>[ \t]?", ""),
        (r"!\[([^\]\n]{0,300})\]\(([^()\s]{1,2000})[^()\n]{0,300}\)", r"\1"),
        (r"\[([^\]\n]{1,300})\]\(\1\)", r"\1"),
        (r"\[([^\]\n]{1,300})\]\(([^()\s]{1,2000})[^()\n]{0,300}\)", r"\1 (\2)"),
        (r"(?<!\\)(\*\*|__)(?=\S)([^\n]{1,500}?)(?<=[^\s\\])\1", r"\2"),
        (r"(?<![\\\w*_])([*_])(?=[^\s*_])([^\n]{1,500}?)(?<=[^\s*_\\])\1(?![\w*_])", r"\2"),
        (r"~~(?=\S)([^\n]{1,500}?)(?<=\S)~~", r"\1"),
        (r"`([^`\n]{1,500})`", r"\1"),
        (r"\\([\\`*_{}\[\]()#+\-.!<>~|])", r"\1"),
    )
)


def markdown_to_text(text: str) -> str:
    """Markdown without its marks; links keep their address in brackets, lists keep their dashes."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text.strip()


def html_to_text(html: str) -> str:
    """The readable text of HTML: no scripts or styles, blocks on lines of their own, links with their address."""
    reader = _TextOfHTML()
    reader.feed(_whole_tags(html))
    reader.close()
    lines = (re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(reader.out).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


_NEVER_ENDS = re.compile(r"<(?=[^<>]*+(?:<|\Z))")


def _whole_tags(html: str) -> str:
    """HTML without comments, in which a `<` that begins no whole tag is text: from each of those the parser reads on
    to the end, so that a hostile text would take the square of its length."""
    out: list[str] = []
    at = 0
    while (start := html.find("<!--", at)) >= 0:
        out.append(html[at:start])
        end = html.find("-->", start + 4)
        at = end + 3 if end >= 0 else len(html)
    out.append(html[at:])
    return _NEVER_ENDS.sub("&lt;", "".join(out))


class _TextOfHTML(HTMLParser):
    _BLOCKS = frozenset({"p", "div", "br", "ul", "ol", "table", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"})
    _SILENT = frozenset({"script", "style", "head", "title", "template"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._silent = 0
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._SILENT:
            self._silent += 1
        elif tag in self._BLOCKS:
            self.out.append("\n")
        elif tag == "li":
            self.out.append("\n- ")
        elif tag == "a":
            self._links.append((dict(attrs).get("href") or "", len(self.out)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in self._BLOCKS and tag != "br":
            self.out.append("\n")
        elif tag == "a" and self._links:
            href, start = self._links.pop()
            if href.startswith(("http://", "https://")) and href != "".join(self.out[start:]).strip():
                self.out.append(f" ({href})")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.out.append(re.sub(r"\s+", " ", data))
