"""What a decision makes of a checkpoint. Pure: a state becomes the next, and says which traces the log gives again.

    promoted   the candidate is stable; the version in the making goes on from it, as it did, and is due: however much
               waits on the log, users are served what was learnt
    rejected   back to stable. What the version in the making had used is taken again; the candidate's own turns have
               had their say and keep their fate
    expired    back to stable. Nobody judged the candidate: its turns are taken again too
    left       stable is another version (a rollback, an operator): what the version in the making had used is taken
               again, from the weights in the store

What was sampled by a version that is not in the lineage is refused when it is read again. A trace whose reward the log
may not give again expires instead, and its whole step with it. Baselines and what prompts were seen return with the
learner; the turns of a version that was promoted and is rolled back later have had their say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.records.events import Fate, FateKind
from trainer.eligibility import Reason
from trainer.state import CandidateVersion, Standing, State, Used, furthest


@dataclass(frozen=True)
class Decided:
    """The next state. `again` are traces that are no longer used: the state's positions lie before their rewards."""

    state: State
    again: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clock:
    """The time, and before when a reward was made that the log may not give again. Unix seconds."""

    now: float
    log_keeps_from: float


def promoted(state: State, clock: Clock) -> Decided:
    """The candidate is stable."""
    candidate, making = _candidate(state), state.making
    is_making = making is not None and making.num_turns > 0
    used = candidate.used if is_making or making is None else (*candidate.used, *making.used)
    changes = {
        "base": candidate.version,
        "candidate": None,
        "making": making.model_copy(update={"is_due": True}) if making is not None and is_making else None,
        "fallback": candidate.standing if is_making else None,
    }
    fates = [one.fate(candidate.version, clock.now) for one in used]
    return Decided(state.model_copy(update=changes).owing(fates))


def rejected(state: State, clock: Clock) -> Decided:
    """The candidate is not stable, and never will be."""
    candidate, stable = _candidate(state), _fallback(state)
    to = stable.model_copy(update={"offsets": candidate.standing.offsets})
    fates = [one.fate(candidate.version, clock.now) for one in candidate.used]
    return _back(state.owing(fates), to, state.making.used if state.making else (), clock)


def expired(state: State, clock: Clock) -> Decided:
    """The candidate's trial ended before anything was known of it."""
    return _back(state, _fallback(state), state.used, clock)


def left(state: State, stable: int, clock: Clock) -> Decided:
    """Nothing is on trial, and `stable` is what training goes on from, which is not what it stood on."""
    to = (state.fallback or state.standing).model_copy(update={"learner": None})
    back = _back(state, to, state.used, clock)
    return Decided(back.state.model_copy(update={"base": stable}), back.again)


def _back(state: State, to: Standing, used: Sequence[Used], clock: Clock) -> Decided:
    """`state`, but standing on `to`: what was used since is as if it had not been."""
    gone = [one for one in used if one.rewarded_at < clock.log_keeps_from]
    again = tuple(name for one in used if one.rewarded_at >= clock.log_keeps_from for name in one.trace_ids)
    changes = {
        "learner": to.learner,
        "baselines": to.baselines,
        "seen": to.seen,
        "offsets": to.offsets,
        "passed": furthest(state.passed, state.offsets),
        "moved": tuple(sorted({*state.moved, *again})),
        "making": None,
        "candidate": None,
        "fallback": None,
    }
    return Decided(state.model_copy(update=changes).owing(_gone(gone, clock.now)), again)


def _gone(used: Iterable[Used], at: float) -> list[Fate]:
    """What trained for nothing and cannot train again has expired."""
    lost = {"kind": FateKind.EXPIRED, "reason": Reason.EXPIRED.value}
    mended = (one.model_copy(update=lost) if one.kind is FateKind.TRAINED else one for one in used)
    return [one.fate(0, at) for one in mended]


def _candidate(state: State) -> CandidateVersion:
    assert state.candidate is not None
    return state.candidate


def _fallback(state: State) -> Standing:
    assert state.fallback is not None
    return state.fallback
