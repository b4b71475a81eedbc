"""What the front door does itself: files without a folder given, revocations from any thread, its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roomkit import Cancel, RoomKit
from roomkit.errors import AccessDenied, StateError, UsageError
from roomkit.ports.store import RecordQuery


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.real_time
async def test_a_kit_in_memory_keeps_files_in_a_folder_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with RoomKit() as kit:
        info = await kit.blobs.put("default", one(b"hello"), mime_type="text/plain")
        assert [part async for part in kit.blobs.read("default", info.id)] == [b"hello"]
        assert len(list(tmp_path.iterdir())) == 1
    del kit
    gc.collect()
    assert list(tmp_path.iterdir()) == []


async def test_a_revocation_from_another_thread_is_kept() -> None:
    async with RoomKit() as kit:
        token = kit.tokens.issue("admin")
        await asyncio.to_thread(kit.tokens.revoke, token.token_id)
        await asyncio.sleep(1)
        (record,) = await kit.engine.store.records(RecordQuery("revoked", "default"))
        assert record.key == token.token_id
        with pytest.raises(AccessDenied, match="revoked"):
            kit.tokens.verify(token.token)


def test_a_revocation_that_cannot_be_kept_says_so() -> None:
    kit = RoomKit()
    with pytest.raises(StateError, match=r"await kit\.start\(\) first"):
        kit.tokens.revoke(kit.tokens.issue("admin").token_id)


async def test_a_closed_kit_says_that_it_does_not_start_again() -> None:
    kit = RoomKit()
    await kit.start()
    await kit.aclose()
    for again in (kit.start, kit.create_room):
        with pytest.raises(StateError, match="make a new RoomKit"):
            await again()
    with pytest.raises(StateError, match="make a new RoomKit"):
        await kit.get_room("r")


async def test_steering_a_room_where_nobody_is_at_work_says_so() -> None:
    async with RoomKit() as kit:
        await kit.create_room("r", channels=[])
        with pytest.raises(UsageError, match="no AI is at work"):
            await kit.steer("r", Cancel())


async def test_a_closed_kit_has_closed_its_files_too() -> None:
    class Blobs:
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    blobs = Blobs()
    async with RoomKit(blobs=blobs):
        assert blobs.closed == 0
    assert blobs.closed == 1
