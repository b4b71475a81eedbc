"""CascadeRealtime: a recogniser, a brain and a synthesiser behave like a speech-to-speech model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from roomkit import RoomKit
from roomkit.ai.tools import Toolbox
from roomkit.channels.realtime import RealtimeVoiceChannel
from roomkit.errors import Unavailable
from roomkit.models.audio import VoiceSession
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.voice.realtime.cascade import CascadeRealtime


class Talk:
    def __init__(self, kit: RoomKit, channel: RealtimeVoiceChannel, line: ScriptedBackend, tts: ScriptedTTS) -> None:
        self.kit, self.channel, self.line, self.tts = kit, channel, line, tts
        self.session = line.call()
        self.room = ""

    async def answer(self) -> VoiceSession:
        self.room = await self.channel.answer(self.session)
        return self.session

    async def said(self) -> list[tuple[str, str]]:
        events = [event for event in await self.kit.events(self.room) if event.type == "message"]
        return [(event.metadata["role"], event.text) for event in events]


@asynccontextmanager
async def talk(brain: ScriptedAI, **options: Any) -> AsyncGenerator[Talk]:
    line, tts = ScriptedBackend(), ScriptedTTS()
    provider = CascadeRealtime(ScriptedSTT(line), brain, tts, vad=ScriptedVad)
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, output_sample_rate=16_000, **options)
        kit.register_channel(channel)
        yield Talk(kit, channel, line, tts)


async def test_a_question_is_heard_answered_and_written_down() -> None:
    brain = ScriptedAI("It is on its way.", "You are welcome.")
    async with talk(brain, system_prompt="Be brief.") as it:
        it.line.speaks(it.session, "where is my order", 200, 1000)
        it.line.speaks(it.session, "thank you", 6000, 800)
        await it.answer()
        await asyncio.sleep(12)
        assert await it.said() == [
            ("user", "where is my order"),
            ("assistant", "It is on its way."),
            ("user", "thank you"),
            ("assistant", "You are welcome."),
        ]
        assert brain.requests[0].system == "Be brief."
        assert [message.text for message in brain.requests[1].messages] == [
            "where is my order",
            "It is on its way.",
            "thank you",
        ]
        assert it.line.heard(it.session)


async def test_an_interrupted_reply_is_remembered_as_far_as_it_was_heard() -> None:
    story = "Once upon a time there was a king. He had three daughters. They all lived in a castle by the sea."
    brain = ScriptedAI(story, "Fine.")
    async with talk(brain) as it:
        it.line.speaks(it.session, "tell me a story", 200, 1000)
        it.line.speaks(it.session, "that is enough", 4500, 800)
        await it.answer()
        await asyncio.sleep(12)
        said = await it.said()
        assert [role for role, _ in said] == ["user", "assistant", "user", "assistant"]
        heard = said[1][1]
        assert story.startswith(heard)
        assert 10 < len(heard) < len(story)
        remembered = brain.requests[1].messages[1].text
        assert story.startswith(remembered)
        assert abs(len(remembered) - len(heard)) < 12


async def test_tools_are_called_through_the_channel_and_their_results_spoken() -> None:
    async def find_order(number: int) -> str:
        """Finds an order."""
        return f"order {number} left yesterday"

    brain = ScriptedAI(["Let me look. ", call("find_order", number=7)], "It left yesterday.")
    async with talk(brain, tool_handler=Toolbox([find_order])) as it:
        it.line.speaks(it.session, "where is order seven", 200, 1000)
        await it.answer()
        await asyncio.sleep(10)
        assert [spec.name for spec in brain.requests[0].tools] == ["find_order"]
        assert brain.requests[1].messages[-1].parts[0].output == "order 7 left yesterday"  # type: ignore[union-attr]
        assert [text for _, text in await it.said()] == ["where is order seven", "Let me look.", "It left yesterday."]


async def test_a_brain_that_fails_leaves_the_call_up() -> None:
    down = Unavailable("scripted", "down")
    brain = ScriptedAI([down], [down], "Now I am here.")
    async with talk(brain) as it:
        it.line.speaks(it.session, "hello", 200, 600)
        it.line.speaks(it.session, "hello again", 5000, 600)
        await it.answer()
        await asyncio.sleep(10)
        assert (await it.said())[-1] == ("assistant", "Now I am here.")
        assert it.channel.sessions()


async def test_a_text_is_answered_by_voice_and_a_new_session_knows_the_past() -> None:
    brain = ScriptedAI("Blue.", "You like blue.", repeat=True)
    async with talk(brain) as it:
        await it.answer()
        await it.channel.inject_text(it.session, "what colour?")
        await asyncio.sleep(2)
        assert await it.said() == [("assistant", "Blue.")]
        await it.channel.end_session(it.session)
        again = it.line.call("call-2")
        await it.channel.answer(again, room_id=it.room)
        await it.channel.inject_text(again, "and I?")
        await asyncio.sleep(2)
        assert [message.text for message in brain.requests[1].messages] == ["Blue.", "and I?"]


async def test_closing_ends_everything() -> None:
    brain = ScriptedAI(["One ", 5.0, "two."])
    async with talk(brain) as it:
        it.line.speaks(it.session, "count", 200, 600)
        await it.answer()
        await asyncio.sleep(3)
        await it.channel.end_session(it.session)
        assert brain.opened == brain.closed == 1
