"""Conversation: the platform's side of one call as a machine. It is told frames and what the room says, and answers
with what to do and what to send. It waits for nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from roomkit.protocols.agentkit.agent import AgentKitAgent
from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb
from roomkit.protocols.agentkit.values import unpacked

APOLOGY = "I am sorry, something went wrong. Please say that again."


@dataclass(frozen=True, slots=True)
class Begin:
    """The call has begun: which conversation, with whom, and what the platform knows of them."""

    conversation_id: int
    phone: str | None
    user_id: str | None
    assistant_id: int | None
    details: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Say:
    """The caller has said something. `interrupts` tells that an answer was under way."""

    message_id: str
    text: str
    interrupts: bool


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The caller has broken into the answer."""


@dataclass(frozen=True, slots=True)
class Send:
    frame: pb.TalkOutput


Act = Begin | Say | Interrupt | Send


class Conversation:
    """One call. `hear` takes the platform's frames, the others what happens in the room; all answer with acts, in
    order. Answers carry the id of what they answer, as the platform drops all others."""

    def __init__(self, *, most_text: int = 16_000) -> None:
        self.frames = AgentKitAgent()
        self.begun = False
        self.current = ""
        """The id of what the caller said last."""
        self._most_text = most_text
        self._conversation: int = 0
        self._answered = True
        self._told: dict[str, list[str]] = {}
        self._dropped: set[str] = set()
        self._directives: list[tuple[bool, str, str, dict[str, Any]]] = []

    # -- the platform ---------------------------------------------------------------------------------------------

    def hear(self, frame: pb.TalkInput) -> list[Act]:
        """Frames of kinds that nobody knows here, figures and notes change nothing."""
        match frame.WhichOneof("request"):
            case "initialization":
                return self._begin(frame.initialization)
            case "configuration":
                return [Send(self.frames.configuration_response(frame.configuration))]
            case "message":
                return self._message(frame.message)
            case "interruption":
                return self._interrupted(frame.interruption.id)
            case _:
                return []

    def _begin(self, frame: pb.ConversationInitialization) -> list[Act]:
        conversation = frame.assistantConversationId
        if self.begun and conversation != self._conversation:
            return [self._refuse(409, "a stream carries one conversation; open another stream for another one")]
        ack = Send(self.frames.initialization_response(frame))
        if self.begun:
            return [ack]
        self.begun, self._conversation = True, conversation
        who = frame.WhichOneof("userIdentity")
        details = {
            name: value
            for name, values in (("metadata", frame.metadata), ("args", frame.args), ("options", frame.options))
            if (value := unpacked(values))
        }
        begin = Begin(
            conversation,
            frame.phone.phoneNumber or None if who == "phone" else None,
            frame.web.userId or None if who == "web" else None,
            frame.assistant.assistantId if frame.HasField("assistant") else None,
            details,
        )
        return [begin, ack]

    def _message(self, message: pb.ConversationUserMessage) -> list[Act]:
        if not self.begun:
            return [self._refuse(400, "the first frame of a stream must be its initialization")]
        if message.WhichOneof("message") != "text":
            return [self._refuse(501, "this agent takes text: set the assistant's stream mode to text")]
        if len(message.text) > self._most_text:
            return [self._final(message.id, "That was too much at once. Please say it in fewer words.")]
        if message.id and message.id == self.current:
            return []  # The same message once more: it is being answered, or was.
        interrupts = not self._answered
        self._drop_open()
        self.current, self._answered = message.id, False
        return [Say(message.id, message.text, interrupts)] if message.text.strip() else []

    def _interrupted(self, message_id: str) -> list[Act]:
        if self._answered or message_id not in ("", self.current):
            return []
        self._drop_open()
        self._answered = True
        return [Interrupt()]

    def _drop_open(self) -> None:
        """Nothing more is sent of answers under way."""
        self._dropped.update(self._told)
        self._told.clear()

    # -- the room -------------------------------------------------------------------------------------------------

    def grows(self, stream_id: str, delta: str) -> list[Act]:
        """A part of a reply. Of several replies at once the first is told while it grows, the others when they end."""
        if stream_id in self._dropped or not self.begun or not delta:
            return []
        if stream_id not in self._told and (self._told or self._answered):
            return []
        self._told.setdefault(stream_id, []).append(delta)
        return [Send(self.frames.assistant_response(self.current, delta))]

    def said(self, event_id: str, text: str) -> list[Act]:
        """A whole message of the room, the end of a growing one too. What answers nothing is heard all the same."""
        told = self._told.pop(event_id, None)
        if event_id in self._dropped:
            self._dropped.discard(event_id)
            return self._direct()
        if not self.begun or not text:
            return self._direct()
        if told is None and (self._answered or self._told):
            # An empty id is let through whatever the platform takes for the current turn.
            return [self._final("", text), *self._direct()]
        self._answered = True
        return [self._final(self.current, text), *self._direct()]

    def withdrawn(self, stream_id: str) -> list[Act]:
        """A reply that was being told has come to nothing."""
        self._dropped.discard(stream_id)
        if self._told.pop(stream_id, None) is None:
            return []
        self._answered = True
        return [self._final(self.current, APOLOGY), *self._direct()]

    def tool(self, call_id: str, name: str, arguments: dict[str, Any]) -> list[Act]:
        return [Send(self.frames.tool_call(self.current, call_id, name, arguments))] if self.begun else []

    def tool_done(self, call_id: str, name: str, result: Any, *, success: bool) -> list[Act]:
        if not self.begun:
            return []
        return [Send(self.frames.tool_call_result(self.current, call_id, name, result, success))]

    def direct(self, call_id: str, name: str, arguments: dict[str, Any], *, end: bool) -> list[Act]:
        """Ends or hands over the call, after the words that are being said."""
        self._directives.append((end, call_id, name, arguments))
        return []

    def settled(self, message_id: str, refused: bool) -> list[Act]:
        """Everything that the caller's words have set off is done. What was `refused` gets an answer all the same: a
        caller must not wait for nothing."""
        acts: list[Act] = []
        if refused and message_id == self.current and not self._answered:
            self._answered = True
            acts.append(self._final(self.current, APOLOGY))
        return [*acts, *self._direct()]

    def _direct(self) -> list[Act]:
        waiting, self._directives = self._directives, []
        acts: list[Act] = []
        for end, call_id, name, arguments in waiting:
            make = self.frames.terminate_call if end else self.frames.transfer_call
            acts.append(Send(make(self.current, arguments, tool_id=call_id, name=name)))
        return acts

    def _final(self, message_id: str, text: str) -> Send:
        return Send(self.frames.assistant_response(message_id, text, completed=True))

    def _refuse(self, code: int, why: str) -> Send:
        return Send(self.frames.error_response(code, why))
