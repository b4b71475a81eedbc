"""Quiet hours: when it is night where a message goes, and what becomes of it until the morning.

A message that waits leaves the outbox for a row of its own, with a durable timer: it pins no room in memory, survives
every restart and is judged anew when its time has come.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from roomkit.core.actor import Change, RoomActor, delivery_record
from roomkit.core.consent import is_notice, purpose_of
from roomkit.core.lanes import Item, Lane, outbox_row
from roomkit.core.recovery import resume_delivery
from roomkit.errors import ConfigError, Fenced
from roomkit.models.addresses import PHONES, zones
from roomkit.models.consent import QuietHours, of_tenant
from roomkit.models.delivery import DeliveryRecord, DeliveryState
from roomkit.ports.store import EventQuery, Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine
    from roomkit.models.event import RoomEvent
    from roomkit.models.room import ChannelBinding
    from roomkit.ports.channel import Channel

HELD, QUIET, FLOOD = "held", "quiet_hours", "flood"
_LOOK_BACK = 50
"""So many events before a message are looked at for its recipient's own words."""


def quiet_until(now: datetime, hours: QuietHours, zone: str) -> datetime | None:
    """The end of the night that `now` is in, by the clocks of `zone`; None by day. A clock that is put forward over the
    end ends the night with it; an hour that comes twice is judged by what the clocks show."""
    here = _zone(zone)
    local = now.astimezone(here)
    clock = local.time()
    over = hours.start > hours.end
    night = (clock >= hours.start or clock < hours.end) if over else hours.start <= clock < hours.end
    if not night:
        return None
    for day in (0, 1):
        for fold in (0, 1):
            date = local.date() + timedelta(days=day)
            end = datetime.combine(date, hours.end, here).replace(fold=fold).astimezone(UTC)
            if end > now:
                return end
    return None


@lru_cache(maxsize=1024)
def _zone(name: str) -> tzinfo:
    if name == "UTC":  # known also where there is no database of zones
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigError(
            f'"{name}" is no time zone; use a name such as "Europe/Berlin" (or install tzdata, if the system has none)'
        ) from error


def check_hours(setting: object) -> None:
    """Raises `ConfigError` for a zone that nobody knows, or a night without a beginning."""
    found: list[Any] = list(setting.values()) if isinstance(setting, dict) else [setting]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - looked at below
    for hours in found:
        if isinstance(hours, QuietHours):
            _zone(hours.zone)
            if hours.start == hours.end:
                raise ConfigError("quiet hours that begin when they end are none; set start and end apart")


async def held_until(
    engine: Engine, actor: RoomActor, channel: Channel, binding: ChannelBinding, event: RoomEvent, address: str
) -> datetime | None:
    """Until when this message waits; None where it goes at once."""
    hours = of_tenant(engine.options.quiet_hours, actor.tenant)
    if hours is None or channel.channel_type not in hours.channel_types or is_notice(event):
        return None
    policy = of_tenant(engine.options.consent, actor.tenant)
    if purpose_of(event, policy) in hours.exempt:
        return None
    now = engine.now()
    ends = [quiet_until(now, hours, zone) for zone in await _zones(engine, actor, channel, binding, address, hours)]
    until = max((end for end in ends if end is not None), default=None)
    if until is None or await _awake(engine, actor, binding, hours, now):
        return None
    return until


async def _zones(
    engine: Engine, actor: RoomActor, channel: Channel, binding: ChannelBinding, address: str, hours: QuietHours
) -> tuple[str, ...]:
    person = actor.state.participants.get(binding.participant_id or "")
    told: Any = binding.metadata.get("timezone") or (person.metadata.get("timezone") if person else None)
    if told is None and person is not None and person.identity_id is not None:
        identity = await engine.address_book.get(actor.tenant, person.identity_id)
        told = identity.metadata.get("timezone") if identity is not None else None
    if isinstance(told, str) and told:
        try:
            _zone(told)
        except ConfigError as error:
            engine.warn(actor, str(error))
        else:
            return (told,)
    return (zones(address) if channel.channel_type in PHONES else ()) or (hours.zone,)


async def _awake(engine: Engine, actor: RoomActor, binding: ChannelBinding, hours: QuietHours, now: datetime) -> bool:
    """Whether the recipient has just written here: who asks at night is answered."""
    query = EventQuery(actor.tenant, actor.room_id, limit=_LOOK_BACK, newest_first=True)
    for event in await engine.store.events(query):
        if (now - event.created_at).total_seconds() > hours.awake_s:
            return False
        if event.source.channel_id == binding.channel_id and event.source.direction == "inbound":
            if event.metadata.get("from_me"):  # the account's own owner, who wakes nobody
                continue
            return True
    return False


async def hold(engine: Engine, lane: Lane, item: Item, until: datetime, why: str = QUIET) -> None:
    """Moves a delivery from the outbox to those that wait."""

    async def move(actor: RoomActor) -> None:
        if actor is not lane.actor:
            raise Fenced(f'room "{actor.room_id}" was another process\'s meanwhile, which has this delivery')
        row = outbox_row(lane, item)
        change = Change(activity=False)
        change.delete.append(RecordKey(row.kind, row.tenant, row.key))
        change.put.append(Record(HELD, row.tenant, row.key, row.value, row.room_id))
        told = DeliveryRecord(
            room_id=actor.room_id,
            index=item.index,
            event_id=item.event_id,
            channel_id=lane.channel_id,
            state=DeliveryState.HELD,
            reason=f"{why} until {until.isoformat(timespec='minutes')}",
            attempts=item.attempts,
            updated_at=engine.now(),
        )
        change.put.append(delivery_record(actor.tenant, told))
        seconds = (until - engine.now()).total_seconds()
        change.timers.append(engine.timers.plan(actor, f"{HELD}:{lane.channel_id}", seconds, {}))
        await actor.commit(change)

    await lane.actor.insist(move)
    engine.count("deliveries_held")


async def release(actor: RoomActor, channel_id: str) -> None:
    """The time has come: everything that waits for the channel goes back into its lane, in order. In the actor."""
    query = RecordQuery(HELD, actor.tenant, room_id=actor.room_id, limit=100_000)
    rows = [row for row in await actor.engine.store.records(query) if row.value["channel"] == channel_id]
    if not rows:
        return
    change = Change(activity=False)
    change.delete.extend(RecordKey(HELD, row.tenant, row.key) for row in rows)
    if of_tenant(actor.engine.options.digests, actor.tenant) is not None:
        from roomkit.core.digests import gather

        rows = await gather(actor, channel_id, rows, change)
    back = [Record("outbox", row.tenant, row.key, row.value, row.room_id) for row in rows]
    change.put.extend(back)
    await actor.commit(change)
    for row in back:
        resume_delivery(actor, row)
