"""Which files are joined, and that readers see the same before and after."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_traffic import changed

from ingest.lake import compaction
from ingest.lake.compaction import FAN_IN, FULL_ROWS, expired, plan
from ingest.lake.manifest import Change, Commit, DataFile, Snapshot, Table, day_of

World = Any
DAY_S = 86_400.0
NOW = 20 * DAY_S + 5.0
TODAY, YESTERDAY, BEFORE = (day_of(NOW - days * DAY_S) for days in (0, 1, 2))


def data_file(number: int, rows: int = 100, day: str = TODAY, tenant: str = "t", table: str = "turns") -> DataFile:
    return DataFile(f"{table}/day={day}/tenant={tenant}/{number}.parquet", rows, rows * 1000, number, number + 1.0)


def test_files_of_a_size_are_joined_once_there_are_enough_of_them() -> None:
    files = [data_file(number) for number in range(FAN_IN - 1)]
    assert plan([*files, data_file(99, rows=90_000)], NOW) == []
    assert plan([*files, data_file(98)], NOW) == [(*files, data_file(98))]


def test_files_of_different_days_tenants_or_tables_are_never_joined() -> None:
    files = [
        data_file(number, day=day, tenant=tenant, table=table)
        for number, (day, tenant, table) in enumerate(
            [(TODAY, "t", "turns"), (YESTERDAY, "t", "turns"), (TODAY, "u", "turns"), (TODAY, "t", "fates")] * FAN_IN
        )
    ]
    jobs = plan(files, NOW)
    assert len(jobs) == 4
    assert all(len({file.group for file in job}) == 1 for job in jobs)


@pytest.mark.parametrize(("day", "is_joined"), [(BEFORE, True), (YESTERDAY, False), (TODAY, False)])
def test_two_files_are_joined_where_hardly_more_will_come(day: str, is_joined: bool) -> None:
    files = (data_file(1, day=day), data_file(2, rows=9_000, day=day))
    assert plan(files, NOW) == ([files] if is_joined else [])


@given(st.lists(st.integers(1, FULL_ROWS * 2), max_size=40))
def test_joining_ends_and_no_portion_is_too_large(sizes: list[int]) -> None:
    files = [data_file(number, rows, BEFORE) for number, rows in enumerate(sizes)]
    for _ in range(10):
        jobs = plan(files, NOW)
        if not jobs:
            break
        for number, job in enumerate(jobs):
            rows = sum(file.num_rows for file in job)
            assert rows < FULL_ROWS * 2
            files = [file for file in files if file not in job] + [data_file(1000 + number, rows, BEFORE)]
    assert plan(files, NOW) == []
    assert sum(file.num_rows for file in files) == sum(sizes)


def test_rows_are_written_again_a_few_times_at_most() -> None:
    files, written = list[DataFile](), 0
    for number in range(1440):  # a day of commits, one a minute
        files.append(data_file(number, rows=50))
        for job in plan(files, NOW):
            rows = sum(file.num_rows for file in job)
            written += rows
            files = [file for file in files if file not in job] + [data_file(10_000 + number, rows)]
    assert written <= 4 * 1440 * 50
    assert len(files) <= 3 * FAN_IN


def test_a_joined_lake_reads_as_before(world: World, traffic: Any) -> None:
    for played in traffic.sessions(10):
        world.put(played.trajectory, played.reward, *played.fates, *played.feedback)
    before = {table: world.reading().rows(table).collect() for table in Table}
    for job in plan(world.lake.refresh().files.values(), NOW * 100):
        assert compaction.join(world.lake, job)
    snapshot = world.another().refresh()
    assert len(snapshot.of(Table.TURNS)) == 2
    for table in Table:
        assert world.reading().rows(table).collect().equals(before[table]), table


def test_what_was_told_again_is_dropped_when_files_are_joined(world: World, traffic: Any) -> None:
    (played,) = traffic.sessions(1)
    world.put(played.trajectory)
    world.put(played.trajectory)
    (job,) = plan(world.lake.refresh().of(Table.TURNS), NOW * 100)
    assert sum(file.num_rows for file in job) == 2 * len(played.trajectory.turns)
    compaction.join(world.lake, job)
    (joined,) = world.lake.refresh().of(Table.TURNS)
    assert joined.num_rows == len(played.trajectory.turns)


def test_files_that_another_has_joined_are_left_to_it(world: World, traffic: Any) -> None:
    for played in traffic.sessions(4):
        world.put(played.trajectory)
    jobs = plan(world.lake.refresh().of(Table.SESSIONS), NOW * 100)
    other = world.another()
    assert compaction.join(other, jobs[0])
    assert not compaction.join(world.lake, jobs[0])
    assert sum(file.num_rows for file in world.another().refresh().of(Table.SESSIONS)) == 4


def test_rows_that_come_while_files_are_joined_stay(world: World, traffic: Any) -> None:
    first, second, late = (played.trajectory for played in traffic.sessions(3))
    world.put(first)
    world.put(second)
    job = world.lake.refresh().of(Table.SESSIONS)
    world.put(late)
    assert compaction.join(world.another(), [file for file in job if file.tenant == job[0].tenant])
    sessions = world.reading().rows(Table.SESSIONS).collect()
    assert set(sessions["trajectory_id"]) == {one.trajectory_id for one in (first, second, late)}


def test_days_out_of_retention_and_no_others_are_dropped(world: World) -> None:
    files = [data_file(number, day=day_of(NOW - number * DAY_S)) for number in range(6)]
    snapshot = Snapshot().after([Commit(1, 0.0, tuple(files))])
    assert sorted(expired(snapshot, NOW, 3)) == sorted(file.path for file in files[4:])
    world.lake.commit(Change((world.fates("a"),)))
    assert compaction.expire(world.lake, 3 * DAY_S, retention_days=3) == 0
    assert compaction.expire(world.lake, 4 * DAY_S, retention_days=3) == 1
    assert world.another().refresh().files == {}


def told(world: World, table: Table) -> list[tuple[int, float]]:
    """(revision, value or time of closing) of a table's rows, as they are read."""
    rows = world.reading().rows(table).collect().to_dicts()
    return [(row["revision"], row["value"] if "value" in row else row["closed_at"].timestamp()) for row in rows]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_a_session_with_late_feedback_the_last_revision_is_read_and_kept(
    world: World, traffic: Any, order: tuple[int, ...]
) -> None:
    (first,) = traffic.sessions(1)
    second = changed(first, first.trajectory.closed_at + 50.0, value=0.25)
    third = changed(second, second.trajectory.closed_at + 50.0, value=0.75)
    for number in order:
        world.put((first, second, third)[number].trajectory, (first, second, third)[number].reward)
    sessions, rewards = [(3, third.trajectory.closed_at)], [(3, 0.75)]
    assert (told(world, Table.SESSIONS), told(world, Table.REWARDS)) == (sessions, rewards)
    for job in plan(world.lake.refresh().files.values(), NOW * 100):
        assert compaction.join(world.lake, job)
    assert (told(world, Table.SESSIONS), told(world, Table.REWARDS)) == (sessions, rewards)
    kept = world.lake.refresh()
    assert [sum(file.num_rows for file in kept.of(table)) for table in (Table.SESSIONS, Table.REWARDS)] == [1, 1]


