"""How often a page may ask ChatKit's door, how many streams it may hold open, how long, and what a closed room says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.models.access import Principal, PrincipalRole
from roomkit.testing import VirtualClock
from roomkit.testing.ai import call
from tests.servers.pages import Page, brain, served, user

pytestmark = pytest.mark.may_block  # the package makes its models on first use


@asynccontextmanager
async def watching(page: Page, thread: str) -> AsyncIterator[Any]:
    """A page that waits for word of a thread."""
    async with page.client.stream("GET", "/changes", params={"thread_id": thread}) as response:
        lines = response.aiter_lines()
        if response.status_code == 200:
            assert await anext(lines) == ": hello"
        yield response, lines


async def ended(lines: Any) -> bool:
    async with asyncio.timeout(30):
        async for line in lines:
            assert not line, line
    return True


async def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_not_held_up() -> None:
    async with served(requests_per_s=1) as (_, _, page):
        ann = page()
        for _ in range(3):
            await ann.ask("threads.list")
        for request in (("POST", "/"), ("GET", "/changes?thread_id=x"), ("POST", "/files")):
            refused = await ann.client.request(*request, json={"type": "threads.list", "params": {}})
            assert refused.status_code == 429, request
            assert refused.headers["retry-after"] == "1"
        await page("bob").ask("threads.list")
        await asyncio.sleep(1)
        await ann.ask("threads.list")


async def test_a_person_holds_so_many_streams_and_no_more() -> None:
    async with served(brain("Hello", "Again", "Once more"), max_connections_per_principal=2) as (_, server, page):
        ann = page()
        thread = (await ann.say("hi"))[0].thread.id
        async with AsyncExitStack() as open_streams:
            for _ in range(2):
                response, _lines = await open_streams.enter_async_context(watching(ann, thread))
                assert response.status_code == 200
            async with watching(ann, thread) as (refused, _lines):
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "5"
            said = {"content": [{"type": "input_text", "text": "x"}], "attachments": [], "inference_options": {}}
            await ann.ask("threads.add_user_message", 429, thread_id=thread, input=said)
            await page("bob").say("hi")
        await asyncio.sleep(1)
        await ann.say("and now", thread)
        assert not server.rooms.live
        for _ in range(3):
            async with watching(ann, "thr_none") as (nothing, _lines):
                assert nothing.status_code == 404
            await ann.ask("threads.custom_action", 404, thread_id="thr_none", action={"type": "x"})
        async with watching(ann, thread), watching(ann, thread) as (response, _lines):
            assert response.status_code == 200, "what has ended or failed does not count"


async def test_a_stream_ends_with_the_right_to_it() -> None:
    clock = VirtualClock()
    async with served(brain("Hello", "never"), kit=RoomKit(clock=clock)) as (kit, server, page):
        ann = page()
        thread = (await ann.say("hi"))[0].thread.id
        async with watching(ann, thread) as (_, lines):
            await kit.send(thread, "Sam here", by="sam", addressed_to=())
            assert (await anext(lines)).startswith("data: ") or await anext(lines)
            await kit.take_over(thread, "sam")
            asking = asyncio.create_task(ann.say("Is that a person?", thread))
            await asyncio.sleep(1)
            began = clock.now()
            await kit.remove_member(thread, "ann", ban=True)
            async with asyncio.timeout(30):
                async for _line in lines:
                    pass
                await asking
            assert (clock.now() - began).total_seconds() < 5, "long before the page's own patience ends"
        assert not server.rooms.live


async def test_a_stream_ends_with_its_token() -> None:
    clock = VirtualClock()

    def who(_: Any) -> Principal:
        until = clock.start.timestamp() + 60
        return Principal(id="ann", tenant="default", role=PrincipalRole.GUEST, expires_at=until)

    async with served(brain("Hello"), kit=RoomKit(clock=clock), authenticate=who) as (_, _, page):
        thread = (await page().say("hi"))[0].thread.id
        async with watching(page(), thread) as (_, lines):
            await asyncio.sleep(50)
            reading = asyncio.create_task(ended(lines))
            await asyncio.sleep(5)
            assert not reading.done()
            assert await reading
        assert (clock.now() - clock.start).total_seconds() < 65


@pytest.mark.parametrize("how", ["closed", "archived"])
async def test_a_closed_room_is_still_read_and_takes_nothing(how: str) -> None:
    async with served(brain("Hello")) as (kit, _, page):
        ann = page()
        events = await ann.say("hi")
        thread, asked = events[0].thread.id, events[1].item.id
        await asyncio.sleep(1)
        await (kit.close_room if how == "closed" else kit.archive_room)(thread)
        said = {"content": [{"type": "input_text", "text": "x"}], "attachments": [], "inference_options": {}}
        for kind, params in (
            ("threads.add_user_message", {"input": said}),
            ("threads.retry_after_item", {"item_id": asked}),
            ("threads.add_client_tool_output", {"result": {}}),
            ("items.feedback", {"item_ids": [asked], "kind": "positive"}),
        ):
            refused = await ann.ask(kind, 409, thread_id=thread, **params)
            assert refused["error"]["code"] == "room_closed"
            assert how in refused["error"]["message"]
        assert (await ann.ask("threads.get_by_id", thread_id=thread))["status"]["type"] == "closed"
        assert len(await ann.items(thread)) == 2


@pytest.mark.parametrize("reads", [True, False])
async def test_a_page_that_goes_while_nothing_is_said_stops_the_reply(reads: bool) -> None:
    """Whether it has read all that there was, or the server still waits for it to."""
    started = asyncio.Event()

    async def slow() -> str:
        """Takes its time."""
        started.set()
        await asyncio.sleep(3_600)
        return "late"

    async with served(brain(["Well, ", call("slow", "c1")], "never", tools=[slow])) as (kit, server, page):
        said = {"content": [{"type": "input_text", "text": "hi"}], "attachments": [], "inference_options": {}}
        body = {"type": "threads.create", "params": {"input": said}}
        async with page().client.stream("POST", "/", json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if not reads or "text_delta" in line:
                    break
            await started.wait()
        await asyncio.sleep(1)
        (room,) = await kit.list_rooms()
        (reply,) = [e for e in await kit.events(room.id) if e.source.channel_id == "assistant" and e.type == "message"]
        assert reply.metadata["end_reason"] == "cancelled"
        kinds = [item.type for item in await server.rooms.items(room.id, user())]
        assert kinds.count("sdk_hidden_context") == reads, "the package's own note of it is kept"
        assert not server.rooms.live
