"""What one guest is told and another is not, over REST and over the socket."""

from __future__ import annotations

import asyncio
from typing import Any

from roomkit.channels.websocket import WebSocketChannel
from roomkit.kit import RoomKit
from roomkit.models.content import ToolCallContent
from roomkit.testing.clock import VirtualClock
from tests.core.rooms import Brain
from tests.servers.house import SECRET, House, MemoryBlobs, house

ALIAS = "staff-"


def events(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in answer["events"] if event["type"] == "message"]


async def read(h: House, who: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {h.token('guest', 'r1', id=who)}"}
    return events((await h.http.get("/api/rooms/r1/events", headers=headers)).json())


async def test_a_whisper_to_a_person_reaches_that_guest_alone() -> None:
    async with house() as h:
        await h.kit.create_room("r1", channels=["web"])
        async with h.joined("r1", id="ann") as ann, h.joined("r1", id="ben") as ben:
            for name, socket in (("ann", ann), ("ben", ben)):
                await socket.say("send", client_id=name, text=f"I am {name}")
                await socket.get("ack")
            path, body = "/rooms/r1/whisper", {"text": "for ann", "to": "person:ann"}
            assert (await h.call("POST", path, role="agent", json=body)).status_code == 201
            assert (await h.call("POST", path, role="agent", json={**body, "to": "person:x"})).status_code == 409
            await h.call("POST", "/rooms/r1/messages", role="agent", json={"text": "for all"})
            await asyncio.sleep(1)
            heard = {
                name: [f["event"]["content"].get("text") for f in socket.waiting() if f["type"] == "event"]
                for name, socket in (("ann", ann), ("ben", ben))
            }
            assert heard["ann"][-2:] == ["for ann", "for all"]
            assert "for ann" not in heard["ben"]
            assert "for all" in heard["ben"]
        assert "for ann" in [event["content"]["text"] for event in await read(h, "ann")]
        assert "for ann" not in [event["content"]["text"] for event in await read(h, "ben")]
        async with h.joined("r1", id="ben") as ben:
            assert "for ann" not in str(ben.seen)
            await ben.say("history", before=100, limit=50)
            assert "for ann" not in str(await ben.get("history"))


async def test_guests_know_staff_by_name_and_alias_never_by_id() -> None:
    async with house() as h:
        await h.kit.create_room("r1", channels=["web"])
        async with h.joined("r1", id="ann") as ann, h.joined("r1", "agent", display_name="Kim") as kim:
            await ann.say("send", client_id="a", text="hi")
            await ann.get("ack")
            for text in ("hello", "again"):
                await kim.say("send", client_id=text, text=text)
                await kim.get("ack")
            await h.call("POST", "/rooms/r1/floor/take", role="agent")
            await kim.say("typing", on=True)
            await asyncio.sleep(1)
            shown = await read(h, "ann")
            target = shown[0]["id"]
            content = {"type": "reaction", "target_event_id": target, "emoji": "👍"}
            await h.call("POST", "/rooms/r1/messages", role="agent", json={"content": content})
            first, *said = await read(h, "ann")
            aliases = {event["source"]["participant_id"] for event in said}
            assert len(aliases) == 1
            alias = aliases.pop()
            assert alias.startswith(ALIAS)
            assert [event["metadata"]["sender_name"] for event in said] == ["Kim", "Kim"]
            assert first["metadata"]["reactions"] == {"👍": [alias]}
            assert first["source"]["participant_id"] == "ann"
            typing = next(f for f in ann.waiting() if f["type"] == "ephemeral")
            assert (typing["sender"], typing["data"]) == (alias, {"on": True})
            assert "agent" not in str(list(ann.waiting()))


async def test_staff_with_a_part_in_the_room_are_known_by_the_same_alias() -> None:
    async with house() as h:
        await h.kit.create_room("r1", channels=["web"])
        body = {"participant_id": "bob", "display_name": "Bob", "role": "agent"}
        await h.call("POST", "/rooms/r1/participants", role="supervisor", json=body)
        await h.kit.send("r1", "hello", by="bob")
        async with h.joined("r1", id="ann") as ann:
            snapshot = next(frame for frame in ann.seen if frame["type"] == "snapshot")
            person = snapshot["participants"][0]
            said = events(snapshot)[0]
            assert person["id"].startswith(ALIAS)
            assert said["source"]["participant_id"] == person["id"]
            assert said["metadata"]["sender_name"] == person["display_name"] == "Bob"
            assert '"bob"' not in str(snapshot).replace("'", '"')


CALL = ToolCallContent(call_id="c1", name="refund", arguments={"order": 7})


async def asking(context: Any) -> Any:
    await context.turn.approve(CALL, expires_s=100)
    yield "done"


async def test_a_question_is_in_the_queue_and_guests_are_told_that_they_wait() -> None:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET], blobs=MemoryBlobs())
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(Brain(script=lambda context, event: asking(context)))
    async with house(kit) as h:
        await kit.create_room("r1", channels=["web", "ai"])
        async with h.joined("r1", id="ann") as ann, h.joined("r1", "supervisor") as desk:
            await desk.say("watch", on=True)
            await ann.say("send", client_id="a", text="refund please")
            await asyncio.sleep(1)
            queue = (await h.call("GET", "/attention")).json()["rooms"]
            assert [[one["name"] for one in room["approvals"]] for room in queue] == [["refund"]]
            assert [f["room"]["approval"] for f in ann.waiting() if f["type"] == "room"][-1] is True
            assert "refund" not in str([f for f in ann.waiting() if f["type"] == "room"])
            lines = [room for f in desk.waiting() if f["type"] == "rooms" for room in f["rooms"]]
            assert lines[-1]["approvals"][0]["name"] == "refund"
            answer = f"/rooms/r1/approvals/{lines[-1]['approvals'][0]['id']}"
            await h.call("POST", answer, role="supervisor", json={"granted": True})
            await asyncio.sleep(1)
            assert (await h.call("GET", "/attention")).json()["rooms"] == []
            assert [f["room"]["approval"] for f in ann.waiting() if f["type"] == "room"][-1] is False


async def test_guests_hear_of_no_question_of_an_ai_that_is_hidden_from_them() -> None:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET], blobs=MemoryBlobs())
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(Brain(script=lambda context, event: asking(context)))
    async with house(kit) as h:
        await kit.create_room("r1", channels=["web", "ai"])
        await kit.set_visibility("r1", "ai", "internal")
        async with h.joined("r1", id="ann") as ann:
            await ann.say("send", client_id="a", text="refund please")
            await asyncio.sleep(1)
            assert len((await h.call("GET", "/attention")).json()["rooms"]) == 1
            assert not any(f["room"]["approval"] for f in ann.waiting() if f["type"] == "room")
