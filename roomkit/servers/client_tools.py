"""Tools that the far end of a door runs: the model calls them, a page or an app answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from roomkit.ai.tools import Tool, ToolContext, tool
from roomkit.errors import ToolFailed
from roomkit.runtime import bounded

Ask = Callable[[str, str, str, str, dict[str, Any]], bool]
"""(tenant, room, call id, name, arguments) -> whether somebody is there to be asked; must return at once."""


class ClientTools:
    """Open calls of one door. `ask` hands a call to whoever is connected to its room; an answer may take `wait_s`
    seconds. `given_up(tenant, room, call id)` hears of those that took longer."""

    def __init__(self, ask: Ask, wait_s: float, given_up: Callable[[str, str, str], None] | None = None) -> None:
        self._ask = ask
        self._wait_s = wait_s
        self._given_up = given_up
        self._open: dict[tuple[str, str, str], asyncio.Future[Any]] = {}

    def tool(self, function: Callable[..., Any]) -> Tool:
        """A tool from a typed function whose body the client has: the model reads its name, docstring and types."""
        made = tool(function)

        async def asks(_context: ToolContext, **arguments: Any) -> Any:
            return await self._call(made.spec.name, _context, arguments)

        return dataclasses.replace(made, function=asks, context_parameter="_context")

    def answered(self, tenant: str, room_id: str, call_id: str, result: Any) -> bool:
        """False for a call that is not open, or not any more."""
        future = self._open.get((tenant, room_id, call_id))
        if future is None or future.done():
            return False
        future.set_result(result)
        return True

    async def _call(self, name: str, context: ToolContext, arguments: dict[str, Any]) -> Any:
        key = (context.tenant, context.room_id, context.call_id)
        future = self._open[key] = asyncio.get_running_loop().create_future()
        try:
            if not self._ask(*key, name, json.loads(json.dumps(arguments, default=str))):
                raise ToolFailed("the user's page or app is not connected, so it cannot be asked")
            return await bounded(future, self._wait_s, "the user's page")
        except TimeoutError:
            if self._given_up is not None:
                self._given_up(*key)
            raise ToolFailed(f"the user's page or app gave no answer in {self._wait_s:g} s") from None
        finally:
            del self._open[key]
