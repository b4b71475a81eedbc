"""What is told of a call: every notice once, at its time, with what it says; and the channel's smaller options."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roomkit import RoomKit
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.errors import ConfigError, RoomKitError, SessionEnded, StateError
from roomkit.models import voice as told
from roomkit.models.audio import AudioFrame, AudioSignal, SessionState, SilenceLasted, SpeakerChanged, VoiceSession
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.voice.interruption import Interruption, Strategy
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.turn import TurnOptions

ANSWER = "This is the first sentence of an answer. And this is the second one, which is longer than the first."
QUIET = VoiceOptions(filler=None, reprompt=None)


class Tells:
    """A stage that notices somebody's silence and a speaker in the frames that it is told to."""

    name = "tells"

    def __init__(self, _rate: int) -> None:
        self._frames = 0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        self._frames += 1
        at = {10: SilenceLasted(1_000.0), 20: SpeakerChanged("speaker-2", frame.position, 0.75)}.get(self._frames)
        return frame, (at,) if at is not None else ()

    def reset(self) -> None: ...


class Voices(ScriptedTTS):
    """Notes in which voice it spoke."""

    def __init__(self) -> None:
        super().__init__()
        self.voices: list[str | None] = []

    def speak(self, text: Any, *, voice: str | None = None, language: str | None = None) -> Any:
        self.voices.append(voice)
        return super().speak(text, voice=voice, language=language)


class Phone:
    """A kit, a line and everything that is told of it."""

    def __init__(self, answer: str = ANSWER, *, takes_s: float = 0.0, **options: Any) -> None:
        self.line, self.tts = ScriptedBackend(), Voices()
        self.seen: list[Any] = []
        pipeline = options.pop("pipeline", AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None))
        options = {"options": QUIET, **options}
        self.channel = VoiceChannel(
            "phone", stt=ScriptedSTT(self.line), tts=self.tts, backend=self.line, pipeline=pipeline, **options
        )
        self.kit = RoomKit()
        self.kit.register_channel(self.channel)

        @self.kit.on_message
        async def reply(_ctx: Any, _message: Any) -> str:
            await asyncio.sleep(takes_s)
            return answer

        for kind in told.CallNotice.__subclasses__():
            self.kit.on(kind)(self.seen.append)

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kinds)]

    async def talk(self, seconds: float, *said: tuple[str, float, float]) -> VoiceSession:
        session = self.line.call()
        for text, at_ms, for_ms in said:
            self.line.speaks(session, text, at_ms, for_ms)
        await self.channel.answer(session)
        await asyncio.sleep(seconds)
        return session


async def test_a_turn_is_told_from_its_first_sound_to_its_last_and_timed() -> None:
    phone = Phone()
    async with phone.kit:
        session = await phone.talk(12, ("tell me of it", 1_000, 800))
        phone.line.disconnects(session)
        await asyncio.sleep(1)
    kinds = [type(one) for one in phone.seen if not isinstance(one, told.PartialTranscript | told.LevelHeard)]
    assert kinds == [
        told.SessionStarted,
        told.SpeechStart,
        told.SpeechEnd,
        told.TurnTaken,
        told.TurnTimes,
        told.AfterTTS,
        told.SessionFinished,
    ]
    began, ended = phone.of(told.SpeechStart, told.SpeechEnd)
    assert 1_000 <= began.at_ms <= 1_100
    assert ended.duration_ms == pytest.approx(800, abs=80)
    partials = [one.text for one in phone.of(told.PartialTranscript)]
    assert partials == ["tell", "tell me", "tell me of", "tell me of it"]
    (turn,) = phone.of(told.TurnTaken)
    assert (turn.text, turn.complete) == ("tell me of it", True)
    (spoken,) = phone.of(told.AfterTTS)
    assert spoken.text == ANSWER
    (times,) = phone.of(told.TurnTimes)
    stages = (times.transcript_ms, times.decided_ms, times.first_token_ms, times.first_sentence_ms)
    assert times.turn == 1
    assert all(a <= b for a, b in zip(stages, (*stages[1:], times.tts_first_byte_ms), strict=True))
    assert 100 <= times.transcript_ms <= 140
    assert times.tts_first_byte_ms <= times.first_audio_ms <= 400
    assert phone.of(told.SessionFinished)[0].reason == "hung_up"
    assert all(one.session is session and one.room_id == session.room_id for one in phone.seen)


