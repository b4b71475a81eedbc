"""No dead air: a filler, a reprompt, a clip when the voice fails, a key that calls a person; on a scripted line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from roomkit import AudioPipelineConfig, KitOptions, RoomKit, VoiceChannel
from roomkit.channels.voice import VoiceOptions
from roomkit.core.courtesy import Courtesy
from roomkit.dsp.pcm import dbfs
from roomkit.errors import ProviderError
from roomkit.models.audio import SpokenText, VoiceSession
from roomkit.testing.calls import FRAME, RATE, ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.voice.courtesy import clip_or_tones, falling_notes

PIPELINE = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)


class Shop:
    """A kit whose answers take `think_s`, and one caller."""

    def __init__(self, *, think_s: float = 0.0, tts: Any = None, kit: RoomKit | None = None, **options: Any) -> None:
        self.line = ScriptedBackend()
        self.tts: Any = tts or ScriptedTTS()
        self.kit = kit or RoomKit()
        self.phone = VoiceChannel(
            "phone",
            stt=ScriptedSTT(self.line),
            tts=self.tts,
            backend=self.line,
            pipeline=PIPELINE,
            options=VoiceOptions(**options),
        )
        self.kit.register_channel(self.phone)

        @self.kit.on_message
        async def reply(ctx: Any, message: Any) -> str:
            await asyncio.sleep(think_s)
            return "It is on its way to you now."

    async def call(self, *, asks: bool = False, room: str | None = None) -> tuple[VoiceSession, str]:
        session = self.line.call()
        if asks:
            self.line.speaks(session, "where is my order", 200, 1000)
        return session, await self.phone.answer(session, room_id=room)


@pytest.mark.parametrize(
    "language, words",
    [("en", "One moment"), ("de-AT", "Einen Moment"), ("fr", "Un instant"), ("es", "Un momento"), ("fi", "One moment")],
)
async def test_an_answer_that_is_late_is_announced_in_the_language_of_the_call(language: str, words: str) -> None:
    shop = Shop(think_s=6, language=language)
    async with shop.kit:
        session, _ = await shop.call(asks=True)
        await asyncio.sleep(12)
        assert shop.tts.said[0].startswith(words)
        filler, answer = shop.line.heard(session)
        # Speech ends at 1,200 ms, is known to 500 ms later, transcribed after 100 more; 2,000 ms of silence are enough.
        assert 3_800 <= filler.start_ms <= 4_000
        assert answer.start_ms >= 7_800
        assert len(shop.tts.said) == 2


async def test_a_quick_answer_needs_no_filler_and_none_means_none() -> None:
    for options in ({"think_s": 1.5}, {"think_s": 6, "filler": None}):
        shop = Shop(**options)
        async with shop.kit:
            await shop.call(asks=True)
            await asyncio.sleep(10)
            assert shop.tts.said == ["It is on its way to you now."]


async def test_a_silent_caller_is_asked_twice_in_the_language_of_the_room() -> None:
    shop = Shop()
    async with shop.kit:
        room = await shop.kit.create_room(language="de", channels=["phone"])
        session, _ = await shop.call(room=room.id)
        await asyncio.sleep(120)
        assert shop.tts.said == ["Sind Sie noch da?"] * 2
        assert 10_000 <= shop.line.heard(session)[0].start_ms <= 10_300


async def test_nobody_is_asked_who_talks_to_a_person_or_waits_for_one() -> None:
    for waits in (False, True):
        shop = Shop()
        async with shop.kit:
            _, room = await shop.call()
            if waits:
                await shop.kit.request_human(room, "the payment failed")
            else:
                await shop.kit.take_over(room, "eve", lease_s=600)
            await asyncio.sleep(60)
            assert shop.tts.said == []
            if waits:
                await shop.kit.clear_attention(room)
            else:
                await shop.kit.release(room, "eve")
            shop.line.speaks(next(iter(shop.phone.sessions())), "hello", 61_000, 500)
            await asyncio.sleep(60)
            assert shop.tts.said[-1] == "Are you still there?"


class Breaks(ScriptedTTS):
    """Makes `after` frames of each utterance, and gives up."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    async def speak(self, text: AsyncIterator[str], **more: Any) -> AsyncIterator[SpokenText]:
        left = self._after
        async for piece in super().speak(text, **more):
            if not left:
                raise ProviderError("test", "the voice has gone")
            left -= 1
            yield piece


