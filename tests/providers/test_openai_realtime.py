"""OpenAI's Realtime API against a fake that validates every client event with the vendor's own types."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from roomkit.channels.realtime import RealtimeOptions
from roomkit.errors import BadResponse, ConfigError, ProviderTimeout, RateLimited, Unauthorized
from roomkit.models import realtime as rt
from roomkit.models.audio import AudioFrame
from roomkit.models.realtime import RealtimeConfig
from roomkit.providers.openai.realtime import OpenAIRealtime, OpenAIRealtimeOptions
from roomkit.testing.calls import ScriptedVad
from roomkit.testing.realtime import Listener, check_realtime
from roomkit.testing.vendors.lines import Fault
from roomkit.testing.vendors.openai_realtime import FakeOpenAIRealtime, Spoken, _check_server, _client_problem
from roomkit.voice.pipeline import AudioPipelineConfig
from tests.providers.realtime_calls import TOOL, Call, Rig, bad_day, call_at, find


@pytest.fixture(scope="module", autouse=True)
def _types() -> None:
    """The first look at the vendor's types builds their validators, which takes its time."""
    _client_problem({"type": "response.create"})
    _check_server({"type": "input_audio_buffer.cleared", "event_id": "e"})


class OpenAIRig(Rig):
    def __init__(self) -> None:
        fake = FakeOpenAIRealtime()
        super().__init__(fake, OpenAIRealtime(api_key=fake.key, connect=fake.connect), Spoken)


async def test_it_passes_the_kit() -> None:
    await check_realtime(OpenAIRig)


@pytest.mark.parametrize("manner", ["twice", "late", "old_names", "transcript_fails", "slow"])
async def test_it_passes_the_kit_however_the_vendor_behaves(manner: str) -> None:
    class Bad(OpenAIRig):
        def __init__(self) -> None:
            super().__init__()
            if manner == "slow":
                self.fake.manners.speed = 1.0
            else:
                setattr(self.fake.manners, manner, True)

    await check_realtime(Bad, hears=manner not in ("transcript_fails", "slow"))


def call(**options: Any) -> AbstractAsyncContextManager[Call]:
    fake = FakeOpenAIRealtime()
    vendor = OpenAIRealtimeOptions(**options.pop("vendor", {}))
    return call_at(fake, OpenAIRealtime(api_key=fake.key, connect=fake.connect, options=vendor), 24_000, **options)


async def test_a_whole_conversation_stands_in_the_room_in_its_order() -> None:
    async with call(system_prompt="Be kind.", voice="marin", tools=[TOOL], tool_handler=find) as it:
        it.fake.script(Spoken("Let me see.", 400, (("find_order", {"number": 7}),)), Spoken("It left yesterday.", 600))
        it.fake.manners.transcript_s = 1.2  # later than the reply and its tool call
        await it.start()
        await it.say("where is order seven")
        await asyncio.sleep(4)
        log = await it.log()
        assert log[0] == ("user", "where is order seven")
        assert log.index(("tool_call_start", "find_order")) < log.index(("tool_call_end", "find_order"))
        assert [text for role, text in log if role == "assistant"] == ["Let me see.", "It left yesterday."]
        session = it.fake.sessions[-1]
        assert session["instructions"] == "Be kind."
        assert session["audio"]["output"]["voice"] == "marin"
        assert it.fake.results[0][1] == "order 7 left"


async def test_barge_in_truncates_at_the_position_really_played() -> None:
    async with call() as it:
        it.fake.script(Spoken("one two three four five six seven eight nine ten", 6_000))
        it.fake.manners.late = True
        await it.start()
        await it.say("count please")
        await asyncio.sleep(1.5)  # the model is 12 s ahead by now
        heard = len(it.line.heard(it.session)) / 2 / 24
        await it.say("stop")
        await asyncio.sleep(1)
        ((_, at),) = it.fake.truncated
        assert heard <= at <= heard + 250  # until the vendor had heard the first word
        silent = len(it.line.heard(it.session))
        log = await it.log()
        assert [role for role, _ in log][:3] == ["user", "assistant", "user"]
        assert "one two three four five six seven eight nine ten".startswith(log[1][1])
        assert len(it.line.heard(it.session)) >= silent


