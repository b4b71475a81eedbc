"""Export and import: the same room elsewhere, exactly; and nothing but a whole, unaltered export is taken."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from roomkit import InboundMessage, RoomKit
from roomkit.core import transfer
from roomkit.errors import StateError, UsageError
from roomkit.models.content import DeleteContent, EditContent, MediaContent, ReactionContent, TextContent
from roomkit.models.room import RoomTimers
from roomkit.ports.store import RecordQuery
from roomkit.testing import FakeChannel, ScriptedAI, VirtualClock
from roomkit.testing.ai import call
from tests.core.rooms import Brain, kit_with, say
from tests.core.test_fork import Phone, picture

TEXTS = ("hi", "", "tea \u00fc \U0001f600", "line\nbreak \u2028 \x00", '"quoted" {json}', "blob:nothing")


async def lines(kit: Any, room_id: str, **options: Any) -> list[str]:
    return [line async for line in kit.export_room(room_id, **options)]


async def lively(kit: RoomKit, seed: int) -> str:
    """A room in which all kinds of things have happened."""
    dice = random.Random(seed)
    result = await say(kit, "hello", who="+4411")
    room_id = result.room_id or ""
    await kit.update_room_metadata(room_id, {"plan": dice.choice(["a", 1, None]), "deep": {"x": [1, "y"]}})
    sent = []
    for step in range(dice.randrange(4, 25)):
        action = dice.randrange(10)
        target = dice.choice(sent).id if sent else ""
        by = dice.choice(["ann", "bob"])
        if action < 4 or not target:
            sent += [e for e in [(await kit.send(room_id, dice.choice(TEXTS) or "x", by=by)).event] if e]
        elif action == 4:
            await kit.send(room_id, EditContent(target_event_id=target, new_content=TextContent(text="new")), by=by)
        elif action == 5:
            await kit.send(room_id, DeleteContent(target_event_id=target), by=by)
        elif action == 6:
            await kit.send(room_id, ReactionContent(target_event_id=target, emoji="\U0001f44d"), by=by)
        elif action == 7:
            await kit.add_member(room_id, f"m{step}", display_name=f"Member {step}")
        elif action == 8:
            await kit.note(room_id, "a note", "ann")
        else:
            await kit.draft(room_id, "a draft", by="bob")
    return room_id


@pytest.mark.parametrize("seed", range(25))
async def test_a_round_trip_is_exact(seed: int) -> None:
    async with kit_with(Phone(), Brain()) as kit, RoomKit(clock=VirtualClock()) as other:
        room_id = await lively(kit, seed)
        await kit.drain(5)
        there = await lines(kit, room_id)
        room = await other.import_room(there)
        assert room == (await kit.get_room(room_id)).replaced(forked_from=None)
        assert await lines(other, room_id) == there
        mine = [e.model_dump() for e in await kit.events(room_id, limit=1000)]
        assert [e.model_dump() for e in await other.events(room_id, limit=1000)] == mine, "projected alike as well"


async def test_another_tenant_and_another_id_take_it_too() -> None:
    async with kit_with(Phone()) as kit:
        room_id = await lively(kit, 3)
        there = await lines(kit, room_id)
        acme = kit.tenant("acme")
        copy = await acme.import_room(iter(there), room_id="copy")
        assert (copy.id, copy.tenant) == ("copy", "acme")
        assert {(e.room_id, e.tenant) for e in await acme.events("copy", limit=1000)} == {("copy", "acme")}
        again = [json.loads(line) for line in await lines(acme, "copy")][1:-1]
        first = [json.loads(line) for line in there][1:-1]
        assert json.dumps(again).replace("copy", room_id) == json.dumps(first).replace("copy", room_id)


async def test_a_seat_of_another_tenants_channel_is_nobodys() -> None:
    theirs, brain = Phone(), Brain()
    async with kit_with(FakeChannel("shared")) as kit:
        kit.tenant("acme").register_channel(theirs)
        kit.tenant("acme").register_channel(brain)
        await kit.tenant("acme").create_room("r", channels=["shared", "sms", "ai"])
        await kit.tenant("other").import_room([line async for line in kit.tenant("acme").export_room("r")])
        for tenant, heard in (("other", 0), ("acme", 1)):
            await (await kit.tenant(tenant).send("r", "hello")).settled()
            assert len(brain.seen) == heard
            assert len(theirs.sent) == 2 * heard, "what was said, and the answer"
            assert [one.channel_id for one in await kit.tenant(tenant).deliveries("r")][:1] == ["shared"]


async def test_an_import_sends_asks_and_times_nothing() -> None:
    phone, brain = Phone(), Brain()
    async with kit_with(phone, brain) as kit, kit_with(Phone(), Brain()) as other:
        await kit.create_room("r", channels=["ai"], timers=RoomTimers(inactive_after_seconds=60))
        await kit.attach_channel("r", "sms", metadata={"phone_number": "+4411"})
        await (await kit.send("r", "hello")).settled()
        await other.import_room(await lines(kit, "r"))
        await other.drain(1)
        there = other.engine.channels["sms"]
        assert isinstance(there, Phone)
        assert (len(phone.sent), there.sent, other.engine.channels["ai"].seen) == (2, [], [])
        undone = [k for k in transfer.LEFT if await other.engine.store.records(RecordQuery(k, "default", room_id="r"))]
        assert undone == []
        assert (await other.deliveries("r")) == (await kit.deliveries("r")), "what became of it is part of the room"


async def test_files_go_along_unless_they_are_too_large(tmp_path: Path) -> None:
    async with RoomKit(f"sqlite:///{tmp_path}/a.db") as kit, RoomKit(f"sqlite:///{tmp_path}/b.db") as other:
        await kit.create_room("r", channels=())
        blob = await kit.blobs.put("default", picture(), mime_type="image/png", filename="a.png", room_id="r")
        await kit.send("r", MediaContent(url=f"blob:{blob.id}", mime_type="image/png"))
        assert not any(line.startswith('{"blob"') for line in await lines(kit, "r", max_blob_bytes=50))
        assert not any(line.startswith('{"blob"') for line in await lines(kit, "r", media="none"))
        await other.import_room(await lines(kit, "r"))
        (content,) = [e.content for e in await other.events("r") if isinstance(e.content, MediaContent)]
        copied = content.url.removeprefix("blob:")
        assert copied != blob.id
        assert b"".join([c async for c in other.blobs.read("default", copied)]).endswith(b"x" * 100)


async def sealed(*changed: Any) -> list[str]:
    """Lines with a seal that fits, whatever they say."""
    import hashlib

    text = [line if isinstance(line, str) else json.dumps(line) for line in changed]
    digest = hashlib.sha256("".join(line + "\n" for line in text).encode()).hexdigest()
    return [*text, json.dumps({"end": {"lines": len(text), "sha256": digest}})]


async def test_whatever_was_altered_or_cut_is_refused_and_leaves_nothing() -> None:
    async with kit_with(Phone()) as kit, RoomKit(clock=VirtualClock()) as other:
        await kit.create_room("r", channels=())
        await kit.send("r", "hello")
        good = await lines(kit, "r")
        dice = random.Random(5)
        for _ in range(200):
            broken = list(good)
            number = dice.randrange(len(broken))
            match dice.randrange(4):
                case 0:
                    del broken[number]
                case 1:
                    broken[number] = broken[number].replace("e", "f", 1)
                case 2:
                    place = dice.randrange(len(broken[number]))
                    broken[number] = broken[number][:place] + chr(dice.randrange(32, 127)) + broken[number][place + 1 :]
                case _:
                    broken.insert(number, broken[dice.randrange(len(broken))])
            if broken == good:
                continue
            with pytest.raises(UsageError) as refused:
                await other.import_room(broken)
            assert "\n" not in str(refused.value)
        assert await other.list_rooms() == []
        assert (await other.import_room(good)).event_count == 2


async def test_a_seal_that_fits_makes_no_nonsense_acceptable() -> None:
    async with kit_with(Phone()) as kit, RoomKit(clock=VirtualClock()) as other:
        await kit.create_room("r", channels=())
        await kit.send("r", "hello")
        head, first, second, room, *_ = [json.loads(line) for line in await lines(kit, "r")]
        newer = {"roomkit": {**head["roomkit"], "version": 2}}
        gap = {"event": {**second["event"], "index": 7}}
        outbox = {"record": {"kind": "outbox", "key": "r\n1\nsms", "value": {}, "terms": []}}
        foreign = {"record": {"kind": "mutation", "key": "other\n1", "value": {}, "terms": []}}
        elsewhere = {"roomkit": {**head["roomkit"], "room_id": "a/b"}}
        wrong = [
            ([newer, first, second, room], "newer roomkit"),
            ([head, first, gap, room], "has a gap"),
            ([head, first, {"event": {**second["event"], "extra": 1}}, room], "event 1"),
            ([head, first, second, room, outbox], "no part of an export"),
            ([head, first, second, room, foreign], "no part of an export"),
            ([head, first, second], "0 rooms"),
            ([head, first, second, room, room], "2 rooms"),
            ([elsewhere, first, second, room], "cannot be a room's id"),
            (["[]"], "no line"),
            ([{"something": {}}], "no export of a room"),
        ]
        for changed, told in wrong:
            with pytest.raises(UsageError, match=told):
                await other.import_room(await sealed(*changed))
        assert await other.list_rooms() == []


async def test_what_is_here_already_is_not_imported_over_it() -> None:
    async with kit_with(Phone()) as kit:
        room_id = await lively(kit, 1)
        there = await lines(kit, room_id)
        with pytest.raises(StateError, match="exists already"):
            await kit.import_room(there)
        with pytest.raises(UsageError, match="is here already"):
            await kit.import_room(there, room_id="copy")


async def cut(kit: RoomKit, there: list[str], *, after: int) -> None:
    """Begins an import that dies after so many commits."""
    commit, left = kit.engine.store.commit, [after]

    async def dies(batch: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("power cut")
        return await commit(batch)

    kit.engine.store.commit = dies  # type: ignore[method-assign]
    with pytest.raises(OSError, match="power cut"):
        await kit.import_room(there)
    kit.engine.store.commit = commit  # type: ignore[method-assign]


async def test_an_import_that_a_crash_has_cut_is_finished_by_importing_again() -> None:
    async with kit_with(Phone()) as kit, RoomKit(clock=VirtualClock()) as other:
        await kit.create_room("r", channels=())
        for number in range(1200):
            await kit.send("r", str(number))
        there = await lines(kit, "r")
        await cut(other, there, after=2)
        assert await other.list_rooms() == [], "a part of a room is no room"
        assert (await other.import_room(there)).event_count == 1201
        assert await lines(other, "r") == there


async def test_a_cut_import_with_files_is_finished_and_a_refused_one_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    async with RoomKit(f"sqlite:///{tmp_path}/a.db") as kit, RoomKit(f"sqlite:///{tmp_path}/b/b.db") as other:
        await kit.create_room("r", channels=())
        blob = await kit.blobs.put("default", picture(), mime_type="image/png", filename="a.png", room_id="r")
        await kit.send("r", MediaContent(url=f"blob:{blob.id}", mime_type="image/png"))
        for number in range(510):
            await kit.send("r", str(number))
        there = await lines(kit, "r")
        await cut(other, there, after=1)
        files = sorted((tmp_path / "b").rglob("*"))
        assert (await other.import_room(there)).event_count == 512
        (content,) = [e.content for e in await other.events("r") if isinstance(e.content, MediaContent)]
        assert await other.blobs.info("default", content.url.removeprefix("blob:")) is not None
        with pytest.raises(UsageError, match="is here already"):
            await other.import_room(there, room_id="again")
        assert sorted((tmp_path / "b").rglob("*")) == files


async def test_a_journal_goes_along_so_that_forks_of_an_import_know_what_tools_said() -> None:
    from roomkit import AIChannel
    from roomkit.ai.tools import tool

    @tool
    def price(item: str) -> str:
        """The price."""
        return f"{item} costs 3"

    def ai(*script: Any) -> AIChannel:
        return AIChannel("ai", ScriptedAI(*script)).configure(tools=(price,))

    asks = [call("price", item="tea")]
    async with kit_with(Phone(), ai(asks, "Three.")) as kit, kit_with(ai(asks, "Still three.")) as other:
        result = await kit.process_inbound(InboundMessage.text("sms", "+4411", "tea?"))
        await result.settled()
        room = await other.import_room(await lines(kit, result.room_id or ""))
        assert result.event is not None
        copy = await other.fork(room.id, at=result.event.index, ask="ai")
        assert (await other.events(copy.id))[-1].text == "Still three."


@pytest.mark.real_time
@pytest.mark.may_block
def test_the_command_moves_a_room_from_one_file_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    from roomkit.cli import main

    async def fill() -> None:
        async with RoomKit(f"sqlite:///{tmp_path}/a.db") as kit:
            await kit.create_room("r", channels=())
            await kit.send("r", "hello")

    asyncio.run(fill())
    out = str(tmp_path / "r.jsonl")
    assert main(["export", "r", "--store", str(tmp_path / "a.db"), "-o", out]) == 0
    assert main(["import", out, "--store", str(tmp_path / "b.db")]) == 0
    capsys.readouterr()
    assert main(["export", "r", "--store", str(tmp_path / "b.db")]) == 0
    capsys.readouterr()
    assert main(["replay", "r", "--store", str(tmp_path / "b.db")]) == 0
    assert capsys.readouterr().out.endswith("hello\n")
    assert main(["import", out, "--store", str(tmp_path / "b.db")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["export", "none", "--store", str(tmp_path / "b.db"), "-o", str(tmp_path / "none")]) == 1
    assert not list(tmp_path.glob("none*"))
