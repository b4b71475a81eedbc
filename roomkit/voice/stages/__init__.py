"""The stages that come with the house, found by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roomkit.errors import ConfigError

if TYPE_CHECKING:
    from roomkit.ports.audio import AudioStage, AudioTap, EchoStage

_STAGES = {
    "vad": {"silero": "silero", "webrtc": "webrtc_vad", "energy": "vad"},
    "dtmf": {"goertzel": "dtmf"},
    "agc": {"builtin": "agc", "apm": "apm"},
    "denoiser": {"apm": "apm", "rnnoise": "rnnoise"},
    "diarization": {"channel": "diarization"},
    "limiter": {"limiter": "limiter"},
    "post": {"limiter": "limiter"},
}
_ECHO = {"apm": "apm", "speex": "speex"}


def named(kind: str, name: str, rate: int) -> AudioStage:
    """A stage for one stream. Every module of this package has `make(kind, rate)`."""
    return _module(kind, name, _STAGES.get(kind, {})).make(kind, rate)


def named_echo(name: str, rate: int) -> EchoStage:
    return _module("aec", name, _ECHO).make("aec", rate)


def joint(name: str, kinds: Sequence[str], rate: int) -> EchoStage:
    """One stage that does what several kinds ask of it in one pass."""
    return _module("aec", name, {"apm": "apm"}).joint(kinds, rate)


def debug_tap(folder: str, name: str, rate: int) -> AudioTap:
    return import_module("roomkit.voice.stages.debug").DebugTap(folder, name, rate)


def _module(kind: str, name: str, known: dict[str, str]) -> Any:
    if name not in known:
        raise ConfigError(f'there is no {kind} stage "{name}"; there are: {", ".join(sorted(known)) or "none"}')
    return import_module(f"roomkit.voice.stages.{known[name]}")
