"""Twilio's messaging webhooks, read: messages and delivery reports, as forms, JSON or event streams. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from roomkit.errors import AccessDenied
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    LocationContent,
    MediaContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.providers.twilio.signature import Pairs, form_of, is_json

Params = Mapping[str, str]

STATES = {
    "accepted": DeliveryState.QUEUED,
    "scheduled": DeliveryState.QUEUED,
    "queued": DeliveryState.QUEUED,
    "sending": DeliveryState.SENT,
    "sent": DeliveryState.SENT,
    "partially_delivered": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.READ,
    "undelivered": DeliveryState.FAILED,
    "failed": DeliveryState.FAILED,
    "canceled": DeliveryState.FAILED,
}
_SID = re.compile(r"(?:SM|MM)[0-9a-f]{32}")
# An agent of RCS has small letters only: a longer one could take the next parameter's name into its value.
_PHONE = re.compile(r"(?:rcs:|whatsapp:)?(?:\+?[0-9]{2,15}|[A-Za-z0-9 ]{1,11})|rcs:[a-z0-9_.-]{1,100}")
_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,59}")
_MAX_MEDIA = 50
_USED = (
    *("From", "To", "ProfileName", "OptOutType", "MessageStatus", "SmsStatus", "ErrorCode", "ErrorMessage"),
    *("MessagingServiceSid", "Label", "Address", "Latitude", "Longitude", "OriginalRepliedMessageSid"),
)
_DATA_KEYS = (
    *("From", "To", "Body", "NumMedia", "NumSegments", "MessagingServiceSid", "OptOutType", "ProfileName", "WaId"),
    *("MessageType", "ButtonText", "ButtonPayload", "ListId", "ListTitle", "ReferralSourceUrl", "Forwarded"),
)
# What a failure means where Twilio tells its number only.
_WHY = {
    "21610": "they have opted out",
    "30003": "the handset cannot be reached",
    "30005": "there is no such handset",
    "30006": "a landline, or a carrier that cannot be reached",
    "30007": "filtered by the carrier",
    "63003": "there is no such user of this channel",
    "63016": "they have written nothing in the last 24 hours: send an approved template",
    "63036": "the handset has no RCS",
}


def payloads(request: WebhookRequest) -> list[Params]:
    """The webhook's parameters; several for an event stream. `AccessDenied` when they cannot be read."""
    if not is_json(request):
        return [dict(form_of(request))]
    try:
        data: Any = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise AccessDenied("twilio webhook: the body is no JSON") from error
    items = cast("list[Any]", data) if isinstance(data, list) else [data]
    return [_flat(cast("dict[str, Any]", item)) for item in items if isinstance(item, dict)]


def check_sane(pairs: Pairs, accounts: Iterable[str]) -> None:
    """`AccessDenied` unless a signed form is one that Twilio makes.

    The signature runs names and values together without separators, so that a text like `hiFrom+1555...` could be
    cut anew into other parameters under the same signature. No other sender, receiver or message comes of it here,
    and none without them (`Fromr` = `cs:+1555...`); what remains possible is to end a text before one of its capital
    letters.
    """
    params = dict(pairs)
    sane = (
        len(params) == len(pairs)
        and ("MessageStatus" in params or _is_whole(params))
        and not any(_is_cut(name, params) for name in params)
        and params.get("NumSegments", "1").isdecimal()
        and params.get("OptOutType", "STOP") in {"STOP", "START", "HELP"}
        and params.get("AccountSid", "") in set(accounts)
        and _SID.fullmatch(params.get("MessageSid", ""))
        and all(_PHONE.fullmatch(params[name]) for name in ("From", "To") if params.get(name))
        and all(_NAME.fullmatch(name) for name in params)
    )
    if not sane:
        raise AccessDenied("twilio webhook: it is no message of the configured account")


def _is_cut(name: str, params: Params) -> bool:
    """Whether this may be a name we read that has taken letters from its value, or lost some to it."""
    return any(
        used not in params and len(name) != len(used) and (name.startswith(used) or used.startswith(name))
        for used in _USED
    )


