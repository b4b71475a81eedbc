"""Ahead: a provider that begins to answer before the turn is over, and has done nothing when it guessed wrong.

Only the model is asked ahead. What it says waits in memory until the room asks for exactly the same; then it is the
answer, and only then do its tool calls run. A question that comes out differently gets a generation of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from roomkit.ai.budget import Budget
from roomkit.ai.named import provider_named
from roomkit.models.ai import COUNTERS, AIEvent, AIMessage, AIProfile, AIRequest, Finished, TextChunk, TextPart
from roomkit.ports.ai import AIProvider
from roomkit.runtime import Scope, Wakeup

Key = tuple[str, str]
MOST_DROPPED = 8
"""Messages that may have fallen out of the window of the past since the last question."""


@dataclass(eq=False, slots=True)
class _Talk:
    """A room that is listened to: what the model was last asked there, and what it said."""

    asked: AIRequest | None = None
    said: str = ""
    guess: _Guess | None = None
    guesses: int = 0


@dataclass(eq=False, slots=True)
class _Guess:
    """A generation that nobody has asked for yet."""

    text: str
    request: AIRequest
    scope: Scope
    events: list[AIEvent] = field(default_factory=list[AIEvent])
    error: Exception | None = None
    over: bool = False
    wake: Wakeup = field(default_factory=Wakeup)

    async def run(self, provider: AIProvider) -> None:
        try:
            async with aclosing(cast("Any", provider.stream(self.request))) as stream:
                async for event in stream:
                    self.events.append(event)
                    self.wake.set()
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the reply that adopts the guess
            self.error = error
        self.over = True
        self.wake.set()

    async def taken(self) -> AsyncGenerator[AIEvent]:
        """What was said so far, and the rest as it comes."""
        try:
            given = 0
            while True:
                while given < len(self.events):
                    yield self.events[given]
                    given += 1
                if self.over:
                    if self.error is not None:
                        raise self.error
                    return
                await self.wake.wait()
        finally:
            await self.scope.aclose()


class Ahead:
    """An `AIProvider` around another one, for `AIChannel` and, as `ahead=`, for `VoiceOptions`.

    `most` bounds the guesses for one turn: each is paid for. `used` and `wasted` count them. Nothing is guessed for the
    first turn of a call, nor where the channel's budget is used up; a wasted guess that came to its end is in that
    budget, of one that was cut off no vendor tells the price.
    """

    def __init__(self, provider: AIProvider | str, *, most: int = 2) -> None:
        self._own = isinstance(provider, str)
        self._provider: AIProvider = provider_named(provider) if isinstance(provider, str) else provider
        self._most = most
        self._talks: dict[Key, _Talk] = {}
        self._scope = Scope("guesses")
        self._budget: Budget | None = None
        self.used = self.wasted = 0

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def profile(self) -> AIProfile:
        return self._provider.profile

    @property
    def model(self) -> str | None:
        return getattr(self._provider, "model", None)

    def charge(self, budget: Budget) -> None:
        """Guesses keep to these limits; `AIChannel.configure(budget=...)` says so to its provider."""
        self._budget = budget

    # -- what a call does ---------------------------------------------------------------------------------------------

    def attend(self, tenant: str, room_id: str) -> None:
        """Listens to a room from now on."""
        self._talks.setdefault((tenant, room_id), _Talk())

    def leave(self, tenant: str, room_id: str) -> None:
        """Stops that, and what was guessed in it."""
        talk = self._talks.pop((tenant, room_id), None)
        if talk is not None:
            self._drop(talk, (tenant, room_id))

    def foresee(self, tenant: str, room_id: str, text: str) -> None:
        """The next words of the caller are likely to be `text`. Returns at once."""
        talk = self._talks.get((tenant, room_id))
        if talk is None or talk.asked is None or talk.guesses >= self._most or not text:
            return
        if talk.guess is not None and talk.guess.text == text:
            return
        request = _expected(talk.asked, talk.said, text)
        if request is None:
            return
        self._drop(talk, (tenant, room_id))
        if self._budget is not None and self._budget.refusal(tenant, room_id, "tokens", "money"):
            return
        talk.guesses += 1
        guess = talk.guess = _Guess(text, request, Scope("guess"))
        guess.scope.spawn(guess.run(self._provider), name="guess")

    # -- AIProvider ---------------------------------------------------------------------------------------------------

    async def stream(self, request: AIRequest) -> AsyncIterator[AIEvent]:
        key = (request.metadata.get("tenant", ""), request.metadata.get("room_id", ""))
        talk = self._talks.get(key)
        events = self._events(talk, key, request)
        said: list[str] = []
        async with aclosing(cast("Any", events)) as stream:
            async for event in stream:
                if isinstance(event, TextChunk):
                    said.append(event.text)
                if isinstance(event, Finished) and talk is not None:
                    talk.asked, talk.said, talk.guesses = request, "".join(said), 0
                yield event

    def _events(self, talk: _Talk | None, key: Key, request: AIRequest) -> AsyncIterator[AIEvent]:
        guess = talk.guess if talk is not None else None
        if talk is None or guess is None or not _same(guess.request, request):
            if talk is not None:
                self._drop(talk, key)
            return self._provider.stream(request)
        talk.guess = None
        self.used += 1
        return guess.taken()

    def _drop(self, talk: _Talk, key: Key) -> None:
        guess, talk.guess = talk.guess, None
        if guess is None:
            return
        self.wasted += 1
        guess.scope.cancel()
        for event in guess.events:
            if self._budget is not None and isinstance(event, Finished):
                self._budget.spend_tokens(*key, {c: getattr(event.usage, c) for c in COUNTERS}, event.model)

    async def aclose(self) -> None:
        for key, talk in self._talks.items():
            self._drop(talk, key)
        self._talks.clear()
        if self._own:
            await self._provider.aclose()


def _expected(asked: AIRequest, said: str, text: str) -> AIRequest | None:
    """The question that follows `asked`, if it goes on as it did: its answer, and then `text`, written as the last
    words were. None when the last word was not a person's."""
    last = asked.messages[-1] if asked.messages else None
    if last is None or last.role != "user" or not said or not all(isinstance(part, TextPart) for part in last.parts):
        return None
    answer = AIMessage(role="assistant", parts=(TextPart(text=said),))
    words = AIMessage(role="user", parts=(TextPart(text=text),), name=last.name)
    return asked.model_copy(update={"messages": (*asked.messages, answer, words)})


def _same(guessed: AIRequest, asked: AIRequest) -> bool:
    """Whether the model was asked just this. Who is asked about less of the past than the guess knew is served, too."""
    if guessed.model_copy(update={"messages": ()}) != asked.model_copy(update={"messages": ()}):
        return False
    known, wanted = [_told(m) for m in guessed.messages], [_told(m) for m in asked.messages]
    dropped = len(known) - len(wanted)
    return 0 <= dropped <= MOST_DROPPED and len(wanted) >= 1 and known[dropped:] == wanted


def _told(message: AIMessage) -> tuple[Any, ...]:
    """A message as the model sees it; text in several pieces is one text."""
    texts = [part for part in message.parts if isinstance(part, TextPart)]
    rest = tuple(part for part in message.parts if not isinstance(part, TextPart))
    return message.role, message.name, "".join(part.text for part in texts).strip(), rest
