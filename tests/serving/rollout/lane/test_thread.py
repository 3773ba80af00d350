"""The lane's thread beside the controller."""

from pathlib import Path
from threading import Event

import pytest

from infra.config import Config
from infra.errors import LogError
from infra.lifecycle import Stop
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog
from serving.rollout.lane import thread


def config(folder: Path, share: float) -> Config:
    slots = [
        {"id": arm, "arm": arm, "port": 1 + n, "control_port": 3 + n} for n, arm in enumerate(("stable", "candidate"))
    ]
    serving = {"lane": {"share": share}, "engines": slots}
    return Config.model_validate({"run_dir": str(folder), "model": {"path": str(folder)}, "serving": serving})


def test_without_a_share_there_is_no_lane(tmp_path: Path) -> None:
    def open_log() -> EventLog:
        raise AssertionError("the log is not asked for")

    assert not config(tmp_path, 0.0).serving.lane.share
    assert Config.model_validate({"model": {"path": "."}}).serving.lane.share == 0.0
    assert thread.start(config(tmp_path, 0.0), open_log, "token", Stop()) is None


def test_the_lane_outlasts_a_log_that_is_away_and_ends_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.log.reader.backoff_s", lambda _first, _most: iter(lambda: 0.0, 1.0))
    log, stop, is_back, attempts = InMemoryLog(), Stop(), Event(), [0]
    log.create(topics.specs(partitions=1, retention_s=1e9))

    class Away(InMemoryLog):
        def ends(self, topic: str) -> dict[int, int]:
            raise LogError("no broker answers")

    def open_log() -> EventLog:
        attempts[0] += 1
        if attempts[0] > 2:
            is_back.set()
            return log
        return Away()

    running = thread.start(config(tmp_path, 0.1), open_log, "token", stop)
    assert running is not None and is_back.wait(20.0)
    stop.set()
    running.join(20.0)
    assert not running.is_alive() and attempts == [3]
