"""SendGridProvider: email through SendGrid's Mail Send API, its Event Webhook and Inbound Parse."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.errors import BadResponse, ConfigError, ProviderError, RateLimited, Refused, Unauthorized
from roomkit.models.content import TemplateContent
from roomkit.models.delivery import (
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookRequest,
)
from roomkit.models.room import ChannelCapabilities
from roomkit.net.client import ClientOptions, error_from_response, http_client, vendor_errors
from roomkit.net.redaction import register_secret
from roomkit.net.ssrf import Resolver
from roomkit.protocols.mail.compose import Mail, split_address, thread_headers
from roomkit.protocols.mail.form import read_form
from roomkit.providers.mail import MailSettings, mail_error
from roomkit.providers.mail_carrier import MailCarrier
from roomkit.providers.sendgrid.inbound import ID_ARGUMENT, parse
from roomkit.providers.sendgrid.signature import SendGridKeys, public_key
from roomkit.providers.vendor_json import json_answer, rows, word
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_MOST_BYTES = 30 * 1024 * 1024  # of a whole request


@dataclass(frozen=True, slots=True)
class SendGridOptions:
    """One SendGrid account. `mail` says who writes, and where answers go.

    `verification_keys` check the Event Webhook and Inbound Parse under a security policy (each has its own key);
    `parse_password` is `user:password` in the URL of a Parse webhook without a policy. `signing_key` is for simulated
    webhooks only. `sandbox` lets SendGrid check letters without sending them. Times in seconds.
    """

    api_key: str = field(repr=False)
    mail: MailSettings = field(default_factory=MailSettings)
    verification_keys: tuple[str, ...] = field(default=(), repr=False)
    parse_password: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    sandbox: bool = False
    base_url: str = "https://api.sendgrid.com"
    timeout_s: float = 30.0
    freshness_s: float = 300.0


class SendGridProvider(MailCarrier):
    """The `MessageProvider` for SendGrid. It knows no idempotency keys: an attempt without an answer is ambiguous."""

    name = "sendgrid"

    def __init__(
        self,
        options: SendGridOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeSendGrid().transport()`. Raises `ConfigError`."""
        if not options.api_key:
            raise ConfigError("sendgrid: an API key is needed; set SENDGRID_API_KEY")
        password = options.parse_password
        register_secret(options.api_key, password, options.signing_key, options.mail.thread_secret)
        self.options = options
        self._clock = clock or SystemClock()
        super().__init__(options.mail, options.api_key, (resolver, transport))
        public = [public_key(key) for key in options.verification_keys]
        self._keys = SendGridKeys(public, self._clock, password, options.signing_key, options.freshness_s)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            headers={"authorization": f"Bearer {options.api_key}"},
            transport=transport,
        )

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        return capabilities.model_copy(update={"templates": True})

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Hands one letter over; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        body = await self.body(message)
        with vendor_errors(self.name):
            request = self._client.post("/v3/mail/send", json=body)
            response = await bounded(request, self.options.timeout_s, "sendgrid")
        if not response.is_success:
            raise self._error(response)
        ident = response.headers.get("x-message-id")
        if not ident and response.status_code != 200:  # 200 answers a letter of the sandbox
            raise BadResponse(self.name, "accepted a letter without naming it", status=response.status_code)
        reference = self._desk.message_id(message)
        return DeliveryResult(
            success=True, state=DeliveryState.SENT, provider_message_id=ident or reference, reference=reference
        )

    async def body(self, message: Outgoing) -> dict[str, Any]:
        """The JSON of a letter; `ConfigError` without a sender, `Refused` for what cannot be sent."""
        mail = await self._mail(message)
        try:
            body = _body(mail, self._desk.mark(message), message.content)
        except ValueError as error:
            raise mail_error(self.name, error) from error
        if sum(len(one["content"]) for one in body.get("attachments", ())) > _MOST_BYTES:
            raise Refused(self.name, "the letter is larger than 30 MB", code="too_large")
        return {**body, "mail_settings": {"sandbox_mode": {"enable": True}}} if self.options.sandbox else body

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)

    async def remember(self, request: WebhookRequest) -> None:
        if request.body.startswith(b"--"):
            await self._desk.read_ahead(read_form(request.body).fields.get("email", b""))

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        return parse(request, channel_id, self._desk)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._keys.sign(request)

    async def aclose(self) -> None:
        await super().aclose()
        await self._client.aclose()

    def _error(self, response: httpx2.Response) -> ProviderError:
        errors = rows(json_answer(response).get("errors"))
        first: Mapping[str, Any] = errors[0] if errors else {}
        told, where = word(first.get("message"), 300) or None, word(first.get("field"), 60) or None
        error = error_from_response(self.name, response, told, code=where)
        if isinstance(error, RateLimited) and error.retry_after is None:
            # The header tells the second at which the limit starts anew.
            reset = word(response.headers.get("x-ratelimit-reset"), 12)
            if reset.isdecimal():
                error.retry_after = max(1.0, int(reset) - self._clock.now().timestamp())
        if isinstance(error, Unauthorized) and "Maximum credits exceeded" in (told or ""):
            return RateLimited(self.name, f"{told} (HTTP {response.status_code})", status=response.status_code)
        return error


