"""Near-duplicate prompts: how often what a turn was asked was asked already. Pure.

A turn is compared with the others of its batch and with those that trained before, of its tenant alone. Where n turns,
itself included, have alike prompts, it counts 1/n. However alikeness chains, turns then count no more, together, than
there are prompts among them of which no two are alike (Caro 1979; Wei 1981: a graph's independence number is at least
the sum of 1 / (1 + degree)): who sends one prompt a thousand times, or a thousand fillings of one template, is heard
once. Nothing is dropped. A prompt without a sketch is like no other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ingest.sessions.sketch import NUM_BITS


@dataclass(frozen=True)
class Asked:
    """What a turn was asked, as far as repeats go. `sketch` is empty where there is nothing to compare."""

    tenant: str
    sketch: str


@dataclass(frozen=True)
class Seen:
    """The sketches of the turns that trained last, oldest first, by tenant. Immutable: `after` gives the next."""

    sketches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def after(self, asked: Sequence[Asked], window: int) -> "Seen":
        """With a batch that trained; the last `window` are kept for each tenant."""
        kept = {tenant: list(sketches) for tenant, sketches in self.sketches.items()}
        for turn in asked:
            if turn.sketch:
                kept.setdefault(turn.tenant, []).append(turn.sketch)
        return Seen({tenant: tuple(sketches[max(0, len(sketches) - window) :]) for tenant, sketches in kept.items()})


def num_alike(asked: Sequence[Asked], seen: Seen, similarity: float) -> list[int]:
    """For each turn of a batch, how many turns of the batch and of `seen` have a prompt like its own, it included.

    Alike are prompts whose estimated Jaccard similarity, 1 - (differing bits) / 32, is at least `similarity`.
    """
    found = [1] * len(asked)
    by_tenant: dict[str, list[int]] = defaultdict(list)
    for number, turn in enumerate(asked):
        if turn.sketch:
            by_tenant[turn.tenant].append(number)
    for tenant, numbers in by_tenant.items():
        own = _numbers([asked[number].sketch for number in numbers])
        all_known = np.concatenate([own, _numbers(seen.sketches.get(tenant, ()))])
        for number, sketch in zip(numbers, own, strict=True):
            distances = np.bitwise_count(all_known ^ sketch)
            found[number] = int((distances <= (1.0 - similarity) * NUM_BITS / 2).sum())
    return found


def _numbers(sketches: Sequence[str]) -> NDArray[np.uint64]:
    return np.array([int(sketch, 16) for sketch in sketches], np.uint64)
