"""Generated agent sessions against their script's truth, ten thousand of each kind: links, kinds, parents and credit.

Hypothesis draws them: compactions declared and found, nested ones, windows that move on, regenerations, edits, tools,
sub-agents side by side with their agent, lost turns; their traces out of order and some twice. And ordinary dialogue
that quotes itself, in which every compaction found would be a false one. Nothing
is timed; the seconds are for planning.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
from agent_sessions import AGENTIC, ORDINARY, Session, close, disagreements, interleaved, play, play_family
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from ingest.records.events import LinkKind, Trajectory, TurnKind
from rewards import credit

CASES = 10_000
SEEDS, LENGTHS = st.integers(0, 2**31), st.integers(1, 14)
many = settings(
    max_examples=CASES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
TARGETS = {
    "agent_cases": (">=", CASES),
    "dialogue_cases": (">=", CASES),
    "wrong_sessions": ("<=", 0),
    "wrong_credit": ("<=", 0),
    "false_compactions": ("<=", 0),
}


@dataclass
class Count:
    """What was played and what was wrong."""

    agent_cases: int = 0
    dialogue_cases: int = 0
    sessions: int = 0
    turns: int = 0
    compactions: int = 0
    wrong_sessions: int = 0
    wrong_credit: int = 0
    false_compactions: int = 0

    def agents(self, seed: int, length: int) -> None:
        """An agent and its sub-agents, their traces shuffled and some delivered twice."""
        family = play_family(seed, AGENTIC, length)
        self.agent_cases += 1
        self._check(family, close(family, _disorder(seed, len(interleaved(family)))))

    def dialogue(self, seed: int, length: int) -> None:
        """A conversation that quotes itself."""
        session = play(seed, ORDINARY, length)
        self.dialogue_cases += 1
        (trajectory,) = close([session])
        self.false_compactions += _num_compactions(trajectory)
        self._check([session], [trajectory])

    def _check(self, family: Sequence[Session], trajectories: Sequence[Trajectory]) -> None:
        for session, trajectory in zip(family, trajectories, strict=True):
            self.sessions += 1
            self.turns += len(trajectory.turns)
            self.compactions += _num_compactions(trajectory)
            self.wrong_sessions += bool(disagreements(session, trajectory))
            self.wrong_credit += gone_on_from(trajectory) != true_ancestors(session)


def gone_on_from(trajectory: Trajectory) -> dict[str, frozenset[str]]:
    """The turns whose credit each turn's outcome is, without itself."""
    tree = credit.before(trajectory)
    found: dict[str, frozenset[str]] = {}
    for name, elder in tree.items():
        found[name] = frozenset() if elder is None else found[elder] | {elder}
    return found


def true_ancestors(session: Session) -> dict[str, frozenset[str]]:
    """The same by the script; side turns neither give nor get credit."""
    return {name: truth.ancestors for name, truth in session.truth.items() if truth.kind is not TurnKind.SIDE}


def _num_compactions(trajectory: Trajectory) -> int:
    return sum(chain.link is not None and chain.link.kind is LinkKind.COMPACTION for chain in trajectory.chains)


def _disorder(seed: int, num: int) -> list[int]:
    rng = random.Random(seed)
    order = [n for n in range(num) for _ in range(1 + (rng.random() < 0.2))]
    rng.shuffle(order)
    return order


def draw(check: Callable[[int, int], None], advance: Callable[[], None]) -> None:
    """`CASES` cases of one kind."""

    @many
    @given(SEEDS, LENGTHS)
    def one(seed: int, length: int) -> None:
        check(seed, length)
        advance()

    one()


def main() -> None:
    count, begun = Count(), time.monotonic()
    with Progress() as progress:
        for what, check in (("agents", count.agents), ("dialogue", count.dialogue)):
            draw(check, partial(progress.advance, progress.add_task(what, total=CASES)))
    bench.report("sessions", vars(count) | {"seconds": round(time.monotonic() - begun, 1)}, TARGETS)


if __name__ == "__main__":
    main()
