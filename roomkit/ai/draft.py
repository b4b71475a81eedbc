"""What is being said: the assistant's message while it is generated, and the speech of the whole reply."""

from __future__ import annotations

from dataclasses import dataclass

from roomkit.models.ai import Part, TextPart, ThinkingPart, ToolCallPart


@dataclass(slots=True)
class _Run:
    """Adjacent chunks of one kind, joined only once."""

    thinking: bool
    pieces: list[str]
    signature: str | None = None


class Draft:
    """The assistant's message while it is being generated, its parts in the order of their arrival."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[_Run | ToolCallPart] = []

    def add(self, text: str, *, thinking: bool, signature: str | None = None) -> None:
        last = self.parts[-1] if self.parts else None
        if isinstance(last, _Run) and last.thinking is thinking and last.signature is None:
            last.pieces.append(text)
            last.signature = signature
        else:
            self.parts.append(_Run(thinking, [text], signature))

    def finish(self, provider: str | None, *, with_calls: bool) -> tuple[Part, ...]:
        done: list[Part] = []
        for part in self.parts:
            if isinstance(part, ToolCallPart):
                if with_calls:
                    done.append(part)
            elif part.thinking:
                done.append(ThinkingPart(text="".join(part.pieces), signature=part.signature, provider=provider))
            else:
                done.append(TextPart(text="".join(part.pieces)))
        return tuple(done)


class Speech:
    """What the reply has said so far, as far as the rules need to know."""

    __slots__ = ("_open", "anything", "begun")

    def __init__(self) -> None:
        self.anything = False
        self.begun = False
        self._open = False

    def say(self, text: str) -> str:
        """The text as it is shown: what is said after a tool round starts a new paragraph."""
        shown = f"\n\n{text}" if not self.begun and self._open and not text[0].isspace() else text
        self.anything = self.begun = True
        self._open = not text[-1].isspace()
        return shown

    def pause(self) -> None:
        """The generation is over; the next one starts afresh."""
        self.begun = False
