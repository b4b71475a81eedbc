"""Leases as rows: taken, kept alive, handed on and taken over. The times are the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from roomkit.errors import Fenced, StoreLocked
from roomkit.ports.ownership import Held, Lease, NodeSilent, Woken
from roomkit.providers.postgres.link import FAILURES, Connection, Link, PostgresOptions, unavailable
from roomkit.runtime import Wakeup, monotonic

T = TypeVar("T")
WHOLE_STORE = ("", "")
"""The lease that owns every room; no tenant has an empty name."""

_REGISTER = """
WITH old_writers AS (DELETE FROM writers w WHERE w.since < now() - interval '1 day'
        AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = split_part(w.id, '/', 1))),
    old_leases AS (DELETE FROM leases WHERE tenant = '' AND room_id <> '' AND node IS NULL),
    old_nodes AS (DELETE FROM nodes n WHERE n.expires < now() - interval '1 day'
        AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.node = n.id))
INSERT INTO nodes (id, address, expires) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')
"""
_RENEW = "UPDATE nodes SET expires = clock_timestamp() + $2 * interval '1 second' WHERE id = $1 RETURNING 1"
_ALIVE = "SELECT 1 FROM nodes n WHERE n.id = l.node AND n.expires > clock_timestamp()"
_KNOWN = "SELECT 1 FROM nodes n WHERE n.id = l.node"
# A room of a node that is silent but known is not taken alone: the node loses all of them at once, or none.
_ACQUIRE = f"""
WITH me AS (SELECT id FROM nodes WHERE id = $3 FOR SHARE),
mine AS (INSERT INTO leases AS l (tenant, room_id, node, epoch) SELECT $1, $2, id, 1 FROM me
    ON CONFLICT (tenant, room_id) DO UPDATE
    SET node = excluded.node, epoch = l.epoch + (l.node IS DISTINCT FROM excluded.node)::int
    WHERE l.node = excluded.node OR NOT EXISTS ({_KNOWN}) OR (l.tenant = '' AND NOT EXISTS ({_ALIVE}))
    RETURNING l.epoch)
SELECT epoch, NULL, NULL FROM mine
UNION ALL SELECT NULL, n.id, n.address FROM leases l JOIN nodes n ON n.id = l.node
    WHERE l.tenant = $1 AND l.room_id = $2 AND l.node <> $3 AND NOT EXISTS (SELECT 1 FROM mine)
"""  # noqa: S608 - our own text
_HOLDER = """
SELECT n.id, n.address, n.expires::text FROM leases l JOIN nodes n ON n.id = l.node
WHERE l.tenant = $1 AND l.room_id = $2
"""
_RELEASE = """
WITH mine AS (SELECT l.tenant, l.room_id FROM leases l
    JOIN unnest($2::text[], $3::text[]) AS a (tenant, room_id) ON l.tenant = a.tenant AND l.room_id = a.room_id
    WHERE l.node = $1 ORDER BY l.tenant, l.room_id FOR UPDATE OF l)
UPDATE leases l SET node = NULL FROM mine m WHERE l.tenant = m.tenant AND l.room_id = m.room_id
"""
# One that was stopped in the midst of a transaction would hold its rows as long as it sleeps.
_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity, nodes n
WHERE n.id = $1 AND n.expires <= clock_timestamp() AND starts_with(application_name, $1 || '/')
    AND EXISTS (SELECT 1 FROM nodes WHERE id = $2)
"""
_TAKE_OVER = """
WITH dead AS (DELETE FROM nodes WHERE id = $1 AND expires <= clock_timestamp()
        AND EXISTS (SELECT 1 FROM nodes WHERE id = $2) RETURNING id),
    theirs AS (SELECT l.tenant, l.room_id FROM leases l JOIN dead ON l.node = dead.id
        ORDER BY l.tenant, l.room_id FOR UPDATE OF l)
UPDATE leases l SET epoch = l.epoch + 1, node = CASE WHEN l.tenant = '' THEN NULL ELSE $2 END
FROM theirs t WHERE l.tenant = t.tenant AND l.room_id = t.room_id RETURNING l.tenant, l.room_id, l.epoch
"""
# The rooms of a node that leaves are taken over as those of a silent one, only at once.
_LEAVE = """
WITH store AS (UPDATE leases SET node = NULL WHERE node = $1 AND tenant = '' AND room_id <> $1),
    rooms AS (UPDATE nodes SET expires = 'epoch' WHERE id = $1
        AND EXISTS (SELECT 1 FROM leases WHERE node = $1 AND tenant <> '') RETURNING id),
    own AS (DELETE FROM leases WHERE tenant = '' AND room_id = $1 AND NOT EXISTS (SELECT 1 FROM rooms))
DELETE FROM nodes WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM rooms)
"""
_OTHERS = """
SELECT id, address, greatest(extract(epoch FROM expires - clock_timestamp()), -1e6)::float8 FROM nodes WHERE id <> $1
"""
_SUSPECT = """
UPDATE nodes SET expires = clock_timestamp() - $3 * interval '1 second'
WHERE address = $1 AND id <> $2 AND expires < clock_timestamp() + $4 * interval '1 second' RETURNING 1
"""
MISSED = 0.55
"""Of a lease: who has not renewed for so long, and is not to be reached either, is not waited for any longer."""
HYSTERESIS = 0.05
"""Of a lease: how much longer than it a node must be silent to be told of."""


