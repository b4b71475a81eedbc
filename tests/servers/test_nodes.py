"""Two servers on one PostgreSQL: sockets, lists and the endpoint between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from roomkit.net.room_client import ClientOptions, Disconnected, RoomClient
from roomkit.testing.postgres import PostgresCluster, find_binaries
from roomkit.testing.sockets import AsgiSocket

if find_binaries() is None and os.environ.get("CI") != "true":
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)", allow_module_level=True)

from tests.core.test_nodes import eventually, house

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
QUICK = ClientOptions(backoff_s=0.05, max_backoff_s=0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as running:
        yield running


async def test_a_browser_at_one_server_talks_in_the_room_of_another(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        await one.create_room("r")
        apps = [kit.asgi(pages=False) for kit in (one, two)]
        token = one.tokens.mint("guest", "r", id="ann")
        ann = RoomClient("ws://two/socket", "r", token, QUICK, connect=AsgiSocket.connector(apps[1]))
        async with ann:
            ack = await asyncio.wait_for(ann.send("hello"), 10)
            assert (await one.events("r"))[ack.index].text == "hello"
            assert [binding.channel_id for binding in await one.bindings("r")] == ["web"]
            said = await one.send("r", "hello ann")
            assert said.event is not None
            await eventually(lambda: ann.position == said.event.index)
            await one.remove_member("r", "ann")
            await eventually(lambda: not ann.live)
        assert two.engine.table.actors() == []
        for app in apps:
            await app.aclose()


async def test_who_watches_the_rooms_hears_of_those_of_other_servers(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one, two = await here.start("one"), await here.start("two")
        app = two.asgi(pages=False)
        desk = await AsgiSocket(app).open()
        await desk.say("auth", token=two.tokens.mint("supervisor", id="eve"), v=1)
        await desk.get("welcome")
        await desk.say("watch", on=True)
        await desk.say("ping", t=1)
        await desk.get("pong")
        await one.create_room("r")
        await one.request_human("r", "help")
        async with asyncio.timeout(10):
            while not any(room["id"] == "r" and room["waiting"] for room in (await desk.get("rooms"))["rooms"]):
                pass
        assert [room.id for room in await two.attention()] == ["r"]
        await desk.close()
        await app.aclose()


async def test_the_endpoint_between_servers_lets_in_who_knows_the_secret(cluster: PostgresCluster) -> None:
    async with house(cluster) as here:
        one = await here.start("one")
        app = one.asgi(pages=False)
        link: Any = here.wires.links["http://one"]

        async def knock(ticket: str | None) -> AsgiSocket:
            headers = [("authorization", f"RoomKit-Node {ticket}")] if ticket is not None else []
            return await AsgiSocket(app, "/nodes", headers=headers).open()

        for ticket in (None, "", "1.2.3.4", link.tickets.make("two"), link.tickets.make("one") + "0"):
            with pytest.raises(Disconnected):
                await knock(ticket)
        good = link.tickets.make("one")
        inside = await knock(good)
        await inside.send('.["call",1,{"do":"call","name":"list_rooms","tenant":"default","args":{}}]')
        answer = await asyncio.wait_for(inside.recv(), 10)
        assert answer == '.["answer",1,{"value":[]}]'
        await inside.send('.["call",2,{"do":"call","name":"_ready","tenant":"default","args":{}}]')
        assert "does not understand" in await asyncio.wait_for(inside.recv(), 10)
        with pytest.raises(Disconnected):
            await knock(good)
        await inside.close()
        await app.aclose()
