"""Sessions of many trials at once: who came, which arm the coin gave, how it went, and when that was known.

Arrays are trials x sessions, in the order in which sessions began; one session begins per unit of time.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BASE, MARGIN, CHAMPION = 0.6, 0.02, 500
RAMP = ((500, 0.05), (1_500, 0.10), (3_000, 0.25))
DAY = 4_000
LATEST = 1_500
HEAVY, SESSIONS_OF_LIGHT = 10, 3


@dataclass(frozen=True)
class World:
    """What is so. `effect` is the candidate's, in reward; `share` none: the ramp."""

    effect: float
    share: float | None = 0.5
    is_binary: bool = True
    has_drift: bool = False
    has_heavy_users: bool = False
    is_late: bool = False
    num: int = 20_000


@dataclass
class Trials:
    """What was seen. `known_at` is when a session's outcome is; `first_at` when it counts for silence before that."""

    treated: NDArray[np.bool_]
    pi: Floats
    outcome: Floats
    mean: Floats  # the champion's, of its last sessions before the trial: trials x 1
    variance: Floats
    user: NDArray[np.int64] | None = None
    known_at: Floats | None = None
    first_at: Floats | None = None
    named: dict[str, Floats] = field(default_factory=dict)

    def some(self, rows: NDArray[np.intp]) -> "Trials":
        """Of these trials."""
        picked = {
            name: None if (held := getattr(self, name)) is None else held[rows]
            for name in ("treated", "outcome", "mean", "variance", "user", "known_at", "first_at")
        }
        return replace(self, **picked)


def draw(world: World, num_trials: int, rng: np.random.Generator) -> Trials:
    n = world.num
    pi = np.full(n, world.share) if world.share is not None else _ramp(n)
    treated = rng.random((num_trials, n)) < pi
    level = BASE + (0.15 * np.sin(2 * np.pi * np.arange(n) / DAY) if world.has_drift else np.zeros(n))
    before = _outcomes(np.full((num_trials, CHAMPION), BASE), world.is_binary, rng)
    user, rates = None, level + world.effect * treated
    if world.has_heavy_users:
        user, rates = _users(treated, world, rng)
    found = Trials(
        treated=treated,
        pi=pi,
        outcome=_outcomes(rates, world.is_binary, rng),
        mean=before.mean(axis=1, keepdims=True),
        variance=np.maximum(1e-4, before.var(axis=1, keepdims=True)),
        user=user,
    )
    if world.is_late:
        _delay(found, rng)
    return found


def _ramp(num: int) -> Floats:
    pi, at = np.full(num, 0.5), 0
    for until, share in RAMP:
        pi[at:until], at = share, until
    return pi


def _outcomes(rates: Floats, is_binary: bool, rng: np.random.Generator) -> Floats:
    """Of these means; continuous ones from a beta distribution with twice the concentration of a uniform one."""
    if is_binary:
        return (rng.random(rates.shape) < rates).astype(float)
    return rng.beta(4 * rates, 4 * (1 - rates))


def _users(treated: NDArray[np.bool_], world: World, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Half of the sessions are of ten users, the others of users with three each. Each user has a taste: three in ten
    like the candidate, by 0.3, the others dislike it, and over users the effect is the world's."""
    trials, n = treated.shape
    is_heavy = rng.random((trials, n)) < 0.5
    light = HEAVY + rng.integers(0, n // 2 // SESSIONS_OF_LIGHT, (trials, n))
    user = np.where(is_heavy, rng.integers(0, HEAVY, (trials, n)), light)
    likes, liked = 0.3, 0.3
    disliked = (world.effect - likes * liked) / (1 - likes)
    taste = np.where(rng.random((trials, int(user.max()) + 1)) < likes, liked, disliked)
    return user, BASE + treated * np.take_along_axis(taste, user, axis=1)


def _delay(found: Trials, rng: np.random.Generator) -> None:
    """The candidate's failures take longer, some of them far longer; a fifth of the sessions count for silence at
    first, until a user says something."""
    began = np.arange(found.outcome.shape[1])
    slow = rng.exponential(300.0, found.outcome.shape) * (found.treated & (found.outcome < 0.5))
    amended = np.where(rng.random(found.outcome.shape) < 0.2, rng.uniform(0, LATEST, found.outcome.shape), 0.0)
    found.first_at = began + np.minimum(slow, LATEST)
    found.known_at = began + np.minimum(np.maximum(slow, amended), LATEST)
