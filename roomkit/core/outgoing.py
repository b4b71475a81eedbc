"""What one channel is sent of one event: sender's name, transcoding, guards. Computed once per delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roomkit.core import messages
from roomkit.core.history import history_reader, media_reader
from roomkit.errors import ProviderError
from roomkit.models.content import AudioContent, CompositeContent, Content, MediaContent, TextContent, VideoContent
from roomkit.models.delivery import DeliveryRecord, DeliveryResult, DeliveryState, Outgoing
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import BeforeDelivery
from roomkit.models.room import ChannelBinding, ChannelCapabilities, Role
from roomkit.models.stream import Ephemeral
from roomkit.net.redaction import redact
from roomkit.ports.channel import Channel, RoomContext

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine


_MESSAGE = EventType.MESSAGE  # Looked up once: in Python 3.11 that is a call each time.


DELIVERED = DeliveryResult(success=True)
_DETAILS = ("via", "instead_of", "segments", "encodings")


@dataclass(slots=True)
class Projection:
    """`event` is what to send, or None with the `reason` why nothing is."""

    context: RoomContext
    event: RoomEvent | None
    reason: str = ""


def project(
    engine: Engine, actor: RoomActor, event: RoomEvent, channel: Channel, binding: ChannelBinding
) -> Projection:
    """What the channel can show of the event, before any guard."""
    state = actor.state
    history = history_reader(engine, actor, binding.channel_id)
    context = RoomContext(state.room, binding, state.seats, state.people, history, None, (event,))
    content = event.content
    capabilities = channel.capabilities
    if not (isinstance(content, TextContent) and capabilities.text):
        shaped = _transcode(engine, content, capabilities, state.room.language)
        if shaped is None:
            return Projection(context, None, "nothing_to_show_here")
        content = shaped
        context.media = media_reader(engine, actor)
    name = "" if capabilities.shows_sender else bridged_name(actor, event)
    if name:
        content = import_module("roomkit.core.transcode").with_sender(content, name, language=state.room.language)
    if engine.media_link is not None and not getattr(channel, "takes_files", False):
        content = _public(content, engine.media_link, actor.tenant)
    return Projection(context, event if content is event.content else event.replaced(content=content))


async def guard(engine: Engine, actor: RoomActor, channel: Channel, projection: Projection) -> None:
    """Asks the `BeforeDelivery` guards, who may change what is sent or stop it."""
    event, binding = projection.event, projection.context.binding
    if event is None:
        return
    outgoing = Outgoing(
        recipient=address_of(channel, binding),
        content=event.content,
        channel_id=channel.channel_id,
        room_id=actor.room_id,
        event_id=event.id,
        idempotency_key=f"{actor.room_id}:{event.index}:{channel.channel_id}",
        tenant=actor.tenant,
    )
    moment = BeforeDelivery(actor.state.snapshot, outgoing, channel.channel_id, channel.channel_type, "outbound")
    outcome = await engine.hooks.run(moment)
    if outcome.asks:
        await actor.insist(messages.keep_sides, outcome)
    if outcome.blocked_by:
        projection.event, projection.reason = None, f"blocked by {outcome.blocked_by}: {outcome.reason}"
    elif outcome.value.content is not event.content:
        projection.event = event.replaced(content=outcome.value.content)


def _transcode(engine: Engine, content: Content, capabilities: ChannelCapabilities, language: str) -> Content | None:
    """The default is loaded when it is first needed: plain text to a text channel never asks."""
    shape = engine.options.transcoder or import_module("roomkit.core.transcode").transcode
    return shape(content, capabilities, language=language)


def address_of(channel: Channel, binding: ChannelBinding) -> str:
    """The address a binding reaches, under the channel's own key where it has one."""
    own = getattr(channel, "recipient_key", None)
    return str(binding.metadata.get(own or "address") or binding.metadata.get("address") or "")


def _public(content: Content, link: Callable[[str, str], str], tenant: str) -> Content:
    """Files of our own blob store as expiring public links, which is what a vendor can fetch."""
    match content:
        case CompositeContent(parts=parts):
            return content.replaced(parts=tuple(_public(part, link, tenant) for part in parts))
        case MediaContent(url=url) | AudioContent(url=url) | VideoContent(url=url) if url.startswith("blob:"):
            return content.replaced(url=link(url.removeprefix("blob:"), tenant))
        case _:
            return content


def bridged_name(actor: RoomActor, event: RoomEvent) -> str:
    """The name to write in front where the far end cannot see who speaks (D29): only for bridged people."""
    if event.type is not _MESSAGE:
        return ""
    person = actor.state.participants.get(event.source.participant_id or "")
    if person is None or person.role is Role.BOT or not person.display_name:
        return ""
    return person.display_name if actor.state.humans > 1 else ""


async def ended(outcome: Any) -> Any:
    """A result or an error as what a coroutine came to."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def broken(error: BaseException) -> DeliveryResult:
    told = redact(f"{type(error).__name__}: {error}")
    return DeliveryResult(success=False, state=DeliveryState.FAILED, error=told)


def refused_by(error: ProviderError) -> DeliveryResult:
    return DeliveryResult(
        success=False,
        state=DeliveryState.FAILED,
        error=redact(str(error)),
        code=error.code,
        retryable=error.retryable,
        retry_after=error.retry_after,
        ambiguous=error.ambiguous,
    )


def tell(actor: RoomActor, record: DeliveryRecord) -> None:
    """Shows staff what has become of a delivery."""
    data = record.model_dump(mode="json")
    message = Ephemeral(
        kind="delivery", room_id=actor.room_id, sender=record.channel_id, visibility="internal", data=data
    )
    actor.hub.ephemeral(message, actor.state.bindings)


def details_of(result: DeliveryResult, way: dict[str, str] | None) -> dict[str, Any]:
    """What the record of a delivery keeps of the channel's own words, and of the way it went."""
    told = result.metadata
    if not told:
        return {} if way is None else dict(way)
    return (way or {}) | {name: told[name] for name in _DETAILS if name in told}


def refusal_of(channel: Channel | None, binding: ChannelBinding | None, event: RoomEvent | None) -> str:
    """Rights are looked at again when the lane gets there: a mute or detach reaches what already waits."""
    if event is None or event.metadata.get("erased"):
        return "event_erased"
    if binding is None:
        return "channel_detached"
    if channel is None:
        return "channel_not_registered"
    if not binding.can_read:
        return "no_read_access"
    return "output_muted" if binding.output_muted else ""
