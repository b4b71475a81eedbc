"""ChatKit's door: OpenAI's chat component on top of rooms.

    server = RoomChatKitServer(kit)
    app = chatkit_app(server)            # POST /chatkit, uploads, and word of what happens between requests

A thread is a room. What its user writes goes into the room; whatever answers there (an AI channel, one of several
agents, a person who took over) streams back. Needs the [chatkit] extra.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from roomkit.ai.tools import Tool
from roomkit.channels.websocket import WebSocketChannel
from roomkit.errors import Overloaded, RoomKitError, UsageError
from roomkit.models.content import ReactionContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Category, FloorMode
from roomkit.models.steering import Cancel
from roomkit.models.stream import StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.protocols.chatkit.items import Link, plain, said, stored
from roomkit.protocols.chatkit.package import (
    AssistantMessageContent,
    AssistantMessageContentPartAdded,
    AssistantMessageContentPartDone,
    AssistantMessageContentPartTextDelta,
    AssistantMessageItem,
    AttachmentStore,
    ChatKitServer,
    ClientToolCallItem,
    CustomStreamError,
    ProgressUpdateEvent,
    SDKHiddenContextItem,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemRemovedEvent,
    ThreadItemReplacedEvent,
    ThreadItemUpdatedEvent,
    ThreadMetadata,
    ThreadStreamEvent,
    UserMessageItem,
    WidgetItem,
)
from roomkit.runtime import Scope
from roomkit.servers.chatkit_files import RoomAttachments
from roomkit.servers.chatkit_http import chatkit_app
from roomkit.servers.chatkit_store import RoomStore, Waiting
from roomkit.servers.client_tools import ClientTools

if TYPE_CHECKING:
    from roomkit.kit import RoomKit
    from roomkit.servers.visit import Visit

log = logging.getLogger(__name__)
NOT_SENT = "This message could not be sent."
TAKEN_BACK = "The answer could not be given. Please try again."


def principal_id(context: Any) -> str:
    """The user of a request whose context is a `Principal`, as `chatkit_app` makes it."""
    return str(context.id)


@dataclass(frozen=True, slots=True)
class ChatKitOptions:
    """`greeting` answers a first message that is empty. Where a person has the floor, a request waits `person_s`
    seconds for their words; a client tool has `tool_s` seconds. `on_action(thread, action, widget, context)` handles
    the actions of widgets and yields events."""

    channel_id: str = "chatkit"
    tenant: str | None = None
    user_of: Callable[[Any], str] = principal_id
    greeting: str | None = None
    person_s: float = 60.0
    tool_s: float = 120.0
    on_action: Callable[..., AsyncIterator[ThreadStreamEvent]] | None = None


class RoomChatKitServer(ChatKitServer[Any]):
    """The package's server whose `respond` is a room. The channel `options.channel_id` is registered unless the kit has
    it."""

    def __init__(
        self, kit: RoomKit, options: ChatKitOptions | None = None, attachment_store: AttachmentStore[Any] | None = None
    ) -> None:
        self.options = options or ChatKitOptions()
        self.kit = kit
        if self.options.channel_id not in kit.engine.channels:
            kit.register_channel(WebSocketChannel(self.options.channel_id))
        self.rooms = RoomStore(kit, self.options.channel_id, self.options.user_of, tenant=self.options.tenant)
        self.rooms.completed = self._completed
        self.files: RoomAttachments | None = None
        """What `chatkit_app` uploads into; None where the host has an attachment store of its own."""
        if attachment_store is None:
            attachment_store = self.files = RoomAttachments(self.rooms.files, self.options.user_of)
            self.rooms.fresh, self.rooms.link = self.files.fresh, self.files.link
        super().__init__(self.rooms, attachment_store)
        self._paused: dict[str, tuple[Waiting, set[str]]] = {}
        self._tools = ClientTools(self._ask_the_page, self.options.tool_s, self._give_up)

    # -- answers --------------------------------------------------------------------------------------------------

    async def respond(
        self, thread: ThreadMetadata, input_user_message: UserMessageItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        """What the room answers. None goes on with an answer that has waited for the page."""
        if input_user_message is None:
            waiting, told = self._paused.pop(thread.id, (None, set[str]()))
            if waiting is not None:
                waiting.by = asyncio.current_task()
        else:
            told = set[str]()
            waiting = self.rooms.take(thread.id, input_user_message.id)
            if waiting is None and _says(input_user_message):  # It is to be answered anew.
                await self.rooms.again(thread.id, input_user_message, context)
                waiting = self.rooms.take(thread.id, input_user_message.id)
        if waiting is None:
            if self.options.greeting and not await self.rooms.items(thread.id, context):
                yield await self._greet(thread.id)
            return
        async with aclosing(self._stream(thread, waiting, told)) as events:
            async for event in events:
                yield event

    async def _greet(self, thread_id: str) -> ThreadStreamEvent:
        brain = next((c for c in self.kit.engine.channels.values() if c.reach == "turn"), None)
        by = brain.channel_id if brain is not None else "host"
        result = await self.rooms.rooms.send(thread_id, self.options.greeting or "", by=by, addressed_to=())
        assert result.event is not None, "a room that was made just now is open"
        return ThreadItemDoneEvent(item=_whole(result.event))

    async def _stream(
        self, thread: ThreadMetadata, waiting: Waiting, told: set[str]
    ) -> AsyncGenerator[ThreadStreamEvent]:
        """Ends when all that the message has set off is done, or a tool waits for the page."""
        visit, answers = waiting.visit, 0
        self.rooms.live[thread.id] = visit
        paused = broken = False
        try:
            if waiting.result.blocked:
                raise CustomStreamError(NOT_SENT)
            async with Scope("chatkit answer") as scope:
                if await self._person_speaks(thread.id):
                    yield ProgressUpdateEvent(text="A person is going to answer.")
                    scope.spawn(_after(visit, self.options.person_s), name="patience")
                else:
                    scope.spawn(_settled(waiting), name="settled")
                async for item in visit:
                    if isinstance(item, ClientToolCallItem):
                        paused = True
                        yield ThreadItemDoneEvent(item=item)
                        return
                    async for event in _events(cast("Any", item), visit, told, self.rooms.link):
                        answers += isinstance(event, ThreadItemDoneEvent)
                        yield event
                    broken = broken or _broke(item)
                    if answers and await self._person_speaks(thread.id):
                        return
            if broken or (not answers and await self._owes(thread.id)):
                raise CustomStreamError(TAKEN_BACK, allow_retry=True)
        except Overloaded:
            raise CustomStreamError(TAKEN_BACK, allow_retry=True) from None
        finally:
            if paused:
                waiting.by = None
                self._paused[thread.id] = (waiting, told)
            else:
                self.rooms.leave(thread.id, visit)

    async def _person_speaks(self, room_id: str) -> bool:
        return (await self.rooms.rooms.get_room(room_id)).floor.mode is FloorMode.HUMAN

    async def _owes(self, room_id: str) -> bool:
        """Whether somebody was to answer: where no AI may speak, a person will when they have the time."""
        seats = await self.rooms.rooms.bindings(room_id)
        asked = any(seat.category is Category.INTELLIGENCE and not seat.muted for seat in seats)
        return asked and not await self._person_speaks(room_id)

    async def stop(self, thread_id: str) -> None:
        """The page has gone: nobody waits for the reply that is being made, if there is one."""
        try:
            await self.rooms.rooms.steer(thread_id, Cancel("the user stopped it"))
        except (UsageError, RoomKitError):
            pass  # Nothing was being made.

    async def handle_stream_cancelled(self, thread: ThreadMetadata, pending_items: list[Any], context: Any) -> None:
        """The page has gone: the reply is cancelled in the room, which keeps what had been said."""
        await self.stop(thread.id)
        note = SDKHiddenContextItem(
            id=self.rooms.generate_item_id("sdk_hidden_context", thread, context),
            thread_id=thread.id,
            created_at=_now(self.kit),
            content="The user cancelled the stream. Stop responding to the prior request.",
        )
        await self.rooms.add_thread_item(thread.id, note, context)

    async def add_feedback(self, thread_id: str, item_ids: list[str], feedback: Any, context: Any) -> None:
        """A thumb up or down becomes a reaction of the user's, which supervisors see."""
        user = self.options.user_of(context)
        visit = await self.rooms.visit(thread_id, context)
        try:
            for item_id in item_ids:
                emoji = "👍" if feedback == "positive" else "👎"
                reaction = ReactionContent(target_event_id=item_id, emoji=emoji)
                await visit.say(reaction, external_id=f"{thread_id}:{item_id}:{user}:{feedback}")
        finally:
            visit.close()

    async def action(
        self, thread: ThreadMetadata, action: Any, sender: WidgetItem | None, context: Any
    ) -> AsyncIterator[ThreadStreamEvent]:
        """What was done with a widget: `options.on_action` says what follows."""
        if self.options.on_action is None:
            raise CustomStreamError("Nothing here knows what to do with that.")
        async for event in self.options.on_action(thread, action, sender, context):
            yield event

    async def show(self, thread_id: str, widget: Any, *, copy_text: str | None = None) -> WidgetItem:
        """Puts a widget into a thread, at once where its page waits for an answer."""
        item = WidgetItem(
            id=f"itm_{self.kit.engine.new_id()}",
            thread_id=thread_id,
            created_at=_now(self.kit),
            widget=widget,
            copy_text=copy_text,
        )
        live = self.rooms.live.get(thread_id)
        if live is None:
            await self.rooms.keep(thread_id, stored(item, thread_id))
        else:
            live.post(ThreadItemDoneEvent(item=item))
        return item

    # -- tools that the page runs -----------------------------------------------------------------------------------

    def client_tool(self, function: Callable[..., Any]) -> Tool:
        """Makes a tool of a typed function whose body the page has: the model reads its name, docstring and types."""
        return self._tools.tool(function)

    def _ask_the_page(self, tenant: str, room_id: str, call_id: str, name: str, arguments: dict[str, Any]) -> bool:
        live = self.rooms.live.get(room_id)
        if live is None or tenant != self.rooms.rooms.tenant_id:
            return False
        item = ClientToolCallItem(
            id=f"tc_{call_id}",
            thread_id=room_id,
            created_at=_now(self.kit),
            call_id=call_id,
            name=name,
            arguments=arguments,
        )
        live.post(item)
        return True

    def _give_up(self, tenant: str, room_id: str, call_id: str) -> None:
        del tenant, call_id
        if (paused := self._paused.pop(room_id, None)) is not None:
            self.rooms.leave(room_id, paused[0].visit)

    def _completed(self, item: ClientToolCallItem) -> None:
        self._tools.answered(self.rooms.rooms.tenant_id, item.thread_id, item.call_id, item.output)


