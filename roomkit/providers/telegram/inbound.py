"""Telegram's updates, read: messages, edits, taps on buttons, reactions. Pure.

A message's id counts within its chat, so that outside of here it is `chat:message`; an edit's or a reaction's own id is
that of the update. In a topic of a forum the conversation is `chat:topic`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
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
from roomkit.models.delivery import Attachment, InboundMessage
from roomkit.models.event import EventType
from roomkit.providers.vendor_json import part, rows

Raw = Mapping[str, Any]
FILE = "telegram:"
"""A file's address until it is fetched: the real one has the bot's token in it."""
MESSAGES = ("message", "channel_post")
EDITS = ("edited_message", "edited_channel_post")
# What each kind of file is, where the update does not say.
_MIMES = {"photo": "image/jpeg", "voice": "audio/ogg", "video_note": "video/mp4", "animation": "video/mp4"}
_FILES = ("photo", "animation", "document", "video", "audio", "voice", "video_note", "sticker")
# Everything else that a message says of itself; what is left names the kind of one that is not known.
_ENVELOPE = frozenset(
    {
        *("message_id", "message_thread_id", "direct_messages_topic", "from", "sender_chat", "sender_boost_count"),
        *("sender_business_bot", "sender_tag", "business_connection_id", "date", "chat", "forward_origin"),
        *("is_topic_message", "is_automatic_forward", "reply_to_message", "external_reply", "quote", "reply_to_story"),
        *(
            "reply_to_checklist_task_id",
            "reply_to_poll_option_id",
            "guest_bot_caller_chat",
            "via_bot",
            "edit_date",
            "has_protected_content",
            "is_from_offline",
        ),
        *("is_paid_post", "media_group_id", "author_signature", "paid_star_count", "entities", "link_preview_options"),
        *("effect_id", "caption", "caption_entities", "show_caption_above_media", "has_media_spoiler", "reply_markup"),
        *("suggested_post_info", "forward_from", "forward_date", "forward_from_chat", "forward_from_message_id"),
        *("forward_signature", "forward_sender_name", "guest_query_id", "guest_bot_caller_user"),
    }
)


def read(update: Raw, channel_id: str) -> list[InboundMessage]:
    """One update. Kinds that are not known, or not in the form that is documented, become a message with
    `UnknownContent`."""
    try:
        return list(_read(update, channel_id)) or [_unknown(update, channel_id)]
    except (TypeError, ValueError, KeyError, AttributeError):
        return [_unknown(update, channel_id)]


def _read(update: Raw, channel_id: str) -> Iterator[InboundMessage]:
    for name in MESSAGES:
        if message := part(update, name):
            yield _message(update, message, channel_id)
    for name in EDITS:
        if message := part(update, name):
            yield _edit(update, message, channel_id)
    if query := part(update, "callback_query"):
        yield _tap(update, query, channel_id)
    if change := part(update, "message_reaction"):
        yield from _reactions(update, change, channel_id)


def _message(update: Raw, message: Raw, channel_id: str) -> InboundMessage:
    attachments = _attachments(message)
    return InboundMessage(
        **_envelope(update, message, channel_id),
        content=_content(message, attachments),
        external_id=message_name(message),
        about_id=_answered(message),
        attachments=attachments,
    )


def _edit(update: Raw, message: Raw, channel_id: str) -> InboundMessage:
    attachments = _attachments(message)
    new = _content(message, attachments)
    return InboundMessage(
        **_envelope(update, message, channel_id),
        type=EventType.EDIT,
        content=EditContent(target_event_id=message_name(message), new_content=new),
        external_id=_own_id(update),
        about_id=message_name(message),
        attachments=attachments,
    )


def _tap(update: Raw, query: Raw, channel_id: str) -> InboundMessage:
    """A button under one of our messages: what it says is its label, what it means its data."""
    message = part(query, "message")
    data = str(query.get("data") or query.get("game_short_name") or "")
    told = _envelope(update, {**message, "from": query.get("from")}, channel_id)
    told["channel_data"] = {"telegram": {"callback_data": data, "callback_query_id": str(query.get("id", ""))}}
    told["sent_at"] = None
    text = _label(message, data) or data
    return InboundMessage(
        **told,
        content=TextContent(text=text) if text else UnknownContent(kind="callback_query"),
        external_id=f"callback:{query.get('id', '')}",
        about_id=message_name(message) if message else None,
    )


def _reactions(update: Raw, change: Raw, channel_id: str) -> Iterator[InboundMessage]:
    old, new = _emojis(change.get("old_reaction")), _emojis(change.get("new_reaction"))
    changed = [*((emoji, True) for emoji in old if emoji not in new), *((e, False) for e in new if e not in old)]
    sender = part(change, "user") or part(change, "actor_chat")
    told = _envelope(update, {**change, "from": sender}, channel_id)
    target = message_name(change)
    for number, (emoji, removed) in enumerate(changed):
        yield InboundMessage(
            **told,
            type=EventType.REACTION,
            content=ReactionContent(target_event_id=target, emoji=emoji, removed=removed),
            external_id=f"{_own_id(update)}:{number}",
            about_id=target,
        )


def _unknown(update: Raw, channel_id: str) -> InboundMessage:
    kind = next((name for name in update if name != "update_id"), "empty_update")
    inner = part(update, kind)
    told = _envelope(update, {**inner, "from": inner.get("from") or inner.get("user")}, channel_id)
    member = part(inner, "new_chat_member")
    if kind == "my_chat_member" and not told["group"]:
        # Whoever blocks the bot wants nothing more, until it is started again.
        told["metadata"] = {"opt_out": "stop" if member.get("status") == "kicked" else "start"}
    return InboundMessage(
        **told,
        content=UnknownContent(kind=kind[:80], text=str(member["status"])[:80] if member.get("status") else None),
        external_id=_own_id(update),
    )


def _envelope(update: Raw, message: Raw, channel_id: str) -> dict[str, Any]:
    """Who, where, when: the fields that every kind of message has."""
    chat = part(message, "chat")
    # Whoever writes in the name of a chat has that one's id; `from` is then a dummy of Telegram's.
    sender = part(message, "sender_chat") or part(message, "from") or chat
    sender_id = str(sender.get("id", "telegram"))
    group = bool(chat) and chat.get("type", "private") != "private"
    where = conversation(message)
    kept = ("media_group_id", "message_thread_id", "business_connection_id", "author_signature")
    return {
        "channel_id": channel_id,
        "sender_id": sender_id,
        "sender_name": _name(sender),
        "conversation_id": where if where and where != sender_id else None,
        "group": group,
        "provider": "telegram",
        "sent_at": _when(message.get("edit_date") or message.get("date")),
        "raw_payload": update,
        "channel_data": {"telegram": {name: message[name] for name in kept if name in message}},
    }


def _content(message: Raw, attachments: tuple[Attachment, ...]) -> Content:
    text = str(message.get("text") or "")
    if text:
        return TextContent(text=text)
    caption = str(message.get("caption") or "")
    if attachments:
        return _file(message, attachments[0], caption)
    if place := _place(message):
        return place
    kind = next((name for name in message if name not in _ENVELOPE), "message")
    return UnknownContent(kind=kind[:80], text=_words(kind, message.get(kind)))


def _words(kind: str, value: Any) -> str | None:
    """What can be said of a message that there is no content type for."""
    inner: Raw = cast("Raw", value) if isinstance(value, dict) else {}
    told: list[Any]
    match kind:
        case "contact":
            told = [_name(inner), inner.get("phone_number")]
        case "poll":
            told = [inner.get("question"), *(f"- {one.get('text', '')}" for one in rows(inner.get("options")))]
        case "dice":
            told = [inner.get("emoji"), inner.get("value")]
        case "new_chat_members":
            told = [_name(one) for one in rows(value)]
        case _ if isinstance(value, str | int) and not isinstance(value, bool):
            told = [value]
        case _:
            told = [_name(inner)]
    return ("\n" if kind == "poll" else " ").join(str(part) for part in told if part)[:2000] or None


def _attachments(message: Raw) -> tuple[Attachment, ...]:
    for kind in _FILES:
        value = message.get(kind)
        if kind == "photo" and (sizes := rows(value)):
            value = max(sizes, key=_area)
        if isinstance(value, dict) and (file := cast("Raw", value)).get("file_id"):
            size = file.get("file_size")
            return (
                Attachment(
                    url=f"{FILE}{file['file_id']}",
                    mime_type=str(file.get("mime_type") or _mime(kind, file)),
                    filename=str(file["file_name"])[:255] if file.get("file_name") else None,
                    size_bytes=size if isinstance(size, int) else None,
                    needs_auth=True,
                ),
            )
    return ()


def _area(size: Raw) -> float:
    """0 where the sizes are no numbers that can be."""
    try:
        return int(size.get("width", 0)) * int(size.get("height", 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _mime(kind: str, file: Raw) -> str:
    if kind == "sticker":
        if file.get("is_video"):
            return "video/webm"
        return "application/x-tgsticker" if file.get("is_animated") else "image/webp"
    return _MIMES.get(kind, "application/octet-stream")


def _file(message: Raw, file: Attachment, caption: str) -> Content:
    mime = file.mime_type or "application/octet-stream"
    sizes: dict[str, Any] = {"url": file.url, "mime_type": mime, "size_bytes": file.size_bytes}
    length = next((one["duration"] for name in _FILES if "duration" in (one := part(message, name))), None)
    spoken: dict[str, Any] = {**sizes, "duration_ms": length * 1000 if isinstance(length, int) else None}
    if "document" in message or mime.partition("/")[0] not in {"audio", "video"}:
        emoji = part(message, "sticker").get("emoji")
        return MediaContent(**sizes, filename=file.filename, caption=caption or (str(emoji) if emoji else None))
    if mime.startswith("video/"):
        return VideoContent(**spoken, caption=caption or None)
    sound = AudioContent(**spoken)
    return CompositeContent(parts=(TextContent(text=caption), sound)) if caption else sound


def _place(message: Raw) -> LocationContent | None:
    venue = part(message, "venue")
    place = part(venue, "location") or part(message, "location")
    try:
        return LocationContent(
            latitude=float(place["latitude"]),
            longitude=float(place["longitude"]),
            label=str(venue["title"]) if venue.get("title") else None,
            address=str(venue["address"]) if venue.get("address") else None,
        )
    except (KeyError, ValueError, TypeError):
        return None


def _answered(message: Raw) -> str | None:
    """The message that this one answers; in a topic everything "answers" the message that opened it."""
    target = part(message, "reply_to_message")
    opening = message.get("is_topic_message") and target.get("message_id") == message.get("message_thread_id")
    return message_name(target) if target and not opening else None


def message_name(message: Raw) -> str:
    """A message's id for the whole of Telegram."""
    return f"{part(message, 'chat').get('id', '')}:{message.get('message_id', '')}"


