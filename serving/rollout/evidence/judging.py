"""The gate: evidence has to be convincing before a candidate serves everyone. Reads sums only.

A promotion needs E >= 1/alpha_j for the reward and for every guardrail: the least of several e-processes is evidence
against "one of these nulls holds", with no correction (intersection-union: Berger, Technometrics 1982). Harm ends a
trial at D >= 1/alpha_rollback for the reward, and at G/alpha_rollback for one of G guardrails (Bonferroni).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from infra.config import GateConfig
from serving.rollout.evidence import influence
from serving.rollout.evidence.lines import harm_line
from serving.rollout.evidence.stream import level
from serving.rollout.evidence.tally import REWARD, Totals

SPLIT_LINE = -math.log(0.001)


class Verdict(StrEnum):
    """What the evidence allows."""

    HOLD = "hold"
    PASS = "pass"  # noqa: S105 - no password
    REJECT = "reject"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Standing:
    """A trial at one moment: the verdict, the sentence for an operator, and the numbers it stands on."""

    verdict: Verdict
    reason: str
    numbers: dict[str, float]

    @property
    def num_units(self) -> int:
        """Sessions that count."""
        return int(sum(value for name, value in self.numbers.items() if name in _ARMS))


_ARMS = ("units.candidate", "units.stable", "units.holdback")


def judge(tally: Totals, trial: int, promotions: int, wall_s: float = 0.0) -> Standing:
    """The verdict on a candidate from its sessions so far.

    It is the `trial`-th one (from 1) after `promotions` earlier ones, and began `wall_s` ago by the caller's clock. At
    its level, e-LOND's (Xu and Ramdas), a version worse by the margin passes with at most that probability, however
    often this is asked (Ville). One process that finds harm is enough to reject. No data and no time left is an expiry,
    never a pass.
    """
    config = tally.config
    threshold = -math.log(level(config.alpha, trial, promotions))
    numbers = numbers_of(tally) | influence.numbers(tally, threshold, SPLIT_LINE)
    numbers |= {"log_threshold": threshold, "units_needed": needed(tally, threshold)}
    harmed = harm(tally, numbers, config.alpha_rollback)
    if harmed:
        return Standing(Verdict.REJECT, f"{harmed}; {influence.told(numbers, 'reject')}", numbers)
    weakest, has = _weakest(tally, numbers)
    arms = f"{numbers['units.candidate']:.0f} candidate and {numbers['units.stable']:.0f} stable {tally.noun}"
    if has >= threshold:
        return Standing(
            Verdict.PASS,
            f"reward {numbers['reward.candidate']:.3f} against {numbers['reward.stable']:.3f} over {arms}; the weakest "
            f"evidence, of {weakest}, is e^{has:.2f}, and e^{threshold:.2f} was needed{_not_judged(tally)}; "
            f"{influence.told(numbers, 'promote')}",
            numbers,
        )
    stands = _stands(tally, weakest, has, threshold)
    if limit := _limit(tally, numbers, wall_s):
        is_starved = numbers["units.settled"] < numbers["units_needed"]
        numbers["starved"] = float(is_starved)
        return Standing(Verdict.EXPIRE, f"{_expiry(tally, numbers, limit, is_starved)} ({arms}): {stands}", numbers)
    return Standing(Verdict.HOLD, f"{stands} after {arms}; {influence.told(numbers, 'promote')}", numbers)


def _limit(tally: Totals, numbers: Mapping[str, float], wall_s: float) -> str | None:
    """The limit that a trial is at. Its time is that in which sessions came; `max_wall_s` ends one nobody came to."""
    config = tally.config
    if numbers["units.settled"] >= config.max_units:
        return f"{config.max_units} units"
    if numbers["age_s"] >= config.max_s:
        return f"{config.max_s:.0f} s"
    if wall_s >= config.max_wall_s:
        return f"{config.max_wall_s:.0f} s by the clock"
    return None


def _expiry(tally: Totals, numbers: Mapping[str, float], limit: str, is_starved: bool) -> str:
    if not is_starved:
        return f"no verdict within {limit}"
    came, needs = numbers["units.settled"], numbers["units_needed"]
    return (
        f"starved: {came:.0f} {tally.noun} within {limit}, where a version better by the margin needs some {needs:.0f}"
    )


def needed(tally: Totals, threshold: float) -> float:
    """Units after which evidence for a candidate better by the margin is about to be enough, at the last share of the
    ramp; with fewer, a trial that ends has starved.

    log E grows by about x^2 / (2 v) a session at the best bet, x the distance from the null: Waudby-Smith and Ramdas,
    section 5.
    """
    if REWARD not in tally.measured:
        return 0.0
    design, pi = tally.measured[REWARD].design, tally.config.ramp[-1].share
    variance = design.baseline.variance / pi + design.baseline.variance / (1.0 - pi)
    return math.ceil(threshold * 2.0 * variance / (2.0 * design.margin) ** 2)


def numbers_of(tally: Totals) -> dict[str, float]:
    """What any verdict stands on."""
    arms = ((tally.treated, True), (tally.control, False))
    numbers = {"log_mismatch": tally.mismatch.log}
    for name, measured in tally.measured.items():
        numbers[f"log_e.{name}"], numbers[f"log_harm.{name}"] = measured.evidence.log, measured.harm.log
        for arm, is_treated in arms:
            if (mean := measured.mean(is_treated)) is not None:
                numbers[f"{name}.{arm}"] = mean
        if tally.lacking[name]:
            del numbers[f"log_e.{name}"]
            numbers[f"lacking.{name}"] = float(tally.lacking[name])
    numbers |= {f"units.{arm}": float(tally.num[arm]) for arm, _ in arms}
    numbers |= {
        "units.settled": float(tally.num_settled),
        "units.capped": float(len(tally.beginnings) - tally.beginnings.num_counted),
        "units.excluded": float(tally.num_excluded),
        "age_s": tally.beginnings.active_s,
    }
    return numbers | {f"unmeasured.{name}": 1.0 for name in unmeasured(tally)} | tally.beginnings.shares | tally.more


def unmeasured(tally: Totals) -> list[str]:
    """What has no baseline: nobody reported it of the champion."""
    return [name for name in (REWARD, *(rail.name for rail in tally.config.guardrails)) if name not in tally.measured]


def harm(tally: Totals, numbers: Mapping[str, float], alpha: float) -> str | None:
    """Why the treatment is harmful: a process over its line (Ville; Bonferroni over the guardrails)."""
    rails = [name for name in tally.measured if name != REWARD]
    for name in (REWARD, *rails):
        line = harm_line(tally.config, name, alpha)
        if numbers.get(f"log_harm.{name}", 0.0) < line:
            continue
        what = "users are served worse: reward" if name == REWARD else f"guardrail {name} is hurt:"
        on, off = (_mean(numbers.get(f"{name}.{arm}")) for arm in (tally.treated, tally.control))
        return (
            f"{what} {on} against {off} over {numbers[f'units.{tally.treated}']:.0f} {tally.treated} "
            f"{tally.noun}, harm e^{numbers[f'log_harm.{name}']:.2f} past e^{line:.2f}"
        )
    if numbers["log_mismatch"] >= SPLIT_LINE:
        return f"sessions were not split as their coin says (e^{numbers['log_mismatch']:.2f}): the trial is not valid"
    return None


def _mean(value: float | None) -> str:
    return "none yet" if value is None else f"{value:.3f}"


def _weakest(tally: Totals, numbers: Mapping[str, float]) -> tuple[str, float]:
    """The outcome with the least evidence. One that must be measured and is not has none at all."""
    optional = {rail.name for rail in tally.config.guardrails if not rail.required}
    evidence = {
        name: numbers.get(f"log_e.{name}", -math.inf)
        for name in (REWARD, *(rail.name for rail in tally.config.guardrails))
        if name in tally.measured or name not in optional
    }
    weakest = min(evidence, key=lambda name: evidence[name])
    return weakest, evidence[weakest]


def _stands(tally: Totals, weakest: str, has: float, threshold: float) -> str:
    if has > -math.inf:
        return f"{weakest} has e^{has:.2f} of e^{threshold:.2f}{_not_judged(tally)}"
    if weakest in tally.measured:
        return f"guardrail {weakest} is missing in {tally.lacking[weakest]} sessions, so nothing can be promoted"
    return f"{weakest} was not measured before the trial, so nothing can be promoted"


def _not_judged(tally: Totals) -> str:
    names = [rail.name for rail in tally.config.guardrails if not rail.required and rail.name not in tally.measured]
    return f" ({', '.join(names)} not judged: no client reports it)" if names else ""


def share_at(num_units: int, config: GateConfig) -> float:
    """The candidate's share after `num_units` of the trial."""
    for ramp in config.ramp:
        if ramp.until_units is None or num_units < ramp.until_units:
            return ramp.share
    return config.ramp[-1].share
