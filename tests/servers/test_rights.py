"""What nobody gets through the doors: other rooms' messages, other people's names, what they were shut out of."""

from __future__ import annotations

import asyncio

import pytest

from roomkit.kit import RoomKit
from roomkit.models.hooks import Allow, BeforeCommit, Block
from roomkit.models.stream import TextDelta
from roomkit.ports.channel import ChannelOutput
from roomkit.testing.clock import VirtualClock
from tests.servers.house import SECRET, House, house


def guest(h: House, room: str, id: str = "ada", **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {h.token('guest', room, id=id, **more)}"}


@pytest.mark.parametrize("who, other", [(("a", "u", "1"), ("b", "u", "1")), (("a", "k:1", "x"), ("b", "k", "1:x"))])
async def test_a_client_id_means_nothing_in_another_room(who, other) -> None:
    async with house() as h:
        for room, who_id, client_id in (who, other):
            await h.kit.create_room(room)
            sent = await h.http.post(
                f"/api/rooms/{room}/messages",
                json={"text": f"in {room}", "client_id": client_id},
                headers=guest(h, room, who_id),
            )
            assert (sent.status_code, sent.json()["event"]["content"]["text"]) == (201, f"in {room}")
        for room in "ab":
            sent = await h.call("POST", f"/rooms/{room}/messages", json={"text": room, "client_id": "s"})
            assert (sent.status_code, sent.json()["event"]["room_id"]) == (201, room)
        again = await h.call("POST", "/rooms/b/messages", json={"text": "b", "client_id": "s"})
        assert again.json()["event"] == sent.json()["event"]


@pytest.mark.parametrize("ban", [True, False])
async def test_who_was_removed_neither_reads_nor_writes_nor_stays(ban: bool) -> None:
    async with house() as h:
        await h.kit.create_room("a")
        headers = guest(h, "a", "u")
        assert (await h.http.post("/api/rooms/a/messages", json={"text": "hi"}, headers=headers)).status_code == 201
        async with h.joined("a", id="u") as socket, h.joined("a", id="other") as other:
            await h.kit.remove_member("a", "u", ban=ban)
            assert await socket.closed() == 4403
            await h.kit.send("a", "after that")
            await asyncio.sleep(1)
            assert "after that" not in str(socket.seen)
            assert other.code is None
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/messages"), ("GET", "/participants")):
            body = {"text": "back"} if method == "POST" else None
            refused = await h.http.request(method, f"/api/rooms/a{path}", json=body, headers=headers)
            assert refused.status_code == 403, path
        async with h.socket() as socket:
            await socket.say("auth", token=h.token("guest", "a", id="u"), v=1)
            await socket.get("welcome")
            await socket.say("join", room_id="a")
            assert (await socket.get("error"))["code"] == "not_allowed"


async def test_who_was_removed_while_the_room_was_closed_is_out_when_it_opens() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        await h.http.post("/api/rooms/a/messages", json={"text": "hi"}, headers=guest(h, "a", "u"))
        async with h.joined("a", id="u") as socket:
            await h.kit.close_room("a")
            await h.kit.remove_member("a", "u", ban=True)
            await h.kit.reopen_room("a")
            assert await socket.closed() == 4403


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text", "text": "x" * 8001},
        {"type": "edit", "target_event_id": "e", "new_content": {"type": "text", "text": "x" * 8001}},
        {"type": "composite", "parts": [{"type": "text", "text": "x" * 5000}] * 2},
        {"type": "media", "url": "blob:1", "mime_type": "image/png", "filename": "x" * 70_000},
        {"type": "reaction", "target_event_id": "e", "emoji": "x" * 70_000},
        {"type": "location", "latitude": 0, "longitude": 0, "label": "x", "address": "y" * 70_000},
    ],
)
@pytest.mark.parametrize("route", ["messages", "drafts"])
async def test_rest_takes_no_more_than_a_socket(content, route: str) -> None:
    async with house() as h:
        await h.kit.create_room("a")
        refused = await h.call("POST", f"/rooms/a/{route}", json={"content": content})
        assert refused.status_code in ((413,) if route == "messages" else (413, 400))
        assert not [e for e in await h.kit.events("a") if e.type == "message"]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "system", "code": "x"},
        {"type": "delete", "target_event_id": "e", "delete_type": "system"},
        {"type": "reaction", "target_event_id": "e", "emoji": "x"},
    ],
)
async def test_a_draft_is_a_message_that_could_be_sent(content) -> None:
    async with house() as h:
        await h.kit.create_room("a")
        assert (await h.call("POST", "/rooms/a/drafts", json={"content": content})).status_code == 400
        assert (await h.call("GET", "/rooms/a/drafts")).json()["drafts"] == []


async def test_a_guest_points_at_nothing_it_cannot_see() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        seen = (await h.http.post("/api/rooms/a/messages", json={"text": "hi"}, headers=guest(h, "a"))).json()["event"]
        note = await h.kit.note("a", "she is important", "bob")
        smile = {"type": "reaction", "emoji": "x"}
        for target, status in ((note.id, 400), ("nowhere", 400), (seen["id"], 201)):
            for body in ({"text": "re", "parent": target}, {"content": {**smile, "target_event_id": target}}):
                sent = await h.http.post("/api/rooms/a/messages", json=body, headers=guest(h, "a"))
                assert sent.status_code == status, (target, body)


async def test_a_guest_hears_no_other_rooms_name() -> None:
    async with house() as h:
        await h.kit.create_room("acme-merger")
        missing = await h.http.get("/api/rooms/acme-merge", headers=guest(h, "acme-merge"))
        assert missing.status_code == 404
        assert "acme-merger" not in missing.text


