"""The corpus: what is a keyword, on which channel, and what only looks like one."""

from __future__ import annotations

import pytest

from roomkit.core.keywords import keyword
from roomkit.models.consent import ConsentPolicy, Keyword

POLICY = ConsentPolicy()
STOPS = """STOP|stop|Stop!|STOP.|"stop"|“Stop”|«stop»|¡stop!|stop 🛑|  stop  |ＳＴＯＰ|s\u200btop|stop!!!|(stop)
Stop…|stop all|STOPALL|stop-all|Unsubscribe|UNSUBSCRIBE.|opt out|Opt-Out|OPTOUT|/stop|Stopp|stopp!
Abmelden|ABBESTELLEN.|austragen|Arrêt|ARRET|arrêter|Désabonner|DESABONNEMENT|désinscription|Parar
darse de baja|DARME DE BAJA.|cancelar suscripción"""
CARRIER_STOPS = "Cancel|END|quit|revoke|ende|Fin.|BAJA|alto|cancelar"
STARTS = "START|start!|UNSTOP|Subscribe|opt in|Anmelden|reprendre|s’abonner|iniciar|Inicio|/start"
SENTENCES = """please stop|Stop it|stop calling me names|don't stop|the bus stop|stop by at 5
I want to stop smoking|nonstop|STOP AND SHOP|Can you stop the order 1042?|unsubscribe from what?
stop1|1 stop|st op|sto|s.t.o.p|stopping|cancel my order|the end|end of story|quit smoking|yes please
ja|Bitte stoppen Sie den Auftrag|wann hält der Bus am Stop?|je veux arrêter demain|c’est la fin
la temperatura es baja|voz alta|no quiero parar|help me|I need help|information
Hilfe mit der Rechnung|startup|restart|🛑|👍|...||   |stop stop|/stopwatch|stop stopp"""


@pytest.mark.parametrize("text", [*STOPS.replace("\n", "|").split("|"), *CARRIER_STOPS.split("|")])
def test_a_stop_is_heard_on_a_phone(text: str) -> None:
    for channel_type in ("sms", "rcs"):
        found = keyword(text, channel_type, POLICY)
        assert found is not None
        assert found[0] is Keyword.STOP


@pytest.mark.parametrize("text", STARTS.split("|"))
def test_a_start_is_heard(text: str) -> None:
    found = keyword(text, "telegram", POLICY)
    assert found is not None
    assert found[0] is Keyword.START


@pytest.mark.parametrize("text", SENTENCES.replace("\n", "|").split("|"))
@pytest.mark.parametrize("channel_type", ["sms", "whatsapp", "email"])
def test_a_sentence_is_none(text: str, channel_type: str) -> None:
    assert keyword(text, channel_type, POLICY) is None


@pytest.mark.parametrize("text", [*CARRIER_STOPS.split("|"), "yes", "help", "INFO", "Hilfe", "aide", "ayuda"])
def test_what_people_say_to_a_bot_is_a_keyword_only_on_a_phone(text: str) -> None:
    assert keyword(text, "sms", POLICY) is not None
    for channel_type in ("whatsapp", "email", "telegram", "messenger"):
        assert keyword(text, channel_type, POLICY) is None


def test_the_language_of_the_word_is_known_where_only_one_has_it() -> None:
    assert keyword("Arrêt", "sms", POLICY) == (Keyword.STOP, "fr")
    assert keyword("ABMELDEN", "sms", POLICY) == (Keyword.STOP, "de")
    assert keyword("stop", "sms", POLICY) == (Keyword.STOP, "")
    assert keyword("info", "sms", POLICY) == (Keyword.HELP, "")


def test_languages_are_chosen_and_words_are_added() -> None:
    only = ConsentPolicy(languages=("en",), keywords={"Tchüss!": Keyword.STOP})
    assert keyword("Abmelden", "sms", only) is None
    assert keyword("TCHÜSS", "whatsapp", only) == (Keyword.STOP, "")
