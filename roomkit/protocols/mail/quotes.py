"""What somebody wrote, told apart from what they quote and how they sign. By rules, in the words of several languages.

Nothing is lost: what is cut is handed back as `quoted` and `signature`. In doubt everything is the message.
"""

from __future__ import annotations

import re

# "On Tue, 3 May 2030 at 10:00, Ada <ada@x.example> wrote:" as mail programs say it, over one to four lines.
_WROTE = re.compile(
    r"[ \t]*(?:>[ \t]*)?(?:(?:on|am|le|el|il|il giorno|op|den|em|a|dnia|w dniu|på|kl|pe|dne|tarihinde)\b.{0,300}?"
    r"\b(?:wrote|schrieb|schrieben|a écrit|escribió|ha scritto|schreef|skrev|escreveu|napisał(?:\(a\))?|kirjoitti|"
    r"napsal(?:\(a\))?)\b.{0,200}?:|"
    r".{3,200}\b(?:пишет|написал(?:\(а\)|а)?|писал|写道|写信|さんは書きました|yazdı|schrieb|wrote)\s?[:：])[ \t\xa0]*",
    re.IGNORECASE | re.DOTALL,
)
_ISO = re.compile(r"[ \t]*\d{4}[-/.年]\s?\d{1,2}[-/.月]\s?\d{1,2}.{0,150}<[^<>\n]{3,200}>\s?[:：]?[ \t]*")
_ANYBODY = re.compile(r".{3,300}<[^<>\s]{3,200}@[^<>\s]{3,200}>[\s,;]{0,3}[:：]")
_ORIGINAL = re.compile(
    r"[ \t>]*[-_*=]{2,60}[ \t]*(?:original message|ursprüngliche nachricht|originalnachricht|message d'origine|"
    r"message original|mensaje original|mensagem original|messaggio originale|oorspronkelijk bericht|"
    r"ursprungligt meddelande|oprindelig meddelelse|wiadomość oryginalna|původní zpráva|исходное сообщение|"
    r"原始邮件|原始郵件|元のメッセージ)[ \t]*[-_*=]{0,60}[ \t]*",
    re.IGNORECASE,
)
_RULE = re.compile(r"[ \t]*[_-]{20,200}[ \t]*")
_FROM = (
    "from|von|de|da|van|från|fra|lähettäjä|od|от|发件人|寄件者|差出人|보낸 사람|kimden|expéditeur|remitente|mittente"
)
_LABELS = (
    "sent|gesendet|datum|date|envoyé|enviado(?: el)?|fecha|inviato|data|verzonden|skickat|sendt|lähetetty|wysłano|"
    "odesláno|отправлено|дата|发送时间|寄件日期|送信日時|gönderme|to|an|à|para|a|aan|till|til|do|komu|кому|"
    "收件人|宛先|subject|betreff|objet|asunto|assunto|oggetto|onderwerp|ämne|emne|temat|předmět|тема|主题|主旨|件名|cc|"
    "kopie|konu|kime"
)
_FROM_LINE = re.compile(rf"[ \t>*]*(?:{_FROM})[ \t]?[:：]\**[ \t]?\S.*", re.IGNORECASE)
_LABEL_LINE = re.compile(rf"[ \t>*]*(?:{_LABELS})[ \t]?[:：]", re.IGNORECASE)
_QUOTED = re.compile(r"[ \t]*>")
_MOBILE = re.compile(
    r"[ \t]*(?:sent from (?:my|outlook|mail|yahoo|samsung)|von meinem .{2,40} gesendet|gesendet von|"
    r"envoyé de(?:puis)? mon|envoyé à partir de|enviado desde mi|enviado do meu|inviato da(?:l mio)?|"
    r"verzonden v(?:i|a)a?n? mijn|"
    r"skickat från min|wysłane z|get outlook for|отправлено с|发自我的|iphoneから送信).{0,80}",
    re.IGNORECASE,
)
_WINDOW = 4
_LONGEST_SIGNATURE = 15
_MOST_TRIES = 100  # a text made of lines that look like attributions is none


