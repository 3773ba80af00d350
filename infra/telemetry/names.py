"""Every span, metric and attribute that Onstream emits, each here and nowhere else. Costs nothing to import.

Names follow OpenTelemetry where it has any, and `SCHEMA` says which state of it: general conventions 1.44, messaging
and GenAI as in development there. Ours begin with `onstream.`. Units are UCUM; what is counted stands in braces.
`docs/telemetry.md` shows these tables, and a test compares the two.
"""

from dataclasses import dataclass
from enum import StrEnum

SCHEMA = "1.44.0"
"""The semantic conventions that these names are of."""
SCHEMA_URL = f"https://opentelemetry.io/schemas/{SCHEMA}"
SCOPE = "onstream"
"""The name of our tracer, meter and logger."""
MAX_LINKS = 128
"""Of a span to others: the SDK drops what is beyond."""

# -- attributes

ARM = "onstream.arm"
CAUSE = "onstream.reason"
CLOSED = "onstream.session.closed"
COMPONENT = "onstream.reward.component"
ENGINE = "onstream.engine.id"
FATE = "onstream.fate"
HAS_SIGNAL = "onstream.reward.has_signal"
MODE = "onstream.mode"
NUM_TURNS = "onstream.turns"
OUTCOME = "onstream.gate.outcome"
PHASE = "onstream.trainer.phase"
RELEASE = "onstream.release.number"
RELEASE_KIND = "onstream.release.kind"
RETRIES = "onstream.router.retries"
STATE = "onstream.trial.state"
TRACE = "onstream.trace.id"
TRAJECTORY = "onstream.trajectory.id"
VERSION = "onstream.version"

CONVERSATION = "gen_ai.conversation.id"
EVALUATION = "gen_ai.evaluation.name"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
MAX_TOKENS = "gen_ai.request.max_tokens"
OPERATION = "gen_ai.operation.name"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE = "gen_ai.response.id"
SCORE_VALUE = "gen_ai.evaluation.score.value"
STREAM = "gen_ai.request.stream"
TEMPERATURE = "gen_ai.request.temperature"
TOP_P = "gen_ai.request.top_p"

BATCH_COUNT = "messaging.batch.message_count"
DESTINATION = "messaging.destination.name"
GROUP = "messaging.consumer.group.name"
MESSAGING_OPERATION = "messaging.operation.name"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_TYPE = "messaging.operation.type"
OFFSET = "messaging.kafka.offset"
PARTITION = "messaging.destination.partition.id"

ERROR = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"

ATTRIBUTES: dict[str, str] = {
    ENGINE: "the engine, by its id in the configuration",
    ARM: "stable, candidate or holdback",
    CAUSE: "why, of a closed set; never free text",
    CLOSED: "why a session closed: inactive, horizon or ended",
    COMPONENT: "a component of the reward spec",
    FATE: "how a trace ended: trained, held_out, refused, expired or dead_lettered",
    HAS_SIGNAL: "whether some component scored some turn",
    NUM_TURNS: "turns in a trajectory or in a batch",
    OUTCOME: "what the gate weighs: reward, or a guardrail's name",
    PHASE: "what the trainer does",
    RELEASE: "a release's number",
    RELEASE_KIND: "what a release says: claim, bootstrap, trial, block, announced or operator",
    RETRIES: "engines that were tried in vain",
    STATE: "where a trial stands, or idle",
    MODE: "whether what is served may change by itself: open, paused, pinned, frozen",
    TRACE: "a trace's id, as records and replies have it",
    TRAJECTORY: "a trajectory's id",
    VERSION: "a version's number",
    CONVERSATION: "a session's key: a hash, as a client may put anything into its session's name",
    EVALUATION: "a component of the reward spec, in an event of `process trajectories`",
    FINISH_REASONS: "why generation ended, one for each reply",
    INPUT_TOKENS: "tokens of the prompt",
    MAX_TOKENS: "tokens that the request allowed",
    OPERATION: "chat, text_completion, embeddings or other",
    OUTPUT_TOKENS: "tokens sampled",
    PROVIDER: "vllm",
    REQUEST_MODEL: "the model's name in the configuration",
    RESPONSE: "the trace that was evaluated",
    SCORE_VALUE: "what the component said of it",
    STREAM: "whether the reply was streamed",
    TEMPERATURE: "of sampling",
    TOP_P: "of sampling",
    BATCH_COUNT: "messages in a batch",
    DESTINATION: "a topic",
    GROUP: "a consumer group",
    MESSAGING_OPERATION: "send or process",
    MESSAGING_SYSTEM: "kafka",
    MESSAGING_TYPE: "send or process",
    OFFSET: "a message's offset",
    PARTITION: "a message's partition",
    ERROR: "an exception's class, or an HTTP status of 500 and above",
    METHOD: "GET or POST",
    ROUTE: "the endpoint, or /v1/{path} for one that is not known here",
    STATUS: "of the answer",
}
"""Attribute -> what it says. None of them is ever content, a user's name or a session's name."""

