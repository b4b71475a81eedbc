"""RoomStore: ChatKit's store over rooms. A thread is a room, its items are what its owner may see of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roomkit.core import messages
from roomkit.core.actor import SYSTEM
from roomkit.core.membership import GONE
from roomkit.core.results import Settlement
from roomkit.core.streams import Viewer
from roomkit.errors import RoomNotFound, StateError
from roomkit.models.content import Content, DeleteContent, SystemContent, valid
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import AgentResponsePolicy, Room
from roomkit.protocols.chatkit.items import (
    KEY,
    Link,
    content_of,
    dumped,
    item_of,
    items_of,
    kept_of,
    page_of,
    plain,
    removed,
    stored,
    thread_of,
)
from roomkit.protocols.chatkit.package import (
    Attachment,
    ClientToolCallItem,
    HiddenContextItem,
    NotFoundError,
    Page,
    SDKHiddenContextItem,
    Store,
    ThreadItem,
    ThreadMetadata,
    UserMessageItem,
)
from roomkit.servers.chatkit_files import ThreadFiles
from roomkit.servers.visit import Visit

if TYPE_CHECKING:
    from roomkit.core.results import InboundResult
    from roomkit.kit import RoomKit
    from roomkit.rooms import Rooms

OWNER = "chatkit_owner"
PAGE, MOST_ITEMS = 500, 10_000
MOST_WAITING = 1_000
_PREFIXES = {
    "message": "msg",
    "tool_call": "tc",
    "task": "tsk",
    "workflow": "wf",
    "attachment": "atc",
    "sdk_hidden_context": "shcx",
}


def _as_it_is(attachment: Attachment, owner: str) -> Attachment:
    del owner
    return attachment


class Waiting:
    """What a message has set off, kept for `respond`: the visit that was opened before it was said, its result, and the
    task of the request that waits for it; None while it waits for the page."""

    __slots__ = ("by", "result", "visit")

    def __init__(self, visit: Visit, result: InboundResult) -> None:
        self.visit = visit
        self.result = result
        self.by: asyncio.Task[Any] | None = asyncio.current_task()


class RoomStore(Store[Any]):
    """`user_of(context)` tells whose request it is: nobody else's threads exist for them. `channel_id` is the channel
    (of reach "cursor") that threads are seen through."""

    def __init__(
        self, kit: RoomKit, channel_id: str, user_of: Callable[[Any], str], *, tenant: str | None = None
    ) -> None:
        self.kit = kit
        self.rooms: Rooms = kit if tenant is None else kit.tenant(tenant)
        self.channel_id = channel_id
        self.user_of = user_of
        self.files = ThreadFiles(kit, self.rooms, channel_id)
        self.live: dict[str, Visit] = {}
        """Pages that wait for an answer, by thread."""
        self.fresh: Callable[[Attachment, str], Attachment] = _as_it_is
        """An attachment as it is shown now: the links of those that the server keeps expire."""
        self.link: Link = plain
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._taken: set[Waiting] = set()

    def generate_thread_id(self, context: Any) -> str:
        return f"thr_{self.kit.engine.new_id()}"

    def generate_item_id(self, item_type: Any, thread: ThreadMetadata, context: Any) -> str:
        return f"{_PREFIXES.get(item_type, 'itm')}_{self.kit.engine.new_id()}"

    # -- threads --------------------------------------------------------------------------------------------------

    async def load_thread(self, thread_id: str, context: Any) -> ThreadMetadata:
        return thread_of(await self.room(thread_id, context))

    async def save_thread(self, thread: ThreadMetadata, context: Any) -> None:
        owner = self.user_of(context)
        try:
            room = await self.rooms.get_room(thread.id)
        except RoomNotFound:
            await self.rooms.create_room(
                thread.id,
                metadata={OWNER: owner, KEY: kept_of(thread)},
                # Of several agents the one answers whom the person has chosen; they do not answer each other.
                agent_response_policy=AgentResponsePolicy.ADDRESSED_ONLY,
            )
            (await self.visit(thread.id, context)).close()  # The seat is there from the start.
            return
        if room.metadata.get(OWNER) != owner:
            raise NotFoundError(f"thread {thread.id} is not there")
        await self.rooms.update_room_metadata(thread.id, {KEY: kept_of(thread)})

    async def load_threads(self, limit: int, after: str | None, order: str, context: Any) -> Page[ThreadMetadata]:
        owner = self.user_of(context)
        rooms = await self.rooms.list_rooms(metadata={OWNER: owner}, limit=MOST_ITEMS)
        mine = [room for room in rooms if room.metadata.get(OWNER) == owner and not room.metadata.get("deleted")]
        mine.sort(key=lambda room: (room.created_at, room.id))
        return page_of([thread_of(room) for room in mine], after, limit, order)

    async def delete_thread(self, thread_id: str, context: Any) -> None:
        """The thread is gone for its owner; the room is archived, and erased by the host's own rules."""
        await self.room(thread_id, context)
        await self.rooms.update_room_metadata(thread_id, {"deleted": True})
        await self.rooms.archive_room(thread_id, by=self.user_of(context))

    async def room(self, thread_id: str, context: Any) -> Room:
        """The thread's room. Raises `NotFoundError` unless it is there and the caller's own."""
        return await self.room_of(thread_id, self.user_of(context))

    async def room_of(self, thread_id: str, user: str) -> Room:
        try:
            room = await self.rooms.get_room(thread_id)
        except (RoomNotFound, StateError):
            raise NotFoundError(f"thread {thread_id} is not there") from None
        if room.metadata.get(OWNER) != user or room.metadata.get("deleted"):
            raise NotFoundError(f"thread {thread_id} is not there")
        if any(one.id == user and one.status in GONE for one in await self.rooms.participants(thread_id)):
            raise NotFoundError(f"thread {thread_id} is not there")
        return room

    # -- items ----------------------------------------------------------------------------------------------------

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Any
    ) -> Page[ThreadItem]:
        try:
            rows = await self.items(thread_id, context)
        except NotFoundError:
            rows = []  # As the package's own stores: somebody else's thread has no items.
        return page_of(rows, after, limit, order)

    async def load_item(self, thread_id: str, item_id: str, context: Any) -> ThreadItem:
        for item in await self.items(thread_id, context):
            if item.id == item_id:
                return item
        raise NotFoundError(f"item {item_id} is not in thread {thread_id}")

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        """A user's message is said in the room; a message of others stands there already. All else is kept as it is."""
        if isinstance(item, UserMessageItem):
            await self._say(thread_id, item, context)
        elif item.type != "assistant_message" or not await self._stands(thread_id, item.id, context):
            await self.save_item(thread_id, item, context)

    async def save_item(self, thread_id: str, item: ThreadItem, context: Any) -> None:
        room = await self.room(thread_id, context)
        if not room.open:
            raise NotFoundError(f"thread {thread_id} is closed")
        hidden = isinstance(item, (HiddenContextItem, SDKHiddenContextItem))
        await self.keep(thread_id, stored(item, thread_id), internal=hidden)
        if isinstance(item, ClientToolCallItem) and item.status == "completed":
            self.completed(item)

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Any) -> None:
        """The owner's own message and a brain's answer are deleted in the room, for everybody; whatever else there is,
        what people of the house have said above all, is only left out here."""
        person, brains = self.user_of(context), self.kit.engine.channels
        for event in await self._events(thread_id, context):
            if event.type is not EventType.MESSAGE or item_of(event, person).id != item_id:
                continue
            brain = brains.get(event.source.channel_id)
            if event.source.participant_id == person or (brain is not None and brain.reach == "turn"):
                await self._write(thread_id, DeleteContent(target_event_id=event.id, delete_type="system"))
        await self.keep(thread_id, removed(item_id))

    async def items(self, thread_id: str, context: Any) -> list[Any]:
        """All items, oldest first. Copies: whoever changes one changes nothing here."""
        user = self.user_of(context)
        found = items_of(await self._events(thread_id, context), user, self.link)
        for item in found:
            if isinstance(item, UserMessageItem):
                item.attachments = [self.fresh(one, user) for one in item.attachments]
        return found

    async def keep(self, thread_id: str, content: Content, *, internal: bool = False) -> None:
        await self._write(thread_id, content, "internal" if internal else self.channel_id)

    def completed(self, item: ClientToolCallItem) -> None:
        """The page has run a tool; the server overrides what follows."""

    async def again(self, thread_id: str, item: UserMessageItem, context: Any) -> None:
        """The same words anew, as the newest message: whoever answers here answers again."""
        person = self.user_of(context)
        for event in await self._events(thread_id, context):
            if event.type is EventType.MESSAGE and item_of(event, person).id == item.id:
                await self._write(thread_id, DeleteContent(target_event_id=event.id, delete_type="system"))
        await self._say(thread_id, item, context, again=self.kit.engine.new_id())

    def take(self, thread_id: str, item_id: str) -> Waiting | None:
        """What `add_thread_item` has begun, for whoever answers."""
        waiting = self._waiting.pop((thread_id, item_id), None)
        if waiting is not None:
            self._taken.add(waiting)
        return waiting

    def let_go(self, request: Any) -> None:
        """A request is over: what it has begun and what it has waited for is given up."""
        for waiting in tuple(self._taken):
            if waiting.by is request:
                self.leave(waiting.visit.room_id, waiting.visit)
        for key, waiting in tuple(self._waiting.items()):
            if waiting.by is request:
                del self._waiting[key]
                self.leave(key[0], waiting.visit)

    def leave(self, thread_id: str, visit: Visit) -> None:
        """Nobody waits for an answer any more."""
        visit.close()
        self._taken = {waiting for waiting in self._taken if waiting.visit is not visit}
        if self.live.get(thread_id) is visit:
            del self.live[thread_id]

    async def visit(self, thread_id: str, context: Any) -> Visit:
        """A seat in the thread's room, from now on. Raises `NotFoundError` unless it is the caller's own."""
        await self.room(thread_id, context)
        visit = Visit(self.rooms, thread_id, self.channel_id, self.user_of(context))
        await visit.enter(create=False)
        return visit

    async def _say(self, thread_id: str, item: UserMessageItem, context: Any, *, again: str = "") -> None:
        await self.room(thread_id, context)
        content = content_of(item, await self.files.urls(item.attachments, self.user_of(context), thread_id))
        if content is None:
            return
        visit = self.live[thread_id] = await self.visit(thread_id, context)
        try:
            model = item.inference_options.model
            result = await visit.say(
                valid(content),
                external_id=f"{thread_id}:{item.id}:{again}",
                addressed_to=(model,) if model in self.kit.engine.channels else None,
                channel_data={KEY: dumped(item, thread_id)},
            )
        except BaseException:
            self.leave(thread_id, visit)
            raise
        while len(self._waiting) >= MOST_WAITING:
            oldest = next(iter(self._waiting))
            self.leave(oldest[0], self._waiting.pop(oldest).visit)
        self._waiting[thread_id, item.id] = Waiting(visit, result)

    async def _stands(self, thread_id: str, item_id: str, context: Any) -> bool:
        newest = await self._events(thread_id, context, most=PAGE)
        return any(event.id == item_id for event in newest)

    async def _events(self, thread_id: str, context: Any, *, most: int = MOST_ITEMS) -> list[RoomEvent]:
        """What the owner may see, and the hidden context that only the server reads, oldest first."""
        await self.room(thread_id, context)
        viewer = Viewer(channel_id=self.channel_id, person=self.user_of(context))
        found: list[RoomEvent] = []
        before: int | None = None
        while len(found) < most:
            window = await self.rooms.events(thread_id, before=before, limit=PAGE, newest_first=True, viewer=viewer)
            hidden = await self.rooms.events(thread_id, before=before, limit=PAGE, newest_first=True, raw=True)
            if not hidden:
                break
            own = [one for one in hidden if isinstance(one.content, SystemContent) and one.visibility == "internal"]
            found += sorted({one.id: one for one in (*window, *own)}.values(), key=lambda one: -one.index)
            before = hidden[-1].index
            if before <= 0:
                break
        return found[::-1]

    async def _write(self, thread_id: str, content: Content, visibility: str = "all") -> None:
        """Writes as the framework: nobody's seat is needed, and no brain is woken."""
        actor = await self.kit.engine.table.require(self.rooms.tenant_id, thread_id)
        kind = EventType.DELETE if isinstance(content, DeleteContent) else EventType.SYSTEM
        draft = EventDraft(source=SYSTEM, content=content, type=kind, visibility=visibility)
        await actor.call(messages.submit, messages.Submission(draft, Settlement(), binding_required=False))

    # -- attachments ----------------------------------------------------------------------------------------------

    async def save_attachment(self, attachment: Attachment, context: Any) -> None:
        await self.files.save(attachment, self.user_of(context))

    async def load_attachment(self, attachment_id: str, context: Any) -> Attachment:
        user = self.user_of(context)
        return self.fresh(await self.files.load(attachment_id, user), user)

    async def delete_attachment(self, attachment_id: str, context: Any) -> None:
        await self.files.delete(attachment_id, self.user_of(context))

    async def uploaded(self, attachment_id: str, url: str, context: Any) -> None:
        """The file of an attachment has come, and is kept at `url`: for hosts with an attachment store of their own."""
        await self.files.uploaded(attachment_id, url, self.user_of(context))
