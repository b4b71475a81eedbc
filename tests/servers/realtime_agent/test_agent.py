"""RealtimeKitAgent in a channel under virtual time: who it serves, what it says, when it falls silent, when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from roomkit.errors import UsageError
from roomkit.models import realtime as rt
from roomkit.ports.rtc import ChatMessage, RtcEvent, RtcOptions
from roomkit.runtime import DropOldestBuffer, monotonic
from roomkit.servers.realtime_agent.agent import InferenceConfig, RealtimeKitAgent, wait_for_remote_user
from roomkit.servers.realtime_agent.local import LocalRtcEngine
from roomkit.servers.realtime_agent.pcm import PCMWriter
from roomkit.servers.realtime_agent.tools import LocalToolCallExecuted, ShouldPassThroughToolCall, ToolContext
from roomkit.voice.realtime.mock import MockRealtimeProvider


class FakeChannel:
    """A channel in memory. `pushed` is (when, frame) of everything that was pushed and not cleared."""

    def __init__(self) -> None:
        self.remote_users: dict[int, Any] = {}
        self.frames: DropOldestBuffer[bytes] = DropOldestBuffer(100)
        self.pushed: list[tuple[float, bytes]] = []
        self.clears = 0
        self.messages: list[dict[str, Any]] = []
        self.connected = False
        self.subscribed: list[int] = []
        self._observers: list[Callable[[RtcEvent], None]] = []

    def observe(self, observer: Callable[[RtcEvent], None]) -> Callable[[], None]:
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def tell(self, event: RtcEvent) -> None:
        for observer in tuple(self._observers):
            observer(event)

    def joins(self, uid: int) -> None:
        self.remote_users[uid] = uid
        self.tell(RtcEvent("user_joined", uid))

    def leaves(self, uid: int) -> None:
        self.remote_users.pop(uid)
        self.frames.close()
        self.tell(RtcEvent("user_left", uid))

    async def connect(self) -> None:
        self.connected = True

    async def disconnect(self) -> None:
        self.connected = False
        self.frames.close()

    async def subscribe_audio(self, uid: int) -> None:
        self.subscribed.append(uid)

    async def get_audio_frames(self, uid: int) -> AsyncIterator[bytes]:
        async for frame in self.frames:
            yield frame

    async def push_audio_frame(self, frame: bytes) -> None:
        self.pushed.append((monotonic(), frame))

    async def clear_sender_audio_buffer(self) -> None:
        self.clears += 1

    async def send_message(self, message: ChatMessage) -> None:
        self.messages.append({"msg_id": message.msg_id, **json.loads(message.message)})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


class Engine:
    def __init__(self) -> None:
        self.channel = FakeChannel()

    def create_channel(self, options: RtcOptions) -> FakeChannel:
        return self.channel

    async def aclose(self) -> None: ...


class Scene:
    def __init__(self, tools: ToolContext | None = None) -> None:
        self.engine = Engine()
        self.provider = MockRealtimeProvider()
        self.channel = self.engine.channel
        self.task = asyncio.ensure_future(
            RealtimeKitAgent.setup_and_run_agent(
                self.engine,
                RtcOptions(channel_name="test", uid=1),
                InferenceConfig(system_message="Be kind.", voice="alloy"),
                tools,
                provider=self.provider,
            )
        )

    async def start(self) -> None:
        await asyncio.sleep(0.1)
        self.channel.joins(7)
        await asyncio.sleep(0.1)

    async def end(self) -> str:
        self.channel.leaves(7)
        return await self.task


async def test_it_waits_for_a_user_hears_and_speaks_and_ends_when_the_user_leaves() -> None:
    scene = Scene()
    await scene.start()
    model = scene.provider.session
    assert model.config.system_prompt == "Be kind."
    assert (model.config.voice, model.config.input_rate) == ("alloy", 24_000)
    assert scene.channel.subscribed == [7]
    scene.channel.frames.push(b"\1\0" * 480)
    await asyncio.sleep(0.1)
    assert model.of(rt.AppendAudio)[0].pcm == b"\1\0" * 480
    model.hears("hello")
    model.says("Hello you", ms=1_000)
    await asyncio.sleep(2)
    assert sum(len(frame) for _, frame in scene.channel.pushed) == 24_000 * 2
    deltas = scene.channel.of("response.output_audio_transcript.delta")
    assert "".join(each["delta"] for each in deltas) == "Hello you"
    assert len({each["msg_id"] for each in deltas}) == 1
    assert scene.channel.of("response.output_audio_transcript.done")[0]["transcript"] == "Hello you"
    said = scene.channel.of("conversation.item.input_audio_transcription.completed")
    assert said[0]["transcript"] == "hello"
    assert await scene.end() == "user_left"
    assert scene.channel.connected is False
    assert model.closed


async def test_sound_goes_out_at_the_pace_of_sound() -> None:
    scene = Scene()
    await scene.start()
    began = monotonic()
    scene.provider.session.says("long", ms=4_000)
    await asyncio.sleep(2)
    ms = sum(len(frame) for _, frame in scene.channel.pushed) / 48
    assert ms <= (monotonic() - began) * 1000 + 140
    assert ms >= 1_900
    await scene.end()


async def test_speech_clears_the_queue_the_network_and_tells_the_model_what_was_heard() -> None:
    scene = Scene()
    await scene.start()
    model = scene.provider.session
    model.says("one two three four", ms=5_000)
    await asyncio.sleep(1)
    model.emit(rt.SpeechBegan("u"))
    await asyncio.sleep(0.1)
    pushed = len(scene.channel.pushed)
    assert scene.channel.clears == 1
    (cut,) = model.of(rt.CutReply)
    assert abs(cut.played_ms - 1_000) < 60
    await asyncio.sleep(1)
    assert len(scene.channel.pushed) == pushed
    model.says("yes?", ms=200)
    await asyncio.sleep(1)
    assert len(scene.channel.pushed) > pushed
    await scene.end()


async def test_without_a_user_it_gives_up() -> None:
    scene = Scene()
    with pytest.raises(TimeoutError):
        await scene.task
    assert scene.channel.connected is False
    assert scene.provider.session.closed


async def test_a_user_who_is_there_already_is_served_at_once() -> None:
    channel = FakeChannel()
    channel.remote_users[3] = 3
    assert await wait_for_remote_user(channel) == 3


async def test_it_ends_when_the_network_is_lost() -> None:
    scene = Scene()
    await scene.start()
    scene.channel.tell(RtcEvent("connection_state_changed", data="disconnected"))
    assert await scene.task == "disconnected"


async def test_a_broken_session_goes_on_with_what_was_said() -> None:
    scene = Scene()
    await scene.start()
    scene.provider.session.hears("I am Tom")
    scene.provider.session.says("Hello Tom", ms=200)
    await asyncio.sleep(1)
    scene.provider.session.breaks()
    await asyncio.sleep(1)
    history = scene.provider.session.config.history
    assert [(turn.role, turn.text) for turn in history] == [("user", "I am Tom"), ("assistant", "Hello Tom")]
    await scene.end()


def tools() -> ToolContext:
    context = ToolContext()
    numbers: Mapping[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    async def double(a: int) -> int:
        return a * 2

    def broken(a: int) -> int:
        raise RuntimeError("secret")

    context.register_function(name="double", description="doubles", parameters=dict(numbers), fn=double)
    context.register_function(name="broken", parameters=dict(numbers), fn=broken)
    context.register_client_function(name="show", description="shows it", parameters=dict(numbers))
    return context


async def test_tools_run_here_or_at_the_client() -> None:
    scene = Scene(tools())
    await scene.start()
    model = scene.provider.session
    assert [spec.name for spec in model.config.tools] == ["double", "broken", "show"]
    model.calls(("double", {"a": 4}), ("broken", {"a": 1}), ("show", {"a": 5}), ("double", {"a": "x"}), ("no", {}))
    await asyncio.sleep(0.3)
    (passed,) = scene.channel.of("response.function_call_arguments.done")
    assert (passed["name"], json.loads(passed["arguments"])) == ("show", {"a": 5})
    scene.channel.tell(RtcEvent("chat_message", 7, "hello everybody"))
    answer = json.dumps({"tool_call_id": passed["call_id"], "result": {"shown": True}})
    scene.channel.tell(RtcEvent("chat_message", 7, answer))
    await asyncio.sleep(0.1)
    answers = {each.name: each for each in model.of(rt.ToolAnswer) if not each.is_error}
    assert (answers["double"].output, answers["show"].output) == ("8", '{"shown": true}')
    failed = [each.output for each in model.of(rt.ToolAnswer) if each.is_error]
    assert len(failed) == 3
    assert not any("secret" in output for output in failed)
    await scene.end()


async def test_a_client_that_does_not_answer_is_not_waited_for_ever() -> None:
    scene = Scene(tools())
    await scene.start()
    scene.provider.session.calls(("show", {"a": 5}))
    await asyncio.sleep(31)
    assert scene.provider.session.of(rt.ToolAnswer)[0].is_error
    await scene.end()


async def test_a_tool_context_executes_as_the_guide_says() -> None:
    context = tools()
    assert await context.execute_tool("double", '{"a": 2}') == LocalToolCallExecuted(json_encoded_output="4")
    assert await context.execute_tool("show", '{"a": 2}') == ShouldPassThroughToolCall(decoded_function_args={"a": 2})
    assert await context.execute_tool("unknown", "{}") is None
    with pytest.raises(ValueError, match="object"):
        await context.execute_tool("double", "[]")
    assert context.model_description()[0] == {
        "type": "function",
        "name": "double",
        "description": "doubles",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    }
    with pytest.raises(UsageError, match="double"):
        context.register_client_function(name="double", parameters={})
    context.close()


async def test_both_directions_can_be_dumped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WRITE_AGENT_PCM", "true")
    scene = Scene()
    await scene.start()
    scene.channel.frames.push(b"\1\0" * 480)
    scene.provider.session.says("hi", ms=100, value=5)
    await asyncio.sleep(1)
    await scene.end()
    files = {path.name.split("_2")[0]: path.read_bytes() for path in tmp_path.iterdir()}
    assert files == {"rtc_to_model": b"\1\0" * 480, "model_to_rtc": b"\5\0" * 2_400}


async def test_a_dump_that_the_disk_refuses_costs_the_call_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("WRITE_AGENT_PCM", "true")
    scene = Scene()
    await scene.start()
    scene.provider.session.says("a long answer", ms=4_000)
    await asyncio.sleep(5)
    assert sum(len(frame) for _, frame in scene.channel.pushed) == 24_000 * 2 * 4
    assert await scene.end() == "user_left"


async def test_two_agents_of_one_second_write_two_files(tmp_path: Path) -> None:
    writers = [PCMWriter("rtc", True, 2, folder=tmp_path) for _ in range(2)]
    for number, writer in enumerate(writers):
        await writer.write(bytes([number]) * 2)
        await writer.write(bytes([number]) * 2)
        await writer.aclose()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"\0" * 4, b"\1" * 4]


async def test_a_result_that_comes_when_the_session_is_another_is_told_all_the_same() -> None:
    context = ToolContext()

    async def slow() -> str:
        await asyncio.sleep(1)
        return "it is noon"

    context.register_function(name="time", parameters={"type": "object", "properties": {}}, fn=slow)
    scene = Scene(context)
    await scene.start()
    scene.provider.session.calls(("time", {}))
    await asyncio.sleep(0.2)
    scene.provider.session.breaks()
    await asyncio.sleep(2)
    assert not scene.provider.session.of(rt.ToolAnswer)
    (late,) = scene.provider.session.of(rt.InjectText)
    assert "it is noon" in late.text
    assert not scene.provider.session.of(rt.Respond)
    await scene.end()


async def test_a_question_that_a_break_left_open_is_answered() -> None:
    scene = Scene()
    await scene.start()
    scene.provider.session.hears("what time is it?")
    await asyncio.sleep(0.1)
    scene.provider.session.breaks()
    await asyncio.sleep(1)
    assert len(scene.provider.session.of(rt.Respond)) == 1
    scene.provider.session.emit(rt.ReplyBegan("r"), rt.ReplyText("r", "i", "It is"))
    await asyncio.sleep(0.1)
    scene.provider.session.breaks()
    await asyncio.sleep(1)
    history = [turn.text for turn in scene.provider.session.config.history]
    assert history == ["what time is it?", "It is"]
    assert not scene.provider.session.of(rt.Respond)
    await scene.end()


async def test_a_network_that_takes_no_sound_ends_the_agent() -> None:
    scene = Scene()
    await scene.start()

    async def refuse(frame: bytes) -> None:
        raise RuntimeError("the network is gone")

    scene.channel.push_audio_frame = refuse  # type: ignore[method-assign]
    scene.provider.session.says("hello", ms=200)
    assert await asyncio.wait_for(scene.task, 5) == "failed"
    assert scene.channel.connected is False


async def test_a_queue_that_grows_long_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.start()
    scene.provider.session.says("very long", ms=70_000)
    await asyncio.sleep(1)
    assert "queue audio_queue has grown to 3000" in caplog.text
    await scene.end()


class Line:
    """A web socket of a user's, without a network."""

    def __init__(self, engine: LocalRtcEngine) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._in.put_nowait({"type": "websocket.connect"})
        self.told: list[dict[str, Any]] = []
        scope = {"type": "websocket", "path": "/rtc/test", "headers": [], "query_string": b"", "subprotocols": []}
        self.task = asyncio.ensure_future(engine.app(scope, self._in.get, self._tell))

    async def _tell(self, message: Any) -> None:
        self.told.append(message)

    async def say(self, message: dict[str, Any]) -> None:
        self._in.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})
        await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._in.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await self.task


async def test_who_joins_again_is_not_taken_for_gone_when_the_first_line_closes() -> None:
    engine = LocalRtcEngine(token="t")
    channel = engine.create_channel(RtcOptions(channel_name="test", uid=1))
    gone: list[int] = []
    channel.observe(lambda event: gone.append(event.uid) if event.kind == "user_left" else None)
    first, second = Line(engine), Line(engine)
    for line in (first, second):
        await line.say({"type": "join", "uid": 7, "token": "t"})
    await first.close()
    assert gone == []
    await channel.push_audio_frame(b"\1\0")
    assert second.told[-1]["bytes"] == b"\1\0"
    await second.close()
    assert gone == [7]
