"""`onstream up --watch`: Prometheus beside the system."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from chartwatch import debian, rules
from processes import until

from infra import config, supervisor, watch
from infra.config import Config
from infra.lifecycle import Deadline
from infra.process import Process, ProcessSpec
from infra.supervisor import Supervisor, specs
from infra.watch import Watch

METERED = Path(__file__).parents[1] / "support" / "metered.py"


@pytest.fixture
def given(tmp_path: Path) -> Config:
    path = tmp_path / "onstream.yaml"
    path.write_text(f"run_dir: {tmp_path}/run\nmodel: {{path: {tmp_path}/none}}\n")
    (tmp_path / "run").mkdir()
    return config.load(path, {})


def watched(given: Config, prometheus: Path | None) -> tuple[Supervisor, list[ProcessSpec]]:
    path = Path(given.run_dir).parent / "onstream.yaml"
    held = Supervisor(given, path, print, prometheus)
    return held, held._watched(specs(given, path))


def test_every_process_gets_a_port_for_its_metrics_that_no_other_has(given: Config) -> None:
    held, wanted = watched(given, Path("/opt/prometheus"))
    *mine, last = wanted
    assert last.name == "prometheus"
    assert {spec.env["OTEL_METRICS_EXPORTER"] for spec in mine} == {"prometheus"}
    assert {spec.env["OTEL_EXPORTER_PROMETHEUS_HOST"] for spec in mine} == {"127.0.0.1"}
    ports = {int(spec.env["OTEL_EXPORTER_PROMETHEUS_PORT"]) for spec in mine}
    assert held.watch is not None
    assert len(ports | {held.watch.port}) == len(wanted)
    assert max(ports) < 32_768


def test_the_processes_run_as_they_do_when_nobody_watches(given: Config) -> None:
    _, wanted = watched(given, Path("/opt/prometheus"))
    _, alone = watched(given, None)
    assert [spec.name for spec in wanted] == [*(spec.name for spec in alone), "prometheus"]
    assert [spec.argv for spec in wanted[:-1]] == [spec.argv for spec in alone]
    for with_, without in zip(wanted, alone, strict=False):
        assert without.env.items() <= with_.env.items()
        assert "OTEL_METRICS_EXPORTER" not in without.env


def test_ports_that_are_given_or_taken_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = held.getsockname()[1]
        monkeypatch.setattr(watch, "_METRICS_FROM", taken)
        monkeypatch.setattr(watch, "_BELOW", 65_536)
        made = watch.plan(Path("prometheus"), ["router", "ingest"], [taken + 1])
    assert min(made.ports.values()) > taken + 1


def test_metrics_go_on_to_the_collector_that_the_environment_names() -> None:
    spec = ProcessSpec("router", ("true",), {"OMP_NUM_THREADS": "1"})
    made = Watch(Path("prometheus"), 9090, {"router": 9464})
    told = watch.measured(spec, made, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    assert told.env["OTEL_METRICS_EXPORTER"] == "otlp,prometheus"
    assert told.env["OMP_NUM_THREADS"] == "1"
    assert (
        watch.measured(spec, made, {"OTEL_METRICS_EXPORTER": "prometheus"}).env["OTEL_METRICS_EXPORTER"] == "prometheus"
    )


def test_a_target_is_called_by_its_process_and_the_rules_are_those_of_the_chart() -> None:
    made = watch.scrape(Watch(Path("prometheus"), 9090, {"router": 9464, "stable-0": 9465}))
    (job,) = made["scrape_configs"]
    assert job["static_configs"] == [
        {"targets": ["127.0.0.1:9464"], "labels": {"instance": "router"}},
        {"targets": ["127.0.0.1:9465"], "labels": {"instance": "stable-0"}},
    ]
    assert made["rule_files"] == [f"{rules.RULES}/*.yaml"]


def test_the_ports_are_in_the_state_of_the_run(given: Config) -> None:
    held, wanted = watched(given, Path("/opt/prometheus"))
    for spec in wanted:
        held._add(spec)
    held._write_state()
    told = json.loads((Path(given.run_dir) / "state.json").read_text())["processes"]
    assert held.watch is not None
    assert told["router"]["metrics"] == f"http://127.0.0.1:{held.watch.ports['router']}/metrics"
    assert "metrics" not in told["prometheus"]


def test_without_prometheus_it_is_said_how_to_get_it_and_the_rest_is_started(
    given: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "find", lambda: None)
    path = Path(given.run_dir).parent / "onstream.yaml"
    assert supervisor.main(["--watch", "--config", str(path)]) == 1
    said = capsys.readouterr()
    assert "--watch: prometheus is neither on PATH nor in .onstream/tools" in said.out
    assert "make tools" in said.out
    assert "model.path" in said.err  # the checks of a start: it went on to them


def test_a_prometheus_that_does_not_come_up_keeps_nobody_waiting(given: Config) -> None:
    held, wanted = watched(given, Path("/opt/prometheus"))
    for spec in wanted:
        held._add(spec).state = supervisor.ProcessState.READY
    held.processes["prometheus"].state = supervisor.ProcessState.WAITING
    assert held.is_ready()


@pytest.fixture(scope="module")
def prometheus() -> Path:
    if not debian.can_have():
        pytest.skip("needs prometheus: not on PATH, and no apt to fetch Debian's with")
    return debian.prometheus()


def test_promtool_accepts_the_configuration(given: Config, prometheus: Path) -> None:
    watched(given, prometheus)
    written = Path(given.run_dir) / "prometheus" / "prometheus.yml"
    done = subprocess.run([str(debian.promtool()), "check", "config", str(written)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load(written.read_text())["scrape_configs"][0]["job_name"] == "onstream"


class Running:
    """A process that shows metrics, and Prometheus that watches it."""

    def __init__(self, prometheus: Path, folder: Path) -> None:
        self.watch = watch.plan(prometheus, ["router"])
        child = watch.measured(ProcessSpec("router", (sys.executable, str(METERED), "r-0")), self.watch, {})
        checkout = {"PYTHONPATH": str(watch._CHECKOUT)}
        self._processes = [
            Process(spec, folder / f"{spec.name}.log", checkout) for spec in (child, watch.process(self.watch, folder))
        ]
        for process in self._processes:
            process.start()

    def ask(self, path: str) -> Any:
        """What the API answers; nothing while it does not."""
        try:
            answer = httpx.get(f"{self.watch.url}{path}")
        except httpx.TransportError:
            return {}
        return answer.json()["data"] if answer.is_success else {}

    def stop(self) -> None:
        for process in self._processes:
            process.ask_to_stop()
            process.end(Deadline.after(10.0))


@pytest.fixture(scope="module")
def running(prometheus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    held = Running(prometheus, tmp_path_factory.mktemp("watched"))
    try:
        yield held
    finally:
        held.stop()


def test_prometheus_finds_the_process_healthy(running: Running) -> None:
    until(lambda: running.ask("/api/v1/targets").get("activeTargets", []), 60.0)
    until(lambda: {one["health"] for one in running.ask("/api/v1/targets")["activeTargets"]} == {"up"}, 60.0)
    (target,) = running.ask("/api/v1/targets")["activeTargets"]
    assert target["labels"] == {"instance": "router", "job": "onstream"}


def test_the_pages_that_are_told_are_there(running: Running) -> None:
    until(lambda: running.ask("/api/v1/status/runtimeinfo"), 60.0)
    pages = [line.split()[1] for line in running.watch.told().splitlines()]
    assert len(pages) == 3
    for page in pages:
        answer = httpx.get(page)
        assert answer.is_success, page
        for part in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css)[^"]*)"', answer.text):
            assert httpx.get(f"{running.watch.url}{part}").is_success, part


def test_prometheus_evaluates_every_rule_of_the_chart(running: Running) -> None:
    def found() -> list[dict[str, Any]]:
        return [rule for group in running.ask("/api/v1/rules").get("groups", []) for rule in group["rules"]]

    until(lambda: found() and {rule["health"] for rule in found()} == {"ok"}, 60.0)
    assert {rule["name"] for rule in found()} == {alert.name for alert in rules.alerts()} | rules.recordings().keys()


def test_a_lost_trace_is_an_alert_that_fires(running: Running) -> None:
    def firing() -> dict[str, Any]:
        alerts = running.ask("/api/v1/alerts").get("alerts", [])
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    until(lambda: "OnstreamTracesDropped" in firing(), 60.0)
    assert "were lost at router" in firing()["OnstreamTracesDropped"]["annotations"]["description"]


def test_vllms_metrics_have_vllms_names(running: Running) -> None:
    until(lambda: running.ask("/api/v1/query?query=vllm:num_requests_waiting").get("result"), 60.0)


def test_whether_a_reward_has_a_signal_is_the_word_that_the_rules_look_for(running: Running) -> None:
    asked = '/api/v1/query?query=onstream_rewards_made_total{onstream_reward_has_signal="true"}'
    until(lambda: running.ask(asked).get("result"), 60.0)
