"""Several kits on one PostgreSQL: each room has one owner, and everybody finds it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from pydantic import PydanticSchemaGenerationError

from roomkit import AIChannel, BeforeCommit, InboundMessage, KitOptions, RoomKit, WebSocketChannel
from roomkit.core.streams import INTERNAL, Viewer
from roomkit.errors import ConfigError, FloorTaken, RoomNotFound, StateError, StoreUnavailable, UsageError
from roomkit.models.delivery import DeliveryPolicy
from roomkit.models.event import RoomEvent
from roomkit.models.room import RoomTimers
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.net.node_link import SocketLink
from roomkit.ports.node import NodeOptions
from roomkit.runtime import Scope
from roomkit.testing import FakeChannel
from roomkit.testing.ai import ScriptedAI
from roomkit.testing.postgres import PostgresCluster, find_binaries

if find_binaries() is None and os.environ.get("CI") != "true":
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)
if os.environ.get("CI") != "true":
    pytest.importorskip("asyncpg")

from roomkit.providers.postgres import PostgresOptions, PostgresStore

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
_names = itertools.count()
NOT_OF_ONE_ROOM = {"erase_person", "merge_identities", "audit_room"}
SECRETS = ("a secret that all nodes know",)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


class Wires:
    """A network of queues: who is `down` is not reached, and what was open to it breaks."""

    def __init__(self) -> None:
        self.links: dict[str, SocketLink] = {}
        self.down: set[str] = set()
        self.pairs: dict[str, list[_End]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def connect(self, address: str, ticket: str) -> Any:
        link = self.links.get(address)
        if link is None or address in self.down:
            raise ConnectionError("nobody is there")
        link.tickets.check(ticket, address.partition("://")[2])
        one, two = _End(), _End()
        one.other, two.other = two, one
        self.pairs.setdefault(address, []).append(one)
        self.tasks.append(asyncio.get_running_loop().create_task(link.answer(two)))
        return one

    def cut(self, address: str) -> None:
        self.down.add(address)
        for end in self.pairs.pop(address, []):
            end.break_off()


class _End:
    other: _End

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self.closed = False

    async def send(self, text: str) -> None:
        if self.closed:
            raise ConnectionError("closed")
        self.other.inbox.put_nowait(text)

    async def recv(self) -> str | None:
        return None if self.closed and self.inbox.empty() else await self.inbox.get()

    async def close(self) -> None:
        self.break_off()

    def break_off(self) -> None:
        for end in (self, self.other):
            if not end.closed:
                end.closed = True
                end.inbox.put_nowait(None)


class House:
    """Nodes on one schema, on a network of queues."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.wires = Wires()
        self.kits: dict[str, RoomKit] = {}
        self.furnish: Callable[[RoomKit], None] = furnish

    def make(
        self, name: str, *, lease_s: float = 1.0, address: bool = True, options: KitOptions | None = None
    ) -> RoomKit:
        place = f"http://{name}" if address else ""
        store = PostgresStore(self.url, PostgresOptions(lease_s=lease_s, retry_s=0.05))
        kit = RoomKit(store, token_secrets=SECRETS, options=options)
        link = SocketLink(SECRETS, kit.engine.clock, connect=self.wires.connect)
        kit.share(NodeOptions(place, link=link))
        self.wires.links[place] = link
        self.kits[name] = kit
        self.furnish(kit)
        return kit

    async def start(self, name: str, **options: Any) -> RoomKit:
        return await self.make(name, **options).start()

    async def kill(self, name: str) -> None:
        """As kill -9: from one moment to the next it reaches nobody and writes nothing, and its leases run out."""
        kit = self.kits.pop(name)
        self.wires.cut(f"http://{name}")
        opened: Any = kit.engine.store._open  # pyright: ignore[reportPrivateUsage]
        opened._registered = False
        opened._health.closing = True
        for link in (opened.ownership._link, *(writer._link for writer in opened._writers)):
            link.drop()
            link.get = _dead
        await kit.aclose()


async def _dead() -> Any:
    raise OSError("killed")


def furnish(kit: RoomKit) -> None:
    kit.register_channel(WebSocketChannel("web"))
    kit.register_channel(FakeChannel("sms"))


@asynccontextmanager
async def house(cluster: PostgresCluster) -> AsyncIterator[House]:
    made = House(f"{cluster.url}?schema=n{next(_names)}")
    try:
        yield made
    finally:
        async with AsyncExitStack() as stack:
            for kit in made.kits.values():
                stack.push_async_callback(kit.aclose)
        for task in made.wires.tasks:
            task.cancel()


async def eventually(what: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)


