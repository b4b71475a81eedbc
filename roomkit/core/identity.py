"""The address book: who an address belongs to, per tenant and channel type."""

from __future__ import annotations

from roomkit.errors import UsageError
from roomkit.models.delivery import InboundMessage
from roomkit.models.room import Identification, Identity
from roomkit.ports.identity import Resolution
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery, Store


class AddressBook:
    """Identities in the store, looked up by address. The default resolver of a kit that was given people to know."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch

    async def put(self, identity: Identity) -> None:
        """Adds or replaces somebody."""
        terms = tuple(f"addr:{kind}:{a}" for kind, addresses in identity.addresses.items() for a in addresses)
        record = Record("identity", identity.tenant, identity.id, identity.model_dump(mode="json"), terms=terms)
        await self._store.commit(Batch(identity.tenant, self._epoch, put=(record,)))

    async def get(self, tenant: str, identity_id: str) -> Identity | None:
        found = await self._store.records(RecordQuery("identity", tenant, key=identity_id))
        return Identity.model_validate(found[0].value) if found else None

    async def find(self, tenant: str, channel_type: str, address: str) -> list[Identity]:
        query = RecordQuery("identity", tenant, terms=(f"addr:{channel_type}:{address}",))
        return [Identity.model_validate(record.value) for record in await self._store.records(query)]

    async def remove(self, tenant: str, identity_id: str) -> bool:
        if await self.get(tenant, identity_id) is None:
            return False
        await self._store.commit(Batch(tenant, self._epoch, delete=(RecordKey("identity", tenant, identity_id),)))
        return True

    async def link(self, tenant: str, identity_id: str, channel_type: str, address: str) -> Identity:
        """Adds one address to somebody known."""
        known = await self.get(tenant, identity_id)
        if known is None:
            raise UsageError(f'identity "{identity_id}" is not in the address book; add it with put()')
        addresses = dict(known.addresses)
        addresses[channel_type] = tuple(dict.fromkeys((*addresses.get(channel_type, ()), address)))
        linked = known.model_copy(update={"addresses": addresses})
        await self.put(linked)
        return linked

    async def resolve(self, tenant: str, channel_type: str, message: InboundMessage) -> Resolution:
        found = await self.find(tenant, channel_type, message.sender_id)
        if not found:
            return Resolution(Identification.UNKNOWN)
        if len(found) > 1:
            return Resolution(Identification.AMBIGUOUS, candidates=tuple(found))
        return Resolution(Identification.IDENTIFIED, identity=found[0])
