"""What the tests of speech-to-speech vendors have in common: the far end of the kit, a whole call, a bad day."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from roomkit import RoomKit
from roomkit.channels.realtime import RealtimeVoiceChannel
from roomkit.models.audio import VoiceSession
from roomkit.providers.wire import WireNames
from roomkit.voice.realtime.mock import MockRealtimeTransport

TOOL = {"name": "find_order", "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}}}


async def find(name: str, arguments: dict[str, Any]) -> str:
    await asyncio.sleep(0.3)
    return f"order {arguments['number']} left"


class Rig:
    """The far end for `check_realtime`: `spoken` makes one reply of the fake's."""

    def __init__(self, fake: Any, provider: Any, spoken: Callable[..., Any]) -> None:
        self.fake, self.provider, self._spoken = fake, provider, spoken

    def will_say(self, text: str, *, ms: int = 500, calls: tuple[tuple[str, dict[str, Any]], ...] = ()) -> None:
        names = WireNames(name for name, _ in calls)
        self.fake.script(self._spoken(text, ms, tuple((names.wire(name), given) for name, given in calls)))

    def speech(self, text: str, rate: int) -> list[bytes]:
        return [frame.pcm for frame in self.fake.lexicon.speech(text, rate, silence_ms=800)]

    def outputs(self) -> list[str]:
        return [output for _, output in self.fake.results]

    def seed(self) -> list[tuple[str, str]]:
        return self.fake.seeds[-1]

    def cut(self) -> None:
        self.fake.cut()

    async def aclose(self) -> None:
        await self.fake.aclose()
        assert self.fake.violations == []


class Call:
    """A whole call through the channel, at the vendor's fake."""

    def __init__(self, kit: RoomKit, channel: RealtimeVoiceChannel, line: MockRealtimeTransport, fake: Any) -> None:
        self.kit, self.channel, self.line, self.fake = kit, channel, line, fake
        self.room = ""
        self.session: VoiceSession

    async def start(self, **metadata: Any) -> None:
        self.room = (await self.kit.create_room()).id
        self.session = await self.channel.start_session(self.room, "caller", "wire", metadata=metadata)

    async def say(self, text: str, silence_ms: int = 800) -> None:
        for frame in self.fake.lexicon.speech(text, self.line.traits.rate, silence_ms=silence_ms):
            self.line.say(self.session, frame.pcm)
            await asyncio.sleep(0.02)

    async def log(self) -> list[tuple[str, str]]:
        """(role, text) of what was said, (kind, name) of what was done."""
        found: list[tuple[str, str]] = []
        for event in await self.kit.events(self.room):
            if event.type == "message":
                found.append((str(event.metadata.get("role")), event.text))
            elif event.type in ("tool_call_start", "tool_call_end"):
                found.append((event.type.value, event.content.name))  # type: ignore[union-attr]
        return found

    async def said(self) -> list[tuple[str, str]]:
        return [(role, text) for role, text in await self.log() if not role.startswith("tool_call")]


@asynccontextmanager
async def call_at(fake: Any, provider: Any, rate: int, **options: Any) -> AsyncGenerator[Call]:
    line = MockRealtimeTransport(rate=rate)
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, **options)
        kit.register_channel(channel)
        yield Call(kit, channel, line, fake)
        await channel.close()
    await fake.aclose()
    assert fake.violations == []


async def bad_day(
    call: Callable[..., Any], spoken: Callable[..., Any], manners: Callable[[random.Random, Any], None], seed: int
) -> None:
    """A vendor whose `manners` are drawn from one number, as are its replies, calls and breaks: what was said and done
    stands in the room once and in order."""
    chance = random.Random(seed)
    placed: list[int] = []

    async def order(name: str, arguments: dict[str, Any]) -> str:
        placed.append(arguments["number"])
        await asyncio.sleep(chance.uniform(0, 1.5))
        return f"order {arguments['number']} placed"

    async with call(tools=[TOOL], tool_handler=order) as it:
        it.fake.manners.speed = chance.choice((1.0, 3.0, 20.0))
        manners(chance, it.fake.manners)
        await it.start()
        for number in range(chance.randint(2, 4)):
            calls = tuple(("find_order", {"number": number * 10 + n}) for n in range(chance.choice((0, 0, 1, 2))))
            words = " ".join(f"{number}.{word}" for word in "abcdef")
            it.fake.script(spoken(words, chance.choice((300, 2_000, 6_000)), calls))
            await it.say(f"question {number}")
            await asyncio.sleep(chance.uniform(0, 3))
            if chance.random() < 0.2:
                it.fake.cut()
                await asyncio.sleep(1)
        await asyncio.sleep(8)
        await it.channel.end_session(it.session)
        log = await it.log()
    asked = [text for role, text in log if role == "user" and text != "question"]  # of which a break kept the rest
    assert asked == sorted(asked)
    assert len(asked) == len(set(asked))
    heard = [word for role, text in log if role == "assistant" for word in text.split() if "." in word]
    heard = [word for word in heard if "Yes." not in word]
    assert len(heard) == len(set(heard)), heard
    assert len(placed) == len(set(placed)), placed
    started, ended = (sum(role == kind for role, _ in log) for kind in ("tool_call_start", "tool_call_end"))
    assert started == len(placed) == ended
    results = [call_id for call_id, _ in it.fake.results]
    assert len(results) == len(set(results))
