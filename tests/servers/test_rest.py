"""The REST API: every route, every role, every failure as a JSON error."""

from __future__ import annotations

import asyncio
import re

import pytest

from roomkit.channels import SMSChannel
from roomkit.core.memory import MemoryStore
from roomkit.errors import StoreUnavailable
from roomkit.kit import RoomKit
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.hooks import Allow, BeforeCommit, Block
from roomkit.ports.store import RecordQuery
from roomkit.servers.access import LEAST, RANK, Action, allowed
from roomkit.servers.rest import ENDPOINTS
from tests.servers.house import house


async def test_a_room_from_birth_to_archive() -> None:
    async with house() as h:
        made = await h.call("POST", "/rooms", json={"room_id": "r1", "external_id": "crm-7", "metadata": {"vip": True}})
        assert made.status_code == 201
        assert made.json()["room"]["metadata"] == {"vip": True}
        assert (await h.call("POST", "/rooms", json={"room_id": "r1"})).status_code == 409
        got = (await h.call("GET", "/rooms/r1")).json()
        assert set(got) == {"room", "participants", "bindings", "viewers"}
        patched = await h.call(
            "PATCH", "/rooms/r1", json={"metadata": {"vip": None, "x": 1}, "timers": {"inactive_after_seconds": 60}}
        )
        assert patched.json()["room"]["metadata"] == {"x": 1}
        assert patched.json()["room"]["timers"]["inactive_after_seconds"] == 60
        for verb, status in (("pause", "paused"), ("close", "closed"), ("reopen", "active"), ("archive", "archived")):
            assert (await h.call("POST", f"/rooms/r1/{verb}")).json()["room"]["status"] == status
        late = await h.call("POST", "/rooms/r1/messages", json={"text": "anybody?"})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "room_closed")


async def test_messages_and_their_pages() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        for n in range(5):
            sent = await h.call("POST", "/rooms/r1/messages", json={"text": f"m{n}", "client_id": f"c{n}"})
            assert sent.status_code == 201
        again = await h.call("POST", "/rooms/r1/messages", json={"text": "m4", "client_id": "c4"})
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        assert again.json()["event"]["id"] == sent.json()["event"]["id"]
        newest = (await h.call("GET", "/rooms/r1/events?limit=2")).json()
        assert [e["content"]["text"] for e in newest["events"]] == ["m3", "m4"]
        assert newest["more"]
        first = newest["events"][0]["index"]
        before = (await h.call("GET", f"/rooms/r1/events?before={first}&limit=200")).json()
        assert [e["index"] for e in before["events"]] == list(range(first))
        assert not before["more"]
        after = (await h.call("GET", f"/rooms/r1/events?after={first}&limit=1")).json()
        assert [e["content"]["text"] for e in after["events"]] == ["m4"]
        assert (await h.call("GET", "/rooms/r1/events?after=1&before=2")).status_code == 400


async def test_a_guest_sees_its_own_room_without_the_inside() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.create_room("r2")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1', id='ada', display_name='Ada')}"}
        sent = await h.http.post("/api/rooms/r1/messages", json={"text": "hi", "client_id": "c1"}, headers=headers)
        assert sent.status_code == 201
        await h.call("POST", "/rooms/r1/notes", json={"text": "she is important"})
        event = sent.json()["event"]
        assert event["metadata"] == {"client_id": "c1", "sender_name": "Ada"}
        assert set(event["source"]) == {"channel_id", "channel_type", "direction", "participant_id"}
        page = (await h.http.get("/api/rooms/r1/events?raw=true", headers=headers)).json()
        assert "important" not in str(page)
        assert [e["content"].get("text") for e in page["events"] if e["type"] == "message"] == ["hi"]
        room = (await h.http.get("/api/rooms/r1", headers=headers)).json()
        assert set(room["room"]) == {"id", "status", "floor", "waiting", "approval", "language", "latest_index"}
        assert room["participants"] == [{"id": "ada", "display_name": "Ada", "role": "member", "status": "active"}]
        assert "bindings" not in room
        for method, path in (
            ("GET", "/rooms/r2"),
            ("GET", "/rooms"),
            ("POST", "/rooms/r1/close"),
            ("GET", "/rooms/r1/bindings"),
        ):
            refused = await h.http.request(method, f"/api{path}", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), path


