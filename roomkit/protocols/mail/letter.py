"""Reading a letter: any bytes that came as mail, however broken, become a `Letter`. Never raises."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any, cast

from roomkit.protocols.mail.html import text_of_html
from roomkit.protocols.mail.quotes import split_reply

MAX_DEPTH = 20
MAX_PARTS = 500
MAX_TEXT = 500_000
MAX_HEADERS = 1_000
Headers = tuple[tuple[str, str], ...]
_ID = re.compile(r"<([^<>\s]{1,998})>")
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\"\\]{1,64}@[^\s@<>()\[\],;:\"\\]{1,255}")
_PEOPLE = frozenset({"from", "to", "cc", "sender", "reply-to"})
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")
_UNSAFE_NAME = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]+")


@dataclass(frozen=True, slots=True)
class MailFile:
    """A file of a letter. `content_id` (without brackets) is how the HTML names an inline picture."""

    name: str
    mime_type: str
    data: bytes = field(repr=False)
    content_id: str | None = None
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail, read. Addresses are lower case; ids are without their brackets. `senders` is how many it claims to be
    from: of more than one, none is proven.

    `text` is what its author wrote, `quoted` what they quoted beneath or above, `signature` their closing lines;
    `html` is the sender's own HTML, unsafe as it came. `headers` are decoded, names in lower case, in order.
    """

    headers: Headers = ()
    sender: str = ""
    sender_name: str = ""
    senders: int = 1
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    reply_to: str | None = None
    subject: str = ""
    message_id: str | None = None
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sent_at: datetime | None = None
    text: str = ""
    quoted: str = ""
    signature: str = ""
    html: str | None = None
    files: tuple[MailFile, ...] = ()
    content_type: str = "text/plain"
    report_type: str | None = None

    def header(self, name: str) -> str:
        """The first value of a header, "" where there is none."""
        return next(self.all(name), "")

    def all(self, name: str) -> Iterator[str]:
        return (value for one, value in self.headers if one == name)

    @property
    def recipients(self) -> tuple[str, ...]:
        """Every address it names as its own receiver, those of the envelope first."""
        said = [a for name in _RECEIVED_BY for value in self.all(name) for _, a in addresses([value])]
        return tuple(dict.fromkeys((*said, *self.to, *self.cc)))


_RECEIVED_BY = ("x-original-to", "delivered-to", "x-envelope-to", "envelope-to", "x-forwarded-to")


@dataclass(slots=True)
class _Found:
    """What a walk through the parts collects: (text, HTML) by section, and files."""

    sections: list[tuple[str | None, str | None]] = field(default_factory=list[tuple[str | None, str | None]])
    files: list[MailFile] = field(default_factory=list[MailFile])
    parts: int = 0


def read_letter(data: bytes) -> Letter:
    """A letter from its bytes as a mail server hands them over (RFC 5322)."""
    try:
        # The lenient policy: the modern one raises on some of what real mail has in its headers.
        message = message_from_bytes(data, policy=policy.compat32)
        headers = read_headers(message)
        found = _Found()
        _walk(message, found, 0)
        kind, report = message.get_content_type(), message.get_param("report-type")
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError, AssertionError):
        digest = hashlib.sha256(data).hexdigest()[:32]
        return Letter(message_id=f"{digest}@unreadable.invalid", content_type="application/octet-stream")
    return letter_of(headers, found.sections, found.files, kind, report if isinstance(report, str) else None)


def letter_of(
    headers: Headers,
    sections: Sequence[tuple[str | None, str | None]],
    files: Sequence[MailFile] = (),
    content_type: str = "text/plain",
    report_type: str | None = None,
) -> Letter:
    """A letter from what a vendor took apart: `sections` are (text, HTML) pairs, either of them None."""
    by_name: dict[str, str] = {}
    for name, value in headers:
        by_name.setdefault(name, value)
    subject = one_line(by_name.get("subject", ""))[:1000]
    froms = addresses(value for name, value in headers if name == "from")
    sender_name, sender = froms[0] if froms else ("", "")
    text, quoted, signature, html = _body(sections, keep=forwarded(subject))
    answer = next(iter(addresses([by_name.get("reply-to", "")])), None)
    return Letter(
        headers=headers,
        sender=sender,
        sender_name=sender_name,
        senders=len(froms),
        to=_all_addresses(headers, "to"),
        cc=_all_addresses(headers, "cc"),
        reply_to=answer[1] if answer else None,
        subject=subject,
        message_id=next(iter(ids(by_name.get("message-id", ""))), None),
        in_reply_to=ids(by_name.get("in-reply-to", ""))[:20],
        references=ids(by_name.get("references", ""))[-100:],
        sent_at=_date(by_name.get("date", "")),
        text=text,
        quoted=quoted,
        signature=signature,
        html=html,
        files=tuple(files),
        content_type=content_type.lower(),
        report_type=report_type.lower() if report_type else None,
    )


