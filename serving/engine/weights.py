"""The weight loader inside vLLM: a weight-transfer backend that reads a verified folder of safetensors.

vLLM finds it through the entry point `vllm.general_plugins`. It runs in the engine's worker process while generation
is paused; the folder was fetched and verified before the pause by `serving.engine.cache`, so its pages are in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "onstream"


@dataclass
class NoInit(WeightTransferInitInfo):  # type: ignore[misc]
    """There is no peer to meet."""


@dataclass
class FolderUpdate(WeightTransferUpdateInfo):  # type: ignore[misc]
    """`folder` holds a version's `*.safetensors`."""

    folder: str


class FolderWeights(WeightTransferEngine[NoInit, FolderUpdate]):  # type: ignore[misc]
    """Loads a version from a local folder, layer by layer, in place."""

    init_info_cls = NoInit
    update_info_cls = FolderUpdate

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to connect to."""

    def start_weight_update(self) -> None:
        # asked before the reload takes parameters apart: a tied head is one parameter with the embedding here only
        self._expected = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """As the base class, which synchronises an accelerator even where there is none.

        A failure leaves layers of two versions mixed, ready for the next whole load.
        """
        try:
            self.receive_weights(self.parse_update_info(update_info))
        except BaseException:  # whatever it was, the reload must be closed before the next can begin
            self.finish_weight_update()
            raise
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: FolderUpdate) -> None:
        """Load every tensor of the folder.

        Raises:
            ValueError: a parameter of the model is not in the folder.
        """
        loaded = self.model.load_weights(_tensors(Path(update_info.folder)))
        missing = self._expected - set(loaded or ())
        if missing:
            raise ValueError(f"{update_info.folder}: no weights for {sorted(missing)[:3]} ({len(missing)} parameters)")

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        # A tied head has no weights of its own in the folder, so the reload passes it by; on CPU its matrix product
        # runs on a packed copy, which would go on answering with the old weights.
        for layer in self.model.modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Nothing is held."""


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                yield name, file.get_tensor(name)


def register() -> None:
    """vLLM's plugin hook, called once in each of its processes."""
    WeightTransferEngineFactory.register_engine(BACKEND, FolderWeights)
