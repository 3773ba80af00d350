"""The gate: a betting e-process that has to be convinced before a candidate serves everyone.

Unit i is one session, with coin A_i ~ Bernoulli(pi_i) logged when it was assigned, and outcome Y_i in [0, 1]. With
the champion's mean c and variance s^2 frozen before the trial:

    phi_i = A_i (Y_i - c) / pi_i - (1 - A_i) (Y_i - c) / (1 - pi_i)          E[phi_i | past] = effect of the candidate
    E_n   = (1/K) sum_k prod_i (1 + lambda_ki (phi_i + delta))               evidence against "worse by delta or more"
    D_n   = (1/K) sum_k prod_i (1 - lambda_ki phi_i)                         evidence that it is worse at all
    lambda_ki = min(m_k delta / v_i, 1 / (2 B_i)),  v_i = s^2 / pi_i + s^2 / (1 - pi_i)
    B_i   = max(c / pi_i, (1 - c) / (1 - pi_i)) for E,  max((1 - c) / pi_i, c / (1 - pi_i)) for D

Each product is a nonnegative supermartingale that starts at 1 under its null, so by Ville's inequality
P(exists n: E_n >= 1/alpha) <= alpha however often one looks, whatever the outcomes' distribution and drift, and
through any ramp of pi that was logged. Waudby-Smith and Ramdas, JRSS-B 2024, arXiv:2010.09686, section 4; the
inverse-propensity form is the off-policy confidence sequence of the same authors. Across the endless stream of
candidates the level of the j-th is alpha_j = alpha gamma_j (1 + promotions so far), e-LOND of Xu and Ramdas, AISTATS
2024, arXiv:2311.06412. The bets are fixed, so evidence is a product of factors: it does not depend on the order in
which rewards arrive, and it can be computed again from the log.

One session multiplies a product by at most its factor at the outcome and arm that favour it most, and so the mixture,
a mean of products. Of one user at most `max_units_per_user` sessions count (`serving.rollout.caps`), so one user moves
log E by at most that many logs of the largest factor, and a bound is reached by no fewer users than its ratio to this.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from infra.config import GateConfig
from ingest.records.events import Arm
from serving.rollout import caps

_BETS = (0.5, 1.0, 2.0, 4.0, 8.0)
_SPLIT_STAKES = (-0.5, -0.2, -0.1, 0.1, 0.2, 0.5)
_SPLIT_LINE = -math.log(0.001)
_MIN_VARIANCE = 1e-4


class Verdict(StrEnum):
    """What the evidence allows."""

    HOLD = "hold"
    PASS = "pass"  # noqa: S105 - no password
    REJECT = "reject"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Baseline:
    """The champion's outcome before the trial: mean and variance, frozen."""

    mean: float
    variance: float

    @classmethod
    def of(cls, outcomes: Iterable[float]) -> "Baseline":
        """From at least one outcome in [0, 1]."""
        values = tuple(outcomes)
        mean = math.fsum(values) / len(values)
        return cls(mean, max(_MIN_VARIANCE, math.fsum((y - mean) ** 2 for y in values) / len(values)))


@dataclass(frozen=True)
class Unit:
    """One session of the trial. `guardrails` are outcomes in [0, 1] that are no part of the reward.

    `user` is a pseudonym, empty where none is known; `began_at` is Unix time.
    """

    session_id: str
    arm: Arm
    propensity: float
    reward: float
    guardrails: Mapping[str, float]
    tenant: str = ""
    user: str = ""
    began_at: float = 0.0

    @property
    def pi(self) -> float:
        """Probability with which the coin could have chosen the candidate."""
        return self.propensity if self.arm is Arm.CANDIDATE else 1.0 - self.propensity


def score(arm: Arm, pi: float, outcome: float, mean: float) -> float:
    """phi: an unbiased estimate of the candidate's effect from one unit."""
    if arm is Arm.CANDIDATE:
        return (outcome - mean) / pi
    return -(outcome - mean) / (1.0 - pi)