async def test_hidden_events_do_not_empty_a_guests_page() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1')}"}
        await h.http.post("/api/rooms/r1/messages", json={"text": "old"}, headers=headers)
        for n in range(30):
            await h.kit.note("r1", f"note {n}", "bob")
        page = (await h.http.get("/api/rooms/r1/events?limit=5", headers=headers)).json()
        assert "old" in [e["content"].get("text") for e in page["events"]]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "system", "code": "x"},
        {"type": "tool_call", "call_id": "1", "name": "n"},
        {"type": "rich", "text": "<b>"},
        {"type": "media", "url": "https://evil.example/x.png", "mime_type": "image/png"},
        {"type": "edit", "target_event_id": "e", "new_content": {"type": "text", "text": "x"}, "edit_source": "system"},
        {"type": "delete", "target_event_id": "e", "delete_type": "admin"},
        {"type": "composite", "parts": [{"type": "text", "text": "a"}, {"type": "system", "code": "x"}]},
    ],
)
async def test_a_guest_cannot_write_what_only_the_house_writes(content) -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1')}"}
        refused = await h.http.post("/api/rooms/r1/messages", json={"content": content}, headers=headers)
        assert refused.status_code == 400
        assert not [e for e in await h.kit.events("r1") if e.type == "message"]


async def test_edits_and_reactions_of_ones_own() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1')}"}
        post = "/api/rooms/r1/messages"
        event = (await h.http.post(post, json={"text": "helo"}, headers=headers)).json()["event"]
        edit = {"type": "edit", "target_event_id": event["id"], "new_content": {"type": "text", "text": "hello"}}
        assert (await h.http.post(post, json={"content": edit}, headers=headers)).json()["event"]["type"] == "edit"
        smile = {"type": "reaction", "target_event_id": event["id"], "emoji": "🙂"}
        assert (await h.http.post(post, json={"content": smile}, headers=headers)).status_code == 201
        page = (await h.http.get("/api/rooms/r1/events", headers=headers)).json()["events"]
        shown = next(e for e in page if e["id"] == event["id"])
        assert shown["content"]["text"] == "hello"
        assert shown["metadata"]["edited"] is True
        delete = {"type": "delete", "target_event_id": event["id"]}
        assert (await h.http.post(post, json={"content": delete}, headers=headers)).status_code == 201
        raw = await h.http.get("/api/rooms/r1/events?raw=true", headers=headers)
        assert next(e for e in raw.json()["events"] if e["id"] == event["id"])["content"]["type"] == "system"
        whole = await h.call("GET", "/rooms/r1/events?raw=true")
        assert next(e for e in whole.json()["events"] if e["id"] == event["id"])["content"]["text"] == "helo"


async def test_a_rule_that_blocks_is_named() -> None:
    kit = RoomKit()

    @kit.before(BeforeCommit, name="no shouting")
    async def guard(moment):
        return Block("please do not shout") if moment.value.text.isupper() else Allow()

    async with house(kit) as h:
        await kit.create_room("r1")
        blocked = await h.call("POST", "/rooms/r1/messages", json={"text": "HELLO"})
        assert blocked.status_code == 409
        assert blocked.json()["error"]["message"] == "please do not shout"
        assert blocked.json()["error"]["event"]["status"] == "blocked"


async def test_channels_are_seated_muted_and_removed() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        seat = await h.call("POST", "/rooms/r1/bindings", json={"channel_id": "web", "access": "read_only"})
        assert seat.status_code == 201
        path = "/rooms/r1/bindings/web"
        change = {
            "access": "read_write",
            "muted": True,
            "output_muted": True,
            "visibility": "transport",
            "metadata": {"a": 1},
        }
        binding = (await h.call("PATCH", path, json=change)).json()["binding"]
        assert (binding["access"], binding["muted"], binding["output_muted"]) == ("read_write", True, True)
        assert (binding["visibility"], binding["metadata"]["a"]) == ("transport", 1)
        assert (await h.call("PATCH", path, json={"muted": False})).json()["binding"]["muted"] is False
        assert (await h.call("PATCH", path, json={"access": "everything"})).status_code == 422
        assert (await h.call("DELETE", path)).status_code == 204
        assert (await h.call("GET", "/rooms/r1/bindings")).json()["bindings"] == []
        assert (await h.call("DELETE", path)).status_code == 404
        missing = await h.call("POST", "/rooms/r1/bindings", json={"channel_id": "wbe"})
        assert missing.status_code == 404
        assert 'did you mean "web"' in missing.json()["error"]["message"]


