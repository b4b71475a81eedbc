"""LiveRooms: what a live call asks of its room beyond messages. Imported when the first call needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from roomkit.core import floor, messages
from roomkit.core.actor import SYSTEM
from roomkit.core.catalogue import phrase
from roomkit.core.results import Settlement
from roomkit.core.state import event_by_id
from roomkit.core.turn_port import Turn
from roomkit.models.content import DeleteContent, EditContent, TextContent
from roomkit.models.event import EventDraft, RoomEvent
from roomkit.models.hooks import Moment, Notice

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine
    from roomkit.core.turns import Running


@dataclass(frozen=True, slots=True)
class _Named:
    """A turn that is no reply of the room's: a live call's."""

    id: str


class LiveRooms:
    """Implements `ports.audio.LivePort` for the rooms of one tenant."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._engine = engine
        self._tenant = tenant

    @property
    def veil(self) -> Callable[[str], str]:
        redactions = self._engine.redactions
        redactor = redactions.at("model", self._tenant) if redactions is not None else None
        return redactor.text if redactor is not None else str

    @property
    def screen(self) -> Callable[[str], str] | None:
        redactions = self._engine.redactions
        redactor = redactions.at("store", self._tenant) if redactions is not None else None
        return redactor.text if redactor is not None else None

    def wanted(self, kind: type[Any]) -> bool:
        hooks = self._engine.hooks
        return hooks.guarded(cast("Any", kind)) if issubclass(kind, Moment) else hooks.heard(kind)

    async def guard(self, moment: Moment[Any]) -> Any:
        outcome = await self._engine.hooks.run(moment)
        return None if outcome.blocked_by else outcome.value

    def tell(self, notice: Notice) -> None:
        self._engine.hooks.tell(notice)

    def answering(self, room_id: str, event_id: str) -> bool:
        actor = self._engine.table.loaded(self._tenant, room_id)
        return actor is not None and self._engine.turns.about(actor, event_id)

    async def request_human(self, room_id: str, reason: str, *, by: str, language: str | None = None) -> str:
        actor = await self._engine.table.require(self._tenant, room_id)
        courtesy = self._engine.options.courtesy
        staffed = courtesy.staffed if courtesy is not None else None
        ahead = self._engine.attention.ahead(self._tenant)
        ahead -= actor.state.room.waiting_since is not None  # who asks again does not wait behind themselves
        room = await actor.call(floor.request_human, reason, by, 0)
        code = "human_requested" if staffed is None or staffed(self._engine.now()) else "human_closed"
        return phrase(code, language or room.language, ahead=str(ahead))

    async def silence(
        self, room_id: str, event_id: str, reason: str, *, heard: str | None = None, share: float = 0.0
    ) -> None:
        actor = await self._engine.table.require(self._tenant, room_id)
        for running in self._concerning(actor, event_id):
            await running.reply.close_interrupted(reason)
            running.reply.end_reason = "cancelled"
            running.cancel(reason)
        if heard is None:
            return
        event = await event_by_id(self._engine.store, self._tenant, room_id, event_id)
        if event is None or event.blocked or event.text == heard:
            return
        metadata = {"interrupted": reason, "played": round(share, 3)}
        content = (
            EditContent(target_event_id=event_id, new_content=TextContent(text=heard), edit_source="system")
            if heard
            else DeleteContent(target_event_id=event_id, delete_type="system", reason="not_heard")
        )
        draft = EventDraft(source=SYSTEM, content=content, visibility=event.visibility, metadata=metadata)
        await actor.call(
            messages.submit, messages.Submission(draft, Settlement(), binding_required=False, guards=False)
        )

    async def turn(self, room_id: str, channel_id: str, turn_id: str, events: Sequence[RoomEvent]) -> Turn:
        actor = await self._engine.table.require(self._tenant, room_id)
        return Turn(self._engine, actor, channel_id, _Named(turn_id), events)

    def _concerning(self, actor: RoomActor, event_id: str) -> list[Running]:
        return [
            running
            for _, running in self._engine.turns.running(actor)
            if running.reply.id == event_id or any(trigger.event.id == event_id for trigger in running.triggers)
        ]