def log_evidence(units: Iterable[tuple[Arm, float, float]], baseline: Baseline, margin: float) -> float:
    """Natural log of E_n: evidence that the candidate is not worse by `margin` or more.

    `units` holds (arm, pi, outcome). Zero units give 0, the start of every e-process.
    """
    return _log_mixture(units, baseline, margin, shift=margin, sign=1.0)


def log_harm(units: Iterable[tuple[Arm, float, float]], baseline: Baseline, margin: float) -> float:
    """Natural log of D_n: evidence that the candidate is worse. `margin` only scales the bets."""
    return _log_mixture(units, baseline, margin, shift=0.0, sign=-1.0)


def _log_mixture(
    units: Iterable[tuple[Arm, float, float]], baseline: Baseline, margin: float, shift: float, sign: float
) -> float:
    logs = [0.0] * len(_BETS)
    for arm, pi, outcome in units:
        phi = score(arm, pi, outcome, baseline.mean)
        for k, stake in enumerate(_stakes(pi, baseline, margin, sign)):
            logs[k] += math.log1p(stake * sign * (phi + shift))
    most = max(logs)
    return most + math.log(math.fsum(math.exp(value - most) for value in logs) / len(logs))


def _stakes(pi: float, baseline: Baseline, margin: float, sign: float) -> list[float]:
    variance = baseline.variance / pi + baseline.variance / (1.0 - pi)
    low, high = baseline.mean, 1.0 - baseline.mean
    bound = max(low / pi, high / (1.0 - pi)) if sign > 0 else max(high / pi, low / (1.0 - pi))
    return [min(bet * margin / variance, 0.5 / bound) for bet in _BETS]


def most_evidence(pi: float, baseline: Baseline, margin: float) -> tuple[float, float]:
    """The most by which one session can raise, and lower, log E_n; neither is negative."""
    return _most(pi, baseline, margin, shift=margin, sign=1.0)


def most_harm(pi: float, baseline: Baseline, margin: float) -> tuple[float, float]:
    """The most by which one session can raise, and lower, log D_n."""
    return _most(pi, baseline, margin, shift=0.0, sign=-1.0)


def _most(pi: float, baseline: Baseline, margin: float, shift: float, sign: float) -> tuple[float, float]:
    moves = [
        math.log1p(stake * sign * (score(arm, pi, outcome, baseline.mean) + shift))
        for arm in Arm
        for outcome in (0.0, 1.0)
        for stake in _stakes(pi, baseline, margin, sign)
    ]
    return max(moves), -min(moves)


def log_mismatch(units: Iterable[tuple[Arm, float]]) -> float:
    """Natural log of an e-value against "the coin was pi", from (arm, pi): the sample-ratio check.

    A mixture over both directions and three sizes of bet on A_i - pi_i, each stake at most 1/2.
    """
    logs = [0.0] * len(_SPLIT_STAKES)
    for arm, pi in units:
        surprise = (1.0 if arm is Arm.CANDIDATE else 0.0) - pi
        for k, stake in enumerate(_SPLIT_STAKES):
            logs[k] += math.log1p(stake * surprise)
    most = max(logs)
    return most + math.log(math.fsum(math.exp(value - most) for value in logs) / len(logs))


def _gamma_weight(j: int) -> float:
    return 1.0 / (j * math.log(j + 1) ** 2)


# sum over all j, from above: two million terms are 3.31882, and 1 / log(n) bounds the rest
_GAMMA_TOTAL = 3.38774


def level(alpha: float, trial: int, promotions: int) -> float:
    """e-LOND's level for the `trial`-th candidate (from 1) after `promotions` earlier ones; never above `alpha`."""
    return min(alpha, alpha * _gamma_weight(trial) / _GAMMA_TOTAL * (1 + promotions))


