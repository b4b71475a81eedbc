"""Keeping secrets out of logs and error texts.

Known secrets are masked exactly (`register_secret`), unknown ones by their shape: authorization headers, tokens in
query strings and JSON, passwords in URLs, keys in the vendors' own spelling, private keys, JWTs, our own tokens, and
the numbers of payment cards.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict

MASK = "***"
_MAX_SECRETS = 4096
_MIN_LENGTH = 8  # a shorter value may be a word: masking it would make every log unreadable
_secrets: OrderedDict[str, None] = OrderedDict()

# Few words before the name, so that a long text of dashes costs no more than its length.
_NAMES = (
    r"(?:[a-z0-9]{1,40}[_-]){0,6}"
    r"(?:authorization|cookie|api[_-]?key|token|secret|password|passwd|pwd|signature|sig|private[_-]?key)"
)
_PATTERNS = (
    re.compile(r"(?P<keep>\b(?:bearer|basic|digest)\s+)[\w\-.~+/=]{6,}", re.IGNORECASE),
    re.compile(
        rf"(?P<keep>\b(?:{_NAMES})\b['\"]?\s*[:=]\s*(?:b?['\"])?)(?!bearer|basic|digest)[^\s'\"&,;}}\])]+",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<keep>[?&]key=)[^\s'\"&]+", re.IGNORECASE),
    re.compile(r"(?P<keep>://)[^/\s@'\"]+(?=@)"),
    re.compile(
        r"(?P<keep>)(?:\b(?:sk|pk|rk)[-_][\w-]{12,}|\bAKIA[0-9A-Z]{16}\b|\bxox[a-z]-[\w-]{8,}|\bgh[a-z]_\w{16,}"
        r"|\bAIza[\w-]{30,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\brk1\.[\w-]+\.[\w-]+(?:\.[\w-]*)?"
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))",
        re.DOTALL,
    ),
)
_CARD = re.compile(r"(?<![\w.])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w.]\d)")
EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
PHONE = re.compile(
    r"(?<![\w+.])(?!\d{1,2}[./]\d{1,2}[./]\d{2,4}\b)"
    r"(?:(?:\+|00) ?\(?[1-9](?:[ ./()-]{0,3}\d){6,14}|\(0[1-9]\d{0,4}\)(?:[ ./-]{0,2}\d){5,10}"
    r"|0[1-9](?:[ ./()-]{0,2}\d){7,11}"
    r"|(?:1[ .-]?)?(?:\([2-9]\d{2}\)|[2-9]\d{2})[ .-]?[2-9]\d{2}[ .-]?\d{4})(?![\w-]|[.:]\d)"
)
"""International, national with its zero, and North American numbers; not any long number."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def register_secret(*values: str | None) -> None:
    """Mask these exact values wherever `redact` sees them; values under 8 characters are ignored.

    The 4,096 registered last are remembered.
    """
    for value in values:
        if value and len(value) >= _MIN_LENGTH:
            _secrets[value] = None
            _secrets.move_to_end(value)
    while len(_secrets) > _MAX_SECRETS:
        _secrets.popitem(last=False)


def redact(text: str) -> str:
    """`text` with every secret replaced by `***`."""
    # Shapes first: masking a known value must not take the name away by which the one beside it is recognised.
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<keep>{MASK}", text)
    for secret in tuple(_secrets):  # a copy: other threads may register while this one logs
        if secret in text:
            text = text.replace(secret, MASK)
    return _CARD.sub(_mask_card, text)


def _mask_card(match: re.Match[str]) -> str:
    """Others than cards stay readable."""
    return MASK if luhn(match[0]) else match[0]


def luhn(number: str) -> bool:
    """Whether the check digit is that of a payment card."""
    digits = [int(one) for one in number if one.isdecimal()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def redact_personal(text: str) -> str:
    """`text` without secrets and without anybody's email address or phone number: what may stand in a log."""
    return PHONE.sub(MASK, EMAIL.sub(MASK, redact(text)))


class RedactingHandler(logging.NullHandler):
    """Masks secrets in a record on its way up to the application's handlers; writes nothing itself, unless there are
    none: then warnings and errors go to standard error, as they would without this one.

    A handler rather than a filter, because a logger's filters do not see the records of its children.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit: the application's handler reports it
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact_personal(message), None
        if record.exc_info:
            record.exc_text = redact_personal(logging.Formatter().formatException(record.exc_info))
        for name, value in vars(record).items():
            if isinstance(value, str) and name not in _STANDARD:
                setattr(record, name, redact_personal(value))
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not _heard(record.name):
            last.handle(record)
        return True


def _heard(name: str) -> bool:
    """Whether the application has a handler for the records of this logger."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(not isinstance(handler, RedactingHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def redact_logs(*names: str) -> None:
    """Mask secrets in everything logged by these loggers and their children; calling it again changes nothing."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, RedactingHandler) for handler in logger.handlers):
            logger.handlers.insert(0, RedactingHandler())  # before the application's own, whenever those were added
