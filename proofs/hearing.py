"""How much of real and synthetic speech the offline recogniser understands: words wrong, missing or superfluous."""

from __future__ import annotations

import asyncio
import re
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which

from proofs.kill9 import Proof
from roomkit.dsp.resample import Resampler
from roomkit.models.audio import AudioFrame
from roomkit.providers.flite.tts import FliteTTS
from roomkit.providers.sphinx.stt import SphinxOptions, SphinxSTT
from roomkit.testing.speech import word_errors

TITLE = "wrong words of the offline recogniser, of each kind of caller"
Spoken = tuple[str, bytes]

SENTENCES = (
    "Where is my order?",
    "I would like to speak to a person please.",
    "Can you tell me the opening hours of your shop?",
    "My order number is one zero four two.",
    "Please cancel the order and send the money back.",
    "I want to change the address of my delivery.",
    "How long does it take to arrive?",
    "The package was broken when it came.",
    "Yes, that is right.",
    "No, thank you, goodbye.",
    "What does it cost to send it to Germany?",
    "I have been waiting for two weeks now.",
)
PROMPTS = {
    "agent-loggedoff": "Agent logged off.",
    "agent-pass": "Please enter your password followed by the pound key.",
    "auth-thankyou": "Thank you.",
    "conf-getpin": "Please enter the conference pin number.",
    "conf-invalid": "That is not a valid conference number. Please try again.",
    "conf-onlyperson": "You are currently the only person in this conference.",
    "demo-echodone": "The echo test has been completed.",
    "pbx-invalid": "I'm sorry, that's not a valid extension. Please try again.",
    "queue-thankyou": "Thank you for your patience.",
    "queue-youarenext": "Your call is now first in line and will be answered by the next available representative.",
    "tt-somethingwrong": "Something is terribly wrong.",
    "tt-weasels": "Weasels have eaten our phone system.",
    "vm-nobodyavail": "Nobody is available to take your call at the moment.",
    "ss-noservice": "The number you have dialed is not in service. Please check the number and try again.",
    "vm-msgsaved": "Your message has been saved.",
    "vm-nomore": "No more messages.",
}
GRAMMAR_MOST, FLITE_MOST = 0.05, 0.10
"""What the figures in the docs promise; free speech of people is reported, not promised."""


async def prove(n: int, seed: int) -> Proof:
    proof = Proof()
    callers: dict[str, list[Spoken]] = {}
    if which("flite"):
        for voice in ("slt", "rms", "awb"):
            callers[f"flite {voice}"] = [(text, await _flite(voice, text)) for text in SENTENCES]
    sounds, data = Path("/usr/share/asterisk/sounds/en_US_f_Allison"), Path("/usr/share/pocketsphinx/test/data")
    callers["telephone prompts"] = [(text, _wav(sounds / f"{name}.wav")) for name, text in PROMPTS.items()]
    callers["a reader"] = _told(data / "librivox" / "transcription")
    free = SphinxSTT(SphinxOptions(hang_s=60))
    for caller, speech in callers.items():
        for call in ("warm", "cold"):
            share = await _errors(proof, free, f"{caller}, {call}", speech[: n or None], call == "warm")
            if caller.startswith("flite") and call == "warm" and share > FLITE_MOST:
                proof.wrong.append(f"{caller}: {share:.0%} of the words are wrong, promised are {FLITE_MOST:.0%}")
    await free.aclose()
    cards = SphinxSTT(SphinxOptions(grammar=(data / "cards" / "cards.gram").read_text(), hang_s=60))
    share = await _errors(proof, cards, "a reader, grammar", _told(data / "cards" / "cards.transcription"), True)
    if share > GRAMMAR_MOST:
        proof.wrong.append(f"grammar: {share:.0%} of the words are wrong, promised are {GRAMMAR_MOST:.0%}")
    await cards.aclose()
    return proof


async def _errors(proof: Proof, stt: SphinxSTT, name: str, speech: list[Spoken], warm: bool) -> float:
    wrong = words = 0
    for said, pcm in speech:
        heard = stt.transcribe(_frames(pcm), call=name if warm else None)
        errors, count = word_errors(said, " ".join([one.text async for one in heard if one.final]))
        wrong, words = wrong + errors, words + count
    proof.figures[f"words wrong in 1000: {name}"] = round(1000 * wrong / words)
    return wrong / words


async def _frames(pcm: bytes) -> AsyncIterator[AudioFrame]:
    for at in range(0, len(pcm), 640):
        await asyncio.sleep(0)
        yield AudioFrame(pcm[at : at + 640], 16_000, at // 2)


async def _flite(voice: str, text: str) -> bytes:
    async def whole() -> AsyncIterator[str]:
        yield text

    return b"".join([spoken.frame.pcm async for spoken in FliteTTS(voice).speak(whole())])


def _wav(path: Path) -> bytes:
    with wave.open(str(path)) as sound:
        rate, pcm = sound.getframerate(), sound.readframes(sound.getnframes())
    return pcm if rate == 16_000 else Resampler(rate, 16_000).process(pcm + bytes(rate // 5))


def _told(transcription: Path) -> list[Spoken]:
    """Recordings beside a list of `<s> text </s> (name)`."""
    lines = re.findall(r"<s> (.*?) +</s> \((.*?)\)", transcription.read_text())
    return [(text, _wav(transcription.parent / f"{name}.wav")) for text, name in lines]
