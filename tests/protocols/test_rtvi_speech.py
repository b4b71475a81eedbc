"""A call's signs in the words of RTVI: who speaks, what was understood, and what has been heard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.protocols.rtvi.session import File, Say, Send, Session, Sound
from tests.protocols.test_rtvi import client, ready, told

PHASES = ["listening", "hearing", "deciding", "thinking", "speaking", "doubting", "ended"]


def live(version: str = "2.2.0") -> Session:
    session = ready(version)
    session.speech.live = True
    return session


def kinds(session: Session) -> list[str]:
    return [one["type"] for one in told(session.spoken())]


def data(session: Session) -> list[Any]:
    return [one.get("data") for one in told(session.spoken())]


def test_a_turn() -> None:
    session = live()
    speech = session.speech
    for phase in ("hearing", "deciding", "thinking", "speaking", "thinking", "speaking", "listening"):
        speech.phase(phase)
    assert kinds(session) == [
        "user-started-speaking",
        "user-stopped-speaking",
        *["bot-tts-started", "bot-started-speaking", "bot-tts-stopped", "bot-stopped-speaking"] * 2,
    ]


def test_a_doubt_that_was_none_is_not_told_and_an_interruption_once() -> None:
    session = live()
    speech = session.speech
    for phase in ("speaking", "doubting", "speaking"):
        speech.phase(phase)
    assert kinds(session) == ["bot-tts-started", "bot-started-speaking"]
    speech.interrupted()
    speech.phase("hearing")
    speech.interrupted()
    assert kinds(session) == ["bot-interrupted", "user-started-speaking", "bot-tts-stopped", "bot-stopped-speaking"]
    older = live("2.1.0")
    older.speech.phase("speaking")
    older.speech.interrupted()
    assert "bot-interrupted" not in kinds(older)


def test_words_and_sentences_as_they_are_heard() -> None:
    session = live()
    speech = session.speech
    for delta in ("Hello", " Ann. How", " are you?", " Fine"):
        speech.spoken("a", delta, over=False)
    speech.phase("speaking")
    speech.phase("thinking")
    speech.spoken("a", " here.", over=True)
    found = told(session.spoken())
    assert [one["data"]["text"] for one in found if one["type"] == "bot-output"] == [
        "Hello Ann.",
        "How are you?",
        "Fine here.",
    ], "a pause for a tool cuts no sentence"
    (first, *_) = [one["data"] for one in found if one["type"] == "bot-output"]
    assert first == {
        "text": "Hello Ann.",
        "output_type": "sentence",
        "text_type": "sentence",
        "aggregated_by": "sentence",
        "segment_id": 1,
        "will_be_spoken": True,
        "spoken_status": "completed",
        "spoken_progress": {"accumulated_text": "Hello Ann.", "remaining_text": ""},
    }
    speech.spoken("b", "Cut in the", over=False)
    speech.phase("speaking")
    speech.interrupted()
    speech.spoken(None, "A greeting", over=False)
    speech.spoken("c", "!", over=True)
    texts = [one["data"]["text"] for one in told(session.spoken()) if one["type"] == "bot-output"]
    assert texts == ["Cut in the", "A greeting", "!"]
    old = live("1.0.0")
    old.speech.spoken("a", "Yes.", over=True)
    assert data(old)[-1] == {"text": "Yes.", "spoken": True, "aggregated_by": "sentence"}


def test_what_is_spoken_is_not_told_as_written_too() -> None:
    session = live()
    session.starts("a")
    written = told(session.said("a", "Hello there."))
    assert [one["type"] for one in written] == ["bot-llm-text", "bot-llm-stopped"]
    session.starts("b", aloud=False)
    written = told(session.grows("b", "Read this. ")) + told(session.said("b", "Read this. Too."))
    assert [one["data"]["text"] for one in written if one["type"] == "bot-output"] == ["Read this.", "Too."]
    assert "bot-output" in str(told(session.said("c", "A note.", aloud=False)))
    session.starts("d", aloud=False)
    session.withdrawn("d")
    assert "bot-output" not in str(told(session.said("d", "Spoken.")))


def test_transcripts_levels_mute_and_times() -> None:
    session = live()
    speech = session.speech
    speech.partial("", "ann", "now")
    speech.partial("what", "ann", "now")
    speech.final("what time", "ann", "now")
    heard = {"text": "what", "user_id": "ann", "timestamp": "now", "final": False}
    final = {**heard, "text": "what time", "final": True}
    assert data(session) == [
        heard,
        {**heard, "input_type": "transcription"},
        final,
        {**final, "input_type": "transcription"},
        {"text": "what time"},
    ]
    speech.level("bot", 0.5)
    speech.muted(False)
    speech.muted(True)
    speech.muted(True)
    speech.muted(False)
    speech.times({"transcript_ms": 120.0, "decided_ms": 130, "first_token_ms": 200.0, "first_sentence_ms": None})
    speech.times({})
    found = told(session.spoken())
    assert [one["type"] for one in found] == ["bot-audio-level", "user-mute-started", "user-mute-stopped", "metrics"]
    assert found[-1]["data"] == {
        "ttfb": [{"processor": "stt", "value": 0.12}, {"processor": "llm", "value": 0.07}],
    }
    early = Session()
    early.speech.phase("speaking")
    assert early.spoken() == [], "nobody is told before they are ready"


def test_files_and_sound() -> None:
    session = ready()
    source = {"type": "bytes", "bytes": "aGk="}
    sent = {"content": "look", "file": {"format": "text/plain", "name": "a.txt", "source": source}}
    assert session.hear(client("send-file", sent)) == [
        Say("i1", "look", True, True, File("text/plain", "a.txt", b"hi"))
    ]
    where = {"format": "image/png", "source": {"type": "url", "url": "https://example.com/a.png"}}
    (said,) = session.hear(client("send-file", {"file": where, "options": {"audio_response": False}}))
    assert said == Say("i1", "", True, False, File("image/png", None, None, "https://example.com/a.png"))
    data = {"base64Audio": "aGk=", "base64AudioBatch": ["aGk="], "sampleRate": 8_000, "numChannels": 1}
    assert session.hear(client("raw-audio", data)) == [Sound("i1", b"hihi", 8_000, 1)]
    quiet = {"content": "hi", "options": {"audio_response": False}}
    assert session.hear(client("send-text", quiet)) == [Say("i1", "hi", True, False)]


def test_older_clients_hear_a_transcript_once() -> None:
    session = live("2.1.0")
    session.speech.final("hi", "ann", "now")
    assert kinds(session) == ["user-transcription", "user-llm-text"]


def test_nothing_is_interrupted_where_nothing_is_said() -> None:
    session = live()
    session.speech.interrupted()
    assert kinds(session) == []
    session.speech.phase("thinking")
    session.speech.interrupted()
    assert kinds(session) == ["bot-interrupted"]


@pytest.mark.parametrize(
    "kind, data",
    [
        ("send-file", {"file": {"format": "a/b", "source": {"type": "bytes", "bytes": "?"}}}),
        ("send-file", {"file": {"format": "a/b", "source": {"type": "bytes"}}}),
        ("send-file", {"file": {"format": "a/b", "source": {"type": "url", "url": "http://169.254.169.254/"}}}),
        ("send-file", {"file": {"format": "a/b", "source": {"type": "disk"}}}),
        ("raw-audio", {"base64Audio": "?", "sampleRate": 8_000, "numChannels": 1}),
        ("raw-audio", {"base64Audio": "aGk="}),
    ],
)
def test_what_is_no_file_and_no_sound(kind: str, data: Any) -> None:
    (answer,) = told(ready().hear(client(kind, data)))
    assert (answer["type"], answer["id"]) == ("error-response", "i1")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(PHASES)
        | st.tuples(st.sampled_from(["a", "b", None]), st.text("ab. !\n", max_size=8), st.booleans())
        | st.just(0),
        max_size=40,
    ),
    st.sampled_from(["2.2.0", "2.0.0", "1.0.0"]),
)
def test_whatever_happens_who_starts_stops_and_no_word_is_lost(signs: list[Any], version: str) -> None:
    session = live(version)
    speech, said = session.speech, ""
    for sign in signs:
        if isinstance(sign, str):
            speech.phase(sign)
        elif isinstance(sign, tuple):
            speech.spoken(sign[0], sign[1], over=sign[2])
            said += sign[1]
        else:
            speech.interrupted()
    speech.spoken("z", "", over=True)
    speech.ends()
    messages = [json.loads(act.text) for act in session.spoken() if isinstance(act, Send)]
    for who in ("user", "bot"):
        marks = [one["type"] for one in messages if one["type"].startswith(who) and one["type"].endswith("-speaking")]
        assert marks == [f"{who}-started-speaking", f"{who}-stopped-speaking"] * (len(marks) // 2)
    output = "".join(one["data"]["text"] for one in messages if one["type"] == "bot-output")
    assert output.replace(" ", "").replace("\n", "") == "".join(said.split())
