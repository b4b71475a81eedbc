"""The message catalogue: every text that the framework itself shows to people (D29). Pure.

Languages: en, de, fr, es. An unknown language falls back to its parent (`fr-CA` to `fr`) and then to English.
"""

from __future__ import annotations

PHRASES: dict[str, dict[str, str]] = {
    "correction": {
        "en": "Correction: {text}",
        "de": "Korrektur: {text}",
        "fr": "Correction : {text}",
        "es": "Corrección: {text}",
    },
    "deleted": {
        "en": "[Message deleted]",
        "de": "[Nachricht gelöscht]",
        "fr": "[Message supprimé]",
        "es": "[Mensaje eliminado]",
    },
    "voice_message": {
        "en": "[Voice message]",
        "de": "[Sprachnachricht]",
        "fr": "[Message vocal]",
        "es": "[Mensaje de voz]",
    },
    "video": {"en": "[Video]", "de": "[Video]", "fr": "[Vidéo]", "es": "[Vídeo]"},
    "file": {"en": "[File]", "de": "[Datei]", "fr": "[Fichier]", "es": "[Archivo]"},
    "file_named": {
        "en": "[File: {name}]",
        "de": "[Datei: {name}]",
        "fr": "[Fichier : {name}]",
        "es": "[Archivo: {name}]",
    },
    "unknown": {
        "en": "[Message of a kind that cannot be shown here: {kind}]",
        "de": "[Nachricht, die hier nicht gezeigt werden kann: {kind}]",
        "fr": "[Message qui ne peut pas être affiché ici : {kind}]",
        "es": "[Mensaje que no se puede mostrar aquí: {kind}]",
    },
    "ai_disclosure": {
        "en": "You are talking to an AI assistant. Write “human” to reach a person.",
        "de": "Sie sprechen mit einem KI-Assistenten. Schreiben Sie „Mensch“, um eine Person zu erreichen.",
        "fr": "Vous parlez à un assistant IA. Écrivez « humain » pour joindre une personne.",
        "es": "Está hablando con un asistente de IA. Escriba «humano» para hablar con una persona.",
    },
    "human_requested": {
        "en": "A person has been asked to join. People waiting before you: {ahead}.",
        "de": "Eine Person wurde gerufen. Wartende vor Ihnen: {ahead}.",
        "fr": "Une personne a été appelée. Personnes en attente avant vous : {ahead}.",
        "es": "Se ha avisado a una persona. Personas en espera antes que usted: {ahead}.",
    },
    "human_closed": {
        "en": "Nobody is here right now. Your request is noted and a person will answer when we are open again.",
        "de": "Gerade ist niemand da. Ihre Anfrage ist notiert; eine Person antwortet, sobald wir wieder da sind.",
        "fr": "Personne n’est là pour le moment. Votre demande est notée ; on vous répondra à la réouverture.",
        "es": "Ahora no hay nadie. Su solicitud queda anotada y una persona responderá cuando volvamos a abrir.",
    },
    "call_filler": {
        "en": "One moment, please.",
        "de": "Einen Moment bitte.",
        "fr": "Un instant, s’il vous plaît.",
        "es": "Un momento, por favor.",
    },
    "call_reprompt": {
        "en": "Are you still there?",
        "de": "Sind Sie noch da?",
        "fr": "Êtes-vous toujours là ?",
        "es": "¿Sigue ahí?",
    },
    "call_apology": {
        "en": "I am sorry, that did not work. Please say it again.",
        "de": "Das hat leider nicht geklappt. Bitte sagen Sie es noch einmal.",
        "fr": "Désolé, cela n’a pas fonctionné. Pouvez-vous répéter ?",
        "es": "Lo siento, no ha funcionado. ¿Puede repetirlo?",
    },
    "call_again": {
        "en": "We were cut off. I am back: where were we?",
        "de": "Wir wurden unterbrochen. Ich bin wieder da: Wo waren wir?",
        "fr": "Nous avons été coupés. Me revoici : où en étions-nous ?",
        "es": "Se ha cortado. Ya estoy de vuelta: ¿por dónde íbamos?",
    },
    "call_transfer": {
        "en": "I am putting you through. One moment, please.",
        "de": "Ich verbinde Sie. Einen Moment bitte.",
        "fr": "Je vous mets en relation. Un instant, s’il vous plaît.",
        "es": "Le paso con una persona. Un momento, por favor.",
    },
    "call_briefing": {
        "en": "A caller for you. {summary}",
        "de": "Ein Anruf für Sie. {summary}",
        "fr": "Un appel pour vous. {summary}",
        "es": "Una llamada para usted. {summary}",
    },
    "call_last_words": {
        "en": "The last they said: {text}",
        "de": "Zuletzt gesagt: {text}",
        "fr": "Derniers mots : {text}",
        "es": "Lo último que ha dicho: {text}",
    },
    "digest": {
        "en": "{count} messages while you were away:",
        "de": "{count} Nachrichten in der Zwischenzeit:",
        "fr": "{count} messages entre-temps :",
        "es": "{count} mensajes mientras tanto:",
    },
    "digest_more": {
        "en": "… and {count} more",
        "de": "… und {count} weitere",
        "fr": "… et {count} autres",
        "es": "… y {count} más",
    },
    "consent_stop": {
        "en": "You will get no more messages from us here. Reply START to get them again.",
        "de": "Sie erhalten hier keine Nachrichten mehr von uns. Mit START erhalten Sie sie wieder.",
        "fr": "Vous ne recevrez plus de messages de notre part ici. Répondez START pour les recevoir à nouveau.",
        "es": "No recibirá más mensajes nuestros aquí. Responda START para volver a recibirlos.",
    },
    "consent_start": {
        "en": "You will get our messages here again. Reply STOP to end them.",
        "de": "Sie erhalten hier wieder Nachrichten von uns. Mit STOP beenden Sie das.",
        "fr": "Vous recevrez de nouveau nos messages ici. Répondez STOP pour ne plus les recevoir.",
        "es": "Volverá a recibir nuestros mensajes aquí. Responda STOP para dejar de recibirlos.",
    },
    "consent_help": {
        "en": "Reply STOP to get no more messages from us, START to get them again.",
        "de": "Mit STOP erhalten Sie keine Nachrichten mehr von uns, mit START erhalten Sie sie wieder.",
        "fr": "Répondez STOP pour ne plus recevoir nos messages, START pour les recevoir à nouveau.",
        "es": "Responda STOP para no recibir más mensajes nuestros, START para volver a recibirlos.",
    },
    "sender": {"en": "{name}: {text}", "de": "{name}: {text}", "fr": "{name} : {text}", "es": "{name}: {text}"},
}


def phrase(code: str, language: str = "en", **values: str) -> str:
    """The text for `code`; raises `KeyError` for a code that the catalogue does not have."""
    known = PHRASES[code]
    text = known.get(language) or known.get(language.split("-", maxsplit=1)[0].lower()) or known["en"]
    # One pass, so that braces inside a value stay what they are.
    return text.format(**values)
