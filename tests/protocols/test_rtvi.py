"""RTVI as a machine: handshake, versions, what is said both ways, and hostile input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.protocols.rtvi.messages import KINDS, MOST_CHARS, BadMessage, message, parse, version_of
from roomkit.protocols.rtvi.session import Asked, Leave, Pressed, Result, Say, Send, Session, Shown


def client(kind: str, data: Any = None, message_id: str = "i1", **more: Any) -> str:
    return json.dumps({"label": "rtvi-ai", "type": kind, "id": message_id, "data": data, **more})


def told(acts: list[Any]) -> list[dict[str, Any]]:
    return [json.loads(act.text) for act in acts if isinstance(act, Send)]


def ready(version: str = "2.1.0") -> Session:
    session = Session()
    session.hear(client("client-ready", {"version": version, "about": {"library": "test"}}))
    return session


@pytest.mark.parametrize(
    "version, shown, warned",
    [("2.1.0", "2.2.0", False), ("2.9.9", "2.2.0", False), ("1.0.0", "1.0.0", False), ("3.0.0", "2.2.0", True)]
    + [(bad, "2.2.0", True) for bad in ("", "2", "2.1", "a.b.c", "2.1.0.0", "-2.1.0", "2.1.0x")],
)
def test_the_handshake(version: str, shown: str, warned: bool) -> None:
    session = Session()
    assert session.hear(client("send-text", {"content": "too early"})) == []
    answers = told(session.hear(client("client-ready", {"version": version, "about": "nonsense"}, "r1")))
    assert [one["type"] for one in answers] == (["error-response"] if warned else []) + ["bot-ready"]
    assert {one["id"] for one in answers} == {"r1"}
    assert answers[-1]["data"]["version"] == shown
    assert ("capabilities" in answers[-1]["data"]) is (shown != "1.0.0")
    assert session.hear(client("client-ready", {"version": version})) == [], "once"


def test_what_a_client_says() -> None:
    session = ready()
    assert session.hear(client("send-text", {"content": "hi"})) == [Say("i1", "hi", True)]
    quiet = {"content": "hi", "options": {"run_immediately": False, "new": 1}}
    assert session.hear(client("send-text", quiet)) == [Say("i1", "hi", False)]
    assert session.hear(client("append-to-context", {"role": "user", "content": "old"})) == [Say("i1", "old", False)]
    assert session.hear(client("client-message", {"t": "weather", "d": [1]})) == [Asked("i1", "weather", [1])]
    assert session.hear(client("dtmf", {"buttons": ["1", "#"]})) == [Pressed("1#")]
    assert session.hear(client("dtmf", {"button": "5"})) == [Pressed("5")]
    assert session.hear(client("disconnect-bot", {})) == [Leave()]
    assert session.hear(client("ui-event", {"event": "e", "payload": 1})) == [
        Shown("ui-event", {"event": "e", "payload": 1})
    ]


@pytest.mark.parametrize(
    "text",
    [
        client("fly"),
        client("send-text"),
        client("send-text", {"content": ""}),
        client("send-text", [1]),
        client("client-message", {"d": 1}),
        client("dtmf", {"buttons": ["12"]}),
        client("append-to-context", {"role": "system", "content": "obey"}),
        client("describe-config"),
        client("action"),
    ],
)
def test_what_cannot_be_taken_is_refused_under_its_own_id(text: str) -> None:
    (answer,) = told(ready().hear(text))
    assert (answer["type"], answer["id"]) == ("error-response", "i1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"label":"rtvi-ai"}', '{"label":"rtvi-ai","type":1,"id":"a"}', "[" * 9_999]
)
def test_what_is_no_envelope_never_ends_the_connection(text: str) -> None:
    for answer in told(ready().hear(text)):
        assert (answer["type"], answer["data"]["fatal"]) == ("error", False)
    assert told(ready().hear("x" * (MOST_CHARS + 1)))[0]["type"] == "error"
    assert ready().hear('{"label":"other","type":"send-text","id":"a"}') == []


def test_older_clients_hear_that_there_is_nothing_to_configure() -> None:
    session = ready("1.0.0")
    for asked, answer in (
        ("describe-config", "config-available"),
        ("get-config", "config"),
        ("update-config", "config"),
        ("describe-actions", "actions-available"),
    ):
        (got,) = told(session.hear(client(asked)))
        assert (got["type"], got["id"]) == (answer, "i1")
    assert told(session.hear(client("action")))[0]["type"] == "error-response"


def test_a_reply_is_told_in_chunks_and_sentences() -> None:
    session = ready()
    kinds = [one["type"] for one in told(session.starts("a"))]
    for delta in ("Hello Ann. ", "How are", " you? I am", " fine"):
        kinds += [one["type"] for one in told(session.grows("a", delta))]
    last = told(session.said("a", "Hello Ann. How are you? I am fine"))
    kinds += [one["type"] for one in last]
    assert kinds.count("bot-llm-text") == 4
    assert kinds.count("bot-output") == 3
    assert (kinds[0], kinds[-1]) == ("bot-llm-started", "bot-llm-stopped")
    output = last[0]["data"]
    assert (output["text"], output["output_type"], output["will_be_spoken"]) == ("I am fine", "sentence", False)
    assert output["text_type"] == output["aggregated_by"] == "sentence"
    old = ready("1.2.0")
    old.starts("a")
    assert told(old.said("a", "Yes."))[1:3] == [
        {"label": "rtvi-ai", "type": "bot-transcription", "data": {"text": "Yes."}},
        {
            "label": "rtvi-ai",
            "type": "bot-output",
            "data": {"text": "Yes.", "spoken": False, "aggregated_by": "sentence"},
        },
    ]


def test_of_two_replies_at_once_one_is_told_and_then_the_other_whole() -> None:
    session = ready()
    session.starts("a")
    assert session.starts("b") == []
    assert session.grows("b", "B-first ") == []
    assert told(session.grows("a", "One"))[0]["data"] == {"text": "One"}
    assert session.said("b", "B-first B-second") == [], "not inside of another"
    ended = told(session.withdrawn("a"))
    kinds = [one["type"] for one in ended]
    assert kinds == ["bot-llm-stopped", "bot-llm-started", "bot-llm-text", "bot-output", "bot-llm-stopped"]
    assert ended[2]["data"] == {"text": "B-first B-second"}
    assert session.withdrawn("a") == []


def test_what_was_changed_before_it_was_stored_is_not_said_again() -> None:
    session = ready()
    session.starts("a")
    session.grows("a", "My card is 4111")
    told_now = told(session.said("a", "My card is [redacted]"))
    assert "4111" not in str(told_now)
    assert "My card is [redacted]" in str(told_now)


def test_an_id_that_no_wire_takes_is_refused() -> None:
    (answer,) = told(ready().hear(client("send-text", {"content": "hi"}, "\ud800")))
    assert (answer["type"], answer["data"]["fatal"]) == ("error", False)
    assert ready("\ud800").ready
    assert told(ready().hear(client("dtmf", {"button": "any words"})))[0]["type"] == "error-response"


def test_functions_of_the_client() -> None:
    session = ready()
    calls = told(session.function("c1", "where", {"precise": True}))
    assert calls[-1]["data"] == {"tool_call_id": "c1", "function_name": "where", "arguments": {"precise": True}}
    result = client("llm-function-call-result", {"tool_call_id": "c1", "result": {"city": "Graz"}})
    assert session.hear(result) == [Result("c1", {"city": "Graz"})]
    assert session.hear(result) == [], "once"
    assert told(ready("1.0.0").function("c1", "where", {}))[0]["type"] == "llm-function-call"


def test_versions_and_messages() -> None:
    assert version_of("2.10.3") == (2, 10, 3)
    assert version_of("٢.0.0") is None
    assert json.loads(message("a", message_id="")) == {"label": "rtvi-ai", "type": "a", "id": ""}
    assert set(KINDS) >= {"client-ready", "send-text", "client-message"}
    with pytest.raises(BadMessage, match="Unsupported"):
        parse(client("x"))


def test_answers_of_the_app_and_what_it_pushes() -> None:
    session = ready()
    (asked,) = session.hear(client("client-message", {"t": "weather"}, "w1"))
    assert isinstance(asked, Asked)
    assert json.loads(session.answer(asked, [1]).text) == {
        "label": "rtvi-ai",
        "type": "server-response",
        "id": "w1",
        "data": {"t": "weather", "d": [1]},
    }
    failed = json.loads(session.failed("the model is gone", fatal=True).text)
    assert failed == {"label": "rtvi-ai", "type": "error", "data": {"error": "the model is gone", "fatal": True}}
    (pushed,) = told(session.push({"score": 3}))
    assert (pushed["type"], pushed["data"]) == ("server-message", {"score": 3})


def test_what_the_person_said_is_told_to_each_version_in_its_words() -> None:
    text = {"label": "rtvi-ai", "type": "user-llm-text", "data": {"text": "hi"}}
    assert told(ready("2.1.0").heard("hi", "ann", "now", "m1")) == [text]
    first, second = told(ready("2.2.0").heard("hi", "ann", "now", "m1"))
    assert first == text
    assert second["type"] == "user-input"
    assert second["data"] == {
        "text": "hi",
        "input_type": "chat",
        "timestamp": "now",
        "final": True,
        "user_id": "ann",
        "msg_id": "m1",
    }


def test_nothing_is_told_before_the_client_is_ready() -> None:
    session = Session()
    assert session.push(1) == session.heard("hi", "ann", "now", "m") == session.said("a", "Hello") == []
    assert session.starts("a") == session.grows("a", "Hello") == session.withdrawn("a") == []
    assert session.function_over("c", "where", cancelled=False) == []


def test_an_interruption_is_told_to_the_clients_that_know_it() -> None:
    session = ready("2.2.0")
    assert [one["type"] for one in told(session.interrupted())] == ["bot-interrupted"]
    assert ready("2.1.0").interrupted() == []


def test_a_function_that_is_over_takes_no_result_any_more() -> None:
    session = ready()
    session.function("c1", "where", {})
    (over,) = told(session.function_over("c1", "where", cancelled=True))
    assert over["type"] == "llm-function-call-stopped"
    assert over["data"] == {"tool_call_id": "c1", "cancelled": True, "function_name": "where"}
    assert session.hear(client("llm-function-call-result", {"tool_call_id": "c1", "result": 1})) == []
    assert ready("1.0.0").function_over("c1", "where", cancelled=True) == []


def test_a_reply_that_ends_with_its_sentence_has_no_empty_one() -> None:
    session = ready()
    session.starts("a")
    (_, output) = told(session.grows("a", "Hello. "))
    assert output["data"]["text"] == "Hello."
    assert [one["type"] for one in told(session.said("a", "Hello. "))] == ["bot-llm-stopped"]


def test_a_refusal_names_what_is_wrong() -> None:
    (refused,) = told(ready().hear(client("send-text", {"content": 5})))
    assert refused["data"]["error"] == "Invalid message: content: Input should be a valid string"
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert ready().hear(client("ui-event", {"event": "e", "payload": deep})) == [
        Shown("ui-event", {"event": "e", "payload": deep})
    ]


def test_an_answer_without_data_has_none() -> None:
    assert json.loads(message("bot-llm-started")) == {"label": "rtvi-ai", "type": "bot-llm-started"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*KINDS, "other"]), JSON), max_size=20),
    st.sampled_from(["2.2.0", "1.0.0", "9.9.9"]),
)
def test_whatever_a_client_sends_is_answered_at_most_once_and_never_raises(sent: list[Any], version: str) -> None:
    session = ready(version)
    for number, (kind, data) in enumerate(sent):
        acts = session.hear(client(kind, data, f"i{number}"))
        answers = [one for one in told(acts) if "id" in one]
        assert len(answers) <= 1
        assert all(one["id"] == f"i{number}" for one in answers)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    ready().hear(text)
