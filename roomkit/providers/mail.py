"""What all email providers do alike: letters into messages, and messages into letters that stay in their thread.

A person's address in From is a claim; DMARC, DKIM or SPF in line with it makes it verified. An answer finds the room of
what it answers only from the address that was written to. What programs send is kept for staff and answered by nobody.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from roomkit.errors import ConfigError, ProviderError, Refused
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    RichContent,
    TemplateContent,
    TextContent,
    UnknownContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, Outgoing
from roomkit.models.event import RoomEvent
from roomkit.models.room import Assurance, Category, ChannelBinding
from roomkit.net.redaction import register_secret
from roomkit.net.ssrf import Fetched
from roomkit.ports.channel import RoomContext
from roomkit.protocols.mail.compose import Mail, split_address, subject_line
from roomkit.protocols.mail.html import safe_html, text_of_html
from roomkit.protocols.mail.letter import Letter, MailFile, read_letter, safe_name
from roomkit.protocols.mail.reports import Report, automatic_kind, report_of
from roomkit.protocols.mail.threads import (
    PLACE,
    answered_id,
    bare_subject,
    mark_of,
    marked_address,
    own_mark,
    reply_subject,
    thread_secret,
)
from roomkit.protocols.mail.trust import Verdict, domain_of, verdict_of
from roomkit.runtime import WorkerPool

File = MediaContent | AudioContent | VideoContent
Fetch = Callable[[str], Awaitable[Fetched]]
_PAST = 60
_RAW = 500_000
_MOST_FILES = 20
_LARGE = 200_000
_MOST_AHEAD = 4
WEBHOOK_BYTES = 40 * 1024 * 1024
"""The largest webhook that carries a letter: 30 MB, and what its encoding adds."""
_STATES = {
    "failed": DeliveryState.FAILED,
    "delayed": DeliveryState.SENT,
    "relayed": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.READ,
}


@dataclass(frozen=True, slots=True)
class MailSettings:
    """How letters are written and read, whichever provider carries them.

    `from_address` (`Shop <help@shop.example>`) sends where the channel names no other. `reply_to` is where answers go;
    `{id}` in it is replaced by the letter's mark (`help+{id}@shop.example`), so that an answer finds its room even when
    its mail program drops the headers; `subject_mark` puts it into the subject too. `domain` stands in our message ids
    (default: the sender's). `trusted_servers` are the names under which our own mail server writes its
    Authentication-Results. `list_unsubscribe` is an https or mailto address. Files of one letter may have `max_bytes`
    in all. A program answers no address that has written `loop_limit` letters within `loop_window_s` seconds.
    """

    from_address: str | None = None
    reply_to: str | None = None
    domain: str | None = None
    subject: str = "Your message"
    subject_mark: bool = False
    thread_secret: str | None = field(default=None, repr=False)
    trusted_servers: tuple[str, ...] = ()
    list_unsubscribe: str | None = None
    max_bytes: int = 20 * 1024 * 1024
    loop_limit: int = 20
    loop_window_s: float = 600.0


class MailDesk:
    """The part of a provider that knows letters but no vendor. `key` makes the threads' secret where none is set."""

    def __init__(self, name: str, settings: MailSettings, key: str) -> None:
        self._name = name
        self.settings = settings
        register_secret(key, settings.thread_secret or "")
        self._secret = thread_secret(settings.thread_secret, key)
        self._ahead: dict[bytes, Letter] = {}
        self._threads: WorkerPool | None = None
        try:
            for address in (settings.from_address, (settings.reply_to or "").replace(PLACE, "x")):
                _ = split_address(address) if address else None
        except ValueError as error:
            raise ConfigError(f"{name}: from_address or reply_to: {error}; write help@shop.example") from error
        domain = settings.domain or domain_of(split_address(settings.from_address or "x@localhost.invalid")[1])
        self.domain = domain

    # -- out --------------------------------------------------------------------------------------------------------

    def mark(self, message: Outgoing) -> str:
        """The mark of a letter, the same at each attempt to send it."""
        return mark_of(self._secret, message.tenant, message.idempotency_key)

    def message_id(self, message: Outgoing) -> str:
        return f"{self.mark(message)}@{self.domain}"

    async def mail(self, message: Outgoing, fetch: Fetch) -> Mail:
        """The letter that carries a message; files behind http are fetched with `fetch`. Raises `Refused`."""
        settings, extra, mark = self.settings, message.extra, self.mark(message)
        sender = extra.get("from_") or settings.from_address
        if not sender:
            raise ConfigError(f"{self._name}: no sender; give EmailChannel a from_address")
        text, html = _words(message.content)
        subject = subject_line(str(extra.get("subject") or settings.subject))
        answers = next((one for one in message.about_ids if "@" in one), None) or extra.get("in_reply_to")
        root = (
            f"rt{mark_of(self._secret, message.tenant, message.room_id, message.recipient.lower())[2:]}@{self.domain}"
        )
        mail = Mail(
            sender=str(sender),
            recipient=message.recipient,
            subject=f"{subject} [#{mark}]" if settings.subject_mark else subject,
            text=text,
            html=html,
            message_id=f"{mark}@{self.domain}",
            reply_to=marked_address(settings.reply_to, mark) if settings.reply_to else None,
            in_reply_to=answers,
            references=(*extra.get("references", ()), *((answers,) if answers else ())) or (root,),
            headers=self._headers(extra, answers),
            files=await self._files(message, fetch),
        )
        if not text and not html and not mail.files and not isinstance(message.content, TemplateContent):
            raise Refused(self._name, f"content of type {message.content.type} has neither text nor files to send")
        try:
            for address in (mail.sender, mail.recipient):
                split_address(address)
        except ValueError as error:
            raise Refused(self._name, f"the letter cannot be addressed: {error}", code="invalid_address") from error
        return mail

    def _headers(self, extra: Mapping[str, Any], answers: str | None) -> dict[str, str]:
        # Exchange sends no automatic answer to a letter with the first, and nobody who keeps to RFC 3834 to the second.
        headers = {"X-Auto-Response-Suppress": "OOF, AutoReply"}
        if extra.get("automatic"):
            headers["Auto-Submitted"] = "auto-replied" if answers else "auto-generated"
        unsubscribe = extra.get("list_unsubscribe") or self.settings.list_unsubscribe
        if unsubscribe:
            headers["List-Unsubscribe"] = f"<{unsubscribe}>"
            if str(unsubscribe).startswith("https://"):
                headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        return headers

    async def _files(self, message: Outgoing, fetch: Fetch) -> tuple[MailFile, ...]:
        found: list[MailFile] = []
        left = self.settings.max_bytes
        for number, content in enumerate(_media(message.content), 1):
            if number > _MOST_FILES:
                raise Refused(self._name, f"a letter has at most {_MOST_FILES} files", code="too_many_files")
            data = await self._data(content.url, message, fetch)
            left -= len(data)
            if left < 0:
                told = f"the files of a letter have at most {self.settings.max_bytes} bytes in all"
                raise Refused(self._name, told, code="too_large")
            name = content.filename if isinstance(content, MediaContent) else None
            known = safe_name(name or "", f"file-{number}{_ending(content.mime_type)}")
            found.append(MailFile(known, content.mime_type, data))
        return tuple(found)

    async def _data(self, url: str, message: Outgoing, fetch: Fetch) -> bytes:
        if url.startswith("data:"):
            return data_of(url)[1]
        if url.startswith(("https://", "http://")):
            try:
                return (await fetch(url)).body
            except ProviderError as error:
                error.ambiguous = False  # whatever became of the file, no letter was sent
                raise
        data = message.extra.get("files", {}).get(url)
        if data is None:
            raise Refused(self._name, "a file of the message cannot be read any more, or is too large", code="no_file")
        return cast("bytes", data)

    async def continuing(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> dict[str, Any]:
        """What a letter has to know of its room: subject and ids of the last letter from there, and our own files.
        Raises `Refused` where a program would answer another one for ever."""
        past = await context.history(_PAST)
        theirs = [e for e in past if e.source.channel_id == binding.channel_id and e.channel_data.get("message_id")]
        seat = next((one for one in context.bindings if one.channel_id == event.source.channel_id), None)
        program = seat is not None and seat.category is Category.INTELLIGENCE
        since = event.created_at - timedelta(seconds=self.settings.loop_window_s)
        if program and sum(e.created_at >= since for e in theirs) >= self.settings.loop_limit:
            told = f"{self.settings.loop_limit} letters in {self.settings.loop_window_s:g} s: a program answers ours"
            raise Refused(self._name, told, code="mail_loop")
        found: dict[str, Any] = {"automatic": True} if program else {}
        last = theirs[-1].channel_data if theirs else {}
        if last:
            found["in_reply_to"] = last["message_id"]
            found["references"] = (*last.get("references", ()), last["message_id"])
        subject = event.metadata.get("subject") or (reply_subject(last["subject"]) if last.get("subject") else None)
        found |= {"subject": str(subject)} if subject else {}
        if event.metadata.get("list_unsubscribe"):
            found["list_unsubscribe"] = str(event.metadata["list_unsubscribe"])
        if context.media is not None:
            urls = [one.url for one in _media(event.content) if one.url.startswith("blob:")]
            read = {url: await context.media(url, self.settings.max_bytes) for url in urls[:_MOST_FILES]}
            found["files"] = {url: data for url, data in read.items() if data is not None}
        return found

    # -- in ---------------------------------------------------------------------------------------------------------

    def take(self, data: bytes, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        """What a letter means as a mail server hands it over."""
        letter = self.letter(data)
        return self.read(letter, channel_id, verdict_of(letter, self.settings.trusted_servers))

    async def read_ahead(self, data: bytes) -> None:
        """Reads a large letter on a thread, because it takes seconds; `letter` has it then."""
        if len(data) < _LARGE:
            return
        if self._threads is None:
            self._threads = WorkerPool(2, name="roomkit-letters")
        letter = await self._threads.run(read_letter, data)
        self._ahead[hashlib.sha256(data).digest()] = letter
        while len(self._ahead) > _MOST_AHEAD:
            del self._ahead[next(iter(self._ahead))]

    def letter(self, data: bytes) -> Letter:
        known = self._ahead.pop(hashlib.sha256(data).digest(), None) if self._ahead else None
        return known or read_letter(data)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.close()

    def read(
        self, letter: Letter, channel_id: str, verdict: Verdict, raw: Mapping[str, Any] | None = None
    ) -> list[InboundMessage | DeliveryStatus]:
        """What a letter means: a message, or news of one of ours. Never empty."""
        report = report_of(letter)
        if report is not None and (about := self._ours(report.message_id)) is not None:
            state = _STATES.get(report.state, DeliveryState.SENT)
            failed = state is DeliveryState.FAILED
            status = DeliveryStatus(
                channel_id=channel_id,
                provider_message_id=about,
                state=state,
                error=(report.reason or "it could not be delivered") if failed else None,
                code=report.status,
                at=letter.sent_at,
                raw_payload=raw or raw_of(letter),
            )
            return [status]
        automatic = "own" if self._ours(letter.message_id) else "report" if report else automatic_kind(letter)
        content, attachments = _content(letter, report)
        sender = (report.recipient if report else None) or letter.sender or "unknown"
        data = data_of_letter(letter, verdict)
        proven = verdict.verified and letter.senders == 1 and not automatic
        message = InboundMessage(
            channel_id=channel_id,
            sender_id=sender,
            content=content,
            external_id=_ident(letter),
            recipient_id=letter.to[0] if letter.to else None,
            about_id=answered_id(letter, self.domain),
            addressed_to=() if automatic else None,
            visibility="internal" if automatic else "all",
            sender_name=letter.sender_name or None,
            attachments=attachments,
            provider=self._name,
            assurance=Assurance.VERIFIED if proven else Assurance.CLAIMED,
            sent_at=letter.sent_at,
            raw_payload=raw or raw_of(letter),
            metadata={"automatic": automatic} if automatic else {},
            channel_data=data,
        )
        return [message]

    def _ours(self, ident: str | None) -> str | None:
        """One of our message ids as we know it, None for a foreign one."""
        mark = own_mark(ident, self.domain)
        return f"{mark}@{self.domain}" if mark else None


def data_of(url: str) -> tuple[str, bytes]:
    """(media type, bytes) of a data: URL; what cannot be decoded is empty."""
    head, _, body = url.partition(",")
    mime = head.removeprefix("data:").partition(";")[0] or "application/octet-stream"
    try:
        return mime, base64.b64decode(body) if head.endswith(";base64") else body.encode()
    except ValueError:
        return mime, b""


def fetched(attachment: Attachment) -> Fetched | None:
    """An attachment that came with the letter itself; None when it has to be fetched."""
    if not attachment.url.startswith("data:"):
        return None
    mime, data = data_of(attachment.url)
    return Fetched("data:", 200, mime, data, {})


def raw_of(letter: Letter) -> dict[str, Any]:
    """The letter for the log. The bytes of its files are kept as files; here stand their digests."""
    return {
        "headers": [list(one) for one in letter.headers],
        "text": "\n".join(filter(None, (letter.text, letter.quoted, letter.signature)))[:_RAW],
        "html": (letter.html or "")[:_RAW] or None,
        "files": [
            {"name": f.name, "type": f.mime_type, "bytes": len(f.data), "sha256": hashlib.sha256(f.data).hexdigest()}
            for f in letter.files
        ],
    }


def data_of_letter(letter: Letter, verdict: Verdict) -> dict[str, Any]:
    """What rooms know of a letter beside its words; `html` is safe to be shown."""
    said = {
        "subject": letter.subject,
        "message_id": letter.message_id,
        "references": [*letter.references, *(one for one in letter.in_reply_to if one not in letter.references)],
        "to": list(letter.to),
        "cc": list(letter.cc),
        "reply_to": letter.reply_to,
        "quoted": letter.quoted,
        "signature": letter.signature,
        "html": safe_html(letter.html) if letter.html else None,
        "dmarc": verdict.dmarc,
        "dkim": verdict.dkim,
        "spf": verdict.spf,
        "checked_by": verdict.by,
    }
    return {name: value for name, value in said.items() if value}


def _content(letter: Letter, report: Report | None) -> tuple[Content, tuple[Attachment, ...]]:
    if report is not None:
        return UnknownContent(kind=f"mail_{report.state}", text=report.reason or letter.subject or None), ()
    if letter.content_type == "application/octet-stream" and not letter.files:
        return UnknownContent(kind="unreadable_mail"), ()
    parts: list[Content] = []
    attachments: list[Attachment] = []
    text = letter.text or (bare_subject(letter.subject) if not letter.files else "")
    if text:
        parts.append(TextContent(text=text))
    for file in letter.files:
        url = f"data:{file.mime_type};base64,{base64.b64encode(file.data).decode()}"
        known: dict[str, Any] = {"url": url, "mime_type": file.mime_type, "filename": file.name}
        parts.append(MediaContent(**known, size_bytes=len(file.data)))
        attachments.append(Attachment(**known, size_bytes=len(file.data)))
    if not parts:
        return UnknownContent(kind="empty_mail"), ()
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts)), tuple(attachments)


def _ident(letter: Letter) -> str:
    """What tells a repeated letter: its own id; of one without, or with one too long for a key, a digest."""
    if letter.message_id and len(letter.message_id) <= 400:
        return letter.message_id
    known = (letter.message_id, letter.sender, str(letter.sent_at), letter.subject, letter.text, letter.html)
    digest = hashlib.sha256(repr(known).encode("utf-8", "replace"))
    for file in letter.files:
        digest.update(file.data)
    return f"{digest.hexdigest()[:40]}@nameless.invalid"


def _words(content: Content) -> tuple[str, str | None]:
    """(text, HTML or None) of what is sent. HTML is made safe: words of a model or a stranger may be in it."""
    match content:
        case RichContent():
            if content.format == "html":
                html = safe_html(content.text)
                return content.plain_text or text_of_html(html, keep_quotes=True)[0], html
            from roomkit.providers.chat_text import markdown_to_html

            return content.plain_text or content.text, safe_html(markdown_to_html(content.text))
        case CompositeContent(parts=parts):
            words = [_words(part) for part in parts]
            texts = "\n\n".join(text for text, _ in words if text)
            if not any(html for _, html in words):
                return texts, None
            return texts, "\n".join(html or f"<p>{_escaped(text)}</p>" for text, html in words if html or text)
        case _:
            return text_of(content), None


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")


def _media(content: Content) -> Iterator[File]:
    if isinstance(content, CompositeContent):
        for part in content.parts:
            yield from _media(part)
    elif isinstance(content, MediaContent | AudioContent | VideoContent):
        yield content


def _ending(mime: str) -> str:
    subtype = mime.partition("/")[2].partition(";")[0]
    return f".{subtype}" if subtype.isalnum() else ""


def mail_error(name: str, error: ValueError) -> ProviderError:
    """A letter that cannot be written is refused before anything is sent."""
    return Refused(name, f"the letter cannot be written: {error}", code="invalid_letter")
