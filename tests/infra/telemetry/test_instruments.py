"""Histograms: what the SDK makes of values, for less."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from infra.telemetry import metrics, names
from infra.telemetry.instruments import Instruments
from infra.telemetry.later import Later
from infra.telemetry.names import Told

VALUES = (0.003, 0.2, 0.02, 1e9, 0.0, float("nan"), -1.0, float("inf"), 0.4)
LABELS: tuple[Told | None, ...] = ({names.ENGINE: "e0"}, {names.ENGINE: "e1"}, {}, None)
READERS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "delta": {"preferred_temporality": {Histogram: AggregationTemporality.DELTA}},
    "exponential": {"preferred_aggregation": {Histogram: ExponentialBucketHistogramAggregation()}},
}


def points(reader: InMemoryMetricReader) -> list[tuple[Any, ...]]:
    """What a reader has of the one histogram, without the times of it."""
    data: Any = reader.get_metrics_data()
    return [
        (sorted((point.attributes or {}).items()), point.count, point.sum, point.min, point.max, buckets(point))
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for one in scope.metrics
        if one.name == metrics.FIRST_BYTE.name
        for point in one.data.data_points
    ]


def buckets(point: Any) -> tuple[Any, ...]:
    is_explicit = hasattr(point, "bucket_counts")
    return tuple(point.bucket_counts) if is_explicit else (point.scale, point.positive, point.zero_count)


@pytest.mark.parametrize("settings", READERS.values(), ids=READERS)
def test_a_histogram_holds_what_the_sdk_would_have_put_into_it(settings: dict[str, Any]) -> None:
    ours, theirs = InMemoryMetricReader(**settings), InMemoryMetricReader(**settings)
    instruments = Instruments(MeterProvider([ours, InMemoryMetricReader()]).get_meter("tests"), Later())
    histogram = Instruments(MeterProvider([theirs]).get_meter("tests"), Later())[metrics.FIRST_BYTE]
    for _ in range(2):
        for labels in LABELS * 2:
            for value in VALUES:
                instruments.put(metrics.FIRST_BYTE, value, labels, None)
                histogram.record(value, labels)
        found = points(ours)
        assert len(found) == 3
        assert found == points(theirs)


def test_only_the_first_value_of_a_series_asks_the_sdk_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    instruments = Instruments(MeterProvider([InMemoryMetricReader()]).get_meter("tests"), Later())
    histogram, asked = instruments[metrics.FIRST_BYTE], list[float]()
    record = histogram.record
    monkeypatch.setattr(histogram, "record", lambda value, *about: asked.append(value) or record(value, *about))
    for value in (0.1, 0.2, 0.3):
        instruments.put(metrics.FIRST_BYTE, value, {names.ENGINE: "e0"}, None)
    assert asked == [0.1]


def test_where_every_value_may_be_an_exemplar_the_last_of_a_bucket_is_the_one() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter())
    instruments = Instruments(meters.get_meter("tests"), Later())
    for value in (0.21, 0.22, 0.23):
        instruments.put(metrics.FIRST_BYTE, value, {names.ENGINE: "e0"}, None)
    data: Any = reader.get_metrics_data()
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert [one.value for one in point.exemplars] == [0.23]