@dataclass(frozen=True)
class Standing:
    """A trial at one moment: the verdict, the sentence for an operator, and the numbers it stands on."""

    verdict: Verdict
    reason: str
    numbers: dict[str, float]

    @property
    def num_units(self) -> int:
        """Sessions that count."""
        return int(sum(self.numbers.get(f"units.{arm}", 0.0) for arm in Arm))


def judge(
    units: tuple[Unit, ...],
    baselines: Mapping[str, Baseline],
    config: GateConfig,
    trial: int,
    promotions: int,
    age_s: float,
) -> Standing:
    """The verdict on a candidate from all its units so far.

    Only sessions that `serving.rollout.caps` lets count do. `baselines` holds "reward" and every guardrail. A promotion
    needs evidence for the reward and for every guardrail; one process that finds harm is enough to reject; no data and
    no time left is an expiry, never a pass.
    """
    threshold = -math.log(level(config.alpha, trial, promotions))
    num_given, units = len(units), caps.counted(units, config)
    numbers = _numbers(units, baselines, config)
    numbers |= {"log_threshold": threshold, "age_s": age_s, "units.capped": float(num_given - len(units))}
    numbers |= caps.shares(units) | _influence(units, baselines, config, threshold)
    harm = _harm(numbers, config)
    if harm:
        return Standing(Verdict.REJECT, f"{harm}; {_told(numbers, 'reject')}", numbers)
    evidence = {name: numbers.get(f"log_e.{name}", -math.inf) for name in _measured(config)}
    weakest = min(evidence, key=lambda name: evidence[name])
    bound = _told(numbers, "promote")
    arms = f"{numbers['units.candidate']:.0f} candidate and {numbers['units.stable']:.0f} stable sessions"
    if evidence[weakest] >= threshold:
        return Standing(
            Verdict.PASS,
            f"reward {numbers['reward.candidate']:.3f} against {numbers['reward.stable']:.3f} over {arms}; the weakest "
            f"evidence, of {weakest}, is e^{evidence[weakest]:.2f}, and e^{threshold:.2f} was needed; {bound}",
            numbers,
        )
    if len(units) >= config.max_units or age_s >= config.max_s:
        limit = f"{config.max_units} units" if len(units) >= config.max_units else f"{config.max_s:.0f} s"
        return Standing(
            Verdict.EXPIRE,
            f"no verdict within {limit} ({arms}): {weakest} has e^{evidence[weakest]:.2f} of e^{threshold:.2f}",
            numbers,
        )
    told = f"{weakest} has e^{evidence[weakest]:.2f} of e^{threshold:.2f} after {arms}"
    return Standing(Verdict.HOLD, f"{told}; {bound}", numbers)


REWARD = "reward"


def _measured(config: GateConfig) -> tuple[str, ...]:
    return (REWARD, *(rail.name for rail in config.guardrails))


def _margin(config: GateConfig, name: str) -> float:
    return next((rail.margin for rail in config.guardrails if rail.name == name), config.margin)


def _outcomes(units: tuple[Unit, ...], name: str) -> list[tuple[Arm, float, float]] | None:
    """(arm, pi, outcome) of every unit; `None` when a unit lacks this guardrail, which then cannot pass."""
    if name == REWARD:
        return [(unit.arm, unit.pi, unit.reward) for unit in units]
    if any(name not in unit.guardrails for unit in units):
        return None
    return [(unit.arm, unit.pi, unit.guardrails[name]) for unit in units]


def _numbers(units: tuple[Unit, ...], baselines: Mapping[str, Baseline], config: GateConfig) -> dict[str, float]:
    numbers: dict[str, float] = {"log_mismatch": log_mismatch((unit.arm, unit.pi) for unit in units)}
    for name in _measured(config):
        outcomes = _outcomes(units, name)
        if outcomes is None or name not in baselines:
            continue
        numbers[f"log_e.{name}"] = log_evidence(outcomes, baselines[name], _margin(config, name))
        numbers[f"log_harm.{name}"] = log_harm(outcomes, baselines[name], _margin(config, name))
        for arm in Arm:
            served = [outcome for given, _, outcome in outcomes if given is arm]
            if served:
                numbers[f"{name}.{arm}"] = math.fsum(served) / len(served)
    for arm in Arm:
        numbers[f"units.{arm}"] = float(sum(unit.arm is arm for unit in units))
    return numbers


