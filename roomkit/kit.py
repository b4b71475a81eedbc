"""RoomKit: registers channels, owns rooms, takes messages in. A switchboard, not a brain: it delegates everything."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from datetime import datetime
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from roomkit.core.engine import Engine, KitOptions, Template
from roomkit.core.hooks import Filter, Hooks, OnError, Streams
from roomkit.errors import ConfigError, MissingExtra, StateError, UsageError
from roomkit.models.content import TextContent
from roomkit.models.delivery import DeliveryStatus, InboundMessage
from roomkit.models.event import EventDraft, EventSource, RoomEvent
from roomkit.models.hooks import Moment, Notice
from roomkit.models.room import Category, ChannelBinding, ChannelCapabilities, ChannelType, RoomTimers
from roomkit.net.redaction import redact_logs
from roomkit.ports.channel import Channel, ChannelOutput, RoomContext
from roomkit.ports.identity import IdentityResolver
from roomkit.ports.store import Store
from roomkit.rooms import Rooms
from roomkit.runtime import Clock, call_from_thread
from roomkit.runtime.tracing import Tracer

if TYPE_CHECKING:
    from roomkit.core.identity import AddressBook
    from roomkit.core.sources import SourceHandle
    from roomkit.net.tokens import Tokens
    from roomkit.ports.blob import BlobStore
    from roomkit.ports.bus import EphemeralBus
    from roomkit.ports.node import NodeOptions
    from roomkit.ports.source import Source

log = logging.getLogger(__name__)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_ENGINES = {
    "sqlite": ("roomkit.providers.sqlite", "SQLiteStore"),
    "postgresql": ("roomkit.providers.postgres", "PostgresStore"),
}


class RoomKit(Rooms):
    """Conversations that cross channels, embedded in your app.

    `RoomKit()` keeps everything in memory and says so once in the log; `RoomKit("sqlite:///rooms.db")` is durable and
    must be started: `async with RoomKit(...) as kit`, `await kit.start()`, or the server's lifespan (D37, D38).
    The kit itself is the default tenant; `kit.tenant("acme")` is another one's view.
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        options: KitOptions | None = None,
        clock: Clock | None = None,
        resolver: IdentityResolver | None = None,
        bus: EphemeralBus | None = None,
        blobs: BlobStore | None = None,
        token_secrets: Sequence[str] | str | None = (),
    ) -> None:
        """`token_secrets`: the first signs, all are accepted; without any, tokens die with the process."""
        opened = open_store(store) if isinstance(store, str) else store
        node = options.node if options is not None else None
        if opened is None:
            log.info(
                "rooms are kept in memory and are gone when the process ends; RoomKit('sqlite:///rooms.db') keeps them"
            )
        engine = Engine(opened, clock, options or KitOptions(), resolver=resolver, bus=bus)
        super().__init__(engine)
        self._blobs = blobs
        self._token_secrets = (token_secrets,) if isinstance(token_secrets, str) else tuple(token_secrets or ())
        self._tokens: Tokens | None = None
        self._sources: list[SourceHandle] = []
        self._loop: Any = None
        engine.blobs = lambda: self.blobs
        engine.audit_key = self._token_secrets[0] if self._token_secrets else ""
        if node is not None:
            self.share(node)
        redact_logs("roomkit")

    # -- life -----------------------------------------------------------------------------------

    def share(self, node: NodeOptions) -> None:
        """Makes this process one of several on its store, before `start` (see also `KitOptions.node`). Raises
        `ConfigError` for a store that has one process, or without a secret that all of them know."""
        nodes = import_module("roomkit.core.nodes").join(self._engine, node, Rooms, self._token_secrets)
        nodes.calls.adopt(self)
        nodes.on_sweep.append(self._load_revoked)

    async def start(self) -> Self:
        """Opens the store and resumes what was unfinished: timers, deliveries, replies. Idempotent."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        await self._engine.start()
        await self._load_revoked()
        if hasattr(self._engine.store, "inbox"):
            from roomkit.core.inbox import open_inbox

            open_inbox(self._engine, self.tenant)
        return self

    async def drain(self, timeout: float | None = None) -> bool:
        """Lets running replies and deliveries finish, at most `timeout` seconds, before a stop. Whatever comes after
        is still committed, but neither answered nor delivered until the next start. True when nothing was left."""
        return await self._engine.drain(timeout)

    async def aclose(self) -> None:
        """Stops: running replies are checkpointed, deliveries stay in the outbox. Idempotent."""
        for source in self._sources:
            await source.aclose()
        self._sources.clear()
        await self._engine.aclose()
        close = getattr(self._blobs, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether the kit can acknowledge messages, and if not, why (`/readyz`)."""
        if not self._engine.started:
            return False, "not started"
        if self._engine.draining:
            return False, "draining"
        health = self._engine.store.health()
        return health.writable, health.reason

    # -- tenants, templates, parts -----------------------------------------------------------------------------------

    def tenant(self, name: str) -> Rooms:
        """A view scoped to one tenant, with the same methods for rooms and channels (D24)."""
        if not name or "\n" in name:
            raise UsageError(f"{name!r} cannot be a tenant's name; use a short id such as 'acme'")
        nodes = self._engine.nodes
        return Rooms(self._engine, name) if nodes is None else nodes.rooms(name)

    def room_template(
        self,
        *,
        channels: Sequence[str] | None = None,
        timers: RoomTimers | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """What every new room is furnished with (D25)."""
        self._engine.template = Template(
            tuple(channels) if channels is not None else None, timers or RoomTimers(), dict(metadata or {})
        )

    @property
    def hooks(self) -> Hooks:
        return self._engine.hooks

    @property
    def engine(self) -> Engine:
        """The machine inside, for servers and tests."""
        return self._engine

    @property
    def channels(self) -> dict[str, Channel]:
        return dict(self._engine.channels)

    def channel_tenant(self, channel_id: str) -> str:
        return self._engine.registry.tenants.get(channel_id, "default")

    @property
    def identities(self) -> AddressBook:
        """The address book: who an address belongs to. Using it makes it the resolver."""
        return self._engine.address_book

    @property
    def tokens(self) -> Tokens:
        """Signed tokens for guests, agents, supervisors and admins: `kit.tokens.mint(role, room, ttl)` (D31)."""
        if self._tokens is None:
            from roomkit.net.tokens import Tokens

            self._tokens = Tokens(self._token_secrets, clock=self._engine.clock, on_revoke=self._revoked)
        return self._tokens

    @property
    def blobs(self) -> BlobStore:
        """Where media goes (D35): what was given, else a folder beside the database, else a temporary one that goes
        with the kit."""
        if self._blobs is None:
            path = getattr(self._engine.store, "path", None)
            files = import_module("roomkit.providers.files.blobs")
            self._blobs = files.FileBlobStore(f"{path}.blobs" if path else _temporary_folder(self))
        return self._blobs

    def _revoked(self, token_id: str, until: float) -> None:
        from roomkit.net.tokens import revocation

        self._on_loop(self._engine.write_soon, revocation(token_id, until, self._engine.epoch))

    def _on_loop(self, fn: Callable[..., object], *args: Any) -> None:
        """Calls `fn` on the kit's loop, from whatever thread this is."""
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None:
                raise StateError("the kit is not started, so this cannot be kept; await kit.start() first") from None
            self._loop.call_soon_threadsafe(fn, *args)
        else:
            fn(*args)

    async def _load_revoked(self) -> None:
        from roomkit.ports.store import RecordQuery

        found = await self._engine.store.records(RecordQuery("revoked", "default", limit=100_000))
        if found:
            self.tokens.restore({record.key: record.value["until"] for record in found})

    # -- hooks -----------------------------------------------------------------------------------

    def before(
        self,
        moment: type[Moment[Any]],
        *,
        priority: int = 0,
        name: str | None = None,
        budget_s: float = 5.0,
        on_error: OnError | None = None,
        streams: Streams = "pass",
        where: Filter | None = None,
    ) -> Callable[[F], F]:
        """A guard of `moment`: look, change (`Modify`), stop (`Block`). Lower priority runs first; after `budget_s`
        seconds, or when it raises, `on_error` decides (left out: "block" before tools, else "allow"). `streams` says
        how a streaming reply is held back (D19)."""

        _check_hook("before(BeforeCommit)", moment, where)
        if on_error not in ("allow", "block", None) or streams not in ("pass", "sentence", "withhold") or budget_s <= 0:
            raise UsageError(
                f'kit.before(): on_error="{on_error}", streams="{streams}", budget_s={budget_s} will not do; '
                'on_error is "allow" or "block", streams is "pass", "sentence" or "withhold", budget_s is positive'
            )

        def register(fn: F) -> F:
            self._engine.hooks.before(
                moment,
                fn,
                priority=priority,
                name=name,
                budget_s=budget_s,
                on_error=on_error,
                streams=streams,
                where=where,
            )
            return fn

        return register

    def on(self, notice: type[Notice], *, name: str | None = None, where: Filter | None = None) -> Callable[[F], F]:
        """An observer of `notice`: runs beside the room, can never delay or break it."""
        _check_hook("on(Committed)", notice, where)

        def register(fn: F) -> F:
            self._engine.hooks.on(notice, fn, name=name, where=where)
            return fn

        return register

    def on_message(self, fn: F) -> F:
        """Answers messages with a function `(ctx, message)`: the shortest kind of app. It returns text, content, a
        `ChannelOutput` or None for silence; an async generator streams; a plain function runs in a thread."""
        self.register_channel(FunctionChannel("app", fn), default=True)
        return fn

    def trace(self, tracer: Any = None) -> None:
        """Traces from now on: to an OpenTelemetry `TracerProvider` (None: the global one; needs [otel]), or to a
        `roomkit.runtime.tracing.Tracer` of your own. Spans carry ids, names and numbers, never what was said."""
        if not isinstance(tracer, Tracer):
            tracer = import_module("roomkit.runtime.otel").OpenTelemetry(tracer)
        self._engine.tracing.use(tracer)

    # -- doors -----------------------------------------------------------------------------------

    async def attach_source(self, source: Source, *, auto_restart: bool = True) -> SourceHandle:
        """Keeps a persistent inbound connection alive; the handle reports its health and stops it."""
        from roomkit.core.sources import SourceHandle

        await self._ready()
        handle = SourceHandle(self._engine, self._take_in, source, auto_restart=auto_restart)
        handle.start()
        self._sources.append(handle)
        return handle

    async def _take_in(self, item: InboundMessage | DeliveryStatus) -> Any:
        return await (self.delivery_status(item) if isinstance(item, DeliveryStatus) else self.process_inbound(item))

    def asgi(self, **options: Any) -> Any:
        """The kit as an ASGI app: rooms, webhooks, sockets, pages; mounts under any prefix. Needs [server]."""
        try:
            door = import_module("roomkit.servers.asgi")
        except ModuleNotFoundError as error:
            raise MissingExtra("kit.asgi()", str(error.name), "server") from error
        return door.create_app(self, **options)

    def call(self, fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:
        """For other threads (Django, Celery): runs `fn(*args)` on the kit's loop; returns a concurrent future."""
        if self._loop is None:
            raise StateError("the kit is not started, so it has no loop to run on; await kit.start() first")
        return call_from_thread(self._loop, fn, *args)

    def now(self) -> datetime:
        return self._engine.now()

    def stats(self) -> dict[str, float]:
        """Counters and gauges, as `/metrics` shows them."""
        return self._engine.meters.numbers()


def _check_hook(shown: str, trigger: object, where: object) -> None:
    if not isinstance(trigger, type):
        raise UsageError(f"kit.{shown} takes the moment it is about: write @kit.{shown} above the function")
    if where is not None and not isinstance(where, Filter):
        raise UsageError(f"where= takes a Filter, e.g. Filter(channel_ids={{'sms'}}), not a {type(where).__name__}")


class FunctionChannel(Channel):
    """An intelligence channel made of one function (`@kit.on_message`)."""

    reach = "turn"
    category = Category.INTELLIGENCE

    def __init__(self, channel_id: str, fn: Callable[[RoomContext, RoomEvent], Any]) -> None:
        super().__init__(channel_id, ChannelType.APP, capabilities=ChannelCapabilities(rich=True))
        self._fn = fn
        self._async = inspect.iscoroutinefunction(fn)
        self._pool: Any = None

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        if event.source.channel_id == self.channel_id:
            return ChannelOutput()
        result = await self._call(context, event)
        if isinstance(result, ChannelOutput):
            return result
        if result is None or result == "":
            return ChannelOutput()
        if hasattr(result, "__aiter__"):
            return ChannelOutput(response_stream=result)
        content = TextContent(text=result) if isinstance(result, str) else result
        source = EventSource(channel_id=self.channel_id, channel_type=self.channel_type, direction="outbound")
        return ChannelOutput(response_events=(EventDraft(source=source, content=content),))

    async def _call(self, context: RoomContext, event: RoomEvent) -> Any:
        if self._async:
            return await self._fn(context, event)
        if inspect.isasyncgenfunction(self._fn):
            return self._fn(context, event)
        if self._pool is None:
            from roomkit.runtime import WorkerPool

            self._pool = WorkerPool()
        result = await self._pool.run(self._fn, context, event)
        return await result if inspect.isawaitable(result) else result

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


def _temporary_folder(owner: object) -> str:
    """A new folder that is removed with `owner`, at the latest when the process ends."""
    import shutil
    import tempfile
    import weakref

    folder = tempfile.mkdtemp(prefix="roomkit-blobs-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_store(url: str) -> Store:
    """The store that a URL names: sqlite:///rooms.db (relative), sqlite:////var/rooms.db (absolute), postgresql://..."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _ENGINES:
        shown = url.rpartition("@")[2]
        raise ConfigError(f'"{shown}" names no store; use RoomKit() for memory or RoomKit("sqlite:///rooms.db")')
    home, name = _ENGINES[scheme]
    try:
        module = import_module(home)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("roomkit."):
            raise ConfigError(f'this version of roomkit has no "{scheme}" store; use sqlite:///rooms.db') from error
        raise
    return getattr(module, name)(url)