def split_reply(text: str) -> tuple[str, str, str]:
    """(what was written, what was quoted, the signature). A letter that is all quote is its own message."""
    lines = text.replace("\r\n", "\n").split("\n")
    cut, top = _border(lines)
    if cut is None:
        said, quoted = lines, list[str]()
    elif top:
        said, quoted = lines[:cut], lines[cut:]
    else:
        said, quoted = _around(lines, cut)
    if not any(line.strip() for line in said):
        return text.strip(), "", ""
    said, signature = _signed(said)
    if not any(line.strip() for line in said):
        said, signature = [*said, *signature], []
    return _joined(said), _joined(quoted), _joined(signature)


def _joined(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip()


def _border(lines: list[str]) -> tuple[int | None, bool]:
    """Where the quoting begins, and whether everything from there on is quoted."""
    tries = _MOST_TRIES
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        if _ORIGINAL.fullmatch(line) or _is_block(lines, at):
            return (at - 1 if at and _RULE.fullmatch(lines[at - 1]) else at), True
        tries -= line.rstrip().endswith((":", "：", ">"))
        if tries > 0 and (end := _attribution(lines, at)):
            # Beneath it is either a marked quote, perhaps with answers in between, or all the rest.
            rest = [one for one in lines[end:] if one.strip()]
            return at, not rest or not _QUOTED.match(rest[0])
        if _QUOTED.match(line):
            return at, False
    return None, False


def _is_block(lines: list[str], at: int) -> bool:
    """Outlook's head of the letter being answered: From, and at least two of Sent, To, Subject close beneath."""
    if not _FROM_LINE.fullmatch(lines[at]):
        return False
    return sum(_LABEL_LINE.match(line) is not None for line in lines[at + 1 : at + 7]) >= 2


def _attribution(lines: list[str], at: int) -> int:
    """The line behind an attribution which begins here, 0 where none does."""
    if len(lines[at]) > 600:
        return 0
    joined = ""
    for end in range(at, min(at + _WINDOW, len(lines))):
        if end > at and not lines[end].strip():
            return 0
        joined += (" " if joined else "") + lines[end].strip()[:400]
        if joined.endswith((":", "：", ">")) and (_WROTE.fullmatch(joined) or _ISO.fullmatch(joined)):
            return end + 1
        # In any language: somebody's address and a colon right above a marked quote.
        below = next((line for line in lines[end + 1 : end + 3] if line.strip()), "")
        if _QUOTED.match(below) and joined.endswith((":", "：")) and _ANYBODY.fullmatch(joined):
            return end + 1
    return 0


def _around(lines: list[str], cut: int) -> tuple[list[str], list[str]]:
    """A marked quote with words behind it: answers beneath are the message, those in between keep what they answer."""
    at = cut
    if not _QUOTED.match(lines[cut]):
        at = max(cut + 1, _attribution(lines, cut))
    blocks: list[tuple[bool, list[str]]] = []
    for line in lines[at:]:
        marked = _QUOTED.match(line) is not None
        if blocks and (blocks[-1][0] == marked or not line.strip()):
            blocks[-1][1].append(line)
        elif line.strip():
            blocks.append((marked, [line]))
    written = [block for marked, block in blocks if not marked]
    head = lines[:cut]
    if not written:
        return head, lines[cut:]
    answered = sum(marked for marked, _ in blocks)
    if len(written) == 1 and answered == 1 and not blocks[-1][0]:
        return [*head, *written[0]], lines[cut : len(lines) - len(written[0])]
    return lines, []


def _signed(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines up to the signature, and the signature: behind `-- `, or what a telephone adds at the end."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    for at in range(max(0, len(lines) - _LONGEST_SIGNATURE), len(lines)):
        if lines[at].rstrip("\r") in {"-- ", "--"} or lines[at] == "\u2014":
            return lines[:at], lines[at:]
    if lines and len(lines[-1]) < 200 and _MOBILE.fullmatch(lines[-1]):
        return lines[:-1], lines[-1:]
    return lines, []
