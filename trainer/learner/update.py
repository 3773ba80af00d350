"""What an update reports, when it must not be published, and what the loop asks of a learner.

Costs nothing to import: the loop and its tests need no torch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Protocol

from infra.errors import StoreError
from infra.storage import Place
from trainer.learner.batching import Minibatch

MIN_ESS = 0.3
"""verl's health limit for importance weights; below it a few tokens carry the whole gradient."""
MAX_KL = 0.2
"""Nats per token. Twice verl's limit of 0.1, which is for data of the same version: one promotion of age is allowed."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step. `ess` is the effective sample size as a share of the tokens (Kish): (sum r)^2 / (N sum r^2).

    `kl` is the k1 estimate of KL(mu || pi_theta), mean(logp_mu - logp_theta), in nats per token. A step with a
    loss or gradient that is not finite is skipped: it changed nothing.
    """

    is_skipped: bool
    loss: float
    grad_norm: float
    kl: float
    mean_ratio: float
    ess: float
    clip_fraction: float
    num_tokens: int


@dataclass(frozen=True)
class UpdateMetrics:
    """All steps of an update: means over the steps that were not skipped.

    `stable_kl` estimates KL(stable || pi_theta) after the last step, in nats per token; `None`: it was not measured.
    """

    num_steps: int
    num_skipped: int
    num_tokens: int
    loss: float
    grad_norm: float
    kl: float
    mean_ratio: float
    ess: float
    clip_fraction: float
    stable_kl: float | None = None

    @classmethod
    def of(cls, steps: Iterable[StepMetrics], stable_kl: float | None = None) -> "UpdateMetrics":
        taken = list(steps)
        good = [step for step in taken if not step.is_skipped]
        names = ("loss", "grad_norm", "kl", "mean_ratio", "ess", "clip_fraction")
        means = {name: fmean(getattr(step, name) for step in good) if good else math.nan for name in names}
        num_tokens = sum(step.num_tokens for step in taken)
        return cls(len(taken), len(taken) - len(good), num_tokens, **means, stable_kl=stable_kl)

    def numbers(self) -> dict[str, float]:
        """As a manifest's metrics."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}


def alarm(metrics: UpdateMetrics) -> str | None:
    """Why an update must not be published, as an operator reads it; `None` when nothing speaks against it."""
    if 2 * metrics.num_skipped >= metrics.num_steps:
        return f"{metrics.num_skipped} of {metrics.num_steps} steps had a loss or gradient that is not finite"
    if not metrics.ess >= MIN_ESS:
        return f"effective sample size {metrics.ess:.2f} of the tokens, must be at least {MIN_ESS}"
    if not abs(metrics.kl) <= MAX_KL:
        return f"KL to the served policy {metrics.kl:.3f} nats per token, must be at most {MAX_KL}"
    return None


class ElsewhereError(StoreError):
    """Another worker failed at what all do together, and says why."""


class Saving(Protocol):
    """A copy of weights and optimiser that is being written."""

    @property
    def is_done(self) -> bool:
        """Whether `wait` would return, or raise, at once."""

    def wait(self) -> None:
        """Durable on return. Raises `StoreError`."""


class Policy(Protocol):
    """Weights and optimiser, wherever they live. Places are seen by both sides, but for folders of this machine, which
    are copied to where the learner is and back.
    """

    def load(self, folder: Path) -> None:
        """Take the weights of a Hugging Face folder, with a fresh optimiser."""

    def restore(self, folder: Place) -> None:
        """Take the weights and optimiser that `save` wrote; of adapters, over the weights they were trained on."""

    def save(self, folder: Place) -> Saving | None:
        """Write weights and optimiser, as they are now, into an empty folder; durable on return if `None`.

        Else the learner may go on at once, and what it learns is not in the copy.
        """

    def anchor(self, folder: Place | None) -> None:
        """Measure KL to the weights in a folder that `save` wrote, stable's; `None`: to those it has now."""

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        """One optimiser step per minibatch."""

    def export(self, folder: Path) -> None:
        """Write the weights in the Hugging Face layout; the same weights give the same bytes."""
