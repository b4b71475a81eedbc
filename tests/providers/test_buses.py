"""Every EphemeralBus keeps the same promises: two ends of it in one deployment, each as a process would have it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from roomkit.core.bus import MemoryBus
from roomkit.models.stream import Ephemeral
from roomkit.testing.postgres import PostgresCluster, find_binaries

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]
_names = itertools.count()
Ends = Callable[[], tuple[Any, Any]]


def sign(text: str, room_id: str = "r") -> Ephemeral:
    return Ephemeral(kind="typing", room_id=room_id, sender="ann", data={"text": text})


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    if find_binaries() is None and os.environ.get("CI") != "true":
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with PostgresCluster() as running:
        yield running


@pytest.fixture(params=["memory", "postgres"])
def ends(request: pytest.FixtureRequest) -> Ends:
    """Makes two buses of one deployment; in memory there is but one."""
    if request.param == "memory":
        bus = MemoryBus()
        return lambda: (bus, bus)
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    from roomkit.providers.postgres.bus import PostgresBus
    from roomkit.providers.postgres.link import PostgresOptions

    options = PostgresOptions(retry_s=0.02)
    url = f"{cluster.url}?schema=bus{next(_names)}"
    return lambda: (PostgresBus(url, options), PostgresBus(url, options))


@asynccontextmanager
async def opened(ends: Ends) -> AsyncIterator[tuple[Any, Any]]:
    """Both ends, once each has heard that it listens."""
    here, there = ends()
    try:
        for bus in {id(here): here, id(there): there}.values():
            await _listens(bus)
        yield here, there
    finally:
        await here.aclose()
        await there.aclose()


async def _listens(bus: Any) -> None:
    if isinstance(bus, MemoryBus):
        return
    ready = asyncio.Event()
    leave = bus.watch(lambda tenant, room_id: ready.set())
    await asyncio.wait_for(ready.wait(), 20)
    leave()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_both_ends_hear_the_room_in_order_and_once(ends: Ends) -> None:
    async with opened(ends) as (here, there):
        near: list[str] = []
        far: list[str] = []
        here.subscribe("t", "r", lambda m: near.append(m.data["text"]))
        there.subscribe("t", "r", lambda m: far.append(m.data["text"]))
        said = [f"{n} \u00fc\u2028\U0001f600" for n in range(200)]
        for text in said:
            here.publish("t", sign(text))
        assert near[:1] == said[:1], "whoever is here hears it at once"
        await until(lambda: len(far) == len(said))
        here.publish("t", sign("last"))
        await until(lambda: far[-1] == near[-1] == "last")
        assert near == far == [*said, "last"]


async def test_other_rooms_and_tenants_hear_nothing_nor_does_who_has_left(ends: Ends) -> None:
    async with opened(ends) as (here, there):
        wrong: list[Ephemeral] = []
        right: list[Ephemeral] = []
        there.subscribe("t", "other", wrong.append)
        there.subscribe("u", "r", wrong.append)
        leave = there.subscribe("t", "r", wrong.append)
        leave()
        leave()
        there.subscribe("t", "r", right.append)
        here.publish("t", sign("one"))
        await until(lambda: bool(right))
        assert wrong == []


async def test_watchers_hear_of_changed_rooms(ends: Ends) -> None:
    async with opened(ends) as (here, there):
        seen: list[tuple[str, str]] = []
        leave = there.watch(lambda tenant, room_id: seen.append((tenant, room_id)))
        here.changed("t", "r")
        await until(lambda: ("t", "r") in seen)
        leave()
        here.changed("t", "later")
        late: list[tuple[str, str]] = []
        there.watch(lambda tenant, room_id: late.append((tenant, room_id)))
        here.changed("t", "end")
        await until(lambda: ("t", "end") in late)
        assert ("t", "later") not in seen


async def test_a_failing_listener_does_not_silence_the_others(ends: Ends) -> None:
    async with opened(ends) as (here, there):
        heard: list[Ephemeral] = []

        def fail(message: Ephemeral) -> None:
            raise RuntimeError("no")

        there.subscribe("t", "r", fail)
        there.subscribe("t", "r", heard.append)
        here.publish("t", sign("one"))
        await until(lambda: heard == [sign("one")])


async def test_closed_it_is_silent_and_takes_what_comes(ends: Ends) -> None:
    async with opened(ends) as (here, _):
        heard: list[Ephemeral] = []
        here.subscribe("t", "r", heard.append)
        await here.aclose()
        here.publish("t", sign("one"))
        here.changed("t", "r")
        await here.aclose()
        assert heard == []


async def test_after_the_server_was_gone_everybody_looks_at_everything_again(cluster: PostgresCluster) -> None:
    from roomkit.providers.postgres.bus import PostgresBus
    from roomkit.providers.postgres.link import PostgresOptions

    url = f"{cluster.url}?schema=bus{next(_names)}"
    async with opened(lambda: (PostgresBus(url, PostgresOptions(retry_s=0.02)), PostgresBus(url))) as (here, there):
        seen: list[tuple[str, str]] = []
        heard: list[Ephemeral] = []
        here.watch(lambda tenant, room_id: seen.append((tenant, room_id)))
        cluster.stop()
        try:
            here.publish("t", sign("lost"))
            await asyncio.sleep(0)
        finally:
            cluster.start()
        here.publish("t", sign("wakes it"))
        await until(lambda: ("", "") in seen)
        here.subscribe("t", "r", heard.append)
        async with asyncio.timeout(20):
            while not any(m.data["text"] == "again" for m in heard):
                there.publish("t", sign("again"))
                await asyncio.sleep(0.02)
