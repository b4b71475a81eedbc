"""Speaking with a room in a real browser: a microphone in, recognised words, a voice out, and silence when told."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.driver import Pages, Server

pytestmark = pytest.mark.browser
SAID = "what time is it"

MICROPHONE = """
window.loudness = [];
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const bytes = Uint8Array.from(atob("%s"), (one) => one.charCodeAt(0));
  const buffer = await context.decodeAudioData(bytes.buffer);
  const stream = context.createMediaStreamDestination();
  window.speak = () => {
    const voice = new AudioBufferSourceNode(context, { buffer });
    voice.connect(stream);
    voice.start();
  };
  return stream.stream;
};
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...more) {
  if (target instanceof AudioDestinationNode && this instanceof AudioWorkletNode && !this.numberOfInputs) {
    const ear = new AnalyserNode(target.context, { fftSize: 256 });
    const wave = new Float32Array(256);
    connect.call(this, ear);
    setInterval(() => {
      ear.getFloatTimeDomainData(wave);
      window.loudness.push(Math.sqrt(wave.reduce((sum, one) => sum + one * one, 0) / 256));
    }, 10);
  }
  return connect.call(this, target, ...more);
};
"""


REFUSED = """
navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", "NotAllowedError"); };
"""


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("flite") or not shutil.which("espeak-ng"):
        pytest.skip("flite and espeak-ng are not installed (sh .ci/voice)")
    pytest.importorskip("pocketsphinx")
    path = tmp_path_factory.mktemp("speech") / "said.wav"
    subprocess.run(["flite", "-voice", "slt", "-t", SAID, "-o", str(path)], check=True, timeout=20)
    return path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("voice"), app="tests.e2e.voice_app").start()
    yield server
    server.stop()


@pytest.fixture
def talk(pages: Pages, house: Server, speech: Path) -> Callable[[str], Page]:
    def open_chat(who: str) -> Page:
        page = pages.open(house, "", who, script=MICROPHONE % base64.b64encode(speech.read_bytes()).decode())
        page.get_by_role("button", name="Speak", exact=True).click()
        expect(page.locator(".call-strip").get_by_role("status")).to_have_text("Listening")
        return page

    return open_chat


def envelope(pcm: np.ndarray, rate: int) -> np.ndarray:
    """Loudness of every 50 ms."""
    size = rate // 20
    values = pcm[: len(pcm) // size * size].astype(float).reshape(-1, size)
    return np.sqrt((values**2).mean(axis=1))


def read(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


def likeness(heard: Path, said: Path) -> float:
    """How far the loudness of what came goes as that of what was said, at the place where it fits best."""
    came, meant = envelope(*read(heard)), envelope(*read(said))
    places = [came[at : at + len(meant)] for at in range(len(came) - len(meant))]
    return max((float(np.corrcoef(place, meant)[0, 1]) for place in places if place.std()), default=0.0)


def quiet(page: Page, ms: int) -> bool:
    """Whether nothing has sounded for the last so many ms."""
    return page.evaluate("count => window.loudness.slice(-count).every((one) => one < 0.001)", ms // 10)


def wait_for_file(page: Page, path: Path) -> Path:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} is not written"
        page.wait_for_timeout(50)
    return path


def wait_for_sound(page: Page) -> None:
    deadline = time.monotonic() + 30
    while not page.evaluate("window.loudness.some((one) => one > 0.02)"):
        assert time.monotonic() < deadline, "nothing sounds"
        page.wait_for_timeout(50)


def test_speaking_is_understood_and_answered_aloud_until_it_is_told_to_be_quiet(
    talk: Callable[[str], Page], pages: Pages, house: Server, speech: Path
) -> None:
    page = talk("ada")
    desk = pages.open(house, "supervisor?ada", "sam", width=1400)
    expect(desk.locator(".calls")).to_contain_text("On a call")
    page.wait_for_timeout(500)
    page.evaluate("window.speak()")
    expect(page.locator(".message.own", has_text="time").first).to_be_visible(timeout=30_000)
    wait_for_sound(page)
    expect(page.locator(".call-turn")).to_contain_text("heard", timeout=15_000)
    expect(desk.locator(".call-turn")).to_contain_text("heard")
    page.wait_for_timeout(1_000)
    assert not quiet(page, 500), "the story is not told"
    page.get_by_role("textbox", name="Write a message").fill("be quiet, please")
    page.keyboard.press("Enter")
    expect(page.locator(".message.own", has_text="be quiet")).to_contain_text("Sent")
    page.wait_for_timeout(700)
    assert quiet(page, 300), "it goes on after it was interrupted"
    page.get_by_role("button", name="Stop speaking").click()
    expect(page.locator(".call-strip")).to_have_count(0)
    expect(desk.locator(".calls")).to_have_count(0, timeout=10_000)

    assert likeness(wait_for_file(page, house.database.parent / "ada-heard.wav"), speech) > 0.9


def test_a_supervisor_hears_the_answer_and_is_not_heard(
    talk: Callable[[str], Page], pages: Pages, house: Server, speech: Path
) -> None:
    page = talk("ben")
    desk = pages.open(house, "supervisor?ben", "sam", width=1400, script=MICROPHONE % "")
    desk.get_by_role("button", name="Listen").click()
    expect(desk.get_by_role("button", name="Stop listening")).to_be_visible()
    page.get_by_role("textbox", name="Write a message").fill("a story, please")
    page.keyboard.press("Enter")
    wait_for_sound(desk)
    wait_for_sound(page)
    desk.get_by_role("button", name="Stop listening").click()
    page.get_by_role("button", name="Stop speaking").click()
    monitor = wait_for_file(page, house.database.parent / "ben-monitor.wav")
    assert not read(monitor)[0].any()


def test_a_colleague_takes_over_by_voice(
    talk: Callable[[str], Page], pages: Pages, house: Server, speech: Path
) -> None:
    page = talk("dora")
    script = MICROPHONE % base64.b64encode(speech.read_bytes()).decode()
    desk = pages.open(house, "supervisor?dora", "sam", width=1400, script=script)
    expect(desk.get_by_role("button", name="Listen")).to_be_visible()
    expect(desk.get_by_role("button", name="Speak", exact=True)).to_have_count(0)
    page.get_by_role("textbox", name="Write a message").fill("a story, please")
    page.keyboard.press("Enter")
    wait_for_sound(page)
    desk.get_by_role("button", name="Take over").first.click()
    desk.get_by_role("button", name="Speak", exact=True).click()
    expect(desk.get_by_role("button", name="Stop speaking")).to_be_visible()
    page.wait_for_timeout(700)
    assert quiet(page, 300), "the reply goes on after somebody took over"
    page.evaluate("window.loudness = []")
    desk.evaluate("window.speak()")
    wait_for_sound(page)
    desk.get_by_role("button", name="Stop speaking").click()
    expect(desk.get_by_role("button", name="Speak", exact=True)).to_be_visible()
    page.get_by_role("button", name="Stop speaking").click()


def test_a_call_outlives_a_server_that_crashes(
    tmp_path_factory: pytest.TempPathFactory, pages: Pages, speech: Path
) -> None:
    pages.expected = ("ERR_CONNECTION_REFUSED", "WebSocket connection", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    server = Server(tmp_path_factory.mktemp("crash"), app="tests.e2e.voice_app").start()
    try:
        page = pages.open(server, "", "ada", script=MICROPHONE % base64.b64encode(speech.read_bytes()).decode())
        page.get_by_role("button", name="Speak", exact=True).click()
        status = page.locator(".call-strip").get_by_role("status")
        expect(status).to_have_text("Listening")
        server.kill()
        expect(status).to_have_text("Connecting…")
        server.start()
        page.evaluate("window.loudness.length = 0")
        wait_for_sound(page)  # it says that it is back
        page.get_by_role("textbox", name="Write a message").fill("be quiet, please")
        page.keyboard.press("Enter")
        expect(status).to_have_text("Listening", timeout=20_000)
        page.evaluate("window.speak()")
        expect(page.locator(".message.own", has_text="time").first).to_be_visible(timeout=30_000)
        page.get_by_role("button", name="Stop speaking").click()
        expect(page.locator(".call-strip")).to_have_count(0)
    finally:
        server.stop()


RTC = """
async (room) => {
  window.loudness = [];
  const token = sessionStorage.getItem("roomkit.token.chat");
  const peer = window.peer = new RTCPeerConnection();
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.addTrack(stream.getAudioTracks()[0], stream);
  peer.ontrack = ({ track }) => {
    const sound = new Audio();  // Chromium decodes what something plays
    sound.srcObject = new MediaStream([track]);
    void sound.play();
    const context = new AudioContext();
    const ear = new AnalyserNode(context, { fftSize: 256 });
    context.createMediaStreamSource(sound.srcObject).connect(ear);
    const wave = new Float32Array(256);
    setInterval(() => {
      ear.getFloatTimeDomainData(wave);
      window.loudness.push(Math.sqrt(wave.reduce((sum, one) => sum + one * one, 0) / 256));
    }, 10);
  };
  await peer.setLocalDescription(await peer.createOffer());
  while (peer.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 20));
  const offer = { type: "offer", sdp: peer.localDescription.sdp, room_id: room };
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch("voice/rtc", { method: "POST", headers, body: JSON.stringify(offer) });
  const { type, sdp } = await answer.json();
  await peer.setRemoteDescription({ type, sdp });
  return answer.status;
}
"""


def test_a_call_by_webrtc(pages: Pages, house: Server, speech: Path) -> None:
    pytest.importorskip("aiortc")
    page = pages.open(house, "", "cleo", script=MICROPHONE % base64.b64encode(speech.read_bytes()).decode())
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_visible()
    assert page.evaluate(RTC, "cleo") == 200
    wait_for_sound(page)
    page.evaluate("window.speak()")
    page.wait_for_timeout(2_500)
    page.evaluate("window.peer.close()")
    assert likeness(wait_for_file(page, house.database.parent / "cleo-rtc.wav"), speech) > 0.85


def test_a_microphone_that_is_refused_is_told(pages: Pages, house: Server) -> None:
    page = pages.open(house, "", "ada", script=REFUSED)
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The microphone was not allowed.")
    expect(page.get_by_role("button", name="Speak", exact=True)).to_be_enabled()
