"""The product's own code over simulated trials, session by session: the session at which it decides, to compare."""

import math
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
from rules import ALPHA, NEVER, SILENCE
from worlds import MARGIN, Trials

from infra.config import GateConfig
from ingest.records.events import Arm, Assignment, Reward, Source
from serving.rollout.evidence import REWARD, Baseline, Design, Evidence, Process, Unit, judge
from serving.rollout.evidence.blocks import with_whole
from serving.rollout.evidence.tally import Sessions
from serving.rollout.placement.blocks import Block

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
IN_BLOCKS, PER_BLOCK = with_whole(CONFIG, 0.3), 8
BASE = {name: Baseline(0.9, 0.09) for name in (REWARD, *(rail.name for rail in IN_BLOCKS.guardrails))}
FEW, MANY, TIMED, ROUNDS, WEIGHED = 100, 100_000, 200, 20, 10_000
VERSIONS = {Arm.CANDIDATE: 7, Arm.STABLE: 6}


def rewards(begin: int, end: int, turns: Sequence[Block] = ()) -> list[Reward]:
    """Sessions of a trial at even shares, a user each, with every guardrail of the default gate; in blocks, where arms
    take `turns`."""
    rng = np.random.default_rng(begin)
    rails = {rail.name: 1.0 for rail in CONFIG.guardrails}
    found = []
    for n in range(begin, end):
        block = turns[n // PER_BLOCK] if turns else None
        arm = block.arm if block else Arm.CANDIDATE if rng.random() < 0.5 else Arm.STABLE
        number = block.number if block else None
        given: dict[str, Any] = {
            "reward_id": f"{n:064x}", "trajectory_id": f"{n:064x}", "session_id": f"session-{n:08d}", "tenant": "t",
            "user": f"u-{n:016x}", "assignment": Assignment(arm=arm, trial=7, propensity=0.5, block=number),
            "held_out": False, "opened_at": float(n), "trace_ids": (f"{n:016x}-{n:032x}",),
            "versions": (VERSIONS[arm],), "spec": "x", "components": (), "turns": (),
            "value": float(rng.random() < 0.6), "has_signal": True,
            "guardrails": rails | {"latency": float(rng.random())}, "source": Source(partition=0, offset=n), "at": 1.0,
        }  # fmt: skip
        found.append(Reward.model_validate(given))
    return found


def blocks(num: int) -> list[Block]:
    """So many, of an arm each by an even coin."""
    arms = [Arm.CANDIDATE if side else Arm.STABLE for side in np.random.default_rng(num).random(num) < 0.5]
    times = [(float(n * PER_BLOCK), float((n + 1) * PER_BLOCK)) for n in range(num)]
    rows = zip(arms, times, strict=True)
    return [Block(n, arm, VERSIONS[arm], Arm.CANDIDATE, 0.5, *span) for n, (arm, span) in enumerate(rows)]


class Looks:
    """A trial that has so many sessions and its sums, and is given more. In blocks: a session comes when its block has
    ended, and the blocks until then are known."""

    def __init__(self, num: int, most: int = 0, in_blocks: bool = False) -> None:
        self.evidence, self.num = Evidence(), num
        self.turns = blocks(-(-(num + most) // PER_BLOCK)) if in_blocks else []
        self.known: list[Block] = []
        for one in rewards(0, num, self.turns):
            self.evidence.add(one)
        self.look(num - 1)

    def look(self, n: int) -> None:
        """At the trial, once session `n` was filed."""
        if not self.turns:
            judge(self.evidence.trial(7, BASE, CONFIG), trial=1, promotions=0)
            return
        self.known += self.turns[len(self.known) : n // PER_BLOCK + 1]
        judge(self.evidence.in_blocks(7, BASE, IN_BLOCKS, self.known), trial=1, promotions=0)

    def unit_us(self) -> float:
        """Processor time to file a reward and look at the trial, over the next sessions."""
        more = rewards(self.num, self.num + TIMED, self.turns)
        begun = time.process_time()
        for n, one in enumerate(more, self.num):
            self.evidence.add(one)
            self.look(n)
        self.num += TIMED
        return (time.process_time() - begun) / TIMED * 1e6


def bytes_per_unit() -> float:
    """Of memory, with the sums, and nothing shared with the records that units were made of."""
    given = [one.model_dump_json() for one in rewards(0, WEIGHED)]
    tracemalloc.start()
    found = Evidence()
    for one in given:
        found.add(Reward.model_validate_json(one))
    judge(found.trial(7, BASE, CONFIG), trial=1, promotions=0)
    taken = tracemalloc.get_traced_memory()[0] / WEIGHED
    tracemalloc.stop()
    return taken


def cost() -> dict[str, float]:
    """A session more, with few in the trial and with many, the least of some rounds; and what a session takes."""
    found: dict[str, float] = {}
    for row, in_blocks in (("unit_us", False), ("unit_us_in_blocks", True)):
        many, least = Looks(MANY, ROUNDS * TIMED, in_blocks), {FEW: math.inf, MANY: math.inf}
        for _ in range(ROUNDS):
            least[FEW] = min(least[FEW], Looks(FEW, TIMED, in_blocks).unit_us())
            least[MANY] = min(least[MANY], many.unit_us())
        found |= {f"{row}.100": least[FEW], f"{row}.100000": least[MANY], f"{row}_ratio": least[MANY] / least[FEW]}
    return found | {"bytes_per_unit": bytes_per_unit()}
