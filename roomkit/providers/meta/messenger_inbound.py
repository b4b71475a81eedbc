"""Messenger's webhooks, read: messages, postbacks, reactions, edits, and what became of ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
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
# The mime type is not told; the file itself says it when it is fetched.
_MIMES = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/mp4", "file": "application/octet-stream"}
_ENVELOPE = frozenset({"sender", "recipient", "timestamp"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(body: Raw, channel_id: str, account: str) -> Iterator[Item]:
    """Everything in one webhook, save what came for another page than `account`. Kinds that are not known become a
    message with `UnknownContent`; the echo of what a page has said only confirms that it went out."""
    entries = rows(body.get("entry"))
    if body.get("object") != "page" or not entries:
        yield _unknown(channel_id, str(body.get("object") or "empty"), body, "meta")
        return
    for entry in entries:
        page = str(entry.get("id") or "")
        if account and page and page != account:
            continue
        # The first two hold conversations; everything else is news of the page itself.
        found = [(kind, event) for kind in ("messaging", "standby") for event in rows(entry.get(kind))]
        for kind, event in found:
            yield from _event(kind, event, channel_id)
        for change in rows(entry.get("changes")):
            yield _unknown(channel_id, str(change.get("field") or "change"), change, f"page:{page}")
        if not found and not rows(entry.get("changes")):
            yield _unknown(channel_id, "empty", entry, f"page:{page}")


def others(body: Raw, account: str) -> set[str]:
    """The pages that a webhook has news for, other than `account`."""
    found = {str(entry.get("id") or "") for entry in rows(body.get("entry"))}
    return found - {account, ""} if account else set()


def _event(kind: str, event: Raw, channel_id: str) -> Iterator[Item]:
    try:
        if kind == "standby":
            yield _unknown(channel_id, "standby", event, _sender(event))
        elif (delivery := part(event, "delivery")) or "delivery" in event:
            yield from _delivered(delivery, event, channel_id)
        elif "read" in event:
            yield _until(DeliveryState.READ, part(event, "read"), event, channel_id)
        elif message := part(event, "message"):
            yield _echo(message, event, channel_id) if message.get("is_echo") else _message(message, event, channel_id)
        elif postback := part(event, "postback"):
            yield _postback(postback, event, channel_id)
        elif reaction := part(event, "reaction"):
            yield _reaction(reaction, event, channel_id)
        elif edit := part(event, "message_edit"):
            yield _edit(edit, event, channel_id)
        else:
            name = next((one for one in event if one not in _ENVELOPE), "event")
            yield _unknown(channel_id, name, event, _sender(event))
    except (TypeError, ValueError, KeyError, AttributeError):
        yield _unknown(channel_id, "malformed", event, _sender(event))


def _envelope(event: Raw, channel_id: str, **kept: Any) -> dict[str, Any]:
    return {
        "channel_id": channel_id,
        "sender_id": _sender(event),
        "recipient_id": str(part(event, "recipient").get("id") or "") or None,
        "provider": "meta",
        "sent_at": when(event.get("timestamp")),
        "raw_payload": event,
        "channel_data": {"messenger": {name: value for name, value in kept.items() if value}},
    }


def _message(message: Raw, event: Raw, channel_id: str) -> InboundMessage:
    reply = part(message, "quick_reply").get("payload")
    files = tuple(one for one in map(_attachment, rows(message.get("attachments"))) if one is not None)
    about = part(message, "reply_to").get("mid")
    return InboundMessage(
        **_envelope(event, channel_id, payload=reply, referral=message.get("referral")),
        content=_content(message, files),
        external_id=str(message.get("mid") or own_id(event)),
        about_id=str(about) if about else None,
        attachments=files,
    )


def _content(message: Raw, files: tuple[Attachment, ...]) -> Content:
    text = str(message.get("text") or "")
    found: list[Content] = [TextContent(text=text)] if text else []
    waiting = list(files)
    for attachment in rows(message.get("attachments")):
        if _attachment(attachment) is not None:
            found.append(_file(str(attachment["type"]), waiting.pop(0).url))
        elif (other := _other(attachment, text)) is not None:
            found.append(other)
    if not found:
        kind = next((name for name in ("is_unsupported", "is_deleted") if message.get(name)), "empty_message")
        return UnknownContent(kind=kind)
    return found[0] if len(found) == 1 else CompositeContent(parts=tuple(found))


def _attachment(attachment: Raw) -> Attachment | None:
    kind, url = str(attachment.get("type") or ""), part(attachment, "payload").get("url")
    if kind not in _MIMES or not isinstance(url, str) or not url.startswith("https://"):
        return None
    return Attachment(url=url)


def _file(kind: str, url: str) -> Content:
    match kind:
        case "audio":
            return AudioContent(url=url, mime_type=_MIMES[kind])
        case "video":
            return VideoContent(url=url, mime_type=_MIMES[kind])
        case _:
            return MediaContent(url=url, mime_type=_MIMES[kind])


def _other(attachment: Raw, text: str) -> Content | None:
    kind, payload = str(attachment.get("type") or "attachment"), part(attachment, "payload")
    at = part(payload, "coordinates")
    if kind == "location" and at:
        return LocationContent(latitude=float(at["lat"]), longitude=float(at["long"]), label=_title(attachment))
    if kind == "fallback":  # a link that somebody shared: its address is often the text already
        url = str(payload.get("url") or attachment.get("url") or "")
        told = "\n".join(one for one in (_title(attachment), url) if one and one not in text)
        return TextContent(text=told) if told else None if text else UnknownContent(kind=kind)
    return UnknownContent(kind=kind[:80], text=_title(attachment))


def _title(attachment: Raw) -> str | None:
    return str(attachment.get("title") or part(attachment, "payload").get("title") or "")[:500] or None


def _postback(postback: Raw, event: Raw, channel_id: str) -> InboundMessage:
    """A tap on a button or in the menu: what it says is its title, what it means its payload."""
    payload = str(postback.get("payload") or "")
    text = str(postback.get("title") or payload)
    return InboundMessage(
        **_envelope(event, channel_id, payload=payload, referral=postback.get("referral")),
        content=TextContent(text=text) if text else UnknownContent(kind="postback"),
        external_id=str(postback.get("mid") or own_id(event)),
    )


def _reaction(reaction: Raw, event: Raw, channel_id: str) -> InboundMessage:
    target, removed = str(reaction["mid"]), reaction.get("action") == "unreact"
    # Without an emoji whatever they had put there is taken away.
    emoji = "" if removed else str(reaction.get("emoji") or reaction.get("reaction") or "?")
    return InboundMessage(
        **_envelope(event, channel_id),
        type=EventType.REACTION,
        content=ReactionContent(target_event_id=target, emoji=emoji[:80], removed=removed),
        external_id=own_id(event),
        about_id=target,
        metadata=dict(SOLE),
    )


def _edit(edit: Raw, event: Raw, channel_id: str) -> InboundMessage:
    target = str(edit["mid"])
    return InboundMessage(
        **_envelope(event, channel_id),
        type=EventType.EDIT,
        content=EditContent(target_event_id=target, new_content=TextContent(text=str(edit.get("text") or ""))),
        external_id=f"{target}:edit:{edit.get('num_edit') or own_id(event)}",
        about_id=target,
    )


def _echo(message: Raw, event: Raw, channel_id: str) -> Item:
    name = message.get("mid")
    if not name:
        return _unknown(channel_id, "echo", event, str(part(event, "recipient").get("id") or "meta"))
    at = when(event.get("timestamp"))
    sent = DeliveryState.SENT
    return DeliveryStatus(channel_id=channel_id, provider_message_id=str(name), state=sent, at=at, raw_payload=event)


def _delivered(delivery: Raw, event: Raw, channel_id: str) -> Iterator[DeliveryStatus]:
    """By name where names are told, else everything up to the watermark."""
    names: Any = delivery.get("mids")
    named = [str(name) for name in cast("list[Any]", names) if name] if isinstance(names, list) else []
    at, state = when(event.get("timestamp") or delivery.get("watermark")), DeliveryState.DELIVERED
    for name in named:
        yield DeliveryStatus(channel_id=channel_id, provider_message_id=name, state=state, at=at, raw_payload=event)
    if not named:
        yield _until(state, delivery, event, channel_id)


def _until(state: DeliveryState, mark: Raw, event: Raw, channel_id: str) -> DeliveryStatus:
    sender, watermark = _sender(event), mark.get("watermark")
    return DeliveryStatus(
        channel_id=channel_id,
        provider_message_id=f"until:{sender}:{watermark}",
        state=state,
        at=when(event.get("timestamp") or watermark),
        recipient=sender,
        until=when(watermark),
        raw_payload=event,
    )


def _unknown(channel_id: str, kind: str, raw: Raw, sender: str) -> InboundMessage:
    return InboundMessage(
        channel_id=channel_id,
        sender_id=sender,
        content=UnknownContent(kind=kind[:80]),
        external_id=own_id(raw),
        provider="meta",
        raw_payload=raw,
    )


def _sender(event: Raw) -> str:
    return str(part(event, "sender").get("id") or part(event, "sender").get("user_ref") or "unknown")


def when(milliseconds: Any) -> datetime | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int):
        return None
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
