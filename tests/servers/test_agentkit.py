"""AgentKit's door, seen from the platform: its own package's stub on a real gRPC connection."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import rapida
from grpc import aio
from rapida.clients.protos import agentkit_pb2 as theirs
from rapida.clients.protos import talk_api_pb2 as talk
from rapida.clients.protos.agentkit_pb2_grpc import AgentKitStub

from roomkit import AIChannel, RoomKit
from roomkit.errors import ConfigError, UsageError
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb
from roomkit.servers.agentkit import AgentKitAgent, AgentKitServer, RoomAgent, RoomAgentOptions
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import call

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


def hello(number: int = 7, **more: Any) -> Any:
    return theirs.TalkInput(initialization=talk.ConversationInitialization(assistantConversationId=number, **more))


def says(text: str, message_id: str = "m1") -> Any:
    return theirs.TalkInput(message=talk.ConversationUserMessage(id=message_id, text=text, completed=True))


class Platform:
    """One call, as the platform makes it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def send(self, frame: Any) -> None:
        await self.stream.write(frame)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.stream.read()

    async def refusal(self) -> Any:
        """The status of a call that is not let in."""
        async with asyncio.timeout(10):
            return await self.stream.code()

    async def answer(self) -> list[Any]:
        """Frames up to the final one."""
        frames = [await self.next()]
        while frames[-1] is not aio.EOF and not frames[-1].assistant.completed:
            frames.append(await self.next())
        return frames


@asynccontextmanager
async def served(agent: Any, **options: Any) -> AsyncIterator[Callable[..., Platform]]:
    async with AgentKitServer(agent, host="127.0.0.1", port=0, **options) as server:
        channel = aio.insecure_channel(f"127.0.0.1:{server.port}")
        calls: list[Any] = []

        def dial(**more: Any) -> Platform:
            calls.append(AgentKitStub(channel).Talk(**more))
            return Platform(calls[-1])

        try:
            yield dial
        finally:
            for each in calls:
                each.cancel()
            await channel.close()
            await server.aclose(0)


@asynccontextmanager
async def room(model: ScriptedAI, options: RoomAgentOptions | None = None, **configure: Any) -> AsyncIterator[Any]:
    kit = RoomKit()
    brain = AIChannel("assistant", model)
    if configure:
        brain.configure(**configure)
    kit.register_channel(brain, default=True)
    async with kit, served(RoomAgent(kit, options)) as dial:
        yield kit, dial


async def test_a_call_is_answered_in_parts_and_then_whole() -> None:
    model = ScriptedAI()
    model.add(["Good ", "morning", "!"])
    async with room(model) as (kit, dial):
        platform = dial()
        await platform.send(hello(42, assistant=None))
        ack = await platform.next()
        assert (ack.code, ack.success, ack.initialization.assistantConversationId) == (200, True, 42)
        await platform.send(theirs.TalkInput(configuration=talk.ConversationConfiguration()))
        settings = await platform.next()
        assert (settings.code, settings.success, settings.WhichOneof("data")) == (200, True, None)
        await platform.send(says("Hello?", "ctx-1"))
        frames = await platform.answer()
        assert {frame.assistant.id for frame in frames} == {"ctx-1"}
        assert "".join(frame.assistant.text for frame in frames[:-1]) == "Good morning!"
        assert frames[-1].assistant.text == "Good morning!"
        log = await kit.events("agentkit-42")
        assert [text_of(e.content) for e in log if e.type is EventType.MESSAGE] == ["Hello?", "Good morning!"]


