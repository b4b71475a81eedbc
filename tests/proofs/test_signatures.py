"""The signature proof itself: every provider class is attacked, a weak or forgotten one is found."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

import pytest

from proofs import signatures
from roomkit.errors import AccessDenied
from roomkit.models.delivery import WebhookRequest
from roomkit.providers.twilio.sms import TwilioSMSProvider
from roomkit.testing.messages import FakeMessages
from roomkit.testing.signatures import Fuzzed, FuzzReport, every_mutant

CLASSES = list(signatures.provider_classes())


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_no_mutant_of_a_signed_webhook_is_accepted(one: type[Any]) -> None:
    proof = signatures.attack([one], 4_000, seed=7)
    assert proof.wrong == []
    assert proof.figures["mutants"] == 4_000
    assert proof.figures["refused"] > 2_500
    assert 2_000 < proof.figures["different_ones"] < 4_000


def test_every_class_that_vendors_call_is_known() -> None:
    assert {"HTTPWebhooks", "TwilioSMSProvider", "TwilioRCSProvider"} <= {one.__name__ for one in CLASSES}
    assert set(CLASSES) == set(signatures.SAMPLES)


def test_a_new_provider_must_verify_and_be_attacked() -> None:
    class Unverified:
        def parse(self) -> None: ...

    class Unknown(Unverified):
        def verify(self) -> None: ...

    assert "has no verify()" in signatures.attack([Unverified], 10, seed=1).wrong[0]
    assert "is not attacked" in signatures.attack([Unknown], 10, seed=1).wrong[0]


class Short(FakeMessages):
    """Compares only the first letters of a signature."""

    def verify(self, request: WebhookRequest) -> None:
        if not hmac.compare_digest(request.headers.get("x-fake-signature", "")[:1], self._signature(request)[:1]):
            raise AccessDenied("no")


class Unsigned(FakeMessages):
    """Forgets that the URL is signed too, and believes a proxy."""

    def _signature(self, request: WebhookRequest) -> str:
        return super()._signature(replace(request, url=request.headers.get("x-forwarded-host", "")))


@pytest.mark.parametrize("weak", [Short, Unsigned])
def test_a_weak_check_is_found(weak: type[FakeMessages], monkeypatch: pytest.MonkeyPatch) -> None:
    def samples(kind: type[FakeMessages]) -> signatures.Samples:
        provider = kind()
        # A host that only the URL names decides who is meant here.
        provider.parse = (
            lambda request, channel_id: [  # type: ignore[method-assign] - what the request means
                *FakeMessages.parse(provider, request, channel_id),
                *FakeMessages.parse(
                    provider, replace(request, body=b'{"text": "%s"}' % request.url[-5:].encode()), channel_id
                ),
            ]
        )
        return provider, [provider.webhook(id="1", from_="ann", text="hello")], None

    monkeypatch.setitem(signatures.SAMPLES, weak, samples)
    assert any("accepted" in one for one in signatures.attack([weak], 1_500, seed=7).wrong)


def test_every_byte_is_touched() -> None:
    request = FakeMessages().webhook(text="hello")
    names = [name for name, _ in every_mutant(request)]
    assert len(names) == len([mutant for _, mutant in every_mutant(request)])
    for at in range(len(request.body)):
        assert f"bit 0 of byte {at}" in names
    assert {"x-forwarded-host", "forwarded"} <= set(names)


def test_a_mutant_is_tried_once_and_counted_each_time() -> None:
    provider = FakeMessages()
    request = provider.webhook(text="hello")
    one, report, checked = Fuzzed(provider, request), FuzzReport(), list[bytes]()
    verify = provider.verify
    provider.verify = lambda request: (checked.append(request.body), verify(request))[1]  # type: ignore[method-assign]
    for body in (b"{}", b"[]", b"{}"):
        one.attack(report, "another body", replace(request, body=body))
    assert (report.tried, report.different, report.refused) == (3, 2, 3)
    assert checked == [b"{}", b"[]"]


def test_another_spelling_of_the_type_of_a_body_is_no_broken_proof() -> None:
    provider, requests, _ = signatures.twilio(TwilioSMSProvider)
    request = next(each for each in requests if each.headers["content-type"] == "application/json")
    report = FuzzReport()
    spelled = replace(request, headers={**request.headers, "content-type": "application/json;"})
    Fuzzed(provider, request).attack(report, "a semicolon", spelled)
    assert (report.harmless, report.forged) == (1, [])
