"""The turn machine: who has the word, what interrupts, and that no phase lasts for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.voice.interruption import Backchannels, Interruption, Strategy
from roomkit.voice.turn import (
    AudioMoved,
    EndSegment,
    Heard,
    HungUp,
    Interrupt,
    Judge,
    Judged,
    Pause,
    Phase,
    PlayedOut,
    ReplyFailed,
    ReplyStarted,
    Resume,
    Signal,
    SpeechOff,
    SpeechOn,
    Stop,
    Submit,
    Tick,
    Told,
    TurnMachine,
    TurnOptions,
)


class Call:
    """Drives one machine; `at` is the time in ms, `out` everything that came out."""

    def __init__(self, **options: object) -> None:
        self.machine = TurnMachine(TurnOptions(**options))  # type: ignore[arg-type]
        self.at = 0.0
        self.out: list[object] = []

    def __call__(self, signal: Signal, after: float = 0) -> list[object]:
        self.at += after
        out = list(self.machine.step(signal, self.at))
        self.out += out
        return out

    @property
    def phase(self) -> Phase:
        return self.machine.phase

    def turn(self, text: str) -> list[object]:
        """A whole turn of the caller's, up to the question."""
        self(SpeechOn(), 100)
        self(SpeechOff(500), 1000)
        judge = self(Heard(text, final=True), 50)[-1]
        assert isinstance(judge, Judge)
        return self(Judged(judge.number, complete=True), 10)

    def speaking(self, text: str = "tell me a story", played_ms: float = 1000) -> int:
        """A reply that has been audible for `played_ms`; its generation."""
        submit = self.turn(text)[-1]
        assert isinstance(submit, Submit)
        self(AudioMoved(submit.generation), 300)
        for _ in range(int(played_ms // 100)):
            self(AudioMoved(submit.generation), 100)
        return submit.generation


def rule(strategy: Strategy, **more: float) -> dict[str, object]:
    return {"speaking": Interruption(strategy, **more)}  # type: ignore[arg-type]


def test_a_turn_is_heard_judged_submitted_answered_and_given_back() -> None:
    call = Call(reprompt_ms=None)
    assert call.turn("what is the time") == [Submit("what is the time", 1)]
    assert call.phase is Phase.THINKING
    call(AudioMoved(1), 400)
    assert call.phase is Phase.SPEAKING
    call(PlayedOut(1), 200)
    assert call.phase is Phase.LISTENING
    assert call.machine.deadline is None


def test_an_unfinished_sentence_waits_and_grows() -> None:
    call = Call()
    call(SpeechOn())
    call(SpeechOff(500), 800)
    assert call(Heard("my number is", final=True)) == [Judge(1, "my number is", 500)]
    assert call(Judged(1, complete=False, wait_ms=1500)) == [Told("turn_incomplete", "my number is")]
    call(SpeechOn(), 700)
    call(SpeechOff(500), 900)
    assert call(Heard("five five five", final=True)) == [Judge(2, "my number is five five five", 500)]
    assert call(Judged(1, complete=True)) == []
    assert call(Judged(2, complete=True)) == [Submit("my number is five five five", 1)]


def test_an_unfinished_sentence_that_stays_so_is_submitted_when_the_wait_is_over() -> None:
    call = Call()
    call(SpeechOn())
    call(SpeechOff(500), 800)
    call(Heard("well", final=True))
    call(Judged(1, complete=False, wait_ms=1500))
    assert call.machine.deadline == call.at + 1500
    assert call(Tick(), 1500) == [Submit("well", 1)]


def test_immediate_stops_at_once_but_not_in_the_first_200_ms() -> None:
    call = Call()
    generation = call.speaking(played_ms=100)
    assert call(SpeechOn()) == []
    assert call.phase is Phase.SPEAKING
    assert call(Tick(), 100) == [Stop(generation, "barge_in")]
    assert call.phase is Phase.HEARING

    late = Call()
    generation = late.speaking()
    assert late(SpeechOn()) == [Stop(generation, "barge_in")]


def test_a_sound_that_ends_within_the_protected_time_does_nothing() -> None:
    call = Call()
    call.speaking(played_ms=0)
    assert call(SpeechOn(), 50) == []
    call(SpeechOff(0), 100)
    call(Heard("", final=True), 10)
    assert call(AudioMoved(1), 300) == []
    assert call.phase is Phase.SPEAKING


def test_confirmed_pauses_at_once_and_looks_again_when_the_time_is_up() -> None:
    call = Call(**rule(Strategy.CONFIRMED))
    generation = call.speaking()
    assert call(SpeechOn()) == [Pause(generation)]
    assert call.machine.deadline == call.at + 300
    assert call(Tick(), 300) == [Stop(generation, "barge_in")]


def test_confirmed_goes_on_after_a_cough_and_still_hears_a_short_no() -> None:
    call = Call(**rule(Strategy.CONFIRMED))
    generation = call.speaking()
    call(SpeechOn())
    assert call(SpeechOff(0), 200) == [Told("false_alarm"), Resume(generation)]
    assert call(Heard("", final=True), 100) == []
    call(AudioMoved(generation), 50)
    call(SpeechOn())
    call(SpeechOff(0), 250)
    out = call(Heard("no", final=True), 100)
    assert out[0] == Stop(generation, "barge_in")
    assert out[1] == Judge(3, "no", 0)


def test_semantic_lets_a_backchannel_pass_and_stops_for_words() -> None:
    call = Call(**rule(Strategy.SEMANTIC))
    generation = call.speaking()
    assert call(SpeechOn()) == [Pause(generation)]
    assert call(Heard("uh-huh"), 100) == []
    call(SpeechOff(0), 200)
    out = call(Heard("Uh-huh.", final=True), 50)
    assert out == [Told("backchannel", "Uh-huh."), Told("false_alarm"), Resume(generation)]
    call(AudioMoved(generation), 400)
    call(SpeechOn(), 100)
    assert call(Heard("wait a"), 100) == [Stop(generation, "barge_in")]
    assert call.phase is Phase.HEARING


def test_semantic_does_not_stay_paused_when_nothing_is_recognised() -> None:
    call = Call(**rule(Strategy.SEMANTIC))
    generation = call.speaking()
    call(SpeechOn())
    call(SpeechOff(0), 200)
    assert call(Tick(), 1300) == [Told("false_alarm"), Resume(generation)]


def test_disabled_queues_what_is_said_and_handles_it_after_the_reply() -> None:
    call = Call(**rule(Strategy.DISABLED, queue_segments=2))
    generation = call.speaking()
    for text in ("one", "two", "three"):
        call(SpeechOn(), 100)
        call(SpeechOff(0), 100)
        assert call(Heard(text, final=True), 10) == ([Told("queue_full", "three")] if text == "three" else [])
        call(AudioMoved(generation), 10)
    assert call(PlayedOut(generation), 100) == [Judge(3, "one two", 0)]


def test_speech_while_the_reply_is_prepared_takes_it_back() -> None:
    call = Call()
    submit = call.turn("order a pizza")[-1]
    assert isinstance(submit, Submit)
    assert call(SpeechOn(), 300) == [Stop(submit.generation, "barge_in")]
    call(SpeechOff(500), 600)
    assert call(AudioMoved(submit.generation)) == []
    assert call(Heard("no a salad", final=True)) == [Judge(3, "no a salad", 500)]


def test_a_new_announcement_takes_the_place_of_the_old_one() -> None:
    call = Call()
    call(ReplyStarted())
    call(AudioMoved(1), 100)
    assert call(ReplyStarted(), 100) == [Stop(1, "new_tts")]
    assert call(PlayedOut(1)) == []
    call(AudioMoved(2), 100)
    call(PlayedOut(2), 100)
    assert call.machine.free


def test_an_announcement_over_the_caller_is_stopped_at_once() -> None:
    call = Call()
    call(SpeechOn())
    assert call(ReplyStarted()) == [Stop(1, "caller_speaks")]
    assert call.phase is Phase.HEARING


def test_a_reply_that_waits_for_its_voice_thinks_again() -> None:
    call = Call(filler_ms=2000)
    generation = call.speaking()
    assert call(Tick(), 500) == [Told("stalled")]
    assert call.phase is Phase.THINKING
    assert call(Tick(), 2000) == [Told("filler")]
    call(AudioMoved(generation), 100)
    assert call.phase is Phase.SPEAKING


def test_nobody_answers_is_not_waited_for() -> None:
    call = Call()
    submit = call.turn("hello")[-1]
    assert isinstance(submit, Submit)
    call(ReplyFailed(submit.generation), 20)
    assert call.machine.free


def test_a_lost_answer_ends_in_the_callers_turn() -> None:
    call = Call(filler_ms=None, thinking_ms=10_000)
    call.turn("hello")
    assert call(Tick(), 10_000) == [Told("reply_timeout"), Stop(1, "timeout")]
    assert call.machine.free


def test_a_lost_transcript_ends_in_listening() -> None:
    call = Call()
    call(SpeechOn())
    call(SpeechOff(500), 700)
    assert call(Tick(), 5000) == [Told("transcript_timeout")]
    assert call.machine.free


def test_hold_music_ends_a_turn() -> None:
    call = Call(hearing_ms=60_000)
    call(SpeechOn())
    assert call(Tick(), 60_000) == [EndSegment()]
    assert call(Heard("la la la", final=True), 300) == [Judge(1, "la la la", 0)]


def test_silence_is_broken_twice_and_again_after_the_caller_has_spoken() -> None:
    call = Call(reprompt_ms=8_000)
    assert call(Tick(), 8_000) == [Told("reprompt")]
    assert call(Tick(), 80_000) == [], "it has not been said yet"
    for more in ([Told("reprompt")], []):
        call(ReplyStarted())
        call(AudioMoved(call.machine.generation), 100)
        call(PlayedOut(call.machine.generation), 400)
        assert call(Tick(), 8_000) == more
    call.turn("I am here")
    call(ReplyFailed(call.machine.generation))
    assert call(Tick(), 8_000) == [Told("reprompt")]


def test_a_timer_that_rings_a_rounding_early_is_in_time() -> None:
    call = Call(filler_ms=2000)
    call.turn("hello")
    assert call(Tick(), 2000 - 1e-9) == [Told("filler")]


def test_stop_from_outside_in_every_phase_with_a_reply() -> None:
    call = Call(**rule(Strategy.CONFIRMED))
    generation = call.speaking()
    call(SpeechOn())
    assert call(Interrupt("dtmf")) == [Stop(generation, "dtmf")]
    assert call.phase is Phase.HEARING
    quiet = Call()
    assert quiet(Interrupt("dtmf")) == []


def test_after_the_call_nothing_happens() -> None:
    call = Call()
    generation = call.speaking()
    assert call(HungUp()) == [Stop(generation, "hung_up")]
    assert call(SpeechOn()) == []
    assert call.machine.deadline is None


@pytest.mark.parametrize(
    "text, language, is_one",
    [
        ("Uh-huh.", "en", True),
        ("yeah, yeah", "en", True),
        ("okay I see", "en", True),
        ("yes please stop", "en", False),
        ("Genau!", "de", True),
        ("d'accord", "fr", True),
        ("ajá", "es", True),
        ("claro", "fr", False),
        ("Mm-hmm, all right.", "en-GB", True),
        ("no", "en", False),
        ("right, but how much is it", "en", False),
        ("Ja, ja, alles klar.", "de-CH", True),
        ("ja aber", "de", False),
        ("Moment mal", "de", False),
        ("Ah bon ? Très bien, d’accord.", "fr-CA", False),  # five words are more than a sign of listening
        ("Ah oui, c'est ça.", "fr", False),
        ("Bien sûr !", "fr", True),
        ("oui mais non", "fr", False),
        ("¡Sí, claro!", "es-MX", True),
        ("De acuerdo.", "es", True),
        ("espera un momento", "es", False),
        ("claro", None, True),
        ("", "en", False),
    ],
)
def test_backchannels(text: str, language: str | None, is_one: bool) -> None:
    assert Backchannels().holds(text, language) is is_one


SIGNALS = st.one_of(
    st.just(SpeechOn()),
    st.builds(SpeechOff, st.sampled_from([0.0, 500.0])),
    st.builds(Heard, st.sampled_from(["", "uh-huh", "stop now", "yes"]), st.booleans()),
    st.builds(Judged, st.integers(0, 8), st.booleans(), st.sampled_from([0.0, 900.0])),
    st.just(ReplyStarted()),
    st.builds(AudioMoved, st.integers(0, 8)),
    st.builds(PlayedOut, st.integers(0, 8)),
    st.builds(ReplyFailed, st.integers(0, 8)),
    st.just(Interrupt("dtmf")),
    st.just(Tick()),
)
STEPS = st.lists(st.tuples(SIGNALS, st.sampled_from([0.0, 20.0, 150.0, 400.0, 2500.0])), max_size=60)
WITH_REPLY = {Phase.THINKING, Phase.SPEAKING, Phase.DOUBTING}


@given(strategy=st.sampled_from(list(Strategy)), steps=STEPS)
def test_any_signals_in_any_order(strategy: Strategy, steps: list[tuple[Signal, float]]) -> None:
    """A generation that was stopped stays stopped, only the current one moves, and silence brings every call home."""
    call = Call(**rule(strategy))
    machine = call.machine
    stopped: set[int] = set()
    paused: set[int] = set()
    for signal, after in steps:
        for effect in call(signal, after):
            match effect:
                case Stop(generation=generation):
                    assert generation not in stopped
                    stopped.add(generation)
                    paused.discard(generation)
                case Pause(generation=generation):
                    assert generation == machine.generation
                    assert generation not in stopped | paused
                    paused.add(generation)
                case Resume(generation=generation):
                    assert generation in paused
                    paused.discard(generation)
                case Submit(generation=generation):
                    assert generation not in stopped
                case _:
                    pass
        assert machine.replying == (machine.phase in WITH_REPLY)
        assert machine.phase is Phase.LISTENING or machine.deadline is not None
        assert (machine.generation in paused) == (machine.phase is Phase.DOUBTING)
    call(SpeechOff(0), 0)
    began = call.at
    while (deadline := machine.deadline) is not None:
        call(Tick(), max(deadline - call.at, 0))
        assert call.at - began < 200_000, f"stuck in {machine.phase}"
    assert machine.free
