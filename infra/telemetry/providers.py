"""Telemetry of a process, from the standard OpenTelemetry variables; off where none of them asks for it.

    OTEL_EXPORTER_OTLP_ENDPOINT                        traces, metrics and logs to a collector, as http/protobuf
    OTEL_TRACES_EXPORTER, OTEL_LOGS_EXPORTER           otlp, console or none; several with commas between
    OTEL_METRICS_EXPORTER                              the same, or prometheus, read at
    OTEL_EXPORTER_PROMETHEUS_HOST, _PORT               localhost and 9464 unless they say otherwise
    OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES        take the place of what is said here of the process
    OTEL_SDK_DISABLED=true                             nothing, whatever else is set

The SDK reads the rest itself: sampling, intervals, headers, certificates. What is buffered goes out when the process
ends, as far as a collector takes it within `FLUSH_S`; a process that is killed takes its last seconds of telemetry
along, and never any data.
"""

import atexit
import os
import socket
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from infra.errors import StartError
from infra.lifecycle import Deadline
from infra.telemetry import instruments, spans
from infra.telemetry.later import Later, install
from infra.telemetry.names import SCHEMA_URL, SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

_KNOWN = {
    "TRACES": ("otlp", "console", "none"),
    "METRICS": ("otlp", "console", "prometheus", "none"),
    "LOGS": ("otlp", "console", "none"),
}
FLUSH_S = 3.0
"""How long the end of a process waits for a collector that does not answer: the SDK itself would wait for 20 s."""
PROTOCOL = "http/protobuf"
PROMETHEUS_HOST_VAR, PROMETHEUS_PORT_VAR = "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"
_DEFAULT_PROMETHEUS = "9464"
_DEFAULT_TRACES = "http://localhost:4318/v1/traces"


def setup(stage: str, instance: str = "", environ: Mapping[str, str] | None = None, is_brief: bool = False) -> None:
    """Begin to send what this process's variables ask for. `instance` names it among those of its stage.

    `is_brief`: it ends before Prometheus would come by, and needs no port for it.

    Raises:
        StartError: a variable asks for what there is not, or the Prometheus port is taken.
    """
    env = os.environ if environ is None else environ
    asked = {signal: exporters(env, signal) for signal in _KNOWN}
    if is_brief:
        asked["METRICS"] = tuple(name for name in asked["METRICS"] if name != "prometheus")
    if not any(asked.values()):
        return
    resource = _resource(stage, instance)
    later = Later()
    if asked["TRACES"] or asked["METRICS"]:
        install(later)
    ends: list[Callable[[], None]] = []
    if asked["TRACES"]:
        ends.append(_trace(asked["TRACES"], resource, later))
    if asked["METRICS"]:
        ends.append(_measure(asked["METRICS"], resource, later, env))
    if asked["LOGS"]:
        ends.append(_log(asked["LOGS"], resource))
    later.start()
    _flush_at_exit(later, ends)


def _flush_at_exit(later: Later, ends: list[Callable[[], None]]) -> None:
    """Tell what is left and call `ends` when the process ends, side by side and for `FLUSH_S` at most."""
    is_over = threading.Event()

    def wait_and(end: Callable[[], None]) -> None:
        is_over.wait()
        end()

    waiting = [threading.Thread(target=wait_and, args=(end,), daemon=True) for end in ends]
    for thread in waiting:  # now: at its end an interpreter starts no threads any more
        thread.start()

    def flush() -> None:
        later.flush()
        is_over.set()
        deadline = Deadline.after(FLUSH_S)
        for thread in waiting:
            thread.join(deadline.left_s())

    atexit.register(flush)


def exporters(env: Mapping[str, str], signal: str) -> tuple[str, ...]:
    """What a signal's variables ask for; empty: nothing.

    Raises:
        StartError: they ask for what there is not.
    """
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ()
    has_endpoint = bool(endpoint(env, signal))
    said = env.get(f"OTEL_{signal}_EXPORTER") or ("otlp" if has_endpoint else "none")
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",")))
    for name in names:
        if name not in _KNOWN[signal]:
            raise StartError(f"OTEL_{signal}_EXPORTER: must be of {', '.join(_KNOWN[signal])}, got {name!r:.80}")
    if "otlp" in names:
        _require_http(env, signal)
    return tuple(name for name in names if name != "none")


