"""P9: the full pipeline on SQLite, safe against power loss, 64 rooms at once; beside it what the disk itself can do."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure, wall_figures
from benchmarks.rooms import Numbered, Sink, Source, kit_with

TITLE = "full pipeline on SQLite, safe against power loss, 64 rooms at once"
ROOMS = 64


async def run(meter: Meter) -> Report:
    with tempfile.TemporaryDirectory(prefix="roomkit-p9-") as folder:
        cost = await _rooms(meter, Path(folder))
        raw = await meter.cost(lambda _: _raw(meter, Path(folder)), 3)
    return Report(
        [
            Figure("events a second", 1e6 / cost.wall, "1/s", 5_000, "higher", 1e6 / cost.reference),
            cpu_figure("per event", cost),
            *wall_figures(cost),
            Figure("raw group commit of one row", 1e6 / raw.wall, "1/s"),
        ],
        ("raw: plain sqlite3, WAL, synchronous=FULL, one row per event, 64 to a transaction",),
    )


async def _rooms(meter: Meter, folder: Path) -> Cost:
    sink, numbered = Sink(), Numbered()
    kit = kit_with(Source(), sink, store=f"sqlite:///{folder}/rooms.db")
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
    with closing(sqlite3.connect(folder / "rooms.db")) as db:
        ((stored,),) = db.execute("SELECT count(*) FROM events").fetchall()
    assert stored >= numbered.last + ROOMS, "every message is in the file"
    return cost


async def _raw(meter: Meter, folder: Path) -> int:
    groups = meter.size(40, 3)
    body = '{"type": "message", "content": {"text": "Hello, where is my order?"}}' * 8
    with closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT)")
        for _ in range(groups):
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO t (body) VALUES (?)", [(body,)] * ROOMS)
            db.execute("COMMIT")
    return groups * ROOMS
