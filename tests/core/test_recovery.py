"""After a crash: what was acknowledged is there, deliveries go on, cut replies are closed, calls get their answer.

A crash is a copy of the database as it lies on the disk, opened by a new kit, while the old one never gets to say more.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, BeforeToolUse, Block, Modify, RoomContext, RoomKit, TurnPolicy
from roomkit.ai.policy import ToolPolicy
from roomkit.ai.tools import Toolbox, ToolContext, tool
from roomkit.errors import StoreUnavailable
from roomkit.models.content import ToolCallContent
from roomkit.models.delivery import DeliveryPolicy
from roomkit.models.room import RoomTimers
from roomkit.models.stream import ToolStep
from roomkit.ports.store import Batch, RecordQuery
from roomkit.providers.sqlite import SQLiteStore
from roomkit.testing import FakeChannel
from roomkit.testing.ai import ScriptedAI, call
from tests.core.rooms import Brain, gapless, kit_with, said, say, stream

CALL = ToolCallContent(call_id="c1", name="charge", arguments={"amount": 5})


def crash(old: Path, new: Path) -> Path:
    for suffix in ("", "-wal"):
        source = old.with_name(old.name + suffix)
        if source.exists():
            shutil.copy(source, new.with_name(new.name + suffix))
    return new


class CopyingStore(SQLiteStore):
    """Copies itself right after each commit that changes a room, as if the process had died there."""

    def __init__(self, path: str, where: Path) -> None:
        super().__init__(path)
        self.file, self.where, self.copies = Path(path), where, 0
        self.watch, self.last, self.caught = "", Path(), Path()

    async def commit(self, batch: Batch) -> Any:
        done = await super().commit(batch)
        if batch.events:
            self.copies += 1
            self.last = crash(self.file, self.where / f"copy{self.copies}.db")
            if self.watch in {record.kind for record in batch.put}:
                self.caught = self.last
        return done


Make = Callable[..., RoomKit]


@pytest.fixture
def make() -> Make:
    def build(path: Path, *channels: Any) -> RoomKit:
        return kit_with(*channels, store=SQLiteStore(str(path)))

    return build


async def test_everything_acknowledged_is_there(tmp_path: Path, make: Make) -> None:
    async with make(tmp_path / "a.db", FakeChannel()) as kit:
        results = [await say(kit, str(i), external_id=f"m{i}") for i in range(20)]
        room_id = results[0].room_id
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    async with make(path, FakeChannel()) as kit:
        assert [t for _, t, _ in await said(kit, room_id)] == [str(i) for i in range(20)]
        assert await gapless(kit, room_id)
        again = await say(kit, "19", external_id="m19")
        assert again.duplicate
        assert again.event is not None
        assert again.event == results[19].event
        assert not (await say(kit, "20", external_id="m20")).duplicate
        assert (await kit.participants(room_id or ""))[0].address == "+4411"


async def test_a_cut_reply_is_closed_with_its_durable_text(tmp_path: Path, make: Make) -> None:
    brain = Brain(script=lambda c, e: stream(*[f"w{i} " for i in range(50)], every=0.1))
    async with make(tmp_path / "a.db", FakeChannel(), brain) as kit:
        room_id = (await say(kit, "go")).room_id
        await asyncio.sleep(1.05)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    later = FakeChannel()
    async with make(path, later, Brain()) as kit:
        log = await kit.events(room_id or "", raw=True, limit=1000)
        reply = log[-1]
        assert reply.metadata["interrupted"] == "crash"
        assert reply.text.startswith("w0 w1 ")
        assert len(reply.text.split()) >= 7
        assert await gapless(kit, room_id)
        await asyncio.sleep(60)
        assert len(await said(kit, room_id)) == 2
        assert later.texts == [reply.text]


async def test_a_question_not_yet_begun_is_asked_after_the_restart(tmp_path: Path, make: Make) -> None:
    slow = Brain(script=lambda c, e: stream("x", every=1000))
    async with make(tmp_path / "a.db", FakeChannel(), slow) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "first", "r")
        await asyncio.sleep(0.1)
        await say(kit, "second", "r")
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    brain = Brain()
    async with make(path, FakeChannel(), brain) as kit:
        await asyncio.sleep(5)
        assert brain.seen == [["first"], ["second"]]
        assert [t for _, t, _ in await said(kit, "r")] == ["first", "second", "echo first", "echo second"]


async def test_a_question_that_stops_the_process_every_time_is_given_up_visibly(tmp_path: Path, make: Make) -> None:
    path, asked = tmp_path / "0.db", 0
    for i in range(1, 12):
        slow = Brain(script=lambda c, e: stream("x", every=1000))
        async with make(path, FakeChannel(), slow) as kit:
            if i == 1:
                await kit.create_room("r", channels=["sms", "ai"])
                await say(kit, "poison", "r")
            await asyncio.sleep(1)
            asked += len(slow.seen)
            path = crash(path, tmp_path / f"{i}.db")
    async with make(path, FakeChannel(), Brain()) as kit:
        assert asked == 5
        left = [e for e in await kit.events("r", raw=True) if getattr(e.content, "code", "") == "reply_interrupted"]
        assert len(left) == 1


async def test_a_reply_cut_after_it_acted_leaves_word_in_the_room(tmp_path: Path, make: Make) -> None:
    async def script() -> Any:
        yield ToolStep(CALL)
        await asyncio.sleep(1000)

    async with make(tmp_path / "a.db", FakeChannel(), Brain(script=lambda c, e: script())) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        asked = (await say(kit, "charge me", "r")).event
        await asyncio.sleep(1)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    brain = Brain()
    async with make(path, FakeChannel(), brain) as kit:
        await asyncio.sleep(1)
        assert brain.seen == []
        last = (await kit.events("r", raw=True))[-1]
        assert (last.content.code, last.content.data["cause"]) == ("reply_interrupted", asked.id)  # type: ignore[union-attr]


async def test_what_was_armed_in_the_last_moment_before_a_crash_still_rings(tmp_path: Path) -> None:
    """Timers stand in the commit of what they time: a copy made right after it has both."""
    store, timers = (
        CopyingStore(str(tmp_path / "a.db"), tmp_path),
        RoomTimers(inactive_after_seconds=30, closed_after_seconds=30),
    )
    asker = Brain(script=lambda c, e: _asking(c))
    async with kit_with(FakeChannel(), asker, store=store) as kit:
        await kit.create_room("idle", timers=timers)
        idle = store.last
        await kit.create_room("r", channels=["sms", "ai"])
        store.watch = "approval"
        await say(kit, "refund", "r")
        await asyncio.sleep(1)
        approval = store.caught
        store.watch = "timer"
        await kit.take_over("r", "eve", lease_s=60)
        leased = store.caught
        await kit.pause_room("idle")
        paused = store.caught
    async with kit_with(FakeChannel(), Brain(), store=SQLiteStore(str(idle))) as kit:
        await asyncio.sleep(31)
        assert (await kit.get_room("idle")).status == "paused"
    async with kit_with(FakeChannel(), Brain(script=lambda c, e: stream()), store=SQLiteStore(str(approval))) as kit:
        await asyncio.sleep(31)
        assert len(await kit.approvals(status="expired")) == 1
    async with kit_with(FakeChannel(), Brain(), store=SQLiteStore(str(leased))) as kit:
        await asyncio.sleep(61)
        assert (await kit.get_room("r")).floor.mode == "waiting"
    async with kit_with(FakeChannel(), Brain(), store=SQLiteStore(str(paused))) as kit:
        await asyncio.sleep(31)
        assert (await kit.get_room("idle")).status == "closed"


async def _asking(context: Any) -> Any:
    await context.turn.approve(CALL, expires_s=30)
    yield "done"


async def test_by_policy_an_interrupted_question_is_asked_again(tmp_path: Path, make: Make) -> None:
    slow = Brain(script=lambda c, e: stream("half ", "never", every=10))
    async with make(tmp_path / "a.db", FakeChannel(), slow) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "first", "r")
        await asyncio.sleep(11)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    brain = Brain()
    brain.turn_policy = TurnPolicy(on_crash="ask_again")
    async with make(path, FakeChannel(), brain) as kit:
        await asyncio.sleep(5)
        assert [t for _, t, _ in await said(kit, "r")] == ["first", "half ", "echo first"]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_call_cut_by_the_crash_runs_again_only_if_that_is_harmless(
    tmp_path: Path, make: Make, idempotent: bool
) -> None:
    async def script() -> Any:
        yield ToolStep(CALL, idempotent=idempotent)
        await asyncio.sleep(1000)

    async with make(tmp_path / "a.db", FakeChannel(), Brain(script=lambda c, e: script())) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "charge me", "r")
        await asyncio.sleep(1)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    ran: list[str] = []

    class Rerunning(Brain):
        async def rerun_tool(
            self, call: ToolCallContent, *, room_id: str, tenant: str, context: RoomContext
        ) -> ToolCallContent:
            assert [event.text for event in context.events] == ["charge me"]
            ran.append(call.call_id)
            return call.model_copy(update={"status": "completed", "result": "charged"})

    async with make(path, FakeChannel(), Rerunning()) as kit:
        await asyncio.sleep(1)
        steps = [e.content for e in await kit.events("r", raw=True) if isinstance(e.content, ToolCallContent)]
        expected = ("completed", "charged") if idempotent else ("unknown_outcome", None)
        assert [(s.status, s.result) for s in steps[1:]] == [expected]
        assert ran == (["c1"] if idempotent else [])


@pytest.mark.parametrize("now", ["idempotent", "once", "denied", "guarded", "gone", "changed"])
async def test_a_real_tool_runs_again_under_its_key_only_if_the_gate_still_lets_it(
    tmp_path: Path, make: Make, now: str
) -> None:
    ran: list[tuple[str, int]] = []
    hold = asyncio.Event()

    async def book(seats: int, context: ToolContext) -> str:
        """Books."""
        ran.append((context.idempotency_key, seats))
        if len(ran) == 1:
            await hold.wait()
        return f"booked {seats} in {context.room_id}"

    def brain(**options: Any) -> AIChannel:
        box = Toolbox([tool(idempotent=now != "once")(book)] if options.pop("offered", True) else [])
        return AIChannel("ai", ScriptedAI([call("book", "c1", seats=2)], "Done."), tool_handler=box, **options)

    async with make(tmp_path / "a.db", FakeChannel(), brain()) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "two seats", "r")
        await asyncio.sleep(1)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    assert len(ran) == 1
    later = brain(tool_policy=ToolPolicy(deny=("book",)) if now == "denied" else None, offered=now != "gone")
    kit = make(path, FakeChannel(), later)

    @kit.before(BeforeToolUse)
    async def guard(moment: BeforeToolUse) -> Any:
        if now == "changed":
            return Modify(moment.value.model_copy(update={"arguments": {"seats": 1}}))
        return Block("no") if now == "guarded" else None

    async with kit:
        await asyncio.sleep(1)
        steps = [e.content for e in await kit.events("r", raw=True) if isinstance(e.content, ToolCallContent)]
    again = now == "idempotent"
    assert [(s.status, s.result) for s in steps[1:]] == [
        ("completed", "booked 2 in r") if again else ("unknown_outcome", None)
    ]
    assert ran == ran[:1] * (2 if again else 1)


async def test_the_outbox_goes_on_and_an_attempt_under_way_is_marked(tmp_path: Path, make: Make) -> None:
    slow = FakeChannel("slow", policy=DeliveryPolicy())
    slow.hang()
    async with make(tmp_path / "a.db", FakeChannel(), slow) as kit:
        await kit.create_room("r", channels=["sms", "slow"])
        for i in range(3):
            await say(kit, str(i), "r")
        await asyncio.sleep(1)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
        slow.resume()
    again = FakeChannel("slow", policy=DeliveryPolicy())
    async with make(path, FakeChannel(), again) as kit:
        await asyncio.sleep(5)
        assert again.texts == ["0", "1", "2"]
        assert [d.maybe_duplicate for d in await kit.deliveries("r")] == [True, False, False]
        final = crash(path, tmp_path / "c.db")
    silent = FakeChannel("slow")
    async with make(final, FakeChannel(), silent):
        await asyncio.sleep(5)
        assert silent.texts == []


async def test_a_cut_reply_is_delivered_once_and_after_what_waited_already(tmp_path: Path, make: Make) -> None:
    stuck = FakeChannel("out")
    stuck.hang()
    brain = Brain(script=lambda c, e: stream(*[f"w{i} " for i in range(50)], every=0.1))
    async with make(tmp_path / "a.db", FakeChannel(), stuck, brain) as kit:
        await kit.create_room("r", channels=["sms", "out", "ai"])
        await say(kit, "one", "r")
        await say(kit, "two", "r")
        await asyncio.sleep(1.05)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    later = FakeChannel("out")
    async with make(path, FakeChannel(), later, Brain(script=lambda c, e: stream())) as kit:
        await kit.drain(5)
        assert [text.split()[0] for text in later.texts] == ["one", "two", "w0"]


async def test_floor_attention_and_detachment_survive(tmp_path: Path, make: Make) -> None:
    async with make(tmp_path / "a.db", FakeChannel(), Brain()) as kit:
        await kit.create_room("r", channels=["sms", "ai"], external_id="x")
        await kit.create_room("q")
        await kit.request_human("q", "help")
        await kit.take_over("r", "eve", lease_s=60)
        await kit.detach_channel("r", "sms")
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
    async with make(path, FakeChannel(), Brain()) as kit:
        assert (await kit.get_room("r")).floor.holder == "eve"
        assert [r.id for r in await kit.attention()] == ["q"]
        assert (await say(kit, "me", "r")).reason == "source_not_attached"
        await asyncio.sleep(61)
        assert (await kit.get_room("r")).floor.mode == "waiting"


async def test_views_resume_without_a_gap_over_the_crash(tmp_path: Path, make: Make) -> None:
    async with make(tmp_path / "a.db", FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        view = await kit.open_view("r", "sms", lambda item: None, tail=10)
        await say(kit, "0", "r")
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
        epoch, index = view.epoch, view.index
    async with make(path, FakeChannel()) as kit:
        await say(kit, "1", "r")
        resumed = await kit.open_view("r", "sms", lambda item: None, after=index)
        assert resumed.epoch == epoch
        assert not resumed.resync
        assert [e.text for e in resumed.events if e.text] == ["0", "1"]
        ahead = await kit.open_view("r", "sms", lambda item: None, after=10_000)
        assert ahead.resync


class WeighingStore(SQLiteStore):
    """Adds up what is written of a growing reply, and can refuse such a write."""

    written = 0
    refuse = 0

    async def commit(self, batch: Batch) -> Any:
        mine = [record for record in batch.put if record.kind in ("stream", "words")]
        self.written += sum(len(record.value["text"]) for record in mine)
        if any(record.kind == "words" for record in mine) and self.refuse:
            self.refuse -= 1
            raise StoreUnavailable("the disk is full")
        return await super().commit(batch)


PIECES = [f"{n:06d} " + "x" * 500 + " " for n in range(400)]
LONG = "".join(PIECES)


@pytest.mark.parametrize("refuse", [0, 3])
async def test_a_long_reply_is_written_about_as_often_as_it_is_long(tmp_path: Path, make: Make, refuse: int) -> None:
    store = WeighingStore(str(tmp_path / "a.db"))
    store.refuse = refuse
    brain = Brain(script=lambda c, e: _and_hangs(PIECES))
    async with kit_with(FakeChannel(), brain, store=store) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "tell me", "r")
        await asyncio.sleep(60)
        path = crash(tmp_path / "a.db", tmp_path / "b.db")
        assert store.written < 12 * len(LONG), "the whole text each time would be 90 times as much"
    async with make(path, FakeChannel(), Brain()) as kit:
        await asyncio.sleep(1)
        texts = [t for channel, t, _ in await said(kit, "r") if channel == "ai"]
        assert texts == [LONG]
        for kind in ("stream", "words"):
            assert await kit.engine.store.records(RecordQuery(kind, "default")) == []


async def test_a_long_reply_that_ends_leaves_no_row_behind(tmp_path: Path) -> None:
    store = WeighingStore(str(tmp_path / "a.db"))
    brain = Brain(script=lambda c, e: stream(*PIECES, every=0.01))
    async with kit_with(FakeChannel(), brain, store=store) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await (await say(kit, "tell me", "r")).settled()
        assert [t for channel, t, _ in await said(kit, "r") if channel == "ai"] == [LONG]
        for kind in ("stream", "words"):
            assert await store.records(RecordQuery(kind, "default")) == []


async def _and_hangs(pieces: list[str]) -> Any:
    for piece in pieces:
        await asyncio.sleep(0.01)
        yield piece
    await asyncio.sleep(10_000)
