"""A version that is a change of the weights of another, its base: LoRA adapters (arXiv 2106.09685), small to send.

In the store it is what peft writes, `adapter_config.json` and `adapter_model.safetensors`; weights have the names that
the base's files give them. Whoever fetches it gets the base's files, each changed weight W as

    W + (alpha / rank) B A      W (out, in), A (rank, in), B (out, rank)

summed in float64 and rounded once to W's own type: the same bits on every machine.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import StoreError

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _LOW, _HIGH = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_OTHER_FORMS = ("consolidated*", "*.bin", "*.pt", "*.pth", "*.gguf")
"""A base's weights once more, in forms that nothing is added to: vLLM begins with Mistral's `consolidated*` where one
is there."""
_OTHER_SUMS = (
    "alpha_pattern",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "rank_pattern",
    "use_dora",
    "use_rslora",
)
"""What else peft may set, and what is added is something else then."""


@dataclass(frozen=True)
class Adapter:
    """One layer's: `low` is A, `high` is B."""

    low: "torch.Tensor"
    high: "torch.Tensor"


def files(adapters: Mapping[str, Adapter], rank: int, alpha: float) -> dict[str, bytes]:
    """By file name, of adapters by the name of their weight in the base's files. The same ones, the same bytes."""
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    layers = [name.removesuffix(".weight") for name in adapters]
    for layer, adapter in zip(layers, adapters.values(), strict=True):
        tensors |= {f"{_PREFIX}{layer}{_LOW}": adapter.low, f"{_PREFIX}{layer}{_HIGH}": adapter.high}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,  # the manifest says
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted({layer.rsplit(".", 1)[-1] for layer in layers}),
        "bias": "none",
        "inference_mode": True,
    }
    return {CONFIG: json.dumps(config, indent=1).encode(), WEIGHTS: save(tensors, {"format": "pt"})}


def added(weight: "torch.Tensor", adapter: Adapter, scale: float) -> "torch.Tensor":
    """W + scale B A, of W's type."""
    return (weight.double() + scale * (adapter.high.double() @ adapter.low.double())).to(weight.dtype)


def merge(base: Sequence[Path], folder: Path, into: Path) -> None:
    """The files of a base to `into`, its weights changed by the adapters in `folder`; other forms of them are left out.

    Raises:
        StoreError: the adapters cannot be read, or are not of these weights.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file, save_file

    try:
        scale, adapters = _read(folder)
        left = set(adapters)
        for source in base:
            if any(source.match(form) for form in _OTHER_FORMS):
                continue
            changed = dict[str, Adapter]()
            if source.suffix == ".safetensors":
                with safe_open(source, framework="pt") as file:
                    changed = {name: adapters[name] for name in file.keys() if name in adapters}  # noqa: SIM118 - no mapping
                left -= changed.keys()
            if changed:
                tensors = load_file(source)
                for name, adapter in changed.items():
                    tensors[name] = added(tensors[name], adapter, scale)
                save_file(tensors, into / source.name, {"format": "pt"})
            else:
                shutil.copyfile(source, into / source.name)
    except (SafetensorError, OSError, ValueError, RuntimeError) as exc:
        raise StoreError(f"{folder}: not merged with its base: {exc}") from exc
    if left:
        raise StoreError(f"{folder}: not merged with its base, which has no weight {min(left)}")


def _require_plain(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f'{CONFIG}: expected "peft_type": "LORA", got {config!r:.200}')
    for name in _OTHER_SUMS:
        if config.get(name):
            raise ValueError(f"{CONFIG}: must be plain LoRA, without {name}, got {config[name]!r:.200}")


def _read(folder: Path) -> tuple[float, dict[str, Adapter]]:
    """What their products count, and adapters by the weight that they change."""
    from safetensors.torch import load_file

    config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _require_plain(config)
    try:
        scale = float(config["lora_alpha"]) / int(config["r"])
    except (TypeError, ValueError, KeyError, ArithmeticError) as exc:
        raise ValueError(f"{CONFIG}: expected numbers `r` and `lora_alpha`, got {config!r:.200}") from exc
    tensors = load_file(folder / WEIGHTS)
    found = {}
    for name in [name for name in tensors if name.endswith(_LOW)]:
        layer = name.removesuffix(_LOW)
        if (high := tensors.pop(f"{layer}{_HIGH}", None)) is None:
            raise ValueError(f"{WEIGHTS}: {name} is without its {_HIGH[1:7]}")
        found[f"{layer.removeprefix(_PREFIX)}.weight"] = Adapter(tensors.pop(name), high)
    if tensors:
        raise ValueError(f"{WEIGHTS}: {sorted(tensors)[0]} is no part of an adapter")
    return scale, found
