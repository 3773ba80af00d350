"""The zoo's house: broker, engines, router, ingest, rewards and rollout under the supervisor, and no trainer."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from ports import free_ports

from infra import config
from infra.config import CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR
from infra.lifecycle import Deadline
from infra.process import ProcessSpec
from infra.supervisor import Supervisor
from ingest.log import reader, topics
from ingest.log.connect import connect
from ingest.records.events import Release, ReleaseKind, TrialState, Version
from ingest.store import releases
from ingest.store.releases import Served
from ingest.store.versions import VersionStore

MODEL = "zoo"
_TOKEN = "token-of-the-zoo"
_SPEC = """
name: zoo
components:
  - {name: thumb, scorer: feedback, params: {names: [thumb]}}
guardrails:
  - {name: completed, scorer: reply, params: {finish_reasons: [stop]}}
  - {name: brevity, scorer: brevity, params: {half_tokens: 60}}
"""


class Keepers(Supervisor):
    """All but the trainer and the lake: versions are bred elsewhere."""

    def _watched(self, wanted: list[ProcessSpec]) -> list[ProcessSpec]:
        return super()._watched([spec for spec in wanted if spec.name not in ("trainer", "lake")])


class House:
    """A running loop of which the bench is the trainer."""

    def __init__(self, folder: Path, model: Path, rollout: Mapping[str, Any]) -> None:
        os.environ |= {CONTROL_TOKEN_VAR: _TOKEN, SCORING_TOKEN_VAR: f"{_TOKEN}-of-scorers"}
        path = _write(folder, model, rollout)
        self.config = config.load(path, {})
        self.store = VersionStore(self.config.store.url)
        self.told: list[str] = []
        self._supervisor = Keepers(self.config, path, self.told.append)
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self.url = f"http://{self.config.serving.router.host}:{self.config.serving.router.port}"

    def start(self) -> None:
        self._supervisor.start()
        self._ticker.start()
        self.until(self._supervisor.is_ready, 600.0, "everything is ready")

    def stop(self) -> None:
        self._over.set()
        self._ticker.join()
        self._supervisor.stop()

    def _tick(self) -> None:
        while not self._over.wait(0.2):
            self._supervisor.tick()

    def until(self, is_so: Callable[[], Any], seconds: float, what: str) -> Any:
        """Ask until it is so, and return what was answered."""
        deadline = Deadline.after(seconds)
        while not (found := is_so()):
            assert not deadline.passed(), f"within {seconds:.0f} s: {what}; {self.told[-5:]}"
            time.sleep(0.2)
        return found

    def publish(self, folder: Path, parent: int) -> Version:
        """What lies in `folder`, as the next version, and its record."""
        number = self.store.versions()[-1] + 1
        version = self.store.publish(number, folder, self.store.read(parent), {"trace_ids": []}, {}, time.time())
        log = connect(self.config, client_id="zoo")
        try:
            reader.send(log, topics.VERSIONS, "", version)
            log.flush(10.0)
        finally:
            log.close()
        return version

    def served(self) -> Served:
        """What the release log says."""
        log = connect(self.config, client_id="zoo")
        try:
            return releases.read(log)
        finally:
            log.close()

    def story(self, version: int) -> list[Release]:
        """The releases that moved a version's trial; turns that arms take are none."""
        log = connect(self.config, client_id="zoo")
        try:
            found = reader.replay(log, topics.RELEASES, Release)
            mine = (release for release in found if release.candidate == version and release.state is not None)
            return [release for release in mine if release.kind is not ReleaseKind.BLOCK]
        finally:
            log.close()

    def command(self, do: str, **fields: object) -> dict[str, Any]:
        """An operator's command to the controller."""
        own = self.config.serving.rollout
        answer = httpx.post(
            f"http://{own.host}:{own.port}/command",
            json={"do": do, "author": "zoo", "reason": "the next beast", **fields},
            headers={"authorization": f"Bearer {_TOKEN}"},
            timeout=60.0,
        )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


def _write(folder: Path, model: Path, rollout: Mapping[str, Any]) -> Path:
    broker, router, controller, trainer, *ports = free_ports(8)
    is_split = rollout["placement"] == "split"
    (folder / "spec.yaml").write_text(_SPEC)
    slots = [
        {
            "id": f"engine-{number}",
            "arm": "candidate" if is_split and number == 1 else "stable",
            "cpus": str(number % (os.cpu_count() or 1)),
            "port": ports[2 * number],
            "control_port": ports[2 * number + 1],
        }
        for number in range(2)
    ]
    given = {
        "run_dir": str(folder / "run"),
        "model": {"path": str(model), "name": MODEL},
        "log": {"brokers": f"127.0.0.1:{broker}", "partitions": 2},
        "serving": {
            "engines": slots,
            "engine": {"max_model_len": 512, "max_num_seqs": 16},
            "router": {"port": router, "retry_for_s": 60.0},
            "rollout": {"port": controller, **rollout},
        },
        "ingest": {"inactivity_s": 10.0, "held_out_share": 0.2},
        "rewards": {"spec": str(folder / "spec.yaml")},
        "trainer": {"port": trainer},
    }
    path = folder / "onstream.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def has_ended(story: list[Release], ends: TrialState) -> bool:
    """Whether a trial is over; one that a watch must end is not over when its version is promoted."""
    if not story:
        return False
    last = story[-1].state
    if last is TrialState.PROMOTED and ends is TrialState.ROLLED_BACK:
        return False
    return last in (TrialState.PROMOTED, TrialState.REJECTED, TrialState.EXPIRED, TrialState.ROLLED_BACK)
