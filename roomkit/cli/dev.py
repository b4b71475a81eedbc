"""`roomkit dev`: talk to your program in the terminal, and on the pages beside it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from roomkit.cli.console import clean, coloured, fail, paint, say
from roomkit.cli.environment import need, need_server
from roomkit.cli.serving import Serving, listen, own_origins, run_async, url_of
from roomkit.cli.target import load_kit, source_of
from roomkit.core.streams import Viewer
from roomkit.errors import ConfigError, RoomKitError
from roomkit.models.content import RichContent, text_of
from roomkit.models.delivery import InboundMessage
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Category
from roomkit.models.stream import Ephemeral, StreamChunk, StreamEnd, StreamError, StreamStart
from roomkit.net.addresses import is_loopback
from roomkit.runtime import Scope, WorkerThread

if TYPE_CHECKING:
    from roomkit.kit import RoomKit

YOU = "you"
TOKEN_S = 12 * 3600.0
REPLY_S = 600.0
DRAIN_S = 0.5
"""Whoever stops a program under development does not want to wait for its replies."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    target: str
    host: str = "127.0.0.1"
    port: int | None = None
    pages: bool = True


def run_dev(options: DevOptions) -> int:
    """Reads lines, prints what the room says; ends at the end of input, Ctrl-D or Ctrl-C."""
    if options.pages:
        need_server("roomkit dev")
    if not is_loopback(options.host):
        raise ConfigError(
            f"roomkit dev invites whoever has its links, so it stays on this machine and not on {options.host}; "
            "serve others with: roomkit run app:kit"
        )
    kit = load_kit(options.target)
    try:
        return run_async(_dev(kit, options))
    except KeyboardInterrupt:
        say("stopped")
        return 0


async def _dev(kit: RoomKit, options: DevOptions) -> int:
    web = door_of(kit)
    async with AsyncExitStack() as stack:
        listener = listen(options.host, options.port) if options.pages else None
        if listener is not None:
            stack.callback(listener.close)
        await stack.enter_async_context(kit)
        room = await kit.create_room()
        seated = {binding.channel_id for binding in await kit.bindings(room.id)}
        for channel_id in (web, *answering(kit)):
            if channel_id not in seated:
                await kit.attach_channel(room.id, channel_id)
        chat = Terminal(kit, room.id, web)
        await stack.enter_async_context(chat)
        if listener is None:
            return await chat.run()
        url = url_of(listener)
        app = kit.asgi(public_url=url, allowed_origins=own_origins(url), web_channel=web, drain_s=DRAIN_S)
        serving = Serving(app, listener)

        async def talk() -> None:
            _welcome(kit, room.id, url, options)
            chat.scope.spawn(_talk(chat, serving), name="terminal")

        code = await serving.run(talk)
        return code or chat.code


async def _talk(chat: Terminal, serving: Serving) -> None:
    try:
        await chat.run()
    finally:
        if not serving.stopping:
            serving.finish()


def _welcome(kit: RoomKit, room_id: str, url: str, options: DevOptions) -> None:
    if not coloured():
        return
    guest = kit.tokens.mint("guest", room_id, TOKEN_S, id="guest", display_name="Guest")
    boss = kit.tokens.mint("supervisor", None, TOKEN_S, id="supervisor", display_name="Supervisor")
    say(paint("roomkit dev", "bold") + f"  {options.target}")
    say(f"  web chat    {paint(f'{url}/#token={guest}&room={room_id}', 'cyan')}")
    say(f"  supervisor  {paint(f'{url}/supervisor#token={boss}&room={room_id}', 'cyan')}")
    say(paint("  write here or there: it is one room. Ctrl-D ends", "dim"))
    say()


def door_of(kit: RoomKit) -> str:
    """The channel people write through: the program's own WebSocket channel, or one made for the occasion."""
    for channel in kit.channels.values():
        if channel.channel_type == "websocket":
            return channel.channel_id
    from roomkit.channels.websocket import WebSocketChannel

    name = next(name for name in ("web", "dev", f"dev-{secrets.token_hex(2)}") if name not in kit.channels)
    kit.register_channel(WebSocketChannel(name))
    return name


def answering(kit: RoomKit) -> list[str]:
    """Who answers in a program that says nothing about it: every channel that can."""
    if kit.engine.registry.defaults or kit.engine.template.channels is not None:
        return []
    return [one.channel_id for one in kit.channels.values() if one.category is Category.INTELLIGENCE]


