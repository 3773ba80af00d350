"""Who does not hold what the release log says, and for how long. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Disagreement:
    """`who` holds something else than the log gives it, seen first at `since` on the monotonic clock.

    For an engine these are versions, for router and trainer numbers of releases; `holds` is `None` where it does not
    answer.
    """

    who: str
    holds: int | None
    given: int
    since: float

    def told(self, now: float) -> str:
        """One line for an operator."""
        has = "does not answer" if self.holds is None else f"has {self.holds}"
        return f"{self.who} {has}, the log gives it {self.given}, since {now - self.since:.0f} s"


def compare(
    before: Mapping[str, Disagreement], holds: Mapping[str, int | None], given: Mapping[str, int], now: float
) -> dict[str, Disagreement]:
    """Who disagrees now. Who did already, over the same, has done so since then."""
    found = {}
    for who, has in holds.items():
        if who not in given or has == given[who]:
            continue
        earlier = before.get(who)
        is_old = earlier is not None and (earlier.holds, earlier.given) == (has, given[who])
        found[who] = earlier if earlier is not None and is_old else Disagreement(who, has, given[who], now)
    return found
