"""WhatsApp's webhooks, read: messages of every kind, edits, reactions and delivery reports. Pure.

A person is known by the phone number, written `+49...`; one who hides it behind a username by Meta's id of them for
this business (`US.134912...`), and a group by `group:ID`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from roomkit.models.content import (
    AudioContent,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, DeliveryState, DeliveryStatus, InboundMessage
from roomkit.models.event import EventType
from roomkit.providers.meta.graph import SOLE, Raw, own_id
from roomkit.providers.vendor_json import part, rows

Item = InboundMessage | DeliveryStatus
STATES = {
    "sent": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.READ,
    "played": DeliveryState.READ,
    "failed": DeliveryState.FAILED,
}
FILES = ("image", "video", "audio", "document", "sticker")
GROUP = "group:"
_MARKETING = "marketing_messages"


def read(body: Raw, channel_id: str, media_url: str, account: str) -> Iterator[Item]:
    """Everything in one webhook, save what came for another number than `account`. Kinds that are not known become a
    message with `UnknownContent`."""
    entries = rows(body.get("entry"))
    if body.get("object") != "whatsapp_business_account" or not entries:
        yield _unknown(channel_id, str(body.get("object") or "empty")[:80], body, "meta")
        return
    for entry in entries:
        for change in rows(entry.get("changes")):
            value = part(change, "value")
            number = part(value, "metadata").get("phone_number_id")
            if number is None or not account or str(number) == account:
                yield from _change(str(entry.get("id", "")), change, value, channel_id, media_url)


def others(body: Raw, account: str) -> set[str]:
    """The numbers that a webhook has news for, other than `account`."""
    changes = (change for entry in rows(body.get("entry")) for change in rows(entry.get("changes")))
    found = {str(part(part(one, "value"), "metadata").get("phone_number_id") or "") for one in changes}
    return found - {account, ""} if account else set()


def _change(owner: str, change: Raw, value: Raw, channel_id: str, media_url: str) -> Iterator[Item]:
    field = str(change.get("field") or "change")
    messages, statuses = rows(value.get("messages")), rows(value.get("statuses"))
    wishes = rows(value.get("user_preferences")) if field == "user_preferences" else []
    for wish in wishes:
        sender, told = person(str(wish.get("wa_id") or "")) or str(wish.get("user_id") or "unknown"), wish.get("detail")
        yield _unknown(channel_id, field, wish, sender, str(told)[:300] if told else None, _wish(wish))
    if not wishes and (field != "messages" or not (messages or statuses)):
        errors = rows(value.get("errors"))
        told = str(errors[0].get("title") or errors[0].get("message"))[:300] if errors else None
        kind = "errors" if field == "messages" and errors else field
        yield _unknown(channel_id, kind[:80], change, f"waba:{owner}", told)
    for message in messages:
        yield _safe(message, value, channel_id, media_url)
    for status in statuses:
        yield _status(status, value, channel_id)


def _safe(message: Raw, value: Raw, channel_id: str, media_url: str) -> InboundMessage:
    """One message; in a form that is not documented it is at least seen."""
    envelope = _envelope(message, value, channel_id)
    try:
        return _message(message, envelope, media_url)
    except (TypeError, ValueError, KeyError, AttributeError):
        kind = str(message.get("type") or "message")
        return InboundMessage(**envelope, content=UnknownContent(kind=kind[:80]), external_id=_name(message))


def _message(message: Raw, envelope: dict[str, Any], media_url: str) -> InboundMessage:
    kind = str(message.get("type") or "")
    about = part(message, "context").get("id")
    common: dict[str, Any] = {**envelope, "external_id": _name(message), "about_id": str(about) if about else None}
    match kind:
        case "reaction":
            return _reaction(part(message, kind), common)
        case "edit":
            target = str(part(message, kind)["original_message_id"])
            new = part(part(message, kind), "message")
            files = _attachments(new, media_url)
            content = EditContent(target_event_id=target, new_content=_content(new, files))
            told: dict[str, Any] = {**common, "type": EventType.EDIT, "about_id": target, "attachments": files}
            return InboundMessage(**told, content=content)
        case "revoke":
            target = str(part(message, kind)["original_message_id"])
            told = {**common, "type": EventType.DELETE, "about_id": target}
            return InboundMessage(**told, content=DeleteContent(target_event_id=target))
        case _:
            files = _attachments(message, media_url)
            return InboundMessage(**common, content=_content(message, files), attachments=files)


def _reaction(reaction: Raw, common: dict[str, Any]) -> InboundMessage:
    """Without an emoji whatever they had put there is taken away."""
    target, emoji = str(reaction["message_id"]), str(reaction.get("emoji") or "")
    content = ReactionContent(target_event_id=target, emoji=emoji[:80], removed=not emoji)
    told: dict[str, Any] = {**common, "type": EventType.REACTION, "about_id": target, "metadata": dict(SOLE)}
    return InboundMessage(**told, content=content)


def _envelope(message: Raw, value: Raw, channel_id: str) -> dict[str, Any]:
    phone, own = str(message.get("from") or ""), str(message.get("from_user_id") or "")
    contacts = rows(value.get("contacts"))
    mine = [one for one in contacts if phone in (one.get("wa_id"), "") and own in (one.get("user_id"), "")]
    contact: Raw = mine[0] if mine else contacts[0] if len(contacts) == 1 else {}
    profile = part(contact, "profile")
    user_id = own or str(contact.get("user_id") or "")
    group = message.get("group_id")
    kept: dict[str, Any] = {
        "user_id": user_id,
        "username": profile.get("username"),
        "reply": _choice(message),
        "forwarded": part(message, "context").get("forwarded") or part(message, "context").get("frequently_forwarded"),
        "referral": message.get("referral"),
    }
    return {
        "channel_id": channel_id,
        "sender_id": person(phone or str(contact.get("wa_id") or "")) or user_id or "unknown",
        "sender_name": str(profile.get("name") or profile.get("username") or "")[:200] or None,
        "recipient_id": str(part(value, "metadata").get("display_phone_number") or "") or None,
        "conversation_id": f"{GROUP}{group}" if group else None,
        "group": bool(group),
        "provider": "meta",
        "sent_at": when(message.get("timestamp")),
        "raw_payload": {"message": message, "contacts": [contact], "metadata": part(value, "metadata")},
        "channel_data": {"whatsapp": {name: one for name, one in kept.items() if one}},
    }


def _content(message: Raw, files: tuple[Attachment, ...]) -> Content:
    kind = str(message.get("type") or "message")
    inner = part(message, kind)
    if files:
        return _file(kind, inner, files[0])
    match kind:
        case "text" if inner.get("body"):
            return TextContent(text=str(inner["body"]))
        case "location":
            return LocationContent(
                latitude=float(inner["latitude"]),
                longitude=float(inner["longitude"]),
                label=str(inner["name"]) if inner.get("name") else None,
                address=str(inner["address"]) if inner.get("address") else None,
            )
        case "button" | "interactive" if said := _said(message):
            return TextContent(text=said)
        case _:
            return UnknownContent(kind=kind[:80], text=_words(kind, message))


def _said(message: Raw) -> str:
    """What a tap on a button or a row says to people."""
    button = part(message, "button")
    interactive = part(message, "interactive")
    chosen = part(interactive, str(interactive.get("type") or ""))
    return str(button.get("text") or chosen.get("title") or chosen.get("body") or "")


def _choice(message: Raw) -> dict[str, Any] | None:
    """What it says to programs."""
    if button := part(message, "button"):
        return {"type": "button", "id": button.get("payload")}
    interactive = part(message, "interactive")
    kind = str(interactive.get("type") or "")
    chosen = part(interactive, kind)
    return {"type": kind, **{name: one for name, one in chosen.items() if name != "title"}} if kind else None


def _words(kind: str, message: Raw) -> str | None:
    inner = part(message, kind)
    match kind:
        case "contacts":
            told = [_contact(one) for one in rows(message.get(kind))]
        case "order":
            items = rows(inner.get("product_items"))
            told = [
                str(inner.get("text") or ""),
                *(f"{i.get('quantity')} x {i.get('product_retailer_id')}" for i in items),
            ]
        case "system":
            told = [str(inner.get("body") or inner.get("type") or "")]
        case _:
            errors = rows(message.get("errors"))
            told = [str(inner.get("type") or ""), *(str(one.get("title") or "") for one in errors)]
    return "\n".join(one for one in told if one)[:2000] or None


def _contact(contact: Raw) -> str:
    phones = (str(one.get("phone") or one.get("wa_id") or "") for one in rows(contact.get("phones")))
    name = str(part(contact, "name").get("formatted_name") or part(contact, "name").get("first_name") or "")
    return " ".join(one for one in (name, *phones) if one)


def _attachments(message: Raw, media_url: str) -> tuple[Attachment, ...]:
    kind = str(message.get("type") or "")
    file = part(message, kind)
    if kind not in FILES or not file.get("id"):
        return ()
    name = file.get("filename")
    return (
        Attachment(
            url=f"{media_url}{file['id']}",
            mime_type=str(file.get("mime_type") or "application/octet-stream"),
            filename=str(name)[:255] if name else None,
            needs_auth=True,
        ),
    )


def _file(kind: str, file: Raw, attachment: Attachment) -> Content:
    mime, caption = attachment.mime_type or "", str(file.get("caption") or "") or None
    match kind:
        case "audio":
            return AudioContent(url=attachment.url, mime_type=mime)
        case "video":
            return VideoContent(url=attachment.url, mime_type=mime, caption=caption)
        case _:
            return MediaContent(url=attachment.url, mime_type=mime, filename=attachment.filename, caption=caption)


def _status(status: Raw, value: Raw, channel_id: str) -> Item:
    state = STATES.get(str(status.get("status")))
    errors = rows(status.get("errors"))
    if state is None or not status.get("id"):
        kind = f"status_{status.get('status') or 'unknown'}"
        return _unknown(channel_id, kind[:80], status, person(str(status.get("recipient_id") or "")) or "meta")
    error: Raw = errors[0] if errors else {}
    title, details = error.get("title") or error.get("message"), part(error, "error_data").get("details")
    told = ": ".join(dict.fromkeys(str(one) for one in (title, details) if one))
    return DeliveryStatus(
        channel_id=channel_id,
        provider_message_id=str(status["id"]),
        state=state,
        error=told[:500] or None,
        code=str(error["code"]) if error.get("code") is not None else None,
        at=when(status.get("timestamp")),
        raw_payload={"status": status, "metadata": part(value, "metadata")},
    )


def _unknown(
    channel_id: str, kind: str, raw: Raw, sender: str, text: str | None = None, said: Raw | None = None
) -> InboundMessage:
    return InboundMessage(
        channel_id=channel_id,
        sender_id=sender,
        content=UnknownContent(kind=kind, text=text),
        external_id=own_id(raw),
        provider="meta",
        raw_payload=raw,
        metadata=dict(said or {}),
    )


def _wish(wish: Raw) -> Raw:
    """What somebody has set in the app, as the ledger of consent takes it: marketing alone."""
    kind = {"stop": "stop", "resume": "start"}.get(str(wish.get("value")))
    return {"opt_out": kind, "opt_out_purpose": "marketing"} if kind and wish.get("category") == _MARKETING else {}


def _name(message: Raw) -> str:
    return str(message.get("id") or own_id(message))


def person(number: str) -> str:
    """A phone number as all channels write it."""
    return f"+{number.removeprefix('+')}" if number else ""


def when(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
