"""Letters that no person wrote: bounces and read receipts (RFC 3464, 8098), automatic answers (RFC 3834), lists.

None of them may ever be answered: two programs that answer each other never end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from roomkit.protocols.mail.letter import Letter, ids

_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_FIELD = re.compile(r"^([A-Za-z-]{3,40}):[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_DAEMON = re.compile(r"(?:mailer-?daemon|postmaster|mail-?daemon|bounces?|mdaemon)(?:[+._-][^@]*)?@", re.IGNORECASE)
_ROBOT = re.compile(
    r"(?:no-?reply|do-?not-?reply|noreply|auto-?reply|autoresponder|notifications?|listserv|majordomo)"
    r"(?:[+._-][^@]*)?@",
    re.IGNORECASE,
)
_FAILED = re.compile(
    r"undeliver|delivery (?:status notification|failure|has failed|incomplete)|returned mail|mail delivery failed|"
    r"unzustellbar|nicht zugestellt|non remis|échec de la remise|no se pudo entregar|mancata consegna|onbestelbaar",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"(?:automatic reply|auto(?:matic)?[ -]?(?:reply|response|responder)|out of (?:the )?office|on vacation|"
    r"automatische (?:antwort|antwoord)|abwesenheit\w*|abwesend|réponse automatique|absence du bureau|"
    r"respuesta automática|fuera de la oficina|resposta automática|risposta automatica|fuori sede|autosvar|"
    r"automatiskt svar|odpowiedź automatyczna|автоответ|自动回复|自動返信|자동 회신)\b",
    re.IGNORECASE,
)
_LIST_HEADERS = ("list-id", "list-post", "list-unsubscribe", "feedback-id")
_LOOP_HEADERS = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-reply",
    "x-autoreply-from",
    "x-fc-machinegenerated",
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a bounce or a receipt says. `state` is "failed", "delayed", "delivered" or "read"; `message_id` names the
    letter it is about, where it says so; `status` is the enhanced code, e.g. 5.1.1."""

    state: str
    message_id: str | None
    recipient: str | None = None
    status: str | None = None
    reason: str | None = None


def report_of(letter: Letter) -> Report | None:
    """The report that a letter is, or None. Those in the standard's form, and plain bounces of mail daemons."""
    fields, original = _parts(letter)
    kind = letter.report_type or ("delivery-status" if "final-recipient" in fields or "action" in fields else None)
    if kind == "disposition-notification" or "disposition" in fields:
        said = fields.get("disposition", "").lower()
        about = next(iter(ids(fields.get("original-message-id", ""))), None) or original
        return Report("read" if "displayed" in said else "delivered", about, _recipient(fields))
    if kind == "delivery-status" and fields:
        state = _STATES.get(fields.get("action", "").strip().lower(), "failed")
        status = _STATUS.search(fields.get("status", "") + " " + fields.get("diagnostic-code", ""))
        reason = fields.get("diagnostic-code", "").partition(";")[2].strip() or letter.text
        code = status[1] if status else None
        return Report(state, original, _recipient(fields), code, _short(reason))
    if _DAEMON.match(letter.sender) and (_FAILED.search(letter.subject) or letter.header("x-failed-recipients")):
        status = _STATUS.search(letter.text)
        recipient = letter.header("x-failed-recipients").strip().lower() or None
        about = original or next(iter((*letter.in_reply_to, *reversed(letter.references))), None)
        return Report("failed", about, recipient, status[1] if status else None, _short(letter.text))
    return None


def automatic_kind(letter: Letter) -> str | None:
    """Why a letter must not be answered by a program: "auto-replied", "auto-generated", "list", "bulk" or "daemon";
    None for one that a person may have written."""
    submitted = letter.header("auto-submitted").partition(";")[0].strip().lower()
    if submitted and submitted != "no":
        return submitted if submitted in {"auto-generated", "auto-replied", "auto-notified"} else "auto-generated"
    if letter.header("return-path").strip() == "<>" or _DAEMON.match(letter.sender):
        return "daemon"
    if any(letter.header(name) for name in _LOOP_HEADERS) or _AWAY.match(letter.subject.strip()):
        return "auto-replied"
    if letter.header("x-auto-response-suppress").lower() in {"all", "oof"} and letter.header(
        "x-ms-exchange-inbox-rules-loop"
    ):
        return "auto-replied"
    precedence = letter.header("precedence").strip().lower()
    if precedence in {"bulk", "junk", "list", "auto_reply", "auto-reply"}:
        return "auto-replied" if precedence.startswith("auto") else precedence.replace("junk", "bulk")
    if any(letter.header(name) for name in _LIST_HEADERS):
        return "list"
    return "auto-generated" if _ROBOT.match(letter.sender) else None


_STATES = {
    "failed": "failed",
    "delayed": "delayed",
    "delivered": "delivered",
    "relayed": "relayed",
    "expanded": "relayed",
}


def _parts(letter: Letter) -> tuple[dict[str, str], str | None]:
    """The fields of a report (of its first recipient), and the id of the letter that it returns."""
    fields: dict[str, str] = {}
    original: str | None = None
    for file in letter.files:
        text = file.data[:200_000].decode("utf-8", "replace").replace("\r\n", "\n")
        if file.mime_type in {
            "message/delivery-status",
            "message/disposition-notification",
            "message/global-delivery-status",
        }:
            for name, value in _FIELD.findall(text):
                fields.setdefault(name.lower(), " ".join(value.split()))
        elif file.mime_type in {"message/rfc822", "text/rfc822-headers", "message/global-headers"} and original is None:
            head = text.lstrip().partition("\n\n")[0]
            found = (value for name, value in _FIELD.findall(head) if name.lower() == "message-id")
            original = next((one for value in found for one in ids(value)), None)
    return fields, original


def _recipient(fields: dict[str, str]) -> str | None:
    said = fields.get("final-recipient") or fields.get("original-recipient") or ""
    return said.partition(";")[2].strip(" <>").lower() or None


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
