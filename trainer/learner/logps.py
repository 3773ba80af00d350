"""Log-probabilities of the tokens that train, and of no others.

Shapes: N trained tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

Head = Callable[[torch.Tensor], torch.Tensor]
"""Hidden states ND to logits NV."""


def token_logps(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Log-probability, in nats at temperature 1, of each target: shape N, float32."""
    return -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def chunked_logps(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor, chunk_tokens: int) -> torch.Tensor:
    """`token_logps` of `head(hidden_ND)`, with the logits of at most `chunk_tokens` tokens in memory at a time.

    The backward pass computes each chunk's logits again; a single chunk's are kept instead.
    """
    if len(targets_N) <= chunk_tokens:
        return token_logps(head(hidden_ND), targets_N)
    parts = zip(hidden_ND.split(chunk_tokens), targets_N.split(chunk_tokens), strict=True)
    return torch.cat([checkpoint(_of_chunk, head, *part, use_reentrant=False) for part in parts])


def _of_chunk(head: Head, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return token_logps(head(hidden_ND), targets_N)