def _is_whole(params: Params) -> bool:
    count = params.get("NumMedia", "")
    media = range(min(int(count), _MAX_MEDIA) if count.isdecimal() else 0)
    needed = {f"{name}{number}" for number in media for name in ("MediaUrl", "MediaContentType")}
    return count.isdecimal() and {"Body", "From", *needed} <= params.keys()


def read(params: Params, channel_id: str, raw: Any) -> InboundMessage | DeliveryStatus:
    """One webhook. A kind that is not known becomes a message with `UnknownContent`."""
    status = params.get("MessageStatus") or params.get("SmsStatus") or ""
    if status in STATES and "Body" not in params:
        code = params.get("ErrorCode") or None
        return DeliveryStatus(
            channel_id=channel_id,
            provider_message_id=params.get("MessageSid", ""),
            state=STATES[status],
            error=(params.get("ErrorMessage") or _WHY.get(code) or f"{status}, error {code}") if code else None,
            code=code,
            raw_payload=raw,
        )
    attachments = _attachments(params)
    answered = params.get("OriginalRepliedMessageSid", "")
    return InboundMessage(
        channel_id=channel_id,
        sender_id=_bare(params.get("From", "unknown")),
        recipient_id=_bare(params["To"]) if params.get("To") else None,
        sender_name=params.get("ProfileName") or None,
        content=_content(params, attachments),
        external_id=params.get("MessageSid") or None,
        attachments=attachments,
        about_id=answered if _SID.fullmatch(answered) else None,
        provider="twilio",
        # Set where Twilio has understood a keyword and answered it.
        metadata={"opt_out": params["OptOutType"].lower()} if params.get("OptOutType") else {},
        raw_payload=raw,
        channel_data={"twilio": {key: params[key] for key in _DATA_KEYS if key in params and key != "Body"}},
    )


def _content(params: Params, attachments: tuple[Attachment, ...]) -> Content:
    body = params.get("Body", "")
    files = [_file(attachment) for attachment in attachments]
    if len(files) == 1 and body and isinstance(files[0], MediaContent | VideoContent):
        return files[0].model_copy(update={"caption": body})
    parts: list[Content] = [TextContent(text=body)] if body else []
    parts += files
    if place := _place(params):
        parts.append(place)
    if not parts:
        kind = params.get("Type") or params.get("EventName") or ("empty_message" if "Body" in params else "unknown")
        return UnknownContent(kind=kind[:80])
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts))


def _attachments(params: Params) -> tuple[Attachment, ...]:
    count = params.get("NumMedia", "0")
    found: list[Attachment] = []
    for number in range(min(int(count) if count.isdecimal() else 0, _MAX_MEDIA)):
        if url := params.get(f"MediaUrl{number}"):
            mime = params.get(f"MediaContentType{number}", "application/octet-stream")
            found.append(Attachment(url=url, mime_type=mime, needs_auth=True))
    return tuple(found)


def _file(attachment: Attachment) -> MediaContent | AudioContent | VideoContent:
    mime = attachment.mime_type or "application/octet-stream"
    match mime.partition("/")[0]:
        case "audio":
            return AudioContent(url=attachment.url, mime_type=mime)
        case "video":
            return VideoContent(url=attachment.url, mime_type=mime)
        case _:
            return MediaContent(url=attachment.url, mime_type=mime)


def _place(params: Params) -> LocationContent | None:
    try:
        return LocationContent(
            latitude=float(params["Latitude"]),
            longitude=float(params["Longitude"]),
            label=params.get("Label") or None,
            address=params.get("Address") or None,
        )
    except (KeyError, ValueError):
        return None


def _bare(address: str) -> str:
    return address.removeprefix("rcs:").removeprefix("whatsapp:")


def _flat(item: Mapping[str, Any]) -> Params:
    """JSON as the form would say it: event streams keep the values under `data`, with small first letters."""
    data = item.get("data")
    inner = cast("Mapping[str, Any]", data) if isinstance(data, dict) else item
    flat = {key[:1].upper() + key[1:]: str(value) for key, value in inner.items() if isinstance(value, str | int)}
    if isinstance(data, dict):
        event = str(item.get("type", "")).rpartition(".")[2]
        flat.setdefault("EventName", str(item.get("type", "unknown")))
        if event in STATES:
            flat.setdefault("MessageStatus", event)
            flat.pop("Body", None)
    return flat
