"""Where each conversation is answered: kept in the store, because Teams tells it only with what it posts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlsplit

from roomkit.errors import Refused
from roomkit.ports.channel import VaultPort
from roomkit.providers.vendor_json import part, text

_MOST = 10_000
_KEPT = ("id", "name", "aadObjectId", "conversationType", "tenantId", "isGroup")


def service_of(activity: Mapping[str, Any]) -> str:
    return text(activity, "serviceUrl")


def check_service(url: str, hosts: tuple[str, ...]) -> str:
    """The address without its last slash. Raises `Refused` unless it is one of Microsoft's: the bot's token goes
    there."""
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.port in (None, 443) and not parts.username and not parts.password
    except ValueError:
        raise Refused("teams", "the service's address cannot be read") from None
    host = (parts.hostname or "").lower()
    if not good or parts.query or parts.fragment or not any(fnmatchcase(host, one) for one in hosts):
        raise Refused("teams", f'the service "{host[:100]}" is none of Microsoft\'s; add it to service_hosts if it is')
    return url.rstrip("/")


class Conversations:
    """The reference of each conversation: its service, and who the bot and the other side are there."""

    def __init__(self) -> None:
        self._vault: VaultPort | None = None
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def keep_in(self, vault: VaultPort) -> None:
        self._vault = vault

    async def note(self, activity: Mapping[str, Any]) -> None:
        """Keeps what an activity tells of its conversation, where that is new."""
        conversation = part(activity, "conversation")
        name = text(conversation, "id")
        if not name:
            return
        reference: dict[str, Any] = {
            "service": service_of(activity),
            "bot": _kept(part(activity, "recipient")),
            "conversation": _kept(conversation),
            "network": text(activity, "channelId"),
        }
        if self._known.get(name) == reference:
            return
        if self._vault is not None and await self._vault.get(_key(name)) != reference:
            await self._vault.put(_key(name), reference)
        self._remember(name, reference)

    async def find(self, name: str) -> dict[str, Any] | None:
        """The reference of a conversation, None where it has never written to us."""
        known = self._known.get(name)
        if known is None and self._vault is not None:
            known = await self._vault.get(_key(name))
            if known is not None:
                self._remember(name, known)
        return known

    def _remember(self, name: str, reference: dict[str, Any]) -> None:
        self._known[name] = reference
        self._known.move_to_end(name)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)


def place_of(conversation: str, activity: str = "") -> str:
    """The path of a conversation's activities, or of one of them."""
    path = f"/v3/conversations/{quote(conversation, safe='')}/activities"
    return f"{path}/{quote(activity, safe='')}" if activity else path


def _key(name: str) -> str:
    return f"conversation {name}"


def _kept(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in _KEPT if isinstance(value.get(name), str | bool)}
