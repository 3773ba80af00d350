"""The supervisor: what it refuses, what it runs, and in which order it ends."""

import os
import socket
import sys
from pathlib import Path

import pytest
from processes import until

from infra import config
from infra.config import CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR, Config
from infra.errors import StartError
from infra.process import Process, ProcessSpec
from infra.supervisor import Supervisor, specs, with_metrics_ports


@pytest.fixture
def given(tmp_path: Path) -> Config:
    path = tmp_path / "onstream.yaml"
    path.write_text(f"run_dir: {tmp_path}\nmodel: {{path: {tmp_path}/none}}\n")
    return config.load(path, {})


def test_a_taken_port_is_named_before_anything_starts(given: Config, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        router = given.serving.router.model_copy(update={"port": port})
        taken = given.model_copy(update={"serving": given.serving.model_copy(update={"router": router})})
        supervisor = Supervisor(taken, tmp_path / "onstream.yaml", print)
        with pytest.raises(StartError, match=rf"serving.router.port: port {port} on 127.0.0.1 is taken"):
            supervisor.start()
    assert supervisor.processes == {}
    supervisor.stop()


def test_one_port_given_twice_is_named_with_both_places(given: Config, tmp_path: Path) -> None:
    router = given.serving.router.model_copy(update={"port": given.serving.rollout.port})
    twice = given.model_copy(update={"serving": given.serving.model_copy(update={"router": router})})
    supervisor = Supervisor(twice, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"serving.rollout.port: .* is also serving.router.port"):
        supervisor.start()
    supervisor.stop()


def test_a_scoring_port_given_twice_is_named_too(given: Config, tmp_path: Path) -> None:
    first, second = given.serving.engines
    engines = (first.model_copy(update={"scoring_port": second.port}), second)
    twice = given.model_copy(update={"serving": given.serving.model_copy(update={"engines": engines})})
    supervisor = Supervisor(twice, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"candidate-0 port: .* is also serving.engines stable-0 scoring_port"):
        supervisor.start()
    supervisor.stop()


def test_processes_get_a_credential_of_their_own_for_control_and_for_scoring(
    given: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONTROL_TOKEN_VAR, raising=False)
    monkeypatch.setenv(SCORING_TOKEN_VAR, "given")
    held = Supervisor(given, tmp_path / "onstream.yaml", print)._env
    assert len(held[CONTROL_TOKEN_VAR]) >= 32
    assert held[SCORING_TOKEN_VAR] == "given"
    monkeypatch.delenv(SCORING_TOKEN_VAR)
    fresh = Supervisor(given, tmp_path / "onstream.yaml", print)._env
    assert len({fresh[CONTROL_TOKEN_VAR], fresh[SCORING_TOKEN_VAR], held[CONTROL_TOKEN_VAR]}) == 3


def test_the_control_token_is_left_for_commands_of_this_user_alone(given: Config, tmp_path: Path) -> None:
    given.control_token_path.write_text("of a run before")
    given.control_token_path.chmod(0o644)
    refused = given.model_copy(update={"health": given.health.model_copy(update={"port": 1})})
    supervisor = Supervisor(refused, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"health\.port"):
        supervisor.start()
    supervisor.stop()
    assert given.control_token_path.read_text() == supervisor._env[CONTROL_TOKEN_VAR]
    assert given.control_token_path.stat().st_mode & 0o777 == 0o600


def test_every_stage_of_the_loop_is_a_process(given: Config, tmp_path: Path) -> None:
    names = [spec.name for spec in specs(given, tmp_path / "onstream.yaml")]
    assert names == ["stable-0", "candidate-0", "router", "rollout", "ingest", "lake", "rewards", "trainer"]


def test_a_lake_that_is_not_wanted_is_no_process(given: Config, tmp_path: Path) -> None:
    lake = given.ingest.lake.model_copy(update={"enabled": False})
    without = given.model_copy(update={"ingest": given.ingest.model_copy(update={"lake": lake})})
    assert "lake" not in [spec.name for spec in specs(without, tmp_path / "onstream.yaml")]


def test_a_run_dir_in_use_is_refused_and_left_as_it_was(given: Config, tmp_path: Path) -> None:
    first = Supervisor(given, tmp_path / "onstream.yaml", print)
    first.claim()
    state = tmp_path / "state.json"
    state.write_text("{}")
    second = Supervisor(given, tmp_path / "onstream.yaml", print)
    with pytest.raises(StartError, match=r"run_dir: .* is in use"):
        second.start()
    second.stop()
    assert state.read_text() == "{}"
    first.stop()
    second.claim()
    second.stop()


STOPS = """
import signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[1]))
    print("ended at", time.time(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True: time.sleep(1)
"""


def test_the_router_ends_its_replies_before_the_engines_end(given: Config, tmp_path: Path) -> None:
    supervisor = Supervisor(given, tmp_path / "onstream.yaml", print)
    for name, takes_s in {"broker": "0", "stable-0": "0", "router": "0.3"}.items():
        spec = ProcessSpec(name, (sys.executable, "-c", STOPS, takes_s))
        supervisor.processes[name] = Process(spec, tmp_path / f"{name}.log", os.environ)
        supervisor.processes[name].start()
    logs = {name: process.log_file for name, process in supervisor.processes.items()}
    until(lambda: all("up" in log.read_text() for log in logs.values()))
    supervisor.stop()
    ended = {name: float(log.read_text().split()[-1]) for name, log in logs.items()}
    assert sorted(ended, key=lambda name: ended[name]) == ["router", "stable-0", "broker"]


def test_where_prometheus_reads_metrics_each_process_has_a_port(given: Config, tmp_path: Path) -> None:
    asked = specs(given, tmp_path / "onstream.yaml")
    variable = "OTEL_EXPORTER_PROMETHEUS_PORT"
    found = with_metrics_ports(asked, {"OTEL_METRICS_EXPORTER": "otlp,prometheus", variable: "20000"})
    assert [spec.env[variable] for spec in found] == [str(20000 + number) for number in range(len(asked))]
    assert all(before.env.items() <= spec.env.items() for before, spec in zip(asked, found, strict=True))
    assert with_metrics_ports(asked, {"OTEL_METRICS_EXPORTER": "otlp"}) == asked
