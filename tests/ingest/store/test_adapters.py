"""A version that changes another one's weights: small in the store, and whole wherever it is fetched."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.torch import load_file, save_file

from infra.errors import SignatureError, StoreError
from ingest.records.events import Version
from ingest.store import adapters
from ingest.store.adapters import Adapter
from ingest.store.signing import SIGNATURE, Signer
from ingest.store.versions import ADAPTER, MANIFEST, MERGED, VersionStore

Q, UP, HEAD = "model.layers.0.q_proj.weight", "model.layers.0.up_proj.weight", "lm_head.weight"
LOW, HIGH = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0], [-1.0]])  # B A: 1 2 3 over -1 -2 -3


class World:
    """A store with a whole version 0 of two files: `Q` in one, `UP` and `HEAD` in the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, VersionStore(str(folder / "store"))
        base = folder / "base"
        base.mkdir()
        save_file({Q: torch.full((2, 3), 0.5, dtype=torch.bfloat16)}, base / "model-1.safetensors")
        rest = {UP: torch.ones(2, 3), HEAD: torch.full((4, 2), 3.0)}
        save_file(rest, base / "model-2.safetensors", {"format": "pt"})
        for name in ("config.json", "tokenizer.json"):
            (base / name).write_text(f'{{"of": "{name}"}}')
        self.first = self.store.publish(0, base, None, {}, {}, 1.0)

    def publish(self, number: int, base: Version, changes: Mapping[str, Adapter] | None = None) -> Version:
        folder = self.folder / f"made-{number}"
        folder.mkdir()
        for name, data in adapters.files(changes or {Q: Adapter(LOW, HIGH)}, rank=1, alpha=2.0).items():
            (folder / name).write_bytes(data)
        return self.store.publish(number, folder, self.first, {}, {}, 2.0, base)

    def fetch(self, version: Version, cache: str = "cache") -> Path:
        return self.store.fetch(version, self.folder / cache)

    def lies(self, version: Version) -> Path:
        return self.folder / "store" / version.folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}


def test_what_lies_in_the_store_is_the_change_and_what_is_fetched_the_base_with_it(world: World) -> None:
    version = world.publish(1, world.first)
    assert [file.name for file in version.files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert (version.base, version.base_digest) == (0, world.first.digest)
    copy, base = world.fetch(version), world.fetch(world.first)
    found, held = weights(copy), weights(base)
    assert found[Q].tolist() == [[2.5, 4.5, 6.5], [-1.5, -3.5, -5.5]]  # 0.5 + 2 / 1 B A
    assert found[Q].dtype == torch.bfloat16
    assert all(torch.equal(found[name], held[name]) for name in (UP, HEAD))
    assert {path.name for path in copy.iterdir()} == {path.name for path in base.iterdir()} - {MANIFEST} | {
        ADAPTER, MERGED,
    }  # fmt: skip
    for name in ("config.json", "tokenizer.json", "model-2.safetensors"):
        assert (copy / name).read_bytes() == (base / name).read_bytes()


def test_a_whole_versions_manifest_is_what_the_releases_before_wrote_and_read(world: World) -> None:
    manifest = json.loads((world.lies(world.first) / MANIFEST).read_text())
    assert not [name for name in manifest if name.startswith("base")]


def test_a_change_may_be_of_a_change(world: World) -> None:
    first = world.publish(1, world.first)
    second = world.publish(2, first, {Q: Adapter(LOW, HIGH), UP: Adapter(LOW.clone(), HIGH.clone())})
    found = weights(world.fetch(second))
    assert found[Q].tolist() == [[4.5, 8.5, 12.5], [-3.5, -7.5, -11.5]]
    assert found[UP].tolist() == [[3.0, 5.0, 7.0], [-1.0, -3.0, -5.0]]


def test_a_weight_that_lies_in_two_files_of_the_base_is_changed_in_both(world: World) -> None:
    folder = world.folder / "base"
    save_file({Q: torch.full((2, 3), 0.5, dtype=torch.bfloat16)}, folder / "model-3.safetensors")
    base = world.store.publish(1, folder, world.first, {}, {}, 1.0)
    copy = world.fetch(world.publish(2, base))
    for name in ("model-1.safetensors", "model-3.safetensors"):
        assert load_file(copy / name)[Q].tolist() == [[2.5, 4.5, 6.5], [-1.5, -3.5, -5.5]]


@pytest.mark.parametrize("name", ["consolidated.safetensors", "consolidated.00.pth", "pytorch_model.bin"])
def test_weights_of_the_base_in_a_form_that_is_not_changed_are_in_no_copy_of_a_change(world: World, name: str) -> None:
    """vLLM loads `consolidated.safetensors` and nothing else where there is one."""
    save_file({"layers.0.attention.wq.weight": torch.ones(2, 3)}, world.folder / "base" / name)
    base = world.store.publish(1, world.folder / "base", world.first, {}, {}, 1.0)
    copy = world.fetch(world.publish(2, base))
    assert (world.fetch(base) / name).exists()
    assert not (copy / name).exists()
    assert world.fetch(world.store.read(2)) == copy


def test_the_same_change_of_another_base_is_another_version(world: World) -> None:
    first = world.publish(1, world.first)
    assert world.publish(2, first).digest != first.digest


def test_it_is_summed_in_more_than_the_weights_digits_and_rounded_once() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64).bfloat16()
    adapter = Adapter(torch.randn(16, 64), torch.randn(64, 16))
    exact = weight.double() + 0.3 * (adapter.high.double() @ adapter.low.double())
    assert torch.equal(adapters.added(weight, adapter, 0.3), exact.bfloat16())


