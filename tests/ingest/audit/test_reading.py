"""From the log to heaps and to the account: in other processes too, and nothing is left on the disk."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from file_log import EndlessLog, FailingLog, FileLog, Files
from processes import is_alive, until
from traffic import Copies

from infra.config import Config, ModelConfig
from infra.errors import LogError, StoreError
from ingest.audit import heaps, reading
from ingest.audit.account import Account, Limits, account
from ingest.audit.books import Books
from ingest.audit.facts import ClosedFact, FateFact, FeedbackFact, RewardedFact, TraceFact
from ingest.audit.reading import STEPS, take
from ingest.audit.sources import SOURCES, TOPICS
from ingest.audit.telling import Teller
from ingest.log import letters, topics
from ingest.log.connect import connect
from ingest.log.letters import Failure
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.records import codec
from ingest.records.events import Fate, Record, Reward, Trace, Trajectory

LIMITS = Limits(inactivity_s=60.0, horizon_s=300.0, retention_s=1e9)
NOW = 10_000.0
NUM_TRACES = 300
ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parents[1] / "records" / "golden"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the audit lays its heaps, made small, so that a small log has several and other processes read it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(heaps, "PER_HEAP", 40)
    monkeypatch.setattr(heaps, "_HELD", 50)
    monkeypatch.setattr(reading, "_WORTH_MESSAGES", 0)
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Messages of a few hundred traces, in three partitions of each topic."""
    written = Files(tmp_path / "files", 3)
    for one in Copies(20).of(NUM_TRACES):
        written.append(one.topic, one.key, one.value, one.headers)
    written.close()
    return tmp_path / "files"


def in_one_pass(log: FileLog) -> Account:
    """By whole records, all in one book."""
    books = Books()
    for name in TOPICS:
        teller = Teller(name)
        for message in log.replay(name):
            codec.decode(message.value, message.headers, TOPICS[name].record)
            for fact in teller.facts(message):
                books.add(fact)
    return account(books, LIMITS, NOW)


@pytest.mark.parametrize("is_together", [False, True], ids=["in this process", "in two others"])
def test_a_log_read_heap_by_heap_gives_the_account_of_one_pass_and_leaves_nothing(
    files: Path, scratch: Path, is_together: bool
) -> None:
    log = FileLog(files)
    told: list[tuple[str, int, int]] = []
    open_log = partial(FileLog, files) if is_together else None
    found = take(log, LIMITS, NOW, open_log, lambda what, done, total: told.append((what, done, total)))
    assert found == in_one_pass(log)
    assert found.num_traces >= NUM_TRACES
    assert {"trained", "held_out", "refused", "expired"} == found.by_fate.keys()
    assert list(scratch.iterdir()) == []
    counted = [(done, total) for what, done, total in told if what == "reading"]
    assert counted == sorted(counted)
    assert {total for _, total in counted} == {sum(sum(log.ends(name).values()) for name in TOPICS)}


@pytest.mark.parametrize("is_together", [False, True], ids=["in this process", "in two others"])
def test_a_log_that_fails_half_way_is_told_and_leaves_nothing(files: Path, scratch: Path, is_together: bool) -> None:
    open_log = partial(FailingLog, files)
    with pytest.raises(LogError, match="rewards: away"):
        take(open_log(), LIMITS, NOW, open_log if is_together else None)
    assert list(scratch.iterdir()) == []


