"""What a fake model vendor is told to answer, in one vocabulary for all of them, and what the fakes have in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from roomkit.models.ai import Usage
from roomkit.runtime import Scope

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from starlette.applications import Starlette
    from starlette.requests import Request

    from roomkit.testing.asgi import StreamingASGITransport

JSON = dict[str, Any]
TYPICAL = Usage(input_tokens=20, output_tokens=10)


@dataclass(frozen=True, slots=True)
class Say:
    """Text, streamed word by word with `every` seconds between words."""

    text: str
    every: float = 0.0

    @property
    def words(self) -> list[str]:
        return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", self.text)


@dataclass(frozen=True, slots=True)
class Think:
    """Thinking, signed by the vendor; `redacted` sends the proof only."""

    text: str
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, its arguments streamed in fragments. A string of arguments is sent as it is, malformed or not."""

    name: str
    arguments: JSON | str = field(default_factory=dict[str, Any])
    call_id: str | None = None

    @property
    def raw(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)

    @property
    def fragments(self) -> list[str]:
        return [self.raw[at : at + 7] for at in range(0, len(self.raw), 7)]


@dataclass(frozen=True, slots=True)
class Refuse:
    text: str = "I cannot help with that."


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks here."""


@dataclass(frozen=True, slots=True)
class Vanish:
    """The stream ends here, properly, without the reply having ended."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """An event that is no JSON."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error told inside the stream, in the vendor's own code."""

    code: str
    message: str = "something went wrong"


Step = Say | Think | Call | Refuse | Pause | Cut | Vanish | Garbage | Trouble


@dataclass(frozen=True, slots=True)
class Reply:
    steps: tuple[Step, ...]
    usage: Usage
    stop: Literal["length"] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error instead of a reply."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    param: str | None = None


class FakeVendor:
    """Answers one scripted reply after the other. Subclasses speak a vendor's protocol.

    `requests` are the checked bodies, `violations` what was wrong with those refused, `streaming` the replies being
    sent now and `abandoned` how many the client closed before their end.
    """

    def __init__(self, *, key: str = "fake-key", unsupported: Iterable[str] = ()) -> None:
        self.key = key
        self.unsupported = set(unsupported)
        self.requests: list[JSON] = []
        self.violations: list[str] = []
        self.streaming = 0
        self.abandoned = 0
        self.signatures: set[str] = set()
        self._script: deque[Reply | Failure] = deque()
        self._ids = 0

    def reply(self, *steps: Step | str, usage: Usage | None = None, stop: Literal["length"] | None = None) -> None:
        """Script the next answer; a string is `Say`."""
        told = tuple(Say(step) if isinstance(step, str) else step for step in steps)
        self._script.append(Reply(told, usage or TYPICAL, stop))

    def fail(self, status: int, code: str, message: str = "refused by script", **headers: str) -> None:
        """Script an HTTP error; header names are written with `_`: `retry_after="7"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._script.append(Failure(status, code, message, named))

    def transport(self) -> StreamingASGITransport:
        """For a provider's `transport=`; streams without a socket."""
        from roomkit.testing.asgi import StreamingASGITransport

        return StreamingASGITransport(self.app)

    @property
    def app(self) -> Starlette:
        raise NotImplementedError

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:06d}"

    def new_signature(self) -> str:
        signature = self.new_id("proof") + "=="
        self.signatures.add(signature)
        return signature

    def next(self, body: JSON, problems: list[str]) -> Reply | Failure:
        """The answer to a request whose `problems` were found; refused parameters first, then the script."""
        if problems:
            self.violations.extend(problems)
            return Failure(400, "invalid_request_error", "; ".join(problems))
        for name in sorted(self.unsupported & paths(body)):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return Failure(400, "unsupported_parameter", message, param=name)
        self.requests.append(body)
        return self._script.popleft() if self._script else Failure(500, "unscripted", "nothing is scripted")

    async def tracked(self, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """Counts a reply while it is being sent, and whether it was left early."""
        from roomkit.testing.asgi import ConnectionCut

        self.streaming += 1
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event
        except ConnectionCut:
            raise
        except BaseException:
            self.abandoned += 1
            raise
        finally:
            self.streaming -= 1


class EventStream:
    """A `text/event-stream` answer that closes its source at once when the client goes away."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        self.events = events

    async def __call__(
        self, scope: object, receive: Callable[[], Awaitable[JSON]], send: Callable[[JSON], Awaitable[None]]
    ) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        async with Scope("event stream") as watching, contextlib.aclosing(self.events) as events:
            gone = watching.spawn(_gone(receive), name="disconnect")  # Not every server fails a send to nobody.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Callable[[], Awaitable[JSON]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_json(request: Request) -> JSON:
    body: Any = json.loads(await request.body())
    return cast("JSON", body) if isinstance(body, dict) else {"": body}


async def stumble(step: Step) -> bytes | None:
    """The steps which are the same for every vendor: a pause, a break, garbage to send."""
    from roomkit.testing.asgi import ConnectionCut

    if isinstance(step, Pause):
        await asyncio.sleep(step.seconds)
    elif isinstance(step, Cut):
        raise ConnectionCut
    elif isinstance(step, Garbage):
        return b'event: message_delta\ndata: {"type": "resp\n\n'
    return None


def typed_problems(adapter: TypeAdapter[Any], body: JSON) -> list[str]:
    """What the vendor's own type finds wrong with `body`, unknown keys included."""
    from pydantic import ValidationError

    try:
        seen = _forced(adapter.validate_python(body))
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5]]
    return _unknown(body, seen, "")


