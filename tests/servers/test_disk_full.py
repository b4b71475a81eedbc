"""A full disk (D40): nothing is acknowledged, `/readyz` and `/metrics` say so, and it ends without a restart."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roomkit import RoomKit, SMSChannel
from roomkit.providers.sqlite.store import SQLiteOptions, SQLiteStore
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing import VirtualClock
from roomkit.testing.vendors.twilio import FakeTwilio
from tests.servers.house import SECRET, House, MemoryBlobs, house

PUBLIC = "https://rooms.example"


class Disk(sqlite3.Connection):
    """Full when told so: what would write fails as SQLite does."""

    full = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if Disk.full and sql.startswith("COMMIT"):
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *parameters)


@pytest.fixture(autouse=True)
def _disk() -> Iterator[None]:
    yield
    Disk.full = False


def kit_on(path: Path, fake: FakeTwilio) -> RoomKit:
    options = SQLiteOptions(connect=functools.partial(sqlite3.connect, factory=Disk))
    kit = RoomKit(SQLiteStore(path, options), clock=VirtualClock(), token_secrets=[SECRET], blobs=MemoryBlobs())
    provider = TwilioSMSProvider(fake.options(), transport=fake.transport())
    kit.register_channel(SMSChannel("sms", provider=provider, from_number=fake.number))

    @kit.on_message
    def answer(context: Any, message: Any) -> str:
        return f"you said {message.text}"

    return kit


async def post(h: House, room: str, text: str, token: str, client_id: str) -> Any:
    body = {"content": {"type": "text", "text": text}, "client_id": client_id}
    return await h.http.post(f"/api/rooms/{room}/messages", json=body, headers={"authorization": f"Bearer {token}"})


async def test_it_refuses_says_so_and_recovers_by_itself(tmp_path: Path) -> None:
    fake = FakeTwilio()
    async with house(kit_on(tmp_path / "rooms.db", fake), public_url=PUBLIC, open_metrics=True) as h:
        await h.kit.create_room("r", channels=["web", "app"])
        token = h.token("guest", "r")
        assert (await post(h, "r", "before", token, "1")).status_code == 201
        await asyncio.sleep(1)

        Disk.full = True
        text = fake.text("+15550123", "is anybody there?")
        refused = [await post(h, "r", "during", token, "2"), await webhook(h, text), await webhook(h, text)]
        for answer in refused:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "disk" not in answer.text  # nobody outside needs to know
        async with h.joined("r") as socket:  # reading goes on
            await socket.say("send", client_id="3", content={"type": "text", "text": "by socket"})
            nack = await socket.get("nack")
            assert (nack["code"], nack.get("retry_after", 0) > 0) == ("unavailable", True), nack
        ready = await h.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "reason": "database or disk is full"})
        numbers = (await h.http.get("/metrics")).text
        assert "\nroomkit_store_writable 0\n" in numbers
        assert metric(numbers, "roomkit_write_errors_total") >= 3
        assert metric(numbers, "roomkit_store_failures_total") >= 3
        assert (await h.http.get("/healthz")).status_code == 200

        Disk.full = False
        await asyncio.sleep(3)  # nobody writes: the store looks after itself
        assert (await h.http.get("/readyz")).status_code == 200
        assert "\nroomkit_store_writable 1\n" in (await h.http.get("/metrics")).text

        # What was refused is sent again by those who were told so, and has one effect.
        assert (await post(h, "r", "during", token, "2")).status_code == 201
        assert {(await webhook(h, text)).status_code for _ in range(2)} == {200}
        await asyncio.sleep(5)
        texts = [event.text for event in await h.kit.events("r") if event.type == "message"]
        assert texts == ["before", "you said before", "during", "you said during"]
        (room,) = [room for room in await h.kit.list_rooms() if room.id != "r"]
        assert [event.text for event in await h.kit.events(room.id) if event.type == "message"] == [
            "is anybody there?",
            "you said is anybody there?",
        ]
        assert [message.body for message in fake.messages] == ["you said is anybody there?"]


async def test_what_was_on_its_way_when_the_disk_filled_up_arrives_once_it_is_empty(tmp_path: Path) -> None:
    fake = FakeTwilio()
    async with house(kit_on(tmp_path / "rooms.db", fake), public_url=PUBLIC) as h:
        fake.delay_s = 2.0
        assert (await webhook(h, fake.text("+15550123", "hello"))).status_code == 200
        await asyncio.sleep(1)  # the answer is committed, its delivery is under way
        Disk.full = True
        await asyncio.sleep(10)
        Disk.full = False
        await asyncio.sleep(10)
        assert [message.body for message in fake.messages] == ["you said hello"]
        (room,) = await h.kit.list_rooms()
        states = [record.state.value for record in await h.kit.deliveries(room.id)]
        assert states == ["sent"]
        assert h.kit.stats()["outbox_backlog"] == 0
        assert (await h.http.get("/readyz")).status_code == 200


async def webhook(h: House, request: Any) -> Any:
    return await h.http.post("/webhooks/sms", content=request.body, headers=request.headers)


def metric(text: str, name: str) -> float:
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)
