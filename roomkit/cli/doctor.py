"""`roomkit doctor`: what is missing or wrong, before your users find out. Keys are named, never printed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import roomkit
from roomkit.cli.console import clean, paint, say
from roomkit.cli.environment import PUBLIC_URL, SECRET, version
from roomkit.cli.serving import listen, run_async
from roomkit.cli.target import load_kit
from roomkit.errors import RoomKitError, StoreLocked
from roomkit.net.addresses import is_loopback
from roomkit.runtime import SystemClock

if TYPE_CHECKING:
    from roomkit.kit import RoomKit

EXTRAS = {
    "server": ("starlette", "uvicorn", "websockets", "python_multipart"),
    "cli": ("typer", "rich", "watchfiles"),
    "http": ("httpx2",),
    "openai": ("openai",),
    "anthropic": ("anthropic",),
    "mcp": ("mcp",),
    "twilio": ("twilio",),
    "telnyx": ("cryptography", "httpx2"),
    "sendgrid": ("cryptography", "httpx2"),
    "email": ("aiosmtplib", "aiosmtpd", "imapclient", "httpx2"),
    "slack": ("httpx2",),
    "discord": ("cryptography", "httpx2"),
    "teams": ("jwt", "cryptography", "httpx2"),
    "gemini": ("websockets", "httpx2"),
    "deepgram": ("websockets", "httpx2", "numpy"),
    "elevenlabs": ("websockets", "httpx2", "numpy"),
    "sphinx": ("pocketsphinx", "numpy"),
    "postgres": ("asyncpg",),
    "redis": ("redis",),
    "otel": ("opentelemetry",),
}
KEYS = {
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "GEMINI_API_KEY": "gemini",
    "DEEPGRAM_API_KEY": "deepgram",
    "ELEVENLABS_API_KEY": "elevenlabs",
    "TWILIO_ACCOUNT_SID": "twilio",
    "TWILIO_AUTH_TOKEN": "twilio",
    SECRET: "tokens",
}
TOGETHER = {
    "telnyx": ("TELNYX_API_KEY", "TELNYX_PUBLIC_KEY"),
    "sendgrid": ("SENDGRID_API_KEY", "SENDGRID_FROM", "SENDGRID_WEBHOOK_KEY"),
    "elasticemail": ("ELASTICEMAIL_API_KEY", "ELASTICEMAIL_FROM", "ELASTICEMAIL_WEBHOOK_TOKEN"),
    "smtp": ("SMTP_HOST", "SMTP_FROM"),
    "telegram": ("TELEGRAM_BOT_TOKEN",),
    "whatsapp": ("WHATSAPP_TOKEN", "WHATSAPP_PHONE_NUMBER_ID", "META_APP_SECRET", "META_VERIFY_TOKEN"),
    "messenger": ("MESSENGER_PAGE_TOKEN", "MESSENGER_PAGE_ID", "META_APP_SECRET", "META_VERIFY_TOKEN"),
    "slack": ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET"),
    "discord": ("DISCORD_BOT_TOKEN", "DISCORD_PUBLIC_KEY"),
    "teams": ("TEAMS_APP_ID", "TEAMS_APP_PASSWORD"),
    "sinch": ("SINCH_SERVICE_PLAN_ID", "SINCH_API_TOKEN", "SINCH_WEBHOOK_SECRET"),
}
"""What a messaging vendor needs to send and to check its webhooks: told of as soon as one of them is set
that is the vendor's alone."""
CALLBACKS = ("status_callback", "webhook_url")
OLDEST_SQLITE = (3, 35)
LITTLE_DISK = 200 * 2**20