@pytest.mark.parametrize("after, remembered", [(0, []), (75, ["It is on its way to"])])
async def test_a_voice_that_fails_gives_way_to_a_sound_and_the_room_knows_what_was_said(
    after: int, remembered: list[str]
) -> None:
    shop = Shop(tts=Breaks(after))
    async with shop.kit:
        session, room = await shop.call(asks=True)
        await asyncio.sleep(6)
        played = shop.line.heard(session)
        clip_ms = len(falling_notes(RATE)) / 2 / RATE * 1000
        spoken_ms = sum(p.end_ms - p.start_ms for p in played if p.value == 1001)
        assert spoken_ms == pytest.approx(after * 20)
        assert sum(p.end_ms - p.start_ms for p in played) - spoken_ms == pytest.approx(clip_ms, abs=20)
        texts = [event.text for event in await shop.kit.events(room) if event.type == "message"]
        told = [text for text in texts[1:] if text and not text.startswith("[")]
        assert [text[: len(want)] for text, want in zip(told, remembered, strict=True)] == remembered
        assert "It is on its way to you now." not in told
        # The line is free: the next question is heard.
        shop.line.speaks(session, "and now", 6_500, 500)
        await asyncio.sleep(4)
        assert any(event.text == "and now" for event in await shop.kit.events(room))


async def test_a_clip_of_ones_own_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    import wave

    own = tmp_path / "sorry.wav"
    with wave.open(str(own), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\x10\x20" * 8_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF of nothing")
    frames = [frame async for frame in clip_or_tones(own, RATE)]
    assert len(frames) == 50
    assert {(frame.rate, frame.samples) for frame in frames} == {(RATE, FRAME)}
    for broken in (tmp_path / "broken.wav", tmp_path / "none.wav"):
        sound = b"".join([frame.pcm async for frame in clip_or_tones(broken, RATE)])
        assert sound.startswith(falling_notes(RATE))
    assert -30 < dbfs(falling_notes(RATE))[0] < -10


async def press(shop: Shop, session: VoiceSession, *keys: tuple[str, float]) -> None:
    for key, after in keys:
        shop.line.presses(session, key)
        await asyncio.sleep(after)


@pytest.mark.parametrize("staffed, words", [(True, "A person has been asked"), (False, "Nobody is here right now")])
async def test_zero_by_itself_calls_a_person(staffed: bool, words: str) -> None:
    kit = RoomKit(options=KitOptions(courtesy=Courtesy(staffed=lambda _: staffed)))
    shop = Shop(kit=kit)
    async with kit:
        session, room = await shop.call()
        await press(shop, session, ("0", 3))
        (waiting,) = await kit.attention()
        assert waiting.id == room
        assert waiting.attention is not None
        assert waiting.attention.reason == "the caller pressed 0"
        assert shop.tts.said[0].startswith(words)


async def test_zero_within_a_number_calls_nobody() -> None:
    shop = Shop()
    async with shop.kit:
        session, _ = await shop.call()
        await press(shop, session, ("1", 0.4), ("0", 3), ("0", 0.4), ("4", 3))
        assert await shop.kit.attention() == []
    nobody = Shop(human_key=None)
    async with nobody.kit:
        session, _ = await nobody.call()
        await press(nobody, session, ("0", 3))
        assert await nobody.kit.attention() == []


async def test_a_call_that_was_cut_off_is_welcomed_back() -> None:
    shop = Shop(greeting="Welcome.")
    async with shop.kit:
        session, _ = await shop.call()
        await asyncio.sleep(2)
        shop.line.disconnects(session)
        await asyncio.sleep(1)
        again = shop.line.call("call-2")
        again.metadata["again"] = True
        await shop.phone.answer(again)
        await asyncio.sleep(5)
        assert shop.tts.said == ["Welcome.", "We were cut off. I am back: where were we?"]
