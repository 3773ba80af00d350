"""The torch learner: one model, one AdamW, on one device.

Weights, gradients and AdamW's moments are float32 always. `dtype: bfloat16` means autocast: matrix products run in
bfloat16, about 1.8 times as fast as float32 on two CPU cores with AMX. Weights held in bfloat16 would be as fast and
would not learn: near 0.1 their spacing is 5e-4, and an AdamW step moves a weight by about the learning rate.

Shapes: B sequences, T positions (right-padded), N trained tokens, D hidden, V vocabulary.
"""

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from infra.config import TrainerConfig
from infra.errors import StartError, StoreError
from infra.files import sync
from trainer.batching import Microbatch, Minibatch
from trainer.losses import PolicyLoss, policy_loss, token_logps
from trainer.update import StepMetrics, UpdateMetrics

WEIGHTS, OPTIMIZER, SCALARS = "weights.safetensors", "optimizer.safetensors", "scalars.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NOT_COPIED = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json", "config.json", "manifest.json")


class Learner:
    """A `trainer.update.Policy` in this process. `base` is the Hugging Face folder that gives shape and tokenizer."""

    def __init__(self, base: Path, config: TrainerConfig) -> None:
        torch.set_num_threads(config.threads)
        transformers.utils.logging.disable_progress_bar()
        self._base, self._config = base, config
        self.load(base)

    def load(self, folder: Path) -> None:
        """Take the weights of a Hugging Face folder, with a fresh optimiser.

        Raises:
            StartError: the folder holds no model that transformers can load, or one this learner cannot train.
        """
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError) as exc:
            raise StartError(f"model {folder}: not loadable by transformers: {exc}") from exc
        self.model = model.to(self._config.device).eval()  # eval: dropout would break r = pi_theta / mu
        self._check_head(folder)
        self._optimizer = self._fresh_optimizer()

    def _check_head(self, folder: Path) -> None:
        """Logits are computed where tokens train, by the output head alone; a model may do more (scale, soft-cap)."""
        ids_BT = torch.arange(4, device=self._config.device).unsqueeze(0) % self.model.config.vocab_size
        with torch.no_grad():
            whole_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            ours_BTV = self.model.get_output_embeddings()(self._hidden(ids_BT))
        if not torch.allclose(whole_BTV, ours_BTV, atol=1e-3, rtol=1e-3):
            raise StartError(f"model {folder}: its logits are more than its output head; the trainer cannot use it")

    def _hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Last hidden states, BTD. Padding is on the right, so causal attention alone keeps it out."""
        return self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state

    def _fresh_optimizer(self) -> Any:
        return torch.optim.AdamW(self.model.parameters(), lr=self._config.lr, weight_decay=self._config.weight_decay)

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        """One AdamW step per minibatch."""
        return UpdateMetrics.of([self._step(minibatch) for minibatch in minibatches])

    def _step(self, minibatch: Minibatch) -> StepMetrics:
        """Gradients of all microbatches, then one step, unless loss or gradient is not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        num_tokens = sum(microbatch.num_trained for microbatch in minibatch)
        sums = _Sums()
        for microbatch in minibatch:
            part = self.loss(microbatch, num_tokens)
            part.loss.backward()
            sums.add(part)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.max_grad_norm))
        is_finite = math.isfinite(norm) and math.isfinite(sums.loss)
        if is_finite:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return sums.metrics(grad_norm=norm, is_skipped=not is_finite)

    def loss(self, microbatch: Microbatch, num_tokens: int) -> PolicyLoss:
        """The loss of one microbatch, normalised by its minibatch's trained tokens."""
        ids_BT, mask_BT, logps_BT, advantages_BT = (
            torch.from_numpy(array).to(self._config.device)
            for array in (
                microbatch.token_ids_BT,
                microbatch.mask_BT,
                microbatch.logps_BT,
                microbatch.advantages_BT,
            )
        )
        is_mixed = self._config.dtype == "bfloat16"
        with torch.autocast(torch.device(self._config.device).type, dtype=torch.bfloat16, enabled=is_mixed):
            hidden_ND = self._hidden(ids_BT)[:, :-1][mask_BT[:, 1:]]
            logits_NV = self.model.get_output_embeddings()(hidden_ND)
        return policy_loss(
            token_logps(logits_NV, ids_BT[mask_BT]),
            logps_BT[mask_BT],
            advantages_BT[mask_BT],
            num_tokens=num_tokens,
            clip_low=self._config.clip_low,
            clip_high=self._config.clip_high,
            max_importance_weight=self._config.max_importance_weight,
        )

    def save(self, folder: Path) -> None:
        """Weights, AdamW's moments and its step counts; no pickle."""
        named = dict(self.model.named_parameters())
        states = {name: self._optimizer.state[param] for name, param in named.items()}
        states = {name: state for name, state in states.items() if state}
        moments = {f"{moment}.{name}": state[moment] for name, state in states.items() for moment in _MOMENTS}
        save_file({name: param.detach().contiguous() for name, param in named.items()}, folder / WEIGHTS)
        save_file(moments, folder / OPTIMIZER)
        steps = {name: int(state["step"]) for name, state in states.items()}
        (folder / SCALARS).write_text(json.dumps({"steps": steps}))
        for name in (WEIGHTS, OPTIMIZER, SCALARS):
            sync(folder / name)

    def restore(self, folder: Path) -> None:
        """Take what `save` wrote.

        Raises:
            StoreError: a file is missing or does not fit the model.
        """
        try:
            weights, moments = (load_file(folder / name, self._config.device) for name in (WEIGHTS, OPTIMIZER))
            steps = json.loads((folder / SCALARS).read_text())["steps"]
            self._optimizer = self._fresh_optimizer()
            with torch.no_grad():
                for name, param in self.model.named_parameters():
                    param.copy_(weights[name])
                    if name in steps:
                        state = {moment: moments[f"{moment}.{name}"].clone() for moment in _MOMENTS}
                        self._optimizer.state[param] = {"step": torch.tensor(float(steps[name])), **state}
        except (OSError, KeyError, ValueError, RuntimeError) as exc:
            raise StoreError(f"learner state {folder}: not readable for this model: {exc}") from exc

    def export(self, folder: Path) -> None:
        """bfloat16 safetensors and configuration, with the base folder's tokenizer and other small files."""
        folder.mkdir(parents=True, exist_ok=True)
        copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(folder)
        for source in sorted(self._base.iterdir()):
            if source.is_file() and not any(source.match(pattern) for pattern in _NOT_COPIED):
                shutil.copyfile(source, folder / source.name)


@dataclass
class _Sums:
    """Sums over the microbatches of a minibatch."""

    loss: float = 0.0
    num_tokens: int = 0
    num_clipped: float = 0.0
    ratio: float = 0.0
    ratio_squared: float = 0.0
    kl: float = 0.0

    def add(self, part: PolicyLoss) -> None:
        self.loss += float(part.loss.detach())
        self.num_tokens += part.num_tokens
        self.num_clipped += float(part.num_clipped)
        self.ratio += float(part.sum_ratio)
        self.ratio_squared += float(part.sum_ratio_squared)
        self.kl += float(part.sum_kl)

    def metrics(self, grad_norm: float, is_skipped: bool) -> StepMetrics:
        num = self.num_tokens
        return StepMetrics(
            is_skipped=is_skipped,
            loss=self.loss,
            grad_norm=grad_norm,
            kl=self.kl / num,
            mean_ratio=self.ratio / num,
            ess=self.ratio**2 / (num * self.ratio_squared),
            clip_fraction=self.num_clipped / num,
            num_tokens=num,
        )
