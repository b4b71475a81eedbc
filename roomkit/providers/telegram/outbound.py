"""What a message is in the Bot API's methods. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from roomkit.errors import Refused
from roomkit.models.content import (
    AudioContent,
    Button,
    Content,
    DeleteContent,
    EditContent,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import Outgoing
from roomkit.providers.chat_text import TELEGRAM, chat_text
from roomkit.providers.stored_files import File, bytes_of
from roomkit.providers.telegram.inbound import FILE

_MB = 1024 * 1024
MAX_TEXT, MAX_CAPTION, MAX_DATA = 4096, 1024, 64
MAX_UPLOAD = 50 * _MB
MAX_PHOTO_LINK = 5 * _MB
"""A larger photo goes as a file: Telegram fetches none by its address."""
VOICE = frozenset({"audio/ogg", "audio/opus"})
MUSIC = frozenset({"audio/mpeg", "audio/mp3", "audio/mp4", "audio/x-m4a", "audio/m4a"})
PHOTO = frozenset({"image/jpeg", "image/png", "image/webp"})
# The only documents that Telegram fetches by their address.
LINKED = frozenset({"application/pdf", "application/zip", "image/gif"})
METHODS = {
    "photo": "sendPhoto",
    "animation": "sendAnimation",
    "video": "sendVideo",
    "voice": "sendVoice",
    "audio": "sendAudio",
    "document": "sendDocument",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `upload` is (field, file, its bytes where we have them) where the file has to go along, `plain` the
    text to send where Telegram finds fault with the marks; `names` says that the answer is the message that was
    sent."""

    method: str
    fields: Mapping[str, Any] = field(repr=False)
    upload: tuple[str, File, bytes | None] | None = field(default=None, repr=False)
    plain: str | None = field(default=None, repr=False)
    names: bool = True


def calls(message: Outgoing) -> list[Call]:
    """The requests that send `message`, in order. Raises `Refused` for what Telegram would not take."""
    content = message.content
    match content:
        case EditContent(new_content=new):
            return _edit(message, new)
        case DeleteContent():
            return [_delete(message.about_ids)]
        case ReactionContent(emoji=emoji, removed=removed):
            chat, mid = _name(message.about_ids[-1:])
            # Telegram knows its emoji without the selector that asks for a colourful one.
            wanted = [] if removed else [{"type": "emoji", "emoji": emoji.replace("\ufe0f", "")}]
            fields = {"chat_id": chat, "message_id": mid, "reaction": wanted}
            return [Call("setMessageReaction", fields, names=False)]
        case LocationContent():
            return [_place(message, content)]
        case MediaContent() | AudioContent() | VideoContent():
            return [_media(message, content)]
        case _:
            text = text_of(content)
            if not text:
                raise Refused("telegram", f"content of type {content.type} has neither text nor media to send")
            return [Call("sendMessage", {**_to(message), **_text(content), **_buttons(content)}, plain=_plain(content))]


def _text(content: Content, field: str = "text") -> dict[str, Any]:
    if isinstance(content, RichContent):
        return {field: chat_text(content, TELEGRAM), "parse_mode": "HTML"}
    text = text_of(content)
    limit = MAX_TEXT if field == "text" else MAX_CAPTION
    if len(text) > limit:
        raise Refused("telegram", f"a {field} of {len(text)} characters is too long; Telegram takes {limit}")
    return {field: text}


def _plain(content: Content) -> str | None:
    return content.plain_text or content.text if isinstance(content, RichContent) else None


def _buttons(content: Content) -> dict[str, Any]:
    if not isinstance(content, RichContent) or not content.buttons:
        return {}
    return {"reply_markup": {"inline_keyboard": [[_button(button)] for button in content.buttons]}}


def _button(button: Button) -> dict[str, str]:
    if button.url:
        return {"text": button.label, "url": button.url}
    data = button.value or button.label
    if len(data.encode()) > MAX_DATA:
        raise Refused("telegram", f'the value of button "{button.label[:40]}" is longer than {MAX_DATA} bytes')
    return {"text": button.label, "callback_data": data}


