"""TelegramPolling: the updates of a bot without a public address, by long polling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from roomkit.errors import BadResponse, ConfigError, ProviderError, Unavailable
from roomkit.ports.source import Emit
from roomkit.providers.telegram.inbound import read

if TYPE_CHECKING:
    from roomkit.models.delivery import InboundMessage
    from roomkit.ports.channel import Channel
    from roomkit.providers.telegram.telegram import TelegramProvider

log = logging.getLogger(__name__)
_PLACE = "telegram_offset"
# After a week without updates Telegram numbers them anew, maybe lower: a place that old would hide all of them.
_STALE = timedelta(days=6)


@dataclass(frozen=True, slots=True)
class PollingOptions:
    """`wait_s` is how long one request waits for news; at most `batch` updates (100) come with each."""

    wait_s: float = 50.0
    batch: int = 100
    take_over: bool = False
    """Deletes a webhook that is set; without it that is an error, because Telegram does one or the other."""


class TelegramPolling:
    """A `Source` for `kit.attach_source`: the updates for a registered `TelegramChannel`, one after the other.

    Where it stands is written down after each batch's commit, and told to Telegram with the next request; what comes
    again after a crash is recognised by its id. Only one may run for a bot: `ConfigError` while a webhook is set.
    """

    def __init__(self, channel: Channel, options: PollingOptions | None = None) -> None:
        provider = getattr(channel, "provider", None)
        if provider is None or getattr(provider, "name", "") != "telegram":
            raise ConfigError('TelegramPolling needs a channel of Telegram: TelegramChannel("id", provider="telegram")')
        self._channel = channel
        self._provider: TelegramProvider = provider
        self._options = options or PollingOptions()
        self.name = f"telegram:{channel.channel_id}"

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        await self._alone()
        offset, at = await self._kept()
        while True:
            fields = {
                "timeout": int(self._options.wait_s),
                "limit": self._options.batch,
                "allowed_updates": list(self._provider.options.updates),
            }
            if offset is not None and self._now() - at < _STALE:
                fields["offset"] = offset
            updates = await self._fetch(fields)
            ready()
            for update in updates:
                for message in read(update, self._channel.channel_id):
                    await emit(message)
                    await self._answer(update, message)
            if updates:
                offset, at = int(updates[-1]["update_id"]) + 1, self._now()
                await self._keep(offset, at)

    async def _alone(self) -> None:
        info = await self._provider.call("getWebhookInfo", {})
        if not isinstance(info, dict) or not cast("dict[str, Any]", info).get("url"):
            return
        if not self._options.take_over:
            raise ConfigError(
                "telegram: a webhook is set for this bot, and Telegram does not do both; end it with "
                "provider.delete_webhook(), or poll with PollingOptions(take_over=True)"
            )
        await self._provider.delete_webhook()

    async def _fetch(self, fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        try:
            found = await self._provider.call("getUpdates", fields, wait_s=self._options.wait_s)
        except Unavailable as error:
            if error.code == "409" and "webhook" in str(error):
                raise ConfigError("telegram: a webhook was set for this bot, and polling has ended") from error
            raise
        if not isinstance(found, list):
            raise BadResponse("telegram", "getUpdates has no list of updates")
        updates = [cast("Mapping[str, Any]", one) for one in cast("list[Any]", found) if isinstance(one, dict)]
        if any(not isinstance(one.get("update_id"), int) for one in updates):
            raise BadResponse("telegram", "an update has no update_id")
        return updates

    async def _answer(self, update: Mapping[str, Any], message: InboundMessage) -> None:
        """What a webhook's answer says; not worth losing the connection over."""
        try:
            query = update.get("callback_query")
            if isinstance(query, dict):
                query_id = str(cast("dict[str, Any]", query).get("id"))
                await self._provider.call("answerCallbackQuery", {"callback_query_id": query_id})
            await self._provider.acknowledge(message)
        except ProviderError as error:
            log.info("%s: an update was taken and could not be answered: %s", self.name, error)

    def _now(self) -> datetime:
        return self._port.now()

    @property
    def _port(self) -> Any:
        if self._channel.port is None:
            raise ConfigError("telegram: register the channel with the kit before its source is attached")
        return self._channel.port

    async def _kept(self) -> tuple[int | None, datetime]:
        kept = await self._port.vault.get(_PLACE)
        if kept is None:
            return None, self._now()
        return int(kept["offset"]), datetime.fromisoformat(kept["at"])

    async def _keep(self, offset: int, at: datetime) -> None:
        await self._port.vault.put(_PLACE, {"offset": offset, "at": at.isoformat()})
