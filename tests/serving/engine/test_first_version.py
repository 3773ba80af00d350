"""Which version an engine starts with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import LogError
from ingest.log.memory import InMemoryLog
from ingest.log.reader import send
from ingest.log.topics import RELEASES
from ingest.records.events import Release, ReleaseKind
from serving.engine.wanted import first_version


def released(log: InMemoryLog, stable: int, **engines: int) -> None:
    kind = ReleaseKind.BOOTSTRAP
    send(log, RELEASES, "", Release(release=0, epoch=1, kind=kind, stable=stable, engines=engines, reason="", at=0.0))


def test_an_engine_starts_with_the_version_that_the_log_gives_it(tmp_path: Path) -> None:
    log = InMemoryLog()
    released(log, 3, a=4)
    assert [first_version(lambda: log, name, tmp_path) for name in ("a", "b")] == [4, 3]


def opening(*found: InMemoryLog | LogError) -> Callable[[], InMemoryLog]:
    """One after the other, as it is asked for them."""
    left = iter(found)

    def open_() -> InMemoryLog:
        one = next(left)
        if isinstance(one, LogError):
            raise one
        return one

    return open_


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.lifecycle.Stop.wait", lambda _stop, _seconds: False)


@pytest.mark.usefixtures("hurried")
def test_an_engine_that_never_served_waits_for_a_broker_and_for_the_first_release(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, empty = InMemoryLog(), InMemoryLog()
    released(log, 0)
    assert first_version(opening(LogError("no broker"), empty, log), "a", tmp_path) == 0
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "no broker",
        "engine a: nothing was ever released",
    ]


@pytest.mark.parametrize("away", [LogError("no broker"), InMemoryLog()])
def test_without_a_release_an_engine_starts_with_what_it_served_last(
    tmp_path: Path, away: InMemoryLog | LogError
) -> None:
    (tmp_path / "serving").write_text("5")
    assert first_version(opening(away), "a", tmp_path) == 5
