"""What an update reports, when it must not be published, and what the loop asks of a learner.

Costs nothing to import: the loop and its tests need no torch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from infra.config import LrByEss
from infra.errors import StoreError
from infra.storage import Place
from trainer.learner.batching import Minibatch


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step. `ess` is the effective sample size as a share of the tokens (Kish): (sum r)^2 / (N sum r^2).

    `kl` is the k1 estimate of KL(mu || pi_theta), mean(logp_mu - logp_theta), in nats per token, and `k3` the mean of
    r - 1 - log r with r = pi_theta / mu: never below 0, less noise near 0, and more far from it. `entropy` is a
    token's, in nats, NaN where nobody measured it. `lr_scale` is what multiplied the learning rate. A step with a loss
    or gradient that is not finite is skipped: it changed nothing.
    """

    is_skipped: bool
    loss: float
    grad_norm: float
    kl: float
    mean_ratio: float
    ess: float
    clip_fraction: float
    num_tokens: int
    k3: float = 0.0
    entropy: float = math.nan
    lr_scale: float = 1.0


@dataclass(frozen=True)
class UpdateMetrics:
    """All steps of an update: means over the steps that were not skipped.

    `stable_kl` estimates KL(stable || pi_theta) after the last step, in nats per token; `None`: it was not measured.
    `mismatch_k1` and `mismatch_k3` are the first such step's `kl` and `k3`: nothing had changed before it, and which
    turns it has is drawn. They say how far the learner is from the policy whose log-probabilities were logged.
    `num_hinted` turns were taught by what corrects them, and `hint_gap` is the mean over their tokens of the logged
    log-probability less the teacher's. `None`: there is none, or nobody asked.
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
    entropy: float = math.nan
    lr_scale: float = 1.0
    mismatch_k1: float = 0.0
    mismatch_k3: float = 0.0
    num_hinted: int | None = None
    hint_gap: float | None = None

    @classmethod
    def of(cls, steps: Iterable[StepMetrics], stable_kl: float | None = None) -> "UpdateMetrics":
        taken = list(steps)
        good = [step for step in taken if not step.is_skipped]
        names = ("loss", "grad_norm", "kl", "mean_ratio", "ess", "clip_fraction", "entropy", "lr_scale")
        means = {name: fmean(getattr(step, name) for step in good) if good else math.nan for name in names}
        num_tokens = sum(step.num_tokens for step in taken)
        first = {"mismatch_k1": good[0].kl, "mismatch_k3": good[0].k3} if good else {}
        told: dict[str, Any] = {**means, **first}
        return cls(len(taken), len(taken) - len(good), num_tokens, **told, stable_kl=stable_kl)

    @property
    def moved(self) -> float:
        """How far the policy lay, in its steps, from what served their turns: root mean square of r - 1, about nats.

        E (r - 1)^2 = E r^2 - 2 E r + 1, where E r^2 = (E r)^2 / ess. It costs nothing, and says nothing of the last
        step, nor of an update of one step whose turns its own weights served.
        """
        return math.sqrt(max(0.0, self.mean_ratio**2 / self.ess - 2.0 * self.mean_ratio + 1.0))

    def numbers(self) -> dict[str, float]:
        """As a manifest's metrics: those that are finite, since JSON has no others."""
        known = {name: float(value) for name, value in asdict(self).items() if value is not None}
        return {name: value for name, value in known.items() if math.isfinite(value)}


def lr_scale(rule: LrByEss, ess: float) -> float:
    """What multiplies a step's learning rate, in [0, 1], at an effective sample size that is a share of its tokens.

    sqrt(ESS / B), so that a step whose few weighty tokens are all noise is a small one: VCPO (arXiv 2602.17616). AdamW
    forgets the scale of a gradient, so it has to be the rate.
    """
    if rule is LrByEss.NONE or not math.isfinite(ess):
        return 1.0
    return math.sqrt(ess) if rule is LrByEss.SQRT else ess


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

    def export_adapters(self, folder: Path) -> None:
        """Of a learner of adapters: write those alone, in peft's layout; the same ones give the same bytes."""