def test_what_was_fetched_needs_no_store_and_to_be_verified_no_base(world: World) -> None:
    version, cache = world.publish(1, world.first), world.folder / "cache"
    copy = world.fetch(version)
    shutil.rmtree(world.folder / "store")
    store = VersionStore(str(world.folder / "store"), copies=cache)
    assert store.read(1) == version
    shutil.rmtree(cache / Path(world.first.folder).name)
    assert store.fetch(version, cache) == copy


def test_a_copys_own_files_put_back_into_a_lost_store_are_the_version(world: World) -> None:
    version = world.publish(1, world.first)
    copy = world.fetch(version)
    shutil.rmtree(world.lies(version))
    assert world.store.versions() == [0]
    shutil.copytree(copy / ADAPTER, world.lies(version))
    assert world.store.read(1) == version
    assert weights(world.fetch(version, "elsewhere"))[Q].tolist() == weights(copy)[Q].tolist()


@pytest.mark.parametrize("file", ["model-1.safetensors", MERGED, f"{ADAPTER}/adapter_model.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_copy_is_fetched_anew(world: World, file: str, damage: str) -> None:
    version = world.publish(1, world.first)
    path = world.fetch(version) / file
    whole = path.read_bytes()
    if damage == "flip":
        path.write_bytes(b"\x01" + path.read_bytes()[1:])
    else:
        path.unlink()
    world.fetch(version)
    assert path.read_bytes() == whole


def test_a_damaged_copy_of_a_base_is_fetched_anew_for_the_next_version_of_it(world: World) -> None:
    world.fetch(world.publish(1, world.first))
    path = world.folder / "cache" / Path(world.first.folder).name / "model-1.safetensors"
    whole = path.read_bytes()
    path.write_bytes(b"\x01" + whole[1:])
    shutil.rmtree(world.folder / "cache" / Path(world.store.read(1).folder).name)
    world.fetch(world.store.read(1))
    assert path.read_bytes() == whole


def test_a_version_is_there_while_what_it_changes_is(world: World) -> None:
    version = world.publish(1, world.first)
    assert (world.store.has(0), world.store.has(1), world.store.has(2)) == (True, True, False)
    shutil.rmtree(world.lies(world.first))
    assert not world.store.has(version.version)


def test_a_base_that_is_gone_is_named(world: World) -> None:
    version = world.publish(1, world.first)
    shutil.rmtree(world.lies(world.first))
    with pytest.raises(StoreError, match=r"version 1: its base, version 0: expected one manifest .* found 0"):
        world.fetch(version)


def test_a_base_that_was_exchanged_is_refused(world: World) -> None:
    version = world.publish(1, world.first)
    shutil.rmtree(world.lies(world.first))
    (world.folder / "base" / "config.json").write_text("{}")
    other = world.store.publish(0, world.folder / "base", None, {}, {}, 1.0)
    told = f"version 1: its base, version 0, must have digest {world.first.digest[:12]}, got {other.digest[:12]}"
    with pytest.raises(StoreError, match=told):
        world.fetch(version)


def test_a_base_that_was_exchanged_and_says_that_it_was_not_is_refused(world: World) -> None:
    version = world.publish(1, world.first)
    (world.folder / "base" / "config.json").write_text("{}")
    other = VersionStore(str(world.folder / "other")).publish(0, world.folder / "base", None, {}, {}, 1.0)
    lies = world.lies(world.first)
    (lies / "config.json").write_text("{}")
    (lies / MANIFEST).write_text(other.model_copy(update={"digest": world.first.digest}).model_dump_json())
    with pytest.raises(StoreError, match=rf"must have digest {world.first.digest[:12]}, got {other.digest[:12]}"):
        world.fetch(version)


@pytest.mark.parametrize("lies", ["base", "change"])
def test_a_flipped_byte_of_either_is_named_and_leaves_no_copy(world: World, lies: str) -> None:
    version = world.publish(1, world.first)
    folder = world.lies(world.first if lies == "base" else version)
    path = min(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(StoreError, match=rf"version {0 if lies == 'base' else 1}: {path.name} must have sha256"):
        world.fetch(version)
    assert not (world.folder / "cache" / Path(version.folder).name).exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.norm.weight": Adapter(LOW, HIGH)}, "which has no weight model.norm.weight"),
        ({Q: Adapter(torch.ones(1, 5), HIGH)}, "not merged with its base: The size of tensor a"),
        ({Q: Adapter(torch.ones(2, 3), HIGH)}, "not merged with its base: mat1 and mat2 shapes"),
    ],
)
def test_a_change_of_other_weights_is_refused_and_leaves_no_copy(
    world: World, changes: dict[str, Adapter], told: str
) -> None:
    version = world.publish(1, world.first, changes)
    with pytest.raises(StoreError, match=told):
        world.fetch(version)
    assert not (world.folder / "cache" / Path(version.folder).name).exists()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (
            "adapter_config.json",
            b'{"peft_type": "LORA", "r": 0, "lora_alpha": 2}',
            "expected numbers `r` and `lora_alpha`",
        ),
        (
            "adapter_config.json",
            b'{"peft_type": "LORA", "r": "all", "lora_alpha": 2}',
            "expected numbers `r` and `lora_alpha`",
        ),
        ("adapter_config.json", b"[1]", 'expected "peft_type": "LORA", got'),
        ("adapter_config.json", b'{"peft_type": "IA3"}', 'expected "peft_type": "LORA", got'),
        ("adapter_config.json", b"no json", "not merged with its base: Expecting value"),
        ("adapter_model.safetensors", b"no tensors", "not merged with its base: "),
    ],
)
def test_what_is_no_adapter_is_refused(world: World, name: str, data: bytes, told: str) -> None:
    folder = world.folder / "made"
    folder.mkdir()
    for own, held in adapters.files({Q: Adapter(LOW, HIGH)}, rank=1, alpha=2.0).items():
        (folder / own).write_bytes(data if own == name else held)
    version = world.store.publish(1, folder, world.first, {}, {}, 2.0, world.first)
    with pytest.raises(StoreError, match=told):
        world.fetch(version)


