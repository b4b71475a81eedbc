"""SMTPProvider: email through any mail server. Needs the [email] extra.

Letters come in by an `IMAPSource` (a mailbox), an `LMTPSource` (a mail server that hands over), or as webhooks: a POST
of the whole letter (`message/rfc822`), signed after the Standard Webhooks scheme as `HTTPChannel` does it.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.errors import MessageError
from typing import TYPE_CHECKING, Any, Literal

from roomkit.errors import (
    ConfigError,
    MissingExtra,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.delivery import (
    DeliveryResult,
    DeliveryState,
    DeliveryStatus,
    InboundMessage,
    Outgoing,
    WebhookRequest,
)
from roomkit.net.redaction import redact, register_secret
from roomkit.net.ssrf import Resolver
from roomkit.protocols.mail.compose import split_address, written
from roomkit.providers.mail import MailSettings, mail_error
from roomkit.providers.mail_carrier import MailCarrier
from roomkit.providers.standard_webhooks import StandardWebhooks
from roomkit.runtime import Clock, SystemClock, bounded

if TYPE_CHECKING:
    import ssl

    import httpx2

Security = Literal["starttls", "tls", "none"]
_PORTS: Mapping[str, int] = {"starttls": 587, "tls": 465, "none": 25}
_ENHANCED = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_GREYLISTED_S = 300.0
_BUSY_S = 60.0
_FAREWELL_S = 5.0


@dataclass(frozen=True, slots=True)
class SMTPOptions:
    """One mail server. `mail` says who writes, and where answers go.

    `security` is "starttls" (port 587, refused where the server has none), "tls" (port 465) or "none" (port 25, without
    a password). `envelope_from` gets the bounces (default: the sender). `webhook_secrets` check letters that are
    posted: the first signs, all are accepted. Times in seconds.
    """

    host: str
    mail: MailSettings = field(default_factory=MailSettings)
    port: int | None = None
    security: Security = "starttls"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    envelope_from: str | None = None
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    timeout_s: float = 30.0
    freshness_s: float = 300.0


class SMTPProvider(MailCarrier):
    """The `MessageProvider` for a mail server of your own. A connection that breaks while the letter is handed over
    leaves it ambiguous; the receiver may tell a repeated letter by its Message-ID, which stays the same."""

    name = "smtp"

    def __init__(
        self,
        options: SMTPOptions,
        *,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`tls` replaces the system's idea of whom to trust; `transport` and `resolver` are for fetching files that go
        with a letter. Raises `ConfigError`."""
        if not options.host:
            raise ConfigError("smtp: a server is needed; set SMTP_HOST")
        if bool(options.username) != bool(options.password):
            raise ConfigError("smtp: username and password go together; set SMTP_USERNAME and SMTP_PASSWORD")
        if options.password and options.security == "none":
            raise ConfigError(
                'smtp: a password goes over an encrypted connection only; use security "starttls" or "tls"'
            )
        register_secret(options.password, options.mail.thread_secret)
        self.options = options
        self._clock = clock or SystemClock()
        self._tls = tls
        key = options.password or (options.webhook_secrets[0] if options.webhook_secrets else options.host)
        super().__init__(options.mail, key, (resolver, transport))
        self._signatures = StandardWebhooks(
            options.webhook_secrets,
            who="smtp webhook",
            fix="set SMTP_WEBHOOK_SECRET",
            clock=self._clock,
            freshness_s=options.freshness_s,
        )

    async def send(self, message: Outgoing) -> DeliveryResult:
        """Hands one letter to the server. Raises `Refused`, or an ambiguous error when its last answer did not come."""
        mail = await self._mail(message)
        try:
            letter = written(mail, self._clock.now()).as_bytes()
            sender = split_address(self.options.envelope_from or mail.sender)[1]
            recipient = split_address(mail.recipient)[1]
        except (ValueError, MessageError) as error:
            raise mail_error(self.name, ValueError(str(error))) from error
        if not (sender + recipient).isascii():
            raise Refused(self.name, "the address is not ASCII, which this server is not asked for", code="smtputf8")
        answer = await self._hand_over(sender, recipient, letter)
        reference = self._desk.message_id(message)
        return DeliveryResult(
            success=True,
            state=DeliveryState.SENT,
            provider_message_id=reference,
            reference=reference,
            metadata={"answer": redact(answer)[:200]},
        )

    def verify(self, request: WebhookRequest) -> None:
        self._signatures.verify(request)

    async def remember(self, request: WebhookRequest) -> None:
        await self._desk.read_ahead(request.body)

    def parse(self, request: WebhookRequest, channel_id: str) -> list[InboundMessage | DeliveryStatus]:
        return self._desk.take(request.body, channel_id)

    def sign(self, request: WebhookRequest) -> WebhookRequest:
        return self._signatures.sign(request)

    async def _hand_over(self, sender: str, recipient: str, letter: bytes) -> str:
        library = _load()
        sent = False
        try:
            async with self._session(library) as session:
                await session.mail(sender)
                limit = str(session.esmtp_extensions.get("size", "")).strip()
                if limit.isdecimal() and 0 < int(limit) < len(letter):
                    raise Refused(self.name, f"the letter is larger than the server's {limit} bytes", code="too_large")
                await session.rcpt(recipient)
                sent = True
                return str((await bounded(session.data(letter), self.options.timeout_s, "smtp")).message)
        except library.SMTPResponseException as error:
            raise _refused(error.code, str(error.message)) from error
        except (library.SMTPTimeoutError, TimeoutError) as error:
            told = "no answer in time" if sent else "no connection in time"
            raise ProviderTimeout(self.name, told, ambiguous=sent) from error
        except library.SMTPRecipientsRefused as error:
            raise Refused(self.name, redact(str(error))) from error
        except (library.SMTPException, OSError) as error:
            told = redact(f"{type(error).__name__}: {error}")[:300]
            raise Unavailable(self.name, told, ambiguous=sent) from error

    @asynccontextmanager
    async def _session(self, library: Any) -> AsyncGenerator[Any]:
        options = self.options
        session = library.SMTP(
            hostname=options.host,
            port=options.port or _PORTS[options.security],
            use_tls=options.security == "tls",
            start_tls=options.security == "starttls",
            tls_context=self._tls,
            local_hostname=self._desk.domain,
            timeout=options.timeout_s,
        )
        try:
            await bounded(session.connect(), options.timeout_s, "smtp")
            if options.username and options.password:
                await session.login(options.username, options.password)
            yield session
            try:
                await bounded(session.quit(), _FAREWELL_S, "smtp")
            except (library.SMTPException, OSError):
                pass  # the letter is theirs already, however they part
        finally:
            session.close()


