"""Sinch's callbacks, read: inbound SMS and MMS, and delivery reports of a batch or of its recipient. Pure.

The documentation writes statuses as `Delivered`, the vendor's package as `DELIVERED`: both are read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.providers.text_media import content_of, unknown
from roomkit.providers.vendor_json import moment, rows, table, word

STATES = {
    "queued": DeliveryState.QUEUED,
    "dispatched": DeliveryState.SENT,
    "unknown": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "aborted": DeliveryState.FAILED,
    "cancelled": DeliveryState.FAILED,
    "deleted": DeliveryState.FAILED,
    "expired": DeliveryState.FAILED,
    "failed": DeliveryState.FAILED,
    "rejected": DeliveryState.FAILED,
}
# The documented delivery report codes, in words.
_WHY = {
    "402": "no route to this number",
    "403": "an internal error at the vendor",
    "404": "a temporary delivery failure",
    "406": "it expired at the vendor",
    "407": "it was cancelled",
    "408": "the carrier rejected it",
    "410": "no default sender fits",
    "411": "it has more parts than allowed",
    "412": "the account is not provisioned for this region",
    "413": "the account is out of credit",
}
_INTERNATIONAL = re.compile(r"[1-9][0-9]{6,14}")
_BATCH = frozenset({"delivery_report_sms", "delivery_report_mms"})
_RECIPIENT = frozenset({"recipient_delivery_report_sms", "recipient_delivery_report_mms"})
_KEPT = ("type", "client_reference", "operator_id", "udh")


def number(value: Any) -> str:
    """A number with its plus: Sinch leaves it out. Short codes and names stay as they are."""
    text = word(value, 100)
    return f"+{text}" if _INTERNATIONAL.fullmatch(text) else text


def parse(request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
    """One verified callback. A kind that is not known becomes a message with `UnknownContent`."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        body = None
    data = table(body)
    kind = word(data.get("type"))
    if kind in _RECIPIENT | _BATCH and (found := _reports(data, kind, channel_id, body)):
        return [*found]
    if kind in {"mo_text", "mo_media"} and data.get("id"):
        return [_message(data, channel_id, body)]
    raw = body if body is not None else request.body.decode("utf-8", "replace")
    ident = word(data.get("id")) or hashlib.sha256(request.body).hexdigest()
    return [unknown(channel_id, "sinch", kind or "malformed", ident, raw, number(data.get("from")))]


def _reports(data: Mapping[str, Any], kind: str, channel_id: str, raw: Any) -> list[DeliveryStatus]:
    found: list[DeliveryStatus] = []
    batch = word(data.get("batch_id"))
    for one in rows(data.get("statuses")) if kind in _BATCH else [data]:
        status, code = word(one.get("status")), word(one.get("code"))
        state = STATES.get(status.lower())
        if not batch or state is None:
            continue
        failed = state is DeliveryState.FAILED
        found.append(
            DeliveryStatus(
                channel_id=channel_id,
                provider_message_id=batch,
                state=state,
                code=code if failed and code else None,
                error=f"{status}: {_WHY.get(code, f'code {code}')}" if failed else None,
                at=moment(data.get("at")),
                raw_payload=raw,
            )
        )
    return found


def _message(data: Mapping[str, Any], channel_id: str, raw: Any) -> InboundMessage:
    body = table(data.get("body"))
    text = word(data.get("body"), 100_000) or word(body.get("message"), 100_000)
    attachments = tuple(
        Attachment(url=word(one["url"], 4000), mime_type=word(one.get("content_type"), 100) or None)
        for one in rows(body.get("media"))[:50]
        if isinstance(one.get("url"), str)
    )
    kept = {name: data[name] for name in _KEPT if data.get(name)}
    if body.get("subject"):
        kept["subject"] = word(body["subject"])
    return InboundMessage(
        channel_id=channel_id,
        sender_id=number(data.get("from")) or "unknown",
        recipient_id=number(data.get("to")) or None,
        content=content_of(text, attachments, kind="files_lost" if body.get("media") else "empty_message"),
        external_id=word(data["id"]),
        attachments=attachments,
        provider="sinch",
        sent_at=moment(data.get("sent_at") or data.get("received_at")),
        raw_payload=raw,
        channel_data={"sinch": kept},
    )
