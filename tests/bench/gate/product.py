"""The product's own code over simulated trials, session by session: the decision and the session it falls at."""

import math

from rules import ALPHA, NEVER
from worlds import MARGIN, Trials

from infra.config import GateConfig
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Design, Process, Unit
from serving.rollout.evidence.tally import REWARD, Sessions

LINE = -math.log(ALPHA)


def baseline(trials: Trials, row: int) -> Baseline:
    return Baseline(float(trials.mean[row, 0]), float(trials.variance[row, 0]))


def by_process(trials: Trials, row: int, for_harm: bool = False) -> int:
    """`Process`, in the order in which sessions began."""
    held = Process(Design(baseline(trials, row), MARGIN))
    rows = zip(trials.treated[row].tolist(), trials.pi.tolist(), trials.outcome[row].tolist(), strict=True)
    for n, (treated, pi, outcome) in enumerate(rows):
        held.add(n, 1, treated, pi, outcome)
        if (held.log_harm if for_harm else held.log_e) >= LINE:
            return n + 1
    return NEVER


def by_tally(trials: Trials, row: int, max_units_per_user: int) -> int:
    """`Tally`, with the cap on a user's sessions."""
    assert trials.user is not None
    config = GateConfig(margin=MARGIN, guardrails=(), settle_s=0, max_units_per_user=max_units_per_user)
    held, base = Sessions(), {REWARD: baseline(trials, row)}
    for n in range(trials.outcome.shape[1]):
        arm = Arm.CANDIDATE if trials.treated[row, n] else Arm.STABLE
        pi = float(trials.pi[n])
        held.put(
            Unit(
                f"s{n}", f"s{n}", 1, 0.0, True, arm, pi if arm is Arm.CANDIDATE else 1 - pi, float(trials.outcome[row, n]),
                (), (), "t", f"u{trials.user[row, n]}", float(n),
            )
        )  # fmt: skip
        tally = held.tally(base, config, Arm.CANDIDATE, Arm.STABLE)
        if tally.measured[REWARD].evidence.log >= LINE:
            return n + 1
    return NEVER
