"""What a process says of itself to who may restart it."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ports import free_port

from infra import health
from infra.config import HealthConfig
from infra.errors import LogError, StartError
from infra.lifecycle import Pulse, Stop
from ingest.log.reader import outlast_outages


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A process's health on a port; `trouble` keeps it from being ready."""

    def __init__(self) -> None:
        self.clock, self.trouble = Clock(), ""
        self.pulse = Pulse(self.clock)
        self.config = HealthConfig(port=free_port(), stall_s=60.0)

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.config.port}{path}", timeout=5.0) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read())

    def statuses(self) -> tuple[int, int, int]:
        """Of live, started and ready."""
        live, started, ready = (self.ask(path)[0] for path in ("/live", "/started", "/ready"))
        return live, started, ready


@pytest.fixture
def process() -> Iterator[Process]:
    held = Process()
    close = health.serve(held.config, held.pulse, lambda: held.trouble)
    yield held
    close()


def test_what_loads_for_long_is_starting_and_not_broken(process: Process) -> None:
    process.clock.now = 10_000.0
    assert process.statuses() == (200, 503, 503)
    assert process.ask("/started")[1] == {"ok": False, "reason": "starting"}
    process.pulse.go_on()
    assert process.statuses() == (200, 503, 503), "a long load is no turn of the main loop"
    process.pulse.beat()
    assert process.statuses() == (200, 200, 200)


def test_a_main_loop_that_stands_still_is_broken(process: Process) -> None:
    process.pulse.beat()
    process.clock.now = 60.0
    assert process.statuses() == (200, 200, 200)
    process.clock.now = 61.0
    assert process.statuses() == (503, 200, 503)
    assert process.ask("/live")[1]["reason"] == "the main loop has not turned for 61 s"
    process.pulse.go_on()
    assert process.statuses() == (200, 200, 200)


def test_what_is_in_trouble_is_alive_and_says_why_it_is_not_ready(process: Process) -> None:
    process.pulse.beat()
    process.trouble = "serves version 3, and the release log gives it 4"
    assert process.statuses() == (200, 200, 503)
    assert process.ask("/ready?from=kubelet")[1]["reason"] == process.trouble


def test_other_paths_are_not_there(process: Process) -> None:
    status, body = process.ask("/metrics")
    assert (status, body["error"]) == (404, "there is /live, /started, /ready")


def test_a_port_that_is_taken_is_named(process: Process) -> None:
    with pytest.raises(StartError, match=rf"health\.port: port {process.config.port} on 127\.0\.0\.1 cannot be had"):
        health.serve(process.config, process.pulse)


def test_without_a_port_nothing_is_told() -> None:
    before = threading.active_count()
    end = health.serve(HealthConfig(), Pulse())
    assert threading.active_count() == before
    end()


def test_an_outage_is_no_reason_to_be_killed_and_one_not_to_be_ready() -> None:
    stop, told = Stop(), []

    def run() -> None:
        told.append(stop.pulse.trouble)
        if len(told) == 1:
            raise LogError("no broker answers")
        stop.pulse.beat()

    outlast_outages(stop, run, pulse=stop.pulse)
    assert told == ["", "no broker answers"]
    assert (stop.pulse.has_begun, stop.pulse.trouble) == (True, "")