@pytest.mark.parametrize("option", ["use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"])
def test_adapters_that_are_added_by_another_rule_are_refused(world: World, option: str) -> None:
    folder = world.folder / "made"
    folder.mkdir()
    for own, held in adapters.files({Q: Adapter(LOW, HIGH)}, rank=1, alpha=2.0).items():
        (folder / own).write_bytes(held)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {option: {"q_proj": 4}}))
    version = world.store.publish(1, folder, world.first, {}, {}, 2.0, world.first)
    with pytest.raises(StoreError, match=rf"must be plain LoRA, without {option}, got \{{'q_proj': 4\}}"):
        world.fetch(version)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("lora_A.weight", r"lora_A\.weight is without its lora_B"),
        ("lora_B.weight", r"lora_B\.weight is no part of an adapter"),
        ("lora_magnitude_vector", "lora_magnitude_vector is no part of an adapter"),
    ],
)
def test_half_an_adapter_and_more_than_one_are_refused(world: World, left: str, told: str) -> None:
    folder = world.folder / "made"
    folder.mkdir()
    for own, held in adapters.files({Q: Adapter(LOW, HIGH)}, rank=1, alpha=2.0).items():
        (folder / own).write_bytes(held)
    save_file({f"base_model.model.{Q.removesuffix('.weight')}.{left}": LOW}, folder / "adapter_model.safetensors")
    version = world.store.publish(1, folder, world.first, {}, {}, 2.0, world.first)
    with pytest.raises(StoreError, match=told):
        world.fetch(version)


def test_where_a_signature_is_required_the_base_needs_one_too(world: World) -> None:
    world.store = VersionStore(
        str(world.folder / "store"), signer=Signer(ec.generate_private_key(ec.SECP256R1())), is_required=True
    )
    version = world.publish(1, world.first)
    assert (world.lies(version) / SIGNATURE).exists()
    with pytest.raises(SignatureError, match=r"version 1: its base, version 0.* is not signed"):
        world.fetch(version)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"base": 1, "base_digest": "a" * 64}, "came before it, got 1"), ({"base": 0}, "a base has a digest")],
)
def test_a_base_that_cannot_be_is_no_manifest(world: World, fields: dict[str, object], told: str) -> None:
    version = world.publish(1, world.first)
    path = world.lies(version) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_digest": None} | fields))
    with pytest.raises(StoreError, match=told):
        world.store.read(1)