async def test_our_own_vad_commits_and_asks() -> None:
    pipeline = AudioPipelineConfig(rate=24_000, vad=ScriptedVad, dtmf=None, limiter=None)
    async with call(options=RealtimeOptions(pipeline=pipeline)) as it:
        await it.start()
        assert it.fake.sessions[-1]["audio"]["input"]["turn_detection"] is None
        await it.say("hello there")
        await asyncio.sleep(2)
        assert await it.log() == [("user", "hello there"), ("assistant", "Yes.")]


async def test_the_take_over_of_a_person_stops_replies_and_keeps_the_transcript() -> None:
    async with call() as it:
        await it.start()
        await it.kit.take_over(it.room, "anna")
        await asyncio.sleep(0.1)
        assert it.fake.sessions[-1]["audio"]["input"]["turn_detection"]["create_response"] is False
        await it.say("are you there")
        await asyncio.sleep(1)
        assert await it.log() == [("user", "are you there")]
        assert it.fake.replies == 0
        await it.kit.release(it.room, "anna")
        await asyncio.sleep(0.1)
        await it.say("and now")
        await asyncio.sleep(2)
        assert (await it.log())[-1] == ("assistant", "Yes.")


async def test_a_handoff_changes_the_voice_over_a_new_session_and_the_line_stays_up() -> None:
    async with call(system_prompt="sales", voice="marin") as it:
        it.fake.script(Spoken("Hello, sales.", 300))
        await it.start()
        await it.say("I am Tom")
        await asyncio.sleep(1.5)
        await it.channel.reconfigure_session(it.session, system_prompt="support")
        await asyncio.sleep(0.1)
        assert len(it.fake.sessions) == 1
        assert it.fake.sessions[-1]["instructions"] == "support"
        await it.channel.reconfigure_session(it.session, system_prompt="doctor", voice="cedar")
        assert len(it.fake.sessions) == 2
        assert it.fake.sessions[-1]["audio"]["output"]["voice"] == "cedar"
        assert it.fake.seeds[-1] == [("user", "I am Tom"), ("assistant", "Hello, sales.")]
        await it.say("still there")
        await asyncio.sleep(2)
        assert (await it.log())[-1] == ("assistant", "Yes.")


async def test_a_session_that_expires_is_replaced_and_remembers() -> None:
    async with call() as it:
        it.fake.script(Spoken("Hello Tom.", 300))
        it.fake.manners.limit_s = 5
        await it.start()
        await it.say("I am Tom")
        await asyncio.sleep(5)
        assert len(it.fake.sessions) == 2
        assert it.fake.seeds[-1] == [("user", "I am Tom"), ("assistant", "Hello Tom.")]
        await it.say("hello again")
        await asyncio.sleep(1.5)
        assert (await it.log())[-1] == ("assistant", "Yes.")


async def test_before_the_limit_the_session_is_replaced_unasked() -> None:
    async with call(vendor={"session_limit_s": 100.0}) as it:
        await it.start()
        await asyncio.sleep(95)
        assert len(it.fake.sessions) == 2
        assert it.fake.open == 1


async def test_a_connection_cut_in_the_middle_of_a_reply_goes_on_with_the_conversation() -> None:
    async with call() as it:
        it.fake.script(Spoken("this is a very long answer indeed", 8_000), Spoken("Where was I?", 300))
        it.fake.manners.speed = 1.0
        await it.start()
        await it.say("tell me")
        await asyncio.sleep(2)
        it.fake.cut()
        await asyncio.sleep(5)
        texts = [text for _, text in await it.log()]
        assert texts[0] == "tell me"
        assert "this is a very long answer indeed".startswith(texts[1])
        assert len(it.fake.sessions) == 2


async def test_rate_limits_are_told_and_a_reply_that_fails_ends_nothing() -> None:
    async with call() as it:
        told: list[Any] = []

        @it.kit.on(rt.LimitNear)
        async def note(notice: Any) -> None:
            told.append((notice.name, notice.remaining, notice.reset_s))

        it.fake.manners.rate_limits = True
        fails = Spoken(fails="rate_limit_exceeded")
        it.fake.script(fails, fails, Spoken("Back again.", 200))  # asked for once more, and then not
        await it.start()
        await it.say("hello")
        await asyncio.sleep(3)
        assert it.fake.replies == 2
        await it.say("hello again")
        await asyncio.sleep(2)
        assert told[0] == ("tokens", 900, 6.0)
        assert [text for _, text in await it.log()] == ["hello", "hello again", "Back again."]


