"""Numbers worked by hand, and the same objectives written out turn by turn and token by token."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from infra.config import Correction, LossConfig, LossKind, StaleNegatives
from trainer.learner.loss_inputs import LossInputs, PolicyLoss
from trainer.learner.losses import policy_loss

CLIPPED = LossConfig(correction=Correction.BYPASS)
KINDS = pytest.mark.parametrize("kind", list(LossKind))


def inputs_of(
    ratios: Sequence[float], advantages: Sequence[float], turns: Sequence[int] | None = None, **fields: object
) -> LossInputs:
    """Tokens with these ratios to the served policy, which gave each of them probability 1/2, in a first step."""
    logps = torch.tensor(ratios).log() - math.log(2.0)
    own = list(range(len(ratios))) if turns is None else list(turns)
    made = LossInputs(
        logps_N=logps,
        behaviour_logps_N=torch.full_like(logps, -math.log(2.0)),
        advantages_N=torch.tensor(advantages),
        turns_N=torch.tensor(own),
        num_tokens=len(own),
        num_turns=len(set(own)),
        proximal_logps_N=logps,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def loss_of(ratios: Sequence[float], advantages: Sequence[float], config: LossConfig = CLIPPED) -> PolicyLoss:
    return policy_loss(inputs_of(ratios, advantages), config)


def gradient_of(inputs: LossInputs, config: LossConfig) -> list[float]:
    logps = inputs.logps_N.clone().requires_grad_()
    policy_loss(replace(inputs, logps_N=logps), config).loss.backward()
    assert logps.grad is not None
    return [float(slope) for slope in logps.grad]


def random_inputs(seed: int, dtype: torch.dtype = torch.float64) -> LossInputs:
    """Forty tokens in seven turns, each with one advantage; the served policy is a few tenths of a nat away."""
    make = torch.Generator().manual_seed(seed)
    turns = torch.randint(0, 7, (40,), generator=make).sort().values
    logps = -3.0 * torch.rand(40, generator=make, dtype=dtype) - 0.1

    def near(spread: float) -> torch.Tensor:
        return logps + spread * torch.randn(40, generator=make, dtype=dtype)

    advantages = torch.randn(7, generator=make, dtype=dtype)[turns]
    hints = {"hinted_logps_N": near(1.5), "hint_weights_N": torch.rand(7, generator=make, dtype=dtype)[turns]}
    hints["hint_weights_N"][turns < 4] = 0.0
    return LossInputs(
        logps, near(0.4), advantages, turns, 50, 9, proximal_logps_N=near(0.2), stable_logps_N=near(0.3), **hints
    )  # fmt: skip


# -- numbers worked by hand


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.1, 1.0, -1.1),  # inside: r A
        (1.5, 1.0, -1.28),  # above: (1 + clip_high) A
        (0.5, 1.0, -0.5),  # below, positive: min(r, ..) keeps r
        (0.5, -1.0, 0.8),  # below, negative: (1 - clip_low)
        (1.5, -1.0, 1.5),  # above, negative: r
        (9.0, -1.0, 2.0),  # far above, negative: the dual clip
    ],
)
def test_a_tokens_loss_is_as_worked_by_hand(ratio: float, advantage: float, loss: float) -> None:
    assert float(loss_of([ratio], [advantage]).loss) == pytest.approx(loss, abs=1e-5)


def test_grpo_counts_turns_alike_and_dr_grpo_tokens() -> None:
    """A turn of one token with advantage 1, and one of three with -1, all of ratio 1."""
    inputs = inputs_of([1.0] * 4, [1.0, -1.0, -1.0, -1.0], turns=[0, 1, 1, 1])
    assert float(policy_loss(inputs, LossConfig(kind=LossKind.GRPO)).loss) == pytest.approx(0.0, abs=1e-6)
    assert float(policy_loss(inputs, CLIPPED).loss) == pytest.approx(0.5)
    fixed = LossConfig(kind=LossKind.DR_GRPO, max_turn_tokens=8)
    assert float(policy_loss(inputs, fixed).loss) == pytest.approx(2.0 / 16.0)


def test_gspos_ratio_is_the_geometric_mean_of_its_turns() -> None:
    """Ratios 1.2 and 0.8333: 1 together, inside the clip, so each token's gradient is -A / (length turns)."""
    inputs = inputs_of([1.2, 1 / 1.2, 1.1, 1.1], [1.0, 1.0, 2.0, 2.0], turns=[0, 0, 1, 1])
    config = LossConfig(kind=LossKind.GSPO)
    assert float(policy_loss(inputs, config).loss) == pytest.approx(-(1.0 + 2.0 * 1.0004) / 2, abs=1e-5)
    assert gradient_of(inputs, config) == pytest.approx([-0.25, -0.25, 0.0, 0.0], abs=1e-6)


