"""Questions to a person: in the attention queue from the asking until the answer, whatever comes between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from roomkit import RoomKit
from roomkit.core import approvals
from roomkit.errors import StateError
from roomkit.models.content import ToolCallContent
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, say
from tests.core.test_floor import asker, cancel

Make = Callable[[], RoomKit]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """The same house again and again, as after a restart."""
    from roomkit.core.memory import MemoryStore
    from roomkit.providers.sqlite.store import SQLiteStore

    memory = MemoryStore()

    def made(brain: Brain | None = None) -> RoomKit:
        store = memory if request.param == "memory" else SQLiteStore(str(tmp_path / "a.db"))
        return kit_with(FakeChannel(), brain or asker([], expires_s=100), store=store)

    return made


async def asked(kit: RoomKit) -> str:
    await kit.create_room("r", channels=["sms", "ai"])
    await say(kit, "refund please", "r")
    await asyncio.sleep(1)
    return (await kit.approvals())[0]["id"]


async def waiting(kit: RoomKit) -> list[tuple[str, list[str]]]:
    return [(room.id, [one.name for one in room.approvals]) for room in await kit.attention()]


@pytest.mark.parametrize("granted", [True, False])
async def test_a_question_stands_in_the_queue_until_it_is_answered(make: Make, granted: bool) -> None:
    async with make() as kit:
        approval = await asked(kit)
        assert await waiting(kit) == [("r", ["refund"])]
        assert kit.engine.attention.ahead("default") == 1
        await kit.answer_approval(approval, granted, by="eve")
        assert await waiting(kit) == []
        assert kit.engine.attention.ahead("default") == 0


async def test_a_question_that_nobody_answers_leaves_the_queue_when_it_expires(make: Make) -> None:
    async with make() as kit:
        await asked(kit)
        await asyncio.sleep(101)
        assert await waiting(kit) == []


async def test_a_question_waits_in_the_queue_across_a_restart(make: Make) -> None:
    async with make() as kit:
        approval = await asked(kit)
    async with make() as kit:
        await asyncio.sleep(1)
        assert await waiting(kit) == [("r", ["refund"])]
        assert kit.engine.attention.ahead("default") == 1
        await kit.answer_approval(approval, True, by="eve")
        assert await waiting(kit) == []


async def test_a_persons_own_call_is_not_answered_with_the_question(make: Make) -> None:
    async with make() as kit:
        approval = await asked(kit)
        await kit.request_human("r", "wants a person", by="ann")
        await kit.answer_approval(approval, True, by="eve")
        room = (await kit.attention())[0]
        assert room.attention is not None
        assert room.attention.requested_by == "ann"
        assert room.approvals == ()


async def test_a_question_is_not_answered_by_taking_over_nor_by_clearing_the_call(make: Make) -> None:
    async with make() as kit:
        approval = await asked(kit)
        await kit.request_human("r", "wants a person", by="ann")
        await kit.take_over("r", "eve")
        await kit.clear_attention("r")
        assert await waiting(kit) == [("r", ["refund"])]
        await kit.answer_approval(approval, False, by="eve")
        assert await waiting(kit) == []


@pytest.mark.parametrize("withdraw", ["close_room", "archive_room", "detach"])
async def test_a_question_that_can_lead_to_nothing_any_more_is_withdrawn(make: Make, withdraw: str) -> None:
    async with make() as kit:
        approval = await asked(kit)
        await (kit.detach_channel("r", "ai") if withdraw == "detach" else getattr(kit, withdraw)("r"))
        assert await waiting(kit) == []
        assert [a["id"] for a in await kit.approvals(status="withdrawn")] == [approval]
        with pytest.raises(StateError, match="already withdrawn"):
            await kit.answer_approval(approval, True, by="eve", room_id="r")


async def test_a_question_asked_again_stands_in_the_queue_once(make: Make) -> None:
    async with make() as kit:
        await asked(kit)
        await cancel(kit)
        await say(kit, "refund please", "r")
        await asyncio.sleep(1)
        assert await waiting(kit) == [("r", ["refund"])]


async def test_a_question_that_comes_when_the_room_has_closed_is_not_asked(make: Make) -> None:
    async with make() as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        actor = await kit.engine.table.require("default", "r")
        await kit.close_room("r")
        nobody = approvals.Asker("ai", frozenset(), frozenset(), frozenset())
        answer = await approvals.ask(kit.engine, actor, nobody, ToolCallContent(call_id="1", name="refund"), 100)
        assert (answer.granted, answer.reason) == (False, "the room is closed")
        assert await kit.approvals() == []
        assert (await kit.events("r"))[-1].type == "room_closed"
