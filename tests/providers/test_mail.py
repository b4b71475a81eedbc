"""What all email providers have in common: no body breaks them, and what they make of one keeps to the models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomkit.models.delivery import DeliveryStatus, InboundMessage, WebhookRequest
from roomkit.providers.elasticemail.email import ElasticEmailProvider
from roomkit.providers.sendgrid.email import SendGridProvider
from roomkit.providers.smtp.email import SMTPOptions, SMTPProvider
from roomkit.testing.vendors.elasticemail import FakeElasticEmail
from roomkit.testing.vendors.sendgrid import FakeSendGrid


class Stopped:
    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


CLOCK = Stopped()
SENDGRID, ELASTIC = FakeSendGrid(clock=CLOCK), FakeElasticEmail(clock=CLOCK)
PROVIDERS: dict[str, Any] = {
    "sendgrid": SendGridProvider(SENDGRID.options(), clock=CLOCK, transport=SENDGRID.transport()),
    "elasticemail": ElasticEmailProvider(ELASTIC.options(), clock=CLOCK, transport=ELASTIC.transport()),
    "smtp": SMTPProvider(SMTPOptions("127.0.0.1", security="none", webhook_secrets=("x" * 16,)), clock=CLOCK),
}
WORDS = st.sampled_from(
    [
        *(
            b"--b\r\n",
            b"--b--\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"=",
            b"&",
            b"{",
            b"}",
            b"[",
            b"]",
            b'"',
            b":",
            b",",
            b"null",
            b"1e999",
        ),
        *(
            b'Content-Disposition: form-data; name="email"\r\n\r\n',
            b'Content-Disposition: form-data; name="headers"\r\n\r\n',
        ),
        *(
            b'name="charsets"',
            b'{"text": "no such charset"}',
            b'"envelope"',
            b'"event"',
            b'"delivered"',
            b'"sg_message_id"',
        ),
        *(
            b"from_email=",
            b"body_html=",
            b"att1_name=a&att1_content=%",
            b"header_list=From: a@b.c",
            b"status=Sent",
            b"messageid=1",
        ),
        *(
            b"From: a@x.example\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"\xff",
            b"\x00",
            b"\\ud800",
            b"<p>",
            b"x",
        ),
    ]
)


@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("name", PROVIDERS)
@given(
    body=st.one_of(st.lists(WORDS, max_size=30).map(b"".join), st.binary(max_size=200)),
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=b", ""]),
)
def test_no_body_breaks_a_provider(name: str, body: bytes, kind: str):
    provider = PROVIDERS[name]
    request = provider.sign(
        WebhookRequest("POST", "https://rooms.example/webhooks/email", {"content-type": kind}, body)
    )
    provider.verify(request)
    found = provider.parse(request, "email")
    assert found or not body
    assert found == provider.parse(request, "email")
    for item in found:
        item.model_dump_json()
        if isinstance(item, InboundMessage):
            assert item.external_id
            assert item.sender_id
            assert len(item.external_id) <= 500
        else:
            assert isinstance(item, DeliveryStatus)
            assert item.provider_message_id
