import json
import random
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from infra.config import LoraConfig, TrainerConfig
from infra.errors import StartError, StoreError
from ingest.store.signing import SIGNATURE
from ingest.store.versions import MANIFEST, MERGED, VersionStore
from trainer.learner.batching import Sample, Span, minibatches
from trainer.learner.learner import Learner

BATCH = minibatches(
    [Sample((5, 6, 7, 8), (Span(2, 4, (-5.0, -5.0), 1.0),)), Sample((9, 3, 4), (Span(1, 3, (-5.0, -4.0), -1.0),))],
    8, 64, seed=0,
)  # fmt: skip


@pytest.fixture
def config(learner_config: TrainerConfig) -> TrainerConfig:
    return learner_config.model_copy(update={"lora": LoraConfig(rank=4, alpha=8.0)})


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])).logits


def test_adapters_begin_as_nothing_and_then_train_alone(tiny_model: Path, config: TrainerConfig) -> None:
    learner = Learner(tiny_model, config)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert torch.equal(logits(learner.model), logits(plain))
    before = {name: param.clone() for name, param in learner.model.named_parameters()}
    learner.update(BATCH)
    moved = {name for name, param in learner.model.named_parameters() if not torch.equal(param, before[name])}
    assert moved == {name for name in before if ".lora_" in name and "_B." in name}  # A moves once B is not 0
    assert not torch.equal(logits(learner.model), logits(plain))


