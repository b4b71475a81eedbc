"""NodeLink: how the processes that share one store talk to each other, and what makes a process one of them.

The link carries JSON objects and knows nothing of rooms. What it loses it says: a call either returns the answer of the
other side or raises `NodeLost`, and a stream that breaks off raises it too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from roomkit import errors
from roomkit.errors import Elsewhere, RoomKitError, StateError
from roomkit.ports.ownership import Ownership

Json = dict[str, Any]


class NodeLost(RoomKitError):
    """The other node cannot be reached, or went away. `sent` False: it has certainly not begun what it was asked."""

    def __init__(self, address: str, why: str, *, sent: bool) -> None:
        super().__init__(f"the node at {address or 'no address'} is gone ({why}); it is tried again at the next owner")
        self.sent = sent


class NodeHandler(Protocol):
    """The receiving side. Failures of the work itself are part of the answer; neither method raises for them."""

    async def call(self, request: Json) -> Json: ...

    def stream(self, request: Json) -> AsyncGenerator[Json]:
        """Answers one by one until its end; closed when the caller has gone."""
        ...


class NodeLink(Protocol):
    def serve(self, handler: NodeHandler) -> None:
        """From now on the requests of other nodes go to `handler`."""
        ...

    async def call(self, address: str, request: Json) -> Json:
        """Asks the node at `address`, and waits for its answer however long that takes. Raises `NodeLost`."""
        ...

    def stream(self, address: str, request: Json) -> AsyncGenerator[Json]:
        """What the other node says, in order, until it ends the stream. Raises `NodeLost` when it breaks off."""
        ...

    async def aclose(self) -> None:
        """Breaks everything off, in both directions."""
        ...


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Makes a kit one of several on one store: `RoomKit("postgresql://...", options=KitOptions(node=...))`.

    `address` is the URL under which the others reach this process (of its `kit.asgi()`); without one it forwards, and
    works on rooms which nobody has only as long as it must. `secrets` sign what nodes say to each other (the first
    signs, all are accepted); by default they come from the kit's `token_secrets`. `ownership` and `link` are for stores
    and networks of one's own: by default the store's leases, and HTTP to the `address` of the others."""

    address: str = ""
    secrets: tuple[str, ...] = ()
    ownership: Ownership | None = None
    link: NodeLink | None = None


def told_of(error: RoomKitError) -> Json:
    """An error as JSON."""
    kept = {
        name: value for name, value in vars(error).items() if isinstance(value, (str, int, float, bool, type(None)))
    }
    return {"error": type(error).__name__, "message": str(error), "more": kept}


def raise_told(answer: Json, request: Json) -> None:
    """Raises what the other side raised, as the class it is."""
    if answer.get("moved"):
        raise Elsewhere(request.get("tenant", ""), request.get("room_id", ""), "")
    name = answer.get("error")
    if name is None:
        return
    found = getattr(errors, name, None)
    kind = found if isinstance(found, type) and issubclass(found, RoomKitError) else StateError
    error = cast("RoomKitError", kind.__new__(kind))
    error.args = (answer["message"],)
    vars(error).update(answer.get("more", {}))
    raise error
