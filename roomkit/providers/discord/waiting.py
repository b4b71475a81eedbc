"""Interactions that wait for their answer: Discord shows "thinking" until it comes, for 15 minutes at most."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from roomkit.ports.channel import VaultPort
from roomkit.runtime import Clock

VALID_S = 15 * 60 - 15


class Waiting:
    """The open interactions of each conversation, oldest first; kept in the vault, so that a restart forgets none.

    One that is answered is kept until its time is over, too: a repeated request must not open it again, and a repeated
    delivery must find the answer that it gave.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._vault: VaultPort | None = None
        self._kept: dict[str, list[dict[str, Any]]] = {}
        self._lock = asyncio.Lock()

    def keep_in(self, vault: VaultPort) -> None:
        self._vault = vault

    async def add(self, where: str, ident: str, app: str, token: str) -> None:
        """An interaction that is acknowledged and not answered yet; a known one changes nothing."""
        async with self._lock:
            known = await self._read(where)
            if all(one["id"] != ident for one in known):
                now = self._clock.now().timestamp()
                await self._write(where, [*known, {"id": ident, "app": app, "token": token, "at": now, "by": None}])

    async def next(self, where: str, key: str) -> tuple[str, str, bool] | None:
        """The app and the token to answer with under a message's key (room:index:channel:part), and whether the answer
        itself is still to be given: further parts follow it. None where nothing waits."""
        event, _, part = key.rpartition(":")
        known = await self._read(where)
        for one in known:
            if one["by"] is not None and one["by"].rpartition(":")[0] == event:
                return str(one["app"]), str(one["token"]), one["by"].rpartition(":")[2] == part
        free = next((one for one in known if one["by"] is None), None)
        return (str(free["app"]), str(free["token"]), True) if free is not None else None

    async def answered(self, where: str, token: str, key: str) -> None:
        """The interaction has its answer, given under `key`; an empty one says that it can have none any more."""
        async with self._lock:
            known = await self._read(where)
            changed = [{**one, "by": key} if one["token"] == token and one["by"] is None else one for one in known]
            if changed != known:
                await self._write(where, changed)

    async def _read(self, where: str) -> list[dict[str, Any]]:
        if self._vault is None:
            known = self._kept.get(where, [])
        else:
            value = await self._vault.get(f"interactions {where}") or {}
            known = cast("list[dict[str, Any]]", value.get("waiting", []))
        oldest = self._clock.now().timestamp() - VALID_S
        return [one for one in known if one["at"] > oldest]

    async def _write(self, where: str, known: list[dict[str, Any]]) -> None:
        if self._vault is None:
            self._kept[where] = known
        else:
            await self._vault.put(f"interactions {where}", {"waiting": known})
