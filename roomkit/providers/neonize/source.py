"""NeonizeSource: keeps the link of a personal account up, and brings what arrives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roomkit.errors import ConfigError, Unavailable
from roomkit.ports.source import Emit, SourceDone
from roomkit.providers.neonize.inbound import read, receipts
from roomkit.runtime import BlockingBuffer

if TYPE_CHECKING:
    from roomkit.ports.channel import Channel
    from roomkit.providers.neonize.whatsapp_personal import WhatsAppPersonalProvider

log = logging.getLogger(__name__)
WAITING = 1000


class NeonizeSource:
    """A `Source` for `kit.attach_source`: the messages and receipts of a registered `WhatsAppPersonalChannel`.

    WhatsApp takes a message for delivered as soon as the client has it: one that arrives in the moment of a crash can
    be lost. Ends for good when the account is unlinked, banned or used by another client under the same keys.
    """

    def __init__(self, channel: Channel) -> None:
        provider = getattr(channel, "provider", None)
        if provider is None or getattr(provider, "name", "") != "neonize":
            raise ConfigError('NeonizeSource needs WhatsAppPersonalChannel("id", provider="neonize")')
        self._channel = channel
        self._provider: WhatsAppPersonalProvider = provider
        self.name = f"neonize:{channel.channel_id}"

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        waiting: BlockingBuffer[tuple[str, Any]] = BlockingBuffer(WAITING)

        async def hear(kind: str, event: Any) -> None:
            await waiting.put((kind, event))

        wire = self._provider.wire
        await wire.connect(hear, self._provider.options.show_qr)
        try:
            while True:
                kind, event = await waiting.get()
                await self._take(kind, event, emit, ready)
        finally:
            waiting.close()
            await wire.disconnect()

    async def _take(self, kind: str, event: Any, emit: Emit, ready: Callable[[], None]) -> None:
        cid = self._channel.channel_id
        match kind:
            case "message":
                for message in read(event, cid):
                    if message.attachments:
                        self._provider.hold(message.attachments[0].url, event.Message)
                    if await emit(message) is not False:
                        await self._provider.acknowledge(message)
            case "receipt":
                for status in receipts(event, cid):
                    await emit(status)
            case "connected":
                ready()
            case "disconnected":
                raise Unavailable("neonize", "the connection to WhatsApp is lost")
            case _:
                reason = type(event).__name__
                raise SourceDone(f"whatsapp has ended the link ({reason}); link the account again")
