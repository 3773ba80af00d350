"""Commits: what readers see, who loses against whom, and what is swept."""

import threading
from typing import Any

import polars as pl
import pytest

from infra.errors import LakeError
from ingest.lake.manifest import COMMITS, Change, Table, commit_path, numbers
from ingest.lake.storage import Storage
from ingest.lake.table import GRACE_S

World = Any  # tests/ingest/lake/conftest.py; importlib mode keeps it from being imported


def parquet(world: World) -> set[str]:
    return {path for path in world.lake.storage.everything() if path.endswith(".parquet")}


def test_a_file_is_no_part_of_the_lake_before_its_commit(world: World) -> None:
    written = world.fates("a")
    assert world.another().refresh().files == {}
    assert world.lake.commit(Change((written,))) is not None
    assert list(world.another().refresh().files) == [written.path]
    assert world.traces() == ["a"]


def test_a_reader_opens_only_the_commits_after_the_last_checkpoint(world: World) -> None:
    for position in range(1, 11):
        assert world.move(position, since=position - 1 or None)
    commits, checkpoints = numbers(world.lake.storage.names(COMMITS))
    assert (commits, checkpoints) == (list(range(1, 11)), [4, 8])
    whole = world.another().refresh()
    for number in range(1, 9):
        world.lake.storage.remove(commit_path(number))
    assert world.another().refresh() == whole
    assert len(whole.files) == 10


def test_a_commit_that_is_missing_is_an_error_and_no_smaller_lake(world: World) -> None:
    for position in range(1, 4):
        world.move(position, since=position - 1 or None)
    world.lake.storage.remove(commit_path(2))
    with pytest.raises(LakeError, match="no unbroken row of commits"):
        world.another().refresh()


def test_writers_of_different_partitions_do_not_lose_each_others_commits(world: World) -> None:
    lakes, num = [world.another() for _ in range(4)], 15
    gate = threading.Barrier(len(lakes))
    made: list[bool] = []

    def write(partition: int) -> None:
        gate.wait()
        for position in range(1, num + 1):
            where = ("fates", partition)
            made.append(world.move(position, position - 1 or None, where, lakes[partition]))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(lakes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = world.another().refresh()
    assert made == [True] * (len(lakes) * num)
    assert snapshot.number == len(lakes) * num
    assert snapshot.positions == {("fates", partition): num for partition in range(len(lakes))}
    assert len(world.traces()) == len(set(world.traces())) == len(lakes) * num


def test_of_two_writers_of_one_partition_one_commits_and_the_other_is_told(world: World) -> None:
    other = world.another()
    assert world.move(5, since=None)
    assert not world.move(7, since=None, lake=other)
    assert world.another().refresh().positions == {("fates", 0): 5}
    assert world.move(7, since=5, lake=other)


def test_a_change_is_committed_once_however_often_it_is_tried(world: World) -> None:
    change = Change((world.fates("a"),), (), {("fates", 0): None}, {("fates", 0): 1})
    first = world.lake.commit(change)
    assert first is not None
    again = world.another().commit(change)
    assert again == first
    assert world.traces() == ["a"]


def test_a_writer_that_slept_until_its_number_was_swept_commits_nothing_unseen(world: World) -> None:
    sleeper = world.another()
    for position in range(1, 13):
        world.move(position, since=position - 1 or None)
    world.lake.sweep()
    commits, _ = numbers(world.lake.storage.names(COMMITS))
    assert 1 not in commits

    class Sleepy(Storage):
        """What it saw first was before all of that."""

        looks = 0

        def names(self, folder: str) -> list[str]:
            self.looks += 1
            return [] if self.looks == 1 else super().names(folder)

    sleeper.storage = Sleepy(world.url)
    assert world.move(3, None, ("rewards", 0), sleeper)
    snapshot = world.another().refresh()
    assert snapshot.positions == {("fates", 0): 12, ("rewards", 0): 3}
    assert snapshot.number == 13


def test_a_change_whose_files_may_be_swept_soon_is_not_committed(world: World) -> None:
    written = world.fates("a")
    world.clock.now += GRACE_S / 2 + 1
    assert world.lake.commit(Change((written,))) is None


def test_files_that_nobody_committed_are_swept_once_nobody_can_be_writing_them(world: World) -> None:
    world.move(1, since=None)
    orphan = world.fates("orphan")
    world.clock.now += GRACE_S - 1
    world.lake.sweep()
    assert orphan.path in parquet(world)
    world.clock.now += 2
    world.lake.sweep()
    assert parquet(world) == set(world.lake.refresh().files)


def test_a_removed_file_stays_for_the_readers_that_have_it_open(world: World) -> None:
    first = world.fates("a")
    world.lake.commit(Change((first,)))
    world.clock.now += 10 * GRACE_S
    second = world.fates("a")
    assert world.lake.commit(Change((second,), (first.path,))) is not None
    for position in range(1, 20):
        world.move(position, since=position - 1 or None)  # its commit is behind checkpoints now
    world.lake.sweep()
    assert first.path in parquet(world)
    world.clock.now += GRACE_S + 1
    world.lake.sweep()
    assert parquet(world) == set(world.another().refresh().files)


def test_parts_of_commits_that_crashes_left_are_swept(world: World) -> None:
    part = f"{COMMITS}/000000000002.json.ab.part"
    world.lake.storage.put(part, b"half")
    for position in range(1, 13):
        world.move(position, since=position - 1 or None)
    whole = world.another().refresh()
    world.lake.sweep()
    assert world.lake.storage.read(part) is None
    assert world.another().refresh() == whole


def test_a_column_that_an_old_file_does_not_have_is_null_in_its_rows(world: World) -> None:
    old = pl.DataFrame({"at": [5], "trace_id": ["old"], "gone": [1]}).with_columns(
        pl.col("at").cast(pl.Datetime("us", "UTC"))
    )
    world.lake.commit(Change((world.lake.write("fates/day=1970-01-01/tenant=", old), world.fates("new"))))
    lake = world.another()
    rows = lake.scan(Table.FATES, lake.refresh().of(Table.FATES)).sort("trace_id").collect()
    assert rows["trace_id"].to_list() == ["new", "old"]
    assert rows["kind"].to_list() == ["trained", None]
    assert "gone" not in rows.columns


def test_a_lake_in_a_store_without_folders_is_read_and_written_alike(make_world: Any) -> None:
    world = make_world()
    world.url = "memory://a-lake-of-the-tests"
    world.lake = world.another()
    assert world.move(1, since=None)
    assert world.move(2, since=1)
    assert world.traces() == ["('fates', 0)-1", "('fates', 0)-2"]
