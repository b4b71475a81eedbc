"""Letters as they come off the wire, for tests of whoever reads them."""

from __future__ import annotations

from itertools import count

ADA = "ada@x.example"
HELP = "help@shop.example"
_NUMBERS = count(1)


def letter(
    text: str,
    *,
    sender: str = ADA,
    to: str = HELP,
    subject: str = "A question",
    kind: str = "",
    body: str = "",
    **headers: str,
) -> bytes:
    """A letter; further headers are given with underlines. `kind` and `body` replace the plain text."""
    lines = {
        "From": sender,
        "To": to,
        "Subject": subject,
        "Message-ID": f"<letter-{next(_NUMBERS)}@x.example>",
        "Date": "Tue, 01 Jan 2030 00:00:00 +0000",
        "MIME-Version": "1.0",
        "Content-Type": kind or "text/plain; charset=utf-8",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    # Those of a receiving mail server stand on top.
    top = [name for name in lines if name in {"Authentication-Results", "Return-Path", "Delivered-To"}]
    order = [*top, *(name for name in lines if name not in top)]
    head = "".join(f"{name}: {lines[name]}\r\n" for name in order)
    return f"{head}\r\n{body or text}\r\n".encode()


def bounce(
    message_id: str, *, action: str = "failed", status: str = "5.1.1", reason: str = "550 no such user"
) -> bytes:
    """What a mail server reports of a letter (RFC 3464)."""
    about = f"Final-Recipient: rfc822; {ADA}\r\nAction: {action}\r\nStatus: {status}\r\nDiagnostic-Code: smtp; {reason}"
    parts = (
        "Content-Type: text/plain\r\n\r\nYour letter could not be delivered.",
        f"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.x.example\r\n\r\n{about}\r\n",
        f"Content-Type: message/rfc822\r\n\r\nMessage-ID: <{message_id}>\r\nSubject: Hello\r\n\r\nhello",
    )
    body = "".join(f"--xx\r\n{part}\r\n" for part in parts) + "--xx--\r\n"
    return letter(
        "",
        sender="MAILER-DAEMON@mx.x.example",
        subject="Undelivered Mail Returned to Sender",
        kind='multipart/report; report-type=delivery-status; boundary="xx"',
        body=body,
        Auto_Submitted="auto-replied",
    )
