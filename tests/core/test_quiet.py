"""Quiet hours: by the recipient's clock, over both changes of it, across restarts; nothing is dropped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from roomkit import InboundMessage, KitOptions, RoomKit
from roomkit.core.memory import MemoryStore
from roomkit.core.quiet import quiet_until
from roomkit.errors import ConfigError
from roomkit.models.addresses import zones
from roomkit.models.consent import ConsentPolicy, QuietHours
from roomkit.models.delivery import DeliveryState
from roomkit.models.room import Identity
from roomkit.ports.store import Batch, StoreInfo
from roomkit.testing import FakeChannel, VirtualClock
from tests.core.rooms import say

WHO = "+442079460123"
NIGHT = datetime(2026, 1, 10, 23, 30, tzinfo=UTC)
ZONES = (
    *("Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "Australia/Lord_Howe"),
    *("Asia/Kolkata", "Pacific/Chatham", "America/St_Johns", "Africa/Casablanca", "Asia/Tehran", "America/Santiago"),
)


def kit_at(start: datetime, *, store: str | None = None, hours: Any = None, **more: Any) -> tuple[RoomKit, FakeChannel]:
    options = KitOptions(quiet_hours=hours or QuietHours(), **more)
    kit, sms = RoomKit(store, clock=VirtualClock(start=start), options=options), FakeChannel()
    kit.register_channel(sms)
    return kit, sms


async def seat(kit: RoomKit, room: str = "r", address: str = WHO, **metadata: Any) -> None:
    await kit.create_room(room, channels=[])
    await kit.attach_channel(room, "sms", metadata={"address": address, **metadata})


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", [QuietHours(), QuietHours(time(1, 15), time(2, 45)), QuietHours(time(13), time(14))])
def test_the_end_is_always_ahead_and_by_day_over_a_whole_year(zone: str, hours: QuietHours) -> None:
    """Every 20 minutes of a year, with both changes of the clock: who waits, waits no longer than the night, and at its
    end it is day by the clocks of the place."""
    now, longest = datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=12, minutes=30)
    for step in range(0, 366 * 72, 7 if zone not in ZONES[:3] else 1):
        at = now + timedelta(minutes=20 * step)
        end = quiet_until(at, hours, zone)
        clock = at.astimezone(ZoneInfo(zone)).time()
        over = hours.start > hours.end
        night = (clock >= hours.start or clock < hours.end) if over else hours.start <= clock < hours.end
        assert (end is not None) is night, (at, clock)
        if end is not None:
            assert at < end <= at + longest, (at, end)
            again = quiet_until(end, hours, zone)
            assert again is None or end.astimezone(ZoneInfo(zone)).fold == 0, "an hour that comes twice is night twice"


async def test_what_is_sent_at_night_arrives_in_the_morning_in_order() -> None:
    kit, sms = kit_at(NIGHT)
    async with kit:
        await seat(kit, timezone="Europe/London")
        for text in ("one", "two", "three"):
            await (await kit.send("r", text)).settled()
        await (await kit.send("r", "your code", metadata={"purpose": "security"})).settled()
        assert sms.texts == ["your code"]
        held = [r for r in await kit.deliveries("r") if r.state is DeliveryState.HELD]
        assert [r.reason for r in held] == ["quiet_hours until 2026-01-11T08:00+00:00"] * 3
        await asyncio.sleep(8.5 * 3600 - 1)
        assert len(sms.texts) == 1
        await asyncio.sleep(2)
        assert sms.texts == ["your code", "one", "two", "three"]
        assert {r.state for r in await kit.deliveries("r")} == {DeliveryState.SENT}
        assert kit.engine.table.loaded("default", "r") is not None
        assert kit.engine.lanes.backlog == 0


@pytest.mark.parametrize("down_s", [10, 12 * 3600])
async def test_a_restart_in_between_sends_each_once(tmp_path: Path, down_s: float) -> None:
    """Over before the night is, and only after it: then it is sent at once."""
    path = f"sqlite:///{tmp_path / 'rooms.db'}"
    kit, sms = kit_at(NIGHT, store=path)
    async with kit:
        await seat(kit, timezone="Europe/London")
        for text in ("one", "two"):
            await (await kit.send("r", text)).settled()
        assert sms.texts == []
    await asyncio.sleep(down_s)
    kit, sms = kit_at(NIGHT, store=path)
    async with kit:
        await asyncio.sleep(9 * 3600 if down_s < 3600 else 5)
        assert sms.texts == ["one", "two"]
        await asyncio.sleep(24 * 3600)
        assert sms.texts == ["one", "two"]
        assert await kit.engine.store.records(_rows("held")) == []


def _rows(kind: str) -> Any:
    from roomkit.ports.store import RecordQuery

    return RecordQuery(kind, "default")


class Recorder(MemoryStore):
    """Stands for a disk: remembers each commit, how much had been sent by then, and when."""

    def __init__(self, sms: FakeChannel, clock: VirtualClock) -> None:
        super().__init__()
        self._sms, self._clock = sms, clock
        self.log: list[tuple[Batch, int, datetime]] = []

    async def open(self) -> StoreInfo:
        return replace(await super().open(), durable=True)

    async def commit(self, batch: Batch) -> Any:
        done = await super().commit(batch)
        self.log.append((batch, len(self._sms.delivered), self._clock.now()))
        return done


def night(sms: FakeChannel, store: MemoryStore, clock: VirtualClock) -> RoomKit:
    options = KitOptions(quiet_hours=QuietHours(), consent=ConsentPolicy(confirm=False))
    kit = RoomKit(store, clock=clock, options=options)
    kit.register_channel(sms)
    return kit


async def test_a_crash_at_any_commit_loses_nothing_and_writes_to_nobody_who_said_stop() -> None:
    """Cut after each commit of a night, its morning and a stop, and started again from what was durable then."""
    loop = asyncio.get_running_loop()
    sms, clock = FakeChannel(), VirtualClock(start=NIGHT)
    store = Recorder(sms, clock)
    async with night(sms, store, clock) as kit:
        for room in ("stays", "stops"):
            await seat(kit, room, address=f"+44207946{room}", timezone="UTC")
            for n in range(3):
                await (await kit.send(room, f"{room} {n}")).settled()
        await kit.process_inbound(InboundMessage.text("sms", "+44207946stops", "STOP"), room_id="stops")
        await asyncio.sleep(10 * 3600)
        assert sms.texts == ["stays 0", "stays 1", "stays 2"]
    log = store.log
    assert len(log) > 15
    for cut in range(1, len(log) + 1):
        left = MemoryStore()
        await left.open()
        for batch, _, _ in log[:cut]:
            await left.commit(batch)
        stopped = any(put.kind == "consent" for batch, _, _ in log[:cut] for put in batch.put)
        sent = {text for batch, _, _ in log[:cut] for text in (e.text for e in batch.events)}
        before = sms.texts[: log[cut - 1][1]]
        again = FakeChannel()
        start = log[cut - 1][2] - timedelta(seconds=loop.time())
        async with night(again, left, VirtualClock(start=start)):
            await asyncio.sleep(24 * 3600)
        for n in range(3):
            if f"stays {n}" in sent:
                assert (before + again.texts).count(f"stays {n}") in (1, 2), cut
        stays = [text for text in again.texts if text.startswith("stays")]
        assert stays == sorted(stays), cut
        assert not (stopped and [text for text in again.texts if text.startswith("stops")]), cut


async def test_the_change_of_the_clock_is_kept() -> None:
    """On 29 March 2026 Berlin's night is an hour shorter, on 25 October an hour longer."""
    for month, day, hours in ((3, 28, 9.5), (10, 24, 10.5)):
        start = datetime(2026, month, day, 20, 30, tzinfo=UTC)
        kit, sms = kit_at(start - timedelta(seconds=asyncio.get_running_loop().time()))
        async with kit:
            await seat(kit, timezone="Europe/Berlin")
            await (await kit.send("r", "good morning")).settled()
            await asyncio.sleep(hours * 3600 - 2)
            assert sms.texts == []
            await asyncio.sleep(4)
            assert sms.texts == ["good morning"]


