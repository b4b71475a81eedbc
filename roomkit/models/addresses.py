"""Addresses in the one form in which they are compared. Pure; `phonenumbers` ([phone]) is used where it is there."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from roomkit.errors import ConfigError, MissingExtra
from roomkit.models.room import ChannelType

PHONES = frozenset(
    {ChannelType.SMS, ChannelType.RCS, "mms", ChannelType.WHATSAPP, ChannelType.WHATSAPP_PERSONAL, ChannelType.VOICE}
)
PHONE = "phone"
"""In an address book: a number that counts on every channel of `PHONES`."""
_SCHEME = re.compile(r"^(?:tel|sms|rcs|whatsapp):", re.IGNORECASE)
_JOINTS = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]+")
_NUMBER = re.compile(r"\+?\d{3,17}")


@lru_cache(maxsize=4096)
def normal(channel_type: str, address: str, region: str | None = None) -> str:
    """`address` as it is compared: phone numbers as E.164, emails and Teams ids without case, others trimmed.

    A number without its country is completed for `region` ("GB"), which needs the [phone] extra; one that is no phone
    number (a short code, a sender's name) stays as it is. Raises `MissingExtra`."""
    address = address.strip()
    if channel_type == ChannelType.EMAIL:
        return address.lower()
    return _phone(address, region) if channel_type in PHONES or channel_type == PHONE else address


def _phone(address: str, region: str | None) -> str:
    bare = _SCHEME.sub("", address)
    if bare.startswith(("+", "00")):
        bare = bare.replace("(0)", "")
    bare = _JOINTS.sub("", bare)
    if not _NUMBER.fullmatch(bare):
        return address
    if bare.startswith("00"):
        bare = f"+{bare[2:]}"
    book = _library(required=region is not None)
    if book is None or not (bare.startswith("+") or region):
        return bare
    try:
        number = book.parse(bare, region)
    except book.NumberParseException:
        return bare
    if not bare.startswith("+") and not book.is_valid_number(number):
        return bare
    return book.format_number(number, book.PhoneNumberFormat.E164)


def zones(address: str) -> tuple[str, ...]:
    """The time zones of a phone number's region; () where nobody can tell."""
    book = _library()
    if book is None:
        return ()
    from phonenumbers import timezone

    try:
        found = timezone.time_zones_for_number(book.parse(_JOINTS.sub("", address), None))
    except book.NumberParseException:
        return ()
    return tuple(zone for zone in found if zone != timezone.UNKNOWN_TIMEZONE)


def check_region(region: str | None) -> None:
    """Raises `ConfigError` for a region that no phone number is of, `MissingExtra` without the library."""
    if region is not None and region not in _library(required=True).SUPPORTED_REGIONS:
        raise ConfigError(f'"{region}" is no region of phone numbers; use two capital letters such as "GB"')


def _library(*, required: bool = False) -> Any:
    try:
        import phonenumbers
    except ModuleNotFoundError:
        if required:
            raise MissingExtra("completing phone numbers of a region", "phonenumbers", "phone") from None
        return None
    return phonenumbers
