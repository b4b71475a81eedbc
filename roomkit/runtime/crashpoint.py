"""Named places where a test can kill the process: `ROOMKIT_CRASH_AT=<name>:<nth>` ends it at the nth visit.

The end is a SIGKILL: no handler, no `finally` and no buffer runs any more, as when the power is cut.
"""

from __future__ import annotations

import os
import signal
import sys

from roomkit.errors import ConfigError

CRASH_POINTS: dict[str, str] = {
    "actor.before_commit": "an event has its index, and is not yet handed to the store",
    "actor.after_commit": "an event is committed, and its sender has no answer yet",
    "outbox.before_send": "a delivery is due, and the provider has not been called",
    "outbox.after_send": "the provider has answered, and the answer is not yet kept",
    "reply.before_tool_step": "a step of a tool call is known, and not yet in the journal",
    "reply.after_tool_step": "a step of a tool call is in the journal, and the brain has not gone on",
    "reply.before_checkpoint": "a part of a reply has been shown, and is not yet kept",
    "reply.after_checkpoint": "a part of a reply is kept, and the reply goes on",
    "reply.before_commit": "a reply is complete, and not yet an event",
    "reply.after_commit": "a reply is an event, and those who watch have not been told",
    "store.before_commit": "a group of batches is written, and not yet committed",
    "store.after_commit": "a group of batches is durable, and nobody has been told",
}
"""Every crash point by name, and what it means; tests visit them all."""


def crashpoint(name: str) -> None:
    """Ends the process if this visit was asked for; otherwise does nothing, at the cost of a call."""
    if _armed is not None and _armed.visited(name):
        os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)


class _Armed:
    """What `ROOMKIT_CRASH_AT` asks for."""

    def __init__(self, asked: str) -> None:
        self._name, _, nth = asked.rpartition(":")
        if self._name not in CRASH_POINTS or not nth.isdecimal() or int(nth) < 1:
            known = ", ".join(sorted(CRASH_POINTS))
            raise ConfigError(f'ROOMKIT_CRASH_AT="{asked}" is not NAME:NTH with NTH from 1 and NAME one of {known}')
        self._left = int(nth)

    def visited(self, name: str) -> bool:
        if name not in CRASH_POINTS:
            raise ConfigError(f'crash point "{name}" is not in roomkit.runtime.crashpoint.CRASH_POINTS; add it there')
        self._left -= name == self._name
        return self._left == 0 and name == self._name


_armed = _Armed(os.environ["ROOMKIT_CRASH_AT"]) if os.environ.get("ROOMKIT_CRASH_AT") else None
