"""Slack's requests, read: events, interactive messages, slash commands. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import parse_qsl

from roomkit.errors import AccessDenied
from roomkit.models.content import (
    AudioContent,
    CompositeContent,
    Content,
    DeleteContent,
    EditContent,
    MediaContent,
    ReactionContent,
    TextContent,
    UnknownContent,
    VideoContent,
)
from roomkit.models.delivery import Attachment, InboundMessage, WebhookRequest
from roomkit.models.event import EventType
from roomkit.providers.slack.text import emoji_of, readable
from roomkit.providers.vendor_json import Json, moment_at, part, parts, text

_PLAIN = frozenset({"", "file_share", "thread_broadcast", "me_message", "bot_message"})


def body_of(request: WebhookRequest) -> dict[str, Any]:
    """The payload, whichever way it is wrapped. `AccessDenied` when it cannot be read."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, errors="strict", max_num_fields=100))
            payload: Any = json.loads(form["payload"]) if "payload" in form else {**form, "type": "slash_command"}
        else:
            payload = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise AccessDenied("slack webhook: the body cannot be read") from error
    if not isinstance(payload, dict):
        raise AccessDenied("slack webhook: the body is no object")
    return cast("dict[str, Any]", payload)


def read(payload: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    """The messages of one request; none of a handshake, and of what the app itself has done. `me` is the app's own
    user, where it is configured: events tell it themselves."""
    kind = text(payload, "type")
    if kind == "url_verification":
        return []
    if kind == "event_callback":
        return _event(payload, channel_id, _me(payload) or me)
    if kind == "slash_command":
        return [_command(payload, channel_id)]
    if kind == "block_actions":
        return _actions(payload, channel_id)
    user = text(part(payload, "user"), "id") or "slack"
    where = text(part(payload, "channel"), "id") or None
    ident = text(payload, "trigger_id") or text(payload, "action_ts") or f"{kind}:{payload.get('minute_rate_limited')}"
    return [_other(payload, channel_id, kind or "unknown", user, where, ident)]


def _event(payload: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    event = part(payload, "event")
    kind = text(event, "type")
    if kind in {"message", "app_mention"}:
        return _message(payload, event, channel_id, me)
    if kind in {"reaction_added", "reaction_removed"}:
        return _reaction(payload, event, channel_id, me)
    user = event.get("user")  # an id, or an object (`user_change`)
    who = user if isinstance(user, str) else text(part(event, "user"), "id")
    where = text(event, "channel") or text(part(event, "channel"), "id")
    return [_other(payload, channel_id, kind or "unknown", who or "slack", where or None, text(payload, "event_id"))]


def _message(payload: Json, event: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    subtype = text(event, "subtype")
    where = text(event, "channel")
    if subtype == "message_changed":
        return _changed(payload, event, channel_id, me)
    if subtype == "message_deleted":
        return _deleted(payload, event, channel_id, me)
    if _own(payload, event, me):
        return []
    if subtype not in _PLAIN:
        found = _other(
            payload, channel_id, subtype, text(event, "user") or "slack", where, f"{where}:{event.get('ts')}"
        )
        words = readable(text(event, "text")) or None
        return [found.replaced(content=UnknownContent(kind=subtype[:80], text=words))]
    attachments = tuple(_attachments(event))
    ts, thread = text(event, "ts"), text(event, "thread_ts")
    automatic = bool(event.get("bot_id"))
    return [
        InboundMessage(
            channel_id=channel_id,
            sender_id=text(event, "user") or text(event, "bot_id") or "unknown",
            recipient_id=me,
            **_seat(where, text(event, "channel_type")),
            content=_content(readable(text(event, "text"), me), attachments),
            external_id=f"{where}:{ts}",
            about_id=f"{where}:{thread}" if thread and thread != ts else None,
            # Two programs that answer each other never end: what a program says asks nobody.
            addressed_to=() if automatic else None,
            attachments=attachments,
            sent_at=moment_at(ts),
            **_common(payload),
        )
    ]


def _changed(payload: Json, event: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    new, old = part(event, "message"), part(event, "previous_message")
    where, ts = text(event, "channel"), text(new, "ts")
    if _own(payload, new, me) or (new.get("text") == old.get("text") and new.get("edited") == old.get("edited")):
        return []  # a link got its preview, or a thread an answer: nobody has said anything
    return [
        InboundMessage(
            channel_id=channel_id,
            sender_id=text(new, "user") or text(new, "bot_id") or "unknown",
            **_seat(where, text(event, "channel_type")),
            type=EventType.EDIT,
            content=EditContent(target_event_id=ts, new_content=TextContent(text=readable(text(new, "text"), me))),
            external_id=_event_id(payload),
            about_id=f"{where}:{ts}",
            **_common(payload),
        )
    ]


def _deleted(payload: Json, event: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    old = part(event, "previous_message")
    where, ts = text(event, "channel"), text(event, "deleted_ts")
    if _own(payload, old, me):
        return []
    return [
        InboundMessage(
            channel_id=channel_id,
            sender_id=text(old, "user") or text(old, "bot_id") or "unknown",
            **_seat(where, text(event, "channel_type")),
            type=EventType.DELETE,
            content=DeleteContent(target_event_id=ts),
            external_id=_event_id(payload),
            about_id=f"{where}:{ts}",
            **_common(payload),
        )
    ]


def _reaction(payload: Json, event: Json, channel_id: str, me: str | None) -> list[InboundMessage]:
    item = part(event, "item")
    where, ts, who = text(item, "channel"), text(item, "ts"), text(event, "user")
    if who and who == me:
        return []
    if not where or not ts:
        return [_other(payload, channel_id, text(event, "type"), who or "slack", None, text(payload, "event_id"))]
    removed = event.get("type") == "reaction_removed"
    return [
        InboundMessage(
            channel_id=channel_id,
            sender_id=who or "unknown",
            **_seat(where),
            type=EventType.REACTION,
            content=ReactionContent(target_event_id=ts, emoji=emoji_of(text(event, "reaction")), removed=removed),
            external_id=_event_id(payload),
            about_id=f"{where}:{ts}",
            **_common(payload),
        )
    ]


def _actions(payload: Json, channel_id: str) -> list[InboundMessage]:
    user, container = part(payload, "user"), part(payload, "container")
    where = text(part(payload, "channel"), "id") or text(container, "channel_id")
    thread = text(container, "thread_ts")
    made: list[InboundMessage] = []
    for action in parts(payload, "actions"):
        option = part(action, "selected_option")
        value = text(action, "value") or text(option, "value")
        label = text(part(action, "text"), "text") or text(part(option, "text"), "text") or value
        content: Content = (
            TextContent(text=label) if label else UnknownContent(kind=f"action {action.get('type')}"[:80])
        )
        made.append(
            InboundMessage(
                channel_id=channel_id,
                sender_id=text(user, "id") or "unknown",
                sender_name=text(user, "name") or text(user, "username") or None,
                **_seat(where),
                content=content,
                external_id=f"{where}:{action.get('action_ts')}:{action.get('block_id')}:{action.get('action_id')}",
                about_id=f"{where}:{thread}" if thread else None,
                metadata={"button": value} if value else {},
                **_common(payload),
            )
        )
    user_id = text(user, "id") or "slack"
    return made or [_other(payload, channel_id, "block_actions", user_id, where, text(payload, "trigger_id"))]


def _command(payload: Json, channel_id: str) -> InboundMessage:
    where = text(payload, "channel_id")
    words = f"{text(payload, 'command')} {text(payload, 'text')}".strip()
    kept = ("command", "channel_name", "team_id", "team_domain", "enterprise_id")
    return InboundMessage(
        channel_id=channel_id,
        sender_id=text(payload, "user_id") or "unknown",
        sender_name=text(payload, "user_name") or None,
        **_seat(where),
        content=TextContent(text=readable(words)) if words else UnknownContent(kind="slash_command"),
        external_id=f"command:{payload['trigger_id']}" if payload.get("trigger_id") else _event_id(payload),
        provider="slack",
        # `token` and `response_url` let others speak as the app: they are not for the log.
        raw_payload={name: value for name, value in payload.items() if name not in _KEYS},
        channel_data={"slack": {name: payload[name] for name in kept if payload.get(name)}},
    )


def _other(payload: Json, channel_id: str, kind: str, sender: str, where: str | None, ident: str) -> InboundMessage:
    """What is no message, as one that is seen and that nobody is asked to answer."""
    return InboundMessage(
        channel_id=channel_id,
        sender_id=sender,
        **_seat(where or ""),
        content=UnknownContent(kind=kind[:80]),
        external_id=ident or _event_id(payload),
        addressed_to=(),
        **_common(payload),
    )


def _seat(where: str, kind: str = "") -> dict[str, Any]:
    """Where it was said. A direct message is at its writer's own address: that is how the app writes first, too."""
    direct = kind == "im" or where.startswith("D")
    return {"conversation_id": None if direct else where or None, "group": bool(where) and not direct}


def _event_id(payload: Json) -> str:
    """Slack's id of an event; without one, what it says."""
    told = json.dumps({name: value for name, value in payload.items() if name not in _KEYS}, sort_keys=True)
    return text(payload, "event_id") or hashlib.sha256(told.encode()).hexdigest()[:32]


_KEYS = frozenset({"token", "response_url", "response_urls", "trigger_id"})


def _common(payload: Json) -> dict[str, Any]:
    team = payload.get("team_id") or text(part(payload, "team"), "id")
    return {
        "provider": "slack",
        "raw_payload": {name: value for name, value in payload.items() if name not in _KEYS},
        "channel_data": {"slack": {"team_id": team}} if team else {},
    }


def _own(payload: Json, message: Json, me: str | None) -> bool:
    """Whether the app itself has said it: Slack tells us of that too."""
    app = text(payload, "api_app_id")
    return bool((me and message.get("user") == me) or (message.get("bot_id") and app and message.get("app_id") == app))


def _me(payload: Json) -> str | None:
    known = [one for one in parts(payload, "authorizations") if one.get("is_bot")]
    return (text(known[0], "user_id") or None) if known else None


def _attachments(event: Json) -> list[Attachment]:
    found: list[Attachment] = []
    for file in parts(event, "files"):
        size = file.get("size")
        if url := text(file, "url_private_download") or text(file, "url_private"):
            found.append(
                Attachment(
                    url=url,
                    mime_type=text(file, "mimetype") or None,
                    filename=text(file, "name") or None,
                    size_bytes=size if isinstance(size, int) else None,
                    needs_auth=not file.get("is_external"),
                )
            )
    return found


def _content(text: str, attachments: Sequence[Attachment]) -> Content:
    files = [_file(attachment) for attachment in attachments]
    if len(files) == 1 and text and isinstance(files[0], MediaContent | VideoContent):
        return files[0].model_copy(update={"caption": text})
    parts: list[Content] = [*([TextContent(text=text)] if text else []), *files]
    if not parts:
        return UnknownContent(kind="empty_message")
    return parts[0] if len(parts) == 1 else CompositeContent(parts=tuple(parts))


def _file(attachment: Attachment) -> MediaContent | AudioContent | VideoContent:
    mime, size = attachment.mime_type or "application/octet-stream", attachment.size_bytes
    match mime.partition("/")[0]:
        case "audio":
            return AudioContent(url=attachment.url, mime_type=mime, size_bytes=size)
        case "video":
            return VideoContent(url=attachment.url, mime_type=mime, size_bytes=size)
        case _:
            return MediaContent(url=attachment.url, mime_type=mime, filename=attachment.filename, size_bytes=size)