async def test_a_guest_of_a_detached_channel_stays_outside() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.attach_channel("r1", "web")
        await h.kit.detach_channel("r1", "web")
        headers = {"authorization": f"Bearer {h.token('guest', 'r1')}"}
        refused = await h.http.post("/api/rooms/r1/messages", json={"text": "let me in"}, headers=headers)
        assert refused.status_code == 409
        assert refused.json()["error"]["message"] == "this message could not be sent"


async def test_people_come_are_renamed_and_go() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        body = {"participant_id": "bob", "display_name": "Bob", "role": "agent"}
        assert (await h.call("POST", "/rooms/r1/participants", json=body)).status_code == 201
        renamed = await h.call("PATCH", "/rooms/r1/participants/bob", json={"display_name": "Robert"})
        assert renamed.json()["participant"]["display_name"] == "Robert"
        assert (await h.call("DELETE", "/rooms/r1/participants/bob")).status_code == 204
        people = (await h.call("GET", "/rooms/r1/participants")).json()["participants"]
        assert [(p["id"], p["status"]) for p in people] == [("bob", "left")]


async def test_the_floor_is_taken_once_and_handed_back_with_a_note() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        taken = await h.call("POST", "/rooms/r1/floor/take", role="agent")
        assert taken.json()["room"]["floor"]["holder"] == "agent"
        second = await h.call("POST", "/rooms/r1/floor/take", role="supervisor")
        assert (second.status_code, second.json()["error"]["code"]) == (409, "floor_taken")
        assert second.json()["error"]["holder"] == "agent"
        forced = await h.call("POST", "/rooms/r1/floor/take", role="supervisor", json={"force": True})
        assert forced.json()["room"]["floor"]["holder"] == "supervisor"
        back = await h.call("POST", "/rooms/r1/floor/release", role="supervisor", json={"note": "be kind"})
        assert back.json()["room"]["floor"]["mode"] == "ai"
        assert "be kind" in [e.text for e in await h.kit.events("r1")]
        both = await h.call("PUT", "/rooms/r1/floor", role="supervisor", json={"mode": "both"})
        assert both.json()["room"]["floor"]["mode"] == "both"
        assert (await h.call("PUT", "/rooms/r1/floor", role="agent", json={"mode": "ai"})).status_code == 403


async def test_whispers_notes_and_drafts() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.attach_channel("r1", "web")
        whisper = await h.call("POST", "/rooms/r1/whisper", role="agent", json={"text": "psst", "to": "web"})
        assert whisper.json()["event"]["visibility"] == "web"
        note = await h.call("POST", "/rooms/r1/notes", role="agent", json={"text": "remember"})
        assert (note.status_code, note.json()["event"]["type"]) == (201, "note")
        first = (await h.call("POST", "/rooms/r1/drafts", role="agent", json={"text": "one"})).json()["draft"]
        second = (await h.call("POST", "/rooms/r1/drafts", role="agent", json={"text": "two"})).json()["draft"]
        listed = (await h.call("GET", "/rooms/r1/drafts", role="agent")).json()["drafts"]
        assert {d["id"] for d in listed} == {first["id"], second["id"]}
        assert (await h.call("POST", f"/rooms/r1/drafts/{first['id']}/approve", role="agent")).status_code == 403
        sent = await h.call("POST", f"/rooms/r1/drafts/{first['id']}/approve", role="supervisor")
        assert sent.json()["event"]["content"]["text"] == "one"
        assert (await h.call("POST", f"/rooms/r1/drafts/{second['id']}/discard", role="supervisor")).status_code == 204
        assert (await h.call("GET", "/rooms/r1/drafts", role="agent")).json()["drafts"] == []
        again = await h.call("POST", f"/rooms/r1/drafts/{first['id']}/approve", role="supervisor")
        assert again.status_code == 409


