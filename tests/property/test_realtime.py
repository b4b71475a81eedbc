"""Whatever a speech-to-speech vendor tells, in whatever order, with breaks in between, the room stays in order."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from roomkit import RoomKit
from roomkit.channels import RealtimeVoiceChannel
from roomkit.errors import RoomKitError, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.realtime import RealtimeConfig
from roomkit.ports.realtime import RealtimeTraits
from roomkit.testing.loop import run
from roomkit.voice.realtime.mock import IN_BAND, MockRealtimeProvider, MockRealtimeTransport, MockSession

TOOL = {"name": "order", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}


async def _scene(seed: int) -> None:
    chance = random.Random(seed)
    placed: list[int] = []

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        placed.append(arguments["n"])
        await asyncio.sleep(chance.uniform(0, 3))
        return f"order {arguments['n']}"

    resumes = chance.random() < 0.3
    provider = MockRealtimeProvider(traits=RealtimeTraits(resumes=resumes, reconfigures=IN_BAND - {"voice"}))
    line = MockRealtimeTransport()
    said: list[str] = []
    asked: list[int] = []
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, tools=[TOOL], tool_handler=handler)
        kit.register_channel(channel)
        room = await kit.create_room()
        session = await channel.start_session(room.id, "caller", None)
        for number in range(chance.randint(3, 9)):
            model = provider.session
            item, words = model.name("user"), f"question {number}"
            model.emit(rt.SpeechBegan(item))
            await asyncio.sleep(chance.uniform(0.05, 1))
            model.emit(rt.SpeechStopped(item))
            late: list[Any] = [rt.UserText(item, words)] * chance.choice((1, 1, 2, 3))
            if chance.random() < 0.1:
                late = [rt.UserTextFailed(item)]
            else:
                said.append(words)
            early = chance.random() < 0.5
            if early:
                model.emit(*late)
            if chance.random() < 0.4:
                model.calls(*[("order", {"n": number * 10 + n}) for n in range(chance.randint(1, 3))])
                asked.append(number)
            model.says(
                " ".join(f"{number}.{word}" for word in "abcdef"),
                ms=chance.choice((50, 400, 3_000)),
                over=chance.random() < 0.9,
            )
            if not early:
                await asyncio.sleep(chance.uniform(0, 2.5))
                model.emit(*late)
            await asyncio.sleep(chance.uniform(0, 2))
            match chance.randint(0, 9):
                case 0:
                    model.emit(rt.ResumeHandle(f"handle-{number}"))
                    await asyncio.sleep(0.05)
                    model.breaks()
                    await asyncio.sleep(1)
                case 1:
                    await channel.reconfigure_session(session, voice=f"voice {number}")
                case 2:
                    model.emit(rt.Interrupted())
                case 3:
                    await kit.take_over(room.id, "anna")
                    await kit.release(room.id, "anna")
                case _:
                    pass
        await asyncio.sleep(6)
        await channel.end_session(session)
        events = await kit.events(room.id, limit=500)
        assert len(line) == 0
        assert all(each.closed for each in provider.sessions)
    _check(events, said, placed)
    for each in provider.sessions:
        answered = [answer.call_id for answer in each.of(rt.ToolAnswer)]
        assert len(answered) == len(set(answered)), "no call is answered twice"


def _check(events: list[Any], said: list[str], placed: list[int]) -> None:
    mine = [event.text for event in events if event.metadata.get("role") == "user"]
    assert sorted(mine) == sorted(said), "what the caller said stands there once"
    in_time = [event.text for event in events if event.metadata.get("role") == "user" and "late" not in event.metadata]
    assert in_time == sorted(in_time), "in the order in which it was said"
    heard = [event.text for event in events if event.metadata.get("role") == "assistant"]
    assert len(heard) == len(set(heard)), "nothing that the model said stands there twice"
    started = [event.content.call_id for event in events if event.type == "tool_call_start"]
    ended = [event.content.call_id for event in events if event.type == "tool_call_end"]
    assert len(started) == len(set(started)) == len(placed), "every tool that ran was written down before"
    assert len(ended) == len(set(ended)), "every call ends once"
    assert set(started) <= set(ended), "and none stays open"
    assert len(placed) == len(set(placed)), "nothing is ordered twice"
    index = {event.text: event.index for event in events}
    for text in heard:
        question = f"question {text.split('.')[0]}"
        if question in in_time:
            assert index[question] < index[text], f"{text} stands before its question"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1_000_000))
def test_the_room_stays_in_order_whatever_the_vendor_tells(seed: int) -> None:
    run(_scene(seed))


class _Moody(MockRealtimeProvider):
    """Connections take their time, and now and then there is none."""

    def __init__(self, chance: random.Random, traits: RealtimeTraits) -> None:
        super().__init__(traits=traits)
        self._chance = chance

    async def connect(self, config: RealtimeConfig, *, resume: str | None = None) -> MockSession:
        await asyncio.sleep(self._chance.choice((0, 0.1, 1.0)))
        if self._chance.random() < 0.1:
            raise Unavailable("moody", "down")
        return await super().connect(config, resume=resume)


class _Bustle:
    """A room in which calls come, go and are changed at any moment."""

    def __init__(self, chance: random.Random, kit: RoomKit, channel: RealtimeVoiceChannel, room_id: str) -> None:
        self.chance, self.kit, self.channel, self.room_id = chance, kit, channel, room_id
        self.provider: Any = channel.provider
        self.line: Any = channel.backend
        self.jobs: list[asyncio.Task[None]] = []

    def go(self, work: Any) -> None:
        async def quietly() -> None:
            with suppress(RoomKitError):  # refused: the call has just ended, or never began
                await work

        self.jobs.append(asyncio.ensure_future(quietly()))

    def step(self, number: int) -> None:
        kit, channel, chance, room_id = self.kit, self.channel, self.chance, self.room_id
        calls = channel.sessions()
        alive = [one for one in self.provider.sessions if not one.closed and one._broken is None]
        if not calls or (len(calls) < 3 and chance.random() < 0.1):
            self.go(channel.start_session(room_id, f"caller {number}", "wire"))
            return
        call, model = chance.choice(calls), chance.choice(alive) if alive else None
        match chance.randrange(9):
            case 0:
                self.go(channel.end_session(call))
            case 1:
                self.line.disconnects(call)
            case 2:
                voice = chance.choice((None, f"voice {number}"))
                self.go(channel.reconfigure_session(call, system_prompt=f"prompt {number}", voice=voice))
            case 3:
                self.go(chance.choice((kit.mute, kit.unmute))(room_id, "voice"))
            case 4:
                self.go(chance.choice((kit.take_over, kit.release))(room_id, "anna"))
            case 5 if model is not None:
                model.breaks()
            case 6 if model is not None:
                model.emit(rt.GoingAway(chance.choice((0, 1, 5))), rt.UserText(f"u{number}", "half a", final=False))
            case 7 if model is not None:
                model.calls(("order", {"n": number}), ("order", {"n": number + 1_000}))
            case _ if model is not None:
                model.hears(f"question {number}")
                model.says(f"answer {number}", ms=chance.choice((100, 3_000)), over=chance.random() < 0.8)
            case _:
                pass


async def _bustle(seed: int) -> None:
    chance = random.Random(seed)

    async def handler(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(chance.choice((0, 0.3, 3)))
        return "placed"

    traits = RealtimeTraits(
        resumes=chance.random() < 0.5,
        marks_speech=chance.random() < 0.6,
        session_limit_s=chance.choice((None, 20)),
        reconfigures=chance.choice((IN_BAND, IN_BAND - {"voice"}, frozenset[str]())),
    )
    provider, line = _Moody(chance, traits), MockRealtimeTransport()
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, tools=[TOOL], tool_handler=handler)
        kit.register_channel(channel)
        room = await kit.create_room()
        it = _Bustle(chance, kit, channel, room.id)
        for number in range(40):
            it.step(number)
            await asyncio.sleep(chance.choice((0, 0.01, 0.2, 1, 3)))
        await asyncio.sleep(8)
        for session in channel.sessions():
            await channel.end_session(session)
        await asyncio.gather(*it.jobs)
        assert not channel.sessions()
        assert len(line) == 0
        assert all(each.closed for each in provider.sessions), "a model is left that nobody listens to"
        events = await kit.events(room.id, limit=1_000)
        for kind in ("tool_call_start", "tool_call_end"):
            ids = [event.content.call_id for event in events if event.type == kind]  # type: ignore[union-attr]
            assert len(ids) == len(set(ids))
        started = {event.content.call_id for event in events if event.type == "tool_call_start"}  # type: ignore[union-attr]
        ended = {event.content.call_id for event in events if event.type == "tool_call_end"}  # type: ignore[union-attr]
        assert started <= ended


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1_000_000))
@example(66)
@example(62)
def test_nothing_is_left_open_however_calls_come_and_go(seed: int) -> None:
    run(_bustle(seed))