def _to(message: Outgoing) -> dict[str, Any]:
    chat, _, topic = message.recipient.partition(":")
    fields: dict[str, Any] = {"chat_id": number(chat)}
    if topic:
        fields["message_thread_id"] = number(topic)
    if message.about_ids and message.part == 0:
        answered, mid = _name(message.about_ids[-1:])
        if str(answered) == chat:
            fields["reply_parameters"] = {"message_id": mid, "allow_sending_without_reply": True}
    return fields


def _place(message: Outgoing, place: LocationContent) -> Call:
    fields = {**_to(message), "latitude": place.latitude, "longitude": place.longitude}
    if place.label is None and place.address is None:
        return Call("sendLocation", fields)
    return Call("sendVenue", {**fields, "title": place.label or place.address, "address": place.address or place.label})


def _media(message: Outgoing, file: File) -> Call:
    kind = _kind(file)
    if file.size_bytes is not None and file.size_bytes > MAX_UPLOAD:
        raise Refused("telegram", f"a file of {file.size_bytes} bytes is too large; bots may send {MAX_UPLOAD}")
    caption = None if isinstance(file, AudioContent) else file.caption
    fields = {**_to(message), **(_text(file, "caption") if caption else {})}
    if file.url.startswith(FILE):
        return Call(METHODS[kind], {**fields, kind: file.url.removeprefix(FILE)})
    data = bytes_of(file, message, "telegram")
    if data is not None:
        return Call(METHODS[kind], fields, (kind, file, data))
    if not file.url.startswith(("https://", "http://")):
        raise Refused(
            "telegram", "media must have a public URL that Telegram can fetch; configure the kit's public URL"
        )
    if kind == "document" and file.mime_type not in LINKED:
        return Call(METHODS[kind], fields, (kind, file, None))
    return Call(METHODS[kind], {**fields, kind: file.url})


def _kind(file: File) -> str:
    mime = file.mime_type.partition(";")[0].strip().lower()
    large = file.size_bytes is not None and file.size_bytes > MAX_PHOTO_LINK
    if mime in PHOTO:
        return "document" if large else "photo"
    if mime in VOICE:
        return "voice"
    if mime in MUSIC:
        return "audio"
    return {"image/gif": "animation", "video/mp4": "video"}.get(mime, "document")


def _edit(message: Outgoing, new: Content) -> list[Call]:
    """A message that went out in several parts ends as one: the first has the new text, the others go."""
    first, *others = message.about_ids
    chat, mid = _name((first,))
    fields: dict[str, Any] = {"chat_id": chat, "message_id": mid}
    if isinstance(new, MediaContent | AudioContent | VideoContent):
        kind = _kind(new)
        caption = {} if isinstance(new, AudioContent) or not new.caption else _text(new, "caption")
        place = new.url.removeprefix(FILE)
        media = {"type": "audio" if kind == "voice" else kind, "media": place, **caption}
        edit = Call("editMessageMedia", {**fields, "media": media}, names=False)
    elif text_of(new):
        text = {**fields, **_text(new), **_buttons(new)}
        edit = Call("editMessageText", text, plain=_plain(new), names=False)
    else:
        raise Refused("telegram", f"a message cannot be changed into content of type {new.type}")
    return [edit, _delete(others)] if others else [edit]


def _delete(names: Sequence[str]) -> Call:
    chat, _ = _name(names)
    return Call("deleteMessages", {"chat_id": chat, "message_ids": [_name((name,))[1] for name in names]}, names=False)


def _name(names: Sequence[str]) -> tuple[int | str, int | str]:
    """Chat and number of a message of ours or theirs."""
    if not names:
        raise Refused("telegram", "Telegram does not know the message that this is about")
    chat, _, mid = names[0].rpartition(":")
    return number(chat), number(mid)


def number(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() else text
