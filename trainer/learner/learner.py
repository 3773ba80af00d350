"""The torch learner: one model, one AdamW, on one device.

Weights, gradients and AdamW's moments are float32 always. `dtype: bfloat16` means autocast: matrix products run in
bfloat16, about 1.8 times as fast as float32 on two CPU cores with AMX. Weights held in bfloat16 would be as fast and
would not learn: near 0.1 their spacing is 5e-4, and an AdamW step moves a weight by about the learning rate.

Shapes: B rows, T places (right-padded), N trained tokens, D hidden, V vocabulary.
"""

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers.modeling_layers import GradientCheckpointingLayer

from infra.config import Correction, Packing, TrainerConfig
from infra.errors import StartError, StoreError
from infra.files import sync
from trainer.learner.attention import PIECEWISE, seen_in, windows
from trainer.learner.batching import Microbatch, Minibatch, Sample, Span, minibatches
from trainer.learner.logps import chunked_logps
from trainer.learner.loss_inputs import LossInputs, PolicyLoss
from trainer.learner.losses import policy_loss
from trainer.learner.update import StepMetrics, UpdateMetrics

WEIGHTS, OPTIMIZER, SCALARS = "weights.safetensors", "optimizer.safetensors", "scalars.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NOT_COPIED = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.index.json", "config.json", "manifest.json")
_PROBES = ((1, 2, 3, 4), (1, 2, 5, 6), (7, 8, 9, 10), (11, 12))
"""Two samples that begin alike, and two that do not."""
_PACKED_WITHIN = 1e-2
"""Nats. With SmolLM2-135M rounding gives 1e-5, and rows whose samples see each other 4."""