# -- events of spans

EVALUATED = "gen_ai.evaluation.result"
"""A component's number for a turn, in the span that scored it, with EVALUATION, SCORE_VALUE and RESPONSE."""
MAX_EVENTS = 128

# -- spans


class SpanRole(StrEnum):
    """A span's kind, as OpenTelemetry names it."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


@dataclass(frozen=True)
class SpanName:
    """A span. `name` may have one place `{}` for what the call says: a topic, an endpoint, a model."""

    name: str
    role: SpanRole
    about: str
    attributes: tuple[str, ...] = ()
    of: str = ""
    """What stands for `{}` where the table is shown."""
    is_ambient: bool = True
    """Whether other libraries' instrumentation finds it around them. Not where every request pays for it."""

    @property
    def shown(self) -> str:
        return self.name.format(self.of)


_KAFKA = (MESSAGING_SYSTEM, MESSAGING_OPERATION, MESSAGING_TYPE, DESTINATION)

REQUEST = SpanName(
    "{}",
    SpanRole.SERVER,
    "a request at the router, to the end of its answer; feedback too, as `POST /v1/feedback`",
    (METHOD, ROUTE, STATUS, ERROR, TRACE, ARM, ENGINE, RETRIES),
    "POST /v1/chat/completions",
    is_ambient=False,
)
GENERATE = SpanName(
    "{}",
    SpanRole.INTERNAL,
    "a request in an engine, above vLLM's own `llm_request`",
    (
        *(OPERATION, PROVIDER, REQUEST_MODEL, STREAM, TEMPERATURE, TOP_P, MAX_TOKENS, FINISH_REASONS),
        *(INPUT_TOKENS, OUTPUT_TOKENS, CONVERSATION, TRACE, ARM, ENGINE, VERSION, ERROR),
    ),
    "chat smollm2",
    is_ambient=False,
)
SEND = SpanName("send {}", SpanRole.PRODUCER, "a record appended to a topic", _KAFKA, "trajectories")
SHIP = SpanName(
    "send {}",
    SpanRole.CLIENT,
    "a batch from the spool to the log; linked to the requests that its records came from",
    (*_KAFKA, BATCH_COUNT),
    "traces",
)
CLOSE_SESSION = SpanName(
    "process {}",
    SpanRole.CONSUMER,
    "ingest closes a session: child of its last turn's request, linked to the others' and to its feedback's",
    (*_KAFKA, GROUP, BATCH_COUNT, TRAJECTORY, NUM_TURNS, CLOSED, ERROR),
    "traces",
)
SCORE = SpanName(
    "process {}",
    SpanRole.CONSUMER,
    "a trajectory gets its reward",
    (*_KAFKA, GROUP, PARTITION, OFFSET, TRAJECTORY, NUM_TURNS, HAS_SIGNAL, EVALUATION, SCORE_VALUE, RESPONSE, ERROR),
    "trajectories",
)
TRAIN = SpanName(
    "process {}",
    SpanRole.CONSUMER,
    "a training step, linked to the rewards that it consumed",
    (*_KAFKA, GROUP, BATCH_COUNT, NUM_TURNS, VERSION, ERROR),
    "rewards",
)
UPDATE = SpanName("update policy", SpanRole.INTERNAL, "the learner's optimiser steps", (VERSION, NUM_TURNS, ERROR))
PUBLISH = SpanName("publish version", SpanRole.INTERNAL, "store, then the `versions` record", (VERSION, ERROR))
DECIDE = SpanName(
    "decide release",
    SpanRole.INTERNAL,
    "the rollout writes a release; about a version, it is in the trace of that version's training step",
    (RELEASE, RELEASE_KIND, VERSION, STATE, ERROR),
)
LOAD = SpanName("load version", SpanRole.CLIENT, "the rollout has an engine load a version", (VERSION, ENGINE, ERROR))
SWAP = SpanName("swap weights", SpanRole.SERVER, "an engine loads a version", (VERSION, ENGINE, ERROR))

SPANS: tuple[SpanName, ...] = (
    *(REQUEST, GENERATE, SHIP, CLOSE_SESSION, SEND, SCORE, TRAIN, UPDATE, PUBLISH, DECIDE, LOAD, SWAP),
)


Told = dict[str, str | bool | int | float | tuple[str, ...]]
"""Attributes, as they are gathered."""


def messaging(operation: str, topic: str) -> Told:
    """What is said of an operation on a topic: `send` or `process`."""
    return {
        MESSAGING_SYSTEM: "kafka",
        MESSAGING_OPERATION: operation,
        MESSAGING_TYPE: operation,
        DESTINATION: topic,
    }