async def test_the_first_frame_must_begin_the_call_and_unknown_ones_change_nothing() -> None:
    async with room(ScriptedAI("Yes?")) as (_, dial):
        platform = dial()
        await platform.send(says("Hello?"))
        refused = await platform.next()
        assert (refused.code, refused.success, refused.error.errorCode) == (400, False, 400)
        await platform.send(hello())
        assert (await platform.next()).WhichOneof("data") == "initialization"
        await platform.send(theirs.TalkInput())
        await platform.send(theirs.TalkInput(metric=talk.ConversationMetric()))
        await platform.send(theirs.TalkInput(metadata=talk.ConversationMetadata()))
        await platform.send(hello(8))
        assert (await platform.next()).error.errorCode == 409
        await platform.send(
            theirs.TalkInput(message=talk.ConversationUserMessage(id="a", audio=b"\0\0", completed=True))
        )
        assert (await platform.next()).error.errorCode == 501
        await platform.send(says("Hello?"))
        assert (await platform.answer())[-1].assistant.text == "Yes?"


async def test_tools_are_told_and_a_directive_comes_after_the_words() -> None:
    model = ScriptedAI()
    model.add([call("lookup", "c1", number=3)])
    model.add([call("end_call", "c2", reason="done")])
    model.add("Goodbye!")

    async def lookup(number: int) -> dict[str, Any]:
        """Looks it up."""
        return {"number": number, "open": True}

    async def end_call(reason: str) -> str:
        """Ends the call."""
        return reason

    async with room(model, tools=[lookup, end_call]) as (_, dial):
        platform = dial()
        await platform.send(hello())
        await platform.next()
        await platform.send(says("Number 3, and that is all.", "m9"))
        frames = await platform.answer()
        directive = await platform.next()
        began, done = frames[0].toolCall, frames[1].toolCallResult
        assert (began.id, began.toolId, began.name, dict(began.args)) == ("m9", "c1", "lookup", {"number": "3"})
        assert (done.id, done.toolId, done.result["success"]) == ("m9", "c1", "true")
        assert json.loads(done.result["result"]) == {"number": 3, "open": True}
        assert frames[-1].assistant.text == "Goodbye!"
        told = directive.toolCall
        assert (told.name, told.toolId, dict(told.args)) == ("end_call", "c2", {"reason": "done"})
        assert told.action == 1, "END_CONVERSATION"


async def test_whoever_breaks_in_hears_nothing_more_of_the_old_answer() -> None:
    model = ScriptedAI()
    gate = asyncio.Event()

    async def slow() -> str:
        """Takes its time."""
        await gate.wait()
        return "late"

    model.add(["One moment. ", call("slow", "c1")])
    model.add("Six.")
    async with room(model, tools=[slow]) as (kit, dial):
        platform = dial()
        await platform.send(hello())
        await platform.next()
        await platform.send(says("What is the weather?", "m1"))
        assert (await platform.next()).assistant.text == "One moment. "
        assert (await platform.next()).toolCall.name == "slow"
        await platform.send(says("Forget it: two times three?", "m2"))
        frames = await platform.answer()
        texts = [frame.assistant.text for frame in frames if frame.WhichOneof("data") == "assistant"]
        assert texts[-1] == "Six." == "".join(texts[:-1])
        assert {frame.assistant.id for frame in frames if frame.WhichOneof("data") == "assistant"} == {"m2"}
        ends = [
            e.metadata.get("end_reason") for e in await kit.events("agentkit-7") if e.source.channel_id == "assistant"
        ]
        assert "cancelled" in ends
        gate.set()


async def test_a_supervisor_who_takes_over_is_heard() -> None:
    async with room(ScriptedAI("never asked")) as (kit, dial):
        platform = dial()
        await platform.send(hello(phone=talk.PhoneIdentity(phoneNumber="+4412345678")))
        await platform.next()
        await kit.take_over("agentkit-7", "sam")
        await platform.send(says("Is anybody there?", "m1"))
        async with asyncio.timeout(10):
            while not [e for e in await kit.events("agentkit-7") if text_of(e.content) == "Is anybody there?"]:
                await asyncio.sleep(0.01)
        await kit.note("agentkit-7", "secret", "sam")
        await kit.send("agentkit-7", "Sam here.", by="sam")
        assert (await platform.answer())[-1].assistant.text == "Sam here."
        await kit.send("agentkit-7", "Anything else?", by="sam")
        more = (await platform.answer())[-1].assistant
        assert (more.id, more.text, more.completed) == ("", "Anything else?", True), "heard outside of any turn"
        people = {p.id: p.display_name for p in await kit.participants("agentkit-7")}
        assert people["agentkit:+4412345678"] == "+4412345678"


