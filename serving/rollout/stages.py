"""The stages of a trial in which a check decides, before users meet the candidate."""

from collections.abc import Callable, Sequence
from typing import Protocol

from infra.config import EngineSlot
from ingest.records.events import Reward, TrialState, Version
from serving.rollout.evidence import Standing


class Check(Protocol):
    """A stage of a trial: made when its state begins, closed when it ends.

    It belongs to one process: after a restart in the middle of it a new one is made, which begins anew. Whatever it
    raises rejects the candidate, and says that the check could not run.
    """

    def take(self, reward: Reward) -> None:
        """A reward of this trial whose session asked a prompt again (`assignment.replay_of`); duplicates and revisions
        come, and so may what an earlier process's check asked."""
        ...

    def look(self) -> Standing:
        """How it stands: HOLD while it runs, PASS, REJECT with the reason, or EXPIRE. Never blocks: its work runs in
        threads of its own."""
        ...

    def close(self) -> None:
        """Give up what still runs."""
        ...


CheckMaker = Callable[[Version, int, Sequence[EngineSlot], Sequence[EngineSlot]], Check]
"""From the candidate's manifest, the stable version's number, the engines that serve the candidate, and those that
serve stable. It may raise: then the check could not run."""

CHECKED = (TrialState.SUITES, TrialState.REPLAY)
"""The states in which a check decides, in their order. One that has no maker is passed over."""
