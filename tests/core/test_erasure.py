"""Erasing a person: nothing of theirs is left anywhere, ids and indexes stay, and what others said is theirs."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, InboundMessage, KitOptions, RoomKit
from roomkit.ai.tools import tool
from roomkit.core import transfer
from roomkit.core.erasure import Erasure, erase_person
from roomkit.core.memory import MemoryStore
from roomkit.errors import StateError, Unavailable
from roomkit.models.consent import Digests
from roomkit.models.content import EditContent, MediaContent, ReactionContent, SystemContent, TextContent
from roomkit.models.delivery import DeliveryPolicy
from roomkit.models.event import EventType
from roomkit.models.hooks import PersonErased
from roomkit.models.room import Identity
from roomkit.models.stream import StreamEnd
from roomkit.ports.channel import TurnPolicy
from roomkit.ports.store import Batch, Duplicate, EventQuery, Record, RecordQuery
from roomkit.testing import FakeChannel, ScriptedAI
from roomkit.testing.ai import call
from roomkit.testing.postgres import PostgresCluster, find_binaries
from tests.core.rooms import Brain, gapless, kit_with, say, stream
from tests.core.test_fork import Phone
from tests.core.test_transfer import lines

PHONE = "+447700900123"
SECRET = "Marmalade4711"
"""Stands in everything that the person says and is; afterwards it stands nowhere."""
KINDS = (*transfer.TAKEN, *transfer.LEFT, "room", "binding", "participant", "identity", "erasure")
_names = itertools.count()


async def left(kit: RoomKit, *words: str) -> list[str]:
    """Where one of the words can still be read."""
    texts: list[str] = []
    for kind in KINDS:
        texts += map(str, await kit.engine.store.records(RecordQuery(kind, "default", limit=10_000)))
    for room in await kit.list_rooms(limit=1000):
        for raw in (True, False):
            texts += [e.model_dump_json() for e in await kit.events(room.id, raw=raw, limit=10_000)]
    return [text for text in texts if any(word in text for word in words)]


@tool
def order(item: str) -> str:
    """Orders something."""
    return f"{item} ordered"


async def picture() -> AsyncIterator[bytes]:
    yield b"\x89PNG\r\n\x1a\n" + SECRET.encode() * 10


async def conversation(kit: RoomKit) -> str:
    """One person on two channels with an AI, an agent who quotes, a picture, an edit, a reaction, a draft."""
    kit.register_channel(Phone())
    script = ([call("order", item=f"{SECRET} tea")], "It is on its way.")
    kit.register_channel(AIChannel("ai", ScriptedAI(*script, repeat=True)).configure(tools=(order,)), default=True)
    await kit.identities.put(
        Identity(id="cust-1", display_name=f"Ann {SECRET}", addresses={"sms": (PHONE,), "email": (f"{SECRET}@x.y",)})
    )
    raw = {"From": PHONE, "Body": SECRET}
    message = InboundMessage.text("sms", PHONE, f"I am {SECRET}", external_id="m1", raw_payload=raw)
    result = await kit.process_inbound(message)
    await result.settled()
    room_id, event = result.room_id or "", result.event
    assert event is not None
    who = event.source.participant_id or ""
    blob = await kit.blobs.put("default", picture(), mime_type="image/png", filename=f"{SECRET}.png", room_id=room_id)
    await kit.process_inbound(
        InboundMessage(
            channel_id="sms",
            sender_id=PHONE,
            content=MediaContent(url=f"blob:{blob.id}", mime_type="image/png", caption=SECRET),
        )
    )
    edit = EditContent(target_event_id=event.id, new_content=TextContent(text=f"{SECRET}!"))
    assert (await kit.process_inbound(InboundMessage(channel_id="sms", sender_id=PHONE, content=edit))).event
    await kit.send(room_id, ReactionContent(target_event_id=event.id, emoji="\U0001f44d"), by="agent")
    await kit.draft(room_id, f"draft of {SECRET}", by=who)
    await (await kit.send(room_id, "You asked for tea, dear customer", by="agent")).settled()
    await kit.update_room_metadata(room_id, {"phone": PHONE})
    await kit.drain(5)
    kit.engine.draining = False
    return room_id


async def erased_everywhere(kit: RoomKit, who: str) -> tuple[str, Erasure]:
    room_id = await conversation(kit)
    before = await kit.events(room_id, raw=True, limit=1000)
    assert len(await left(kit, SECRET, PHONE)) > 8, "the conversation is full of it"
    told: list[PersonErased] = []
    kit.on(PersonErased)(told.append)
    receipt = await kit.erase_person(who)
    assert await left(kit, SECRET, PHONE, "cust-1") == []
    after = await kit.events(room_id, raw=True, limit=1000)
    assert await gapless(kit, room_id)
    assert [e.id for e in after[: len(before)]] == [e.id for e in before]
    assert "You asked for tea, dear customer" in [e.text for e in after], "what others said is theirs"
    assert "It is on its way." in [e.text for e in after]
    assert receipt.rooms == {room_id: receipt.events}
    assert (receipt.events, receipt.blobs, receipt.identities) == (4, 1, 1)
    assert [line for line in await lines(kit, room_id) if SECRET in line or PHONE in line] == []
    return room_id, receipt


@pytest.mark.parametrize("who", ["cust-1", PHONE])
async def test_nothing_is_left_in_memory(who: str) -> None:
    async with kit_with() as kit:
        room_id, _ = await erased_everywhere(kit, who)
        assert [p for p in await kit.participants(room_id) if p.address or p.identity_id] == []
        assert [b.channel_id for b in await kit.bindings(room_id)] == ["ai"], "nothing is sent there any more"
        again = await say(kit, "hello again", who=PHONE)
        assert again.room_id != room_id, "whoever comes back is somebody new"
        assert (await kit.erase_person("nobody")).rooms == {}


@pytest.mark.real_time
@pytest.mark.may_block
async def test_nothing_is_left_in_the_bytes_of_the_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "rooms.db"

    def bytes_left() -> list[str]:
        found = [file for file in tmp_path.rglob("*") if file.is_file()]
        words = (SECRET.encode(), PHONE.encode())
        return [file.name for file in found if any(word in file.read_bytes() for word in words)]

    async with RoomKit(f"sqlite:///{path}") as kit:
        await erased_everywhere(kit, "cust-1")
        assert bytes_left() == [], "while it is still open"
    assert bytes_left() == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    if find_binaries() is None and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with PostgresCluster() as running:
        yield running


@pytest.mark.real_time
@pytest.mark.may_block
async def test_nothing_is_left_in_postgresql(cluster: PostgresCluster) -> None:
    async with RoomKit(f"{cluster.url}?schema=e{next(_names)}") as kit:
        await erased_everywhere(kit, "cust-1")


async def test_other_people_and_other_tenants_stay() -> None:
    async with kit_with(Phone()) as kit:
        mine = (await say(kit, "mine", who=PHONE)).room_id or ""
        other = (await say(kit, "theirs", who="+4499")).room_id or ""
        acme = kit.tenant("acme")
        kit.engine.registry.tenants["sms"] = "default"
        await acme.create_room("r", channels=())
        await acme.send("r", "acme's", by=f"sms:{PHONE}")
        await kit.erase_person(PHONE)
        assert [e.text for e in await kit.events(mine) if e.type is EventType.MESSAGE] == [""]
        assert "theirs" in [e.text for e in await kit.events(other)]
        assert "acme's" in [e.text for e in await acme.events("r")]


async def test_an_address_that_people_share_erases_only_what_came_from_it() -> None:
    async with kit_with(Phone()) as kit:
        for name in ("one", "two"):
            await kit.identities.put(Identity(id=name, addresses={"sms": (PHONE,)}))
        await kit.create_room("r", channels=())
        await kit.add_member("r", "p1")
        await kit.update_member("r", "p1", identity_id="one")
        await kit.send("r", "from the desk", by="p1")
        room_id = (await say(kit, "from the phone", who=PHONE)).room_id or ""
        await kit.erase_person(PHONE)
        assert "from the desk" in [e.text for e in await kit.events("r")]
        assert "from the phone" not in [e.text for e in await kit.events(room_id)]
        assert await kit.identities.get("default", "one") is not None
        await kit.erase_person("one")
        assert "from the desk" not in [e.text for e in await kit.events("r")]
        assert await kit.identities.get("default", "one") is None


async def test_what_waits_for_delivery_or_for_an_answer_is_not_told_any_more() -> None:
    class Slow(Phone):
        async def deliver(self, event, binding, context):  # type: ignore[no-untyped-def]
            await asyncio.sleep(10)
            return await super().deliver(event, binding, context)

    slow, brain = Slow(), Brain(script=lambda context, event: stream("a", "b", "c", every=20))
    async with kit_with(slow, brain) as kit:
        await kit.create_room("r", channels=["ai"])
        await kit.attach_channel("r", "sms", metadata={"phone_number": "+4499"})
        await kit.add_member("r", "ann")
        for number in range(3):
            await kit.send("r", f"{SECRET} {number}", by="ann")
        await asyncio.sleep(1)
        await kit.erase_person("ann")
        await asyncio.sleep(200)
        assert slow.sent == [f"{SECRET} 0"], "only what was already on its way"
        assert brain.cancelled == 1
        assert len(brain.seen) == 1, "the questions that waited are not asked"
        assert await left(kit, SECRET) == []


async def test_a_delivery_that_is_between_two_attempts_is_not_tried_again() -> None:
    busy = FakeChannel(
        "sms",
        temper=lambda event, n: (
            Unavailable("sms", f"busy with {SECRET}") if n < 3 and "later" not in event.text else None
        ),
        policy=DeliveryPolicy(idempotent=True, max_retries=5, base_delay=10, factor=1),
    )
    async with kit_with(busy, FakeChannel("desk")) as kit:
        await kit.create_room("r", channels=["sms", "desk"])
        await kit.add_member("r", "ann")
        await kit.process_inbound(InboundMessage.text("desk", "ann", SECRET, participant_id="ann"), room_id="r")
        await asyncio.sleep(1)
        tried = list(busy.attempts)
        assert len(tried) == 1
        await kit.erase_person("ann")
        await kit.send("r", "later", by="bob")
        await asyncio.sleep(200)
        assert busy.texts == ["later"], "the lane goes on without it"
        assert await left(kit, SECRET) == []
        assert "event_erased" in [d.reason for d in await kit.deliveries("r")]


@pytest.mark.parametrize("read", [0, 1, 3, 8])
async def test_an_export_under_way_ends_with_an_error_instead_of_telling_the_rest(read: int) -> None:
    async with kit_with(Phone()) as kit:
        await kit.create_room("r", channels=())
        await kit.add_member("r", "ann", display_name=f"Ann {SECRET}")
        for number in range(5):
            await kit.send("r", f"{SECRET} {number}", by="ann")
        export = aiter(kit.export_room("r"))
        for _ in range(read + 1):
            await anext(export)
        await kit.erase_person("ann")
        rest: list[str] = []
        with pytest.raises(StateError, match="export again"):
            rest += [line async for line in export]
        assert rest == []
        assert SECRET not in "".join(await lines(kit, "r"))


async def test_what_a_consumer_failed_with_and_what_was_enqueued_say_nothing_of_the_person() -> None:
    async with kit_with(Phone()) as kit:
        await kit.create_room("r", channels=())
        await kit.add_member("r", "ann", display_name=f"Ann {SECRET}")

        def bad(event: Any) -> None:
            raise ValueError(f"cannot read {event.text!r} of {event.source.participant_id}")

        consumer = kit.consume("crm", bad, retries=0, kinds=["message"])
        slow = kit.consume("slow", bad, retries=5, kinds=["message"])
        await kit.send("r", SECRET, by="ann")
        await kit.send("r", "Ask annabel", by="bob")
        rows = [
            Record(kind, "default", f"{kind}{n}", {"content": {"type": "text", "text": text}, "by": by, "error": error})
            for kind in ("inbox_refused", "inbox")
            for n, (text, by, error) in enumerate([(SECRET, "ann", "no room"), ("theirs", "bob", "no room")])
        ]
        await kit.engine.store.commit(Batch("default", kit.engine.epoch, put=tuple(rows)))
        await asyncio.sleep(2)
        assert len(await consumer.dead_letters()) == 2
        await kit.erase_person("ann")
        await asyncio.sleep(600)
        everything = [*await consumer.dead_letters(), *await slow.dead_letters()]
        assert len(everything) == 4
        assert sum("Ask annabel" in x["told"] for x in everything) == 2, "what others said stays"
        for kind in ("inbox_refused", "inbox"):
            left_over = await kit.engine.store.records(RecordQuery(kind, "default"))
            assert [r.value["by"] for r in left_over] == ["bob"]
            everything += left_over
        assert SECRET not in str(everything)


async def test_whoever_looks_on_is_told_which_messages_are_gone() -> None:
    async with kit_with(Phone()) as kit:
        result = await say(kit, SECRET, who=PHONE)
        room_id, event = result.room_id or "", result.event
        assert event is not None
        seen: list[Any] = []
        view = await kit.open_view(room_id, "sms", seen.append)
        from roomkit.core.streams import INTERNAL

        staff: list[Any] = []
        other = await kit.open_view(room_id, INTERNAL, staff.append)
        await kit.erase_person(PHONE)
        told = [e for e in staff if isinstance(getattr(e, "content", None), SystemContent)]
        assert [e.content.data["event_ids"] for e in told if "event_ids" in e.content.data] == [[event.id]]
        assert not [e for e in staff if isinstance(e, StreamEnd)]
        view.close()
        other.close()


CUTS = range(1, 12)


@pytest.mark.parametrize("cut", CUTS)
async def test_an_erasure_that_a_crash_has_cut_is_finished_by_asking_again(cut: int) -> None:
    async with kit_with() as kit:
        await conversation(kit)
        store = kit.engine.store
        commit: Callable[[Any], Awaitable[Any]] = store.commit
        done = [0]

        async def dies(batch: Any) -> Any:
            done[0] += 1
            if done[0] >= cut:
                raise OSError("power cut")
            return await commit(batch)

        store.commit = dies  # type: ignore[method-assign]
        try:
            await kit.erase_person("cust-1")
        except OSError:
            pass
        store.commit = commit  # type: ignore[method-assign]
        await kit.erase_person("cust-1")
        await kit.erase_person(PHONE)
        assert await left(kit, SECRET, PHONE, "cust-1") == []


async def test_who_something_was_for_is_not_told_either() -> None:
    async with kit_with(Phone()) as kit:
        await kit.create_room("r", channels=["sms"])
        for name in ("amy", "bob"):
            await kit.add_member("r", name)
        await kit.whisper("r", "psst", to="person:amy", by="eve")
        await kit.set_visibility("r", "sms", "person:bob,person:amy")
        target = (await kit.send("r", "for both", by="eve", visibility="person:amy,person:bob")).event
        assert target is not None
        await kit.send("r", ReactionContent(target_event_id=target.id, emoji="x"), by="eve", visibility="person:amy")
        await kit.erase_person("amy")
        assert await left(kit, "person:amy") == []
        assert len(await left(kit, "person:bob")) > 0


class Meanwhile(MemoryStore):
    """Does something once, while a fork is being written."""

    then: Callable[[], Awaitable[object]] | None = None

    async def commit(self, batch: Batch) -> Duplicate | None:
        answer = await super().commit(batch)
        then = self.then
        if then is not None and batch.room_id == "copy":
            self.then = None
            await then()
        return answer


async def test_a_fork_during_which_somebody_is_erased_is_refused() -> None:
    """And nothing of them is left of the copy, although it was written nearly whole."""
    store = Meanwhile()
    async with kit_with(Phone(), store=store) as kit:
        event = (await say(kit, "a secret")).event
        assert event is not None
        room_id = event.room_id
        edit = EditContent(target_event_id=event.id, new_content=TextContent(text="a better secret"))
        await kit.process_inbound(InboundMessage(channel_id="sms", sender_id="+4411", content=edit))
        blob = await kit.blobs.put("default", picture(), mime_type="image/png", room_id=room_id)
        shown = MediaContent(url=f"blob:{blob.id}", mime_type="image/png", caption="secret")
        await kit.process_inbound(InboundMessage(channel_id="sms", sender_id="+4411", content=shown))
        (person,) = await kit.participants(room_id)
        store.then = partial(kit.erase_person, person.id)
        with pytest.raises(StateError, match="during this fork; fork it again"):
            await kit.fork(room_id, new_id="copy")
        assert [room.id for room in await kit.list_rooms()] == [room_id]
        kept = await store.events(EventQuery("default", "copy", limit=100))
        assert len(kept) > 3
        assert [e for e in kept if "secret" in str(e) or "+4411" in str(e)] == []
        assert [r for r in await store.records(RecordQuery("mutation", "default")) if "secret" in str(r)] == []
        assert list(Path(kit.blobs._root).rglob("*.json")) == []  # type: ignore[attr-defined]
        await kit.fork(room_id, new_id="another")


async def test_a_fork_made_during_an_erasure_is_erased_too() -> None:
    async with kit_with(Phone()) as kit:
        room_id = (await say(kit, "a secret")).room_id or ""
        (person,) = await kit.participants(room_id)
        forks: list[str] = []

        async def erase_in(room: str, ids: list[str], addresses: list[str]) -> dict[str, int]:
            if not forks:
                forks.append((await kit.fork(room)).id)
            return await kit.erase_in_room(room, ids, addresses)

        receipt = await erase_person(kit.engine, "default", person.id, erase_in)
        assert set(receipt.rooms) == {room_id, *forks}
        assert not [e.text for room in receipt.rooms for e in await kit.events(room, raw=True) if "secret" in e.text]


async def test_what_others_asked_beside_the_erased_is_asked_again() -> None:
    brain = Brain(script=lambda context, event: stream("yes", every=5))
    async with kit_with(Phone(), brain) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await say(kit, "first", "r", who="+3")
        await asyncio.sleep(1)
        await asyncio.gather(say(kit, SECRET, "r", who="+1"), say(kit, "and mine", "r", who="+2"))
        await asyncio.sleep(6)
        assert brain.seen[1:] == [[SECRET, "and mine"]], "both wait for one answer"
        await kit.erase_person("sms:+1")
        await asyncio.sleep(20)
        assert brain.seen[2:] == [["and mine"]]
        assert await kit.engine.store.records(RecordQuery("turn", "default")) == []


async def test_a_digest_loses_the_words_of_the_erased_alone() -> None:
    async with kit_with(Phone(), options=KitOptions(digests=Digests(over=2, window_s=60, lines=4))) as kit:
        kit.register_channel(FakeChannel("web", "web"))
        await kit.create_room("r", channels=["web"])
        await kit.attach_channel("r", "sms", metadata={"address": "+15550199", "timezone": "UTC"}, participant_id="eve")
        for number, who in enumerate(["bob", "bob", "bob", "amy", "bob", "bob", "amy", "bob"]):
            text = f"{SECRET if who == 'bob' else 'tea'} {number}"
            said = InboundMessage.text("web", who, text, participant_id=who)
            await (await kit.process_inbound(said, room_id="r")).settled()
        await asyncio.sleep(61)
        (digest,) = [e for e in await kit.events("r") if "digest" in e.metadata]
        assert digest.text.split("\n")[1:] == [f"{SECRET} 2", "tea 3", f"{SECRET} 4", f"{SECRET} 5", "… and 2 more"]
        await kit.erase_person("bob")
        (digest,) = [e for e in await kit.events("r") if "digest" in e.metadata]
        assert digest.text.split("\n")[1:] == ["…", "tea 3", "…", "…", "… and 2 more"]
        assert await left(kit, SECRET) == []


async def test_what_an_approval_was_asked_for_goes_with_whoever_it_was_about() -> None:
    @tool(needs_approval=True)
    def buy(item: str) -> str:
        """Buys something."""
        return "bought"

    script = ([call("buy", item=f"{SECRET} tea")], "done", [call("buy", item="coffee")], "done")
    ai = AIChannel("ai", ScriptedAI(*script)).configure(tools=(buy,))
    async with kit_with(Phone(), ai) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        for who in ("amy", "bob"):
            asked = await kit.process_inbound(
                InboundMessage.text("sms", who, f"I am {who}", participant_id=who), room_id="r"
            )
            await asyncio.sleep(1)
            (approval,) = await kit.approvals()
            await kit.answer_approval(approval["id"], True, by="desk", reason="fine")
            await asked.settled()
        assert len(await left(kit, SECRET)) >= 5
        await kit.erase_person("amy")
        assert await left(kit, SECRET) == []
        assert len(await left(kit, "coffee")) >= 5, "what others asked for stays"


async def test_nobody_can_allow_what_nobody_can_see_any_more() -> None:
    """One answer to two people: the erased one's question is gone, the call it led to is still asked for."""

    @tool(needs_approval=True)
    def buy(item: str) -> str:
        """Buys something."""
        bought.append(item)
        return "bought"

    bought: list[str] = []
    ai = AIChannel("ai", ScriptedAI([call("buy", item=f"{SECRET} tea")], "done"))
    ai.configure(tools=(buy,), turn_policy=TurnPolicy("coalesce", quiet_s=1.0))
    async with kit_with(Phone(), ai) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        for who in ("amy", "bob"):
            said = InboundMessage.text("sms", who, f"I am {who}", participant_id=who)
            asked = await kit.process_inbound(said, room_id="r")
        await asyncio.sleep(2)
        await kit.erase_person("amy")
        (approval,) = await kit.approvals()
        assert approval["arguments"] == {}
        with pytest.raises(StateError, match="nobody can see what a yes would allow"):
            await kit.answer_approval(approval["id"], True, by="desk")
        await kit.answer_approval(approval["id"], False, by="desk")
        await asked.settled()
        assert bought == []


