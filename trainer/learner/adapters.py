"""LoRA (arXiv 2106.09685): weights stay as they were loaded, and beside each trains a product of two small matrices.

peft's layers; what a version is made of is merged, W + (alpha / rank) B A, and an engine loads it as any other.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from infra.config import LoraConfig
from infra.errors import StartError
from trainer.learner.ranks import whole

_ADAPTER = "default"
_SAMPLES = 16


def inject(model: Any, config: LoraConfig, seed: int) -> LoraConfig:
    """Put adapters beside the configured layers, the same ones for the same seed, and let nothing else train.

    Returns the configuration with the layers it has come to.

    Raises:
        StartError: the model has no such layers.
    """
    from peft import LoraConfig as PeftConfig  # seconds that only learners of adapters spend
    from peft import inject_adapter_in_model

    targets = list(config.targets) or _linear(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(
                PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, bias="none"), model, _ADAPTER
            )
        except ValueError as exc:
            raise StartError(f"trainer.lora.targets: {', '.join(targets)}: {exc}") from exc
    return config.model_copy(update={"targets": tuple(sorted(targets))})


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
    low, high = (whole(part[_ADAPTER].weight.detach()) for part in (module.lora_A, module.lora_B))
    return weight + module.scaling[_ADAPTER] * (high @ low)


def fingerprint(model: Any) -> str:
    """Of the weights that do not train, from a few numbers of each; empty where all train."""
    digest, is_empty = hashlib.sha256(), True
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            is_empty = False
            sample = parameter.detach().flatten()[:: max(1, parameter.numel() // _SAMPLES)]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
    return "" if is_empty else digest.hexdigest()
