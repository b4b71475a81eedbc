"""Every EphemeralBus keeps the same promises: two ends of it in one deployment, each as a process would have it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server of this module's own, that keeps nothing."""
    if shutil.which("redis-server") is None and os.environ.get("CI") != "true":
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    with redis_server(free_port()) as url:
        yield url


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def redis_server(port: int) -> Iterator[str]:
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert server.poll() is None, "the server does not start"
                time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["memory", "postgres", "redis"])
def ends(request: pytest.FixtureRequest) -> Ends:
    """Makes two buses of one deployment; in memory there is but one."""
    if request.param == "memory":
        bus = MemoryBus()
        return lambda: (bus, bus)
    if request.param == "redis":
        server: str = request.getfixturevalue("redis_url")
        channel = f"bus{next(_names)}"
        from roomkit.providers.redis import RedisBus

        return lambda: (RedisBus(server, channel=channel), RedisBus(server, channel=channel))
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


async def test_a_failing_listener_does_not_silence_the_others(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(ends) as (here, there):
        heard: list[Ephemeral] = []

        def fail(message: Ephemeral) -> None:
            raise RuntimeError("no")

        there.subscribe("t", "r", fail)
        there.subscribe("t", "r", heard.append)
        here.publish("t", sign("one"))
        await until(lambda: heard == [sign("one")])
        here.publish("t", sign("two"))
        await until(lambda: heard == [sign("one"), sign("two")])
    assert caplog.text.count("RuntimeError: no") == 2, "and is not forgotten for it"


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


async def test_redis_may_go_and_come_back() -> None:
    if shutil.which("redis-server") is None and os.environ.get("CI") != "true":
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    from roomkit.providers.redis import RedisBus

    port, heard = free_port(), list[Ephemeral]()
    here, there = (RedisBus(f"redis://127.0.0.1:{port}", retry_s=0.02) for _ in range(2))
    missed: list[tuple[str, str]] = []
    there.watch(lambda tenant, room_id: missed.append((tenant, room_id)))
    there.subscribe("t", "r", heard.append)
    try:
        for number in range(2):
            with redis_server(port):
                await until(lambda number=number: len(missed) > number)
                async with asyncio.timeout(20):
                    while not any(m.data["text"] == str(number) for m in heard):
                        here.publish("t", sign(str(number)))
                        await asyncio.sleep(0.02)
    finally:
        await here.aclose()
        await there.aclose()


def test_what_is_no_redis_url_is_told_and_passwords_are_not() -> None:
    from roomkit.errors import ConfigError
    from roomkit.providers.redis import RedisBus

    with pytest.raises(ConfigError, match="write redis://"):
        RedisBus("http://x")
    assert "s3cret" not in repr(RedisBus("redis://me:s3cret@cache:6379/0"))
