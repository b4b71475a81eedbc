"""Results: what the model reads, what the log keeps, and paging through what is too large."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from roomkit.ai.compact import estimate_tokens
from roomkit.ai.results import (
    LARGE_TOKENS,
    MAX_RECORD,
    READ_STORED_RESULT,
    StoredResults,
    fit,
    recorded,
    render,
    shown,
)
from roomkit.ai.tools import Toolbox, ToolContext, tool
from roomkit.channels.ai import AIChannel
from roomkit.errors import ToolFailed
from roomkit.models.ai import ImagePart, TextPart, ToolResultPart
from roomkit.models.content import ToolCallContent
from roomkit.models.event import EventType
from roomkit.models.stream import ToolStep
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import Talk, results_of

IMAGE = ImagePart(url="data:image/png;base64,AA==")


class Thing(BaseModel):
    n: int


@pytest.mark.parametrize(
    "value,text",
    [
        (None, "(done, no output)"),
        ("plain", "plain"),
        ("", ""),
        ({"ü": [1, Thing(n=2)]}, '{"ü": [1, {"n": 2}]}'),
        (Thing(n=1), '{"n":1}'),
        (7, "7"),
        (["a", "b"], '["a", "b"]'),
        ([], "[]"),
        ({1}, '"{1}"'),
    ],
)
def test_values_become_text(value: Any, text: str) -> None:
    assert render(value) == (text, ())


def test_content_parts_keep_their_pictures() -> None:
    assert render([TextPart(text="see"), IMAGE, "there"]) == ("see\nthere", (IMAGE,))
    assert render(IMAGE) == ("", (IMAGE,))
    assert render(TextPart(text="x")) == ("x", ())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=50), st.integers(1, 2000))
def test_a_page_fits_in_every_script_and_pages_make_up_the_whole(seed: str, times: int) -> None:
    text = seed * times
    offset, pages = 0, []
    while offset < len(text):
        page = fit(text, offset, 100)
        assert page
        assert estimate_tokens(page) <= 100
        pages.append(page)
        offset += len(page)
    assert "".join(pages) == text.encode("utf-8", "replace").decode() or any("\ud800" <= c <= "\udfff" for c in text)


def test_the_log_keeps_almost_everything() -> None:
    assert recorded("x" * MAX_RECORD) == "x" * MAX_RECORD
    assert "cut: 5 more" in recorded("x" * (MAX_RECORD + 5))


def test_short_results_and_pages_are_shown_whole() -> None:
    text = "x" * (LARGE_TOKENS * 4)
    assert shown("c", "t", text) == text
    assert shown("c", READ_STORED_RESULT, text * 2) == text * 2
    assert shown("c", "t", text + "x") != text + "x"


BOOK = "".join(f"line {n:06d}\n" for n in range(4000))


@tool
async def read_book() -> str:
    """A long book."""
    return BOOK


def pages(results: list[str]) -> str:
    return "".join(result.split("\n", 1)[1] for result in results if result.startswith("[characters"))


async def test_a_large_result_is_previewed_kept_whole_in_the_log_and_read_in_pages() -> None:
    talk = Talk()
    offsets = [0, 16000, 32000, 48000]
    reading = [call(READ_STORED_RESULT, result_id="book", offset=offset) for offset in offsets]
    ai = ScriptedAI([call("read_book", "book")], reading, "ok")
    parts = await talk.say(AIChannel("ai", ai, tool_handler=Toolbox([read_book])))
    assert [spec.name for spec in ai.requests[0].tools] == ["read_book"]
    assert [spec.name for spec in ai.requests[1].tools] == ["read_book", READ_STORED_RESULT]
    preview = results_of(ai.requests[1])[0]
    assert estimate_tokens(preview) < 700
    assert preview.startswith("line 000000")
    assert pages(results_of(ai.requests[2])) == BOOK
    kept = [p.call.result for p in parts if isinstance(p, ToolStep) and p.call.status == "completed"]
    assert kept[0] == BOOK


async def test_results_of_other_agents_in_the_room_cannot_be_read() -> None:
    talk = Talk()
    secret = ToolCallContent(call_id="theirs", name="t", status="completed", result="secret")
    talk.event(secret, channel="other-ai", type=EventType.TOOL_CALL_END)
    context = ToolContext(room_id="room", channel_id="ai", history=talk.context().history)
    with pytest.raises(ToolFailed, match="no stored result"):
        await StoredResults().run(READ_STORED_RESULT, {"result_id": "theirs"}, context)


async def test_pages_of_earlier_turns_come_from_the_log_of_this_room_only() -> None:
    box = Toolbox([read_book])
    talk, other = Talk("one"), Talk("two")
    await talk.say(AIChannel("ai", ScriptedAI([call("read_book", "book")], "ok"), tool_handler=box))
    reading = [call(READ_STORED_RESULT, result_id="book", offset=47999)]
    ai = ScriptedAI(reading, "ok", reading, "ok")
    channel = AIChannel("ai", ai, tool_handler=box)  # as after a restart
    await talk.say(channel)
    previews = [p for m in ai.requests[0].messages for p in m.parts if isinstance(p, ToolResultPart)]
    assert estimate_tokens(previews[0].output) < 700
    assert "the end" in results_of(ai.requests[1])[-1]
    await other.say(channel)
    assert "no tool" in results_of(ai.requests[3])[0]  # nothing was cut here, so there is nothing to read on
