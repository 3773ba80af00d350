"""True groups: answers of one policy to one prompt, measured against each other. Pure.

The replay lane has a prompt answered several times; the answer that its user had, the anchor, trains by itself when it
comes, and stands in the group as something to compare with. What a member is measured against are the others:

    A_j = r_j - sum_{i != j} w_i r_i / sum_{i != j} w_i

- leave-one-out: RLOO (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740). What j is measured against does not
  depend on its own answer, so the gradient has no bias, whatever the weights and however large the group
- w is 1 for a replay. The lane chose the prompt by how the anchor turned out, with a propensity q that it told, so the
  anchor stands for 1 / q like it: self-normalised inverse propensity (Hajek 1971; Swaminathan and Joachims 2015,
  "The self-normalized estimator for counterfactual learning"), w = (1 / q) over the mean of 1 / q in the batch,
  truncated at `MAX_IMPORTANCE` (Ionides 2008)
- by the same w a whole group counts, so that groups are to the batch what all prompts are that could have been drawn,
  not what the lane likes to draw
- deviations are the batch's, over all groups that differ within, not the group's: Lite-PPO (arXiv 2508.08221); each
  part on its own before the sum, as for single turns: GDPO (arXiv 2601.05242)

A batch holds both kinds, told apart by type: a `Grouped` has two members or more, and everything else, what is left of
a group that became no larger than one too, is measured against its keyed baseline. Groups move no baseline: the lane
does not ask what users ask. A group of equal rewards gives zeros, and is counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum, sqrt

from ingest.records.events import Group, Part
from trainer.advantages.keyed import ROUNDING

MAX_IMPORTANCE = 4.0
CANCELLED = 1e-9
"""A sum of parts, each of them about 1, below it is what rounding leaves of parts that cancel."""


class Shape(StrEnum):
    """What a group of replays came to, for telemetry."""

    COMPARED = "compared"
    ALIKE = "all alike"
    ALONE = "one alone"


@dataclass(frozen=True)
class Grouped:
    """Replays of one prompt: `turns` are their numbers in the batch, `parts` what each was worth.

    `anchor` is what the answer that the user had was worth, by part; `propensity` is the lane's, of choosing it.

    Raises:
        ValueError: there are fewer than two, and nothing to compare one with.
    """

    turns: tuple[int, ...]
    parts: tuple[tuple[Part, ...], ...]
    anchor: Mapping[str, float]
    propensity: float

    def __post_init__(self) -> None:
        if len(self.turns) < 2:
            raise ValueError(f"a group has two members or more, got {len(self.turns)}")


@dataclass(frozen=True)
class InGroups:
    """The advantage of each grouped turn and how much its group counts, by its number; and what groups came to."""

    values: Mapping[int, float]
    importance: Mapping[int, float]
    shapes: Mapping[Shape, int]


def group_advantages(rewards: Sequence[float], weights: Sequence[float]) -> list[float]:
    """How much better each member of a group did than the others, which count by `weights` > 0; 0 where all are equal.

    Raises:
        ValueError: a group of one, which has nothing to be measured against.
    """
    if len(rewards) < 2:
        raise ValueError(f"a group has two members or more, got {len(rewards)}")
    if max(rewards) - min(rewards) < ROUNDING:
        return [0.0] * len(rewards)
    mass = fsum(weights)
    total = fsum(weight * reward for reward, weight in zip(rewards, weights, strict=True))
    return [
        reward - (total - weight * reward) / (mass - weight) for reward, weight in zip(rewards, weights, strict=True)
    ]


def grouped(group: Group, numbers: Sequence[int], parts: Sequence[tuple[Part, ...]], spec: str) -> Grouped | None:
    """The turns of a session that the lane asked for, scored under `spec`, as a group; none where too few can be
    compared, that is, share a scored part with another or with the anchor."""
    anchor = group.anchor if group.spec == spec else {}
    num_of = Counter(part.name for own in parts for part in own) + Counter(anchor.keys())
    held = [
        (number, own) for number, own in zip(numbers, parts, strict=True) if any(num_of[part.name] > 1 for part in own)
    ]
    if len(held) < 2:
        return None
    turns, of_turns = zip(*held, strict=True)
    return Grouped(turns, of_turns, anchor, group.propensity)


def importances(propensities: Sequence[float]) -> list[float]:
    """1 / q over their mean, truncated at `MAX_IMPORTANCE` times it: their own mean is then 1 again."""
    raw = [1.0 / one for one in propensities]
    most = MAX_IMPORTANCE * fsum(raw) / len(raw) if raw else 0.0
    kept = [min(most, one) for one in raw]
    return [one * len(kept) / fsum(kept) for one in kept]


def in_groups(groups: Sequence[Grouped], num_alone: int) -> InGroups:
    """Advantages over a batch's groups; `num_alone` were to be groups and became none.

    Over the turns of groups that differ within, each counted as its group counts over its size, the mean square is 1,
    as it is over single turns.
    """
    weights = importances([group.propensity for group in groups])
    shares = {turn: w / len(group.turns) for group, w in zip(groups, weights, strict=True) for turn in group.turns}
    sums = dict.fromkeys(shares, 0.0)
    for name in sorted({part.name for group in groups for own in group.parts for part in own}):
        found = [each for group, w in zip(groups, weights, strict=True) for each in _differences(name, group, w)]
        scale = _scale({turn: x for turn, x, _ in found}, shares)
        for turn, x, weight in found:
            sums[turn] += weight * x / scale
    differ = {
        turn for group in groups if any(abs(sums[one]) > CANCELLED for one in group.turns) for turn in group.turns
    }
    scale = _scale({turn: sums[turn] for turn in differ}, shares)
    alike = sum(not differ.issuperset(group.turns) for group in groups)
    shapes = {Shape.COMPARED: len(groups) - alike, Shape.ALIKE: alike, Shape.ALONE: num_alone}
    importance = {turn: w for group, w in zip(groups, weights, strict=True) for turn in group.turns}
    return InGroups({turn: x / scale if turn in differ else 0.0 for turn, x in sums.items()}, importance, shapes)


def _differences(name: str, group: Grouped, anchor_weight: float) -> Iterator[tuple[int, float, float]]:
    """(turn, advantage, the part's weight) of those that have the part, where another has it too, and they differ."""
    held = [
        (turn, part) for turn, own in zip(group.turns, group.parts, strict=True) for part in own if part.name == name
    ]
    rewards, weights = [part.value for _, part in held], [1.0] * len(held)
    if name in group.anchor:
        rewards, weights = [*rewards, group.anchor[name]], [*weights, anchor_weight]
    if len(rewards) < 2:
        return
    values = group_advantages(rewards, weights)
    if any(values):
        yield from ((turn, x, part.weight) for (turn, part), x in zip(held, values, strict=False))


def _scale(values: Mapping[int, float], shares: Mapping[int, float]) -> float:
    """The root of the mean square over turns."""
    if not values:
        return 1.0
    square = fsum(shares[turn] * x * x for turn, x in values.items()) / fsum(shares[turn] for turn in values)
    return sqrt(square)
