"""Door: what all routes and sockets of one app share: the kit, who is asking, what they may do."""

from __future__ import annotations

import inspect
import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roomkit.core import membership
from roomkit.core.outlet import OutletOptions, Outlets
from roomkit.core.state import event_by_id
from roomkit.core.streams import Viewer
from roomkit.errors import AccessDenied, Overloaded, RoomNotFound
from roomkit.models.access import Principal
from roomkit.models.event import RoomEvent
from roomkit.models.room import Assurance
from roomkit.models.stream import Ephemeral
from roomkit.net.ratelimit import RateLimiter
from roomkit.protocols.room_socket.codec import Outgoing, merge_outgoing, size_outgoing
from roomkit.runtime import Metrics, Scope
from roomkit.servers.access import Action, TokenAuthentication, allowed
from roomkit.servers.lobby import Lobby
from roomkit.servers.options import ServerOptions
from roomkit.servers.views import Views

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.requests import HTTPConnection

    from roomkit.kit import RoomKit
    from roomkit.models.room import Participant
    from roomkit.ports.channel import Channel
    from roomkit.rooms import Rooms

MAX_WINDOWS = 20
MAX_PRESENT = 2_000
FULL_S = 5.0


class Unauthenticated(AccessDenied):
    """Nobody we know is asking (401, as opposed to 403)."""


class TooMany(Overloaded):
    """One caller asks too often."""


