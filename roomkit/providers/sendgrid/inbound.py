"""SendGrid's webhooks, read: delivery events as JSON, letters from Inbound Parse (taken apart, or raw). Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from email import message_from_bytes, policy
from typing import Any

from roomkit.models.content import UnknownContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.protocols.mail.form import Form, read_form
from roomkit.protocols.mail.letter import Headers, Letter, MailFile, letter_of, read_headers, safe_name
from roomkit.protocols.mail.trust import Verdict, verdict_from
from roomkit.providers.mail import MailDesk, raw_of
from roomkit.providers.vendor_json import moment_at, rows, table, word

ID_ARGUMENT = "roomkit_id"
STATES = {
    "processed": DeliveryState.SENT,
    "deferred": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "open": DeliveryState.READ,
    "click": DeliveryState.READ,
    "bounce": DeliveryState.FAILED,
    "dropped": DeliveryState.FAILED,
}
_OPT_OUTS = {
    "unsubscribe": "stop",
    "group_unsubscribe": "stop",
    "spamreport": "stop",
}
"""Who comes back to one group has not come back to everything: `group_resubscribe` lifts no stop."""
_DKIM = re.compile(r"@([^\s:{}]{1,255})\s*:\s*([a-z]{2,20})", re.IGNORECASE)
_MOST_EVENTS = 1_000


def parse(request: WebhookRequest, channel_id: str, desk: MailDesk) -> list[InboundMessage | DeliveryStatus]:
    if request.body.startswith(b"--"):
        return _letter(read_form(request.body), request, channel_id, desk)
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        body = None
    found = [_event(one, channel_id, desk) for one in rows(body)[:_MOST_EVENTS]]
    return found or [_unknown(channel_id, "malformed", hashlib.sha256(request.body).hexdigest(), body)]


def _event(event: Mapping[str, Any], channel_id: str, desk: MailDesk) -> InboundMessage | DeliveryStatus:
    kind, mark = word(event.get("event")), word(event.get(ID_ARGUMENT))
    ident = f"{mark}@{desk.domain}" if mark else word(event.get("sg_message_id")).partition(".")[0]
    state = STATES.get(kind)
    if kind == "open" and event.get("sg_machine_open") is True:  # a mail server looked, not a person
        state = DeliveryState.DELIVERED
    if state is None or not ident:
        known = json.dumps(dict(event), sort_keys=True).encode()
        number = word(event.get("sg_event_id")) or hashlib.sha256(known).hexdigest()
        return _unknown(channel_id, kind or "malformed", number, event, word(event.get("email")))
    failed = state is DeliveryState.FAILED
    return DeliveryStatus(
        channel_id=channel_id,
        provider_message_id=ident,
        state=state,
        error=(word(event.get("reason")) or word(event.get("type")) or kind) if failed else None,
        code=(word(event.get("status"), 20) or word(event.get("bounce_classification"), 60) or None)
        if failed
        else None,
        at=moment_at(event.get("timestamp")),
        raw_payload=dict(event),
    )


def _unknown(channel_id: str, kind: str, ident: str, raw: Any, sender: str = "") -> InboundMessage:
    said = _OPT_OUTS.get(kind)
    return InboundMessage(
        channel_id=channel_id,
        sender_id=sender.lower() or "unknown",
        content=UnknownContent(kind=kind[:80]),
        external_id=ident,
        addressed_to=(),
        visibility="internal",
        provider="sendgrid",
        raw_payload=raw,
        metadata={"opt_out": said} if said else {},
    )


def _letter(
    form: Form, request: WebhookRequest, channel_id: str, desk: MailDesk
) -> list[InboundMessage | DeliveryStatus]:
    charsets = table(_json(form.text("charsets")))
    if "email" in form.fields:
        letter = desk.letter(form.fields["email"])
    elif {"headers", "from", "text", "html"} & form.fields.keys():
        letter = _taken_apart(form, charsets)
    else:
        ident = hashlib.sha256(request.body).hexdigest()
        return [_unknown(channel_id, "malformed", ident, {name: form.text(name) for name in form.fields})]
    fields = {name: form.text(name, word(charsets.get(name)) or "utf-8") for name in form.fields if name != "email"}
    return desk.read(letter, channel_id, _verdict(form, letter), {**raw_of(letter), "fields": fields})


def _taken_apart(form: Form, charsets: Mapping[str, Any]) -> Letter:
    def said(name: str) -> str | None:
        return form.text(name, word(charsets.get(name)) or "utf-8") if name in form.fields else None

    message = message_from_bytes(form.fields.get("headers", b""), policy=policy.compat32)
    headers: Headers = read_headers(message)
    names = {name for name, _ in headers}
    # What SendGrid decoded itself stands in for what the headers lack.
    more = tuple(
        (name, value) for name in ("from", "to", "cc", "subject") if name not in names and (value := said(name))
    )
    envelope = table(_json(form.text("envelope")))
    to = envelope.get("to")
    received = tuple(("envelope-to", str(one)) for one in to) if isinstance(to, list) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    report = message.get_param("report-type")
    return letter_of(
        (*headers, *more, *received),
        [(said("text"), said("html"))],
        _files(form),
        message.get_content_type(),
        report if isinstance(report, str) else None,
    )


def _files(form: Form) -> list[MailFile]:
    about = table(_json(form.text("attachment-info")))
    found: list[MailFile] = []
    for number, file in enumerate(form.files[:100], 1):
        info = table(about.get(file.under))
        name = word(info.get("filename") or info.get("name")) or file.name
        mime = (word(info.get("type")) or file.mime_type).partition(";")[0].strip().lower()
        content_id = word(info.get("content-id")).strip("<>") or None
        found.append(
            MailFile(safe_name(name, f"file-{number}"), mime, file.data, content_id, inline=content_id is not None)
        )
    return found


def _verdict(form: Form, letter: Letter) -> Verdict:
    """SendGrid's own findings: `{@x.example : pass}` for each signature, and SPF of the envelope's sender."""
    envelope = word(table(_json(form.text("envelope"))).get("from"))
    return verdict_from(
        letter.sender, dkim=_DKIM.findall(form.text("dkim")[:5_000]), spf=form.text("SPF")[:20], envelope=envelope
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
