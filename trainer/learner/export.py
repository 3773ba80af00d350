"""A learner's weights as a version: the Hugging Face layout, in bfloat16, file by file; or its adapters alone.

Ranks gather one tensor at a time, and the first of them holds the tensors of one file: what no device holds, no node's
memory has to. The same weights give the same bytes, from any number of ranks.
"""

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_layers import GradientCheckpointingLayer

from infra.config import LoraConfig
from infra.storage import Folder
from ingest.store.adapters import Adapter, files
from ingest.store.signing import SIGNATURE
from ingest.store.versions import MANIFEST, MERGED
from trainer.learner.adapters import adapter_of, merged
from trainer.learner.ranks import Ranks

FILE_BYTES = 2 << 30
"""Of tensors in one file, but for a layer that is larger."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json")
_NOT_COPIED = (*_WEIGHTS, "config.json", MANIFEST, MERGED, SIGNATURE)


def export(model: Any, base: Path, folder: Folder, ranks: Ranks, file_bytes: int = FILE_BYTES) -> None:
    """Weights and configuration, with the base folder's tokenizer and other small files. All ranks take part.

    Raises:
        StoreError: the folder cannot be written.
    """
    files = _files(model, file_bytes)
    weight_map: dict[str, str] = {}
    num_bytes = 0
    for number, names in enumerate(files, 1):
        tensors = _gathered(model, names, ranks)
        with ranks.together(f"export to {folder.place}"):
            if ranks.rank == 0:
                tensors = revert_weight_conversion(model, tensors)  # names and shapes as the model's files have them
                file = f"model-{number:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else "model.safetensors"
                _write(folder, file, tensors)
                weight_map |= dict.fromkeys(tensors, file)
                num_bytes += sum(tensor.nbytes for tensor in tensors.values())
    with ranks.together(f"export to {folder.place}"):
        if ranks.rank == 0:
            if len(files) > 1:
                index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
                folder.write("model.safetensors.index.json", json.dumps(index, indent=2).encode())
            _write_small(model, base, folder)


def export_adapters(model: Any, stored: Mapping[str, str], lora: LoraConfig, folder: Folder, ranks: Ranks) -> None:
    """Adapters in peft's layout, in float32; `stored` is the name of each layer's weight in the base's files. All ranks
    take part.

    Raises:
        StoreError: the folder cannot be written.
    """
    found = {}
    for layer, name in stored.items():
        adapter = adapter_of(model.get_submodule(layer))
        if ranks.rank == 0:
            found[name] = Adapter(adapter.low.cpu().contiguous(), adapter.high.cpu().contiguous())
    with ranks.together(f"export to {folder.place}"):
        if ranks.rank == 0:
            for name, data in files(found, lora.rank, lora.alpha).items():
                folder.write(name, data)


def _files(model: Any, file_bytes: int) -> list[list[str]]:
    """Names of the tensors of each file; a layer's stand together, for what makes one tensor of several."""
    files: list[list[str]] = []
    held = 0
    for names in _units(model):
        num_bytes = sum(2 * model.get_parameter(name).numel() for name in names)
        if not files or held + num_bytes > file_bytes:
            files.append([])
            held = 0
        files[-1] += names
        held += num_bytes
    return files


def _units(model: Any) -> Iterator[list[str]]:
    layers = [f"{name}." for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    units: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():  # tied ones once, as files have them
        units.setdefault(next((layer for layer in layers if name.startswith(layer)), name), []).append(name)
    yield from units.values()


def _gathered(model: Any, names: list[str], ranks: Ranks) -> dict[str, torch.Tensor]:
    """Whole, merged and in bfloat16, on the CPU of the first rank; nothing on the others'."""
    tensors = {}
    for name, tensor in merged(model, names):
        if ranks.rank == 0:
            tensors[name] = tensor.to(torch.bfloat16).cpu().contiguous()
    return tensors


def _write(folder: Folder, file: str, tensors: dict[str, torch.Tensor]) -> None:
    with folder.writing(file) as path:
        save_file(tensors, path, {"format": "pt"})


def _write_small(model: Any, base: Path, folder: Folder) -> None:
    config = copy.deepcopy(model.config)
    config.dtype = torch.bfloat16
    config.architectures = [type(model).__name__.removeprefix("FSDP")]
    folder.write("config.json", config.to_json_string(use_diff=True).encode())
    if model.can_generate():
        folder.write("generation_config.json", model.generation_config.to_json_string(use_diff=True).encode())
    for source in sorted(base.iterdir()):
        if source.is_file() and not any(source.match(pattern) for pattern in _NOT_COPIED):
            with folder.writing(source.name) as path:
                shutil.copyfile(source, path)
