"""The room socket at the door: who gets in, what is seen, what is slow, what comes back (R6, R10, D32-D34)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from roomkit.core.memory import MemoryStore
from roomkit.errors import StoreUnavailable
from roomkit.kit import RoomKit
from roomkit.models.delivery import InboundMessage
from roomkit.models.hooks import Allow, BeforeCommit, Block
from roomkit.models.stream import TextDelta
from roomkit.net.room_client import Disconnected, RoomClient
from roomkit.ports.channel import ChannelOutput
from roomkit.protocols.room_socket import Limits
from roomkit.testing.clock import VirtualClock
from roomkit.testing.sockets import AsgiSocket
from tests.servers.house import SECRET, house


def talker(words: int = 5, pause: float = 0.1, before: float = 0.0) -> RoomKit:
    """A kit whose app streams `words` words."""
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET])

    @kit.on_message
    async def reply(ctx, message):
        async def words_of():
            await asyncio.sleep(before)
            for n in range(words):
                yield TextDelta(f"word{n} ")
                await asyncio.sleep(pause)

        return ChannelOutput(response_stream=words_of())

    return kit


async def message(socket: AsgiSocket) -> dict[str, Any]:
    """The next event frame with a message or a note in it."""
    while True:
        frame = await socket.get("event")
        if frame["event"]["type"] in ("message", "note"):
            return frame


# -- getting in -------------------------------------------------------------------------------------------------------


async def test_nothing_is_said_before_authentication_and_late_is_out() -> None:
    async with house() as h, h.socket() as socket:
        await asyncio.sleep(4)
        assert socket.waiting() == []
        assert await socket.closed() == 4401
        assert socket.seen == []


@pytest.mark.parametrize("token", ["nonsense", "rk1.a.b.c", ""])
async def test_a_bad_token_is_out(token: str) -> None:
    async with house() as h, h.socket() as socket:
        await socket.say("auth", token=token, v=1)
        assert await socket.closed() in (4401, 4400)


async def test_a_header_takes_the_place_of_the_first_frame() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.socket(headers=[("Authorization", f"Bearer {h.token('guest', 'r1')}")]) as socket:
            welcome = await socket.get()
            assert welcome["principal"]["role"] == "guest"
            assert welcome["limits"]["text_chars"] == 8000


@pytest.mark.parametrize(
    "origin, host, allowed",
    [
        ("http://testserver", "testserver", True),
        ("https://testserver:8000", "testserver:8000", True),
        ("https://evil.example", "testserver", False),
        ("null", "testserver", False),
        ("https://shop.example", "testserver", True),
        (None, "testserver", True),
        ("https://testserver.evil.example", "testserver", False),
    ],
)
async def test_only_our_own_pages_and_listed_origins_get_in(origin, host, allowed) -> None:
    async with house(allowed_origins=("https://shop.example",)) as h:
        headers = [("host", host), *([("origin", origin)] if origin else [])]
        socket = h.socket(headers=headers)
        if allowed:
            async with socket:
                pass
        else:
            with pytest.raises(Disconnected):
                await socket.open()


async def test_a_public_url_decides_the_origin_whatever_host_says() -> None:
    async with house(public_url="https://chat.example/rooms") as h:
        async with h.socket(headers=[("host", "10.0.0.1"), ("origin", "https://chat.example")]):
            pass
        with pytest.raises(Disconnected):
            await h.socket(headers=[("host", "10.0.0.1"), ("origin", "http://10.0.0.1")]).open()


async def test_an_expired_token_ends_the_session_in_time_and_renewing_keeps_it() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", ttl=30) as short, h.joined("r1", ttl=30, id="other") as renewed:
            for _ in range(2):
                await asyncio.sleep(14)
                await short.say("ping")
                await renewed.say("auth", token=h.token("guest", "r1", id="other", ttl=60), v=1)
                await renewed.get("welcome")
            assert short.code is None
            await asyncio.sleep(5)
            assert (short.code, renewed.code) == (4401, None)


async def test_a_session_is_never_handed_to_somebody_else() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="ada") as socket:
            await socket.say("auth", token=h.token("admin"), v=1)
            assert await socket.closed() == 4401


async def test_a_revoked_token_ends_its_session() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        minted = h.kit.tokens.issue("guest", "r1")
        async with h.socket() as socket:
            await socket.say("auth", token=minted.token, v=1)
            await socket.get("welcome")
            h.kit.tokens.revoke(minted.token_id)
            await asyncio.sleep(3)
            assert socket.code == 4401


async def test_a_guest_enters_its_own_room_only() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.create_room("r2")
        async with h.joined("r1") as socket:
            await socket.say("join", room_id="r2")
            assert (await socket.get("error"))["code"] == "not_allowed"
            await socket.say("watch", on=True)
            assert (await socket.get("error"))["code"] == "not_allowed"


async def test_a_room_that_is_not_there() -> None:
    async with house() as h, h.socket() as socket:
        await socket.say("auth", token=h.token("agent"), v=1)
        await socket.say("join", room_id="none")
        error = await socket.get("error")
        assert (error["code"], error["ref"]) == ("room_not_found", "join")


async def test_too_many_connections_are_sent_away() -> None:
    async with house(max_connections=1) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1"), h.socket() as second:
            assert await second.closed() == 1013
    async with house(max_connections_per_principal=1) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1"), h.socket() as second:
            await second.say("auth", token=h.token("guest", "r1"), v=1)
            assert await second.closed() == 1013


async def test_a_place_is_free_again_when_its_holder_has_gone() -> None:
    async with house(max_connections_per_principal=1) as h:
        await h.kit.create_room("r1")
        for _ in range(3):
            async with h.joined("r1") as socket:
                await socket.say("auth", token=h.token("guest", "r1"), v=1)
                await socket.get("welcome")
        assert h.app.door.lobby._count == {}


async def test_the_socket_is_found_under_any_prefix_and_nowhere_else() -> None:
    async with house() as h:
        async with AsgiSocket(h.app, root_path="/chat"):
            pass
        with pytest.raises(Disconnected):
            await AsgiSocket(h.app, "/other").open()


# -- talking ----------------------------------------------------------------------------------------------------------


async def test_messages_are_acknowledged_seen_by_all_and_counted_once() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="ada", display_name="Ada") as ada, h.joined("r1", id="bob") as bob:
            await ada.say("send", client_id="c1", text="hello")
            ack = await ada.get("ack")
            assert ack["duplicate"] is False
            seen = await message(bob)
            assert seen["event"]["id"] == ack["event_id"]
            assert seen["event"]["metadata"] == {"client_id": "c1", "sender_name": "Ada"}
            assert seen["event"]["source"]["participant_id"] == "ada"
            await ada.say("send", client_id="c1", text="hello")
            again = await ada.get("ack")
            assert (again["event_id"], again["index"], again["duplicate"]) == (ack["event_id"], ack["index"], True)
            await bob.say("send", client_id="c1", text="same id, other person")
            assert (await bob.get("ack"))["duplicate"] is False


async def test_staff_writes_for_the_house_and_once() -> None:
    async with house(talker()) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest, h.joined("r1", "agent", display_name="Kim") as agent:
            for _ in range(2):
                await agent.say("send", client_id="k1", text="a person here")
                ack = await agent.get("ack")
            assert ack["duplicate"]
            event = (await message(guest))["event"]
            assert (event["content"]["text"], event["metadata"]["sender_name"]) == ("a person here", "Kim")
            await asyncio.sleep(2)
            assert [e for e in await h.kit.events("r1") if e.source.channel_id == "app"] == []


async def test_refusals_say_why_by_the_messages_own_id() -> None:
    kit = RoomKit(token_secrets=[SECRET])

    @kit.before(BeforeCommit, name="manners")
    async def manners(moment):
        return Block("mind your words") if "damn" in moment.value.text else Allow()

    async with house(kit) as h:
        await kit.create_room("r1")
        async with h.joined("r1") as socket:
            await socket.say("send", client_id="a", text="damn")
            nack = await socket.get("nack")
            assert (nack["client_id"], nack["code"]) == ("a", "blocked")
            assert nack["message"] == "this message could not be sent"
            await socket.say("send", client_id="b", content={"type": "system", "code": "x"})
            assert (await socket.get("nack"))["code"] == "invalid"
            await kit.close_room("r1")
            await socket.say("send", client_id="c", text="hello?")
            closed = await socket.get("nack")
            assert (closed["client_id"], closed["code"], "retry_after" in closed) == ("c", "room_closed", False)


async def test_what_cannot_be_stored_is_not_acknowledged_and_may_be_repeated() -> None:
    class Broken(MemoryStore):
        broken = False

        async def commit(self, batch):
            if self.broken:
                raise StoreUnavailable("disk full")
            return await super().commit(batch)

    store = Broken()
    async with house(RoomKit(store, token_secrets=[SECRET])) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            store.broken = True
            await socket.say("send", client_id="a", text="x")
            nack = await socket.get("nack")
            assert (nack["code"], nack["retry_after"]) == ("unavailable", 2.0)
            store.broken = False
            await socket.say("send", client_id="a", text="x")
            assert (await socket.get("ack"))["duplicate"] is False


async def test_a_reply_streams_word_by_word_and_ends_as_the_stored_event() -> None:
    async with house(talker()) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            await socket.say("send", client_id="a", text="talk")
            start = await socket.get("stream_start")
            end = await socket.get("stream_end")
            chunks = [frame for frame in socket.seen if frame["type"] == "stream_chunk"]
            assert len(chunks) == 5
            assert "".join(chunk["delta"] for chunk in chunks) == "word0 word1 word2 word3 word4 "
            assert [chunk["offset"] for chunk in chunks] == [0, 6, 12, 18, 24]
            assert end["stream_id"] == start["stream_id"] == end["event"]["id"]
            assert end["event"]["content"]["text"].strip() == "word0 word1 word2 word3 word4"
            sequenced = [frame for frame in socket.seen if "prev" in frame]
            assert [frame["prev"] for frame in sequenced[1:]] == [frame["index"] for frame in sequenced[:-1]]
            await asyncio.sleep(1)
            assert [frame for frame in socket.waiting() if frame["type"] == "event"] == []


async def test_who_comes_in_mid_reply_gets_the_text_so_far() -> None:
    async with house(talker(words=6, pause=1.0)) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="ada") as ada:
            await ada.say("send", client_id="a", text="talk")
            await ada.get("stream_start")
            await asyncio.sleep(2.5)
            async with h.joined("r1", id="bob") as bob:
                snapshot = next(frame for frame in bob.seen if frame["type"] == "snapshot")
                (stream,) = snapshot["streams"]
                assert stream["text"] == "word0 word1 word2 "
                assert stream["offset"] == len(stream["text"])
                assert (await bob.get("stream_chunk"))["offset"] == stream["offset"]
                assert "word5" in (await bob.get("stream_end"))["event"]["content"]["text"]


async def test_guests_do_not_see_the_inside_and_staff_does() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest, h.joined("r1", "supervisor") as desk:
            await h.kit.note("r1", "a secret note", "kim")
            await guest.say("send", client_id="a", text="hi")
            shown = await message(guest)
            assert shown["event"]["content"]["text"] == "hi"
            assert "secret note" not in json.dumps(guest.seen)
            inside = InboundMessage.text("web", "+15550123", "from outside", metadata={"crm": "gold"}, raw_payload="x")
            await h.kit.process_inbound(inside.model_copy(update={"channel_data": {"k": 1}}), room_id="r1")
            event = (await message(guest))["event"]
            plain = json.dumps([event, guest.seen])
            assert event["source"]["participant_id"].startswith("p-")
            people = (
                await h.http.get("/api/rooms/r1", headers={"authorization": f"Bearer {h.token('guest', 'r1')}"})
            ).json()
            assert event["source"]["participant_id"] in [person["id"] for person in people["participants"]]
            assert "15550123" not in json.dumps(people)
            assert not [word for word in ("crm", "gold", "15550123", "raw_payload", "channel_data") if word in plain]
            note = await message(desk)
            assert note["event"]["content"]["text"] == "a secret note"
            assert (await message(desk))["index"] == shown["index"]
            assert (await message(desk))["event"]["metadata"] == {"crm": "gold"}
            sequenced = [frame for frame in desk.seen if "prev" in frame]
            assert [frame["prev"] for frame in sequenced[1:]] == [frame["index"] for frame in sequenced[:-1]]
            snapshot = next(frame for frame in desk.seen if frame["type"] == "snapshot")
            assert snapshot["viewers"] == [{"id": "supervisor", "display_name": None, "role": "supervisor"}]
            assert "bindings" in snapshot


async def test_a_monitor_is_not_seen() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest, h.joined("r1", "supervisor") as desk:
            await desk.say("typing", on=True)
            await desk.say("presence", state="online")
            await desk.say("read", index=0)
            await desk.say("ping")
            await desk.get("pong")
            assert guest.waiting() == []
            await h.kit.take_over("r1", "supervisor")
            await desk.say("typing", on=True)
            typing = await guest.get("ephemeral")
            assert (typing["kind"], typing["data"]) == ("typing", {"on": True})
            assert typing["sender"].startswith("staff-")


async def test_signs_of_life_reach_the_others_only() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="ada") as ada, h.joined("r1", id="bob") as bob:
            await ada.say("typing", on=True)
            await ada.say("presence", state="away")
            assert (await bob.get("ephemeral"))["kind"] == "typing"
            assert (await bob.get("ephemeral"))["data"] == {"state": "away"}
            await ada.say("ping", t=7)
            assert (await ada.get())["t"] == 7


async def test_the_state_of_the_room_is_told() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest, h.joined("r1", "supervisor") as desk:
            await h.kit.take_over("r1", "supervisor")
            room = (await guest.get("room"))["room"]
            assert room["floor"] == {"mode": "human", "holder": None}
            assert "metadata" not in room
            assert "metadata" in (await desk.get("room"))["room"]


async def test_the_desk_hears_of_every_room() -> None:
    async with house() as h, h.socket() as desk:
        await desk.say("auth", token=h.token("agent"), v=1)
        await desk.get("welcome")
        await desk.say("watch", on=True)
        await desk.say("ping")
        await desk.get("pong")
        await h.kit.create_room("r1")
        await h.kit.tenant("acme").create_room("r2")
        assert [room["id"] for room in (await desk.get("rooms"))["rooms"]] == ["r1"]
        await h.kit.request_human("r1", "help")
        assert (await desk.get("rooms"))["rooms"][0]["waiting"] is True
        await desk.say("watch", on=False)
        await desk.say("ping")
        await desk.get("pong")
        await h.kit.create_room("r3")
        await asyncio.sleep(1)
        assert desk.waiting() == []


async def test_viewers_are_told_to_staff() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as guest, h.joined("r1", "supervisor") as desk:
            async with h.joined("r1", "agent"):
                viewing = await desk.get("ephemeral")
                assert sorted(who["id"] for who in viewing["data"]["viewers"]) == ["agent", "supervisor"]
            viewing = await desk.get("ephemeral")
            assert [who["id"] for who in viewing["data"]["viewers"]] == ["supervisor"]
            assert guest.waiting() == []


async def test_history_pages_backwards() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            for n in range(10):
                await socket.say("send", client_id=f"c{n}", text=f"m{n}")
                last = await socket.get("ack")
            await socket.say("history", before=last["index"], limit=3)
            page = await socket.get("history")
            assert [event["content"]["text"] for event in page["events"]] == ["m6", "m7", "m8"]
            assert page["more"]
            await socket.say("history", before=page["events"][0]["index"], limit=200)
            page = await socket.get("history")
            assert page["events"][-1]["content"]["text"] == "m5"
            assert not page["more"]


async def test_older_events_are_offered_only_where_something_was_not_looked_at() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.send("r1", "hello")  # what stands before it no guest may see
        async with h.joined("r1") as socket:

            async def tail(size: int) -> tuple[bool, list[str]]:
                await socket.say("join", room_id="r1", tail=size)
                shown = await socket.get("snapshot")
                return shown["more"], [event["content"].get("text", "") for event in shown["events"]]

            assert [await tail(size) for size in (50, 0)] == [(False, ["hello"]), (True, [])]
            await h.kit.note("r1", "hidden from guests", "sam")
            assert await tail(1) == (True, []), "all of the tail is hidden, not all that came before"


async def test_moving_to_another_room_leaves_the_first() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.create_room("r2")
        async with h.joined("r1", "agent") as desk:
            await desk.say("join", room_id="r2")
            await desk.get("snapshot")
            await h.kit.note("r1", "there", "kim")
            await h.kit.note("r2", "here", "kim")
            assert (await message(desk))["event"]["content"]["text"] == "here"
            await desk.say("leave")
            await desk.say("ping")
            await desk.get("pong")
            await h.kit.note("r2", "gone", "kim")
            await asyncio.sleep(1)
            assert desk.waiting() == []


# -- coming back ------------------------------------------------------------------------------------------------------


async def resume(h, room: str, epoch: str, index: int) -> tuple[list[dict], AsgiSocket]:
    socket = await h.socket().open()
    await socket.say("auth", token=h.token("guest", room), v=1)
    await socket.get("welcome")
    await socket.say("join", room_id=room, resume={"epoch": epoch, "index": index})
    await socket.say("ping")
    await socket.get("pong")
    return socket.seen[1:-1], socket


async def test_resuming_brings_exactly_what_was_missed() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            await socket.say("send", client_id="a", text="before")
            position = (await socket.get("ack"))["index"]
            epoch = next(frame["epoch"] for frame in socket.seen if frame["type"] == "snapshot")
        for n in range(3):
            await h.kit.process_inbound(InboundMessage.text("web", "bob", f"missed{n}"), room_id="r1")
            await h.kit.note("r1", "hidden", "kim")
        (resumed,), again = await resume(h, "r1", epoch, position)
        assert (resumed["type"], resumed["from"]) == ("resumed", position)
        missed = [event["content"]["text"] for event in resumed["events"] if event["type"] == "message"]
        assert missed == ["missed0", "missed1", "missed2"]
        assert resumed["index"] == (await h.kit.get_room("r1")).latest_index
        await h.kit.process_inbound(InboundMessage.text("web", "bob", "live"), room_id="r1")
        live = await message(again)
        assert (live["prev"], live["event"]["content"]["text"]) == (resumed["index"], "live")
        await again.close()


@pytest.mark.parametrize("epoch, index, reason", [("another", 1, "epoch"), (None, 999, "ahead"), (None, 0, "too_far")])
async def test_what_cannot_be_resumed_is_said_and_a_snapshot_follows(epoch, index, reason) -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        if reason == "too_far":
            for n in range(1005):
                await h.kit.note("r1", str(n), "kim")
        epoch = epoch or h.kit.engine.info.incarnation
        (said, snapshot), socket = await resume(h, "r1", epoch, index)
        assert (said["type"], said["reason"], snapshot["type"]) == ("resync_required", reason, "snapshot")
        assert snapshot["index"] == (await h.kit.get_room("r1")).latest_index
        await socket.close()


async def test_a_client_that_is_cut_again_and_again_misses_and_doubles_nothing() -> None:
    """The Python client against the real door, cut at every turn, while others write and a reply streams."""
    async with house(talker(words=3, pause=0.3)) as h:
        await h.kit.create_room("r1")
        wires: list[AsgiSocket] = []

        async def connect(url: str) -> AsgiSocket:
            wires.append(await h.socket().open())
            return wires[-1]

        seen: list[int] = []
        acks = []

        async def read(client: RoomClient) -> None:
            async for frame in client:
                if frame.type in ("snapshot", "resumed"):
                    seen.extend(event["index"] for event in frame.events)
                elif frame.type in ("event", "stream_end"):
                    seen.append(frame.index)

        async with RoomClient("", "r1", h.token("guest", "r1", id="ada"), connect=connect) as client:
            reader = h.app.door.scope.spawn(read(client), name="reader")
            for n in range(12):
                acks.append(await client.send(f"m{n}", client_id=f"c{n}"))
                await asyncio.sleep(0.15 * (n % 4))
                if n % 2:
                    await wires[-1].vanish()
            await asyncio.sleep(30)
            assert client.reconnections >= 6
        await reader
        log = await h.kit.events(
            "r1", limit=1000, viewer=h.app.door.viewer(h.kit.tokens.verify(h.token("guest", "r1")))
        )
        assert seen == [event.index for event in log if event.index >= seen[0]]
        texts = [event.text for event in log if event.source.participant_id == "ada" and event.type == "message"]
        assert texts == [f"m{n}" for n in range(12)]
        assert [ack.index for ack in acks] == sorted(ack.index for ack in acks)


# -- slow, silent, rude -----------------------------------------------------------------------------------------------


async def test_a_stalled_reader_is_cut_with_a_resumable_code_and_costs_nobody_else() -> None:
    async with house(socket_buffer=2_000) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="slow") as slow, h.joined("r1", id="fast") as fast:
            slow.stalled = True
            for n in range(40):
                await h.kit.process_inbound(InboundMessage.text("web", "bob", f"{n} " + "x" * 100), room_id="r1")
                shown = await message(fast)
                assert shown["event"]["content"]["text"].startswith(f"{n} ")
            await asyncio.sleep(1)
            assert h.app.door.metrics.value("roomkit_socket_cuts_total", "4408") == 1
            slow.stalled = False
            assert await slow.closed() == 4408 or slow.code == 1006
            assert fast.code is None


async def test_one_that_takes_nothing_for_long_is_cut_even_with_little_to_say() -> None:
    async with house(send_timeout_s=10, heartbeat_s=1000) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            socket.stalled = True
            await h.kit.process_inbound(InboundMessage.text("web", "bob", "hi"), room_id="r1")
            await asyncio.sleep(15)
            assert h.app.door.metrics.value("roomkit_socket_cuts_total", "4408") == 1


async def test_deltas_merge_for_a_slow_reader_and_nothing_is_lost() -> None:
    async with house(talker(words=200, pause=0.001)) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            await socket.say("send", client_id="a", text="talk")
            await socket.get("stream_start")
            socket.stalled = True
            await asyncio.sleep(2)
            socket.stalled = False
            end = await socket.get("stream_end")
            chunks = [frame for frame in socket.seen if frame["type"] == "stream_chunk"]
            assert len(chunks) <= 4
            assert "".join(chunk["delta"] for chunk in chunks) == end["event"]["content"]["text"]


async def test_signs_of_life_are_dropped_for_a_slow_reader() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="slow") as slow, h.joined("r1", id="bob") as bob:
            slow.stalled = True
            for _ in range(20):
                await bob.say("typing", on=True)
            await bob.say("ping")
            await bob.get("pong")
            slow.stalled = False
            await asyncio.sleep(0.1)
            assert len(slow.waiting()) == 1


async def test_a_silent_connection_is_cut_and_one_that_pings_stays() -> None:
    async with house(heartbeat_s=10) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1", id="silent") as silent, h.joined("r1", id="alive") as alive:
            for _ in range(6):
                await asyncio.sleep(8)
                await alive.say("ping")
            assert (silent.code, alive.code) == (4409, None)


async def test_floods_and_nonsense_are_refused_and_at_last_cut() -> None:
    limits = Limits(violations=20, sends_burst=2, sends_per_s=1, frames_burst=30)
    async with house(limits=limits) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            for n in range(4):
                await socket.say("send", client_id=f"c{n}", text="x")
            await socket.say("ping")
            await socket.get("pong")
            kinds = [frame["type"] for frame in socket.seen if frame["type"] in ("ack", "nack")]
            assert kinds == ["ack", "ack", "nack", "nack"]
            for _ in range(50):
                if socket.code is None:
                    await socket.send("garbage")
                    await asyncio.sleep(0)
            assert await socket.closed() == 4400


async def test_binary_ends_it() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            socket._tell_app({"type": "websocket.receive", "bytes": b"x"})
            assert await socket.closed() == 4400


async def test_who_leaves_leaves_nothing_behind() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        actor = await h.kit.engine.table.require("default", "r1")
        for _ in range(3):
            async with h.joined("r1"), h.joined("r1", "agent"):
                assert len(h.app.door.lobby) == 2
            socket = await h.socket().open()
            await socket.vanish()
        assert len(h.app.door.lobby) == 0
        assert actor.hub.idle
        await asyncio.sleep(2)
        assert len(h.app.door.scope) == 0


# -- going away -------------------------------------------------------------------------------------------------------


async def test_drain_lets_a_reply_finish_then_sends_everybody_away_resumably() -> None:
    async with house(talker(words=5, pause=0.5)) as h:
        await h.kit.create_room("r1")
        async with h.joined("r1") as socket:
            await socket.say("send", client_id="a", text="talk")
            await socket.get("stream_start")
            drained = h.app.door.scope.spawn(h.app.drain(), name="drain")
            await asyncio.sleep(0.1)
            assert (await h.http.get("/readyz")).status_code == 503
            assert (await h.http.get("/healthz")).status_code == 200
            await socket.say("send", client_id="b", text="more")
            assert (await socket.get("nack"))["code"] == "overloaded"
            assert "word4" in (await socket.get("stream_end"))["event"]["content"]["text"]
            assert await socket.closed() == 1001
            assert await drained is True
        late = h.socket()
        async with late:
            assert await late.closed() == 1001