async def test_what_is_written_at_the_desk_once_stands_once_however_often_it_is_sent() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.attach_channel("r1", "web")
        for path, body, kind in (
            ("whisper", {"text": "psst", "to": "web"}, "event"),
            ("notes", {"text": "remember"}, "event"),
            ("drafts", {"text": "dear customer"}, "draft"),
        ):
            answers = [
                (await h.call("POST", f"/rooms/r1/{path}", role="agent", json={**body, "client_id": "c1"})).json()
                for _ in range(3)
            ]
            assert len({answer[kind]["id"] for answer in answers}) == 1
            another = await h.call("POST", f"/rooms/r1/{path}", role="agent", json={**body, "client_id": "c2"})
            assert another.json()[kind]["id"] != answers[0][kind]["id"]
            other = await h.call("POST", f"/rooms/r1/{path}", role="supervisor", json={**body, "client_id": "c1"})
            assert other.json()[kind]["id"] != answers[0][kind]["id"], "somebody else's id is their own"
        texts = [e.text for e in await h.kit.events("r1", raw=True) if e.text]
        assert {text: texts.count(text) for text in texts} == {"psst": 3, "remember": 3, "dear customer": 3}
        assert len(await h.kit.drafts("r1")) == 3
        await h.kit.close_room("r1")
        again = await h.call("POST", "/rooms/r1/notes", role="agent", json={"text": "remember", "client_id": "c1"})
        assert again.status_code == 201, "what was done before the room closed is done"


async def test_attention_is_a_queue() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.create_room("r2")
        headers = {"authorization": f"Bearer {h.token('guest', 'r2')}"}
        asked = await h.http.post("/api/rooms/r2/request-human", json={"reason": "it is broken"}, headers=headers)
        assert asked.json()["room"]["waiting"] is True
        queue = (await h.call("GET", "/attention")).json()["rooms"]
        assert [(room["id"], room["attention"]["reason"]) for room in queue] == [("r2", "it is broken")]
        waiting = (await h.call("GET", "/rooms?attention=true")).json()["rooms"]
        assert [room["id"] for room in waiting] == ["r2"]


async def test_the_list_of_rooms_is_filtered_and_paged() -> None:
    async with house() as h:
        for n in range(5):
            await h.kit.create_room(f"r{n}", external_id=f"x{n}")
        await h.kit.close_room("r0")
        await h.kit.add_member("r3", "ada", display_name="Ada Lovelace")
        page = (await h.call("GET", "/rooms?limit=3")).json()
        assert (len(page["rooms"]), page["next_offset"]) == (3, 3)
        rest = (await h.call("GET", "/rooms?limit=3&offset=3")).json()
        assert (len(rest["rooms"]), rest["next_offset"]) == (2, None)
        for query, expected in (
            ("q=lovelace", ["r3"]),
            ("external_id=x2", ["r2"]),
            ("status=closed", ["r0"]),
            ("q=nobody", []),
        ):
            assert [r["id"] for r in (await h.call("GET", f"/rooms?{query}")).json()["rooms"]] == expected, query
        assert (await h.call("GET", "/rooms?q=lovelace")).json()["rooms"][0]["people"] == ["Ada Lovelace"]
        assert (await h.call("GET", "/rooms?limit=9999")).status_code == 422
        await h.kit.send("r3", "The  last\nwords " + "of many " * 20)
        line = (await h.call("GET", "/rooms?q=lovelace")).json()["rooms"][0]
        assert line["last"].startswith("The last words of many")
        assert len(line["last"]) == 80


async def test_steering_needs_a_running_turn() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        for body in ({"directive": "cancel"}, {"directive": "inject"}):
            assert (await h.call("POST", "/rooms/r1/steer", json=body)).status_code == 400
        assert (await h.call("POST", "/rooms/r1/steer", json={"directive": "dance"})).status_code == 422


