"""ConversationPipeline: several agents share a conversation, one of them at a time, and hand it to each other.

Who has it is written in the room's metadata (`agent`), so it outlives a restart. People's messages are addressed to
that agent alone, unless they name somebody; what agents say is addressed to nobody, so that they do not talk to each
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roomkit.ai.tools import ToolContext, ToolSource
from roomkit.channels.agent import Agent
from roomkit.errors import ConfigError, ToolRetry
from roomkit.models.ai import ToolSpec
from roomkit.models.event import EventType
from roomkit.models.hooks import BeforeCommit, Modify

if TYPE_CHECKING:
    from roomkit.channels.voice import VoiceChannel
    from roomkit.kit import RoomKit
    from roomkit.rooms import Rooms

ACTIVE = "agent"
"""The key of a room's metadata that names the agent who has the conversation."""


class ConversationPipeline:
    """Agents, the first of whom receives every new conversation unless `entry` names another."""

    def __init__(self, agents: Sequence[Agent], *, entry: str | None = None) -> None:
        if not agents:
            raise ConfigError("a ConversationPipeline needs at least one Agent")
        self.agents = {agent.channel_id: agent for agent in agents}
        if len(self.agents) != len(agents):
            raise ConfigError("two agents of a ConversationPipeline have the same channel id")
        self.entry = entry or agents[0].channel_id
        if self.entry not in self.agents:
            raise ConfigError(f'entry="{self.entry}" is none of the agents: {", ".join(self.agents)}')
        self._installed = False

    def install(self, kit: RoomKit, *channels: VoiceChannel) -> None:
        """Registers the agents that the kit does not have yet, in every new room; gives each the tool to hand over, and
        `channels` their voices (S108). Once for a kit."""
        if self._installed:
            raise ConfigError("this ConversationPipeline is installed already")
        for agent in self.agents.values():
            if len(self.agents) > 1:
                others = [other for other in self.agents.values() if other is not agent]
                agent.configure(tools=(*agent.options.tools, _HandOver(kit, agent, others)))
            if agent.channel_id not in kit.channels:
                kit.register_channel(agent, default=True)
        for channel in channels:
            channel.update_voice_map({one.channel_id: one.voice for one in self.agents.values() if one.voice})
            greeting = self.agents[self.entry].persona.greeting
            if greeting is not None and channel.greeting is None:
                channel.greeting = greeting
        kit.before(BeforeCommit)(self._address)
        self._installed = True

    def active(self, metadata: dict[str, Any]) -> str:
        """Who has a conversation, from its room's metadata."""
        found = metadata.get(ACTIVE)
        return found if found in self.agents else self.entry

    async def _address(self, moment: BeforeCommit) -> Any:
        draft = moment.value
        if draft.type is not EventType.MESSAGE or draft.addressed_to is not None:
            return None
        if draft.source.channel_id in self.agents:
            return Modify(draft.replaced(addressed_to=()))
        return Modify(draft.replaced(addressed_to=(self.active(moment.room.metadata),)))


class _HandOver(ToolSource):
    """`hand_over(to, note)`: one agent gives the conversation to another."""

    def __init__(self, kit: RoomKit, agent: Agent, others: Sequence[Agent]) -> None:
        self._kit = kit
        self._agent = agent
        self._others = {other.channel_id: other for other in others}

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        who = "; ".join(f"{name}: {one.persona.description or one.persona.role}" for name, one in self._others.items())
        return (
            ToolSpec(
                name="hand_over",
                description=f"Gives this conversation to a colleague who answers next. Colleagues: {who}",
                parameters={
                    "type": "object",
                    "properties": {
                        "to": {"type": "string", "enum": list(self._others)},
                        "note": {"type": "string", "description": "what the colleague has to know, in two sentences"},
                    },
                    "required": ["to", "note"],
                    "additionalProperties": False,
                },
                idempotent=True,
            ),
        )

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        to = str(arguments["to"])
        if to not in self._others:
            raise ToolRetry(f'there is no colleague "{to}"; there are: {", ".join(self._others)}')
        rooms: Rooms = self._kit if context.tenant == self._kit.tenant_id else self._kit.tenant(context.tenant)
        await rooms.update_room_metadata(context.room_id, {ACTIVE: to})
        await rooms.send(
            context.room_id,
            f"{self._agent.channel_id} hands this conversation over to you. {arguments['note']}",
            by=self._agent.channel_id,
            visibility=to,
            addressed_to=(to,),
            idempotency_key=context.idempotency_key or None,
        )
        return f"{to} has the conversation now and answers next. Say nothing more."
