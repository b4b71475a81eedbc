"""Thinking ahead: an answer that comes earlier, and nothing at all done when the guess was wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import AIChannel, AudioPipelineConfig, KitOptions, RoomKit, VoiceChannel
from roomkit.ai.ahead import Ahead
from roomkit.ai.budget import Budget, SpendLimits
from roomkit.ai.tools import Toolbox
from roomkit.channels.voice import VoiceOptions
from roomkit.models.hooks import BeforeGeneration
from roomkit.models.redaction import Redaction
from roomkit.ports.speech import TurnVerdict
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad

THINKS_S = 1.0


class Patient:
    """A detector that wants another second of silence."""

    async def evaluate(self, transcript: str, silence_ms: float, history: Any = ()) -> TurnVerdict:
        return TurnVerdict(complete=False, wait_ms=1_000)


class Talk:
    """A call with two questions; the model thinks for a second before each answer."""

    def __init__(
        self,
        *rounds: Any,
        ahead: bool = True,
        guard: bool = False,
        tools: Any = None,
        kit: KitOptions | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.line, self.tts, self.brain = ScriptedBackend(), ScriptedTTS(), ScriptedAI(*rounds)
        self.ahead = Ahead(self.brain)
        self.kit = RoomKit(options=kit)
        pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None, turn_detector=Patient())
        options = VoiceOptions(reprompt=None, filler=None, ahead=self.ahead if ahead else None)
        self.phone = VoiceChannel(
            "phone",
            stt=ScriptedSTT(self.line),
            tts=self.tts,
            backend=self.line,
            pipeline=pipeline,
            options=options,
        )
        self.kit.register_channel(self.phone)
        self.kit.register_channel(
            AIChannel("ai", self.ahead, tool_handler=tools).configure(budget=budget), default=True
        )
        if guard:

            @self.kit.before(BeforeGeneration)
            async def look(moment: Any) -> None: ...

    async def run(self, *more: tuple[str, float, float], seconds: float = 20) -> tuple[str, list[str]]:
        async with self.kit:
            session = self.line.call()
            for text, at_ms, for_ms in (("first question", 200, 800), *more):
                self.line.speaks(session, text, at_ms, for_ms)
            room = await self.phone.answer(session)
            await asyncio.sleep(seconds)
            self.played = self.line.heard(session)
            texts = [event.text for event in await self.kit.events(room) if event.type == "message"]
            return room, texts


SECOND = ("the second one", 8_000, 1_000)


async def test_an_answer_that_was_foreseen_comes_a_second_earlier_and_is_the_same() -> None:
    starts: list[float] = []
    for ahead in (False, True):
        talk = Talk([THINKS_S, "One."], [THINKS_S, "Two."], ahead=ahead)
        _, texts = await talk.run(SECOND)
        assert texts == ["first question", "One.", "the second one", "Two."]
        starts.append(talk.played[-1].start_ms)
        assert talk.brain.opened == talk.brain.closed == 2
        assert (talk.ahead.used, talk.ahead.wasted) == ((1, 0) if ahead else (0, 0))
    assert starts[0] - starts[1] == pytest.approx(1_000, abs=60)


async def test_tools_of_a_guess_run_only_when_it_is_the_answer() -> None:
    ran: list[str] = []

    async def order(what: str) -> str:
        """Orders something."""
        ran.append(what)
        return "done"

    box = Toolbox([order])
    talk = Talk(
        [0.1, "One."], [0.1, call("order", what="wrong")], [0.1, call("order", what="right")], "Ordered.", tools=box
    )
    # The caller goes on after a pause in which everything was guessed already.
    _, texts = await talk.run(("the second one", 8_000, 1_000), ("and a third", 10_200, 1_000))
    assert ran == ["right"]
    assert talk.ahead.wasted == 1
    assert texts[-2:] == ["the second one and a third", "Ordered."]
    assert talk.brain.opened == talk.brain.closed == 4


async def test_nothing_is_guessed_where_a_guard_may_change_what_the_model_sees() -> None:
    talk = Talk([0.1, "One."], [0.1, "Two."], guard=True)
    _, texts = await talk.run(SECOND)
    assert texts[-1] == "Two."
    assert (talk.ahead.used, talk.ahead.wasted) == (0, 0)


async def test_a_history_that_has_changed_is_asked_about_anew() -> None:
    story = "It goes on for quite a while, so that it can be interrupted. " * 3
    talk = Talk([0.1, "One. " + story], [0.1, "No."], "Two.")
    # The caller interrupts: what the model said is not what was heard, so the guess was about another past.
    _, texts = await talk.run(("stop it now", 4_000, 1_000))
    assert texts[-1] == "Two."
    assert (talk.ahead.used, talk.ahead.wasted) == (0, 1)
    assert talk.brain.requests[-1].messages[-2].text != talk.brain.requests[0].messages[-1].text
    assert talk.brain.opened == talk.brain.closed


async def test_a_guess_is_told_no_more_than_the_model_is() -> None:
    talk = Talk([0.1, "One."], [0.1, "Noted."], kit=KitOptions(redaction=Redaction()))
    card = "my card is 4111 1111 1111 1111"
    _, texts = await talk.run((card, 8_000, 1_000))
    assert texts[-2:] == [card, "Noted."]
    assert (talk.ahead.used, talk.ahead.wasted) == (1, 0)
    assert "4111" not in str(talk.brain.requests)


async def test_nothing_is_guessed_while_a_person_has_the_floor() -> None:
    talk = Talk([0.1, "One."], [0.1, "Two."], [0.1, "Three."])
    async with talk.kit:
        session = talk.line.call()
        for text, at_ms in (("first question", 200), ("a word with eve", 8_000), ("hello again", 16_000)):
            talk.line.speaks(session, text, at_ms, 800)
        room = await talk.phone.answer(session)
        await asyncio.sleep(6)
        await talk.kit.take_over(room, "eve")
        await asyncio.sleep(8)
        assert talk.brain.opened == 1, "the model hears nothing of what is said to eve"
        await talk.kit.release(room, "eve")
        await asyncio.sleep(12)
        assert talk.brain.opened == 2
        assert (talk.ahead.used, talk.ahead.wasted) == (0, 0), "the first turn after that is not guessed"


async def test_guesses_keep_to_the_budget_and_wasted_ones_are_paid_from_it() -> None:
    poor = Talk([0.1, "One."], [0.1, "Two."], budget=Budget(SpendLimits(tenant_tokens=1)))
    await poor.run(SECOND)
    assert (poor.brain.opened, poor.ahead.used, poor.ahead.wasted) == (1, 0, 0)
    three = Budget(SpendLimits(tenant_tokens=3 * 15))
    talk = Talk([0.1, "One."], [0.1, "Wrong."], [0.1, "Right."], budget=three)
    await talk.run(("the second one", 8_000, 1_000), ("and a third", 10_200, 1_000))
    assert (talk.ahead.used, talk.ahead.wasted) == (1, 1)
    assert three.refusal("default", "any", "tokens") is not None, "the wasted one was not counted"


async def test_a_guess_ends_with_its_call() -> None:
    talk = Talk([0.1, "One."], [60.0, "Two."])
    async with talk.kit:
        session = talk.line.call()
        talk.line.speaks(session, "first question", 200, 800)
        talk.line.speaks(session, "the second one", 8_000, 1_000)
        await talk.phone.answer(session)
        await asyncio.sleep(9.9)
        assert talk.brain.opened == 2
        talk.line.disconnects(session)
        await asyncio.sleep(0.5)
        assert talk.brain.closed == 2
        assert talk.ahead.wasted == 1