async def test_what_is_not_there_is_404_in_json() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        for method, path in (
            ("GET", "/rooms/none"),
            ("GET", "/rooms/none/events"),
            ("POST", "/rooms/none/notes"),
            ("GET", "/rooms/r1/media/none"),
            ("GET", "/nothing/here"),
        ):
            missing = await h.call(method, path, json={"text": "x"} if method == "POST" else None)
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found"), path
        assert (await h.call("DELETE", "/rooms")).status_code == 405
        assert (await h.call("POST", "/approvals/none", json={})).status_code == 404
        assert (await h.call("POST", "/dead-letters/none/resend")).status_code == 409
        for path in ("tasks", "approvals", "deliveries"):
            assert (await h.call("GET", f"/rooms/r1/{path}")).status_code == 200
        event = (await h.kit.send("r1", "hello")).event
        assert event is not None
        assert (await h.call("GET", f"/rooms/r1/events/{event.id}/shown")).json() == {"shown": []}
        assert (await h.call("GET", "/rooms/r1/events/none/shown")).status_code == 400
        assert (await h.call("GET", "/dead-letters")).json() == {"dead_letters": []}
        assert (await h.call("POST", "/rooms/r1/read", json={"index": 0})).status_code == 204


async def test_dead_letters_are_listed_sent_again_and_given_up() -> None:
    async with house() as h:
        h.kit.register_channel(SMSChannel("sms"))
        await h.kit.create_room("r1", channels=["sms"])
        for text in ("one", "two"):
            await (await h.kit.send("r1", text)).settled(5)
        letters = (await h.call("GET", "/dead-letters", role="supervisor")).json()["dead_letters"]
        first, second = (f"/dead-letters/{letter['id']}" for letter in letters)
        assert (await h.call("POST", f"{first}/resend", role="supervisor")).status_code == 403
        assert (await h.call("DELETE", second, role="supervisor")).status_code == 403
        assert (await h.call("POST", f"{first}/resend")).status_code == 202
        assert (await h.call("DELETE", second)).status_code == 204
        assert (await h.call("DELETE", second)).status_code == 409
        while (left := await h.kit.dead_letters()) == []:
            await asyncio.sleep(0.1)
        assert [letter["id"] for letter in left] == [letters[0]["id"]], "still without a provider"


async def test_bodies_are_checked() -> None:
    async with house(body_bytes=200) as h:
        await h.kit.create_room("r1")
        big = await h.call("POST", "/rooms/r1/notes", json={"text": "x" * 300})
        assert (big.status_code, big.json()["error"]["code"]) == (413, "too_large")
        headers = {"authorization": f"Bearer {h.token('admin')}"}

        async def chunks():
            for _ in range(50):
                yield b"x" * 10

        endless = await h.http.post("/api/rooms/r1/notes", content=chunks(), headers=headers)
        assert endless.status_code == 413
        broken = await h.http.post("/api/rooms/r1/notes", content=b"{", headers=headers)
        assert (broken.status_code, broken.json()["error"]["code"]) == (400, "bad_request")
        unknown = await h.call("POST", "/rooms/r1/notes", json={"text": "x", "colour": "red"})
        assert unknown.status_code == 422
        assert unknown.json()["error"]["details"] == [{"field": "colour", "message": "Extra inputs are not permitted"}]
        nobody = await h.call("POST", "/rooms/r1/messages", json={})
        assert nobody.status_code == 400


async def test_who_is_asking() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        for header in ({}, {"authorization": "Basic x"}, {"authorization": "Bearer nonsense"}):
            unknown = await h.http.get("/api/rooms", headers=header)
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "unauthenticated")
            assert unknown.headers["www-authenticate"] == "Bearer"
        assert (await h.http.get(f"/api/rooms?token={h.token('admin')}")).status_code == 401
        me = await h.call("GET", "/me", role="agent")
        assert me.json()["principal"] == {"id": "agent", "role": "agent", "display_name": None, "room_id": None}


