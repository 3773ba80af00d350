"""Signed versions: what nobody vouches for is refused where a signature is required, and others' tools agree."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from infra.config import Config, SigningConfig, StoreConfig
from infra.errors import ConfigError, SignatureError, StoreError
from ingest.records.events import Version
from ingest.store import command, signing
from ingest.store.signing import SIGNATURE, SignatureState, Signer, Trust
from ingest.store.versions import MANIFEST, VersionStore

STANDARD = Path(sys.executable).parent / "model_signing"


class Keys:
    """A pair of keys in files."""

    def __init__(self, folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> None:
        key = ec.generate_private_key(curve or ec.SECP256R1())
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        self.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "first")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    return folder


Opened = Callable[..., VersionStore]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """The store, opened as one who signs with the private key, requiring a signature by one of `trusted`."""

    def of(private: Path | None, *trusted: Path, required: bool = True) -> VersionStore:
        config = SigningConfig(
            key_file=str(private or ""), public_key_files=tuple(map(str, trusted)), required=required and bool(trusted)
        )
        store = StoreConfig(url=str(tmp_path / "store"), cache_dir=str(tmp_path / "cache"), signing=config)
        return VersionStore.of(store, publishes=private is not None)

    return of


def publish(store: VersionStore, folder: Path, version: int = 1, lineage: str = "a") -> Version:
    return store.publish(version, folder, None, {"spec": lineage}, {}, at=1.0)


def folder_of(tmp_path: Path, manifest: Version) -> Path:
    return tmp_path / "store" / manifest.folder


def test_a_copy_of_an_engine_put_back_into_a_store_that_was_lost_is_the_signed_version_again(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    manifest, store = publish(opened(keys.private, keys.public), weights), opened(None, keys.public)
    copy = store.fetch(manifest, tmp_path / "cache")
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(copy, folder_of(tmp_path, manifest))
    assert store.read(1) == manifest
    store.fetch(manifest, tmp_path / "another")


def test_a_copys_signature_counts_where_the_store_is_gone_and_a_copy_without_one_is_refused(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    manifest, copies = publish(opened(keys.private, keys.public), weights), tmp_path / "cache"
    copy = opened(None, keys.public).fetch(manifest, copies)
    signing = SigningConfig(public_key_files=(str(keys.public),), required=True)
    config = StoreConfig(url=str(tmp_path / "store"), cache_dir=str(copies), signing=signing)
    shutil.rmtree(tmp_path / "store")
    assert VersionStore.of(config, copies=copies).read(1) == manifest
    (copy / SIGNATURE).unlink()
    with pytest.raises(SignatureError, match=r"version 1: its signature is required, and it is not signed"):
        VersionStore.of(config, copies=copies).read(1)


def test_a_signed_version_is_read_by_who_requires_it(opened: Opened, keys: Keys, weights: Path) -> None:
    manifest = publish(opened(keys.private, keys.public), weights)
    reader = opened(None, keys.public)
    assert reader.read(1) == manifest
    assert reader.signed(1).state is SignatureState.VALID


def test_an_unsigned_version_is_refused_only_where_a_signature_is_required(
    opened: Opened, keys: Keys, weights: Path
) -> None:
    publish(opened(None), weights)
    with pytest.raises(SignatureError, match=r"version 1: its signature is required, and it is not signed"):
        opened(None, keys.public).read(1)
    assert opened(None, keys.public, required=False).read(1).version == 1


@pytest.mark.parametrize("what", ["a", "loss", "parent", "sha256"])
def test_an_altered_manifest_is_refused(what: str, opened: Opened, keys: Keys, weights: Path, tmp_path: Path) -> None:
    path = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights)) / MANIFEST
    told = json.loads(path.read_text())
    if what == "a":
        told["lineage"]["spec"] = "another"
    elif what == "loss":
        told["metrics"]["loss"] = 0.0
    elif what == "parent":
        told["parent"] = 7
    else:
        told["files"][1]["sha256"] = "0" * 64
    path.write_text(json.dumps(told))
    with pytest.raises(SignatureError, match=r"version 1: .* manifest\.json was altered"):
        opened(None, keys.public).read(1)


def test_an_altered_byte_of_a_file_that_was_signed_is_refused(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    altered = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights)) / "model.safetensors"
    altered.write_bytes(b"\x01" + altered.read_bytes()[1:])
    store = opened(None, keys.public)
    with pytest.raises(StoreError, match=r"version 1: model\.safetensors must have sha256"):
        store.fetch(store.read(1), tmp_path / "cache")


@pytest.mark.parametrize("damage", ["payload", "sig", "text", "list", "none", "deep", "type"])
def test_an_altered_signature_is_refused(
    damage: str, opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    path = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights)) / SIGNATURE
    bundle = json.loads(path.read_text())
    envelope = bundle["dsseEnvelope"]
    if damage == "payload":
        envelope["payload"] = envelope["payload"][:40] + "AAAA" + envelope["payload"][44:]
    elif damage == "sig":
        envelope["signatures"][0]["sig"] = "AAAA" + envelope["signatures"][0]["sig"][4:]
    elif damage == "type":
        envelope["payloadType"] = None
    elif damage == "none":
        envelope["signatures"] = []
    path.write_text({"text": "no JSON", "list": "[]", "deep": "[" * 100_000}.get(damage, json.dumps(bundle)))
    with pytest.raises(SignatureError, match=r"version 1: its signature is required, and its model\.sig"):
        opened(None, keys.public).read(1)


def test_a_signature_of_another_version_is_refused(opened: Opened, keys: Keys, weights: Path, tmp_path: Path) -> None:
    store = opened(keys.private, keys.public)
    first, second = publish(store, weights), publish(store, weights, 2)
    signature = (folder_of(tmp_path, first) / SIGNATURE).read_bytes()
    (folder_of(tmp_path, second) / SIGNATURE).write_bytes(signature)
    with pytest.raises(SignatureError, match=r"version 2: .* was altered"):
        store.read(2)


def test_a_signed_manifest_in_another_versions_folder_is_refused(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    first = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights))
    first.rename(first.with_name(first.name.replace("000001", "000005")))
    with pytest.raises(StoreError, match=r"version 5: manifest .* is of another version, versions/000001-"):
        opened(None, keys.public).read(5)


def test_a_signature_by_another_key_is_refused_and_the_key_is_named(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    stranger = Keys(tmp_path, "stranger")
    publish(opened(stranger.private), weights)
    store = opened(None, keys.public)
    with pytest.raises(SignatureError, match=r"is none of `store\.signing\.public_key_files`"):
        store.read(1)
    own = Signer.of(SigningConfig(key_file=str(stranger.private)))
    assert own is not None and own.key == store.signed(1).key


def test_a_signature_that_claims_a_known_key_is_refused(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    path = folder_of(tmp_path, publish(opened(Keys(tmp_path, "stranger").private), weights)) / SIGNATURE
    bundle = json.loads(path.read_text())
    (known,) = Trust.of(SigningConfig(public_key_files=(str(keys.public),))).keys
    bundle["verificationMaterial"]["publicKey"]["hint"] = known
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = known
    path.write_text(json.dumps(bundle))
    with pytest.raises(SignatureError, match="did not sign it"):
        opened(None, keys.public).read(1)


def test_while_a_key_is_replaced_both_count_and_afterwards_the_old_one_does_not(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    newer = Keys(tmp_path, "newer", ec.SECP384R1())
    publish(opened(keys.private, keys.public), weights)
    both = opened(newer.private, newer.public, keys.public)
    publish(both, weights, 2)
    assert [both.read(version).version for version in (1, 2)] == [1, 2]
    only = opened(None, newer.public)
    with pytest.raises(SignatureError, match="version 1"):
        only.read(1)
    assert both.sign(1).state is SignatureState.VALID
    assert only.read(1).version == 1


def test_a_version_published_before_there_was_a_key_can_be_signed(opened: Opened, keys: Keys, weights: Path) -> None:
    publish(opened(None), weights)
    assert opened(keys.private, keys.public, required=False).sign(1).state is SignatureState.VALID
    assert opened(None, keys.public).read(1).version == 1


def test_what_was_altered_is_not_signed_anew(opened: Opened, keys: Keys, weights: Path, tmp_path: Path) -> None:
    store = opened(keys.private, keys.public)
    path = folder_of(tmp_path, publish(store, weights)) / MANIFEST
    path.write_text(path.read_text().replace('"spec": "a"', '"spec":"b"').replace('"spec":"a"', '"spec":"b"'))
    with pytest.raises(SignatureError, match=r"version 1: not signed anew: .* was altered"):
        store.sign(1)


def test_a_crash_between_signature_and_manifest_leaves_no_version_and_publishing_completes_it(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    store = opened(keys.private, keys.public)
    (folder_of(tmp_path, publish(store, weights)) / MANIFEST).unlink()
    assert store.versions() == []
    publish(store, weights, lineage="b")  # the same weights, and another manifest: it needs another signature
    assert store.read(1).lineage == {"spec": "b"}


def test_a_version_made_of_a_signed_versions_folder_is_signed_for_itself(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    store = opened(keys.private, keys.public)
    second = publish(store, folder_of(tmp_path, publish(store, weights)), 2)
    assert {file.name for file in second.files} == {".gitattributes", "config.json", "model.safetensors"}
    assert store.read(2) == second


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda one: one.name)
def test_the_standards_own_tool_accepts_a_signed_version_and_refuses_an_altered_one(
    curve: ec.EllipticCurve, opened: Opened, weights: Path, tmp_path: Path
) -> None:
    keys = Keys(tmp_path, "own", curve)
    folder = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights))
    asked = [STANDARD, "verify", "key", folder, "--signature", folder / SIGNATURE, "--public_key", keys.public]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    weights_there = folder / "model.safetensors"
    weights_there.write_bytes(b"\x01" + weights_there.read_bytes()[1:])
    assert subprocess.run(asked, capture_output=True, check=False).returncode != 0


def test_a_signature_by_the_standards_own_tool_counts(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, publish(opened(None), weights))
    subprocess.run(
        [STANDARD, "sign", "key", folder, "--signature", folder / SIGNATURE, "--private_key", keys.private],
        check=True,
        capture_output=True,
    )
    store = opened(None, keys.public)
    assert store.read(1).version == 1
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + " ")
    with pytest.raises(SignatureError, match=r"manifest\.json was altered"):
        store.read(1)


def config_of(tmp_path: Path, **signing: object) -> Config:
    return Config.model_validate(
        {"run_dir": str(tmp_path / "run"), "model": {"path": str(tmp_path)}, "store": {"signing": signing}}
    )


def test_the_private_key_may_come_from_the_environment(keys: Keys) -> None:
    config = SigningConfig(key_env="KEY")
    found = Signer.of(config, {"KEY": keys.private.read_text()})
    assert found is not None and found.key == Trust.of(SigningConfig(public_key_files=(str(keys.public),))).keys[0]
    with pytest.raises(ConfigError, match=r"store\.signing\.key_env: environment variable KEY is not set"):
        Signer.of(config, {})


def test_a_key_that_cannot_sign_is_refused_without_being_shown(keys: Keys, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    edwards = ed25519.Ed25519PrivateKey.generate()
    encoding, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    for data, rule in (
        (b"hush, no key", "must be a private key as PEM"),
        (keys.public.read_bytes(), "must be a private key as PEM"),
        (edwards.private_bytes(encoding, format_, serialization.NoEncryption()), "must be an elliptic key on P-256"),
        (edwards.private_bytes(encoding, format_, serialization.BestAvailableEncryption(b"x")), "without a passphrase"),
    ):
        other.write_bytes(data)
        with pytest.raises(ConfigError, match=rule) as raised:
            Signer.of(SigningConfig(key_file=str(other)))
        assert "hush" not in str(raised.value)


def test_a_check_tells_a_key_that_no_reader_would_accept(keys: Keys, tmp_path: Path) -> None:
    signing.check(config_of(tmp_path, key_file=str(keys.private), public_key_files=[str(keys.public)], required=True))
    stranger = Keys(tmp_path, "stranger")
    with pytest.raises(ConfigError, match=r"public_key_files: must hold the public key of the one that signs"):
        signing.check(config_of(tmp_path, key_file=str(keys.private), public_key_files=[str(stranger.public)]))
    with pytest.raises(ConfigError, match=r"public_key_files: .*missing\.pem: not readable"):
        signing.check(config_of(tmp_path, public_key_files=[str(tmp_path / "missing.pem")]))


def test_who_publishes_where_a_signature_is_required_must_have_a_key(keys: Keys, tmp_path: Path) -> None:
    config = config_of(tmp_path, public_key_files=[str(keys.public)], required=True)
    VersionStore.of(config.store)
    with pytest.raises(ConfigError, match="neither `key_file` nor `key_env` says what to sign with"):
        VersionStore.of(config.store, publishes=True)


@pytest.mark.parametrize("given", [{"key_file": "a", "key_env": "b"}, {"required": True}])
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got both|needs `public_key_files`"):
        SigningConfig.model_validate(given)


def test_the_command_signs_what_has_no_signature_and_says_what_it_leaves(
    opened: Opened, keys: Keys, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered = folder_of(tmp_path, publish(opened(keys.private, keys.public), weights)) / MANIFEST
    altered.write_text(altered.read_text() + " ")
    publish(opened(None), weights, 2)
    file = tmp_path / "onstream.yaml"
    asked = {"key_file": str(keys.private), "public_key_files": [str(keys.public)]}
    store = {"url": str(tmp_path / "store"), "signing": asked}
    file.write_text(json.dumps({"run_dir": str(tmp_path), "model": {"path": str(tmp_path)}, "store": store}))
    assert command.main(["--all", "-c", str(file)]) == 1
    told = capsys.readouterr().out
    assert "version 1: not signed anew" in told and "version 2: signed by key" in told
    assert command.main(["2", "-c", str(file)]) == 0
