"""What one channel is sent of one event: sender's name, transcoding, guards. Computed once per delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roomkit.core.history import history_reader
from roomkit.core.transcode import transcode
from roomkit.models.content import TextContent
from roomkit.models.delivery import Outgoing
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.hooks import BeforeDelivery
from roomkit.models.room import ChannelBinding, Role
from roomkit.ports.channel import Channel, RoomContext

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine


@dataclass(slots=True)
class Projection:
    """`event` is what to send, or None with the `reason` why nothing is."""

    context: RoomContext
    event: RoomEvent | None
    reason: str = ""


async def project(
    engine: Engine, actor: RoomActor, event: RoomEvent, channel: Channel, binding: ChannelBinding
) -> Projection:
    state = actor.state
    context = RoomContext(
        room=state.room,
        binding=binding,
        bindings=state.seats,
        participants=state.people,
        history=history_reader(engine, actor, binding.channel_id),
        events=(event,),
    )
    content = event.content
    capabilities = channel.capabilities
    if not (isinstance(content, TextContent) and capabilities.text):
        shaped = (engine.options.transcoder or transcode)(content, capabilities)
        if shaped is None:
            return Projection(context, None, "nothing_to_show_here")
        content = shaped
    name = _sender_name(actor, event, channel)
    if name and isinstance(content, TextContent):
        content = content.model_copy(update={"text": f"{name}: {content.text}"})
    if engine.hooks.guarded(BeforeDelivery):
        outgoing = Outgoing(
            recipient=str(binding.metadata.get("address", "")),
            content=content,
            channel_id=channel.channel_id,
            room_id=actor.room_id,
            event_id=event.id,
            idempotency_key=f"{actor.room_id}:{event.index}:{channel.channel_id}",
            tenant=actor.tenant,
        )
        moment = BeforeDelivery(state.snapshot, outgoing, channel.channel_id, channel.channel_type, "outbound")
        outcome = await engine.hooks.run(moment)
        if outcome.blocked_by:
            return Projection(context, None, f"blocked by {outcome.blocked_by}: {outcome.reason}")
        content = outcome.value.content
    if content is not event.content:
        event = event.model_copy(update={"content": content})
    return Projection(context, event)


def _sender_name(actor: RoomActor, event: RoomEvent, channel: Channel) -> str:
    """The name to write in front where the far end cannot see who speaks (D29): only for bridged people."""
    if channel.capabilities.shows_sender or event.type is not EventType.MESSAGE:
        return ""
    person = actor.state.participants.get(event.source.participant_id or "")
    if person is None or person.role is Role.BOT or not person.display_name:
        return ""
    others = sum(1 for p in actor.state.participants.values() if p.role is not Role.BOT)
    return person.display_name if others > 1 else ""
