"""Log-probabilities of the tokens that train, and of no others.

Shapes: N trained tokens, V vocabulary.
"""

import torch
import torch.nn.functional as F


def token_logps(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Log-probability, in nats at temperature 1, of each target: shape N, float32."""
    return -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
