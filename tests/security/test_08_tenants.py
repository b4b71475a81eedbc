"""Line 8: tenants who share every id. Each does the same things with its own words: nothing that one of them gets holds
a byte of another's, over every store."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roomkit import AIChannel, RoomKit
from roomkit.ai.memory import Retrieval, Summarizing
from roomkit.ai.tools import Toolbox, ToolContext, tool
from roomkit.errors import RoomKitError
from roomkit.models.access import Principal, PrincipalRole
from roomkit.models.content import MediaContent
from roomkit.models.delivery import DeliveryState, DeliveryStatus, InboundMessage
from roomkit.models.event import RoomEvent
from roomkit.models.room import Identity
from roomkit.models.stream import Ephemeral
from roomkit.ports.store import EventQuery, RecordQuery
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.channels import FakeChannel
from roomkit.testing.postgres import PostgresCluster, find_binaries
from tests.servers.house import SECRET, House, MemoryBlobs, house

TENANTS = ("acme", "default", "acme/x")
ROOM, WHO, PERSON = "room-1", "+15550123", "ann"
MARK = {tenant: f"ONLY-{n}{n}{n}{n}-{'abc'[n] * 6}" for n, tenant in enumerate(TENANTS)}
"""A word that each tenant uses and the others do not."""


class Index:
    """A retriever that searches badly: it returns whatever it has under the key it is asked for."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []

    async def add(self, tenant: str, room_id: str, event: RoomEvent) -> None:
        self.kept.setdefault((tenant, room_id), []).append(event.text)

    async def search(self, tenant: str, room_id: str, query: str, limit: int) -> list[str]:
        self.asked.append((tenant, query))
        return self.kept.get((tenant, room_id), [])[:limit]

    async def aclose(self) -> None: ...


@tool
async def recall(context: ToolContext) -> str:
    """All that the tool can read."""
    assert context.history is not None
    return " ".join(event.text for event in await context.history(1000))