def test_what_is_exported_whole_is_merged_and_gives_what_the_learner_gives(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    learner = Learner(tiny_model, config)
    learner.update(BATCH * 3)
    learner.export(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert set(dict(loaded.named_parameters())) == {
        name for name, _ in transformers.AutoModelForCausalLM.from_pretrained(tiny_model).named_parameters()
    }
    assert float((logits(loaded) - logits(learner.model)).abs().max()) < 0.1  # bfloat16
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert float((logits(loaded) - logits(plain)).abs().max()) > 0.5


class Versions:
    """Version 0, and version 1 as a learner of its adapters leaves it."""

    def __init__(self, folder: Path, base: Path, learner: Learner) -> None:
        self.store, self.folder = VersionStore(str(folder / "store")), folder
        self.first = self.store.publish(0, base, None, {}, {}, 0.0)
        learner.export_adapters(folder / "adapters")
        self.second = self.store.publish(1, folder / "adapters", self.first, {}, {}, 0.0, self.first)

    def fetch(self) -> Path:
        return self.store.fetch(self.second, self.folder / "cache")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: held for path in folder.glob("*.safetensors") for name, held in load_file(path).items()}


@pytest.fixture
def filed(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as versions are filed, in bfloat16 and several files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "filed", max_shard_size=20_000)
    return tmp_path / "filed"


def test_a_version_is_the_adapters_alone_and_is_fetched_to_the_bit_as_the_learner_would_export_it_whole(
    filed: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    learner = Learner(filed, config)
    learner.update(BATCH * 3)
    learner.export(tmp_path / "whole")
    versions = Versions(tmp_path, filed, learner)
    found, expected = tensors(versions.fetch()), tensors(tmp_path / "whole")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    changed = {name for name, held in tensors(filed).items() if not torch.equal(held, found[name])}
    assert changed == {name for name in found if "_proj." in name}
    assert {file.name for file in versions.second.files} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_version_of_adapters_is_what_peft_loads_over_its_base(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    from peft import PeftModel

    learner = Learner(tiny_model, config)
    learner.update(BATCH * 3)
    learner.export_adapters(tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path)), logits(learner.model))


def test_what_the_store_wrote_into_a_copy_is_no_part_of_a_model_that_began_there(
    filed: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    """`merged.json` and `model.sig` are of other files."""
    copy = Versions(tmp_path, filed, Learner(filed, config)).fetch()
    (copy / SIGNATURE).write_text("{}")
    Learner(copy, config).export(tmp_path / "made")
    made = {path.name for path in (tmp_path / "made").iterdir()}
    assert "config.json" in made
    assert not made & {MANIFEST, MERGED, SIGNATURE}


def test_a_learner_goes_on_from_a_version_of_adapters_as_from_a_whole_one(
    filed: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    learner = Learner(filed, config)
    learner.update(BATCH)
    learner.export(tmp_path / "whole")
    first, second = (Learner(filed, config) for _ in range(2))
    first.load(tmp_path / "whole")
    second.load(Versions(tmp_path, filed, learner).fetch())
    assert torch.equal(logits(first.model), logits(second.model))


def test_a_checkpoint_holds_the_adapters_alone_and_goes_on_over_the_same_weights_only(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    learner = Learner(tiny_model, config)
    learner.update(BATCH)
    learner.save(tmp_path / "kept")
    with safe_open(tmp_path / "kept" / "part-00000-of-00001.safetensors", "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118 - no mapping
    again = Learner(tiny_model, config)
    again.restore(tmp_path / "kept")
    for one in (learner, again):
        one.update(BATCH)
    assert torch.equal(logits(learner.model), logits(again.model))
    learner.export(tmp_path / "other")
    again.load(tmp_path / "other")
    with pytest.raises(StoreError, match="trained on other weights than are loaded"):
        again.restore(tmp_path / "kept")


@pytest.mark.parametrize(
    ("kept", "given", "told"),
    [
        (LoraConfig(rank=4, alpha=8.0), LoraConfig(rank=4, alpha=16.0), "lora.alpha: .* with 8.0, configured is 16.0"),
        (LoraConfig(rank=4, alpha=8.0), LoraConfig(rank=8, alpha=8.0), "lora.rank: .* with 4, configured is 8"),
        (
            LoraConfig(targets=("q_proj", "v_proj")),
            LoraConfig(targets=("v_proj",)),
            r'lora.targets: .* with \["q_proj", "v_proj"\], configured is \["v_proj"\]',
        ),
        (LoraConfig(rank=4, alpha=8.0), None, r'lora: .* with {"rank": 4, .*}, configured is null'),
        (None, LoraConfig(rank=4, alpha=8.0), r'lora: .* with null, configured is {"rank": 4, .*}'),
    ],
)
def test_a_checkpoint_is_not_taken_by_another_configuration_of_adapters_which_the_error_names(
    tiny_model: Path,
    config: TrainerConfig,
    tmp_path: Path,
    kept: LoraConfig | None,
    given: LoraConfig | None,
    told: str,
) -> None:
    Learner(tiny_model, config.model_copy(update={"lora": kept})).save(tmp_path)
    learner = Learner(tiny_model, config.model_copy(update={"lora": given}))
    with pytest.raises(StartError, match=rf"trainer\.{told}; set it back, or .* an empty trainer\.checkpoint_dir"):
        learner.restore(tmp_path)


def test_all_layers_by_default_and_by_name_are_the_same_adapters(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    Learner(tiny_model, config).save(tmp_path)
    names = ("v_proj", "q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    Learner(tiny_model, config.model_copy(update={"lora": LoraConfig(rank=4, alpha=8.0, targets=names)})).restore(
        tmp_path
    )


def as_written_before(folder: Path) -> None:
    """A part without `lora` in its header."""
    (path,) = folder.iterdir()
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    del about["lora"]
    save_file(load_file(path), path, {"about": json.dumps(about)})


def test_a_checkpoint_of_before_that_does_not_say_its_rank_is_read_where_it_fits(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    learner = Learner(tiny_model, config)
    learner.update(BATCH)
    learner.save(tmp_path)
    as_written_before(tmp_path)
    again = Learner(tiny_model, config)
    again.restore(tmp_path)
    assert torch.equal(logits(learner.model), logits(again.model))
    with pytest.raises(StartError, match=r'trainer\.lora: .* with "adapters", configured is null'):
        Learner(tiny_model, config.model_copy(update={"lora": None})).restore(tmp_path)


def test_the_same_seed_begins_with_the_same_adapters(tiny_model: Path, config: TrainerConfig) -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(random.randrange(1000))
        found.append(dict(Learner(tiny_model, config.model_copy(update={"seed": seed})).model.named_parameters()))
    name = next(name for name in found[0] if ".lora_A." in name)
    assert torch.equal(found[0][name], found[1][name]) and not torch.equal(found[0][name], found[2][name])


def test_layers_that_a_model_does_not_have_are_refused(tiny_model: Path, config: TrainerConfig) -> None:
    wrong = config.model_copy(update={"lora": LoraConfig(targets=("no_such",))})
    with pytest.raises(StartError, match=r"trainer\.lora\.targets: no_such"):
        Learner(tiny_model, wrong)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_layer_whose_change_no_version_could_say_is_refused_at_the_start(
    tiny_model: Path, config: TrainerConfig, target: str
) -> None:
    """The head has the embedding's weight, and an embedding is no linear layer."""
    wrong = config.model_copy(update={"lora": LoraConfig(targets=("q_proj", target))})
    told = rf"trainer\.lora\.targets: (model\.)?{target}: it is no linear layer with a weight of its own"
    with pytest.raises(StartError, match=told):
        Learner(tiny_model, wrong)


def test_a_layer_that_files_have_in_another_form_is_refused_at_the_start(
    tiny_model: Path, config: TrainerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As experts, whose files have one weight for each."""

    def as_filed(_: object, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: weight.T if "down_proj" in name else weight for name, weight in weights.items()}

    monkeypatch.setattr("trainer.learner.adapters.revert_weight_conversion", as_filed)
    told = r"model\.layers\.0\.mlp\.down_proj: the model's files have its weight in another form"
    with pytest.raises(StartError, match=told):
        Learner(tiny_model, config)


def test_layers_whose_weights_files_name_otherwise_are_refused_at_the_start(
    tiny_model: Path, config: TrainerConfig, tmp_path: Path
) -> None:
    """As the files of a model without its head do, which transformers loads: no engine could add to them."""
    folder = shutil.copytree(tiny_model, tmp_path / "headless")
    named = {name.removeprefix("model."): weight for name, weight in tensors(folder).items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    told = (
        r"model\.layers\.0\.self_attn\.q_proj: the model's files have its weight in another form or under another name"
    )
    with pytest.raises(StartError, match=told):
        Learner(folder, config)


def test_adapters_train_alike_where_activations_are_computed_again(tiny_model: Path, config: TrainerConfig) -> None:
    found = []
    for recompute in (False, True):
        learner = Learner(tiny_model, config.model_copy(update={"recompute_activations": recompute}))
        learner.update(BATCH * 2)
        found.append(logits(learner.model))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert float((found[0] - found[1]).abs().max()) < 1e-3 < float((found[0] - logits(plain)).abs().max())
