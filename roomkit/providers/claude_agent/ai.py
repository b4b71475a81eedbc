"""An agent made with the Claude Agent SDK as a brain: it keeps its own instructions, tools, subagents and permissions.

    options = ClaudeAgentOptions(system_prompt="...", mcp_servers={...}, allowed_tools=["mcp__tasks__list"])
    channel = AIChannel("assistant", ClaudeAgentProvider(options))

Each reply is one run of Anthropic's program, which the package brings along; it runs the agent's tools itself, so that
no call of them passes the room's gate or journal. Needs the [claude-agent] extra.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
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
from roomkit.runtime import bounded

try:
    import claude_agent_sdk as sdk
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage
except ImportError as error:
    raise MissingExtra("agents of the Claude Agent SDK", "claude-agent-sdk", "claude-agent") from error

NAME = "claude-agent"
INTERRUPT_S = 2.0
"""How long a run that nobody waits for any more is asked to end by itself; then its program is ended."""
_WORDS: dict[str, type[ProviderError]] = {
    "authentication_failed": Unauthorized,
    "billing_error": Unauthorized,
    "rate_limit": RateLimited,
    "invalid_request": Refused,
    "server_error": Unavailable,
}


class ClaudeAgentProvider:
    """`options` are the SDK's own; without any the agent has no tools and reads no settings of the machine. What people
    write is data: names of files and commands in it are not looked at. Each reply starts a program, so that at most
    `at_once` run at the same time; others wait. Raises `ConfigError` for options that continue a session: the room is
    what an agent remembers."""

    name = NAME
    profile = AIProfile(streaming=True, tools=False)

    def __init__(self, options: ClaudeAgentOptions | None = None, *, at_once: int = 8) -> None:
        if options is None:
            options = ClaudeAgentOptions(tools=[], setting_sources=[], skills=[])
        if options.continue_conversation or options.resume or options.session_id:
            raise ConfigError("options: a session of one conversation would answer in every room; leave it to the room")
        if at_once < 1:
            raise ConfigError(f"at_once={at_once} lets nothing run; use 1 or more")
        self.options = replace(options, include_partial_messages=True, verbatim_prompts=True)
        self._turns = asyncio.Semaphore(at_once)

    async def stream(self, request: AIRequest) -> AsyncGenerator[AIEvent]:
        """One run of the agent. Closing it ends the run and its program."""
        said = _Said()
        system, prompt = _asked(self.options.system_prompt, request)
        model = request.model or self.options.model
        client = ClaudeSDKClient(replace(self.options, system_prompt=system, model=model))
        async with self._turns:
            try:
                await client.connect()
                await client.query(prompt)
                async for message in client.receive_response():
                    for text in said.hear(message):
                        yield TextChunk(text)
            except (sdk.ClaudeSDKError, OSError) as error:
                raise _kind(error) from error
            finally:
                await _end(client, running=said.result is None)
        if said.result is None:
            raise Unavailable(NAME, "the agent's program ended without a result")
        yield _finished(said.result, said.model)

    async def aclose(self) -> None:
        """Nothing is open between runs."""


class _Said:
    """What the agent itself says of all that its run tells; its subagents speak to it alone."""

    def __init__(self) -> None:
        self._streamed = self._spoken = False
        self.result: ResultMessage | None = None
        self.model: str | None = None

    def hear(self, message: Any) -> list[str]:
        if getattr(message, "parent_tool_use_id", None) is not None:
            return []
        if isinstance(message, sdk.StreamEvent):
            return self._streams(message.event)
        if isinstance(message, sdk.AssistantMessage):
            if message.error is not None:
                raise _WORDS.get(message.error, BadResponse)(NAME, message.error)
            self.model = message.model
            streamed, self._streamed = self._streamed, False
            texts = [block.text for block in message.content if isinstance(block, sdk.TextBlock)]
            return [] if streamed else [self._apart(text) for text in texts if text]
        if isinstance(message, ResultMessage):
            self.result = message
        return []

    def _streams(self, event: dict[str, Any]) -> list[str]:
        delta: dict[str, Any] = event.get("delta") or {}
        if event.get("type") != "content_block_delta" or delta.get("type") != "text_delta" or not delta.get("text"):
            return []
        begins, self._streamed = not self._streamed, True
        return [self._apart(delta["text"]) if begins else delta["text"]]

    def _apart(self, text: str) -> str:
        """What is said before and after the use of a tool are two paragraphs."""
        before, self._spoken = self._spoken, True
        return f"\n\n{text}" if before else text


async def _end(client: ClaudeSDKClient, *, running: bool) -> None:
    try:
        if running:
            await bounded(client.interrupt(), INTERRUPT_S, "the agent's end")
    except Exception:  # noqa: BLE001, S110 - it cannot be asked any more, so its program is ended
        pass
    finally:
        await client.disconnect()


def _asked(own: Any, request: AIRequest) -> tuple[Any, str]:
    """The agent's instructions with what the channel adds to them, and the conversation as one prompt."""
    prompt = _conversation([one for one in request.messages if one.role != "tool" and one.text])
    if not request.system:
        return own, prompt
    if own is None or isinstance(own, str):
        return "\n\n".join(filter(None, (own, request.system))), prompt
    key = {"preset": "append", "custom": "prompt"}.get(own["type"])
    if key is None:  # Instructions in a file cannot be added to.
        return own, f"{request.system}\n\n{prompt}"
    return {**own, key: "\n\n".join(filter(None, (own.get(key), request.system)))}, prompt


