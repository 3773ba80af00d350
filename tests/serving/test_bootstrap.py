"""The first release, and what a start on an older store refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from infra.config import Config
from infra.errors import ConfigError, SignatureError
from ingest.log.memory import InMemoryLog
from ingest.store import releases
from ingest.store.signing import Signer, Trust
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


def test_who_ran_through_the_loss_of_the_log_follows_what_is_released_on_a_new_one(tmp_path: Path) -> None:
    """The log that was lost had an epoch for each start of a controller."""
    store, config = VersionStore(str(tmp_path / "store")), model(tmp_path / "model")
    lost, found = InMemoryLog(), InMemoryLog()
    bootstrap(config, lost, store, now=lambda: 1000.0)
    bootstrap(config, found, store, now=lambda: 90_000.0)
    served = replace(releases.read(lost), epoch=1020, last=57, lineage=(0, 3, 7), engines={"stable-0": 7})
    follower = releases.ReleaseFollower(found, served)
    assert follower.catch_up() == releases.read(found)


def test_another_model_on_the_same_store_is_refused(tmp_path: Path) -> None:
    log, store = InMemoryLog(), VersionStore(str(tmp_path / "store"))
    bootstrap(model(tmp_path / "model"), log, store)
    with pytest.raises(
        ConfigError, match=r"model.path: .*/other is not the model that the versions in .* descend from"
    ):
        bootstrap(model(tmp_path / "other", b"other weights"), log, store)


def test_version_0_is_signed_where_versions_must_be_and_an_unsigned_one_is_not_released(tmp_path: Path) -> None:
    signer = Signer(ec.generate_private_key(ec.SECP256R1()))
    trust, url = Trust((signer.public_key,)), str(tmp_path / "store")
    config, store = model(tmp_path / "model"), VersionStore(url, signer, trust, is_required=True)
    bootstrap(config, InMemoryLog(), store)
    assert store.read(0).version == 0
    (signature,) = (tmp_path / "store").glob("versions/*/model.sig")
    signature.unlink()
    log = InMemoryLog()
    with pytest.raises(SignatureError, match="version 0: its signature is required, and it is not signed"):
        bootstrap(config, log, store)
    assert releases.read(log).stable is None


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, missing: str) -> None:
    config = model(tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    with pytest.raises(ConfigError, match=r"model.path: .*/model must be a folder with config.json and \*.safetensors"):
        bootstrap(config, InMemoryLog(), VersionStore(str(tmp_path / "store")))
