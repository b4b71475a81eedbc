"""Activities of the Bot Framework, read. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from html import unescape
from typing import Any, cast

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
from roomkit.providers.vendor_json import Json, moment, part, parts, text

REACTIONS = {"like": "👍", "heart": "❤️", "laugh": "😆", "surprised": "😮", "sad": "😢", "angry": "😡"}
_DOWNLOAD = "application/vnd.microsoft.teams.file.download.info"
_AT = re.compile(r"<at[^<>]*>([^<>]*)</at>")
_TAG = re.compile(r"<[^<>]{1,500}>")


def body_of(request: WebhookRequest) -> dict[str, Any]:
    """The activity; `AccessDenied` when it cannot be read."""
    try:
        activity: Any = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise AccessDenied("teams webhook: the body is no JSON") from error
    if not isinstance(activity, dict):
        raise AccessDenied("teams webhook: the body is no activity")
    return cast("dict[str, Any]", activity)


def id_of(conversation: str, activity: str) -> str:
    """What we call an activity: its own id is one within its conversation only."""
    return f"{conversation}|{activity}"


def read(activity: Json, channel_id: str) -> list[InboundMessage]:
    """The messages of one activity: none of somebody who is typing, one for each reaction, else one."""
    kind = text(activity, "type")
    match kind:
        case "typing":
            return []
        case "message":
            return [_message(activity, channel_id)]
        case "messageUpdate" if text(part(activity, "channelData"), "eventType") != "undeleteMessage":
            return [_edit(activity, channel_id)]
        case "messageDelete":
            gone = DeleteContent(target_event_id=text(activity, "id"))
            return [_about(activity, channel_id, EventType.DELETE, gone, text(activity, "id"), "delete")]
        case "messageReaction":
            found = [*_reactions(activity, channel_id, "reactionsAdded"), *_reactions(activity, channel_id)]
            return found or [_other(activity, channel_id, kind)]
        case "invoke":
            return [_invoke(activity, channel_id)]
        case _:
            event = text(part(activity, "channelData"), "eventType")
            action = text(activity, "action")  # of an installation: add, remove
            return [_other(activity, channel_id, " ".join(filter(None, (kind or "activity", event, action))))]


def _message(activity: Json, channel_id: str) -> InboundMessage:
    attachments = _attachments(activity)
    value = part(activity, "value")
    words = _words(activity)
    metadata: dict[str, Any] = {}
    if value:
        metadata["button"] = value.get("button", dict(value))
        words = words or str(value.get("button") or "")
    content = _content(words, attachments)
    if isinstance(content, UnknownContent) and value:
        content = UnknownContent(kind="card_submit")
    made = _base(activity, channel_id)
    made |= {"external_id": _ident(activity), "content": content, "attachments": attachments, "metadata": metadata}
    return InboundMessage(**made)


def _edit(activity: Json, channel_id: str) -> InboundMessage:
    new = TextContent(text=_words(activity))
    content = EditContent(target_event_id=text(activity, "id"), new_content=new)
    return _about(activity, channel_id, EventType.EDIT, content, text(activity, "id"), "edit")


def _reactions(activity: Json, channel_id: str, name: str = "reactionsRemoved") -> list[InboundMessage]:
    target = text(activity, "replyToId")
    made: list[InboundMessage] = []
    for number, one in enumerate(parts(activity, name)):
        kind = text(one, "type")
        emoji = REACTIONS.get(kind, kind or "?")
        content = ReactionContent(target_event_id=target, emoji=emoji, removed=name == "reactionsRemoved")
        mark = f"{name}:{number}:{kind}:{text(activity, 'id')}"
        made.append(_about(activity, channel_id, EventType.REACTION, content, target, mark))
    return made


def _about(
    activity: Json, channel_id: str, kind: EventType, content: Content, target: str, mark: str
) -> InboundMessage:
    """What is done to an earlier message. The same happens to it more than once, so the moment is part of the id."""
    where = text(part(activity, "conversation"), "id")
    moment = text(activity, "timestamp") or _digest(activity)
    made = _base(activity, channel_id)
    made |= {"type": kind, "content": content, "about_id": id_of(where, target)}
    return InboundMessage(**made, external_id=f"{id_of(where, target)}:{mark}:{moment}")


def _invoke(activity: Json, channel_id: str) -> InboundMessage:
    """A card's action (`Action.Execute`) is a message; everything else that waits for an answer only got an empty
    one."""
    name = text(activity, "name")
    action = part(part(activity, "value"), "action")
    data = part(action, "data")
    words = text(data, "label") or text(data, "button") or text(action, "verb")
    if name != "adaptiveCard/action" or not words:
        return _other(activity, channel_id, f"invoke {name}")
    made = _base(activity, channel_id)
    made |= {"content": TextContent(text=words), "metadata": {"button": data.get("button", dict(data) or words)}}
    return InboundMessage(**made, external_id=_ident(activity))


def _other(activity: Json, channel_id: str, kind: str) -> InboundMessage:
    """What is no message, as one that is seen and that nobody is asked to answer."""
    made = _base(activity, channel_id)
    words = text(activity, "text") or None
    made |= {"content": UnknownContent(kind=kind[:80], text=words), "addressed_to": ()}
    return InboundMessage(**made, external_id=_ident(activity))


def _base(activity: Json, channel_id: str) -> dict[str, Any]:
    sender, conversation = part(activity, "from"), part(activity, "conversation")
    kept = {name: part(part(activity, "channelData"), name).get("id") for name in ("team", "channel", "tenant")}
    kept |= {"aad_object_id": sender.get("aadObjectId"), "conversation_type": conversation.get("conversationType")}
    return {
        "channel_id": channel_id,
        "sender_id": text(sender, "id") or "unknown",
        "sender_name": text(sender, "name") or None,
        "recipient_id": text(part(activity, "recipient"), "id") or None,
        "conversation_id": text(conversation, "id") or None,
        "group": conversation.get("conversationType") != "personal",
        "sent_at": moment(text(activity, "timestamp")),
        "provider": "teams",
        "raw_payload": dict(activity),
        "channel_data": {"teams": {name: value for name, value in kept.items() if value}},
    }


def _ident(activity: Json) -> str:
    where, ident = text(part(activity, "conversation"), "id"), text(activity, "id")
    return id_of(where, ident) if ident else f"{where}|{_digest(activity)}"


def _words(activity: Json) -> str:
    """The text without the call of the bot; other people who are called keep their names."""
    words = text(activity, "text")
    me = text(part(activity, "recipient"), "id")
    for entity in parts(activity, "entities"):
        if entity.get("type") == "mention" and me and text(part(entity, "mentioned"), "id") == me:
            words = words.replace(text(entity, "text") or "\0", "", 1)
    words = _AT.sub(r"@\1", words)
    if activity.get("textFormat") == "xml":
        words = unescape(_TAG.sub("", words.replace("<br>", "\n").replace("<br/>", "\n").replace("</p>", "\n")))
    return words.replace("\xa0", " ").strip()


def _attachments(activity: Json) -> tuple[Attachment, ...]:
    """Files; pictures lie with the service and need the bot's token, other files have an address that anybody may
    read for a while."""
    found: list[Attachment] = []
    for one in parts(activity, "attachments"):
        kind, content = text(one, "contentType"), part(one, "content")
        if kind == _DOWNLOAD:
            if url := text(content, "downloadUrl"):
                found.append(Attachment(url=url, filename=text(one, "name") or None))
        elif kind.partition("/")[0] in {"image", "audio", "video"} and (url := text(one, "contentUrl")):
            mime = None if kind.endswith("/*") else kind
            found.append(Attachment(url=url, mime_type=mime, filename=text(one, "name") or None, needs_auth=True))
    return tuple(found)


def _content(words: str, attachments: Sequence[Attachment]) -> Content:
    files = [_file(one) for one in attachments]
    if len(files) == 1 and words and isinstance(files[0], MediaContent | VideoContent):
        return files[0].model_copy(update={"caption": words})
    found: list[Content] = [*([TextContent(text=words)] if words else []), *files]
    if not found:
        return UnknownContent(kind="empty_message")
    return found[0] if len(found) == 1 else CompositeContent(parts=tuple(found))


def _file(attachment: Attachment) -> MediaContent | AudioContent | VideoContent:
    mime = attachment.mime_type or ("image/png" if attachment.needs_auth else "application/octet-stream")
    match mime.partition("/")[0]:
        case "audio":
            return AudioContent(url=attachment.url, mime_type=mime)
        case "video":
            return VideoContent(url=attachment.url, mime_type=mime)
        case _:
            return MediaContent(url=attachment.url, mime_type=mime, filename=attachment.filename)


def _digest(activity: Json) -> str:
    return hashlib.sha256(json.dumps(activity, sort_keys=True).encode()).hexdigest()[:32]
