"""The table of metrics, and what readers of Prometheus see of it."""

import re

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from infra.telemetry.instruments import Instruments
from infra.telemetry.later import Later
from infra.telemetry.metrics import METRICS, Kind, Metric


def test_names_are_distinct_lower_case_and_none_lies_below_another() -> None:
    said = [metric.name for metric in METRICS]
    assert len(set(said)) == len(said)
    assert all(re.fullmatch(r"(onstream|gen_ai|messaging|http)(\.[a-z_]+)+", name) for name in said)
    assert not [(a, b) for a in said for b in said if b.startswith(f"{a}.")]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_what_its_kind_needs(metric: Metric) -> None:
    assert metric.about
    assert re.fullmatch(r"s|By|\{[a-z]+\}", metric.unit)
    assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_prometheus_shows_every_metric_under_the_name_that_the_table_says() -> None:
    provider = MeterProvider([PrometheusMetricReader()])
    held = Instruments(provider.get_meter("tests"), Later())
    for metric in METRICS:
        match metric.kind:
            case Kind.COUNTER:
                held[metric].add(1)
            case Kind.GAUGE:
                held[metric].set(1)
            case Kind.STATE | Kind.SUM:
                held.states[metric.name] = lambda: 1.0
            case Kind.HISTOGRAM:
                held[metric].record(1)
    samples = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    provider.shutdown()
    mine = {name for name in samples if name.startswith(("onstream_", "gen_ai_", "messaging_", "http_"))}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in mine} == {metric.prometheus for metric in METRICS}
