"""An OTLP/HTTP collector for tests: what it is sent, decoded, with spans as a graph.

with Receiver(file) as receiver:     # in a thread; `file` keeps every body as it came
    ...                              # OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url
python tests/support/otlp.py PORT    # in a process of its own, keeping nothing: for benchmarks
"""

import gzip
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from ports import free_port

Node = tuple[str, str]
"""A span: (trace id, span id), in hex."""


@dataclass(frozen=True)
class Span:
    """A span as it was sent. `parent` and `links` are those it names, whether or not they came."""

    service: str
    name: str
    node: Node
    parent: Node | None
    links: frozenset[Node]
    attributes: dict[str, Any] = field(hash=False)
    is_error: bool

    @property
    def above(self) -> frozenset[Node]:
        return self.links | ({self.parent} if self.parent else set())


@dataclass(frozen=True)
class Line:
    """A log record as it was sent."""

    service: str
    body: str
    trace_id: str


def below(spans: Iterable[Span], start: Node) -> set[Span]:
    """Every span that leads back to `start`, by parents and links."""
    leads: dict[Node, list[Span]] = {}
    for span in spans:
        for node in span.above:
            leads.setdefault(node, []).append(span)
    found: set[Span] = set()
    ahead = [start]
    while ahead:
        for span in leads.get(ahead.pop(), []):
            if span not in found:
                found.add(span)
                ahead.append(span.node)
    return found


class Receiver:
    """Takes what exporters send, from when it is entered until it is left."""

    def __init__(self, file: Path | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._file, self._lock = file, threading.Lock()
        self._spans: list[Span] = []
        self._lines: list[Line] = []
        self._metrics: dict[tuple[str, str], set[str]] = {}
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "Receiver":
        self._server = serve(self.port, self.take)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, body: bytes) -> None:
        with self._lock:
            if self._file is not None:
                with self._file.open("ab") as out:
                    out.write(body)
            match path:
                case "/v1/traces":
                    self._spans += _spans(ExportTraceServiceRequest.FromString(body))
                case "/v1/logs":
                    self._lines += _lines(ExportLogsServiceRequest.FromString(body))
                case "/v1/metrics":
                    for service, name, labels in _metrics(ExportMetricsServiceRequest.FromString(body)):
                        self._metrics.setdefault((service, name), set()).update(labels)

    @property
    def spans(self) -> tuple[Span, ...]:
        with self._lock:
            return tuple(self._spans)

    @property
    def lines(self) -> tuple[Line, ...]:
        with self._lock:
            return tuple(self._lines)

    @property
    def metrics(self) -> dict[tuple[str, str], set[str]]:
        """(service, metric) -> the names of its labels."""
        with self._lock:
            return {key: set(labels) for key, labels in self._metrics.items()}


def serve(port: int, take: Any) -> ThreadingHTTPServer:
    """Answer every POST with 200, and give its path and body to `take`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            take(self.path, gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _spans(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for resource in request.resource_spans:
        service = str(_attributes(resource.resource.attributes).get("service.name"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                trace = span.trace_id.hex()
                yield Span(
                    service=service,
                    name=span.name,
                    node=(trace, span.span_id.hex()),
                    parent=(trace, span.parent_span_id.hex()) if span.parent_span_id else None,
                    links=frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    attributes=_attributes(span.attributes),
                    is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                )


def _lines(request: ExportLogsServiceRequest) -> Iterable[Line]:
    for resource in request.resource_logs:
        service = str(_attributes(resource.resource.attributes).get("service.name"))
        for scope in resource.scope_logs:
            for line in scope.log_records:
                yield Line(service, line.body.string_value, line.trace_id.hex())


def _metrics(request: ExportMetricsServiceRequest) -> Iterable[tuple[str, str, set[str]]]:
    for resource in request.resource_metrics:
        service = str(_attributes(resource.resource.attributes).get("service.name"))
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                yield service, metric.name, {label.key for point in data.data_points for label in point.attributes}


def _attributes(given: Iterable[KeyValue]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in given}


def _value(given: AnyValue) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in given.array_value.values]
    return getattr(given, kind) if kind else None


if __name__ == "__main__":
    serve(int(sys.argv[1]), lambda _path, _body: None)
    threading.Event().wait()
