"""Sources: kept alive with growing patience, never more than ten messages on their way, healthy or saying why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from roomkit import InboundMessage, RoomKit
from roomkit.core.sources import SourceHandle
from roomkit.errors import ConfigError, Overloaded, StoreUnavailable, Unavailable
from roomkit.models.hooks import SourceChanged, Trouble
from roomkit.models.room import ChannelType
from roomkit.ports.channel import Channel
from roomkit.ports.source import Emit, SourceDone
from tests.core.rooms import kit_with, said


class Feed:
    """A source whose lives are scripted: each is a function of (emit, ready), the last one is repeated."""

    name = "feed"

    def __init__(self, *lives: Callable[..., Any]) -> None:
        self.lives = list(lives)
        self.at: list[float] = []

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        self.at.append(asyncio.get_running_loop().time())
        life = self.lives.pop(0) if len(self.lives) > 1 else self.lives[0]
        await life(emit, ready)

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)]


def message(text: str, **more: Any) -> InboundMessage:
    return InboundMessage.text("feed", "them", text, **more)


async def refused(emit: Emit, ready: Callable[[], None]) -> None:
    raise OSError("refused")


async def stays(emit: Emit, ready: Callable[[], None]) -> None:
    ready()
    await asyncio.Event().wait()


async def drops(emit: Emit, ready: Callable[[], None]) -> None:
    ready()
    await asyncio.sleep(1)
    raise Unavailable("feed", "the connection broke")


def kit_for_sources() -> RoomKit:
    kit = kit_with(FeedChannel("feed"))
    kit.engine.random = lambda: 0.0
    return kit


class FeedChannel(Channel):
    def __init__(self, channel_id: str) -> None:
        super().__init__(channel_id, ChannelType.HTTP)


async def test_messages_become_events_in_their_order() -> None:
    kit = kit_for_sources()

    async def talks(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        for n in range(20):
            await emit(message(f"m{n}"))
        await asyncio.Event().wait()

    handle = await kit.attach_source(Feed(talks))
    await asyncio.sleep(1)
    room = (await kit.list_rooms())[0]
    assert [text for _, text, _ in await said(kit, room.id)] == [f"m{n}" for n in range(20)]
    assert (handle.health.connected, handle.health.messages, handle.health.restarts) == (True, 20, 0)
    await kit.aclose()
    assert not handle.health.running


async def test_the_waiting_grows_from_5_to_300_seconds_without_end() -> None:
    kit, feed = kit_for_sources(), Feed(refused)
    handle = await kit.attach_source(feed)
    await asyncio.sleep(3000)
    assert feed.gaps[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert handle.health.restarts == len(feed.at) - 1 > 10
    assert handle.health.last_error == "OSError: refused"
    assert (handle.health.connected, handle.health.running) == (False, True)
    await kit.aclose()


async def test_a_connection_that_came_up_starts_the_waiting_over() -> None:
    kit, feed = kit_for_sources(), Feed(refused, refused, refused, drops, stays)
    await kit.attach_source(feed)
    await asyncio.sleep(200)
    assert feed.gaps == [5, 10, 20, 1 + 5]
    await kit.aclose()


async def test_the_far_end_may_ask_for_more_patience() -> None:
    async def busy(emit: Emit, ready: Callable[[], None]) -> None:
        raise Unavailable("feed", "later", retry_after=60)

    kit, feed = kit_for_sources(), Feed(busy, stays)
    await kit.attach_source(feed)
    await asyncio.sleep(100)
    assert feed.gaps == [60]
    await kit.aclose()


async def test_health_and_notices_tell_of_every_change() -> None:
    kit, feed = kit_for_sources(), Feed(drops, stays)
    heard: list[SourceChanged] = []

    @kit.on(SourceChanged)
    async def changed(notice: SourceChanged) -> None:
        heard.append(notice)

    handle = await kit.attach_source(feed)
    start = handle.health.since
    await asyncio.sleep(2)
    down = handle.health
    assert start is not None
    assert down.since is not None
    assert (down.connected, (down.since - start).total_seconds()) == (False, 1)
    assert down.last_error is not None
    assert "the connection broke" in down.last_error
    await asyncio.sleep(10)
    assert (handle.health.connected, handle.health.restarts, handle.health.last_error) == (True, 1, None)
    assert [(n.source, n.connected) for n in heard] == [("feed", True), ("feed", False), ("feed", True)]
    await handle.aclose()
    await asyncio.sleep(0)
    assert not handle.health.connected
    await kit.aclose()


@pytest.mark.parametrize("error", [ConfigError("a wrong URL"), SourceDone("nothing more")])
async def test_what_can_never_work_is_not_tried_again(error: Exception) -> None:
    async def over(emit: Emit, ready: Callable[[], None]) -> None:
        raise error

    kit, feed = kit_for_sources(), Feed(over)
    handle = await kit.attach_source(feed)
    await asyncio.sleep(1000)
    assert (len(feed.at), handle.health.running, handle.health.last_error) == (1, False, str(error))
    await kit.aclose()


async def test_without_auto_restart_it_runs_once() -> None:
    kit, feed = kit_for_sources(), Feed(drops)
    handle = await kit.attach_source(feed, auto_restart=False)
    await asyncio.sleep(1000)
    assert (len(feed.at), handle.health.running) == (1, False)
    await kit.aclose()


async def test_a_source_that_ends_quietly_is_started_again() -> None:
    async def ends(emit: Emit, ready: Callable[[], None]) -> None:
        ready()

    kit, feed = kit_for_sources(), Feed(ends, stays)
    handle = await kit.attach_source(feed)
    await asyncio.sleep(10)
    assert (feed.gaps, handle.health.connected) == ([5], True)
    await kit.aclose()


async def test_at_most_ten_messages_are_on_their_way() -> None:
    kit = kit_for_sources()
    running, most, done = 0, 0, 0

    async def slow(_: InboundMessage) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        done += 1

    async def floods(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        await asyncio.gather(*(emit(message(f"m{n}")) for n in range(100)))
        await asyncio.Event().wait()

    handle = SourceHandle(kit.engine, slow, Feed(floods))
    handle.start()
    await asyncio.sleep(9.5)
    assert (most, done) == (10, 90)
    await handle.aclose()
    await kit.aclose()


async def test_overload_and_a_store_that_does_not_write_hold_the_source_back() -> None:
    kit = kit_for_sources()
    taken: list[str] = []
    troubles: list[Exception] = [
        Overloaded("full", retry_after=3),
        StoreUnavailable("disk full"),
        StoreUnavailable("disk full"),
    ]

    async def process(inbound: InboundMessage) -> None:
        if troubles:
            raise troubles.pop(0)
        taken.append(inbound.content.text)  # type: ignore[union-attr]

    async def talks(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        await emit(message("one"))
        await emit(message("two"))
        await asyncio.Event().wait()

    handle = SourceHandle(kit.engine, process, Feed(talks))
    handle.start()
    await asyncio.sleep(2.9)
    assert taken == []
    await asyncio.sleep(2)
    assert (taken, handle.health.messages, handle.health.connected) == (["one", "two"], 2, True)
    await handle.aclose()
    await kit.aclose()


async def test_a_message_that_cannot_be_taken_is_told_and_does_not_end_the_connection() -> None:
    kit = kit_for_sources()
    heard: list[Trouble] = []

    @kit.on(Trouble)
    async def trouble(notice: Trouble) -> None:
        heard.append(notice)

    async def talks(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        await emit(InboundMessage.text("no such channel", "them", "lost"))
        await emit(message("kept"))
        await asyncio.Event().wait()

    handle = await kit.attach_source(Feed(talks))
    await asyncio.sleep(1)
    assert [notice.where for notice in heard] == ["source feed"]
    assert (handle.health.messages, handle.health.connected) == (1, True)
    await kit.aclose()


async def test_a_message_seen_twice_is_stored_once() -> None:
    async def repeats(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        await emit(message("once", external_id="7"))

    kit = kit_for_sources()
    await kit.attach_source(Feed(repeats))
    await asyncio.sleep(30)
    room = (await kit.list_rooms())[0]
    assert [text for _, text, _ in await said(kit, room.id)] == ["once"]
    await kit.aclose()


async def test_closing_disconnects_and_may_be_repeated() -> None:
    closed: list[str] = []

    async def held(emit: Emit, ready: Callable[[], None]) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("socket")

    kit = kit_for_sources()
    handle = await kit.attach_source(Feed(held))
    await asyncio.sleep(1)
    await handle.aclose()
    await handle.aclose()
    assert (closed, handle.health.connected, handle.health.running) == (["socket"], False, False)
    await kit.aclose()


async def test_secrets_do_not_reach_the_health() -> None:
    async def leaks(emit: Emit, ready: Callable[[], None]) -> None:
        raise OSError("cannot reach wss://example.test/feed?token=abcdef1234567890")

    kit = kit_for_sources()
    handle = await kit.attach_source(Feed(leaks))
    await asyncio.sleep(1)
    assert "abcdef1234567890" not in (handle.health.last_error or "")
    assert handle.health.last_error
    await kit.aclose()
