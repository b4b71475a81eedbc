"""Every moment that a guard may decide about: a block stops it and a modification, also one to nothing, takes effect
(P8, P9), whether the guard is a coroutine or a plain function, and observers of what follows hear of it (P10)."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import roomkit.models.voice as _voice  # noqa: F401 - its moments are looked for
from roomkit import AIChannel, BeforeCommit, BeforeToolUse, Block, Committed, Modify, RoomKit
from roomkit.ai.tools import Toolbox, tool
from roomkit.models.content import TextContent
from roomkit.models.hooks import BeforeDelivery, BeforeGeneration, Delivered, Moment, Notice, ReplyFinished
from roomkit.testing import FakeChannel, VirtualClock
from roomkit.testing.ai import ScriptedAI, call
from tests.core.rooms import say

TESTS = Path(__file__).parents[1]
ELSEWHERE = {
    "IdentityQuestion": "core/test_inbound.py::test_every_answer_about_a_stranger_does_what_it_says",
    "FinalTranscript": "channels/test_voice.py::test_guards_change_and_withhold_transcripts_and_sentences",
    "BeforeTTS": "channels/test_voice.py::test_guards_change_and_withhold_transcripts_and_sentences",
}
"""Moments with an answer or a call of their own."""


class House:
    """A room with a phone, an AI that looks something up, and somebody else who reads along."""

    def __init__(self) -> None:
        self.looked: list[str] = []

        @tool
        def look(what: str) -> str:
            """Looks something up."""
            self.looked.append(what)
            return "seen"

        self.sms, self.other = FakeChannel(), FakeChannel("other", "other")
        self.brain = ScriptedAI([call("look", what="lamp")], "It is there.")
        self.kit = RoomKit(clock=VirtualClock())
        self.kit.register_channel(self.sms)
        self.kit.register_channel(self.other)
        ai = AIChannel("ai", self.brain, system_prompt="Be kind.", tool_handler=Toolbox([look]))
        self.kit.register_channel(ai, default=True)
        self.heard: list[type[Notice]] = []
        for notice in (Committed, Delivered, ReplyFinished):
            self.kit.on(notice)(lambda told: self.heard.append(type(told)))

    async def run(self) -> None:
        async with self.kit:
            await self.kit.create_room("r", channels=["sms", "other", "ai"])
            await (await say(self.kit, "where is my lamp?", "r")).settled()


def new_text(moment: Any, text: str) -> Any:
    return moment.value.model_copy(update={"content": TextContent(text=text)})


Case = tuple[Callable[[Any, str], Any], Callable[[House], Any], dict[str, Any]]
"""How a value is changed to hold a text, what is looked at, and what that is: untouched, blocked, changed, emptied."""
CASES: dict[type[Moment[Any]], Case] = {
    BeforeCommit: (
        lambda m, text: new_text(m, text) if m.channel_id == "sms" else None,
        lambda h: h.other.texts[0] if h.other.texts else "nothing",
        {"": "where is my lamp?", "block": "nothing", "changed": "changed", "empty": ""},
    ),
    BeforeDelivery: (
        new_text,
        lambda h: h.other.texts[-1] if h.other.texts else "nothing",
        {"": "It is there.", "block": "nothing", "changed": "changed", "empty": ""},
    ),
    BeforeGeneration: (
        lambda m, text: m.value.model_copy(update={"system": text}),
        lambda h: [request.system for request in h.brain.requests],
        {"": ["Be kind."] * 2, "block": [], "changed": ["changed"] * 2, "empty": [""] * 2},
    ),
    BeforeToolUse: (
        lambda m, text: m.value.model_copy(update={"arguments": {"what": text}}),
        lambda h: h.looked,
        {"": ["lamp"], "block": [], "changed": ["changed"], "empty": [""]},
    ),
}


def test_every_moment_is_here_or_has_a_test_of_its_own() -> None:
    known = {kind.__name__ for kind in CASES} | set(ELSEWHERE)
    assert known == {kind.__name__ for kind in Moment.__subclasses__() if kind.__module__.startswith("roomkit.")}
    for name in ELSEWHERE.values():
        path, _, test = name.partition("::")
        assert f"def {test}(" in (TESTS / path).read_text(encoding="utf-8")
        ast.parse((TESTS / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("verdict", ["", "block", "changed", "empty"])
@pytest.mark.parametrize("moment", CASES, ids=lambda kind: kind.__name__)
async def test_a_guard_decides(moment: type[Moment[Any]], verdict: str, plain: bool) -> None:
    change, look, expected = CASES[moment]
    house = House()

    def decide(now: Any) -> Any:
        if verdict == "block":
            return Block("not that")
        value = change(now, "" if verdict == "empty" else verdict) if verdict else None
        return None if value is None else Modify(value)

    async def decide_later(now: Any) -> Any:
        return decide(now)

    guard: Callable[[Any], Any] | Callable[[Any], Awaitable[Any]] = decide if plain else decide_later
    house.kit.before(moment)(guard)
    await house.run()
    assert look(house) == expected[verdict]
    if not (verdict == "block" and moment in (BeforeCommit, BeforeGeneration)):
        assert {Committed, ReplyFinished} <= set(house.heard)
