"""What telemetry hears of trials, engines and users' requests."""

from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from told import telling as on
from units import tally_of, unit
from upstreams import MakeFront, Upstream

from infra.config import GateConfig, GuardrailConfig
from infra.telemetry import metrics, spans
from infra.telemetry.recording import Tracer
from ingest.records.events import Arm, Mode, TrialState
from ingest.store.releases import Served
from serving import headers, requests
from serving.rollout import telling
from serving.rollout.evidence import Baseline, Standing, judge


@dataclass
class Controller:
    served: Served = field(default_factory=Served)
    standing: Standing | None = None


def judged() -> Standing:
    rails = tuple(GuardrailConfig(name=name, margin=0.1) for name in ("completed", "substance"))
    config = GateConfig(margin=0.1, settle_s=0, guardrails=rails)
    units = [
        unit(
            n, Arm.CANDIDATE if n % 2 else Arm.STABLE, 0.5 + n % 2 / 4, completed=1.0, substance=1.0, began_at=n * 0.75
        )
        for n in range(10)
    ]
    frozen = {name: Baseline(0.5, 0.1) for name in ("reward", "completed", "substance")}
    return judge(tally_of(units, config, frozen), trial=1, promotions=0)


def test_a_trials_evidence_is_told_by_outcome_beside_its_threshold() -> None:
    standing = judged()
    candidate = Served(candidate=3, state=TrialState.CANARY, share=0.5, lineage=(0, 2), engines={"a": 2, "b": 3})
    with on() as told:
        telling.observe(Controller(candidate, standing))
        for name in ("reward", "completed", "substance"):
            assert told.value(metrics.TRIAL_LOG_E, outcome=name) == standing.numbers[f"log_e.{name}"]
            assert told.value(metrics.TRIAL_LOG_HARM, outcome=name) == standing.numbers[f"log_harm.{name}"]
        assert len(told.points(metrics.TRIAL_LOG_E)) == 3  # what one user can move is no outcome
        assert told.value(metrics.TRIAL_LOG_THRESHOLD) == standing.numbers["log_threshold"]
        assert told.value(metrics.TRIAL_OUTCOME, outcome="reward", arm="candidate") == 0.75
        assert told.value(metrics.TRIAL_UNITS, arm="stable") == 5
        assert told.value(metrics.TRIAL_AGE) == 6.75
        assert (told.value(metrics.TRIAL_CANDIDATE), told.value(metrics.TRIAL_SHARE)) == (3, 0.5)
        assert told.value(metrics.STABLE_VERSION) == 2
        assert set(told.points(metrics.ASSIGNED_VERSION).values()) == {2, 3}
        states = told.points(metrics.TRIAL_STATE)
        assert sum(states.values()) == 1 and told.value(metrics.TRIAL_STATE, state="canary") == 1


@pytest.mark.parametrize("state", [None, TrialState.PROMOTED, TrialState.EVALUATING])
def test_where_no_canary_runs_the_numbers_of_the_last_one_are_not_told(state: TrialState | None) -> None:
    with on() as told:
        telling.observe(Controller(Served(candidate=3, state=state, lineage=(0,)), judged()))
        assert told.points(metrics.TRIAL_LOG_E) == told.points(metrics.TRIAL_UNITS) == {}
        assert told.value(metrics.TRIAL_STATE, state=state.value if state else telling.IDLE) == 1


def test_under_watch_harm_is_told_and_no_evidence_that_would_promote() -> None:
    watched = Served(candidate=3, state=TrialState.PROMOTED, share=0.1, holdback=2, mode=Mode.PAUSED, lineage=(0, 2, 3))
    with on() as told:
        telling.observe(Controller(watched, judged()))
        assert len(told.points(metrics.TRIAL_LOG_HARM)) == 3
        assert told.points(metrics.TRIAL_LOG_E) == told.points(metrics.TRIAL_LOG_THRESHOLD) == {}
        assert (told.value(metrics.HOLDBACK_VERSION), told.value(metrics.TRIAL_SHARE)) == (2, 0.1)
        modes = told.points(metrics.MODE)
        assert sum(modes.values()) == 1 and told.value(metrics.MODE, mode="paused") == 1


def test_before_anything_was_released_nothing_is_told_as_stable() -> None:
    with on() as told:
        telling.observe(Controller())
        assert told.points(metrics.STABLE_VERSION) == told.points(metrics.TRIAL_CANDIDATE) == {}


