"""An agent made with OpenAI's Agents SDK as a brain: it keeps its own instructions, tools and handoffs.

    channel = AIChannel("assistant", OpenAIAgentProvider(Agent(name="TaskManager", instructions="...", tools=[...])))

The SDK runs the agent's tools itself, so that no call of them passes the room's gate or journal; tools that must are
given to the channel of a plain model instead. Needs the package `openai-agents` (the [chatkit] extra brings it).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from roomkit.errors import BadResponse, MissingExtra, ProviderError, RateLimited, Refused, Unauthorized, Unavailable
from roomkit.models.ai import AIEvent, AIProfile, AIRequest, Finished, TextChunk, Usage

try:
    from agents import Agent, RunConfig, Runner
    from agents.exceptions import AgentsException, MaxTurnsExceeded
except ImportError as error:
    raise MissingExtra("agents of OpenAI's SDK", "openai-agents", "chatkit") from error


class OpenAIAgentProvider:
    """`context_of(request)` makes the context object of a run; `request.metadata` has tenant and room. A run has at
    most `max_turns` rounds. Traces are not sent to the vendor unless `run_config` says so."""

    name = "openai-agents"
    profile = AIProfile(streaming=True, tools=False)

    def __init__(
        self,
        agent: Agent[Any],
        *,
        context_of: Callable[[AIRequest], Any] | None = None,
        max_turns: int = 10,
        run_config: RunConfig | None = None,
    ) -> None:
        self.agent = agent
        self._context_of = context_of
        self._max_turns = max_turns
        self._run_config = run_config or RunConfig(tracing_disabled=True)

    async def stream(self, request: AIRequest) -> AsyncGenerator[AIEvent]:
        """One run of the agent. Closing it cancels the run."""
        run = Runner.run_streamed(
            self.agent,
            _items(request),
            context=None if self._context_of is None else self._context_of(request),
            max_turns=self._max_turns,
            run_config=self._run_config,
        )
        reason: Any = "stop"
        try:
            async for event in run.stream_events():
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    yield TextChunk(event.data.delta)
        except MaxTurnsExceeded:
            reason = "length"
        except ProviderError:
            raise
        except AgentsException as error:
            raise BadResponse(self.name, str(error)) from error
        except Exception as error:
            raise _kind(self.name, error) from error
        finally:
            run.cancel()
        used = run.context_wrapper.usage
        usage = Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
        yield Finished(reason, usage, getattr(self.agent.model, "model", None) or _named(self.agent.model))

    async def aclose(self) -> None:
        """Nothing is open between runs."""


def _named(model: Any) -> str | None:
    return model if isinstance(model, str) else None


def _items(request: AIRequest) -> list[Any]:
    """The conversation as the SDK takes it: what the channel adds to the instructions goes before it."""
    items: list[Any] = []
    if request.system:
        items.append({"role": "developer", "content": request.system})
    for message in request.messages:
        if message.role in ("user", "assistant", "system") and message.text:
            role = "developer" if message.role == "system" else message.role
            text = f"{message.name}: {message.text}" if message.name and role == "user" else message.text
            items.append({"role": role, "content": text})
    return items


def _kind(name: str, error: Exception) -> ProviderError:
    """By the status where the vendor gave one; what else is raised is the agent's or its tools' own."""
    status = getattr(error, "status_code", None)
    kinds: dict[Any, type[ProviderError]] = {401: Unauthorized, 403: Unauthorized, 429: RateLimited, 400: Refused}
    if isinstance(status, int):
        return (Unavailable if status >= 500 else kinds.get(status, BadResponse))(name, f"status {status}")
    if "Connection" in type(error).__name__ or "Timeout" in type(error).__name__:
        return Unavailable(name, type(error).__name__)
    return BadResponse(name, f"the agent failed ({type(error).__name__})")
