"""Every name a trace of ours contains. GenAI attributes follow OpenTelemetry's conventions, which still move: when they
do, this file moves with them and nothing else."""

from __future__ import annotations

# -- spans ------------------------------------------------------------------------------------------------------------
INBOUND = "roomkit.inbound"
"""A channel's message, from the door to the answer at the commit point."""
SEND = "roomkit.send"
"""What the host writes into a room."""
COMMIT = "roomkit.commit"
"""One transaction of the store."""
DELIVERY = "roomkit.deliver"
"""One attempt to hand an event to the other side of a channel."""
TURN = "invoke_agent"
"""A turn of an intelligence channel; the channel's id follows."""
GENERATION = "chat"
"""One request to a model, its stream included; the model's name follows."""
TOOL = "execute_tool"
"""One tool call with its checks and approvals; the tool's name follows."""

# -- attributes of ours ---------------------------------------------------------------------------------------------
TENANT = "roomkit.tenant"
ROOM = "roomkit.room.id"
CHANNEL = "roomkit.channel.id"
EVENTS = "roomkit.events"
EVENT_INDEX = "roomkit.event.index"
BLOCKED = "roomkit.blocked"
DUPLICATE = "roomkit.duplicate"
ATTEMPT = "roomkit.delivery.attempt"
AMBIGUOUS = "roomkit.delivery.ambiguous"
END_REASON = "roomkit.reply.end_reason"
TRIGGERS = "roomkit.turn.triggers"
FIRST_WORD = "roomkit.reply.first_token_s"
TOOL_STATUS = "roomkit.tool.status"
CANCELLED = "roomkit.cancelled"
ERROR_TYPE = "error.type"

# -- attributes of GenAI ----------------------------------------------------------------------------------------------
GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_CONVERSATION = "gen_ai.conversation.id"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "thinking_tokens": "gen_ai.usage.reasoning.output_tokens",
}
"""Our counters of `Usage`, as the conventions call them."""
