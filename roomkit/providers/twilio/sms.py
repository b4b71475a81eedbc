"""TwilioSMSProvider: SMS and MMS through the Messages API, with signed webhooks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import urlencode, urlsplit

from roomkit.errors import (
    AccessDenied,
    BadResponse,
    ConfigError,
    ProviderError,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.content import Content, TemplateContent
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
from roomkit.providers.chat_text import PLAIN, Dialect
from roomkit.providers.text_media import media_to_send, text_to_send
from roomkit.providers.twilio.inbound import STATES, check_sane, payloads, read
from roomkit.providers.twilio.signature import TwilioKeys, form_of, is_json
from roomkit.providers.vendor_json import json_answer
from roomkit.runtime import bounded

if TYPE_CHECKING:
    import httpx2

_CONTENT_SID = re.compile(r"HX[0-9a-fA-F]{32}")
# What Twilio's own error codes mean for us; others go by their HTTP status.
_KINDS: Mapping[int, tuple[type[ProviderError], bool]] = {
    20003: (Unauthorized, False),
    20404: (Refused, False),
    20429: (RateLimited, True),
    20500: (Unavailable, True),
    20503: (Unavailable, True),
    14107: (RateLimited, True),
    21611: (RateLimited, True),  # the sender's own queue is full
    21211: (Refused, False),  # no valid number
    21214: (Refused, False),
    21408: (Refused, False),  # destination not permitted
    21606: (Refused, False),  # not a sender of this account
    21610: (Refused, False),  # opted out
    21612: (Refused, False),
    21614: (Refused, False),  # no mobile number
    21617: (Refused, False),  # too long
    30022: (RateLimited, True),
    63038: (RateLimited, True),  # daily limit
    63003: (Refused, False),  # no such user of the channel
    63016: (Refused, False),  # outside the window in which a business may write freely
    63018: (RateLimited, True),  # the channel's own limit
    63036: (Refused, False),  # the handset has no RCS
}


@dataclass(frozen=True, slots=True)
class TwilioOptions:
    """One Twilio account.

    Requests authenticate with `api_key` and `api_secret` where given, else with the auth token; webhooks are checked
    with the auth token, or with `shared_keys` (id to secret). A message is sent from the channel's number, else from
    `from_number`, else by `messaging_service_sid`; RCS from `rcs_sender` ("rcs:NAME"), else by the service.
    `status_callback` is the public URL of the channel's webhook; `accounts` are subaccounts whose webhooks are taken as
    well. Times in seconds.
    """

    account_sid: str
    auth_token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    api_secret: str | None = field(default=None, repr=False)
    shared_keys: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    from_number: str | None = None
    messaging_service_sid: str | None = None
    rcs_sender: str | None = None
    status_callback: str | None = None
    accounts: tuple[str, ...] = ()
    base_url: str = "https://api.twilio.com"
    timeout_s: float = 15.0


class TwilioSMSProvider:
    """The `MessageProvider` for Twilio. Twilio knows no idempotency keys: an attempt without an answer is ambiguous."""

    name = "twilio"
    opt_out_codes = frozenset({"21610"})
    dialect: Dialect = PLAIN
    most_files = 10

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        """Templates of the Content API go by every channel."""
        return capabilities.model_copy(update={"templates": True})

    def __init__(
        self,
        options: TwilioOptions,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeTwilio().transport()`. Raises `ConfigError`."""
        user, password = options.api_key or options.account_sid, options.api_secret or options.auth_token
        if not options.account_sid or not password or (options.api_key and not options.api_secret):
            raise ConfigError(
                "twilio: account_sid and auth_token (or api_key and api_secret) are needed; "
                "set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
            )
        register_secret(options.auth_token, options.api_secret, *options.shared_keys.values())
        self.options = options
        self._keys = TwilioKeys((options.auth_token,) if options.auth_token else (), options.shared_keys)
        self._credentials = Credentials.basic(urlsplit(options.base_url).hostname or "", user, password)
        self._network = (resolver, transport)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            auth=(user, password),
            transport=transport,
        )

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Queues one SMS or MMS at Twilio; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        body = urlencode(self.fields(message)).encode()
        path = f"/2010-04-01/Accounts/{self.options.account_sid}/Messages.json"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        with vendor_errors(self.name):
            request = self._client.post(path, content=body, headers=headers)
            response = await bounded(request, self.options.timeout_s, "twilio")
        answer = json_answer(response)
        if not response.is_success:
            raise _error(response, answer)
        status, sid = answer.get("status"), answer.get("sid")
        if not isinstance(sid, str) or not isinstance(status, str):
            raise BadResponse(self.name, "accepted a message without naming it", status=response.status_code)
        state = STATES.get(status, DeliveryState.SENT)
        if state is DeliveryState.FAILED:
            code = str(answer.get("error_code") or "")
            return DeliveryResult(
                success=False, state=state, provider_message_id=sid, error=_told(answer, status), code=code or None
            )
        # Twilio has taken it over; its own queue is not ours.
        state = DeliveryState.SENT if state is DeliveryState.QUEUED else state
        return DeliveryResult(success=True, state=state, provider_message_id=sid)

    def fields(self, message: Outgoing) -> list[tuple[str, str]]:
        """The form fields of a message; `ConfigError` without a sender, `Refused` for what cannot be sent."""
        options = self.options
        sender = self.sender(message)
        if not sender:
            raise ConfigError("twilio: no sender; give SMSChannel a from_number, or set TWILIO_MESSAGING_SERVICE_SID")
        fields = [("To", self.address(message))]
        fields.append(("MessagingServiceSid" if str(sender).startswith("MG") else "From", str(sender)))
        fields += self.content_fields(message.content)
        if len(fields) == 2:
            raise Refused(self.name, f"content of type {message.content.type} has neither text nor media to send")
        if callback := message.extra.get("status_callback") or options.status_callback:
            fields.append(("StatusCallback", str(callback)))
        return fields

    def sender(self, message: Outgoing) -> str | None:
        """Who sends it, in Twilio's spelling."""
        return message.extra.get("from_") or self.options.from_number or self.options.messaging_service_sid

    def content_fields(self, content: Content) -> list[tuple[str, str]]:
        """Text and media; of a template its ContentSid and what stands in its places. A template of another vendor goes
        as its fallback text."""
        if is_template(content):
            fields = [("ContentSid", content.template_id)]
            if content.parameters:
                fields.append(("ContentVariables", json.dumps(content.parameters)))
            return fields
        if isinstance(content, TemplateContent) and not content.fallback:
            told = f'template "{content.template_id[:60]}" is no ContentSid; give the one that Twilio shows (HX...)'
            raise Refused(self.name, f"{told}, or a fallback text")
        fields = [("Body", text)] if (text := text_to_send(content, self.dialect)) else []
        return fields + [("MediaUrl", url) for url in media_to_send(content, self.name, most=self.most_files)]

    def address(self, message: Outgoing) -> str:
        """The recipient in Twilio's spelling."""
        return message.recipient

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)
        if is_json(request):
            return
        check_sane(form_of(request), (self.options.account_sid, *self.options.accounts))

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        found = payloads(request)
        if not found:
            raise AccessDenied("twilio webhook: it is empty")
        return [read(params, channel_id, dict(params)) for params in found]

    def reply(self, request: WebhookRequest) -> WebhookReply:
        """Empty TwiML: nothing to be said at once, answers go out as messages of their own."""
        return WebhookReply(200, b"<Response/>", "application/xml")

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        if self._keys.auth_tokens:
            return self._keys.sign(request)
        return self._keys.sign(request, shared_key=next(iter(self.options.shared_keys), None))

    async def fetch_media(self, attachment: Attachment, policy: FetchPolicy | None = None) -> Fetched:
        """Downloads an attachment; the account's credentials go to Twilio's own host only."""
        resolver, transport = self._network
        async with Fetcher(policy, resolver=resolver, transport=transport, who=self.name) as fetcher:
            return await fetcher.fetch(attachment.url, credentials=self._credentials)

    async def aclose(self) -> None:
        await self._client.aclose()