def test_cispo_keeps_the_gradient_of_a_token_whose_weight_it_clips() -> None:
    """Weights 1.5, 5 (of 9) and, for the negative one, 2 (of 3)."""
    config = LossConfig(kind=LossKind.CISPO)
    slopes = gradient_of(inputs_of([1.5, 9.0, 3.0], [1.0, 1.0, -1.0]), config)
    assert slopes == pytest.approx([-1.5 / 3, -5.0 / 3, 2.0 / 3], abs=1e-5)
    loss = float(loss_of([1.5], [1.0], config).loss)
    assert loss == pytest.approx(-1.5 * math.log(0.75), abs=1e-5)


def test_likelihood_imitates_what_was_good_whoever_said_it_and_leaves_the_rest_alone() -> None:
    config = LossConfig(kind=LossKind.LIKELIHOOD)
    inputs = inputs_of([1.0, 9.0, 0.1, 1.0], [1.0, 1.0, 2.0, -1.0])
    assert gradient_of(inputs, config) == pytest.approx([-0.25, -0.25, -0.5, 0.0])


def test_a_stale_negative_token_beyond_the_dual_clip_pushes_no_further() -> None:
    assert gradient_of(inputs_of([9.0], [-1.0]), CLIPPED) == [0.0]


@pytest.mark.parametrize("kind", [kind for kind in LossKind if kind is not LossKind.LIKELIHOOD])
def test_a_tapered_negative_pushes_with_its_ratio_and_at_most_with_1(kind: LossKind) -> None:
    config = LossConfig(kind=kind, negatives=StaleNegatives.TAPER)
    slopes = gradient_of(inputs_of([9.0, 0.5, 0.01], [-1.0, -1.0, -1.0]), config)
    assert slopes == pytest.approx([1.0 / 3, 0.5 / 3, 0.01 / 3], abs=1e-5)


@pytest.mark.parametrize(
    ("correction", "weights"), [(Correction.TRUNCATE, [2.0, 1.0, 0.25]), (Correction.MASK, [0.0, 1.0, 0.0])]
)
def test_staleness_is_corrected_apart_from_the_clip(correction: Correction, weights: list[float]) -> None:
    """pi_old / mu is 4, 1 and 1/4; pi_theta / pi_old is 1.02, in the clip, where against mu two would be outside."""
    inputs = inputs_of([4.08, 1.02, 0.255], [1.0, 1.0, 1.0])
    inputs = replace(inputs, proximal_logps_N=inputs.logps_N - math.log(1.02))
    config = LossConfig(correction=correction)
    assert gradient_of(inputs, config) == pytest.approx([-1.02 * weight / 3 for weight in weights], abs=1e-5)
    assert int(policy_loss(inputs, config).num_clipped) == sum(weight not in (1.0, 0.25) for weight in weights)


@pytest.mark.parametrize(
    ("correction", "weights"), [(Correction.TRUNCATE, [2.0, 1.5, 0.25]), (Correction.MASK, [0.0, 1.5, 0.0])]
)
def test_in_an_updates_first_step_a_token_weighs_what_it_has_moved_since_it_was_served(
    correction: Correction, weights: list[float]
) -> None:
    """pi_theta is pi_old, and over mu 4, 1.5 and 1/4: no clip stops the second, whatever the sign."""
    config = LossConfig(correction=correction)
    for sign in (1.0, -1.0):
        inputs = inputs_of([4.0, 1.5, 0.25], [sign] * 3)
        assert gradient_of(inputs, config) == pytest.approx([-sign * weight / 3 for weight in weights], abs=1e-5)
        found = policy_loss(inputs, config)
        assert float(found.loss) == pytest.approx(-sign * sum(weights) / 3, abs=1e-5)
        assert int(found.num_clipped) == (1 if correction is Correction.TRUNCATE else 2)


