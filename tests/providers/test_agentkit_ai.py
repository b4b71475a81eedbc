"""AgentKit backends as brains: the protocol's own SDK as the backend, then our own door."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from rapida import AgentKitAgent, AgentKitServer
from rapida.clients.protos.agentkit_pb2_grpc import add_AgentKitServicer_to_server

from roomkit import AIChannel, RoomKit
from roomkit.errors import ProviderTimeout, Refused, Unauthorized, Unavailable
from roomkit.models.ai import AIMessage, AIRequest, Finished, TextChunk, TextPart, ToolCallChunk, ToolSpec
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.providers.agentkit.ai import AgentKitProvider
from roomkit.servers.agentkit import AgentKitServer as OurServer
from roomkit.servers.agentkit import RoomAgent
from roomkit.testing import ScriptedAI
from roomkit.testing.ai import check_ai_provider

pytestmark = [pytest.mark.real_time, pytest.mark.may_block]


class Backend(AgentKitAgent):
    """Counts what it is told, as an agent with a memory of its own would."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.heard: list[str] = []

    def Talk(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the protocol's name
        for request in request_iterator:
            if self.is_initialization_request(request):
                self.begun.append(request.initialization)
                yield self.initialization_response(request.initialization)
                continue
            if not self.is_text_message(request):
                continue
            msg_id, text = self.get_message_id(request), self.get_user_text(request)
            self.heard.append(text)
            if text == "fail":
                yield self.error_response(503, "no brain today")
                continue
            if text == "bye":
                yield self.terminate_call(msg_id, {"reason": "done"})
            if text == "silent":
                continue
            yield self.tool_call(msg_id, "t1", "memory", {"n": 1})
            yield self.tool_call_result(msg_id, "t1", "memory", {"ok": True})
            yield self.assistant_response(msg_id, "You said ", completed=False)
            yield self.assistant_response(msg_id, text, completed=False)
            yield self.assistant_response(msg_id, f"You said {text}" if "whole" in text else ".", completed=True)


@contextmanager
def backend(**options: Any) -> Iterator[tuple[Backend, str]]:
    """The SDK's own server on a free port."""
    agent = Backend()
    server = AgentKitServer(agent=agent, host="127.0.0.1", port=0, **options)
    # The SDK tells nobody which port it got, so its agent is served by the same library beside it.
    real = grpc.server(ThreadPoolExecutor(4))
    add_AgentKitServicer_to_server(agent, real)
    port = real.add_insecure_port("127.0.0.1:0")
    real.start()
    del server
    try:
        yield agent, f"127.0.0.1:{port}"
    finally:
        real.stop(0).wait()


def asks(*said: str, tools: tuple[ToolSpec, ...] = ()) -> AIRequest:
    messages = tuple(
        AIMessage(role="user" if number % 2 == 0 else "assistant", parts=(TextPart(text=text),))
        for number, text in enumerate(said)
    )
    return AIRequest(messages=messages, tools=tools, metadata={"tenant": "t", "room_id": "r"})


async def test_it_is_a_provider_as_the_port_wants_it() -> None:
    with backend() as (_, target):
        await check_ai_provider(lambda: AgentKitProvider(target), failing=asks("fail"))


async def test_one_stream_carries_the_conversation_and_only_the_news() -> None:
    with backend() as (agent, target):
        provider = AgentKitProvider(target, assistant_id=5)
        for said, answer in ((("a",), "You said a."), (("a", "x", "whole"), "You said whole")):
            events = [event async for event in provider.stream(asks(*said))]
            assert "".join(event.text for event in events if isinstance(event, TextChunk)) == answer
            assert events[-1] == Finished("stop")
        assert agent.heard == ["a", "whole"], "what it knows it is not told again"
        assert [one.assistant.assistantId for one in agent.begun] == [5], "one stream for both"
        await provider.aclose()
        again = AgentKitProvider(target)
        async for _ in again.stream(asks("a", "You said a.", "b")):
            pass
        assert "You said a." in agent.begun[-1].args["history"].value.decode(), "a new stream is told what was before"
        assert agent.begun[-1].assistantConversationId == agent.begun[0].assistantConversationId
        await again.aclose()


async def test_a_directive_is_a_call_where_the_tool_is_offered() -> None:
    with backend() as (_, target):
        provider = AgentKitProvider(target)
        events = [event async for event in provider.stream(asks("bye", tools=(ToolSpec(name="end_call"),)))]
        (found,) = [event.call for event in events if isinstance(event, ToolCallChunk)]
        assert (found.name, found.arguments, events[-1].reason) == ("end_call", {"reason": "done"}, "tool_calls")
        events = [event async for event in provider.stream(asks("bye"))]
        assert not [event for event in events if isinstance(event, ToolCallChunk)]
        await provider.aclose()


async def test_what_goes_wrong_has_a_kind() -> None:
    async def fails(provider: AgentKitProvider, said: str) -> Exception:
        try:
            async for _ in provider.stream(asks(said)):
                pass
        except Exception as error:
            return error
        finally:
            await provider.aclose()
        raise AssertionError("it did not fail")

    with backend() as (_, target):
        refused = await fails(AgentKitProvider(target), "fail")
        assert isinstance(refused, Refused)
        assert "no brain today" in str(refused)
        assert isinstance(await fails(AgentKitProvider(target, timeout_s=0.2), "silent"), ProviderTimeout)
    assert isinstance(await fails(AgentKitProvider(target, timeout_s=5), "hi"), Unavailable)
    kit = RoomKit()
    auth = {"enabled": True, "token": "right"}
    async with kit, OurServer(RoomAgent(kit), host="127.0.0.1", port=0, auth_config=auth) as server:
        wrong = AgentKitProvider(f"127.0.0.1:{server.port}", token="wr0ng")
        error = await fails(wrong, "hi")
        assert isinstance(error, Unauthorized)
        assert "wr0ng" not in f"{error}{wrong!r}"


async def test_a_room_may_ask_another_kit_through_it() -> None:
    """Both sides are ours: a person's room, the protocol between, and the room that answers."""
    far, near = RoomKit(), RoomKit()
    far.register_channel(AIChannel("brain", ScriptedAI("Forty-two.")), default=True)
    async with far, OurServer(RoomAgent(far), host="127.0.0.1", port=0) as server:
        near.register_channel(AIChannel("assistant", AgentKitProvider(f"127.0.0.1:{server.port}")), default=True)
        async with near:
            await near.create_room("r")
            await (await near.send("r", "What is six times seven?", by="ann")).settled(10)
            said = [text_of(e.content) for e in await near.events("r") if e.type is EventType.MESSAGE]
            assert said == ["What is six times seven?", "Forty-two."]
            (there,) = await far.list_rooms()
            log = await far.events(there.id)
            assert [text_of(e.content) for e in log if e.type is EventType.MESSAGE] == said
