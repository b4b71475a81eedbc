"""Directives that change a running tool loop from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop now: at once where text streams, and before any further tool."""

    reason: str = "cancelled"


@dataclass(frozen=True, slots=True)
class InjectMessage:
    """Say something to the model before its next round."""

    content: str
    role: Literal["user", "system"] = "user"


@dataclass(frozen=True, slots=True)
class UpdateSystemPrompt:
    """Append to the system prompt, for this loop only."""

    append: str


SteeringDirective = Cancel | InjectMessage | UpdateSystemPrompt
