"""Calls: what a tenant's surface is asked here and another node has to do, and the other way round.

A method runs here; where that raises `Elsewhere` its arguments go to the owner as JSON, made and read by the method's
own type hints, and the answer comes back the same way, errors as the class they are.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cache, partial, wraps
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from roomkit.core.following import serve_view
from roomkit.core.port import submit_as
from roomkit.core.results import InboundResult, Settlement
from roomkit.core.streams import Viewer
from roomkit.errors import Elsewhere, Fenced, RoomKitError, StateError, StoreUnavailable, UsageError
from roomkit.models.access import Principal
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventDraft, RoomEvent
from roomkit.models.room import Participant, Room
from roomkit.ports.node import Json, NodeLost, raise_told, told_of
from roomkit.runtime import monotonic

if TYPE_CHECKING:
    from roomkit.core.nodes import Nodes

log = logging.getLogger(__name__)
T = TypeVar("T")
PATIENCE_S = 10.0
"""How long a call waits for its room to have an owner again."""
MOST_SETTLEMENTS = 10_000
ONCE = frozenset(
    {"settle_draft", "release", "answer_approval", "resend", "discard", "steer", "create_room", "fork", "import_lines"}
)
"""Methods that do it again, or say that it cannot be done, when they are called again. Of such a call whose answer was
lost nobody knows."""
KEYED = frozenset({"send", "process_inbound", "note", "whisper", "draft"})
"""Methods that know a second attempt by the id that the first had."""
_OPEN: dict[str, type[BaseModel]] = {"update_room": Room, "update_member": Participant}
"""Methods with open keywords, and the model whose fields they are."""
_HERE = ("open_view", "unregister_channel", "import_room")
"""Methods that find the owner of a room by themselves, or are about none."""
_SURFACES = 1_000


class Remote:
    """One method of a tenant's surface, as it goes over the wire."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name = fn.__name__
        self._signature = inspect.signature(fn)
        self._adapters: dict[str, TypeAdapter[Any]] = {}

    def encode(self, given: inspect.BoundArguments) -> Json:
        """Raises `UsageError` for what JSON cannot hold."""
        told: Json = {}
        for name, value in given.arguments.items():
            kind = self._signature.parameters[name].kind
            if name == "self":
                continue
            try:
                if kind is inspect.Parameter.VAR_KEYWORD:
                    told.update(to_jsonable_python(value))
                else:
                    told[name] = self._adapter(name).dump_python(value, mode="json", warnings=False)
            except (PydanticSerializationError, ValueError) as error:
                raise UsageError(
                    f"{self.name}({name}=...) cannot be sent to the process that has the room: {error}"
                ) from error
        return told

    def bind(self, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        return self._signature.bind(*args, **kwargs)

    def decode(self, told: Json) -> dict[str, Any]:
        return {name: self._adapter(name).validate_python(value) for name, value in told.items()}

    def encode_result(self, value: Any) -> Any:
        return self._adapter("return").dump_python(value, mode="json", warnings=False)

    def decode_result(self, value: Any) -> Any:
        return self._adapter("return").validate_python(value)

    def _adapter(self, name: str) -> TypeAdapter[Any]:
        found = self._adapters.get(name)
        if found is None:
            found = self._adapters[name] = TypeAdapter[Any](self._hint(name))
        return found

    def _hint(self, name: str) -> Any:
        annotations = self.fn.__annotations__
        parameter = self._signature.parameters.get(name)
        if name not in annotations or (parameter and parameter.kind is inspect.Parameter.VAR_KEYWORD):
            field = _OPEN[self.name].model_fields.get(name) if self.name in _OPEN else None
            return Any if field is None else cast("Any", field.annotation)
        one = SimpleNamespace(__annotations__={name: annotations[name]})
        try:
            return get_type_hints(one, self.fn.__globals__, include_extras=True)[name]
        except NameError as error:
            raise UsageError(f"{self.name}() cannot be asked of another process; call it where the room is") from error


@cache
def _remotes(rooms: type[Any]) -> dict[str, Remote]:
    """What can be asked of a tenant's surface."""
    return {
        name: Remote(fn)
        for name, fn in inspect.getmembers(rooms, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in _HERE
    }


class RemoteSettlement(Settlement):
    """What follows is done at another node, which is asked."""

    __slots__ = ("_ask", "_over")

    def __init__(self, ask: Callable[[], Awaitable[Json]]) -> None:
        super().__init__()
        self._ask = ask
        self._over = False

    @property
    def done(self) -> bool:
        return self._over

    async def wait(self) -> None:
        if not self._over:
            try:
                await self._ask()
            except NodeLost as lost:
                raise StateError(
                    "the process that had the room has gone: its next owner does what is left, "
                    "and kit.deliveries() and kit.events() tell what became of it"
                ) from lost
            self._over = True


class Calls:
    """Both ends: it asks other nodes, and as a `NodeHandler` does what they ask."""

    def __init__(self, nodes: Nodes, rooms: type[Any]) -> None:
        self.nodes = nodes
        self._class = rooms
        self._remotes = _remotes(rooms)
        self._overrides: dict[str, Callable[..., Any]] = {
            name: self._forwarding(remote) for name, remote in self._remotes.items()
        }
        self._overrides["open_view"] = self._open_view
        self._surfaces: OrderedDict[str, Any] = OrderedDict()
        self._settlements: OrderedDict[str, Settlement] = OrderedDict()

    # -- asking -------------------------------------------------------------------------------------------------------

    def adopt(self, surface: Any) -> None:
        """From now on the methods of this `Rooms` find the owner of each room."""
        for name, method in self._overrides.items():
            if getattr(cast("Any", type(surface)), name) is getattr(self._class, name):
                setattr(surface, name, MethodType(method, surface))

    def surface(self, tenant: str) -> Any:
        found = self._surfaces.get(tenant)
        if found is None:
            found = self._surfaces[tenant] = self._class(self.nodes.engine, tenant)
            self.adopt(found)
            if len(self._surfaces) > _SURFACES:
                self._surfaces.popitem(last=False)
        return found

    def _forwarding(self, remote: Remote) -> Callable[..., Any]:
        @wraps(remote.fn)
        async def forwarded(surface: Any, *args: Any, **kwargs: Any) -> Any:
            keyed = None
            if remote.name in KEYED:
                # One id for all attempts, wherever they are made: an owner may commit, die before it has answered, and
                # leave the room to this very node.
                keyed = remote.bind(surface, *args, **kwargs)
                _make_once(remote.name, keyed, f"node:{self.nodes.engine.new_id()}")

            async def here() -> Any:
                if keyed is None:
                    return await remote.fn(surface, *args, **kwargs)
                return await remote.fn(*keyed.args, **keyed.kwargs)

            async def there(elsewhere: Elsewhere) -> Any:
                given = keyed or remote.bind(surface, *args, **kwargs)
                if remote.name == "process_inbound":
                    given = _portable(remote, given, elsewhere)
                asked: Json = {
                    "do": "call",
                    "name": remote.name,
                    "tenant": surface.tenant_id,
                    "args": remote.encode(given),
                }
                answer = await self._ask(elsewhere.address, asked)
                if "result" in answer:
                    return self._result_of(answer["result"], elsewhere.address)
                return remote.decode_result(answer["value"])

            return await self.run(here, there, once=remote.name in ONCE)

        return forwarded

    async def run(
        self, here: Callable[[], Awaitable[T]], there: Callable[[Elsewhere], Awaitable[T]], *, once: bool = False
    ) -> T:
        """Does it here, or asks the owner, until somebody has done it. Raises `StoreUnavailable` when that takes too
        long, and for something that is not to be done twice as soon as it may have been done."""
        until, why = monotonic() + PATIENCE_S, ""
        while True:
            try:
                return await here()
            except Elsewhere as error:
                elsewhere = error
            except Fenced as error:  # Nothing was applied.
                elsewhere, why = None, f" ({error})"
            except StoreUnavailable:
                if not self.nodes.reviving:
                    raise
                elsewhere = None
                await self.nodes.revived()
            if elsewhere is not None and elsewhere.address:
                try:
                    return await there(elsewhere)
                except Elsewhere:
                    self.nodes.owners.forget(elsewhere)
                except NodeLost as lost:
                    self.nodes.owners.forget(elsewhere)
                    self.nodes.suspect(elsewhere.address)
                    if once and lost.sent:
                        raise StoreUnavailable(
                            "the process that has the room went away meanwhile, and it is unknown whether it has done "
                            "this; look before you ask again"
                        ) from lost
            if monotonic() > until:
                raise StoreUnavailable(f"the room is without an owner for too long{why}; try again") from elsewhere
            if elsewhere is not None:
                await self.nodes.owners.news(elsewhere)

    async def _ask(self, address: str, request: Json) -> Json:
        """One question and its answer. Raises what the other side raised, `NodeLost`, or `Elsewhere` for a room that
        it does not have."""
        gone = False
        task = asyncio.current_task()
        assert task is not None

        def cut() -> None:
            nonlocal gone
            gone = True
            call.cancel()

        call = self.nodes.spawn(self.nodes.link.call(address, request))
        with self.nodes.owners.asking(address, cut):
            try:
                answer = await call
            except asyncio.CancelledError:
                if gone and not task.cancelling():
                    raise NodeLost(address, "it was silent for too long", sent=True) from None
                call.cancel()
                raise
        raise_told(answer, request)
        self.nodes.engine.count("node_calls")
        return answer

    def _result_of(self, told: Json, address: str) -> InboundResult:
        event = None if told["event"] is None else RoomEvent.model_validate(told["event"])
        token = told.get("settlement")
        settlement = Settlement()
        if token is not None:
            settlement = RemoteSettlement(partial(self._ask, address, {"do": "settled", "token": token}))
        return InboundResult(event, told["room_id"], told["blocked"], told["reason"], told["duplicate"], settlement)

    async def _open_view(
        self,
        surface: Any,
        room_id: str,
        viewer: Viewer | Principal | str,
        deliver: Callable[[Any], None],
        *,
        after: int | None = None,
        tail: int = 50,
    ) -> Any:
        """As `Rooms.open_view`; it goes on wherever the room goes."""
        if isinstance(viewer, Principal):
            viewer = Viewer.of(viewer)
        elif isinstance(viewer, str):
            self.nodes.engine.registry.require(viewer, surface.tenant_id)
            viewer = Viewer(channel_id=viewer)
        return await self.nodes.open_view(surface.tenant_id, room_id, viewer, deliver, after, tail)

    async def submit(self, tenant: str, room_id: str, channel_id: str, draft: EventDraft) -> RoomEvent:
        """A channel's own event, at the room's owner."""

        async def there(elsewhere: Elsewhere) -> RoomEvent:
            told = draft.model_dump(mode="json")
            asked: Json = {"do": "submit", "tenant": tenant, "room_id": room_id, "channel": channel_id, "draft": told}
            return RoomEvent.model_validate((await self._ask(elsewhere.address, asked))["value"])

        here = partial(submit_as, self.nodes.engine, tenant, room_id, channel_id, draft)
        return await self.run(here, there, once=True)

    # -- being asked --------------------------------------------------------------------------------------------------

    async def call(self, request: Json) -> Json:
        """Does what another node asks. Never forwards: who asks finds the owner."""
        try:
            return await self._do(request)
        except (Elsewhere, Fenced):
            return {"moved": True}
        except RoomKitError as error:
            return told_of(error)
        except (ValidationError, KeyError, TypeError) as error:
            return told_of(UsageError(f"a node asked for what this one does not understand: {type(error).__name__}"))
        except Exception:  # the lane boundary: whoever asked hears that it went wrong
            log.exception("a call of another node failed")
            return told_of(StateError("something went wrong in the process that has the room; its log tells what"))

    async def _do(self, request: Json) -> Json:
        match request["do"]:
            case "call":
                remote = self._remotes[request["name"]]
                surface = self._class(self.nodes.engine, request["tenant"])
                value = await remote.fn(surface, **remote.decode(request["args"]))
                if isinstance(value, InboundResult):
                    return {"result": self._told(value)}
                return {"value": remote.encode_result(value)}
            case "submit":
                draft = EventDraft.model_validate(request["draft"])
                room = (request["tenant"], request["room_id"])
                event = await submit_as(self.nodes.engine, *room, request["channel"], draft)
                return {"value": event.model_dump(mode="json")}
            case "settled":
                settlement = self._settlements.get(request["token"])
                if settlement is not None:
                    await settlement.wait()
                    self._settlements.pop(request["token"], None)
                return {}
            case other:
                raise UsageError(f'"{other}" is nothing that a node can be asked; do all run the same version?')

    def _told(self, result: InboundResult) -> Json:
        told: Json = {name: getattr(result, name) for name in ("room_id", "blocked", "reason", "duplicate")}
        told["event"] = result.event.model_dump(mode="json") if result.event is not None else None
        if not result.settlement.done:
            token = self.nodes.engine.new_id()
            self._settlements[token] = result.settlement
            told["settlement"] = token
            if len(self._settlements) > MOST_SETTLEMENTS:
                self._settlements.popitem(last=False)
        return told

    async def stream(self, request: Json) -> AsyncGenerator[Json]:
        async for item in serve_view(self.nodes, request):
            yield item


def _make_once(name: str, given: inspect.BoundArguments, token: str) -> None:
    """Gives a message an id by which a second attempt is recognised."""
    message = given.arguments.get("message")
    if name != "process_inbound" and given.arguments.get("idempotency_key") is None:
        given.arguments["idempotency_key"] = token
    elif isinstance(message, InboundMessage) and message.external_id is None:
        given.arguments["message"] = message.replaced(external_id=token)


def _portable(remote: Remote, given: inspect.BoundArguments, elsewhere: Elsewhere) -> inspect.BoundArguments:
    """A message with the room that it was found to belong to. A live session is this process's own and does not
    travel."""
    told = remote.bind(*given.args, **given.kwargs)
    told.arguments["room_id"] = elsewhere.room_id
    told.arguments["message"] = told.arguments["message"].replaced(session=None)
    return told
