"""GatedLanes: outbox lanes that ask, before each attempt, whether the recipient wants it and whether it is night there.

Stands in for the plain lanes only where consent or quiet hours are switched on.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from roomkit.core.consent import STOPPED, Consent
from roomkit.core.digests import Floods
from roomkit.core.lanes import Item, Lane, OutboxLanes
from roomkit.core.outgoing import Projection, address_of
from roomkit.core.quiet import FLOOD, HELD, QUIET, check_hours, held_until, hold
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, DeliveryState

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.net.breaker import Breakers
    from roomkit.ports.channel import Channel

_REFUSED = "consent"


def equip(engine: Engine) -> None:
    """Puts the gate in. Raises `ConfigError` for settings that cannot be kept."""
    check_hours(engine.options.quiet_hours)
    engine.consent = Consent(engine)
    engine.lanes = GatedLanes(engine, engine.breakers)


class GatedLanes(OutboxLanes):
    """The gate is asked again for a retry, for what waited in the outbox over a restart, and in the morning."""

    asks = True

    def __init__(self, engine: Engine, breakers: Breakers) -> None:
        super().__init__(engine, breakers)
        self._floods = Floods(engine)

    async def attempt(self, lane: Lane, item: Item, channel: Channel, projection: Projection) -> DeliveryResult:
        refused = None if channel.delivery_policy.paced else await self._judge(lane, item)
        return refused or await super().attempt(lane, item, channel, projection)

    async def _turn(self, lane: Lane, item: Item, recipient: str, policy: DeliveryPolicy) -> DeliveryResult | None:
        """Whoever has to wait for their turn is judged after it."""
        refused = await super()._turn(lane, item, recipient, policy)
        return await self._judge(lane, item) if refused is None and policy.paced else refused

    async def _judge(self, lane: Lane, item: Item) -> DeliveryResult | None:
        channel, event = self.engine.channels.get(lane.channel_id), item.event
        binding = lane.actor.state.bindings.get(lane.channel_id)
        if channel is None or binding is None or event is None:
            return None
        consent = self.engine.consent
        reason = await consent.refuses(lane.actor, channel, binding, event) if consent is not None else ""
        if reason:
            return DeliveryResult(success=False, state=DeliveryState.SKIPPED, error=reason, code=_REFUSED)
        until = await held_until(self.engine, lane.actor, channel, binding, event, address_of(channel, binding))
        why = QUIET if until is not None else FLOOD
        if until is None and not item.attempts:
            until = self._floods.until(lane, channel, event)
        if until is not None:
            told = f"{why} {until.isoformat()}"
            return DeliveryResult(success=False, state=DeliveryState.HELD, error=told, code=HELD)
        return None

    async def bury(self, lane: Lane, item: Item, result: DeliveryResult) -> None:
        if result.code == HELD and result.state is DeliveryState.HELD and result.error:
            why, _, until = result.error.partition(" ")
            await hold(self.engine, lane, item, datetime.fromisoformat(until), why)
        elif result.code == _REFUSED and result.state is DeliveryState.SKIPPED:
            await self._aside(lane, item, result)
        elif await self._vendor_said(lane, result.code):
            await self._aside(lane, item, DeliveryResult(success=False, error=STOPPED, code=result.code))
        else:
            await super().bury(lane, item, result)

    async def _aside(self, lane: Lane, item: Item, result: DeliveryResult) -> None:
        """Nothing has failed: it is not sent here, and perhaps there is another way that the person wants."""
        from roomkit.core.fallback import try_next

        event = item.event
        self.finish(lane, item, result.model_copy(update={"state": DeliveryState.SKIPPED}))
        if event is not None:
            await self.engine.insist(lambda: try_next(lane.actor, event, lane.channel_id), "a delivery")

    async def _vendor_said(self, lane: Lane, code: str | None) -> bool:
        channel = self.engine.channels.get(lane.channel_id)
        binding = lane.actor.state.bindings.get(lane.channel_id)
        consent = self.engine.consent
        if consent is None or channel is None or binding is None:
            return False
        return await consent.vendor_said(lane.actor, channel, binding, code)
