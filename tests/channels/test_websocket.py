"""WebSocketChannel: every connection told once, in order, at its own pace, and only about its own room."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel, ValidationError

from roomkit import Channel, RoomKit
from roomkit.channels import websocket
from roomkit.channels.websocket import (
    StreamChunk,
    StreamEnd,
    StreamError,
    StreamMessage,
    StreamStart,
    WebSocketChannel,
    WebSocketOptions,
)
from roomkit.errors import ChannelNotFound, UsageError
from roomkit.models.content import TextContent
from roomkit.models.event import EventSource, EventType, RoomEvent
from roomkit.models.hooks import BeforeCommit, Block
from roomkit.models.room import Access, ChannelBinding
from roomkit.ports.channel import RoomContext
from tests.core.rooms import Brain, kit_with, say, stream


class Client:
    """One socket. It takes what it is told at once, unless `delay` says how long each takes, or it is `stuck`."""

    def __init__(self, *, streaming: bool = False) -> None:
        self.streaming = streaming
        self.got: list[Any] = []
        self.at: list[float] = []
        self.delay = 0.0
        self.stuck = False
        self.broken: Exception | None = None

    async def send(self, connection_id: str, item: Any) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.broken is not None:
            raise self.broken
        self.got.append(item)
        self.at.append(asyncio.get_running_loop().time())

    def join(self, ws: WebSocketChannel, connection_id: str, room_id: str | None = "r") -> Callable[[], object]:
        stream_send = self.send if self.streaming else None
        return ws.register_connection(connection_id, self.send, stream_send_fn=stream_send, room_id=room_id)

    @property
    def messages(self) -> list[str]:
        """Texts of the whole events it was given."""
        return [item.text for item in self.got if isinstance(item, RoomEvent) and item.type is EventType.MESSAGE]

    @property
    def frames(self) -> list[str]:
        return [item.type for item in self.got if not isinstance(item, RoomEvent)]

    @property
    def streamed(self) -> str:
        return "".join(item.delta for item in self.got if isinstance(item, StreamChunk))


async def open_room(ws: WebSocketChannel, *others: Channel, rooms: tuple[str, ...] = ("r",)) -> RoomKit:
    kit = kit_with(ws, *others)
    for room_id in rooms:
        await kit.create_room(room_id, channels=[ws.channel_id, *(other.channel_id for other in others)])
    return kit


async def hear(kit: RoomKit, text: str, room_id: str = "r") -> None:
    result = await say(kit, text, room_id, channel="web", who="ann")
    await result.settled()


def event(text: str, index: int, *, room_id: str = "r", event_id: str | None = None, **more: Any) -> RoomEvent:
    from datetime import UTC, datetime

    return RoomEvent(
        id=event_id or f"e{index}",
        room_id=room_id,
        index=index,
        source=EventSource(channel_id="ai", channel_type="ai"),
        content=TextContent(text=text),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        **more,
    )


def seat(room_id: str = "r", **more: Any) -> ChannelBinding:
    at = event("", 0).created_at
    return ChannelBinding(channel_id="web", room_id=room_id, channel_type="websocket", attached_at=at, **more)


NOWHERE: Any = None
"""A RoomContext is not looked at."""


async def frames(*items: StreamMessage, fail: Exception | None = None) -> AsyncIterator[StreamMessage]:
    for item in items:
        yield item
    if fail is not None:
        raise fail


def reply_frames(text: str = "hello", *, stream_id: str = "e1") -> list[StreamMessage]:
    source = EventSource(channel_id="ai", channel_type="ai")
    start = StreamStart(room_id="r", stream_id=stream_id, source=source)
    chunks = [StreamChunk(room_id="r", stream_id=stream_id, offset=i, delta=c) for i, c in enumerate(text)]
    return [start, *chunks, StreamEnd(room_id="r", stream_id=stream_id, event=event(text, 1, event_id=stream_id))]


# -- the seed, item by item ------------------------------------------------------------------------------------------


async def test_s59_it_is_a_transport_channel_with_a_connection_registry() -> None:
    ws = WebSocketChannel("web")
    assert isinstance(ws, Channel)
    assert (ws.channel_id, ws.channel_type, ws.category, ws.reach) == ("web", "websocket", "transport", "cursor")
    assert ws.capabilities.max_length is None
    assert ws.capabilities.rich
    assert ws.connection_count == 0


async def test_s60_streaming_is_supported_exactly_while_a_connection_supports_it() -> None:
    ws = WebSocketChannel("web")
    assert not ws.supports_streaming_delivery
    Client().join(ws, "plain")
    assert not ws.supports_streaming_delivery
    leave = Client(streaming=True).join(ws, "fast")
    assert ws.supports_streaming_delivery
    leave()
    assert not ws.supports_streaming_delivery


async def test_s61_s62_connections_are_registered_at_once_under_an_id_of_their_own() -> None:
    ws = WebSocketChannel("web")
    assert not inspect.iscoroutinefunction(ws.register_connection)
    Client().join(ws, "one")
    assert ws.connection_count == 1
    with pytest.raises(UsageError, match='"one" is already registered'):
        Client().join(ws, "one")
    assert ws.connection_count == 1


async def test_s63_send_fn_gets_the_connection_id_and_whole_events() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    got: list[tuple[str, RoomEvent]] = []

    async def send(connection_id: str, told: RoomEvent) -> None:
        got.append((connection_id, told))

    ws.register_connection("c1", send, room_id="r")
    await hear(kit, "hi")
    assert [(cid, told.text) for cid, told in got if told.type is EventType.MESSAGE] == [("c1", "hi")]
    assert [told.index for _, told in got] == [
        e.index for e in await kit.events("r", after=0) if e.visibility != "internal"
    ]
    await kit.aclose()


async def test_s64_s66_s67_a_reply_streams_to_those_who_can_and_comes_whole_to_the_others() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("Hel", "lo", every=0.1)))
    fast, plain = Client(streaming=True), Client()
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    await hear(kit, "hi")
    assert fast.frames == ["stream_start", "stream_chunk", "stream_chunk", "stream_end"]
    assert fast.messages == ["hi"]
    assert plain.messages == ["hi", "Hello"]
    assert plain.frames == []
    end = fast.got[-1]
    stored = (await kit.events("r", newest_first=True, limit=1))[0]
    assert end.event == stored == plain.got[-1]
    assert end.stream_id == stored.id
    assert stored.text == "Hello"
    await kit.aclose()


async def test_s65_deliver_stream_called_by_a_host_streams_to_those_who_can() -> None:
    ws = WebSocketChannel("web")
    fast, plain, elsewhere = Client(streaming=True), Client(), Client(streaming=True)
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    elsewhere.join(ws, "elsewhere", "other")
    await ws.deliver_stream(frames(*reply_frames("hey")), seat(), NOWHERE)
    assert fast.got == reply_frames("hey")
    assert plain.messages == ["hey"]
    assert len(plain.got) == 1
    assert elsewhere.got == []
    await ws.close()


def test_s68_stream_start() -> None:
    start = reply_frames()[0]
    assert isinstance(start, StreamStart)
    assert isinstance(start, BaseModel)
    assert (start.type, start.room_id, start.stream_id, start.source.channel_id) == ("stream_start", "r", "e1", "ai")


def test_s69_stream_chunk() -> None:
    chunk = StreamChunk(room_id="r", stream_id="s", offset=3, delta="lo")
    assert chunk.model_dump() == {"type": "stream_chunk", "room_id": "r", "stream_id": "s", "offset": 3, "delta": "lo"}
    with pytest.raises(ValidationError):
        chunk.delta = "x"  # type: ignore[misc]


def test_s70_stream_end() -> None:
    end = StreamEnd(room_id="r", stream_id="e1", event=event("x", 1))
    assert (end.type, end.event.text) == ("stream_end", "x")
    assert StreamEnd.model_validate_json(end.model_dump_json()) == end


def test_s71_stream_error() -> None:
    error = StreamError(room_id="r", stream_id="s", error="muted")
    assert (error.type, error.error) == ("stream_error", "muted")


def test_s72_s73_the_module_names_the_union_and_the_functions() -> None:
    assert set(get_args(websocket.StreamMessage)) == {StreamStart, StreamChunk, StreamEnd, StreamError}
    arguments, returned = get_args(websocket.StreamSendFn)
    assert arguments == [str, StreamMessage]
    assert get_args(returned)[-1] in (None, type(None))
    assert get_args(websocket.SendFn)[0] == [str, RoomEvent]
    hints = get_type_hints(WebSocketChannel.register_connection, vars(websocket))
    assert hints["send_fn"] == websocket.SendFn


async def test_s74_unregistered_connections_are_gone() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    one, two = Client(), Client()
    one.join(ws, "one")
    two.join(ws, "two")
    assert ws.unregister_connection("one")
    assert not ws.unregister_connection("one")
    await hear(kit, "hi")
    assert (one.got, two.messages, ws.connection_count) == ([], ["hi"], 1)
    await kit.aclose()
    assert ws.connection_count == 0


# -- which room (D5) -------------------------------------------------------------------------------------------------


async def test_two_rooms_through_one_channel_never_hear_each_other() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(
        ws, Brain(script=lambda context, told: stream("re ", told.text, every=0.01)), rooms=("a", "b")
    )
    clients = {room: (Client(streaming=True), Client()) for room in "ab"}
    for room, (fast, plain) in clients.items():
        fast.join(ws, f"fast {room}", room)
        plain.join(ws, f"plain {room}", room)
    await asyncio.gather(*(hear(kit, f"{room}{n}", room) for n in range(5) for room in "ab"))
    for room, (fast, plain) in clients.items():
        told = [item.event if isinstance(item, StreamEnd) else item for item in (*fast.got, *plain.got)]
        assert {item.room_id for item in told} == {room}
        assert [t for t in plain.messages if not t.startswith("re ")] == [f"{room}{n}" for n in range(5)]
        indexes = [e.index for e in plain.got]
        assert indexes == sorted(set(indexes))
    await kit.aclose()


async def test_without_a_room_id_a_connection_belongs_to_the_only_room() -> None:
    ws = WebSocketChannel("web")
    client = Client()
    with pytest.raises(UsageError, match="room_id="):
        client.join(ws, "c", None)
    kit = kit_with(ws)
    with pytest.raises(UsageError, match="no open room"):
        client.join(ws, "c", None)
    await kit.create_room("r", channels=["web"])
    client.join(ws, "c", None)
    await hear(kit, "hi")
    assert client.messages == ["hi"]
    await kit.create_room("r2", channels=["web"])
    with pytest.raises(UsageError, match="room_id="):
        Client().join(ws, "d", None)
    await kit.close_room("r2")
    Client().join(ws, "e", None)
    assert ws.connection_count == 2
    await kit.aclose()


async def test_a_connection_of_a_room_that_does_not_exist_is_refused() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    with pytest.raises(Exception, match='room "nowhere" does not exist'):
        Client().join(ws, "c", "nowhere")
    assert ws.connection_count == 0
    await kit.aclose()


async def test_a_room_of_another_tenant_with_the_same_id_is_not_heard() -> None:
    ws, theirs = WebSocketChannel("web"), WebSocketChannel("theirs")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one ", "two ", every=1.0)))
    acme = kit.tenant("acme")
    acme.register_channel(theirs)
    await acme.create_room("r", channels=["theirs", "web"])
    mine, other = Client(streaming=True), Client()
    mine.join(ws, "c")
    other.join(theirs, "c")
    await acme.send("r", "secret")
    assert (mine.messages, other.messages) == ([], ["secret"])
    secret = (await acme.events("r", newest_first=True, limit=1))[0]
    await ws.deliver(secret, seat(), NOWHERE)
    result = await say(kit, "hello", "r", channel="web", who="ann")
    await asyncio.sleep(1.5)
    await acme.mute("r", "web", output=True)
    await result.settled()
    assert (mine.messages, mine.streamed, other.messages) == (["hello"], "one two ", ["secret"])
    await kit.aclose()


async def test_a_guess_that_proves_wrong_is_taken_back(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/rooms.db"
    async with RoomKit(url) as kit:
        kit.register_channel(WebSocketChannel("web"))
        await kit.create_room("a", channels=["web"])
        await kit.create_room("b", channels=["web"])
    cut: list[tuple[str, int]] = []
    ws = WebSocketChannel("web", on_cut=lambda cid, index: cut.append((cid, index)))
    async with RoomKit(url) as kit:
        kit.register_channel(ws)
        await kit.get_room("a")  # The other one is not in memory, so that it takes a moment to find it.
        Client().join(ws, "c", None)
        while not cut:
            await asyncio.sleep(0.01)
        assert (cut[0][0], ws.connection_count) == ("c", 0)


async def test_a_room_that_must_be_loaded_first_is_joined_without_a_gap(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/rooms.db"
    async with RoomKit(url) as kit:
        kit.register_channel(WebSocketChannel("web"))
        await kit.create_room("r", channels=["web"])
    ws, client = WebSocketChannel("web"), Client()
    async with RoomKit(url) as kit:
        kit.register_channel(ws)
        client.join(ws, "c")
        for n in range(5):
            await hear(kit, f"m{n}")
        assert client.messages == [f"m{n}" for n in range(5)]


async def test_a_connection_of_a_room_that_turns_out_not_to_exist_is_cut(tmp_path: Any) -> None:
    cut: list[tuple[str, int]] = []
    ws = WebSocketChannel("web", on_cut=lambda cid, index: cut.append((cid, index)))
    async with RoomKit(f"sqlite:///{tmp_path}/rooms.db") as kit:
        kit.register_channel(ws)
        Client().join(ws, "c", "nowhere")
        while not cut:
            await asyncio.sleep(0.01)
    assert (cut, ws.connection_count) == ([("c", -1)], 0)


# -- exactly once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listeners", [0, 1, 2])
async def test_a_reply_is_stored_and_told_once_whoever_listens(listeners: int) -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("a", "b", every=0.01)))
    clients = [Client(streaming=True) for _ in range(listeners)]
    for number, client in enumerate(clients):
        client.join(ws, f"c{number}")
    await hear(kit, "hi")
    assert [e.text for e in await kit.events("r") if e.source.channel_id == "ai" and e.type is EventType.MESSAGE] == [
        "ab"
    ]
    for client in clients:
        assert (client.messages, client.streamed, client.frames.count("stream_end")) == (["hi"], "ab", 1)
    await kit.aclose()


async def test_what_the_kit_and_the_host_both_deliver_is_told_once() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    client = Client(streaming=True)
    client.join(ws, "c")
    await hear(kit, "hi")
    stored = [item for item in client.got if isinstance(item, RoomEvent)]
    for told in stored:
        await ws.deliver(told, seat(), NOWHERE)
    assert client.got == stored
    await kit.aclose()


async def test_deliver_by_a_host_keeps_to_the_rights_of_the_seat() -> None:
    ws, client = WebSocketChannel("web"), Client()
    client.join(ws, "c")
    await ws.deliver(event("open", 1), seat(), NOWHERE)
    await ws.deliver(event("internal", 2, visibility="internal"), seat(), NOWHERE)
    await ws.deliver(event("muted", 3), seat(output_muted=True), NOWHERE)
    await ws.deliver(event("unreadable", 4), seat(access=Access.WRITE_ONLY), NOWHERE)
    assert client.messages == ["open"]
    assert (await ws.deliver(event("x", 5, room_id="empty"), seat("empty"), NOWHERE)).state == "skipped"
    await ws.close()


async def test_who_comes_in_the_middle_of_a_reply_sees_all_of_it() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one ", "two ", "three", every=1.0)))
    first, late, plain = Client(streaming=True), Client(streaming=True), Client()
    first.join(ws, "first")
    result = await say(kit, "hi", "r", channel="web", who="ann")
    await asyncio.sleep(2.5)
    late.join(ws, "late")
    plain.join(ws, "plain")
    await result.settled()
    assert [c.delta for c in first.got if isinstance(c, StreamChunk)] == ["one ", "two ", "three"]
    assert [(c.offset, c.delta) for c in late.got if isinstance(c, StreamChunk)] == [(0, "one two "), (8, "three")]
    assert (late.frames[0], late.frames[-1], late.messages) == ("stream_start", "stream_end", [])
    assert plain.messages == ["one two three"]
    await kit.aclose()


async def test_the_first_to_come_in_the_middle_of_a_reply_sees_all_of_it_too() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one ", "two ", "three", every=1.0)))
    late = Client(streaming=True)
    result = await say(kit, "hi", "r", channel="web", who="ann")
    await asyncio.sleep(1.5)
    late.join(ws, "late")
    await result.settled()
    assert late.frames == ["stream_start", "stream_chunk", "stream_chunk", "stream_chunk", "stream_end"]
    assert late.streamed == "one two three"
    await kit.aclose()


# -- what ends otherwise ---------------------------------------------------------------------------------------------


async def test_a_blocked_reply_is_withdrawn_from_those_who_saw_it_grow() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("a secret", every=0.1)))

    @kit.before(BeforeCommit)
    async def no_secrets(moment: BeforeCommit) -> Block | None:
        return Block("no") if "secret" in moment.value.text else None

    fast, plain = Client(streaming=True), Client()
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    await hear(kit, "hi")
    assert fast.frames == ["stream_start", "stream_chunk", "stream_error"]
    assert fast.messages == plain.messages == ["hi"]
    assert plain.frames == []
    await kit.aclose()


async def test_a_brain_muted_in_mid_stream_is_withdrawn() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one", "two", "three", every=1.0)))
    fast, plain = Client(streaming=True), Client()
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    result = await say(kit, "hi", "r", channel="web", who="ann")
    await asyncio.sleep(1.5)
    await kit.mute("r", "ai")
    await result.settled()
    assert fast.frames == ["stream_start", "stream_chunk", "stream_error"]
    assert fast.streamed == "one"
    assert plain.messages == ["hi"]
    assert [e.blocked_by for e in await kit.events("r", raw=True) if e.text == "onetwothree"] == ["source_muted"]
    await kit.aclose()


@pytest.mark.parametrize("how", ["output_muted", "no_access", "detached"])
async def test_a_channel_that_may_hear_no_more_loses_the_reply_it_saw_growing(how: str) -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one", "two", "three", every=1.0)))
    fast, plain = Client(streaming=True), Client()
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    result = await say(kit, "hi", "r", channel="web", who="ann")
    await asyncio.sleep(1.5)
    if how == "output_muted":
        await kit.mute("r", "web", output=True)
    elif how == "no_access":
        await kit.set_access("r", "web", Access.NONE)
    else:
        await kit.detach_channel("r", "web")
    await result.settled()
    await kit.send("r", "later")
    assert fast.frames == ["stream_start", "stream_chunk", "stream_error"]
    assert fast.messages == plain.messages == ["hi"]
    await kit.aclose()


async def test_output_muted_and_back_within_a_reply_the_whole_event_comes_at_its_end() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws, Brain(script=lambda context, told: stream("one ", "two ", "three", every=1.0)))
    fast = Client(streaming=True)
    fast.join(ws, "fast")
    result = await say(kit, "hi", "r", channel="web", who="ann")
    await asyncio.sleep(1.5)
    await kit.mute("r", "web", output=True)
    await kit.unmute("r", "web", output=True)
    await result.settled()
    assert fast.frames == ["stream_start", "stream_chunk", "stream_error"]
    assert fast.messages == ["hi", "one two three"]
    await kit.aclose()


@pytest.mark.parametrize("failure", [RuntimeError("the model broke"), None])
async def test_a_hosts_stream_that_breaks_off_is_withdrawn(failure: Exception | None) -> None:
    ws, fast, plain = WebSocketChannel("web"), Client(streaming=True), Client()
    fast.join(ws, "fast")
    plain.join(ws, "plain")
    cut_off = ws.deliver_stream(frames(*reply_frames()[:3], fail=failure), seat(), NOWHERE)
    if failure is None:
        await cut_off
    else:
        with pytest.raises(RuntimeError, match="broke"):
            await cut_off
    assert fast.frames == ["stream_start", "stream_chunk", "stream_chunk", "stream_error"]
    assert fast.got[-1].error == ("interrupted" if failure is None else "error")
    assert plain.got == []
    await ws.close()


async def test_a_hosts_stream_is_read_to_its_end_with_nobody_there() -> None:
    ws, taken = WebSocketChannel("web"), 0

    async def watched() -> AsyncIterator[StreamMessage]:
        nonlocal taken
        for item in reply_frames():
            taken += 1
            yield item

    await ws.deliver_stream(watched(), seat(), NOWHERE)
    assert taken == len(reply_frames())


# -- slow ones (P23) -------------------------------------------------------------------------------------------------


async def test_a_thousand_stalled_sockets_delay_nobody_and_are_cut() -> None:
    cut: dict[str, int] = {}
    ws = WebSocketChannel("web", on_cut=cut.__setitem__)
    kit = await open_room(ws)
    stalled, fast = [Client() for _ in range(1000)], Client()
    for number, client in enumerate(stalled):
        client.join(ws, f"s{number}")
    fast.join(ws, "fast")
    await hear(kit, "before")
    before = fast.got[-1].index
    for client in stalled:
        client.stuck = True
    start = asyncio.get_running_loop().time()
    for n in range(10):
        await hear(kit, f"m{n}")
    assert fast.messages == ["before", *(f"m{n}" for n in range(10))]
    assert fast.at[-1] == start
    assert ws.connection_count == 1001
    await asyncio.sleep(6)
    assert ws.connection_count == 1
    assert cut == {f"s{number}": before for number in range(1000)}
    await hear(kit, "after")
    assert fast.messages[-1] == "after"
    await kit.aclose()


async def test_a_send_that_nobody_waits_behind_is_given_three_times_as_long() -> None:
    cut: list[tuple[str, int]] = []
    ws = WebSocketChannel("web", on_cut=lambda cid, index: cut.append((cid, index)))
    kit = await open_room(ws)
    client = Client()
    client.join(ws, "c")
    await hear(kit, "hi")
    client.stuck = True
    await hear(kit, "hi")
    await asyncio.sleep(14.9)
    assert not cut
    await asyncio.sleep(0.2)
    assert (len(cut), ws.connection_count) == (1, 0)
    await kit.aclose()


async def test_slow_sends_in_a_row_are_cut_and_one_in_time_is_forgiven() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    forgiven, slow = Client(), Client()
    forgiven.join(ws, "forgiven")
    slow.join(ws, "slow")
    await hear(kit, "hi")
    for delay in (6.0, 6.0, 1.0, 6.0, 6.0):
        forgiven.delay, slow.delay = delay, 6.0
        await hear(kit, "hi")
        await asyncio.sleep(7.0)
    assert (ws.unregister_connection("slow"), ws.unregister_connection("forgiven")) == (False, True)
    assert len(forgiven.messages) == 6
    await kit.aclose()


async def test_a_connection_that_falls_behind_gets_everything_in_order_and_chunks_merged() -> None:
    ws = WebSocketChannel("web")
    words = [f"w{n} " for n in range(50)]
    kit = await open_room(ws, Brain(script=lambda context, told: stream(*words, every=0.01)))
    fast, behind = Client(streaming=True), Client(streaming=True)
    behind.delay = 0.2
    fast.join(ws, "fast")
    behind.join(ws, "behind")
    await hear(kit, "hi")
    await asyncio.sleep(5)
    assert fast.streamed == behind.streamed == "".join(words)
    assert fast.frames.count("stream_chunk") == 50
    assert behind.frames.count("stream_chunk") < 10
    offset = 0
    for chunk in (item for item in behind.got if isinstance(item, StreamChunk)):
        assert chunk.offset == offset
        offset += len(chunk.delta)
    assert behind.got[-1] == fast.got[-1]
    await kit.aclose()


async def test_chunks_that_do_not_follow_each_other_stay_apart() -> None:
    ws, behind = WebSocketChannel("web"), Client(streaming=True)
    behind.delay = 0.2
    behind.join(ws, "behind")
    start, *_, end = reply_frames("abcdef")
    pieces = [StreamChunk(room_id="r", stream_id="e1", offset=o, delta=d) for o, d in ((0, "ab"), (2, "c"), (4, "ef"))]
    await ws.deliver_stream(frames(start, *pieces, end), seat(), NOWHERE)
    await asyncio.sleep(2)
    assert [(c.offset, c.delta) for c in behind.got if isinstance(c, StreamChunk)] == [(0, "abc"), (4, "ef")]
    await ws.close()


async def test_a_full_buffer_cuts_at_once_and_tells_from_where_to_resume() -> None:
    cut: list[tuple[str, int]] = []

    async def on_cut(connection_id: str, index: int) -> None:
        await asyncio.sleep(0)
        cut.append((connection_id, index))

    ws = WebSocketChannel("web", on_cut=on_cut, options=WebSocketOptions(buffer=10_000))
    kit = await open_room(ws)
    client = Client()
    client.join(ws, "c")
    await hear(kit, "taken")
    taken = client.got[-1].index
    client.stuck = True
    start = asyncio.get_running_loop().time()
    for _ in range(5):
        await hear(kit, "x" * 3000)
    await asyncio.sleep(0.01)
    assert cut == [("c", taken)]
    assert asyncio.get_running_loop().time() - start < 1
    missed = await kit.events("r", after=taken)
    assert [len(e.text) for e in missed] == [3000] * 5
    await kit.aclose()


async def test_the_item_that_did_not_fit_counts_as_missed() -> None:
    cut: list[tuple[str, int]] = []
    ws = WebSocketChannel("web", on_cut=lambda *told: cut.append(told), options=WebSocketOptions(buffer=200))
    client = Client(streaming=True)
    client.join(ws, "c")
    await ws.deliver(event("taken", 0), seat(), NOWHERE)
    client.stuck = True
    start, chunk, *_, end = reply_frames("hello")
    await ws.deliver_stream(frames(start, chunk, end), seat(), NOWHERE)
    assert cut == [("c", 0)]
    await ws.close()


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed"), ValueError("a bug")])
async def test_a_send_that_raises_ends_its_connection_only(error: Exception) -> None:
    cut: list[tuple[str, int]] = []
    ws = WebSocketChannel("web", on_cut=lambda cid, index: cut.append((cid, index)))
    kit = await open_room(ws)
    broken, whole = Client(), Client()
    broken.join(ws, "broken")
    whole.join(ws, "whole")
    await hear(kit, "one")
    index = broken.got[-1].index
    broken.broken = error
    await hear(kit, "two")
    assert whole.messages == ["one", "two"]
    assert (cut, ws.connection_count) == ([("broken", index)], 1)
    await kit.aclose()


async def test_a_host_whose_on_cut_fails_costs_nobody_an_event() -> None:
    def on_cut(connection_id: str, index: int) -> None:
        raise ValueError("a bug")

    ws = WebSocketChannel("web", on_cut=on_cut)
    kit = await open_room(ws)
    broken, whole = Client(), Client()
    broken.broken = OSError()
    broken.join(ws, "broken")
    whole.join(ws, "whole")
    await hear(kit, "one")
    assert (whole.messages, ws.connection_count) == (["one"], 1)
    await kit.aclose()


# -- coming and going ------------------------------------------------------------------------------------------------


async def test_a_connection_may_unregister_itself_while_it_is_told_something() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    ended: list[str] = []

    async def send(connection_id: str, told: RoomEvent) -> None:
        await asyncio.sleep(1)
        ws.unregister_connection(connection_id)
        await asyncio.sleep(1)
        ended.append(connection_id)

    other = Client()
    ws.register_connection("c", send, room_id="r")
    other.join(ws, "other")
    await hear(kit, "one")
    await asyncio.sleep(3)
    assert (ended, other.messages) == (["c"], ["one"])
    await kit.aclose()


async def test_unregistering_stops_a_send_under_way() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    client = Client()
    client.delay = 3.0
    client.join(ws, "c")
    await hear(kit, "one")
    ws.unregister_connection("c")
    await asyncio.sleep(5)
    assert client.got == []
    await kit.aclose()


async def test_p54_leaving_late_does_not_take_the_successors_seat() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    old, new = Client(), Client()
    leave_old = old.join(ws, "c")
    ws.unregister_connection("c")
    new.join(ws, "c")
    leave_old()
    await hear(kit, "hi")
    assert (old.messages, new.messages, ws.connection_count) == ([], ["hi"], 1)
    await kit.aclose()


async def test_p54_closing_an_old_channel_leaves_its_replacement_alone() -> None:
    old, new, client = WebSocketChannel("web"), WebSocketChannel("web"), Client()
    kit = await open_room(old)
    Client().join(old, "c")
    await kit.unregister_channel("web")
    kit.register_channel(new)
    client.join(new, "c")
    await old.close()
    await hear(kit, "hi")
    assert (client.messages, old.connection_count) == (["hi"], 0)
    await kit.aclose()


async def test_the_room_is_subscribed_to_only_while_somebody_is_there() -> None:
    ws = WebSocketChannel("web")
    kit = await open_room(ws)
    actor = await kit.engine.table.require("default", "r")
    assert actor.hub.idle
    leave, leave_too = Client().join(ws, "one"), Client().join(ws, "two")
    assert actor.hub.viewers() == 1
    leave()
    assert actor.hub.viewers() == 1
    leave_too()
    assert actor.hub.idle
    await kit.aclose()


async def test_connections_registered_before_the_channel_hear_from_then_on() -> None:
    ws, client = WebSocketChannel("web"), Client()
    client.join(ws, "c")
    kit = RoomKit()
    await kit.create_room("r")
    kit.register_channel(ws)
    await kit.attach_channel("r", "web")
    await hear(kit, "hi")
    assert client.messages == ["hi"]
    await kit.aclose()


async def test_after_close_the_channel_can_be_used_again() -> None:
    ws, client = WebSocketChannel("web"), Client()
    kit = await open_room(ws)
    client.join(ws, "c")
    await ws.close()
    assert ws.connection_count == 0
    client.join(ws, "c")
    await hear(kit, "hi")
    assert client.messages == ["hi"]
    await kit.aclose()


def test_deliver_takes_the_arguments_of_every_channel() -> None:
    assert list(inspect.signature(WebSocketChannel.deliver).parameters) == ["self", "event", "binding", "context"]
    assert RoomContext.__name__ in str(inspect.signature(WebSocketChannel.deliver_stream))


async def test_rooms_of_two_tenants_with_the_same_id_are_kept_apart() -> None:
    ws, got = WebSocketChannel("web"), dict[str, list[str]]()

    async def send(connection_id: str, event: RoomEvent) -> None:
        got.setdefault(connection_id, []).append(event.text)

    kit = RoomKit()
    kit.register_channel(ws, default=True)
    async with kit:
        acme = kit.tenant("acme")
        for rooms in (kit, acme):
            await rooms.create_room("support")
        ws.register_connection("ours", send, room_id="support")
        ws.register_connection("theirs", send, room_id="support", tenant="acme")
        await kit.send("support", "for us")
        await acme.send("support", "for acme")
        await asyncio.sleep(0.1)
        assert got == {"ours": ["for us"], "theirs": ["for acme"]}
        with pytest.raises(UsageError, match="shared by all tenants"):
            await acme.unregister_channel("web")
        assert "web" in kit.channels


async def test_a_channel_of_one_tenant_opens_no_room_of_another() -> None:
    ws = WebSocketChannel("web")

    async def send(connection_id: str, event: RoomEvent) -> None: ...

    kit = RoomKit()
    kit.tenant("acme").register_channel(ws)
    async with kit:
        await kit.create_room("r", channels=[])
        with pytest.raises(ChannelNotFound):
            ws.register_connection("c", send, room_id="r", tenant="default")


async def test_how_many_slow_sends_are_forgiven_is_the_hosts_to_say() -> None:
    cut: list[tuple[str, int]] = []
    options = WebSocketOptions(strikes=1)
    ws = WebSocketChannel("web", on_cut=lambda cid, index: cut.append((cid, index)), options=options)
    kit = await open_room(ws)
    client = Client()
    client.join(ws, "c")
    await hear(kit, "hi")
    client.stuck = True
    await hear(kit, "hi")
    await asyncio.sleep(4.9)
    assert not cut
    await asyncio.sleep(0.2)
    assert len(cut) == 1
    await kit.aclose()
