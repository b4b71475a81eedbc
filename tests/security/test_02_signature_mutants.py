"""Line 2: no mutant of a signed webhook is believed, of any provider. `python -m proofs signatures` tries a million."""

from __future__ import annotations

import pytest

from roomkit.testing import VirtualClock
from roomkit.testing.signatures import fuzz_signatures
from tests.security.adapters import WEBHOOKS, WebhookCase


@pytest.mark.parametrize("case", WEBHOOKS.values(), ids=WEBHOOKS)
async def test_no_mutant_is_believed(case: WebhookCase) -> None:
    clock = VirtualClock()
    texts = ("hello", "naïve café 🙂 — é", "a=b&c=d+e%20From%2B1555", "")
    signed = [case.signed(clock, n, text=text) for n, text in enumerate(texts)]
    provider = case.make(clock)
    if hasattr(provider, "prepare"):
        await provider.prepare(signed[0])
    report = fuzz_signatures(provider, signed, n=1500, seed=2, excused=case.excused)
    assert report.ok, (report.forged[:3], report.crashed[:3])
    assert report.refused > (1000 if case.signs_body else 500)
