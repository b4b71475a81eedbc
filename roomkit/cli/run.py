"""`roomkit run`: your program in production, on one process, with an end that drains."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from roomkit.cli.console import say
from roomkit.cli.environment import NODE_URL, PUBLIC_URL, SECRET, need_server
from roomkit.cli.serving import Serving, listen, run_async, url_of
from roomkit.cli.target import load
from roomkit.errors import ConfigError, UsageError
from roomkit.net.addresses import is_loopback

if TYPE_CHECKING:
    from roomkit.kit import RoomKit


@dataclass(frozen=True, slots=True)
class RunOptions:
    target: str
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    public_url: str | None = None
    node_url: str | None = None


def run_server(options: RunOptions) -> int:
    """Serves until SIGTERM or SIGINT. The exit code is 0 after a drain, 1 when it was forced or could not start."""
    need_server("roomkit run")
    if options.workers != 1:
        raise UsageError(
            f"--workers {options.workers}: a server is one process, so it must be 1; start several on one PostgreSQL, "
            "each with a --node-url of its own (docs/guides/scale-out.md)"
        )
    _log(os.environ.get("ROOMKIT_LOG", "info"))
    kit, app = kit_and_app(options)
    refuse_open_doors(kit, app, options)
    listener = listen(options.host, options.port)
    try:
        share(kit, options.node_url or os.environ.get(NODE_URL) or "", listener)
    except BaseException:
        listener.close()
        raise
    return run_async(_run(kit, app, options, listener))


def _log(level: str) -> None:
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigError(f'ROOMKIT_LOG="{level}" is not a level; use debug, info, warning or error')
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def share(kit: RoomKit, address: str, listener: socket.socket) -> None:
    """Makes the process one of several where it was told an address ("auto": the one it listens on) and the program has
    not done so itself. Raises `ConfigError`."""
    if not address or kit.engine.nodes is not None:
        return
    if address != "auto" and urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f'--node-url "{address}" is no URL; give where the other processes reach this one, or "auto"')
    from roomkit.ports.node import NodeOptions

    kit.share(NodeOptions(url_of(listener) if address == "auto" else address))


async def _run(kit: RoomKit, app: Any, options: RunOptions, listener: socket.socket) -> int:
    try:
        async with kit:
            return await Serving(app, listener).run(
                lambda: say(f"roomkit: serving {options.target} on {url_of(listener)} (pid {os.getpid()})")
            )
    finally:
        listener.close()


def kit_and_app(options: RunOptions) -> tuple[RoomKit, Any]:
    """The kit and its app: `app:kit` gets the default app; what `kit.asgi(...)` made is used as it is."""
    from roomkit.kit import RoomKit

    found = load(options.target)
    public_url = options.public_url or os.environ.get(PUBLIC_URL) or None
    if isinstance(found, RoomKit):
        return found, found.asgi(public_url=public_url)
    kit = getattr(getattr(found, "door", None), "kit", None)
    if not isinstance(kit, RoomKit):
        raise UsageError(
            f'"{options.target}" is a {type(found).__name__}, neither a RoomKit nor what kit.asgi() returns; '
            "an app that mounts rooms is served by its own server"
        )
    if public_url is not None and public_url.rstrip("/") != found.door.options.base_url:
        raise ConfigError(
            f'--public-url and kit.asgi(public_url=...) in "{options.target}" differ; give it in one place'
        )
    return kit, found


def refuse_open_doors(kit: RoomKit, app: Any, options: RunOptions) -> None:
    """Off loopback somebody must have decided who may come in (SECURITY.md). Raises `ConfigError`."""
    if is_loopback(options.host) or app.door.options.authenticate is not None or not kit.tokens.ephemeral:
        return
    raise ConfigError(
        f"--host {options.host} is reachable by others, and nothing says who may come in: "
        f'give RoomKit(token_secrets=[os.environ["{SECRET}"]]) or kit.asgi(authenticate=...), or stay on 127.0.0.1'
    )
