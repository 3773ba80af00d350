"""The stage: what it takes for its position, and what it does when others move it."""

from typing import Any

import pytest
from lake_traffic import Played, Traffic
from told import telling

from infra.config import Config, IngestConfig, LakeConfig, ModelConfig
from infra.errors import LakeError, LogError
from infra.lifecycle import Stop
from infra.telemetry import metrics
from ingest.lake.manifest import Table
from ingest.lake.table import Lake
from ingest.lake.writer import GROUP, JOIN_EVERY_S, SWEEP_EVERY_S, TOPICS, Writer, run
from ingest.log import letters
from ingest.log.memory import InMemoryLog
from ingest.log.reader import outlast_outages, send
from ingest.log.topics import FATES, FEEDBACK, RELEASES, REWARDS, TRAJECTORIES, dead_letters, specs
from ingest.records.events import session_key

World = Any
FLUSH_S = 30.0


class Stage:
    """A log, a lake, and writers between them."""

    def __init__(self, world: World, max_rows: int = 1_000_000) -> None:
        self.world, self.log = world, InMemoryLog()
        self.log.create(specs(2, 1e6))
        lake = LakeConfig(url=world.url, flush_s=FLUSH_S, max_rows=max_rows, retention_days=None)
        self.config = Config(model=ModelConfig(path="unused"), ingest=IngestConfig(lake=lake))

    def writer(self, lake: Lake | None = None, max_messages: int = 500) -> Writer:
        lake = lake or self.world.another()
        return Writer(self.log, lake, self.world.vault, self.config, self.world.clock, max_messages=max_messages)

    def put(self, *played: Played) -> None:
        for one in played:
            key = session_key(one.trajectory.session_id)
            send(self.log, TRAJECTORIES, key, one.trajectory)
            send(self.log, REWARDS, key, one.reward)
            for fate in one.fates:
                send(self.log, FATES, key, fate)
            for feedback in one.feedback:
                send(self.log, FEEDBACK, key, feedback)

    def ids(self) -> list[str]:
        """Trajectories of all rows of sessions, doubles and all."""
        lake = self.world.another()
        return sorted(lake.scan(Table.SESSIONS, lake.refresh().of(Table.SESSIONS)).collect()["trajectory_id"])

    def lag(self) -> int:
        return sum(self.log.lag(GROUP, [topic.name for topic in TOPICS]).values())


def drain(writer: Writer) -> None:
    """Read until nothing comes, and commit."""
    for _ in range(3):
        while writer.read(0.0):
            pass
    writer.flush()


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


@pytest.fixture
def played() -> list[Played]:
    return list(Traffic(seed=3).sessions(30))


def names(played: list[Played]) -> list[str]:
    return sorted(one.trajectory.trajectory_id for one in played)


def test_everything_on_the_topics_is_in_the_lake_and_the_groups_offsets_follow(
    stage: Stage, played: list[Played]
) -> None:
    stage.put(*played)
    send(stage.log, RELEASES, "", Traffic().release())
    drain(stage.writer())
    reading = stage.world.reading()
    turns = sum(len(one.trajectory.turns) for one in played)
    counts = {table: reading.rows(table).collect().height for table in Table}
    assert counts == {
        Table.SESSIONS: 30,
        Table.TURNS: turns,
        Table.REWARDS: 30,
        Table.FATES: turns,
        Table.FEEDBACK: sum(len(one.feedback) for one in played),
        Table.RELEASES: 1,
    }
    assert stage.lag() == 0