@pytest.mark.parametrize(
    ("path", "operation", "route"),
    [
        ("/v1/chat/completions", "chat", "/v1/chat/completions"),
        ("/v1/completions", "text_completion", "/v1/completions"),
        ("/v1/feedback", "other", "/v1/feedback"),
        ("/v1/anna@example.org", "other", "/v1/{path}"),
    ],
)
def test_a_path_that_is_not_known_is_no_label(path: str, operation: str, route: str) -> None:
    assert (requests.operation(path), requests.route(path)) == (operation, route)


async def test_a_request_is_measured_to_its_last_byte_and_told_with_its_engine(
    front: MakeFront, upstream: Upstream
) -> None:
    with on() as told:
        async with upstream.serving():
            made = await front(upstream)
            answer = await made.chat(stream=True, **{headers.SESSION: "anna@example.org"})
        span = told.span("POST /v1/chat/completions")
        assert (span.attributes or {})["onstream.trace.id"] == answer.headers[headers.TRACE]
        assert (span.attributes or {})["onstream.engine.id"] == "e0"
        assert "anna" not in span.to_json()
        assert told.value(metrics.REQUEST_DURATION, status_code=200).count == 1
        assert told.value(metrics.FIRST_BYTE, id="e0").count == 1
        (seen,) = upstream.seen
        assert span.context is not None
        assert seen["traceparent"].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


async def test_a_client_that_sends_a_context_has_the_request_below_its_own_span(
    front: MakeFront, upstream: Upstream
) -> None:
    with on() as told:
        async with upstream.serving():
            made = await front(upstream)
            await made.chat(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
        span = told.span("POST /v1/chat/completions")
        assert span.parent is not None and f"{span.parent.trace_id:032x}" == "a" * 32


async def test_a_request_that_no_engine_serves_is_a_failed_span_and_counted(
    front: MakeFront, upstream: Upstream
) -> None:
    upstream.fails_with = 500
    with on() as told:
        async with upstream.serving():
            made = await front(upstream)
            assert (await made.chat()).status_code == 503
        span = told.span("POST /v1/chat/completions")
        assert (span.attributes or {})["error.type"] == "503"
        assert (span.attributes or {})["onstream.router.retries"] == sum(told.points(metrics.RETRIES).values())


async def test_a_request_whose_handler_breaks_is_a_failed_span_and_measured_as_a_500(
    front: MakeFront, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on() as told:
        made = await front(upstream)
        monkeypatch.setattr(made.router, "_serve", None)
        with pytest.raises(TypeError):
            await made.chat()
        span = told.span("POST /v1/chat/completions")
        assert (span.attributes or {})["error.type"] == "TypeError"
        assert told.value(metrics.REQUEST_DURATION, status_code=500).count == 1


async def test_a_request_that_is_not_sampled_is_measured_and_hands_its_trace_on(
    front: MakeFront, upstream: Upstream
) -> None:
    with on() as told:
        spans.install(Tracer(TracerProvider(ParentBased(ALWAYS_OFF)), told.later))
        async with upstream.serving():
            made = await front(upstream)
            await made.chat(traceparent=f"00-{'a' * 32}-{'b' * 16}-00")
        assert told.spans == ()
        assert told.value(metrics.REQUEST_DURATION, status_code=200).count == 1
        went_on = upstream.seen[0]["traceparent"]
        assert went_on.startswith(f"00-{'a' * 32}-") and went_on.endswith("-00") and "b" * 16 not in went_on


@pytest.mark.parametrize("context", ["", f"00-{'a' * 32}-{'b' * 16}-01"])
async def test_without_spans_a_request_is_measured_and_a_clients_context_goes_on(
    front: MakeFront, upstream: Upstream, context: str
) -> None:
    with on() as told:
        spans.install(None)
        async with upstream.serving():
            made = await front(upstream)
            await made.chat(**({"traceparent": context} if context else {}))
        assert told.value(metrics.REQUEST_DURATION, status_code=200).count == 1
        assert upstream.seen[0].get("traceparent", "") == context


async def test_without_telemetry_a_clients_context_reaches_the_engine_as_it_is(
    front: MakeFront, upstream: Upstream
) -> None:
    context = f"00-{'a' * 32}-{'b' * 16}-01"
    async with upstream.serving():
        made = await front(upstream)
        await made.chat(traceparent=context, tracestate="a=b")
    assert (upstream.seen[0]["traceparent"], upstream.seen[0]["tracestate"]) == (context, "a=b")
