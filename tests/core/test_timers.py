"""Timers that act by themselves: pausing, closing, surviving a restart."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import EventType
from roomkit.errors import UsageError
from roomkit.models.room import RoomStatus, RoomTimers
from roomkit.testing import FakeChannel
from tests.core.rooms import kit_with, say


async def test_timers_pause_and_then_close_by_themselves() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room(
            "r", channels=["sms"], timers=RoomTimers(inactive_after_seconds=60, closed_after_seconds=30)
        )
        await asyncio.sleep(50)
        await say(kit, "still here", "r")
        await asyncio.sleep(50)
        assert (await kit.get_room("r")).status is RoomStatus.ACTIVE
        await asyncio.sleep(11)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED
        await asyncio.sleep(29)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED
        await asyncio.sleep(2)
        room = await kit.get_room("r")
        assert room.status is RoomStatus.CLOSED
        kinds = [e.type for e in await kit.events("r", raw=True)]
        assert kinds.count(EventType.ROOM_PAUSED) == kinds.count(EventType.ROOM_CLOSED) == 1


async def test_changing_thresholds_keeps_the_idle_clock() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"], timers=RoomTimers(inactive_after_seconds=1000))
        await asyncio.sleep(500)
        await kit.set_room_timers("r", RoomTimers(inactive_after_seconds=520))
        await asyncio.sleep(21)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED


async def test_timers_survive_a_restart_of_the_kit() -> None:
    from roomkit.core.memory import MemoryStore

    store = MemoryStore()
    async with kit_with(FakeChannel(), store=store) as kit:
        await kit.create_room("r", channels=["sms"], timers=RoomTimers(inactive_after_seconds=60))
    await asyncio.sleep(100)
    async with kit_with(FakeChannel(), store=store) as kit:
        await asyncio.sleep(0.1)
        assert (await kit.get_room("r")).status is RoomStatus.PAUSED


@pytest.mark.parametrize("seconds", [0, -5, float("inf"), float("nan"), 1e300])
async def test_a_timer_without_a_date_is_refused_before_anything_is_committed(seconds: float) -> None:
    async with kit_with(FakeChannel()) as kit:
        with pytest.raises(UsageError, match="inactive_after_seconds"):
            await kit.create_room("bad", timers=RoomTimers(inactive_after_seconds=seconds))
        await kit.create_room("r", channels=["sms"])
        with pytest.raises(UsageError, match="closed_after_seconds"):
            await kit.set_room_timers("r", RoomTimers(closed_after_seconds=seconds))
        assert [room.id for room in await kit.list_rooms()] == ["r"]
        assert (await kit.get_room("r")).timers == RoomTimers()
