"""The pure side of AgentKit: the machine of one call, its values, and hostile input."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("google.protobuf", reason="needs the [agentkit] extra")

from google.protobuf import any_pb2, struct_pb2, wrappers_pb2

from roomkit.protocols.agentkit.agent import AgentKitAgent, texts
from roomkit.protocols.agentkit.conversation import APOLOGY, Begin, Conversation, Interrupt, Say, Send
from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb
from roomkit.protocols.agentkit.values import packed, unpacked


def begun() -> Conversation:
    machine = Conversation(most_text=100)
    machine.hear(pb.TalkInput(initialization=pb.ConversationInitialization(assistantConversationId=42)))
    return machine


def said(text: str, message_id: str = "m1") -> pb.TalkInput:
    return pb.TalkInput(message=pb.ConversationUserMessage(id=message_id, text=text, completed=True))


def sent(acts: list[Any]) -> list[tuple[str, str, bool]]:
    return [(act.frame.assistant.id, act.frame.assistant.text, act.frame.assistant.completed) for act in acts]


def test_the_bytes_are_those_of_the_protocol() -> None:
    first = pb.TalkInput.FromString(bytes.fromhex("0a02082a"))
    begin, ack = Conversation().hear(first)
    assert begin == Begin(42, None, None, None, {})
    assert isinstance(ack, Send)
    assert ack.frame.SerializeToString().hex() == "08c80110014a02082a"


def test_of_two_replies_at_once_one_grows_and_the_other_comes_whole() -> None:
    machine = begun()
    assert machine.hear(said("hi")) == [Say("m1", "hi", False)]
    assert sent(machine.grows("a", "One ")) == [("m1", "One ", False)]
    assert machine.grows("b", "Two") == []
    assert sent(machine.said("b", "Two")) == [("", "Two", True)]
    assert sent(machine.said("a", "One ")) == [("m1", "One ", True)]


def test_an_interruption_ends_what_was_being_said() -> None:
    machine = begun()
    machine.hear(said("hi"))
    machine.grows("a", "One ")
    other = pb.TalkInput(interruption=pb.ConversationInterruption(id="another"))
    assert machine.hear(other) == []
    now = pb.TalkInput(interruption=pb.ConversationInterruption(id="m1"))
    assert machine.hear(now) == [Interrupt()]
    assert machine.hear(now) == [], "once"
    assert machine.grows("a", "more") == []
    assert machine.said("a", "One more") == []
    assert machine.hear(said("again", "m2")) == [Say("m2", "again", False)]


def test_a_new_message_interrupts_as_well() -> None:
    machine = begun()
    machine.hear(said("hi"))
    machine.grows("a", "One ")
    assert machine.hear(said("no", "m2")) == [Say("m2", "no", True)]
    assert sent(machine.said("c", "Yes")) == [("m2", "Yes", True)]


def test_the_same_message_again_has_no_second_effect() -> None:
    machine = begun()
    machine.hear(said("hi"))
    machine.grows("a", "One ")
    assert machine.hear(said("hi")) == []
    assert sent(machine.said("a", "One two")) == [("m1", "One two", True)]


def test_nobody_waits_for_nothing() -> None:
    machine = begun()
    machine.hear(said("hi"))
    machine.grows("a", "One ")
    assert sent(machine.withdrawn("a")) == [("m1", APOLOGY, True)]
    machine.hear(said("hi", "m2"))
    assert sent(machine.settled("m2", refused=True)) == [("m2", APOLOGY, True)]
    assert machine.settled("m2", refused=True) == []
    assert sent(machine.hear(said("x" * 101, "m3")))[0][2] is True


def test_a_directive_waits_for_the_words_or_for_the_end() -> None:
    machine = begun()
    machine.hear(said("bye"))
    machine.grows("a", "Good")
    assert machine.direct("c1", "end_call", {"why": ["done"]}, end=True) == []
    final, directive = machine.said("a", "Goodbye")
    assert final.frame.assistant.completed
    call = directive.frame.toolCall
    assert (call.id, call.toolId, call.name, call.action) == ("m1", "c1", "end_call", 1)
    assert dict(call.args) == {"why": '["done"]'}
    machine.hear(said("to sales", "m2"))
    machine.direct("c2", "transfer_call", {"to": "sales"}, end=False)
    (alone,) = machine.settled("m2", refused=False)
    assert (alone.frame.toolCall.action, alone.frame.toolCall.name) == (2, "transfer_call")


def test_values_come_out_as_they_went_in() -> None:
    given_ = {"text": "a", "whole": 3, "big": 2**40, "real": 0.5, "yes": True, "bytes": b"\0"}
    assert unpacked(packed(given_)) == given_
    assert unpacked(packed({"object": {"a": [1]}})) == {"object": '{"a": [1]}'}
    struct = any_pb2.Any()
    struct.Pack(struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1)}))
    unknown = any_pb2.Any(type_url="type.googleapis.com/unknown.Kind", value=b"\xff")
    broken = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=b"\xff\xff")
    assert unpacked({"s": struct, "unknown": unknown, "broken": broken}) == {"s": {"a": 1.0}}
    assert texts({"a": object, "b": None}) == {"a": str(object), "b": "null"}
    assert texts(None) == {}


def test_the_questions_of_the_sdk_have_its_answers() -> None:
    agent, text = AgentKitAgent(), said("hi")
    init = pb.TalkInput(
        initialization=pb.ConversationInitialization(
            assistantConversationId=3, assistant=pb.AssistantDefinition(assistantId=9)
        )
    )
    sound = pb.TalkInput(message=pb.ConversationUserMessage(id="a", audio=b"\0"))
    assert (agent.get_conversation_id(init), agent.get_assistant_id(init)) == (3, 9)
    assert (agent.get_conversation_id(text), agent.get_assistant_id(text), agent.get_message_id(init)) == (None,) * 3
    assert (agent.get_user_text(text), agent.get_user_text(sound)) == ("hi", None)
    assert (agent.is_audio_message(sound), agent.is_text_message(sound), agent.is_message_request(sound)) == (1, 0, 1)
    assert agent.is_configuration_request(pb.TalkInput(configuration=pb.ConversationConfiguration()))
    assert agent.transfer_call("m", {"to": "x"}).toolCall.action == 2
    with pytest.raises(NotImplementedError):
        agent.Talk(iter(()), None)


def test_the_frames_of_the_sdk() -> None:
    agent = AgentKitAgent()
    settled = agent.configuration_response(pb.ConversationConfiguration())
    assert (settled.code, settled.success, settled.WhichOneof("data")) == (200, True, None)
    assert not agent.assistant_response("m", "hi").assistant.HasField("time")

    class Clock:
        def now(self) -> datetime:
            return datetime(2030, 1, 1, tzinfo=UTC)

    agent.clock = Clock()
    assert agent.assistant_response("m", "hi").assistant.time.seconds == 1_893_456_000
    failed = agent.error_response(418, "no tea")
    assert (failed.code, failed.success, failed.error.errorCode, failed.error.errorMessage) == (
        418,
        False,
        418,
        "no tea",
    )
    assert failed.error.humanMessage == "no tea"
    for result, success, told in (("12", True, {"result": "12"}), ({"deg": 3}, False, {"deg": "3"})):
        done = agent.tool_call_result("m", "c", "weather", result, success)
        assert (done.toolCallResult.id, done.toolCallResult.toolId, done.toolCallResult.name) == ("m", "c", "weather")
        assert dict(done.toolCallResult.result) == {**told, "success": "true" if success else "false"}


def test_a_tool_is_told_in_a_call_that_has_begun_and_not_before() -> None:
    machine = Conversation()
    assert machine.tool("c", "weather", {}) == machine.tool_done("c", "weather", {}, success=True) == []
    machine = begun()
    machine.hear(said("hi"))
    (begins,), (ends,) = (
        machine.tool("c", "weather", {"at": "Graz"}),
        machine.tool_done("c", "weather", 3, success=True),
    )
    assert isinstance(begins, Send)
    assert isinstance(ends, Send)
    call, result = begins.frame.toolCall, ends.frame.toolCallResult
    assert (call.id, call.toolId, call.name, dict(call.args)) == ("m1", "c", "weather", {"at": "Graz"})
    assert (result.id, result.toolId, dict(result.result)) == ("m1", "c", {"result": "3", "success": "true"})


def test_what_cannot_be_taken_is_refused_with_its_reason() -> None:
    sound = pb.TalkInput(message=pb.ConversationUserMessage(id="a", audio=b"\0"))
    other = pb.TalkInput(initialization=pb.ConversationInitialization(assistantConversationId=43))
    for machine, frame, code in ((Conversation(), said("hi"), 400), (begun(), sound, 501), (begun(), other, 409)):
        (act,) = machine.hear(frame)
        assert isinstance(act, Send)
        assert (act.frame.code, act.frame.success, act.frame.error.errorCode) == (code, False, code)
        assert act.frame.error.errorMessage
    again = pb.TalkInput(initialization=pb.ConversationInitialization(assistantConversationId=42))
    (ack,) = begun().hear(again)
    assert isinstance(ack, Send)
    assert ack.frame.initialization.assistantConversationId == 42, "the same call once more is no second call"
    assert begun().withdrawn("never told") == []


def test_half_a_surrogate_pair_of_a_model_goes_out_as_a_replacement() -> None:
    machine = begun()
    (act,) = machine.tool("c", "weather", {"at": "\ud800", "\udc00": ["\ud800"]})
    assert isinstance(act, Send)
    assert dict(act.frame.toolCall.args) == {"at": "\ufffd", "\ufffd": '["\ufffd"]'}


def test_numbers_that_json_lacks_are_left_out_of_what_the_platform_knows() -> None:
    begin = pb.ConversationInitialization(assistantConversationId=1)
    begin.metadata["bad"].Pack(struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=math.nan)}))
    begin.metadata["good"].Pack(struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1)}))
    first, *_ = Conversation().hear(pb.TalkInput(initialization=begin))
    assert isinstance(first, Begin)
    assert first.details == {"metadata": {"good": {"a": 1.0}}}


KINDS = (struct_pb2.Struct, struct_pb2.Value, struct_pb2.ListValue, wrappers_pb2.StringValue, wrappers_pb2.DoubleValue)
NUMBERS = st.builds(lambda n: struct_pb2.Value(number_value=n).SerializeToString(), st.floats())


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(KINDS), st.binary(max_size=40) | NUMBERS)
def test_whatever_the_values_of_a_call_are_it_begins(kind: Any, data: bytes) -> None:
    begin = pb.ConversationInitialization(assistantConversationId=1)
    begin.args["a"].CopyFrom(any_pb2.Any(type_url=f"type.googleapis.com/{kind.DESCRIPTOR.full_name}", value=data))
    first, ack = Conversation().hear(pb.TalkInput(initialization=begin))
    assert isinstance(first, Begin)
    assert isinstance(ack, Send)
    assert ack.frame.success
    assert set(first.details) <= {"args"}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=5), JSON, max_size=3))
def test_whatever_a_model_calls_a_tool_with_goes_out(arguments: dict[str, Any]) -> None:
    (act,) = begun().tool("c", "n", arguments)
    assert isinstance(act, Send)
    assert pb.TalkOutput.FromString(act.frame.SerializeToString()) == act.frame


FRAMES = st.one_of(
    st.builds(
        lambda n: pb.TalkInput(initialization=pb.ConversationInitialization(assistantConversationId=n)),
        st.integers(0, 2),
    ),
    st.builds(said, st.text(max_size=120), st.sampled_from(["", "m1", "m2"])),
    st.builds(
        lambda i: pb.TalkInput(interruption=pb.ConversationInterruption(id=i)), st.sampled_from(["", "m1", "m2"])
    ),
    st.just(pb.TalkInput()),
    st.just(pb.TalkInput(configuration=pb.ConversationConfiguration())),
)
ROOM = st.one_of(
    st.tuples(st.just("grows"), st.sampled_from("abc"), st.text(max_size=5)),
    st.tuples(st.just("said"), st.sampled_from("abc"), st.text(max_size=5)),
    st.tuples(st.just("withdrawn"), st.sampled_from("abc")),
)


@given(st.lists(st.one_of(FRAMES, ROOM), max_size=40))
def test_whatever_comes_no_turn_is_ended_twice_and_nothing_old_is_told(happens: list[Any]) -> None:
    machine, ended, current = Conversation(most_text=100), set[int](), 0
    for what in happens:
        if isinstance(what, pb.TalkInput):
            acts = machine.hear(what)
            current += any(isinstance(act, Say) for act in acts)
        else:
            acts = getattr(machine, what[0])(*what[1:])
        for act in acts:
            if not isinstance(act, Send) or act.frame.WhichOneof("data") != "assistant":
                continue
            told = act.frame.assistant
            if isinstance(what, pb.TalkInput):
                continue  # a refusal of what was too long
            assert told.id in ("", machine.current)
            if told.completed and told.id:
                assert current not in ended, "one final frame a turn"
                ended.add(current)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_do_no_harm(data: bytes) -> None:
    try:
        frame = pb.TalkInput.FromString(data)
    except Exception:
        return
    begun().hear(frame)
    Conversation().hear(frame)
