"""The policy losses, as pure functions of tensors.

Three policies: mu served the token, pi_theta is trained, and the clip is against pi_old, the policy as the update
began. What pi_old is away from mu is corrected by a weight of its own, truncated unless told otherwise. In bypass mode
pi_old is taken to be mu, and the clip stops whatever has moved by its width since it was served: a version holds many
updates, and policies before it served its turns. What each way keeps of their reward is in docs/bench/staleness.md.

A loss's advantages are made elsewhere (`trainer.advantages`), so `grpo` and `dr_grpo` differ here only in how
tokens are averaged. A turn is what the papers call a response or a sequence.

Shapes: N tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from infra.config import Correction, LossConfig, LossKind, StaleNegatives
from trainer.learner.loss_inputs import LossInputs, PolicyLoss, exp, where


@dataclass(frozen=True)
class _Objective:
    """What a loss maximises, before the parts that all share: sum of advantage x `surrogate_N`, averaged.

    `log_staleness_N` is log pi_old / mu and `log_ratio_N` log pi_theta / mu, per token or per turn as the loss has it.
    """

    surrogate_N: torch.Tensor
    is_clipped_N: torch.Tensor
    log_staleness_N: torch.Tensor
    log_ratio_N: torch.Tensor


def policy_loss(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """The configured loss."""
    return LOSSES[config.kind](inputs, config)


def dr_grpo(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """Every token counts the same: Dr. GRPO (arXiv 2503.20783, section 3.2). The default.

    The minibatch's sum over its `num_tokens`, as DAPO has it (arXiv 2503.14476, eq. 8); with `max_turn_tokens`, over
    that many for each turn: the constant of the paper's own code.
    """
    count = inputs.num_turns * config.max_turn_tokens if config.max_turn_tokens else inputs.num_tokens
    return _loss(inputs, config, _clipped_tokens(inputs, config), count, per_turn=False)


def grpo(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """Every turn counts the same: the mean over turns of the mean over a turn's tokens (arXiv 2402.03300, eq. 3)."""
    return _loss(inputs, config, _clipped_tokens(inputs, config), inputs.num_turns, per_turn=True)