def test_unless_given_staleness_is_truncated_but_as_the_papers_of_gspo_and_cispo_have_it() -> None:
    assert LossConfig().correction is Correction.TRUNCATE
    assert LossConfig.model_validate({"kind": "gspo"}).correction is Correction.BYPASS
    assert LossConfig.model_validate({"kind": "cispo"}).correction is Correction.BYPASS


def test_a_masked_token_stays_masked_when_negatives_are_tapered() -> None:
    inputs = inputs_of([4.4, 1.1], [-1.0, -1.0])
    config = LossConfig(correction=Correction.MASK, negatives=StaleNegatives.TAPER)
    assert gradient_of(inputs, config) == pytest.approx([0.0, 0.5], abs=1e-6)


def test_the_pull_to_stable_is_proportional_to_how_far_a_token_is_from_it() -> None:
    """Twice and half as likely as stable has them: pushed down and up by log 2, while k1's own slope is 1 for both."""
    inputs = inputs_of([1.0, 1.0], [0.0, 0.0])
    inputs = replace(inputs, stable_logps_N=inputs.logps_N - torch.tensor([math.log(2.0), -math.log(2.0)]))
    slopes = gradient_of(inputs, LossConfig(kl_coefficient=0.1))
    assert slopes == pytest.approx([0.1 * math.log(2.0) / 2, -0.1 * math.log(2.0) / 2], abs=1e-6)


def test_the_pull_to_stable_adds_its_kl_to_the_loss() -> None:
    inputs = inputs_of([1.0, 1.0], [0.0, 0.0])
    inputs = replace(inputs, stable_logps_N=inputs.logps_N - torch.tensor([0.5, -0.1]))
    assert float(policy_loss(inputs, LossConfig(kl_coefficient=0.1)).loss) == pytest.approx(0.1 * 0.2)


def test_a_corrected_turn_is_pulled_to_what_its_hint_makes_of_it_up_to_a_bound() -> None:
    """Gaps log 2, -log 2 and log 16, the last bounded to 2; the second turn counts half, the third has no hint."""
    inputs = inputs_of([1.0, 1.0, 1.0, 1.0], [0.0] * 4, [0, 1, 1, 2])
    gaps = torch.tensor([math.log(2.0), -math.log(2.0), math.log(16.0), 9.0])
    hint = {"hinted_logps_N": inputs.logps_N - gaps, "hint_weights_N": torch.tensor([1.0, 0.5, 0.5, 0.0])}
    inputs, config = replace(inputs, **hint), LossConfig(hint_weight=0.1)
    assert gradient_of(inputs, config) == pytest.approx(
        [0.1 * math.log(2.0) / 4, -0.05 * math.log(2.0) / 4, 0.05 * 2.0 / 4, 0.0], abs=1e-6
    )
    assert float(policy_loss(inputs, config).loss) == pytest.approx(0.1 * (0.5 * math.log(2.0) + 1.0) / 4)
    assert gradient_of(inputs, CLIPPED) == [0.0] * 4, "off"


@pytest.mark.parametrize("is_hint", [False, True], ids=["stable", "hint"])
def test_descending_the_pull_alone_brings_a_policy_to_what_pulls(is_hint: bool) -> None:
    """Tokens sampled from the policy itself; k1 differentiated as it stands would leave it where it is."""
    make = torch.Generator().manual_seed(0)
    logits, stable = torch.tensor([2.0, 0.0, 0.0], requires_grad=True), torch.tensor([0.0, 0.0, 1.0]).log_softmax(0)
    config = LossConfig(hint_weight=1.0) if is_hint else LossConfig(kl_coefficient=1.0)
    for _ in range(200):
        logps = logits.log_softmax(0)
        tokens = torch.multinomial(logps.detach().exp(), 256, replacement=True, generator=make)
        logps_N = logps[tokens]
        to = {"hinted_logps_N": stable[tokens], "hint_weights_N": torch.ones(256), "stable_logps_N": stable[tokens]}
        old_N = logps_N.detach()
        inputs = LossInputs(logps_N, old_N, torch.zeros(256), torch.arange(256), 256, 256, old_N, **to)
        (slope,) = torch.autograd.grad(policy_loss(inputs, config).loss, logits)
        logits = (logits - 0.3 * slope).detach().requires_grad_()
    kl = (logits.softmax(0) * (logits.log_softmax(0) - stable)).sum()
    assert float(kl.detach()) < 1e-3