class Both:
    """One kit, and what each tenant got of it: from the API, in views, through channels, to its model."""

    def __init__(self, kit: RoomKit) -> None:
        self.kit = kit
        self.got: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
        self.brain = ScriptedAI([call("recall", "c1")], "noted", repeat=False)
        self.sms = FakeChannel("sms")
        self.index = Index()

    def told(self, tenant: str, *things: Any) -> None:
        self.got[tenant] += [f"{thing!r}{thing}" for thing in things]

    async def live(self, tenant: str) -> None:
        """One day in the life of a tenant."""
        rooms, mark = self.kit.tenant(tenant), MARK[tenant]
        await rooms.create_room(ROOM, external_id="ext", metadata={"secret": mark}, channels=["ai", "sms", "web"])
        await self.kit.identities.put(
            Identity(id=PERSON, tenant=tenant, display_name=f"Ann {mark}", addresses={"sms": (WHO,)})
        )
        await rooms.add_member(ROOM, PERSON, display_name=f"Ann {mark}", metadata={"secret": mark})
        await rooms.open_view(ROOM, Principal(id="sam", role=PrincipalRole.ADMIN, tenant=tenant), self._deliver(tenant))
        self.brain.add([call("recall", "c1")], f"noted {mark}")
        await self.say(tenant, f"my word is {mark}", "m1")
        await (await rooms.send(ROOM, f"from the house: {mark}", idempotency_key="k1")).settled()
        await rooms.note(ROOM, f"note {mark}", "sam")
        await rooms.draft(ROOM, f"draft {mark}", by="sam")
        await rooms.take_over(ROOM, f"sam-{mark}")
        await rooms.request_human(ROOM, f"because {mark}")
        rooms.publish(Ephemeral(kind="typing", room_id=ROOM, sender=f"sam {mark}", data={"mark": mark}))
        rooms.publish_presence(ROOM, f"sam {mark}", "here")

    async def say(self, tenant: str, text: str, external_id: str) -> None:
        message = InboundMessage.text("sms", WHO, text, external_id=external_id)
        result = await self.kit.tenant(tenant).process_inbound(message, room_id=ROOM)
        await result.settled()
        self.told(tenant, result, result.duplicate)
        assert not result.duplicate, "the same id of another tenant is another message"

    def _deliver(self, tenant: str) -> Any:
        return lambda item: self.told(tenant, item)

    async def look(self, tenant: str) -> None:
        """Everything that can be read."""
        rooms = self.kit.tenant(tenant)
        for q in ("", *MARK.values(), "ext", PERSON, WHO, ROOM, "ann"):
            self.told(tenant, *(await rooms.list_rooms(q=q)))
        for by in ({"metadata": {"secret": MARK[other]}} for other in TENANTS):
            self.told(tenant, *(await rooms.list_rooms(**by)))
        self.told(tenant, await rooms.get_room(ROOM), *(await rooms.participants(ROOM)), *(await rooms.bindings(ROOM)))
        for raw in (True, False):
            self.told(tenant, *(await rooms.events(ROOM, limit=1000, raw=raw)))
        for read in (rooms.deliveries, rooms.drafts, rooms.tasks, rooms.observations):
            self.told(tenant, *(await read(ROOM)))
        self.told(tenant, *(await rooms.attention()), *(await rooms.approvals()), *(await rooms.dead_letters()))
        self.told(tenant, *[line async for line in rooms.export_room(ROOM)], await rooms.audit_room(ROOM))
        self.told(tenant, await self.kit.identities.get(tenant, PERSON))
        fork = await rooms.fork(ROOM, new_id="fork")
        self.told(tenant, fork, *(await rooms.events("fork", limit=1000, raw=True)))
        status = DeliveryStatus(channel_id="sms", provider_message_id="fake-1", state=DeliveryState.READ)
        self.told(tenant, await rooms.delivery_status(status))

    def check(self) -> None:
        for tenant in TENANTS:
            all_of_it = "\n".join(self.got[tenant])
            assert all_of_it.count(MARK[tenant]) > 20, f"{tenant} does not even see its own"
            for other in set(TENANTS) - {tenant}:
                where = next((line for line in self.got[tenant] if MARK[other] in line), "")
                assert MARK[other] not in all_of_it, f"{tenant} got something of {other}: {where[:400]}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    if find_binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with PostgresCluster() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'rooms.db'}"
    running: PostgresCluster = request.getfixturevalue("cluster")
    return f"{running.url}?schema=s{os.getpid()}{abs(hash(request.node.nodeid)) % 10**8}"


@asynccontextmanager
async def kit_on(url: str | None) -> AsyncIterator[Both]:
    kit = RoomKit(url, token_secrets=[SECRET], blobs=MemoryBlobs())
    both = Both(kit)
    memory = Retrieval(both.index)
    kit.register_channel(AIChannel("ai", both.brain, tool_handler=Toolbox([recall]), memory=memory))
    kit.register_channel(both.sms)
    async with house(kit):
        yield both


@pytest.mark.real_time
@pytest.mark.may_block
async def test_who_shares_every_id_shares_nothing_else(url: str | None) -> None:
    async with kit_on(url) as both:
        both.brain._rounds.clear()
        for tenant in TENANTS:
            await both.live(tenant)
        await asyncio.sleep(0.05)
        for tenant in TENANTS:
            await both.look(tenant)
        for event in both.sms.events:
            both.told(event.tenant, event.text)
        for request in both.brain.requests:
            text = repr(request)
            (owner,) = [tenant for tenant in TENANTS if MARK[tenant] in text]
            both.told(owner, text)
        for (tenant, _), texts in both.index.kept.items():
            both.told(tenant, *texts)
        for tenant, query in both.index.asked:
            both.told(tenant, query)
        assert {tenant for tenant, _ in both.index.asked} == set(TENANTS)
        both.check()


