"""An outlet: one connection's way out, written inline while it keeps up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Self

import pytest

from roomkit.core.outlet import Outlet, OutletOptions, Outlets


class Line:
    """A connection that says what it took, and may wait or push more before it does."""

    def __init__(self) -> None:
        self.outlets = Outlets[str]("test", OutletOptions(20, lambda last, new: None, len))
        self.outlet = Outlet(self.outlets, self.send, lambda reason, unsent: self.ended.append((reason, unsent)))
        self.taken: list[str] = []
        self.ended: list[tuple[str, list[str]]] = []
        self.pushes: dict[str, list[str]] = {}
        self.waits: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None] | None] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.outlets.aclose()

    async def send(self, item: str) -> None:
        self.tasks.append(asyncio.current_task())
        for more in self.pushes.pop(item, ()):
            self.outlet.push(more)
        if item in self.waits:
            await self.waits.pop(item).wait()
        self.taken.append(item)


async def test_what_a_write_itself_pushes_is_written_after_it() -> None:
    async with Line() as line:
        line.pushes = {"a": ["b", "c"], "b": ["d"]}
        line.outlet.push("a")
        assert line.taken == ["a", "b", "c", "d"]
        assert line.outlet.idle
        line.outlet.push("e")
        assert line.taken[-1] == "e"


async def test_what_a_write_itself_pushes_may_have_to_wait() -> None:
    async with Line() as line:
        gate = asyncio.Event()
        line.pushes, line.waits = {"a": ["b", "c"]}, {"b": gate}
        line.outlet.push("a")
        line.outlet.push("d")
        assert line.taken == ["a"]
        assert not line.outlet.idle
        gate.set()
        await asyncio.sleep(1)
        assert line.taken == ["a", "b", "c", "d"]
        assert line.outlet.idle


async def test_a_connection_that_fails_while_others_wait_tells_which_were_not_taken() -> None:
    async with Line() as line:
        gate = asyncio.Event()
        line.waits = {"a": gate}
        line.outlet.push("a")
        line.outlet.push("b")
        line.outlet.push("a sentence that does not fit")
        assert line.ended == [("overflow", ["a", "b", "a sentence that does not fit"])]
        await asyncio.sleep(1)
        assert line.taken == []
        assert line.outlet.closed


async def test_a_write_goes_on_in_the_task_that_it_began_in() -> None:
    async with Line() as line:
        gate, seen = asyncio.Event(), list[object]()

        async def send(item: str) -> None:
            seen.append(asyncio.current_task())
            async with asyncio.timeout(5):
                await gate.wait()
            seen.append(asyncio.current_task())

        outlet = Outlet(line.outlets, send, lambda reason, unsent: line.ended.append((reason, unsent)))
        outlet.push("a")
        gate.set()
        await asyncio.sleep(1)
        assert len(set(seen)) == 1
        assert len(seen) == 2
        assert seen[0] is not asyncio.current_task()


async def test_a_write_may_be_anything_that_can_be_awaited() -> None:
    async with Line() as line:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def send(item: str) -> Awaitable[None]:
            return done

        outlet = Outlet(line.outlets, send, lambda reason, unsent: line.ended.append((reason, unsent)))
        outlet.push("a")
        assert not outlet.idle
        done.set_result(None)
        await asyncio.sleep(1)
        assert outlet.idle
        assert line.ended == []


@pytest.mark.parametrize("late", [False, True])
async def test_a_write_that_raises_ends_its_outlet_with_what_it_did_not_take(late: bool) -> None:
    async with Line() as line:

        async def send(item: str) -> None:
            if late:
                await asyncio.sleep(1)
            raise OSError(item)

        outlet = Outlet(line.outlets, send, lambda reason, unsent: line.ended.append((reason, unsent)))
        outlet.push("a")
        outlet.push("b")
        await asyncio.sleep(2)
        assert line.ended == [("failed: OSError", ["a", "b"] if late else ["a"])]
        assert outlet.idle
        assert outlet.closed
