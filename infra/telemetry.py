"""OpenTelemetry, set up once per process; off unless a standard `OTEL_*` variable asks for it.

`OTEL_EXPORTER_OTLP_ENDPOINT`, or `OTEL_TRACES_EXPORTER` / `OTEL_METRICS_EXPORTER` set to `otlp` or `console`, turn
exporters on.
Spans and metrics carry ids, counts and durations, never content. Names are constants here and nowhere else.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind

INSTRUMENTATION = "onstream"

# spans
CHAT = "chat"
FEEDBACK = "feedback"
CLOSE_SESSION = "close session"
SCORE = "score trajectory"
UPDATE = "update policy"
PUBLISH = "publish version"
SWAP = "swap weights"
DECIDE = "decide release"

# counters
TRACES_CAPTURED = "onstream.traces.captured"
TRACES_DROPPED = "onstream.traces.dropped"
TRACES_REFUSED = "onstream.traces.refused"
REQUESTS = "onstream.router.requests"
RETRIES = "onstream.router.retries"
FEEDBACK_TAKEN = "onstream.feedback.taken"
FEEDBACK_LATE = "onstream.feedback.late"
FEEDBACK_UNCLAIMED = "onstream.feedback.unclaimed"
TRAJECTORIES_CLOSED = "onstream.trajectories.closed"
REWARDS_MADE = "onstream.rewards.made"
UNSCORED = "onstream.rewards.unscored"
TURNS_TRAINED = "onstream.trainer.turns"
TURNS_NEAR_DUPLICATE = "onstream.trainer.turns.near_duplicate"
VERSIONS_PUBLISHED = "onstream.versions.published"
RELEASES = "onstream.releases"
DEAD_LETTERS = "onstream.dead_letters"
LAKE_ROWS = "onstream.lake.rows"
PARKED = "onstream.parked"
REDRIVEN = "onstream.redriven"

# histograms, in seconds
SWAP_PAUSE = "onstream.swap.pause"
SWAP_DURATION = "onstream.swap.duration"
UPDATE_DURATION = "onstream.trainer.update.duration"
FIRST_BYTE = "onstream.router.time_to_first_byte"
LAKE_COMMIT = "onstream.lake.commit.duration"

# gauges
TRIAL_LOG_E = "onstream.trial.log_e"
TRIAL_USERS_NEEDED = "onstream.trial.users_needed"
REWARD_MEAN = "onstream.reward.mean"
BATCH_USER_SHARE = "onstream.trainer.batch.user_share"
BATCH_TENANT_SHARE = "onstream.trainer.batch.tenant_share"
REWARDS_WAITING = "onstream.rewards.waiting"
SPOOL_BYTES = "onstream.spool.bytes"


def setup(service: str, environ: Mapping[str, str] | None = None) -> None:
    """Install tracer and meter providers for this process, or leave the no-op ones in place."""
    env = os.environ if environ is None else environ
    traces, points = _wanted(env, "TRACES"), _wanted(env, "METRICS")
    if traces == points == "none":
        return
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    resource = Resource.create({"service.name": service, "service.namespace": "onstream"})
    if traces != "none":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider = TracerProvider(resource=resource)
        spans = OTLPSpanExporter() if traces == "otlp" else ConsoleSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(spans))
        trace.set_tracer_provider(provider)
    if points != "none":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter() if points == "otlp" else ConsoleMetricExporter()
        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter)], resource=resource))


def _wanted(env: Mapping[str, str], signal: str) -> str:
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "none"
    endpoint = env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return env.get(f"OTEL_{signal}_EXPORTER") or ("otlp" if endpoint else "none")


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, str | int | float] | None = None,
    parent: Mapping[str, str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Iterator[Span]:
    """A span around a block; `parent` are the headers it came with."""
    is_told = parent is not None and not parent.keys().isdisjoint(propagate.get_global_textmap().fields)
    above = propagate.extract(parent) if is_told else None
    with trace.get_tracer(INSTRUMENTATION).start_as_current_span(
        name, context=above, kind=kind, attributes=attributes
    ) as current:
        yield current


def headers_out() -> dict[str, str]:
    """The current trace context as headers (`traceparent`, `tracestate`); empty outside a span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=context.get_current())
    return carrier


def count(name: str, amount: int, **attributes: str | int) -> None:
    """Add to a counter."""
    metrics.get_meter(INSTRUMENTATION).create_counter(name).add(amount, attributes)


def record(name: str, seconds: float, **attributes: str | int) -> None:
    """Record a duration, in seconds."""
    metrics.get_meter(INSTRUMENTATION).create_histogram(name, unit="s").record(seconds, attributes)


def gauge(name: str, value: float, **attributes: str | int) -> None:
    """Set a gauge."""
    metrics.get_meter(INSTRUMENTATION).create_gauge(name).set(value, attributes)
