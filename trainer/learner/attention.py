"""Who sees whom in packed rows, as transformers' attention wants it.

Shapes: B rows, T places.
"""

import torch
from transformers import PretrainedConfig

_WHOLE = "full_attention"


def mask_of(until_BT: torch.Tensor) -> torch.Tensor:
    """True where the place of the third axis is seen by that of the second (`packing`): shape B x 1 x T x T.

    transformers takes a mask of four axes as it is and derives none of its own from positions.
    """
    places_T = torch.arange(until_BT.shape[1], device=until_BT.device)
    is_before_TT = places_T[None, :] <= places_T[:, None]
    return (is_before_TT & (places_T[:, None] < until_BT[:, None, :])).unsqueeze(1)


def windows(config: PretrainedConfig) -> str | None:
    """What in a model's attention a mask of ours would overrule, as an error tells it; `None`: all of it is causal.

    No forward pass of a few tokens could show it: a window of thousands sees them all.
    """
    kinds = sorted(set(getattr(config, "layer_types", None) or (_WHOLE,)) - {_WHOLE})
    if kinds:
        return f"layers of {', '.join(kinds)}"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"a sliding window of {window}"
    return None
