"""Fixtures every folder may use: a real Kafka-protocol broker, and the configuration that reaches it."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from ports import free_port

from infra.broker import command
from infra.config import LogConfig
from infra.lifecycle import Deadline

HOST = "127.0.0.1"

# how long a case takes says what else the machine does
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


class Broker:
    """A broker process on a free port; `start` after `stop` finds the same data on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command(self._folder / "data", HOST, self.port), stdout=log, stderr=log, start_new_session=True
            )
        deadline = Deadline.after(20.0)
        while not self._listens():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
            if self._process.returncode is not None or deadline.passed():
                raise RuntimeError(f"no broker at port {self.port}: {(self._folder / 'broker.log').read_text()}")

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1.0).close()
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def config(self, timeout_s: float) -> LogConfig:
        return LogConfig(brokers=f"{HOST}:{self.port}", timeout_s=timeout_s)


def is_heavy(path: Path) -> bool:
    """Whether a test has engines or Ray."""
    return not {"e2e", "workers"}.isdisjoint(path.parts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The heaviest first: of two workers one is busy with them nearly to the end."""
    items.sort(key=lambda item: not is_heavy(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers (`make test`): a file stays on one of them, and what is heavy on the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "heavy" if is_heavy(Path(file)) else file

    return Scheduling(config, log)


@pytest.fixture
def unreachable() -> LogConfig:
    """A configuration whose broker is not there."""
    return LogConfig(brokers=f"{HOST}:{free_port()}", timeout_s=1.0)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole run; tests use topics and groups of their own."""
    running = Broker(tmp_path_factory.mktemp("broker"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker for one test, which may stop and start it."""
    running = Broker(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def kafka_config(broker: Broker) -> LogConfig:
    """How to reach the session's broker."""
    return broker.config(timeout_s=10.0)
