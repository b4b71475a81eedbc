"""HTML of strangers: made safe to be shown, and read as text with what it quotes told apart. Linear in its length."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

MAX_HTML = 1_000_000
_DEEPEST = 200
_NEVER_ENDS = re.compile(r"<(?=[^<>]*+(?:<|\Z))")
_SPACE = re.compile(r"\s+")
_LINK = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
_PICTURE = re.compile(r"(?:cid:[^\s\"'<>]{1,300}|data:image/(?:png|gif|jpeg|webp);base64,[A-Za-z0-9+/=\s]*)\Z")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEPT = _names(
    """a b strong i em u s del ins sub sup small p div span br hr pre code blockquote ul ol li dl dt dd table thead
    tbody tfoot tr td th caption h1 h2 h3 h4 h5 h6 img"""
)
_VOID = frozenset({"br", "hr", "img"})
# What is not only unmarked but left out with everything inside.
_DROPPED = _names(
    "script style head title template noscript iframe object embed applet svg math form select textarea button"
)
_BLOCKS = _names(
    "p div br hr ul ol li dl dt dd table tr pre blockquote h1 h2 h3 h4 h5 h6 section article header footer"
)
# Marks with which mail programs say that what follows, or what is inside, is the letter being answered.
_QUOTE_INSIDE = ("gmail_quote", "gmail_extra", "yahoo_quoted", "moz-cite-prefix", "protonmail_quote", "tutanota_quote")
_QUOTE_FROM_HERE = ("divrplyfwdmsg", "appendonsend", "mail-editor-reference-message-container", "olk_src_body_section")
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|(?:font-size|opacity|max-height)\s*:\s*0(?![.\d]*[1-9])|mso-hide\s*:\s*all",
    re.IGNORECASE,
)
_NO_END = _names("area base br col embed hr img input link meta param source track wbr")


def safe_html(html: str) -> str:
    """The HTML with what a page may show: no scripts, styles, forms or frames, no handlers, links to http, mail and
    phone only, and no picture from elsewhere (each would tell its sender who looks, and when)."""
    reader = _Safe()
    reader.read(html)
    return "".join((*reader.out, *(f"</{tag}>" for tag in reversed(reader.open))))


def text_of_html(html: str, *, keep_quotes: bool = False) -> tuple[str, str]:
    """(what is said, what is quoted), as lines of text; with `keep_quotes` everything is said."""
    reader = _Text(keep_quotes)
    reader.read(html)
    return _lines(reader.said), _lines(reader.quoted)


def whole_tags(html: str) -> str:
    """HTML without comments in which a `<` that begins no whole tag is text: from each of those the parser would read
    on to the end, the square of the length in all."""
    out: list[str] = []
    at = 0
    while (start := html.find("<!", at)) >= 0:
        out.append(html[at:start])
        comment = html.startswith("<!--", start)
        end = html.find("-->" if comment else ">", start + 2)
        at = end + (3 if comment else 1) if end >= 0 else len(html)
    out.append(html[at:])
    return _NEVER_ENDS.sub("&lt;", "".join(out))


def _lines(pieces: list[str]) -> str:
    lines = (re.sub(r"[ \t\r\f\v\xa0]+", " ", line).strip() for line in "".join(pieces).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Reader(HTMLParser):
    """Tells its heirs of tags and words outside of what is dropped."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._dropped: list[str] = []

    def read(self, html: str) -> None:
        self.feed(whole_tags(html[:MAX_HTML]).replace("\x00", ""))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in reversed(attrs)}
        # Words that nobody is shown were written for somebody else than the reader.
        hidden = "hidden" in attributes or _HIDDEN.search(attributes.get("style", "")[:2_000]) is not None
        if self._dropped or tag in _DROPPED or hidden:
            if tag not in _NO_END and len(self._dropped) < _DEEPEST:
                self._dropped.append(tag)
        else:
            self.begin(tag, attributes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _DROPPED and (tag in _NO_END or not self._dropped):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            if tag in self._dropped:
                while self._dropped.pop() != tag:
                    pass
            elif tag in {"body", "html"}:
                self._dropped.clear()
        else:
            self.end(tag)

    def handle_data(self, data: str) -> None:
        if not self._dropped:
            self.words(data)

    def begin(self, tag: str, attributes: dict[str, str]) -> None: ...

    def end(self, tag: str) -> None: ...

    def words(self, text: str) -> None: ...


class _Safe(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self.open: list[str] = []

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        if tag not in _KEPT or len(self.open) > _DEEPEST:
            return
        if tag == "img":
            self._picture(attributes)
            return
        kept = ""
        href = attributes.get("href", "").strip()
        if tag == "a" and _LINK.match(href):
            kept = f' href="{escape(href)}" rel="noopener noreferrer nofollow" target="_blank"'
        for name in ("colspan", "rowspan"):
            if tag in {"td", "th"} and attributes.get(name, "").isdecimal() and len(attributes[name]) < 4:
                kept += f' {name}="{escape(attributes[name])}"'
        self.out.append(f"<{tag}{kept}>")
        if tag not in _VOID:
            self.open.append(tag)

    def end(self, tag: str) -> None:
        if tag in self.open:
            while True:
                last = self.open.pop()
                self.out.append(f"</{last}>")
                if last == tag:
                    return

    def words(self, text: str) -> None:
        self.out.append(escape(text, quote=False))

    def _picture(self, attributes: dict[str, str]) -> None:
        source, alt = attributes.get("src", "").strip(), attributes.get("alt", "")[:200]
        if _PICTURE.match(source):
            self.out.append(f'<img src="{escape(source)}" alt="{escape(alt)}">')
        elif alt.strip():
            self.out.append(escape(f"[{alt.strip()}]", quote=False))


class _Text(_Reader):
    def __init__(self, keep_quotes: bool) -> None:
        super().__init__()
        self.said: list[str] = []
        self.quoted: list[str] = []
        self._keep = keep_quotes
        self._depth = 0
        self._spoken = False
        self._quote_at: int | None = None
        self._links: list[tuple[str, list[str], int]] = []

    @property
    def _out(self) -> list[str]:
        return self.said if self._quote_at is None else self.quoted

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        marks = f"{attributes.get('class', '')} {attributes.get('id', '')}".lower()[:500]
        if self._quote_at is None and not self._keep and self._spoken:
            if any(mark in marks for mark in _QUOTE_FROM_HERE):
                self._quote_at = -1
            elif any(mark in marks for mark in _QUOTE_INSIDE) or (tag == "blockquote" and "type" in attributes):
                self._quote_at = self._depth
        if tag not in _NO_END:
            self._depth += 1
        if tag in _BLOCKS:
            self._out.append("\n- " if tag == "li" else "\n")
        elif tag == "a":
            self._links.append((attributes.get("href", "").strip(), self._out, len(self._out)))
        elif tag == "img" and attributes.get("alt", "").strip():
            self._out.append(f"[{attributes['alt'].strip()[:200]}]")
        elif tag in {"td", "th"}:
            self._out.append(" ")

    def end(self, tag: str) -> None:
        if tag in _NO_END:
            return
        if tag in _BLOCKS:
            self._out.append("\n")
        elif tag == "a" and self._links:
            href, out, start = self._links.pop()
            shown = "".join(out[start:]).strip()
            if href.lower().startswith(("http://", "https://")) and href.rstrip("/") != shown.rstrip("/"):
                out.append(f" ({href})")
        self._depth = max(0, self._depth - 1)
        if self._quote_at is not None and 0 <= self._depth <= self._quote_at:
            self._quote_at = None

    def words(self, text: str) -> None:
        self._spoken = self._spoken or not text.isspace()
        self._out.append(_SPACE.sub(" ", text))
