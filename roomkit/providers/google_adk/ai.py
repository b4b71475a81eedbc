"""An agent made with Google's Agent Development Kit as a brain: it keeps its own instructions, tools and sub-agents.

    channel = AIChannel("assistant", GoogleADKProvider(LlmAgent(name="tasks", model="gemini-...", tools=[...])))

The kit runs the agent's tools itself, so that no call of them passes the room's gate or journal. The room is what the
agent remembers: each reply is a run in a session of its own, begun with what was said. Needs the [google-adk] extra.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib import import_module
from typing import Any

from roomkit.errors import (
    BadResponse,
    ConfigError,
    MissingExtra,
    ProviderError,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)
from roomkit.models.ai import AIEvent, AIMessage, AIProfile, AIRequest, Finished, TextChunk, Usage

NAME = "google-adk"
APP = "roomkit"
ADDED = "roomkit_instructions"
"""Where a run's session keeps what the channel adds to the agent's instructions."""
_REFUSALS = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")


def of_request(request: AIRequest) -> dict[str, Any]:
    """Tenant and room, as `tool_context.state` has them for the agent's tools."""
    return {name: value for name, value in request.metadata.items() if isinstance(value, str | int | float | bool)}


class GoogleADKProvider:
    """`agent` is an agent or an `App` of the kit's. A run asks its models at most `max_llm_calls` times and begins with
    the state that `state_of(request)` makes."""

    name = NAME
    profile = AIProfile(streaming=True, tools=False)

    def __init__(
        self,
        agent: Any,
        *,
        max_llm_calls: int = 50,
        state_of: Callable[[AIRequest], dict[str, Any]] = of_request,
    ) -> None:
        if max_llm_calls < 1:
            raise ConfigError(f"max_llm_calls={max_llm_calls} would be no limit; use 1 or more")
        self._kit = kit = _Kit()
        app = agent if isinstance(agent, kit.apps.App) else kit.apps.App(name=APP, root_agent=agent)
        app = app.model_copy(update={"plugins": [*app.plugins, kit.instructions()]})
        self._app = app
        self._sessions = kit.sessions.InMemorySessionService()
        self._runner = kit.runners.Runner(app=app, session_service=self._sessions)
        self._max_llm_calls = max_llm_calls
        self._state_of = state_of

    async def stream(self, request: AIRequest) -> AsyncGenerator[AIEvent]:
        """One run of the agent. Closing it ends the run."""
        said, kit = _Said(), self._kit
        session, asked = await self._begin(request)
        where = {"user_id": session.user_id, "session_id": session.id}
        config = kit.config.RunConfig(streaming_mode=kit.config.StreamingMode.SSE, max_llm_calls=self._max_llm_calls)
        try:
            run = self._runner.run_async(**where, new_message=asked, run_config=config)
            async with aclosing(run) as events:
                async for event in events:
                    for text in said.hear(event):
                        yield TextChunk(text)
        except kit.too_many:
            said.reason = "length"
        except ProviderError:
            raise
        except Exception as error:
            raise _kind(error) from error
        finally:
            await self._sessions.delete_session(app_name=self._app.name, **where)
        if said.failed is not None and said.reason != "length":
            raise BadResponse(NAME, f"the agent's model failed ({said.failed[:60]})")
        yield Finished(said.reason, said.usage, said.model)

    async def aclose(self) -> None:
        """Closes what the agent's toolsets and plugins hold open."""
        await self._runner.close()

    async def _begin(self, request: AIRequest) -> tuple[Any, Any]:
        """A session with what was said before, and what is to be answered: all since the agent's own last words."""
        said = [one for one in request.messages if one.role != "tool" and one.text]
        last = max((at for at, one in enumerate(said) if one.role == "assistant"), default=-1)
        before, asked = (said[: last + 1], said[last + 1 :]) if last + 1 < len(said) else (said[:-1], said[-1:])
        state = {**self._state_of(request), ADDED: request.system or ""}
        room = f"{request.metadata.get('tenant', '')}/{request.metadata.get('room_id', '')}"
        session = await self._sessions.create_session(app_name=self._app.name, user_id=room, state=state)
        for message in before:
            await self._sessions.append_event(session, self._event(message))
        return session, self._kit.content("user", [_words(one) for one in asked] or [""])

    def _event(self, message: AIMessage) -> Any:
        own = message.role == "assistant"
        content = self._kit.content("model" if own else "user", [_words(message)])
        author = self._app.root_agent.name if own else "user"
        return self._kit.events.Event(author=author, invocation_id=message.event_id or "before", content=content)


