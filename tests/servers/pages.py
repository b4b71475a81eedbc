"""A page with ChatKit's component, for tests: posts requests, and reads what comes with the package's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from chatkit.types import ThreadStreamEvent
from pydantic import TypeAdapter

from roomkit import AIChannel, RoomKit
from roomkit.models.access import Principal, PrincipalRole
from roomkit.servers.chatkit import ChatKitOptions, RoomChatKitServer, chatkit_app
from roomkit.testing import ScriptedAI
from roomkit.testing.asgi import StreamingASGITransport

EVENTS: TypeAdapter[Any] = TypeAdapter(ThreadStreamEvent)


def user(name: str = "ann") -> Principal:
    return Principal(id=name, tenant="default", role=PrincipalRole.GUEST, display_name=name.title())


class Page:
    """The component in a browser."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def stream(self, kind: str, **params: Any) -> list[Any]:
        async with self.client.stream("POST", "/", json={"type": kind, "params": params}) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            found = []
            async for line in response.aiter_lines():
                if line:
                    assert line.startswith("data: "), line
                    found.append(EVENTS.validate_json(line[6:]))
            return found

    async def ask(self, request: str, status: int = 200, **params: Any) -> Any:
        response = await self.client.post("/", json={"type": request, "params": params})
        assert response.status_code == status, response.text
        return response.json()

    async def say(
        self, text: str, thread_id: str | None = None, attachments: tuple[str, ...] = (), **options: Any
    ) -> list[Any]:
        content = [{"type": "input_text", "text": text}] if text else []
        said = {"content": content, "attachments": list(attachments), "inference_options": options}
        if thread_id is None:
            return await self.stream("threads.create", input=said)
        return await self.stream("threads.add_user_message", thread_id=thread_id, input=said)

    async def items(self, thread_id: str) -> list[Any]:
        return (await self.ask("items.list", thread_id=thread_id, order="asc", limit=100))["data"]


@asynccontextmanager
async def served(
    *brains: AIChannel,
    options: ChatKitOptions | None = None,
    kit: RoomKit | None = None,
    **doors: Any,
) -> AsyncIterator[tuple[RoomKit, RoomChatKitServer, Any]]:
    kit = kit or RoomKit()
    for number, brain in enumerate(brains):
        kit.register_channel(brain, default=number == 0)
    server = RoomChatKitServer(kit, options)

    def who(request: Any) -> Principal | None:
        name = request.headers.get("x-user")
        if not name:
            return None
        person, _, tenant = name.partition("@")
        return user(person).replaced(tenant=tenant or "default")

    app = chatkit_app(server, **{"authenticate": who, **doors})
    async with kit:

        def page(name: str | None = "ann") -> Page:
            headers = {"x-user": name} if name else {}
            transport = StreamingASGITransport(app)
            return Page(
                httpx2.AsyncClient(transport=transport, base_url="http://rooms.example", headers=headers, timeout=200)
            )

        yield kit, server, page


def brain(*said: Any, channel_id: str = "assistant", **configure: Any) -> AIChannel:
    model = ScriptedAI()
    for one in said:
        model.add(one)
    made = AIChannel(channel_id, model)
    if configure:
        made.configure(**configure)
    return made