def gspo(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """One ratio for a turn, s = (pi_theta(turn) / pi_old(turn))^(1 / length), clipped: arXiv 2507.18071, eq. 5 and 7.

    The turn's staleness is the same geometric mean, for the same reason: products over long turns leave all bounds.
    """
    log_ratio_N = inputs.turn_means(inputs.log_ratio(inputs.proximal(config)))
    served_N = inputs.turn_means(inputs.log_ratio(inputs.behaviour_logps_N)).detach()
    ratio_N = exp(log_ratio_N)
    weight_N = _clip(ratio_N, inputs.advantages_N, config)
    objective = _Objective(weight_N, weight_N != ratio_N, served_N - log_ratio_N.detach(), served_N)
    return _loss(inputs, config, objective, inputs.num_turns, per_turn=True)


def cispo(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """The weight is clipped and not the update, so every token keeps a gradient: arXiv 2506.13585, eq. 4 and 5.

    With r = pi_theta / pi_old and sg for no gradient: sg(min(r, 1 + clip_high)) A log pi_theta over the minibatch's
    tokens; no lower bound, as there. ScaleRL (arXiv 2510.13786) has 5 for the bound. A negative advantage's bound is
    `max_importance_weight`, where that is less.
    """
    ratio_N = exp(inputs.log_ratio(inputs.proximal(config))).detach()
    highest = 1.0 + config.clip_high
    lowest_N = torch.full_like(ratio_N, min(highest, config.max_importance_weight))
    weight_N = torch.minimum(ratio_N, torch.where(inputs.advantages_N >= 0, highest, lowest_N))
    surrogate_N = weight_N * where(inputs.policy_mask_N, inputs.logps_N)
    objective = _Objective(surrogate_N, weight_N != ratio_N, *_staleness(inputs, config))
    return _loss(inputs, config, objective, inputs.num_tokens, per_turn=False)


def likelihood(inputs: LossInputs, config: LossConfig) -> PolicyLoss:
    """Minus max(A, 0) log pi_theta over the minibatch's tokens: what was good is imitated, the rest is left alone.

    With A = 1 for chosen turns, rejection-sampling fine-tuning (RAFT, arXiv 2304.06767, section 3.2). There is no ratio
    to clip or to correct: it trains on anybody's tokens, and nothing but the pull to stable bounds how far it goes.
    """
    gains_N = where(inputs.policy_mask_N, inputs.advantages_N.clamp(min=0.0) * inputs.logps_N)
    gains_N = _less_hints(gains_N, inputs, config)
    loss = _pulled(-gains_N.sum() / inputs.num_tokens, inputs, config)
    return _told(inputs, loss, torch.zeros_like(gains_N, dtype=torch.bool))


LOSSES: Mapping[LossKind, Callable[[LossInputs, LossConfig], PolicyLoss]] = {
    LossKind.DR_GRPO: dr_grpo,
    LossKind.GRPO: grpo,
    LossKind.GSPO: gspo,
    LossKind.CISPO: cispo,
    LossKind.LIKELIHOOD: likelihood,
}


def _clipped_tokens(inputs: LossInputs, config: LossConfig) -> _Objective:
    ratio_N = exp(inputs.log_ratio(inputs.proximal(config)))
    weight_N = _clip(ratio_N, inputs.advantages_N, config)
    return _Objective(weight_N, weight_N != ratio_N, *_staleness(inputs, config))


def _clip(ratio_N: torch.Tensor, advantages_N: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """What multiplies the advantage, with r the ratio:

        A >= 0:  min(r, 1 + clip_high)                                  PPO (arXiv 1707.06347, eq. 7),
                                                                        clip-higher: DAPO (arXiv 2503.14476, eq. 10)
        A <  0:  min(max(r, 1 - clip_low), max_importance_weight)       dual clip (arXiv 1912.09729, eq. 5)

    Without the last bound a stale negative sample, unlikely when it was sampled and likely now, has an unbounded
    weight and blows the policy up (TOPR, arXiv 2503.14286).
    """
    raised_N = torch.minimum(ratio_N, torch.full_like(ratio_N, 1.0 + config.clip_high))
    lowered_N = ratio_N.clamp(1.0 - config.clip_low, config.max_importance_weight)
    return torch.where(advantages_N >= 0, raised_N, lowered_N)


def _staleness(inputs: LossInputs, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """log pi_old / mu and log pi_theta / mu of each token, without gradient."""
    served_N = inputs.log_ratio(inputs.behaviour_logps_N).detach()
    return served_N - inputs.log_ratio(inputs.proximal(config)).detach(), served_N


def _loss(inputs: LossInputs, config: LossConfig, objective: _Objective, count: int, *, per_turn: bool) -> PolicyLoss:
    """The parts that all losses share, and the average: of tokens, or of turns' means over `count` turns."""
    kept_N, is_clipped_N = objective.surrogate_N, objective.is_clipped_N
    if config.correction is not Correction.BYPASS:
        correction_N = _correction(objective.log_staleness_N, config)
        kept_N, is_clipped_N = kept_N * correction_N, is_clipped_N | (correction_N != exp(objective.log_staleness_N))
    if config.negatives is StaleNegatives.TAPER:
        tapered_N, is_tapered_N = _tapered(inputs, objective, config)
        is_negative_N = inputs.advantages_N < 0
        kept_N = torch.where(is_negative_N, tapered_N, kept_N)
        is_clipped_N = torch.where(is_negative_N, is_tapered_N, is_clipped_N)
    gains_N = _less_hints(where(inputs.policy_mask_N, inputs.advantages_N * kept_N), inputs, config)
    loss = -(gains_N / inputs.turn_lengths() if per_turn else gains_N).sum() / count
    return _told(inputs, _pulled(loss, inputs, config), is_clipped_N)


def _correction(log_staleness_N: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """w = pi_old / mu, apart from the clip, which stays around pi_old: decoupled PPO (arXiv 2110.00641, section 3).

    Truncated, min(w, max): TIS (V-trace's rho, arXiv 1802.01561, section 4.1). Masked, w inside [min, max] and else 0:
    IcePop (arXiv 2510.18855). Never a gradient: with one, the loss could fall by making pi_old's tokens unlikely.
    """
    weight_N = exp(log_staleness_N.detach())
    if config.correction is Correction.TRUNCATE:
        return weight_N.clamp(max=config.max_correction)
    is_inside_N = (weight_N >= config.min_correction) & (weight_N <= config.max_correction)
    return torch.where(is_inside_N, weight_N, 0.0)


def _tapered(inputs: LossInputs, objective: _Objective, config: LossConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """sg(min(pi_theta / mu, 1)) log pi_theta, for negative advantages: TOPR (arXiv 2503.14286, section 3).

    The less likely a bad token has become the less it is pushed, down to nothing and never beyond 1, where the clip
    would stop at once and the dual clip push with up to `max_importance_weight`. The mask's zeros stay.
    """
    ratio_N = exp(objective.log_ratio_N)
    weight_N = ratio_N.clamp(max=1.0)
    if config.correction is Correction.MASK:
        weight_N = torch.where(_correction(objective.log_staleness_N, config) > 0.0, weight_N, 0.0)
    return weight_N.detach() * where(inputs.policy_mask_N, inputs.logps_N), weight_N != ratio_N


def _pulled(loss: torch.Tensor, inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """With the pull to stable, where it is asked for."""
    if config.kl_coefficient:
        return loss + config.kl_coefficient * _kl_to_stable(inputs, config)
    return loss


def _kl_to_stable(inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """KL(pi_theta || stable) a token by the k1 estimator, log pi_theta - log stable, which may be below 0 for a token.

    Its gradient is taken by the score function, w k1 grad log pi_theta with w the truncated pi_theta / mu, as if k1
    were taken off the reward (REINFORCE++, arXiv 2501.03262). Differentiated as it stands k1 has a gradient of mean 0
    and holds nothing (arXiv 2506.09477, section 3). What a token does to the KL of later ones is left out.
    """
    if inputs.stable_logps_N is None:
        raise ValueError("a KL coefficient above 0 needs stable_logps_N, got None")
    scored_N = _scored(inputs.logps_N - inputs.stable_logps_N, inputs, config)
    return where(inputs.stable_mask_N, scored_N).sum() / inputs.num_tokens


def _less_hints(gains_N: torch.Tensor, inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """Tokens' gains less KL(pi_theta || pi_T) at corrected turns, pi_T being pi_old once it has read the correction.

    The reverse KL to the policy as its own teacher: SDPO (arXiv 2601.20802), the textual feedback of Composer 2. Of the
    sampled tokens alone, as OpenClaw-RL has it (arXiv 2603.10165, OPD: A_t = log pi_T - log pi_old), and by the
    estimator of `_kl_to_stable`: A_t is log pi_T - log pi_theta, so it ends where both agree. No clip and no correction
    of the loss touches it, but tokens are averaged as the loss averages them: a nat weighs what an advantage of 1 does.
    Bounded to `max_hint_gap`, or one token that the teacher finds impossible would be the whole gradient.
    """
    if not config.hint_weight or inputs.hinted_logps_N is None:
        return gains_N
    assert inputs.hint_weights_N is not None
    bound = config.max_hint_gap
    gaps_N = (inputs.logps_N - inputs.hinted_logps_N).clamp(-bound, bound)
    pulls_N = config.hint_weight * inputs.hint_weights_N * _scored(gaps_N, inputs, config)
    return gains_N - where(inputs.policy_mask_N, pulls_N)


def _scored(gaps_N: torch.Tensor, inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """w gap, with the gradient w gap grad log pi_theta: w the truncated pi_theta / mu."""
    weight_N = exp(inputs.logps_N - inputs.behaviour_logps_N).clamp(max=config.max_importance_weight)
    penalty_N = (weight_N * gaps_N).detach()
    return penalty_N * (1.0 + (inputs.logps_N - inputs.logps_N.detach()))


def _told(inputs: LossInputs, loss: torch.Tensor, is_clipped_N: torch.Tensor) -> PolicyLoss:
    mask_N = inputs.policy_mask_N
    with torch.no_grad():
        log_ratio_N = inputs.log_ratio(inputs.behaviour_logps_N)
        ratio_N = exp(log_ratio_N)
        return PolicyLoss(
            loss=loss,
            num_tokens=ratio_N.numel() if mask_N is None else int(mask_N.sum()),
            num_clipped=where(mask_N, is_clipped_N).sum(),
            sum_ratio=where(mask_N, ratio_N).sum(),
            sum_ratio_squared=where(mask_N, ratio_N.square()).sum(),
            sum_kl=-log_ratio_N.sum(),
            sum_k3=where(mask_N, ratio_N - 1.0 - log_ratio_N).sum(),
        )
