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
    "sender": {"en": "{name}: {text}", "de": "{name}: {text}", "fr": "{name} : {text}", "es": "{name}: {text}"},
}


def phrase(code: str, language: str = "en", **values: str) -> str:
    """The text for `code`; raises `KeyError` for a code that the catalogue does not have."""
    known = PHRASES[code]
    text = known.get(language) or known.get(language.split("-", maxsplit=1)[0].lower()) or known["en"]
    # One pass, so that braces inside a value stay what they are.
    return text.format(**values)
