"""The product's own code over simulated trials, session by session: the session at which it decides, to compare."""

import math
import time
import tracemalloc
from typing import Any

import numpy as np
from rules import ALPHA, NEVER, SILENCE
from worlds import MARGIN, Trials

from infra.config import GateConfig
from ingest.records.events import Arm, Assignment, Reward, Source
from serving.rollout.evidence import REWARD, Baseline, Design, Evidence, Process, Unit, judge
from serving.rollout.evidence.tally import Sessions

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


def by_revisions(trials: Trials, row: int, settle: float) -> int:
    """`Process`, in the order in which outcomes become known: silence first where that counts first."""
    assert trials.known_at is not None and trials.first_at is not None
    began = np.arange(trials.outcome.shape[1])
    first = np.maximum(trials.first_at[row], began + settle).tolist()
    known = np.maximum(trials.known_at[row], began + settle).tolist()
    events = [(at, 0, n, SILENCE) for n, at in enumerate(first) if known[n] > at]
    events += [(at, 1, n, float(trials.outcome[row, n])) for n, at in enumerate(known)]
    held = Process(Design(baseline(trials, row), MARGIN))
    for at, revision, n, outcome in sorted(events):
        held.add(n, revision, bool(trials.treated[row, n]), float(trials.pi[n]), outcome)
        if held.log_e >= LINE:
            return int(at) + 1
    return NEVER


def by_tally(trials: Trials, row: int, max_units_per_user: int) -> int:
    """`Tally`, with the cap on a user's sessions."""
    assert trials.user is not None
    config = GateConfig(margin=MARGIN, guardrails=(), settle_s=0, max_units_per_user=max_units_per_user)
    held, base = Sessions(), {REWARD: baseline(trials, row)}
    for n in range(trials.outcome.shape[1]):
        arm, pi = (Arm.CANDIDATE, trials.pi[n]) if trials.treated[row, n] else (Arm.STABLE, 1 - trials.pi[n])
        outcome, user = float(trials.outcome[row, n]), f"u{trials.user[row, n]}"
        held.put(Unit(f"s{n}", f"s{n}", 1, 0.0, True, arm, float(pi), outcome, (), (), "t", user, float(n)))
        if held.tally(base, config, Arm.CANDIDATE, Arm.STABLE).measured[REWARD].evidence.log >= LINE:
            return n + 1
    return NEVER


# -- what a unit costs

CONFIG = GateConfig(settle_s=10.0, max_units=1_000_000, min_champion_units=2)
FEW, MANY, TIMED = 100, 100_000, 1_000


def rewards(begin: int, end: int) -> list[Reward]:
    """Sessions of a trial at even shares, a user each, with every guardrail of the default gate."""
    rng = np.random.default_rng(begin)
    rails = {rail.name: 1.0 for rail in CONFIG.guardrails}
    found = []
    for n in range(begin, end):
        arm, version = (Arm.CANDIDATE, 7) if rng.random() < 0.5 else (Arm.STABLE, 6)
        given: dict[str, Any] = {
            "reward_id": f"{n:064x}", "trajectory_id": f"{n:064x}", "session_id": f"session-{n:08d}", "tenant": "t",
            "user": f"u-{n:016x}", "assignment": Assignment(arm=arm, trial=7, propensity=0.5), "held_out": False,
            "opened_at": float(n), "trace_ids": (f"{n:016x}-{n:032x}",), "versions": (version,), "spec": "x",
            "components": (), "turns": (), "value": float(rng.random() < 0.6), "has_signal": True,
            "guardrails": rails | {"latency": float(rng.random())}, "source": Source(partition=0, offset=n), "at": 1.0,
        }  # fmt: skip
        found.append(Reward.model_validate(given))
    return found


def cost() -> dict[str, float]:
    """Processor time to file a reward and look at the trial, with some sessions in it and with many; and memory."""
    base = {name: Baseline(0.9, 0.09) for name in (REWARD, *(rail.name for rail in CONFIG.guardrails))}
    fresh = {size: rewards(size, size + TIMED) for size in (FEW, MANY)}
    worlds, memory = {}, 0.0
    for size in (FEW, MANY):
        before = rewards(0, size)
        tracemalloc.start()
        held = Evidence()
        for one in before:
            held.add(Reward.model_validate_json(one.model_dump_json()))
        memory = tracemalloc.get_traced_memory()[0] / size
        tracemalloc.stop()
        judge(held.trial(7, base, CONFIG), trial=1, promotions=0)
        worlds[size] = held
    least = dict.fromkeys(worlds, math.inf)
    for _ in range(10):
        for size, held in worlds.items():
            fork = Evidence()
            fork.trials[7] = Sessions(held.trials[7].units.values(), held.trials[7].newest_at)
            fork.trial(7, base, CONFIG)
            begun = time.process_time()
            for one in fresh[size]:
                fork.add(one)
                judge(fork.trial(7, base, CONFIG), trial=1, promotions=0)
            least[size] = min(least[size], (time.process_time() - begun) / TIMED * 1e6)
    return {
        "unit_us.100": least[FEW],
        "unit_us.100000": least[MANY],
        "unit_us_ratio": least[MANY] / least[FEW],
        "bytes_per_unit": memory,
    }
