"""An engine told to require signatures: what nobody vouches for never pauses it, and the reason says so."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.torch import save_file

from infra.errors import SignatureError, StoreError
from ingest.store.signing import SIGNATURE, Signer, Trust
from ingest.store.versions import MANIFEST, VersionStore
from serving.engine.capture import Capture
from serving.engine.control import Loader


class Untouched:
    """An engine, and a capture, of which nothing may be asked."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    """Of an engine that serves version 0 and requires signatures; version 1 is in the store, signed."""
    signer = Signer(ec.generate_private_key(ec.SECP256R1()))
    store = VersionStore(str(tmp_path / "store"), signer, Trust((signer.public_key,)), is_required=True)
    for number in range(2):
        made = tmp_path / f"made-{number}"
        made.mkdir()
        save_file({"w": torch.full((2, 2), float(number))}, made / "model.safetensors")
        store.publish(number, made, None, {}, {}, 0.0)
    return Loader(store, tmp_path / "cache", 2, store.read(0))


def folder(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "store" / "versions").glob("000001-*")
    return found


async def refused(loader: Loader) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await loader.load(1, Untouched(), cast(Capture, Untouched()))
    assert loader.serving.version == 0
    return raised.value


async def test_an_unsigned_version_never_pauses_the_engine(loader: Loader, tmp_path: Path) -> None:
    (folder(tmp_path) / SIGNATURE).unlink()
    exc = await refused(loader)
    assert isinstance(exc, SignatureError)
    assert str(exc) == "version 1: its signature is required, and it is not signed: there is no model.sig"


async def test_an_altered_manifest_never_pauses_the_engine(loader: Loader, tmp_path: Path) -> None:
    path = folder(tmp_path) / MANIFEST
    path.write_text(path.read_text().replace('"created_at": 0.0', '"created_at": 1.0').replace(":0.0", ":1.0"))
    assert "its manifest.json was altered" in str(await refused(loader))


async def test_an_altered_file_never_pauses_the_engine(loader: Loader, tmp_path: Path) -> None:
    path = folder(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert "model.safetensors must have sha256" in str(await refused(loader))


async def test_a_signed_version_is_loaded(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    async def swap(*_: object) -> None:
        """The swap itself is another test's."""

    monkeypatch.setattr(loader, "_swap", swap)
    assert (await loader.load(1, Untouched(), cast(Capture, Untouched()))).version == 1