@pytest.mark.real_time
@pytest.mark.may_block
async def test_the_store_itself_answers_each_tenant_apart(url: str | None) -> None:
    async with kit_on(url) as both:
        both.brain._rounds.clear()
        for tenant in TENANTS:
            await both.live(tenant)
        store = both.kit.engine.store
        kinds = (
            "room",
            "binding",
            "participant",
            "delivery",
            "dead",
            "draft",
            "approval",
            "identity",
            "task",
            "dedupe",
        )
        for tenant in TENANTS:
            both.told(tenant, *(await store.events(EventQuery(tenant, ROOM, limit=1000))))
            for kind in kinds:
                both.told(tenant, *(await store.records(RecordQuery(kind, tenant, limit=1000))))
        both.check()


ROUTES = (
    *("/rooms", "/attention", f"/rooms/{ROOM}", f"/rooms/{ROOM}/events", f"/rooms/{ROOM}/deliveries"),
    *(f"/rooms/{ROOM}/bindings", f"/rooms/{ROOM}/participants", f"/rooms/{ROOM}/drafts", f"/rooms/{ROOM}/tasks"),
    *(f"/rooms/{ROOM}/approvals", "/dead-letters", "/me"),
)


async def read(h: House, tenant: str, path: str) -> str:
    token = h.kit.tokens.mint("admin", id="admin", tenant=tenant)
    answer = await h.http.get(f"/api{path}", headers={"authorization": f"Bearer {token}"})
    return answer.text


async def test_the_api_and_the_socket_tell_each_tenant_its_own() -> None:
    kit = RoomKit(token_secrets=[SECRET], blobs=MemoryBlobs())
    both = Both(kit)
    kit.register_channel(AIChannel("ai", both.brain, tool_handler=Toolbox([recall])))
    kit.register_channel(both.sms)
    async with house(kit) as h:
        both.brain._rounds.clear()
        for tenant in TENANTS:
            await both.live(tenant)
        for tenant in TENANTS:
            both.told(tenant, *[await read(h, tenant, path) for path in ROUTES])
            for q in MARK.values():
                both.told(tenant, await read(h, tenant, f"/rooms?q={q}"))
            async with h.socket() as socket:
                await socket.say("auth", token=kit.tokens.mint("admin", id="admin", tenant=tenant), v=1)
                await socket.say("join", room_id=ROOM)
                await socket.say("watch", on=True)
                await socket.say("history", before=100, limit=50)
                await socket.get("history")
                for other in TENANTS:  # Everybody's rooms change while this one looks on.
                    await kit.tenant(other).note(ROOM, f"again {MARK[other]}", "sam")
                await asyncio.sleep(5)
                await socket.say("ping")
                await socket.get("pong")
                assert any(frame["type"] == "rooms" for frame in socket.seen)
                both.told(tenant, json.dumps(socket.seen))
        both.check()


async def test_a_file_of_one_tenant_or_room_is_none_of_anothers() -> None:
    async with house() as h:
        await h.kit.create_room("r", channels=["web"])
        await h.kit.create_room("other", channels=["web"])
        await h.kit.tenant("acme").create_room("r")

        async def body() -> AsyncIterator[bytes]:
            yield b"picture"

        theirs = [
            await h.kit.blobs.put("default", body(), mime_type="image/png", room_id="other"),
            await h.kit.blobs.put("acme", body(), mime_type="image/png", room_id="r"),
        ]
        for info in theirs:
            assert (await h.call("GET", f"/rooms/r/media/{info.id}")).status_code == 404
            token = h.token("guest", "r")
            stolen = MediaContent(url=f"blob:{info.id}", mime_type="image/png").model_dump(mode="json")
            for content in (stolen, {"type": "composite", "parts": [stolen]}):
                sent = await h.http.post(
                    "/api/rooms/r/messages", json={"content": content}, headers={"authorization": f"Bearer {token}"}
                )
                assert sent.status_code == 400, "whoever names a file of another room could send it to himself"
        mine = await h.kit.blobs.put("default", body(), mime_type="image/png", room_id="r")
        content = MediaContent(url=f"blob:{mine.id}", mime_type="image/png").model_dump(mode="json")
        sent = await h.http.post(
            "/api/rooms/r/messages", json={"content": content}, headers={"authorization": f"Bearer {token}"}
        )
        assert sent.status_code == 201


