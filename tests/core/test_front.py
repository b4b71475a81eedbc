"""Deliveries that end with their first step: what one of them does is nobody else's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roomkit import InboundMessage
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.hooks import Delivered
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel
from tests.core.rooms import kit_with, say


class Odd(FakeChannel):
    """Answers in a shape of its own."""

    async def deliver(self, event: Any, binding: Any, context: Any) -> Any:
        await super().deliver(event, binding, context)
        return SimpleNamespace(success=True)


class Unreadable(FakeChannel):
    """Answers with a result that no record can be made of."""

    async def deliver(self, event: Any, binding: Any, context: Any) -> Any:
        await super().deliver(event, binding, context)
        return DeliveryResult.model_construct(success=True, state=None, parts=(1, object()))


@pytest.mark.parametrize("kind, durable", [(Odd, True), (Odd, False), (Unreadable, True)])
async def test_a_result_that_is_none_costs_the_others_nothing(tmp_path: Path, kind: Any, durable: bool) -> None:
    store = f"sqlite:///{tmp_path}/rooms.db" if durable else None
    a, b = FakeChannel("a"), FakeChannel("b")
    async with kit_with(FakeChannel(), a, kind("odd"), b, store=store) as kit:
        await kit.create_room("r", channels=["sms", "a", "odd", "b"])
        await kit.create_room("other", channels=["sms", "a", "b"])
        for result in await asyncio.gather(say(kit, "x", "r"), say(kit, "x", "other")):
            await result.settled()
        await asyncio.sleep(1)
        for room_id in ("r", "other"):
            told = {one.channel_id: one.state for one in await kit.deliveries(room_id) if one.channel_id != "odd"}
            assert told == {"a": "sent", "b": "sent"}
        assert await kit.engine.store.records(RecordQuery("outbox", "default")) == []
        assert len(await kit.dead_letters()) == (kind is Odd), "what is no result is a failed delivery"


async def test_who_hears_of_a_delivery_may_wait_for_all_of_them() -> None:
    async with kit_with(FakeChannel(), FakeChannel("a")) as kit:
        await kit.create_room("r", channels=["sms", "a"])
        told: list[str] = []

        @kit.on(Delivered)
        async def hear(_: Delivered) -> None:
            await asyncio.sleep(0.01)
            await result.settled()
            told.append("settled")

        result = await say(kit, "x", "r")
        await asyncio.sleep(0.1)
        assert told == ["settled"]


@pytest.mark.parametrize("broken", ["delivery_policy", "capabilities"])
async def test_a_channel_that_says_nothing_of_itself_fails_alone(broken: str) -> None:
    odd, b = FakeChannel("odd"), FakeChannel("b")
    async with kit_with(FakeChannel(), odd, b) as kit:
        await kit.create_room("r", channels=["sms", "odd", "b"])
        setattr(odd, broken, None)
        result = await say(kit, "x", "r")
        assert result.event is not None
        await result.settled()
        assert b.texts == ["x"]


async def test_a_policy_of_ones_own_shape_is_asked_for_what_a_lane_needs() -> None:
    odd, b = FakeChannel("odd"), FakeChannel("b")
    usual = DeliveryPolicy()
    names = [name for name in DeliveryPolicy.__dataclass_fields__ if name != "slow"]
    odd.delivery_policy = SimpleNamespace(**{name: getattr(usual, name) for name in names})  # type: ignore[assignment]
    async with kit_with(FakeChannel(), odd, b) as kit:
        await kit.create_room("r", channels=["sms", "odd", "b"])
        await (await say(kit, "x", "r")).settled()
        assert (odd.texts, b.texts) == (["x"], ["x"])


@pytest.mark.parametrize("first", ["ann", "bob"])
async def test_who_has_a_seat_of_their_own_gets_what_others_say_and_not_their_own(first: str) -> None:
    """Both write over one channel, in either order: the plan made for the one is not the other's."""
    web, sms = FakeChannel("web", "web"), FakeChannel("sms")
    async with kit_with(web, sms) as kit:
        await kit.create_room("r", channels=["web"])
        await kit.attach_channel("r", "sms", participant_id="ann")
        for who in ("ann", "bob"):
            message = InboundMessage.text("web", who, "hello", participant_id=who)
            await (await kit.process_inbound(message, room_id="r")).settled()
        await kit.update_binding_metadata("r", "web", {"x": 1})  # plans are made anew
        sms.delivered.clear()
        for who in (first, *({"ann", "bob"} - {first}), "bob"):
            message = InboundMessage.text("web", who, f"{who} writes", participant_id=who)
            await (await kit.process_inbound(message, room_id="r")).settled()
        assert [text for text in sms.texts if text != "hello"] == ["bob writes", "bob writes"]


async def test_what_a_host_writes_into_a_room_it_was_given_is_not_the_room() -> None:
    async with kit_with(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"], metadata={"tags": ["a"]})
        (await kit.get_room("r")).metadata["tags"].append("b")
        assert (await kit.get_room("r")).metadata == {"tags": ["a"]}


async def test_whoever_asks_for_anything_finds_written_down_what_became_of_deliveries() -> None:
    """Though in memory that is written once a turn of the loop, and nothing here lets one pass."""
    async with kit_with(FakeChannel(), FakeChannel("a")) as kit:
        await kit.create_room("r", channels=["sms", "a"])
        await say(kit, "x", "r")
        await kit.dead_letters()
        written = await kit.engine.store.records(RecordQuery("delivery", "default", room_id="r"))
        assert [one.value["state"] for one in written] == ["sent"]