def forwarded(subject: str) -> bool:
    """Whether the subject says that something is passed on: then what is quoted is the message."""
    return re.match(r"\s*(fwd?|wg|tr|rv|enc|doorst|i|vs|pd)\s*:", subject, re.IGNORECASE) is not None


def read_headers(message: Message[str, str]) -> Headers:
    """All headers, decoded, names in lower case; control characters and line breaks become spaces."""
    raw = cast("Iterable[tuple[str, Any]]", message.raw_items())  # `items` has lost what is not ASCII
    return tuple((name.lower(), _value(name.lower(), str(value))) for name, value in list(raw)[:MAX_HEADERS])


def _value(name: str, value: str) -> str:
    """In the headers of addresses only names are decoded, and quoted again: what a name says is no address."""
    people = addresses([one_line(value)]) if name in _PEOPLE and "=?" in value else []
    if not people:
        return one_line(decoded(value))
    return ", ".join(f'"{_plain(decoded(person))}" <{address}>' for person, address in people)


def _plain(name: str) -> str:
    return one_line(name).replace('"', "").replace("\\", "")


def decoded(value: str) -> str:
    """A header's text: RFC 2047 words in any charset, raw bytes (kept as lone surrogates), or what can be saved."""
    if "=?" not in value:
        return value if value.isascii() else _text(value.encode("utf-8", "surrogateescape"), "utf-8")
    try:
        words = decode_header(one_line(value))  # it would lose the space at which a line is folded
    except (ValueError, LookupError, AttributeError):
        return _text(value.encode("utf-8", "surrogateescape"), "utf-8")
    return "".join(word if isinstance(word, str) else _text(word, charset or "utf-8") for word, charset in words)


def one_line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def addresses(values: Iterable[str]) -> list[tuple[str, str]]:
    """(name, address) of every address in header values; what is no address is left out."""
    try:
        found = getaddresses([value[:20_000] for value in values])
    except (ValueError, IndexError, AttributeError, RecursionError):
        found = []
    return [
        (one_line(name)[:200], address.lower())
        for name, address in found
        if len(address) <= 320 and _ADDRESS.fullmatch(address)
    ]


def ids(value: str) -> tuple[str, ...]:
    """The message ids in a header, in order."""
    return tuple(dict.fromkeys(_ID.findall(value)))


def safe_name(name: str, fallback: str) -> str:
    """A file's name without a path or anything that a system takes for more than a name."""
    name = _UNSAFE_NAME.sub("_", decoded(name)).strip(" ._")
    return name[-150:] or fallback


def _all_addresses(headers: Headers, name: str) -> tuple[str, ...]:
    found = addresses(value for one, value in headers if one == name)
    return tuple(dict.fromkeys(address for _, address in found))[:100]


