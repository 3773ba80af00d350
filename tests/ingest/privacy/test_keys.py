"""Everybody finds the same keys, what is erased stays so, and nothing else is ever said to be erased."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from clock import Clock

from infra.errors import ConfigError, RecordError, StoreError
from ingest.privacy.key_files import KeyFiles
from ingest.privacy.keys import KeyStore
from ingest.privacy.secret import Secret

MakeStore = Callable[[], KeyStore]
NAMING, OLD, NEW = "0f" * 32, "1e" * 32, "2d" * 32
USER = "user-0a1b"


def files(url: str) -> dict[str, bytes]:
    """Name -> bytes of every key, part and tombstone of a store."""
    fs, root = fsspec.core.url_to_fs(url)
    held = {path: fs.cat_file(path) for path in fs.find(root)}
    return {path.rsplit("/", 1)[1]: data for path, data in held.items() if "/_secrets/" not in path}


def test_a_key_is_the_same_at_every_later_time_and_in_every_process(store: KeyStore, make_store: MakeStore) -> None:
    key = store.key_for(USER)
    assert make_store().key_for(USER) == key == store.key_for(USER)
    assert make_store().find(USER, key.generation) == key
    assert len(key.secret) == 32


def test_no_two_subjects_share_a_key(store: KeyStore) -> None:
    assert store.key_for(USER).secret != store.key_for("user-other").secret


def test_an_erased_key_is_found_by_nobody_and_its_user_gets_another(store: KeyStore, make_store: MakeStore) -> None:
    key = store.key_for(USER)
    assert store.erase(USER) == 1
    for where in (store, make_store()):
        assert where.find(USER, key.generation) is None
    new = store.key_for(USER)
    assert (new.generation[:2], key.generation[:2]) == ("2-", "1-")
    assert make_store().key_for(USER) == new and new.secret != key.secret
    assert make_store().find(USER, key.generation) is None


def test_erasing_leaves_tombstones_and_no_key(store: KeyStore, url: str) -> None:
    store.key_for(USER)
    store.erase(USER)
    assert files(url) == {"1.erased": b""}
    store.key_for(USER)
    store.erase(USER)
    assert files(url) == {"1.erased": b"", "2.erased": b""}


def test_erasing_again_or_whom_nobody_knows_removes_nothing(store: KeyStore, url: str) -> None:
    store.key_for(USER)
    assert [store.erase(USER), store.erase(USER), store.erase("user-unknown")] == [1, 0, 0]
    assert list(files(url)) == ["1.erased"]


def test_erasing_one_user_leaves_the_others(store: KeyStore, make_store: MakeStore) -> None:
    kept = store.key_for("user-other")
    store.key_for(USER)
    store.erase(USER)
    assert make_store().find("user-other", kept.generation) == kept


def test_every_generation_and_every_unfinished_key_goes_when_a_user_is_erased(store: KeyStore, url: str) -> None:
    key = store.key_for(USER)
    (data,) = files(url).values()
    for name in ("1-00000000000000ff.key", "1-00000000000000ee.key.0a.part", "2-00000000000000dd.key"):
        KeyFiles(url).put(USER, name, data)
    assert store.erase(USER) == 4
    assert list(files(url)) == ["2.erased"]
    assert store.find(USER, key.generation) is None


def test_an_unfinished_key_goes_also_where_it_is_all_there_is(store: KeyStore, url: str) -> None:
    KeyFiles(url).put(USER, "1-00000000000000ee.key.0a.part", b"wrapped")
    assert store.erase(USER) == 1
    assert list(files(url)) == ["1.erased"]


def test_a_key_erased_while_it_is_looked_for_is_erased_and_not_lost(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder, eraser = make_store(), make_store()
    key = eraser.key_for(USER)
    finder.verify()
    read = KeyFiles.read

    def erased_before(self: KeyFiles, folder: str, name: str) -> bytes | None:
        monkeypatch.setattr(KeyFiles, "read", read)
        eraser.erase(USER)
        return read(self, folder, name)

    monkeypatch.setattr(KeyFiles, "read", erased_before)
    assert finder.find(USER, key.generation) is None


def test_a_key_that_comes_back_after_its_erasure_stays_erased_and_is_removed(
    store: KeyStore, make_store: MakeStore, url: str
) -> None:
    key = store.key_for(USER)
    copy = files(url)
    store.erase(USER)
    for name, data in copy.items():
        KeyFiles(url).put(USER, name, data)
    assert make_store().find(USER, key.generation) is None
    assert make_store().key_for(USER).generation.startswith("2-")
    assert not copy.keys() & files(url).keys()


def test_a_running_process_uses_an_erased_key_no_longer_than_its_cache_lives(
    make_store: MakeStore, clock: Clock
) -> None:
    running, other = make_store(), make_store()
    key = running.key_for(USER)
    other.erase(USER)
    clock.now += 29.9
    assert running.key_for(USER) == key == running.find(USER, key.generation)
    clock.now += 0.2
    assert running.find(USER, key.generation) is None
    assert running.key_for(USER).generation.startswith("2-")


def test_a_cached_key_is_given_without_asking_the_store(tmp_path: Path, secret: Secret, clock: Clock) -> None:
    store = KeyStore(str(tmp_path / "keys"), secret, clock=clock)
    key = store.key_for(USER)
    gone = KeyStore(str(tmp_path / "keys"), secret, clock=clock).key_for("user-gone")
    store.erase("user-gone")
    assert store.find("user-gone", gone.generation) is None
    (tmp_path / "keys").rename(tmp_path / "away")
    assert store.key_for(USER) == key == store.find(USER, key.generation)
    assert store.find("user-gone", gone.generation) is None


def test_a_lost_key_is_not_said_to_be_erased(store: KeyStore, make_store: MakeStore, url: str) -> None:
    store.verify()
    with pytest.raises(RecordError, match=r"key user-0a1b/1-0{16}: neither kept nor erased at .*: it was lost"):
        store.find(USER, "1-" + "0" * 16)
    key = store.key_for(USER)
    KeyFiles(url).remove(USER, f"{key.generation}.key")
    with pytest.raises(RecordError, match="it was lost"):
        make_store().find(USER, key.generation)


def test_keys_that_are_not_mounted_any_more_are_not_said_to_be_erased_or_lost(
    tmp_path: Path, secret: Secret, clock: Clock
) -> None:
    store = KeyStore(str(tmp_path / "keys"), secret, clock=clock)
    key = store.key_for(USER)
    clock.now += 31
    (tmp_path / "keys").rename(tmp_path / "away")
    (tmp_path / "keys").mkdir()
    with pytest.raises(StoreError, match=f"keys at {tmp_path}/keys: nothing is there any more"):
        store.find(USER, key.generation)


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, secret: Secret) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    store = KeyStore(str(tmp_path / "keys"), secret)
    for attempt in (
        store.verify,
        lambda: store.key_for(USER),
        lambda: store.find(USER, "1-" + "0" * 16),
        lambda: store.erase(USER),
        store.rewrap,
    ):
        with pytest.raises(StoreError, match=f"keys at {tmp_path}/keys: could not "):
            attempt()


def test_a_place_that_nothing_serves_is_refused(secret: Secret) -> None:
    with pytest.raises(ConfigError, match=r"privacy.keys_url: nowhere://keys: "):
        KeyStore("nowhere://keys", secret)


@pytest.mark.parametrize("subject", ["", "../user", "a/b", "a b", "_secrets", ".hidden", "ü", "a" * 129, "a\0"])
def test_what_cannot_be_a_folder_is_no_subject(store: KeyStore, subject: str) -> None:
    for attempt in (store.key_for, store.erase, lambda name: store.find(name, "1-" + "0" * 16)):
        with pytest.raises(RecordError, match=r"a subject is 1 to 128|a key is named"):
            attempt(subject)


@pytest.mark.parametrize("generation", ["", "1", "0-" + "0" * 16, "1-" + "0" * 15, "1-" + "G" * 16, "1-../" + "0" * 12])
def test_what_names_no_generation_is_refused(store: KeyStore, generation: str) -> None:
    with pytest.raises(RecordError, match="a key is named"):
        store.find(USER, generation)


def test_another_secret_is_refused_before_anything_is_read_or_written(store: KeyStore, url: str) -> None:
    store.key_for(USER)
    before = files(url)
    for attempt in ("verify", "key_for"):
        other = KeyStore(url, Secret.parse("3c" * 32, "test"))
        with pytest.raises(ConfigError, match=r"keys at .*: made with secret [0-9a-f]{16}, got secret [0-9a-f]{16}"):
            other.verify() if attempt == "verify" else other.key_for(USER)
    assert files(url) == before


def test_another_wrapping_line_is_refused_with_what_is_needed(store: KeyStore, url: str) -> None:
    store.key_for(USER)
    needed = "must hold the line they were wrapped under until `onstream keys rewrap` is through"
    with pytest.raises(ConfigError, match=needed):
        KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}", "test")).verify()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_key_file_is_refused_by_name(store: KeyStore, make_store: MakeStore, url: str, damage: str) -> None:
    key = store.key_for(USER)
    ((name, data),) = files(url).items()
    bad = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:20], "empty": b""}[damage]
    KeyFiles(url).put(USER, name, bad)
    for attempt in (lambda: make_store().key_for(USER), lambda: make_store().find(USER, key.generation)):
        with pytest.raises(RecordError, match=f"key {USER}/{key.generation}: does not open"):
            attempt()


def test_a_key_file_moved_to_another_subject_does_not_open(store: KeyStore, make_store: MakeStore, url: str) -> None:
    store.key_for(USER)
    ((name, data),) = files(url).items()
    KeyFiles(url).put("user-other", name, data)
    with pytest.raises(RecordError, match=r"key user-other/.*: does not open"):
        make_store().key_for("user-other")


def test_a_copied_key_folder_is_useless_once_its_keys_were_rewrapped_and_the_old_line_dropped(
    url: str, clock: Clock
) -> None:
    old = KeyStore(url, Secret.parse(f"{NAMING}\n{OLD}", "test"), clock=clock)
    keys = [old.key_for(f"user-{n}") for n in range(3)]
    copy = files(url)
    both = KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}\n{OLD}", "test"), clock=clock)
    newer = both.key_for("user-newer")
    assert both.rewrap() == 3
    assert both.rewrap() == 0
    new = KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}", "test"), clock=clock)
    new.verify()
    assert [new.find(key.subject, key.generation) for key in [*keys, newer]] == [*keys, newer]
    assert files(url).keys() >= copy.keys()
    for key in keys:
        KeyFiles(url).put(key.subject, f"{key.generation}.key", copy[f"{key.generation}.key"])
        with pytest.raises(RecordError, match="does not open"):
            KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}", "test")).find(key.subject, key.generation)


def test_rewrapping_that_was_cut_short_may_be_called_again_and_the_old_line_is_needed_until_then(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = KeyStore(url, Secret.parse(f"{NAMING}\n{OLD}", "test"))
    keys = [old.key_for(f"user-{n}") for n in range(4)]
    both = KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}\n{OLD}", "test"))
    with monkeypatch.context() as patch:
        put, calls = KeyFiles.put, iter(range(9))

        def breaking(self: KeyFiles, folder: str, name: str, data: bytes) -> None:
            if next(calls) == 2:
                raise StoreError("away")
            put(self, folder, name, data)

        patch.setattr(KeyFiles, "put", breaking)
        with pytest.raises(StoreError, match="away"):
            both.rewrap()
    with pytest.raises(ConfigError, match="until `onstream keys rewrap` is through"):
        KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}", "test")).verify()
    assert both.rewrap() == 2
    new = KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}", "test"))
    assert [new.find(key.subject, key.generation) for key in keys] == keys


def test_rewrapping_brings_back_no_key_that_is_erased_meanwhile(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = KeyStore(url, Secret.parse(f"{NAMING}\n{OLD}", "test"))
    old.key_for(USER)
    both = KeyStore(url, Secret.parse(f"{NAMING}\n{NEW}\n{OLD}", "test"))
    read = KeyFiles.read

    def erased_after(self: KeyFiles, folder: str, name: str) -> bytes | None:
        data = read(self, folder, name)
        if folder == USER:
            monkeypatch.setattr(KeyFiles, "read", read)
            old.erase(USER)
        return data

    both.verify()
    monkeypatch.setattr(KeyFiles, "read", erased_after)
    both.rewrap()
    assert list(files(url)) == ["1.erased"]


def test_threads_of_a_process_that_need_a_key_at_once_have_the_same(store: KeyStore, url: str) -> None:
    barrier = threading.Barrier(8)

    def key(_: int) -> str:
        barrier.wait()
        return store.key_for(USER).generation

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(key, range(8)))) == 1
    assert len(files(url)) == 1


def test_makers_that_cannot_see_each_other_leave_keys_that_all_can_find_and_agree_on_one(
    make_store: MakeStore,
) -> None:
    barrier = threading.Barrier(6)

    def key(store: KeyStore) -> tuple[KeyStore, str]:
        barrier.wait()
        return store, store.key_for(USER).generation

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(key, [make_store() for _ in range(6)]))
    for _, generation in made:
        for store in (made[0][0], make_store()):
            assert store.find(USER, generation) is not None
    assert len({make_store().key_for(USER).generation for _ in range(3)}) == 1


def test_of_two_keys_made_at_once_the_one_that_was_used_first_stays_readable(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The order that no put-and-list store can prevent: one looks, another makes and uses a key, the first makes its
    own, which goes before."""
    slow, quick = make_store(), make_store()
    slow.verify()
    names, early = KeyFiles.names, []

    def late(self: KeyFiles, folder: str) -> list[str]:
        found = names(self, folder)
        if folder == USER:
            monkeypatch.setattr(KeyFiles, "names", names)
            monkeypatch.setattr("secrets.token_hex", lambda n: "f" * 2 * n)
            early.append(quick.key_for(USER))
            monkeypatch.setattr("secrets.token_hex", lambda n: "0" * 2 * n)
        return found

    monkeypatch.setattr(KeyFiles, "names", late)
    key = slow.key_for(USER)
    assert [key.generation, early[0].generation] == ["1-" + "0" * 16, "1-" + "f" * 16]
    assert make_store().find(USER, early[0].generation) == early[0]
    clock.now += 31
    assert quick.key_for(USER) == key


