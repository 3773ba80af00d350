"""The paired test: a prompt answered by both versions says more than two prompts. Before users meet a candidate.

With D_i in [-1, 1] the candidate's outcome less stable's on prompt i, and fixed stakes l_k of at most 1/2:

    E_n = (1/K) sum_k prod_i (1 + l_k (D_i + delta))      null "worse by delta or more": E[D_i | past] <= -delta
    H_n = (1/K) sum_k prod_i (1 - l_k D_i)                null "not worse": E[D_i | past] >= 0
"""

import math
from collections.abc import Hashable, Mapping
from functools import lru_cache

from serving.rollout.evidence.bets import PAIR_STAKES, SCALE, Logs, fixed
from serving.rollout.evidence.judging import Standing, Verdict
from serving.rollout.evidence.process import Sums


class Pairs:
    """The differences of one outcome so far, each prompt's once; the same whatever the order in which they come."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self._held: dict[Hashable, tuple[int, float]] = {}
        self._evidence, self._harm = Sums(len(PAIR_STAKES)), Sums(len(PAIR_STAKES))
        self._total = 0

    def add(self, prompt_key: Hashable, revision: int, difference: float) -> None:
        """Candidate less stable, in [-1, 1]; a later revision takes an earlier one's place, others change nothing."""
        before = self._held.get(prompt_key)
        if before is not None and before[0] >= revision:
            return
        if before is not None:
            self._total -= round(before[1] * SCALE)
            self._evidence.take(_factors(before[1] + self.margin))
            self._harm.take(_factors(-before[1]))
        self._held[prompt_key] = revision, difference
        self._total += round(difference * SCALE)
        self._evidence.put(_factors(difference + self.margin))
        self._harm.put(_factors(-difference))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def mean(self) -> float:
        return self._total / SCALE / max(1, len(self._held))

    @property
    def log_e(self) -> float:
        """Evidence that the candidate is not worse by the margin: a betting test of a bounded mean (Waudby-Smith and
        Ramdas, arXiv:2010.09686, theorem 1; Ville)."""
        return self._evidence.log

    @property
    def log_harm(self) -> float:
        """Evidence that the candidate is worse (the same, mirrored)."""
        return self._harm.log


def paired(outcomes: Mapping[str, Pairs], alpha: float, alpha_rollback: float, is_over: bool) -> Standing:
    """How a candidate stands beside stable on the prompts that both answered.

    REJECT: harm, at G/alpha_rollback for one of G outcomes (Bonferroni; Ville). PASS: "not worse by its margin" is
    shown at 1/alpha for every outcome (intersection-union). EXPIRE: neither, and `is_over`: no prompts are left. No
    outcome, or one without a pair, passes nothing.
    """
    threshold, line = -math.log(alpha), math.log(max(1, len(outcomes)) / alpha_rollback)
    numbers = {"log_threshold": threshold, "pairs": float(min(map(len, outcomes.values()), default=0))}
    for name, pairs in outcomes.items():
        numbers |= {f"log_e.{name}": pairs.log_e, f"log_harm.{name}": pairs.log_harm, f"difference.{name}": pairs.mean}
    for name, pairs in outcomes.items():
        if pairs.log_harm >= line:
            told = f"{name} is worse by {-pairs.mean:.3f} over {len(pairs)} prompts"
            told += f", harm e^{pairs.log_harm:.2f} past e^{line:.2f}"
            return Standing(Verdict.REJECT, told, numbers)
    weakest = min(outcomes, key=lambda name: outcomes[name].log_e, default=None)
    if weakest is None:
        return Standing(Verdict.EXPIRE if is_over else Verdict.HOLD, "no outcome was measured on any prompt", numbers)
    has = outcomes[weakest].log_e
    told = f"{weakest} has e^{has:.2f} of e^{threshold:.2f} over {len(outcomes[weakest])} prompts"
    if has >= threshold:
        return Standing(Verdict.PASS, f"not worse than stable on the same prompts: the weakest, {told}", numbers)
    if is_over:
        return Standing(Verdict.EXPIRE, f"no prompts are left, and {told}", numbers)
    return Standing(Verdict.HOLD, told, numbers)


@lru_cache(1 << 12)
def _factors(bet_on: float) -> Logs:
    return tuple(fixed(stake * bet_on) for stake in PAIR_STAKES)
