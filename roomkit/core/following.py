"""Views across nodes: a follower looks at a room wherever it is, and goes on from its last index when that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from roomkit.core import views
from roomkit.core.streams import Deliver, View, Viewer, ViewLost
from roomkit.errors import Elsewhere, Fenced, RoomKitError, StateError, StoreError, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding, Participant, Room
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.ports.node import Json, NodeLost, raise_told, told_of
from roomkit.runtime import BlockingBuffer, Scope, monotonic
from roomkit.runtime.buffers import BufferClosed

if TYPE_CHECKING:
    from roomkit.core.nodes import Nodes

log = logging.getLogger(__name__)
PATIENCE_S = 10.0
BUFFER = 10_000
"""Items kept for a node that takes them slowly; then its view is cut, and resumed from its last index."""
KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (RoomEvent, StreamStart, StreamChunk, StreamEnd, StreamError, Ephemeral)
}
_BINDINGS = TypeAdapter(list[ChannelBinding])
_PEOPLE = TypeAdapter(list[Participant])


class Follower:
    """One view of a room. What was open when its owner went away is ended as the next owner says."""

    def __init__(self, nodes: Nodes, scope: Scope, room: tuple[str, str], viewer: Viewer, deliver: Deliver) -> None:
        self._nodes = nodes
        self._scope = scope
        self._tenant, self._room_id = room
        self._viewer = viewer
        self._deliver = deliver
        self._index = -1
        self._growing: dict[str, int] = {}
        self._held: list[Any] | None = None
        self._source = 0
        self._leave: Callable[[], object] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        self._closed = False

    async def open(self, after: int | None, tail: int) -> View:
        """Raises `RoomNotFound`, or `StoreUnavailable` while the room has no owner for too long."""
        self._held = []
        view = await self._open(after, tail, PATIENCE_S)
        self._index = view.index
        self._growing = {start.stream_id: len(text) for start, text in view.streams}
        view.close = self.close
        held, self._held = self._held, None
        for item in held:
            self._take(item)
        if self._lost:
            self._search()
        return view

    def close(self) -> None:
        self._closed = True
        self._forget()
        if self._task is not None:
            self._task.cancel()

    def _forget(self) -> None:
        self._source += 1
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    # -- looking ------------------------------------------------------------------------------------------------------

    async def _open(self, after: int | None, tail: int, patience: float | None) -> View:
        until = None if patience is None else monotonic() + patience
        while True:
            self._forget()
            try:
                return await self._look(after, tail, patience is None)
            except (Elsewhere, NodeLost, StoreError) as error:
                if until is not None and (monotonic() > until or isinstance(error, StoreUnavailable)):
                    raise StoreUnavailable("the room is without an owner for too long; try again") from error
                nowhere = Elsewhere(self._tenant, self._room_id, "")
                await self._nodes.owners.news(error if isinstance(error, Elsewhere) else nowhere)

    async def _look(self, after: int | None, tail: int, again: bool) -> View:
        """`again`: what grew here before waits for its end, however long its new owner takes for it; or it would be
        told as lost now, and as ended then."""
        nodes = self._nodes
        try:
            actor = await nodes.engine.table.require(self._tenant, self._room_id)
        except Elsewhere as elsewhere:
            if not elsewhere.address:
                raise
            try:
                return await self._look_there(elsewhere.address, after, tail, again)
            except (Elsewhere, NodeLost):
                nodes.owners.forget(elsewhere)
                raise
        await nodes.held.resumed(self._tenant, self._room_id, patient=again and bool(self._growing))
        view = await actor.call(views.open_view, self._viewer, self._taking(self._source), after, tail)
        self._leave = view.close
        return view

    async def _look_there(self, address: str, after: int | None, tail: int, again: bool) -> View:
        request: Json = {
            "do": "view",
            "tenant": self._tenant,
            "room_id": self._room_id,
            "viewer": [self._viewer.channel_id, self._viewer.internal, self._viewer.person],
            "after": after,
            "tail": tail,
            "patient": again and bool(self._growing),
        }
        first: asyncio.Future[View] = asyncio.get_running_loop().create_future()
        task = self._scope.spawn(self._pump(address, request, first, self._source), name=f"follow {self._room_id}")

        self._leave = task.cancel
        try:
            return await first
        except BaseException:
            task.cancel()
            raise

    async def _pump(self, address: str, request: Json, first: asyncio.Future[View], source: int) -> None:
        """Hands on what the owner says. However it ends, the room is looked for again."""
        take = self._taking(source)
        task = asyncio.current_task()
        assert task is not None
        why: RoomKitError = NodeLost(address, "it was silent for too long", sent=False)
        try:
            with self._nodes.owners.asking(address, task.cancel):
                async with aclosing(self._nodes.link.stream(address, request)) as items:
                    async for item in items:
                        if first.done():
                            take(item_of(item))
                        else:
                            raise_told(item, request)
                            first.set_result(view_of(item["view"], self.close))
        except RoomKitError as error:
            why = error
        except (ValidationError, KeyError) as error:
            why = StateError(f"the node at {address} shows what this one does not understand; run the same version")
            log.warning("%s: %s", why, error)
        finally:
            if first.done():
                take(ViewLost(self._room_id))
            else:
                first.set_exception(why)
                first.exception()

    def _taking(self, source: int) -> Deliver:
        def take(item: Any) -> None:
            if source == self._source and not self._closed:
                self._take(item)

        return take

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _take(self, item: Any) -> None:
        if isinstance(item, ViewLost):
            self._source += 1
            self._leave = None
            self._lost = True
            if self._held is None:
                self._search()
            return
        if self._held is not None:
            self._held.append(item)
            return
        kind = cast("type[Any]", type(item))
        if kind is StreamChunk:
            self._growing[item.stream_id] = item.offset + len(item.delta)
        elif kind is StreamStart:
            self._growing[item.stream_id] = 0
        elif kind is StreamEnd or kind is StreamError:
            self._growing.pop(item.stream_id, None)
        if kind is RoomEvent:
            self._index = max(self._index, item.index)
        elif kind is StreamEnd:
            self._index = max(self._index, item.event.index)
        self._deliver(item)

    def _search(self) -> None:
        if self._task is None or self._task.done():
            try:
                self._task = self._scope.spawn(self._find_again(), name=f"find {self._room_id} again")
            except StateError:
                self._closed = True  # the kit closes

    async def _find_again(self) -> None:
        """Looks for the room until it is found; what is said there meanwhile waits for what was missed."""
        self._nodes.engine.count("node_views_moved")
        while self._lost:
            self._lost, self._held = False, []
            try:
                view = await self._open(self._index, 0, None)
            except RoomKitError as error:
                log.warning("a view of room %s cannot go on: %s", self._room_id, error)
                self._give_up()
                return
            if view.resync:
                self._give_up()
                return
            held, self._held = self._held, None
            self._go_on(view)
            for item in held:
                self._take(item)

    def _give_up(self) -> None:
        """Whoever looks on has to begin afresh."""
        self._held = None
        self.close()
        self._deliver(ViewLost(self._room_id))

    def _go_on(self, view: View) -> None:
        still = {start.stream_id: (start, text) for start, text in view.streams}
        ended = {event.id for event in view.events}
        for stream_id in [one for one in self._growing if one not in still and one not in ended]:
            self._take(StreamError(room_id=self._room_id, stream_id=stream_id, error="interrupted"))
        for event in view.events:
            if event.id in self._growing:
                self._take(StreamEnd(room_id=self._room_id, stream_id=event.id, event=event))
            else:
                self._take(event)
        for stream_id, (start, text) in still.items():
            shown = self._growing.get(stream_id)
            if shown is None:
                self._take(start)
            shown = shown or 0
            if len(text) > shown:
                self._take(StreamChunk(room_id=self._room_id, stream_id=stream_id, offset=shown, delta=text[shown:]))
        self._index = max(self._index, view.index)


# -- the owner's side -------------------------------------------------------------------------------------------------


async def serve_view(nodes: Nodes, request: Json) -> AsyncGenerator[Json]:
    """Shows one of our rooms to another node: the view, then every item, until the room or the other node goes."""
    tenant, room_id = request["tenant"], request["room_id"]
    viewer = Viewer(*request["viewer"])
    items: BlockingBuffer[Any] = BlockingBuffer(BUFFER)

    def deliver(item: Any) -> None:
        if isinstance(item, ViewLost) or not items.try_put(item):
            items.close()

    try:
        actor = await nodes.engine.table.require(tenant, room_id)
        await nodes.held.resumed(tenant, room_id, patient=bool(request.get("patient")))
        view = await actor.call(views.open_view, viewer, deliver, request["after"], request["tail"])
    except (Elsewhere, Fenced):
        yield {"moved": True}
        return
    except RoomKitError as error:
        yield told_of(error)
        return
    try:
        yield {"view": told_view(view)}
        while True:
            item = await items.get()
            yield told_item(item)
    except BufferClosed:
        return
    finally:
        view.close()


def told_item(item: Any) -> Json:
    return {"is": type(item).__name__, "item": item.model_dump(mode="json")}


def item_of(told: Json) -> Any:
    return KINDS[told["is"]].model_validate(told["item"])


def told_view(view: View) -> Json:
    return {
        "events": [event.model_dump(mode="json") for event in view.events],
        "index": view.index,
        "epoch": view.epoch,
        "resync": view.resync,
        "room": view.room.model_dump(mode="json"),
        "bindings": _BINDINGS.dump_python(view.bindings, mode="json"),
        "participants": _PEOPLE.dump_python(view.participants, mode="json"),
        "streams": [[start.model_dump(mode="json"), text] for start, text in view.streams],
        "start": view.start,
    }


def view_of(told: Json, close: Callable[[], None]) -> View:
    return View(
        events=[RoomEvent.model_validate(event) for event in told["events"]],
        index=told["index"],
        epoch=told["epoch"],
        resync=told["resync"],
        room=Room.model_validate(told["room"]),
        bindings=_BINDINGS.validate_python(told["bindings"]),
        participants=_PEOPLE.validate_python(told["participants"]),
        streams=[(StreamStart.model_validate(start), text) for start, text in told["streams"]],
        close=close,
        start=told.get("start", 0),  # a node of the version before does not tell
    )