async def test_the_token_is_taken_plain_and_as_a_bearer_and_nothing_else() -> None:
    kit = RoomKit()
    async with kit, served(RoomAgent(kit), auth_config={"enabled": True, "token": "s3cret-token"}) as dial:
        for good in ("s3cret-token", "Bearer s3cret-token", "bearer s3cret-token"):
            platform = dial(metadata=(("authorization", good),))
            await platform.send(hello())
            assert (await platform.next()).code == 200
        for bad in ((), (("authorization", "s3cret"),), (("authorization", ""),), (("x-token", "s3cret-token"),)):
            platform = dial(metadata=bad)
            assert await platform.refusal() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(ConfigError, match="without a"):
        AgentKitServer(RoomAgent(kit), auth_config={"enabled": True})
    assert "s3cret" not in repr(AgentKitServer(RoomAgent(kit), auth_config={"token": "s3cret"}))


async def test_the_call_above_the_limit_is_told_so() -> None:
    kit = RoomKit()
    async with kit, served(RoomAgent(kit, RoomAgentOptions(calls=1))) as dial:
        first = dial()
        await first.send(hello(1))
        assert (await first.next()).code == 200
        assert await dial().refusal() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_closed_room_takes_no_call_and_ends_one_with_a_clear_status() -> None:
    async with room(ScriptedAI("Hello", repeat=True)) as (kit, dial):
        for close, word in ((kit.close_room, "closed"), (kit.archive_room, "archived")):
            platform = dial()
            await platform.send(hello())
            assert (await platform.next()).code == 200
            await close("agentkit-7")
            await platform.send(says("Hello?"))
            assert await platform.refusal() is grpc.StatusCode.FAILED_PRECONDITION
            for who in ({}, {"phone": talk.PhoneIdentity(phoneNumber="+44")}):
                again = dial()
                await again.send(hello(**who))
                assert await again.refusal() is grpc.StatusCode.FAILED_PRECONDITION, who
                assert word in await again.stream.details()
            if word == "closed":
                await kit.reopen_room("agentkit-7")


async def test_who_was_sent_away_neither_calls_again_nor_stays() -> None:
    ann = talk.PhoneIdentity(phoneNumber="+4412345678")
    async with room(ScriptedAI("Hello", repeat=True)) as (kit, dial):
        platform = dial()
        await platform.send(hello(phone=ann))
        assert (await platform.next()).code == 200
        await kit.remove_member("agentkit-7", "agentkit:+4412345678", ban=True)
        assert await platform.refusal() is grpc.StatusCode.PERMISSION_DENIED
        again = dial()
        await again.send(hello(phone=ann))
        assert await again.refusal() is grpc.StatusCode.PERMISSION_DENIED
        other = dial()
        await other.send(hello())
        assert (await other.next()).code == 200


async def test_two_calls_do_not_hear_each_other() -> None:
    async with room(ScriptedAI("Answer", repeat=True)) as (_, dial):
        first, second = dial(), dial()
        for number, platform in enumerate((first, second)):
            await platform.send(hello(number + 1))
            await platform.next()
        await first.send(says("only I", "x"))
        assert (await first.answer())[-1].assistant.id == "x"
        await second.send(says("and I", "y"))
        assert {frame.assistant.id for frame in await second.answer()} == {"y"}


