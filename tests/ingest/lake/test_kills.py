"""The writer and compaction killed by `kill -9` at every step, and started again: each record is there, and once."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import lake_child

from ingest.lake.manifest import Table
from ingest.lake.schema import IDENTITY
from ingest.lake.steps import Step
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.log.kafka_log import KafkaLog
from ingest.log.topics import REWARDS, dead_letters

WRITING = (Step.READ, Step.LETTERED, Step.FILE, Step.FILES, Step.COMMITTED, Step.CHECKPOINTED, Step.FOLLOWED)
JOINING = (Step.FILE, Step.COMMITTED, Step.CHECKPOINTED, Step.DELETED)


def run(folder: Path, mode: str, step: Step | None, number: int = 1, *more: str) -> int:
    """The exit status of a child; killed, it is -9."""
    program = Path(lake_child.__file__)
    command = [sys.executable, str(program), str(folder), mode, step.name if step else "", str(number), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def in_lake(folder: Path) -> dict[Table, Counter[tuple[object, ...]]]:
    """How often each thing is in the files of the last commit, whatever readers would make of it."""
    lake = Lake(Storage(str(folder)))
    files = lake.refresh().of
    return {
        table: Counter(lake.scan(table, files(table)).select(IDENTITY[table].key).collect().iter_rows())
        for table in Table
    }


def expected() -> dict[Table, Counter[tuple[object, ...]]]:
    """What is on the log: everything once, and the first session twice."""
    played = lake_child.sessions()
    found: dict[Table, Counter[tuple[object, ...]]] = {table: Counter() for table in Table}
    for one in [*played, played[0]]:
        found[Table.SESSIONS][(one.trajectory.trajectory_id,)] += 1
        found[Table.TURNS].update((turn.trace_id,) for turn in one.trajectory.turns)
        found[Table.REWARDS][one.reward.trajectory_id, one.reward.spec] += 1
        found[Table.FATES].update((trace_id,) for fate in one.fates for trace_id in fate.trace_ids)
        found[Table.FEEDBACK].update((feedback.feedback_id,) for feedback in one.feedback)
    found[Table.RELEASES][1, 0] += 1
    return found


def test_a_writer_killed_at_every_step_writes_each_record_once(tmp_path: Path) -> None:
    whole = expected()
    for number in (1, 2):
        for step in WRITING:
            assert run(tmp_path, "write", step, number) == -signal.SIGKILL, step
            for table, found in in_lake(tmp_path).items():
                assert found <= whole[table], (step, table)
    assert run(tmp_path, "write", None) == 0
    assert in_lake(tmp_path) == whole


def test_compaction_killed_at_every_step_loses_and_repeats_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, "write", None) == 0
    distinct = {table: set(found) for table, found in expected().items()}
    for number in (1, 2):
        for step in JOINING:
            run(tmp_path, "join", step, number)
            assert {table: set(found) for table, found in in_lake(tmp_path).items()} == distinct, step
    assert run(tmp_path, "join", None) == 0
    assert in_lake(tmp_path) == {table: Counter(found) for table, found in distinct.items()}
    lake = Lake(Storage(str(tmp_path)))
    held = {path for path in lake.storage.everything() if path.endswith(".parquet")}
    assert set(lake.refresh().files) <= held


def test_compaction_is_killed_where_this_test_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, "write", None) == 0
    for step in JOINING:
        assert run(tmp_path, "join", step) == -signal.SIGKILL, step


def test_a_writer_of_a_real_broker_killed_around_its_commit_writes_each_record_once(
    tmp_path: Path, own_broker: Any
) -> None:
    config = own_broker.config(timeout_s=10.0)
    log = KafkaLog(config, "filler")
    lake_child.fill(log)
    folder = tmp_path / "lake"
    for step in (Step.FILES, Step.COMMITTED, Step.FOLLOWED):
        assert run(folder, "log", step, 2, config.brokers) == -signal.SIGKILL, step
    assert run(folder, "log", None, 1, config.brokers) == 0
    assert in_lake(folder) == expected()
    assert {letter.value for letter in log.replay(dead_letters(REWARDS.name, "lake"))} == {b"not a reward"}
    log.close()