def test_nothing_is_committed_before_it_is_time_to(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    writer = stage.writer()
    for _ in range(4):
        writer.step(0.0)
    assert stage.ids() == []
    stage.world.clock.now += FLUSH_S
    writer.step(0.0)
    assert stage.ids() == names(played)


def test_many_rows_are_committed_sooner(world: World, played: list[Played]) -> None:
    stage = Stage(world, max_rows=50)
    stage.put(*played)
    writer = stage.writer(max_messages=10)
    while not (snapshot := world.another().refresh()).number:
        writer.step(0.0)
    assert 50 <= sum(file.num_rows for file in snapshot.files.values()) < 50 + 10 * 16


def test_the_lakes_position_counts_and_not_the_groups(stage: Stage, played: list[Played]) -> None:
    stage.put(*played[:20])
    first = stage.writer()
    drain(first)
    first.close()
    stage.put(*played[20:])
    for offset in (0, 10_000):
        everywhere = {(topic.name, n): offset for topic in TOPICS for n in range(1 if topic.ordered else 2)}
        meddler = stage.log.subscribe([], GROUP)
        meddler.commit(everywhere)
        meddler.close()
        writer = stage.writer()
        drain(writer)
        writer.close()
        assert stage.ids() == names(played)


def test_offsets_that_a_crash_left_behind_follow_at_the_next_start(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    drain(stage.writer())
    stage.log._shared.committed.clear()
    stage.log._shared.members.clear()
    assert stage.lag() > 0
    stage.writer().read(0.0)
    assert stage.lag() == 0


def test_a_batch_is_dropped_where_another_has_written_it_already(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    slow = stage.writer()
    slow.read(0.0)
    slow.read(0.0)
    other_log = InMemoryLog()
    other_log._shared.partitions = stage.log._shared.partitions
    quick = Writer(other_log, stage.world.another(), stage.world.vault, stage.config, stage.world.clock)
    drain(quick)
    assert stage.ids() == names(played)
    slow.flush()
    assert stage.ids() == names(played)
    stage.put(*Traffic(seed=4).sessions(1))
    drain(slow)
    assert len(stage.ids()) == len(set(stage.ids())) == 31


def test_partitions_that_move_between_writers_are_written_once(stage: Stage, played: list[Played]) -> None:
    first = stage.writer(max_messages=7)
    stage.put(*played[:10])
    for _ in range(5):
        first.read(0.0)
    second = stage.writer(max_messages=7)
    stage.put(*played[10:])
    for _ in range(3):
        first.read(0.0)
        second.read(0.0)
    first.flush()
    second.close()
    drain(first)
    assert stage.ids() == names(played)


def test_an_offset_that_jumps_ahead_is_not_believed_at_once(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    writer = stage.writer(max_messages=5)
    writer.read(0.0)
    writer.read(0.0)
    subscription = writer._reader.subscription
    subscription.seek({where: position + 3 for where, position in subscription.positions.items()})  # type: ignore[attr-defined]
    drain(writer)
    assert stage.ids() == names(played)


def test_an_offset_that_falls_back_repeats_nothing(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    writer = stage.writer(max_messages=50)
    for _ in range(6):
        writer.read(0.0)
    subscription = writer._reader.subscription
    subscription.seek(dict.fromkeys(subscription.assignment(), 0))
    drain(writer)
    turns = stage.world.another()
    rows = turns.scan(Table.FATES, turns.refresh().of(Table.FATES)).select("trace_id").collect()
    assert rows.height == rows.unique().height == sum(len(one.trajectory.turns) for one in played)
    assert stage.ids() == names(played)


def test_unreadable_messages_are_dead_letters_before_they_are_passed_over(stage: Stage) -> None:
    stage.log.append(FATES.name, "k", b"{}", {"schema": "fate/1"})
    writer = stage.writer()
    drain(writer)
    letter = letters.read(stage.log, dead_letters(FATES.name, GROUP))
    assert len(letter) == 1
    assert stage.lag() == 0
    assert sum(stage.world.another().refresh().positions.values()) == 1


def test_positions_do_not_move_past_dead_letters_that_are_not_durable(world: World) -> None:
    class Unreachable(InMemoryLog):
        def flush(self, timeout_s: float) -> None:
            raise LogError("flush: nobody acknowledged")

    stage = Stage(world)
    stage.log = Unreachable()
    stage.log.create(specs(2, 1e6))
    stage.log.append(FATES.name, "k", b"{}", {"schema": "fate/1"})
    with pytest.raises(LogError):
        drain(stage.writer())
    assert world.another().refresh().number == 0


def test_a_record_that_no_column_can_hold_is_a_dead_letter_and_stops_nothing(
    stage: Stage, played: list[Played]
) -> None:
    odd = played[0].trajectory.model_copy(update={"opened_at": 1e18, "trajectory_id": "odd"})
    send(stage.log, TRAJECTORIES, "k", odd)
    stage.put(*played)
    drain(stage.writer())
    assert stage.ids() == names(played)
    (letter,) = stage.log.replay(dead_letters(TRAJECTORIES.name, GROUP))
    told = letter.headers["onstream.errors.message"]
    assert told == "sessions: at must be a time of the years 1 to 9999, got 1e+18"


def test_files_are_joined_though_records_never_cease(stage: Stage) -> None:
    stage.world.clock.now += 30 * 86_400.0
    writer = stage.writer()
    for one in Traffic(seed=6).sessions(16):
        stage.put(one)
        stage.world.clock.now += JOIN_EVERY_S
        writer.step(0.0)
    assert len(stage.world.another().refresh().gone) > 8


def test_the_first_partitions_reader_joins_files_and_sweeps(stage: Stage, played: list[Played]) -> None:
    clock = stage.world.clock
    clock.now += 30 * 86_400.0
    writer = stage.writer()
    for one in played:
        stage.put(one)
        drain(writer)
    before = len(stage.world.another().refresh().files)
    for _ in range(20):
        clock.now += JOIN_EVERY_S
        writer.step(0.0)
    snapshot = stage.world.another().refresh()
    assert len(snapshot.files) < before / 4
    assert stage.ids() == names(played)
    clock.now += 2 * SWEEP_EVERY_S
    writer.step(0.0)
    writer.step(0.0)
    held = {path for path in stage.world.lake.storage.everything() if path.endswith(".parquet")}
    assert held == set(stage.world.another().refresh().files)


def test_what_is_in_memory_is_committed_when_the_stage_is_stopped(stage: Stage, played: list[Played]) -> None:
    stage.put(*played)
    stop = Stop()

    class Stopping(InMemoryLog):
        """Asks for the end at the third look."""

        looks = 0

        def subscribe(self, topics: Any, group: str | None) -> Any:
            subscription = super().subscribe(topics, group)
            poll = subscription.poll

            def counted(timeout_s: float, max_messages: int = 500) -> Any:
                self.looks += 1
                if self.looks == 3:
                    stop.set()
                return poll(0.0, max_messages)

            subscription.poll = counted  # type: ignore[method-assign]
            return subscription

    log = Stopping()
    log._shared.partitions = stage.log._shared.partitions
    run(log, stage.world.another(), stage.world.vault, stage.config, stop)
    assert stage.ids() == names(played)


def test_a_lake_that_is_away_is_waited_for(stage: Stage) -> None:
    stop, tries = Stop(), list[int]()

    def attempt() -> None:
        tries.append(1)
        if len(tries) == 2:
            stop.set()
        raise LakeError("lake: not there")

    outlast_outages(stop, attempt, (LakeError,))
    assert len(tries) == 2


def test_a_lake_that_is_away_from_the_first_says_that_it_holds_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that nobody ever counted with would be absent, and no rule could compare with it."""

    def fail() -> None:
        raise LakeError("lake: not there")

    lake = stage.world.another()
    monkeypatch.setattr(lake, "refresh", fail)
    stage.put(*Traffic(1).sessions(2))
    with telling() as told:
        with pytest.raises(LakeError):
            run(stage.log, lake, stage.world.vault, stage.config, Stop())
        assert told.value(metrics.LAKE_ROWS) == 0
