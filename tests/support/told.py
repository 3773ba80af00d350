"""Telemetry that a test can read: providers of its own, in place of the process's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.telemetry import instruments, later, spans
from infra.telemetry.later import Later
from infra.telemetry.metrics import METRICS, Metric
from infra.telemetry.names import SPANS, SpanName
from infra.telemetry.recording import Tracer

Labels = frozenset[tuple[str, Any]]


class Told:
    """What was told in a block."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.later = Later()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Spans that ended, in that order."""
        self.later.flush()
        return self.exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = (one for one in self.spans if one.name == name)
        return found

    def points(self, metric: Metric) -> dict[Labels, Any]:
        """Labels -> a counter's or gauge's value, or a histogram's data point. Empty where nothing was told."""
        data = self.reader.get_metrics_data()
        found = [
            one
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == metric.name
        ]
        return {
            frozenset((point.attributes or {}).items()): getattr(point, "value", point)
            for one in found
            for point in one.data.data_points
        }

    def value(self, metric: Metric, **labels: Any) -> Any:
        """The one value, of those whose labels end so: `arm="stable"` is `onstream.arm`."""
        found = [
            value
            for told, value in self.points(metric).items()
            if all(
                any(name.endswith(f".{key}") and is_ == given for name, is_ in told) for key, given in labels.items()
            )
        ]
        assert len(found) == 1, f"{metric.name} {labels}: {len(found)} points of {self.points(metric)}"
        return found[0]

    def check(self) -> None:
        """What was told is what the tables of names say, and OTLP can carry it."""
        encode_spans(self.spans)
        if (data := self.reader.get_metrics_data()) is not None:
            encode_metrics(data)
        for span in self.spans:
            known = [one for one in SPANS if one.role == span.kind.name.lower() and _matches(one, span.name)]
            assert known, f"no such span: {span.kind.name} {span.name}"
            allowed = {name for one in known for name in one.attributes}
            told = {*(span.attributes or {}), *(name for event in span.events for name in event.attributes or {})}
            assert told <= allowed, f"{span.name}: {sorted(told - allowed)}"
        for metric in METRICS:
            told = {name for labels in self.points(metric) for name, _ in labels}
            assert told <= set(metric.attributes), f"{metric.name}: {sorted(told - set(metric.attributes))}"


def _matches(name: SpanName, told: str) -> bool:
    return re.fullmatch(re.escape(name.name).replace(r"\{\}", ".+"), told) is not None


@contextmanager
def telling() -> Iterator[Told]:
    """Telemetry on, for the length of a block."""
    told = Told()
    spans.install(Tracer(told.tracers, told.later))
    instruments.install(told.meters.get_meter("tests"), told.later)
    later.install(told.later)
    try:
        yield told
        told.check()
    finally:
        spans.install(None)
        instruments.uninstall()
        later.install(None)
        told.tracers.shutdown()
        told.meters.shutdown()
