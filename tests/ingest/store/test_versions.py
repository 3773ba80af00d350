"""The weight store: a version exists once its manifest can be read, and is what its manifest says."""

import shutil
import uuid
from pathlib import Path

import pytest

from infra.errors import StoreError
from ingest.records.events import Version
from ingest.store.versions import MANIFEST, VersionStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return VersionStore(str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A Hugging Face folder, as small as one can be."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 4}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    return folder


def publish(store: VersionStore, folder: Path, version: int = 1, parent: Version | None = None) -> Version:
    return store.publish(version, folder, parent, {"step": version}, {"loss": 0.5}, at=10.0)


def test_a_published_version_is_listed_read_and_fetched_as_it_was(
    store: VersionStore, weights: Path, tmp_path: Path
) -> None:
    manifest = publish(store, weights)
    assert store.versions() == [1]
    assert store.read(1) == manifest
    assert [(file.name, file.bytes) for file in manifest.files] == [("config.json", 18), ("model.safetensors", 2048)]
    fetched = store.fetch(manifest, tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in fetched.iterdir() if path.name != MANIFEST} == {
        path.name: path.read_bytes() for path in weights.iterdir()
    }


def test_a_manifest_names_its_parent_and_its_lineage(store: VersionStore, weights: Path) -> None:
    first = publish(store, weights)
    (weights / "model.safetensors").write_bytes(b"newer")
    second = publish(store, weights, version=2, parent=first)
    assert (second.parent, second.parent_digest) == (1, first.digest)
    assert (second.lineage, second.metrics, second.created_at) == ({"step": 2}, {"loss": 0.5}, 10.0)
    assert second.digest != first.digest
    assert store.versions() == [1, 2]


def test_a_version_is_found_without_a_look_into_the_folders_of_others(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VersionStore(str(tmp_path / "store"))
    for version in (1, 2, 3):
        publish(store, weights, version)
    listed, own = set[str](), store._fs.ls
    monkeypatch.setattr(store._fs, "ls", lambda path, **how: listed.add(Path(path).name[:8]) or own(path, **how))
    assert store.read(2).version == 2
    assert listed == {"versions", "000002-" + store.read(2).digest[:1]}


def test_versions_are_listed_by_number_and_not_by_name(store: VersionStore, weights: Path) -> None:
    for version in (1_000_000, 2, 10):
        publish(store, weights, version)
    assert store.versions() == [2, 10, 1_000_000]
    assert [store.read(version).version for version in (2, 10, 1_000_000)] == [2, 10, 1_000_000]


def test_a_folder_without_a_manifest_is_no_version_and_publishing_completes_it(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    folder = tmp_path / "store" / publish(store, weights).folder
    (folder / MANIFEST).unlink()
    (folder / "model.safetensors").write_bytes(b"half a f")
    assert store.versions() == []
    with pytest.raises(StoreError, match=r"version 1: expected one manifest .* found 0"):
        store.read(1)
    manifest = publish(store, weights)
    assert store.versions() == [1]
    store.fetch(manifest, tmp_path / "cache")


def test_a_folder_that_somebody_copied_aside_is_no_version(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    kept = tmp_path / "store" / publish(store, weights).folder
    for name in ("old", f"old-{kept.name}"):
        shutil.copytree(kept, kept.with_name(name))
    assert store.versions() == [1]


def test_a_manifest_half_written_is_no_version(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    folder = tmp_path / "store" / publish(store, weights).folder
    (folder / MANIFEST).rename(folder / f"{MANIFEST}.part")
    assert store.versions() == []


def test_publishing_the_same_content_again_changes_nothing(store: VersionStore, weights: Path) -> None:
    manifest = publish(store, weights)
    again = store.publish(1, weights, None, {"step": 99}, {}, at=99.0)
    assert again == manifest == store.read(1)


def test_a_number_that_other_content_has_is_refused(store: VersionStore, weights: Path) -> None:
    manifest = publish(store, weights)
    (weights / "config.json").write_text("{}")
    with pytest.raises(StoreError, match=f"version 1 exists with digest {manifest.digest[:12]}, got "):
        publish(store, weights)
    assert store.read(1) == manifest


def test_a_flipped_byte_in_the_store_is_named_and_nothing_reaches_the_cache(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    damaged = tmp_path / "store" / manifest.folder / "model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(StoreError, match=r"version 1: model\.safetensors must have sha256 .* and 2048 bytes, got "):
        store.fetch(manifest, tmp_path / "cache")
    assert not (tmp_path / "cache" / Path(manifest.folder).name).exists()


def test_a_file_missing_from_the_store_is_named(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    (tmp_path / "store" / manifest.folder / "config.json").unlink()
    with pytest.raises(StoreError, match=r"config\.json: not readable"):
        store.fetch(manifest, tmp_path / "cache")


def test_a_version_already_in_the_cache_is_not_fetched_again(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    fetched = store.fetch(manifest, tmp_path / "cache")
    (tmp_path / "store" / manifest.folder / "model.safetensors").unlink()
    assert store.fetch(manifest, tmp_path / "cache") == fetched


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_copy_in_the_cache_is_fetched_anew(damage: str, weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    copy = store.fetch(manifest, tmp_path / "cache") / "model.safetensors"
    whole = copy.read_bytes()
    if damage == "flip":
        copy.write_bytes(b"\x01" + whole[1:])
    else:
        copy.unlink()
    assert store.fetch(manifest, tmp_path / "cache") / "model.safetensors" == copy
    assert copy.read_bytes() == whole


def test_a_damaged_copy_stays_where_the_store_has_no_other(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    copy = store.fetch(manifest, tmp_path / "cache") / "model.safetensors"
    copy.write_bytes(b"\x01" + copy.read_bytes()[1:])
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(StoreError, match=r"not readable"):
        store.fetch(manifest, tmp_path / "cache")
    assert copy.exists()


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "inside/file"])
def test_a_manifest_whose_files_have_a_path_for_a_name_is_refused_and_writes_nothing(
    weights: Path, tmp_path: Path, name: str
) -> None:
    store = VersionStore(str(tmp_path / "store"))
    manifest = publish(store, weights)
    entry = manifest.files[0].model_copy(update={"name": name.replace("/tmp", str(tmp_path))})
    forged = manifest.model_copy(update={"files": (entry,)})
    lies = tmp_path / "store" / manifest.folder / entry.name
    lies.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights / manifest.files[0].name, lies)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"version 1: its files must have names without a folder, got '"):
        store.fetch(forged, tmp_path / "cache")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("is_away", [False, True])
def test_a_copy_stands_in_for_a_store_that_lost_the_version_or_does_not_answer(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    writer, copies = VersionStore(str(tmp_path / "store")), tmp_path / "cache"
    manifest = publish(writer, weights)
    store = VersionStore(str(tmp_path / "store"), copies=copies)
    copy = store.fetch(manifest, copies)
    if is_away:
        for name in ("glob", "ls", "cat_file", "get_file"):
            monkeypatch.setattr(store._fs, name, fail)
    else:
        shutil.rmtree(tmp_path / "store" / manifest.folder)
    assert store.read(1) == manifest
    assert store.fetch(manifest, copies) == copy
    with pytest.raises(StoreError, match="no route to host" if is_away else "expected one manifest"):
        VersionStore(str(tmp_path / "store")).read(1)
    shutil.move(copy, copy.with_suffix(".part"))  # as a fetch that was interrupted leaves it
    with pytest.raises(StoreError, match="no route to host" if is_away else "expected one manifest"):
        store.read(1)


def test_of_two_copies_with_one_number_none_stands_in(weights: Path, tmp_path: Path) -> None:
    """As where a store was lost, and the trainer went on from what was restored: only the store tells which it is."""
    copies = tmp_path / "cache"
    for name, text in (("lost", "{}"), ("store", '{"a": 1}')):
        (weights / "config.json").write_text(text)
        writer = VersionStore(str(tmp_path / name))
        writer.fetch(publish(writer, weights), copies)
    store = VersionStore(str(tmp_path / "store"), copies=copies)
    assert store.read(1) == writer.read(1)
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(StoreError, match=r"found 0; expected one copy to stand in, found .*/000001-.*, .*/000001-"):
        store.read(1)


def test_a_copy_is_not_asked_where_the_store_has_two_of_a_version(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"), copies=tmp_path / "cache")
    kept = tmp_path / "store" / publish(store, weights).folder
    store.fetch(store.read(1), tmp_path / "cache")
    shutil.copytree(kept, kept.with_name(f"{kept.name}-by-hand"))
    with pytest.raises(StoreError, match=r"expected one manifest .* found 2"):
        store.read(1)


def test_an_unreadable_manifest_is_named(weights: Path, tmp_path: Path) -> None:
    store = VersionStore(str(tmp_path / "store"))
    (tmp_path / "store" / publish(store, weights).folder / MANIFEST).write_text("{}")
    with pytest.raises(StoreError, match=r"version 1: manifest .*manifest\.json is unreadable"):
        store.read(1)


def test_a_fetch_that_was_interrupted_is_begun_anew(store: VersionStore, weights: Path, tmp_path: Path) -> None:
    manifest = publish(store, weights)
    left = tmp_path / "cache" / f"{Path(manifest.folder).name}.part"
    left.mkdir(parents=True)
    (left / "stray").write_bytes(b"half")
    fetched = store.fetch(manifest, tmp_path / "cache")
    assert {path.name for path in fetched.iterdir()} == {"config.json", "model.safetensors", MANIFEST}
