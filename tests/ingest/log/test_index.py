"""A stage's index: a copy of its topic that a restart does not have to read again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import NewerError, StoreError
from ingest.log.index import Entry, Index, Named
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, Receipt, TopicSpec
from ingest.log.reader import send
from ingest.log.topics import FATES
from ingest.records.codec import ERASED_HEADER
from ingest.records.events import Fate, FateKind, Source
from ingest.records.named import IDS_HEADER, ids_header

Open = Callable[[], Index[Fate]]
BOTH = (0, 1)


def fate(*names: str, at: float = 1.0) -> Fate:
    return Fate(trace_ids=names, kind=FateKind.EXPIRED, reason="test", at=at)


class Counted(InMemoryLog):
    """Counts messages that were replayed."""

    num_replayed = 0

    def replay(self, topic: str, begin: object = None, partitions: object = None) -> Iterator[Message]:
        found = list(super().replay(topic, begin, partitions))  # type: ignore[arg-type]
        self.num_replayed += len(found)
        return iter(found)


@pytest.fixture
def log() -> Counted:
    made = Counted()
    made.create([TopicSpec(FATES.name, 2, None)])
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "index.sqlite"


@pytest.fixture
def open_index(log: Counted, file: Path) -> Iterator[Open]:
    opened: list[Index[Fate]] = []

    def open_() -> Index[Fate]:
        for before in opened:
            before.close()
        opened.append(Index(file, log, FATES, Fate, lambda one: one.trace_ids, lambda one: one.at, lambda: 20.0))
        return opened[-1]

    yield open_
    opened[-1].close()


def put(log: InMemoryLog, made: Fate) -> tuple[Receipt, Named]:
    return send(log, FATES, made.trace_ids[0], made), Named(made.trace_ids, made.at)


def test_an_id_is_found_where_its_record_lies(log: Counted, open_index: Open) -> None:
    receipt, _ = put(log, fate("a", "b", at=7.0))
    index = open_index()
    assert index.catch_up(BOTH) == 1
    expected = Entry(Source(partition=receipt.partition, offset=receipt.offset), 7.0)
    assert (index.get("a"), index.get("b"), index.get("c")) == (expected, expected, None)


def test_the_newest_record_of_an_id_counts(log: Counted, open_index: Open) -> None:
    put(log, fate("a", at=7.0))
    put(log, fate("a", at=8.0))
    index = open_index()
    index.catch_up(BOTH)
    assert index.get("a") == Entry(Source(partition=index.get("a").source.partition, offset=1), 8.0)  # type: ignore[union-attr]


def test_a_restart_reads_only_what_it_has_not_copied(log: Counted, open_index: Open) -> None:
    for n in range(20):
        put(log, fate(f"old{n}"))
    open_index().catch_up(BOTH)
    put(log, fate("new"))
    log.num_replayed = 0
    index = open_index()
    assert (index.catch_up(BOTH), log.num_replayed) == (1, 1)
    assert index.get("old7") and index.get("new")


def test_what_a_process_noted_itself_is_not_read_again(log: Counted, open_index: Open) -> None:
    index = open_index()
    index.catch_up(BOTH)
    index.note([put(log, fate(f"t{n}")) for n in range(9)])
    assert index.get("t4")
    log.num_replayed = 0
    assert (open_index().catch_up(BOTH), log.num_replayed) == (0, 0)


def test_a_record_of_somebody_else_in_between_is_copied_at_the_next_catching_up(log: Counted, open_index: Open) -> None:
    index = open_index()
    index.catch_up(BOTH)
    put(log, fate("theirs"))
    index.note([put(log, fate(f"ours{n}")) for n in range(9)])
    assert index.get("theirs") is None and index.get("ours3")
    index.catch_up(BOTH)
    assert index.get("theirs")


def test_only_the_partitions_asked_for_are_copied(log: Counted, open_index: Open) -> None:
    places = {name: put(log, fate(name))[0].partition for name in "abcdefgh"}
    index = open_index()
    index.catch_up([1])
    assert {name for name in places if index.get(name)} == {name for name, part in places.items() if part == 1}
    index.catch_up([0])
    assert all(index.get(name) for name in places)


@pytest.mark.parametrize("damage", [b"", b"not a database, and long enough to be taken for one" * 100])
def test_a_file_that_is_lost_or_damaged_is_made_anew(log: Counted, open_index: Open, file: Path, damage: bytes) -> None:
    put(log, fate("a"))
    index = open_index()
    index.catch_up(BOTH)
    index.close()
    file.write_bytes(damage)
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    again = open_index()
    again.catch_up(BOTH)
    assert again.get("a")


def test_a_topic_that_was_made_anew_is_copied_anew(log: Counted, open_index: Open, file: Path) -> None:
    put(log, fate("gone"))
    put(log, fate("gone too"))
    open_index().catch_up(BOTH)
    log._shared.partitions.clear()
    log.create([TopicSpec(FATES.name, 2, None)])
    index = open_index()
    index.catch_up(BOTH)
    assert index.get("gone") is None


def test_an_unreadable_record_is_passed(log: Counted, open_index: Open) -> None:
    log.append(FATES.name, "k", b"junk", {"schema": "fate/1"})
    put(log, fate("a"))
    index = open_index()
    assert index.catch_up(BOTH) == 1 and index.get("a")


def test_of_an_erased_record_what_its_message_names_is_known_as_long_as_if_it_were_new(
    log: Counted, open_index: Open
) -> None:
    headers = {"schema": "fate/1", ERASED_HEADER: "user-a", IDS_HEADER: ids_header(["k-a", "k-" + "0" * 32])}
    receipt = log.append(FATES.name, "k", b"", headers)
    index = open_index()
    assert index.catch_up(BOTH) == 1
    entry = Entry(Source(partition=receipt.partition, offset=receipt.offset), 20.0)
    assert index.find(["k", "k-a", "k-" + "0" * 32, "a"]) == {"k": entry, "k-a": entry, "k-" + "0" * 32: entry}


def test_a_record_that_is_too_new_is_not_passed_and_named(log: Counted, open_index: Open) -> None:
    put(log, fate("a"))
    receipt = log.append(FATES.name, "a", b"{}", {"schema": "fate/99"})
    where = f"{FATES.name}/{receipt.partition}@{receipt.offset}"
    for _ in "again":
        with pytest.raises(NewerError, match=f"{where}: .*upgrade the reader"):
            open_index().catch_up(BOTH)


def test_old_ids_are_forgotten(log: Counted, open_index: Open) -> None:
    index = open_index()
    index.note([put(log, fate("old", at=1.0)), put(log, fate("new", at=9.0))])
    index.forget(5.0)
    assert index.get("old") is None and index.get("new")


def test_a_call_to_forget_looks_at_some_ids_and_the_next_call_at_those_after(
    log: Counted, open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.log.index._LOOKED_AT", 1)
    index = open_index()
    index.note([put(log, fate(name, at=1.0)) for name in "abcd"])
    left = []
    for _ in range(3):
        index.forget(5.0)
        left.append([name for name in "abcd" if index.get(name)])
    assert left == [["c", "d"], [], []]
    index.note([put(log, fate("a", at=1.0))])
    index.forget(5.0)
    assert index.get("a") is None, "after the last id comes the first again"


def test_a_place_that_cannot_be_written_is_named(log: Counted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"index .*file/index: cannot be used"):
        Index(tmp_path / "file" / "index", log, FATES, Fate, lambda one: one.trace_ids, lambda one: one.at)
