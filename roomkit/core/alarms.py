"""What a room's timers lead to. Each looks again, in the actor, whether there is still something to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from roomkit.core import approvals, floor, membership
from roomkit.errors import StateError

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor

log = logging.getLogger(__name__)


async def ring(actor: RoomActor, name: str, data: dict[str, Any]) -> None:
    kind = name.split(":", 1)[0]
    if kind in ("idle", "close"):
        await actor.insist(membership.timer_due, kind)
    elif kind == "floor":
        await actor.insist(floor.lease_due, data["generation"])
    elif kind == "fallback":
        from roomkit.core import fallback

        await fallback.unread(actor, data["index"], data["channel"])
    elif kind == "held":
        from roomkit.core import quiet

        await actor.insist(quiet.release, name.split(":", 1)[1])
    elif kind == "approval":
        try:
            await actor.insist(approvals.answer, data["id"], False, "system", "expired", True)
        except StateError as error:
            log.debug("approval %s was answered before it expired: %s", data["id"], error)
