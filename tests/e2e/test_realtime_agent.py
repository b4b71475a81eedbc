"""The realtime agent and a real browser: what Chromium says over WebRTC comes back, by way of a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
TOKEN = "a-token-for-this-test"

CALL = """
async () => {
  const context = new AudioContext();
  const tone = new OscillatorNode(context, { frequency: 440 });
  const volume = new GainNode(context, { gain: 0 });
  const stream = context.createMediaStreamDestination();
  tone.connect(volume).connect(stream);
  tone.start();
  window.volume = volume;
  window.heard = [];
  const peer = (window.peer = new RTCPeerConnection());
  peer.addTrack(stream.stream.getAudioTracks()[0], stream.stream);
  peer.ontrack = ({ streams }) => {
    const player = new Audio();  // Chromium decodes only what is played somewhere
    player.srcObject = streams[0];
    player.muted = true;
    player.play();
    const ear = new AnalyserNode(context, { fftSize: 256 });
    context.createMediaStreamSource(streams[0]).connect(ear);
    const wave = new Float32Array(256);
    setInterval(() => {
      ear.getFloatTimeDomainData(wave);
      window.heard.push(Math.sqrt(wave.reduce((sum, one) => sum + one * one, 0) / 256));
    }, 10);
  };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((done) => {
    if (peer.iceGatheringState === "complete") done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  return peer.localDescription.sdp;
}
"""


@pytest.fixture
def join() -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "roomkit.servers.realtime_agent", "agent", "--channel_name=test", "--uid=1"]
    environment = {**os.environ, "RTC_TOKEN": TOKEN, "REALTIME_AGENT_READY": "1"}
    process = subprocess.Popen([*command, "--provider=parrot"], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["join"]
        assert process.wait(15) == 0  # the user has left
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _until(page: Page, what: str, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if page.evaluate(what):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never: {what}; heard {page.evaluate('Math.max(...window.heard)')}")


def test_a_browser_is_heard_and_answered_over_webrtc(browser: Browser, join: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto("about:blank")
    sdp = page.evaluate(CALL)
    body = json.dumps({"uid": 7, "sdp": sdp}).encode()
    request = urllib.request.Request(join["offer"], body, {"authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        told = json.loads(answer.read())
    page.evaluate("(sdp) => peer.setRemoteDescription({ type: 'answer', sdp })", told["sdp"])
    _until(page, "peer.connectionState === 'connected'")
    page.wait_for_timeout(800)
    assert page.evaluate("Math.max(0, ...window.heard)") < 0.02
    page.evaluate("volume.gain.value = 0.4")
    page.wait_for_timeout(1_200)
    page.evaluate("volume.gain.value = 0")
    _until(page, "Math.max(0, ...window.heard) > 0.05")
    page.evaluate("peer.close()")
    page.close()
