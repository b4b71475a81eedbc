"""The realtime agent: a speech-to-speech model that joins a channel, one process each, started and stopped by HTTP.

python -m roomkit.servers.realtime_agent server
python -m roomkit.servers.realtime_agent agent --channel_name=test --uid=123
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roomkit.ports.rtc import RtcOptions as RtcOptions
    from roomkit.servers.realtime_agent.agent import InferenceConfig as InferenceConfig
    from roomkit.servers.realtime_agent.agent import RealtimeKitAgent as RealtimeKitAgent
    from roomkit.servers.realtime_agent.agent import wait_for_remote_user as wait_for_remote_user
    from roomkit.servers.realtime_agent.local import LocalRtcEngine as LocalRtcEngine
    from roomkit.servers.realtime_agent.pcm import PCMWriter as PCMWriter
    from roomkit.servers.realtime_agent.server import AgentServer as AgentServer
    from roomkit.servers.realtime_agent.server import init_app as init_app
    from roomkit.servers.realtime_agent.tools import ToolContext as ToolContext

_HOMES = {
    "AgentServer": "roomkit.servers.realtime_agent.server",
    "InferenceConfig": "roomkit.servers.realtime_agent.agent",
    "LocalRtcEngine": "roomkit.servers.realtime_agent.local",
    "PCMWriter": "roomkit.servers.realtime_agent.pcm",
    "RealtimeKitAgent": "roomkit.servers.realtime_agent.agent",
    "RtcOptions": "roomkit.ports.rtc",
    "ToolContext": "roomkit.servers.realtime_agent.tools",
    "init_app": "roomkit.servers.realtime_agent.server",
    "wait_for_remote_user": "roomkit.servers.realtime_agent.agent",
}

__all__ = [
    "AgentServer",
    "InferenceConfig",
    "LocalRtcEngine",
    "PCMWriter",
    "RealtimeKitAgent",
    "RtcOptions",
    "ToolContext",
    "init_app",
    "wait_for_remote_user",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
