"""The instruments of this process: each made once, when telemetry is switched on, and none before.

While telemetry is off, `count`, `record`, `gauge` and `observe` look at one name and return.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.util.types import AttributeValue

from infra.telemetry.metrics import METRICS, Kind, Metric

Labels = Mapping[str, AttributeValue]
Read = Callable[[], float | Iterable[tuple[float, Labels]]]
"""What a state is now: one number, or one for each set of labels."""


class Instruments:
    """All of `METRICS` at one meter."""

    def __init__(self, meter: Meter) -> None:
        self.states: dict[str, Read] = {}
        self._made: dict[str, Any] = {metric.name: self._make(meter, metric) for metric in METRICS}

    def _make(self, meter: Meter, metric: Metric) -> Any:
        told = {"unit": metric.unit, "description": metric.about}
        match metric.kind:
            case Kind.COUNTER:
                return meter.create_counter(metric.name, **told)
            case Kind.GAUGE:
                return meter.create_gauge(metric.name, **told)
            case Kind.STATE:
                return meter.create_observable_gauge(metric.name, [partial(self._ask, metric.name)], **told)
            case Kind.HISTOGRAM:
                buckets = metric.buckets
                return meter.create_histogram(metric.name, explicit_bucket_boundaries_advisory=buckets, **told)

    def __getitem__(self, metric: Metric) -> Any:
        return self._made[metric.name]

    def _ask(self, name: str, _options: CallbackOptions) -> list[Observation]:
        read = self.states.get(name)
        if read is None:
            return []
        found = read()
        if isinstance(found, int | float):
            return [Observation(found)]
        return [Observation(value, labels) for value, labels in found]


_held: Instruments | None = None  # as OpenTelemetry's own providers: one for the process


def install(meter: Meter | None) -> None:
    """Make the instruments at `meter`, once for the process; `None` is off."""
    global _held
    _held = Instruments(meter) if meter is not None else None


def is_measuring() -> bool:
    """Whether anybody reads metrics: for what costs something to find out."""
    return _held is not None


def count(metric: Metric, amount: int = 1, labels: Labels | None = None) -> None:
    """Add to a counter."""
    if _held is not None:
        _held[metric].add(amount, labels)


def record(metric: Metric, value: float, labels: Labels | None = None) -> None:
    """Put a value into a histogram, in its unit."""
    if _held is not None:
        _held[metric].record(value, labels)


def gauge(metric: Metric, value: float, labels: Labels | None = None) -> None:
    """Set a gauge."""
    if _held is not None:
        _held[metric].set(value, labels)


def observe(metric: Metric, read: Read) -> None:
    """Ask `read` for a state whenever metrics are read, from another thread; a later call takes its place."""
    if _held is not None:
        _held.states[metric.name] = read