async def test_tokens_are_minted_refreshed_and_revoked() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        minted = (
            await h.call("POST", "/tokens", role="supervisor", json={"role": "guest", "room_id": "r1", "id": "ada"})
        ).json()
        assert h.kit.tokens.verify(minted["token"]).id == "ada"
        assert (await h.call("POST", "/tokens", role="agent", json={"role": "admin"})).status_code == 403
        assert (await h.call("POST", "/tokens", json={"role": "guest"})).status_code == 400
        assert (await h.call("POST", "/tokens", json={"role": "guest", "room_id": "none"})).status_code == 404
        headers = {"authorization": f"Bearer {minted['token']}"}
        fresh = (await h.http.post("/api/tokens/refresh", headers=headers)).json()
        assert h.kit.tokens.verify(fresh["token"]).room_id == "r1"
        assert (await h.call("DELETE", f"/tokens/{minted['token_id']}", role="supervisor")).status_code == 403
        assert (await h.call("DELETE", f"/tokens/{minted['token_id']}")).status_code == 204
        assert (await h.http.get("/api/rooms/r1", headers=headers)).status_code == 401
        renewed = {"authorization": f"Bearer {fresh['token']}"}
        assert (await h.http.get("/api/rooms/r1", headers=renewed)).status_code == 401


async def test_a_token_counts_as_revoked_once_that_is_written_down() -> None:
    class Broken(MemoryStore):
        broken = False

        async def commit(self, batch):
            if self.broken:
                raise StoreUnavailable("the disk is full")
            return await super().commit(batch)

    store = Broken()
    async with house(RoomKit(store)) as h:
        minted = (await h.call("POST", "/tokens", json={"role": "agent", "id": "ada"})).json()
        store.broken = True
        assert (await h.call("DELETE", f"/tokens/{minted['token_id']}")).status_code == 503
        headers = {"authorization": f"Bearer {minted['token']}"}
        assert (await h.http.get("/api/me", headers=headers)).status_code == 401, "it is refused all the same"
        store.broken = False
        assert (await h.call("DELETE", f"/tokens/{minted['token_id']}")).status_code == 204
        assert [row.key for row in await store.records(RecordQuery("revoked", "default"))]


async def test_a_tenant_never_sees_anothers_rooms() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.kit.tenant("acme").create_room("r1", metadata={"mine": True})
        await h.kit.tenant("acme").create_room("only-acme")
        acme = {"authorization": f"Bearer {h.token('admin', tenant='acme')}"}
        assert (await h.http.get("/api/rooms/r1", headers=acme)).json()["room"]["metadata"] == {"mine": True}
        assert (await h.call("GET", "/rooms/only-acme")).status_code == 404
        rooms = (await h.http.get("/api/rooms", headers=acme)).json()["rooms"]
        assert {room["tenant"] for room in rooms} == {"acme"}


