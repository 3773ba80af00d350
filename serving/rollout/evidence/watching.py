"""The watch over a version that was promoted: some sessions stay on the version before, and show what it would do."""

import math

from serving.rollout.evidence.judging import Standing, Verdict, harm, numbers_of
from serving.rollout.evidence.tally import Totals


def watch(tally: Totals, alpha: float, max_units: int, max_s: float, min_units: int = 0) -> Standing:
    """Whether the promoted version is worse after all than the one before, which the holdback's sessions have.

    REJECT means roll back: D >= 1/alpha for the reward, or G/alpha for one of G guardrails (Bonferroni), or a split
    that is not its coin's. A version that is not worse in anything is taken back with probability at most 2 alpha,
    however often this is asked (Ville, once for the reward and once for all guardrails).

    PASS is the watch's end without an alarm: after `max_units` sessions that count, or `max_s` seconds in which
    sessions came, if they are `min_units` at least. It says no more than that.
    """
    numbers = numbers_of(tally)
    numbers["log_threshold"] = -math.log(alpha)
    alarm = harm(tally, numbers, alpha)
    if alarm:
        return Standing(Verdict.REJECT, alarm, numbers)
    units = sum(tally.num.values())
    on, off = (f"{tally.num[arm]} {arm}" for arm in (tally.treated, tally.control))
    most = max((number for name, number in numbers.items() if name.startswith("log_harm.")), default=0.0)
    stands = f"{on} and {off} {tally.noun}, the most harm e^{most:.2f} of e^{-math.log(alpha):.2f}"
    if units >= max_units or (numbers["age_s"] >= max_s and units >= min_units):
        limit = f"{max_units} {tally.noun}" if units >= max_units else f"{max_s:.0f} s"
        return Standing(Verdict.PASS, f"no alarm within {limit}: {stands}", numbers)
    return Standing(Verdict.HOLD, stands, numbers)
