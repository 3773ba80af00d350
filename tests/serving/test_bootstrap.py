"""The first release, and what a start on an older store refuses."""

from pathlib import Path

import pytest

from infra.config import Config
from infra.errors import ConfigError
from ingest.log.memory import InMemoryLog
from ingest.store import releases
from ingest.store.versions import VersionStore
from serving.bootstrap import bootstrap


def model(folder: Path, weights: bytes = b"weights") -> Config:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return Config.model_validate({"model": {"path": str(folder)}})


def test_the_base_model_is_released_once_as_version_0(tmp_path: Path) -> None:
    log, store, config = InMemoryLog(), VersionStore(str(tmp_path / "store")), model(tmp_path / "model")
    for _ in range(2):
        bootstrap(config, log, store)
    served = releases.read(log)
    assert (served.stable, served.last, store.versions()) == (0, 0, [0])


def test_another_model_on_the_same_store_is_refused(tmp_path: Path) -> None:
    log, store = InMemoryLog(), VersionStore(str(tmp_path / "store"))
    bootstrap(model(tmp_path / "model"), log, store)
    with pytest.raises(
        ConfigError, match=r"model.path: .*/other is not the model that the versions in .* descend from"
    ):
        bootstrap(model(tmp_path / "other", b"other weights"), log, store)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, missing: str) -> None:
    config = model(tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(ConfigError, match=r"model.path: .*/model must be a folder with config.json and \*.safetensors"):
        bootstrap(config, InMemoryLog(), VersionStore(str(tmp_path / "store")))
