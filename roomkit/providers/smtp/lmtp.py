"""LMTPSource: a mail server hands its letters over, and hears of each when it is committed. Needs the [email] extra.

    await kit.attach_source(LMTPSource(channel, LMTPOptions(path="/run/shop/lmtp.sock")))

In Postfix: `virtual_transport = lmtp:unix:/run/shop/lmtp.sock`. A letter that is not taken is answered with 451, and
the mail server tries it again; one that comes again is known by its Message-ID.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from roomkit.errors import MissingExtra, Unavailable, UsageError
from roomkit.ports.source import Emit
from roomkit.providers.smtp.imap import LetterReader, MailChannel

_ADDRESS = re.compile(r"[^\s<>\r\n]{1,320}")


@dataclass(frozen=True, slots=True)
class LMTPOptions:
    """Where to listen: a unix socket at `path`, with the rights of `mode`, else `host` and `port`. LMTP asks nobody who
    they are, so that only this machine's own addresses are listened on, unless `allow_network`. Times in seconds, sizes
    in bytes."""

    path: str | None = None
    mode: int = 0o660
    host: str = "127.0.0.1"
    port: int = 8024
    allow_network: bool = False
    max_bytes: int = 30 * 1024 * 1024
    timeout_s: float = 300.0


class LMTPSource:
    """A `Source` that mail servers call. `address` is where it listens, once it does."""

    def __init__(self, channel: MailChannel, options: LMTPOptions | None = None) -> None:
        self._options = options or LMTPOptions()
        if self._options.path is None and not self._options.allow_network and not _is_local(self._options.host):
            raise UsageError(f'LMTPSource: "{self._options.host}" can be reached by others; pass allow_network=True')
        self._channel = channel
        self.name = f"lmtp {self._options.path or f'{self._options.host}:{self._options.port}'}"
        self.address: Any = None

    async def run(self, emit: Emit, ready: Callable[[], None]) -> None:
        lmtp, options = _load(), self._options
        reader: LetterReader = self._channel.provider
        handler = _Handler(reader, self._channel.channel_id, emit)
        loop = asyncio.get_running_loop()
        open_now: WeakSet[Any] = WeakSet()

        def made() -> Any:
            protocol = lmtp(
                handler,
                data_size_limit=options.max_bytes,
                enable_SMTPUTF8=True,
                hostname="roomkit",
                ident="LMTP",
                timeout=options.timeout_s,
                loop=loop,
            )
            open_now.add(protocol)
            return protocol

        try:
            if options.path is not None:
                _clear(options.path)
                server: asyncio.AbstractServer = await loop.create_unix_server(made, options.path)
                _let_in(options.path, options.mode)
            else:
                server = await loop.create_server(made, options.host, options.port)
        except OSError as error:
            raise Unavailable("lmtp", f"cannot listen: {error}") from error
        self.address = server.sockets[0].getsockname()  # pyright: ignore[reportAttributeAccessIssue] - both kinds have it
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for protocol in list(open_now):
                if protocol.transport is not None:
                    protocol.transport.abort()


class _Handler:
    def __init__(self, reader: LetterReader, channel_id: str, emit: Emit) -> None:
        self._reader = reader
        self._channel_id = channel_id
        self._emit = emit

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - the library's name
        """One recipient a transaction: LMTP answers for each, and what is refused here is brought by itself."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient at a time"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        letter = _envelope(envelope) + bytes(envelope.content)
        await self._reader.read_ahead(letter)
        for item in self._reader.take(letter, self._channel_id):
            if await self._emit(item) is False:
                return "451 4.3.0 it could not be taken; try again later"
        return "250 2.0.0 OK"


def _envelope(envelope: Any) -> bytes:
    """What the mail server knows and the letter does not: its sender, empty for a bounce, and who it was for."""
    sender = envelope.mail_from if _ADDRESS.fullmatch(envelope.mail_from or "") else ""
    lines = [f"Return-Path: <{sender}>"]
    lines += [f"Delivered-To: {one}" for one in envelope.rcpt_tos if _ADDRESS.fullmatch(one)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _clear(path: str) -> None:
    """Takes away the socket that a run before left behind."""
    left = Path(path)
    if left.is_socket():
        left.unlink()


def _let_in(path: str, mode: int) -> None:
    Path(path).chmod(mode)


def _is_local(host: str) -> bool:
    return host in {"localhost", "127.0.0.1", "::1"}


def _load() -> Any:
    try:
        from aiosmtpd.lmtp import LMTP
    except ImportError as error:
        raise MissingExtra("LMTPSource", "aiosmtpd", "email") from error
    return LMTP