async def test_a_flood_is_refused_not_queued() -> None:
    async with house(requests_per_s=1) as h:
        await h.kit.create_room("r1")
        answers = [await h.call("POST", "/rooms/r1/notes", json={"text": "x"}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert answers[-1].json()["error"]["code"] == "rate_limited"
        other = await h.call("POST", "/rooms/r1/notes", role="agent", json={"text": "x"})
        assert other.status_code == 201


async def test_a_store_that_refuses_is_503_and_not_an_acknowledgement() -> None:
    class Broken(MemoryStore):
        broken = False

        async def commit(self, batch):
            if self.broken:
                from roomkit.errors import StoreUnavailable

                raise StoreUnavailable("disk /dev/secret is full")
            return await super().commit(batch)

    store = Broken()
    async with house(RoomKit(store)) as h:
        await h.kit.create_room("r1")
        store.broken = True
        refused = await h.call("POST", "/rooms/r1/messages", json={"text": "x"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "secret" not in refused.text
        assert refused.headers["retry-after"]
        store.broken = False
        assert (await h.call("POST", "/rooms/r1/messages", json={"text": "x"})).status_code == 201


def test_the_table_of_roles_covers_every_action_and_a_guest_gets_nothing_else() -> None:
    assert set(LEAST) == set(Action)
    guest = Principal(id="g", role=PrincipalRole.GUEST, room_id="r1")
    may = {action for action in Action if allowed(guest, action, "r1")}
    assert may == {Action.READ_ROOM, Action.WRITE, Action.REQUEST_HUMAN, Action.MEDIA, Action.REFRESH}
    assert not any(allowed(guest, action, "r2") for action in Action if action is not Action.REFRESH)
    homeless = Principal(id="g", role=PrincipalRole.GUEST)
    assert {action for action in Action if allowed(homeless, action, "r1")} == {Action.REFRESH}
    bound = Principal(id="a", role=PrincipalRole.ADMIN, room_id="r1")
    assert not allowed(bound, Action.READ_ROOM, "r2")
    assert [role.value for role in sorted(RANK, key=RANK.__getitem__)] == ["guest", "agent", "supervisor", "admin"]


async def test_no_route_is_open_and_each_asks_for_its_role() -> None:
    """Every row of the API, with every role below the least: 401 without a token, 403 with too little."""
    async with house(requests_per_s=1e6) as h:
        await h.kit.create_room("r1")
        for row in ENDPOINTS:
            path = "/api" + row.path.replace("{room}", "r1").replace("{letter:path}", "x")
            for name in ("channel", "person", "draft", "approval", "blob", "token"):
                path = path.replace(f"{{{name}}}", "x")
            assert (await h.http.request(row.method, path)).status_code == 401, path
            for role in PrincipalRole:
                if RANK[role] < RANK[LEAST[row.action]]:
                    headers = {
                        "authorization": f"Bearer {h.token(role.value, 'r1' if role is PrincipalRole.GUEST else None)}"
                    }
                    assert (await h.http.request(row.method, path, headers=headers)).status_code == 403, (role, path)


async def test_a_host_brings_its_own_authentication() -> None:
    def authenticate(connection):
        return Principal(id="host-user", role=PrincipalRole.AGENT) if connection.headers.get("x-user") == "me" else None

    async def authorize(principal, action, room_id):
        return action is Action.READ_ROOM

    async with house(authenticate=authenticate, authorize=authorize) as h:
        await h.kit.create_room("r1")
        assert (await h.http.get("/api/rooms/r1", headers={"x-user": "me"})).status_code == 200
        assert (await h.http.get("/api/rooms", headers={"x-user": "me"})).status_code == 403
        assert (await h.http.get("/api/rooms/r1", headers={"x-user": "you"})).status_code == 401


async def test_a_blocked_whisper_is_refused_like_a_blocked_message() -> None:
    async with house() as h:

        @h.kit.before(BeforeCommit)
        async def guard(moment: BeforeCommit) -> Block | None:
            return Block("no cards") if "4111" in moment.value.text else None

        await h.kit.create_room("r1")
        await h.kit.attach_channel("r1", "web")
        refused = await h.call("POST", "/rooms/r1/whisper", role="agent", json={"text": "4111", "to": "web"})
        assert refused.status_code == 409
        assert refused.json()["error"]["message"] == "no cards"
        taken = await h.call("POST", "/rooms/r1/whisper", role="agent", json={"text": "psst", "to": "web"})
        assert taken.status_code == 201


async def test_errors_tell_what_to_do_over_http() -> None:
    async with house() as h:
        await h.kit.create_room("r1")
        await h.call("POST", "/rooms/r1/floor/take", role="agent")
        asked = [
            ("GET", "/rooms/none", None, "POST /api/rooms"),
            ("POST", "/rooms/r1/floor/take", None, '{"force": true}'),
            ("POST", "/rooms/r1/steer", {"directive": "cancel"}, "/whisper"),
            ("POST", "/rooms/r1/whisper", {"text": "x", "to": "none"}, "/bindings"),
            ("POST", "/rooms/r1/approvals/none", {"granted": True}, "/approvals lists"),
            ("POST", "/rooms", {"room_id": "r1"}, "choose another id"),
        ]
        await h.kit.create_room("r2")
        await h.kit.close_room("r2")
        asked.append(("POST", "/rooms/r2/messages", {"text": "hi"}, ""))
        asked.append(("POST", "/rooms/r2/floor/take", None, "/reopen"))
        for method, path, body, told in asked:
            message = (await h.call(method, path, role="supervisor", json=body)).json()["error"]["message"]
            assert told in message, message
            assert not re.search(r"kit\.|\w\(\)|=True", message), message
