"""TelnyxSMSProvider: SMS and MMS through Telnyx's Messages API, with signed webhooks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roomkit.errors import BadResponse, ConfigError, ProviderError, RateLimited, Refused
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
from roomkit.net.ssrf import Credentials, Fetched, Fetcher, FetchPolicy, Resolver
from roomkit.providers.telnyx.inbound import STATES, complaint, parse
from roomkit.providers.telnyx.signature import TelnyxKeys
from roomkit.providers.text_media import media_to_send, text_to_send
from roomkit.providers.vendor_json import json_answer, rows, table, word
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_BUSY = frozenset({"10011", "40011", "40318"})
"""Too many requests, of ours or of the carrier's, or a full queue of the sender's: worth trying again."""
_MOST_FILES = 10


@dataclass(frozen=True, slots=True)
class TelnyxOptions:
    """One Telnyx account.

    A message is sent from the channel's number, else from `from_number` (a number, short code or, with a profile, a
    name), else from the number pool of `messaging_profile_id`. `webhook_url` is the public URL of the channel's
    webhook, told with each message; without it the messaging profile's own is used. `public_keys` check webhooks;
    `signing_key` is for simulated ones only. `agent_id` is the RCS agent. Times in seconds.

    The vendor's package sends an `Idempotency-Key` with a message, the documentation of the messages API does not say
    what becomes of one: it is sent, and not relied upon; `idempotent=False` leaves it out.
    """

    api_key: str = field(repr=False)
    public_keys: tuple[str, ...] = field(default=(), repr=False)
    signing_key: str | None = field(default=None, repr=False)
    from_number: str | None = None
    messaging_profile_id: str | None = None
    agent_id: str | None = None
    webhook_url: str | None = None
    idempotent: bool = True
    base_url: str = "https://api.telnyx.com/v2"
    timeout_s: float = 15.0
    freshness_s: float = 300.0


class TelnyxSMSProvider:
    """The `MessageProvider` for Telnyx. An attempt without an answer is ambiguous."""

    name = "telnyx"
    opt_out_codes = frozenset({"40300"})

    def __init__(
        self,
        options: TelnyxOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeTelnyx().transport()`. Raises `ConfigError`."""
        if not options.api_key:
            raise ConfigError("telnyx: an API key is needed; set TELNYX_API_KEY")
        register_secret(options.api_key, options.signing_key)
        self.options = options
        self._keys = TelnyxKeys(
            options.public_keys, options.signing_key, clock=clock or SystemClock(), freshness_s=options.freshness_s
        )
        self._credentials = Credentials.bearer(urlsplit(options.base_url).hostname or "", options.api_key)
        self._network = (resolver, transport)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            headers={"authorization": f"Bearer {options.api_key}"},
            transport=transport,
        )

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """The files of an MMS have less than 1 MB here."""
        return capabilities.model_copy(update={"max_media_bytes": 1_000_000})

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Queues one SMS or MMS at Telnyx; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        return await self._post("/messages", self.fields(message), message.idempotency_key)

    def fields(self, message: Outgoing) -> dict[str, Any]:
        """The JSON of a message; `ConfigError` without a sender, `Refused` for what cannot be sent."""
        options = self.options
        sender = message.extra.get("from_") or options.from_number
        if not sender and not options.messaging_profile_id:
            raise ConfigError(
                "telnyx: no sender; give SMSChannel a from_number, or set TELNYX_PHONE_NUMBER "
                "or TELNYX_MESSAGING_PROFILE_ID"
            )
        text = text_to_send(message.content)
        urls = media_to_send(message.content, self.name, most=_MOST_FILES)
        if not text and not urls:
            raise Refused(self.name, f"content of type {message.content.type} has neither text nor media to send")
        callback = message.extra.get("status_callback") or options.webhook_url
        given = {
            "from": sender,
            "messaging_profile_id": options.messaging_profile_id,
            "text": text,
            "media_urls": urls,
            "webhook_url": callback,
        }
        return {"to": message.recipient, **{name: value for name, value in given.items() if value}}

    async def _post(self, path: str, body: Mapping[str, Any], key: str) -> DeliveryResult:
        headers = {"idempotency-key": hashlib.sha256(key.encode()).hexdigest()} if self.options.idempotent else {}
        with vendor_errors(self.name):
            request = self._client.post(path, json=body, headers=headers)
            response = await bounded(request, self.options.timeout_s, "telnyx")
        answer = json_answer(response)
        if not response.is_success:
            raise _error(response, answer)
        data = table(answer.get("data"))
        ident, to = word(data.get("id")), rows(data.get("to"))
        if not ident:
            raise BadResponse(self.name, "accepted a message without naming it", status=response.status_code)
        state = STATES.get(word(to[0].get("status")) if to else "", DeliveryState.SENT)
        if state is DeliveryState.FAILED:
            code, told = complaint(data)
            return DeliveryResult(success=False, state=state, provider_message_id=ident, error=told, code=code)
        # Telnyx has taken it over; its own queue is not ours.
        state = DeliveryState.SENT if state is DeliveryState.QUEUED else state
        return DeliveryResult(success=True, state=state, provider_message_id=ident)

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        return parse(request, channel_id)

    def reply(self, request: WebhookRequest) -> WebhookReply:
        return WebhookReply()

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._keys.sign(request)

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads an attachment; the account's key goes to Telnyx's own host only."""
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(attachment.url, credentials=self._credentials)

    async def aclose(self) -> None:
        await self._client.aclose()


def provider(account: str | None = None, **options: Any) -> TelnyxSMSProvider:
    """The provider by name, with Telnyx's environment variables for what `options` leave out."""
    return TelnyxSMSProvider(options_from_env(account, **options))


def options_from_env(account: str | None = None, **options: Any) -> TelnyxOptions:
    """TELNYX_API_KEY, TELNYX_PUBLIC_KEY (several with commas), TELNYX_PHONE_NUMBER, TELNYX_MESSAGING_PROFILE_ID,
    TELNYX_RCS_AGENT_ID, TELNYX_SIGNING_KEY (simulation only); anything given in `options` wins. The account of
    "telnyx:ACCOUNT" is a messaging profile's id."""
    keys = (os.environ.get("TELNYX_PUBLIC_KEY") or "").split(",")
    found: dict[str, Any] = {
        "api_key": os.environ.get("TELNYX_API_KEY") or "",
        "public_keys": tuple(key.strip() for key in keys if key.strip()),
        "signing_key": os.environ.get("TELNYX_SIGNING_KEY") or None,
        "from_number": os.environ.get("TELNYX_PHONE_NUMBER") or None,
        "messaging_profile_id": account or os.environ.get("TELNYX_MESSAGING_PROFILE_ID") or None,
        "agent_id": os.environ.get("TELNYX_RCS_AGENT_ID") or None,
    }
    return TelnyxOptions(**{**found, **options})


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    code, told = complaint(answer)
    error = error_from_response("telnyx", response, told, code=code)
    if code is None:
        return error
    if code in _BUSY:
        kind, retryable = RateLimited, True
    elif code.startswith("40") and 400 <= response.status_code < 500:
        kind, retryable = Refused, False  # a 403 of these is about the message, not about the key
    else:
        return error
    return kind(
        "telnyx",
        f"{told} (error {code})",
        retryable=retryable,
        retry_after=error.retry_after,
        status=error.status,
        code=code,
        ambiguous=error.ambiguous,
    )