class Door:
    """One app over one kit. `scope` owns whatever the app runs beside its requests."""

    def __init__(self, kit: RoomKit, options: ServerOptions) -> None:
        self.kit = kit
        self.options = options
        self.scope = Scope("server")
        self.outlets = Outlets[Outgoing](
            "socket writes",
            OutletOptions(
                capacity=options.socket_buffer,
                merge=merge_outgoing,
                size=size_outgoing,
                timeout_s=options.send_timeout_s,
                strikes=1,
            ),
        )
        self._present: dict[tuple[str, str], dict[str, Participant]] = {}
        self.views = Views(kit.tokens.pseudonym, self._people, options.web_channel)
        self.lobby = Lobby(self)
        self.draining = False
        self.metrics = Metrics()
        self.metrics.gauge("roomkit_sockets", "Open room sockets.").labels().follow(lambda: float(len(self.lobby)))
        self.cuts = self.metrics.counter("roomkit_socket_cuts_total", "Sockets closed by us, by code.", ["code"])
        self.writes = RateLimiter(options.requests_per_s, options.requests_per_s * 3)
        self._failures = RateLimiter(options.failed_logins_per_s, options.failed_logins_per_s * 30)
        self._authenticate = options.authenticate or TokenAuthentication(kit.tokens)
        self._authorize = options.authorize or allowed

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Who is asking. Raises `Unauthenticated`, or `Overloaded` for an address that has failed too often."""
        address = _network(connection.client.host if connection.client is not None else "")
        # What our own tokens cost to check is next to nothing: a good one is let in however often others have failed.
        if self.options.authenticate is not None and (wait := self._failures.retry_in(address)) > 0:
            raise _too_many(wait)
        try:
            principal = await self._recognise(connection)
        except Unauthenticated:
            presented = "authorization" in connection.headers or "cookie" in connection.headers
            if presented and not self._failures.try_acquire(address):
                raise _too_many(self._failures.retry_in(address)) from None
            raise
        self.views.remember(principal)
        return principal

    async def _recognise(self, connection: HTTPConnection) -> Principal:
        try:
            found = self._authenticate(connection)
            principal = await found if inspect.isawaitable(found) else found
        except AccessDenied as error:
            raise Unauthenticated(str(error)) from error
        if principal is None:
            raise Unauthenticated("this needs a token: send Authorization: Bearer TOKEN")
        if principal.expires_at is not None and principal.expires_at <= self.now():
            raise Unauthenticated("the token has expired; get a new one")
        return principal

    def pace(self, tenant: str, who: str) -> None:
        """Counts a request of somebody's. Raises `TooMany` when they ask too often."""
        if not self.writes.try_acquire((tenant, who)):
            raise TooMany("too many requests; slow down", retry_after=self.writes.retry_in((tenant, who)))

    def admit(self, principal: Principal) -> None:
        """Counts an open connection or stream, which `lobby.remove` gives back. Raises `Overloaded` where there are too
        many, of this principal or at all."""
        if self.draining or self.lobby.full:
            raise Overloaded("too many connections; come again", retry_after=FULL_S)
        if not self.lobby.admit(principal):
            raise Overloaded("too many connections of this principal", retry_after=FULL_S)

    async def may(self, principal: Principal, action: Action, room_id: str | None = None) -> bool:
        verdict = self._authorize(principal, action, room_id)
        return await verdict if inspect.isawaitable(verdict) else verdict

    async def demand(self, principal: Principal, action: Action, room_id: str | None = None) -> None:
        """Raises `AccessDenied` unless the principal may do this here."""
        if not await self.may(principal, action, room_id):
            where = f' in room "{room_id}"' if room_id else ""
            raise AccessDenied(f"{principal.role.value} {principal.id} may not {action.value}{where}")
        if room_id and not principal.sees_internal:
            await self._demand_welcome(principal, room_id)

    async def _demand_welcome(self, principal: Principal, room_id: str) -> None:
        """A guest who was removed or banned neither reads nor writes, however good its token still is."""
        state = await self.kit.engine.table.look(principal.tenant, room_id)
        if state is None:
            raise RoomNotFound(room_id)  # without the names of others
        person = state.participants.get(principal.id)
        if person is not None and person.status in membership.GONE:
            raise AccessDenied("you are not in this room any more")

    async def shows(self, principal: Principal, room_id: str, event_id: str) -> bool:
        """Whether there is such an event in this room and this principal may see it."""
        engine = self.kit.engine
        state = await engine.table.look(principal.tenant, room_id)
        if state is None:
            raise RoomNotFound(room_id)
        event = await event_by_id(engine.store, principal.tenant, room_id, event_id)
        return event is not None and self.viewer(principal).sees(event, state.bindings)

    def alive(self, principal: Principal, stamp: float) -> bool:
        """Whether a session of this principal may go on at `stamp` (Unix seconds): not expired, not revoked."""
        if principal.expires_at is not None and principal.expires_at <= stamp:
            return False
        return not self.kit.tokens.revoked(principal)

    def rooms(self, principal: Principal) -> Rooms:
        """The kit as this principal's tenant sees it (D24)."""
        return self.kit.tenant(principal.tenant)

    def channel(self, channel_id: str) -> tuple[Channel | None, str]:
        """A registered channel and the tenant it belongs to."""
        return self.kit.engine.channels.get(channel_id), self.kit.channel_tenant(channel_id)

    async def seat(self, principal: Principal, room_id: str) -> None:
        """Gives the web channel its seat when the first guest comes in; what was taken away stays away."""
        engine, web = self.kit.engine, self.options.web_channel
        state = await engine.table.look(principal.tenant, room_id)
        if state is None:
            raise RoomNotFound(room_id)
        if state.room.open and web not in state.bindings and web not in state.detached:
            if engine.nodes is not None:
                await self.rooms(principal).attach_channel(room_id, web, assurance=Assurance.AUTHENTICATED)
                return
            actor = await engine.table.require(principal.tenant, room_id)
            channel = engine.registry.require(web, principal.tenant)
            binding = engine.registry.seat(channel, room_id, principal.tenant, assurance=Assurance.AUTHENTICATED)
            await actor.call(membership.attach, binding, False)

    async def page(
        self,
        principal: Principal,
        room_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        raw: bool = False,
    ) -> tuple[list[RoomEvent], bool]:
        """Events that this principal may see, oldest first, and whether there are more in that direction. Indexes
        have no gaps, so each step reads a window of them; hidden events only make further steps."""
        rooms, viewer = self.rooms(principal), self.viewer(principal)
        if not principal.sees_internal and self.kit.engine.table.loaded(principal.tenant, room_id) is None:
            self.meet(await rooms.participants(room_id))
        end = (await rooms.get_room(room_id)).latest_index + 1
        low = max(0, after + 1) if after is not None else 0
        high = end if before is None else min(before, end)
        found: list[RoomEvent] = []
        for _ in range(MAX_WINDOWS):
            if low >= high or len(found) >= limit:
                break
            forward = after is not None
            start, stop = (low, min(high, low + limit)) if forward else (max(low, high - limit), high)
            window = await rooms.events(
                room_id, after=start - 1, before=stop, limit=stop - start, raw=raw, viewer=viewer
            )
            found = [*found, *window] if forward else [*window, *found]
            low, high = (stop, high) if forward else (low, start)
        more = low < high or len(found) > limit
        return found[:limit] if after is not None else found[-limit:], more

    async def mark_read(self, principal: Principal, room_id: str, index: int) -> None:
        """A guest's mark is its channel's, and durable; among staff it is a sign of life."""
        rooms = self.rooms(principal)
        if not principal.sees_internal:
            await rooms.mark_read(room_id, self.options.web_channel, index)
            return
        data = {"index": index}
        rooms.publish(Ephemeral(kind="read", room_id=room_id, sender=principal.id, visibility="internal", data=data))

    async def sign(self, principal: Principal, room_id: str, kind: str, data: dict[str, Any]) -> None:
        """Typing or presence. Of the staff, only who holds the floor is seen by the other side (D34)."""
        rooms = self.rooms(principal)
        seen = not principal.sees_internal or (await rooms.get_room(room_id)).floor.holder == principal.id
        visibility = "all" if seen else "internal"
        if principal.sees_internal:
            data = {**data, "staff": True}
        rooms.publish(Ephemeral(kind=kind, room_id=room_id, sender=principal.id, visibility=visibility, data=data))

    def viewer(self, principal: Principal) -> Viewer:
        return Viewer.of(principal, self.options.web_channel)

    def _people(self, tenant: str, room_id: str) -> Mapping[str, Participant]:
        actor = self.kit.engine.table.loaded(tenant, room_id)
        return actor.state.participants if actor is not None else self._present.get((tenant, room_id), {})

    def meet(self, people: Iterable[Participant]) -> None:
        """Who is in a room that another process has."""
        for person in people:
            if self.kit.engine.table.loaded(person.tenant, person.room_id) is not None:
                return  # it is here
            self._present.setdefault((person.tenant, person.room_id), {})[person.id] = person
            if len(self._present) > MAX_PRESENT:
                del self._present[next(iter(self._present))]

    def now(self) -> float:
        return self.kit.now().timestamp()

    def origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """A page may talk to us from our own origin or an allowed one. No Origin: not a page."""
        if origin is None or origin in self.options.allowed_origins:
            return True
        own = self.options.base_url
        if own is not None:
            parts = urlsplit(own)
            return origin == f"{parts.scheme}://{parts.netloc}"
        return host is not None and urlsplit(origin).netloc == host


def _network(host: str) -> str:
    """Who is behind an address, as far as it tells: of IPv6 a /64 is one customer's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def _too_many(wait: float) -> Overloaded:
    return Overloaded("too many failed attempts to log in from this address; wait", retry_after=wait)
