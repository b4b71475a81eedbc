"""A session's settings as OpenAI's Realtime API wants them (GA names). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from roomkit.models.realtime import PastTurn, RealtimeConfig

JSON = dict[str, Any]
RATE = 24_000
"""PCM has this rate, both ways, in Hz."""


def session_of(config: RealtimeConfig, tools: Sequence[JSON], *, transcription_model: str | None) -> JSON:
    """The `session` of a `session.update`. `config.extra` is laid over it, object by object; in it `turn_detection`
    and `transcription` stand for where they belong."""
    extra = {**config.extra}
    detection: Any = extra.pop("turn_detection", {"type": "server_vad"})
    if config.own_vad:
        detection = None
    elif detection is not None:
        detection = {
            **detection,
            "create_response": config.responds,
            "interrupt_response": config.interruptible,
        }
    source: JSON = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": detection}
    written: Any = extra.pop("transcription", {"model": transcription_model} if transcription_model else None)
    if written is not None:
        source["transcription"] = {
            **({"language": config.language.split("-")[0]} if config.language else {}),
            **written,
        }
    sink: JSON = {"format": {"type": "audio/pcm", "rate": RATE}}
    if config.voice is not None:
        sink["voice"] = config.voice
    session: JSON = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {"input": source, "output": sink},
        "tools": list(tools),
        "tool_choice": "auto",
    }
    if config.system_prompt is not None:
        session["instructions"] = config.system_prompt
    return laid_over(session, extra)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> JSON:
    """`above` on top of `below`, object by object."""
    whole: JSON = dict(below)
    for name, value in above.items():
        old = whole.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        whole[name] = laid_over(cast("JSON", old), cast("JSON", value)) if both else value
    return whole


def item_of(turn: PastTurn) -> JSON:
    """Something said earlier as an item of the conversation."""
    kind = "output_text" if turn.role == "assistant" else "input_text"
    return {"type": "message", "role": turn.role, "content": [{"type": kind, "text": turn.text}]}