def _influence(
    units: tuple[Unit, ...], baselines: Mapping[str, Baseline], config: GateConfig, threshold: float
) -> dict[str, float]:
    """What one user can do, and how few can bring about a verdict; over all shares of the ramp and of `units`.

    `log_e.user` is the most by which one user raises or lowers any evidence, `log_harm.user` by which they raise any
    that ends the trial.
    """
    pis = {step.share for step in config.ramp} | {unit.pi for unit in units}
    most = config.max_units_per_user
    split = max(math.log1p(max(_SPLIT_STAKES) * max(pi, 1.0 - pi)) for pi in pis)
    needed, moved, harmed = [1], [0.0], [most * split]
    enough = [math.ceil(_SPLIT_LINE / (most * split))]
    for name in _measured(config):
        if name not in baselines:
            continue
        given = (baselines[name], _margin(config, name))
        helps, hurts = ([f(pi, *given) for pi in pis] for f in (most_evidence, most_harm))
        help_most, hurt_most = (most * max(up for up, _ in moves) for moves in (helps, hurts))
        moved += [help_most, *(most * down for _, down in helps)]
        harmed.append(hurt_most)
        needed.append(math.ceil(threshold / help_most))
        enough.append(math.ceil(_harm_line(config, name) / hurt_most))
    return {
        "log_e.user": max(moved),
        "log_harm.user": max(harmed),
        "users_needed.promote": float(max(needed)),
        "users_needed.reject": float(min(enough)),
    }


def _told(numbers: Mapping[str, float], verdict: str) -> str:
    """The bound, as a part of a sentence."""
    name = "log_e.user" if verdict == "promote" else "log_harm.user"
    least = numbers[f"users_needed.{verdict}"]
    return f"one user moves this by at most e^{numbers[name]:.2f}, and fewer than {least:.0f} cannot {verdict} it"


def _harm_line(config: GateConfig, name: str) -> float:
    """Log of the harm at which a trial ends. Guardrails share `alpha_rollback` among them."""
    shared = 0.0 if name == REWARD else math.log(max(1, len(config.guardrails)))
    return shared - math.log(config.alpha_rollback)


def _harm(numbers: Mapping[str, float], config: GateConfig) -> str | None:
    """Why to reject: a process over its bound."""
    line = _harm_line(config, REWARD)
    if numbers.get("log_harm.reward", 0.0) >= line:
        return (
            f"users are served worse: reward {numbers['reward.candidate']:.3f} against {numbers['reward.stable']:.3f} "
            f"over {numbers['units.candidate']:.0f} candidate sessions, harm e^{numbers['log_harm.reward']:.2f} "
            f"past e^{line:.2f}"
        )
    for rail in config.guardrails:
        shared = _harm_line(config, rail.name)
        if numbers.get(f"log_harm.{rail.name}", 0.0) >= shared:
            return (
                f"guardrail {rail.name} is hurt: {numbers.get(f'{rail.name}.candidate', 0.0):.3f} against "
                f"{numbers.get(f'{rail.name}.stable', 0.0):.3f}, harm e^{numbers[f'log_harm.{rail.name}']:.2f} "
                f"past e^{shared:.2f}"
            )
    if numbers["log_mismatch"] >= _SPLIT_LINE:
        return f"sessions were not split as their coin says (e^{numbers['log_mismatch']:.2f}): the trial is not valid"
    return None


def share_at(num_units: int, config: GateConfig) -> float:
    """The candidate's share after `num_units` of the trial."""
    for ramp in config.ramp:
        if ramp.until_units is None or num_units < ramp.until_units:
            return ramp.share
    return config.ramp[-1].share
