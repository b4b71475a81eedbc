"""neonize's events, read. Pure: what comes in are its protobuf messages, of which only fields are asked for."""

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

PHONES, HIDDEN = "s.whatsapp.net", "lid"
HELD = "whatsapp-media:"
"""Where a file is before it is fetched: it has no address, it is decrypted by the client."""
_REVOKE, _EDIT = 0, 14
_STATES = {1: DeliveryState.DELIVERED, 4: DeliveryState.READ, 6: DeliveryState.READ}
_WRAPPERS = (
    *("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "viewOnceMessageV2Extension", "editedMessage"),
    *("documentWithCaptionMessage", "groupMentionedMessage", "deviceSentMessage", "botInvokeMessage"),
)
_ANSWERS = {
    "buttonsResponseMessage": ("selectedDisplayText", "selectedButtonID"),
    "templateButtonReplyMessage": ("selectedDisplayText", "selectedID"),
    "listResponseMessage": ("title", "title"),
}
_FILES = ("imageMessage", "videoMessage", "ptvMessage", "audioMessage", "documentMessage", "stickerMessage")
_BESIDES = frozenset({"messageContextInfo", "senderKeyDistributionMessage"})


def address(jid: Any) -> str:
    """A phone number where there is one, else the id as WhatsApp writes it."""
    return f"+{jid.User}" if jid.Server == PHONES else f"{jid.User}@{jid.Server}"


def id_of(chat: str, ident: str) -> str:
    return f"{chat}:{ident}"


def read(event: Any, channel_id: str) -> list[InboundMessage]:
    """The message of one event; none of what programs tell each other (keys, settings, history)."""
    info = event.Info
    chat, sender = _places(info.MessageSource)
    kind, body = _inner(event.Message)
    ident = str(info.ID)
    mine = bool(info.MessageSource.IsFromMe)
    made: dict[str, Any] = {
        "channel_id": channel_id,
        "sender_id": sender,
        "sender_name": str(info.Pushname) or None,
        "conversation_id": chat,
        "group": bool(info.MessageSource.IsGroup),
        "external_id": id_of(chat, ident),
        "provider": "neonize",
        "sent_at": _moment(info.Timestamp),
        "raw_payload": {"id": ident, "kind": kind, "type": str(info.Type), "chat": chat, "sender": sender},
        # What the owner of the account writes on the phone is for the person at the other end, not for an AI here.
        **({"addressed_to": (), "metadata": {"from_me": True}} if mine else {}),
    }
    if kind == "reactionMessage":
        about = str(body.key.ID)
        content: Content = ReactionContent(target_event_id=about, emoji=str(body.text) or "?", removed=not body.text)
        return [InboundMessage(**made, type=EventType.REACTION, content=content, about_id=id_of(chat, about))]
    if kind == "protocolMessage":
        return _protocol(body, made, chat)
    content, attachments = _content(kind, body, ident)
    quoted = _quoted(body)
    about_id = id_of(chat, quoted) if quoted else None
    return [InboundMessage(**made, content=content, attachments=attachments, about_id=about_id)]


def receipts(event: Any, channel_id: str) -> Iterator[DeliveryStatus]:
    """What became of messages of ours."""
    state = _STATES.get(int(event.Type))
    chat, _ = _places(event.MessageSource)
    if state is not None:
        for ident in event.MessageIDs:
            yield DeliveryStatus(
                channel_id=channel_id,
                provider_message_id=id_of(chat, str(ident)),
                state=state,
                at=_moment(event.Timestamp),
            )


def _protocol(body: Any, made: dict[str, Any], chat: str) -> list[InboundMessage]:
    about = str(body.key.ID)
    if int(body.type) == _REVOKE and about:
        content: Content = DeleteContent(target_event_id=about)
        return [InboundMessage(**made, type=EventType.DELETE, content=content, about_id=id_of(chat, about))]
    if int(body.type) == _EDIT and about:
        new, _ = _content(*_inner(body.editedMessage), about)
        if isinstance(new, MediaContent | VideoContent):  # the words under a picture
            new = TextContent(text=new.caption or "")
        content = EditContent(target_event_id=about, new_content=new)
        return [InboundMessage(**made, type=EventType.EDIT, content=content, about_id=id_of(chat, about))]
    return []


def _inner(message: Any) -> tuple[str, Any]:
    """The kind of a message and what it says, out of its wrappings."""
    for _ in range(5):
        kinds = {field.name: value for field, value in message.ListFields() if field.name not in _BESIDES}
        wrapper = next((name for name in _WRAPPERS if name in kinds), None)
        if wrapper is None:
            break
        message = kinds[wrapper].message
    else:
        return "unknown", None
    name = next(iter(kinds), "protocolMessage" if message.HasField("senderKeyDistributionMessage") else "unknown")
    return name, kinds.get(name, getattr(message, name, None))


def _content(kind: str, body: Any, ident: str) -> tuple[Content, tuple[Attachment, ...]]:
    if kind == "conversation":
        return TextContent(text=str(body)), ()
    if kind == "extendedTextMessage":
        return TextContent(text=str(body.text)), ()
    if kind in _FILES:
        return _file(kind, body, ident)
    if kind in {"locationMessage", "liveLocationMessage"}:
        return _place(kind, body), ()
    if kind in _ANSWERS:
        label = next((text for name in _ANSWERS[kind] if (text := str(getattr(body, name)))), "")
        return (TextContent(text=label) if label else UnknownContent(kind=kind)), ()
    words = str(body.displayName) if kind == "contactMessage" else None
    return UnknownContent(kind=kind, text=words or None), ()


def _file(kind: str, body: Any, ident: str) -> tuple[Content, tuple[Attachment, ...]]:
    url, mime = f"{HELD}{ident}", str(body.mimetype).partition(";")[0].strip() or "application/octet-stream"
    size = int(body.fileLength) or None
    name = str(body.fileName) or None if kind == "documentMessage" else None
    words = str(body.caption) or None if kind in {"imageMessage", "videoMessage", "documentMessage"} else None
    attachment = Attachment(url=url, mime_type=mime, filename=name, size_bytes=size, needs_auth=True)
    content: Content
    if kind == "audioMessage":
        length = int(body.seconds) * 1000 or None
        content = AudioContent(url=url, mime_type=mime, size_bytes=size, duration_ms=length)
    elif kind in {"videoMessage", "ptvMessage"}:
        content = VideoContent(url=url, mime_type=mime, size_bytes=size, caption=words)
    else:
        content = MediaContent(url=url, mime_type=mime, size_bytes=size, caption=words, filename=name)
    return content, (attachment,)


def _place(kind: str, body: Any) -> Content:
    try:
        return LocationContent(
            latitude=float(body.degreesLatitude),
            longitude=float(body.degreesLongitude),
            label=str(body.name) or None if kind == "locationMessage" else str(body.caption) or None,
            address=str(body.address) or None if kind == "locationMessage" else None,
        )
    except ValueError:
        return UnknownContent(kind=kind)


def _quoted(body: Any) -> str:
    """The message that this one answers."""
    context = getattr(body, "contextInfo", None)
    return str(context.stanzaID) if context is not None else ""


def _places(source: Any) -> tuple[str, str]:
    """The chat and the writer, by phone number where WhatsApp tells it: it hides numbers behind ids of its own."""
    sender = source.SenderAlt if source.Sender.Server == HIDDEN and source.SenderAlt.User else source.Sender
    if source.IsGroup:
        return address(source.Chat), address(sender)
    if not source.IsFromMe:
        return address(sender), address(sender)
    hidden = source.Chat.Server == HIDDEN and source.RecipientAlt.User
    return address(source.RecipientAlt if hidden else source.Chat), address(sender)


def _moment(stamp: Any) -> datetime | None:
    """Seconds, or milliseconds, whichever it is."""
    value = float(stamp)
    try:
        return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC) if value else None
    except (ValueError, OverflowError, OSError):
        return None