def test_two_sessions_of_one_key_stay_two(world: World, traffic: Any) -> None:
    first, other = traffic.sessions(2)
    moved = {name: getattr(first.trajectory, name) for name in ("session_id", "tenant", "opened_at")}
    second = other.trajectory.model_copy(update=moved)
    world.put(first.trajectory, second, changed(first, second.closed_at).trajectory)
    rows = world.reading().rows(Table.SESSIONS).collect()
    assert sorted(rows["revision"]) == [1, 2] and second.trajectory_id in set(rows["trajectory_id"])


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_session_of_a_lake_without_the_first_revisions_name_is_replaced_as_well(
    world: World, traffic: Any, is_joined: bool
) -> None:
    before, also = traffic.sessions(2)
    old = world.files([before.trajectory, before.reward, also.trajectory, also.reward])
    bare = [world.lake.scan(file.table, [file]).collect().drop("first_trajectory_id", strict=False) for file in old]
    written = tuple(world.lake.write(file.group, rows) for file, rows in zip(old, bare, strict=True))
    world.lake.commit(Change(written))
    after = changed(before, before.trajectory.closed_at + 50.0)
    world.put(after.trajectory, after.reward)
    if is_joined:
        for job in plan(world.lake.refresh().files.values(), NOW * 100):
            assert compaction.join(world.lake, job)
    assert sorted(revision for revision, _ in told(world, Table.SESSIONS)) == [1, 2]
    assert sorted(revision for revision, _ in told(world, Table.REWARDS)) == [1, 2]
