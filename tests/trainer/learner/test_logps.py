import math

import pytest
import torch

from trainer.learner.logps import token_logps


def test_token_logps_are_those_of_a_softmax_written_out() -> None:
    logits = [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]]
    expected = [1.0 - math.log(sum(map(math.exp, logits[0]))), 3.0 - math.log(sum(map(math.exp, logits[1])))]
    found = token_logps(torch.tensor(logits), torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx(expected)


def test_token_logps_of_bfloat16_logits_are_computed_in_float32() -> None:
    logits = torch.randn(3, 50).bfloat16()
    assert torch.equal(token_logps(logits, torch.zeros(3).long()), logits.float().log_softmax(-1)[:, 0])
