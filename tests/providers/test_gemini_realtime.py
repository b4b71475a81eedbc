"""Gemini Live against a fake that validates every message with the vendor's own types."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from roomkit.channels.realtime import RealtimeOptions
from roomkit.errors import ConfigError, Unauthorized
from roomkit.models import realtime as rt
from roomkit.models.realtime import RealtimeConfig
from roomkit.providers.gemini.realtime import GeminiLive, GeminiLiveOptions
from roomkit.testing.calls import ScriptedVad
from roomkit.testing.realtime import Listener, check_realtime
from roomkit.testing.vendors.gemini_live import FakeGeminiLive, Spoken, _check_server, _client_problem
from roomkit.voice.pipeline import AudioPipelineConfig
from tests.providers.realtime_calls import TOOL, Call, Rig, bad_day, call_at, find


@pytest.fixture(scope="module", autouse=True)
def _types() -> None:
    """The first look at the vendor's types builds their validators, which takes its time."""
    _client_problem({"setup": {"model": "m"}})
    _check_server({"setupComplete": {}})


class GeminiRig(Rig):
    def __init__(self) -> None:
        fake = FakeGeminiLive()
        super().__init__(fake, GeminiLive(api_key=fake.key, connect=fake.connect), Spoken)


async def test_it_passes_the_kit() -> None:
    await check_realtime(GeminiRig)


@pytest.mark.parametrize("manner", ["binary", "underscores", "slow"])
async def test_it_passes_the_kit_however_the_vendor_behaves(manner: str) -> None:
    class Other(GeminiRig):
        def __init__(self) -> None:
            super().__init__()
            if manner == "slow":
                self.fake.manners.speed = 1.0
            else:
                setattr(self.fake.manners, manner, True)

    await check_realtime(Other)


def call(**options: Any) -> AbstractAsyncContextManager[Call]:
    fake = FakeGeminiLive()
    return call_at(fake, GeminiLive(api_key=fake.key, connect=fake.connect), 16_000, **options)


async def test_a_whole_conversation_with_tools() -> None:
    async with call(system_prompt="Be kind.", voice="Puck", temperature=0.3, tools=[TOOL], tool_handler=find) as it:
        it.fake.script(
            Spoken("Let me see.", 400, (("find_order", {"number": 7}), ("find_order", {"number": 8}))),
            Spoken(" They left yesterday.", 600),
        )
        await it.start()
        await it.say("where are my orders")
        await asyncio.sleep(4)
        assert await it.said() == [("user", "where are my orders"), ("assistant", "Let me see. They left yesterday.")]
        assert [output for _, output in it.fake.results] == ["order 7 left", "order 8 left"]
        setup = it.fake.setups[-1]
        assert setup["systemInstruction"]["parts"][0]["text"] == "Be kind."
        assert setup["generationConfig"]["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Puck"
        assert setup["generationConfig"]["temperature"] == 0.3


async def test_barge_in_flushes_at_once_and_remembers_what_was_heard() -> None:
    async with call() as it:
        it.fake.script(Spoken("one two three four five six seven eight nine ten", 6_000), Spoken("Fine.", 200))
        it.fake.manners.speed = 2.0
        await it.start()
        await it.say("count please")
        await asyncio.sleep(1.5)
        await it.say("stop")
        await asyncio.sleep(1.5)
        log = await it.said()
        assert [role for role, _ in log] == ["user", "assistant", "user", "assistant"]
        assert "one two three four five six seven eight nine ten".startswith(log[1][1])
        assert 0 < len(log[1][1]) < 30
        assert (log[2][1], log[3][1]) == ("stop", "Fine.")


async def test_calls_that_are_taken_back_are_not_answered() -> None:
    async def slow(name: str, arguments: dict[str, Any]) -> str:
        await asyncio.sleep(3)
        return "too late"

    async with call(tools=[TOOL], tool_handler=slow) as it:
        it.fake.script(Spoken("", 0, (("find_order", {"number": 7}),)), Spoken("Never mind then.", 300))
        await it.start()
        await it.say("where is it")
        await it.say("forget it")
        await asyncio.sleep(4)
        assert it.fake.results == []
        assert (await it.said())[-1] == ("assistant", "Never mind then.")


async def test_a_handoff_resumes_the_session_with_another_voice() -> None:
    async with call(system_prompt="sales", voice="Puck") as it:
        await it.start()
        await it.say("I am Tom")
        await asyncio.sleep(1)
        await it.channel.reconfigure_session(it.session, system_prompt="support", voice="Kore")
        assert len(it.fake.setups) == 2
        assert len(it.fake.resumed) == 1
        assert it.fake.seeds[-1] == []
        assert it.fake.setups[-1]["systemInstruction"]["parts"][0]["text"] == "support"
        await it.say("still there")
        await asyncio.sleep(1)
        assert (await it.said())[-1] == ("assistant", "Yes.")


async def test_a_goodbye_is_answered_by_a_new_connection_in_time() -> None:
    async with call() as it:
        it.fake.manners.goes_away_s = 30
        await it.start()
        await asyncio.sleep(32)
        assert len(it.fake.setups) == 2
        assert it.fake.resumed == ["handle-1"]
        assert it.fake.open == 1


async def test_a_handle_that_is_forgotten_leads_to_a_seeded_session() -> None:
    async with call() as it:
        it.fake.script(Spoken("Hello Tom.", 200))
        await it.start()
        await it.say("I am Tom")
        await asyncio.sleep(1)
        it.fake.handles.clear()
        it.fake.cut()
        await asyncio.sleep(2)
        assert it.fake.resumed == []
        assert it.fake.seeds[-1] == [("user", "I am Tom"), ("model", "Hello Tom.")]


async def test_our_own_vad_brackets_what_is_said() -> None:
    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)
    async with call(options=RealtimeOptions(pipeline=pipeline)) as it:
        await it.start()
        await it.say("hello there")
        await asyncio.sleep(2)
        assert it.fake.setups[-1]["realtimeInputConfig"] == {"automaticActivityDetection": {"disabled": True}}
        assert [text for _, text in await it.said()] == ["hello there", "Yes."]


