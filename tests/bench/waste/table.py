"""A tiny real learner: a table of logits, the product's loss, Adam."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from task import ANSWERS, QUESTIONS

from infra.config import TrainerConfig
from trainer.learner.batching import Microbatch, Minibatch
from trainer.learner.loss_inputs import LossInputs
from trainer.learner.losses import policy_loss
from trainer.learner.update import StepMetrics, UpdateMetrics

MODEL, STATE = "model.safetensors", "state.safetensors"
_DECAY, _DECAY_SQUARED, _EPS = 0.9, 0.999, 1e-8


class Table:
    """A `Policy`: an answer's token is QUESTIONS and its number, and the token before it is the question."""

    def __init__(self, config: TrainerConfig) -> None:
        torch.set_num_threads(1)
        self._config = config
        self._stable: torch.Tensor | None = None
        self._start(torch.zeros(QUESTIONS, ANSWERS))

    def _start(self, logits: torch.Tensor) -> None:
        self.logits = logits.clone().requires_grad_()
        self._moment, self._moment_squared = torch.zeros_like(logits), torch.zeros_like(logits)
        self._num_steps = torch.zeros(1)

    def load(self, folder: Path) -> None:
        self._start(load_file(folder / MODEL)["logits"])

    def restore(self, folder: Path) -> None:
        held = load_file(folder / STATE)
        self._start(held["logits"])
        self._moment, self._moment_squared, self._num_steps = held["moment"], held["squared"], held["steps"]

    def save(self, folder: Path) -> None:
        moments = {"moment": self._moment, "squared": self._moment_squared, "steps": self._num_steps}
        save_file({"logits": self.logits.detach(), **moments}, folder / STATE)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file({"logits": self.logits.detach()}, folder / MODEL)
        (folder / "config.json").write_text("{}")

    def anchor(self, folder: Path | None) -> None:
        self._stable = self.logits.detach().clone() if folder is None else load_file(folder / STATE)["logits"]

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        began = [[self._logps(part).detach() for part in minibatch] for minibatch in minibatches]
        steps = [self._step(*of) for of in zip(minibatches, began, strict=True)]
        return UpdateMetrics.of(steps, self._stable_kl())

    def _stable_kl(self) -> float | None:
        """KL(stable || table), over the questions, which are asked alike."""
        if self._stable is None:
            return None
        stable, own = self._stable.log_softmax(1), self.logits.detach().log_softmax(1)
        return float((stable.exp() * (stable - own)).sum(1).mean())

    def _step(self, minibatch: Minibatch, began: Sequence[torch.Tensor]) -> StepMetrics:
        inputs = [self._inputs(part, minibatch, began_N) for part, began_N in zip(minibatch, began, strict=True)]
        parts = [policy_loss(one, self._config.loss) for one in inputs]
        loss = torch.stack([part.loss for part in parts]).sum()
        (gradient,) = torch.autograd.grad(loss, self.logits)
        self._adam(gradient)
        num = sum(part.num_trained for part in minibatch)
        ratio, squared, kl = (
            sum(float(getattr(part, name)) for part in parts) for name in ("sum_ratio", "sum_ratio_squared", "sum_kl")
        )
        return StepMetrics(
            is_skipped=False,
            loss=float(loss.detach()),
            grad_norm=float(gradient.norm()),
            kl=kl / num,
            mean_ratio=ratio / num,
            ess=ratio**2 / (num * squared),
            clip_fraction=sum(float(part.num_clipped) for part in parts) / num,
            num_tokens=num,
        )

    def _logps(self, part: Microbatch) -> torch.Tensor:
        questions = torch.from_numpy(part.token_ids_BT.reshape(-1)[part.sources_N])
        logps = self.logits[questions].log_softmax(1)
        return logps.gather(1, torch.from_numpy(part.targets_N - QUESTIONS)[:, None]).squeeze(1)

    def _inputs(self, part: Microbatch, minibatch: Minibatch, began_N: torch.Tensor) -> LossInputs:
        return LossInputs(
            logps_N=self._logps(part),
            behaviour_logps_N=torch.from_numpy(part.logps_N),
            advantages_N=torch.from_numpy(part.advantages_N),
            turns_N=torch.from_numpy(part.turns_N),
            num_tokens=sum(one.num_trained for one in minibatch),
            num_turns=sum(one.num_turns for one in minibatch),
            proximal_logps_N=began_N,
        )

    def _adam(self, gradient: torch.Tensor) -> None:
        self._num_steps += 1
        self._moment.lerp_(gradient, 1 - _DECAY)
        self._moment_squared.lerp_(gradient**2, 1 - _DECAY_SQUARED)
        mean = self._moment / (1 - _DECAY**self._num_steps)
        spread = (self._moment_squared / (1 - _DECAY_SQUARED**self._num_steps)).sqrt()
        with torch.no_grad():
            self.logits -= self._config.lr * mean / (spread + _EPS)
