"""What telemetry hears of a reward: numbers, and reasons from a closed set.

A scorer may give any text as its reason, and a user's own scorer a piece of what it read: only the reasons below are
told, by what stands before their colon, and all others are `other`.
"""

from opentelemetry.trace import Span

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.records.events import Reward

REASONS = frozenset(
    {
        "no feedback",
        "no follow-up",
        "follow-up says neither",
        "how long it took was not recorded",
        "nothing came after the cut",
        "no engine has a scoring port",
        "cannot be asked",
        "history or none",
        "the history holds nothing that was used later, decided or left to do",
        "there is nothing that the summary replaces",
        "crashed",
        "no answer in time",
        "not asked",
        "a replay has no user",
        "too many wait",
        "it waited too long",
    }
)
OTHER = "other"


def cause(reason: str) -> str:
    """One of `REASONS`, or `other`."""
    head = reason.partition(":")[0]
    if head.startswith("no answer within"):
        head = "no answer in time"
    return head if head in REASONS else OTHER


def count(made: Reward) -> None:
    """Count a reward, what its components were asked, and what they left unscored."""
    telemetry.count(metrics.REWARDS_MADE, 1, {names.HAS_SIGNAL: made.has_signal})
    for component in made.components:
        told = {names.COMPONENT: component.name}
        telemetry.count(metrics.SCORES, 1, told)
        if component.unscored is not None:
            telemetry.count(metrics.UNSCORED, 1, told | {names.CAUSE: cause(component.unscored)})


def show(span: Span, made: Reward) -> None:
    """Put a reward's numbers into the span that made it."""
    if not span.is_recording():
        return
    span.set_attribute(names.HAS_SIGNAL, made.has_signal)
    scored = (component for component in made.components if component.value is not None)
    for component, _ in zip(scored, range(names.MAX_EVENTS), strict=False):
        assert component.value is not None
        told: names.Told = {names.EVALUATION: component.name, names.SCORE_VALUE: component.value}
        span.add_event(names.EVALUATED, told | {names.RESPONSE: component.trace_id})
