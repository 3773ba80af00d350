"""What the microbatches of a minibatch add up to, on one rank and over all."""

import math
from dataclasses import astuple, dataclass

from trainer.learner.loss_inputs import PolicyLoss
from trainer.learner.ranks import Ranks
from trainer.learner.update import StepMetrics


@dataclass
class Sums:
    """Sums over the microbatches of a minibatch."""

    loss: float = 0.0
    num_tokens: int = 0
    num_clipped: float = 0.0
    ratio: float = 0.0
    ratio_squared: float = 0.0
    kl: float = 0.0
    k3: float = 0.0
    entropy: float = 0.0
    num_entropies: float = 0.0

    def add(self, part: PolicyLoss) -> None:
        self.loss += float(part.loss.detach())
        self.num_tokens += part.num_tokens
        self.num_clipped += float(part.num_clipped)
        self.ratio += float(part.sum_ratio)
        self.ratio_squared += float(part.sum_ratio_squared)
        self.kl += float(part.sum_kl)
        self.k3 += float(part.sum_k3)
        if part.sum_entropy is not None:
            self.entropy += float(part.sum_entropy)
            self.num_entropies += part.num_entropies

    def over(self, ranks: Ranks) -> "Sums":
        """Those of all ranks."""
        loss, num_tokens, *others = ranks.sum(astuple(self))
        return Sums(loss, round(num_tokens), *others)

    @property
    def ess(self) -> float:
        """As a share of the tokens."""
        return self.ratio**2 / (self.num_tokens * self.ratio_squared)

    def metrics(self, grad_norm: float, is_skipped: bool, scale: float) -> StepMetrics:
        num = self.num_tokens
        return StepMetrics(
            is_skipped=is_skipped,
            loss=self.loss,
            grad_norm=grad_norm,
            kl=self.kl / num,
            mean_ratio=self.ratio / num,
            ess=self.ess,
            clip_fraction=self.num_clipped / num,
            num_tokens=num,
            k3=self.k3 / num,
            entropy=self.entropy / self.num_entropies if self.num_entropies else math.nan,
            lr_scale=scale,
        )
