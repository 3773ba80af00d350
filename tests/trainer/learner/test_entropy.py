import math

import torch

from trainer.learner.entropy import sampled_entropy


def head(hidden_ND: torch.Tensor) -> torch.Tensor:
    return hidden_ND


def test_of_many_tokens_every_sixteenth_is_asked_and_exact_without_a_gradient() -> None:
    """A coin at the places asked, a fair choice of four anywhere else."""
    hidden_ND = torch.zeros(1025, 4, requires_grad=True)
    coin = hidden_ND + torch.tensor([0.0, 0.0, -1e4, -1e4]) * (torch.arange(1025) % 16 == 0).unsqueeze(1)
    total, num = sampled_entropy(head, coin, 512)
    assert num == 65 and not total.requires_grad
    assert math.isclose(float(total), 65 * math.log(2.0), rel_tol=1e-6)


def test_of_few_tokens_all_are_asked() -> None:
    total, num = sampled_entropy(head, torch.zeros(100, 4), 512)
    assert num == 100 and math.isclose(float(total), 100 * math.log(4.0), rel_tol=1e-6)


def test_no_more_tokens_are_asked_than_may_have_their_logits_in_memory() -> None:
    assert sampled_entropy(head, torch.zeros(1000, 4), 10)[1] == 10
    assert sampled_entropy(head, torch.zeros(1, 4), 10)[1] == 1
