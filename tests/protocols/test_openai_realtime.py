"""OpenAIRealtimeCodec alone: what it says for each command, what it makes of each event."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from roomkit.errors import BadResponse, RateLimited, RemoteProtocolError, Unavailable
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolSpec
from roomkit.models.realtime import PastTurn, RealtimeConfig, RealtimeEvent
from roomkit.protocols.openai_realtime import OpenAIRealtimeCodec, WireTools, session_of

JSON = dict[str, Any]


def codec(config: RealtimeConfig | None = None, **more: Any) -> OpenAIRealtimeCodec:
    return OpenAIRealtimeCodec(
        config or RealtimeConfig(), tools=lambda specs: WireTools([{"name": s.name} for s in specs], str), **more
    )


def ready(config: RealtimeConfig | None = None) -> OpenAIRealtimeCodec:
    it = codec(config)
    hear(it, {"type": "session.created", "session": {"id": "s1"}})
    said(it)
    assert hear(it, {"type": "session.updated", "session": {"id": "s1"}}) == [rt.SessionReady("s1")]
    return it


_numbers = iter(range(1, 1_000_000))


def hear(it: OpenAIRealtimeCodec, event: JSON) -> list[RealtimeEvent]:
    return it.receive(json.dumps({"event_id": f"event_{next(_numbers)}", **event}))


def said(it: OpenAIRealtimeCodec) -> list[JSON]:
    return [{k: v for k, v in json.loads(text).items() if k != "event_id"} for text in it.to_send()]


def kinds(it: OpenAIRealtimeCodec) -> list[str]:
    return [message["type"] for message in said(it)]


def respond(it: OpenAIRealtimeCodec, reply: str = "r1") -> None:
    hear(it, {"type": "response.created", "response": {"id": reply}})


def done(it: OpenAIRealtimeCodec, reply: str = "r1", **more: Any) -> list[RealtimeEvent]:
    return hear(it, {"type": "response.done", "response": {"id": reply, "status": "completed", "output": [], **more}})


def sound(it: OpenAIRealtimeCodec, ms: int, item: str = "i1", reply: str = "r1") -> list[RealtimeEvent]:
    delta = base64.b64encode(bytes(ms * 48)).decode()
    at = {"response_id": reply, "item_id": item, "content_index": 0}
    return hear(it, {"type": "response.output_audio.delta", **at, "delta": delta})


def test_a_session_is_set_up_and_seeded_before_it_is_ready() -> None:
    it = codec(RealtimeConfig(history=(PastTurn("user", "hi"), PastTurn("assistant", "ho"))))
    assert it.owes
    assert said(it) == []
    assert hear(it, {"type": "session.created", "session": {}}) == []
    update, user, assistant = said(it)
    assert update["type"] == "session.update"
    assert user["item"]["content"] == [{"type": "input_text", "text": "hi"}]
    assert assistant["item"]["content"] == [{"type": "output_text", "text": "ho"}]
    hear(it, {"type": "session.created", "session": {}})
    assert said(it) == []


def test_settings_are_the_vendor_s() -> None:
    config = RealtimeConfig(
        system_prompt="Be kind.",
        voice="marin",
        language="de-CH",
        interruptible=False,
        extra={"turn_detection": {"type": "semantic_vad", "eagerness": "low"}, "audio": {"output": {"speed": 1.1}}},
    )
    session = session_of(config, [], transcription_model="t")
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": False,
    }
    assert session["audio"]["input"]["transcription"] == {"language": "de", "model": "t"}
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "voice": "marin",
        "speed": 1.1,
    }
    assert session["instructions"] == "Be kind."
    quiet = session_of(RealtimeConfig(own_vad=True), [], transcription_model=None)
    assert quiet["audio"]["input"]["turn_detection"] is None
    assert "transcription" not in quiet["audio"]["input"]


def test_one_response_at_a_time() -> None:
    it = ready()
    it.send(rt.InjectText("one"))
    it.send(rt.InjectText("two"))
    assert kinds(it) == ["conversation.item.create", "response.create", "conversation.item.create"]
    respond(it)
    it.send(rt.Respond())
    assert kinds(it) == []
    done(it)
    assert kinds(it) == ["response.create"]
    respond(it, "r2")
    done(it, "r2")
    assert kinds(it) == []
    assert not it.owes


def test_a_response_that_lost_the_race_is_asked_for_again() -> None:
    it = ready()
    it.send(rt.Respond())
    (message,) = [json.loads(text) for text in it.to_send()]
    error = {"code": "conversation_already_has_active_response", "message": "busy", "event_id": message["event_id"]}
    respond(it, "the-server-s-own")
    assert hear(it, {"type": "error", "error": error}) == []
    done(it, "the-server-s-own")
    assert kinds(it) == ["response.create"]


def test_every_call_of_a_response_is_answered_before_the_next_is_asked_for() -> None:
    it = ready(RealtimeConfig(tools=(ToolSpec(name="f"),)))
    respond(it)
    calls = [
        {"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": raw} for n, raw in ((1, "{}"), (2, "["))
    ]
    asked = [event for event in done(it, output=calls) if isinstance(event, rt.ToolAsked)]
    assert [(event.call.call_id, event.call.malformed) for event in asked] == [("c1", None), ("c2", "[")]
    it.send(rt.ToolAnswer("c1", "f", "one"))
    assert kinds(it) == ["conversation.item.create"]
    it.send(rt.ToolAnswer("c1", "f", "again"))
    it.send(rt.ToolAnswer("unknown", "f", "x"))
    assert kinds(it) == []
    it.send(rt.ToolAnswer("c2", "f", "two"))
    assert kinds(it) == ["conversation.item.create", "response.create"]


def test_a_response_of_the_server_s_own_answers_what_was_owed() -> None:
    it = ready()
    respond(it)
    it.send(rt.InjectText("and another thing"))
    done(it, output=[{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}])
    said(it)
    respond(it, "the-server-s-own")
    done(it, "the-server-s-own")
    assert kinds(it) == []


def test_what_was_owed_already_waits_for_the_answers_to_what_a_reply_has_asked_for() -> None:
    it = ready()
    respond(it)
    it.send(rt.InjectText("and another thing"))
    said(it)
    done(it, output=[{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}])
    assert kinds(it) == []
    it.send(rt.ToolAnswer("c1", "f", "one", silent=True))
    assert kinds(it) == ["conversation.item.create", "response.create"]


def test_a_reply_that_was_cut_off_has_asked_for_nothing() -> None:
    it = ready()
    respond(it)
    call = {"type": "function_call", "call_id": "c1", "name": "end_call", "arguments": "{}"}
    events = done(it, status="cancelled", output=[call], status_details={"reason": "turn_detected"})
    assert [type(event) for event in events] == [rt.ReplyOver]
    assert events[0] == rt.ReplyOver("r1", "cancelled", "turn_detected")


@pytest.mark.parametrize("played, end", [(100, 100), (5_000, 300), (-5, 0)])
def test_a_cut_is_never_beyond_what_has_come(played: int, end: int) -> None:
    it = ready()
    respond(it)
    sound(it, 200)
    (event,) = sound(it, 100)
    assert isinstance(event, rt.ReplyAudio)
    assert event.frame.position == 4_800
    it.send(rt.CutReply("i1", played))
    cancel, truncate = said(it)
    assert cancel == {"type": "response.cancel", "response_id": "r1"}
    assert truncate == {
        "type": "conversation.item.truncate",
        "item_id": "i1",
        "content_index": 0,
        "audio_end_ms": end,
    }
    it.send(rt.CutReply("i1", played))
    it.send(rt.CutReply("unknown", 5))
    assert said(it) == []


def test_a_server_that_cancels_by_itself_is_not_told_to() -> None:
    it = ready()
    respond(it)
    sound(it, 200)
    assert hear(it, {"type": "input_audio_buffer.speech_started", "item_id": "u1"}) == [rt.SpeechBegan("u1")]
    it.send(rt.CutReply("i1", 50))
    assert kinds(it) == ["conversation.item.truncate"]


def test_our_own_vad_commits_what_is_long_enough() -> None:
    it = ready(RealtimeConfig(own_vad=True))
    it.send(rt.AppendAudio(bytes(48 * 50)))
    it.send(rt.UserSpeech(False))
    assert kinds(it) == ["input_audio_buffer.append", "input_audio_buffer.clear"]
    it.send(rt.UserSpeech(True))
    it.send(rt.AppendAudio(bytes(48 * 200)))
    it.send(rt.UserSpeech(False))
    assert kinds(it) == ["input_audio_buffer.append", "input_audio_buffer.commit", "response.create"]
    assert hear(it, {"type": "input_audio_buffer.committed", "item_id": "u1"}) == [rt.SpeechStopped("u1")]


def test_an_event_that_comes_twice_counts_once() -> None:
    it = ready()
    event = json.dumps({"type": "response.created", "event_id": "same", "response": {"id": "r1"}})
    assert it.receive(event) == [rt.ReplyBegan("r1")]
    assert it.receive(event) == []


def test_words_grow_and_are_told_in_full() -> None:
    it = ready()
    prefix = "conversation.item.input_audio_transcription"
    (first,) = hear(it, {"type": f"{prefix}.delta", "item_id": "u1", "delta": "good"})
    (second,) = hear(it, {"type": f"{prefix}.delta", "item_id": "u1", "delta": " day"})
    assert (first, second) == (rt.UserText("u1", "good", False), rt.UserText("u1", "good day", False))
    assert hear(it, {"type": f"{prefix}.completed", "item_id": "u1", "transcript": "Good day."}) == [
        rt.UserText("u1", "Good day.")
    ]
    failed = {"type": f"{prefix}.failed", "item_id": "u2", "error": {"message": "noise"}}
    assert hear(it, failed) == [rt.UserTextFailed("u2", "noise")]


def test_errors_are_told_apart() -> None:
    it = ready()
    for harmless in ("response_cancel_not_active", "cancel_failed"):
        assert hear(it, {"type": "error", "error": {"code": harmless, "message": "m"}}) == []
    for error, kind in (
        ({"code": "rate_limit_exceeded", "message": "slow down"}, RateLimited),
        ({"type": "server_error", "message": "oops"}, Unavailable),
        ({"code": "invalid_value", "message": "no"}, BadResponse),
    ):
        (told,) = hear(it, {"type": "error", "error": error})
        assert isinstance(told, rt.Complaint)
        assert isinstance(told.error, kind)
    with pytest.raises(Unavailable, match="maximum"):
        hear(it, {"type": "error", "error": {"code": "session_expired", "message": "maximum duration"}})
    with pytest.raises(BadResponse):
        hear(codec(), {"type": "error", "error": {"code": "unknown_parameter", "message": "no"}})


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "{}",
        '{"type": 5}',
        '{"type": "response.done"}',
        '{"type": "response.output_audio.delta", "delta": "?"}',
    ],
)
def test_what_is_no_event_is_refused_in_words(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        ready().receive(data)


def test_kinds_that_nobody_knows_are_left_out() -> None:
    assert hear(ready(), {"type": "something.new", "more": 1}) == []
    assert hear(ready(), {"type": "response.something_new.delta", "response_id": "r"}) == []
