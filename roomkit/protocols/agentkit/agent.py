"""AgentKitAgent: the builders and questions that AgentKit's own SDK has, under its names, on our messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from roomkit.models.content import valid_text
from roomkit.protocols.agentkit.generated import agentkit_pb2 as pb

END, TRANSFER = pb.TOOL_CALL_ACTION_END_CONVERSATION, pb.TOOL_CALL_ACTION_TRANSFER_CONVERSATION


class AgentKitAgent:
    """Answers calls of AgentKit. Subclass it and write `Talk`, which yields `TalkOutput` frames, as a generator or an
    async generator. Times of frames are set by `clock`, where it is given; the platform does not need them."""

    clock: Any = None

    def Talk(self, request_iterator: Any, context: Any) -> Iterator[pb.TalkOutput] | AsyncIterator[pb.TalkOutput]:  # noqa: N802 - the protocol's own name
        """One call, from its first frame to its last."""
        raise NotImplementedError("write Talk(self, request_iterator, context) in your agent; it yields the frames")

    # -- frames ---------------------------------------------------------------------------------------------------

    def response(self, code: int = 200, success: bool = True, **kwargs: Any) -> pb.TalkOutput:
        """A frame with its status and one kind of data, such as `assistant=...`; none is a plain acknowledgement."""
        return pb.TalkOutput(code=code, success=success, **kwargs)

    def initialization_response(self, initialization: pb.ConversationInitialization) -> pb.TalkOutput:
        """The acknowledgement that the first frame asks for."""
        return self.response(initialization=initialization)

    def configuration_response(self, configuration: pb.ConversationConfiguration | None = None) -> pb.TalkOutput:
        """The plain acknowledgement of new settings."""
        del configuration
        return self.response()

    def assistant_response(self, msg_id: str, content: str, completed: bool = False) -> pb.TalkOutput:
        """A part of an answer or, `completed`, its end with the whole text."""
        said = pb.ConversationAssistantMessage(id=msg_id, text=content, completed=completed)
        if self.clock is not None:
            said.time.FromDatetime(cast("datetime", self.clock.now()))
        return self.response(assistant=said)

    def error_response(self, code: int, message: str) -> pb.TalkOutput:
        """An error. The platform ends the call on it: for what can be mended say so in words instead."""
        error = pb.Error(errorCode=code, errorMessage=message, humanMessage=message)
        return self.response(code=code, success=False, error=error)

    def tool_call(self, msg_id: str, tool_id: str, name: str, args: Mapping[str, Any] | None) -> pb.TalkOutput:
        """A tool begins to run."""
        call = pb.ConversationToolCall(id=msg_id, toolId=tool_id, name=name, args=texts(args))
        return self.response(toolCall=call)

    def tool_call_result(
        self, msg_id: str, tool_id: str, name: str, result: Any, success: bool = True
    ) -> pb.TalkOutput:
        """What the tool came to. A result that is no object is put under "result"."""
        told = texts(cast("Mapping[str, Any]", result) if isinstance(result, Mapping) else {"result": result})
        told["success"] = "true" if success else "false"
        return self.response(
            toolCallResult=pb.ConversationToolCallResult(id=msg_id, toolId=tool_id, name=name, result=told)
        )

    def transfer_call(
        self, msg_id: str, args: Mapping[str, Any] | None, *, tool_id: str = "", name: str = "transfer_call"
    ) -> pb.TalkOutput:
        """Asks the platform to hand the call over, to args["to"] for instance."""
        return self._directive(TRANSFER, msg_id, args, tool_id, name)

    def terminate_call(
        self, msg_id: str, args: Mapping[str, Any] | None = None, *, tool_id: str = "", name: str = "end_call"
    ) -> pb.TalkOutput:
        """Asks the platform to hang up."""
        return self._directive(END, msg_id, args, tool_id, name)

    def _directive(
        self, action: pb.ToolCallAction, msg_id: str, args: Mapping[str, Any] | None, tool_id: str, name: str
    ) -> pb.TalkOutput:
        tool_id = tool_id or f"{name}-{msg_id}"
        call = pb.ConversationToolCall(id=msg_id, toolId=tool_id, name=name, action=action, args=texts(args))
        return self.response(toolCall=call)

    # -- questions ------------------------------------------------------------------------------------------------

    def is_initialization_request(self, request: pb.TalkInput) -> bool:
        return request.WhichOneof("request") == "initialization"

    def is_configuration_request(self, request: pb.TalkInput) -> bool:
        return request.WhichOneof("request") == "configuration"

    def is_message_request(self, request: pb.TalkInput) -> bool:
        return request.WhichOneof("request") == "message"

    def is_text_message(self, request: pb.TalkInput) -> bool:
        return self.is_message_request(request) and request.message.WhichOneof("message") == "text"

    def is_audio_message(self, request: pb.TalkInput) -> bool:
        return self.is_message_request(request) and request.message.WhichOneof("message") == "audio"

    def get_user_text(self, request: pb.TalkInput) -> str | None:
        return request.message.text if self.is_text_message(request) else None

    def get_message_id(self, request: pb.TalkInput) -> str | None:
        return request.message.id if self.is_message_request(request) else None

    def get_conversation_id(self, request: pb.TalkInput) -> int | None:
        return request.initialization.assistantConversationId if self.is_initialization_request(request) else None

    def get_assistant_id(self, request: pb.TalkInput) -> int | None:
        known = self.is_initialization_request(request) and request.initialization.HasField("assistant")
        return request.initialization.assistant.assistantId if known else None


def texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """The values as the protocol has them: texts as they are, the rest as JSON where it is JSON."""
    told = ((str(name), one if isinstance(one, str) else _text(one)) for name, one in (values or {}).items())
    # A model may write half of a surrogate pair, which no frame can carry.
    return {valid_text(name): valid_text(one) for name, one in told}


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