class State(StrEnum):
    OK = "ok"
    NOTE = "--"
    WARN = "??"
    BAD = "NO"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Only `BAD` makes the exit code 1."""

    state: State
    what: str
    told: str


Findings = Iterator[Finding]
_STYLES = {State.OK: "green", State.NOTE: "dim", State.WARN: "yellow", State.BAD: "red"}


def examine(target: str | None, *, port: int = 8000, public_url: str | None = None) -> int:
    """Prints the findings; 0 unless something is broken."""
    findings = [*machine(), *extras(), *keys(), *clock(), *port_free(port)]
    public_url = public_url or os.environ.get(PUBLIC_URL)
    if target is None:
        findings += [*folder(Path.cwd()), *public(public_url, ())]
    else:
        kit = load_kit(target)
        findings += [*program(kit), *public(public_url, webhooks(kit)), *stored(kit)]
    for finding in findings:
        say(f"  {paint(finding.state.value, _STYLES[finding.state])}  {finding.what:<12} {clean(finding.told)}")
    bad = sum(finding.state is State.BAD for finding in findings)
    say(f"{bad} broken" if bad else "nothing is broken")
    return 1 if bad else 0


def machine() -> Findings:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(State.OK, "roomkit", f"{version()}, Python {python}, {sys.platform}")
    good = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    wanted = "" if good else f"; {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed: install a newer Python"
    yield Finding(State.OK if good else State.BAD, "sqlite", sqlite3.sqlite_version + wanted)


def extras() -> Findings:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            told = f"not installed ({', '.join(missing)}); if you need it, from a checkout: pip install '.[{extra}]'"
            yield Finding(State.NOTE, f"[{extra}]", told)
        elif extra == "otel" and find_spec("opentelemetry.sdk") is None:
            told = "installed, but only its API: spans go nowhere until your program sets up an SDK (opentelemetry-sdk)"
            yield Finding(State.NOTE, "[otel]", told)
        else:
            yield Finding(State.OK, f"[{extra}]", "installed")


def keys() -> Findings:
    for name in KEYS:
        yield key_finding(name)
    sid, token = os.environ.get("TWILIO_ACCOUNT_SID"), os.environ.get("TWILIO_AUTH_TOKEN")
    if bool(sid) != bool(token) and not os.environ.get("TWILIO_API_SECRET"):
        missing = "TWILIO_AUTH_TOKEN" if sid else "TWILIO_ACCOUNT_SID"
        yield Finding(State.BAD, "twilio", f"{missing} is missing; without it nothing is sent and no webhook accepted")
    for vendor, names in TOGETHER.items():
        yield from vendor_keys(vendor, names)
    if 0 < len(os.environ.get(SECRET, "")) < 16:
        yield Finding(State.BAD, "tokens", f"{SECRET} has fewer than 16 characters; make one with 32 random ones")


def key_finding(name: str) -> Finding:
    value = os.environ.get(name, "")
    if not value:
        return Finding(State.NOTE, "key", f"{name} is not set")
    if value != value.strip() or value[0] in "'\"":
        told = f"{name} is set with spaces or quotes around it; the vendor will refuse it: remove them"
        return Finding(State.BAD, "key", told)
    return Finding(State.OK, "key", f"{name} is set")


def vendor_keys(vendor: str, names: tuple[str, ...]) -> Findings:
    """Nothing of a vendor that is not used."""
    shared = {name for other, many in TOGETHER.items() if other != vendor for name in many}
    missing = [name for name in names if not os.environ.get(name)]
    if all(name in missing or name in shared for name in names):
        return
    for name in names:
        if name not in missing:
            yield key_finding(name)
    if missing:
        told = f"{' and '.join(missing)} missing; without it messages are not sent or webhooks not accepted"
        yield Finding(State.BAD, vendor, told)
    if vendor == "telegram" and not os.environ.get("TELEGRAM_WEBHOOK_SECRET"):
        told = "TELEGRAM_WEBHOOK_SECRET is not set: no webhook is taken; only long polling does without"
        yield Finding(State.WARN, vendor, told)


def clock() -> Findings:
    """Tokens and webhook signatures live by the clock. It cannot be earlier than the program's own files."""
    now = SystemClock().now()
    newest = max(path.stat().st_mtime for path in Path(roomkit.__file__).parent.glob("*.py"))
    written = datetime.fromtimestamp(newest, UTC)
    if now < written:
        told = f"it says {now:%Y-%m-%d %H:%M}, before this roomkit was installed ({written:%Y-%m-%d %H:%M}); set it"
        yield Finding(State.BAD, "clock", told)
    else:
        yield Finding(State.OK, "clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def port_free(port: int) -> Findings:
    try:
        listen("127.0.0.1", port).close()
    except RoomKitError as error:
        yield Finding(State.WARN, "port", str(error))
    else:
        yield Finding(State.OK, "port", f"{port} is free")


def folder(path: Path) -> Findings:
    """Whether rooms could be kept here."""
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding(State.BAD, "store", f'"{path}" cannot be written to; give the store another directory')
        return
    free = shutil.disk_usage(path).free
    state = State.OK if free > LITTLE_DISK else State.WARN
    yield Finding(state, "store", f'"{path}" can be written to, {free // 2**20} MB free')


def program(kit: RoomKit) -> Findings:
    channels = kit.channels
    if not channels:
        yield Finding(State.WARN, "channels", "none registered; kit.register_channel(...) or @kit.on_message")
    for name, channel in channels.items():
        silent = hasattr(channel, "provider") and getattr(channel, "provider", None) is None
        told = f'"{name}" ({channel.channel_type})' + (" has no provider: nothing leaves through it" if silent else "")
        yield Finding(State.WARN if silent else State.OK, "channel", told)
        options = getattr(getattr(channel, "provider", None), "options", None)
        if getattr(channel, "stand_in", None) and not any(getattr(options, one, None) for one in CALLBACKS):
            told = f'"{name}" falls back to SMS for what is reported as failed: have reports sent to its webhook'
            yield Finding(State.NOTE, "channel", f"{told} ({' or '.join(CALLBACKS)} of its provider, or at the vendor)")
    if kit.tokens.ephemeral:
        told = f'tokens end with the process; keep them with RoomKit(token_secrets=[os.environ["{SECRET}"]])'
        yield Finding(State.NOTE, "tokens", told)
    else:
        yield Finding(State.OK, "tokens", "signed with your own secret")


def webhooks(kit: RoomKit) -> tuple[str, ...]:
    providers = {name: getattr(one, "provider", None) for name, one in kit.channels.items()}
    return tuple(name for name, it in providers.items() if hasattr(it, "verify") and getattr(it, "webhooks", True))


def public(url: str | None, channels: tuple[str, ...]) -> Findings:
    if url is None:
        if channels:
            told = f"unknown, so no signature can hold; give --public-url or set {PUBLIC_URL}"
            yield Finding(State.BAD, "public URL", told)
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Finding(State.BAD, "public URL", f'"{url}" is not a URL; write e.g. https://chat.example.com')
        return
    local = is_loopback(parts.hostname)
    if parts.scheme == "http" and not local:
        yield Finding(State.BAD, "public URL", f"{url} is not encrypted, tokens would travel in the open; use https")
    elif local and channels:
        yield Finding(State.WARN, "public URL", f"{url} is this machine: no vendor can call it")
    else:
        yield Finding(State.OK, "public URL", url)
    for name in channels:
        yield Finding(State.NOTE, "webhook", f"{url.rstrip('/')}/webhooks/{name}")


def stored(kit: RoomKit) -> list[Finding]:
    found: list[Finding] = []

    async def look() -> int:
        found.extend([finding async for finding in store(kit)])
        return 0

    run_async(look())
    path = getattr(kit.engine.store, "path", None)
    return found if path is None else [*found, *folder(Path(path).resolve().parent)]


async def store(kit: RoomKit) -> AsyncIterator[Finding]:
    """Opens the store, which migrates it, and closes it again. Nothing that waits in it is started."""
    engine = kit.engine
    path = getattr(engine.store, "path", None)
    promises = getattr(engine.store, "promises", None)
    if promises is not None:
        try:
            for kept, told in await promises():
                yield Finding(State.OK if kept else State.WARN, "durability", told)
        except (RoomKitError, OSError):
            pass  # that it cannot be reached is told below
    try:
        info = await engine.store.open()
    except StoreLocked as error:
        yield Finding(State.WARN, "store", f"{error} (fine if that is your server)")
        return
    except (RoomKitError, OSError) as error:
        yield Finding(State.BAD, "store", str(error))
        return
    try:
        health = engine.store.health()
        if not info.durable:
            yield Finding(
                State.WARN, "store", 'rooms are kept in memory only; RoomKit("sqlite:///rooms.db") keeps them'
            )
        elif health.writable:
            yield Finding(State.OK, "store", f'"{path or engine.store!r}" is writable, schema {info.schema_version}')
        else:
            yield Finding(State.BAD, "store", f'"{path}" refuses to write: {health.reason}')
    finally:
        await engine.store.aclose()
