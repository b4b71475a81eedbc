"""Recorder: what is kept, when, where, and what a crash leaves; on files, by a real thread, under virtual time."""

from __future__ import annotations

import asyncio
import stat
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.dsp.pcm import dbfs, silence
from roomkit.errors import ConfigError, SessionEnded, UsageError
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.models.voice import RecordingChanged
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.voice.recorder import Recorder, Recording, RecordingOptions
from roomkit.voice.soundfiles import SoundFile, WavFile, create, mend_wav

RATE = 16_000
SIZE = RATE // 50


def tone(hertz: float, level: int = 8_000) -> bytes:
    """A frame; of a multiple of 50 Hz frames join without a seam."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(SIZE) / RATE)).astype("<i2").tobytes()


async def talk(recorder: Recorder, seconds: float, *, inbound: bytes = b"", outbound: bytes = b"") -> None:
    for _ in range(round(seconds * 50)):
        await asyncio.sleep(0.02)
        if inbound:
            recorder.inbound(AudioFrame(inbound, RATE))
        if outbound:
            recorder.outbound(AudioFrame(outbound, RATE))


async def finished(recorder: Recorder) -> tuple[Path, ...]:
    recorder.close()
    await recorder.done()
    return recorder.paths


def sound(path: Path) -> tuple[int, bytes]:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (RATE, 2)
        return file.getnchannels(), file.readframes(file.getnframes())


def call(folder: Path, session_id: str = "call-1", **options: Any) -> tuple[Recording, VoiceSession, Recorder]:
    recording = Recording(folder, RecordingOptions(**options))
    session = VoiceSession(session_id)
    return recording, session, recording(session, RATE)


async def test_not_a_byte_before_consent(tmp_path: Path) -> None:
    recording, session, recorder = call(tmp_path / "calls")
    await talk(recorder, 1.0, inbound=tone(400))
    assert not (tmp_path / "calls").exists()
    recording.consent(session)
    await talk(recorder, 1.0, inbound=tone(1_000))
    (path,) = await finished(recorder)
    _, pcm = sound(path)
    assert abs(len(pcm) // 2 - RATE) <= SIZE
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2")))
    assert spectrum[400 * len(pcm) // 2 // RATE] < spectrum.max() / 100
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_without_consent_there_is_no_file_and_no_thread(tmp_path: Path) -> None:
    _, _, recorder = call(tmp_path / "calls")
    before = threading.active_count()
    await talk(recorder, 0.5, inbound=tone(400), outbound=tone(500))
    assert threading.active_count() == before
    assert await finished(recorder) == ()
    assert not (tmp_path / "calls").exists()


async def test_a_withdrawal_holds_from_the_next_frame(tmp_path: Path) -> None:
    recording, session, recorder = call(tmp_path, consented=True)
    await talk(recorder, 0.5, inbound=tone(400))
    recording.withdraw(session)
    assert not recorder.recording
    await talk(recorder, 2.0, inbound=tone(1_000))
    recording.consent(session)
    await talk(recorder, 0.5, inbound=tone(400))
    (path,) = await finished(recorder)
    values = np.frombuffer(sound(path)[1], "<i2")
    assert len(values) == pytest.approx(3.0 * RATE, abs=2 * SIZE)  # the time in between is silence
    assert not values[int(0.5 * RATE) : int(2.4 * RATE)].any()
    assert values[: int(0.45 * RATE)].any()
    assert values[int(2.6 * RATE) :].any()


async def test_a_withdrawal_can_take_back_everything(tmp_path: Path) -> None:
    recording, session, recorder = call(tmp_path, consented=True, layout="separate")
    await talk(recorder, 1.0, inbound=tone(400), outbound=tone(500))
    recording.withdraw(session, delete=True)
    await finished(recorder)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SessionEnded, match="call-1 is not being recorded"):
        recording.consent(session)


@pytest.mark.parametrize(
    "layout, names, channels",
    [
        ("mixed", ["call-1.wav"], [1]),
        ("stereo", ["call-1.wav"], [2]),
        ("separate", ["call-1-inbound.wav", "call-1-outbound.wav"], [1, 1]),
        ("all", ["call-1.wav", "call-1-inbound.wav", "call-1-outbound.wav"], [1, 1, 1]),
    ],
)
async def test_layouts_keep_both_sides_as_loud_as_they_were(
    tmp_path: Path, layout: str, names: list[str], channels: list[int]
) -> None:
    _, _, recorder = call(tmp_path, consented=True, layout=layout)
    await talk(recorder, 1.0, inbound=tone(400), outbound=tone(1_000, 4_000))
    paths = await finished(recorder)
    assert [path.name for path in paths] == names
    found = [sound(path) for path in paths]
    assert [count for count, _ in found] == channels
    sides = [np.frombuffer(pcm, "<i2").reshape(-1, count).T for count, pcm in found]
    wanted = {"mixed": [(0, 0)], "stereo": [(0, 0), (0, 1)], "separate": [(0, 0), (1, 0)], "all": [(1, 0), (2, 0)]}
    levels = [dbfs(sides[file][channel][SIZE : 40 * SIZE].tobytes())[0] for file, channel in wanted[layout]]
    mixed = dbfs((np.frombuffer(tone(400), "<i2") + np.frombuffer(tone(1_000, 4_000), "<i2")).tobytes())[0]
    loud = [mixed] if layout == "mixed" else [dbfs(tone(400))[0], dbfs(tone(1_000, 4_000))[0]]
    assert levels == pytest.approx(loud, abs=0.1)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_one_direction_only(tmp_path: Path, direction: str) -> None:
    _, _, recorder = call(tmp_path, consented=True, direction=direction, layout="stereo")
    await talk(recorder, 1.0, inbound=tone(400), outbound=tone(1_000, 4_000))
    (path,) = await finished(recorder)
    channels, pcm = sound(path)
    level = dbfs(tone(400) if direction == "inbound" else tone(1_000, 4_000))[0]
    assert (channels, dbfs(pcm)[0]) == (1, pytest.approx(level, abs=0.1))


async def test_jitter_is_closed_up_and_a_pause_is_silence(tmp_path: Path) -> None:
    _, _, recorder = call(tmp_path, consented=True, direction="inbound")
    for wait in (0.02, 0.045, 0.005, 0.01, 0.02):
        await asyncio.sleep(wait)
        recorder.inbound(AudioFrame(tone(400), RATE))
    await talk(recorder, 0.5, inbound=tone(400))
    await asyncio.sleep(600)  # ten minutes of nothing take no memory
    await talk(recorder, 0.5, inbound=tone(400))
    (path,) = await finished(recorder)
    values = np.frombuffer(sound(path)[1], "<i2")
    assert values[: int(0.59 * RATE)].reshape(-1, SIZE // 4).any(axis=1).all()  # not one hole
    assert len(values) == pytest.approx(601.1 * RATE, abs=0.1 * RATE)
    assert not values[int(0.7 * RATE) : int(600.5 * RATE)].any()


async def test_both_sides_stand_where_they_were_heard(tmp_path: Path) -> None:
    _, _, recorder = call(tmp_path, consented=True, layout="stereo")
    await talk(recorder, 1.0, inbound=tone(400))
    for _ in range(5):  # a reply begins ahead of time
        recorder.outbound(AudioFrame(tone(1_000), RATE))
    await talk(recorder, 1.0, inbound=silence(SIZE), outbound=tone(1_000))
    await talk(recorder, 1.0, inbound=tone(400))
    (path,) = await finished(recorder)
    left, right = np.frombuffer(sound(path)[1], "<i2").reshape(-1, 2).T
    for side, begin, end in ((left[: int(1.9 * RATE)], 0.0, 1.0), (right, 1.0, 2.1)):
        loud = np.flatnonzero(side)
        assert (loud[0] / RATE, loud[-1] / RATE) == pytest.approx((begin, end), abs=0.05)
    assert len(left) == pytest.approx(3.0 * RATE, abs=0.1 * RATE)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c\0d", "..", "", "x" * 300, "CA1:2 3"])
async def test_a_name_from_outside_leads_nowhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "calls"
    _, _, recorder = call(folder, name, consented=True)
    await talk(recorder, 0.5, inbound=tone(400))
    (path,) = await finished(recorder)
    assert path.parent == folder
    names = {entry.name for entry in tmp_path.rglob("*") if entry.is_file()}
    assert names == {path.name, f"{path.name}.json"}


async def test_a_recording_never_replaces_another_nor_follows_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "call-1.wav").symlink_to(precious)
    names: list[str] = []
    for _ in range(2):
        _, _, recorder = call(folder, consented=True)
        await talk(recorder, 0.5, inbound=tone(400))
        names += [path.name for path in await finished(recorder)]
    assert names == ["call-1-2.wav", "call-1-3.wav"]
    assert precious.read_text() == "precious"


async def test_opus_is_played_back_as_long_and_as_loud(tmp_path: Path) -> None:
    import av

    _, _, recorder = call(tmp_path, consented=True, format="opus", layout="stereo")
    await talk(recorder, 2.0, inbound=tone(400), outbound=tone(1_000))
    (path,) = await finished(recorder)
    assert path.suffix == ".ogg"
    assert path.stat().st_size < 2 * 2 * 24_000 / 8 * 1.5
    with av.open(str(path)) as file:
        values = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
        rate = file.streams.audio[0].rate
    assert values.shape[0] == 2
    assert values.shape[1] / rate == pytest.approx(2.0, abs=0.05)
    assert np.sqrt((values[0][rate // 2 : rate] ** 2).mean()) == pytest.approx(8_000 / 32_768 / np.sqrt(2), rel=0.1)


def test_a_crash_leaves_a_header_that_can_be_mended(tmp_path: Path) -> None:
    file = create(tmp_path / "cut.wav", "wav", RATE, 1, 0)
    for _ in range(30):
        file.write(tone(400) * 5)
    left = file.path.read_bytes()  # what a killed process leaves
    cut = tmp_path / "left.wav"
    cut.write_bytes(left + b"\x07")
    assert 2.0 * RATE <= len(sound(cut)[1]) // 2 < 3.0 * RATE
    assert mend_wav(cut) == 3 * RATE
    assert sound(cut) == (1, tone(400) * 150)
    file.close()
    assert sound(file.path) == (1, tone(400) * 150)


def test_what_is_no_recording_is_left_alone(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader, " * 10)
    with pytest.raises(UsageError, match="nothing was changed"):
        mend_wav(letter)
    assert letter.read_text() == "Dear reader, " * 10


async def test_what_changes_is_told_with_the_file(tmp_path: Path) -> None:
    recording, session, recorder = call(tmp_path)
    told: list[tuple[bool, str]] = []
    recorder.changed = lambda on, path: told.append((on, path.name))
    await talk(recorder, 0.5, inbound=tone(400))
    assert told == []
    recording.consent(session)
    await talk(recorder, 1.0, inbound=tone(400))
    assert told == [(True, "call-1.wav")]
    recording.withdraw(session)
    assert told == [(True, "call-1.wav"), (False, "call-1.wav")]
    recording.consent(session)
    await talk(recorder, 0.1, inbound=tone(400))  # so short that the file hears of it at the end only
    await finished(recorder)
    assert [on for on, _ in told] == [True, False, True, False]


async def test_a_disk_that_fails_ends_the_recording_and_not_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "calls").write_text("not a folder")
    _, _, recorder = call(tmp_path / "calls", consented=True)
    await talk(recorder, 2.0, inbound=tone(400))
    assert not recorder.recording
    await finished(recorder)
    assert [record.message.split(":")[0] for record in caplog.records] == ["recording stopped"]


class Slow:
    """A disk that waits to be let go on; and who writes on it."""

    def __init__(self, write: Callable[[WavFile, bytes], None]) -> None:
        self.go = threading.Event()
        self.threads: set[str] = set()
        self.write = write


async def test_a_slow_disk_costs_sound_but_neither_memory_nor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(WavFile.write)

    def write(file: SoundFile, pcm: bytes) -> None:
        assert isinstance(file, WavFile)
        slow.threads.add(threading.current_thread().name)
        assert slow.go.wait(30)
        slow.write(file, pcm)

    monkeypatch.setattr(WavFile, "write", write)
    _, _, recorder = call(tmp_path, consented=True, direction="inbound")
    for at in range(60 * 50):  # a minute, in no time: the thread cannot keep up
        recorder._began = asyncio.get_running_loop().time() - at * 0.02
        recorder.inbound(AudioFrame(tone(400), RATE))
    assert recorder.dropped == pytest.approx(50 * RATE, rel=0.05)
    slow.go.set()
    (path,) = await finished(recorder)
    assert slow.threads == {"roomkit-recorder"}
    values = np.frombuffer(sound(path)[1], "<i2")
    assert values[: 9 * RATE].any()
    assert np.count_nonzero(values) < 12 * RATE


async def test_a_call_is_recorded_as_it_was_played_and_observers_hear_of_it(tmp_path: Path) -> None:
    line = ScriptedBackend()
    recording = Recording(tmp_path)
    config = AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None, taps=[recording])
    phone = VoiceChannel("phone", stt=ScriptedSTT(line), tts=ScriptedTTS(), backend=line, pipeline=config)
    changes: list[tuple[bool, str]] = []
    async with RoomKit() as kit:
        kit.register_channel(phone)

        @kit.on(RecordingChanged)
        async def changed(notice: RecordingChanged) -> None:
            changes.append((notice.on, Path(notice.path).name))

        session = line.call()
        await phone.answer(session)
        await phone.say(session, "Before anybody agreed.")
        await asyncio.sleep(4)
        assert list(tmp_path.iterdir()) == []
        recording.consent(session)
        await phone.say(session, "This is kept as long as it is heard, and that is not for long.")
        await asyncio.sleep(1.5)
        await phone.interrupt(session)
        await asyncio.sleep(1.5)
        line.disconnects(session)
        await asyncio.sleep(1)
    (path,) = tmp_path.glob("*.wav")
    assert changes == [(True, path.name), (False, path.name)]
    loud = np.flatnonzero(np.frombuffer(sound(path)[1], "<i2"))
    assert (loud[-1] - loud[0]) / RATE == pytest.approx(1.5, abs=0.3)


@pytest.mark.parametrize("wrong", [{"format": "mp3"}, {"direction": "up"}, {"layout": "quad"}])
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"RecordingOptions.{next(iter(wrong))} is one of"):
        RecordingOptions(**wrong)


@pytest.mark.real_time
async def test_recordings_go_with_the_person_whose_calls_they_are(tmp_path: Path) -> None:
    line = ScriptedBackend()
    recording = Recording(tmp_path, RecordingOptions(consented=True, layout="separate"))
    phone = VoiceChannel(
        "phone",
        stt=ScriptedSTT(line),
        tts=ScriptedTTS(),
        backend=line,
        pipeline=AudioPipelineConfig(vad=ScriptedVad, dtmf=None, limiter=None, taps=[recording]),
    )
    kit = RoomKit()
    kit.register_channel(phone)

    async def called(number: str, who: str, seconds: float) -> VoiceSession:
        session = line.call(number, participant_id=who)
        await phone.answer(session)
        await phone.say(session, "This is kept.")
        await asyncio.sleep(seconds)
        return session

    def kept() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    async with kit:
        for number, who in (("one", "ada"), ("two", "bob")):
            line.disconnects(await called(number, who, 1.5))
            await asyncio.sleep(0.5)
        live = await called("three", "ada", 1.5)  # still going on
        (tmp_path / "notes.json").write_text("not of ours")
        assert {"one-inbound.wav", "one-inbound.wav.json", "three-outbound.wav", "two-outbound.wav"} <= {*kept()}
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.glob("*.wav.json"))
        receipt = await kit.erase_person("ada")
        assert receipt.blobs == 4
        left = ["notes.json"] + [f"two-{way}.wav{note}" for way in ("inbound", "outbound") for note in ("", ".json")]
        assert kept() == sorted(left)
        await asyncio.sleep(0.5)
        assert kept() == sorted(left), "not one more frame is kept"
        line.disconnects(live)
        await asyncio.sleep(0.3)
