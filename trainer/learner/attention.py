"""Who sees whom in packed rows, as transformers' attention computes it.

transformers hands what a forward pass is called with on to the attention of each layer: `seen` is the row's layout, and
attends by itself. Without one, attention is causal, by PyTorch's own kernel.

A mask of T x T costs all of T x T on a CPU, seen or not. `Runs` attends piece by piece instead, and computes what is
seen and little else; on a GPU `Blocks` leaves out what a block of places does not see of another.

Shapes: B rows, H heads, G of keys and values, T places, K blocks of them, d of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

PIECEWISE = "onstream"
"""The name of this attention in transformers."""
MAX_BRANCH = 128
"""Places of a run with a mask. Shorter ones would call the kernel more often, longer ones mask more."""
_BLOCK = 128
"""Places of a block of FlexAttention, its default."""
_WHOLE = "full_attention"

Seen = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float | None], torch.Tensor]
"""Attention over one row: queries BHTd, keys and values BGTd and a scale to BHTd, with B = 1."""


@dataclass(frozen=True)
class Run:
    """Places `[start, end)`, each of which sees the one before it, and all of them `before_P`."""

    start: int
    end: int
    before_P: NDArray[np.int64]


def runs(until_T: NDArray[np.int64], max_branch: int = MAX_BRANCH) -> list[Run]:
    """A row cut where a place does not see the one before it (`trainer.learner.packing`).

    Samples branch off nowhere else, so inside a run attention is causal. A run that branched off is cut again, into
    runs of at most `max_branch` places, since it needs a mask, half of which over its own places is false.
    """
    starts = [0, *(np.flatnonzero(until_T[:-1] <= np.arange(1, len(until_T))) + 1).tolist()]
    found = []
    for start, end in pairwise([*starts, len(until_T)]):
        is_branch = bool((until_T[:start] > start).any())
        cuts = range(start, end, max_branch if is_branch else end - start)
        found += [Run(a, b, np.flatnonzero(until_T[:a] > a)) for a, b in pairwise([*cuts, end])]
    return found


class Runs:
    """Attention run by run: causal, and for those that branch off also over what they branched off from."""

    def __init__(self, until_T: NDArray[np.int64], device: str, max_branch: int = MAX_BRANCH) -> None:
        found = runs(until_T, max_branch)
        self._lengths = [run.end - run.start for run in found]
        self._before = [torch.from_numpy(run.before_P).to(device) if len(run.before_P) else None for run in found]
        self._masks = [_of_branch(run, device) if len(run.before_P) else None for run in found]

    def __call__(
        self, query_BHTd: torch.Tensor, key_BGTd: torch.Tensor, value_BGTd: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        cut = [whole.split(self._lengths, dim=2) for whole in (query_BHTd, key_BGTd, value_BGTd)]
        parts = []
        for query, key, value, before, mask in zip(*cut, self._before, self._masks, strict=True):
            if before is not None:
                key = torch.cat([key_BGTd.index_select(2, before), key], dim=2)
                value = torch.cat([value_BGTd.index_select(2, before), value], dim=2)
            parts.append(
                F.scaled_dot_product_attention(
                    query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
                )
            )
        return torch.cat(parts, dim=2)


def _of_branch(run: Run, device: str) -> torch.Tensor:
    """True where a place of a run sees one of those before it, or of its own: all of the former."""
    num, before = run.end - run.start, len(run.before_P)
    return torch.ones(num, before + num, dtype=torch.bool, device=device).tril(before)


class Blocks:
    """Attention by FlexAttention, which leaves out blocks in which nothing is seen. Compiled where there is a GPU."""

    def __init__(self, until_T: NDArray[np.int64], device: str) -> None:
        until = torch.from_numpy(until_T).to(device)

        def is_seen(_row: Any, _head: Any, place: Any, of: Any) -> Any:
            return (of <= place) & (place < until[of])

        some_KK, all_KK = blocks(until_T)
        self.mask = BlockMask.from_kv_blocks(
            *_listed(some_KK & ~all_KK, device),
            *_listed(all_KK, device),
            BLOCK_SIZE=_BLOCK,
            mask_mod=is_seen,
            seq_lengths=(len(until_T), len(until_T)),
        )

    def __call__(
        self, query_BHTd: torch.Tensor, key_BGTd: torch.Tensor, value_BGTd: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        # in a layer that is compiled it becomes part of that
        is_alone = query_BHTd.is_cuda and not torch.compiler.is_compiling()
        attend = _compiled() if is_alone else flex_attention
        return attend(query_BHTd, key_BGTd, value_BGTd, block_mask=self.mask, scale=scale, enable_gqa=True)


def blocks(until_T: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which blocks see some of which, and which all of them: rows see columns.

    `create_block_mask` says the same by way of all T x T, in 2.5 GiB for 16,384 places.
    """
    starts_K = np.arange(0, len(until_T), _BLOCK)
    is_earlier_KK = np.tri(len(starts_K), k=-1, dtype=bool)
    last_K, first_K = (way.reduceat(until_T, starts_K) for way in (np.maximum, np.minimum))
    some_KK = is_earlier_KK & (last_K > starts_K[:, None])
    return some_KK | np.eye(len(starts_K), dtype=bool), is_earlier_KK & (first_K >= starts_K[:, None] + _BLOCK)


def _listed(which_KK: NDArray[np.bool_], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """How many there are in each row, and the columns of these first: as FlexAttention has them, for all heads."""
    columns_KK = np.argsort(~which_KK, axis=1, kind="stable")
    counted_K, ordered_KK = (
        torch.from_numpy(own.astype(np.int32)).to(device) for own in (which_KK.sum(axis=1), columns_KK)
    )
    return counted_K[None, None], ordered_KK[None, None]


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def seen_in(until_T: NDArray[np.int64], device: str) -> Seen:
    """How a row's places see each other, by what suits the device."""
    return Blocks(until_T, device) if torch.device(device).type == "cuda" else Runs(until_T, device)


def _attention(
    module: torch.nn.Module,
    query_BHTd: torch.Tensor,
    key_BGTd: torch.Tensor,
    value_BGTd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    seen: Seen | None = None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: gives BTHd."""
    if seen is not None:
        return seen(query_BHTd, key_BGTd, value_BGTd, scaling).transpose(1, 2).contiguous(), None
    out_BTHd, _ = sdpa_attention_forward(
        module, query_BHTd, key_BGTd, value_BGTd, attention_mask, scaling=scaling, **rest
    )
    return out_BTHd, None


AttentionInterface.register(PIECEWISE, _attention)


def windows(config: PretrainedConfig) -> str | None:
    """What in a model's attention packed rows would overrule, as an error tells it; `None`: all of it is causal.

    No forward pass of a few tokens could show it: a window of thousands sees them all.
    """
    kinds = sorted(set(getattr(config, "layer_types", None) or (_WHOLE,)) - {_WHOLE})
    if kinds:
        return f"layers of {', '.join(kinds)}"
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        return f"a sliding window of {window}"
    return None
