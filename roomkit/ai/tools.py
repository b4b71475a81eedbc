"""Tools from typed Python functions, and the one shape in which every kind of tool reaches the gate."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema

from roomkit.ai import schema
from roomkit.errors import ToolFailed, ToolRetry, UsageError
from roomkit.models.ai import ToolSpec
from roomkit.models.event import RoomEvent
from roomkit.models.room import Participant
from roomkit.ports.channel import VaultPort
from roomkit.runtime import WorkerPool

Function = Callable[..., Any]


@dataclass(slots=True)
class ToolContext:
    """For whom and in which turn a tool runs; given to each function that has a parameter of this type, made anew for
    each call.

    `idempotency_key` stays the same when a call is run again after a crash. `history(limit)` reads what the channel may
    see of the room."""

    room_id: str
    tenant: str = "default"
    channel_id: str = ""
    participant: Participant | None = None
    turn_id: str = ""
    call_id: str = ""
    idempotency_key: str = ""
    history: Callable[[int], Awaitable[list[RoomEvent]]] | None = None
    kept: dict[str, str] = field(default_factory=lambda: {}, repr=False)


class ToolSource:
    """Something that offers tools: typed functions, an MCP server, skills, a plain handler."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return ()

    def keep_in(self, vault: VaultPort) -> None:
        """Where it may remember what has to outlive the process; before `open`. Default: nothing."""

    async def open(self) -> None:
        """Called before each reply: connects or refreshes what needs it. Default: nothing."""

    def check(self, spec: ToolSpec, arguments: dict[str, Any]) -> str | None:
        """What is wrong with these arguments, or None."""
        return schema.check(spec.parameters, arguments)

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        raise ToolFailed(f'there is no tool "{name}"')

    async def aclose(self) -> None:
        """Releases what the source holds. Default: nothing."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A typed function as a tool; made by `@tool`. It can still be called as the function that it is."""

    spec: ToolSpec
    function: Function
    arguments: type[BaseModel]
    context_parameter: str | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def parse(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them. Raises `ToolRetry`, worded for the model."""
        try:
            parsed = self.arguments.model_validate(arguments)
        except ValidationError as error:
            raise ToolRetry(_explain(error)) from None
        return {name: getattr(parsed, name) for name in type(parsed).model_fields}


@overload
def tool(function: Function, /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    idempotent: bool = False,
    needs_approval: bool = False,
    timeout_s: float | None = None,
) -> Callable[[Function], Tool]: ...
def tool(function: Function | None = None, /, **options: Any) -> Tool | Callable[[Function], Tool]:
    """Makes a tool of a typed function, sync or async; the docstring is what the model reads.

    `idempotent`: may be run again with the same key after a crash. `needs_approval`: a person is asked before each run.
    `timeout_s`: seconds until it is given up. A parameter annotated `ToolContext` is filled in by the room and hidden
    from the model.
    """
    return partial(_make, **options) if function is None else _make(function, **options)


def _make(function: Function, *, name: str | None = None, description: str | None = None, **marks: Any) -> Tool:
    name = name or str(getattr(function, "__name__", type(function).__name__))
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UsageError(f'tool "{name}": {error}; types of parameters must be names of the module') from None
    fields: dict[str, Any] = {}
    context: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f'tool "{name}" has the parameter {parameter}: give every parameter a name of its own')
        hint = hints.get(parameter.name, Any)
        if hint is ToolContext or ToolContext in get_args(hint):
            context = parameter.name
        else:
            default: Any = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hint, default if default is ... else Field(default=default))
    model = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        parameters = model.model_json_schema()
    except PydanticInvalidForJsonSchema as error:
        raise UsageError(f'tool "{name}" has a parameter that no JSON can hold: {error.message}') from None
    parameters.pop("title", None)
    for each in parameters.get("properties", {}).values():
        each.pop("title", None)
    text = inspect.getdoc(function) or "" if description is None else description
    return Tool(ToolSpec(name=name, description=text, parameters=parameters, **marks), function, model, context)


_current: ContextVar[ToolContext | None] = ContextVar("roomkit_tool_context", default=None)
# Set in the task of one tool call only: it bridges a plain function wrapped around a Toolbox, which cannot pass it on.


class Toolbox(ToolSource):
    """Typed functions as one tool handler: `AIChannel("ai", provider, tool_handler=Toolbox([find_order, refund]))`.

    Synchronous functions run in a bounded pool of `max_threads` threads.
    """

    def __init__(self, tools: Sequence[Tool | Function] = (), *, max_threads: int = 8) -> None:
        self._tools: dict[str, Tool] = {}
        self._pool = WorkerPool(max_threads, name="roomkit-tools")
        for each in tools:
            self.add(each)

    def add(self, function: Tool | Function) -> Tool:
        """Adds a tool; also usable as a decorator. Raises `UsageError` for a name that is taken."""
        made = function if isinstance(function, Tool) else _make(function)
        if made.spec.name in self._tools:
            raise UsageError(f'this toolbox already has a tool "{made.spec.name}"; give one of them another name')
        self._tools[made.spec.name] = made
        return made

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(each.spec for each in self._tools.values())

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        made = self._tools.get(name)
        if made is None:
            raise ToolFailed(f'there is no tool "{name}"; there are: {", ".join(self._tools) or "none"}')
        given = made.parse(arguments)
        if made.context_parameter is not None:
            given[made.context_parameter] = context
        if inspect.iscoroutinefunction(made.function):
            return await made.function(**given)
        result = await self._pool.run(partial(made.function, **given))
        return await result if inspect.isawaitable(result) else result

    async def __call__(self, name: str, arguments: dict[str, Any]) -> Any:
        """The seed's tool handler: `await toolbox(name, arguments)`."""
        context = _current.get()
        made = self._tools.get(name)
        if context is None:
            if made is not None and made.context_parameter is not None:
                raise UsageError(f'tool "{name}" wants a ToolContext: call toolbox.run(name, arguments, context)')
            context = ToolContext(room_id="")
        return await self.run(name, arguments, context)

    async def aclose(self) -> None:
        self._pool.close()


class HandlerSource(ToolSource):
    """A plain async function (name, arguments) with the tools it is said to serve."""

    def __init__(self, handler: Callable[[str, dict[str, Any]], Awaitable[Any]], specs: Sequence[ToolSpec]) -> None:
        self._handler = handler
        self._specs = tuple(specs)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return self._specs

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        token = _current.set(context)
        try:
            return await self._handler(name, arguments)
        finally:
            _current.reset(token)


class HumanTool(ToolSource):
    """`request_human(reason)`: the model asks for a person (D27)."""

    def __init__(self, request_human: Callable[[str], Awaitable[None]]) -> None:
        self._request_human = request_human

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return (_REQUEST_HUMAN,)

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        await self._request_human(str(arguments["reason"]))
        return "A person has been asked to join. Tell the user so; you cannot know how long it takes."


_REQUEST_HUMAN = ToolSpec(
    name="request_human",
    description="Asks a person of the team to join this conversation: when you cannot help, or are asked for one.",
    parameters={
        "type": "object",
        "properties": {"reason": {"type": "string", "description": "why, in one sentence"}},
        "required": ["reason"],
        "additionalProperties": False,
    },
    idempotent=True,
)


def for_call(context: ToolContext, call_id: str) -> ToolContext:
    """The context of one call: its key is unique, and the same when the call is repeated after a crash."""
    return ToolContext(
        context.room_id,
        context.tenant,
        context.channel_id,
        context.participant,
        context.turn_id,
        call_id,
        f"{context.turn_id}:{call_id}",
        context.history,
        context.kept,
    )


def _explain(error: ValidationError) -> str:
    problems = (
        f"{'.'.join(map(str, it['loc'])) or 'arguments'}: {it['msg']}" for it in error.errors(include_url=False)
    )
    return f"the arguments do not fit: {'; '.join(problems)}"
