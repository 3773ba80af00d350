"""LoRA (arXiv 2106.09685): weights stay as they were loaded, and beside each trains a product of two small matrices.

peft's layers; a version is the adapters alone, which whoever loads it adds to its base (`ingest.store.adapters`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.core_model_loading import revert_weight_conversion

from infra.config import LoraConfig
from infra.errors import StartError
from ingest.store.adapters import Adapter, added
from trainer.learner.ranks import whole

_ADAPTER = "default"
_SAMPLES = 16
_REFUSED = "trainer.lora.targets: {}: {}, and no version could say its change"


def inject(model: Any, folder: Path, config: LoraConfig, seed: int) -> tuple[LoraConfig, dict[str, str]]:
    """Put adapters beside the configured layers, the same ones for the same seed, and let nothing else train.
    The model was loaded from `folder`.

    Returns the configuration with the layers it has come to, and by layer the name of its weight in the model's files.

    Raises:
        StartError: the model has no such layers, or one that cannot be a version's.
    """
    from peft import LoraConfig as PeftConfig  # seconds that only learners of adapters spend
    from peft import inject_adapter_in_model

    targets = list(config.targets) or _linear(model)
    stored = _stored(model, folder, targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(
                PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, bias="none"), model, _ADAPTER
            )
        except ValueError as exc:
            raise StartError(f"trainer.lora.targets: {', '.join(targets)}: {exc}") from exc
    return config.model_copy(update={"targets": tuple(sorted(targets))}), stored


def _stored(model: Any, folder: Path, targets: Sequence[str]) -> dict[str, str]:
    """By the name of each of those layers, that of its weight in the model's files. Raises `StartError`."""
    named = model.named_modules()
    found = {layer: one for layer, one in named if any(f".{layer}".endswith(f".{target}") for target in targets)}
    tied = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for layer, module in found.items():
        if not isinstance(module, torch.nn.Linear) or id(module.weight) in tied:
            raise StartError(_REFUSED.format(layer, "it is no linear layer with a weight of its own"))
    filed = revert_weight_conversion(model, {f"{layer}.weight": one.weight.detach() for layer, one in found.items()})
    held = _held(folder)
    names = {_place(weight): name for name, weight in filed.items() if name in held}
    stored = dict[str, str]()
    for layer, module in found.items():
        name = names.get(_place(module.weight))
        if name is None:
            raise StartError(
                _REFUSED.format(layer, "the model's files have its weight in another form or under another name")
            )
        stored[layer] = name
    return stored


def _held(folder: Path) -> frozenset[str]:
    """The names of the weights in a folder's files."""
    found = set[str]()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update(file.keys())
    return frozenset(found)


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    """Equal for what is the same memory in the same shape."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _linear(model: Any) -> list[str]:
    """The last names of all linear layers but the head."""
    head = model.get_output_embeddings()
    found = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module != head)
    return sorted({name.rsplit(".", 1)[-1] for name in found})


def merged(model: Any, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """The named parameters, whole, under the names they have without adapters, which are added to them."""
    for name in names:
        module = model.get_submodule(name.rsplit(".", 2)[0]) if ".base_layer." in name else None
        if module is not None:
            yield name.replace(".base_layer.", "."), _sum(module, name)
        elif ".lora_A." not in name and ".lora_B." not in name:
            yield name, whole(model.get_parameter(name).detach())


def _sum(module: Any, name: str) -> torch.Tensor:
    weight = whole(module.get_base_layer().get_parameter(name.rsplit(".", 1)[1]).detach())
    if not name.endswith(".weight"):
        return weight
    return added(weight, adapter_of(module), module.scaling[_ADAPTER])


def adapter_of(module: Any) -> Adapter:
    """A layer's, whole. All ranks take part."""
    return Adapter(*(whole(part[_ADAPTER].weight.detach()) for part in (module.lora_A, module.lora_B)))


def fingerprint(model: Any) -> str:
    """Of the weights that do not train, from a few numbers of each; empty where all train."""
    digest, is_empty = hashlib.sha256(), True
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            is_empty = False
            sample = parameter.detach().flatten()[:: max(1, parameter.numel() // _SAMPLES)]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
    return "" if is_empty else digest.hexdigest()
