"""RealtimeAgents: several agents share a speech-to-speech call, one of them at a time, and hand it to each other.

    agents = RealtimeAgents([sales, support])
    channel = RealtimeVoiceChannel("voice", provider=provider, transport=transport, **agents.entry_settings)
    agents.install(kit, channel)

A handoff changes the model's instructions, voice and tools for that call alone; the caller's line stays up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roomkit.ai.tools import Tool, Toolbox, ToolContext, ToolSource
from roomkit.channels.agent import Agent
from roomkit.errors import ConfigError, ToolFailed, ToolRetry
from roomkit.models.ai import ToolSpec
from roomkit.orchestration.pipeline import ACTIVE
from roomkit.ports.channel import VaultPort

if TYPE_CHECKING:
    from roomkit.channels.realtime import RealtimeVoiceChannel
    from roomkit.kit import RoomKit
    from roomkit.rooms import Rooms

HAND_OVER = "hand_over"


class RealtimeAgents(ToolSource):
    """Agents, the first of whom takes every call unless `entry` names another. Their providers are not used: the
    channel's model speaks for all of them. Tools of two agents may not share a name unless they are the same."""

    def __init__(self, agents: Sequence[Agent], *, entry: str | None = None) -> None:
        self.agents = {agent.channel_id: agent for agent in agents}
        if len(self.agents) != len(agents) or not agents:
            raise ConfigError("RealtimeAgents needs agents, each with a channel id of its own")
        self.entry = entry or agents[0].channel_id
        if self.entry not in self.agents:
            raise ConfigError(f'entry="{self.entry}" is none of the agents: {", ".join(self.agents)}')
        self._sources = {name: _sources(agent) for name, agent in self.agents.items()}
        self._homes: dict[str, ToolSource] = {}
        for sources in self._sources.values():
            for source in sources:
                for spec in source.specs:
                    if self._homes.setdefault(spec.name, source) is not source:
                        raise ConfigError(f'two agents have a tool "{spec.name}"; give one of them another name')
        self._kit: RoomKit | None = None
        self._channel: RealtimeVoiceChannel | None = None

    @property
    def entry_settings(self) -> dict[str, Any]:
        """What the channel is made with: instructions, voice and tools of the first agent."""
        return {**self._settings(self.entry), "tool_handler": self}

    def install(self, kit: RoomKit, channel: RealtimeVoiceChannel) -> None:
        """Registers the channel where the kit does not have it yet. Once."""
        if self._channel is not None:
            raise ConfigError("these RealtimeAgents are installed already")
        self._kit, self._channel = kit, channel
        if channel.channel_id not in kit.channels:
            kit.register_channel(channel)

    def _settings(self, name: str) -> dict[str, Any]:
        agent = self.agents[name]
        specs = [spec for source in self._sources[name] for spec in source.specs]
        if len(self.agents) > 1:
            specs.append(self._hand_over(name))
        return {"system_prompt": agent.system_prompt, "voice": agent.voice, "tools": specs}

    def _hand_over(self, name: str) -> ToolSpec:
        others = {other: agent for other, agent in self.agents.items() if other != name}
        who = "; ".join(f"{other}: {one.persona.description or one.persona.role}" for other, one in others.items())
        return ToolSpec(
            name=HAND_OVER,
            description=f"Gives this call to a colleague who speaks next. Colleagues: {who}",
            parameters={
                "type": "object",
                "properties": {
                    "to": {"type": "string", "enum": list(self.agents)},
                    "note": {"type": "string", "description": "what the colleague has to know, in two sentences"},
                },
                "required": ["to", "note"],
                "additionalProperties": False,
            },
        )

    # -- ToolSource -----------------------------------------------------------------------------------

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        found = [spec for sources in self._sources.values() for source in sources for spec in source.specs]
        return (*{spec.name: spec for spec in found}.values(), self._hand_over(""))

    def keep_in(self, vault: VaultPort) -> None:
        for source in self._homes.values():
            source.keep_in(vault)

    async def open(self) -> None:
        for source in set(self._homes.values()):
            await source.open()

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        if name != HAND_OVER:
            home = self._homes.get(name)
            if home is None:
                raise ToolFailed(f'there is no tool "{name}"')
            return await home.run(name, arguments, context)
        to, note = str(arguments["to"]), str(arguments["note"])
        if to not in self.agents:
            raise ToolRetry(f'there is no colleague "{to}"; there are: {", ".join(self.agents)}')
        if self._kit is None or self._channel is None:
            raise ToolFailed("nobody can take over: install(kit, channel) was not called")
        session = next((one for one in self._channel.sessions(context.room_id) if one.id == context.turn_id), None)
        if session is None:
            raise ToolFailed("the call is over")
        rooms: Rooms = self._kit if context.tenant == self._kit.tenant_id else self._kit.tenant(context.tenant)
        await rooms.update_room_metadata(context.room_id, {ACTIVE: to})
        await self._channel.reconfigure_session(session, **self._settings(to))
        return f"You are {to} now and speak with the caller. What you have to know: {note}"

    async def aclose(self) -> None:
        for source in set(self._homes.values()):
            await source.aclose()


def _sources(agent: Agent) -> list[ToolSource]:
    found: list[ToolSource] = [agent.tool_handler] if isinstance(agent.tool_handler, ToolSource) else []
    found += [each for each in agent.options.tools if isinstance(each, ToolSource)]
    functions = [each for each in agent.options.tools if isinstance(each, Tool) or callable(each)]
    return [*found, Toolbox(functions)] if functions else found
