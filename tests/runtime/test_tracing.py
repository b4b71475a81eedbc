"""Spans: what is inside what, what they note, and that they cost nothing until a tracer is given."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from roomkit import KitOptions, RoomKit
from roomkit.errors import MissingExtra
from roomkit.runtime import span_names
from roomkit.runtime.otel import OpenTelemetry
from roomkit.runtime.span_names import COMMIT, SEND
from roomkit.runtime.tracing import OFF, Tracer, Tracing, current


@dataclass
class Noted:
    name: str
    kind: str
    attributes: dict[str, Any]
    parent: Noted | None
    ambient: bool
    error: str | None = None
    ends: int = 0


@dataclass
class Notebook:
    """The smallest tracer."""

    spans: list[Noted] = field(default_factory=list)

    def start(self, name: str, kind: Any, attributes: Mapping[str, Any], parent: Any, ambient: bool) -> Noted:
        self.spans.append(Noted(name, kind, dict(attributes), parent, ambient))
        return self.spans[-1]

    def annotate(self, native: Noted, name: str, value: Any) -> None:
        native.attributes[name] = value

    def end(self, native: Noted, error: str | None) -> None:
        native.error, native.ends = error, native.ends + 1

    def activate(self, native: Noted) -> AbstractContextManager[Any]:
        return nullcontext()


def test_without_a_tracer_there_is_one_span_that_does_nothing() -> None:
    tracing = Tracing()
    span = tracing.span("x", "t", "r", "c")
    assert span is OFF
    assert not span
    with span as inside:
        inside.set("a", 1)
        inside.fail("Bad")
        assert inside.child("y") is OFF
        assert current() is OFF
        with inside.current():
            assert current() is OFF
    inside.end()


def test_spans_stand_inside_each_other_and_know_where_they_are() -> None:
    book = Notebook()
    assert isinstance(book, Tracer)
    tracing = Tracing(book)
    with tracing.span("outer", "acme", "r1", "sms", kind="consumer") as outer:
        assert current() is outer
        with tracing.span("inner", "acme", None, "") as inner:
            inner.set("n", 3)
            inner.set("nothing", None)
        with outer.child("chat", "client", {"k": "v"}):
            pass
        assert current() is outer
    assert current() is OFF
    first, second, third = book.spans
    assert (first.name, first.kind, first.parent, first.ambient) == ("outer", "consumer", None, True)
    assert first.attributes == {"roomkit.tenant": "acme", "roomkit.room.id": "r1", "roomkit.channel.id": "sms"}
    assert (second.parent, second.attributes) == (first, {"roomkit.tenant": "acme", "n": 3})
    assert (third.parent, third.attributes["k"], third.attributes["roomkit.room.id"]) == (first, "v", "r1")
    assert [span.ends for span in book.spans] == [1, 1, 1]


def test_work_that_waited_in_a_line_names_its_parent() -> None:
    book = Notebook()
    tracing = Tracing(book)
    with tracing.span("asker", "t", "r", "c") as asker:
        pass
    with tracing.span("somebody else", "t", "r", "c"):
        tracing.span("waited", "t", "r", "c", asker).end()
        tracing.span("nobody asked", "t", "r", "c", OFF).end()
    assert [(span.parent and span.parent.name, span.ambient) for span in book.spans[2:]] == [
        ("asker", False),
        (None, False),
    ]


def test_an_error_is_noted_by_its_kind_and_never_by_its_text() -> None:
    book = Notebook()
    with pytest.raises(ValueError, match="secret"), Tracing(book).span("x", "t", "r", "c"):
        raise ValueError("the secret is 42")
    assert (book.spans[0].error, book.spans[0].attributes["error.type"]) == ("ValueError", "ValueError")
    assert "42" not in str(book.spans[0])


async def test_being_cancelled_is_no_error() -> None:
    book = Notebook()
    with pytest.raises(asyncio.CancelledError), Tracing(book).span("x", "t", "r", "c"):
        raise asyncio.CancelledError
    assert (book.spans[0].error, book.spans[0].attributes["roomkit.cancelled"]) == (None, True)


def test_a_span_ends_once_and_notes_nothing_after() -> None:
    book = Notebook()
    span = Tracing(book).span("x", "t", "r", "c")
    with span.current():
        assert current() is span
    span.end()
    span.end()
    span.set("late", 1)
    assert book.spans[0].ends == 1
    assert "late" not in book.spans[0].attributes


def test_tracing_can_be_stopped() -> None:
    book = Notebook()
    tracing = Tracing(book)
    tracing.use(None)
    assert tracing.span("x", "t", "r", "c") is OFF
    assert not tracing.on


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


def test_opentelemetry_gets_the_tree_the_kinds_and_the_errors() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(OpenTelemetry(provider))
    host = provider.get_tracer("host")
    with host.start_as_current_span("request"), tracing.span("in", "t", "r", "c", kind="consumer") as span:
        assert trace.get_current_span().get_span_context().span_id != 0
        with host.start_as_current_span("library"):  # spans of others nest under ours
            pass
        with pytest.raises(KeyError), span.child("chat", "client"):
            raise KeyError("private")
        tracing.span("alone", "t", "r", "c", OFF).end()
    spans = {one.name: one for one in exporter.get_finished_spans()}
    parent = {name: one.parent and one.parent.span_id for name, one in spans.items()}
    ids = {one.context.span_id: name for name, one in spans.items()}
    assert {name: ids.get(above or 0) for name, above in parent.items()} == {
        "request": None,
        "in": "request",
        "library": "in",
        "chat": "in",
        "alone": None,
    }
    assert spans["alone"].context.trace_id != spans["in"].context.trace_id
    assert (spans["in"].kind, spans["chat"].kind) == (trace.SpanKind.CONSUMER, trace.SpanKind.CLIENT)
    assert (spans["chat"].status.status_code, spans["chat"].status.description) == (trace.StatusCode.ERROR, "KeyError")
    assert spans["chat"].events == ()  # no exception with its text
    provider.shutdown()


def test_without_opentelemetry_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "roomkit.runtime.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra, match=r"\[otel\]"):
        import roomkit.runtime.otel  # noqa: F401


def test_our_names_for_generative_ai_are_those_of_the_conventions() -> None:
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    ours = {value for name, value in vars(span_names).items() if name.startswith("GEN_AI_") and isinstance(value, str)}
    assert len(ours) > 7
    assert ours | set(span_names.GEN_AI_USAGE.values()) <= known


async def test_a_kit_may_be_given_its_tracer() -> None:
    book = Notebook()
    async with RoomKit(options=KitOptions(tracer=book)) as kit:
        await kit.create_room("r", channels=())
        await kit.send("r", "hello")
    assert {noted.name for noted in book.spans} >= {SEND, COMMIT}
    assert all(noted.ends == 1 for noted in book.spans)