def _broke(item: Any) -> bool:
    """A reply that ended in the middle, or was taken back."""
    return isinstance(item, StreamError) or (
        isinstance(item, StreamEnd) and item.event.metadata.get("end_reason") == "error"
    )


async def _settled(waiting: Waiting) -> None:
    await waiting.result.settled()
    await asyncio.sleep(0)  # What has been said by now is heard first.
    waiting.visit.finish()


async def _after(visit: Visit, seconds: float) -> None:
    await asyncio.sleep(seconds)
    visit.finish()


async def _events(item: Any, visit: Visit, told: set[str], link: Link) -> AsyncIterator[ThreadStreamEvent]:
    """An item of the room as ChatKit's events; `told` are replies that the page has seen the beginning of."""
    if isinstance(item, StreamStart):
        if item.stream_id not in told:
            told.add(item.stream_id)
            empty = AssistantMessageItem(
                id=item.stream_id, thread_id=visit.room_id, created_at=_now(visit.rooms), content=[]
            )
            yield ThreadItemAddedEvent(item=empty)
            part = AssistantMessageContentPartAdded(content_index=0, content=AssistantMessageContent(text=""))
            yield ThreadItemUpdatedEvent(item_id=item.stream_id, update=part)
    elif isinstance(item, StreamChunk):
        delta = AssistantMessageContentPartTextDelta(content_index=0, delta=item.delta)
        yield ThreadItemUpdatedEvent(item_id=item.stream_id, update=delta)
    elif isinstance(item, StreamError):
        if item.stream_id in told:
            told.discard(item.stream_id)
            yield ThreadItemRemovedEvent(item_id=item.stream_id)
    elif isinstance(item, (StreamEnd, RoomEvent)):
        event = item.event if isinstance(item, StreamEnd) else item
        if event.type is not EventType.MESSAGE or event.source.participant_id == visit.person or not said(event, link):
            return
        whole = _whole(event, link)
        if event.id in told:
            done = AssistantMessageContentPartDone(content_index=0, content=whole.content[0])
            yield ThreadItemUpdatedEvent(item_id=event.id, update=done)
        yield ThreadItemDoneEvent(item=whole)
    elif isinstance(item, (ThreadItemDoneEvent, ThreadItemReplacedEvent)):
        yield item


def _whole(event: RoomEvent, link: Link = plain) -> AssistantMessageItem:
    content = [AssistantMessageContent(text=said(event, link))]
    return AssistantMessageItem(id=event.id, thread_id=event.room_id, created_at=event.created_at, content=content)


def _says(item: UserMessageItem) -> bool:
    return bool(item.attachments) or any(part.text for part in item.content)


def _now(kit: Any) -> datetime:
    return kit.engine.now() if hasattr(kit, "engine") else kit.now()


__all__ = ["ChatKitOptions", "RoomChatKitServer", "chatkit_app"]