def provider(account: str | None = None, **options: Any) -> SendGridProvider:
    """The provider by name, with its environment variables for what `options` leave out."""
    if account is not None:
        raise ConfigError(f'provider "sendgrid:{account}": an account is its API key; write "sendgrid"')
    return SendGridProvider(options_from_env(**options))


def options_from_env(**options: Any) -> SendGridOptions:
    """SENDGRID_API_KEY, SENDGRID_FROM, SENDGRID_REPLY_TO (with `{id}`), SENDGRID_WEBHOOK_KEY (several: separated by
    commas), SENDGRID_PARSE_PASSWORD, SENDGRID_SIGNING_KEY (simulation only); anything given in `options` wins."""
    env = os.environ.get
    mail = options.pop("mail", None) or MailSettings(
        from_address=env("SENDGRID_FROM") or None, reply_to=env("SENDGRID_REPLY_TO") or None
    )
    found: dict[str, Any] = {
        "api_key": env("SENDGRID_API_KEY") or "",
        "verification_keys": tuple(key.strip() for key in env("SENDGRID_WEBHOOK_KEY", "").split(",") if key.strip()),
        "parse_password": env("SENDGRID_PARSE_PASSWORD") or None,
        "signing_key": env("SENDGRID_SIGNING_KEY", "").replace("\\n", "\n") or None,
    }
    return SendGridOptions(mail=mail, **{**found, **options})


def _body(mail: Mail, mark: str, content: object) -> dict[str, Any]:
    headers = {**thread_headers(mail), "Message-ID": f"<{mail.message_id}>"}
    person: dict[str, Any] = {"to": [_who(mail.recipient)], "custom_args": {ID_ARGUMENT: mark}}
    body: dict[str, Any] = {"personalizations": [person], "from": _who(mail.sender), "headers": headers}
    if mail.reply_to:
        body["reply_to"] = _who(mail.reply_to)
    if isinstance(content, TemplateContent):
        body["template_id"] = content.template_id
        person["dynamic_template_data"] = dict(content.parameters)
        person["subject"] = mail.subject
        return body
    body["subject"] = mail.subject
    body["content"] = [{"type": "text/plain", "value": mail.text or " "}]
    if mail.html:
        body["content"].append({"type": "text/html", "value": mail.html})
    if mail.files:
        body["attachments"] = [
            {
                "content": base64.b64encode(file.data).decode(),
                "type": file.mime_type,
                "filename": file.name,
                "disposition": "attachment",
            }
            for file in mail.files
        ]
    return body


def _who(said: str) -> dict[str, str]:
    name, address = split_address(said)
    return {"email": address, "name": name} if name else {"email": address}
