"""Which letter answers which: our own message ids, and where they survive when mail programs lose the headers.

An id of ours is `rk` and 26 letters of an HMAC under the account's secret: nobody who has not seen the letter can name
it. It stands in Message-ID (so that answers carry it in In-Reply-To and References), and, as configured, behind a `+`
or in place of `{id}` in Reply-To, and as `[#rk...]` in the subject.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re

from roomkit.protocols.mail.letter import Letter

_MARK = re.compile(r"(?<![a-z0-9])(rk[a-z2-7]{26})(?![a-z0-9])")
_SUBJECT_MARK = re.compile(r"\[#(rk[a-z2-7]{26})\]", re.IGNORECASE)
_REPLY = re.compile(
    r"\s*(?:(?:re|aw|antw?|sv|r[eé]f?|rif|odp|vs|ynt|回复|答复|回覆)\s*(?:\[\d{1,3}\])?\s*[:：]\s*)+", re.IGNORECASE
)
PLACE = "{id}"


def mark_of(secret: bytes, *what: str) -> str:
    """The mark of a letter: the same for the same secret and `what`."""
    digest = hmac.new(secret, json.dumps(what).encode(), hashlib.sha256).digest()
    return "rk" + base64.b32encode(digest)[:26].decode().lower()


def thread_secret(given: str | None, fallback: str) -> bytes:
    """The secret of the marks: the one that was configured, or one made of the account's own key."""
    return hashlib.sha256(b"roomkit mail threads\0" + (given or fallback).encode()).digest()


def own_mark(ident: str | None, domain: str) -> str | None:
    """The mark in a message id of ours; None for a foreign one."""
    local, _, where = (ident or "").lower().rpartition("@")
    return local if where == domain.lower() and _MARK.fullmatch(local) else None


def own_marks(letter: Letter, domain: str) -> tuple[str, ...]:
    """The marks of ours which a letter carries, what it answers most directly first."""
    found: list[str] = []
    for address in letter.recipients:
        found += _MARK.findall(address)
    for ident in (*letter.in_reply_to, *reversed(letter.references)):
        found += filter(None, (own_mark(ident, domain),))
    found += (one.lower() for one in _SUBJECT_MARK.findall(letter.subject))
    return tuple(dict.fromkeys(found))


def answered_id(letter: Letter, domain: str) -> str | None:
    """The message id that a letter answers: one of ours, or else whatever it names itself."""
    marks = own_marks(letter, domain)
    if marks:
        return f"{marks[0]}@{domain}"
    return next(iter((*letter.in_reply_to, *reversed(letter.references))), None)


def marked_address(template: str, mark: str) -> str:
    """`help+{id}@shop.example` with the mark in its place; an address without the place stays as it is."""
    return template.replace(PLACE, mark)


def reply_subject(subject: str) -> str:
    """`Re: ` and the subject without what answers before put there."""
    return f"Re: {bare_subject(subject)}".strip()


def bare_subject(subject: str) -> str:
    """The subject without `Re:` and its kin, and without a mark of ours."""
    return _REPLY.sub("", _SUBJECT_MARK.sub("", subject), count=1).strip()
