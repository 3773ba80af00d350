"""What is listed by name: exactly counted, and named as far as people read lists."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

MAX_NAMED = 1000


@dataclass(frozen=True)
class Named:
    """`num` things, and the names of the first `MAX_NAMED` of them in the order of names. Sums in any order are the
    same."""

    num: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str]) -> "Named":
        whole = sorted(names)
        return cls(len(whole), tuple(whole[:MAX_NAMED]))

    def __add__(self, other: "Named") -> "Named":
        return Named(self.num + other.num, tuple(islice(heapq.merge(self.names, other.names), MAX_NAMED)))

    def __bool__(self) -> bool:
        return self.num > 0

    @property
    def num_unnamed(self) -> int:
        """How many are counted only."""
        return self.num - len(self.names)