# -- against the equations written out


def written_out(inputs: LossInputs, config: LossConfig) -> torch.Tensor:
    """The papers' sums as loops over turns and tokens. `sg` is `detach`."""
    total = torch.zeros((), dtype=inputs.logps_N.dtype)
    old_N = inputs.behaviour_logps_N if config.correction is Correction.BYPASS else inputs.proximal_logps_N
    assert old_N is not None and inputs.stable_logps_N is not None
    for turn in inputs.turns_N.unique():
        places = [int(place) for place in (inputs.turns_N == turn).nonzero()]
        now, old = inputs.logps_N[places], old_N[places]
        mu, advantage = inputs.behaviour_logps_N[places], float(inputs.advantages_N[places[0]])
        if config.kind is LossKind.GSPO:
            now, old, mu = (logps.mean().expand(len(places)) for logps in (now, old, mu))
        for t in range(len(places)):
            gain = token_gain(now[t], old[t], mu[t], advantage, config)
            if config.hint_weight:
                gain = gain - hint_pull(inputs, places[t], config)
            if config.kind in (LossKind.GRPO, LossKind.GSPO):
                total = total - gain / len(places) / inputs.num_turns
            else:
                total = total - gain / inputs.num_tokens
    if config.kl_coefficient:
        for now, mu, stable in zip(inputs.logps_N, inputs.behaviour_logps_N, inputs.stable_logps_N, strict=True):
            weight = min(float((now - mu).exp().detach()), config.max_importance_weight)
            k1 = float((now - stable).detach())
            total = total + config.kl_coefficient * weight * k1 * (1 + now - now.detach()) / inputs.num_tokens
    return total


def hint_pull(inputs: LossInputs, t: int, config: LossConfig) -> torch.Tensor:
    assert inputs.hinted_logps_N is not None and inputs.hint_weights_N is not None
    now = inputs.logps_N[t]
    weight = min(float((now - inputs.behaviour_logps_N[t]).exp().detach()), config.max_importance_weight)
    gap = max(-config.max_hint_gap, min(float((now - inputs.hinted_logps_N[t]).detach()), config.max_hint_gap))
    return config.hint_weight * float(inputs.hint_weights_N[t]) * weight * gap * (1 + now - now.detach())


def token_gain(
    now: torch.Tensor, old: torch.Tensor, mu: torch.Tensor, advantage: float, config: LossConfig
) -> torch.Tensor:
    if config.kind is LossKind.LIKELIHOOD:
        return max(advantage, 0.0) * now
    staleness = float((old - mu).exp())
    correction = {
        Correction.BYPASS: 1.0,
        Correction.TRUNCATE: min(staleness, config.max_correction),
        Correction.MASK: staleness * (config.min_correction <= staleness <= config.max_correction),
    }[config.correction]
    if advantage < 0 and config.negatives is StaleNegatives.TAPER:
        return (correction > 0) * min(float((now - mu).exp().detach()), 1.0) * advantage * now
    ratio = (now - old).exp()
    if config.kind is LossKind.CISPO:
        bound = 1 + config.clip_high
        bound = bound if advantage >= 0 else min(bound, config.max_importance_weight)
        return correction * min(float(ratio.detach()), bound) * advantage * now
    ppo = torch.minimum(ratio * advantage, ratio.clamp(1 - config.clip_low, 1 + config.clip_high) * advantage)
    if advantage < 0:
        ppo = torch.maximum(ppo, torch.tensor(config.max_importance_weight * advantage, dtype=ppo.dtype))
    return correction * ppo