_FREE_STORE = f"""
UPDATE leases l SET node = NULL, epoch = l.epoch + 1
WHERE l.tenant = '' AND l.room_id = '' AND l.node IS NOT NULL AND NOT EXISTS ({_ALIVE})
"""  # noqa: S608 - our own text
_ROOM_NODE = """
SELECT n.address FROM leases l JOIN nodes n ON n.id = l.node AND n.expires > clock_timestamp()
WHERE l.tenant = '' AND l.room_id = l.node AND l.node <> $1 LIMIT 1
"""
_FREE_ROOMS = """
WITH others AS (SELECT tenant, room_id FROM leases WHERE node <> $1 ORDER BY tenant, room_id FOR UPDATE)
UPDATE leases l SET node = NULL, epoch = l.epoch + 1 FROM others o WHERE l.tenant = o.tenant AND l.room_id = o.room_id
"""


class PostgresOwnership:
    """The leases of one node: an `Ownership`. `PostgresStore.ownership` is the one that goes with a store."""

    def __init__(
        self, link: Link, renewing: Link, taking: Link, options: PostgresOptions, node: str, address: str
    ) -> None:
        """`renewing` is for saying that this node lives, `taking` for taking over: neither must wait behind those who
        ask for single rooms."""
        self.node = node
        self.address = address
        self.fenced = ""
        self._link = link
        self._renewing = renewing
        self._taking = taking
        self._options = options
        self._turns = {one: asyncio.Lock() for one in (link, renewing, taking)}

    async def register(self) -> None:
        """Makes this node known, alive for `lease_s`."""
        await self._run(lambda c: c.execute(_REGISTER, self.node, self.address, self._options.lease_s))

    async def acquire(self, tenant: str, room_id: str) -> Lease | Held:
        while True:
            row = await self._run(lambda c: c.fetchrow(_ACQUIRE, tenant, room_id, self.node))
            if row is not None:
                epoch, node, address = row
                return Lease(tenant, room_id, epoch) if epoch is not None else Held(node, address)
            await self.renew()  # Nobody holds it now: either this node is gone, or the holder has just left.

    async def own_store(self) -> int:
        """Takes all rooms at once, for this process alone; returns the epoch. Waits for a dead owner's lease to end.
        Raises `StoreLocked` as soon as another owner shows that it lives."""
        seen, waited = "", 0.0
        while isinstance(answer := await self.acquire(*WHOLE_STORE), Held):
            holder = await self._run(lambda c: c.fetchrow(_HOLDER, *WHOLE_STORE))
            expires = "" if holder is None else f"{holder[0]} {holder[2]}"
            if (seen and expires and expires != seen) or waited > 2 * self._options.lease_s:
                raise self._locked(answer.address)
            seen, pause = expires, self._options.lease_s / 6
            await asyncio.sleep(pause)
            waited += pause
            await self.renew()
        if (other := await self._run(lambda c: c.fetchval(_ROOM_NODE, self.node))) is not None:
            await self.release([WHOLE_STORE])
            raise self._locked(other)
        await self._run(lambda c: c.execute(_FREE_ROOMS, self.node))  # Of dead nodes, which may wake up again.
        return answer.epoch

    async def own_rooms(self) -> int:
        """Makes this node one of several; returns its epoch. Raises `StoreLocked` while one process owns all rooms."""
        own = await self.acquire("", self.node)
        await self._run(lambda c: c.execute(_FREE_STORE))
        holder = await self._run(lambda c: c.fetchrow(_HOLDER, *WHOLE_STORE))
        if holder is not None or isinstance(own, Held):
            raise self._locked("another process" if holder is None else holder[1])
        return own.epoch

    async def owns_store(self) -> bool:
        holder = await self._run(lambda c: c.fetchrow(_HOLDER, *WHOLE_STORE))
        return holder is not None and holder[0] == self.node

    def lost(self) -> Fenced:
        self.fenced = "another process has taken over from this one"
        return Fenced(f"{self.fenced}, which was silent for too long; start it again")

    async def renew(self) -> None:
        alive = await self._run(lambda c: c.fetchval(_RENEW, self.node, self._options.lease_s), self._renewing)
        if alive is None:
            raise self.lost()

    async def release(self, rooms: Iterable[tuple[str, str]]) -> None:
        pairs = sorted(set(rooms))
        await self._run(lambda c: c.execute(_RELEASE, self.node, [t for t, _ in pairs], [r for _, r in pairs]))

    async def take_over(self, node: str) -> list[Lease]:
        await self._run(lambda c: c.fetchval(_END_SESSIONS, node, self.node), self._taking)
        rows = await self._run(lambda c: c.fetch(_TAKE_OVER, node, self.node), self._taking)
        if rows:
            await self.notify()
        return [Lease(tenant, room_id, epoch) for tenant, room_id, epoch in rows if tenant]

    async def suspect(self, address: str) -> bool:
        """Somebody cannot be reached there. Ends the lease of who has missed its renewals as well; true if it did.
        Never that of a node which renews: it may only be out of our reach."""
        lease_s = self._options.lease_s
        margins = HYSTERESIS * lease_s, (1 - MISSED) * lease_s
        gone = await self._run(lambda c: c.fetchval(_SUSPECT, address, self.node, *margins), self._taking)
        if gone is not None:
            await self.notify()
        return gone is not None

    async def watch(self) -> AsyncIterator[Woken | NodeSilent]:
        link = Link(self._link.where, self._options, f"{self.node}/watch")
        wakeup = Wakeup()
        channel = self._link.where.schema
        listening: Connection | None = None
        lease_s = self._options.lease_s
        others: dict[str, str] = {}
        steady = 0.0
        try:
            while True:
                silent: list[NodeSilent] = []
                pause = lease_s / 4
                try:
                    connection = await link.get()
                    if connection is not listening:  # Whatever was said meanwhile was missed.
                        await connection.add_listener(channel, lambda *_: wakeup.set())
                        listening = connection
                        wakeup.set()
                    rows = await connection.fetch(_OTHERS, self.node)
                except FAILURES:
                    # While the server was away nobody could renew: they get the time to do so.
                    steady = monotonic() + lease_s
                    link.drop()
                    await asyncio.sleep(self._options.retry_s)
                else:
                    known = {node: address for node, address, _ in rows}
                    silent = [NodeSilent(node, at) for node, at in others.items() if node not in known]
                    others = known
                    for node, address, lease in rows:
                        left = lease + HYSTERESIS * lease_s
                        if left <= 0 and (left < -1e5 or monotonic() >= steady):
                            silent.append(NodeSilent(node, address))
                        elif left > 0:
                            pause = min(pause, left + 0.005)
                for one in silent:
                    yield one
                try:
                    async with asyncio.timeout(pause):
                        await wakeup.wait()
                except TimeoutError:
                    continue
                yield Woken()
        finally:
            await link.aclose()

    async def notify(self) -> None:
        """Wakes those who watch."""
        await self._run(lambda c: c.execute("SELECT pg_notify($1, '')", self._link.where.schema), self._taking)

    async def leave(self) -> None:
        """Gives all rooms to whoever comes next, and tells those who watch. Without rooms the node is forgotten."""
        await self._run(lambda c: c.execute(_LEAVE, self.node))
        await self.notify()

    async def aclose(self) -> None:
        await self._link.aclose()
        await self._renewing.aclose()
        await self._taking.aclose()

    def _locked(self, who: str) -> StoreLocked:
        return StoreLocked(
            f"{self._link.where.shown} is in use by {who or 'processes that share its rooms'}; stop that one first, "
            "or give each process a database or a ?schema= of its own"
        )

    async def _run(self, work: Callable[[Connection], Awaitable[T]], link: Link | None = None) -> T:
        """Everything here may be done twice: the second time it finds what the first one did."""
        link = link or self._link
        async with self._turns[link]:
            try:
                return await link.run(work)
            except FAILURES as error:
                raise unavailable(error, self._link.where) from error
