"""A stream of candidates: which of them are promoted, at e-LOND's levels and at one level for all."""

import math

import numpy as np
import rules
import worlds
from worlds import MARGIN, Floats, World

from serving.rollout.evidence import level

CANDIDATES, CHUNK, GOOD = 100, 125, 0.02
SHARES = {"half_bad": 0.5, "most_bad": 0.9}


def heights(effect: float, num: int, rng: np.random.Generator) -> Floats:
    """The most evidence that each of some candidates ever has before it is rejected for harm or ends."""
    found = []
    for _ in range(num // CHUNK):
        trials = worlds.draw(World(effect), CHUNK, rng)
        found.append(rules.peaks(trials, rules.mixture(trials, for_harm=True)))
    return np.concatenate(found)


def run(of: Floats, is_bad: Floats, is_one_level: bool) -> tuple[int, int]:
    """Good and bad promotions of one stream."""
    promoted = [0, 0]
    for number, (height, bad) in enumerate(zip(of.tolist(), is_bad.tolist(), strict=True), 1):
        at = rules.ALPHA if is_one_level else level(rules.ALPHA, number, sum(promoted))
        promoted[bool(bad)] += height >= -math.log(at)
    return promoted[0], promoted[1]


def measure(num: int) -> dict[str, float]:
    """Means over `num` streams. The candidates of each are drawn from as many that were simulated."""
    rng = np.random.default_rng(1)
    bad, good = heights(-MARGIN, num, rng), heights(GOOD, num, rng)
    found = {}
    for name, share in SHARES.items():
        for rule in ("", ".one_level"):
            shares, kept, any_bad = [], [], []
            for _ in range(num):
                is_bad = rng.random(CANDIDATES) < share
                of = np.where(is_bad, rng.choice(bad, CANDIDATES), rng.choice(good, CANDIDATES))
                promoted_good, promoted_bad = run(of, is_bad, bool(rule))
                shares.append(promoted_bad / max(1, promoted_good + promoted_bad))
                kept.append(promoted_good / max(1, int((~is_bad).sum())))
                any_bad.append(promoted_bad > 0)
            found[f"stream.{name}{rule}"] = float(np.mean(shares))
            found[f"stream.{name}{rule}.any"] = float(np.mean(any_bad))
            found[f"stream.{name}{rule}.good_promoted"] = float(np.mean(kept))
    return found
