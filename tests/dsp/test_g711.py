"""G.711 against the interpreter's own tables, every code and every sample."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from roomkit.dsp import g711

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    audioop = pytest.importorskip("audioop", reason="install audioop-lts: Python 3.13 has no audioop")

CODES = bytes(range(256))
SAMPLES = np.arange(-32768, 32768, dtype="<i2").tobytes()


def test_every_code_decodes_as_the_standard_says() -> None:
    assert g711.ulaw_to_pcm(CODES) == audioop.ulaw2lin(CODES, 2)
    assert g711.alaw_to_pcm(CODES) == audioop.alaw2lin(CODES, 2)


def test_every_sample_encodes_as_the_standard_says() -> None:
    assert g711.pcm_to_ulaw(SAMPLES) == audioop.lin2ulaw(SAMPLES, 2)
    assert g711.pcm_to_alaw(SAMPLES) == audioop.lin2alaw(SAMPLES, 2)
