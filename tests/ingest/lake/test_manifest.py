"""What commits say, folded into a snapshot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import LakeError
from ingest.lake import manifest
from ingest.lake.manifest import Change, Commit, DataFile, Snapshot, Table, folder_name


def data_file(name: str, table: str = "turns", ends_at: float = 2.0) -> DataFile:
    return DataFile(f"{table}/day=1970-01-01/tenant=t/{name}.parquet", 10, 100, 1.0, ends_at)


ONE, TWO, THREE = data_file("1"), data_file("2"), data_file("3", ends_at=9.0)
WHERE = ("trajectories", 0)


def test_a_snapshot_has_what_was_added_and_not_what_was_removed() -> None:
    commits = [
        Commit(1, 5.0, (ONE, TWO), positions={WHERE: 7}),
        Commit(2, 6.0, (THREE,), (ONE.path,), {("rewards", 1): 3}),
    ]
    snapshot = Snapshot().after(commits)
    assert snapshot.of(Table.TURNS) == [THREE, TWO]
    assert snapshot.of(Table.FATES) == []
    assert snapshot.positions == {WHERE: 7, ("rewards", 1): 3}
    assert snapshot.gone == {ONE.path: 6.0}


def test_a_missing_commit_is_not_passed_over() -> None:
    with pytest.raises(LakeError, match="commit 2 must follow commit 1, found 3"):
        Snapshot().after([Commit(1, 0.0), Commit(3, 0.0)])


@pytest.mark.parametrize(
    ("change", "applies"),
    [
        (Change((THREE,), since={WHERE: 7}, positions={WHERE: 9}), True),
        (Change((THREE,), since={WHERE: None}, positions={WHERE: 9}), False),
        (Change((THREE,), since={WHERE: 6}, positions={WHERE: 9}), False),
        (Change((THREE,), since={("fates", 0): None}, positions={("fates", 0): 9}), True),
        (Change((THREE,), (ONE.path,)), True),
        (Change((THREE,), (TWO.path,)), False),
    ],
)
def test_a_change_applies_only_where_nobody_moved_what_it_takes_for_granted(change: Change, applies: bool) -> None:
    snapshot = Snapshot().after([Commit(1, 0.0, (ONE,), positions={WHERE: 7})])
    assert snapshot.applies(change) is applies


def test_commits_and_checkpoints_are_read_as_they_were_written() -> None:
    commit = Commit(3, 1.5, (ONE,), (TWO.path,), {WHERE: 7})
    assert manifest.decode_commit(manifest.encode_commit(commit)) == commit
    snapshot = Snapshot(3, {ONE.path: ONE}, {WHERE: 7}, {TWO.path: 1.5})
    assert manifest.decode_checkpoint(manifest.encode_checkpoint(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"format":2}', "knows commits of format 1, got 2"),
        (b"[]", "got 'list'"),
        (b"\xff", "must be JSON"),
        (b'{"format":1}', "a commit has KeyError"),
    ],
)
def test_what_is_no_commit_of_a_known_format_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(LakeError, match=told):
        manifest.decode_commit(data)


def test_a_file_knows_its_table_day_and_tenant() -> None:
    assert (ONE.table, ONE.day, ONE.tenant) == (Table.TURNS, "1970-01-01", "t")
    assert ONE.group == "turns/day=1970-01-01/tenant=t"


@given(st.text(max_size=300), st.text(max_size=300))
def test_tenants_have_folders_of_their_own_that_no_path_can_leave(one: str, other: str) -> None:
    name = folder_name(one)
    assert name.isascii() and len(name) <= 100 and "/" not in name
    assert (name == folder_name(other)) is (one == other)


def test_parts_and_other_files_are_no_commits() -> None:
    names = ["000000000002.json", "000000000002.checkpoint.json", "000000000003.json.ab12.part", "README", "1.parquet"]
    assert manifest.numbers(names) == ([2], [2])