def _conversation(messages: list[AIMessage]) -> str:
    """A first message as it is. What was said before goes along as JSON, in which nobody can speak for another."""
    if len(messages) == 1 and messages[0].role == "user":
        only = messages[0]
        return f"{only.name}: {only.text}" if only.name else only.text
    lines = [
        json.dumps({"from": "you" if one.role == "assistant" else one.name or one.role, "text": one.text})
        for one in messages
    ]
    return "\n".join(
        (
            'The conversation so far, one message in each line, the oldest first. Those from "you" are your own.',
            *lines,
            "Answer the last one, in plain words and not as JSON.",
        )
    )


def _finished(result: ResultMessage, model: str | None) -> Finished:
    used: dict[str, Any] = result.usage or {}
    read, written = int(used.get("cache_read_input_tokens") or 0), int(used.get("cache_creation_input_tokens") or 0)
    usage = Usage(
        input_tokens=int(used.get("input_tokens") or 0) + read + written,
        output_tokens=int(used.get("output_tokens") or 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    if result.subtype in ("error_max_turns", "error_max_budget_usd"):
        return Finished("length", usage, model, result.subtype)
    if result.is_error:
        raise _of_status(result.api_error_status, result.subtype)
    return Finished("refusal" if result.stop_reason == "refusal" else "stop", usage, model)


def _of_status(status: int | None, what: str) -> ProviderError:
    kinds: dict[Any, type[ProviderError]] = {401: Unauthorized, 403: Unauthorized, 429: RateLimited, 400: Refused}
    if status is None:
        return BadResponse(NAME, f"the agent failed ({what})")
    return (Unavailable if status >= 500 else kinds.get(status, BadResponse))(NAME, f"status {status}")


def _kind(error: Exception) -> ProviderError:
    """Without the program's own words: what it writes when it fails may hold anything."""
    if isinstance(error, sdk.CLINotFoundError):
        return Unavailable(NAME, "the program of the Claude Agent SDK is not there; see its option cli_path")
    if isinstance(error, sdk.CLIConnectionError | OSError):
        return Unavailable(NAME, f"the agent's program cannot be talked to ({type(error).__name__})")
    if isinstance(error, sdk.ProcessError):
        return Unavailable(NAME, f"the agent's program failed (exit code {error.exit_code})")
    return BadResponse(NAME, f"the agent's program was not understood ({type(error).__name__})")