async def test_an_interruption_tells_what_was_heard_and_a_silenced_reply_why() -> None:
    phone = Phone()
    async with phone.kit:
        session = await phone.talk(9, ("tell me of it", 500, 600), ("stop that", 4_000, 600))
        (barge,), (cut,) = phone.of(told.BargeIn), phone.of(told.TTSCancelled)
        assert ANSWER.startswith(barge.heard)
        assert 0 < barge.share < 1
        assert (cut.reason, cut.heard, cut.share) == ("barge_in", barge.heard, barge.share)
        assert [one.text for one in phone.of(told.AfterTTS)] == []
        await phone.channel.interrupt(session)
        await asyncio.sleep(0.1)
        assert [one.reason for one in phone.of(told.TTSCancelled)] == ["barge_in", "explicit"]
        assert len(phone.of(told.BargeIn)) == 1, "nobody barged in"


async def test_a_backchannel_is_told_and_interrupts_nothing() -> None:
    phone = Phone(interruption=Interruption(Strategy.SEMANTIC))
    async with phone.kit:
        await phone.talk(14, ("tell me of it", 500, 600), ("uh-huh", 4_000, 400))
        assert [one.text for one in phone.of(told.BackchannelHeard)] == ["uh-huh"]
        assert phone.of(told.BargeIn, told.TTSCancelled) == []
        assert [one.text for one in phone.of(told.AfterTTS)] == [ANSWER]


async def test_an_unfinished_turn_is_told_before_the_whole_one() -> None:
    phone = Phone()
    async with phone.kit:
        await phone.talk(10, ("my name is", 500, 600), ("Ada", 2_000, 400))
        turns = [(one.text, one.complete) for one in phone.of(told.TurnTaken)]
        assert turns == [("my name is", False), ("my name is Ada", True)]


async def test_keys_silence_speakers_and_loudness_are_told() -> None:
    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None, diarization=Tells)
    phone = Phone(pipeline=pipeline, options=VoiceOptions(filler=None, reprompt=None, human_key=None))
    async with phone.kit:
        session = await phone.talk(1)
        phone.line.presses(session, "7")
        await asyncio.sleep(0.1)
        assert [one.digit for one in phone.of(told.DTMFPressed)] == ["7"]
        assert [one.duration_ms for one in phone.of(told.SilenceHeard)] == [1_000.0]
        assert [(one.speaker_id, one.score) for one in phone.of(told.SpeakerChange)] == [("speaker-2", 0.75)]
        assert {one.direction for one in phone.of(told.LevelHeard)} == {"inbound"}
        assert 8 <= len(phone.of(told.LevelHeard)) <= 12


async def test_each_channel_speaks_in_its_voice_and_a_merged_one_from_the_next_sentence_on() -> None:
    phone = Phone(voice_map={"app": "eve"})
    async with phone.kit:
        session = await phone.talk(12, ("tell me of it", 500, 600))
        assert set(phone.tts.voices) == {"eve"}
        phone.channel.update_voice_map({"app": "bob"})
        await phone.channel.say(session, "The channel's own words.")
        await asyncio.sleep(3)
        assert phone.tts.voices[-1] == "bob", "the channel's own words are in the voice of whoever answered last"
        phone.tts.voices.clear()
        phone.line.speaks(session, "and again", 16_000, 500)
        await asyncio.sleep(12)
        assert set(phone.tts.voices) == {"bob"}


async def test_a_filter_changes_what_is_spoken_and_not_what_is_remembered() -> None:
    phone = Phone("Call **0800 123** now. It is free.", tts_filter=lambda text: text.replace("**", ""))
    async with phone.kit:
        session = await phone.talk(8, ("how", 500, 400))
        assert "".join(phone.tts.said) == "Call 0800 123 now. It is free."
        events = [event.text for event in await phone.kit.events(session.room_id) if event.type == "message"]
        assert events == ["how", "Call **0800 123** now. It is free."]


