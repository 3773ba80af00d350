"""Summaries that please a careless reward: each priced below an honest failure, and by which components.

The honest failure is a lossy summary: half of what was said is gone, some of what was needed with it. Likelihoods are a
fake's here; `make bench NAME=summary` has the same table with the real engine.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import mean
from typing import Any

import pytest
from histories import HACKS, Kind, domains, draw, record, summarise, summary_turn

from ingest.records.events import Trajectory
from rewards import evaluate, spec
from rewards.scorers import Outcome, Services
from rewards.spec import RewardSpec, Scoring
from rewards.summary.fake import CopyingLikelihoods
from rewards.summary.sufficiency import Sufficiency

COMPONENTS: tuple[dict[str, Any], ...] = (
    {"name": "sufficiency", "scorer": "sufficiency", "weight": 1.0},
    {"name": "recall", "scorer": "recall", "weight": 1.0},
    {"name": "faithfulness", "scorer": "faithfulness", "weight": 0.25, "factor": True},
    {"name": "length", "scorer": "length", "weight": 0, "factor": True},
    {"name": "symptoms", "scorer": "symptoms", "weight": 0.5},
)
CAUGHT_BY = {
    Kind.STUFFED: {"length"},
    Kind.COPYING: {"length"},
    Kind.INVENTED: {"faithfulness"},
    Kind.HIDING: {"faithfulness"},
    Kind.KEYWORDS: {"faithfulness", "recall", "sufficiency", "symptoms"},
    Kind.FLATTERING: {"faithfulness", "recall", "sufficiency", "symptoms"},
    Kind.EMPTY: {"recall", "sufficiency", "symptoms"},
    Kind.ASKING: {"recall", "sufficiency", "symptoms"},
}
HISTORIES = [(domain, number) for domain in domains() for number in range(2)]


@cache
def outcomes(domain: str, number: int, kind: Kind) -> tuple[Trajectory, dict[evaluate.Key, Outcome]]:
    """A summary's trajectory and what all scorers say of it."""
    history = draw(number, domain)
    trajectory = record(history, summarise(history, kind))
    asked, services = evaluate.ask(scoring(COMPONENTS), trajectory), Services(CopyingLikelihoods())
    found = dict(asked.outcomes)
    for question in asked.open:
        (found[question.key],) = asyncio.run(Sufficiency().score_batch([(trajectory, question.turn)], services))
    return trajectory, found


def scoring(components: Sequence[Mapping[str, Any]]) -> Scoring:
    return spec.build(RewardSpec.model_validate({"name": "summaries", "components": components}))


def price(domain: str, number: int, kind: Kind, off: Sequence[str] = ()) -> float:
    """The reward of a summary turn with some components off."""
    trajectory, found = outcomes(domain, number, kind)
    kept = [part for part in COMPONENTS if part["name"] not in off]
    if all(part["weight"] == 0 for part in kept):  # a factor alone is no reward
        kept = [{**part, "weight": 1.0} for part in kept]
    made = evaluate.reward(scoring(kept), trajectory, found, 0.0)
    value = next(each.value for each in made.turns if each.trace_id == summary_turn(trajectory).trace_id)
    assert value is not None
    return value


def share_below_lossy(hack: Kind, off: Sequence[str] = ()) -> float:
    return mean([price(*one, hack, off) < price(*one, Kind.LOSSY, off) for one in HISTORIES])


@pytest.mark.parametrize("hack", HACKS)
def test_a_hack_is_worth_less_than_an_honest_failure(hack: Kind) -> None:
    assert share_below_lossy(hack) >= 0.9


@pytest.mark.parametrize("hack", HACKS)
def test_a_hack_passes_without_the_components_that_catch_it(hack: Kind) -> None:
    assert share_below_lossy(hack, sorted(CAUGHT_BY[hack])) < 0.5


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.FAITHFUL])
def test_nothing_is_worth_as_much_as_a_faithful_summary(kind: Kind) -> None:
    assert mean([price(*one, Kind.FAITHFUL) > price(*one, kind) for one in HISTORIES]) == 1.0


def test_saying_nothing_is_worth_more_than_saying_what_is_wrong() -> None:
    assert mean([price(*one, Kind.EMPTY) > price(*one, Kind.WRONG_VALUE) for one in HISTORIES]) >= 0.85