def is_template(content: Content) -> TypeGuard[TemplateContent]:
    """Whether it is a template of Twilio's Content API."""
    return isinstance(content, TemplateContent) and _CONTENT_SID.fullmatch(content.template_id) is not None


def provider(account: str | None = None, **options: Any) -> TwilioSMSProvider:
    """The provider by name, with Twilio's own environment variables for what `options` leave out."""
    return TwilioSMSProvider(options_from_env(account, **options))


def options_from_env(account: str | None = None, **options: Any) -> TwilioOptions:
    """TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, TWILIO_API_KEY, TWILIO_API_SECRET, TWILIO_PHONE_NUMBER,
    TWILIO_MESSAGING_SERVICE_SID, TWILIO_RCS_SENDER; anything given in `options` wins."""
    names = {
        "account_sid": "TWILIO_ACCOUNT_SID",
        "auth_token": "TWILIO_AUTH_TOKEN",
        "api_key": "TWILIO_API_KEY",
        "api_secret": "TWILIO_API_SECRET",
        "from_number": "TWILIO_PHONE_NUMBER",
        "messaging_service_sid": "TWILIO_MESSAGING_SERVICE_SID",
        "rcs_sender": "TWILIO_RCS_SENDER",
    }
    found = {name: os.environ.get(variable) or None for name, variable in names.items()}
    merged: dict[str, Any] = {**found, **({"account_sid": account} if account else {}), **options}
    merged["account_sid"] = merged["account_sid"] or ""
    return TwilioOptions(**merged)


def _error(response: httpx2.Response, answer: Mapping[str, Any]) -> ProviderError:
    code = answer.get("code")
    error = error_from_response("twilio", response, _told(answer, None), code=str(code) if code else None)
    if not isinstance(code, int) or code not in _KINDS:
        return error
    kind, retryable = _KINDS[code]
    return kind(
        "twilio",
        f"{_told(answer, None)} (error {code})",
        retryable=retryable,
        retry_after=error.retry_after,
        status=error.status,
        code=error.code,
        ambiguous=error.ambiguous,
    )


def _told(answer: Mapping[str, Any], status: str | None) -> str | None:
    text = answer.get("error_message") or answer.get("message")
    return str(text)[:300] if text else status
