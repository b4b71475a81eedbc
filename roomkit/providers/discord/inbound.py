"""Discord's interactions and webhook events, read. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from roomkit.errors import AccessDenied
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    MediaContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, InboundMessage, WebhookRequest
from roomkit.providers.vendor_json import Json, part, parts, text

PING, COMMAND, COMPONENT, AUTOCOMPLETE, MODAL = 1, 2, 3, 4, 5
_EPOCH_MS = 1_420_070_400_000
_NUMBERED = re.compile(r"\A[bc]\d+(?:\.\d+)?:")
_SUBCOMMANDS = (1, 2)
_ATTACHMENT = 11


def body_of(request: WebhookRequest) -> dict[str, Any]:
    """The payload; `AccessDenied` when it cannot be read."""
    try:
        payload: Any = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise AccessDenied("discord webhook: the body is no JSON") from error
    if not isinstance(payload, dict):
        raise AccessDenied("discord webhook: the body is no object")
    return cast("dict[str, Any]", payload)


def is_event(payload: Json) -> bool:
    """Whether it is a webhook event (an installation, an entitlement), which is only acknowledged."""
    return "event" in payload or payload.get("type") == 0


def read(payload: Json, channel_id: str) -> list[InboundMessage]:
    """The message of one request; none of a handshake, and of a question what a half-typed word could become."""
    kind = payload.get("type")
    if is_event(payload):
        return [_told(payload, channel_id)] if isinstance(payload.get("event"), dict) else []
    if kind in (PING, AUTOCOMPLETE):
        return []
    data = part(payload, "data")
    member = part(payload, "member")
    user = part(member, "user") or part(payload, "user")
    where = text(payload, "channel_id") or text(part(payload, "channel"), "id")
    attachments = _attachments(data)
    metadata: dict[str, Any] = {}
    if kind == COMMAND:
        content = _with_files(_command(data), attachments)
    elif kind == COMPONENT:
        content, metadata = _pressed(payload, data)
    elif kind == MODAL:
        content = _form(data)
    else:
        content = UnknownContent(kind=f"interaction {kind}"[:80])
    ident = text(payload, "id")
    return [
        InboundMessage(
            channel_id=channel_id,
            sender_id=text(user, "id") or "unknown",
            sender_name=text(member, "nick") or text(user, "global_name") or text(user, "username") or None,
            conversation_id=where or None,
            group=bool(payload.get("guild_id")),
            content=content,
            external_id=ident or _digest(payload),
            attachments=attachments,
            sent_at=_moment(ident),
            metadata=metadata,
            **_common(payload),
        )
    ]


def _told(payload: Json, channel_id: str) -> InboundMessage:
    event = part(payload, "event")
    data = part(event, "data")
    user = part(data, "user")
    return InboundMessage(
        channel_id=channel_id,
        sender_id=text(user, "id") or text(data, "user_id") or "discord",
        sender_name=text(user, "global_name") or text(user, "username") or None,
        content=UnknownContent(kind=(text(event, "type") or "event")[:80]),
        external_id=_digest(event),
        addressed_to=(),
        **_common(payload),
    )


def _command(data: Json) -> Content:
    """A command as it was typed. Of several options each tells its name; of a menu command the message it is about."""
    words, options = [f"/{text(data, 'name')}"], parts(data, "options")
    while options and options[0].get("type") in _SUBCOMMANDS:
        words.append(text(options[0], "name"))
        options = parts(options[0], "options")
    told = [(name, value) for one in options if (name := text(one, "name")) and (value := _value(one)) is not None]
    words += [value if len(told) == 1 else f"{name}: {value}" for name, value in told]
    target = part(part(part(data, "resolved"), "messages"), text(data, "target_id"))
    if text(target, "content"):
        words.append(text(target, "content"))
    return TextContent(text=" ".join(words)) if text(data, "name") else UnknownContent(kind="command")


def _value(option: Json) -> str | None:
    value = option.get("value")
    if option.get("type") == _ATTACHMENT or not isinstance(value, str | int | float):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pressed(payload: Json, data: Json) -> tuple[Content, dict[str, Any]]:
    custom = text(data, "custom_id")
    value = _NUMBERED.sub("", custom)
    values = data.get("values")
    if isinstance(values, list) and values:
        chosen = [str(one) for one in cast("list[Any]", values)]
        labels = [_label_of(payload, one) or one for one in chosen]
        return TextContent(text=", ".join(labels)), {"button": chosen[0] if len(chosen) == 1 else chosen}
    label = _label_of(payload, custom) or value
    content: Content = TextContent(text=label) if label else UnknownContent(kind="component")
    return content, {"button": value}


def _label_of(payload: Json, wanted: str) -> str:
    """What stands on the button, or the line of a list, that was chosen."""
    for row in parts(part(payload, "message"), "components"):
        for component in parts(row, "components"):
            if text(component, "custom_id") == wanted:
                return text(component, "label")
            for option in parts(component, "options"):
                if text(option, "value") == wanted:
                    return text(option, "label")
    return ""


def _form(data: Json) -> Content:
    lines: list[str] = []
    for row in parts(data, "components"):
        for field in [*parts(row, "components"), *([part(row, "component")] if row.get("component") else [])]:
            value = field.get("value")
            if isinstance(value, str) and value:
                lines.append(f"{text(field, 'custom_id')}: {value}")
    return TextContent(text="\n".join(lines)) if lines else UnknownContent(kind="form")


def _attachments(data: Json) -> tuple[Attachment, ...]:
    """Files are under signed addresses that anybody may read."""
    found: list[Attachment] = []
    for file in part(part(data, "resolved"), "attachments").values():
        if isinstance(file, dict) and (url := text(cast("Json", file), "url")):
            known = cast("Json", file)
            size = known.get("size")
            mime = text(known, "content_type").partition(";")[0].strip() or None
            found.append(
                Attachment(
                    url=url,
                    mime_type=mime,
                    filename=text(known, "filename") or None,
                    size_bytes=size if isinstance(size, int) else None,
                )
            )
    return tuple(found)


def _with_files(content: Content, attachments: Sequence[Attachment]) -> Content:
    if not attachments:
        return content
    return CompositeContent(parts=(content, *(_file(one) for one in attachments)))


def _file(attachment: Attachment) -> MediaContent | AudioContent | VideoContent:
    mime, size = attachment.mime_type or "application/octet-stream", attachment.size_bytes
    match mime.partition("/")[0]:
        case "audio":
            return AudioContent(url=attachment.url, mime_type=mime, size_bytes=size)
        case "video":
            return VideoContent(url=attachment.url, mime_type=mime, size_bytes=size)
        case _:
            return MediaContent(url=attachment.url, mime_type=mime, filename=attachment.filename, size_bytes=size)


def _common(payload: Json) -> dict[str, Any]:
    kept = ("guild_id", "locale", "guild_locale", "application_id")
    return {
        "provider": "discord",
        # For 15 minutes whoever has the token speaks as the app: it is not for the log.
        "raw_payload": {name: value for name, value in payload.items() if name != "token"},
        "channel_data": {"discord": {name: payload[name] for name in kept if payload.get(name)}},
    }


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _moment(ident: str) -> datetime | None:
    """When an id was given out: it stands in it."""
    try:
        return datetime.fromtimestamp(((int(ident) >> 22) + _EPOCH_MS) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
