"""Setting telemetry up: off unless asked for, by the standard variables, and out by the time the process ends."""

import socket
import subprocess
import sys

import pytest
from opentelemetry import metrics, trace
from ports import free_port

from infra import telemetry
from infra.errors import StartError
from infra.telemetry import providers


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "prometheus"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", **dict.fromkeys(
            ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")},
    ],
)  # fmt: skip
def test_nothing_is_installed_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    before = trace.get_tracer_provider(), metrics.get_meter_provider()
    telemetry.setup("test", environ=environ)
    assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == before
    assert not telemetry.is_measuring()
    assert not telemetry.is_tracing()


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_an_endpoint_asks_for_every_signal_and_a_signals_own_for_that_one(signal: str) -> None:
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    assert providers.exporters(everything, signal) == ("otlp",)
    assert providers.endpoint(everything, signal) == f"http://collector:4318/v1/{signal.lower()}"
    own = {f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": "http://other/x"}
    assert (providers.exporters(own, signal), providers.endpoint(own, signal)) == (("otlp",), "http://other/x")
    others = {"TRACES", "METRICS", "LOGS"} - {signal}
    assert [providers.exporters(own, other) for other in others] == [(), ()]


def test_several_exporters_may_be_asked_for() -> None:
    assert providers.exporters({"OTEL_METRICS_EXPORTER": "otlp, prometheus"}, "METRICS") == ("otlp", "prometheus")


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: must be of otlp, console, none, got 'zipkin'"),
        ({"OTEL_LOGS_EXPORTER": "prometheus"}, "OTEL_LOGS_EXPORTER: must be of"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken here",
        ),
        (
            {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "many"},
            "OTEL_EXPORTER_PROMETHEUS_PORT: must be a port, got 'many'",
        ),
    ],
)
def test_what_there_is_not_is_refused_by_name(environ: dict[str, str], told: str) -> None:
    with pytest.raises(StartError, match=told):
        telemetry.setup("test", environ=environ)


def test_a_prometheus_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1"}
        with pytest.raises(StartError, match=f"127.0.0.1:{port} cannot be listened on"):
            telemetry.setup("test", environ=environ | {"OTEL_EXPORTER_PROMETHEUS_PORT": str(port)})


def test_a_command_that_is_soon_over_opens_no_port_for_prometheus() -> None:
    telemetry.setup("erase", environ={"OTEL_METRICS_EXPORTER": "prometheus"}, is_brief=True)
    assert not telemetry.is_measuring()


def run(program: str, environ: dict[str, str], before: str = "") -> str:
    begin = (
        f"{before}from infra import telemetry\nfrom infra.telemetry import metrics, names\n"
        f"telemetry.setup('trainer', 't-0', {environ})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CONSOLE = {f"OTEL_{signal}_EXPORTER": "console" for signal in ("TRACES", "METRICS", "LOGS")}


def test_what_is_asked_for_is_exported_by_the_time_the_process_ends() -> None:
    program = (
        "import logging\n"
        "with telemetry.span(names.UPDATE, {names.NUM_TURNS: 3}) as span:\n"
        "    telemetry.count(metrics.TURNS_TRAINED, 3)\n"
        "    logging.getLogger('trainer.loop').warning('it trains')\n"
        "    print(f'trace {span.get_span_context().trace_id:032x}')\n"
    )
    told = run(program, CONSOLE)
    for expected in (
        '"update policy"', '"onstream.turns": 3', '"onstream.trainer.turns.trained"', '"it trains"',
        '"service.name": "onstream-trainer"', '"service.instance.id": "t-0"', '"service.namespace": "onstream"',
    ):  # fmt: skip
        assert expected in told
    trace_id = told.partition("trace ")[2][:32]
    assert told.count(f'"0x{trace_id}"') == 2  # of the span, and of the line that was logged in it


def test_a_log_line_says_what_failed_and_nothing_of_what_it_was_about() -> None:
    program = (
        "import logging\n"
        "try:\n"
        "    int('what a user typed')\n"
        "except ValueError:\n"
        "    logging.getLogger('serving.engine.capture').exception('lost')\n"
    )
    told = run(program, {"OTEL_LOGS_EXPORTER": "console"})
    assert '"exception.type": "ValueError"' in told
    assert "invalid literal" not in told


def test_what_a_client_worded_and_what_an_exception_says_stay_in_the_process_s_own_log() -> None:
    program = (
        "import logging\n"
        "line = 'session %s closed after %d turns, %s: %s'\n"
        "args = (telemetry.Local('what a user typed'), 3, 'engine-0', ValueError('what a user typed'))\n"
        "logging.getLogger('ingest').warning(line, *args)\n"
    )
    told = run(program, {"OTEL_LOGS_EXPORTER": "console"})
    assert '"session (kept local) closed after 3 turns, engine-0: ValueError"' in told
    assert "what a user typed" not in told


def test_other_libraries_lines_are_not_sent() -> None:
    program = "import logging\nlogging.getLogger('vllm').error('what a user typed')\n"
    assert "what a user typed" not in run(program, {"OTEL_LOGS_EXPORTER": "console"})


def test_standard_variables_name_the_process_otherwise() -> None:
    program = (
        "import os\nfrom infra.telemetry.providers import _resource\n"
        "os.environ |= {'OTEL_SERVICE_NAME': 'mine', 'OTEL_RESOURCE_ATTRIBUTES': 'service.instance.id=pod-7,a=b'}\n"
        "print(sorted(_resource('trainer', '').attributes.items()))\n"
    )
    told = run(program, {})
    for pair in (("service.name", "mine"), ("service.instance.id", "pod-7"), ("a", "b")):
        assert str(pair) in told


def test_a_collector_that_never_answers_does_not_keep_a_process_from_ending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        where = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        program = (
            "import logging\n"
            "with telemetry.span(names.UPDATE):\n"
            "    telemetry.count(metrics.TURNS_TRAINED, 3)\n"
            "    logging.getLogger('trainer.loop').warning('it trains')\n"
            "print('over')\n"
        )
        given = {"OTEL_EXPORTER_OTLP_TIMEOUT": "600", "OTEL_EXPORTER_OTLP_ENDPOINT": where}  # of the SDK's own
        assert "over" in run(program, given, f"import os\nos.environ |= {given}\n")


def test_prometheus_reads_metrics_where_the_standard_variables_say() -> None:
    port = free_port()
    environ = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1"}
    program = (
        "import urllib.request\n"
        "telemetry.count(metrics.TRACES_CAPTURED, 2, {names.ARM: 'stable'})\n"
        "telemetry.observe(metrics.SPOOL_BYTES, lambda: 7)\n"
        f"print(urllib.request.urlopen('http://127.0.0.1:{port}/metrics').read().decode())\n"
    )
    told = run(program, environ | {"OTEL_EXPORTER_PROMETHEUS_PORT": str(port)})
    assert "onstream_traces_captured_total{" in told
    assert 'onstream_arm="stable"' in told
    (line,) = (line for line in told.splitlines() if line.startswith("onstream_spool_size_bytes"))
    assert line.endswith(" 7.0")
