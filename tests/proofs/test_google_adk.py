"""The verdict on the run in ADK's own environment: by what the tests there said."""

from __future__ import annotations

import sys

import pytest

from proofs.google_adk import judge
from proofs.kill9 import Proof
from roomkit.errors import MissingExtra
from roomkit.providers.google_adk.ai import GoogleADKProvider


@pytest.mark.parametrize(
    "said, code, kept",
    [
        ("....\n10 passed in 5.0s", 0, True),
        ("...s\nSKIPPED [1] x\n9 passed, 1 skipped in 5.0s", 0, False),
        ("...F\n9 passed, 1 failed in 5.0s", 1, False),
        ("1 skipped in 0.1s", 0, False),
        ("no interpreter", 1, False),
    ],
)
def test_only_a_run_of_all_its_tests_counts(said: str, code: int, kept: bool) -> None:
    proof = Proof()
    judge(proof, said, code)
    assert (not proof.wrong) is kept


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.adk.apps", None)
    with pytest.raises(MissingExtra, match=r"\[google-adk\]"):
        GoogleADKProvider(object())
