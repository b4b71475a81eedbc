"""Who may interrupt: real voices over a reply; and coughs, music, noise and the reply's own echo, which may not.

Everything between the microphone and the decision is the house's own; only the recogniser's words are given. Another
voice in the room, of a television say, is a voice like any other: nothing here tells it from the caller's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.kill9 import Proof
from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.models.audio import AudioFrame, SpeechEnded, SpeechStarted
from roomkit.ports.audio import BesideEcho
from roomkit.voice.interruption import Interruption, Strategy
from roomkit.voice.stages import named, named_echo
from roomkit.voice.turn import (
    AudioMoved,
    Heard,
    Pause,
    ReplyStarted,
    Resume,
    SpeechOff,
    SpeechOn,
    Stop,
    Tick,
    TurnMachine,
    TurnOptions,
)

TITLE = "false and missed interruptions of a reply, with real voices and real echo"
RATE, SIZE = 16_000, 320
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
STRATEGIES = (Strategy.IMMEDIATE, Strategy.CONFIRMED, Strategy.SEMANTIC)
WORDS_MS, FINAL_MS = 500.0, 300.0
"""How long after its beginning speech has words, and after its end a last word."""
PROMISED = {"cough": 0.5, "noise at 10 dB": 0.0, "echo": 0.5, "cough and echo": 0.5, "noise at 10 dB and echo": 0.0}
"""False interruptions in a minute that the documentation promises of CONFIRMED, at most."""
MISSED = {False: 0.05, True: 0.1}
"""The share of voices that may be missed, without and with the echo of the reply, as loud as they are, in the same
microphone."""
Sound = NDArray[Any]


async def prove(n: int, seed: int) -> Proof:
    proof, random = Proof(), np.random.default_rng(seed)
    paths = sorted(PROMPTS.glob("*.wav"), key=lambda path: -path.stat().st_size)[20:80]
    voices = [samples(read_wav(path, RATE)).astype(float) for path in paths]
    seconds = 60 * n
    reply = _joined(voices[::-1], seconds)
    sounds = {
        "cough": _every(lambda: _cough(random), seconds, 4.0, random),
        "music": _music(seconds),
        "noise at 10 dB": _loud(_pink(seconds * RATE, random), -36),
    }
    for name, sound in sounds.items():
        for strategy in STRATEGIES:
            stops, pauses = _play(sound + random.normal(0, 6, len(sound)), strategy, words=False)
            _note(proof, name, strategy, len(stops) / n, pauses / n)
    for name, sound in {"": None, **sounds}.items():
        near = _echo(reply, random, sound)
        for strategy in STRATEGIES:
            stops, pauses = _play(near, strategy, words=False, echoing=True)
            late = len([at for at in stops if at > 3_000]) / n
            _note(proof, f"{name} and echo" if name else "echo", strategy, late, pauses / n)
    _voices(proof, voices, reply, random)
    return proof


def _note(proof: Proof, name: str, strategy: Strategy, stops: float, pauses: float) -> None:
    proof.figures[f"{name}, {strategy.value}: false interruptions in 10 minutes"] = round(10 * stops)
    proof.figures[f"{name}, {strategy.value}: pauses that were taken back in 10 minutes"] = round(10 * pauses)
    if strategy is Strategy.CONFIRMED and stops > PROMISED.get(name, np.inf):
        proof.wrong.append(f"{name}, {strategy.value}: {stops:.1f} false interruptions a minute")


def _voices(proof: Proof, voices: list[Sound], reply: Sound, random: np.random.Generator) -> None:
    """Somebody says something of two seconds over the reply, on a quiet line, in noise, and against the echo."""
    spoken = [voice for voice in voices if len(voice) > 2 * RATE][:40]
    for place, loud, echo in (("quiet", -60, False), ("noise at 10 dB", -36, False), ("echo", -60, True)):
        for strategy in STRATEGIES:
            missed, fooled, late = 0, 0, list[float]()
            for voice in spoken:
                said = _loud(voice[: 3 * RATE], -26)
                first = float(np.flatnonzero(np.abs(said) > np.abs(said).max() * 0.05)[0])
                near = np.concatenate((np.zeros(5 * RATE), said, np.zeros(2 * RATE)))
                near += _loud(_pink(len(near), random), loud)
                if echo:
                    near = _echo(reply[: len(near)], random, near)
                stops, _ = _play(near, strategy, words=True, words_from_ms=5_000, echoing=echo)
                real = [at for at in stops if at >= 5_000]
                missed += not real
                fooled += len(real) < len(stops)
                late += [real[0] - 5_000 - first * 1000 / RATE] if real else []
            proof.figures[f"voice, {place}, {strategy.value}: missed of {len(spoken)}"] = missed
            proof.figures[f"voice, {place}, {strategy.value}: silent after ms"] = round(median(late)) if late else -1
            if echo:
                proof.figures[f"voice, {place}, {strategy.value}: stopped by its first echo of {len(spoken)}"] = fooled
            if missed > len(spoken) * MISSED[echo]:
                proof.wrong.append(f"a voice over the reply, {place}, {strategy.value}: {missed} missed")


class _Echo:
    echoing = True


def _play(
    near: Sound, strategy: Strategy, *, words: bool, words_from_ms: float = 0, echoing: bool = False
) -> tuple[list[float], int]:
    """(when the reply was stopped, how often it paused for nothing): after a stop a new reply begins."""
    vad = named("vad", "silero", RATE)
    assert isinstance(vad, BesideEcho)
    vad.echo = _Echo() if echoing else None
    rule = Interruption(strategy)
    machine = TurnMachine(TurnOptions(speaking=rule, thinking=replace(rule, protect_ms=0), reprompt_ms=None))
    pcm, stops, pauses = to_pcm(near), list[float](), 0
    due: list[tuple[float, Heard]] = []
    spoken = False

    def step(signal: Any, now: float) -> None:
        nonlocal pauses
        for effect in machine.step(signal, now):
            if isinstance(effect, Stop) and effect.reason == "barge_in":
                stops.append(now)
            pauses += isinstance(effect, Resume)
            assert not isinstance(effect, Pause) or machine.replying

    for at in range(0, len(pcm) - 2 * SIZE + 1, 2 * SIZE):
        now = at / 2 / RATE * 1000 + 20
        if machine.free:
            step(ReplyStarted(), now)
        if machine.replying:
            step(AudioMoved(machine.generation), now)
        for signal in vad.process(AudioFrame(pcm[at : at + 2 * SIZE], RATE, at // 2))[1]:
            if isinstance(signal, SpeechStarted):
                step(SpeechOn(), now)
                spoken = words and now >= words_from_ms
                due += [(now + WORDS_MS, Heard("something else"))] if spoken else []
            elif isinstance(signal, SpeechEnded):
                step(SpeechOff(signal.silence_ms), now)
                due = [(now + FINAL_MS, Heard("something else" if spoken else "", final=True))]
        while due and due[0][0] <= now:
            step(due.pop(0)[1], now)
        step(Tick(), now)
    return stops, pauses


# -- sounds -----------------------------------------------------------------------------------------------------------


def _loud(sound: Sound, dbfs: float) -> Sound:
    level = np.sqrt((sound[np.abs(sound) > np.abs(sound).max() * 0.03] ** 2).mean()) or 1.0
    return np.asarray(sound * (32768 * 10 ** (dbfs / 20) / level))


def _joined(voices: list[Sound], seconds: int) -> Sound:
    gap = np.zeros(RATE // 2)
    parts: list[Sound] = []
    while sum(map(len, parts)) < seconds * RATE:
        for voice in voices:
            parts += [voice, gap]
    return np.concatenate(parts)[: seconds * RATE]


def _pink(count: int, random: np.random.Generator) -> Sound:
    spectrum = np.fft.rfft(random.normal(0, 1, count))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), count)


def _cough(random: np.random.Generator) -> Sound:
    """One to three bursts of breath, with the resonances of a throat."""
    parts: list[Sound] = []
    for _ in range(random.integers(1, 4)):
        count = int(RATE * random.uniform(0.12, 0.3))
        at = np.arange(count) / RATE
        breath = random.normal(0, 1, count)
        spectrum, hertz = np.fft.rfft(breath), np.fft.rfftfreq(count, 1 / RATE)
        shape = sum(1 / (1 + ((hertz - f) / w) ** 2) for f, w in ((500, 200), (1_500, 400), (2_600, 600)))
        parts += [np.fft.irfft(spectrum * shape, count) * np.exp(-12 * at) * np.minimum(at * 300, 1)]
        parts += [np.zeros(int(RATE * random.uniform(0.05, 0.2)))]
    return _loud(np.concatenate(parts), random.uniform(-30, -18))


def _every(make: Any, seconds: int, each_s: float, random: np.random.Generator) -> Sound:
    sound, at = np.zeros(seconds * RATE), RATE
    while at < len(sound) - 2 * RATE:
        one = make()
        sound[at : at + len(one)] += one
        at += int(RATE * random.uniform(each_s / 2, each_s * 1.5))
    return sound


def _music(seconds: int) -> Sound:
    """What is played to who waits: chords, a bass and a tune."""
    at = np.arange(seconds * RATE) / RATE
    sound = np.zeros(len(at))
    chords = ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))
    beat = (at * 2).astype(int)
    fading = np.exp(-3 * (at * 2 % 1))
    for number, chord in enumerate(chords):
        playing = (beat // 4 % 4 == number).astype(float)
        for hertz in (*chord, chord[0] / 2):
            sound += playing * np.sin(2 * np.pi * hertz * at)
        tune = np.array(chord)[beat % 3] * 2
        sound += playing * fading * np.sin(2 * np.pi * np.cumsum(tune) / RATE)
    return _loud(sound, -24)


def _echo(reply: Sound, random: np.random.Generator, near: Sound | None = None) -> Sound:
    """What is left of the reply in the microphone after echo cancellation, with `near` on top."""
    count = RATE * 200 // 1000
    room = np.concatenate((np.zeros(RATE // 50), random.normal(0, 1, count) * 10 ** (-3 * np.arange(count) / count)))
    heard = np.convolve(reply, 0.4 * room / np.sqrt((room**2).sum()))[: len(reply)]
    heard = heard + random.normal(0, 10, len(heard)) + (near if near is not None else 0)
    stage, out = named_echo("apm", RATE), b""
    for at in range(0, len(reply) - SIZE + 1, SIZE):
        stage.reference(AudioFrame(to_pcm(reply[at : at + SIZE]), RATE, at))
        frame, _ = stage.process(AudioFrame(to_pcm(heard[at : at + SIZE]), RATE, at))
        out += frame.pcm if frame is not None else b""
    return samples(out).astype(float)
