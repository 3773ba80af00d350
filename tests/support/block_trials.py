"""Simulated trials in blocks: how often a candidate is promoted, or found harmful, when the block is the unit, and when
sessions are taken for units that one coin was tossed for together."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from serving.rollout.evidence import Baseline, Design, Process

_BURN_IN = 100  # blocks of the champion before the trial: its baseline


@dataclass(frozen=True)
class World:
    """Blocks of one trial. A block's level moves all its sessions: `shock` is its standard deviation, uniform, drawn
    anew for every block. Of a block's sessions, `per_block` in the mean, those are kept that end within it: they begin
    at any time of it and last `length` of its length in the mean, exponential. A session that went badly is scored late
    with probability `late`, some blocks after its own has settled."""

    effect: float
    share: float = 0.5
    margin: float = 0.05
    base: float = 0.6
    shock: float = 0.12
    per_block: int = 8
    length: float = 0.25
    num_blocks: int = 200
    late: float = 0.1
    settle_blocks: int = 2


@dataclass(frozen=True)
class Rates:
    """Shares of the trials: `blocks` and `sessions` by unit promoted, `harmed` by block found harmful. `median_blocks`
    are those until a promotion by blocks."""

    blocks: float
    sessions: float
    harmed: float
    median_blocks: float | None


@dataclass(frozen=True)
class Held:
    """A block's kept sessions: (outcome, blocks until it is scored)."""

    treated: bool
    sessions: tuple[tuple[float, int], ...]

    def mean(self, within: int) -> float | None:
        """Of those scored by then."""
        known = [outcome for outcome, after in self.sessions if after <= within]
        return sum(known) / len(known) if known else None


def simulate(world: World, num_trials: int, alpha: float = 0.05, seed: int = 0) -> Rates:
    """Look after every block; the first verdict of each kind counts."""
    rng = random.Random(seed)
    ends = [_trial(world, alpha, rng) for _ in range(num_trials)]
    lengths = sorted(end for end, _, _ in ends if end is not None)
    return Rates(
        blocks=len(lengths) / num_trials,
        sessions=sum(by_session for _, by_session, _ in ends) / num_trials,
        harmed=sum(harmed for _, _, harmed in ends) / num_trials,
        median_blocks=lengths[len(lengths) // 2] if lengths else None,
    )


def _block(world: World, treated: bool, rng: random.Random) -> Held:
    level = world.base + rng.uniform(-1.0, 1.0) * world.shock * 3**0.5 + world.effect * treated
    sessions = []
    for _ in range(max(1, round(rng.expovariate(1.0 / world.per_block)))):
        if rng.random() + rng.expovariate(1.0 / world.length) > 1.0:
            continue
        outcome = float(rng.random() < min(1.0, max(0.0, level)))
        is_late = not outcome and rng.random() < world.late
        sessions.append((outcome, world.settle_blocks + rng.randrange(1, 20) if is_late else 0))
    return Held(treated, tuple(sessions))


def _baselines(world: World, rng: random.Random) -> tuple[Baseline, Baseline]:
    """Of block means, and of sessions."""
    before = [_block(world, False, rng) for _ in range(_BURN_IN)]
    means = [mean for block in before if (mean := block.mean(within=1000)) is not None]
    return Baseline.of(means), Baseline.of(outcome for block in before for outcome, _ in block.sessions)


def _trial(world: World, alpha: float, rng: random.Random) -> tuple[int | None, bool, bool]:
    by_block, by_session = (Process(Design(baseline, world.margin)) for baseline in _baselines(world, rng))
    line, blocks = -math.log(alpha), list[Held]()
    ended, is_promoted_by_session, is_harmful = None, False, False
    for number in range(world.num_blocks):
        treated = rng.random() < world.share
        blocks.append(_block(world, treated, rng))
        for back in _touched(blocks, world):
            mean = blocks[back].mean(number - back)
            if mean is not None:
                by_block.add(back, number, blocks[back].treated, world.share, mean)
        for place, (outcome, _) in enumerate(blocks[number].sessions):
            by_session.add((number, place), 0, treated, world.share, outcome)
        if ended is None and by_block.log_e >= line:
            ended = number + 1
        is_promoted_by_session = is_promoted_by_session or by_session.log_e >= line
        is_harmful = is_harmful or by_block.log_harm >= line
    return ended, is_promoted_by_session, is_harmful


def _touched(blocks: list[Held], world: World) -> Iterable[int]:
    """Blocks that settle now, and settled ones of which a late session is scored now."""
    now = len(blocks) - 1
    for back in range(max(0, now - world.settle_blocks - 20), now - world.settle_blocks + 1):
        is_settling = back == now - world.settle_blocks
        if is_settling or any(after == now - back for _, after in blocks[back].sessions):
            yield back
