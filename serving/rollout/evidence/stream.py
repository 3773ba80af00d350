"""The level of each candidate in an endless stream of them: e-LOND. Pure.

The share of bad versions among those promoted is, in expectation, at most alpha, whatever the candidates have to do
with each other: Xu and Ramdas, "Online multiple testing with e-values", AISTATS 2024, arXiv:2311.06412, theorem 1.
"""

import math

# sum over all j, from above: two million terms are 3.31882, and 1 / log(n) bounds the rest
_GAMMA_TOTAL = 3.38774


def level(alpha: float, trial: int, promotions: int) -> float:
    """e-LOND's level for the `trial`-th candidate (from 1) after `promotions` earlier ones; never above `alpha`:
    alpha gamma_j (1 + promotions), with gamma_j ~ 1 / (j log^2(j + 1)) adding up to 1 (Xu and Ramdas, section 3)."""
    return min(alpha, alpha * _gamma_weight(trial) / _GAMMA_TOTAL * (1 + promotions))


def _gamma_weight(j: int) -> float:
    return 1.0 / (j * math.log(j + 1) ** 2)
