"""An engine is ready while it serves what the release log gives it."""

import threading
from collections.abc import Iterator

import pytest
from processes import until

from infra.lifecycle import Stop
from ingest.log.memory import InMemoryLog
from ingest.log.reader import send
from ingest.log.topics import RELEASES
from ingest.records.events import Release, ReleaseKind
from serving.engine.wanted import Wanted


def give(log: InMemoryLog, number: int, kind: ReleaseKind = ReleaseKind.TRIAL, **engines: int) -> None:
    release = {"release": number, "epoch": 1, "kind": kind, "stable": 0, "reason": "", "at": 0.0, "engines": engines}
    send(log, RELEASES, "", Release.model_validate(release))


@pytest.fixture
def log() -> InMemoryLog:
    return InMemoryLog()


@pytest.fixture
def wanted(log: InMemoryLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wanted]:
    monkeypatch.setattr("serving.engine.wanted._LOOK_S", 0.01)
    held, stop = Wanted("e0", first=7), Stop()
    following = threading.Thread(target=held.follow, args=(lambda: log, stop))
    following.start()
    yield held
    stop.set()
    following.join()


def test_until_the_log_was_read_what_was_served_last_is_right(wanted: Wanted) -> None:
    assert (wanted.trouble(7), wanted.version) == ("", 7)


def test_an_engine_that_serves_something_else_says_so(wanted: Wanted, log: InMemoryLog) -> None:
    give(log, 0, ReleaseKind.BOOTSTRAP)
    until(lambda: wanted.version == 0)
    assert wanted.trouble(7) == "serves version 7, and the release log gives it 0"
    give(log, 1, e0=3, e1=4)
    until(lambda: wanted.trouble(3) == "")
    assert wanted.trouble(0) == "serves version 0, and the release log gives it 3"


def test_an_engine_that_no_release_names_shall_serve_stable(wanted: Wanted, log: InMemoryLog) -> None:
    give(log, 0, e1=4)
    until(lambda: wanted.trouble(0) == "")


def test_an_outage_changes_nothing(wanted: Wanted, log: InMemoryLog) -> None:
    give(log, 0, e0=3)
    until(lambda: wanted.version == 3)
    log.restart()
    assert wanted.trouble(3) == ""
    give(log, 1, e0=4)
    until(lambda: wanted.trouble(4) == "")


def test_an_engine_too_old_for_a_release_is_not_ready(wanted: Wanted, log: InMemoryLog) -> None:
    give(log, 0, e0=3)
    until(lambda: wanted.version == 3)
    log.append(RELEASES.name, "", b"{}", {"schema": f"release/{Release.VERSION + 1}"})
    until(lambda: wanted.trouble(3))
    assert "releases/" in wanted.trouble(3)
