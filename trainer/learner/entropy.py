"""The policy's entropy where it trains, of a sample of the tokens.

Exact at each place that is asked: the mean of -log pi of what was sampled would be free, but it is another number
wherever clients sample at a temperature other than 1.

Shapes: N trained tokens, D hidden, V vocabulary.
"""

import torch

from trainer.learner.logps import Head

EVERY = 16
"""Of so many trained tokens one is asked where there are enough: a few hundredths of what their logits cost anyway."""
LEAST = 64
"""Tokens of a pass that are asked, as far as it has them: entropies differ much from token to token."""


def sampled_entropy(head: Head, hidden_ND: torch.Tensor, max_tokens: int) -> tuple[torch.Tensor, int]:
    """The sum of entropies in nats at temperature 1 over some of the tokens, `max_tokens` at most, and how many.

    Nothing has a gradient.
    """
    every = max(1, min(EVERY, len(hidden_ND) // LEAST), -(-len(hidden_ND) // max_tokens))
    with torch.no_grad():
        logps_NV = torch.log_softmax(head(hidden_ND[::every].detach()).float(), dim=-1)
        return -(logps_NV.exp() * logps_NV).sum(), len(logps_NV)
