"""`create`: a file is made once, and whole."""

import threading
import uuid
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from infra.errors import ConfigError, LakeError
from ingest.lake.disk import folder_of
from ingest.lake.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "lake") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_a_name_is_given_once(storage: Storage) -> None:
    assert storage.create("a/1.json", b"first")
    assert not storage.create("a/1.json", b"second")
    assert storage.read("a/1.json") == b"first"
    assert storage.names("a") == ["1.json"]


@pytest.mark.parametrize(("held", "is_ours"), [(b"ours", True), (b"another's", False)])
def test_a_put_that_failed_is_judged_by_what_is_there(
    held: bytes, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    storage.put("a/1.json", held)

    def fail(*_args: object, **_more: object) -> None:
        raise OSError(22, "PreconditionFailed")  # as s3fs says it

    monkeypatch.setattr(type(storage._fs), "pipe_file", fail)
    assert storage.create("a/1.json", b"ours") is is_ours
    with pytest.raises(LakeError, match=r"a/2.json: not created"):
        storage.create("a/2.json", b"ours")


def test_of_many_that_create_a_name_at_once_one_does_and_its_bytes_stand(tmp_path: Path) -> None:
    storage, made = Storage(str(tmp_path)), list[int]()
    gate = threading.Barrier(8)

    def create(number: int) -> None:
        gate.wait()
        if storage.create("a/1.json", bytes([number]) * 100_000):
            made.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert storage.read("a/1.json") == bytes([made[0]]) * 100_000
    assert storage.names("a") == ["1.json"]


def test_what_is_not_there_reads_as_none_and_is_deleted_in_peace(storage: Storage) -> None:
    assert storage.read("a/1.json") is None
    assert storage.names("a") == []
    storage.remove("a/1.json")


def test_a_file_is_replaced_whole(storage: Storage) -> None:
    storage.replace("a/1.json", b"first")
    storage.replace("a/1.json", b"2")
    assert storage.read("a/1.json") == b"2"
    assert storage.everything() == ["a/1.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    with pytest.raises(LakeError, match=r"lake/a/1.json: not created"):
        Storage(str(tmp_path / "lake")).create("a/1.json", b"")


@pytest.mark.parametrize(
    "url", ["/a/b", "/a/b/", "a/b", "./a", "~/a", "file:///a/b", "local:///a/b", "file:/a/b", "/a b/ü", "/a#b?c"]
)
def test_a_folder_here_is_the_one_that_fsspec_would_take(url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    assert isinstance(fs, LocalFileSystem)
    assert folder_of(url) == root


@pytest.mark.parametrize("url", ["s3://a/b", "memory://a", "simplecache::s3://a", "simplecache::file:///a"])
def test_what_is_elsewhere_is_no_folder_here(url: str) -> None:
    assert folder_of(url) is None


def test_a_url_that_no_library_serves_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"ingest.lake.url: nowhere://a: .*nowhere"):
        Storage("nowhere://a")
