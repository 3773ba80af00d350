"""Telemetry that a test can read: providers of its own, in place of the process's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.telemetry import instruments, spans
from infra.telemetry.metrics import Metric

Labels = frozenset[tuple[str, Any]]


class Told:
    """What was told in a block."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Spans that ended, in that order."""
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


@contextmanager
def telling() -> Iterator[Told]:
    """Telemetry on, for the length of a block."""
    told = Told()
    spans.install(told.tracers.get_tracer("tests"))
    instruments.install(told.meters.get_meter("tests"))
    try:
        yield told
    finally:
        spans.install(None)
        instruments.install(None)
        told.tracers.shutdown()
        told.meters.shutdown()
