"""What a loss is a function of, and what it gives.

Shapes: N tokens.
"""

from dataclasses import dataclass

import torch

from infra.config import Correction, LossConfig

MAX_LOG_RATIO = 20.0
"""exp(20) = 5e8 is finite in float32 and far outside any clip, so clamping changes no loss and prevents inf * 0."""


@dataclass(frozen=True)
class LossInputs:
    """N tokens of a microbatch, in whole turns. Log-probabilities are in nats at temperature 1, float32.

    `num_tokens` and `num_turns` are those of the whole minibatch. One normaliser for all of its microbatches makes the
    gradient independent of how the minibatch is cut.

    Masks are optional, all true without them: `policy_mask_N` is false where the policy gradient leaves a token out,
    `stable_mask_N` where nothing holds it to stable. A masked token's numbers may be anything finite.
    """

    logps_N: torch.Tensor
    behaviour_logps_N: torch.Tensor
    advantages_N: torch.Tensor
    turns_N: torch.Tensor
    """int64, which turn of the microbatch a token is of: 0 <= turn < N."""
    num_tokens: int
    num_turns: int
    proximal_logps_N: torch.Tensor | None = None
    """Of pi_old; not for bypass mode."""
    stable_logps_N: torch.Tensor | None = None
    """Of the stable version; where the KL coefficient is above 0."""
    policy_mask_N: torch.Tensor | None = None
    stable_mask_N: torch.Tensor | None = None
    hinted_logps_N: torch.Tensor | None = None
    """Of pi_old behind what corrects the turn; where some turn of the microbatch is corrected."""
    hint_weights_N: torch.Tensor | None = None
    """How much those count; 0 where the turn is not corrected."""

    def proximal(self, config: LossConfig) -> torch.Tensor:
        """What the clip's ratio is against."""
        if config.correction is Correction.BYPASS:
            return self.behaviour_logps_N
        if self.proximal_logps_N is None:
            raise ValueError(f"correction {config.correction.value!r} needs proximal_logps_N, got None")
        return self.proximal_logps_N

    def log_ratio(self, against_N: torch.Tensor) -> torch.Tensor:
        """Of pi_theta; 0 where the policy's mask is false."""
        return where(self.policy_mask_N, self.logps_N - against_N)

    def turn_lengths(self) -> torch.Tensor:
        """Tokens in each token's turn, at least 1: shape N."""
        return self._turn_sums(where(self.policy_mask_N, torch.ones_like(self.behaviour_logps_N))).clamp(min=1.0)

    def turn_means(self, values_N: torch.Tensor) -> torch.Tensor:
        """The mean over each token's turn: shape N."""
        return self._turn_sums(where(self.policy_mask_N, values_N)) / self.turn_lengths()

    def _turn_sums(self, values_N: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(values_N).index_add(0, self.turns_N, values_N)[self.turns_N]


@dataclass(frozen=True)
class PolicyLoss:
    """A loss to call `backward` on, and sums over its tokens that add up over microbatches (no gradient).

    `num_clipped` tokens had their weight changed by the clip or by what bounds the correction; the ratio is
    pi_theta / mu.
    `sum_entropy` is over `num_entropies` of its tokens (`trainer.learner.entropy`).
    """

    loss: torch.Tensor
    num_tokens: int
    num_clipped: torch.Tensor
    sum_ratio: torch.Tensor
    sum_ratio_squared: torch.Tensor
    sum_kl: torch.Tensor
    sum_k3: torch.Tensor
    sum_entropy: torch.Tensor | None = None
    num_entropies: int = 0


def exp(log_N: torch.Tensor) -> torch.Tensor:
    """A ratio, finite, of its logarithm."""
    return log_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def where(mask_N: torch.Tensor | None, values_N: torch.Tensor) -> torch.Tensor:
    """0 where the mask is false."""
    return values_N if mask_N is None else torch.where(mask_N, values_N, torch.zeros_like(values_N))
