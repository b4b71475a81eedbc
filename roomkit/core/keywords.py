"""STOP, START and HELP: a message counts as one when the whole of it is a keyword, whatever its case and its marks.

A phone's messages have the words that carriers know. Elsewhere people say "cancel" or "end" to a bot and mean their
order: only words that cannot mean anything else count there. Pure.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from roomkit.models.consent import ConsentPolicy, Keyword, family
from roomkit.models.room import ChannelType

_LONGEST = 40
STOP: dict[str, str] = {
    "en": "stop|stop all|stopall|unsubscribe|opt out|optout|unsubscribe me|stop messaging me",
    "de": "stop|stopp|abmelden|abbestellen|austragen|nicht mehr schreiben",
    "fr": "stop|arret|arreter|desabonner|desabonnement|desinscrire|desinscription|me desabonner",
    "es": "stop|parar|darse de baja|darme de baja|cancelar suscripcion|no mas mensajes",
}
START: dict[str, str] = {
    "en": "start|unstop|subscribe|opt in|optin|resume",
    "de": "start|anmelden|wieder anmelden",
    "fr": "start|reprendre|s abonner|reabonner",
    "es": "start|iniciar|inicio|reanudar|darse de alta",
}
CARRIER: dict[Keyword, dict[str, str]] = {
    Keyword.STOP: {"en": "cancel|end|quit|revoke", "de": "ende", "fr": "fin", "es": "baja|alto|cancelar|detener"},
    Keyword.START: {"en": "yes", "es": "alta"},
    Keyword.HELP: {"en": "help|info", "de": "hilfe|info", "fr": "aide|info", "es": "ayuda|info"},
}
"""What only means this in a text message; elsewhere who asks for help asks the bot."""


def keyword(text: str, channel_type: str, policy: ConsentPolicy) -> tuple[Keyword, str] | None:
    """What the message says, and in which language; None for anything else."""
    if len(text) > _LONGEST:
        return None
    word = bare(text)
    if not word:
        return None
    own = {bare(name): kind for name, kind in policy.keywords.items()}
    if word in own:
        return own[word], ""
    return _known(policy.languages, family(channel_type) == ChannelType.SMS).get(word)


@lru_cache(maxsize=64)
def _known(languages: tuple[str, ...], carrier: bool) -> dict[str, tuple[Keyword, str]]:
    """A word that several languages share is nobody's language."""
    found: dict[str, tuple[Keyword, str]] = {}
    none: dict[str, str] = {}
    for kind, table in ((Keyword.STOP, STOP), (Keyword.START, START), (Keyword.HELP, none)):
        for language in languages:
            words = table.get(language, "").split("|")
            words += CARRIER[kind].get(language, "").split("|") if carrier else []
            for word in words:
                if word:
                    found[word] = (kind, "" if word in found else language)
    return found


def bare(text: str) -> str:
    """The words alone: without case, accents, marks and pictures."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = [_letter(sign) for sign in plain if unicodedata.category(sign) not in ("Mn", "Me", "Cf")]
    return " ".join("".join(kept).split())


def _letter(sign: str) -> str:
    """Punctuation and pictures part words, as spaces do."""
    return sign if unicodedata.category(sign)[0] in "LN" else " "
