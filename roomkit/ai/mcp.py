"""Tools of MCP servers, over stdio or streamable HTTP, under the same gate as all others. Needs the [mcp] extra."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from roomkit.ai.pins import Pins
from roomkit.ai.tools import ToolContext, ToolSource
from roomkit.errors import MissingExtra, ToolFailed
from roomkit.models.ai import ImagePart, TextPart, ToolSpec
from roomkit.net import http_client
from roomkit.ports.channel import VaultPort
from roomkit.runtime import Scope, WorkerPool, bounded, monotonic

_log = logging.getLogger("roomkit.ai")
_CONNECTION_CLOSED = -32000
_MAX_TOOLS = 500
_MAX_DESCRIPTION = 4000
_BAD_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class MCPOptions:
    """How a server is treated. Times in seconds.

    `prefix` goes before every tool's name. `needs_approval` and `idempotent` are globs over those names: the host says
    what a tool is, because a server's own word for it is worth nothing. The list of tools is read again when the
    server says that it changed, and every `refresh_s`. A server that cannot be reached is left out for `retry_s`."""

    prefix: str = ""
    needs_approval: Sequence[str] = ()
    idempotent: Sequence[str] = ()
    connect_s: float = 10.0
    call_s: float = 60.0
    refresh_s: float = 60.0
    retry_s: float = 30.0


class MCPTools(ToolSource):
    """The tools of one MCP server: `AIChannel(...).configure(tools=[MCPTools.stdio("files", "mcp-files", "/data")])`.

    It connects on first use, reconnects when the connection was lost, and offers only tools that are what they were
    when they were pinned (`pins.changes`, `pins.approve(name)`). An unreachable server costs its
    tools, not the reply. What was pinned is remembered in the kit's store, under `name`, or in the file of
    `pins=Pins("its_pins.json")`; where neither outlives the process, a server is trusted anew after a restart.
    """

    def __init__(self, name: str, target: Any, *, options: MCPOptions | None = None, pins: Pins | None = None) -> None:
        """`target` is whatever `mcp.client.Client` connects to; see `stdio` and `http` for the usual ones."""
        self.name = name
        self.pins = pins or Pins()
        self._target: Callable[[AsyncExitStack], Any] = lambda _: target
        self._options = options or MCPOptions()
        self._specs: tuple[ToolSpec, ...] = ()
        self._remote: dict[str, str] = {}
        self._client: Any = None
        self._scope = Scope(f"mcp {name}")
        self._pool = WorkerPool(1, name=f"roomkit-mcp-{name}")
        self._leave: asyncio.Event | None = None
        self._opening = asyncio.Lock()
        self._listed_at: float | None = None
        self._not_before = 0.0

    @classmethod
    def stdio(
        cls,
        name: str,
        command: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        options: MCPOptions | None = None,
        pins: Pins | None = None,
    ) -> MCPTools:
        """A server started as a child process. It gets `env` only, besides what the mcp package always passes."""
        made = cls(name, None, options=options, pins=pins)
        given = {"command": command, "args": list(arguments), "env": dict(env) if env else None, "cwd": cwd}
        made._target = lambda _: _load().StdioServerParameters(**given)
        return made

    @classmethod
    def http(
        cls,
        name: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
        options: MCPOptions | None = None,
        pins: Pins | None = None,
    ) -> MCPTools:
        """A server at a URL (streamable HTTP). `headers` usually carry its authorization."""
        made = cls(name, None, options=options, pins=pins)

        def connect(stack: AsyncExitStack) -> Any:
            client = http_client(headers=headers, transport=transport)
            stack.push_async_callback(client.aclose)
            return import_module("mcp.client.streamable_http").streamable_http_client(url, http_client=client)

        made._target = connect
        return made

    def __repr__(self) -> str:
        return f"MCPTools({self.name!r})"

    @property
    def connected(self) -> bool:
        return self._client is not None

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return self._specs

    def keep_in(self, vault: VaultPort) -> None:
        self.pins.keep_in(vault, self.name)

    async def open(self) -> None:
        async with self._opening:
            now = monotonic()
            try:
                if self._client is None and now >= self._not_before:
                    await self._connect()
                if self._client is not None and self._due(now):
                    await bounded(self._list(), self._options.connect_s, f"listing the tools of {self.name}")
            except MissingExtra:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a server does costs its tools, not the reply
                self._not_before = now + self._options.retry_s
                self._specs = ()
                self._listed_at = None
                self._drop()
                _log.warning('MCP server "%s" is left out for %g s: %s', self.name, self._options.retry_s, _said(error))

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        client, remote = self._client, self._remote.get(name)
        if client is None or remote is None:
            raise ToolFailed(f'the server "{self.name}" is not connected; try something else')
        meta = {"roomkit/idempotency_key": context.idempotency_key}
        try:
            result = await client.call_tool(remote, arguments, read_timeout_seconds=self._options.call_s, meta=meta)
        except Exception as error:
            if not isinstance(error, _load().MCPError):
                raise
            if getattr(error, "code", None) == _CONNECTION_CLOSED:
                self._drop()
            raise ToolFailed(f"{self.name}: {_said(error)}") from error
        parts = _parts(result)
        if result.is_error:
            raise ToolFailed("\n".join(part.text for part in parts if isinstance(part, TextPart)) or "the tool failed")
        return parts

    async def aclose(self) -> None:
        self._drop()
        await self._scope.drain(5.0)
        await self._scope.aclose(5.0)
        self._pool.close()

    # -- the connection -----------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        self._leave = asyncio.Event()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        serving = self._scope.spawn(self._serve(ready, self._leave), name=f"mcp {self.name}")
        try:
            await bounded(ready, self._options.connect_s, f"connecting to {self.name}")
        except BaseException:
            serving.cancel()
            raise

    async def _serve(self, ready: asyncio.Future[None], leave: asyncio.Event) -> None:
        """Holds the connection: the mcp package wants it closed by the very task that opened it."""
        try:
            mcp = await self._pool.run(_load)
            async with AsyncExitStack() as stack:
                client = mcp.Client(self._target(stack), message_handler=self._hear)
                self._client = await stack.enter_async_context(client)
                self._listed_at = None
                if not ready.done():
                    ready.set_result(None)
                await leave.wait()
        except Exception as error:  # noqa: BLE001 - the waiting caller is told; later there is nobody to tell
            if ready.done():
                _log.warning('the connection to MCP server "%s" was lost: %s', self.name, _said(error))
            else:
                ready.set_exception(error)
        finally:
            self._client = None

    def _drop(self) -> None:
        """Leaves a connection that is of no more use; the next reply connects anew."""
        if self._leave is not None:
            self._leave.set()

    async def _hear(self, message: Any) -> None:
        if (
            "ToolListChanged" in type(message).__name__
            or "ToolListChanged" in type(getattr(message, "root", 0)).__name__
        ):
            self._listed_at = None

    def _due(self, now: float) -> bool:
        return self._listed_at is None or now - self._listed_at >= self._options.refresh_s

    async def _list(self) -> None:
        listed: list[Any] = []
        cursor: str | None = None
        while len(listed) < _MAX_TOOLS:
            page = await self._client.list_tools(cursor=cursor, cache_mode="refresh")
            listed += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        specs = {self._spec(tool).name: (self._spec(tool), tool.name) for tool in listed[:_MAX_TOOLS]}
        await self.pins.load()
        kept = [(spec, remote) for spec, remote in specs.values() if self.pins.accepts(spec)]
        await self.pins.save()
        self._specs = tuple(spec for spec, _ in kept)
        self._remote = {spec.name: remote for spec, remote in kept}
        self._listed_at = monotonic()
        for change in self.pins.changes:
            _log.warning('tool "%s" of MCP server "%s" changed and waits for pins.approve()', change.tool, self.name)

    def _spec(self, tool: Any) -> ToolSpec:
        options = self._options
        name = _BAD_CHARACTER.sub("_", f"{options.prefix}{tool.name}")[:64]
        return ToolSpec(
            name=name,
            description=(tool.description or "")[:_MAX_DESCRIPTION],
            parameters=cast("dict[str, Any]", tool.input_schema),
            needs_approval=any(fnmatchcase(name, glob) for glob in options.needs_approval),
            idempotent=any(fnmatchcase(name, glob) for glob in options.idempotent),
        )


def _load() -> ModuleType:
    try:
        return import_module("mcp")
    except ImportError:
        raise MissingExtra("MCPTools", "the MCP client", "mcp") from None


def _parts(result: Any) -> list[TextPart | ImagePart]:
    parts: list[TextPart | ImagePart] = []
    for block in result.content:
        resource = getattr(block, "resource", None)
        if block.type == "text":
            parts.append(TextPart(text=block.text))
        elif block.type == "image":
            parts.append(ImagePart(url=f"data:{block.mime_type};base64,{block.data}", mime_type=block.mime_type))
        elif getattr(resource, "text", None) is not None:
            parts.append(TextPart(text=cast("Any", resource).text))
        else:
            parts.append(
                TextPart(text=f"[{block.type}: {getattr(block, 'uri', getattr(resource, 'uri', 'not shown'))}]")
            )
    if not parts and result.structured_content is not None:
        parts.append(TextPart(text=str(result.structured_content)))
    return parts or [TextPart(text="(done, no output)")]


def _said(error: BaseException) -> str:
    """The text of an error, or of the first one inside a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}"
