"""Every metric that Onstream emits, with its kind, unit, attributes and buckets. Costs nothing to import.

A counter only grows, a gauge is set, a histogram counts values into buckets; a state, and a sum that only grows, are
asked for when metrics are read. Prometheus shows `onstream.swap.pause` as `onstream_swap_pause_seconds`: see
`Metric.prometheus`.
"""

from dataclasses import dataclass
from enum import StrEnum

from infra.telemetry import names


class Kind(StrEnum):
    """What instrument a metric is of."""

    COUNTER = "counter"
    GAUGE = "gauge"
    STATE = "observable gauge"
    SUM = "observable counter"
    HISTOGRAM = "histogram"


_PROMETHEUS_UNITS = {"s": "_seconds", "By": "_bytes"}  # no unit is "1": some readers append "_ratio", others not


@dataclass(frozen=True)
class Metric:
    """One metric. `buckets` are a histogram's upper bounds, in its unit."""

    name: str
    kind: Kind
    unit: str
    about: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def prometheus(self) -> str:
        """Its name at a Prometheus reader; a histogram's series add `_bucket`, `_sum` and `_count`."""
        unit = _PROMETHEUS_UNITS.get(self.unit, "")
        return self.name.replace(".", "_") + unit + ("_total" if self.kind in (Kind.COUNTER, Kind.SUM) else "")


def _counter(name: str, unit: str, about: str, *attributes: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, about, attributes)


def _gauge(name: str, unit: str, about: str, *attributes: str) -> Metric:
    return Metric(name, Kind.GAUGE, unit, about, attributes)


def _state(name: str, unit: str, about: str, *attributes: str) -> Metric:
    return Metric(name, Kind.STATE, unit, about, attributes)


def _histogram(name: str, unit: str, about: str, buckets: tuple[float, ...], *attributes: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, unit, about, attributes, buckets)


_REQUEST_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_PAUSE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_WORK_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_PROCESS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LOOP_S = (60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 57600.0, 86400.0)
_PROMOTIONS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)

_GEN_AI = (names.OPERATION, names.PROVIDER, names.REQUEST_MODEL, names.ARM)
_CONSUMED = (
    *(names.MESSAGING_SYSTEM, names.MESSAGING_OPERATION, names.MESSAGING_TYPE, names.DESTINATION, names.GROUP),
)

# -- router

REQUESTS = Metric("onstream.router.requests", Kind.SUM, "{request}", "requests given an arm", (names.ARM,))
RETRIES = _counter("onstream.router.retries", "{retry}", "attempts that went on to another engine", names.ENGINE)
FAILED = _counter("onstream.router.failed", "{request}", "requests that no engine served", names.CAUSE)
REQUEST_DURATION = _histogram(
    "http.server.request.duration",
    "s",
    "requests at the router, to the last byte",
    _REQUEST_S,
    *(names.METHOD, names.ROUTE, names.STATUS),
)
FIRST_BYTE = _histogram("onstream.router.time_to_first_byte", "s", "of streamed replies", _FIRST_TOKEN_S, names.ENGINE)
ENGINE_UP = _state("onstream.router.engine.up", "{engine}", "1 where an engine answers, else 0", names.ENGINE)
CANDIDATE_SHARE = _state(
    "onstream.router.candidate_share", "{share}", "share of new sessions on the candidate, or held back"
)
FEEDBACK_TAKEN = _counter("onstream.feedback.taken", "{feedback}", "feedback that is durable")

# -- engine

GENERATE_DURATION = _histogram("gen_ai.server.request.duration", "s", "captured requests", _REQUEST_S, *_GEN_AI)
FIRST_TOKEN = _histogram("gen_ai.server.time_to_first_token", "s", "of streamed replies", _FIRST_TOKEN_S, *_GEN_AI)
EACH_TOKEN = _histogram(
    "gen_ai.server.time_per_output_token", "s", "of streamed replies, after the first token", _EACH_TOKEN_S, *_GEN_AI
)
TRACES_CAPTURED = _counter("onstream.traces.captured", "{trace}", "traces written", names.ARM)
TRACES_DROPPED = _counter("onstream.traces.dropped", "{trace}", "traces and feedback lost for want of disk or key")
TRACES_UNCONSENTED = _counter("onstream.traces.unconsented", "{request}", "requests served and, as told, not captured")
SWAP_PAUSE = _histogram("onstream.swap.pause", "s", "time in which an engine made no token", _PAUSE_S, names.ENGINE)
SWAP_DURATION = _histogram("onstream.swap.duration", "s", "fetch, verify and swap", _WORK_S, names.ENGINE)
SWAPS_FAILED = _counter("onstream.swap.failed", "{swap}", "loads that were refused or taken back", names.ENGINE)
ENGINE_VERSION = _state("onstream.engine.version", "{version}", "the version that an engine serves", names.ENGINE)
IN_FLIGHT = _state("onstream.engine.in_flight", "{request}", "users' requests in an engine", names.ENGINE)
SPOOL_BYTES = _state("onstream.spool.size", "By", "on disk, shipped or not")
SPOOL_LIMIT_BYTES = _state("onstream.spool.limit", "By", "what the disk spool may hold; beyond it traces are dropped")

