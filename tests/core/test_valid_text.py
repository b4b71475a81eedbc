"""Halves of characters: replaced where they come in, refused alike by every store, wedging nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from roomkit import InboundMessage, RoomKit, TextContent
from roomkit.errors import UsageError
from roomkit.models.content import CompositeContent, ToolCallContent, valid
from roomkit.models.stream import StreamChunk, ToolStep
from roomkit.testing import FakeChannel
from tests.core.rooms import Brain, kit_with, said, say, stream

HALF = "\ud83d"
Make = Callable[..., RoomKit]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    store = {} if request.param == "memory" else {"store": f"sqlite:///{tmp_path / 'rooms.db'}"}
    return lambda *channels: kit_with(*channels, **store)


def test_only_what_is_wrong_is_made_anew() -> None:
    fine = CompositeContent(parts=(TextContent(text="grüß 😀"),))
    assert valid(fine) is fine
    table: dict[str, Any] = {"a": [1, {"b": ("x", None)}]}
    assert valid(table) is table
    assert valid({f"k{HALF}": [HALF, f"{HALF}\ude00"]}) == {"k\ufffd": ["\ufffd", "😀"]}
    broken = CompositeContent(parts=(TextContent(text=HALF), TextContent(text="x")))
    assert [part.text for part in valid(broken).parts] == ["\ufffd", "x"]  # type: ignore[union-attr]


async def test_what_comes_in_is_made_valid(make: Make) -> None:
    async with make(FakeChannel()) as kit:
        await kit.create_room("r", channels=["sms"])
        message = InboundMessage(
            channel_id="sms",
            sender_id=f"+44{HALF}",
            content=TextContent(text=f"a{HALF}"),
            external_id=f"e{HALF}",
            raw_payload={"x": [HALF]},
            metadata={"m": HALF},
        )
        result = await kit.process_inbound(message, room_id="r")
        assert result.event is not None
        assert (result.event.text, result.event.metadata["m"]) == ("a\ufffd", "\ufffd")
        assert (await kit.process_inbound(message, room_id="r")).event == result.event
        assert (await kit.send("r", f"b{HALF}", metadata={"m": HALF})).event is not None
        await kit.send("r", "after")
        assert [text for _, text, _ in await said(kit, "r")] == ["a\ufffd", "b\ufffd", "after"]
        for event in await kit.events("r", raw=True):
            event.model_dump_json()


async def test_a_reply_is_made_valid_and_a_split_character_whole(make: Make) -> None:
    call = ToolCallContent(call_id="c", name="look", arguments={"x": HALF})

    async def parts() -> AsyncIterator[Any]:
        yield f"Hi {HALF}"
        yield "\ude00 there "
        yield ToolStep(call)
        yield ToolStep(call.model_copy(update={"status": "completed", "result": HALF}))
        yield f"x{HALF}"

    seen: list[Any] = []
    async with make(FakeChannel(), Brain(script=lambda context, event: parts())) as kit:
        await kit.create_room("r", channels=["sms", "ai"])
        await kit.open_view("r", "sms", seen.append)
        await (await say(kit, "q", "r")).settled()
        assert (await said(kit, "r"))[-1] == ("ai", "Hi 😀 there x\ufffd", "committed")
        assert "".join(one.delta for one in seen if isinstance(one, StreamChunk)) == "Hi 😀 there x\ufffd"
        kit.channels["ai"].script = lambda context, event: stream("fine")  # type: ignore[attr-defined]
        await (await say(kit, "again", "r")).settled()
        assert (await said(kit, "r"))[-1] == ("ai", "fine", "committed")


async def test_what_is_no_text_and_has_no_edge_is_refused_by_every_store(make: Make) -> None:
    async with make(FakeChannel()) as kit:
        with pytest.raises(UsageError):
            await kit.create_room(metadata={"m": HALF})
        with pytest.raises(UsageError):
            await kit.create_room(f"r{HALF}")
        await kit.create_room("r", channels=["sms"])
        with pytest.raises(UsageError):
            await kit.update_room_metadata("r", {"m": HALF})
        assert not (await kit.send("r", "after")).blocked
