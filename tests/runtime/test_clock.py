from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from roomkit.runtime import SystemClock, monotonic
from roomkit.testing import VirtualLoop


def test_the_system_clock_is_aware_and_says_now() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert before <= now <= datetime.now(UTC)


async def test_durations_come_from_the_running_loop(virtual_loop: VirtualLoop) -> None:
    before = monotonic()
    await asyncio.sleep(12.5)
    assert monotonic() - before == 12.5 == virtual_loop.time()


def test_durations_need_a_loop() -> None:
    with pytest.raises(RuntimeError):
        monotonic()
