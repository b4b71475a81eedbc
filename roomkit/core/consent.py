"""The ledger of consent: who stopped or allowed what, on which channel. Keywords of people, refusals of vendors and the
host's own word all end here.

Of every (who, channel type, purpose) one row says how it stands now and the log says how it came to it; both are
written in the transaction of the message that said so. `who` is the address that a message came from, and the identity
behind it where it is known: a row is found by a digest, so that a stop outlives the erasure of whoever said it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from roomkit.core.actor import SYSTEM, Change, Entry, RoomActor
from roomkit.core.catalogue import phrase
from roomkit.core.keywords import keyword
from roomkit.core.outgoing import address_of
from roomkit.core.state import all_of
from roomkit.errors import UsageError
from roomkit.models.addresses import normal
from roomkit.models.consent import ALL, FORMER, ConsentEntry, ConsentPolicy, Keyword, family, of_tenant
from roomkit.models.content import CompositeContent, MediaContent, TextContent, VideoContent, text_of
from roomkit.models.event import EventDraft, EventType, RoomEvent
from roomkit.models.room import Assurance
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.core.erasure import Person
    from roomkit.models.content import Content
    from roomkit.models.delivery import InboundMessage
    from roomkit.models.room import ChannelBinding
    from roomkit.ports.channel import Channel

STATE, LOG = "consent", "consent_log"
STOPPED, NOT_ALLOWED = "opted_out", "no_consent"
NOTICE = "notice"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody as one channel reaches them: the address, and the identity where it is known."""

    tenant: str
    channel_type: str
    address: str | None
    identity: str | None = None

    @property
    def names(self) -> Iterable[tuple[str, str]]:
        """(who, the key of its rows without the purpose)."""
        return ((who, keys[0]) for who, keys in self.kept)

    @property
    def kept(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        """(who, the keys under which rows may stand: that of today first)."""
        kinds = (self.channel_type, *FORMER.get(self.channel_type, ()))
        for sign, who in (("at", self.address), ("id", self.identity)):
            if who:
                yield who, tuple(self._prefix(kind, sign, who) for kind in kinds)

    def _prefix(self, kind: str, sign: str, who: str) -> str:
        told = f"{self.tenant}\n{kind}\n{sign}:{who}"
        return f"{kind}\n{hashlib.sha256(told.encode()).hexdigest()[:32]}\n"


class Consent:
    """What one engine knows of consent."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lines = count()

    def policy(self, tenant: str) -> ConsentPolicy | None:
        return of_tenant(self._engine.options.consent, tenant)

    def subject(self, tenant: str, channel_type: str, address: str | None, identity: str | None = None) -> Subject:
        kind = family(channel_type)
        region = self._engine.options.phone_region
        return Subject(tenant, kind, normal(kind, address, region) if address else None, identity)

    # -- what people write ----------------------------------------------------------------------------------------

    async def attend(self, actor: RoomActor, entry: Entry, change: Change, origin: InboundMessage | None) -> bool:
        """Takes a keyword to the ledger, in the commit of the message that is one; whether it was one. Runs in the
        actor. A message that is blocked for another reason counts too: who says stop has said it. In a group nobody
        speaks for the others, and the account's own owner (`from_me`) never for the person at the other end."""
        policy, draft = self.policy(actor.tenant), entry.draft
        channel = self._engine.channels.get(draft.source.channel_id)
        if policy is None or channel is None or channel.reach != "outbox" or origin is None or not _speaks(origin):
            return False
        told = _told(draft, channel.channel_type, policy)
        if told is None or draft.type is not EventType.MESSAGE:
            return False
        kind, language, by_vendor = told
        if not by_vendor and not _sure(policy, channel, origin):
            entry.draft = _marked(draft, "unverified")
            return False
        identity = _identity(actor, draft.source.participant_id)
        subject = self.subject(actor.tenant, channel.channel_type, origin.address, identity)
        purpose = _purpose(draft)
        stopped = await self.refusal(subject, purpose, policy) == STOPPED
        if kind is Keyword.START and (not stopped or await self._stops_more(subject, purpose, policy)):
            return False
        entry.draft, entry.wakes, entry.targets = _marked(draft, kind.value), False, ()
        if kind is not Keyword.HELP and stopped is not (kind is Keyword.STOP):
            event_id = draft.event_id or self._engine.new_id()
            entry.draft = entry.draft.replaced(event_id=event_id)
            granted = kind is Keyword.START
            source, said = "vendor" if by_vendor else "keyword", draft.text[:80] or kind.value
            where = {"room_id": actor.room_id, "event_id": event_id}
            change.put.extend(self.rows(subject, purpose, granted, source, said, **where))
            self._engine.count("consent_started" if granted else "consent_stopped")
        elif kind is Keyword.STOP:
            return True
        if policy.confirm and not by_vendor and channel.channel_id not in policy.vendor_answers:
            change.add(_notice(actor, channel.channel_id, kind, language, policy))
        return True

    async def overheard(self, tenant: str, channel: Channel, message: InboundMessage) -> None:
        """A stop in a message that is turned away (a limit, a closed room, a sender whom nobody knows) counts too; it
        is not answered. `START` has to be let in."""
        policy = self.policy(tenant)
        if policy is None or channel.reach != "outbox" or message.type is not EventType.MESSAGE or not _speaks(message):
            return
        told = _told(message, channel.channel_type, policy)
        if told is None or told[0] is not Keyword.STOP or not (told[2] or _sure(policy, channel, message)):
            return
        subject, purpose = self.subject(tenant, channel.channel_type, message.address), _purpose(message)
        if await self.refusal(subject, purpose, policy) != STOPPED:
            said = text_of(message.content)[:80] or Keyword.STOP.value
            rows = self.rows(subject, purpose, False, "vendor" if told[2] else "keyword", said)
            await self._engine.store.commit(Batch(tenant, self._engine.epoch, put=rows))
            self._engine.count("consent_stopped")

    async def _stops_more(self, subject: Subject, purpose: str, policy: ConsentPolicy) -> bool:
        """Whether more is stopped than `purpose`: to allow that alone lifts no stop of everything."""
        return purpose != ALL and await self.refusal(subject, ALL, policy) == STOPPED

    async def vendor_said(self, actor: RoomActor, channel: Channel, binding: ChannelBinding, code: str | None) -> bool:
        """Keeps what a vendor's refusal says about its own list; whether this was such a refusal."""
        codes: Iterable[str] = getattr(getattr(channel, "provider", None), "opt_out_codes", ())
        purpose = cast("Mapping[str, str]", codes).get(code or "", ALL) if isinstance(codes, Mapping) else ALL
        if code is None or code not in codes or self.policy(actor.tenant) is None:
            return False
        subject = self.of_seat(actor, channel, binding)
        rows = self.rows(subject, purpose, False, "vendor", code, room_id=actor.room_id)
        await self._engine.commit_until_done(Batch(actor.tenant, actor.epoch, actor.room_id, put=rows))
        self._engine.count("consent_stopped")
        return True

    # -- before a delivery ----------------------------------------------------------------------------------------

    def of_seat(self, actor: RoomActor, channel: Channel, binding: ChannelBinding) -> Subject:
        address = address_of(channel, binding) or None
        identity = _identity(actor, binding.participant_id)
        return self.subject(actor.tenant, channel.channel_type, address, identity)

    async def refuses(self, actor: RoomActor, channel: Channel, binding: ChannelBinding, event: RoomEvent) -> str:
        """Why the event must not be sent there; "" where it may."""
        policy = self.policy(actor.tenant)
        if policy is None or is_notice(event):
            return ""
        purpose = purpose_of(event, policy)
        if purpose in policy.exempt:
            return ""
        return await self.refusal(self.of_seat(actor, channel, binding), purpose, policy)

    async def refusal(self, subject: Subject, purpose: str, policy: ConsentPolicy) -> str:
        """A stop of the address counts as much as one of the identity; of two lines the later one holds, of two at the
        same time the stop."""
        allowed = purpose not in policy.opt_in
        store = self._engine.store
        for _, prefixes in subject.kept:
            found = [await store.records(RecordQuery(STATE, subject.tenant, prefix=prefix)) for prefix in prefixes]
            about = [row.value for rows in found for row in rows if row.value["purpose"] in (ALL, purpose)]
            if about and not max(about, key=_order)["granted"]:
                return STOPPED
            allowed = allowed or any(value["granted"] and value["purpose"] == purpose for value in about)
        return "" if allowed else NOT_ALLOWED

    # -- rows -----------------------------------------------------------------------------------------------------

    def rows(
        self, subject: Subject, purpose: str, granted: bool, source: str, evidence: str = "", **more: Any
    ) -> tuple[Record, ...]:
        """The rows of one decision: how it stands now for every name of the subject, and one line of the log."""
        now = self._engine.now()
        made: list[Record] = []
        for who, prefix in subject.names:
            entry = ConsentEntry(
                who=who,
                channel_type=subject.channel_type,
                purpose=purpose,
                granted=granted,
                at=now,
                source=source,
                address=subject.address,
                evidence=evidence,
                **more,
            )
            made.append(Record(STATE, subject.tenant, prefix + purpose, entry.model_dump(mode="json")))
        # So that the log has its order also within a millisecond.
        line = f"{int(now.timestamp() * 1000):014d}-{next(self._lines):09d}-{self._engine.new_id(now)}"
        return (*made, Record(LOG, subject.tenant, line, made[-1].value))


class ConsentLedger:
    """One tenant's ledger (`kit.consent`): read it, take it along, and write down what was said elsewhere."""

    def __init__(self, engine: Engine, tenant: str) -> None:
        self._engine = engine
        self._tenant = tenant
        self._consent: Consent | None = engine.consent

    async def stop(self, channel_type: str, address: str | None = None, **more: Any) -> None:
        """Nothing of `purpose` (default: nothing at all) is sent any more to this address, or to everything that
        `identity` has on this channel type. `by` and `reason` go into the log."""
        await self._write(False, channel_type, address, **more)

    async def allow(self, channel_type: str, address: str | None = None, **more: Any) -> None:
        """The opposite of `stop`: a person has agreed, and `reason` says where that can be seen."""
        await self._write(True, channel_type, address, **more)

    async def _write(
        self,
        granted: bool,
        channel_type: str,
        address: str | None,
        *,
        identity: str | None = None,
        purpose: str = ALL,
        by: str | None = None,
        reason: str = "",
    ) -> None:
        if not address and not identity:
            raise UsageError("consent is somebody's: give an address, an identity or both")
        if not purpose or "\n" in purpose:
            raise UsageError(f"{purpose!r} cannot be a purpose; use a short name such as 'marketing'")
        known = self._known()
        subject = known.subject(self._tenant, channel_type, address, identity)
        rows = known.rows(subject, purpose, granted, "host", reason, by=by)
        await self._engine.store.commit(Batch(self._tenant, self._engine.epoch, put=rows))

    async def may(
        self, channel_type: str, address: str | None = None, *, identity: str | None = None, purpose: str | None = None
    ) -> bool:
        """Whether a message of `purpose` (default: the policy's) may be sent there now."""
        known = self._known()
        policy = known.policy(self._tenant) or ConsentPolicy()
        subject = known.subject(self._tenant, channel_type, address, identity)
        return not await known.refusal(subject, purpose or policy.purpose, policy)

    async def entries(self, who: str | None = None) -> list[ConsentEntry]:
        """The log, oldest first: everybody's, or that of one identity or address. JSON by `model_dump_json`."""
        region = self._engine.options.phone_region
        wanted = {who, *(normal(kind, who, region) for kind in ("sms", "email"))} if who else set[str]()
        found = [ConsentEntry.model_validate(row.value) for row in await all_of(self._engine.store, LOG, self._tenant)]
        return [entry for entry in found if not wanted or {entry.who, entry.address} & wanted]

    def _known(self) -> Consent:
        if self._consent is None:
            raise UsageError("consent is not switched on; use RoomKit(options=KitOptions(consent=ConsentPolicy()))")
        return self._consent


def purpose_of(event: RoomEvent, policy: ConsentPolicy | None = None) -> str:
    """What a message is for: its metadata says so, or the policy's default holds."""
    told = event.metadata.get("purpose")
    return told if isinstance(told, str) and told else (policy or ConsentPolicy()).purpose


def is_notice(event: RoomEvent) -> bool:
    """Whether this is our own answer to a keyword."""
    return event.metadata.get("consent") == NOTICE and event.source.channel_id == SYSTEM.channel_id


async def erase(engine: Engine, tenant: str, person: Person) -> tuple[list[Record], list[RecordKey]]:
    """What becomes of a person's lines: the log goes, and of the rest only that they said stop stays, without a name:
    nobody writes to them again because they were forgotten."""
    put: list[Record] = []
    gone = [RecordKey(LOG, tenant, row.key) for row in await all_of(engine.store, LOG, tenant) if _theirs(row, person)]
    for row in await all_of(engine.store, STATE, tenant):
        if _theirs(row, person):
            if row.value["granted"]:
                gone.append(RecordKey(STATE, tenant, row.key))
            else:
                kept = {name: row.value[name] for name in ("channel_type", "purpose", "granted", "at", "source")}
                put.append(row._replace(value={**kept, "who": "erased"}))
    return put, gone


async def merged(engine: Engine, tenant: str, keep: str, gone: str) -> list[Record]:
    """The stops of an identity that becomes another: a stop of either holds; what `gone` allowed, `keep` did not. They
    are said anew now, so that nothing that `keep` has allowed before outdoes them."""
    made: list[Record] = []
    now = engine.now().isoformat()
    for row in await all_of(engine.store, STATE, tenant):
        value = row.value
        kind = str(value["channel_type"])
        mine = any(row.key.startswith(prefix) for _, prefix in Subject(tenant, kind, None, gone).names)
        if mine and not value["granted"]:
            for who, prefix in Subject(tenant, kind, None, keep).names:
                made.append(Record(STATE, tenant, prefix + value["purpose"], {**value, "who": who, "at": now}))
    return made


def _theirs(row: Record, person: Person) -> bool:
    kind = str(row.value["channel_type"])
    addresses = {normal(kind, one) for one in person.addresses}
    return row.value["who"] in person.ids | addresses or row.value.get("address") in addresses


def _order(value: Mapping[str, Any]) -> tuple[datetime, bool]:
    """Texts of times do not sort by time: some have fractions of a second and some have none."""
    return datetime.fromisoformat(value["at"]), not value["granted"]


def _speaks(message: InboundMessage) -> bool:
    """Whether what it says is said for whoever is reached there."""
    return not message.group and not message.metadata.get("from_me")


def _purpose(said: EventDraft | InboundMessage) -> str:
    told = said.metadata.get("opt_out_purpose")
    return told if isinstance(told, str) and told else ALL


def _sure(policy: ConsentPolicy, channel: Channel, message: InboundMessage) -> bool:
    return message.assurance.rank >= policy.assurance.get(channel.channel_type, Assurance.CLAIMED).rank


def _told(
    said: EventDraft | InboundMessage, channel_type: str, policy: ConsentPolicy
) -> tuple[Keyword, str, bool] | None:
    """What the message says, in which language, and whether the vendor has understood and answered it already."""
    by_vendor = said.metadata.get("opt_out")
    if by_vendor in tuple(Keyword):
        return Keyword(by_vendor), "", True
    found = keyword(_words(said.content), channel_type, policy)
    return (*found, False) if found is not None else None


def _words(content: Content) -> str:
    """What somebody wrote; a picture or a logo beside it changes nothing, other words do."""
    match content:
        case TextContent(text=text):
            return text
        case MediaContent(caption=text) | VideoContent(caption=text):
            return text or ""
        case CompositeContent(parts=parts):
            spoken = [part for part in parts if text_of(part).strip()]
            return _words(spoken[0]) if len(spoken) == 1 else ""
        case _:
            return ""


def _marked(draft: EventDraft, what: str) -> EventDraft:
    return draft.replaced(metadata={**draft.metadata, "consent": what})


def _identity(actor: RoomActor, participant_id: str | None) -> str | None:
    person = actor.state.participants.get(participant_id or "")
    return person.identity_id if person is not None else None


def _notice(actor: RoomActor, channel_id: str, kind: Keyword, language: str, policy: ConsentPolicy) -> Entry:
    text = policy.help_text if kind is Keyword.HELP else None
    text = text or phrase(f"consent_{kind.value}", language or actor.state.room.language)
    draft = EventDraft(
        source=SYSTEM.replaced(direction="outbound"),
        content=TextContent(text=text),
        visibility=channel_id,
        metadata={"consent": NOTICE},
    )
    return Entry(draft, targets=(channel_id,), wakes=False)
