"""`roomkit call`: a recorded caller through a room, with the voice parts that come with the house."""

from __future__ import annotations

import asyncio
import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roomkit.cli.console import fail, paint, say
from roomkit.cli.environment import need
from roomkit.cli.serving import run_async
from roomkit.errors import RoomKitError, UsageError

ANSWER_S = 32.0
"""How long a caller waits for a recogniser, and then for a voice, before it begins to count its silence."""
TRANSCRIPT_MS = 30_000.0
"""A recorded caller has time, and a recogniser of the house on a busy machine may need it."""


@dataclass(frozen=True, slots=True)
class CallCommand:
    """`target` is a program with a kit; without it the demo's assistant answers."""

    file: Path
    out: Path | None = None
    target: str | None = None
    stt: str = "sphinx"
    tts: str = "espeak"
    language: str = "en"
    json: bool = False


def call_room(command: CallCommand) -> int:
    """Runs the call in real time; 0 when it ended by itself."""
    need("roomkit call", "voice", "numpy", "sentencex")
    try:
        with wave.open(str(command.file), "rb"):
            pass
    except FileNotFoundError as error:
        raise UsageError(f"{command.file} is not there; give a 16-bit PCM WAV file") from error
    except (wave.Error, EOFError) as error:
        why = str(error) or "it is empty or cut short"
        raise UsageError(
            f"{command.file} is no PCM WAV file ({why}); convert it: ffmpeg -i IN -c:a pcm_s16le out.wav, "
            "or sox IN -b 16 -e signed-integer out.wav"
        ) from error
    except OSError as error:
        raise UsageError(f"{command.file} cannot be read ({error.strerror}); give a 16-bit PCM WAV file") from error
    return run_async(_call(command))


async def _call(command: CallCommand) -> int:
    from roomkit.channels.providers import find_provider
    from roomkit.channels.voice import VoiceChannel, VoiceOptions
    from roomkit.cli.target import load_kit
    from roomkit.kit import RoomKit
    from roomkit.voice.pipeline import AudioPipelineConfig
    from roomkit.voice.turn import TurnOptions

    line = find_provider("wavfiles", "audio")
    phone = VoiceChannel(
        "caller",
        stt=command.stt,
        tts=command.tts,
        backend=line,
        pipeline=AudioPipelineConfig(),
        options=VoiceOptions(language=command.language, turns=TurnOptions(transcript_ms=TRANSCRIPT_MS)),
    )
    kit: Any = load_kit(command.target) if command.target else RoomKit()
    if command.target is None:
        from roomkit.cli.demo import assistant

        kit.register_channel(assistant("offline"), default=True)
    async with kit:
        kit.register_channel(phone)
        session = line.call(command.file, out=command.out, participant_id="caller")
        shown = _Shown(command.json, lambda seconds: line.stay(session, seconds))
        shown.follow(kit)
        try:
            room = await phone.answer(session)
        except RoomKitError as error:
            return fail(str(error))
        await shown.over.wait()
        if not shown.understood:
            fail(f"nothing was recognised; is it {command.language}, is it loud enough? (--language, --stt)")
        await _transcript(kit, room, command.json)
    if command.out is not None and not command.json:
        say(f"\nboth sides of the call: {command.out} (caller left, room right)")
    return 0


class _Shown:
    """The time line, as it happens."""

    def __init__(self, as_json: bool, stay: Callable[[float], None]) -> None:
        self._json = as_json
        self._stay = stay
        self.over = asyncio.Event()
        self.understood = False

    def follow(self, kit: Any) -> None:
        from roomkit.models import voice

        def line(kind: type[Any], text: Callable[[Any], str]) -> None:
            async def told(notice: Any) -> None:
                self.line(notice.at_ms, kind.__name__, text(notice))
                if kind in waits:
                    self._stay(waits[kind])
                self.understood |= kind is voice.TurnTaken
                if kind is voice.SessionFinished:
                    self.over.set()

            kit.on(kind)(told)

        # For as long as a turn of the call may take (`TurnOptions`); what ends it ends the waiting.
        waits: dict[type[Any], float] = {
            voice.SpeechEnd: ANSWER_S,
            voice.TurnTaken: ANSWER_S,
            voice.AfterTTS: 0.0,
            voice.TTSCancelled: 0.0,
        }
        line(voice.SpeechStart, lambda _: "the caller speaks")
        line(voice.SpeechEnd, lambda n: f"silence, after {n.duration_ms:.0f} ms of speech")
        line(voice.TurnTaken, lambda n: f'{"turn" if n.complete else "goes on?"}: "{n.text}"')
        line(voice.TurnTimes, _times)
        line(voice.BargeIn, lambda n: f'interrupted; heard of the reply: "{n.heard}"')
        line(voice.AfterTTS, lambda n: f'said: "{n.text}"')
        line(voice.DTMFPressed, lambda n: f"key {n.digit}")
        line(voice.SessionFinished, lambda n: f"the call ended: {n.reason}")

    def line(self, at_ms: float, kind: str, text: str) -> None:
        if self._json:
            say(json.dumps({"at_ms": round(at_ms), "kind": kind, "text": text}, ensure_ascii=False))
        else:
            say(f"{paint(f'{at_ms / 1000:7.2f} s', 'dim')}  {' '.join(text.split())}")


def _times(notice: Any) -> str:
    stages = {
        "transcript": notice.transcript_ms,
        "decided": notice.decided_ms,
        "first word": notice.first_token_ms,
        "voice": notice.tts_first_byte_ms,
        "heard": notice.first_audio_ms,
    }
    return "after silence: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in stages.items() if ms is not None)


async def _transcript(kit: Any, room: str, as_json: bool) -> None:
    events = [event for event in await kit.events(room) if event.type == "message" and event.text]
    if as_json:
        said = [{"index": e.index, "by": e.source.channel_id, "text": e.text} for e in events]
        say(json.dumps({"transcript": said}, ensure_ascii=False))
        return
    say("\ntranscript")
    for event in events:
        say(f"  {event.source.channel_id:>10}  {' '.join(event.text.split())}")