def conversation(message: Raw) -> str:
    """Where an answer goes: the chat, or the topic in it."""
    chat = str(part(message, "chat").get("id", ""))
    topic = message.get("message_thread_id")
    return f"{chat}:{topic}" if topic is not None and message.get("is_topic_message") else chat


def _label(message: Raw, data: str) -> str:
    keys: Any = part(message, "reply_markup").get("inline_keyboard")
    found = (button for row in cast("list[Any]", keys or []) for button in rows(row))
    return next((str(one.get("text", "")) for one in found if one.get("callback_data") == data), "")


def _emojis(value: Any) -> list[str]:
    custom = ((str(one.get("emoji") or ""), str(one.get("custom_emoji_id") or "")) for one in rows(value))
    return [(emoji or (f":{own}:" if own else "⭐"))[:80] for emoji, own in custom]


def _name(person: Raw) -> str | None:
    name = " ".join(str(person[part]) for part in ("first_name", "last_name") if person.get(part))
    return (name or str(person.get("title") or person.get("username") or ""))[:200] or None


def _when(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _own_id(update: Raw) -> str:
    number = update.get("update_id")
    if number is None:
        number = hashlib.sha256(json.dumps(update, sort_keys=True).encode()).hexdigest()[:32]
    return f"update:{number}"
