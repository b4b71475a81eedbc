"""ElasticEmailProvider: email through Elastic Email's REST API v4, its notifications and its inbound routes."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roomkit.errors import BadResponse, ConfigError, Refused
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
from roomkit.providers.elasticemail.inbound import ElasticEmailKeys, parse
from roomkit.providers.mail import MailSettings, mail_error
from roomkit.providers.mail_carrier import MailCarrier
from roomkit.providers.vendor_json import json_answer, word
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import httpx2

_MIN_TOKEN = 16
_MOST_BYTES = 20 * 1024 * 1024  # of all files, encoded


@dataclass(frozen=True, slots=True)
class ElasticEmailOptions:
    """One Elastic Email account. `mail` says who writes, and where answers go: give it a `reply_to` with `{id}`,
    because the vendor may put a Message-ID of its own into a letter.

    `signing_secrets` check signed notifications, `signed` says what of them is signed; `webhook_token` stands in the
    URL of everything else that is accepted. `pool` and `channel` are names of the account's own. Times in seconds.
    """

    api_key: str = field(repr=False)
    mail: MailSettings = field(default_factory=MailSettings)
    signing_secrets: tuple[str, ...] = field(default=(), repr=False)
    signed: tuple[str, ...] = ("timestamp", "body")
    webhook_token: str | None = field(default=None, repr=False)
    pool: str | None = None
    channel: str | None = None
    base_url: str = "https://api.elasticemail.com"
    timeout_s: float = 30.0
    freshness_s: float = 300.0


class ElasticEmailProvider(MailCarrier):
    """The `MessageProvider` for Elastic Email, which knows no idempotency keys: an attempt without an answer is
    ambiguous."""

    name = "elasticemail"

    def __init__(
        self,
        options: ElasticEmailOptions,
        *,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`transport` and `resolver` replace the network, e.g. `FakeElasticEmail().transport()`. Raises
        `ConfigError`."""
        if not options.api_key:
            raise ConfigError("elasticemail: an API key is needed; set ELASTICEMAIL_API_KEY")
        secrets, token = options.signing_secrets, options.webhook_token
        if token is not None and len(token) < _MIN_TOKEN:
            raise ConfigError(f"elasticemail: a webhook token needs {_MIN_TOKEN} characters or more, made at random")
        if "body" not in options.signed or not set(options.signed) <= {"timestamp", "body", "id"}:
            raise ConfigError('elasticemail: signed parts are "timestamp", "body" and "id", the body among them')
        register_secret(options.api_key, token, options.mail.thread_secret, *secrets)
        self.options = options
        super().__init__(options.mail, options.api_key, (resolver, transport))
        self._keys = ElasticEmailKeys(secrets, token, options.signed, clock or SystemClock(), options.freshness_s)
        self._client = http_client(
            ClientOptions(read_s=options.timeout_s, write_s=options.timeout_s),
            base_url=options.base_url,
            headers={"x-elasticemail-apikey": options.api_key},
            transport=transport,
        )

    def adapt(self, capabilities: ChannelCapabilities) -> ChannelCapabilities:
        return capabilities.model_copy(update={"templates": True})

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Hands one letter over; raises `Refused`, or an ambiguous `ProviderTimeout` when no answer came."""
        body = await self.body(message)
        with vendor_errors(self.name):
            request = self._client.post("/v4/emails/transactional", json=body)
            response = await bounded(request, self.options.timeout_s, "elasticemail")
        answer = json_answer(response)
        if not response.is_success:
            raise error_from_response(self.name, response, word(answer.get("Error"), 300) or None)
        ident = word(answer.get("MessageID"))
        if not ident:
            raise BadResponse(self.name, "accepted a letter without naming it", status=response.status_code)
        return DeliveryResult(
            success=True,
            state=DeliveryState.SENT,
            provider_message_id=ident,
            reference=self._desk.message_id(message),
            metadata={"transaction": word(answer.get("TransactionID"))},
        )

    async def body(self, message: Outgoing) -> dict[str, Any]:
        """The JSON of a letter; `ConfigError` without a sender, `Refused` for what cannot be sent."""
        mail = await self._mail(message)
        try:
            content = _content(mail, message.content)
        except ValueError as error:
            raise mail_error(self.name, error) from error
        if sum(len(one["BinaryContent"]) for one in content.get("Attachments", ())) > _MOST_BYTES:
            raise Refused(self.name, "the letter is larger than 20 MB", code="too_large")
        options = {"PoolName": self.options.pool, "ChannelName": self.options.channel}
        body: dict[str, Any] = {"Recipients": {"To": [mail.recipient]}, "Content": content}
        chosen = {name: value for name, value in options.items() if value}
        return {**body, "Options": chosen} if chosen else body

    def verify(self, request: WebhookRequest) -> None:
        self._keys.verify(request)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        return parse(request, channel_id, self._desk)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._keys.sign(request)

    async def aclose(self) -> None:
        await super().aclose()
        await self._client.aclose()


def provider(account: str | None = None, **options: Any) -> ElasticEmailProvider:
    """The provider by name, with its environment variables for what `options` leave out."""
    if account is not None:
        raise ConfigError(f'provider "elasticemail:{account}": an account is its API key; write "elasticemail"')
    return ElasticEmailProvider(options_from_env(**options))


def options_from_env(**options: Any) -> ElasticEmailOptions:
    """ELASTICEMAIL_API_KEY, ELASTICEMAIL_FROM, ELASTICEMAIL_REPLY_TO (with `{id}`), ELASTICEMAIL_WEBHOOK_TOKEN,
    ELASTICEMAIL_SIGNING_SECRET; anything given in `options` wins."""
    env = os.environ.get
    mail = options.pop("mail", None) or MailSettings(
        from_address=env("ELASTICEMAIL_FROM") or None, reply_to=env("ELASTICEMAIL_REPLY_TO") or None
    )
    secret = env("ELASTICEMAIL_SIGNING_SECRET")
    found: dict[str, Any] = {
        "api_key": env("ELASTICEMAIL_API_KEY") or "",
        "webhook_token": env("ELASTICEMAIL_WEBHOOK_TOKEN") or None,
        "signing_secrets": (secret,) if secret else (),
    }
    return ElasticEmailOptions(mail=mail, **{**found, **options})


def _content(mail: Mail, content: object) -> dict[str, Any]:
    for address in filter(None, (mail.sender, mail.reply_to)):
        split_address(address)
    headers = {**thread_headers(mail), "Message-ID": f"<{mail.message_id}>"}
    found: dict[str, Any] = {"From": mail.sender, "Subject": mail.subject, "Headers": headers}
    if mail.reply_to:
        found["ReplyTo"] = mail.reply_to
    if isinstance(content, TemplateContent):
        found |= {"TemplateName": content.template_id, "Merge": dict(content.parameters)}
    else:
        found["Body"] = [{"ContentType": "PlainText", "Content": mail.text, "Charset": "utf-8"}]
        if mail.html:
            found["Body"].append({"ContentType": "HTML", "Content": mail.html, "Charset": "utf-8"})
    if mail.files:
        found["Attachments"] = [
            {
                "BinaryContent": base64.b64encode(file.data).decode(),
                "Name": file.name,
                "ContentType": file.mime_type,
                "Size": len(file.data),
            }
            for file in mail.files
        ]
    return found
