"""The policy loss, as pure functions of tensors.

Shapes: N trained tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

MAX_LOG_RATIO = 20.0
"""exp(20) = 5e8 is finite in float32 and far outside any clip, so clamping changes no loss and prevents inf * 0."""


@dataclass(frozen=True)
class PolicyLoss:
    """A loss to call `backward` on, and sums over its N tokens that add up over microbatches (no gradient)."""

    loss: torch.Tensor
    num_tokens: int
    num_clipped: torch.Tensor
    sum_ratio: torch.Tensor
    sum_ratio_squared: torch.Tensor
    sum_kl: torch.Tensor


def token_logps(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Log-probability, in nats at temperature 1, of each target: shape N, float32."""
    return -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def policy_loss(
    logps_N: torch.Tensor,
    behaviour_logps_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    num_tokens: int,
    clip_low: float,
    clip_high: float,
    max_importance_weight: float,
) -> PolicyLoss:
    """Clipped, importance-weighted policy loss against the logged log-probabilities.

    With r = exp(logp_theta - logp_mu) (bypass mode: pi_old is the policy mu that served the token):

        A >= 0:  -A min(r, 1 + clip_high)                                   PPO (arXiv 1707.06347, eq. 7),
                                                                            clip-higher: DAPO (arXiv 2503.14476, eq. 10)
        A <  0:  -A min(max(r, 1 - clip_low), max_importance_weight)        dual clip (arXiv 1912.09729, eq. 5)

    Without the last bound a stale negative sample, unlikely when it was sampled and likely now, has an unbounded
    weight and blows the policy up (TOPR, arXiv 2503.14286).

    Args:
        num_tokens: trained tokens of the whole minibatch. One normaliser for all of its microbatches keeps long and
            short sequences' tokens equal (Dr. GRPO, arXiv 2503.20783; DAPO, eq. 8) and the gradient independent of
            how the minibatch is cut.
    """
    log_ratio_N = logps_N - behaviour_logps_N
    ratio_N = log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    raised_N = torch.minimum(ratio_N, torch.full_like(ratio_N, 1.0 + clip_high))
    lowered_N = ratio_N.clamp(1.0 - clip_low, max_importance_weight)
    weight_N = torch.where(advantages_N >= 0, raised_N, lowered_N)
    loss = -(advantages_N * weight_N).sum() / num_tokens
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            num_tokens=logps_N.numel(),
            num_clipped=(weight_N != ratio_N).sum(),
            sum_ratio=ratio_N.sum(),
            sum_ratio_squared=ratio_N.square().sum(),
            sum_kl=-log_ratio_N.sum(),
        )