def provider(account: str | None = None, **options: Any) -> SMTPProvider:
    """The provider by name, with its environment variables for what `options` leave out."""
    if account is not None:
        raise ConfigError(f'provider "smtp:{account}": a server is chosen by SMTP_HOST; write "smtp"')
    return SMTPProvider(options_from_env(**options))


def options_from_env(**options: Any) -> SMTPOptions:
    """SMTP_HOST, SMTP_PORT, SMTP_SECURITY (starttls, tls, none), SMTP_USERNAME, SMTP_PASSWORD, SMTP_FROM,
    SMTP_REPLY_TO (with `{id}`), SMTP_AUTHSERV (names of servers whose Authentication-Results count, by commas),
    SMTP_WEBHOOK_SECRET; anything given in `options` wins."""
    env = os.environ.get
    mail = options.pop("mail", None) or MailSettings(
        from_address=env("SMTP_FROM") or None,
        reply_to=env("SMTP_REPLY_TO") or None,
        trusted_servers=tuple(one.strip() for one in env("SMTP_AUTHSERV", "").split(",") if one.strip()),
    )
    security, port, secret = env("SMTP_SECURITY") or "starttls", env("SMTP_PORT", ""), env("SMTP_WEBHOOK_SECRET")
    if security not in _PORTS:
        raise ConfigError(f'smtp: SMTP_SECURITY cannot be "{security}"; use starttls, tls or none')
    if port and not port.isdecimal():
        raise ConfigError(f'smtp: SMTP_PORT cannot be "{port}"; use a number such as 587')
    found: dict[str, Any] = {
        "host": env("SMTP_HOST") or "",
        "port": int(port) if port else None,
        "security": security,
        "username": env("SMTP_USERNAME") or None,
        "password": env("SMTP_PASSWORD") or None,
        "webhook_secrets": (secret,) if secret else (),
    }
    return SMTPOptions(mail=mail, **{**found, **options})


def _refused(code: int, message: str) -> ProviderError:
    """A server's own refusal; the letter was surely not taken."""
    enhanced = _ENHANCED.search(message)
    told = f"{redact(' '.join(message.split()))[:300]} (SMTP {code})"
    named = enhanced[1] if enhanced else str(code)
    if code in {530, 534, 535, 538} or named.startswith(("5.7.8", "5.7.9")):
        return Unauthorized("smtp", told, status=code, code=named)
    if code in {450, 451} and named != "4.3.2":  # not yet: it wants to see us again later
        return Unavailable("smtp", told, status=code, code=named, retry_after=_GREYLISTED_S)
    if code == 421 or named in {"4.7.0", "4.3.2", "4.7.28"}:
        return RateLimited("smtp", told, status=code, code=named, retry_after=_BUSY_S)
    if 400 <= code < 500:
        return Unavailable("smtp", told, status=code, code=named)
    return Refused("smtp", told, status=code, code=named)


def _load() -> Any:
    try:
        import aiosmtplib
    except ImportError as error:
        raise MissingExtra("SMTPProvider", "aiosmtplib", "email") from error
    return aiosmtplib