def test_what_a_killed_audit_left_goes_with_the_next_one_and_what_another_uses_stays(scratch: Path) -> None:
    old = time.time() - 3600.0
    left, used, fresh = (scratch / f"onstream-audit-{name}" for name in ("left", "used", "fresh"))
    for folder in (left, used, fresh):
        folder.mkdir()
        (folder / "lock").touch()
        os.utime(folder, (old, old) if folder is not fresh else None)
    with (used / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with heaps.scratch() as mine:
            assert set(scratch.iterdir()) == {used, fresh, mine}


ENDLESS = """
import sys
from functools import partial
from pathlib import Path
from file_log import EndlessLog
from ingest.audit import reading
from ingest.audit.account import Limits

if __name__ == "__main__":
    reading._WORTH_MESSAGES = 0
    open_log = partial(EndlessLog, Path(sys.argv[1]))
    try:
        reading.take(open_log(), Limits(1.0, 1.0, 1.0), 0.0, open_log)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def endless(files: Path, scratch: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """An audit without end in a process group of its own: one of its processes reads, the other has nothing to do."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    path = os.pathsep.join(str(ROOT / part) for part in ("", "tests/support"))
    running = subprocess.Popen(
        [sys.executable, str(tmp_path / "endless.py"), str(files)],
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with running:
        until(lambda: all(list(scratch.glob(f"*/*/{writer}")) for writer in ("0-0", "0-1")), 60.0)
        yield running
        running.kill()


def test_ctrl_c_ends_all_processes_without_a_word_and_leaves_nothing(
    endless: "subprocess.Popen[str]", scratch: Path
) -> None:
    others = psutil.Process(endless.pid).children(recursive=True)
    os.killpg(endless.pid, signal.SIGINT)
    _, told = endless.communicate(timeout=60.0)
    assert (endless.returncode, told, list(scratch.iterdir())) == (130, "", [])
    until(lambda: not any(map(is_alive, others)))


def test_processes_of_a_killed_audit_end_with_it(endless: "subprocess.Popen[str]") -> None:
    others = psutil.Process(endless.pid).children(recursive=True)
    assert len(others) >= reading.NUM_PROCESSES
    endless.kill()
    until(lambda: not any(map(is_alive, others)))


def test_an_audit_that_gives_up_tells_its_processes(files: Path, scratch: Path) -> None:
    def say(_what: str, done: int, _total: int) -> None:
        if done:
            raise InterruptedError

    open_log = partial(EndlessLog, files)
    with pytest.raises(InterruptedError):
        take(open_log(), LIMITS, NOW, open_log, say)
    assert list(scratch.iterdir()) == []


def test_a_full_disk_is_one_error_that_names_the_folder(
    files: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heaps, "_heap", lambda folder, _heap: folder / "none" / "heap")
    with pytest.raises(StoreError, match=r"audit: .*onstream-audit-.*TMPDIR"):
        take(FileLog(files), LIMITS, NOW)
    assert list(scratch.iterdir()) == []


def test_a_trace_and_its_letter_meet_in_one_heap_whatever_key_the_message_has(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heaps, "how_many", lambda _num: 1000)
    log = InMemoryLog()
    (first, *_) = Copies(1).of(1)
    log.append(first.topic, "another key", first.value, first.headers)
    (message,) = log.replay(first.topic)
    letters.bury(log, "ingest", message, Failure.UNREADABLE, "because")
    assert take(log, LIMITS, NOW).by_reason == {("dead_lettered", "unreadable"): 1}


def test_only_letters_of_stages_that_carry_traces_on_say_how_these_ended() -> None:
    assert set(SOURCES) == {
        *("traces.ingest.dlq", "traces.ingest.parked"),
        *("feedback.ingest.dlq", "feedback.ingest.parked", "feedback.ingest.late"),
        *("trajectories.rewards.dlq", "trajectories.rewards.parked"),
        *("rewards.trainer.dlq", "rewards.trainer.parked"),
    }


def ids_of(record: Record) -> tuple[str, ...]:
    match record:
        case Trace():
            return (record.trace_id,)
        case Trajectory():
            return tuple(turn.trace_id for turn in record.turns)
        case Reward() | Fate():
            return record.trace_ids
    return (record.feedback_id,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(GOLDEN.iterdir()) if path.name.split(".")[0] not in ("version", "release")],
    ids=lambda path: path.name,
)
def test_every_version_of_a_record_ever_written_tells_its_ids(path: Path) -> None:
    schema, version, _ = path.name.split(".")
    (topic,) = (topic for topic in TOPICS.values() if schema == topic.record.SCHEMA)
    message = Message(topic.name, 0, 0, "key", path.read_bytes(), {"schema": f"{schema}/{version[1:]}"})
    told: list[str] = []
    for fact in Teller(topic.name).facts(message):
        match fact:
            case TraceFact() | FeedbackFact():
                told.append(fact[1])
            case ClosedFact() | RewardedFact() | FateFact():
                told += fact.trace_ids
    assert told == list(ids_of(codec.decode(message.value, message.headers, topic.record)))


def test_facts_of_traces_come_before_those_of_what_was_made_of_them() -> None:
    order = [name for step in STEPS for name in step if name in TOPICS]
    assert order == ["traces", "feedback", "trajectories", "rewards", "fates"]


def test_other_processes_read_a_real_broker(own_broker: Any, scratch: Path, tmp_path: Path) -> None:
    config = Config(run_dir=str(tmp_path), model=ModelConfig(path="unused"), log=own_broker.config(timeout_s=20.0))
    open_log = partial(connect, config, client_id="audit")
    log = open_log()
    log.create(topics.specs(2, 1e6))
    for one in Copies(20).of(NUM_TRACES):
        log.append(one.topic, one.key, one.value, one.headers)
    log.flush(20.0)
    together, alone = take(log, LIMITS, NOW, open_log), take(log, LIMITS, NOW)
    log.close()
    assert together == alone
    assert together.num_traces >= NUM_TRACES
    assert together.is_complete()
