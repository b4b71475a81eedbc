"""How servers that speak OpenAI's protocols differ, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """One way of speaking the protocol. Make your own for a vendor that differs from `COMPATIBLE`.

    `key_variable` names the environment variable of the key; None means the key is passed or not needed.
    `max_tokens` is the parameter of Chat Completions, `thinking_fields` where its chunks carry thinking, and
    `reasoning` whether the server knows `reasoning_effort`. Parameters a model refuses are left out by themselves.
    """

    api: Literal["responses", "chat"] = "chat"
    key_variable: str | None = None
    system_role: Literal["system", "developer"] = "system"
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    thinking_fields: tuple[str, ...] = ("reasoning_content", "reasoning")
    reasoning: bool = True


OPENAI = OpenAIDialect(
    api="responses", key_variable="OPENAI_API_KEY", system_role="developer", max_tokens="max_completion_tokens"
)
OPENAI_CHAT = OpenAIDialect(
    api="chat", key_variable="OPENAI_API_KEY", system_role="developer", max_tokens="max_completion_tokens"
)
COMPATIBLE = OpenAIDialect()
"""What vLLM, Ollama, LiteLLM, Mistral, Groq, OpenRouter and others have in common."""


def effort(budget: int | None) -> str | None:
    """The reasoning effort nearest to a budget of thinking tokens."""
    if budget is None:
        return None
    if budget <= 0:
        return "minimal"
    return "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"