def endpoint(env: Mapping[str, str], signal: str) -> str:
    """Where a signal goes by OTLP, as its variables say; empty where none does, which is this machine's 4318."""
    whole = env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if whole:
        return whole
    base = env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/{signal.lower()}" if base else ""


def otlp_traces(env: Mapping[str, str]) -> str:
    """The URL that spans go to by OTLP; empty where they do not."""
    if "otlp" not in exporters(env, "TRACES"):
        return ""
    return endpoint(env, "TRACES") or _DEFAULT_TRACES


def _require_http(env: Mapping[str, str], signal: str) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        said = env.get(name)
        if said and said != PROTOCOL:
            raise StartError(f"{name}: only {PROTOCOL} is spoken here (a collector's port 4318), got {said!r:.80}")


def _resource(stage: str, instance: str) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    mine = {
        "service.name": f"onstream-{stage}",
        "service.namespace": "onstream",
        "service.instance.id": instance or f"{socket.gethostname()}-{os.getpid()}",
        "service.version": metadata.version("onstream"),
    }
    return Resource.create(mine, SCHEMA_URL).merge(OTELResourceDetector().detect())


def _trace(asked: tuple[str, ...], resource: "Resource", later: Later) -> Callable[[], None]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    from infra.telemetry.recording import Tracer

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in asked:
        out: SpanExporter = ConsoleSpanExporter()
        if name == "otlp":
            from infra.telemetry.encoding import Exporter

            out = Exporter()
        provider.add_span_processor(BatchSpanProcessor(out))
    trace.set_tracer_provider(provider)  # for vLLM, whose spans then come from the same service
    spans.install(Tracer(provider, later))
    return provider.shutdown


def _measure(asked: tuple[str, ...], resource: "Resource", later: Later, env: Mapping[str, str]) -> Callable[[], None]:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider

    provider = MeterProvider([_reader(name, env) for name in asked], resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    instruments.install(provider.get_meter(SCOPE, schema_url=SCHEMA_URL), later)
    return provider.shutdown


def _reader(name: str, env: Mapping[str, str]) -> "MetricReader":
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    if name == "prometheus":
        from opentelemetry.exporter.prometheus import PrometheusMetricReader

        _serve_prometheus(env)
        return PrometheusMetricReader()
    if name == "console":
        return PeriodicExportingMetricReader(ConsoleMetricExporter())
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return PeriodicExportingMetricReader(OTLPMetricExporter())


def _serve_prometheus(env: Mapping[str, str]) -> None:
    from prometheus_client import start_http_server

    host, port = env.get(PROMETHEUS_HOST_VAR) or "localhost", prometheus_port(env)
    try:
        start_http_server(port, host)
    except OSError as exc:
        raise StartError(f"{PROMETHEUS_PORT_VAR}: {host}:{port} cannot be listened on: {exc}") from exc


def prometheus_port(env: Mapping[str, str]) -> int:
    """Where Prometheus reads metrics. Raises `StartError` where that can be no port."""
    said = env.get(PROMETHEUS_PORT_VAR) or _DEFAULT_PROMETHEUS
    if not said.isdecimal() or not 0 < int(said) < 1 << 16:
        raise StartError(f"{PROMETHEUS_PORT_VAR}: must be a port, got {said!r:.80}")
    return int(said)


def _log(asked: tuple[str, ...], resource: "Resource") -> Callable[[], None]:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter, LogRecordExporter

    from infra.telemetry import logs

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for name in asked:
        out: LogRecordExporter = ConsoleLogRecordExporter()
        if name == "otlp":
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

            out = OTLPLogExporter()
        provider.add_log_record_processor(BatchLogRecordProcessor(out))
    logs.attach(provider)
    return provider.shutdown
