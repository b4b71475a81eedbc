"""Telnyx's messaging webhooks, read: SMS, MMS and RCS messages, and what became of ours. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from roomkit.models.content import Content, LocationContent, TextContent
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.providers.text_media import content_of, unknown
from roomkit.providers.vendor_json import moment, rows, table, word

STATES = {
    "queued": DeliveryState.QUEUED,
    "sending": DeliveryState.SENT,
    "sent": DeliveryState.SENT,
    "delivery_unconfirmed": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.READ,
    "expired": DeliveryState.FAILED,
    "sending_failed": DeliveryState.FAILED,
    "delivery_failed": DeliveryState.FAILED,
}
_REPORTS = frozenset({"message.sent", "message.finalized", "message.read"})
_MOST_FILES = 50
_KEPT = ("type", "messaging_profile_id", "parts", "encoding", "autoresponse_type", "subject", "cc", "tags")


def parse(request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
    """One verified webhook. A kind that is not known becomes a message with `UnknownContent`."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        body = None
    data = table(table(body).get("data"))
    payload, kind = table(data.get("payload")), word(data.get("event_type"))
    # Telnyx repeats an event under its own id; what carries none is known by its bytes.
    ident = word(data.get("id")) or hashlib.sha256(request.body).hexdigest()
    if kind in _REPORTS and payload.get("id"):
        found = _report(payload, channel_id, body)
        if found is not None:
            return [found]
    if kind == "message.received" and payload.get("id"):
        return [_message(payload, channel_id, body)]
    raw = body if body is not None else request.body.decode("utf-8", "replace")
    return [unknown(channel_id, "telnyx", kind or "malformed", ident, raw, _other_side(payload))]


def _report(payload: Mapping[str, Any], channel_id: str, raw: Any) -> DeliveryStatus | None:
    to = rows(payload.get("to"))
    state = STATES.get(word(to[0].get("status")) if to else "")
    if state is None:
        return None
    code, error = complaint(payload) if state is DeliveryState.FAILED else (None, None)
    return DeliveryStatus(
        channel_id=channel_id,
        provider_message_id=word(payload["id"]),
        state=state,
        code=code,
        error=error or (word(to[0].get("status")) if state is DeliveryState.FAILED else None),
        at=moment(payload.get("completed_at") or payload.get("sent_at")),
        raw_payload=raw,
    )


def complaint(payload: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Code and words of the first error that Telnyx tells."""
    errors = rows(payload.get("errors"))
    if not errors:
        return None, None
    first = errors[0]
    told = ": ".join(filter(None, (word(first.get("title"), 200), word(first.get("detail"), 300))))
    return word(first.get("code"), 20) or None, told or None


def _message(payload: Mapping[str, Any], channel_id: str, raw: Any) -> InboundMessage:
    body, sender = table(payload.get("body")), table(payload.get("from"))
    to = rows(payload.get("to"))
    first: Mapping[str, Any] = to[0] if to else {}
    attachments = _attachments(payload, body)
    tapped = table(body.get("suggestion_response"))
    text = word(payload.get("text"), 100_000) or word(body.get("text"), 100_000) or word(tapped.get("text"))
    kept = {name: payload[name] for name in _KEPT if payload.get(name)}
    if tapped:
        kept["button"] = word(tapped.get("postback_data"), 2048)
    return InboundMessage(
        channel_id=channel_id,
        sender_id=word(sender.get("phone_number")) or "unknown",
        recipient_id=word(first.get("phone_number") or first.get("agent_id")) or None,
        content=_content(text, attachments, body),
        external_id=word(payload["id"]),
        attachments=attachments,
        provider="telnyx",
        sent_at=moment(payload.get("received_at")),
        raw_payload=raw,
        metadata={"opt_out": word(payload["autoresponse_type"]).lower()} if payload.get("autoresponse_type") else {},
        channel_data={"telnyx": kept},
    )


def _content(text: str, attachments: tuple[Attachment, ...], body: Mapping[str, Any]) -> Content:
    place = table(body.get("location"))
    more: Content | None = None
    if place:
        try:
            more = LocationContent(latitude=float(place["latitude"]), longitude=float(place["longitude"]))
        except (KeyError, ValueError, TypeError):
            more = TextContent(text="📍") if not text else None
    return content_of(text, attachments, more, kind=_kind(body))


def _kind(body: Mapping[str, Any]) -> str:
    return next((name for name in body), "empty_message")


def _attachments(payload: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """The files of an MMS, or the one of an RCS message: links that need no credentials."""
    found = [
        Attachment(
            url=word(one["url"], 4000),
            mime_type=word(one.get("content_type"), 100) or None,
            size_bytes=one["size"] if isinstance(one.get("size"), int) else None,
        )
        for one in rows(payload.get("media"))
        if isinstance(one.get("url"), str)
    ]
    file = table(table(body.get("user_file")).get("payload"))
    if isinstance(file.get("file_uri"), str):
        size = file.get("file_size_bytes")
        found.append(
            Attachment(
                url=word(file["file_uri"], 4000),
                mime_type=word(file.get("mime_type"), 100) or None,
                filename=word(file.get("file_name"), 200) or None,
                size_bytes=size if isinstance(size, int) else None,
            )
        )
    return tuple(found[:_MOST_FILES])


def _other_side(payload: Mapping[str, Any]) -> str:
    to = rows(payload.get("to"))
    if payload.get("direction") == "outbound":
        return word(to[0].get("phone_number")) if to else ""
    return word(table(payload.get("from")).get("phone_number"))
