"""The hub: who is told which signs of life, and in which words a reply is taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import BeforeCommit, Block, RoomKit
from roomkit.core.streams import INTERNAL, Viewer
from roomkit.models.stream import Ephemeral, StreamError
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, say, stream

Moment = Any
GUEST = Viewer(channel_id="web")


async def looked_at(kit: RoomKit, viewer: Viewer) -> list[Any]:
    seen: list[Any] = []
    await kit.open_view("r", viewer, seen.append, tail=0)
    return seen


def signs(seen: list[Any]) -> list[Any]:
    return [(one.kind, one.data) for one in seen if isinstance(one, Ephemeral) and one.kind in ("typing", "tool")]


@pytest.mark.parametrize("how", ["muted", "hidden"])
async def test_signs_of_an_ai_go_where_its_words_would(how: str) -> None:
    async with kit_with(FakeChannel(), FakeChannel("web"), Brain()) as kit:
        await kit.create_room("r", channels=["sms", "web", "ai"])
        guest, boss = await looked_at(kit, GUEST), await looked_at(kit, INTERNAL)
        if how == "muted":
            await kit.mute("r", "ai")
        else:
            await kit.set_visibility("r", "ai", "sms")
        await (await say(kit, "q", "r")).settled()
        assert signs(guest) == []
        assert signs(boss) == [("typing", {"on": True})]


async def test_guests_see_that_something_is_done_not_with_which_tool() -> None:
    async with kit_with(FakeChannel(), FakeChannel("web"), Brain()) as kit:
        await kit.create_room("r", channels=["sms", "web", "ai"])
        guest, boss = await looked_at(kit, GUEST), await looked_at(kit, INTERNAL)
        data = {"name": "fraud_check", "call_id": "c", "status": "pending", "note": "account 9"}
        kit.publish(Ephemeral(kind="tool", room_id="r", sender="ai", data=data))
        assert signs(guest) == [("tool", {"status": "pending"})]
        assert signs(boss) == [("tool", data)]


async def test_a_withdrawn_reply_names_no_guard() -> None:
    async with kit_with(FakeChannel(), FakeChannel("web"), Brain(script=lambda c, e: stream("4111", every=1))) as kit:
        await kit.create_room("r", channels=["sms", "web", "ai"])
        guest = await looked_at(kit, GUEST)

        @kit.before(BeforeCommit, name="fraud_rule_77")
        async def guard(moment: Moment) -> Block | None:
            return Block("account 9") if "4111" in moment.value.text else None

        await (await say(kit, "q", "r")).settled()
        await asyncio.sleep(0)
        assert [one.error for one in guest if isinstance(one, StreamError)] == ["withheld"]
