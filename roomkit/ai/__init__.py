"""The brain's machinery: a pure tool loop, its driver, and what goes into a prompt. Names load on first use.

from roomkit.ai import Toolbox, tool
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkit.ai.budget import Budget, SpendLimits
    from roomkit.ai.loop import LoopLimits, ToolLoop
    from roomkit.ai.mcp import MCPOptions, MCPTools
    from roomkit.ai.memory import Retrieval, Retriever, SlidingWindow, Summarizing
    from roomkit.ai.pins import Pins
    from roomkit.ai.policy import RoleOverride, ToolPolicy
    from roomkit.ai.skills import Skill, SkillRegistry
    from roomkit.ai.tools import Tool, Toolbox, ToolContext, ToolSource, tool

_HOMES = {
    "Budget": "budget",
    "LoopLimits": "loop",
    "MCPOptions": "mcp",
    "MCPTools": "mcp",
    "Pins": "pins",
    "Retrieval": "memory",
    "Retriever": "memory",
    "RoleOverride": "policy",
    "Skill": "skills",
    "SkillRegistry": "skills",
    "SlidingWindow": "memory",
    "SpendLimits": "budget",
    "Summarizing": "memory",
    "Tool": "tools",
    "ToolContext": "tools",
    "ToolLoop": "loop",
    "ToolPolicy": "policy",
    "ToolSource": "tools",
    "Toolbox": "tools",
    "tool": "tools",
}

__all__ = [
    "Budget",
    "LoopLimits",
    "MCPOptions",
    "MCPTools",
    "Pins",
    "Retrieval",
    "Retriever",
    "RoleOverride",
    "Skill",
    "SkillRegistry",
    "SlidingWindow",
    "SpendLimits",
    "Summarizing",
    "Tool",
    "ToolContext",
    "ToolLoop",
    "ToolPolicy",
    "ToolSource",
    "Toolbox",
    "tool",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
