"""A warm transfer on a scripted line: who hears what, and who has the floor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.channels.voice import VoiceOptions
from roomkit.errors import FloorTaken, StateError
from roomkit.models.audio import DtmfDigit, VoiceSession
from roomkit.models.hooks import BeforeCommit, Block
from roomkit.orchestration.transfer import warm_transfer
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad

PIPELINE = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)


class Desk:
    """A caller in a room who has asked something, and a colleague who is about to be called."""

    def __init__(self) -> None:
        self.line, self.tts, self.kit = ScriptedBackend(), ScriptedTTS(), RoomKit()
        self.phone = VoiceChannel(
            "phone",
            stt=ScriptedSTT(self.line),
            tts=self.tts,
            backend=self.line,
            pipeline=PIPELINE,
            options=VoiceOptions(reprompt=None),
        )
        self.kit.register_channel(self.phone)

        @self.kit.on_message
        async def reply(ctx: Any, message: Any) -> str:
            return "Yes."

    async def begin(self) -> tuple[VoiceSession, str]:
        caller = self.line.call()
        self.line.speaks(caller, "I want my money back", 200, 1000)
        room = await self.phone.answer(caller)
        await asyncio.sleep(6)
        await self.kit.request_human(room, "a refund above the limit")
        return caller, room

    def colleague(self) -> VoiceSession:
        return self.line.call("call-2", participant_id="")

    def heard(self, session: VoiceSession) -> list[str]:
        """Words of the synthesiser and of others on the line, in their order."""
        names: list[str] = []
        for played in self.line.heard(session):
            said = self.tts.said[played.value - 1001] if played.value > 1000 else self.line.text_of(played.value)
            names += [said.strip()] if said.strip() else []
        return names


async def test_the_colleague_is_told_alone_and_then_both_hear_each_other() -> None:
    desk = Desk()
    async with desk.kit:
        caller, room = await desk.begin()
        eve = desk.colleague()
        desk.line.speaks(caller, "hello, anybody", 10_000, 500)  # into the briefing: nobody hears it
        desk.line.speaks(eve, "who is it", 1_000, 500)
        desk.line.speaks(eve, "eve here", 14_000, 500)
        desk.line.speaks(caller, "at last", 22_000, 500)
        assert await warm_transfer(desk.kit, desk.phone, room, eve, who="eve")
        floor = (await desk.kit.get_room(room)).floor
        assert (floor.mode, floor.holder) == ("human", "eve")
        assert await desk.kit.attention() == []
        await asyncio.sleep(18)
        briefing = ["A caller for you. a refund above the limit.", "The last they said: I want my money back"]
        assert desk.heard(eve) == [*briefing, "at last"]
        assert desk.heard(caller) == ["Yes.", "I am putting you through.", "One moment, please.", "eve here"]
        # The AI answers nobody.
        texts = [event.text for event in await desk.kit.events(room) if event.type == "message"]
        assert texts == ["I want my money back", "Yes.", "hello, anybody", "eve here", "at last"], (
            "the AI answers nobody"
        )


async def test_a_key_cuts_the_briefing_short() -> None:
    desk = Desk()
    async with desk.kit:
        _, room = await desk.begin()
        eve = desk.colleague()

        async def press() -> None:
            await asyncio.sleep(1.5)
            desk.phone._calls[eve.id].hearing.noticed(DtmfDigit("1"))

        pressing = asyncio.create_task(press())
        began = asyncio.get_running_loop().time()
        assert await warm_transfer(desk.kit, desk.phone, room, eve, who="eve", summary="A long story. " * 30)
        assert asyncio.get_running_loop().time() - began < 2
        await pressing


async def test_a_colleague_who_hangs_up_leaves_the_caller_in_the_queue() -> None:
    desk = Desk()
    async with desk.kit:
        _, room = await desk.begin()
        eve = desk.colleague()

        async def leave() -> None:
            await asyncio.sleep(1.5)
            desk.line.disconnects(eve)

        leaving = asyncio.create_task(leave())
        assert not await warm_transfer(desk.kit, desk.phone, room, eve, who="eve")
        await leaving
        assert [one.id for one in await desk.kit.attention()] == [room]
        assert (await desk.kit.get_room(room)).floor.mode == "ai"


async def test_a_colleague_whom_the_room_does_not_take_leaves_the_caller_in_the_queue() -> None:
    desk = Desk()
    async with desk.kit:
        _, room = await desk.begin()
        await desk.kit.add_member(room, "eve")
        await desk.kit.remove_member(room, "eve", ban=True)
        with pytest.raises(StateError, match="source_banned"):
            await warm_transfer(desk.kit, desk.phone, room, desk.colleague(), who="eve")
        assert [one.id for one in await desk.kit.attention()] == [room]
        assert (await desk.kit.get_room(room)).floor.mode == "ai"


async def test_what_was_blocked_is_not_told_in_the_briefing() -> None:
    desk = Desk()

    @desk.kit.before(BeforeCommit)
    async def polite(moment: Any) -> Any:
        return Block("rude") if "idiot" in moment.value.text else None

    async with desk.kit:
        caller, room = await desk.begin()
        desk.line.speaks(caller, "you idiot", 8_000, 500)
        await asyncio.sleep(4)
        assert [e.text for e in await desk.kit.events(room) if e.blocked] == ["you idiot"]
        eve = desk.colleague()
        assert await warm_transfer(desk.kit, desk.phone, room, eve, who="eve")
        assert desk.heard(eve)[:2] == [
            "A caller for you. a refund above the limit.",
            "The last they said: I want my money back",
        ]


async def test_nobody_hears_anything_of_a_transfer_that_cannot_be() -> None:
    desk = Desk()
    async with desk.kit:
        caller, room = await desk.begin()
        await desk.kit.take_over(room, "bob")
        with pytest.raises(FloorTaken):
            await warm_transfer(desk.kit, desk.phone, room, desk.colleague(), who="eve")
        await asyncio.sleep(3)
        assert desk.heard(caller) == ["Yes."]
