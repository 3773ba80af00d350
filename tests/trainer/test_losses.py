import math

import pytest
import torch

from trainer.losses import PolicyLoss, policy_loss, token_logps


def loss_of(ratios: list[float], advantages: list[float], num_tokens: int | None = None) -> PolicyLoss:
    """With clip [0.8, 1.28] and at most weight 2."""
    logps = torch.tensor(ratios).log()
    return policy_loss(
        logps,
        torch.zeros_like(logps),
        torch.tensor(advantages),
        num_tokens=num_tokens or len(ratios),
        clip_low=0.2,
        clip_high=0.28,
        max_importance_weight=2.0,
    )


def gradient_of(ratio: float, advantage: float) -> float:
    logps = torch.tensor([math.log(ratio)], requires_grad=True)
    found = policy_loss(
        logps,
        torch.zeros(1),
        torch.tensor([advantage]),
        num_tokens=1,
        clip_low=0.2,
        clip_high=0.28,
        max_importance_weight=2.0,
    )
    found.loss.backward()
    assert logps.grad is not None
    return float(logps.grad[0])


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


def test_a_stale_negative_token_beyond_the_dual_clip_pushes_no_further() -> None:
    assert gradient_of(9.0, -1.0) == 0.0


def test_the_gradient_inside_the_clip_is_ratio_times_advantage() -> None:
    assert gradient_of(1.1, 0.5) == pytest.approx(-0.55, abs=1e-6)


def test_a_token_that_was_impossible_when_it_was_sampled_gives_a_finite_loss_and_gradient() -> None:
    logps = torch.tensor([0.0], requires_grad=True)
    found = policy_loss(
        logps,
        torch.tensor([-1e4]),
        torch.tensor([-1.0]),
        num_tokens=1,
        clip_low=0.2,
        clip_high=0.28,
        max_importance_weight=2.0,
    )
    found.loss.backward()
    assert logps.grad is not None and torch.isfinite(found.loss) and torch.isfinite(logps.grad).all()


def test_the_normaliser_is_the_minibatch_and_not_the_tokens_given() -> None:
    assert float(loss_of([1.0, 1.0], [1.0, 1.0], num_tokens=8).loss) == pytest.approx(-0.25)


def test_sums_are_as_worked_by_hand() -> None:
    found = loss_of([1.5, 0.5, 1.0], [1.0, -1.0, 1.0])
    assert int(found.num_clipped) == 2 and found.num_tokens == 3
    assert float(found.sum_ratio) == pytest.approx(3.0)
    assert float(found.sum_ratio_squared) == pytest.approx(2.25 + 0.25 + 1.0)
    assert float(found.sum_kl) == pytest.approx(-math.log(1.5) - math.log(0.5), abs=1e-6)


def test_the_metrics_hold_no_gradient() -> None:
    logps = torch.zeros(2, requires_grad=True)
    found = policy_loss(
        logps,
        torch.zeros(2),
        torch.ones(2),
        num_tokens=2,
        clip_low=0.2,
        clip_high=0.28,
        max_importance_weight=2.0,
    )
    parts = (found.num_clipped, found.sum_ratio, found.sum_ratio_squared, found.sum_kl)
    assert not any(part.requires_grad for part in parts)


def test_token_logps_are_those_of_a_softmax_written_out() -> None:
    logits = [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]
    expected = [1.0 - math.log(sum(map(math.exp, logits[0]))), 3.0 - math.log(sum(map(math.exp, logits[1])))]
    found = token_logps(torch.tensor(logits), torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx(expected)


def test_token_logps_of_bfloat16_logits_are_computed_in_float32() -> None:
    logits = torch.randn(3, 50).bfloat16()
    assert torch.equal(token_logps(logits, torch.zeros(3).long()), logits.float().log_softmax(-1)[:, 0])
