"""Line 13: limits by tenant, room, sender and address, and turns by tenant: a noisy one pays for its noise itself. What
is counted is who was served before whom, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter

from roomkit import AIChannel, BeforeCommit, RoomKit
from roomkit.core.engine import KitOptions
from roomkit.errors import Overloaded
from roomkit.models.delivery import DeliveryPolicy, InboundMessage
from roomkit.net.ratelimit import TokenBucket
from roomkit.runtime import monotonic
from roomkit.testing import VirtualClock
from roomkit.testing.ai import ScriptedAI
from roomkit.testing.channels import FakeChannel
from tests.servers.house import house

RATE = 10.0


async def waits(noisy_rooms: int) -> list[float]:
    """How long each of ten messages of the quiet tenant waits, on a channel that both share."""
    channel = FakeChannel("sms", policy=DeliveryPolicy(idempotent=True, rate_per_s=RATE, burst=1))
    kit = RoomKit(clock=VirtualClock())
    kit.register_channel(channel)
    took: list[float] = []
    async with kit:
        noisy, quiet = kit.tenant("noisy"), kit.tenant("quiet")
        await quiet.create_room("q", channels=["sms"])
        await quiet.attach_channel("q", "sms", metadata={"address": "+1"})
        for n in range(noisy_rooms):
            await noisy.create_room(f"n{n}", channels=["sms"])
            await noisy.attach_channel(f"n{n}", "sms", metadata={"address": f"+2{n}"})
            for _ in range(5):
                await noisy.send(f"n{n}", "buy!")
        for n in range(10):
            began = monotonic()
            sent = await quiet.send("q", f"quiet {n}")
            await sent.settled()
            took.append(monotonic() - began)
            await asyncio.sleep(0.95)
    return took


async def test_a_tenant_with_many_rooms_delays_anothers_message_by_one_turn() -> None:
    alone, beside = await waits(0), await waits(100)
    assert max(alone) <= 1 / RATE
    assert max(beside) <= 2 / RATE + 1e-6, "one delivery of the noisy tenant, then ours"


async def test_shares_are_equal_whatever_the_crowd() -> None:
    bucket = TokenBucket(10, 1)
    served: list[str] = []

    async def one(group: str) -> None:
        await bucket.acquire(group=group)
        served.append(group)

    crowd = {"noisy": 300, "other": 30, "quiet": 10}
    waiting = [asyncio.ensure_future(one(group)) for group, count in crowd.items() for _ in range(count)]
    await asyncio.gather(*waiting)
    assert Counter(served[:30]) == {"noisy": 10, "other": 10, "quiet": 10} or Counter(served[1:31]) == {
        "noisy": 10,
        "other": 10,
        "quiet": 10,
    }
    assert Counter(served) == crowd


async def test_who_gives_up_waiting_costs_nobody_a_turn() -> None:
    bucket = TokenBucket(1, 1)
    served: list[str] = []

    async def one(name: str, group: str) -> None:
        await bucket.acquire(group=group)
        served.append(name)

    await bucket.acquire()
    tasks = {f"{group}{n}": asyncio.ensure_future(one(f"{group}{n}", group)) for group in ("a", "b") for n in range(3)}
    await asyncio.sleep(0)
    tasks["a0"].cancel()
    tasks["b1"].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert sorted(served) == ["a1", "a2", "b0", "b2"]
    assert [name for name in served if name[0] == "a"] == ["a1", "a2"]
    assert bucket.waiting == 0


async def test_a_crowd_of_turns_delays_no_other_tenants_reply() -> None:
    async def reply_after(noise: int) -> float:
        kit = RoomKit(clock=VirtualClock())
        kit.register_channel(AIChannel("ai", ScriptedAI(["Well, ", 1.0, "yes."], repeat=True)), default=True)
        kit.register_channel(FakeChannel("sms"))
        async with kit:
            for n in range(noise):
                await kit.tenant("noisy").process_inbound(InboundMessage.text("sms", f"+2{n}", "and?"))
            began = monotonic()
            await (await kit.tenant("quiet").process_inbound(InboundMessage.text("sms", "+1", "yes?"))).settled()
            return monotonic() - began

    assert await reply_after(300) <= await reply_after(0) * 1.2


async def test_a_sender_has_a_budget_of_its_own_in_each_tenant() -> None:
    kit = RoomKit(clock=VirtualClock(), options=KitOptions(inbound_limit=(1.0, 5)))
    kit.register_channel(FakeChannel("sms"))
    async with kit:

        async def says(tenant: str, who: str) -> bool:
            return not (await kit.tenant(tenant).process_inbound(InboundMessage.text("sms", who, "hi"))).blocked

        assert [await says("noisy", "+1") for _ in range(7)] == [True] * 5 + [False] * 2
        assert await says("quiet", "+1"), "the same number, written to another tenant"
        assert await says("noisy", "+2")
        await asyncio.sleep(1)
        assert [await says("noisy", "+1") for _ in range(2)] == [True, False]


async def test_a_full_room_is_full_for_itself_only() -> None:
    kit = RoomKit(clock=VirtualClock(), options=KitOptions(mailbox=10))
    kit.register_channel(FakeChannel("sms"))

    @kit.before(BeforeCommit)
    async def slow(moment: BeforeCommit) -> None:
        if moment.room.id == "full":
            await asyncio.sleep(1)

    async with kit:
        for room in ("full", "other"):
            await kit.create_room(room, channels=["sms"])
        crowd = [asyncio.ensure_future(kit.send("full", f"{n}")) for n in range(100)]
        await asyncio.sleep(0.1)
        began = monotonic()
        await kit.send("other", "hello")
        assert monotonic() == began
        results = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [one for one in results if isinstance(one, Overloaded)]
        assert 80 < len(refused) < 100
        assert not [one for one in results if isinstance(one, BaseException) and not isinstance(one, Overloaded)]


async def test_a_principal_has_its_own_requests() -> None:
    async with house(requests_per_s=1.0) as h:
        await h.kit.create_room("r", channels=["web"])
        codes = [(await h.call("POST", "/rooms/r/notes", "agent", {"text": "x"})).status_code for _ in range(6)]
        assert codes == [201, 201, 201, 429, 429, 429]
        assert (await h.call("POST", "/rooms/r/notes", "admin", {"text": "x"})).status_code == 201
