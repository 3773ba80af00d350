"""What two lists of numbers say of each other: distributions, and how far they agree on what is better. Pure."""

import numpy as np
from numpy.typing import NDArray

from ingest.records.events import Frozen

NUM_BINS = 20
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Distribution(Frozen):
    """Of numbers in [0, 1]. `quantiles` are those of `QUANTILES`, `bins` counts in `NUM_BINS` of equal width."""

    num: int
    mean: float
    quantiles: tuple[float, ...]
    bins: tuple[int, ...]


class Ranks(Frozen):
    """How far two lists agree on order. Correlations are none where one list is all alike.

    `kendall` is tau-b. Of the `num_pairs` that the old values put in an order, the new ones put `num_flipped` in the
    other, and `num_tied` in none.
    """

    spearman: float | None
    kendall: float | None
    num_pairs: int
    num_flipped: int
    num_tied: int


def distribution(values: Floats) -> Distribution | None:
    """None where there are no values."""
    if not values.size:
        return None
    bins, _ = np.histogram(values, NUM_BINS, (0.0, 1.0))
    quantiles = np.quantile(values, QUANTILES)
    return Distribution(
        num=values.size, mean=float(values.mean()), quantiles=tuple(quantiles.tolist()), bins=tuple(bins.tolist())
    )


def ranks(old: Floats, new: Floats) -> Ranks:
    """Of values of the same things, in the same order.

    Pairs are counted in n log n steps, after W. R. Knight, "A computer method for calculating Kendall's tau with
    ungrouped data", JASA 61 (1966).
    """
    first, second = _dense(old), _dense(new)
    num_all = _pairs(np.array([old.size]))
    tied_old, tied_new = _pairs(np.bincount(first)), _pairs(np.bincount(second))
    width = int(second.max(initial=0)) + 1
    tied_both = _pairs(np.unique(first * width + second, return_counts=True)[1])
    flipped = num_inversions(second[np.lexsort((second, first))])
    kept = num_all - tied_old - tied_new + tied_both - flipped
    scale = float(num_all - tied_old) ** 0.5 * float(num_all - tied_new) ** 0.5
    return Ranks(
        spearman=_correlation(_mean_ranks(first), _mean_ranks(second)),
        kendall=(kept - flipped) / scale if scale else None,
        num_pairs=num_all - tied_old,
        num_flipped=flipped,
        num_tied=tied_new - tied_both,
    )


def num_inversions(values: Ints) -> int:
    """Pairs of which the earlier is the greater. Values are 0 or more; one stable sort for each of their bits."""
    total = 0
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        ones = (values >> bit) & 1
        before = np.cumsum(ones) - ones
        prefix = values >> (bit + 1)
        begins = np.flatnonzero(np.diff(prefix, prepend=-1))
        lengths = np.diff(begins, append=values.size)
        within = before - np.repeat(before[begins], lengths)
        total += int(within[ones == 0].sum())
        values = values[np.argsort(values >> bit, kind="stable")]
    return total


def _dense(values: Floats) -> Ints:
    """Each value's place among the different ones, from 0. Differences in the last digits are none."""
    return np.unique(np.round(values, 12), return_inverse=True)[1].astype(np.int64)


def _mean_ranks(dense: Ints) -> Floats:
    """Ranks from 1, those of equal values their mean."""
    counts = np.bincount(dense)
    return (np.cumsum(counts) - (counts - 1) / 2)[dense]


def _pairs(counts: Ints) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _correlation(one: Floats, other: Floats) -> float | None:
    if one.size < 2 or not one.std() or not other.std():
        return None
    return float(np.corrcoef(one, other)[0, 1])