def tool_problems(name: str, schema: Any, limit: int) -> list[str]:
    """What vendors refuse in a tool beyond its type."""
    problems: list[str] = []
    if not re.fullmatch(rf"[a-zA-Z0-9_-]{{1,{limit}}}", name):
        problems.append(f"tools: name {name!r} does not match ^[a-zA-Z0-9_-]{{1,{limit}}}$")
    if not isinstance(schema, dict) or cast("JSON", schema).get("type") != "object":
        return [*problems, f'tools.{name}: schema must be a JSON Schema of "type": "object"']
    if found := {"oneOf", "anyOf", "allOf", "enum", "not", "$ref"} & cast("JSON", schema).keys():
        problems.append(f"tools.{name}: schema must not have {sorted(found)} at the top level")
    text = json.dumps(schema)
    if '"$schema"' in text or '"type": [' in text:
        problems.append(f"tools.{name}: $schema and lists of types are not supported")
    return problems


def paths(body: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The names of all parameters sent, nested ones as `a.b`, and `a.type.x` for a tagged one."""
    found: set[str] = set()
    for key, value in body.items():
        found.add(prefix + key)
        if isinstance(value, dict) and key not in {"tools", "messages", "input"}:
            found |= paths(cast("JSON", value), f"{prefix}{key}.")
        if key == "type" and isinstance(value, str):
            found.add(f"{prefix}type.{value}")
    return found


def _forced(value: Any) -> Any:
    """Pydantic checks iterables only while they are read."""
    if isinstance(value, dict):
        return {key: _forced(item) for key, item in cast("JSON", value).items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    return [_forced(item) for item in value]


def _unknown(sent: Any, seen: Any, path: str) -> list[str]:
    if isinstance(sent, dict) and isinstance(seen, dict):
        known = cast("JSON", seen)
        return [
            problem
            for key, value in cast("JSON", sent).items()
            for problem in (
                _unknown(value, known[key], f"{path}{key}.")
                if key in known
                else [f"{path}{key}: extra inputs are not permitted"]
            )
        ]
    if isinstance(sent, list) and isinstance(seen, list):
        pairs = zip(cast("list[Any]", sent), cast("list[Any]", seen), strict=True)
        return [problem for at, (one, other) in enumerate(pairs) for problem in _unknown(one, other, f"{path}{at}.")]
    return [] if sent == seen else [f"{path.rstrip('.')}: not of the documented type"]