class Echo(AgentKitAgent):
    """As the documentation of AgentKit writes one."""

    def Talk(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the protocol's name
        for request in request_iterator:
            if self.is_initialization_request(request):
                yield self.initialization_response(request.initialization)
            elif self.is_configuration_request(request):
                yield self.configuration_response(request.configuration)
            elif self.is_message_request(request):
                if not self.is_text_message(request):
                    yield self.error_response(501, "Audio not implemented")
                    continue
                msg_id = self.get_message_id(request)
                if self.get_user_text(request) == "break":
                    raise RuntimeError("the agent's own mistake")
                yield self.tool_call(msg_id, "t1", "get_weather", {"city": "London"})
                yield self.tool_call_result(msg_id, "t1", "get_weather", {"temp_c": 22}, success=True)
                yield self.assistant_response(msg_id, "Working on it... ", completed=False)
                yield self.assistant_response(msg_id, f"You said: {self.get_user_text(request)}", completed=True)
            else:
                yield self.error_response(400, "Unknown request type")


async def _echoes(platform: Platform) -> None:
    await platform.send(hello())
    assert (await platform.next()).WhichOneof("data") == "initialization"
    await platform.send(says("hi"))
    frames = await platform.answer()
    assert [frame.WhichOneof("data") for frame in frames] == ["toolCall", "toolCallResult", "assistant", "assistant"]
    assert dict(frames[1].toolCallResult.result) == {"temp_c": "22", "success": "true"}
    assert frames[-1].assistant.text == "You said: hi"
    await platform.send(says("break"))
    assert (await platform.next()).error.errorCode == 500


async def test_an_agent_of_the_documentation_runs_after_a_change_of_its_import() -> None:
    async with served(Echo()) as dial:
        await _echoes(dial())
    server = AgentKitServer(agent=Echo(), host="127.0.0.1", port=0)
    server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await _echoes(Platform(AgentKitStub(channel).Talk()))
    finally:
        server.stop(0)
    kit = RoomKit()
    with pytest.raises(UsageError, match=r"await server\.serve"):
        AgentKitServer(RoomAgent(kit)).start()


async def test_calls_come_over_tls(tmp_path: Path) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(
        [*make, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True,
        capture_output=True,
    )
    kit = RoomKit()
    paths = {"cert_path": str(chain), "key_path": str(key)}
    async with kit, AgentKitServer(RoomAgent(kit), host="localhost", port=0, ssl_config=paths) as server:
        trust = grpc.ssl_channel_credentials(root_certificates=chain.read_bytes())
        async with aio.secure_channel(f"localhost:{server.port}", trust) as channel:
            platform = Platform(AgentKitStub(channel).Talk())
            await platform.send(hello())
            assert (await platform.next()).code == 200
            platform.stream.cancel()
        await server.aclose(0)
    with pytest.raises(ConfigError, match="key_path"):
        await AgentKitServer(RoomAgent(kit), port=0, ssl_config={"cert_path": str(chain)}).serve()


def _fields(message: Any) -> dict[str, Any]:
    """Every field of a message, and of those inside it, by name: number, type, whether it repeats, its group."""
    found: dict[str, Any] = {}
    for one in message.fields:
        inner = None
        if one.message_type is not None and not one.message_type.full_name.startswith("google."):
            inner = _fields(one.message_type)
        elif one.enum_type is not None:
            inner = sorted(value.number for value in one.enum_type.values)
        group = one.containing_oneof.name if one.containing_oneof is not None else None
        found[one.name] = (one.number, one.type, one.is_repeated, group, inner)
    return found


def test_our_messages_are_those_of_the_platforms_package() -> None:
    for name in ("TalkInput", "TalkOutput"):
        ours, others = (_fields(getattr(module, name).DESCRIPTOR) for module in (pb, theirs))
        assert ours == others


def test_the_helpers_of_the_sdk_are_all_there_with_their_arguments() -> None:
    for name, method in inspect.getmembers(rapida.AgentKitAgent, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = inspect.signature(getattr(AgentKitAgent, name)).parameters
        assert list(inspect.signature(method).parameters) == list(ours)[: len(inspect.signature(method).parameters)]
    ours = inspect.signature(AgentKitServer.__init__).parameters
    assert list(inspect.signature(rapida.AgentKitServer.__init__).parameters) == list(ours)
