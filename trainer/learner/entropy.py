"""The policy's entropy where it trains, of a sample of the tokens.

Exact at each place that is asked: the mean of -log pi of what was sampled would be free, but it is another number
wherever clients sample at a temperature other than 1.

Shapes: N trained tokens, D hidden, V vocabulary.
"""

import torch

from trainer.learner.logps import Head

EVERY = 16
"""Of so many trained tokens one is asked: a hundredth of a step's time with SmolLM2-135M, and thousands a batch."""


def sampled_entropy(head: Head, hidden_ND: torch.Tensor, max_tokens: int) -> tuple[torch.Tensor, int]:
    """The sum of entropies in nats at temperature 1 over every 16th token, of `max_tokens` at most, and their number.

    At least one is asked, and nothing has a gradient.
    """
    every = max(EVERY, -(-len(hidden_ND) // max_tokens))
    with torch.no_grad():
        logps_NV = torch.log_softmax(head(hidden_ND[::every].detach()).float(), dim=-1)
        return -(logps_NV.exp() * logps_NV).sum(), len(logps_NV)
