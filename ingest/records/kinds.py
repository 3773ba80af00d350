"""Words that records choose from. `ingest.records.events` has them, too; here they cost nothing to import."""

from enum import StrEnum


class Arm(StrEnum):
    """Which of the served versions a session was given: two at any time.

    In a trial some sessions get the candidate. After a promotion, while the new version is watched, some are held back
    on the one that was stable before.
    """

    STABLE = "stable"
    CANDIDATE = "candidate"
    HOLDBACK = "holdback"


class TurnKind(StrEnum):
    """What a trace is inside its session."""

    MAIN = "main"
    SUMMARY = "summary"
    SIDE = "side"


class CloseReason(StrEnum):
    """Why a session became a trajectory."""

    INACTIVE = "inactive"
    HORIZON = "horizon"
    ENDED = "ended"


class LinkKind(StrEnum):
    """How a chain goes on from an earlier one of its session, where it does not extend it token for token."""

    COMPACTION = "compaction"
    BRANCH = "branch"
    REWRITE = "rewrite"


class ChainMark(StrEnum):
    """What is known to be wrong with a chain. A mark changes nothing else: what is missing is not guessed."""

    MISSING = "missing"
    LATE = "late"
    DUPLICATED = "duplicated"


class Consent(StrEnum):
    """Why a trace may be kept: its client said so, or the configuration assumes it of clients that say nothing."""

    GIVEN = "given"
    ASSUMED = "assumed"


class FateKind(StrEnum):
    """How a trace ended. Every trace ends in exactly one of these."""

    TRAINED = "trained"
    HELD_OUT = "held_out"
    REFUSED = "refused"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"


class TrialState(StrEnum):
    """A candidate's life. The steps allowed between them are in `serving/rollout/trial.py`."""

    PUBLISHED = "published"
    EVALUATING = "evaluating"
    SUITES = "suites"
    REPLAY = "replay"
    CANARY = "canary"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"


class ReleaseKind(StrEnum):
    """What a release says: who writes now, what is served, how a trial moved, whose block begins or what is loaded for
    the next one, what an engine confirmed, what an operator asked for."""

    CLAIM = "claim"
    BOOTSTRAP = "bootstrap"
    TRIAL = "trial"
    BLOCK = "block"
    ANNOUNCED = "announced"
    OPERATOR = "operator"


class Mode(StrEnum):
    """Whether what is served may change by itself; operators choose."""

    OPEN = "open"  # trials run
    PAUSED = "paused"  # none begins, and none is promoted; harm is acted on still
    PINNED = "pinned"  # stable stays what it is, and there is no trial
    FROZEN = "frozen"  # nothing changes, and nobody learns
