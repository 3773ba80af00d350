"""Who did what: the release log as people ask for it."""

from typing import Any

import pytest
from trials import Past, eventful

from infra.errors import LogError
from ingest.records.events import Mode, Release, ReleaseKind, TrialState
from serving.rollout.operators.books import Books
from serving.rollout.operators.history import Entry, Filters, History, history

CONFIG = Past().config


@pytest.fixture(scope="module")
def past() -> Past:
    return eventful()


def told(past: Past, **query: str) -> list[Entry]:
    status, body = Books(lambda: past.log, past.config).history(query)
    assert status == 200, body
    return list(History.model_validate(body).entries)


def test_each_thing_is_told_with_who_did_it(past: Past) -> None:
    assert [(one.what, one.version, one.author) for one in told(past)] == [
        ("first release", 0, "the controller"),
        ("trial begun", 1, "the gate"),
        ("canary begun", 1, "the gate"),
        ("rejected", 1, "the gate"),
        ("trial begun", 2, "the gate"),
        ("canary begun", 2, "the gate"),
        ("rejected", 2, "mara"),
        ("paused", 0, "mara"),
        ("resumed", 0, "jo"),
        ("trial begun", 3, "the gate"),
        ("canary begun", 3, "the gate"),
        ("share 50%", 3, "the gate"),
        ("promoted", 3, "the gate"),
        ("rolled back", 3, "the gate"),
        ("trial begun", 4, "the gate"),
        ("canary begun", 4, "the gate"),
        ("share 50%", 4, "the gate"),
    ]


def test_of_the_turns_of_arms_those_are_shown_that_change_a_share() -> None:
    trial: dict[str, Any] = {"stable": 0, "candidate": 1, "state": TrialState.CANARY, "salt": "s"}
    log = [
        Release(release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, reason="", at=0.0),
        Release(release=1, epoch=1, kind=ReleaseKind.TRIAL, share=0.2, reason="", at=1.0, **trial),
        Release(release=2, epoch=1, kind=ReleaseKind.BLOCK, share=0.2, block=1, reason="", at=2.0, **trial),
        Release(
            release=3,
            epoch=1,
            kind=ReleaseKind.BLOCK,
            share=0.5,
            block=2,
            reason="",
            at=3.0,
            numbers={"log_e": 1.0},
            **trial,
        ),
    ]
    assert [(one.what, one.author) for one in history(log, Filters()).entries] == [
        ("first release", "the controller"), ("canary begun", "the gate"), ("block 2 begins, share 50%", "the gate")
    ]  # fmt: skip


def test_what_engines_and_controllers_say_is_shown_when_asked_for(past: Past) -> None:
    assert [one.what for one in told(past, all="1")][:2] == ["first release", "controller began"]


def test_only_what_people_did_and_only_one_of_them(past: Past) -> None:
    assert [one.what for one in told(past, by_people="1")] == ["rejected", "paused", "resumed"]
    assert [one.what for one in told(past, author="jo")] == ["resumed"]


def test_a_versions_own_and_a_times_own(past: Past) -> None:
    assert {one.version for one in told(past, version="3")} == {3}
    paused = next(one.release.at for one in told(past) if one.what == "paused")
    assert [one.what for one in told(past, since=str(paused), until=str(paused + 1.0))] == ["rejected", "paused"]


def test_the_newest_are_shown_and_all_are_counted(past: Past) -> None:
    _, body = Books(lambda: past.log, past.config).history({"limit": "2"})
    found = History.model_validate(body)
    assert [one.release.release for one in found.entries] == [16, 17]
    assert (found.num, found.last) == (17, 17)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "many"}, {"since": "yesterday"}, {"who": "jo"}])
def test_a_question_that_is_none_is_refused(past: Past, query: dict[str, str]) -> None:
    assert Books(lambda: past.log, past.config).history(query)[0] == 400


def test_a_log_that_is_away_is_told_and_not_an_empty_history() -> None:
    def away() -> Any:
        raise LogError("the broker does not answer")

    assert Books(away, CONFIG).history({}) == (503, {"error": "the broker does not answer"})


def test_an_entry_of_a_writer_that_was_fenced_off_did_nothing() -> None:
    past = Past()
    past.release(ReleaseKind.CLAIM, "another controller", epoch=2)
    past.release(ReleaseKind.OPERATOR, "too late", epoch=1, author="mara", mode=Mode.FROZEN)
    assert all(one.author != "mara" for one in history(past.releases, Filters(is_all=True)).entries)


def test_the_end_of_a_watch_a_pin_and_an_operators_return_are_told() -> None:
    past = Past()
    past.begin(1, 0)
    past.move(1, TrialState.PROMOTED, "promoted", stable=1, holdback=0, share=0.1)
    past.move(1, TrialState.PROMOTED, "the watch is over", stable=1)
    past.operator("jo", "a fair week", candidate=1, state=TrialState.PROMOTED, mode=Mode.PINNED)
    past.operator("jo", "go on", candidate=1, state=TrialState.PROMOTED, mode=Mode.OPEN)
    past.operator("mara", "it lies", candidate=1, state=TrialState.ROLLED_BACK, stable=0)
    past.release(ReleaseKind.BOOTSTRAP, "engines that joined: b", engines={"b": 0})
    assert [(one.what, one.version) for one in history(past.releases, Filters()).entries][3:] == [
        ("promoted", 1),
        ("watch ended", 1),
        ("pinned", 1),
        ("resumed", 1),
        ("rolled back", 1),
        ("engines changed", 0),
    ]
