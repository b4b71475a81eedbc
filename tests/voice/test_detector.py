"""Whether somebody has finished, from the silence and from what the words promise."""

from __future__ import annotations

import pytest

from roomkit.voice.detector import PauseDetector


@pytest.mark.parametrize(
    "text, language, complete",
    [
        ("what time is it", "en", True),
        ("I would like another one", "en", True),
        ("my name is", "en", False),
        ("five five five", "en", False),
        ("the number is 0 7 7", "en", False),
        ("the number is 0 7 7.", "en", True),
        ("well,", "en", False),
        ("ich möchte gerne ein", "de", False),
        ("guten tag", "de", True),
        ("je voudrais un", "fr", False),
        ("quiero hablar con", "es", False),
        ("no idea", "xx", True),
    ],
)
async def test_what_hangs_waits(text: str, language: str, complete: bool) -> None:
    verdict = await PauseDetector(language).evaluate(text, 500)
    assert verdict.complete is complete
    assert (verdict.wait_ms > 0) is not complete


async def test_silence_that_is_asked_for_is_waited_for() -> None:
    verdict = await PauseDetector(wait_ms=900).evaluate("hello there", 500)
    assert (verdict.complete, verdict.wait_ms) == (False, 400)