class Terminal:
    """One person at the terminal, in one room. Replies are shown as they grow."""

    def __init__(self, kit: RoomKit, room_id: str, web: str) -> None:
        self._kit = kit
        self._room_id = room_id
        self._web = web
        self._shown: dict[str, int] = {}
        self._line_open = ""
        self._thread = WorkerThread("roomkit-terminal")
        # A file of our own: the interpreter cannot end while a thread waits in its sys.stdin.
        self._input = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")
        self._close: Callable[[], None] | None = None
        self._waiting = False
        self.scope = Scope("terminal")
        self.code = 0

    async def __aenter__(self) -> Self:
        view = await self._kit.open_view(self._room_id, Viewer(channel_id=self._web), self.show)
        self._close = view.close
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._close is not None:
            self._close()
        await self.scope.aclose()
        self._thread.close()
        if not self._waiting:
            self._input.close()

    async def run(self) -> int:
        """Until the end of input."""
        while (line := await self._read()) is not None:
            if text := line.strip():
                await self._say(text)
        if coloured():
            say()
        return self.code

    async def _read(self) -> str | None:
        self._waiting = True
        self._prompt()
        line = await self._thread.submit(self._readline)
        self._waiting = False
        return line or None

    def _readline(self) -> str:
        """On the thread, which alone knows that nobody reads any more."""
        line = self._input.readline()
        if not line:
            self._input.close()
        return line

    async def _say(self, text: str) -> None:
        message = InboundMessage.text(
            self._web, YOU, text, participant_id=YOU, sender_name="You", external_id=f"{YOU}:{secrets.token_hex(8)}"
        )
        try:
            result = await self._kit.process_inbound(message, room_id=self._room_id)
            if result.blocked:
                self._tell(f"(not accepted: {result.reason})", "yellow")
            await result.settled(REPLY_S)
            for error in result.settlement.errors:
                self._fail(error)
        except (RoomKitError, TimeoutError) as error:
            self._fail(str(error))

    def _fail(self, what: str) -> None:
        self.code = 1
        self._finish()
        fail(what)

    def show(self, item: Any) -> None:
        """Takes what the room tells; returns at once."""
        match item:
            case StreamStart():
                self._shown[item.stream_id] = 0
            case StreamChunk() if coloured():
                self._grow(item)
            case StreamEnd():
                self._end(item)
            case StreamError():
                self._finish()
                self._tell(f"(withdrawn: {item.error})", "yellow")
            case RoomEvent():
                self._event(item)
            case Ephemeral() if item.kind == "tool" and coloured():
                self._tell(f"({item.data.get('name')} ...)", "dim")
            case _:
                pass

    def _grow(self, chunk: StreamChunk) -> None:
        if self._line_open != chunk.stream_id:
            self._finish()
            self._clear_prompt()
            self._line_open = chunk.stream_id
        sys.stdout.write(paint(clean(chunk.delta), "green"))
        sys.stdout.flush()
        self._shown[chunk.stream_id] = chunk.offset + len(chunk.delta)

    def _end(self, end: StreamEnd) -> None:
        shown, text = self._shown.pop(end.stream_id, 0), end.event.text
        if shown and self._line_open == end.stream_id:
            sys.stdout.write(paint(clean(text[shown:]), "green"))
            self._finish()
        else:
            self._tell(text, "green")
        reason = end.event.metadata.get("end_reason")
        if reason not in (None, "completed"):
            self._tell(f"({reason})", "dim")

    def _event(self, event: RoomEvent) -> None:
        if event.source.participant_id == YOU or event.type is not EventType.MESSAGE:
            return
        mind = event.source.channel_type in ("ai", "app")
        name = "" if mind else f"{event.metadata.get('sender_name') or event.source.participant_id or 'somebody'}: "
        if isinstance(event.content, RichContent) and event.content.format == "markdown" and coloured():
            self._markdown(event.content.text)
        else:
            self._tell(name + text_of(event.content), "green" if mind else "blue")

    def _tell(self, text: str, style: str) -> None:
        self._finish()
        self._clear_prompt()
        say(paint(clean(text), style))
        self._prompt()

    def _markdown(self, text: str) -> None:
        from rich.console import Console
        from rich.markdown import Markdown

        self._finish()
        self._clear_prompt()
        Console().print(Markdown(clean(text)))
        self._prompt()

    def _prompt(self) -> None:
        if self._waiting and coloured():
            sys.stdout.write(paint("> ", "bold"))
            sys.stdout.flush()

    def _finish(self) -> None:
        """Ends the line of a reply that was growing."""
        if self._line_open:
            self._line_open = ""
            say()

    def _clear_prompt(self) -> None:
        if self._waiting and coloured():
            sys.stdout.write("\r\x1b[K")


def reload(options: DevOptions) -> int:
    """Runs `roomkit dev` in a process that is started anew whenever a Python file beside the program changes."""
    need("roomkit dev --reload", "cli", "watchfiles")
    return run_async(_reload(options))


async def _reload(options: DevOptions) -> int:
    import watchfiles

    folder = source_of(options.target).parent if options.target.partition(":")[0].endswith(".py") else Path.cwd()
    command = [sys.executable, "-m", "roomkit", "dev", options.target, "--host", options.host]
    command += ["--port", str(options.port)] if options.port is not None else []
    command += [] if options.pages else ["--no-pages"]
    awatch: Any = watchfiles.awatch  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    changes = awatch(folder, watch_filter=watchfiles.PythonFilter())
    scope = Scope("reload")
    child: asyncio.subprocess.Process | None = None
    try:
        while True:
            child = await asyncio.create_subprocess_exec(*command, env=dict(os.environ))
            ended = scope.spawn(child.wait(), name="program")
            changed = scope.spawn(_next(changes), name="files")
            await asyncio.wait((ended, changed), return_when=asyncio.FIRST_COMPLETED)
            if not changed.done():
                if child.returncode == 0:
                    return 0
                say(paint("waiting for a change", "dim"))
                await changed
            if child.returncode is None:
                child.terminate()
                await child.wait()
            say(paint("changed: starting again", "dim"))
    finally:
        await scope.aclose()
        if child is not None and child.returncode is None:
            child.terminate()
            await child.wait()


async def _next(changes: Any) -> None:
    await anext(changes)
