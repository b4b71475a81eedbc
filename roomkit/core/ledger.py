"""What channels have to remember: what their turns spend, written with commits that there are, and small values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roomkit.ports.channel import Account, Statement
from roomkit.ports.store import Batch, Record, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

METER, VALUE = "meter", "value"


class Ledger:
    """Implements `ports.channel.LedgerPort` for the turns of one room.

    A room's own record is written by whoever owns the room. Of a tenant each process writes a record of its own, so
    that none takes back what another has counted; together they are what the tenant has spent."""

    def __init__(self, engine: Engine, actor: RoomActor) -> None:
        self._engine = engine
        self._actor = actor

    async def recall(self, name: str) -> tuple[Statement | None, list[Statement]]:
        tenant, store = self._actor.tenant, self._engine.store
        own = await store.records(RecordQuery(METER, tenant, key=self._room_key(name)))
        shared = await store.records(RecordQuery(METER, tenant, terms=(f"meter:{name}",), limit=1000))
        others = [statement for record in shared if not (statement := self._statement(record)).mine]
        return (self._statement(own[0]) if own else None), others

    def remember(self, name: str, room: Account, tenant: Account) -> None:
        actor, run = self._actor, self._engine.meters.run

        def records() -> list[Record]:
            mine = Record(METER, actor.tenant, self._room_key(name), self._value(room), actor.room_id)
            terms = (f"meter:{name}",)
            shared = Record(METER, actor.tenant, f"\n{name}\n{run}", self._value(tenant), None, None, terms)
            return [mine, shared]

        actor.owed = {**actor.owed, f"spent:{name}": records}

    def _room_key(self, name: str) -> str:
        return f"{self._actor.room_id}\n{name}"

    def _value(self, account: Account) -> dict[str, Any]:
        spent = {kind: [list(slot) for slot in slots] for kind, slots in account().items()}
        return {"by": self._engine.meters.run, "at": self._engine.now().timestamp(), "spent": spent}

    def _statement(self, record: Record) -> Statement:
        value = record.value
        age = max(0.0, self._engine.now().timestamp() - value["at"])
        return Statement(value["by"], value["by"] == self._engine.meters.run, age, value["spent"])


class Vault:
    """Implements `ports.channel.VaultPort` for one channel of one tenant."""

    def __init__(self, engine: Engine, tenant: str, channel_id: str) -> None:
        self._engine = engine
        self._tenant = tenant
        self._channel_id = channel_id

    async def get(self, name: str) -> dict[str, Any] | None:
        query = RecordQuery(VALUE, self._tenant, key=f"{self._channel_id}\n{name}")
        found = await self._engine.store.records(query)
        return dict(found[0].value) if found else None

    async def put(self, name: str, value: dict[str, Any]) -> None:
        record = Record(VALUE, self._tenant, f"{self._channel_id}\n{name}", dict(value))
        await self._engine.store.commit(Batch(self._tenant, self._engine.epoch, put=(record,)))
