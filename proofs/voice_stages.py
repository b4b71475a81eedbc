"""What the audio stages are worth on real speech: starts and ends in noise, how much echo goes, and what stays."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.kill9 import Proof
from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav
from roomkit.models.audio import AudioFrame, AudioSignal, DtmfDigit, SpeechEnded, SpeechStarted
from roomkit.voice.stages import named, named_echo

TITLE = "starts and ends of speech in noise, echo left over, keys heard in speech"
RATE, SIZE = 16_000, 320
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
VADS = ("silero", "webrtc", "energy")
SNR_DB = (40, 20, 10, 5, 0)
ERLE_DB = {"apm": 30, "speex": 12}
LATE_MS = 150
"""What the docs promise of the default at 10 dB and better: the median of onset and offset errors."""
Sound = NDArray[Any]


async def prove(n: int, seed: int) -> Proof:
    proof = Proof()
    random = np.random.default_rng(seed)
    prompts = sorted(PROMPTS.glob("*.wav"), key=lambda path: -path.stat().st_size)[20 : 20 + n]
    spoken = [samples(read_wav(path, RATE)).astype(float) for path in prompts]
    for vad in VADS:
        for snr in SNR_DB:
            _speech(proof, vad, snr, spoken, random)
    for name, least in ERLE_DB.items():
        _echo(proof, name, least, spoken, random)
    _keys(proof)
    return proof


def _run(stage: Any, values: Sound) -> list[AudioSignal]:
    pcm, noticed = to_pcm(values), list[AudioSignal]()
    for at in range(0, len(pcm) - 2 * SIZE + 1, 2 * SIZE):
        noticed += stage.process(AudioFrame(pcm[at : at + 2 * SIZE], RATE, at // 2))[1]
    return noticed


def _noise(count: int, random: np.random.Generator) -> Sound:
    """Pink, as rooms and streets are."""
    spectrum = np.fft.rfft(random.normal(0, 1, count))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    noise = np.fft.irfft(spectrum, count)
    return noise / np.sqrt((noise**2).mean())


def _speech(proof: Proof, vad: str, snr: int, spoken: list[Sound], random: np.random.Generator) -> None:
    onsets, offsets, missed, alarms, quiet_s = list[float](), list[float](), 0, 0, 0.0
    for voice in spoken:
        loud = np.flatnonzero(np.abs(voice) > np.abs(voice).max() * 0.03)
        level = np.sqrt((voice[loud[0] : loud[-1]] ** 2).mean()) * 10 ** (-snr / 20)
        alone = 4 * RATE
        values = np.concatenate((np.zeros(alone), voice, np.zeros(RATE)))
        noticed = _run(named("vad", vad, RATE), values + level * _noise(len(values), random))
        began = [one.position for one in noticed if isinstance(one, SpeechStarted)]
        ended = [one.position for one in noticed if isinstance(one, SpeechEnded)]
        alarms += sum(at < alone - RATE // 4 for at in began)
        quiet_s += alone / RATE
        real = [at for at in began if alone - RATE // 4 <= at < alone + len(voice)]
        if not real:
            missed += 1
            continue
        onsets.append(abs(real[0] - alone - loud[0]) * 1000 / RATE)
        offsets += [abs(ended[-1] - alone - loud[-1]) * 1000 / RATE] if ended and ended[-1] > real[0] else []
    at = f"{vad}, {snr} dB"
    proof.figures[f"{at}: onset off by ms"] = round(median(onsets)) if onsets else -1
    proof.figures[f"{at}: offset off by ms"] = round(median(offsets)) if offsets else -1
    proof.figures[f"{at}: missed of {len(spoken)}"] = missed
    proof.figures[f"{at}: false starts in 10 minutes"] = round(600 * alarms / quiet_s)
    if vad == "silero" and snr >= 10 and (missed or median(onsets) > LATE_MS or median(offsets) > LATE_MS):
        proof.wrong.append(f"{at}: {missed} missed, off by {median(onsets):.0f} and {median(offsets):.0f} ms")


def _power(values: Sound) -> float:
    return 10 * float(np.log10((values**2).mean() + 1e-9))


def _echo(proof: Proof, name: str, least: float, spoken: list[Sound], random: np.random.Generator) -> None:
    far = np.concatenate(spoken)[: 14 * RATE]
    near = np.concatenate(spoken[::-1])[: 4 * RATE]
    for length_ms in (120, 185, 250):
        count = RATE * length_ms // 1000
        fading = random.normal(0, 1, count) * 10 ** (-3 * np.arange(count) / count)
        room = np.concatenate((np.zeros(int(RATE * random.uniform(0.01, 0.08))), fading))
        echo = np.convolve(far, 0.4 * room / np.sqrt((room**2).sum()))[: len(far)] + random.normal(0, 10, len(far))
        echo[10 * RATE :] += near
        stage, out = named_echo(name, RATE), b""
        for at in range(0, len(far) - SIZE + 1, SIZE):
            stage.reference(AudioFrame(to_pcm(far[at : at + SIZE]), RATE, at))
            frame, _ = stage.process(AudioFrame(to_pcm(echo[at : at + SIZE]), RATE, at))
            out += frame.pcm if frame is not None else b""
        left = samples(out).astype(float)
        alone, both = slice(3 * RATE, 10 * RATE), slice(10 * RATE, 14 * RATE)
        erle, kept = _power(echo[alone]) - _power(left[alone]), _power(left[both]) - _power(near)
        proof.figures[f"{name}, {length_ms} ms room: echo taken out after 3 s, dB"] = round(erle)
        proof.figures[f"{name}, {length_ms} ms room: caller in double talk, dB"] = round(kept)
        if erle < least or kept < -6:
            proof.wrong.append(f"{name}: {erle:.0f} dB of echo out (promised {least}), caller at {kept:.0f} dB")


def _keys(proof: Proof) -> None:
    stage, spoken_s = named("dtmf", "goertzel", RATE), 0.0
    for path in sorted(PROMPTS.glob("*.wav")):
        values = samples(read_wav(path, RATE))
        spoken_s += len(values) / RATE
        if any(isinstance(one, DtmfDigit) for one in _run(stage, values)):
            proof.wrong.append(f"a key was heard in {path.name}")
    proof.figures["minutes of speech without a key"] = round(spoken_s / 60)
