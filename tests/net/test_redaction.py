from __future__ import annotations

import io
import logging

import pytest

from roomkit.net.redaction import RedactingHandler, redact, redact_logs, register_secret

CANARY = "c4n4ry-Secret_0123456789abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {CANARY}",
        f"authorization: Basic {CANARY}==",
        f"headers={{'authorization': 'Bearer {CANARY}', 'x': 1}}",
        f"{{'Authorization': '{CANARY}'}}",
        f'{{"access_token": "{CANARY}", "expires_in": 3600}}',
        f"GET https://x.example/cb?token={CANARY}&a=1",
        f"GET https://x.example/v1?key={CANARY}",
        f"GET https://x.example/v1?a=1&sig={CANARY}",
        f"https://user:{CANARY}@x.example/",
        f"https://{CANARY}@x.example/",
        f"api_key={CANARY}",
        f"X-Api-Key: {CANARY}",
        f"password: {CANARY}",
        f"client_secret={CANARY}",
        f"TWILIO_AUTH_TOKEN={CANARY}",
        f"Set-Cookie: {CANARY}; Path=/",
        f"(b'Authorization', b'Bearer {CANARY}')",
        f"key sk-{CANARY}",
        f"key sk_live_{CANARY}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY} cut off",
    ],
)
def test_secrets_are_found_by_their_shape(text: str):
    assert CANARY not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text", [JWT, "AKIAIOSFODNN7EXAMPLE", "xoxb-1234567890-abc", "ghp_" + "a" * 36, "AIza" + "b" * 35]
)
def test_vendor_keys_are_found_anywhere(text: str):
    assert text not in redact(f"the value {text} was refused")


@pytest.mark.parametrize(
    "text", ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "rk1.0a1b2c3d.eyJpZCI6ImEifQ.c2ln-_bmF0"]
)
def test_cards_and_our_own_tokens_are_found_anywhere(text: str):
    assert redact(f"somebody said {text}, twice: {text}.") == "somebody said ***, twice: ***."


@pytest.mark.parametrize(
    "text",
    [
        "room r1: committed index 7 in 3 ms",
        "HTTP Request: POST https://api.example.com/v1/messages?page=2 200 OK",
        "usage: input_tokens=12 output_tokens=7 max_tokens=1024",
        "dedupe key=whatsapp:wamid.123",
        "event 019e2ab0c1f4111111111111111 of 4111111111111112 at 18930000000000",
        "mail from ada@example.com about the basic plan",
    ],
)
def test_ordinary_lines_are_left_alone(text: str):
    assert redact(text) == text


def test_registered_values_are_masked_exactly_whatever_their_shape():
    register_secret("open sesame 77", None, "", "abc")
    assert redact("he said open sesame 77!") == "he said ***!"
    assert redact("abc") == "abc"


def test_log_records_of_children_are_masked_in_message_extra_and_traceback():
    register_secret("planted-canary-1")
    logger = logging.getLogger("redaction_test")
    redact_logs("redaction_test")
    redact_logs("redaction_test")
    assert sum(isinstance(h, RedactingHandler) for h in logger.handlers) == 1
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s %(url)s"))
    logging.getLogger().addHandler(handler)
    try:
        try:
            raise ValueError("planted-canary-1 in an exception")
        except ValueError:
            logging.getLogger("redaction_test.deep.child").exception(
                "sent %s", "planted-canary-1", extra={"url": "https://x/?token=planted"}
            )
        logging.getLogger("redaction_test").error("arguments %d do not fit", "planted-canary-1", extra={"url": ""})
    finally:
        logging.getLogger().removeHandler(handler)
    text = out.getvalue()
    assert "sent ***" in text
    assert "ValueError: *** in an exception" in text
    assert "planted" not in text


def test_where_nobody_listens_errors_reach_standard_error_masked(capsys: pytest.CaptureFixture[str]):
    register_secret("planted-canary-2")
    logger = logging.getLogger("redaction_test_alone")
    redact_logs("redaction_test_alone")
    logger.propagate = False
    logger.getChild("deep").error("the turn failed: %s", "planted-canary-2")
    logger.getChild("deep").info("not this")
    assert capsys.readouterr().err == "the turn failed: ***\n"
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    logger.error("somebody listens now")
    assert capsys.readouterr().err == ""
