"""What `--regret` says of a version that was taken back, from records alone, and of users who change their mind."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from regret import find
from shows import RegretShow
from users import LONG, SHORT, Taste, Users, is_long, is_short

from ingest.records.events import Assignment, Release, ReleaseKind, Sampling, Trace, TrialState, TurnKind, VersionSpan
from rewards.scorers import FollowupRule
from rewards.spec import load

DEMO = Path(__file__).parents[2] / "examples" / "demo"
TURNED_AT, ALARM_AT, SWAPPED_AT = 100.0, 160.0, 160.5


def trace(*versions: int, finished_at: float, engine: str = "stable-0") -> Trace:
    """A reply with one token of each version."""
    return Trace(
        trace_id="t", session_id="s", tenant="default", assignment=Assignment(), engine_id=engine, kind=TurnKind.MAIN,
        endpoint="chat", model="m", request={}, reply_text="", streamed=True, status=200, prompt_token_ids=(1,),
        token_ids=tuple(versions), logprobs=(0.0,) * len(versions),
        spans=tuple(VersionSpan(version=v, start=i, end=i + 1) for i, v in enumerate(versions)), sampling=Sampling(),
        finish_reason="stop", started_at=0.0, finished_at=finished_at,
    )  # fmt: skip


def released(number: int, kind: ReleaseKind, at: float, state: TrialState | None, **engines: int) -> Release:
    by_name = {name.replace("_", "-"): version for name, version in engines.items()}
    return Release(
        release=number, epoch=1, kind=kind, stable=0, candidate=1, state=state, engines=by_name, reason="", at=at
    )


@pytest.fixture
def releases() -> Iterator[Release]:
    """Promoted, announced, taken back, and announced again."""
    return iter(
        (
            released(1, ReleaseKind.TRIAL, 90.0, TrialState.PROMOTED, stable_0=1),
            released(2, ReleaseKind.ANNOUNCED, 91.0, None, stable_0=1),
            released(3, ReleaseKind.TRIAL, ALARM_AT, TrialState.ROLLED_BACK, stable_0=0, candidate_0=0),
            released(4, ReleaseKind.ANNOUNCED, SWAPPED_AT, None, stable_0=0),
        )
    )


def test_a_bad_version_was_served_until_the_last_reply_that_it_ended(releases: Iterator[Release]) -> None:
    found = find(releases, [trace(1, finished_at=150.0), trace(1, finished_at=140.0), trace(0, finished_at=170.0)])
    assert found is not None
    assert found.served_s(TURNED_AT) == pytest.approx(50.0)
    assert found.after_alarm_s == 0.0


def test_a_reply_that_lived_through_the_swap_has_no_bad_token_after_it(releases: Iterator[Release]) -> None:
    found = find(releases, [trace(1, 0, finished_at=170.0)])
    assert found is not None
    assert found.after_alarm_s == pytest.approx(SWAPPED_AT - ALARM_AT)
    assert found.served_s(TURNED_AT) == pytest.approx(SWAPPED_AT - TURNED_AT)


def test_a_version_that_ended_a_reply_after_the_alarm_is_not_excused_by_the_swap(releases: Iterator[Release]) -> None:
    found = find(releases, [trace(1, finished_at=162.0), trace(1, 0, finished_at=163.0)])
    assert found is not None
    assert found.after_alarm_s == pytest.approx(2.0)


def test_without_a_rollback_nothing_was_taken_back(releases: Iterator[Release]) -> None:
    assert find((one for one in releases if one.state is not TrialState.ROLLED_BACK), []) is None


@pytest.mark.parametrize("reply", ["One short sentence.", "word " * 34, "word " * 35, "word " * 60])
def test_who_changes_their_mind_dislikes_what_they_liked(reply: str) -> None:
    assert is_short(reply, "stop") is not is_long(reply, "stop")


def users() -> Users:
    return Users("http://127.0.0.1:1/v1", "m", 1, 0, lambda: True)


def test_users_turn_once_and_only_after_a_promotion() -> None:
    show = RegretShow(users())
    assert show.hear({"promoted": []}) is None
    assert show.crowd.taste is SHORT
    assert show.hear({"promoted": [1]}) is not None
    turned_at = show.crowd.turned_at
    assert show.hear({"promoted": [1]}) is None
    assert (show.crowd.taste, show.crowd.turned_at) == (LONG, turned_at)


@pytest.mark.parametrize("taste", [SHORT, LONG])
def test_the_reward_spec_hears_every_complaint(taste: Taste) -> None:
    followups = next(one for one in load(str(DEMO / "rewards.yaml")).components if isinstance(one, FollowupRule))
    for complaint in taste.displeased:
        assert any(re.search(rule, complaint, re.IGNORECASE) for rule in followups.displeased)
