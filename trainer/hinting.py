"""Turns that a client says were corrected by what came next, where that may be their hint. Pure.

Feedback of the configured name (`trainer.loss.hint_feedback`) names a turn; its value says nothing here. The turn that
follows in the same chain holds, in its prompt, the corrected reply and the correction. The reply must have ended by
itself: its last token is what stands for it where the correction is read. That prompt is to be read by the policy while
it trains, so it must be one that may train itself: nothing in it redacted, erased or taken from an
evaluation task, and no request for a summary.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from ingest.records.events import Trajectory, TurnKind
from trainer.eligibility import EligibleTurn, Ineligible, Reason

_ENDED = ("stop", "tool_calls")
Screened = Mapping[str, EligibleTurn | Ineligible]


def corrected(
    screened: Screened, trajectory: Trajectory | None, hinted_by: str
) -> dict[str, EligibleTurn | Ineligible]:
    """The same turns, with those marked that are corrected. `hinted_by` is the feedback's name; empty: none are."""
    found = dict(screened)
    if trajectory is None or not hinted_by:
        return found
    named = {feedback.trace_id for feedback in trajectory.feedback if feedback.name == hinted_by}
    prompts = {turn.trace_id for turn in trajectory.turns if turn.kind is TurnKind.MAIN}
    ended = {turn.trace_id for turn in trajectory.turns if turn.finish_reason in _ENDED}
    for chain in trajectory.chains:
        for one, then in pairwise(chain.segments):
            turn, comes = found.get(one.trace_id), found.get(then.trace_id)
            may_teach = then.trace_id in prompts and then.start > one.end and _may_train(comes)
            if one.trace_id in named & ended and may_teach and isinstance(turn, EligibleTurn):
                found[one.trace_id] = replace(turn, is_corrected=True)
    return found


def _may_train(turn: EligibleTurn | Ineligible | None) -> bool:
    """Whether it may, or might had somebody scored it: what the user said is the same without a score."""
    return isinstance(turn, EligibleTurn) or (isinstance(turn, Ineligible) and turn.reason is Reason.UNSCORED)
