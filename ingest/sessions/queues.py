"""What a table of very many things must know each second, without looking at all of them.

A thing's number may change while it is queued: `Queue` gives it back by the number it was given last, and stale
entries are passed over when they come up.
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST_STALE = 4


class Queue(Generic[T]):
    """Things by a number. `is_stale(thing, number)` tells that a thing is gone, or was given another number since."""

    def __init__(self, is_stale: Callable[[T, float], bool]) -> None:
        self._is_stale = is_stale
        self._heap: list[tuple[float, int, T]] = []
        self._order = count()  # settles ties: the thing that came first

    def add(self, number: float, thing: T) -> None:
        heapq.heappush(self._heap, (number, next(self._order), thing))

    def sweep(self, num: int) -> None:
        """Let go of stale entries where all but `num` are, and those are many more."""
        if len(self._heap) > _MOST_STALE * (num + 1000):
            self._heap = [entry for entry in self._heap if not self._is_stale(entry[2], entry[0])]
            heapq.heapify(self._heap)

    def lowest(self) -> float | None:
        """The lowest number of all things, or none where there are none."""
        while self._heap and self._is_stale(self._heap[0][2], self._heap[0][0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, upto: float) -> list[T]:
        """Take out the things up to a number, lowest first."""
        found = []
        while (lowest := self.lowest()) is not None and lowest <= upto:
            found.append(heapq.heappop(self._heap)[2])
        return found