# -- the log, in every stage that reads it

SENT = _counter(
    "messaging.client.sent.messages",
    "{message}",
    "records appended",
    *(names.MESSAGING_SYSTEM, names.MESSAGING_OPERATION, names.MESSAGING_TYPE, names.DESTINATION),
)
CONSUMED = _counter("messaging.client.consumed.messages", "{message}", "records read", *_CONSUMED)
PROCESS_DURATION = _histogram(
    "messaging.process.duration", "s", "closing a session, or scoring one", _PROCESS_S, *_CONSUMED
)
LAG = _gauge(
    "onstream.consumer.lag",
    "{message}",
    "uncommitted by the whole group: unread, or in open sessions and batches",
    *(names.GROUP, names.DESTINATION),
)
DEAD_LETTERS = _counter(
    "onstream.dead_letters", "{message}", "records put aside as unusable", names.DESTINATION, names.CAUSE
)
PARKED = _counter("onstream.parked", "{message}", "records put aside until their version is known", names.DESTINATION)
REDRIVEN = _counter("onstream.redriven", "{message}", "records put back", names.DESTINATION)
ERASED_READ = _counter("onstream.records.erased", "{record}", "records read whose key was erased", names.DESTINATION)
KEYS_ERASED = _counter("onstream.keys.erased", "{key}", "subjects' keys erased")
FATES = _counter("onstream.traces.fates", "{trace}", "traces that ended; each ends once", names.FATE)

# -- ingest

OPEN_SESSIONS = _state("onstream.sessions.open", "{session}", "sessions that have not closed")
TRAJECTORIES_CLOSED = _counter("onstream.trajectories.closed", "{trajectory}", "sessions closed", names.CLOSED)
FEEDBACK_LATE = _counter("onstream.feedback.late", "{feedback}", "came after its session closed")
FEEDBACK_UNCLAIMED = _counter("onstream.feedback.unclaimed", "{feedback}", "about nothing known")
LAKE_ROWS = _counter("onstream.lake.rows", "{row}", "rows in committed files")
LAKE_COMMIT = _histogram("onstream.lake.commit.duration", "s", "a commit of the lake", _WORK_S)

# -- rewards

REWARDS_MADE = _counter("onstream.rewards.made", "{reward}", "rewards written", names.HAS_SIGNAL)
SCORES = _counter("onstream.rewards.scores", "{score}", "components asked about turns", names.COMPONENT)
UNSCORED = _counter(
    "onstream.rewards.unscored", "{score}", "of these, without a number, and why", names.COMPONENT, names.CAUSE
)
REWARDS_WAITING = _state("onstream.rewards.waiting", "{trajectory}", "trajectories that wait for scorers")
OLDEST_UNSCORED = _state(
    "onstream.rewards.oldest_unscored", "s", "age of the oldest trace that was read and has no reward yet; 0: none"
)

# -- trainer

STALENESS = _histogram(
    "onstream.trainer.staleness", "{promotion}", "promotions a trained turn's oldest weights lay behind", _PROMOTIONS
)
UPDATE_DURATION = _histogram("onstream.trainer.update.duration", "s", "optimiser steps of one update", _WORK_S)
UPDATES_DISCARDED = _counter(
    "onstream.trainer.updates.discarded", "{update}", "updates that an alarm stopped, and which", names.CAUSE
)
TURNS_TRAINED = _counter("onstream.trainer.turns.trained", "{turn}", "turns trained, each time")
TURNS_NEAR_DUPLICATE = _counter("onstream.trainer.turns.near_duplicate", "{turn}", "turns weighted down as repeats")
TURNS_INELIGIBLE = _counter(
    "onstream.trainer.turns.ineligible", "{turn}", "turns that never train, and why", names.CAUSE
)
TURNS_CORRECTED = _counter(
    "onstream.trainer.turns.corrected", "{turn}", "corrected turns that were taught by what corrects them"
)
TURNS_AGAIN = _counter(
    "onstream.trainer.turns.again", "{turn}", "turns used in vain and taken again from the log, and why", names.CAUSE
)
TURNS_COLLECTED = _state("onstream.trainer.turns.collected", "{turn}", "turns held for the next step")
TURNS_IN_MAKING = _state("onstream.trainer.turns.in_making", "{turn}", "turns trained in the version in the making")
TRAINER_PHASE = _state("onstream.trainer.phase", "{phase}", "1 for what the trainer does now, else 0", names.PHASE)
ESS = _gauge("onstream.trainer.ess", "{share}", "effective sample size of the last update, as a share of its tokens")
KL = _gauge("onstream.trainer.kl", "{nat}", "KL from the served policy to the last update, per token")
STABLE_KL = _gauge("onstream.trainer.stable_kl", "{nat}", "KL from stable to the version in the making, per token")
CLIP_SHARE = _gauge("onstream.trainer.clip_share", "{share}", "tokens of the last update whose weight was clipped")
GRAD_NORM = _gauge("onstream.trainer.grad_norm", "{norm}", "of the last update, a mean over its steps")
LOSS = _gauge("onstream.trainer.loss", "{loss}", "of the last update, a mean over its steps")
ENTROPY = _gauge("onstream.trainer.entropy", "{nat}", "of the policy where the last update trained, per token")
MISMATCH_K1 = _gauge(
    "onstream.trainer.mismatch", "{nat}", "KL from the served policy to the learner before its first step, per token"
)
MISMATCH_K3 = _gauge("onstream.trainer.mismatch_positive", "{nat}", "the same by the k3 estimator, never negative")
LR_SCALE = _gauge(
    "onstream.trainer.lr_scale", "{share}", "of `trainer.lr` that the last update's steps were taken with"
)
HINT_GAP = _gauge(
    "onstream.trainer.hint_gap", "{nat}", "corrected turns' tokens: logged log-probability less the teacher's"
)
REWARD_MEAN = _gauge("onstream.reward.mean", "{reward}", "mean reward of the last batch")
BATCH_USER_SHARE = _gauge("onstream.trainer.batch.user_share", "{share}", "most that one user has of the last batch")
BATCH_TENANT_SHARE = _gauge("onstream.trainer.batch.tenant_share", "{share}", "most that one tenant has of it")
GROUPS_TRAINED = _counter(
    "onstream.trainer.groups", "{group}", "groups of replays trained: compared, all alike, or one alone", names.CAUSE
)
VERSIONS_PUBLISHED = _counter("onstream.versions.published", "{version}", "versions published")

