"""Words that records choose from. `ingest.records.events` has them, too; here they cost nothing to import."""

from enum import StrEnum


class Arm(StrEnum):
    """Which of the two served versions a session was given."""

    STABLE = "stable"
    CANDIDATE = "candidate"


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
    CANARY = "canary"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"


class ReleaseKind(StrEnum):
    """What a release says: who writes now, what is served, how a trial moved, what an engine confirmed."""

    CLAIM = "claim"
    BOOTSTRAP = "bootstrap"
    TRIAL = "trial"
    ANNOUNCED = "announced"
