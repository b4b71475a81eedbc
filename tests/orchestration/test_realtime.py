"""RealtimeAgents: a call changes hands, voice and tools, and the line stays up."""

from __future__ import annotations

import asyncio

import pytest

from roomkit import Agent, RoomKit
from roomkit.ai.tools import Toolbox, tool
from roomkit.channels.realtime import RealtimeVoiceChannel
from roomkit.errors import ConfigError
from roomkit.models import realtime as rt
from roomkit.models.audio import SessionState
from roomkit.orchestration import RealtimeAgents
from roomkit.ports.realtime import RealtimeTraits
from roomkit.voice.realtime.mock import IN_BAND, MockRealtimeProvider, MockRealtimeTransport


@tool
async def sell(article: str) -> str:
    """Sells an article."""
    return f"{article} sold"


@tool
async def repair(article: str) -> str:
    """Repairs an article."""
    return f"{article} repaired"


def agents() -> RealtimeAgents:
    sales = Agent("sales", None, role="a seller", voice="marin", tool_handler=Toolbox([sell]))
    support = Agent("support", None, role="a mechanic", description="repairs things", voice="cedar")
    support.configure(tools=(repair,))
    return RealtimeAgents([sales, support])


@pytest.mark.parametrize("in_band", [True, False])
async def test_a_handoff_changes_instructions_voice_and_tools_and_the_line_stays_up(in_band: bool) -> None:
    them = agents()
    provider = MockRealtimeProvider(traits=RealtimeTraits(reconfigures=IN_BAND if in_band else IN_BAND - {"voice"}))
    line = MockRealtimeTransport()
    async with RoomKit() as kit:
        channel = RealtimeVoiceChannel("voice", provider=provider, transport=line, **them.entry_settings)
        them.install(kit, channel)
        room = await kit.create_room()
        session = await channel.start_session(room.id, "caller", "wire")
        other_room = await kit.create_room()
        await channel.start_session(other_room.id, "other", "wire 2")
        other, model = provider.sessions[1], provider.sessions[0]
        assert model.config.voice == "marin"
        assert [spec.name for spec in model.config.tools] == ["sell", "hand_over"]
        model.hears("my bike is broken")
        model.calls(("repair", {"article": "bike"}))
        await asyncio.sleep(0.2)
        assert model.of(rt.ToolAnswer)[0].is_error  # not this agent's tool
        model.calls(("hand_over", {"to": "support", "note": "the bike is broken"}))
        await asyncio.sleep(1)
        now = provider.session if not in_band else model
        assert now.config.voice == "cedar"
        assert str(now.config.system_prompt).startswith("You are a mechanic")
        assert [spec.name for spec in now.config.tools] == ["repair", "hand_over"]
        told = now.of(rt.ToolAnswer)[-1].output if in_band else now.of(rt.InjectText)[-1].text
        assert "the bike is broken" in told
        now.calls(("repair", {"article": "bike"}))
        await asyncio.sleep(0.2)
        assert now.of(rt.ToolAnswer)[-1].output == "bike repaired"
        assert session.state is SessionState.ACTIVE
        assert other.config.voice == "marin"
        assert (await kit.get_room(room.id)).metadata["agent"] == "support"
        if not in_band:
            assert ("user", "my bike is broken") in [(turn.role, turn.text) for turn in now.config.history]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="agents"):
        RealtimeAgents([])
    one = Agent("one", None, tool_handler=Toolbox([sell]))
    two = Agent("two", None, tool_handler=Toolbox([sell]))
    with pytest.raises(ConfigError, match="sell"):
        RealtimeAgents([one, two])
    with pytest.raises(ConfigError, match="nobody"):
        RealtimeAgents([one], entry="nobody")
