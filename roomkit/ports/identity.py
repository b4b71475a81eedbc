"""IdentityResolver and InboundRouter: who is writing, and which room is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from roomkit.models.delivery import InboundMessage
from roomkit.models.room import Identification, Identity, Room


@dataclass(frozen=True, slots=True)
class Resolution:
    """`status` identified carries `identity`; ambiguous carries `candidates`."""

    status: Identification
    identity: Identity | None = None
    candidates: tuple[Identity, ...] = ()


class IdentityResolver(Protocol):
    async def resolve(self, tenant: str, channel_type: str, message: InboundMessage) -> Resolution:
        """Bounded by the kit (10 s by default): slower is taken as unknown and never blocks the message."""
        ...


class InboundRouter(Protocol):
    async def route(self, tenant: str, message: InboundMessage, candidates: list[Room]) -> str | None:
        """Picks a room id from the candidates (newest activity first), or None for a new room. Never guesses."""
        ...
