"""The state of an e-process: K sums, to which units are added, from which they are taken, and which add up.

By Ville's inequality P(there is an n with E_n >= 1/alpha) <= alpha under the null, however often one looks, whatever
the outcomes' distribution and drift, and through any ramp of pi that was logged (Ville 1939; Ramdas, Gruenwald, Vovk
and Shafer, Statistical Science 2023, arXiv:2210.01948, theorem on e-processes).
"""

import math
from collections.abc import Hashable
from typing import NamedTuple

from serving.rollout.evidence import bets
from serving.rollout.evidence.bets import BETS, SCALE, Design, Logs


class Sums:
    """K log-products. Exact: what was put in and taken out again leaves no trace, in whatever order."""

    __slots__ = ("_logs",)

    def __init__(self, num_bets: int) -> None:
        self._logs = [0] * num_bets

    def put(self, factors: Logs) -> None:
        """Multiply by a unit's factors."""
        self._logs = [held + one for held, one in zip(self._logs, factors, strict=True)]

    def take(self, factors: Logs) -> None:
        """Divide by a unit's factors, which were put in before."""
        self._logs = [held - one for held, one in zip(self._logs, factors, strict=True)]

    @property
    def log(self) -> float:
        """Natural log of the mixture: 0 without units. A mean of e-processes is one, whatever they have to do with each
        other (Vovk and Wang, Annals of Statistics 2021, arXiv:1912.06116, proposition 3.1)."""
        most = max(self._logs)
        mean = math.fsum(math.exp((one - most) / SCALE) for one in self._logs) / len(self._logs)
        return most / SCALE + math.log(mean)

    def __add__(self, other: "Sums") -> "Sums":
        """Of units that are in one or the other: products multiply."""
        found = Sums(len(self._logs))
        found._logs = [a + b for a, b in zip(self._logs, other._logs, strict=True)]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sums) and self._logs == other._logs

    __hash__ = None  # type: ignore[assignment]  # it changes


class Held(NamedTuple):
    """What a process needs to know of a unit so that it can replace its factor."""

    revision: int
    treated: bool
    pi: float
    outcome: float


class Process:
    """Evidence for and against a treatment from the units so far, each of which counts once, at its newest revision.

    It says the same whatever the order in which units and their revisions are added, and however often. Which of them
    have been added must not depend on their outcomes: a unit that is known sooner when it went well is evidence that is
    not there. `serving.rollout.evidence.tally` waits for that.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        self._units: dict[Hashable, Held] = {}
        self._evidence, self._harm = Sums(len(BETS)), Sums(len(BETS))

    def add(self, unit_key: Hashable, revision: int, treated: bool, pi: float, outcome: float) -> None:
        """A unit, or a later revision of one, whose factor is replaced; an equal or an earlier one changes nothing.

        `pi` in (0, 1) is the chance that its coin gave it of being treated; `outcome` lies in [0, 1].
        """
        unit, before = Held(revision, treated, pi, outcome), self._units.get(unit_key)
        if before is not None:
            if before.revision >= revision:
                return
            self._evidence.take(bets.evidence(self.design, *before[1:]))
            self._harm.take(bets.harm(self.design, *before[1:]))
        self._units[unit_key] = unit
        self._evidence.put(bets.evidence(self.design, *unit[1:]))
        self._harm.put(bets.harm(self.design, *unit[1:]))

    @property
    def log_e(self) -> float:
        """Natural log of E: evidence that the treatment is not worse by the margin or more. At 1/alpha it may be
        believed, at any time that one likes to look (Ville)."""
        return self._evidence.log

    @property
    def log_harm(self) -> float:
        """Natural log of D: evidence that the treatment is worse (Ville)."""
        return self._harm.log

    def __len__(self) -> int:
        return len(self._units)

    def __add__(self, other: "Process") -> "Process":
        """Of the units of both, each at its newest revision. Raises `ValueError` where their designs differ."""
        if self.design != other.design:
            raise ValueError(f"processes of one design add up, got {self.design} and {other.design}")
        large, small = (self, other) if len(self) >= len(other) else (other, self)
        found = Process(self.design)
        found._units = dict(large._units)
        found._evidence, found._harm = large._evidence + Sums(len(BETS)), large._harm + Sums(len(BETS))
        for key, unit in small._units.items():
            found.add(key, *unit)
        return found