@KINDS
@pytest.mark.parametrize("correction", list(Correction))
@pytest.mark.parametrize("negatives", list(StaleNegatives))
@pytest.mark.parametrize(("kl_coefficient", "hint_weight"), [(0.0, 0.0), (0.3, 0.0), (0.2, 0.7)])
def test_loss_and_gradient_are_those_of_the_equations_written_out(
    kind: LossKind, correction: Correction, negatives: StaleNegatives, kl_coefficient: float, hint_weight: float
) -> None:
    config = LossConfig(
        kind=kind, correction=correction, negatives=negatives, kl_coefficient=kl_coefficient, hint_weight=hint_weight,
        **({"clip_low": 0.1, "clip_high": 0.1} if kind is LossKind.GSPO else {}),
    )  # fmt: skip
    for seed in range(3):
        inputs = random_inputs(seed)
        losses, slopes = [], []
        for function in (lambda given: policy_loss(given, config).loss, lambda given: written_out(given, config)):
            logps = inputs.logps_N.clone().requires_grad_()
            loss = function(replace(inputs, logps_N=logps))
            losses.append(float(loss.detach()))
            slopes.append(torch.autograd.grad(loss, logps)[0])
        assert losses[0] == pytest.approx(losses[1], abs=1e-12)
        assert torch.allclose(*slopes, atol=1e-12, rtol=1e-10) and float(slopes[1].abs().max()) > 1e-3


@pytest.mark.parametrize("kind", [LossKind.GRPO, LossKind.DR_GRPO, LossKind.GSPO])
def test_the_gradient_is_the_slope_of_the_loss_where_no_weight_is_held_fixed(kind: LossKind) -> None:
    config = LossConfig(kind=kind, correction=Correction.TRUNCATE)
    inputs = random_inputs(5)

    def loss(logps_N: torch.Tensor) -> torch.Tensor:
        return policy_loss(replace(inputs, logps_N=logps_N), config).loss

    # the correction's weight is of pi_old and mu alone, so no finite difference sees it move
    assert torch.autograd.gradcheck(loss, inputs.logps_N.clone().requires_grad_())


def before(inputs: LossInputs) -> torch.Tensor:
    """The loss as it was when it was the only one."""
    ratio_N = (inputs.logps_N - inputs.behaviour_logps_N).clamp(-20.0, 20.0).exp()
    raised_N = torch.minimum(ratio_N, torch.full_like(ratio_N, 1.28))
    weight_N = torch.where(inputs.advantages_N >= 0, raised_N, ratio_N.clamp(0.8, 2.0))
    return -(inputs.advantages_N * weight_N).sum() / inputs.num_tokens


@pytest.mark.parametrize("seed", range(10))
def test_the_clip_alone_is_to_the_last_bit_what_it_was_before_there_were_others(seed: int) -> None:
    inputs, slopes = random_inputs(seed, torch.float32), []
    for function in (lambda given: policy_loss(given, CLIPPED).loss, before):
        logps = inputs.logps_N.clone().requires_grad_()
        slopes.append((function(replace(inputs, logps_N=logps)), logps))
    (ours, own), (theirs, other) = slopes
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.autograd.grad(ours, own)[0], torch.autograd.grad(theirs, other)[0])


# -- what holds of every loss

EVERY: list[Callable[[LossKind], LossConfig]] = [
    lambda kind: LossConfig(kind=kind),
    lambda kind: LossConfig(kind=kind, correction=Correction.BYPASS),
    lambda kind: LossConfig(kind=kind, correction=Correction.MASK, kl_coefficient=0.2),
    lambda kind: LossConfig(kind=kind, negatives=StaleNegatives.TAPER, correction=Correction.TRUNCATE),
    lambda kind: LossConfig(kind=kind, hint_weight=0.7),
]


@KINDS
@pytest.mark.parametrize("config_of", EVERY)
def test_a_masked_token_is_as_good_as_absent(kind: LossKind, config_of: Callable[[LossKind], LossConfig]) -> None:
    inputs, config = random_inputs(3), config_of(kind)
    kept = torch.rand(40, generator=torch.Generator().manual_seed(1)) < 0.6
    fields = ("logps_N", "behaviour_logps_N", "advantages_N", "turns_N", "proximal_logps_N", "stable_logps_N",
              "hinted_logps_N", "hint_weights_N")  # fmt: skip
    absent = replace(inputs, **{name: getattr(inputs, name)[kept] for name in fields})
    masked = replace(inputs, policy_mask_N=kept, stable_mask_N=kept)
    expected, found = torch.zeros(40, dtype=torch.float64), torch.tensor(gradient_of(masked, config))
    expected[kept] = torch.tensor(gradient_of(absent, config), dtype=torch.float64)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    one, other = policy_loss(masked, config), policy_loss(absent, config)
    assert float(one.loss) == pytest.approx(float(other.loss)) and one.num_tokens == other.num_tokens
    for name in ("sum_ratio", "sum_ratio_squared", "sum_kl", "num_clipped"):
        assert float(getattr(one, name)) == pytest.approx(float(getattr(other, name)))


