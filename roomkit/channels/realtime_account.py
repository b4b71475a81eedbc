"""What the replies of speech-to-speech calls cost: in the budget, in the room's books, and in the meters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from roomkit.errors import Elsewhere, StateError
from roomkit.models.ai import COUNTERS, Usage
from roomkit.ports.audio import LivePort
from roomkit.ports.channel import TurnPort
from roomkit.voice.realtime.call import RealtimeCall

if TYPE_CHECKING:
    from roomkit.channels.realtime import RealtimeVoiceChannel

log = logging.getLogger(__name__)


class Account:
    """One room's. What a reply has cost is known when it is over."""

    def __init__(self, channel: RealtimeVoiceChannel, live: LivePort) -> None:
        self._channel = channel
        self._live = live
        self._budget = channel.options.tools.budget

    async def admit(self, call: RealtimeCall, turn: TurnPort | None) -> None:
        """Raises `StateError` when there is nothing left to spend."""
        if self._budget is not None:
            await self._budget.open(turn, call.session.tenant, call.session.room_id)
            if reason := self._refusal(call):
                raise StateError(f"the call was not taken: {reason}")

    def charge(self, call: RealtimeCall, usage: Usage) -> bool:
        """Counts a reply; whether it has used the budget up."""
        session, model = call.session, getattr(self._channel.provider, "model", None)
        counters = {counter: getattr(usage, counter) for counter in COUNTERS}
        money = 0.0
        if self._budget is not None:
            money = self._budget.spend_tokens(session.tenant, session.room_id, counters, model)
        self._channel.spawn(self._book(call, counters, model, money), "count what a reply has cost")
        reason = self._refusal(call)
        if reason:
            log.warning("call %s ends: %s", session.id, reason)
        return reason is not None

    def _refusal(self, call: RealtimeCall) -> str | None:
        where = (call.session.tenant, call.session.room_id)
        return None if self._budget is None else self._budget.refusal(*where, "tokens", "money")

    async def _book(self, call: RealtimeCall, counters: dict[str, int], model: str | None, money: float) -> None:
        session = call.session
        try:
            turn = await self._live.turn(session.room_id, session.channel_id, f"{session.id}-{call.turns}", ())
        except Elsewhere:
            return
        if self._budget is not None:
            self._budget.keep(turn, session.tenant, session.room_id)
        turn.spent(counters, model, money)
