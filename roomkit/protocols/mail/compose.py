"""Writing a letter: headers that nothing can be smuggled into, text and HTML, files, and its place in a thread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from roomkit.protocols.mail.letter import MailFile

_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]{1,64}@(?:[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\u0080-\U0010ffff-]{0,61}[A-Za-z0-9\u0080-\U0010ffff])?\.)*[A-Za-z0-9\u0080-\U0010ffff-]{1,63}"
)
_NAMED = re.compile(r'\s*(?:"?(?P<name>[^"<>@]*?)"?\s*<(?P<inner>[^<>]+)>|(?P<bare>[^<>\s]+))\s*')
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")
_MIME = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,99}")
_MOST_REFERENCES = 30


@dataclass(frozen=True, slots=True)
class Mail:
    """A letter to be sent. Addresses are `ada@x.example` or `Ada <ada@x.example>`; ids are without brackets.

    `headers` come in addition; what a letter has a field for cannot be given there.
    """

    sender: str
    recipient: str
    subject: str
    text: str
    message_id: str
    html: str | None = None
    reply_to: str | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    files: tuple[MailFile, ...] = ()


_OWN = frozenset(
    {"from", "to", "cc", "bcc", "sender", "subject", "reply-to", "message-id", "in-reply-to", "references", "date"}
    | {"mime-version", "content-type", "content-transfer-encoding", "return-path", "received"}
)


def split_address(said: str) -> tuple[str, str]:
    """(name, address). Raises `ValueError` for what is no single address, or would break out of its header."""
    match = None if _CONTROL.search(said) else _NAMED.fullmatch(said)
    address = (match["inner"] or match["bare"]).strip() if match else ""
    if match is None or not _ADDRESS.fullmatch(address) or ".." in address:
        raise ValueError("it is no email address")
    return (match["name"] or "").strip(), address


def thread_headers(mail: Mail) -> dict[str, str]:
    """In-Reply-To, References and the further headers, checked. Raises `ValueError`."""
    found: dict[str, str] = {}
    if mail.in_reply_to:
        found["In-Reply-To"] = _bracketed(mail.in_reply_to)
    if references := _references(mail.references):
        found["References"] = " ".join(map(_bracketed, references))
    for name, value in mail.headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN:
            raise ValueError(f"a letter cannot be given a header {name!r}")
        if _CONTROL.search(value) or len(value) > 2_000:
            raise ValueError(f"the header {name} has a line break or is too long")
        found[name] = value
    return found


def subject_line(subject: str) -> str:
    """A subject is one line, whatever was written."""
    return " ".join(_CONTROL.sub(" ", subject).split())[:500]


def written(mail: Mail, at: datetime) -> EmailMessage:
    """The letter as MIME, dated `at`. Raises `ValueError` for what cannot be a letter."""
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(mail.sender)
    message["To"] = _address(mail.recipient)
    message["Subject"] = subject_line(mail.subject)
    message["Date"] = format_datetime(at)
    message["Message-ID"] = _bracketed(mail.message_id)
    if mail.reply_to:
        message["Reply-To"] = _address(mail.reply_to)
    for name, value in thread_headers(mail).items():
        message[name] = value
    message.set_content(_lines(mail.text), cte="quoted-printable")
    if mail.html is not None:
        message.add_alternative(_lines(mail.html), subtype="html", cte="quoted-printable")
    for file in mail.files:
        _attach(message, file)
    return message


def _attach(message: EmailMessage, file: MailFile) -> None:
    mime = file.mime_type if _MIME.fullmatch(file.mime_type) else "application/octet-stream"
    maintype, _, subtype = mime.partition("/")
    if maintype in {"message", "multipart"}:  # a letter in a letter would be read as part of this one
        maintype, subtype = "application", "octet-stream"
    name = subject_line(file.name) or "file"
    if file.content_id:
        message.add_attachment(
            file.data,
            maintype=maintype,
            subtype=subtype,
            filename=name,
            disposition="inline",
            cid=_bracketed(file.content_id),
        )
    else:
        message.add_attachment(file.data, maintype=maintype, subtype=subtype, filename=name)


def _address(said: str) -> Address:
    name, address = split_address(said)
    local, _, domain = address.rpartition("@")
    domain = domain if domain.isascii() else domain.encode("idna").decode()
    return Address(display_name=name, username=local, domain=domain)


def _bracketed(ident: str) -> str:
    if _CONTROL.search(ident) or any(sign in ident for sign in "<> ") or not ident or len(ident) > 900:
        raise ValueError("it is no message id")
    return f"<{ident}>"


def _references(ids: tuple[str, ...]) -> tuple[str, ...]:
    """The first, by which the thread is known, and the latest."""
    known = tuple(dict.fromkeys(one for one in ids if one and not _CONTROL.search(one) and not set(one) & set("<> ")))
    return known if len(known) <= _MOST_REFERENCES else (known[0], *known[1 - _MOST_REFERENCES :])


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
