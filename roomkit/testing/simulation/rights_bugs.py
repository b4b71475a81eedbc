# pyright: reportPrivateUsage=false
"""Planted bugs in who may see and who may speak, in what is kept for how long, and in what pages are told. Rules that
several modules import by name are broken in all of them, so that nobody can be asked who still knows them."""

from __future__ import annotations

import importlib
import json
from typing import Any

from roomkit.core import approvals, floor, policy, undelivered
from roomkit.core.actor import Change, RoomActor
from roomkit.core.replies import Reply
from roomkit.core.streams import Deliver, Hub, OpenStream, Viewer
from roomkit.core.timers import Timers
from roomkit.models.room import ChannelBinding
from roomkit.ports.store import Record
from roomkit.testing.simulation.planting import Patch, bug

_USERS = ("core.policy", "core.streams", "core.fallback", "channels.websocket", "servers.views")


def _everywhere(name: str, fake: Any) -> tuple[Patch, ...]:
    modules = [importlib.import_module(f"roomkit.{user}") for user in _USERS]
    return tuple((module, name, fake) for module in modules if name in vars(module))


_visible, _may_write, _settle, _commit, _arm = (
    policy.visible,
    policy.may_write,
    floor.settle_draft,
    RoomActor.commit,
    Timers.arm,
)


def _open(*_: Any) -> bool:
    return True


def _never(*_: Any) -> bool:
    return False


def _loud(visibility: str, *more: Any) -> bool:
    return visibility in ("none", "internal") or _visible(visibility, *more)


def _unmuted(binding: ChannelBinding | None, *more: Any) -> policy.Verdict:
    return _may_write(None if binding is None else binding.model_copy(update={"muted": False}), *more)


def _nothing(*_: Any) -> None:
    """In place of a refusal."""


async def _always(actor: RoomActor, draft_id: str, _: bool, by: str) -> Any:
    return await _settle(actor, draft_id, True, by)


async def _briefly(self: RoomActor, change: Change) -> Any:
    if change.dedupe_for is not None:
        change.dedupe_for = (*change.dedupe_for[:2], 0.3)
    return await _commit(self, change)


def _unless(name: str) -> Any:
    def arm(self: Timers, record: Record) -> None:
        if not record.value["name"].startswith(name):
            _arm(self, record)

    return arm


async def _idle(*_: Any, **__: Any) -> None:
    """In place of something that ought to happen."""


def _never_at_all(*_: Any) -> None:
    return None


_record = approvals._record


def _never_used(actor: RoomActor, key: str, value: dict[str, Any]) -> Record:
    return _record(actor, key, {**value, "status": "granted"} if value["status"] == "used" else value)


# -- what pages are told, and what they say --------------------------------------------------------------------------

_chunk = Hub.chunk


def _twice(self: Hub, stream: OpenStream, delta: str) -> None:
    _chunk(self, stream, delta)
    length = stream.length
    _chunk(self, stream, delta)
    stream.length = length


def _with_a_hole(self: Hub, stream: OpenStream, delta: str) -> None:
    if 12 < stream.length < 20:
        stream.parts.append(delta)
        stream.length += len(delta)
    else:
        _chunk(self, stream, delta)


def _unaware(self: Hub, viewer: Viewer, deliver: Deliver, _: Any) -> Any:
    return self.subscribe(viewer, deliver), []


class _Nameless:
    """In place of `json`: whatever client writes, its own ids are those of all others."""

    @staticmethod
    def dumps(key: list[Any]) -> str:
        return json.dumps([key[0], key[2]])


_inbound: Any = importlib.import_module("roomkit.servers.inbound")
bug("a chunk is told twice", 100, (Hub, "chunk", _twice))
bug("a chunk is not told", 800, (Hub, "chunk", _with_a_hole))
bug("the ids of all clients are one", 800, (_inbound, "json", _Nameless))
bug("what is to be asked before is sent again", 100, (undelivered, "_doubtful", _never))
bug("everybody may see everything", 100, *_everywhere("may_see", _open), *_everywhere("visible", _open))
bug("what is internal goes out", 100, *_everywhere("visible", _loud))
bug("who is muted is heard", 200, *_everywhere("may_write", _unmuted))
bug("a closed room goes on", 800, (floor, "_require_open", _nothing))
bug("a draft that was refused is sent", 100, (floor, "settle_draft", _always))
bug("a message is remembered for a moment only", 400, (RoomActor, "commit", _briefly))
bug("idle rooms are never paused", 100, (Timers, "arm", _unless("idle")))
bug("a floor is held for ever", 100, (Timers, "arm", _unless("floor")))
bug("a question is open for ever", 400, (Timers, "arm", _unless("approval")))
bug("a floor is not renewed", 300, (policy, "renewed", _never_at_all))
bug("who joins is not told of a growing reply", 200, (Hub, "join", _unaware))
bug("a used permission is used again", 300, (approvals, "_record", _never_used), features=("asking",))
bug("who is muted goes on in what it has begun", 300, (Reply, "_silent", _never), features=("asking",))
bug("a closed room goes on asking", 300, (approvals, "withdraw", _idle), features=("asking",))
bug("a permission is held back for ever", 300, (approvals, "let_go", _idle), features=("asking",))