async def test_an_agent_makes_nobody_somebody_else() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        await h.kit.add_member("a", "sms:+44", channel_id="sms")
        await h.kit.take_over("a", "bob")
        mint = {"role": "guest", "room_id": "a"}
        for who in ("customer", "admin", "bob", "sms:+44", "host"):
            refused = await h.call("POST", "/tokens", role="agent", json={**mint, "id": who})
            assert refused.status_code == 403, who
        made = await h.call("POST", "/tokens", role="agent", json=mint)
        assert h.kit.tokens.verify(made.json()["token"]).id.startswith("guest-")
        async with h.joined("a", role="agent", id="carol"):
            for who, status in (("bob", 403), ("carol", 403), ("sms:+44", 403), ("supervisor", 403), ("host", 400)):
                refused = await h.call("POST", "/tokens", role="supervisor", json={**mint, "id": who})
                assert refused.status_code == status, who
        for who in ("agent-1", "admin-x"):
            refused = await h.call("POST", "/tokens", json={**mint, "id": who})
            assert refused.status_code == 400
        staff = {"role": "agent", "id": "guest-1"}
        assert (await h.call("POST", "/tokens", json=staff)).status_code == 400
        assert (await h.call("POST", "/tokens", role="supervisor", json={"role": "agent"})).status_code == 403
        back = await h.call("POST", "/tokens", role="supervisor", json={**mint, "id": "customer"})
        assert back.status_code == 201


async def test_renewing_never_outlives_what_was_granted() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        for ttl, renewable, ends in ((5, None, 5), (5, 60, 60), (5, 9_000, 3_600)):
            start = h.kit.now().timestamp()
            token = h.token("guest", "a", ttl=ttl, renewable_for=renewable)
            for _ in range(3):
                fresh = await h.http.post("/api/tokens/refresh", headers={"authorization": f"Bearer {token}"})
                assert fresh.json()["expires_at"] <= start + ends + 0.01
                token = fresh.json()["token"]
            assert fresh.json()["expires_at"] >= start + ends - 0.01
        short = h.token("guest", "a", ttl=5, renewable_for=60)
        await asyncio.sleep(4)
        fresh = (await h.http.post("/api/tokens/refresh", headers={"authorization": f"Bearer {short}"})).json()["token"]
        await asyncio.sleep(57)
        gone = await h.http.post("/api/tokens/refresh", headers={"authorization": f"Bearer {fresh}"})
        assert gone.status_code == 401


async def test_an_admin_of_one_tenant_has_no_say_in_another() -> None:
    async with house() as h:
        acme = {"authorization": f"Bearer {h.token('admin', tenant='acme')}"}
        ours, theirs = h.kit.tokens.issue("supervisor"), h.kit.tokens.issue("supervisor", tenant="acme")
        for minted in (ours, theirs):
            assert (await h.http.delete(f"/api/tokens/{minted.token_id}", headers=acme)).status_code == 204
        for minted, status in ((ours, 200), (theirs, 401)):
            seen = await h.http.get("/api/rooms", headers={"authorization": f"Bearer {minted.token}"})
            assert seen.status_code == status
        assert (await h.http.get("/metrics", headers=acme)).status_code == 403
        admin = {"authorization": f"Bearer {h.token('admin')}"}
        assert (await h.http.get("/metrics", headers=admin)).status_code == 200


async def test_a_guest_learns_no_staff_id_from_the_floor() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        async with h.joined("a") as socket:
            boss = {"authorization": f"Bearer {h.token('supervisor', id='emp-4711', display_name='Sam')}"}
            await h.http.post("/api/rooms/a/floor/take", json={}, headers=boss)
            await asyncio.sleep(1)
            assert (await socket.get("room"))["room"]["floor"] == {"mode": "human", "holder": "Sam"}
            assert "emp-4711" not in str(socket.seen)
        headers = guest(h, "a")
        seen = await h.http.get("/api/rooms/a", headers=headers)
        assert seen.json()["room"]["floor"] == {"mode": "human", "holder": "Sam"}
        assert "emp-4711" not in (await h.http.get("/api/rooms/a/events", headers=headers)).text
        await h.kit.take_over("a", "emp-1", force=True)
        seen = await h.http.get("/api/rooms/a", headers=headers)
        assert seen.json()["room"]["floor"] == {"mode": "human", "holder": None}


@pytest.mark.parametrize("room", ["a/b", "a~b", "a\nb"])
async def test_a_room_id_that_would_be_ambiguous_is_refused(room: str) -> None:
    async with house() as h:
        assert (await h.call("POST", "/rooms", json={"room_id": room})).status_code == 400


async def test_a_body_of_brackets_is_a_bad_request() -> None:
    async with house() as h:
        await h.kit.create_room("a")
        headers = {"authorization": f"Bearer {h.token('admin')}"}
        sent = await h.http.post("/api/rooms/a/messages", content=b"[" * 100_000, headers=headers)
        assert sent.status_code == 400


async def test_a_guest_is_not_told_which_guard_took_a_reply_back() -> None:
    kit = RoomKit(clock=VirtualClock(), token_secrets=[SECRET])

    @kit.before(BeforeCommit, name="card-number-guard")
    async def guard(moment):
        return Block("a card number") if "4111" in moment.value.text else Allow()

    @kit.on_message
    async def reply(ctx, message):
        async def words():
            yield TextDelta("my card is ")
            await asyncio.sleep(0.2)
            yield TextDelta("4111")

        return ChannelOutput(response_stream=words())

    async with house(kit) as h:
        await kit.create_room("a")
        async with h.joined("a") as socket:
            await socket.say("send", client_id="1", text="hi")
            assert (await socket.get("stream_error"))["error"] == "withheld"
            assert "card-number-guard" not in str(socket.seen)
