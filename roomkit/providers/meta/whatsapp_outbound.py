"""What a message is in the Cloud API's JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from roomkit.errors import Refused
from roomkit.models.content import (
    AudioContent,
    Button,
    Content,
    LocationContent,
    MediaContent,
    ReactionContent,
    RichContent,
    TemplateContent,
    VideoContent,
    text_of,
)
from roomkit.models.delivery import Outgoing
from roomkit.providers.chat_text import WHATSAPP, chat_text
from roomkit.providers.meta.whatsapp_inbound import GROUP

_KB, _MB = 1024, 1024 * 1024
MAX_TEXT, MAX_CAPTION = 4096, 1024
BUTTONS, ROWS = 3, 10
MAX_BUTTON, MAX_ROW, MAX_MORE = 20, 24, 72
MAX_BESIDE_BUTTONS = 1024
LIMITS = {"image": 5 * _MB, "audio": 16 * _MB, "video": 16 * _MB, "document": 100 * _MB, "sticker": 500 * _KB}
# What WhatsApp shows as what it is; everything else goes as a document.
KINDS = {
    "image/jpeg": "image",
    "image/png": "image",
    "image/webp": "sticker",
    "video/mp4": "video",
    "video/3gpp": "video",
    "audio/aac": "audio",
    "audio/amr": "audio",
    "audio/mpeg": "audio",
    "audio/mp4": "audio",
    "audio/ogg": "audio",
}
File = MediaContent | AudioContent | VideoContent
_BSUID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]+")


def body(message: Outgoing, *, list_button: str, media: dict[str, str] | None = None) -> dict[str, Any]:
    """The request that sends `message`; `media` names an uploaded file. Raises `Refused` for what cannot be sent."""
    fields: dict[str, Any] = {
        "messaging_product": "whatsapp",
        **_to(message.recipient),
        **_payload(message.content, list_button, media),
    }
    if isinstance(message.content, ReactionContent):
        if not message.about_ids:
            raise Refused("meta", "WhatsApp does not know the message that this reaction is about")
        fields["reaction"] = {"message_id": message.about_ids[-1], **fields["reaction"]}
    elif message.about_ids and message.part == 0:
        fields["context"] = {"message_id": message.about_ids[-1]}
    return fields


def _to(recipient: str) -> dict[str, str]:
    if recipient.startswith(GROUP):
        return {"recipient_type": "group", "to": recipient.removeprefix(GROUP)}
    if _BSUID.fullmatch(recipient):
        return {"recipient_type": "individual", "recipient": recipient}
    return {"recipient_type": "individual", "to": recipient}


def _payload(content: Content, list_button: str, media: dict[str, str] | None) -> dict[str, Any]:
    match content:
        case ReactionContent(emoji=emoji, removed=removed):
            return {"type": "reaction", "reaction": {"emoji": "" if removed else emoji}}
        case LocationContent():
            place = {"name": content.label, "address": content.address}
            told = {name: value for name, value in place.items() if value}
            return {
                "type": "location",
                "location": {"latitude": content.latitude, "longitude": content.longitude, **told},
            }
        case TemplateContent():
            return {"type": "template", "template": template(content)}
        case MediaContent() | AudioContent() | VideoContent():
            kind = kind_of(content)
            return {"type": kind, kind: _file(content, kind, media)}
        case RichContent(buttons=buttons) if buttons:
            return _interactive(content, buttons, list_button)
        case _:
            text = chat_text(content, WHATSAPP) if isinstance(content, RichContent) else text_of(content)
            return {"type": "text", "text": {"body": _fits(text, content), "preview_url": "://" in text}}


def _fits(text: str, content: Content) -> str:
    if not text.strip():
        raise Refused("meta", f"content of type {content.type} has neither text nor media to send")
    if len(text) > MAX_TEXT:
        raise Refused("meta", f"a text of {len(text)} characters is too long; WhatsApp takes {MAX_TEXT}")
    return text


def _interactive(content: RichContent, buttons: Sequence[Button], list_button: str) -> dict[str, Any]:
    """Replies as buttons, or as a list where they are many, long, or under a long text; one link as a button. What has
    no place is written out."""
    text = chat_text(content, WHATSAPP)
    links = [button for button in buttons if button.url]
    replies = [button for button in buttons if not button.url]
    if links and (replies or len(links) > 1 or len(text) > MAX_BESIDE_BUTTONS or len(links[0].label) > MAX_BUTTON):
        text = "\n".join([text, *(f"{link.label}: {link.url}" for link in links)])
        links = []
    if links:
        parameters = {"display_text": links[0].label, "url": links[0].url}
        action: dict[str, Any] = {"name": "cta_url", "parameters": parameters}
        return _shown("cta_url", _fits(text, content), action)
    if not replies:
        return {"type": "text", "text": {"body": _fits(text, content), "preview_url": True}}
    few = len(replies) <= BUTTONS and all(len(one.label) <= MAX_BUTTON for one in replies)
    if few and len(text) <= MAX_BESIDE_BUTTONS:
        made = [{"type": "reply", "reply": {"id": _value(one, 256), "title": one.label}} for one in replies]
        return _shown("button", _fits(text, content), {"buttons": made})
    if len(replies) > ROWS:
        raise Refused("meta", f"{len(replies)} choices are too many; WhatsApp shows {ROWS}")
    rows = [_row(one) for one in replies]
    return _shown("list", _fits(text, content), {"button": list_button[:MAX_BUTTON], "sections": [{"rows": rows}]})


def _shown(kind: str, text: str, action: dict[str, Any]) -> dict[str, Any]:
    return {"type": "interactive", "interactive": {"type": kind, "body": {"text": text}, "action": action}}


def _row(button: Button) -> dict[str, str]:
    row = {"id": _value(button, 200), "title": button.label}
    if len(button.label) > MAX_ROW:
        row |= {"title": button.label[: MAX_ROW - 1] + "…", "description": button.label[:MAX_MORE]}
    return row


def _value(button: Button, most: int) -> str:
    value = button.value or button.label
    if len(value) > most:
        raise Refused("meta", f'the value of button "{button.label[:40]}" is longer than {most} characters')
    return value


def kind_of(file: File) -> str:
    mime = file.mime_type.partition(";")[0].strip().lower()
    kind = KINDS.get(mime, "document")
    wanted = isinstance(file, MediaContent) and (file.caption or file.filename) and kind == "sticker"
    return "document" if wanted else kind


def check_size(kind: str, size: int | None) -> None:
    if size is not None and size > LIMITS[kind]:
        raise Refused("meta", f"a file of {size} bytes is too large; WhatsApp takes {LIMITS[kind]} as {kind}")


def _file(file: File, kind: str, media: dict[str, str] | None) -> dict[str, str]:
    check_size(kind, file.size_bytes)
    if media is None and not file.url.startswith(("https://", "http://")):
        raise Refused("meta", "media must have a public URL that WhatsApp can fetch; configure the kit's public URL")
    fields = dict(media or {"link": file.url})
    if not isinstance(file, AudioContent) and file.caption and kind != "sticker":
        if len(file.caption) > MAX_CAPTION:
            raise Refused("meta", f"a caption of {len(file.caption)} characters is too long; it may have {MAX_CAPTION}")
        fields["caption"] = file.caption
    if kind == "document":
        fields["filename"] = (file.filename if isinstance(file, MediaContent) else None) or "file"
    return fields


def template(content: TemplateContent) -> dict[str, Any]:
    """`parameters` by their place: "1" and "2" or names are the body's; "header" (or "header.image", ".video",
    ".document" with a URL); "button.0" ends a link, "button.0.payload" is what a quick reply says."""
    texts: list[tuple[str, str]] = []
    components: list[dict[str, Any]] = []
    for name, value in content.parameters.items():
        place, _, rest = name.partition(".")
        if place == "header":
            kind = rest if rest in ("image", "video", "document") else "text"
            inner = {kind: value if kind == "text" else {"link": value}}
            components.append({"type": "header", "parameters": [{"type": kind, **inner}]})
        elif place == "button" and rest[:1].isdecimal():
            number, _, what = rest.partition(".")
            quick = what == "payload"
            inner = {"type": "payload", "payload": value} if quick else {"type": "text", "text": value}
            sub = "quick_reply" if quick else "url"
            components.append({"type": "button", "sub_type": sub, "index": number, "parameters": [inner]})
        else:
            texts.append((name, value))
    if texts:
        components.insert(0, {"type": "body", "parameters": _body_texts(texts)})
    made: dict[str, Any] = {"name": content.template_id, "language": {"code": content.language or "en_US"}}
    return {**made, "components": components} if components else made


def _body_texts(texts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    # The Cloud API refuses line breaks, tabs and runs of spaces in a parameter.
    flat = [(name, re.sub(r"\s*[\n\t]\s*| {4,}", " ", value).strip()) for name, value in texts]
    if all(name.isdecimal() for name, _ in flat):
        return [{"type": "text", "text": value} for _, value in sorted(flat, key=lambda one: int(one[0]))]
    return [{"type": "text", "parameter_name": name, "text": value} for name, value in flat]
