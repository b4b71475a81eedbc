from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from roomkit.testing import VirtualClock, VirtualLoop


async def test_it_follows_the_running_loop() -> None:
    clock = VirtualClock()
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    await asyncio.sleep(90)
    assert clock.now() == datetime(2030, 1, 1, 0, 1, 30, tzinfo=UTC)


def test_with_its_loop_it_works_anywhere_and_starts_where_told() -> None:
    loop, start = VirtualLoop(), datetime(1999, 12, 31, tzinfo=UTC)
    clock = VirtualClock(loop, start=start)
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    assert clock.now() == start + timedelta(seconds=1)