async def test_whose_clock_it_is() -> None:
    pytest.importorskip("phonenumbers")
    kit, sms = kit_at(NIGHT, hours=QuietHours(zone="Asia/Tokyo"))
    async with kit:
        await kit.identities.put(Identity(id="ann", metadata={"timezone": "Europe/London"}))
        await seat(kit, "seat", address="x", timezone="Europe/London")
        await seat(kit, "person", address="x")
        await kit.add_member("person", "p", metadata={"timezone": "Europe/London"})
        await kit.attach_channel("person", "sms", participant_id="p")
        await seat(kit, "identity", address="x")
        await kit.add_member("identity", "ann")
        await kit.update_member("identity", "ann", identity_id="ann")
        await kit.attach_channel("identity", "sms", participant_id="ann")
        await seat(kit, "default", address="x")
        await seat(kit, "wrong", address="x", timezone="Mars/Base")
        await seat(kit, "number", address=WHO)
        for room in ("seat", "person", "identity", "default", "wrong", "number"):
            await (await kit.send(room, room)).settled()
        assert sms.texts == ["default", "wrong"], "half past eight in Tokyo"
        assert zones(WHO) == ("Europe/London",)


async def test_who_asks_at_night_is_answered_and_other_channels_do_not_wait() -> None:
    kit, sms = kit_at(NIGHT)
    mail = FakeChannel("mail", "email")
    kit.register_channel(mail)
    async with kit:
        await seat(kit, timezone="Europe/London")
        await say(kit, "are you there?", "r", who=WHO)
        await (await kit.send("r", "yes")).settled()
        assert sms.texts == ["yes"]
        await asyncio.sleep(1801)
        await kit.attach_channel("r", "mail", metadata={"address": "a@b.c"})
        await (await kit.send("r", "one more thing")).settled()
        assert sms.texts == ["yes"]
        assert mail.texts == ["one more thing"]


async def test_the_stop_of_the_night_holds_in_the_morning() -> None:
    """So do an erasure and a seat that was taken away; and no stop of the process waits for the night to end."""
    kit, sms = kit_at(NIGHT, consent=ConsentPolicy(confirm=False))
    async with kit:
        for room in ("stop", "erased", "detached", "kept"):
            await seat(kit, room, address=f"+44207946{room}", timezone="Europe/London")
            await kit.add_member(room, f"by-{room}")
            await (await kit.send(room, room, by=f"by-{room}")).settled()
        await kit.consent.stop("sms", "+44207946stop")
        await kit.detach_channel("detached", "sms")
        await kit.erase_person("by-erased")
        await asyncio.sleep(10 * 3600)
        assert sms.texts == ["kept"]


async def test_settings_that_cannot_be_kept_are_refused_at_once() -> None:
    for hours in (QuietHours(zone="Mars/Base"), QuietHours(time(8), time(8)), {"acme": QuietHours(zone="x")}):
        with pytest.raises(ConfigError):
            RoomKit(options=KitOptions(quiet_hours=hours))
