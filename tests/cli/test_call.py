"""`roomkit call`: a recorded caller, real recogniser, real voice, real time; and what it says to wrong files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.real_time


def roomkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roomkit", "call", *arguments], capture_output=True, text=True, timeout=90, check=False
    )


@pytest.mark.skipif(not shutil.which("flite") or not shutil.which("espeak-ng"), reason="flite or espeak-ng is missing")
def test_a_caller_is_understood_and_answered_aloud(tmp_path: Path) -> None:
    said, heard = tmp_path / "said.wav", tmp_path / "heard.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", "What time is it?", "-o", str(said)], check=True)
    done = roomkit(str(said), "--out", str(heard), "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    transcript = lines[-1]["transcript"]
    assert [line["by"] for line in transcript] == ["caller", "assistant"]
    assert "time" in transcript[0]["text"]
    assert [line["kind"] for line in lines[:2]] == ["SpeechStart", "SpeechEnd"]
    with wave.open(str(heard)) as file:
        both = np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(int))
    answer = np.nonzero(both[:, 1] > 500)[0]
    assert len(answer) > 16_000, "less than a second of speech came back"
    end_of_question = np.nonzero(both[:, 0] > 500)[0].max()
    assert answer.min() > end_of_question


def test_files_that_are_no_sound_are_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not a sound")
    for path, why in ((tmp_path / "none.wav", "is not there"), (text, "is no PCM WAV file")):
        done = roomkit(str(path))
        assert done.returncode == 2
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
