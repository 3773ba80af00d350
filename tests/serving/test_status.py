"""What `onstream status` counts on the log, and `onstream versions` lists of the store."""

import json
from pathlib import Path

import pytest

from ingest.log.letters import Failure, write
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.topics import dead_letters, late_letters
from ingest.store.versions import VersionStore
from serving import status
from serving.status import lost_feedback

DEAD, LATE = dead_letters("feedback", "ingest"), late_letters("feedback", "ingest")


def put(log: InMemoryLog, topic: str, offset: int, failure: Failure) -> None:
    write(log, topic, Message("feedback", 0, offset, "key", b"{}", {}), failure, "because")


def test_feedback_that_no_session_has_is_counted_once_and_by_why() -> None:
    log = InMemoryLog()
    for offset, failure in [
        (0, Failure.UNCLAIMED),
        (1, Failure.UNCLAIMED),
        (1, Failure.UNCLAIMED),
        (4, Failure.UNCLAIMED),
    ]:
        put(log, DEAD, offset, failure)
    put(log, DEAD, 2, Failure.UNREADABLE)
    put(log, LATE, 3, Failure.LATE)
    assert lost_feedback(log) == {"about nothing known": 3, "late": 1, "unreadable": 1}


def test_a_log_without_letters_has_lost_no_feedback() -> None:
    assert set(lost_feedback(InMemoryLog()).values()) == {0}


def test_versions_are_listed_with_what_their_weights_take_and_of_what_they_are_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onstream.yaml").write_text(json.dumps({"run_dir": str(tmp_path), "model": {"path": "unused"}}))
    store, made = VersionStore(str(tmp_path / "store")), tmp_path / "made"
    made.mkdir()
    (made / "model.safetensors").write_bytes(bytes(2_400_000))
    first = store.publish(0, made, None, {}, {}, 1.0)
    (made / "model.safetensors").write_bytes(bytes(300_000))
    second = store.publish(1, made, first, {"num_turns": 64}, {}, 2.0, first)
    assert status.versions(["-c", str(tmp_path / "onstream.yaml")]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row[1:6]] for row in rows] == [
        ["0", first.digest[:12], "-", "2.4 MB", "-"],
        ["1", second.digest[:12], "0", "0.3 MB over 0", "64"],
    ]
