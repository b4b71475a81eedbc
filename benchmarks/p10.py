"""P10: the full pipeline on PostgreSQL, 64 rooms at once; beside it the store alone. The server is on this machine."""

from __future__ import annotations

import asyncio
import tempfile
import time

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure, wall_figures
from benchmarks.rooms import Numbered, Sink, Source, kit_with
from roomkit.ports.store import Batch
from roomkit.testing.postgres import PostgresCluster, find_binaries
from roomkit.testing.stores import dedupe, event, record

TITLE = "full pipeline on PostgreSQL, safe against power loss, 64 rooms at once"
ROOMS = 64


async def run(meter: Meter) -> Report:
    if find_binaries() is None:
        return Report([], ("not run: PostgreSQL is not installed (apt-get install postgresql)",))
    with PostgresCluster(folder=tempfile.gettempdir()) as cluster:  # A disk, not memory.
        cost = await _rooms(meter, cluster.url)
        store = await _store(meter, f"{cluster.url}?schema=store")
    return Report(
        [
            Figure("events a second", 1e6 / cost.wall, "1/s", 12_000, "higher", 1e6 / cost.reference),
            cpu_figure("per event", cost),
            *wall_figures(cost),
            Figure("store alone, batches a second", 1e6 / store.wall, "1/s", None, "higher", 1e6 / store.reference),
            cpu_figure("store alone, per batch", store),
        ],
        ("store alone: an event, its dedupe key and a delivery in each batch, 64 committers; client CPU only",),
    )


async def _rooms(meter: Meter, url: str) -> Cost:
    sink, numbered = Sink(), Numbered()
    kit = kit_with(Source(), sink, store=url)
    async with kit:
        for number in range(ROOMS):
            await kit.create_room(f"r{number}", channels=["in", "out"])
        count = meter.size(40, 3)

        async def work(cost: Cost) -> int:
            async def talk(room_id: str) -> None:
                for message in numbered.many(count):
                    began = time.perf_counter()
                    result = await kit.process_inbound(message, room_id=room_id)
                    cost.calls.append((time.perf_counter() - began) * 1e6)
                    await result.settled()

            await asyncio.gather(*(talk(f"r{number}") for number in range(ROOMS)))
            return ROOMS * count

        cost = await meter.cost(work, 5)
        assert sink.taken == numbered.last, "every message was delivered"
    return cost


async def _store(meter: Meter, url: str) -> Cost:
    from roomkit.providers.postgres import PostgresStore

    store = PostgresStore(url)
    info = await store.open()
    heads = dict.fromkeys((f"r{number}" for number in range(ROOMS)), 0)
    count = meter.size(60, 3)

    def batch(room_id: str, index: int) -> Batch:
        one = event(index, room_id)
        row = record("outbox", f"{room_id}:{index}", {"to": "+447700900001", "attempts": 0}, room_id=room_id)
        return Batch("t", info.epoch, room_id, (one,), (dedupe(one.id, one, expires=1e12),), (row,), (), one.created_at)

    async def work(cost: Cost) -> int:
        async def write(room_id: str) -> None:
            for _ in range(count):
                await store.commit(batch(room_id, heads[room_id]))
                heads[room_id] += 1

        await asyncio.gather(*map(write, heads))
        return ROOMS * count

    cost = await meter.cost(work, 5)
    await store.aclose()
    return cost
