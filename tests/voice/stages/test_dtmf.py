"""The key detector beside a second opinion: keys made by libspandsp are heard, and speech is no key."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roomkit.dsp.dtmf import KEYS
from roomkit.dsp.framing import Reblock
from roomkit.dsp.pcm import samples, to_pcm
from roomkit.dsp.sound import read_wav, tone
from roomkit.models.audio import AudioFrame, DtmfDigit
from roomkit.voice.stages import named

RATE = 8_000
EVERY = "".join(KEYS)
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
library = find_library("spandsp")
second_opinion = pytest.mark.skipif(library is None, reason="libspandsp2 is not installed (.ci/voice)")


def heard(pcm: bytes, rate: int = RATE) -> str:
    stage, keys = named("dtmf", "goertzel", rate), ""
    for number, block in enumerate(Reblock(rate // 50 * 2).push(pcm)):
        _, noticed = stage.process(AudioFrame(block, rate, number * rate // 50))
        keys += "".join(one.digit for one in noticed if isinstance(one, DtmfDigit))
    return keys


class Spandsp:
    """Steve Underwood's telephony library: its sender and its receiver."""

    def __init__(self) -> None:
        self.lib: Any = ctypes.CDLL(library or "")
        pointer, number = ctypes.c_void_p, ctypes.c_int
        for make in (self.lib.dtmf_tx_init, self.lib.dtmf_rx_init):
            make.restype, make.argtypes = pointer, [pointer] * 3
        self.lib.dtmf_tx_set_level.argtypes = [pointer, number, number]
        self.lib.dtmf_tx_set_timing.argtypes = [pointer, number, number]
        self.lib.dtmf_tx_put.argtypes = [pointer, ctypes.c_char_p, number]
        self.lib.dtmf_tx.argtypes = [pointer, pointer, number]
        self.lib.dtmf_rx.argtypes = [pointer, ctypes.c_char_p, number]
        self.lib.dtmf_rx_get.restype, self.lib.dtmf_rx_get.argtypes = ctypes.c_size_t, [pointer, pointer, number]

    def sends(self, keys: str, on_ms: int, off_ms: int, level_dbm0: int = -10, twist_db: int = 0) -> bytes:
        tx = self.lib.dtmf_tx_init(None, None, None)
        self.lib.dtmf_tx_set_level(tx, level_dbm0, twist_db)
        self.lib.dtmf_tx_set_timing(tx, on_ms, off_ms)
        self.lib.dtmf_tx_put(tx, keys.encode(), len(keys))
        room = (ctypes.c_int16 * (len(keys) * RATE * (on_ms + off_ms + 20) // 1000))()
        count = self.lib.dtmf_tx(tx, room, len(room))
        return bytes(2 * 400) + bytes(room)[: 2 * count] + bytes(2 * 800)

    def hears(self, pcm: bytes) -> str:
        rx = self.lib.dtmf_rx_init(None, None, None)
        self.lib.dtmf_rx(rx, pcm, len(pcm) // 2)
        found = ctypes.create_string_buffer(128)
        self.lib.dtmf_rx_get(rx, found, 127)
        return found.value.decode()


@second_opinion
@pytest.mark.parametrize("on_ms", [50, 70, 200])
@pytest.mark.parametrize("level, twist", [(-10, 0), (-3, 0), (-25, 0), (-10, 3), (-10, -7)])
def test_what_spandsp_sends_is_heard(on_ms: int, level: int, twist: int) -> None:
    assert heard(Spandsp().sends(EVERY, on_ms, 60, level, twist)) == EVERY


@second_opinion
@pytest.mark.parametrize("snr_db", [20, 15])
def test_what_spandsp_sends_is_heard_in_noise(snr_db: int) -> None:
    pcm = Spandsp().sends(EVERY, 60, 60)
    values = samples(pcm).astype(float)
    loud = np.sqrt((values[values != 0] ** 2).mean()) * 10 ** (-snr_db / 20)
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, loud, len(values))
        assert heard(to_pcm(values + noise)) == EVERY


@second_opinion
def test_what_we_send_spandsp_hears() -> None:
    pcm = b"".join(tone(key, 100, RATE) + bytes(1_280) for key in EVERY)
    assert Spandsp().hears(pcm) == EVERY


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")
def test_speech_is_no_key() -> None:
    spoken = b"".join(read_wav(path, RATE) for path in sorted(PROMPTS.glob("*.wav")))
    assert len(spoken) > 2 * RATE * 600, "ten minutes of prompts"
    assert heard(spoken) == ""


@pytest.mark.skipif(not PROMPTS.is_dir(), reason="no recorded speech is installed (.ci/voice)")
def test_a_key_pressed_while_a_prompt_sounds_quietly_behind_it_is_heard() -> None:
    spoken = samples(read_wav(PROMPTS / "vm-nobodyavail.wav", RATE)).astype(float)
    values = spoken * 0.08  # -22 dB: what an echo canceller leaves
    key = samples(tone("7", 80, RATE))
    values[4_000 : 4_000 + len(key)] += key
    assert heard(to_pcm(values)) == "7"
