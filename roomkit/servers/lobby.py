"""Everyone who is connected: sweeping out the silent and the expired, and telling what changed about rooms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from roomkit.core.hooks import Filter
from roomkit.core.membership import GONE
from roomkit.errors import RoomKitError
from roomkit.models.event import EventType
from roomkit.models.hooks import Committed
from roomkit.runtime import Wakeup, monotonic
from roomkit.servers.views import summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from roomkit.models.access import Principal
    from roomkit.servers.door import Door

SWEEP_S = 1.0
GATHER_S = 0.1
"""How long changes of rooms are gathered before they are told."""
STATE_EVENTS = frozenset(
    str(kind)
    for kind in EventType
    if kind.value.startswith(("room_", "participant_", "channel_", "floor_", "attention_", "approval_"))
)
RoomKey = tuple[str, str]


class Connection(Protocol):
    """Somebody who is connected: a room socket, or a web socket with a call on it. Nothing here waits."""

    principal: Principal | None
    staff: bool

    def tell(self, kind: str, /, **fields: Any) -> None: ...

    def cut(self, code: int, reason: str) -> None: ...

    def check(self, now: float, stamp: float) -> None: ...

    def expel(self) -> None: ...


class Lobby:
    """The connections of one app. One task sweeps them all; it runs only while there are any."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connections: dict[Connection, None] = {}  # Not sets, whose order is that of addresses.
        self._rooms: dict[RoomKey, dict[Connection, None]] = {}
        self._watchers: dict[Connection, None] = {}
        self._count: dict[tuple[str, str], int] = {}
        self._dirty: dict[RoomKey, None] = {}
        self._left = Wakeup()
        self._sweeper: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None
        self._unhook: dict[str, Callable[[], None]] = {}
        self._unwatch: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def full(self) -> bool:
        return len(self._connections) >= self._door.options.max_connections

    def admit(self, principal: Principal) -> bool:
        """Counts a connection of this principal, unless it has all that one may have. `remove` gives it back."""
        key = (principal.tenant, principal.id)
        count = self._count.get(key, 0)
        if count >= self._door.options.max_connections_per_principal:
            return False
        self._count[key] = count + 1
        return True

    def add(self, connection: Connection) -> None:
        self._connections[connection] = None
        if self._sweeper is None:
            self._sweeper = self._door.scope.spawn(self._sweep(), name="sweep sockets")

    def remove(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if connection.principal is not None:
            key = (connection.principal.tenant, connection.principal.id)
            self._count[key] -= 1
            if not self._count[key]:
                del self._count[key]
        self.watch(connection, on=False)
        if not self._connections:
            self._left.set()
            if self._sweeper is not None:
                self._sweeper.cancel()
                self._sweeper = None

    async def emptied(self) -> None:
        """Waits until everybody has left. For one caller at a time."""
        while self._connections:
            await self._left.wait()

    def enter(self, connection: Connection, key: RoomKey) -> None:
        self._rooms.setdefault(key, {})[connection] = None
        self._hook("state", self._committed, Filter(types=STATE_EVENTS))
        if connection.staff:
            self._tell_viewers(key, connection)

    def leave(self, connection: Connection, key: RoomKey) -> None:
        here = self._rooms.get(key, {})
        here.pop(connection, None)
        if not here:
            self._rooms.pop(key, None)
        if not self._rooms:
            self._release("state")
        if connection.staff:
            self._tell_viewers(key, connection)

    def viewers(self, key: RoomKey) -> list[dict[str, Any]]:
        """The staff looking at a room, each once."""
        found = {
            c.principal.id: self._door.views.principal(c.principal)
            for c in self._rooms.get(key, ())
            if c.principal and c.staff
        }
        return [{name: who[name] for name in ("id", "display_name", "role")} for who in found.values()]

    def has_staff(self, tenant: str, who: str) -> bool:
        """Whether somebody of the staff is connected under this id."""
        return any(
            c.staff and c.principal and (c.principal.tenant, c.principal.id) == (tenant, who) for c in self._connections
        )

    def watch(self, connection: Connection, *, on: bool) -> None:
        """Tells this connection about every room of its tenant that changes."""
        if on:
            self._watchers[connection] = None
            self._hook("all", self._committed, None)
        else:
            self._watchers.pop(connection, None)
            if not self._watchers:
                self._release("all")

    def cut_all(self, code: int, reason: str) -> None:
        for connection in tuple(self._connections):
            connection.cut(code, reason)

    def close(self) -> None:
        for name in tuple(self._unhook):
            self._release(name)
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now, stamp = monotonic(), self._door.now()
            for connection in tuple(self._connections):
                connection.check(now, stamp)

    def _hook(self, name: str, hear: Callable[[Committed], Any], where: Filter | None) -> None:
        if self._unwatch is None and self._door.kit.engine.nodes is not None:
            self._unwatch = self._door.kit.engine.bus.watch(self._changed)
        if name not in self._unhook:
            self._unhook[name] = self._door.kit.hooks.on(Committed, hear, name=f"lobby {name}", where=where)

    def _changed(self, tenant: str, room_id: str) -> None:
        """A room of another process has changed, or any of them may have."""
        if self._door.kit.engine.table.loaded(tenant, room_id) is not None:
            return  # it was heard of here
        if not tenant or (tenant, room_id) in self._rooms or self._watchers:
            self._dirty.update(dict.fromkeys([(tenant, room_id)] if tenant else self._rooms))
            self._tell_soon()

    def _release(self, name: str) -> None:
        unhook = self._unhook.pop(name, None)
        if unhook is not None:
            unhook()
        if not self._unhook and self._teller is not None:  # There is nobody to tell.
            self._dirty.clear()
            self._teller.cancel()
            self._teller = None

    async def _committed(self, notice: Committed) -> None:
        key = (notice.tenant, notice.room_id)
        if key not in self._rooms and not self._watchers:
            return
        self._dirty[key] = None
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._dirty and self._teller is None:
            self._teller = self._door.scope.spawn(self._tell(), name="tell rooms")

    async def _tell(self) -> None:
        try:
            while self._dirty:
                await asyncio.sleep(GATHER_S)
                dirty, self._dirty = self._dirty, {}
                for key in dirty:
                    await self._tell_room(key)
        finally:
            if self._teller is asyncio.current_task():
                self._teller = None

    async def _tell_room(self, key: RoomKey) -> None:
        tenant, room_id = key
        rooms = self._door.kit.tenant(tenant)
        try:
            room = await rooms.get_room(room_id)
            people = await rooms.participants(room_id)
            self._door.meet(people)
            line = await summary(rooms, room, last=bool(self._watchers))
        except RoomKitError:
            return  # it is gone, or the store is in trouble: a later change is told again
        gone = {person.id for person in people if person.status in GONE}
        for connection in tuple(self._rooms.get(key, ())):
            if connection.principal is not None and connection.principal.id in gone:
                connection.expel()
            connection.tell("room", room=self._door.views.room(room, staff=connection.staff))
        for connection in tuple(self._watchers):
            if connection.principal and connection.principal.tenant == tenant:
                connection.tell("rooms", rooms=[line])

    def _tell_viewers(self, key: RoomKey, but: Connection) -> None:
        viewers = self.viewers(key)
        for connection in tuple(self._rooms.get(key, ())):
            if connection.staff and connection is not but:
                connection.tell("ephemeral", room_id=key[1], kind="viewing", sender="server", data={"viewers": viewers})
