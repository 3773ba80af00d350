import json
import random
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from infra.config import LoraConfig, TrainerConfig
from infra.errors import StartError, StoreError
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


def test_a_version_is_merged_and_gives_what_the_learner_gives(
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


def test_adapters_train_alike_where_activations_are_computed_again(tiny_model: Path, config: TrainerConfig) -> None:
    found = []
    for recompute in (False, True):
        learner = Learner(tiny_model, config.model_copy(update={"recompute_activations": recompute}))
        learner.update(BATCH * 2)
        found.append(logits(learner.model))
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert float((found[0] - found[1]).abs().max()) < 1e-3 < float((found[0] - logits(plain)).abs().max())