def test_the_masks_are_two() -> None:
    """A token without a policy gradient can still be held to stable, and the other way round."""
    inputs = inputs_of([1.0, 1.0], [1.0, 1.0])
    inputs = replace(inputs, stable_logps_N=inputs.logps_N - 1.0, policy_mask_N=torch.tensor([True, False]))
    inputs = replace(inputs, stable_mask_N=torch.tensor([False, True]))
    assert gradient_of(inputs, LossConfig(kl_coefficient=0.1)) == pytest.approx([-0.5, 0.05])


@KINDS
@pytest.mark.parametrize("config_of", EVERY)
def test_a_token_that_was_impossible_when_it_was_sampled_gives_a_finite_loss_and_gradient(
    kind: LossKind, config_of: Callable[[LossKind], LossConfig]
) -> None:
    inputs = replace(inputs_of([1.0], [-1.0]), behaviour_logps_N=torch.tensor([-1e4]))
    inputs = replace(inputs, proximal_logps_N=inputs.logps_N, stable_logps_N=inputs.logps_N - 1.0)
    config = config_of(kind)
    assert math.isfinite(gradient_of(inputs, config)[0]) and math.isfinite(policy_loss(inputs, config).loss)


@KINDS
def test_the_normaliser_is_the_minibatch_and_not_the_tokens_given(kind: LossKind) -> None:
    inputs, config = random_inputs(4), LossConfig(kind=kind)
    twice = replace(inputs, num_tokens=100, num_turns=18)
    assert float(policy_loss(twice, config).loss) == pytest.approx(float(policy_loss(inputs, config).loss) / 2)


def test_sums_are_as_worked_by_hand() -> None:
    found = loss_of([1.5, 0.5, 1.0], [1.0, -1.0, 1.0])
    assert int(found.num_clipped) == 2 and found.num_tokens == 3
    assert float(found.sum_ratio) == pytest.approx(3.0)
    assert float(found.sum_ratio_squared) == pytest.approx(2.25 + 0.25 + 1.0)
    assert float(found.sum_kl) == pytest.approx(-math.log(1.5) - math.log(0.5), abs=1e-6)
    assert float(found.sum_k3) == pytest.approx(0.5 - math.log(1.5) - 0.5 - math.log(0.5), abs=1e-6)


def test_the_metrics_hold_no_gradient() -> None:
    inputs = random_inputs(0)
    found = policy_loss(replace(inputs, logps_N=inputs.logps_N.requires_grad_()), CLIPPED)
    parts = (found.num_clipped, found.sum_ratio, found.sum_ratio_squared, found.sum_kl)
    assert not any(part.requires_grad for part in parts)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LossConfig(), "proximal_logps_N"),
        (LossConfig(correction=Correction.BYPASS, kl_coefficient=0.1), "stable_logps_N"),
    ],
)
def test_a_policy_that_a_loss_needs_and_does_not_get_is_named(config: LossConfig, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        policy_loss(inputs_of([1.0], [1.0], proximal_logps_N=None), config)


def test_a_kinds_own_clip_is_the_default_and_gives_way_to_a_given_one() -> None:
    assert LossConfig.model_validate({"kind": "gspo"}).clip_high == 4e-4
    assert LossConfig.model_validate({"kind": "gspo", "clip_high": 0.01}).clip_high == 0.01
    assert LossConfig.model_validate({"kind": "cispo"}).clip_high == 4.0


def test_a_clip_around_who_served_is_wider() -> None:
    assert (CLIPPED.clip_low, CLIPPED.clip_high) == (0.2, 0.28)
    assert (LossConfig().clip_low, LossConfig().clip_high) == (0.025, 0.035)
    assert LossConfig(correction=Correction.BYPASS, clip_high=0.1).clip_high == 0.1
    assert LossConfig.model_validate({"correction": "bypass"}).clip_low == 0.2