def test_a_key_made_while_its_user_is_erased_is_of_the_next_generation(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    maker, eraser = make_store(), make_store()
    eraser.key_for("user-other")
    maker.verify()
    put = KeyFiles.put

    def erased_after(self: KeyFiles, folder: str, name: str, data: bytes) -> None:
        monkeypatch.setattr(KeyFiles, "put", put)
        put(self, folder, name, data)
        eraser.erase(USER)

    monkeypatch.setattr(KeyFiles, "put", erased_after)
    key = maker.key_for(USER)
    assert key.generation.startswith("2-")
    assert make_store().find(USER, key.generation) == key


def test_a_key_put_after_its_tombstone_is_removed_by_who_put_it(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    maker, eraser = make_store(), make_store()
    maker.verify()
    put = KeyFiles.put

    def erased_before(self: KeyFiles, folder: str, name: str, data: bytes) -> None:
        monkeypatch.setattr(KeyFiles, "put", put)
        eraser.key_for(USER)
        eraser.erase(USER)
        put(self, folder, name, data)

    monkeypatch.setattr(KeyFiles, "put", erased_before)
    assert maker.key_for(USER).generation.startswith("2-")
    assert sorted(name[:2] for name in files(url)) == ["1.", "2-"]


def test_a_user_who_is_erased_again_and_again_meanwhile_is_an_error_and_no_endless_wait(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, eraser = make_store(), make_store()
    put = KeyFiles.put

    def erasing(self: KeyFiles, folder: str, name: str, data: bytes) -> None:
        put(self, folder, name, data)
        if name.endswith(".key"):
            eraser.erase(USER)

    monkeypatch.setattr(KeyFiles, "put", erasing)
    with pytest.raises(StoreError, match="a new key was gone again, 8 times"):
        maker.key_for(USER)
