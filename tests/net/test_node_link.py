"""SocketLink: who may ask, and what becomes of questions when a connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from roomkit.errors import AccessDenied, ConfigError, RoomNotFound, UsageError
from roomkit.net.node_link import PART, Channel, SocketLink, Tickets, place
from roomkit.ports.node import Json, NodeLost, raise_told, told_of
from roomkit.runtime import Scope, SystemClock


class HandClock:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def test_a_ticket_is_good_once_at_one_address_for_a_minute() -> None:
    clock = HandClock()
    mine, theirs = Tickets(["old", "new"], clock), Tickets(["new"], clock)
    ticket = theirs.make("10.0.0.1:8000")
    with pytest.raises(AccessDenied, match="another address"):
        mine.check(ticket, "10.0.0.2:8000")
    mine.check(ticket, "10.0.0.1:8000")
    with pytest.raises(AccessDenied, match="used before"):
        mine.check(ticket, "10.0.0.1:8000")
    late = theirs.make("10.0.0.1:8000")
    clock.at += timedelta(seconds=61)
    with pytest.raises(AccessDenied, match="clock"):
        mine.check(late, "10.0.0.1:8000")
    with pytest.raises(AccessDenied):
        mine.check(Tickets(["other"], clock).make("10.0.0.1:8000"), "10.0.0.1:8000")


def test_no_mutant_of_a_ticket_is_good() -> None:
    clock = HandClock()
    tickets = Tickets(["secret"], clock)
    ticket = tickets.make("a")
    for position in range(len(ticket)):
        for sign in "0f.x":
            mutant = ticket[:position] + sign + ticket[position + 1 :]
            if mutant != ticket:
                with pytest.raises((AccessDenied, ValueError)):
                    tickets.check(mutant, "a")
    for odd in ("", ".", "...", "1.2.3", "é.é.é", ticket + "0", ticket[:-1]):
        with pytest.raises((AccessDenied, ValueError)):
            tickets.check(odd, "a")
    tickets.check(ticket, "a")


def test_without_a_secret_nobody_talks() -> None:
    for secrets in ((), ("",)):
        with pytest.raises(ConfigError, match="need a secret"):
            Tickets(secrets, SystemClock())


class End:
    """One end of a wire of queues."""

    other: End

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self.largest = 0

    async def send(self, text: str) -> None:
        text.encode()
        self.largest = max(self.largest, len(text))
        self.other.inbox.put_nowait(text)

    async def recv(self) -> str | None:
        return await self.inbox.get()

    async def close(self) -> None:
        self.other.inbox.put_nowait(None)
        self.inbox.put_nowait(None)


def wire() -> tuple[End, End]:
    one, two = End(), End()
    one.other, two.other = two, one
    return one, two


async def test_long_values_go_in_parts_and_come_whole() -> None:
    one, two = wire()
    value = {"text": "é" * (3 * PART + 7)}
    await Channel(one).send("call", 1, value)
    assert one.largest <= PART + 1
    assert await Channel(two).recv() == ["call", 1, value]


class Echo:
    """Answers what it is asked; "hang" never."""

    def __init__(self) -> None:
        self.stopped = 0

    async def call(self, request: Json) -> Json:
        if request.get("hang"):
            await asyncio.Event().wait()
        return {"echo": request}

    async def stream(self, request: Json) -> AsyncGenerator[Json]:
        try:
            for number in range(request["n"]):
                yield {"number": number}
            if request.get("hang"):
                await asyncio.Event().wait()
        finally:
            self.stopped += 1


class Pair:
    """Two links, the second of which answers."""

    def __init__(self, scope: Scope) -> None:
        self.echo = Echo()
        self.ends: list[End] = []
        self.there = SocketLink(["s"], SystemClock())
        self.there.serve(self.echo)

        async def connect(address: str, ticket: str) -> Any:
            if address == "http://nobody":
                raise ConnectionError("refused")
            self.there.tickets.check(ticket, place(address))
            one, two = wire()
            self.ends.append(two)
            scope.spawn(self.there.answer(two), name="answer")
            return one

        self.here = SocketLink(["s"], SystemClock(), connect=connect)

    async def close(self) -> None:
        await self.here.aclose()
        await self.there.aclose()


async def test_questions_and_streams_share_one_connection() -> None:
    async with Scope("test") as scope:
        pair = Pair(scope)
        answers = await asyncio.gather(*(pair.here.call("http://a", {"n": n}) for n in range(20)))
        assert answers == [{"echo": {"n": n}} for n in range(20)]
        assert [item async for item in pair.here.stream("http://a", {"n": 3})] == [{"number": n} for n in range(3)]
        assert len(pair.ends) == 1
        stream = pair.here.stream("http://a", {"n": 1, "hang": True})
        assert await anext(stream) == {"number": 0}
        await stream.aclose()
        await asyncio.sleep(0.1)
        assert pair.echo.stopped == 2, "the other side hears that nobody listens any more"
        await pair.close()


async def test_what_a_broken_connection_leaves_open_says_so() -> None:
    async with Scope("test") as scope:
        pair = Pair(scope)
        with pytest.raises(NodeLost) as refused:
            await pair.here.call("http://nobody", {})
        assert not refused.value.sent
        call = scope.spawn(pair.here.call("http://a", {"hang": True}), name="call", awaited=True)
        stream = pair.here.stream("http://a", {"n": 1, "hang": True})
        assert await anext(stream) == {"number": 0}
        await pair.ends[0].close()
        with pytest.raises(NodeLost) as lost:
            await call
        assert lost.value.sent
        with pytest.raises(NodeLost):
            await anext(stream)
        assert await pair.here.call("http://a", {"again": 1}) == {"echo": {"again": 1}}
        await pair.close()


@pytest.mark.parametrize(
    "said",
    [
        ".5", ".[]", ".null", ".{}", '.["call",1]', '.["call",1,5]', '.["call",[1],{}]', '.["stop",[1]]',
        '.["open",[1],{}]', '.["what",1,{}]', '.[["call"],1,{}]', "." + "[" * 100_000, ".nonsense",
    ],
)  # fmt: skip
async def test_what_is_no_question_ends_the_connection_and_nothing_else(
    said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Scope("test") as scope:
        pair = Pair(scope)
        one, two = wire()
        await one.send(said)
        await pair.there.answer(two)
        assert await pair.here.call("http://a", {"n": 1}) == {"echo": {"n": 1}}
        await pair.close()
    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def test_what_cannot_be_shown_or_answered_is_over_at_once() -> None:
    async with Scope("test") as scope:
        pair = Pair(scope)
        assert [item async for item in pair.here.stream("http://a", {})] == [], "the handler fails"
        with pytest.raises(UsageError, match="cannot be told"):
            await pair.here.call("http://a", {"bad": object()})
        half = {"half a character": "\ud83d"}
        assert await pair.here.call("http://a", half) == {"echo": half}

        async def odd(request: Json) -> Json:
            return {"odd": object()}

        pair.echo.call = odd  # type: ignore[method-assign]
        with pytest.raises(UsageError, match="cannot be told"):
            raise_told(await pair.here.call("http://a", {}), {})
        await pair.close()


def test_an_error_crosses_as_what_it_is_and_an_unknown_one_as_a_state() -> None:
    from roomkit.errors import StateError

    with pytest.raises(RoomNotFound, match="does not exist") as missing:
        raise_told(told_of(RoomNotFound("r")), {})
    assert missing.value.room_id == "r"
    with pytest.raises(StateError, match="odd"):
        raise_told({"error": "NoSuchError", "message": "odd"}, {})
    with pytest.raises(StateError, match="odd"):
        raise_told({"error": "annotations", "message": "odd"}, {})