class _Kit:
    """What we use of the package, loaded when an agent of it is made: it is large."""

    def __init__(self) -> None:
        try:
            self.apps: Any = import_module("google.adk.apps")
            self.config: Any = import_module("google.adk.agents.run_config")
            self.events: Any = import_module("google.adk.events")
            self.runners: Any = import_module("google.adk.runners")
            self.sessions: Any = import_module("google.adk.sessions")
            self.plugins: Any = import_module("google.adk.plugins.base_plugin")
            self.types: Any = import_module("google.genai.types")
            self.too_many: Any = import_module("google.adk.agents.invocation_context").LlmCallsLimitExceededError
        except ImportError as error:
            raise MissingExtra("agents of Google's ADK", "google-adk", "google-adk") from error

    def content(self, role: str, texts: list[str]) -> Any:
        return self.types.Content(role=role, parts=[self.types.Part(text=text) for text in texts])

    def instructions(self) -> Any:
        """A plugin that adds what the channel says to the instructions of each model that a run asks."""

        async def added(_self: Any, *, callback_context: Any, llm_request: Any) -> None:
            if words := callback_context.state.get(ADDED):
                llm_request.append_instructions([words])

        return type("RoomInstructions", (self.plugins.BasePlugin,), {"before_model_callback": added})(name=ADDED)


class _Said:
    """What a run says: parts while they grow, and the whole of what did not grow."""

    def __init__(self) -> None:
        self._growing = self._spoken = False
        self.reason: Any = "stop"
        self.usage = Usage()
        self.model: str | None = None
        self.failed: str | None = None

    def hear(self, event: Any) -> list[str]:
        if event.error_code is not None:
            self._fail(str(event.error_code))
        parts: list[Any] = (event.content.parts if event.content is not None else None) or []
        text = "".join(part.text for part in parts if part.text and not part.thought)
        if event.partial:
            begins, self._growing = not self._growing, self._growing or bool(text)
            return [self._apart(text) if begins else text] if text else []
        grown, self._growing = self._growing, False
        self._count(event)
        return [self._apart(text)] if text and not grown else []

    def _fail(self, code: str) -> None:
        if code == "MAX_TOKENS":
            self.reason = "length"
        elif code in _REFUSALS:
            self.reason = "refusal"
        else:
            self.failed = code  # What was raised comes after it, if anything was.

    def _count(self, event: Any) -> None:
        self.model = event.model_version or self.model
        if (used := event.usage_metadata) is not None:
            before, thoughts = self.usage, used.thoughts_token_count or 0
            self.usage = Usage(
                input_tokens=before.input_tokens + (used.prompt_token_count or 0),
                output_tokens=before.output_tokens + (used.candidates_token_count or 0) + thoughts,
                cache_read_tokens=before.cache_read_tokens + (used.cached_content_token_count or 0),
                thinking_tokens=before.thinking_tokens + thoughts,
            )

    def _apart(self, text: str) -> str:
        """What is said before and after the use of a tool are two paragraphs."""
        before, self._spoken = self._spoken, True
        return f"\n\n{text}" if before else text


def _words(message: AIMessage) -> str:
    return f"{message.name}: {message.text}" if message.name and message.role == "user" else message.text


def _kind(error: Exception) -> ProviderError:
    """By the status where the vendor gave one; what else is raised is the agent's or its tools' own."""
    status = getattr(error, "code", None)
    kinds: dict[Any, type[ProviderError]] = {401: Unauthorized, 403: Unauthorized, 429: RateLimited, 400: Refused}
    if isinstance(status, int):
        return (Unavailable if status >= 500 else kinds.get(status, BadResponse))(NAME, f"status {status}")
    if "Connect" in type(error).__name__ or "Timeout" in type(error).__name__:
        return Unavailable(NAME, type(error).__name__)
    return BadResponse(NAME, f"the agent failed ({type(error).__name__})")
