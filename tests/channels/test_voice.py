"""VoiceChannel on a scripted line under virtual time: what the caller hears, when, and what the room remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomkit import RoomKit
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.errors import ConfigError, RoomKitError, SessionEnded, StateError, UsageError
from roomkit.models import voice as told
from roomkit.models.audio import AudioFrame, SessionState, VoiceSession
from roomkit.models.hooks import BeforeCommit, Block, Modify
from roomkit.models.room import Assurance
from roomkit.ports.speech import TurnVerdict
from roomkit.testing import FakeChannel
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.loop import run
from roomkit.voice.interruption import Interruption, Strategy
from roomkit.voice.pipeline import AudioPipelineConfig

LONG = (
    "That is a long story, and it begins in a small town. Nobody there had ever seen the sea. Then one day it rained."
)
PIPELINE = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None)


class Phone:
    """A kit with one voice channel, and one caller."""

    def __init__(self, **options: Any) -> None:
        self.line = ScriptedBackend()
        self.tts = ScriptedTTS()
        self.answers: list[str] = []
        self.kit = RoomKit()
        options = {"pipeline": PIPELINE, "stt": ScriptedSTT(self.line), **options}
        self.channel = VoiceChannel("phone", tts=self.tts, backend=self.line, **options)
        self.room = ""

        @self.kit.on_message
        async def reply(ctx: Any, message: Any) -> str:
            self.answers.append(message.text)
            return LONG

    async def __aenter__(self) -> Self:
        await self.kit.start()
        self.kit.register_channel(self.channel)
        self.session = self.line.call()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kit.aclose()

    async def answer(self) -> VoiceSession:
        self.room = await self.channel.answer(self.session)
        return self.session

    def notices(self, *kinds: type[Any]) -> list[Any]:
        seen: list[Any] = []
        for kind in kinds:

            async def note(notice: Any) -> None:
                seen.append(notice)

            self.kit.on(kind)(note)
        return seen

    async def said(self) -> list[tuple[str, str]]:
        events = await self.kit.events(self.room)
        return [(event.source.channel_id, event.text) for event in events if event.type == "message"]


async def test_a_question_is_answered_by_voice_and_both_stand_in_the_room() -> None:
    async with Phone() as phone:
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        await phone.answer()
        await asyncio.sleep(15)
        assert await phone.said() == [("phone", "tell me a story"), ("app", LONG)]
        spoken = phone.line.heard(phone.session)
        assert "".join(phone.tts.said) == LONG
        assert [played.value for played in spoken] == [1001, 1002, 1003]
        # Speech ends at 1,200 ms; 500 of silence, 100 each for transcript and first sound, a frame more or less.
        assert 1860 <= spoken[0].start_ms <= 1940


async def test_what_was_not_heard_is_not_remembered() -> None:
    async with Phone() as phone:
        barges = phone.notices(told.BargeIn)
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        phone.line.speaks(phone.session, "wait", 5000, 600)
        await phone.answer()
        await asyncio.sleep(20)
        spoken = phone.line.heard(phone.session)
        first = [played for played in spoken if played.end_ms < 6000]
        # Speech is noticed after 60 ms; silence follows within a frame of that.
        assert 5040 <= first[-1].end_ms <= 5100
        said = await phone.said()
        assert said[0] == ("phone", "tell me a story")
        heard = said[1][1]
        assert said[2] == ("phone", "wait")
        assert LONG.startswith(heard)
        assert heard != LONG
        in_ms = sum(played.end_ms - played.start_ms for played in first)
        assert abs(len(heard) - in_ms / 1000 * 15) <= 12, "the log is off by more than a word"
        assert [barge.heard for barge in barges] == [heard]


async def test_a_cough_pauses_and_the_reply_goes_on_where_it_stopped() -> None:
    rule = Interruption(Strategy.CONFIRMED, min_speech_ms=900)
    async with Phone(interruption=rule) as phone:
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        phone.line.speaks(phone.session, "", 5000, 200)
        await phone.answer()
        await asyncio.sleep(20)
        assert (await phone.said())[1] == ("app", LONG)
        spoken = phone.line.heard(phone.session)
        whole = sum(played.end_ms - played.start_ms for played in spoken)
        assert whole == pytest.approx(len(LONG) / 15 * 1000, abs=120), "some of it was lost or said twice"
        gaps = [b.start_ms - a.end_ms for a, b in pairwise(spoken)]
        assert max(gaps) >= 500, "it did not pause"


async def test_disabled_barge_in_hears_the_caller_afterwards() -> None:
    async with Phone(enable_barge_in=False) as phone:
        phone.line.speaks(phone.session, "one", 200, 600)
        phone.line.speaks(phone.session, "two", 4000, 600)
        await phone.answer()
        await asyncio.sleep(25)
        assert await phone.said() == [("phone", "one"), ("app", LONG), ("phone", "two"), ("app", LONG)]


async def test_who_is_not_taken_hears_that_and_is_hung_up() -> None:
    async with Phone() as phone:

        @phone.kit.before(BeforeCommit)
        async def closed(moment: BeforeCommit) -> Any:
            return Block("after hours")

        with pytest.raises(StateError, match="after hours"):
            await phone.answer()
        assert phone.session.refused
        assert sum(one.end_ms - one.start_ms for one in phone.line.heard(phone.session)) > 500
        with pytest.raises(SessionEnded):
            await phone.line.send_audio(phone.session, AudioFrame(bytes(320), 8_000))
        assert phone.channel.sessions() == []


async def test_a_room_that_is_not_there_and_a_host_that_gives_up_leave_no_call_open() -> None:
    async with Phone() as phone:
        with pytest.raises(RoomKitError):
            await phone.channel.answer(phone.session, room_id="nowhere")
        assert phone.line.heard(phone.session), "a caller is left in silence"
        other = phone.line.call("call-2")
        waiting = asyncio.create_task(phone.channel.answer(other, briefing=LONG))
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(SessionEnded):
            await phone.line.send_audio(other, AudioFrame(bytes(320), 8_000))
        await phone.kit.create_room("there", channels=[phone.channel.channel_id])
        third, seat = phone.line.call("call-3"), (await phone.kit.bindings("there"))[0]
        with pytest.raises(RoomKitError):
            await phone.channel.connect_session(third, "nowhere", seat)
        assert phone.line.heard(third), "whichever way a call comes, nobody is left in silence"
        with pytest.raises(SessionEnded):
            await phone.line.send_audio(third, AudioFrame(bytes(320), 8_000))


async def test_a_person_who_takes_the_floor_is_not_talked_over() -> None:
    async with Phone() as phone:
        session = await phone.answer()
        phone.line.speaks(session, "tell me a story", 100, 600)
        await asyncio.sleep(4)
        assert phone.line.heard(session), "no story is told"
        await phone.kit.take_over(phone.room, "ann")
        await asyncio.sleep(0.1)
        until = phone.line.heard(session)[-1].end_ms
        await phone.channel.say(session, "This is Ann.")
        await phone.kit.take_over(phone.room, "ann")
        await asyncio.sleep(4)
        (after,) = [one for one in phone.line.heard(session) if one.start_ms > until]
        assert after.end_ms - after.start_ms > 300, "who has the floor already interrupts themselves"
        (story,) = [text for by, text in await phone.said() if by != "phone"]
        assert LONG.startswith(story)
        assert story != LONG


async def test_guards_change_and_withhold_transcripts_and_sentences() -> None:
    async with Phone() as phone:

        @phone.kit.before(told.FinalTranscript)
        async def no_cards(moment: told.FinalTranscript) -> Any:
            if "card" in moment.value.text:
                return Block("card number")
            return Modify(moment.value.__class__(moment.value.text.upper()))

        @phone.kit.before(told.BeforeTTS)
        async def no_sea(moment: told.BeforeTTS) -> Any:
            return Block("no sea") if "sea" in moment.value else None

        phone.line.speaks(phone.session, "my card is secret", 200, 800)
        phone.line.speaks(phone.session, "tell me", 4000, 800)
        await phone.answer()
        await asyncio.sleep(20)
        assert phone.answers == ["TELL ME"]
        assert not any("sea" in sentence for sentence in phone.tts.said)
        assert any("small town" in sentence for sentence in phone.tts.said)


async def test_people_of_other_channels_are_heard_when_the_caller_has_finished() -> None:
    async with Phone() as phone:
        phone.line.speaks(phone.session, "a long sentence", 100, 3000)
        await phone.answer()
        await asyncio.sleep(1)
        await phone.kit.set_floor(phone.room, "none")
        await phone.kit.send(phone.room, "Anna here, one moment.", by="anna")
        await asyncio.sleep(12)
        spoken = phone.line.heard(phone.session)
        assert phone.tts.said == ["Anna here, one moment."]
        assert spoken[0].start_ms > 3600


async def test_greeting_say_play_interrupt_and_waiting() -> None:
    async with Phone(options=VoiceOptions(greeting="Welcome to the small shop.")) as phone:
        session = await phone.answer()
        await asyncio.sleep(0.3)
        await phone.channel.wait_playback_done(phone.room)
        assert phone.tts.said == ["Welcome to the small shop."]
        await asyncio.sleep(1)
        await phone.channel.say(session, "This will be cut off, because somebody presses a button.")
        await asyncio.sleep(1)
        assert await phone.channel.interrupt_all(phone.room) == 1
        assert await phone.channel.interrupt(session) is False
        await phone.channel.wait_playback_done(phone.room)
        await phone.channel.send_dtmf(session, "1#", duration_ms=100)
        await asyncio.sleep(1)
        with pytest.raises(UsageError, match="keys"):
            await phone.channel.send_dtmf(session, "x")
        assert (await phone.kit.events(phone.room))[-1].type == "system"


async def test_mute_closes_the_line_at_once_and_silence_of_output_stops_the_voice() -> None:
    async with Phone() as phone:
        phone.line.speaks(phone.session, "not heard", 1000, 800)
        phone.line.speaks(phone.session, "tell me a story", 6000, 800)
        await phone.answer()
        await phone.kit.mute(phone.room, "phone")
        await asyncio.sleep(5)
        assert phone.answers == []
        await phone.kit.unmute(phone.room, "phone")
        await asyncio.sleep(5)
        assert phone.answers == ["tell me a story"]


async def test_a_call_ends_once_with_its_state_and_nothing_left() -> None:
    async with Phone() as phone:
        ends = phone.notices(told.SessionStarted, told.SessionFinished)
        session = await phone.answer()
        await asyncio.sleep(1)
        phone.line.disconnects(session)
        await asyncio.sleep(1)
        assert session.state is SessionState.ENDED
        await phone.channel.disconnect_session(session, phone.room)
        assert [type(end) for end in ends] == [told.SessionStarted, told.SessionFinished]
        assert phone.channel.sessions() == []


async def test_what_is_said_to_the_caller_alone_is_shown_to_nobody_else() -> None:
    """Nor are the words of a caller whose seat is for colleagues only, while they are being said."""
    async with Phone() as phone:
        phone.kit.register_channel(FakeChannel("web", "web"))
        await phone.answer()
        await phone.kit.attach_channel(phone.room, "web")
        seen: dict[str, list[Any]] = {"web": [], "phone": []}
        for channel_id, shown in seen.items():
            await phone.kit.open_view(phone.room, channel_id, shown.append)
        await phone.kit.whisper(phone.room, "your code is 4711", to="phone", by="eve")
        await asyncio.sleep(5)
        assert "4711" in "".join(phone.tts.said)
        await phone.kit.set_visibility(phone.room, "phone", "internal")
        phone.line.speaks(phone.session, "mine is 0815", 6_000, 600)
        await asyncio.sleep(8)
        assert "mine is 0815" in [e.text for e in await phone.kit.events(phone.room)]
        assert any(getattr(one, "kind", "") == "voice_spoken" for one in seen["phone"])
        assert seen["web"]
        assert "4711" not in str(seen["web"])
        assert "0815" not in str(seen["web"])


@pytest.mark.parametrize("how", ["removed", "banned", "banned by hand"])
async def test_who_is_put_out_hears_nothing_more(how: str) -> None:
    async with Phone() as phone:
        session = await phone.answer()
        if how == "banned by hand":
            await phone.kit.update_member(phone.room, session.participant_id, status="banned")
        else:
            await phone.kit.remove_member(phone.room, session.participant_id, ban=how == "banned")
        await phone.kit.send(phone.room, "a secret of ours")
        await asyncio.sleep(5)
        assert session.state is SessionState.ENDED
        assert phone.tts.said == []


async def test_when_the_room_closes_what_is_being_said_is_heard_and_the_call_ends() -> None:
    async with Phone() as phone:
        session = await phone.answer()
        await phone.channel.say(session, "Thank you for your call, and good bye.")
        await asyncio.sleep(0.5)
        await phone.kit.close_room(phone.room)
        await asyncio.sleep(1)
        assert session.state is SessionState.ACTIVE
        await asyncio.sleep(15)
        assert session.state is SessionState.ENDED
        (spoken,) = phone.line.heard(session)
        assert spoken.end_ms - spoken.start_ms > 2_000


async def test_a_far_end_that_leaves_before_it_is_bound_leaves_nothing() -> None:
    async with Phone() as phone:
        phone.line.disconnects(phone.session)
        await phone.channel.disconnect_session(phone.session, "")
        phone.channel.bind_session(phone.session, "")
        await asyncio.sleep(1)
        assert phone.channel.sessions() == []


async def test_two_callers_in_two_rooms_do_not_hear_each_other() -> None:
    async with Phone() as phone:
        other = phone.line.call("call-2", participant_id="other")
        phone.line.speaks(phone.session, "first", 200, 600)
        phone.line.speaks(other, "second", 400, 600)
        room = await phone.answer()
        second = await phone.channel.answer(other)
        assert room is not None
        assert second != phone.room
        await asyncio.sleep(15)
        assert sorted(phone.answers) == ["first", "second"]
        values = [{p.value for p in phone.line.heard(s)} for s in (phone.session, other)]
        assert not values[0] & values[1]


async def test_batch_mode_waits_for_the_caller_of_flush() -> None:
    quiet = AudioPipelineConfig(vad=None, dtmf=None, limiter=None)
    async with Phone(pipeline=quiet, batch_mode=True) as phone:
        phone.line.speaks(phone.session, "dictated text", 100, 900)
        session = await phone.answer()
        await asyncio.sleep(3)
        assert phone.answers == []
        assert await phone.channel.flush_stt(session) == "dictated text"
        assert await phone.channel.flush_stt(session) == ""


def test_batch_mode_with_a_vad_or_without_a_recogniser_is_refused() -> None:
    line = ScriptedBackend()
    with pytest.raises(ConfigError, match="vad=None"):
        VoiceChannel("phone", stt=ScriptedSTT(line), batch_mode=True, pipeline=PIPELINE)
    with pytest.raises(ConfigError, match="stt"):
        VoiceChannel("phone", batch_mode=True)


INTERRUPTIONS = st.lists(
    st.tuples(st.integers(1800, 14_000), st.integers(60, 1500), st.sampled_from(["stop", "uh-huh", "", "and then"])),
    max_size=4,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategy=st.sampled_from(list(Strategy)), barges=INTERRUPTIONS)
def test_any_interruption_leaves_one_voice_a_true_log_and_a_free_line(
    strategy: Strategy, barges: list[tuple[int, int, str]]
) -> None:
    async def story() -> None:
        async with Phone(interruption=Interruption(strategy)) as phone:
            phone.line.speaks(phone.session, "tell me a story", 200, 1000)
            for at_ms, for_ms, text in barges:
                phone.line.speaks(phone.session, text, at_ms, for_ms)
            await phone.answer()
            await asyncio.sleep(60)
            spoken = phone.line.heard(phone.session)
            assert all(a.end_ms <= b.start_ms + 0.1 for a, b in pairwise(spoken))
            order = [played.value for played in spoken]
            assert order == sorted(order), "an older utterance sounded after a newer one"
            for _, text in [pair for pair in await phone.said() if pair[0] == "app"]:
                assert LONG.startswith(text)
            call = next(iter(phone.channel._calls.values()))
            assert call.machine.free

    run(story())


async def test_callers_of_one_room_hear_each_other_and_never_themselves() -> None:
    async with Phone() as phone:
        anna, ben, monitor = phone.session, phone.line.call("call-2", participant_id="ben"), phone.line.call("call-3")
        monitor.participant_id, monitor.listen_only = "boss", True
        for session, text, at_ms in ((anna, "from anna", 2000), (ben, "from ben", 5000), (monitor, "a slip", 8000)):
            phone.line.speaks(session, text, at_ms, 500)
        room = await phone.channel.answer(anna)
        await phone.kit.set_floor(room, "none")
        await phone.channel.answer(ben, room_id=room)
        await phone.channel.answer(monitor, room_id=room)
        await asyncio.sleep(12)
        words = {
            session.participant_id: {phone.line.text_of(played.value) for played in phone.line.heard(session)} - {""}
            for session in (anna, ben, monitor)
        }
        assert words == {"caller": {"from ben"}, "ben": {"from anna"}, "boss": {"from anna", "from ben"}}
        first = next(p for p in phone.line.heard(ben) if phone.line.text_of(p.value) == "from anna")
        assert 2000 <= first.start_ms <= 2080, "a bridge must not lag"
        texts = [event.text for event in await phone.kit.events(room) if event.type == "message"]
        assert texts == ["from anna", "from ben"], "a monitor has no uplink"


async def test_loudness_is_told_of_both_sides_at_most_ten_times_a_second() -> None:
    async with Phone() as phone:
        levels = phone.notices(told.LevelHeard)
        session = await phone.answer()
        await phone.channel.say(session, "Something that takes about two seconds.")
        await asyncio.sleep(2)
        sides = {side: [one for one in levels if one.direction == side] for side in ("inbound", "outbound")}
        assert 15 <= len(sides["inbound"]) <= 21
        assert 1 <= len(sides["outbound"]) <= 30


async def test_a_detector_that_listens_gets_the_last_sound_of_the_caller() -> None:
    heard: list[tuple[int, int, str]] = []

    class Listens:
        hears_s = 2.0

        async def evaluate_spoken(
            self, pcm: bytes, rate: int, transcript: str, silence_ms: float, history: Sequence[str] = ()
        ) -> TurnVerdict:
            loud = sum(any(pcm[at : at + 2]) for at in range(0, len(pcm), 640))
            heard.append((len(pcm) // 2 * 1000 // rate, loud * 20, transcript))
            return TurnVerdict(complete=len(heard) > 1, wait_ms=100)

    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None, turn_detector=Listens())
    async with Phone(pipeline=pipeline) as phone:
        phone.line.speaks(phone.session, "tell me a story", 1_000, 3_000)
        phone.line.speaks(phone.session, "a short one", 10_000, 400)
        await phone.answer()
        await asyncio.sleep(11.2)
        (first, second) = heard
        # Two seconds that end with 500 ms of silence and the time of the transcript.
        assert first == (2_000, pytest.approx(1_400, abs=40), "tell me a story")
        assert second == (2_000, pytest.approx(400, abs=40), "a short one")


@pytest.mark.parametrize(
    "given, known, expected",
    [(None, None, "claimed"), ("verified", None, "verified"), (None, "authenticated", "authenticated")],
)
async def test_how_well_a_caller_is_known_holds_for_all_they_say(
    given: str | None, known: str | None, expected: str
) -> None:
    async with Phone() as phone:
        seen: list[str] = []
        port = phone.channel.port
        assert port is not None
        inbound = port.process_inbound

        class Listens:
            def __getattr__(self, name: str) -> Any:
                return getattr(port, name)

            async def process_inbound(self, message: Any, *, room_id: str | None = None) -> Any:
                seen.append(message.assurance.value)
                return await inbound(message, room_id=room_id)

        phone.channel.port = Listens()  # type: ignore[assignment]
        phone.line.speaks(phone.session, "tell me a story", 200, 1000)
        phone.session.assurance = Assurance(known) if known else None
        await phone.channel.answer(phone.session, assurance=Assurance(given) if given else None)
        await asyncio.sleep(3)
        assert seen == [expected, expected]
