"""Key tones, and WAV files as samples."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from roomkit.dsp.pcm import silence, to_pcm
from roomkit.dsp.resample import Resampler
from roomkit.errors import UsageError

KEYS = {
    **{key: (697, high) for key, high in zip("123A", (1209, 1336, 1477, 1633), strict=True)},
    **{key: (770, high) for key, high in zip("456B", (1209, 1336, 1477, 1633), strict=True)},
    **{key: (852, high) for key, high in zip("789C", (1209, 1336, 1477, 1633), strict=True)},
    **{key: (941, high) for key, high in zip("*0#D", (1209, 1336, 1477, 1633), strict=True)},
}
"""The two frequencies of every key in Hz (ITU-T Q.23)."""


def tone(key: str, duration_ms: int, rate: int) -> bytes:
    """One key's tone, each frequency at -9 dBFS."""
    at = np.arange(rate * duration_ms // 1000) / rate
    low, high = KEYS[key]
    return to_pcm(11_600 * (np.sin(2 * np.pi * low * at) + np.sin(2 * np.pi * high * at)))


def read_wav(path: str | Path, rate: int) -> bytes:
    """A 16-bit PCM WAV file as mono samples at `rate` Hz; channels are averaged. Reads the whole file, in a blocking
    way. Raises `UsageError` for what is no such file."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, found = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise UsageError(f"{path} is no PCM WAV file ({error}); convert it to 16-bit PCM") from error
    if width != 2:
        raise UsageError(f"{path} has {8 * width}-bit samples; convert it to 16-bit PCM")
    if channels > 1:
        data = to_pcm(np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1))
    if found == rate:
        return data
    # The filter's lag is taken off the front and waited for at the end.
    resampler = Resampler(found, rate)
    late = int(resampler.lag_ms * rate / 1000) * 2
    return resampler.process(data + silence(found // 10))[late : late + len(data) * rate // found // 2 * 2]