async def test_no_more_frames_a_second_are_heard_than_are_wanted() -> None:
    heard: list[AudioFrame] = []

    class Counts(ScriptedVad):
        def process(self, frame: AudioFrame) -> Any:
            heard.append(frame)
            return super().process(frame)

    pipeline = AudioPipelineConfig(vad=Counts, dtmf=None, limiter=None)
    phone = Phone(max_audio_frames_per_second=10, pipeline=pipeline)
    async with phone.kit:
        await phone.talk(5.5)
        assert 50 <= len(heard) <= 60


async def test_a_trace_has_the_effects_of_the_kinds_that_were_asked_for() -> None:
    phone = Phone()
    turns, both = list[dict[str, Any]](), list[dict[str, Any]]()
    phone.channel.on_trace(turns.append, protocols=("turn",))
    phone.channel.on_trace(both.append)
    async with phone.kit:
        session = await phone.talk(8, ("how", 500, 400))
        phone.line.presses(session, "5")
        await asyncio.sleep(0.5)
    assert {line["protocol"] for line in turns} == {"turn"}
    assert {line["protocol"] for line in both} == {"turn", "transport"}
    assert len(both) > len(turns) > 0


def test_parts_go_by_name() -> None:
    channel = VoiceChannel("web", stt="sphinx", tts="espeak", backend="webaudio")
    assert type(channel.backend).__name__ == "WebAudioBackend"
    with pytest.raises(ConfigError, match='"deepgram" has nothing for audio'):
        VoiceChannel("web", backend="deepgram")


def test_a_telephone_goes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + 32 * "0")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    channel = VoiceChannel("phone", backend="twilio")
    assert channel.backend is not None
    assert (channel.backend.traits.rate, channel.backend.traits.marks) == (8_000, True)


async def test_who_gets_no_answer_is_told_so() -> None:
    late = TurnOptions(thinking_ms=2_000, reprompt_ms=None)
    options = VoiceOptions(filler=None, reprompt=None, apology="Nobody answers.", turns=late)
    phone = Phone("Too late.", takes_s=60, options=options)
    async with phone.kit:
        await phone.talk(6, ("hello", 500, 400))
        assert phone.tts.said == ["Nobody answers."]


async def test_ten_are_mixed_and_the_eleventh_is_told_however_they_come() -> None:
    phone = Phone()
    async with phone.kit:
        room = await phone.kit.create_room()
        sessions = [phone.line.call(f"call-{number}", participant_id=f"p{number}") for number in range(12)]
        came = await asyncio.gather(
            *(phone.channel.answer(session, room_id=room.id) for session in sessions), return_exceptions=True
        )
        refused = [str(one) for one in came if isinstance(one, StateError)]
        assert len(refused) == 2, came
        assert all("10 callers" in one for one in refused)
        assert len(phone.channel.sessions(room.id)) == 10
        monitor = phone.line.call("boss", participant_id="boss")
        monitor.listen_only = True
        await phone.channel.answer(monitor, room_id=room.id)
        assert len(phone.channel.sessions(room.id)) == 11


async def test_a_call_for_a_room_that_is_not_there_leaves_nothing_behind() -> None:
    phone = Phone()
    async with phone.kit:
        session = phone.line.call()
        with pytest.raises(RoomKitError):
            await phone.channel.answer(session, room_id="nowhere")
        assert phone.channel.sessions() == []
        binding = (await phone.kit.bindings((await phone.kit.create_room()).id))[:1]
        with pytest.raises(RoomKitError):
            await phone.channel.connect_session(session, "nowhere", *binding)
        await asyncio.sleep(1)
        assert phone.channel.sessions() == []
        assert session.state is SessionState.ENDED
        with pytest.raises(SessionEnded):
            await phone.line.send_audio(session, AudioFrame(bytes(640), 16_000))
