"""Our side: the product's `Learner`, and the layout of the batch with it."""

from pathlib import Path

import cases
import torch
from told import Told

from infra.config import Correction, LossConfig, Packing, TrainerConfig
from trainer.learner.batching import Minibatch, minibatches
from trainer.learner.learner import Learner

TOKENS = {"cpu": (TrainerConfig().microbatch_tokens,), "cuda": (16_384, 32_768)}
"""Tokens of a microbatch that are tried, by device."""
LOGITS = {"cpu": TrainerConfig().logits_chunk_tokens, "cuda": 2048}


class Ours:
    def __init__(self, model: Path, batch: Path, told: Told) -> None:
        self.take(batch)
        self._config = TrainerConfig(
            lr=told.lr,
            dtype="bfloat16" if told.is_mixed else "float32",
            device=told.device,
            threads=told.threads,
            recompute_activations=told.recompute,
            logits_chunk_tokens=LOGITS[told.device],
            packing=Packing.SHARED,
            loss=LossConfig(correction=Correction.BYPASS),
        )
        self._learner = Learner(model, self._config)

    def take(self, batch: Path) -> None:
        self._samples = cases.load(batch)

    def choices(self) -> list[int]:
        return list(TOKENS[self._config.device])

    def step(self, microbatch_tokens: int) -> float:
        """One optimiser step, its loss."""
        return self._learner.update(self._parts(microbatch_tokens)).loss

    def gradients(self, microbatch_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
        ((*parts,),) = self._parts(microbatch_tokens)
        total = 0.0
        for part in parts:
            loss = self._learner.loss(part, parts).loss
            loss.backward()
            total += float(loss.detach())
        return total, {name: param.grad for name, param in self._learner.model.named_parameters()}

    def _parts(self, microbatch_tokens: int) -> tuple[Minibatch, ...]:
        num_turns = len(cases.rows(self._samples))
        return minibatches(self._samples, num_turns, microbatch_tokens, seed=0, packing=self._config.packing)