async def test_a_failed_reply_says_why() -> None:
    rig = OpenAIRig()
    rig.fake.script(Spoken(fails="rate_limit_exceeded"))
    connection = await rig.provider.connect(RealtimeConfig(input_rate=24_000))
    listener = Listener(connection)
    reading = asyncio.ensure_future(listener.run())
    await connection.send(rt.InjectText("hello"))
    await listener.over(1)
    assert isinstance(listener.of(rt.Complaint)[0].error, RateLimited)
    assert listener.of(rt.ReplyOver)[0].status == "failed"
    await connection.aclose()
    await reading
    await rig.aclose()


async def test_a_wrong_key_and_wrong_settings_are_told_at_once() -> None:
    fake = FakeOpenAIRealtime()
    with pytest.raises(Unauthorized):
        await OpenAIRealtime(api_key="wrong", connect=fake.connect).connect(RealtimeConfig())
    provider = OpenAIRealtime(api_key=fake.key, connect=fake.connect)
    with pytest.raises(BadResponse, match="unknown"):
        await provider.connect(RealtimeConfig(extra={"modalities": ["audio"]}))
    assert len(fake.violations) == 1
    assert fake.open == 0 or await _settled(fake)
    await fake.aclose()


async def _settled(fake: FakeOpenAIRealtime) -> bool:
    await asyncio.sleep(0.1)
    return fake.open == 0


async def test_a_vendor_that_says_nothing_is_given_up() -> None:
    fake = FakeOpenAIRealtime()
    fake.faults.append(Fault(silent=True))
    provider = OpenAIRealtime(api_key=fake.key, connect=fake.connect)
    with pytest.raises(ProviderTimeout):
        await provider.connect(RealtimeConfig())
    await fake.aclose()


async def test_what_is_no_event_ends_the_session_as_a_bad_response() -> None:
    fake = FakeOpenAIRealtime()
    fake.faults.append(Fault(garbage=True))
    with pytest.raises(BadResponse):
        await OpenAIRealtime(api_key=fake.key, connect=fake.connect).connect(RealtimeConfig())
    await fake.aclose()


async def test_azure_and_compatible_endpoints_by_profile() -> None:
    azure = FakeOpenAIRealtime(azure=True)
    provider = OpenAIRealtime(
        "my-deployment",
        api_key=azure.key,
        base_url="https://acme.openai.azure.com/openai/v1",
        options=OpenAIRealtimeOptions(profile="azure"),
        connect=azure.connect,
    )
    connection = await provider.connect(RealtimeConfig())
    assert azure.urls == ["wss://acme.openai.azure.com/openai/v1/realtime?model=my-deployment"]
    await connection.aclose()
    await azure.aclose()
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIRealtime(options=OpenAIRealtimeOptions(profile="azure"))


def test_a_foreign_endpoint_never_gets_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-environment")
    assert OpenAIRealtime(base_url="ws://localhost:9/v1")._headers() == {}
    assert "sk-secret" not in repr(vars(OpenAIRealtime(base_url="ws://localhost:9/v1")))


@pytest.mark.real_time
async def test_over_a_real_socket() -> None:
    fake = FakeOpenAIRealtime()
    fake.script(Spoken("Over the wire.", 200))
    async with fake.served() as url:
        provider = OpenAIRealtime(api_key=fake.key, base_url=f"{url}/v1")
        connection = await provider.connect(RealtimeConfig(input_rate=24_000))
        listener = Listener(connection)
        reading = asyncio.ensure_future(listener.run())
        await connection.send(rt.InjectText("hello"))
        await listener.over(1)
        assert "".join(each.delta for each in listener.of(rt.ReplyText)) == "Over the wire."
        assert isinstance(listener.of(rt.ReplyAudio)[0].frame, AudioFrame)
        await connection.aclose()
        await reading
    await fake.aclose()


def _manners(chance: random.Random, manners: Any) -> None:
    """Jitter, duplicates, late pieces, words that come late, breaks and limits."""
    manners.twice, manners.late = chance.random() < 0.3, chance.random() < 0.5
    manners.transcript_s = chance.choice((0.05, 0.4, 1.5))
    manners.old_names = chance.random() < 0.2
    manners.limit_s = chance.choice((None, None, 12.0))


@pytest.mark.parametrize("seed", range(20))
async def test_a_bad_day_of_the_vendor_s_leaves_the_room_in_order(seed: int) -> None:
    await bad_day(call, Spoken, _manners, seed)
