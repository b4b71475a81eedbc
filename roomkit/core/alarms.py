"""What a room's timers lead to. Each looks again, in the actor, whether there is still something to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from roomkit.core import approvals, fallback, floor, membership
from roomkit.errors import RoomKitError

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor

log = logging.getLogger(__name__)


async def ring(actor: RoomActor, name: str, data: dict[str, Any]) -> None:
    kind = name.split(":", 1)[0]
    if kind in ("idle", "close"):
        await actor.call(membership.timer_due, kind)
    elif kind == "floor":
        await actor.call(floor.lease_due, data["generation"])
    elif kind == "fallback":
        await fallback.unread(actor, data["index"], data["channel"])
    elif kind == "approval":
        try:
            await actor.call(approvals.answer, data["id"], False, "system", "expired", True)
        except RoomKitError as error:
            log.debug("approval %s was answered before it expired: %s", data["id"], error)
