"""Ownership: which process writes which room, when several share one store.

A lease is a row with an epoch that only grows. The store compares it within every commit, so a writer that lost its
lease without noticing can write nothing. Time only decides when others may take over, on the store's own clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """This node owns the room; its batches carry `epoch`."""

    tenant: str
    room_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """Another node owns the room. `address` is where it is reached, as it said itself."""

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class Woken:
    """Somebody wrote, or a lease moved: look at the rooms you follow. It carries no data and may come for nothing."""


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """A node has not renewed in time, or has left: its rooms may be taken over. Also told once of a node that is known
    no more, because somebody has taken over from it."""

    node: str
    address: str


class Ownership(Protocol):
    async def acquire(self, tenant: str, room_id: str) -> Lease | Held:
        """Takes a room that is free, with a new epoch. For a room of one's own the lease there is. The room of another
        node is `Held`, also of a silent one until somebody has taken over from it: a node loses all its rooms at once.
        Raises `Fenced` once this node has been taken over."""
        ...

    async def renew(self) -> None:
        """Says that this node lives, once for all its leases. Raises `Fenced` when others have taken over: this node
        owns nothing any more and must begin again as a new one."""
        ...

    async def release(self, rooms: Iterable[tuple[str, str]]) -> None:
        """Gives rooms, as (tenant, room id), to whoever comes next. Those of others are left alone."""
        ...

    async def take_over(self, node: str) -> list[Lease]:
        """Takes all rooms of a silent node at once, each with a new epoch. None when it lives or somebody was first."""
        ...

    def watch(self) -> AsyncIterator[Woken | NodeSilent]:
        """What the others do, until closed. A silent node is told of again and again until somebody takes over."""
        ...