class Learner:
    """A `Policy` in this process. `base` is the Hugging Face folder that gives shape and tokenizer."""

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
        if self._config.recompute_activations:
            self._recompute(folder)
        self._check_head(folder)
        if self._config.packing is not Packing.ROWS:
            self._check_packing(folder)
        self._optimizer = self._fresh_optimizer()

    def _recompute(self, folder: Path) -> None:
        """Activation checkpointing. transformers does it in training mode alone, and dropout must stay off."""
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers or not self.model.supports_gradient_checkpointing:
            raise StartError(f"model {folder}: trainer.recompute_activations must be false for it, it cannot recompute")
        self.model.gradient_checkpointing_enable()
        for layer in layers:
            layer.training = True  # the layer's own mark; the modules inside stay in evaluation mode

    def _check_head(self, folder: Path) -> None:
        """Logits are computed where tokens train, by the output head alone; a model may do more (scale, soft-cap)."""
        ids_BT = torch.arange(4, device=self._config.device).unsqueeze(0) % self.model.config.vocab_size
        with torch.no_grad():
            whole_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            ours_BTV = self.model.get_output_embeddings()(self._hidden(ids_BT))
        if not torch.allclose(whole_BTV, ours_BTV, atol=1e-3, rtol=1e-3):
            raise StartError(f"model {folder}: its logits are more than its output head; the trainer cannot use it")

    def _check_packing(self, folder: Path) -> None:
        """A packed row must give what rows of their own give; asked in float32, where rounding hides nothing."""
        self.model.set_attn_implementation(PIECEWISE)
        windowed = windows(self.model.config)
        if windowed is not None:
            raise StartError(f"model {folder}: it has {windowed}; trainer.packing must be `rows` for it")
        packed_N, apart_N = (self._probe(microbatch_tokens) for microbatch_tokens in (12, 1))
        if not torch.allclose(packed_N, apart_N, atol=_PACKED_WITHIN):
            raise StartError(
                f"model {folder}: packed rows give other log-probabilities than rows of their own, by up to "
                f"{float((packed_N - apart_N).abs().max()):.3g} nats; trainer.packing must be `rows` for it"
            )

    def _probe(self, microbatch_tokens: int) -> torch.Tensor:
        """Log-probabilities of the probes' trained tokens, by token: with 12, the last stands in another's row."""
        num = self.model.config.vocab_size
        samples = [Sample(tuple(n % num for n in ids), (Span(1, len(ids), (), 1.0),)) for ids in _PROBES]
        ((*parts,),) = minibatches(samples, len(_PROBES), microbatch_tokens, seed=0)
        with torch.no_grad():
            logps_N = torch.cat([self._logps(part, is_mixed=False) for part in parts])
        return logps_N[np.concatenate([part.targets_N for part in parts]).argsort(kind="stable")]

    def _hidden(self, ids_BT: torch.Tensor, **seen: Any) -> torch.Tensor:
        """Last hidden states, BTD. Padding is on the right, so causal attention alone keeps it out of plain rows."""
        return self.model.base_model(input_ids=ids_BT, use_cache=False, **seen).last_hidden_state

    def _fresh_optimizer(self) -> Any:
        return torch.optim.AdamW(
            self.model.parameters(), lr=self._config.lr, weight_decay=self._config.weight_decay, fused=True
        )

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        """One AdamW step per minibatch."""
        began = [[self._as_began(microbatch) for microbatch in minibatch] for minibatch in minibatches]
        return UpdateMetrics.of([self._step(*pair) for pair in zip(minibatches, began, strict=True)])

    def _as_began(self, microbatch: Microbatch) -> torch.Tensor | None:
        """Log-probabilities before the first step, where the loss needs them.

        They are those of pi_old, and of stable: the loop begins every update there.
        """
        own = self._config.loss
        if own.correction is Correction.BYPASS and not own.kl_coefficient:
            return None
        with torch.no_grad():
            return self.logps(microbatch)

    def _step(self, minibatch: Minibatch, began: Sequence[torch.Tensor | None]) -> StepMetrics:
        """Gradients of all microbatches, then one step, unless loss or gradient is not finite."""
        self._optimizer.zero_grad(set_to_none=True)
        sums = _Sums()
        for microbatch, began_N in zip(minibatch, began, strict=True):
            part = self.loss(microbatch, minibatch, began_N)
            part.loss.backward()
            sums.add(part)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.max_grad_norm))
        is_finite = math.isfinite(norm) and math.isfinite(sums.loss)
        if is_finite:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return sums.metrics(grad_norm=norm, is_skipped=not is_finite)

    def loss(self, microbatch: Microbatch, minibatch: Minibatch, began_N: torch.Tensor | None = None) -> PolicyLoss:
        """The loss of one microbatch of a minibatch. `began_N` are its log-probabilities as the update began."""
        behaviour_N, advantages_N, turns_N = self._tensors(
            microbatch.logps_N, microbatch.advantages_N, microbatch.turns_N
        )
        inputs = LossInputs(
            logps_N=self.logps(microbatch),
            behaviour_logps_N=behaviour_N,
            advantages_N=advantages_N,
            turns_N=turns_N,
            num_tokens=sum(part.num_trained for part in minibatch),
            num_turns=sum(part.num_turns for part in minibatch),
            proximal_logps_N=began_N,
            stable_logps_N=began_N,
        )
        return policy_loss(inputs, self._config.loss)

    def logps(self, microbatch: Microbatch) -> torch.Tensor:
        """The log-probabilities of its trained tokens, N."""
        return self._logps(microbatch, is_mixed=self._config.dtype == "bfloat16")

    def _logps(self, microbatch: Microbatch, *, is_mixed: bool) -> torch.Tensor:
        ids_BT, sources_N, targets_N = self._tensors(
            microbatch.token_ids_BT, microbatch.sources_N, microbatch.targets_N
        )
        seen: dict[str, Any] = {}
        if not microbatch.is_causal:
            (until_T,), (positions_BT,) = microbatch.until_BT, self._tensors(microbatch.positions_BT)
            seen = {"position_ids": positions_BT, "seen": seen_in(until_T, self._config.device)}
        with torch.autocast(torch.device(self._config.device).type, dtype=torch.bfloat16, enabled=is_mixed):
            hidden_ND = self._hidden(ids_BT, **seen).flatten(0, 1)[sources_N]
            head = self.model.get_output_embeddings()
            return chunked_logps(head, hidden_ND, targets_N, self._config.logits_chunk_tokens)

    def _tensors(self, *arrays: NDArray[Any]) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self._config.device) for array in arrays]

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
                        self._optimizer.state[param] = {
                            "step": torch.tensor(float(steps[name]), device=param.device),
                            **state,
                        }
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
