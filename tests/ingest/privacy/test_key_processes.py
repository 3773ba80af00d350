"""Processes that make a key at once, and processes killed between any two steps of making or erasing one."""

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from key_work import SECRET, USER, erase_key, killed_before, make_key, seal_some

from ingest.privacy.generations import DataKey
from ingest.privacy.key_files import KeyFiles
from ingest.privacy.keys import KeyStore
from ingest.privacy.seal import unseal

SPAWN = multiprocessing.get_context("spawn")


def test_what_processes_seal_that_make_the_key_at_once_is_all_readable(tmp_path: Path) -> None:
    url = str(tmp_path / "keys")
    barrier, found = SPAWN.Barrier(4), SPAWN.Queue()
    running = [SPAWN.Process(target=seal_some, args=(url, barrier, found)) for _ in range(4)]
    for process in running:
        process.start()
    sealed = [found.get(timeout=60) for _ in range(80)]
    for process in running:
        process.join()
    store = KeyStore(url, SECRET)
    for generation, value in sealed:
        key = store.find(USER, generation)
        assert key is not None and unseal(value, key, b"") == b"text"
    assert len({KeyStore(url, SECRET).key_for(USER) for _ in range(3)}) == 1


def kills(work: Callable[[KeyStore], None], folder: Path, begin: Callable[[str], None]) -> Iterator[str]:
    """A store after `begin` and a process that was killed at `work`: once for every change it makes."""
    for step in itertools.count():
        url = str(folder / str(step))
        begin(url)
        process = SPAWN.Process(target=killed_before, args=(step, url, work))
        process.start()
        process.join()
        if process.exitcode == 0:
            assert step >= 3, "nothing was killed"
            return
        assert process.exitcode == -signal.SIGKILL
        yield url


def names(url: str) -> set[str]:
    return {path.name for path in Path(url).glob(f"*/{USER}/*")}


def test_a_process_killed_while_it_makes_a_key_leaves_one_that_all_agree_on_or_none(tmp_path: Path) -> None:
    for url in kills(make_key, tmp_path, lambda url: KeyStore(url, SECRET).verify()):
        whole = {name for name in names(url) if name.endswith(".key")}
        key = KeyStore(url, SECRET).key_for(USER)
        assert KeyStore(url, SECRET).key_for(USER) == key
        assert whole in (set(), {f"{key.generation}.key"})
        assert KeyStore(url, SECRET).erase(USER) >= 1
        assert names(url) == {"1.erased"}, "an unfinished key outlived its user"


def test_a_process_killed_while_it_erases_has_erased_all_or_nothing_and_may_do_so_again(tmp_path: Path) -> None:
    made: list[DataKey] = []

    def begin(url: str) -> None:
        store = KeyStore(url, SECRET)
        key = store.key_for(USER)
        store._put(DataKey(USER, "1-" + "f" * 16, key.secret))
        made[:] = [key, DataKey(USER, "1-" + "f" * 16, key.secret)]

    outcomes = []
    for url in kills(erase_key, tmp_path, begin):
        found = [KeyStore(url, SECRET).find(USER, key.generation) for key in made]
        assert found in (made, [None, None])
        outcomes.append(found == made)
        KeyStore(url, SECRET).erase(USER)
        assert {name for name in names(url) if not name.endswith(".part")} == {"1.erased"}
        assert not any(".key" in name for name in names(url))
        assert [KeyStore(url, SECRET).find(USER, key.generation) for key in made] == [None, None]
    assert outcomes == sorted(outcomes, reverse=True) and True in outcomes and False in outcomes


def test_a_user_who_returns_after_a_kill_in_mid_erasure_gets_a_new_key_and_the_old_ones_are_gone(
    tmp_path: Path,
) -> None:
    for url in kills(erase_key, tmp_path, lambda url: make_key(KeyStore(url, SECRET))):
        was_erased = "1.erased" in names(url)
        key = KeyStore(url, SECRET).key_for(USER)
        assert key.generation.startswith("2-" if was_erased else "1-")
        assert {name for name in names(url) if name.endswith(".key")} == {f"{key.generation}.key"}


def test_a_key_file_is_never_seen_in_part(tmp_path: Path) -> None:
    files = KeyFiles(str(tmp_path / "keys"))
    seen: list[list[str]] = []
    write = files._fs.pipe_file

    def watched(path: str, data: bytes) -> None:
        write(path, data[:10])
        seen.append(files.names(USER))
        write(path, data)

    files._fs.pipe_file = watched
    try:
        files.put(USER, "1.key", bytes(60))
    finally:
        del files._fs.pipe_file
    assert not any(name == "1.key" for found in seen for name in found)
    assert files.read(USER, "1.key") == bytes(60)
