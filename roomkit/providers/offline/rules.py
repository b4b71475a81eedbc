"""What the stand-in understands and says, as data: clauses that call tools, and words that are answered with words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WHO = "I am roomkit's built-in offline stand-in, not a language model."
SKILLS = 'Ask me for the time, "where is order 1042?", "12 * 7", "refund order 1042", for a story, or for a person.'
NO_TOOLS = "I have no tools here, so all I can do is tell a story; give me some to see more."
STORY = (
    "Once upon a time there was a room with four doors. Through the first came letters, through the second came "
    "voices, through the third came a small machine that wanted to help, and the fourth was kept for somebody who "
    "could say no.\n\n"
    "At first everybody spoke at once. The letters overtook the voices, the machine answered questions nobody had "
    "asked, and in the evening no two of them agreed on what had been said. So the room began to keep a book. One "
    "line for each thing that happened, each line with a number, and no number ever used twice.\n\n"
    "It was a plain book, but it changed the room. Who came late read the lines they had missed. Who was "
    "interrupted found the page where they had stopped. One night the lamp fell over and the room went dark in "
    "the middle of a sentence; when the light came back the book lay open, and the last line said: here we were.\n\n"
    "The machine liked the book best of all. It had always feared forgetting. Now it would write down what it was "
    "about to do, do it, and write down what came of it, and when somebody at the fourth door shook their head, "
    "it stopped, even in the middle of a word, and was not offended.\n\n"
    "Years went by. The letters grew short, the voices grew clear, and visitors said that it was a good room to "
    "talk in. Asked for its secret, the room was silent for a while. Then it turned the book to its first page, "
    "where the very first line said only this: hello, is anybody there? And under it, with the number two: yes. "
    "Everybody is."
)

_ZONES = {
    "london": "Europe/London",
    "paris": "Europe/Paris",
    "berlin": "Europe/Berlin",
    "new york": "America/New_York",
    "tokyo": "Asia/Tokyo",
    "sydney": "Australia/Sydney",
}
_NUMBER = r"\(*\s*-?\d+(?:\.\d+)?\s*\)*"
_OPERATION = r"\s*(?:\*\*|//|[*/x×÷%^+]|\s-\s|\btimes\b|\bplus\b|\bminus\b|\bdivided by\b)\s*"
_SPOKEN = {"x": "*", "×": "*", "÷": "/", "^": "**", "times": "*", "plus": "+", "minus": "-", "divided by": "/"}
CLAUSES = re.compile(r"[?!;]+|[.,](?=\s|$)|\band\b|\balso\b", re.IGNORECASE)
_PERSON = r"\b(?:human|agent|operator|representative|(?:real|a) person|(?:somebody|someone) real)\b"
NOTE = "Note from the team: "
HINTED = "(My team has given me a hint.)"
GUIDED = "(I go by what my supervisor asked of me.)"


def _clock_call(match: re.Match[str]) -> dict[str, Any]:
    place = (match["place"] or "").strip().lower()
    return {"zone": _ZONES[place]} if place in _ZONES else {}


def _sum_call(match: re.Match[str]) -> dict[str, Any]:
    expression = match[0].strip().lower()
    for spoken, written in _SPOKEN.items():
        expression = expression.replace(spoken, written)
    return {"expression": re.sub(r"\s+", " ", expression)}


def _order_call(match: re.Match[str]) -> dict[str, Any]:
    return {"number": int(match["number"])}


def _told_time(result: dict[str, Any]) -> str:
    return f"It is {result.get('time')} on {result.get('date')} ({result.get('zone')})."


def _told_order(result: dict[str, Any]) -> str:
    number = result.get("number")
    if not result.get("found"):
        return f"I cannot find an order {number}. Is the number right?"
    return f"Order {number} ({result.get('item')}) is {result.get('status')}; expected: {result.get('expected')}."


def _told_sum(result: dict[str, Any]) -> str:
    return f"That makes {result.get('value')}."


def _told_refund(result: dict[str, Any]) -> str:
    return f"Order {result.get('number')} is refunded: {result.get('refunded')}, reference {result.get('reference')}."


def _human_call(_: re.Match[str]) -> dict[str, Any]:
    return {"reason": "The user asks for a person."}


def _told_human(_: dict[str, Any]) -> str:
    return "I have asked a person to join us. Please stay; I cannot say how long it takes."


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A clause that matches calls the tool, if it is on offer; its result is told in words."""

    tool: str
    pattern: re.Pattern[str]
    arguments: Callable[[re.Match[str]], dict[str, Any]]
    told: Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True)
class TalkRule:
    pattern: re.Pattern[str]
    answer: str


def _re(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# The first tool rule that matches a clause has it.
TOOL_RULES = (
    ToolRule("refund_order", _re(r"\b(?:refund|money back)\b.*?#?(?P<number>\d{1,9})\b"), _order_call, _told_refund),
    ToolRule(
        "find_order", _re(r"\b(?:order|where is|track)\b\D{0,20}#?(?P<number>\d{1,9})\b"), _order_call, _told_order
    ),
    ToolRule("calculator", _re(rf"(?<![\w.]){_NUMBER}(?:{_OPERATION}{_NUMBER})+"), _sum_call, _told_sum),
    ToolRule(
        "clock",
        _re(r"\b(?:what(?:'s| is)? (?:the )?(?:time|date|day)|the time|what day)\b(?:.*?\bin (?P<place>[a-z ]+))?"),
        _clock_call,
        _told_time,
    ),
    ToolRule(
        "request_human",
        _re(rf"^(?!.*\bare you\b).*{_PERSON}"),
        _human_call,
        _told_human,
    ),
)
TALK_RULES = (
    TalkRule(_re(r"\bstory\b"), STORY),
    TalkRule(_re(r"\b(?:who|what) are you\b|\bare you (?:real|human|an? (?:ai|bot|robot))\b"), f"{WHO} {SKILLS}"),
    TalkRule(_re(r"\b(?:help|what can you do)\b"), SKILLS),
    TalkRule(_re(r"\b(?:thanks|thank you|cheers)\b"), "You are welcome."),
    TalkRule(_re(r"\b(?:bye|goodbye|see you)\b"), "Goodbye! This room keeps everything we said."),
    TalkRule(_re(r"\b(?:hi|hello|hey|good (?:morning|afternoon|evening))\b"), f"Hello! {WHO} {SKILLS}"),
    TalkRule(_re(_PERSON), "Nobody can be called from here, I am afraid."),
    TalkRule(_re(r"\brefund\b"), 'Which order? Say "refund order 1042".'),
)
FALLBACK = f"I did not understand that: {WHO} {SKILLS}"
