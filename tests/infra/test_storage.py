from pathlib import Path
from typing import Any

import objects  # noqa: F401 - makes the protocol known
import pytest

from infra.errors import ConfigError, StoreError, StoreOutageError
from infra.storage import Folder, Place


@pytest.fixture(params=["disk", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "at" if request.param == "disk" else f"objects://{tmp_path}/at"


def test_what_is_written_is_read_replaced_listed_and_deleted(place: Place) -> None:
    folder = Folder(place)
    assert folder.names() == [] and folder.read("a") is None
    folder.make()
    folder.write("a", b"one")
    folder.write("a", b"two")
    folder.write("sub/b", b"three")
    assert folder.read("a") == b"two" and folder.under("sub").read("b") == b"three"
    assert folder.names() == ["a", "sub"] and folder.files() == ["a", "sub/b"]
    with folder.reading("sub/b") as path:
        assert path.read_bytes() == b"three"
    for _ in range(2):
        folder.delete("sub")
    assert folder.names() == ["a"]


def test_a_file_whose_writing_failed_is_as_it_was(place: Place) -> None:
    folder = Folder(place)
    folder.write("a", b"one")
    with pytest.raises(ZeroDivisionError), folder.writing("a") as path:
        path.write_bytes(b"half of tw")
        1 / 0  # noqa: B018
    assert folder.read("a") == b"one"


def test_a_folder_is_sent_and_fetched_whole(place: Place, tmp_path: Path) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "a").write_text("one")
    (tmp_path / "here" / "sub" / "b").write_text("two")
    Folder(place).send(tmp_path / "here")
    Folder(place).fetch(tmp_path / "there")
    there = tmp_path / "there"
    found = {path.relative_to(there).as_posix(): path.read_text() for path in there.rglob("*") if path.is_file()}
    assert found == {"a": "one", "sub/b": "two"}


def test_what_cannot_be_read_is_a_store_error_that_names_it(place: Place) -> None:
    with pytest.raises(StoreError, match="at/none: not readable") as told, Folder(place).reading("none") as path:
        path.read_bytes()
    assert not isinstance(told.value, StoreOutageError)  # it will not be there at another time


def test_a_store_that_does_not_answer_is_told_from_what_is_not_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("endpoint not reached")

    folder = Folder(place)
    folder.make()
    monkeypatch.setattr(folder._fs, "cat_file", away)
    with pytest.raises(StoreOutageError, match="at/a: not readable: endpoint not reached"):
        folder.read("a")
    with pytest.raises(StoreOutageError, match="at/a: not written: no space"), folder.writing("a"):
        raise OSError("no space")


def test_an_unknown_protocol_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="nowhere://x: not an fsspec URL"):
        Folder("nowhere://x")
