"""Spans to OpenTelemetry. Imported only when tracing is asked for; the SDK and its exporters are the host's choice."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from roomkit.errors import MissingExtra
from roomkit.runtime.tracing import Attribute, Kind

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
except ImportError as error:
    raise MissingExtra("tracing", "the OpenTelemetry API", "otel") from error


class OpenTelemetry:
    """A `Tracer` over an OpenTelemetry `TracerProvider` (None: the global one)."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("roomkit", tracer_provider=provider)

    def start(self, name: str, kind: Kind, attributes: Mapping[str, Attribute], parent: Any, ambient: bool) -> Any:
        context = None if ambient else Context()
        if parent is not None:
            context = trace.set_span_in_context(parent, context)
        return self._tracer.start_span(name, context, trace.SpanKind[kind.upper()], attributes)

    def annotate(self, native: trace.Span, name: str, value: Attribute) -> None:
        native.set_attribute(name, value)

    def end(self, native: trace.Span, error: str | None) -> None:
        if error is not None:
            native.set_status(trace.StatusCode.ERROR, error)
        native.end()

    def activate(self, native: trace.Span) -> AbstractContextManager[Any]:
        return trace.use_span(native, end_on_exit=False, record_exception=False, set_status_on_exception=False)