async def test_a_person_who_takes_over_is_not_talked_over() -> None:
    async with call() as it:
        await it.start()
        await it.kit.take_over(it.room, "anna")
        await it.say("are you there")
        await asyncio.sleep(1)
        assert it.fake.replies == 0
        await it.kit.release(it.room, "anna")
        await asyncio.sleep(0.1)
        await it.say("and now")
        await asyncio.sleep(1)
        assert (await it.said())[-1] == ("assistant", "Yes.")


async def test_keys_and_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    fake = FakeGeminiLive()
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        GeminiLive()
    with pytest.raises(ConfigError, match="base_url"):
        GeminiLive(api_key="x", options=GeminiLiveOptions(profile="vertex"))
    with pytest.raises(Unauthorized):
        await GeminiLive(api_key="wrong", connect=fake.connect).connect(RealtimeConfig())
    vertex = GeminiLive(
        "projects/p/locations/l/publishers/google/models/m",
        api_key=fake.key,
        base_url="https://l-aiplatform.googleapis.com",
        options=GeminiLiveOptions(profile="vertex", version="v1"),
        connect=fake.connect,
    )
    connection = await vertex.connect(RealtimeConfig())
    assert fake.urls[-1].startswith("wss://l-aiplatform.googleapis.com/ws/google.cloud.aiplatform.v1.")
    assert fake.setups[-1]["model"].startswith("projects/")
    await connection.aclose()
    await fake.aclose()


@pytest.mark.real_time
async def test_over_a_real_socket() -> None:
    fake = FakeGeminiLive()
    fake.script(Spoken("Over the wire.", 200))
    async with fake.served() as url:
        provider = GeminiLive(api_key=fake.key, base_url=url)
        connection = await provider.connect(RealtimeConfig())
        listener = Listener(connection)
        reading = asyncio.ensure_future(listener.run())
        await connection.send(rt.InjectText("hello"))
        await listener.over(1)
        assert "".join(each.delta for each in listener.of(rt.ReplyText)) == "Over the wire."
        await connection.aclose()
        await reading
    await fake.aclose()


def _manners(chance: random.Random, manners: Any) -> None:
    """Breaks, goodbyes, calls that are taken back, interruptions."""
    manners.handles = chance.random() < 0.7
    manners.goes_away_s = chance.choice((None, None, 6.0))


@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_day_of_the_vendor_s_leaves_the_room_in_order(seed: int) -> None:
    await bad_day(call, Spoken, _manners, seed)
