"""Delivery: order per channel, retries, dead letters, ambiguity, reach once, status reports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from roomkit import KitOptions, RoomKit
from roomkit.channels import SMSChannel
from roomkit.core.memory import MemoryStore
from roomkit.errors import ProviderTimeout, Refused, StateError, Unavailable
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult, DeliveryState, DeliveryStatus
from roomkit.models.hooks import Delivered, DeliveryFailed, StatusChanged
from roomkit.net.ratelimit import TokenBucket
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel
from roomkit.testing.messages import FakeMessages
from tests.core.rooms import Brain, kit_with, say


async def test_one_dead_recipient_delays_nobody() -> None:
    dead, alive = FakeChannel("dead"), FakeChannel("alive")
    dead.hang()
    async with kit_with(FakeChannel(), dead, alive) as kit:
        await kit.create_room("r", channels=["sms", "dead", "alive"])
        for i in range(50):
            await say(kit, str(i), "r")
        assert alive.texts == [str(i) for i in range(50)]
        assert dead.texts == []
        dead.resume()
        await asyncio.sleep(1)
        assert dead.texts == alive.texts


async def test_a_lane_keeps_its_order_through_retries() -> None:
    flaky = FakeChannel("flaky", temper=lambda e, n: Unavailable("flaky", "busy") if n < 2 and e.index % 2 else None)
    async with kit_with(FakeChannel(), flaky) as kit:
        await kit.create_room("r", channels=["sms", "flaky"])
        for i in range(6):
            result = await say(kit, str(i), "r")
        await result.settled()
        await asyncio.sleep(60)
        assert flaky.texts == [str(i) for i in range(6)]


async def test_what_fails_for_good_goes_to_the_dead_letters_and_the_lane_goes_on() -> None:
    failed: list[DeliveryFailed] = []
    broken = [True]
    picky = FakeChannel("picky", temper=lambda e, n: Refused("picky", "no") if e.text == "bad" and broken[0] else None)
    async with kit_with(FakeChannel(), picky) as kit:
        await kit.create_room("r", channels=["sms", "picky"])

        @kit.on(DeliveryFailed)
        async def hear(notice: DeliveryFailed) -> None:
            failed.append(notice)

        for text in ("a", "bad", "b"):
            result = await say(kit, text, "r")
        await result.settled()
        await asyncio.sleep(1)
        assert picky.texts == ["a", "b"]
        assert len(failed) == 1
        letters = await kit.dead_letters()
        assert [(d["channel"], d["error"]) for d in letters] == [("picky", "picky: no")]
        kinds = [e.type.value for e in await kit.events("r", raw=True)]
        assert kinds.count("delivery_failed") == 1
        states = {d.index: d.state for d in await kit.deliveries("r")}
        assert sorted(states.values()) == ["failed", "sent", "sent"]
        broken[0] = False
        await kit.resend(letters[0]["id"])
        await asyncio.sleep(1)
        assert picky.texts == ["a", "b", "bad"]
        assert await kit.dead_letters() == []


@pytest.mark.parametrize("sent_again", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
async def test_a_lane_that_holds_waits_for_a_person(tmp_path: Path, restarted: bool, sent_again: bool) -> None:
    """R5: what comes after a dead letter is not even tried, in this room and on this channel only; then all of it
    comes, in order. Nobody waits for it meanwhile, neither its senders nor the end of the process."""
    broken = [True]

    def temper(event: Any, attempt: int) -> Any:
        return Refused("picky", "no") if broken[0] and event.text == "bad" else None

    def start() -> tuple[RoomKit, FakeChannel, FakeChannel]:
        kit = RoomKit(f"sqlite:///{tmp_path / 'rooms.db'}")
        policy = DeliveryPolicy(on_poison="hold", idempotent=True)
        picky, other = FakeChannel("picky", "picky", temper=temper, policy=policy), FakeChannel("other", "other")
        kit.register_channel(picky)
        kit.register_channel(other)
        return kit, picky, other

    kit, picky, other = start()
    await kit.start()
    for room in ("r", "s"):
        await kit.create_room(room, channels=["picky", "other"])
    for text in ("a", "bad", "b"):
        await (await kit.send("r", text)).settled(5)
    await (await kit.send("s", "elsewhere")).settled(5)
    assert picky.texts == ["a", "elsewhere"]
    assert other.texts == ["a", "bad", "b", "elsewhere"]
    (letter,) = await kit.dead_letters()
    assert letter["holds"]
    if restarted:
        assert await kit.drain(5), "it holds up no stop"
        await kit.aclose()
        kit, picky, other = start()
        await kit.start()
    await (await kit.send("r", "c")).settled(5)
    assert picky.texts == ([] if restarted else ["a", "elsewhere"])
    broken[0] = False
    await (kit.resend if sent_again else kit.discard)(letter["id"])
    await (await kit.send("r", "d")).settled(5)
    assert picky.texts[0 if restarted else 2 :] == [*(["bad"] if sent_again else []), "b", "c", "d"]
    assert await kit.dead_letters() == []
    assert kit.engine.lanes.backlog == 0
    with pytest.raises(StateError, match="does not exist"):
        await kit.discard(letter["id"])
    await kit.aclose()


async def test_only_retryable_errors_are_retried_with_back_off_and_retry_after() -> None:
    times: list[float] = []

    def temper(event: Any, attempt: int) -> Any:
        times.append(asyncio.get_running_loop().time())
        return Unavailable("x", "later", retry_after=30) if attempt == 0 else None

    async with kit_with(FakeChannel(), FakeChannel("x", temper=temper)) as kit:
        await kit.create_room("r", channels=["sms", "x"])
        await (await say(kit, "a", "r")).settled()
        assert len(times) == 2
        assert times[1] - times[0] >= 30


@pytest.mark.parametrize("on_ambiguous", ["retry", "stop_and_ask"])
async def test_an_ambiguous_send_is_told_never_hidden(on_ambiguous: str) -> None:
    unsure = FakeChannel(
        "unsure",
        temper=lambda e, n: ProviderTimeout("unsure", "no answer", ambiguous=True) if n == 0 else None,
        policy=DeliveryPolicy(on_ambiguous=on_ambiguous),
    )
    async with kit_with(FakeChannel(), unsure) as kit:
        await kit.create_room("r", channels=["sms", "unsure"])
        await (await say(kit, "pay", "r")).settled()
        record = (await kit.deliveries("r"))[0]
        assert record.maybe_duplicate
        if on_ambiguous == "retry":
            assert record.state is DeliveryState.SENT
            assert unsure.texts == ["pay"]
        else:
            assert record.state is DeliveryState.FAILED
            assert len(await kit.dead_letters()) == 1


async def test_a_refusal_is_not_a_success() -> None:
    no = FakeChannel("no", temper=lambda e, n: DeliveryResult(success=False, error="blocked number", code="21610"))
    async with kit_with(FakeChannel(), no) as kit:
        await kit.create_room("r", channels=["sms", "no"])
        await (await say(kit, "a", "r")).settled()
        assert [d.state.value for d in await kit.deliveries("r")] == ["failed"]
        assert len(no.attempts) == 1


async def test_the_outbox_is_resumed_after_a_restart_in_order_and_marked() -> None:
    store = MemoryStore()
    slow = FakeChannel("slow")
    slow.hang()
    async with kit_with(FakeChannel(), slow, store=store) as kit:
        await kit.create_room("r", channels=["sms", "slow"])
        for i in range(5):
            await say(kit, str(i), "r")
        await asyncio.sleep(1)
    again = FakeChannel("slow")
    async with kit_with(FakeChannel(), again, store=store) as kit:
        await asyncio.sleep(1)
        assert again.texts == [str(i) for i in range(5)]
        assert [d.state.value for d in await kit.deliveries("r")] == ["sent"] * 5


async def test_a_mute_or_detach_reaches_what_already_waits() -> None:
    slow = FakeChannel("slow")
    slow.hang()
    async with kit_with(FakeChannel(), slow) as kit:
        await kit.create_room("r", channels=["sms", "slow"])
        for i in range(3):
            await say(kit, str(i), "r")
        await kit.mute("r", "slow", output=True)
        slow.resume()
        await asyncio.sleep(1)
        assert slow.texts == ["0"]
        assert [d.reason for d in await kit.deliveries("r")] == [None, "output_muted", "output_muted"]


async def test_one_person_on_two_channels_gets_one_copy_and_the_next_way_when_it_fails() -> None:
    down = [False]
    a = FakeChannel("a", temper=lambda e, n: Refused("a", "down") if down[0] else None)
    b = FakeChannel("b")
    async with kit_with(a, b, Brain()) as kit:
        await kit.create_room("r", channels=["ai"])
        for channel_id in ("a", "b"):
            await kit.attach_channel("r", channel_id, participant_id="ann", metadata={"address": channel_id})
        await kit.add_member("r", "ann", channel_id="a")

        async def ann_says(text: str, channel_id: str) -> None:
            result = await say(kit, text, "r", channel=channel_id, participant_id="ann")
            await result.settled()

        await ann_says("1", "a")
        await ann_says("2", "b")
        await ann_says("3", "a")
        assert ("echo 1" in a.texts, "echo 1" in b.texts) == (True, False)
        assert ("echo 2" in a.texts, "echo 2" in b.texts) == (False, True)
        down[0] = True
        await ann_says("4", "a")
        await asyncio.sleep(1)
        assert "echo 4" in b.texts
        assert "echo 4" not in a.texts


async def test_an_unread_message_takes_the_next_way_after_a_while() -> None:
    a, b = FakeChannel("a"), FakeChannel("b")
    async with kit_with(a, b) as kit:
        await kit.create_room("r", channels=[])
        await kit.attach_channel("r", "a", participant_id="ann", fallback_after_s=300)
        await kit.attach_channel("r", "b", participant_id="ann")
        first = await kit.send("r", "please confirm")
        await asyncio.sleep(200)
        await kit.mark_read("r", "a", first.event.index if first.event else 0)
        await asyncio.sleep(200)
        assert b.texts == []
        await kit.send("r", "still there?")
        await asyncio.sleep(301)
        assert b.texts == ["still there?"]


async def test_status_reports_only_move_forward() -> None:
    changes: list[str] = []
    delivered: list[Delivered] = []
    out = FakeChannel("out")
    async with kit_with(FakeChannel(), out) as kit:

        @kit.on(StatusChanged)
        async def hear(notice: StatusChanged) -> None:
            changes.append(notice.record.state.value)

        @kit.on(Delivered)
        async def got(notice: Delivered) -> None:
            delivered.append(notice)

        await kit.create_room("r", channels=["sms", "out"])
        await (await say(kit, "a", "r")).settled()
        for state in ("read", "delivered", "queued", "read", "failed"):
            await kit.delivery_status(
                DeliveryStatus(channel_id="out", provider_message_id="fake-1", state=DeliveryState(state))
            )
        assert (await kit.deliveries("r"))[0].state is DeliveryState.READ
        unknown = DeliveryStatus(channel_id="out", provider_message_id="x", state=DeliveryState.READ)
        assert await kit.delivery_status(unknown) is None
        await asyncio.sleep(0)
        assert changes == ["read"]
        assert len(delivered) == 1


async def test_a_flood_of_rooms_leaves_no_task_behind() -> None:
    async with kit_with(FakeChannel(), FakeChannel("out")) as kit:
        left: list[int] = []
        for flood in ("a", "b"):
            for i in range(300):
                await kit.create_room(f"{flood}{i}", channels=["sms", "out"])
            await asyncio.gather(*[say(kit, "x", f"{flood}{i}") for i in range(300)])
            await asyncio.sleep(1)
            left.append(len(asyncio.all_tasks()))
        assert left[0] < 20, "the parked carriers alone"
        assert left[1] == left[0]


async def test_a_channel_registered_later_gets_what_is_said_from_then_on() -> None:
    """Its seat was there already, as after a restart: the plan made before must not hold any longer."""
    late = FakeChannel("late")
    kit = kit_with(FakeChannel("sms"), FakeChannel("late"))
    async with kit:
        await kit.create_room("r", channels=["sms", "late"])
        await kit.unregister_channel("late")
        await (await say(kit, "one", "r")).settled()
        kit.register_channel(late)
        await (await say(kit, "two", "r")).settled()
        assert late.texts == ["two"]
        await kit.unregister_channel("late")
        await (await say(kit, "three", "r")).settled()
    assert late.texts == ["two"]


async def test_a_rate_limit_makes_deliveries_wait_however_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TokenBucket.__init__.__kwdefaults__, "max_waiting", 3)
    slow = FakeChannel("slow")
    slow.delivery_policy = DeliveryPolicy(rate_per_s=1, burst=1)
    async with kit_with(slow) as kit:
        for i in range(8):
            await kit.create_room(f"r{i}", channels=["slow"])
        results = [await kit.send(f"r{i}", str(i)) for i in range(8)]
        for result in results:
            await result.settled()
        assert slow.texts == [str(i) for i in range(8)]


async def test_what_breaks_a_delivery_in_a_way_nobody_foresaw_ends_in_the_dead_letters() -> None:
    class Odd(FakeChannel):
        broken = True

        @property
        def delivery_policy(self) -> DeliveryPolicy:
            if self.broken:
                raise KeyError("odd")
            return DeliveryPolicy()

        @delivery_policy.setter
        def delivery_policy(self, policy: DeliveryPolicy) -> None: ...

    odd = Odd("odd")
    async with kit_with(odd) as kit:
        await kit.create_room("r", channels=["odd"])
        await (await kit.send("r", "one")).settled()
        assert [letter["code"] is None and "KeyError" in letter["error"] for letter in await kit.dead_letters()] == [
            True
        ]
        odd.broken = False
        await (await kit.send("r", "two")).settled()
        assert odd.texts == ["two"]


async def test_a_vendors_id_with_nul_or_half_a_letter_is_kept_as_text_that_every_store_takes() -> None:
    odd = FakeChannel("odd", temper=lambda e, n: DeliveryResult(success=True, provider_message_id="bad\0id\ud83d"))
    async with kit_with(FakeChannel(), odd) as kit:
        await kit.create_room("r", channels=["sms", "odd"])
        await (await say(kit, "a", "r")).settled()
        await asyncio.sleep(1)
        (found,) = [d for d in await kit.deliveries("r") if d.channel_id == "odd"]
        assert found.provider_message_id == "bad\ufffdid\ufffd"
        status = DeliveryStatus(channel_id="odd", provider_message_id="bad\0id\ud83d", state=DeliveryState.READ)
        assert status.provider_message_id == found.provider_message_id, "so that news of it find it"


async def test_a_note_that_the_store_refuses_fails_alone_and_nothing_is_sent_twice() -> None:
    odd, fine = FakeChannel("odd"), FakeChannel("fine")
    async with kit_with(FakeChannel(), odd, fine) as kit:
        store = kit.engine.store
        await kit.create_room("r", channels=["sms", "odd", "fine"])
        commit = store.commit

        async def picky(batch: Any) -> Any:
            if any(r.kind == "delivery" and r.value["channel_id"] == "odd" for r in batch.put):
                raise ValueError("invalid byte sequence")
            return await commit(batch)

        store.commit = picky  # type: ignore[method-assign]
        for n in range(3):
            result = await say(kit, str(n), "r")
            assert result.event is not None
            await result.settled()
        await asyncio.sleep(1)
        assert kit.engine.counters["notes_refused"] == 3
        assert [d.channel_id for d in await kit.deliveries("r")] == ["fine"] * 3
        assert await store.records(RecordQuery("outbox", None)) == []
        assert (odd.texts, fine.texts) == (["0", "1", "2"], ["0", "1", "2"])


async def _other() -> Any:
    return "sent"


async def _breaks() -> Any:
    raise ValueError("odd")


async def _cancelled() -> Any:
    raise asyncio.CancelledError


async def _late() -> DeliveryResult:
    await asyncio.sleep(1)
    return DeliveryResult(success=True, provider_message_id="late")


async def _refused_late() -> DeliveryResult:
    await asyncio.sleep(1)
    return DeliveryResult(success=False, error="no")


async def _wrong_call() -> Any:
    return await _late(1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "way, state",
    [
        (_other, "failed"),
        (_breaks, "failed"),
        (_cancelled, "failed"),
        (_wrong_call, "failed"),
        (_late, "sent"),
        (_refused_late, "failed"),
    ],
)
async def test_however_a_channel_delivers_it_is_tried_once_and_told(way: Any, state: str) -> None:
    calls = 0

    class Odd(FakeChannel):
        async def deliver(self, event: Any, binding: Any, context: Any) -> Any:
            nonlocal calls
            calls += 1
            return await way()

    async with kit_with(FakeChannel(), Odd("odd")) as kit:
        await kit.create_room("r", channels=["sms", "odd"])
        result = await say(kit, "hello", "r")
        assert result.event is not None
        assert not result.blocked
        await result.settled()
        await asyncio.sleep(2)
        assert calls == 1
        (record,) = await kit.deliveries("r")
        assert (str(record.state), record.attempts) == (state, 1)
        assert len(await kit.dead_letters()) == (state == "failed")
        assert kit.engine.lanes.backlog == 0


async def test_what_does_not_end_at_once_has_a_row_also_in_memory() -> None:
    """Whoever opens the same store again, in the same process, goes on with it."""
    store, slow = MemoryStore(), FakeChannel("slow")
    slow.hang()
    async with kit_with(FakeChannel(), slow, FakeChannel("fast"), store=store) as kit:
        await kit.create_room("r", channels=["sms", "slow", "fast"])
        await say(kit, "hello", "r")
        await say(kit, "again", "r")
        rows = await store.records(RecordQuery("outbox", "default"))
        assert [(row.value["channel"], row.value["index"]) for row in rows] == [("slow", 2), ("slow", 3)]
    slow = FakeChannel("slow")
    async with kit_with(FakeChannel(), slow, FakeChannel("fast"), store=store):
        await asyncio.sleep(1)
        assert slow.texts == ["hello", "again"]
        assert not await store.records(RecordQuery("outbox", "default"))


async def test_only_allowed_destinations_are_written_to() -> None:
    """D44: an address with another beginning is refused before anything is sent."""
    phone = SMSChannel("sms", provider=FakeMessages())
    phone.delivery_policy = DeliveryPolicy(destinations=("+44", "+49"))
    async with kit_with(phone) as kit:
        for room, number in (("home", "+4411"), ("toll", "+37011")):
            await kit.create_room(room, channels=())
            await kit.attach_channel(room, "sms", metadata={"phone_number": number})
            await (await kit.send(room, "hello")).settled()
        assert [message.recipient for message in phone.provider.sent] == ["+4411"]
        (letter,) = await kit.dead_letters()
        assert (letter["room_id"], letter["error"]) == ("toll", "destination_not_allowed")


async def test_one_address_is_written_to_no_faster_than_its_rate() -> None:
    times: list[tuple[str, float]] = []
    phone = SMSChannel("sms", provider=FakeMessages())
    phone.delivery_policy = DeliveryPolicy(recipient_rate_per_s=0.5)
    send = phone.provider.send

    async def noted(message: Any) -> Any:
        times.append((message.recipient, asyncio.get_running_loop().time()))
        return await send(message)

    phone.provider.send = noted
    async with kit_with(phone) as kit:
        for room, number in (("a", "+4411"), ("b", "+4411"), ("c", "+4422")):
            await kit.create_room(room, channels=())
            await kit.attach_channel(room, "sms", metadata={"phone_number": number})
        results = [await kit.send(room, "hello") for room in ("a", "b", "c", "a")]
        for result in results:
            await result.settled()
    start = times[0][1]
    by_number = {number: [at - start for to, at in times if to == number] for number in ("+4411", "+4422")}
    assert by_number["+4422"] == [pytest.approx(0, abs=0.01)]
    assert by_number["+4411"] == [pytest.approx(2 * n, abs=0.01) for n in range(3)]


async def test_a_drain_waits_as_long_as_the_kit_was_told() -> None:
    for limit, done in ((2.0, False), (9.0, True)):
        slow = FakeChannel(policy=DeliveryPolicy(idempotent=True, timeout_s=60))
        slow.hang()
        async with kit_with(slow, options=KitOptions(drain_timeout_s=limit)) as kit:
            await kit.create_room("r", channels=["sms"])
            await kit.send("r", "hello")
            asyncio.get_running_loop().call_later(5, slow.resume)
            assert await kit.drain() is done