async def test_a_link_is_for_one_tenants_file() -> None:
    async with house() as h:
        await h.kit.create_room("r", channels=["web"])

        async def body() -> AsyncIterator[bytes]:
            yield b"picture"

        info = await h.kit.blobs.put("default", body(), mime_type="image/png", room_id="r")
        href = (await h.call("GET", f"/rooms/r/media/{info.id}")).json()["href"]
        assert (await h.http.get(href)).status_code == 200
        for changed in (href.replace("t=default", "t=acme"), href.replace(info.id, "blob99"), f"{href}0"):
            assert (await h.http.get(changed)).status_code == 403


async def test_memories_keep_tenants_apart() -> None:
    """The same room id, one memory: each sums up and finds its own."""
    seen: list[str] = []

    def sum_up(request: Any) -> str:
        seen.append(repr(request))
        return f"a summary of {[mark for mark in MARK.values() if mark in repr(request)]}"

    summing = Summarizing(ScriptedAI(sum_up, repeat=True), window_tokens=100)
    kit = RoomKit()
    brain = ScriptedAI("ok", repeat=True)
    kit.register_channel(AIChannel("ai", brain, memory=summing))
    kit.register_channel(FakeChannel("sms"))
    async with kit:
        for tenant in TENANTS:
            await kit.tenant(tenant).create_room(ROOM, channels=["ai", "sms"])
        for n in range(12):
            for tenant in TENANTS:
                message = InboundMessage.text("sms", WHO, f"{n} {MARK[tenant]} " + "word " * 20)
                await (await kit.tenant(tenant).process_inbound(message, room_id=ROOM)).settled()
    assert len(seen) > 3
    for text in (*seen, *map(repr, brain.requests)):
        assert sum(mark in text for mark in MARK.values()) == 1


async def test_who_is_erased_by_one_tenant_stays_with_the_others() -> None:
    kit = RoomKit(token_secrets=[SECRET], blobs=MemoryBlobs())
    both = Both(kit)
    kit.register_channel(AIChannel("ai", both.brain, tool_handler=Toolbox([recall])))
    kit.register_channel(both.sms)
    async with house(kit):
        both.brain._rounds.clear()
        for tenant in TENANTS:
            await both.live(tenant)

        async def words(tenant: str) -> str:
            return repr(await kit.tenant(tenant).events(ROOM, limit=1000, raw=True))

        before = {tenant: await words(tenant) for tenant in TENANTS}
        await kit.tenant(TENANTS[0]).erase_person(WHO)
        assert f"my word is {MARK[TENANTS[0]]}" not in await words(TENANTS[0])
        for tenant in TENANTS[1:]:
            assert await words(tenant) == before[tenant]
            assert await kit.identities.get(tenant, PERSON) is not None


async def test_consumers_of_one_name_hear_their_own_tenant() -> None:
    kit = RoomKit(token_secrets=[SECRET], blobs=MemoryBlobs())
    both = Both(kit)
    kit.register_channel(AIChannel("ai", both.brain, tool_handler=Toolbox([recall])))
    kit.register_channel(both.sms)
    async with house(kit):
        both.brain._rounds.clear()
        for tenant in TENANTS:
            kit.tenant(tenant).consume("same name", lambda event, tenant=tenant: both.told(tenant, event))
        for tenant in TENANTS:
            await both.live(tenant)
        await asyncio.sleep(60)
        both.check()


async def test_a_principal_of_one_tenant_reaches_no_room_of_another() -> None:
    async with house() as h:
        await h.kit.tenant("acme").create_room("secret-room")
        for method, path in (("GET", "/rooms/secret-room"), ("POST", "/rooms/secret-room/close")):
            there, nowhere = await h.call(method, path), await h.call(method, path.replace("secret", "absent"))
            assert there.status_code == 404
            assert there.text.replace("secret", "absent") == nowhere.text, "it tells that there is one"
        assert "secret-room" not in (await h.call("GET", "/rooms?q=secret-room")).text
        with pytest.raises(RoomKitError) as caught:
            await h.kit.get_room("secret-room")
        assert "acme" not in str(caught.value)
