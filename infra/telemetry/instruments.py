"""The instruments of this process: each made once, when telemetry is switched on, and none before.

While telemetry is off, `count`, `record`, `gauge` and `observe` look at one name and return.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import set_span_in_context
from opentelemetry.util.types import AttributeValue

from infra.telemetry.later import Later
from infra.telemetry.metrics import METRICS, Kind, Metric
from infra.telemetry.spans import Around, around

Labels = Mapping[str, AttributeValue]
Read = Callable[[], float | Iterable[tuple[float, Labels]]]
"""What a state is now: one number, or one for each set of labels."""
_EXEMPLARS_EVERY_S = 1.0


class Instruments:
    """All of `METRICS` at one meter."""

    def __init__(self, meter: Meter, later: Later) -> None:
        self.later = later
        self.states: dict[str, Read] = {}
        self._next_exemplars: dict[tuple[object, ...], float] = {}
        self._places: dict[tuple[object, ...], tuple[Any, ...]] = {}
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
            case Kind.SUM:
                return meter.create_observable_counter(metric.name, [partial(self._ask, metric.name)], **told)
            case Kind.HISTOGRAM:
                buckets = metric.buckets
                return meter.create_histogram(metric.name, explicit_bucket_boundaries_advisory=buckets, **told)

    def __getitem__(self, metric: Metric) -> Any:
        return self._made[metric.name]

    def put(self, metric: Metric, value: float, labels: Labels | None, span: Around | None) -> None:
        """Put a value into a histogram, as seen in `span`."""
        series = metric.name, *(labels or {}).values()
        seen_in = None if span is None else self._exemplar(series, metric, value, span)
        places = self._places.get(series)
        if places and seen_in is None and 0.0 <= value < inf:
            for place in places:
                place.aggregate(_Value(value), False)
            return
        self._made[metric.name].record(value, labels, seen_in)
        if places is None:
            self._places[series] = _places(self._made[metric.name], labels)

    def _exemplar(self, series: tuple[object, ...], metric: Metric, value: float, span: Around) -> Context | None:
        """A value's span, for one value of a bucket in a second: readers keep the last, and trying costs half as much
        again."""
        bucket = *series, bisect_left(metric.buckets, value)
        now = time.monotonic()
        if now < self._next_exemplars.get(bucket, 0.0) or not span.get_span_context().trace_flags.sampled:
            return None
        self._next_exemplars[bucket] = now + _EXEMPLARS_EVERY_S
        return set_span_in_context(span)

    def _ask(self, name: str, _options: CallbackOptions) -> list[Observation]:
        self.later.flush()  # a reader asks for states before it takes what histograms hold
        read = self.states.get(name)
        if read is None:
            return []
        found = read()
        if isinstance(found, int | float):
            return [Observation(found)]
        return [Observation(value, labels) for value, labels in found]


class _Value(NamedTuple):
    """What the SDK looks at of a measurement that is no exemplar."""

    value: float


def _places(histogram: Any, labels: Labels | None) -> tuple[Any, ...]:
    """Where the SDK adds up a series, for each of its readers; none where it looks for that anew each time.

    `record` copies, checks and hashes a value's labels to find it, which takes ten times as long as adding.
    """
    try:
        from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

        consumer = histogram._measurement_consumer
        kept = [
            match
            for reader in consumer._reader_storages.values()
            for match in reader._get_or_init_view_instrument_match(histogram)
        ]
        are_all_exemplars = consumer._sdk_config.exemplar_filter.should_sample(0.0, 0, labels, Context())
        if are_all_exemplars or any(match._reset_on_collect for match in kept):
            return ()
        return tuple(match._attributes_aggregation[_hash_attributes(labels or {})] for match in kept)
    except (ImportError, AttributeError, KeyError):  # another SDK, or a view that keeps other labels
        return ()


_held: Instruments | None = None  # as OpenTelemetry's own providers: one for the process


def install(meter: Meter, later: Later) -> None:
    """Make the instruments at `meter`, once for the process. `later` is when values go into histograms."""
    global _held
    _held = Instruments(meter, later)


def uninstall() -> None:
    """Measure nothing from now on."""
    global _held
    _held = None


def is_measuring() -> bool:
    """Whether anybody reads metrics: for what costs something to find out."""
    return _held is not None


def count(metric: Metric, amount: int = 1, labels: Labels | None = None) -> None:
    """Add to a counter."""
    if _held is not None:
        _held[metric].add(amount, labels)


def record(metric: Metric, value: float, labels: Labels | None = None) -> None:
    """Put a value into a histogram, in its unit. `labels` are the histogram's from now on."""
    if _held is not None:
        _held.later.leave(partial(_held.put, metric, value, labels, around()))


def record_now(metric: Metric, value: float, labels: Labels, seen_in: Around | None) -> None:
    """`record` of a value that was seen in a span before, for what is told later."""
    if _held is not None:
        _held.put(metric, value, labels, seen_in)


def gauge(metric: Metric, value: float, labels: Labels | None = None) -> None:
    """Set a gauge."""
    if _held is not None:
        _held[metric].set(value, labels)


def observe(metric: Metric, read: Read) -> None:
    """Ask `read` for a state or a sum whenever metrics are read, from another thread; a later call takes its place."""
    if _held is not None:
        _held.states[metric.name] = read
