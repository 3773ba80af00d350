"""The check that runs in a state before users: made when the state begins or is found, closed when it has ended."""

import logging
from collections.abc import Callable, Mapping

from ingest.records.events import Reward, TrialState
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.stages import CHECKED, Check, CheckMaker

logger = logging.getLogger(__name__)


def following(state: TrialState, made: Mapping[TrialState, CheckMaker]) -> TrialState:
    """The state after `state` of a trial that passed it: the next that has a check, or the canary."""
    rest = CHECKED[CHECKED.index(state) + 1 :] if state in CHECKED else CHECKED
    return next((one for one in rest if one in made), TrialState.CANARY)


class Checking:
    """At most one check at a time. One that raises has not passed, and its standing says why it could not run."""

    def __init__(self) -> None:
        self._of: tuple[int, TrialState] | None = None
        self._check: Check | None = None
        self._failed = ""

    def look(self, candidate: int, state: TrialState, make: Callable[[], Check]) -> Standing:
        """How the check of this candidate in this state stands; begun with the first look."""
        try:
            if self._of != (candidate, state):
                self.close()
                self._of = (candidate, state)
                self._check = make()
            if self._check is not None and not self._failed:
                return self._check.look()
        except Exception as exc:  # noqa: BLE001 - whatever it was: a check that cannot run is no pass
            self._note(exc)
        return Standing(Verdict.REJECT, f"its {state} could not run: {self._failed}", {})

    def take(self, reward: Reward) -> None:
        """A reward of a prompt that was asked again, for the check that runs, if it is of its trial."""
        assignment = reward.assignment
        if self._check is None or self._of is None or assignment is None or assignment.trial != self._of[0]:
            return
        try:
            self._check.take(reward)
        except Exception as exc:  # noqa: BLE001 - as above
            self._note(exc)

    def _note(self, exc: Exception) -> None:
        logger.exception("a check of version %s could not run", self._of)
        self._failed = f"{type(exc).__name__}: {exc}"

    def close(self) -> None:
        """End what runs."""
        check, self._check, self._of, self._failed = self._check, None, None, ""
        if check is not None:
            try:
                check.close()
            except Exception:  # it is over, and what it came to is on the log
                logger.exception("a check did not close")