async def test_files_go_before_what_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever is left of an erasure that was cut in the middle of a room goes the next time."""
    async with kit_with() as kit:
        room_id = await conversation(kit)
        blobs, delete = kit.blobs, kit.blobs.delete

        async def dies(*_: Any) -> bool:
            raise OSError("power cut")

        monkeypatch.setattr(blobs, "delete", dies)
        with pytest.raises(OSError, match="power cut"):
            await kit.erase_person("cust-1")
        monkeypatch.setattr(blobs, "delete", delete)
        assert (await kit.erase_person("cust-1")).blobs == 1
        assert await left(kit, SECRET, PHONE) == [], room_id


async def test_a_conversation_of_one_s_own_is_a_way_to_them_and_goes() -> None:
    """Where a network answers in a conversation and not to a person, as Teams does."""
    chat = FakeChannel("chat", "teams")
    async with kit_with(chat) as kit:
        assert chat.port is not None
        vault = chat.port.vault
        for who in ("user-amy", "user-bob"):
            message = InboundMessage.text("chat", who, "hi", conversation_id=f"a:{who[5:]}")
            assert (await kit.process_inbound(message)).room_id
            await vault.put(f"conversation a:{who[5:]}", {"service": "https://example.com"})
        await kit.erase_person("user-amy")
        for room in await kit.list_rooms():
            await (await kit.send(room.id, "still there?")).settled()
        assert chat.texts == ["still there?"], "one of two"
        assert await vault.get("conversation a:amy") is None
        assert await vault.get("conversation a:bob") is not None
        assert await left(kit, "a:amy", "user-amy") == []


async def test_a_copy_that_a_crash_has_cut_tells_nothing_either() -> None:
    store = MemoryStore()
    async with kit_with(Phone(), store=store) as kit:
        room_id = (await say(kit, f"I am {SECRET}", who=PHONE)).room_id or ""
        await say(kit, "and I am not", who="+4412")
        commit: Callable[[Any], Awaitable[Any]] = store.commit
        cut = [False]

        async def dies(batch: Any) -> Any:
            cut[0] = cut[0] or any(one.kind == "room" for one in batch.put)
            if cut[0]:
                raise OSError("power cut")
            return await commit(batch)

        store.commit = dies  # type: ignore[method-assign]
        with pytest.raises(OSError, match="power cut"):
            await kit.fork(room_id, new_id="copy")
        store.commit = commit  # type: ignore[method-assign]

        async def copied() -> str:
            return str(await store.events(EventQuery("default", "copy", limit=100)))

        assert SECRET in await copied()
        await kit.erase_person(PHONE)
        assert SECRET not in await copied()
        assert PHONE not in await copied()


async def test_an_old_message_that_comes_again_brings_nobody_back() -> None:
    kit = kit_with(FakeChannel("sms"))
    async with kit:
        await kit.create_room("r", channels=["sms"])
        await say(kit, "hello", "r", external_id="m1")
        await kit.erase_person("+4411")
        again = await say(kit, "hello", "r", external_id="m1")
        assert again.duplicate
        assert "+4411" not in repr(await kit.participants("r"))
        assert [event.type for event in await kit.events("r", raw=True)].count(EventType.PARTICIPANT_JOINED) == 1
