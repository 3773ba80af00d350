"""Likelihood between floor and ceiling, by numbers worked by hand and by a fake that finds likely what it has read."""

import re
from collections.abc import Callable, Sequence

import pytest
from histories import summary_turn

from ingest.records.events import Trajectory
from ingest.records.questions import Prompt, Query, Sampled, Scores
from rewards.scorers import Outcome, Scored, Services, Unscored
from rewards.summary import material
from rewards.summary.fake import CopyingLikelihoods
from rewards.summary.likelihood import UnavailableError
from rewards.summary.sufficiency import Evidence, Sufficiency, contexts_of, without_quote

Make = Callable[..., Trajectory]
TOLD = ["the port is 9232 and the host is pluto", "noted", "the branch is hotfix-7 of ingrid", "fine"]
AFTER = ["where", "at pluto and 9232", "and the branch", "it is hotfix-7 of ingrid"]
FULL = "the port is 9232 and the host is pluto and the branch is hotfix-7 of ingrid"
HALF = "the port is 9232 and the host is pluto and nothing more is in here"
NONE = "nothing much got kept here this time or any other"


TOO_LITTLE = "history or none: what came next is"


async def ask(trajectory: Trajectory, likelihoods: CopyingLikelihoods | None, **settings: float) -> Outcome:
    scorer = Sufficiency(**{"num_sampled": 0} | settings)  # type: ignore[arg-type]
    (outcome,) = await scorer.score_batch([(trajectory, summary_turn(trajectory))], Services(likelihoods))
    return outcome


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([Evidence(-40.0, -60.0, -20.0, 10)], Scored(0.5)),
        ([Evidence(-40.0, -60.0, -20.0, 10), Evidence(-30.0, -30.0, -20.0, 5)], Scored(0.4)),  # 20 of 50 nats
        (
            [Evidence(-40.0, -60.0, -20.0, 10), Evidence(-5.0, -30.0, -29.8, 5)],
            Scored(0.5),
        ),  # 0.04 a token
        ([Evidence(-70.0, -60.0, -20.0, 10)], Scored(0.0)),
        ([Evidence(-10.0, -60.0, -20.0, 10)], Scored(1.0)),
        ([Evidence(-1.0, -3.0, -1.0, 2)], Unscored("history or none: what came next is 2.0 nats likelier, needs 3")),
        (
            [Evidence(-10.0, -20.0, -60.0, 10)],
            Unscored("history or none: what came next is 0.0 nats likelier, needs 3"),
        ),
        ([], Unscored("history or none: what came next is 0.0 nats likelier, needs 3")),
    ],
)
def test_the_score_is_the_share_of_the_gap_that_the_summary_closes(
    evidence: Sequence[Evidence], expected: Outcome
) -> None:
    assert Sufficiency(min_gap=0.05, min_total=3.0).value(evidence) == expected


async def test_more_of_the_history_in_a_summary_is_more(session: Make) -> None:
    scores = [await ask(session(TOLD, summary, AFTER), CopyingLikelihoods()) for summary in (NONE, HALF, FULL)]
    values = [outcome.value for outcome in scores if isinstance(outcome, Scored)]
    assert values == sorted(set(values))
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0, abs=0.15)


def test_the_three_contexts_are_what_they_are_called(session: Make) -> None:
    trajectory = session(TOLD, FULL, AFTER, wrapper="[notes] {} [end]")
    (cut,) = material.cuts(trajectory, summary_turn(trajectory))
    texts = [[message.text for message in prompt.messages] for prompt in contexts_of(trajectory, cut)]
    assert texts == [
        ["You help.", f"[notes] {FULL} [end]", "where"],
        ["You help.", "[notes]  [end]", "where"],
        ["You help.", *TOLD, "where"],
    ]


def test_continuations_are_the_logged_tokens_and_end_where_asked(session: Make) -> None:
    trajectory = session(TOLD, FULL, AFTER)
    (cut,) = material.cuts(trajectory, summary_turn(trajectory))
    (both,) = Sufficiency(max_turns=2).logged(trajectory, cut)
    assert both.spans == ((0, 4), (9, 14))  # <user> and the branch <assistant> stand between
    (short,) = Sufficiency(max_turns=2, max_tokens=2).logged(trajectory, cut)
    assert short.spans == ((0, 2), (9, 11))
    assert short.token_ids == both.token_ids[:11]


async def test_sampled_continuations_count_too_and_are_left_out_of_a_busy_engine(session: Make) -> None:
    class Busy(CopyingLikelihoods):
        async def sample(self, prompts: Sequence[Prompt], num: int, max_tokens: int) -> list[tuple[Sampled, ...]]:
            raise UnavailableError("no idle moment")

    trajectory = session(TOLD, HALF, AFTER)
    idle, busy = CopyingLikelihoods(), Busy()
    assert isinstance(await ask(trajectory, idle, num_sampled=2), Scored)
    assert isinstance(await ask(trajectory, busy, num_sampled=2), Scored)
    assert (idle.num_queries, busy.num_queries) == (9, 3)


async def test_without_a_scoring_port_there_is_no_score(session: Make) -> None:
    assert await ask(session(TOLD, FULL, AFTER), None) == Unscored("no engine has a scoring port")


async def test_an_outage_is_told_to_whoever_tries_again(session: Make) -> None:
    with pytest.raises(UnavailableError):
        await ask(session(TOLD, FULL, AFTER), CopyingLikelihoods(is_available=False))


async def test_a_context_beyond_the_engines_limit_is_unscored(session: Make) -> None:
    class Short(CopyingLikelihoods):
        async def score(self, queries: Sequence[Query]) -> Scores:
            raise ValueError("a prompt and what follows it may have 8 tokens, got 40")

    outcome = await ask(session(TOLD, FULL, AFTER), Short())
    assert outcome == Unscored("cannot be asked: a prompt and what follows it may have 8 tokens, got 40")


def test_where_nothing_came_after_there_is_nothing_to_ask(session: Make) -> None:
    trajectory = session(TOLD, FULL)
    assert isinstance(Sufficiency().applies(trajectory, summary_turn(trajectory)), Unscored)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[notes] one two three four five six [end]", r"\[notes\]  \[end\]"),
        ("[notes] one\ntwo three\nfour five six [end]", r"\[notes\]  \[end\]"),  # wrapped anew
        ("[notes] two three four five six [end]", r"\[notes\]  \[end\]"),  # its head lost
        ("nothing of it", "nothing of it"),
    ],
)
def test_a_quotation_is_taken_out_however_it_was_wrapped(text: str, left: str) -> None:
    assert re.fullmatch(left, without_quote(text, "one two three four five six"))
