"""Compaction: smaller, with the question, and never half a call."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roomkit.ai.compact import compact, estimate_tokens, message_tokens, units
from roomkit.models.ai import AIMessage, ImagePart, TextPart, ToolCallPart, ToolResultPart


def test_tokens_are_guessed_by_bytes() -> None:
    assert [estimate_tokens(text) for text in ("", "abc", "abcde", "日本語")] == [0, 1, 2, 3]
    assert message_tokens(AIMessage(role="user", parts=(ImagePart(url="x"),))) > 500


@st.composite
def transcripts(draw: st.DrawFn) -> list[AIMessage]:
    messages: list[AIMessage] = []
    for n in range(draw(st.integers(0, 8))):
        size = draw(st.integers(0, 400))
        kind = draw(st.sampled_from(["user", "assistant", "tools", "system"]))
        if kind != "tools":
            messages.append(AIMessage(role=kind, parts=(TextPart(text="x" * size),)))
            continue
        ids = [f"{n}.{k}" for k in range(draw(st.integers(1, 3)))]
        messages.append(
            AIMessage(role="assistant", parts=tuple(ToolCallPart(call_id=i, name="t", arguments={}) for i in ids))
        )
        results = tuple(ToolResultPart(call_id=i, name="t", output="y" * size) for i in ids)
        if draw(st.booleans()):
            messages.append(AIMessage(role="tool", parts=results))
        else:
            messages += [AIMessage(role="tool", parts=(result,)) for result in results]
    return messages


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(transcripts())
def test_compacting_ends_and_never_parts_a_call_from_its_result(messages: list[AIMessage]) -> None:
    assert [message for group in units(messages) for message in group] == messages
    smaller, rounds = compact(messages), 0
    while smaller is not None:
        assert sum(map(message_tokens, smaller)) < sum(map(message_tokens, messages))
        calls = [part.call_id for m in smaller for part in m.parts if isinstance(part, ToolCallPart)]
        results = [part.call_id for m in smaller for part in m.parts if isinstance(part, ToolResultPart)]
        assert calls == results
        questions = [m for m in messages if m.role == "user"]
        assert not questions or questions[-1] in smaller
        messages, smaller, rounds = list(smaller), compact(smaller), rounds + 1
        assert rounds < 50
