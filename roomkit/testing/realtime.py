"""Speech-to-speech providers in tests: `check_realtime`, the conformance kit of `RealtimeVoiceProvider`.

    await check_realtime(make)      # make() -> a `Rig`: the provider, and the model at its far end

The kit needs no pytest: it raises `AssertionError` with what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from roomkit.errors import ProviderError
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolSpec
from roomkit.models.realtime import PastTurn, RealtimeCommand, RealtimeConfig, RealtimeEvent
from roomkit.ports.realtime import RealtimeConnection, RealtimeVoiceProvider
from roomkit.runtime import Scope

E = TypeVar("E")
FRAME_S = 0.02


class Rig(Protocol):
    """A provider and the model at its far end, which does as it is told."""

    provider: RealtimeVoiceProvider

    def will_say(self, text: str, *, ms: int = 500, calls: tuple[tuple[str, dict[str, Any]], ...] = ()) -> None:
        """The next reply: what is spoken, for how long, and which tools are asked for after it."""
        ...

    def speech(self, text: str, rate: int) -> list[bytes]:
        """What the model hears as `text`, then silence, in frames of 20 ms."""
        ...

    def outputs(self) -> list[str]:
        """The tool results that reached the model."""
        ...

    def seed(self) -> list[tuple[str, str]]:
        """(role, text) of what the newest session was seeded with."""
        ...

    def cut(self) -> None:
        """Breaks every connection."""
        ...

    async def aclose(self) -> None: ...


Make = Callable[[], Rig]
ORDER = ToolSpec(
    name="find.order",
    description="Finds an order",
    parameters={"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
)


class Listener:
    """Everything that one connection tells."""

    def __init__(self, connection: RealtimeConnection) -> None:
        self.connection = connection
        self.events: list[RealtimeEvent] = []
        self.error: ProviderError | None = None
        self.ended = False

    async def run(self) -> None:
        try:
            async for event in self.connection:
                self.events.append(event)
        except ProviderError as error:
            self.error = error
        self.ended = True

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, what: str, found: Callable[[], bool], seconds: float = 10.0) -> None:
        for _ in range(int(seconds / FRAME_S)):
            if found():
                return
            await asyncio.sleep(FRAME_S)
        told = ", ".join(type(event).__name__ for event in self.events[-12:])
        raise AssertionError(f"{what} never came; last were: {told} {self.error or ''}")

    async def over(self, replies: int) -> None:
        await self.until(f"the end of reply {replies}", lambda: len(self.of(rt.ReplyOver)) >= replies)

    async def send(self, *commands: RealtimeCommand) -> None:
        for command in commands:
            await self.connection.send(command)


async def check_realtime(make: Make, *, hears: bool = True) -> None:
    """Proves that a provider sets sessions up, hears, speaks, asks for tools, is cut off and ends as the port says.
    Without `hears` the far end is told texts only."""
    checks = (
        _hears if hears else None,
        _speaks,
        _asks,
        _is_cut,
        _takes_turns,
        _remembers,
        _is_told_apart,
        _ends,
        _breaks,
    )
    for check in checks:
        if check is not None:
            rig = make()
            try:
                await check(rig)
            finally:
                await rig.provider.aclose()
                await rig.aclose()


def _config(rig: Rig, **changes: Any) -> RealtimeConfig:
    traits = rig.provider.traits
    config = RealtimeConfig(
        system_prompt="Be brief.",
        tools=(ORDER,),
        input_rate=(traits.input_rates or (16_000,))[0],
        output_rate=(traits.output_rates or (24_000,))[0],
    )
    return replace(config, **changes)


@asynccontextmanager
async def _session(rig: Rig, **changes: Any) -> AsyncGenerator[Listener]:
    connection = await rig.provider.connect(_config(rig, **changes))
    listener = Listener(connection)
    async with Scope("check") as scope:
        scope.spawn(listener.run(), name="listen")
        await listener.until("SessionReady", lambda: bool(listener.events))
        assert isinstance(listener.events[0], rt.SessionReady), "the first thing told is not SessionReady"
        try:
            yield listener
        finally:
            await connection.aclose()


async def _hears(rig: Rig) -> None:
    rig.will_say("Hello to you.", ms=600)
    async with _session(rig) as it:
        for pcm in rig.speech("good morning", _config(rig).input_rate):
            await it.send(rt.AppendAudio(pcm))
            await asyncio.sleep(FRAME_S)
        await it.over(1)
        traits = rig.provider.traits
        if traits.writes_down:
            await it.until("the final text of what was said", lambda: any(each.final for each in it.of(rt.UserText)))
            finals = [each.text for each in it.of(rt.UserText) if each.final]
            assert finals == ["good morning"], f"of what was said these finals were told: {finals}"
        if traits.marks_speech:
            assert len(it.of(rt.SpeechBegan)) == 1, "the beginning of speech is not told once"
            order = [type(each) for each in it.events]
            assert order.index(rt.SpeechBegan) < order.index(rt.ReplyBegan), "the reply begins before the speech"
        _whole(it, "Hello to you.", 600)


def _whole(it: Listener, text: str, ms: int) -> None:
    """The one reply so far was told in full and in order."""
    began, over = it.of(rt.ReplyBegan), it.of(rt.ReplyOver)
    assert len(began) == 1, f"{len(began)} replies began"
    assert len(over) == 1, f"{len(over)} replies ended"
    assert over[0].status == "completed", f"the reply is {over[0].status}"
    assert began[0].reply_id == over[0].reply_id, "a reply has two names"
    frames = [each.frame for each in it.of(rt.ReplyAudio)]
    told = sum(frame.duration_ms for frame in frames)
    assert abs(told - ms) < 1, f"of {ms} ms of speech {told:.0f} ms came"
    assert len({frame.rate for frame in frames}) == 1, "the rate changes within a reply"
    said = "".join(each.delta for each in it.of(rt.ReplyText))
    ended = it.of(rt.ReplySaid)
    assert said == text, f"the words are {said!r}, not {text!r}"
    assert len(ended) == 1, f"the end of what is said is told {len(ended)} times"
    assert ended[0].text in (None, text), f"the whole of what is said is {ended[0].text!r}"
    kinds = [type(each) for each in it.events]
    assert kinds.index(rt.ReplySaid) < kinds.index(rt.ReplyOver), "a reply is over before what it says"
    assert {each.item_id for each in it.of(rt.ReplyAudio)} == {ended[0].item_id}, "one thing said has two names"


async def _speaks(rig: Rig) -> None:
    rig.will_say("It is noon.", ms=1_000)
    async with _session(rig) as it:
        await it.send(rt.InjectText("what time is it?"))
        await it.over(1)
        _whole(it, "It is noon.", 1_000)
        assert not it.of(rt.Complaint), f"the vendor complains: {it.of(rt.Complaint)}"
        await it.send(rt.InjectText("keep this in mind", "system", respond=False))
        await asyncio.sleep(1.0)
        assert len(it.of(rt.ReplyBegan)) == 1, "a text that asks for no answer is answered"


async def _asks(rig: Rig) -> None:
    rig.will_say("", calls=(("find.order", {"number": 1}), ("find.order", {"number": 2})))
    rig.will_say("Both are here.", ms=300)
    async with _session(rig) as it:
        await it.send(rt.InjectText("where are my orders?"))
        await it.until("both calls", lambda: len(it.of(rt.ToolAsked)) == 2)
        calls = [each.call for each in it.of(rt.ToolAsked)]
        assert [call.name for call in calls] == ["find.order"] * 2, f"the tool's name is {calls[0].name!r}"
        assert [call.arguments for call in calls] == [{"number": 1}, {"number": 2}], "the arguments are others"
        assert len({call.call_id for call in calls}) == 2, "two calls have one id"
        await it.send(rt.ToolAnswer(calls[0].call_id, "find.order", "first"))
        await asyncio.sleep(0.5)
        assert len(it.of(rt.ReplyText)) == 0, "the reply goes on before every call has its answer"
        await it.send(rt.ToolAnswer(calls[1].call_id, "find.order", "second"))
        await it.until("what is said after the tools", lambda: bool(it.of(rt.ReplySaid)))
        await asyncio.sleep(1.0)
        assert len(it.of(rt.ReplySaid)) == 1, "the reply goes on twice"
        assert rig.outputs() == ["first", "second"], f"these results reached the model: {rig.outputs()}"
        await it.send(rt.ToolAnswer("never-asked", "find.order", "third"))
        await asyncio.sleep(0.3)
        assert rig.outputs() == ["first", "second"], "a result for a call that nobody made reached the model"


async def _is_cut(rig: Rig) -> None:
    rig.will_say("one two three four five six seven eight nine ten", ms=8_000)
    rig.will_say("Fine.", ms=200)
    async with _session(rig) as it:
        await it.send(rt.InjectText("count"))
        await it.until("the first sound", lambda: bool(it.of(rt.ReplyAudio)))
        await it.send(rt.CutReply(it.of(rt.ReplyAudio)[0].item_id, 40))
        await it.send(rt.CutReply(it.of(rt.ReplyAudio)[0].item_id, 40))
        await it.send(rt.CutReply("nothing-of-that-name", 5_000))
        await it.send(rt.InjectText("thank you"))
        await it.until(
            "the next reply", lambda: bool(it.of(rt.ReplySaid)) and it.of(rt.ReplyOver)[-1].status == "completed"
        )
        said = [each.text for each in it.of(rt.ReplySaid)]
        assert "Fine." in [*said, "".join(each.delta for each in it.of(rt.ReplyText))[-5:]], "the next reply is missing"
        assert not it.of(rt.Complaint), f"the vendor complains: {it.of(rt.Complaint)}"


async def _takes_turns(rig: Rig) -> None:
    for number in range(3):
        rig.will_say(f"Answer {number}.", ms=300)
    async with _session(rig) as it:
        await it.send(rt.InjectText("one"), rt.InjectText("two"), rt.Respond())
        await it.over(1)
        await asyncio.sleep(2.0)
        assert not it.of(rt.Complaint), f"the vendor complains: {it.of(rt.Complaint)}"
        open_now = 0
        for event in it.events:
            open_now += isinstance(event, rt.ReplyBegan) - isinstance(event, rt.ReplyOver)
            assert 0 <= open_now <= 1, "two replies are under way at once"
        prompt = "Be very brief."
        await it.send(rt.ForgetInput())
        if "system_prompt" in rig.provider.traits.reconfigures:
            await it.send(rt.Reconfigure(_config(rig, system_prompt=prompt, tools=())))
        await asyncio.sleep(0.3)
        assert not it.of(rt.Complaint), f"the vendor complains: {it.of(rt.Complaint)}"


async def _remembers(rig: Rig) -> None:
    past = (PastTurn("user", "I am Tom"), PastTurn("assistant", "Hello Tom"), PastTurn("system", "he is a friend"))
    rig.will_say("You are Tom.", ms=200)
    async with _session(rig, history=past) as it:
        await it.send(rt.InjectText("who am I?"))
        await it.over(1)
        seeded = rig.seed()
        for turn in past:
            assert any(turn.text in text for _, text in seeded), f"the model was not told: {turn.text}"
        assert not it.of(rt.Complaint), f"the vendor complains: {it.of(rt.Complaint)}"
        assert len(it.of(rt.ReplyBegan)) == 1, "what was said before is answered again"


async def _is_told_apart(rig: Rig) -> None:
    rig.will_say("First.", ms=200)
    async with _session(rig) as one, _session(rig) as other:
        await one.send(rt.InjectText("hello"))
        await one.over(1)
        assert not other.of(rt.ReplyBegan), "a session hears the reply of another"


async def _ends(rig: Rig) -> None:
    async with _session(rig) as it:
        await it.connection.aclose()
        await it.connection.aclose()
        await it.until("the end", lambda: it.ended, 3)
        assert it.error is None, f"a session that was closed ends with {it.error!r}"
        try:
            await it.send(rt.InjectText("hello"))
        except ProviderError:
            return
        raise AssertionError("a closed session takes commands")


async def _breaks(rig: Rig) -> None:
    rig.will_say("a long story", ms=10_000)
    async with _session(rig) as it:
        await it.send(rt.InjectText("hello"))
        await it.until("the first sound", lambda: bool(it.of(rt.ReplyAudio)))
        rig.cut()
        await it.until("the end", lambda: it.ended, 5)
        assert it.error is not None, "a session that breaks ends as if it had been closed"
        assert it.error.retryable, f"a broken connection is not made again: {it.error!r}"
