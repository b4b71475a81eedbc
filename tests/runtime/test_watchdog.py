from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from roomkit.errors import UsageError
from roomkit.runtime import Stall, StallWatchdog


@pytest.mark.real_time
@pytest.mark.may_block
async def test_a_blocked_loop_is_reported_once_with_the_culprit() -> None:
    stalls: list[Stall] = []
    reported = threading.Event()

    def report(stall: Stall) -> None:
        stalls.append(stall)
        reported.set()

    def the_culprit() -> None:
        assert reported.wait(30)
        time.sleep(0.3)  # The stall goes on: it is still the same one.

    watchdog = StallWatchdog(0.05, report=report)
    watchdog.start()
    watchdog.start()
    the_culprit()
    watchdog.stop()
    watchdog.stop()
    assert len(stalls) == 1
    assert stalls[0].seconds >= 0.05
    assert "the_culprit" in stalls[0].stack


@pytest.mark.real_time
@pytest.mark.may_block
async def test_by_default_it_warns(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = StallWatchdog(0.05)
    watchdog.start()
    deadline = time.monotonic() + 30
    while not caplog.records and time.monotonic() < deadline:
        pass
    watchdog.stop()
    assert caplog.records[0].levelno == logging.WARNING
    assert "test_by_default_it_warns" in caplog.records[0].getMessage()


@pytest.mark.real_time
async def test_a_turning_loop_is_left_alone() -> None:
    stalls: list[Stall] = []
    watchdog = StallWatchdog(30, report=stalls.append)
    watchdog.start()
    await asyncio.sleep(0.1)
    watchdog.stop()
    assert stalls == []


async def test_in_virtual_time_it_stays_idle() -> None:
    before = threading.active_count()
    watchdog = StallWatchdog(0.05)
    watchdog.start()
    assert threading.active_count() == before
    watchdog.stop()


def test_a_threshold_is_positive() -> None:
    with pytest.raises(UsageError):
        StallWatchdog(0)
