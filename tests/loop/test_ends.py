"""Processes of ours as an orchestrator sees them: probed, without a broker for a while, and asked to end."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_ports
from processes import until

from infra.config import CONTROL_TOKEN_VAR

ROLES = ["ingest", "ingest lake", "rewards", "serving router", "serving rollout"]


class Started:
    """`python -m <role>` with a broker that is not there, and a health port."""

    def __init__(self, role: str, folder: Path) -> None:
        broker, self._health, *ports = free_ports(8)
        engines = [
            {"id": arm, "arm": arm, "port": ports[n], "control_port": ports[n + 1]}
            for n, arm in ((0, "stable"), (2, "candidate"))
        ]
        given = {
            "run_dir": str(folder),
            "model": {"path": "none"},
            "log": {"brokers": f"127.0.0.1:{broker}", "timeout_s": 1},
            "serving": {"engines": engines, "router": {"port": ports[4]}, "rollout": {"port": ports[5]}},
            "health": {"port": self._health},
        }
        path = folder / "onstream.yaml"
        path.write_text(yaml.safe_dump(given))
        self.errors = folder / "errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *role.split(), "--config", str(path)],
                stderr=errors,
                env={CONTROL_TOKEN_VAR: "token", "PYTHONPATH": ":".join(sys.path)},
            )

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body; status 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}{path}", timeout=5.0) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read())
        except OSError:
            return 0, {}


@pytest.fixture
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Started]:
    held = Started(request.param, tmp_path)
    yield held
    with contextlib.suppress(ProcessLookupError):
        held.process.kill()
    held.process.wait()


@pytest.mark.parametrize("started", ROLES, indirect=True)
def test_a_process_without_a_broker_is_alive_not_ready_and_ends_when_asked(started: Started) -> None:
    until(lambda: started.ask("/started")[0] == 200 or started.process.poll() is not None, 60.0)
    assert started.process.poll() is None, started.errors.read_text()
    assert started.ask("/live") == (200, {"ok": True})
    status, body = started.ask("/ready")
    assert status == 503 and ("no broker answers" in body["reason"] or body["reason"] == "no engine answers")
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(20.0) == 0, started.errors.read_text()