def _date(value: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(value[:200])
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _body(sections: Sequence[tuple[str | None, str | None]], keep: bool) -> tuple[str, str, str, str | None]:
    """(text, quoted, signature, html). Text that its author typed is preferred to what is made of HTML."""
    texts: list[str] = []
    quotes: list[str] = []
    for text, html in sections:
        if text is not None and (text.strip() or html is None):
            texts.append(text[:MAX_TEXT])
        elif html is not None:
            said, quoted = text_of_html(html[:MAX_TEXT], keep_quotes=keep)
            texts.append(said)
            quotes.append(quoted)
    html = "\n".join(html or _as_html(text or "") for text, html in sections) if any(h for _, h in sections) else None
    whole = "\n".join(one.strip("\r\n") for one in texts).replace("\r\n", "\n").replace("\r", "\n")
    said, quoted, signature = (whole.strip(), "", "") if keep else split_reply(whole)
    return said, "\n".join(filter(None, (*quotes, quoted))), signature, html


def _as_html(text: str) -> str:
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return f"<pre>{text}</pre>"


def _walk(part: Message[str, str], found: _Found, depth: int) -> None:
    found.parts += 1
    if depth > MAX_DEPTH or found.parts > MAX_PARTS:
        return
    payload: Any = part.get_payload()
    if part.get_content_maintype() == "multipart" and isinstance(payload, list):
        inner = cast("list[Message[str, str]]", payload)
        if part.get_content_subtype() == "alternative":
            _alternatives(inner, found, depth)
        else:
            for one in inner:
                _walk(one, found, depth + 1)
    elif _is_body(part):
        text = _text(_bytes(part), part.get_content_charset() or "utf-8")
        found.sections.append((None, text) if part.get_content_subtype() == "html" else (text, None))
    else:
        found.files.append(_file(part, len(found.files)))


def _alternatives(parts: Sequence[Message[str, str]], found: _Found, depth: int) -> None:
    """Several forms of one thing: the text and the HTML of it make one section."""
    inner = _Found(files=found.files, parts=found.parts)
    for part in parts:
        _walk(part, inner, depth + 1)
    found.parts = inner.parts
    text = next((text for text, _ in inner.sections if text is not None), None)
    html = next((html for _, html in inner.sections if html is not None), None)
    if text is not None or html is not None:
        found.sections.append((text, html))


def _is_body(part: Message[str, str]) -> bool:
    if part.get_content_type() not in {"text/plain", "text/html"}:
        return False
    return part.get_content_disposition() != "attachment" and part.get_filename() is None


def _file(part: Message[str, str], number: int) -> MailFile:
    mime = part.get_content_type().lower()
    content_id = next(iter(ids(str(part.get("content-id", "")))), None)
    name = safe_name(str(part.get_filename() or ""), _nameless(mime, number))
    inline = part.get_content_disposition() == "inline" or content_id is not None
    return MailFile(name, mime, _bytes(part), content_id, inline)


def _nameless(mime: str, number: int) -> str:
    endings = {"message/rfc822": "eml", "text/calendar": "ics", "image/jpeg": "jpg", "text/plain": "txt"}
    ending = endings.get(mime) or re.sub(r"[^a-z0-9]", "", mime.partition("/")[2])[:8] or "bin"
    return f"file-{number + 1}.{ending}"


def _bytes(part: Message[str, str]) -> bytes:
    payload: Any = part.get_payload()
    if isinstance(payload, list):  # a letter in a letter, or the fields of a report
        return b"\n\n".join(_flat(one) for one in cast("list[Any]", payload)[:50])
    try:
        data: Any = part.get_payload(decode=True)
    except (ValueError, LookupError, AssertionError):
        data = None
    if isinstance(data, bytes):
        return data
    return payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else b""


def _flat(part: Any) -> bytes:
    if not isinstance(part, Message):
        return str(part).encode("utf-8", "replace")
    try:
        return part.as_bytes()
    except (ValueError, LookupError, AttributeError, TypeError, KeyError):
        lines = (f"{name}: {value}" for name, value in cast("Iterable[tuple[str, Any]]", part.items()))
        return "\n".join(lines).encode("utf-8", "replace")


_CHARSETS = {
    "unicode-1-1-utf-7": "utf-7",
    "cp-850": "cp850",
    "ks_c_5601-1987": "cp949",
    "x-gbk": "gbk",
    "ansi": "cp1252",
}


def _text(data: bytes, charset: str) -> str:
    """Bytes as text: the charset they name, else UTF-8, else Windows' Latin 1, which takes everything."""
    charset = _CHARSETS.get(charset.lower(), charset)
    # ASCII and Latin 1 are what mailers claim when they mean one of the larger ones.
    wider = {"us-ascii": "utf-8", "ascii": "utf-8", "iso-8859-1": "cp1252", "latin-1": "cp1252"}
    for name in (wider.get(charset.lower(), charset), "utf-8", "cp1252"):
        try:
            return data.decode(name).replace("\x00", "\ufffd")
        except (LookupError, ValueError):
            continue
    return data.decode("latin-1").replace("\x00", "\ufffd")
