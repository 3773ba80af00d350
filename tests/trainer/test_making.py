from dataclasses import replace
from typing import Any

import pytest

from infra.config import TrainerConfig
from ingest.records.events import FEEDBACK_AT, SESSIONS_FROM, SESSIONS_TO, FateKind
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import make_batch
from trainer.inbox import Item
from trainer.learner.update import UpdateMetrics
from trainer.making import Closed, candidate_of, closed, grown, together, used_of
from trainer.state import MAX_FATED, Making, Standing, Used

CONFIG = TrainerConfig(
    batch_turns=2, max_version_turns=8, max_version_age_s=60.0, max_version_kl=0.1, min_version_ess=0.5
)
HEALTHY = Making(begun_at=0.0, num_turns=4, num_updates=1, ess=0.9, stable_kl=0.01)
UPDATE = UpdateMetrics(2, 0, 40, 0.1, 1.0, 0.01, 1.0, 0.8, 0.1, 0.05)


@pytest.mark.parametrize(
    ("changes", "now", "why"),
    [
        ({}, 1.0, None),
        ({"num_turns": 8}, 1.0, Closed.TURNS),
        ({"num_turns": 7}, 1.0, None),
        ({}, 61.0, Closed.AGE),
        ({}, 60.0, None),
        ({"stable_kl": 0.11}, 1.0, Closed.KL),
        ({"stable_kl": None}, 1.0, None),
        ({"ess": 0.49}, 1.0, Closed.ESS),
        ({"alarm": "a step was bad"}, 1.0, Closed.ALARM),
    ],
)
def test_a_version_takes_turns_until_a_bound_says_that_it_went_far_enough(
    changes: dict[str, Any], now: float, why: Closed | None
) -> None:
    assert closed(HEALTHY.model_copy(update=changes), CONFIG, now) is why


def test_a_kl_of_zero_at_most_is_no_bound() -> None:
    far = HEALTHY.model_copy(update={"stable_kl": 9.0})
    assert closed(far, CONFIG.model_copy(update={"max_version_kl": 0.0}), 1.0) is None


def test_what_trains_in_nothing_is_bounded_in_number_alone() -> None:
    one = Used(trace_ids=tuple(map(str, range(MAX_FATED - 1))), kind=FateKind.REFUSED)
    empty = Making(begun_at=0.0, ess=0.0).using((one,))
    assert closed(empty, CONFIG, 1e9) is None
    more = Used(trace_ids=("x",), kind=FateKind.REFUSED)
    assert closed(empty.using((more,)), CONFIG, 1e9) is Closed.TURNS


def test_an_alarm_closes_one_that_holds_no_turns_too() -> None:
    assert closed(Making(begun_at=0.0, alarm="its first step was bad"), CONFIG, 1.0) is Closed.ALARM


def test_metrics_of_two_steps_are_sums_bounds_or_means_over_turns() -> None:
    first = {
        "num_tokens": 10.0,
        "num_hinted": 1.0,
        "hint_gap": 0.6,
        "kl": 0.1,
        "fair.user_share": 0.3,
        SESSIONS_FROM: 5.0,
        SESSIONS_TO: 9.0,
        "reward.a": 0.2,
    }
    second = {
        "num_tokens": 30.0,
        "num_hinted": 2.0,
        "hint_gap": 0.3,
        "kl": 0.3,
        "fair.user_share": 0.2,
        SESSIONS_FROM: 4.0,
        SESSIONS_TO: 8.0,
        FEEDBACK_AT: 7.0,
    }
    found = together(first, 1, second, 3)
    assert found == pytest.approx(
        {
            "num_tokens": 40.0, "kl": 0.25, "fair.user_share": 0.3, SESSIONS_FROM: 4.0, SESSIONS_TO: 9.0,
            "reward.a": 0.2, FEEDBACK_AT: 7.0, "num_hinted": 3.0,
            "hint_gap": 0.4,
        }
    )  # fmt: skip


@pytest.fixture
def items(log_items: Any) -> list[Item]:
    a, b, c = log_items([("a", [1.0, None]), ("b", [0.0]), ("c", [None])])
    return [a, replace(b, at=900.0), c]


def test_every_trace_of_an_item_is_used_once_and_those_that_train_in_their_order(items: list[Item]) -> None:
    trained = [turn.trace_id for item in items for turn in item.eligible]
    used = used_of(items, trained)
    assert [(one.kind, len(one.trace_ids), one.rewarded_at) for one in used] == [
        (FateKind.TRAINED, 2, 900.0),
        (FateKind.REFUSED, 2, 900.0),
    ]
    assert Making(begun_at=0.0, used=used).trained == tuple(trained)
    assert {one.reason for one in used if one.kind is FateKind.REFUSED} == {"unscored"}
    assert all(one.kind is FateKind.REFUSED for one in used_of(items, ()))


def test_a_version_is_what_its_steps_were(items: list[Item]) -> None:
    batch = make_batch(items, Baselines(), CONFIG, 0)
    used = used_of(items, (turn.trace_id for turn in batch.turns))
    one = grown(Making(begun_at=5.0), used, batch, UPDATE, {}, {"traceparent": "1"})
    two = grown(one, used, batch, replace(UPDATE, ess=0.6, stable_kl=None), {}, {"traceparent": "2"})
    assert (two.num_updates, two.num_turns, two.ess, two.stable_kl, two.begun_at) == (2, 4, 0.6, None, 5.0)
    standing = Standing(learner="x", baselines=Baselines())
    made = candidate_of(two, 9, 4, standing, 70.0, {})
    assert (made.version, made.parent, made.spec, made.standing, made.at) == (9, 4, "default/1", standing, 70.0)
    assert made.trace_ids == two.trained and len(made.trace_ids) == 4
    assert (made.metrics["num_tokens"], made.metrics["ess"], made.metrics["updates"]) == (80.0, pytest.approx(0.7), 2.0)
    assert (made.context, made.contexts) == ({"traceparent": "2"}, ({"traceparent": "1"},))
