"""A candidate's life, as a table: published to promoted, rejected, rolled back or expired."""

from infra.errors import TransitionError
from ingest.records.events import TrialState as S

ALLOWED: dict[S, frozenset[S]] = {
    S.PUBLISHED: frozenset({S.EVALUATING, S.EXPIRED}),
    S.EVALUATING: frozenset({S.SUITES, S.REPLAY, S.CANARY, S.REJECTED, S.EXPIRED}),
    S.SUITES: frozenset({S.REPLAY, S.CANARY, S.REJECTED, S.EXPIRED}),
    S.REPLAY: frozenset({S.CANARY, S.REJECTED, S.EXPIRED}),
    S.CANARY: frozenset({S.CANARY, S.PROMOTED, S.REJECTED, S.EXPIRED}),
    S.PROMOTED: frozenset({S.PROMOTED, S.ROLLED_BACK}),
    S.REJECTED: frozenset(),
    S.ROLLED_BACK: frozenset(),
    S.EXPIRED: frozenset(),
}


def step(now: S, then: S) -> S:
    """`then`, if the table has the step.

    `canary -> canary` is a move along the ramp, `promoted -> promoted` the end of a watch.

    Raises:
        TransitionError: the table has no such step.
    """
    if then not in ALLOWED[now]:
        allowed = ", ".join(sorted(ALLOWED[now])) or "nothing"
        raise TransitionError(f"a trial that is {now} may become {allowed}, not {then}")
    return then
