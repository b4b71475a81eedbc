"""Agent: an AIChannel that is somebody: a role, what it is there for, a voice, a language (S149)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from roomkit.channels.ai import AIChannel
from roomkit.ports.ai import AIProvider


@dataclass(frozen=True, slots=True)
class Persona:
    """Who an agent is. `description` tells other agents when to hand a conversation to it; `scope` tells itself what it
    deals with and what not. `voice` is the synthesiser's name for a voice; `greeting` opens a call; `language` is a
    BCP 47 tag."""

    role: str = ""
    description: str = ""
    scope: str = ""
    voice: str | None = None
    greeting: str | None = None
    language: str | None = None


class Agent(AIChannel):
    """An AIChannel with a `Persona`. Further arguments are AIChannel's."""

    def __init__(
        self,
        channel_id: str,
        provider: AIProvider | str | None,
        *,
        role: str = "",
        description: str = "",
        scope: str = "",
        voice: str | None = None,
        greeting: str | None = None,
        language: str | None = None,
        system_prompt: str | None = None,
        **more: Any,
    ) -> None:
        self.persona = Persona(role, description, scope, voice, greeting, language)
        super().__init__(channel_id, provider, _prompt(self.persona, system_prompt), **more)

    @property
    def voice(self) -> str | None:
        return self.persona.voice


def _prompt(persona: Persona, text: str | None) -> str | None:
    lines = [
        f"You are {persona.role}." if persona.role else "",
        f"What you deal with: {persona.scope}" if persona.scope else "",
        f"Answer in this language: {persona.language}" if persona.language else "",
        text or "",
    ]
    return "\n".join(line for line in lines if line) or None