# -- rollout

TRIAL_STATE = _state("onstream.trial.state", "{trial}", "1 for where the trial stands now, else 0", names.STATE)
TRIAL_CANDIDATE = _state("onstream.trial.candidate", "{version}", "the version on trial; no series: none")
TRIAL_SHARE = _state("onstream.trial.share", "{share}", "share of sessions on the candidate, or held back")
TRIAL_UNITS = _state("onstream.trial.units", "{session}", "sessions that count", names.ARM)
TRIAL_LOG_E = _state("onstream.trial.log_e", "{nat}", "evidence that the candidate is not worse", names.OUTCOME)
TRIAL_LOG_HARM = _state(
    "onstream.trial.log_harm", "{nat}", "evidence that it is worse, in a trial or under watch", names.OUTCOME
)
TRIAL_LOG_THRESHOLD = _state("onstream.trial.log_threshold", "{nat}", "what every log_e must reach for a promotion")
TRIAL_LOG_MISMATCH = _state("onstream.trial.log_mismatch", "{nat}", "evidence that sessions were not split as said")
TRIAL_OUTCOME = _state(
    "onstream.trial.outcome", "{outcome}", "an arm's mean outcome in the trial or the watch", names.OUTCOME, names.ARM
)
TRIAL_USERS_NEEDED = _state("onstream.trial.users_needed", "{user}", "fewer cannot bring about a promotion")
TRIAL_AGE = _state("onstream.trial.age", "s", "of the canary or the watch: the time in which sessions came")
STABLE_VERSION = _state("onstream.release.stable", "{version}", "the stable version")
HOLDBACK_VERSION = _state(
    "onstream.release.holdback", "{version}", "the version that sessions are held back on under watch; no series: none"
)
MODE = _state("onstream.release.mode", "{mode}", "1 for the mode that operators chose, else 0", names.MODE)
RELEASE_LAST = _state("onstream.release.last", "{release}", "the newest release that a process follows")
ASSIGNED_VERSION = _state(
    "onstream.release.engine_version", "{version}", "the version that an engine shall serve", names.ENGINE
)
RELEASES = _counter("onstream.releases", "{release}", "steps of trials", names.STATE)
FEEDBACK_TO_SERVING = _histogram(
    "onstream.feedback.to_serving",
    "s",
    "from the median feedback of a batch until the last stable engine serves what it taught",
    _LOOP_S,
)

# -- the replay lane

LANE_PROMPTS = _counter("onstream.lane.prompts", "{prompt}", "prompts drawn to be asked again, or why not", names.CAUSE)
LANE_GROUPS = _counter("onstream.lane.groups", "{group}", "groups asked for, whole or why not", names.CAUSE)
LANE_REPLAYS = _counter("onstream.lane.replays", "{replay}", "prompts answered again", names.ENGINE)
LANE_INTERRUPTED = _counter("onstream.lane.interrupted", "{replay}", "replays that a user cut short", names.ENGINE)
LANE_IDLE = Metric(
    "onstream.lane.idle", Kind.SUM, "s", "time that the lane saw an engine without users", (names.ENGINE,)
)
LANE_ASKING = Metric("onstream.lane.asking", Kind.SUM, "s", "of this, time in which it answered", (names.ENGINE,))

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
