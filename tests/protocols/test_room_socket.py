"""The room socket's two state machines: every frame, every refusal, every way back (R6, D13, D32, D33)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.errors import LocalProtocolError, RemoteProtocolError
from roomkit.models.content import MediaContent, TextContent
from roomkit.models.event import EventSource, RoomEvent
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.protocols.room_socket import (
    CLOSE_CODES,
    Chunk,
    ClientSession,
    Close,
    Limits,
    Refused,
    ServerSession,
    merge_outgoing,
    wire,
)
from roomkit.protocols.room_socket import messages as m
from roomkit.protocols.room_socket.codec import size_outgoing

SOURCE = EventSource(channel_id="ai", channel_type="ai", raw_payload={"secret": 1})


def server(**limits: Any) -> ServerSession:
    return ServerSession(Limits(**limits))


def ready(**limits: Any) -> ServerSession:
    """Authenticated and in room r at position 4."""
    session = server(**limits)
    session.welcome({"id": "ada"}, heartbeat_s=20, expires_at=None)
    session.view(fields(index=4), events=[])
    return session


def fields(index: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "room_id": "r",
        "epoch": "e1",
        "index": index,
        "room": {},
        "participants": [],
        "more": False,
        "streams": [],
        **more,
    }


def say(session: ServerSession, now: float = 0.0, **frame: Any) -> Any:
    return session.receive(json.dumps(frame), now)


def refused(verdict: Any) -> dict[str, Any]:
    assert isinstance(verdict, Refused), verdict
    return json.loads(verdict.reply)


def event_json(index: int) -> str:
    return json.dumps({"id": f"e{index}", "index": index})


# -- the server's side ------------------------------------------------------------------------------------------------


def test_the_first_frame_must_be_auth_and_nothing_else_is_read() -> None:
    for first in (
        "nonsense",
        "[]",
        '{"type":"ping"}',
        '{"type":"auth"}',
        '{"type":"what"}',
        '{"type":"auth","token":"t","v":9}',
    ):
        verdict = server().receive(first, 0)
        assert isinstance(verdict, Close), first
        assert verdict.code == 4400
    assert say(server(), type="auth", token="t", v=1) == m.Auth(token="t", v=1)


def test_the_token_never_shows_in_a_repr() -> None:
    assert "hunter2" not in repr(say(server(), type="auth", token="hunter2", v=1))


def test_binary_is_refused() -> None:
    assert ready().receive(b"{}", 0) == Close(4400, "binary messages are not part of this protocol")


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "join", "room_id": "r"},
        {"type": "join", "room_id": "r", "tail": 0, "resume": {"epoch": "e", "index": -1}},
        {"type": "leave"},
        {"type": "send", "client_id": "c", "text": "hi", "parent": "p"},
        {"type": "send", "client_id": "c", "content": {"type": "media", "url": "blob:1", "mime_type": "image/png"}},
        {"type": "send", "client_id": "c", "content": {"type": "composite", "parts": [{"type": "text", "text": "a"}]}},
        {"type": "typing", "on": True},
        {"type": "presence", "state": "away"},
        {"type": "read", "index": 0},
        {"type": "history", "before": 10, "limit": 200},
        {"type": "watch", "on": False},
        {"type": "ping", "t": 1.5},
    ],
)
def test_good_frames_pass(frame: dict[str, Any]) -> None:
    verdict = say(ready(), **frame)
    assert verdict.type == frame["type"]


@pytest.mark.parametrize(
    "text, code",
    [
        ("{", "bad_json"),
        ("[1]", "bad_json"),
        ('{"type": NaN}', "bad_json"),
        ("[" * 60_000, "bad_json"),
        ("{}", "unknown_type"),
        ('{"type": 7}', "unknown_type"),
        ('{"type": "shout"}', "unknown_type"),
        ('{"type": "join"}', "bad_frame"),
        ('{"type": "join", "room_id": ""}', "bad_frame"),
        ('{"type": "join", "room_id": "r", "extra": 1}', "bad_frame"),
        ('{"type": "join", "room_id": "r", "tail": 201}', "bad_frame"),
        ('{"type": "typing", "on": 1}', "bad_frame"),
        ('{"type": "presence", "state": "dead"}', "bad_frame"),
        ('{"type": "read", "index": -1}', "bad_frame"),
        ('{"type": "history", "before": 5, "limit": 201}', "bad_frame"),
        ('{"type": "send", "text": "no id"}', "bad_frame"),
        ('{"type": "auth", "token": "t", "v": 2}', "unsupported_version"),
    ],
)
def test_a_bad_frame_is_an_error_and_the_connection_stays(text: str, code: str) -> None:
    session = ready()
    error = refused(session.receive(text, 0))
    assert (error["type"], error["code"]) == ("error", code)
    assert isinstance(say(session, type="ping"), m.Ping)


@pytest.mark.parametrize(
    "bad",
    [
        {"text": "a", "content": {"type": "text", "text": "b"}},
        {},
        {"content": {"type": "nonsense"}},
        {"text": ""},
        {"text": "x", "surprise": True},
    ],
)
def test_a_bad_send_is_answered_by_its_own_id(bad: dict[str, Any]) -> None:
    nack = refused(say(ready(), type="send", client_id="c9", **bad))
    assert (nack["type"], nack["client_id"], nack["code"]) == ("nack", "c9", "invalid")


def test_frames_of_a_room_need_a_room() -> None:
    session = server()
    session.welcome({}, heartbeat_s=20, expires_at=None)
    assert refused(say(session, type="typing", on=True)) == {
        "type": "error",
        "code": "not_joined",
        "message": "join a room first",
        "ref": "typing",
    }
    assert refused(say(session, type="send", client_id="c", text="x"))["code"] == "not_joined"
    joined = ready()
    joined.left()
    assert refused(say(joined, type="leave"))["code"] == "not_joined"


def test_sizes_are_counted_in_bytes_and_characters() -> None:
    session = ready(frame_bytes=200, text_chars=5)
    assert refused(session.receive('{"type":"ping","t":"' + "é" * 95 + '"}', 0))["code"] == "too_large"
    assert refused(session.receive("x" * 201, 0))["code"] == "too_large"
    assert refused(say(session, type="send", client_id="c", text="123456"))["code"] == "too_large"
    assert say(session, type="send", client_id="c", text="12345").text == "12345"


def test_rates_refuse_with_the_time_to_wait_and_refill() -> None:
    session = ready(sends_per_s=2, sends_burst=1, frames_per_s=10, frames_burst=3)
    assert isinstance(say(session, type="send", client_id="a", text="1"), m.Send)
    nack = refused(say(session, type="send", client_id="b", text="2"))
    assert (nack["code"], nack["retry_after"]) == ("rate_limited", 0.5)
    assert isinstance(say(session, type="ping"), m.Ping)
    error = refused(say(session, type="ping"))
    assert (error["code"], error["retry_after"], error["ref"]) == ("rate_limited", 0.1, "ping")
    assert isinstance(say(session, now=0.5, type="send", client_id="b", text="2"), m.Send)


def test_a_client_that_never_gets_it_right_is_cut() -> None:
    session = ready(violations=3)
    assert isinstance(session.receive("x", 0), Refused)
    assert isinstance(session.receive("x", 0), Refused)
    assert session.receive("x", 0) == Close(4400, "3 frames in a row were refused")
    forgiven = ready(violations=3)
    for text in ("x", "x", '{"type":"ping"}', "x", "x"):
        assert not isinstance(forgiven.receive(text, 0), Close)
    flood = ready(violations=2, frames_burst=1, frames_per_s=1)
    say(flood, type="ping")
    assert isinstance(say(flood, type="ping"), Refused)
    assert say(flood, type="ping") == Close(4429, "over the rate limit for too long")


def test_events_carry_the_position_before_them_and_are_told_once() -> None:
    session = ready()
    assert json.loads(session.event(7, event_json(7)) or "") == {
        "type": "event",
        "index": 7,
        "prev": 4,
        "event": {"id": "e7", "index": 7},
    }
    assert session.event(7, event_json(7)) is None
    end = json.loads(session.stream_end("s", 9, event_json(9)) or "")
    assert (end["type"], end["prev"], end["index"], end["room_id"]) == ("stream_end", 7, 9, "r")
    assert session.stream_end("s", 9, event_json(9)) is None


def test_nothing_of_a_room_is_said_before_its_snapshot() -> None:
    with pytest.raises(LocalProtocolError):
        server().stream_end("s", 0, "{}")


def test_views() -> None:
    session = server()
    snapshot = json.loads(session.view(fields(index=2), events=[event_json(1), event_json(2)]))
    assert (snapshot["type"], [e["index"] for e in snapshot["events"]], session.position) == ("snapshot", [1, 2], 2)
    resumed = json.loads(session.view(fields(index=3), events=[], resumed_from=1))
    assert (resumed["type"], resumed["from"], resumed["events"]) == ("resumed", 1, [])
    assert json.loads(session.resync_required("r", "epoch")) == {
        "type": "resync_required",
        "room_id": "r",
        "reason": "epoch",
    }
    page = json.loads(session.history("r", [event_json(0)], more=True))
    assert (page["events"][0]["id"], page["more"]) == ("e0", True)
    assert json.loads(session.ack("c", 3, "e3", duplicate=True))["duplicate"] is True
    assert json.loads(session.say("pong", t=None)) == {"type": "pong", "t": None}


def test_stream_frames_hide_the_source_payload() -> None:
    session = ready()
    start = json.loads(str(session.stream(StreamStart(room_id="r", stream_id="s", source=SOURCE))))
    assert start["source"] == {"channel_id": "ai", "channel_type": "ai", "direction": "inbound", "participant_id": None}
    chunk = session.stream(StreamChunk(room_id="r", stream_id="s", offset=2, delta='a"\n'))
    assert json.loads(wire(chunk)) == {
        "type": "stream_chunk",
        "room_id": "r",
        "stream_id": "s",
        "offset": 2,
        "delta": 'a"\n',
    }
    error = json.loads(str(session.stream(StreamError(room_id="r", stream_id="s", error="withheld"))))
    assert (error["type"], error["error"]) == ("stream_error", "withheld")
    event = RoomEvent(
        id="s",
        room_id="r",
        index=0,
        source=SOURCE,
        content=TextContent(text="x"),
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(LocalProtocolError):
        session.stream(StreamEnd(room_id="r", stream_id="s", event=event))


def test_only_adjacent_chunks_of_one_reply_merge() -> None:
    a, b = Chunk("r", "s", 0, "ab"), Chunk("r", "s", 2, "c")
    assert merge_outgoing(a, b) == Chunk("r", "s", 0, "abc")
    assert a.delta == "ab"
    for other in ("text", Chunk("r", "t", 2, "c"), Chunk("r", "s", 3, "c"), Chunk("q", "s", 2, "c")):
        assert merge_outgoing(a, other) is None
    assert merge_outgoing("text", a) is None
    assert size_outgoing(a) > 2
    assert size_outgoing("four") == 4
    assert wire("as it is") == "as it is"


def test_every_close_code_is_explained() -> None:
    assert all(CLOSE_CODES.values())
    assert set(CLOSE_CODES) >= m.FINAL_CODES


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.binary(max_size=20),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                max_leaves=8,
            ).map(json.dumps),
            st.dictionaries(
                st.sampled_from(
                    ["type", "client_id", "text", "room_id", "content", "v", "token", "on", "index", "resume"]
                ),
                st.one_of(
                    st.sampled_from([*m.CLIENT_TYPES, "x"]),
                    st.integers(-2, 2**60),
                    st.booleans(),
                    st.fixed_dictionaries({"epoch": st.just("e"), "index": st.integers(-2, 5)}),
                    st.fixed_dictionaries(
                        {"type": st.sampled_from(["text", "composite"]), "text": st.text(max_size=3)}
                    ),
                ),
            ).map(json.dumps),
        ),
        max_size=12,
    )
)
def test_no_input_breaks_the_server_side(inputs: list[str | bytes]) -> None:
    for session in (server(), ready(violations=5)):
        for number, data in enumerate(inputs):
            verdict = session.receive(data, number * 0.01)
            if isinstance(verdict, Close):
                assert verdict.code in CLOSE_CODES
                break
            if isinstance(verdict, Refused):
                assert session.authenticated
                assert json.loads(verdict.reply)["type"] in {"error", "nack"}
            else:
                assert session.authenticated or isinstance(verdict, m.Auth)


# -- the client's side ------------------------------------------------------------------------------------------------


def client() -> ClientSession:
    return ClientSession("r", tail=10)


def sent(session: ClientSession) -> list[dict[str, Any]]:
    return [json.loads(text) for text in session.data_to_send()]


WELCOME = json.dumps({"type": "welcome", "v": 1, "principal": {"id": "ada"}, "heartbeat_s": 20, "limits": {}})


def view(kind: str = "snapshot", index: int = 4, **more: Any) -> str:
    return json.dumps({"type": kind, **fields(index), "events": [], **more})


def event(index: int, prev: int) -> str:
    return json.dumps({"type": "event", "index": index, "prev": prev, "event": {"id": f"e{index}"}})


def chunk(offset: int, delta: str) -> str:
    return json.dumps({"type": "stream_chunk", "room_id": "r", "stream_id": "s", "offset": offset, "delta": delta})


def live() -> ClientSession:
    session = client()
    session.connected("t")
    session.receive(WELCOME)
    session.receive(view())
    session.data_to_send()
    return session


def test_a_client_authenticates_joins_and_goes_live() -> None:
    session = client()
    session.connected("t")
    assert sent(session) == [{"type": "auth", "token": "t", "v": 1}]
    session.receive(WELCOME)
    assert sent(session) == [{"type": "join", "room_id": "r", "tail": 10}]
    assert not session.live
    session.receive(view())
    assert (session.live, session.position, session.epoch) == (True, 4, "e1")
    session.connected(None)
    assert sent(session) == []
    session.receive(WELCOME)
    assert sent(session)[0]["resume"] == {"epoch": "e1", "index": 4}


def test_renewing_does_not_join_again() -> None:
    session = live()
    session.renew("t2")
    assert sent(session) == [{"type": "auth", "token": "t2", "v": 1}]
    session.receive(WELCOME)
    assert sent(session) == []


def test_repetitions_are_dropped_and_gaps_join_again_once() -> None:
    session = live()
    assert session.receive(event(6, 4))[0].type == "event"
    assert session.receive(event(6, 4)) == []
    assert session.receive(event(9, 8)) == []
    assert session.receive(event(10, 9)) == []
    assert sent(session) == [{"type": "join", "room_id": "r", "tail": 10, "resume": {"epoch": "e1", "index": 6}}]
    resumed = session.receive(view("resumed", 10, **{"from": 6, "events": [{"id": "e9"}]}))
    assert resumed[0].type == "resumed"
    assert session.position == 10
    assert sent(session) == []
    session.receive(event(12, 11))
    assert len(sent(session)) == 1
    session.receive(json.dumps({"type": "error", "code": "overloaded", "message": "", "ref": "join"}))
    session.receive(event(13, 12))
    assert len(sent(session)) == 1


def test_nothing_is_believed_before_the_snapshot_or_about_another_room() -> None:
    session = client()
    assert session.receive(event(0, -1)) == []
    assert session.receive(view(room_id="other")) == []
    assert not session.live


def test_a_resync_forgets_the_position() -> None:
    session = live()
    session.receive(json.dumps({"type": "resync_required", "room_id": "r", "reason": "epoch"}))
    assert (session.epoch, session.position) == (None, -1)


def test_messages_wait_for_the_room_and_are_sent_again_until_acknowledged() -> None:
    session = client()
    session.send("c1", "one")
    session.connected("t")
    session.receive(WELCOME)
    assert [frame["type"] for frame in sent(session)] == ["auth", "join"]
    session.receive(view())
    assert sent(session) == [{"type": "send", "client_id": "c1", "text": "one"}]
    session.send("c2", MediaContent(url="blob:1", mime_type="image/png"), parent="e1")
    assert sent(session)[0]["content"] == {"type": "media", "url": "blob:1", "mime_type": "image/png"}
    with pytest.raises(LocalProtocolError):
        session.send("c2", "again")
    session.receive(json.dumps({"type": "ack", "client_id": "c1", "index": 5, "event_id": "e5"}))
    session.connected("t")
    session.receive(WELCOME)
    session.receive(view("resumed", 5, **{"from": 4}))
    assert [frame.get("client_id") for frame in sent(session)] == [None, None, "c2"]


def test_a_nack_ends_a_message_unless_it_may_be_repeated() -> None:
    session = live()
    session.send("a", "1")
    session.send("b", "2")
    session.data_to_send()
    session.receive(json.dumps({"type": "nack", "client_id": "a", "code": "blocked", "message": "rule"}))
    session.receive(
        json.dumps({"type": "nack", "client_id": "b", "code": "overloaded", "message": "", "retry_after": 1})
    )
    assert list(session.unacknowledged) == ["b"]
    session.resend("b")
    session.resend("a")
    assert [frame["client_id"] for frame in sent(session)] == ["b"]


def test_signs_of_life_are_dropped_while_away() -> None:
    session = client()
    session.say("typing", on=True)
    session.say("ping")
    assert [frame["type"] for frame in sent(session)] == ["ping"]


def test_replies_are_put_together_by_offset() -> None:
    session = live()
    session.receive(json.dumps({"type": "stream_start", "room_id": "r", "stream_id": "s"}))
    session.receive(chunk(0, "Hé"))
    again = session.receive(chunk(0, "Héllo"))
    assert (again[0].offset, again[0].delta) == (2, "llo")  # type: ignore[union-attr]
    assert session.receive(chunk(3, "l")) == []
    assert session.streams == {"s": "Héllo"}
    assert session.receive(chunk(9, "!")) == []
    assert sent(session)[0]["type"] == "join"
    session.receive(
        view("resumed", 4, **{"from": 4, "streams": [{"stream_id": "s", "text": "Héllo all", "offset": 9}]})
    )
    session.receive(chunk(9, "!"))
    assert session.streams == {"s": "Héllo all!"}
    end = {"type": "stream_end", "room_id": "r", "stream_id": "s", "index": 5, "prev": 4, "event": {"id": "s"}}
    assert session.receive(json.dumps(end))[0].type == "stream_end"
    assert session.streams == {}
    assert session.receive(chunk(0, "late")) == []


def test_a_withdrawn_reply_is_forgotten() -> None:
    session = live()
    session.receive(json.dumps({"type": "stream_start", "room_id": "r", "stream_id": "s"}))
    session.receive(json.dumps({"type": "stream_error", "room_id": "r", "stream_id": "s", "error": "withheld"}))
    assert session.streams == {}


def test_a_client_survives_a_newer_server_but_not_nonsense() -> None:
    session = live()
    assert session.receive('{"type": "hologram", "x": 1}') == []
    assert session.receive('{"type": "pong", "t": 1, "new": true}')[0].type == "pong"
    for bad in ("{", "[]", '{"type": 1}', '{"type": "event"}'):
        with pytest.raises(RemoteProtocolError) as caught:
            session.receive(bad)
        assert caught.value.offending == bad


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.text(min_size=1, max_size=5)), max_size=25), st.data())
def test_whatever_is_cut_both_sides_agree_in_the_end(script: list[tuple[bool, bool, str]], data: st.DataObject) -> None:
    """Events (some hidden), connections cut at any frame: the client ends with exactly the visible log."""
    log = [(index, visible) for index, (visible, _, _) in enumerate(script)]
    session, seen = client(), []
    there = 0

    def connect() -> ServerSession:
        end = ready()
        session.connected("t")
        session.receive(WELCOME)
        join = sent(session)[-1]
        after = join.get("resume", {}).get("index", -1)
        missed = [event_json(index) for index, visible in log[:there] if visible and index > after]
        text = end.view(fields(there - 1), events=missed, resumed_from=after if "resume" in join else None)
        for frame in session.receive(text):
            seen.extend(item["index"] for item in frame.events)  # type: ignore[union-attr]
        return end

    end = connect()
    for index, visible in log:
        there = index + 1
        frame = end.event(index, event_json(index)) if visible else None
        if frame is not None and data.draw(st.integers(0, 5)):
            seen.extend(got.event["index"] for got in session.receive(frame))  # type: ignore[union-attr]
        elif frame is not None:
            end = connect()
    connect()
    assert seen == [index for index, visible in log if visible]
