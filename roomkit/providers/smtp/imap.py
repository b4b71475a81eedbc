"""IMAPSource: letters from a mailbox, each exactly once. Needs the [email] extra.

    channel = EmailChannel("email", provider="smtp")
    kit.register_channel(channel)
    await kit.attach_source(IMAPSource(channel, IMAPOptions("imap.shop.example", "help", os.environ["IMAP_PASSWORD"])))

How far the mailbox has been read (UIDVALIDITY and UID) is kept in the kit's store, after each letter's commit; a letter
that is read again, after a crash or when the server numbers the mailbox anew, is known by its Message-ID. The mailbox
itself is not changed, unless `mark_seen`.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from roomkit.errors import (
    MissingExtra,
    ProviderTimeout,
    Unauthorized,
    Unavailable,
    UsageError,
)
from roomkit.models.delivery import DeliveryStatus, InboundMessage
from roomkit.net.redaction import redact, register_secret
from roomkit.ports.channel import RoomPort, VaultPort
from roomkit.ports.source import Emit
from roomkit.runtime import Clock, SystemClock, WorkerThread

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_KNOWN_DAYS = 6  # of the seven for which a message's id is known


@dataclass(frozen=True, slots=True)
class IMAPOptions:
    """One mailbox. `password` logs in, or `access_token` by XOAUTH2. `security` is "tls" (port 993), "starttls" or
    "none" (port 143). Without a memory of the mailbox reading begins with the next letter, or with `from_start` at its
    first. Letters over `max_bytes` are taken as their headers only. For `idle_s` the server is trusted to tell of news
    by itself (IDLE) before it is asked. Times in seconds."""

    host: str
    username: str
    password: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    folder: str = "INBOX"
    port: int | None = None
    security: str = "tls"
    from_start: bool = False
    mark_seen: bool = False
    idle: bool = True
    idle_s: float = 60.0
    poll_s: float = 30.0
    timeout_s: float = 30.0
    max_bytes: int = 30 * 1024 * 1024


class LetterReader(Protocol):
    """What providers of email do for sources of letters: `read_ahead` does the long work of a large one elsewhere."""

    async def read_ahead(self, data: bytes) -> None: ...

    def take(self, data: bytes, channel_id: str) -> list[InboundMessage | DeliveryStatus]: ...


class MailChannel(Protocol):
    """What sources of letters need of an `EmailChannel`; it has to be registered before they are attached."""

    channel_id: str
    provider: Any
    port: RoomPort | None


class IMAPSource:
    """A `Source`: one mailbox, read in order, by IDLE where the server has it and else by looking every `poll_s`."""

    def __init__(
        self,
        channel: MailChannel,
        options: IMAPOptions,
        *,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not (options.password or options.access_token):
            raise UsageError("IMAPSource: a password or an access_token is needed")
        if options.security == "none" and not _is_local(options.host):
            raise UsageError('IMAPSource: a password goes over an encrypted connection only; use security "tls"')
        register_secret(options.password, options.access_token)
        self.name = f"imap {options.username}@{options.host}/{options.folder}"
        self._channel = channel
        self._options = options
        self._clock = clock or SystemClock()
        self._tls = tls

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        vault = self._vault()
        mailbox = _Mailbox(self._options, self._tls)
        worker = WorkerThread(f"roomkit-{self.name}")
        try:
            await worker.submit(mailbox.step, mailbox.open)
            ready()
            await self._begin(mailbox, vault)
            while True:
                await self._read(worker, mailbox, vault, emit)
                if mailbox.idles:
                    await worker.submit(mailbox.step, mailbox.wait)
                else:
                    await asyncio.sleep(self._options.poll_s)
                    await worker.submit(mailbox.step, mailbox.look)
        finally:
            mailbox.cut()  # a read that is under way ends at once
            worker.submit(mailbox.close)
            worker.close()

    def _vault(self) -> VaultPort:
        port = self._channel.port
        if port is None:
            raise UsageError(f'IMAPSource: register the channel "{self._channel.channel_id}" before attaching it')
        return port.vault

    async def _begin(self, mailbox: _Mailbox, vault: VaultPort) -> None:
        """Where to go on: behind the last letter that was committed."""
        known = await vault.get(self.name)
        if known is not None and known["validity"] == mailbox.validity:
            mailbox.last = int(known["uid"])
            return
        if known is not None:
            # The server has numbered anew: what may be new is read again, and told from the rest by its id.
            mailbox.since = (self._clock.now() - timedelta(days=_KNOWN_DAYS)).date()
        elif not self._options.from_start:
            mailbox.last = mailbox.next_uid - 1
        await self._keep(mailbox, vault)

    async def _keep(self, mailbox: _Mailbox, vault: VaultPort) -> None:
        await vault.put(self.name, {"validity": mailbox.validity, "uid": mailbox.last})

    async def _read(self, worker: WorkerThread, mailbox: _Mailbox, vault: VaultPort, emit: Emit) -> None:
        reader: LetterReader = self._channel.provider
        for uid in await worker.submit(mailbox.step, mailbox.unread):
            data = await worker.submit(mailbox.step, mailbox.letter, uid) or b""
            await reader.read_ahead(data)
            for item in reader.take(data, self._channel.channel_id) if data else ():
                await emit(item)
            mailbox.last = uid
            await self._keep(mailbox, vault)
            if self._options.mark_seen:
                await worker.submit(mailbox.step, mailbox.seen, uid)


class _Mailbox:
    """The blocking half, on a thread of its own; only `cut` is called from outside of it."""

    def __init__(self, options: IMAPOptions, tls: ssl.SSLContext | None) -> None:
        self._options = options
        self._tls = tls
        self._client: Any = None
        self._cut = False
        self.validity = 0
        self.next_uid = 1
        self.last = 0
        self.since: Any = None
        self.idles = False

    def open(self) -> None:
        options = self._options
        library = _load()
        port = options.port or (993 if options.security == "tls" else 143)
        self._client = library.IMAPClient(
            options.host, port, ssl=options.security == "tls", ssl_context=self._tls, timeout=options.timeout_s
        )
        if options.security == "starttls":
            self._client.starttls(self._tls)
        if options.access_token:
            self._client.oauth2_login(options.username, options.access_token)
        else:
            self._client.login(options.username, options.password)
        self.idles = options.idle and bool(self._client.has_capability("IDLE"))
        found = self._client.select_folder(options.folder, readonly=not options.mark_seen)
        self.validity = int(found[b"UIDVALIDITY"])
        self.next_uid = int(found.get(b"UIDNEXT") or 1)

    def unread(self) -> list[int]:
        self._announced()  # whatever was announced so far is found now
        wanted: list[Any] = ["UID", f"{self.last + 1}:*"]
        if self.since is not None:
            wanted += ["SINCE", self.since]
        # The highest number is always in the answer, whether it is new or not.
        return sorted(uid for uid in self._client.search(wanted) if uid > self.last)

    def letter(self, uid: int) -> bytes:
        """The letter as it is, or its headers when it is too large; empty when it is gone."""
        sizes = self._client.fetch([uid], ["RFC822.SIZE"])
        if uid not in sizes:
            return b""
        part = "BODY.PEEK[]" if sizes[uid][b"RFC822.SIZE"] <= self._options.max_bytes else "BODY.PEEK[HEADER]"
        found = self._client.fetch([uid], [part]).get(uid, {})
        data = next((value for name, value in found.items() if name.startswith(b"BODY[")), b"")
        return bytes(data or b"")

    def seen(self, uid: int) -> None:
        self._client.add_flags([uid], [b"\\Seen"], silent=True)

    def wait(self) -> None:
        """Returns when something has happened, or after `idle_s`."""
        if self._announced():
            return
        self._client.idle()
        if not self._here():
            self._client.idle_check(timeout=self._options.idle_s)
        self._client.idle_done()

    def _announced(self) -> bool:
        """Whether the server has told of letters since this was asked last. It tells of each once, in the answer to
        whatever command it arrives under, and IDLE would wait in vain for what was told before."""
        return self._client._imap.response("EXISTS")[1] != [None]

    def _here(self) -> bool:
        """Whether news came in one packet with the answer to IDLE: the library waits at the socket, where
        they are not any more."""
        line: socket.socket = self._client.socket()
        before = line.gettimeout()
        line.setblocking(False)
        try:
            return bool(self._client._imap.file.peek(1))
        except OSError:
            return False  # over TLS nothing to read is an error
        finally:
            line.settimeout(before)

    def look(self) -> None:
        self._client.noop()

    def cut(self) -> None:
        self._cut = True
        try:
            if self._client is not None:
                self._client.socket().shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has gone already

    def close(self) -> None:
        try:
            if self._client is not None:
                self._client.shutdown()
        except OSError:
            pass

    def step(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Runs one step, with its failures as ours; none once the line was cut."""
        library = _load()
        try:
            return call(*arguments)
        except library.exceptions.LoginError as error:
            raise Unauthorized("imap", f"the login was refused: {redact(str(error))[:200]}") from error
        except TimeoutError as error:
            raise ProviderTimeout("imap", "no answer in time") from error
        except (library.exceptions.IMAPClientError, OSError) as error:
            if self._cut:
                return None
            raise Unavailable("imap", redact(f"{type(error).__name__}: {error}")[:300]) from error


def _is_local(host: str) -> bool:
    return host in {"localhost", "127.0.0.1", "::1"}


def _load() -> Any:
    try:
        import imapclient  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise MissingExtra("IMAPSource", "IMAPClient", "email") from error
    return imapclient
