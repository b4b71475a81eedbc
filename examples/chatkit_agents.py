"""One thread of ChatKit, several agents: an agent of OpenAI's SDK and a plain one, chosen by the page's model picker.

Run it: python examples/chatkit_agents.py. An empty first message is greeted, an agent that fails is told in the stream
and the next message works, and whatever is said stands in one room. The agent's model is played, so that no key is
needed: give the Agent `model="gpt-..."` for a real one. Needs the [chatkit,server] extras.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, function_tool
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputMessage, ResponseOutputText
from openai.types.responses import ResponseTextDeltaEvent as Delta

from roomkit import AIChannel, RoomKit
from roomkit.models.access import Principal, PrincipalRole
from roomkit.providers.openai_agents.ai import OpenAIAgentProvider
from roomkit.servers.chatkit import ChatKitOptions, RoomChatKitServer

ANN = Principal(id="ann", role=PrincipalRole.GUEST, display_name="Ann")


class Played(Model):
    """A model that is none: it says the same whatever it is asked, and breaks when it hears "tomorrow yesterday"."""

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, system: Any, items: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        if "tomorrow yesterday" in str(items[-1]):
            raise ValueError("no such day")
        text = "Here are your tasks: review the pull requests."
        for number, word in enumerate(text.split(" ")):
            delta = word if not number else f" {word}"
            yield Delta.model_construct(type="response.output_text.delta", delta=delta, item_id="m", output_index=0)
        part = ResponseOutputText(annotations=[], text=text, type="output_text")
        said = ResponseOutputMessage(id="m", content=[part], role="assistant", status="completed", type="message")
        whole = Response.model_construct(id="r", output=[said], usage=None)
        yield ResponseCompletedEvent.model_construct(type="response.completed", response=whole)


@function_tool
def list_tasks() -> str:
    """The open tasks."""
    return "review the pull requests"


async def ask(server: RoomChatKitServer, text: str, thread: str | None = None, model: str | None = None) -> list[Any]:
    """What the component posts, and what comes back."""
    content = [{"type": "input_text", "text": text}] if text else []
    said = {"content": content, "attachments": [], "inference_options": {"model": model} if model else {}}
    kind, where = ("threads.create", {}) if thread is None else ("threads.add_user_message", {"thread_id": thread})
    events = await server.process(json.dumps({"type": kind, "params": {"input": said, **where}}), ANN)
    return [json.loads(line[6:]) async for line in events]  # type: ignore[union-attr]


def answer(events: list[Any]) -> str:
    said = [e["item"]["content"][0]["text"] for e in events if e["type"] == "thread.item.done" and e["item"]["content"]]
    return said[-1]


async def main() -> None:
    tasks = Agent(name="TaskManager", instructions="You keep my tasks.", tools=[list_tasks], model=Played())
    async with RoomKit() as kit:
        kit.register_channel(AIChannel("tasks", OpenAIAgentProvider(tasks)), default=True)
        kit.register_channel(AIChannel("research", "offline"))
        server = RoomChatKitServer(kit, ChatKitOptions(greeting="Hello! I keep your tasks."))
        events = await ask(server, "")
        thread = events[0]["thread"]["id"]
        print("greeted:", answer(events))
        await kit.attach_channel(thread, "research")
        print("tasks:", answer(await ask(server, "List my tasks", thread, "tasks")))
        print("research:", answer(await ask(server, "Who are you?", thread, "research"))[:60])
        events = await ask(server, "Add one for tomorrow yesterday", thread, "tasks")
        print("failed:", [event["type"] for event in events][-1], "- and what failed stays inside")
        print("again:", answer(await ask(server, "List my tasks", thread, "tasks")))
        print("in the room:", len([event for event in await kit.events(thread) if event.type == "message"]), "messages")


if __name__ == "__main__":
    asyncio.run(main())
