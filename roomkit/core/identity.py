"""The address book: who an address belongs to, per tenant and channel type.

Addresses are kept in the one form in which they are compared (`roomkit.models.addresses`). Those under "phone" count on
every channel that has phone numbers. An identity that became another by a merge is found as that one.
"""

from __future__ import annotations

from typing import Any

from roomkit.errors import StateError, UsageError
from roomkit.models.delivery import InboundMessage
from roomkit.models.room import Identification, Identity
from roomkit.ports.identity import Resolution
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery, Store

MERGED = "merged"
"""A row per identity that is no more: which one it became."""


class AddressBook:
    """Identities in the store, looked up by address. The default resolver of a kit that was given people to know."""

    def __init__(self, store: Store, epoch: int, region: str | None = None) -> None:
        """`region` ("GB") completes phone numbers without a country."""
        self._store = store
        self._epoch = epoch
        self._region = region

    async def put(self, identity: Identity) -> None:
        """Adds or replaces somebody. Raises `StateError` for somebody who became another by a merge."""
        if (into := await self.merged_into(identity.tenant, identity.id)) is not None:
            raise StateError(f'"{identity.id}" has become "{into["into"]}" by a merge; put() that one, or a new id')
        record = self.record(identity)
        await self._store.commit(Batch(identity.tenant, self._epoch, put=(record,)))

    def record(self, identity: Identity) -> Record:
        """The durable form, found by each address."""
        from roomkit.models.addresses import normal

        addresses = {
            kind: tuple(dict.fromkeys(normal(kind, one, self._region) for one in own))
            for kind, own in identity.addresses.items()
        }
        terms = tuple(f"addr:{kind}:{one}" for kind, own in addresses.items() for one in own)
        value = identity.model_copy(update={"addresses": addresses}).model_dump(mode="json")
        return Record("identity", identity.tenant, identity.id, value, terms=terms)

    async def get(self, tenant: str, identity_id: str) -> Identity | None:
        found = await self._store.records(RecordQuery("identity", tenant, key=identity_id))
        if not found and (into := await self.merged_into(tenant, identity_id)) is not None:
            return await self.get(tenant, into["into"])
        return Identity.model_validate(found[0].value) if found else None

    async def merged_into(self, tenant: str, identity_id: str) -> dict[str, Any] | None:
        """What is noted of the merge by which this one became another: `into`, `at`, `by`."""
        found = await self._store.records(RecordQuery(MERGED, tenant, key=identity_id))
        return found[0].value if found else None

    async def find(self, tenant: str, channel_type: str, address: str) -> list[Identity]:
        from roomkit.models.addresses import PHONE, PHONES, normal

        one = normal(channel_type, address, self._region)
        terms = [f"addr:{channel_type}:{one}"]
        if one != address:  # as it was written down before addresses had one form
            terms.append(f"addr:{channel_type}:{address}")
        if channel_type in PHONES:
            terms.append(f"addr:{PHONE}:{one}")
        found: dict[str, Identity] = {}
        for term in terms:
            for record in await self._store.records(RecordQuery("identity", tenant, terms=(term,))):
                found.setdefault(record.key, Identity.model_validate(record.value))
        return list(found.values())

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
