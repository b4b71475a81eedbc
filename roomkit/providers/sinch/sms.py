"""SinchSMSProvider: SMS and MMS through Sinch's SMS REST API, with signed callbacks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from roomkit.errors import BadResponse, ConfigError, ProviderError, Refused
from roomkit.models.delivery import (
    Attachment,
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookReply,
    WebhookRequest,
)
from roomkit.models.room import ChannelCapabilities
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import register_secret
from roomkit.net.ssrf import Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.providers.sinch.inbound import parse
from roomkit.providers.sinch.signature import SinchKeys
from roomkit.providers.text_media import media_to_send, text_to_send
from roomkit.providers.vendor_json import json_answer, word
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

REGIONS = ("us", "eu", "au", "br", "ca")


@dataclass(frozen=True, slots=True)
class SinchOptions:
    """One service plan of Sinch.

    A message is sent from the channel's number, else from `from_number`, else from the plan's default. `callback_url`
    is the public URL of the channel's webhook, told with each message; without it the plan's own is used.
    `webhook_secrets` check callbacks: Sinch signs those of the SMS API once the account manager has set a secret.
    `region` is where the plan lives (us, eu, au, br or ca). Times in seconds.
    """

    service_plan_id: str
    api_token: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    from_number: str | None = None
    callback_url: str | None = None
    region: str = "us"
    base_url: str | None = None
    timeout_s: float = 15.0
    freshness_s: float = 300.0


class SinchSMSProvider:
    """The `MessageProvider` for Sinch, which knows no idempotency keys: an attempt without an answer is ambiguous. The
    id of a message is that of its batch, which has one recipient."""

    name = "sinch"

    def __init__(
        self,
        options: SinchOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeSinch().transport()`. Raises `ConfigError`."""
        if not options.service_plan_id or not options.api_token:
            raise ConfigError(
                "sinch: a service plan and its token are needed; set SINCH_SERVICE_PLAN_ID and SINCH_API_TOKEN"
            )
        if options.base_url is None and options.region not in REGIONS:
            raise ConfigError(f'sinch: region "{options.region}" is not one of {", ".join(REGIONS)}; set SINCH_REGION')
        register_secret(options.api_token, *options.webhook_secrets)
        self.options = options
        self._keys = SinchKeys(options.webhook_secrets, clock=clock or SystemClock(), freshness_s=options.freshness_s)
        self._network = (resolver, transport)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url or f"https://{options.region}.sms.api.sinch.com",
            headers={"authorization": f"Bearer {options.api_token}"},
            transport=transport,
        )

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """An MMS has one file here, of 1 MB."""
        return capabilities.model_copy(update={"media_per_message": 1, "max_media_bytes": 1_000_000})

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Queues one SMS or MMS at Sinch; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        path = f"/xms/v1/{quote(self.options.service_plan_id, safe='')}/batches"
        with vendor_errors(self.name):
            request = self._client.post(path, json=self.fields(message))
            response = await bounded(request, self.options.timeout_s, "sinch")
        answer = json_answer(response)
        if not response.is_success:
            raise _error(response, answer)
        ident = word(answer.get("id"))
        if not ident:
            raise BadResponse(self.name, "accepted a message without naming it", status=response.status_code)
        return DeliveryResult(success=True, state=DeliveryState.SENT, provider_message_id=ident)

    def fields(self, message: Outgoing) -> dict[str, Any]:
        """The JSON of a batch with one recipient; `Refused` for what cannot be sent."""
        text = text_to_send(message.content)
        urls = media_to_send(message.content, self.name, most=1)
        if not text and not urls:
            raise Refused(self.name, f"content of type {message.content.type} has neither text nor media to send")
        media = {"url": urls[0], "message": text} if urls and text else {"url": urls[0]} if urls else None
        given = {
            "from": message.extra.get("from_") or self.options.from_number,
            "callback_url": message.extra.get("status_callback") or self.options.callback_url,
        }
        return {
            "to": [message.recipient],
            "type": "mt_text" if media is None else "mt_media",
            "body": text if media is None else media,
            "delivery_report": "per_recipient",
            "client_reference": message.idempotency_key[:2048],
            **{name: value for name, value in given.items() if value},
        }

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        return parse(request, channel_id)

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply()

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._keys.sign(request)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads an attachment: a link that needs no credentials, so none are sent anywhere."""
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(attachment.url)

    async def aclose(self) -> None:
        await self._client.aclose()


def provider(account: str | None = None, **options: Any) -> SinchSMSProvider:
    """The provider by name, with Sinch's environment variables for what `options` leave out."""
    return SinchSMSProvider(options_from_env(account, **options))


def options_from_env(account: str | None = None, **options: Any) -> SinchOptions:
    """SINCH_SERVICE_PLAN_ID, SINCH_API_TOKEN, SINCH_WEBHOOK_SECRET (several with commas), SINCH_PHONE_NUMBER,
    SINCH_REGION (us); anything given in `options` wins. The account of "sinch:ACCOUNT" is a service plan's id."""
    found: dict[str, Any] = {
        "service_plan_id": account or os.environ.get("SINCH_SERVICE_PLAN_ID") or "",
        "api_token": os.environ.get("SINCH_API_TOKEN") or "",
        "webhook_secrets": tuple(
            one.strip() for one in (os.environ.get("SINCH_WEBHOOK_SECRET") or "").split(",") if one.strip()
        ),
        "from_number": os.environ.get("SINCH_PHONE_NUMBER") or None,
        "region": os.environ.get("SINCH_REGION") or "us",
    }
    return SinchOptions(**{**found, **options})


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    code, told = word(answer.get("code"), 100) or None, word(answer.get("text"), 300) or None
    error = error_from_response("sinch", response, told, code=code)
    if response.status_code == 403 and code:  # about the message or its sender, not about the token
        return Refused("sinch", f"{told or code} (HTTP 403)", status=403, code=code)
    return error
