"""The kit for testing rooms, ours and yours: virtual time, fakes, conformance checks, the history checker.

Names are imported on first use, so that nothing here costs anything before it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roomkit.testing.ai import ScriptedAI, check_ai_provider
    from roomkit.testing.channels import FakeChannel
    from roomkit.testing.clock import VirtualClock
    from roomkit.testing.conversation import Conversation
    from roomkit.testing.faultproxy import Fault, FaultProxy
    from roomkit.testing.history import Violation, check_history
    from roomkit.testing.loop import Deadlock, VirtualLoop, run
    from roomkit.testing.messages import FakeMessages, check_channel, check_message_provider
    from roomkit.testing.realtime import check_realtime
    from roomkit.testing.signatures import FuzzReport, fuzz_signatures
    from roomkit.testing.sockets import AsgiSocket
    from roomkit.testing.speech import check_stt, check_tts, word_errors
    from roomkit.testing.vendors.twilio import FakeTwilio
    from roomkit.testing.vendors.twilio_media import FakeTwilioCall
    from roomkit.testing.voice import check_voice_backend

_HOMES = {
    "AsgiSocket": "sockets",
    "Conversation": "conversation",
    "FakeChannel": "channels",
    "Deadlock": "loop",
    "FakeMessages": "messages",
    "FakeTwilio": "vendors.twilio",
    "FakeTwilioCall": "vendors.twilio_media",
    "Fault": "faultproxy",
    "FaultProxy": "faultproxy",
    "FuzzReport": "signatures",
    "ScriptedAI": "ai",
    "VirtualClock": "clock",
    "VirtualLoop": "loop",
    "Violation": "history",
    "check_ai_provider": "ai",
    "check_channel": "messages",
    "check_history": "history",
    "check_message_provider": "messages",
    "check_realtime": "realtime",
    "check_stt": "speech",
    "check_tts": "speech",
    "check_voice_backend": "voice",
    "fuzz_signatures": "signatures",
    "run": "loop",
    "word_errors": "speech",
}

__all__ = [
    "AsgiSocket",
    "Conversation",
    "Deadlock",
    "FakeChannel",
    "FakeMessages",
    "FakeTwilio",
    "FakeTwilioCall",
    "Fault",
    "FaultProxy",
    "FuzzReport",
    "ScriptedAI",
    "Violation",
    "VirtualClock",
    "VirtualLoop",
    "check_ai_provider",
    "check_channel",
    "check_history",
    "check_message_provider",
    "check_realtime",
    "check_stt",
    "check_tts",
    "check_voice_backend",
    "fuzz_signatures",
    "run",
    "word_errors",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        from roomkit.errors import told_with_extra

        raise told_with_extra(name, error) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