def counted(kit: RoomKit, name: str) -> float:
    return kit.engine.counters.get(name, 0)


async def test_any_node_takes_a_message_and_the_owner_commits_it(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        room = await one.create_room("r", channels=["web"])
        first = await one.send("r", "from one")
        second = await two.send("r", "from two")
        assert (first.event.index, second.event.index) == (1, 2)  # type: ignore[union-attr]
        assert counted(two, "node_calls") == 1
        assert two.engine.table.actors() == []
        assert [e.text for e in await two.events("r")][1:] == [e.text for e in await one.events("r")][1:]
        assert (await two.get_room("r")).id == room.id
        with pytest.raises(RoomNotFound, match="does not exist"):
            await two.get_room("nowhere")
        with pytest.raises(StateError, match="exists already"):
            await two.create_room("r")
        assert [one.id for one in await two.list_rooms()] == ["r"]


async def test_what_is_said_at_one_node_is_seen_at_the_other_in_one_order(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        await one.send("r", "before")
        seen: dict[str, list[Any]] = {"one": [], "two": []}
        views = [await kit.open_view("r", INTERNAL, seen[name].append) for name, kit in here.kits.items()]
        assert [e.index for e in views[1].events] == [0, 1]
        assert views[1].events == views[0].events
        assert views[1].bindings[0].channel_id == "web"
        await asyncio.gather(*(kit.send("r", f"{n}") for n in range(20) for kit in (one, two)))
        await eventually(lambda: all(len(some) == 40 for some in seen.values()))
        assert [e.index for e in seen["two"]] == list(range(2, 42))
        assert [e.text for e in seen["one"]] == [e.text for e in seen["two"]]
        two.publish_typing("r", "ann")
        await eventually(lambda: all(isinstance(some[-1], Ephemeral) for some in seen.values()))
        assert [sum(isinstance(item, Ephemeral) for item in some) for some in seen.values()] == [1, 1]
        views[1].close()
        await one.send("r", "after")
        await eventually(lambda: isinstance(seen["one"][-1], RoomEvent))
        await asyncio.sleep(0.1)
        assert isinstance(seen["two"][-1], Ephemeral)


async def test_what_is_for_one_person_is_for_them_alone_at_every_node(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        for name in ("ann", "ben"):
            await one.add_member("r", name)
        seen: dict[str, list[Any]] = {"ann": [], "ben": []}
        for name, items in seen.items():
            await two.open_view("r", Viewer("web", person=name), items.append)
        await one.whisper("r", "for ann", to="person:ann", by="eve")
        await one.send("r", "for all")
        await eventually(lambda: all(some and some[-1].text == "for all" for some in seen.values()))
        assert {name: [item.text for item in items] for name, items in seen.items()} == {
            "ann": ["for ann", "for all"],
            "ben": ["for all"],
        }
        read = await two.events("r", viewer=Viewer("web", person="ben"))
        assert "for ann" not in [event.text for event in read]


def with_brain(kit: RoomKit, *, slow: float = 0.0) -> None:
    furnish(kit)
    brain = ScriptedAI(lambda request: [f"word{n} " for n in range(12)], repeat=True, delay=slow)
    kit.register_channel(AIChannel("ai", brain), default=True)


async def test_a_reply_grows_at_every_node_and_settled_waits_for_it(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        here.furnish = with_brain
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web", "ai"])
        seen: list[Any] = []
        await two.open_view("r", INTERNAL, seen.append)
        result = await two.process_inbound(InboundMessage.text("web", "ann", "hello"), room_id="r")
        assert result.event is not None
        await result.settled(10)
        reply = (await two.events("r"))[-1]
        assert reply.text.startswith("word0 word1")
        await eventually(lambda: isinstance(seen[-1], StreamEnd) or any(isinstance(i, StreamEnd) for i in seen))
        start = next(item for item in seen if isinstance(item, StreamStart))
        text = "".join(item.delta for item in seen if isinstance(item, StreamChunk))
        assert (start.stream_id, text) == (reply.id, reply.text)


async def test_an_error_crosses_as_the_class_it_is(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        await one.add_member("r", "ann")
        await two.take_over("r", "ann")
        with pytest.raises(FloorTaken, match="held by ann") as taken:
            await two.take_over("r", "bob")
        assert taken.value.holder == "ann"
        changed = await two.update_member("r", "ann", role="owner", display_name="Ann")
        assert (changed.role, type(changed.role).__name__) == ("owner", "Role")
        with pytest.raises(UsageError):
            await two.update_room("r", colour="red")
        with pytest.raises(UsageError, match="cannot be sent"):
            await two.update_room_metadata("r", {"x": object()})


async def test_every_method_of_a_tenant_can_be_told_to_another_node(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        kit = here.make("one")
        nodes = kit.engine.nodes
        assert nodes is not None
        remotes: Any = nodes.calls._remotes  # pyright: ignore[reportPrivateUsage]
        dumb: set[str] = set()
        for name, remote in remotes.items():
            try:
                for part in remote.fn.__annotations__:
                    remote._adapter(part)
            except (UsageError, PydanticSchemaGenerationError):
                dumb.add(name)
        assert dumb <= {"process_inbound", "send", "settle_draft", "import_room", "fork"} | NOT_OF_ONE_ROOM, dumb


async def test_the_first_words_of_one_person_at_two_nodes_open_one_room(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        results = await asyncio.gather(
            *(
                kit.process_inbound(InboundMessage.text("sms", "+447700900001", f"{n}", external_id=f"m{n}"))
                for n in range(4)
                for kit in (one, two)
            )
        )
        assert len({result.room_id for result in results}) == 1
        assert sum(result.duplicate for result in results) == 4
        (room,) = await two.list_rooms()
        assert room.latest_index == 4 + 1 or room.latest_index >= 4


async def test_an_import_goes_on_where_another_process_has_begun_it(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        lines = [line async for line in one.export_room("r")]
        attic = one.tenant("attic")
        assert one.engine.nodes is not None
        await one.engine.nodes.acquire("attic", "copy")  # What a cut import leaves: a lease, and not yet a room.
        room = await two.tenant("attic").import_room(lines, room_id="copy")
        assert room.latest_index == 0
        assert one.engine.table.loaded("attic", "copy") is not None
        assert (await attic.get_room("copy")).id == "copy"
        with pytest.raises(UsageError, match="its seal does not fit"):
            await two.tenant("attic").import_room([*lines[:-1], '{"end": {}}'], room_id="other")


async def test_after_a_kill_the_rooms_are_served_by_another_and_a_view_goes_on(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        here.furnish = lambda kit: with_brain(kit, slow=0.2)
        one, two, three = await here.start("one"), await here.start("two"), await here.start("three")
        for n in range(5):
            await one.create_room(f"r{n}", channels=["web", "ai"])
        seen: list[Any] = []
        await two.open_view("r0", INTERNAL, seen.append)
        await three.process_inbound(InboundMessage.text("web", "ann", "hello"), room_id="r0")
        await eventually(lambda: sum(isinstance(item, StreamChunk) for item in seen) >= 3)
        await asyncio.sleep(0.3)
        await here.kill("one")
        results = await asyncio.gather(*(kit.send(f"r{n}", "after") for n in range(5) for kit in (two, three)))
        assert all(result.event is not None and not result.duplicate for result in results)
        await eventually(lambda: sum(isinstance(item, RoomEvent) and item.text == "after" for item in seen) == 2)
        ends = [item for item in seen if isinstance(item, StreamEnd | StreamError)]
        stream = next(item for item in seen if isinstance(item, StreamStart))
        assert [end.stream_id for end in ends][:1] == [stream.stream_id]
        assert isinstance(ends[0], StreamEnd)
        assert ends[0].event.text.startswith("word0")
        events = await three.events("r0", limit=100)
        assert [e.index for e in events] == list(range(len(events)))
        told = [i.event if isinstance(i, StreamEnd) else i for i in seen if isinstance(i, RoomEvent | StreamEnd)]
        assert [e.index for e in told] == sorted({e.index for e in told})
        assert counted(two, "node_take_overs") + counted(three, "node_take_overs") == 1


async def test_a_call_cut_by_the_owners_death_is_made_once(cluster: PostgresCluster) -> None:
    """Messages and notes are sent again under their keys; of a draft nobody knows whether it was settled."""
    held = asyncio.Event()

    def slow(kit: RoomKit) -> None:
        furnish(kit)

        @kit.before(BeforeCommit)
        async def wait(moment: BeforeCommit) -> None:  # pyright: ignore[reportUnusedFunction]
            if "slowly" in getattr(moment.value.content, "text", "") and len(here.kits) == 2:
                held.set()
                await asyncio.sleep(3)

    async with house(cluster) as here:
        here.furnish = slow
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        await one.create_room("s", channels=["web"])
        draft = await two.draft("s", "proposed", by="ann")
        async with Scope("callers") as scope:
            send = scope.spawn(two.send("r", "slowly"), name="send", awaited=True)
            before = scope.spawn(two.send("s", "slowly"), name="keeps the room busy", awaited=True)
            await held.wait()
            await asyncio.sleep(0.2)
            note = scope.spawn(two.note("s", "noted", "ann"), name="note", awaited=True)
            busy = one.engine.table.loaded("default", "s")
            assert busy is not None
            settled = scope.spawn(two.settle_draft("s", draft.id, True, by="ann"), name="settle", awaited=True)
            await eventually(lambda: busy.depth == 2)
            await here.kill("one")
            result = await send
            assert result.event is not None
            assert (await before).event is not None
            noted = await note
            with pytest.raises(StoreUnavailable, match="unknown whether"):
                await settled
        texts = [event.text for event in await two.events("r")]
        assert texts.count("slowly") == 1
        notes = [event.id for event in await two.events("s") if event.text == "noted"]
        assert notes == [noted.id]


def answers_nobody(kit: RoomKit) -> asyncio.Semaphore:
    """From now on it does what other nodes ask, but its answers never leave. Released for each thing done."""
    assert kit.engine.nodes is not None
    calls = kit.engine.nodes.calls
    do, done = calls.call, asyncio.Semaphore(0)

    async def call(request: Any) -> Any:
        await do(request)
        done.release()
        await asyncio.Event().wait()

    calls.call = call  # type: ignore[method-assign]
    return done


async def test_what_was_committed_before_the_owner_died_is_not_committed_again_by_who_asked(
    cluster: PostgresCluster,
) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        done = answers_nobody(one)
        message = InboundMessage.text("web", "ann", "hello")
        async with Scope("callers") as scope:
            asked = [
                scope.spawn(two.send("r", "pay"), name="send", awaited=True),
                scope.spawn(two.process_inbound(message, room_id="r"), name="inbound", awaited=True),
            ]
            for _ in asked:
                await done.acquire()
            await here.kill("one")
            results = await asyncio.gather(*asked)
        assert two.engine.table.loaded("default", "r") is not None
        assert [result.duplicate for result in results] == [True, True]
        assert sorted(event.text for event in await two.events("r") if event.text) == ["hello", "pay"]


async def test_of_what_cannot_be_done_again_nobody_knows_whether_the_owner_has_done_it(
    cluster: PostgresCluster,
) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web"])
        draft = await one.draft("r", "proposed", by="eve")
        done = answers_nobody(one)
        async with Scope("callers") as scope:
            asked = [
                scope.spawn(two.fork("r"), name="fork", awaited=True),
                scope.spawn(two.settle_draft("r", draft.id, True, by="eve"), name="settle", awaited=True),
            ]
            for _ in asked:
                await done.acquire()
            await here.kill("one")
            for task in asked:
                with pytest.raises(StoreUnavailable, match="unknown whether"):
                    await task
        assert len(await two.list_rooms()) == 2


async def test_a_node_that_stops_hands_its_rooms_over_at_once(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one", lease_s=30), await here.start("two", lease_s=30)
        for n in range(5):
            await one.create_room(f"r{n}", channels=["web"])
        seen: list[Any] = []
        await two.open_view("r0", INTERNAL, seen.append)
        began = asyncio.get_running_loop().time()
        assert await one.drain(5)
        await here.kits.pop("one").aclose()
        results = await asyncio.gather(*(two.send(f"r{n}", "after") for n in range(5)))
        assert asyncio.get_running_loop().time() - began < 10, "nobody waits for the lease"
        assert [result.event.index for result in results if result.event] == [1] * 5
        await eventually(lambda: [item.text for item in seen] == ["after"])


async def test_who_was_taken_for_dead_writes_nothing_and_begins_again(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        # A lease that a busy machine does not let run out by itself: then there would be one revival more.
        one, two = await here.start("one", lease_s=10.0), await here.start("two", lease_s=10.0)
        await one.create_room("r", channels=["web"])
        seen: list[Any] = []
        await one.open_view("r", INTERNAL, seen.append)
        assert one.engine.nodes is not None
        store: Any = one.engine.store
        node = store.ownership.node
        await take_over_from(one, two)
        result = await two.send("r", "from the next owner")
        assert result.event is not None
        again = await one.send("r", "from the old one")
        assert again.event is not None
        assert again.event.index == result.event.index + 1
        await eventually(lambda: [item.text for item in seen] == ["from the next owner", "from the old one"])
        nodes = one.engine.nodes
        await eventually(lambda: counted(one, "node_revivals") >= 1 and not nodes.reviving)
        assert store.ownership.node != node
        await one.create_room("s")
        assert (await two.get_room("s")).id == "s"


async def test_a_node_begins_again_also_when_who_found_out_does_not_wait_for_it(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one", lease_s=10.0), await here.start("two", lease_s=10.0)
        await one.create_room("r", channels=["web"])
        nodes, store = one.engine.nodes, cast("Any", one.engine.store)
        assert nodes is not None
        may_open, opens = asyncio.Event(), store.open

        async def slowly() -> Any:
            await may_open.wait()
            return await opens()

        await take_over_from(one, two)
        store.open = slowly
        asking = asyncio.ensure_future(nodes.acquire("default", "nobody has it"))
        await eventually(lambda: nodes.reviving)
        asking.cancel()
        await asyncio.wait([asking])
        may_open.set()
        async with asyncio.timeout(10):
            assert (await one.send("r", "from who was gone")).event is not None
            assert (await one.create_room("t")).id == "t"


async def test_who_was_taken_for_dead_hides_no_second_copy_of_a_delivery(cluster: PostgresCluster) -> None:
    channels: list[FakeChannel] = []

    def once_each(kit: RoomKit) -> None:
        kit.register_channel(WebSocketChannel("web"))
        channels.append(FakeChannel("sms", policy=DeliveryPolicy(idempotent=False, max_retries=1)))
        kit.register_channel(channels[-1])

    async with house(cluster) as here:
        here.furnish = once_each
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r", channels=["web", "sms"])
        channels[0].hang()
        await one.process_inbound(InboundMessage.text("web", "ann", "hello"), room_id="r")
        await eventually(lambda: channels[0].attempts)
        await take_over_from(one, two)
        await eventually(lambda: channels[1].delivered)
        nodes = one.engine.nodes
        assert nodes is not None
        await eventually(lambda: counted(one, "node_revivals") == 1 and not nodes.reviving)
        while not await two.deliveries("r"):
            await asyncio.sleep(0.02)
        before = await two.deliveries("r")
        channels[0].resume()
        await eventually(lambda: channels[0].delivered)
        await one.engine.lanes.outcomes.flushed()
        assert await two.deliveries("r") == before
        assert [(told.attempts, told.maybe_duplicate) for told in before] == [(2, True)]


async def take_over_from(one: RoomKit, two: RoomKit) -> None:
    assert two.engine.nodes is not None
    store: Any = one.engine.store
    node = store.ownership.node
    while not counted(two, "node_take_overs"):  # it may have renewed in between
        await store.ownership._run(lambda c: c.execute("UPDATE nodes SET expires = 'epoch' WHERE id = $1", node))
        await two.engine.nodes._take_over(node)  # pyright: ignore[reportPrivateUsage]


async def test_a_script_without_an_address_acts_and_gives_rooms_back(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        script = await here.start("script", address=False)
        await script.create_room("r", channels=["web"])
        await script.send("r", "hello")
        await eventually(lambda: not script.engine.table.actors())
        one = await here.start("one")
        assert (await one.send("r", "mine now")).event is not None
        assert (await script.send("r", "asked for")).event is not None
        assert counted(script, "node_calls") == 1
        assert [e.index for e in await script.events("r")] == [0, 1, 2, 3]


async def test_timers_of_rooms_without_an_owner_ring_somewhere(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one = await here.start("one")
        await one.create_room("r", channels=["web"], timers=RoomTimers(inactive_after_seconds=1))
        await here.kill("one")
        two = await here.start("two")
        await eventually(lambda: any(a.state.room.status == "paused" for a in two.engine.table.actors()), 15)


def test_a_node_needs_a_store_for_several_and_a_secret() -> None:
    with pytest.raises(ConfigError, match="has one process"):
        RoomKit(options=KitOptions(node=NodeOptions("http://one")), token_secrets=["s"])
    with pytest.raises(ConfigError, match="need a secret"):
        RoomKit("postgresql://nobody@127.0.0.1:1/nowhere", options=KitOptions(node=NodeOptions("http://one")))


async def test_a_database_that_was_away_costs_nobody_its_rooms() -> None:
    with PostgresCluster() as server:
        async with house(server) as here:
            one, two = await here.start("one"), await here.start("two")
            await one.create_room("r", channels=["web"])
            await two.create_room("s", channels=["web"])
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(2.5)  # longer than the lease of one second
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                for kit in (one, two):
                    while not kit.ready[0]:
                        await asyncio.sleep(0.05)
            assert (await one.send("s", "asked for")).event is not None
            assert (await two.send("r", "asked for")).event is not None
            await asyncio.sleep(1.5)
            assert [counted(kit, "node_take_overs") for kit in (one, two)] == [0, 0]
            assert [counted(kit, "node_revivals") for kit in (one, two)] == [0, 0]
