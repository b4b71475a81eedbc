"""GeminiLiveCodec alone: what it says for each command, what it makes of each message."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from roomkit.errors import RemoteProtocolError
from roomkit.models import realtime as rt
from roomkit.models.ai import ToolSpec
from roomkit.models.realtime import PastTurn, RealtimeConfig, RealtimeEvent
from roomkit.protocols.gemini_live import GeminiLiveCodec, WireTools

JSON = dict[str, Any]
TONE = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": base64.b64encode(bytes(4_800)).decode()}}


def codec(config: RealtimeConfig | None = None, resume: str | None = None) -> GeminiLiveCodec:
    return GeminiLiveCodec(
        config or RealtimeConfig(),
        model="m",
        tools=lambda specs: WireTools([{"name": spec.name} for spec in specs], str, str),
        resume=resume,
    )


def said(it: GeminiLiveCodec) -> list[JSON]:
    return [json.loads(text) for text in it.to_send()]


def hear(it: GeminiLiveCodec, **message: Any) -> list[RealtimeEvent]:
    return it.receive(json.dumps(message))


def content(it: GeminiLiveCodec, **told: Any) -> list[RealtimeEvent]:
    return hear(it, serverContent=told)


def ready(config: RealtimeConfig | None = None) -> GeminiLiveCodec:
    it = codec(config)
    hear(it, setupComplete={})
    said(it)
    return it


def types(events: list[RealtimeEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_setup_comes_first_and_the_past_after_it() -> None:
    it = codec(RealtimeConfig(system_prompt="Be kind.", history=(PastTurn("user", "hi"), PastTurn("assistant", "ho"))))
    (setup,) = said(it)
    assert setup["setup"]["model"] == "models/m"
    assert setup["setup"]["systemInstruction"] == {"parts": [{"text": "Be kind."}]}
    assert types(hear(it, setupComplete={})) == ["SessionReady"]
    (past,) = said(it)
    assert [turn["role"] for turn in past["clientContent"]["turns"]] == ["user", "model"]
    assert past["clientContent"]["turnComplete"] is False
    assert hear(it, setupComplete={}) == []


def test_a_resumed_session_is_not_seeded() -> None:
    it = codec(RealtimeConfig(history=(PastTurn("user", "hi"),)), resume="h")
    assert said(it)[0]["setup"]["sessionResumption"] == {"handle": "h"}
    (event,) = hear(it, setup_complete={})
    assert event == rt.SessionReady(event.session_id, resumed=True)  # type: ignore[union-attr]
    assert said(it) == []


def test_words_are_whole_when_the_model_begins() -> None:
    it = ready()
    (one,) = content(it, inputTranscription={"text": "good"})
    (two,) = content(it, inputTranscription={"text": " day"})
    assert isinstance(one, rt.UserText)
    assert isinstance(two, rt.UserText)
    assert (one.item_id, two.text, two.final) == (two.item_id, "good day", False)
    events = content(it, modelTurn={"parts": [TONE]})
    assert types(events) == ["UserText", "ReplyBegan", "ReplyAudio"]
    assert events[0] == rt.UserText(one.item_id, "good day")
    (tail,) = content(it, inputTranscription={"text": " my"})
    assert isinstance(tail, rt.UserText)
    assert not tail.final
    assert tail.item_id != one.item_id
    assert types(content(it, modelTurn={"parts": [TONE]})) == ["ReplyAudio"]
    content(it, inputTranscription={"text": " friend"})
    events = content(it, turnComplete=True)
    assert events[0] == rt.UserText(tail.item_id, "my friend"), "what comes late is one thing said, however it is cut"


def test_who_interrupts_says_one_thing() -> None:
    it = ready()
    content(it, modelTurn={"parts": [TONE]})
    (stop,) = content(it, inputTranscription={"text": "stop,"})
    assert isinstance(stop, rt.UserText)
    content(it, interrupted=True)
    assert content(it, turnComplete=True) == []
    content(it, inputTranscription={"text": " I want tea"})
    assert content(it, modelTurn={"parts": [TONE]})[0] == rt.UserText(stop.item_id, "stop, I want tea")


def test_words_are_whole_while_the_model_waits_for_its_tools() -> None:
    it = ready(RealtimeConfig(tools=(ToolSpec(name="f"),)))
    content(it, modelTurn={"parts": [TONE]})
    content(it, inputTranscription={"text": "late"})
    events = hear(it, toolCall={"functionCalls": [{"id": "a", "name": "f", "args": {}}]})
    assert types(events) == ["UserText", "ToolAsked"]
    (more,) = content(it, inputTranscription={"text": "hurry"})
    assert isinstance(more, rt.UserText)
    assert more.final


def test_a_call_of_a_turn_that_was_interrupted_is_none() -> None:
    it = ready(RealtimeConfig(tools=(ToolSpec(name="f"),)))
    content(it, modelTurn={"parts": [TONE]})
    content(it, interrupted=True)
    assert hear(it, toolCall={"functionCalls": [{"id": "a", "name": "f", "args": {}}]}) == []
    content(it, turnComplete=True)
    assert types(hear(it, toolCall={"functionCalls": [{"id": "b", "name": "f", "args": {}}]})) == [
        "ReplyBegan",
        "ToolAsked",
    ]


def test_a_turn_ends_once_with_what_it_took() -> None:
    it = ready()
    content(it, modelTurn={"parts": [TONE]})
    content(it, outputTranscription={"text": "hello"}, generationComplete=True)
    usage = {"promptTokenCount": 3, "responseTokenCount": 4}
    events = hear(it, serverContent={"turnComplete": True}, usageMetadata=usage)
    assert types(events) == ["ReplySaid", "ReplyOver"]
    assert isinstance(events[1], rt.ReplyOver)
    assert (events[1].status, events[1].usage.input_tokens, events[1].usage.output_tokens) == ("completed", 3, 4)
    assert types(content(it, turnComplete=True)) == []


def test_an_interruption_ends_the_reply_and_what_still_comes_counts_no_more() -> None:
    it = ready()
    content(it, modelTurn={"parts": [TONE]})
    assert types(content(it, interrupted=True)) == ["Interrupted", "ReplySaid", "ReplyOver"]
    assert content(it, modelTurn={"parts": [TONE]}) == []
    assert content(it, turnComplete=True) == []
    assert types(content(it, modelTurn={"parts": [TONE]})) == ["ReplyBegan", "ReplyAudio"]


def test_a_text_waits_for_the_end_of_the_turn_unless_it_is_cut() -> None:
    it = ready()
    content(it, modelTurn={"parts": [TONE]})
    it.send(rt.InjectText("wait"))
    assert said(it) == []
    content(it, turnComplete=True)
    assert said(it)[0]["clientContent"]["turnComplete"] is True
    content(it, modelTurn={"parts": [TONE]})
    it.send(rt.CutReply("x", 5))
    it.send(rt.InjectText("now"))
    assert said(it)[0]["clientContent"]["turns"][0]["parts"][0]["text"] == "now"


def test_answers_go_together_and_calls_that_were_taken_back_have_none() -> None:
    it = ready(RealtimeConfig(tools=(ToolSpec(name="f"),)))
    calls = [{"id": name, "name": "f", "args": {}} for name in ("a", "b", "c")]
    assert types(hear(it, toolCall={"functionCalls": calls})) == ["ReplyBegan", "ToolAsked", "ToolAsked", "ToolAsked"]
    it.send(rt.ToolAnswer("b", "f", "two", is_error=True))
    it.send(rt.ToolAnswer("a", "f", "one"))
    assert said(it) == []
    assert types(hear(it, toolCallCancellation={"ids": ["a", "c"]})) == ["ToolsCancelled"]
    (message,) = said(it)
    assert message["toolResponse"]["functionResponses"] == [{"id": "b", "name": "f", "response": {"error": "two"}}]
    it.send(rt.ToolAnswer("a", "f", "late"))
    assert said(it) == []
    hear(it, toolCall={"functionCalls": [{"id": name, "name": "f", "args": {}} for name in ("d", "e")]})
    it.send(rt.ToolAnswer("e", "f", "two"))
    it.send(rt.ToolAnswer("d", "f", "one"))
    (message,) = said(it)
    assert [each["id"] for each in message["toolResponse"]["functionResponses"]] == ["d", "e"]


def test_handles_and_goodbyes() -> None:
    it = ready()
    assert hear(it, sessionResumptionUpdate={"newHandle": "h", "resumable": True}) == [rt.ResumeHandle("h")]
    assert hear(it, sessionResumptionUpdate={"resumable": False}) == [rt.ResumeHandle(None)]
    assert hear(it, go_away={"time_left": "12.5s"}) == [rt.GoingAway(12.5)]


@pytest.mark.parametrize(
    "data", ["", "[]", '{"goAway": {"timeLeft": "soon"}}', '{"toolCall": {"functionCalls": [{}]}}']
)
def test_what_is_no_message_is_refused_in_words(data: str) -> None:
    with pytest.raises(RemoteProtocolError):
        ready().receive(data)
