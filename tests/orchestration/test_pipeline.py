"""Agents that share a conversation: one at a time, handed over with a note, in text and in a call."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import Agent, ConversationPipeline, InboundMessage, RoomKit, SMSChannel, VoiceChannel
from roomkit.errors import ConfigError
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.messages import FakeMessages
from roomkit.voice.pipeline import AudioPipelineConfig


def desk(*rounds: object) -> Agent:
    return Agent(
        "desk",
        ScriptedAI(*rounds),  # type: ignore[arg-type]
        role="the front desk of a bank",
        voice="anna",
        greeting="Good morning, front desk.",
    )


def loans(*rounds: object) -> Agent:
    return Agent("loans", ScriptedAI(*rounds), description="everything about loans", voice="ben")  # type: ignore[arg-type]


TO_LOANS = (["One moment. ", call("hand_over", to="loans", note="She wants a loan for a car.")], "")


async def test_only_the_active_agent_answers_and_the_next_one_knows_the_note() -> None:
    first, second = desk(*TO_LOANS), loans("About that car, then.", "From 3 percent.")
    async with RoomKit() as kit:
        kit.register_channel(SMSChannel("sms", provider=FakeMessages()))
        ConversationPipeline([first, second]).install(kit)
        result = await kit.process_inbound(InboundMessage.text("sms", "+441", "I want a loan"))
        await result.settled()
        await asyncio.sleep(1)
        room = result.room_id or ""
        more = await kit.process_inbound(InboundMessage.text("sms", "+441", "how much?"))
        await more.settled()
        said = [(e.source.channel_id, e.text) for e in await kit.events(room) if e.type == "message"]
        # The colleague is told at once, so the two may speak across each other in writing; each says its part once.
        assert sorted(said[1:4]) == [
            ("desk", "One moment. "),
            ("host", "desk hands this conversation over to you. She wants a loan for a car."),
            ("loans", "About that car, then."),
        ]
        assert said[0] == ("sms", "I want a loan")
        assert said[4:] == [("sms", "how much?"), ("loans", "From 3 percent.")]
        assert (await kit.get_room(room)).metadata["agent"] == "loans"
        assert len(first.provider.requests) == 2  # type: ignore[union-attr]


async def test_in_a_call_the_voice_changes_and_the_line_stays_up() -> None:
    line, tts = ScriptedBackend(), ScriptedTTS()
    voices: list[str | None] = []

    class Voices(ScriptedTTS):
        async def speak(self, text, *, voice=None, language=None):  # type: ignore[no-untyped-def]
            voices.append(voice)
            async for piece in tts.speak(text, voice=voice, language=language):
                yield piece

    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)
    phone = VoiceChannel("phone", stt=ScriptedSTT(line), tts=Voices(), backend=line, pipeline=pipeline)
    async with RoomKit() as kit:
        kit.register_channel(phone)
        ConversationPipeline([desk(*TO_LOANS), loans("Ben here, which car is it?")]).install(kit, phone)
        session = line.call()
        line.speaks(session, "I want a loan", 4000, 900)
        await phone.answer(session)
        await asyncio.sleep(22)
        assert tts.said[0] == "Good morning, front desk."
        assert tts.said[-2:] == ["Ben here, which car is it?", "Are you still there?"]
        assert voices[-2:] == ["ben", "ben"]
        assert "anna" in voices
        assert len(phone.sessions()) == 1


def test_what_cannot_be_arranged_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        ConversationPipeline([])
    with pytest.raises(ConfigError, match="same channel id"):
        ConversationPipeline([desk(), desk()])
    with pytest.raises(ConfigError, match="none of the agents"):
        ConversationPipeline([desk()], entry="sales")
