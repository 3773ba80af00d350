import math

import torch

from trainer.learner.entropy import sampled_entropy


def head(hidden_ND: torch.Tensor) -> torch.Tensor:
    return hidden_ND


def test_entropy_is_exact_at_every_sixteenth_token_and_has_no_gradient() -> None:
    """Half of a coin and nothing else at the places asked, a fair choice of four anywhere else."""
    hidden_ND = torch.zeros(33, 4, requires_grad=True)
    coin = hidden_ND + torch.tensor([0.0, 0.0, -1e4, -1e4]) * (torch.arange(33) % 16 == 0).unsqueeze(1)
    total, num = sampled_entropy(head, coin, 512)
    assert num == 3 and not total.requires_grad
    assert math.isclose(float(total), 3 * math.log(2.0), rel_tol=1e-6)


def test_no_more_tokens_are_asked_than_may_have_their_logits_in_memory() -> None:
    assert sampled_entropy(head, torch.zeros(1000, 4), 10)[1] == 10
    assert sampled_entropy(head, torch.zeros(1, 4), 10)[1] == 1
