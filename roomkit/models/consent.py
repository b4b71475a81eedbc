"""Who may be written to, for what, and when: the settings of consent and quiet hours, and one line of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import TypeVar, cast

from roomkit.models.content import Frozen
from roomkit.models.room import Assurance, ChannelType

T = TypeVar("T")
ALL = "all"
"""The purpose of a stop that names none: nothing at all is sent."""
FAMILIES: Mapping[str, str] = {
    ChannelType.RCS: ChannelType.SMS,
    "mms": ChannelType.SMS,
    ChannelType.WHATSAPP_PERSONAL: ChannelType.WHATSAPP,
}
"""Channel types that reach the same inbox: who stops one of them has stopped the other."""
FORMER: Mapping[str, tuple[str, ...]] = {ChannelType.WHATSAPP: (ChannelType.WHATSAPP_PERSONAL,)}
"""Families under whose members' own names older rows stand."""


class Keyword(StrEnum):
    STOP = "stop"
    START = "start"
    HELP = "help"


class ConsentEntry(Frozen):
    """One line of the ledger: `who` (an identity's id, or the address itself) allowed or stopped messages of a
    `purpose` on a channel type. `source` is "keyword", "vendor" or "host"; `evidence` is what was said, a vendor's code
    or the host's reason, and `event_id` the message that said it."""

    who: str
    channel_type: str
    purpose: str = ALL
    granted: bool
    at: datetime
    source: str
    address: str | None = None
    evidence: str = ""
    by: str | None = None
    room_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """Switch on with `RoomKit(options=KitOptions(consent=ConsentPolicy()))`, or with a mapping of tenants to policies
    ("*": all others).

    `languages` are those whose keywords count, `keywords` adds your own (word to what it means). `help_text` answers
    HELP (None: a line of the catalogue). A channel id in `vendor_answers` belongs to a vendor that confirms by itself.
    A message's purpose is its metadata's `purpose`, else `purpose`; those in `opt_in` are sent only to who allowed
    them, those in `exempt` also after a stop (think of the law first). `assurance` is how sure a channel type has to be
    of a sender whose keyword counts: an email's `From` is anybody's to write.
    """

    languages: tuple[str, ...] = ("en", "de", "fr", "es")
    keywords: Mapping[str, Keyword] = field(default_factory=dict[str, Keyword])
    confirm: bool = True
    help_text: str | None = None
    vendor_answers: frozenset[str] = frozenset()
    purpose: str = "conversation"
    opt_in: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()
    assurance: Mapping[str, Assurance] = field(default_factory=lambda: {ChannelType.EMAIL.value: Assurance.VERIFIED})


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Messages wait from `start` to `end` of the recipient's day, and are sent then; none is dropped. Switch on with
    `KitOptions(quiet_hours=QuietHours())`, or with a mapping of tenants.

    The zone is `timezone` in the metadata of the seat, of the participant or of their identity; else that of the phone
    number (with the [phone] extra; a number of several zones waits until it is day in all of them); else `zone`. Only
    channels of `channel_types` wait, never purposes in `exempt`, and never an answer to somebody who wrote within
    `awake_s` seconds.
    """

    start: time = time(21)
    end: time = time(8)
    zone: str = "UTC"
    channel_types: frozenset[str] = frozenset(
        {ChannelType.SMS, ChannelType.RCS, ChannelType.WHATSAPP, ChannelType.WHATSAPP_PERSONAL}
        | {ChannelType.MESSENGER, ChannelType.TELEGRAM}
    )
    exempt: frozenset[str] = frozenset({"security"})
    awake_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Digests:
    """A flood of what others say in a room reaches a phone as one message. Switch on with
    `KitOptions(digests=Digests())`, or with a mapping of tenants.

    After `over` messages of other people within `window_s` seconds the rest of them waits until the window is over, and
    comes as one, of at most `lines` lines; so does what has waited for quiet hours to end, from `over` messages on.
    What an AI or the host says, files, and messages with a purpose of their own are never held or gathered.
    """

    over: int = 5
    window_s: float = 300.0
    lines: int = 12
    channel_types: frozenset[str] = frozenset({ChannelType.SMS, ChannelType.RCS, ChannelType.WHATSAPP})


def family(channel_type: str) -> str:
    return FAMILIES.get(channel_type, channel_type)


def of_tenant(setting: T | Mapping[str, T] | None, tenant: str) -> T | None:
    """The setting of one tenant: the same for all, or by name with "*" for the others."""
    if not isinstance(setting, Mapping):
        return setting
    by_name = cast("Mapping[str, T]", setting)
    return by_name.get(tenant, by_name.get("*"))
