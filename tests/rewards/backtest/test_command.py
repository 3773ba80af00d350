"""`onstream rewards backtest`, from a lake on the disk to what is printed and written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lake_traffic import Traffic, sentences

from ingest.records.events import Arm, Assignment, Feedback, Trajectory
from ingest.sessions.amend import amended
from rewards import spec
from rewards.evaluate import evaluate

World = Any
THUMB = {"name": "thumb", "scorer": "feedback", "params": {"names": ["thumb"]}}
BRIEF = {"name": "brief", "scorer": "reply", "params": {"max_words": 60}}


def sessions(num: int = 40) -> list[Trajectory]:
    return [one.trajectory for one in Traffic().sessions(num)]


def put(world: World, trajectories: list[Trajectory], path: str, user: str = "") -> None:
    """Sessions with their rewards under a spec, and their feedback."""
    scoring = spec.load(path)
    for one in trajectories:
        world.put(one, evaluate(scoring, one, one.closed_at + 1.0), *one.feedback, user=user)


def found(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def shift(told: Any, name: str) -> Any:
    return next(one for one in told["shifts"] if one["name"] == name)


@pytest.fixture
def thumbs(world: World) -> str:
    return str(world.spec("thumbs", THUMB))


@pytest.fixture
def both(world: World) -> str:
    return str(world.spec("both", THUMB, BRIEF))


def test_the_spec_that_made_the_rewards_changes_nothing(world: World, thumbs: str, capsys: Any) -> None:
    put(world, sessions(), thumbs)
    assert world.backtest(thumbs, "--json") == 0
    told = found(capsys)
    assert told["specs_old"] == {told["spec_new"]: 40}
    assert (told["num_sessions"], told["notes"], told["sessions"], told["turns"]) == (40, [], [], [])
    thumb = shift(told, "thumb")
    assert thumb["num_both"] > 0
    assert (thumb["num_changed"], thumb["gained"], thumb["lost"]) == (0, 0, 0)


def test_replays_are_no_sessions_to_compare(world: World, thumbs: str, capsys: Any) -> None:
    asked_again = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5, replay_of="k-0")
    first, *others = sessions(5)
    put(world, [first.model_copy(update={"assignment": asked_again, "held_out": True}), *others], thumbs)
    assert world.backtest(thumbs, "--json") == 0
    assert found(capsys)["num_sessions"] == 4


def test_another_spec_is_compared_with_the_lakes_rewards_and_with_a_spec_alike(
    world: World, thumbs: str, both: str, capsys: Any
) -> None:
    put(world, sessions(), thumbs)
    assert world.backtest(both, "--json") == 0
    by_lake = found(capsys)
    assert world.backtest(both, "--against", thumbs, "--json") == 0
    assert found(capsys) == by_lake
    assert by_lake["sessions"]
    assert shift(by_lake, "brief")["scorers_new"] == ["reply@1"]


def test_a_scorer_that_is_another_version_now_is_told(world: World, thumbs: str, capsys: Any) -> None:
    scorer = Path(world.root) / "strict.py"
    body = "    name, version = 'feedback', '2'\n    def score(self, trajectory, turn):\n        return Scored(0.25)\n"
    scorer.write_text(f"from rewards.scorers import Scored\n\n\nclass Strict:\n{body}")
    put(world, sessions(), thumbs)
    changed = world.spec("thumbs2", {"name": "thumb", "scorer": f"{scorer}:Strict"})
    assert world.backtest(changed) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"thumb \(feedback@1 → feedback@2\)", told)
    assert world.backtest(changed, "--json") == 0
    thumb = shift(found(capsys), "thumb")
    assert thumb["new"]["mean"] == 0.25
    assert thumb["num_changed"] == thumb["num_both"] > 0


def test_a_session_of_an_erased_user_is_counted_and_left_out(world: World, thumbs: str, both: str, capsys: Any) -> None:
    one, *others = sessions()
    put(world, [one], thumbs, user="anna")
    put(world, others, thumbs, user="bob")
    world.keys.erase("anna")
    assert world.backtest(both, "--json") == 0
    told = found(capsys)
    assert told["num_sessions"] == 39
    assert told["notes"] == ["1 sessions were left out, erased: its user's key is gone"]


def test_a_session_without_a_reward_is_counted_and_left_out(world: World, thumbs: str, both: str, capsys: Any) -> None:
    one, *others = sessions(5)
    world.put(one)
    put(world, others, thumbs)
    assert world.backtest(both, "--json") == 0
    assert found(capsys)["notes"] == ["1 sessions were left out, no reward of theirs is in the lake"]


def test_the_newest_revision_is_scored_and_an_older_reward_is_told(world: World, thumbs: str, capsys: Any) -> None:
    one = next(one for one in sessions() if not one.feedback)
    put(world, [one], thumbs)
    late = Feedback(
        feedback_id="f", trace_id=one.turns[0].trace_id, tenant=one.tenant, value=1.0, at=one.closed_at + 9e5
    )
    revised = amended(one, [late], one.closed_at + 9e5)
    world.put(revised, late)
    assert world.backtest(thumbs, "--json") == 0
    told = found(capsys)
    assert told["num_sessions"] == 1
    assert (shift(told, "thumb")["gained"], shift(told, "thumb")["lost"]) == (1, 0)
    assert told["notes"] == ["1 sessions had feedback after their reward was made: they may change for that"]
    world.put(evaluate(spec.load(thumbs), revised, revised.closed_at + 1.0))
    assert world.backtest(thumbs, "--json") == 0
    told = found(capsys)
    assert (told["num_sessions"], told["notes"], shift(told, "thumb")["gained"]) == (1, [], 0)


def test_a_limit_is_spent_on_no_revision_before_the_last(world: World, thumbs: str, capsys: Any) -> None:
    one, *others = [one for one in sessions() if not one.feedback][:4]
    put(world, [one, *others], thumbs)
    for newest in others:
        late = Feedback(
            feedback_id=f"f-{newest.session_id}", trace_id=newest.turns[0].trace_id, tenant=newest.tenant, value=1.0,
            at=newest.closed_at + 9e5,
        )  # fmt: skip
        put(world, [amended(newest, [late], newest.closed_at + 9e5)], thumbs)
    assert world.backtest(thumbs, "--limit", "4", "--json") == 0
    told = found(capsys)
    assert (told["num_sessions"], told["notes"]) == (4, [])


def test_feedback_on_a_session_is_that_of_the_trajectory_it_came_to(world: World, thumbs: str, capsys: Any) -> None:
    first, other = [one for one in sessions() if not one.feedback][:2]
    second = other.model_copy(update={"session_id": first.session_id, "tenant": first.tenant})
    said = [
        Feedback(feedback_id=f"f{n}", session_id=first.session_id, tenant=first.tenant, value=value, at=at + 1.0)
        for n, (value, at) in enumerate(((1.0, first.closed_at), (-1.0, second.closed_at)))
    ]
    second = second.model_copy(update={"opened_at": first.closed_at + 99.0, "closed_at": second.closed_at + 1e5})
    said[1] = said[1].model_copy(update={"at": second.closed_at})
    put(
        world,
        [first.model_copy(update={"feedback": (said[0],)}), second.model_copy(update={"feedback": (said[1],)})],
        thumbs,
    )
    assert world.backtest(thumbs, "--json") == 0
    told = found(capsys)
    assert (told["num_sessions"], told["notes"]) == (2, [])
    assert shift(told, "sessions")["num_changed"] == 0
    assert shift(told, "sessions")["old"]["mean"] == 0.5


def test_the_page_has_no_word_of_anyone_and_nothing_from_outside(world: World, thumbs: str, both: str) -> None:
    put(world, sessions(), thumbs)
    page = Path(world.root) / "page.html"
    assert world.backtest(both, "--html", str(page)) == 0
    told = page.read_text()
    assert not [said for said in sentences() if said in told]
    assert not re.findall(r"https?:|//|<script|<link|url\(|@import", told)
    assert (
        told.count("<svg") == 10
    )  # sessions, turns, thumb, and guardrails: brief, the shipped ones that were measured


def test_names_in_the_page_are_escaped(world: World, thumbs: str) -> None:
    put(world, sessions(), thumbs)
    page = Path(world.root) / "page.html"
    odd = world.spec("odd", THUMB | {"name": "<b>thumb</b>"})
    assert world.backtest(odd, "--html", str(page)) == 0
    assert "<b>" not in page.read_text()
    assert "&lt;b&gt;thumb" in page.read_text()


def test_a_limit_takes_the_newest_and_a_sample_takes_from_all(world: World, thumbs: str, capsys: Any) -> None:
    held = sessions()
    put(world, held, thumbs)
    other = world.spec("other", BRIEF)
    seen = []
    for argv in (("--limit", "5"), ("--limit", "5", "--sample"), ("--limit", "5", "--sample")):
        assert (
            world.backtest(
                other, "--against", world.spec("none", BRIEF | {"params": {"max_words": 0}}), "--json", *argv
            )
            == 0
        )
        told = found(capsys)
        assert told["num_sessions"] == 5
        seen.append({one["trace_id"] for one in told["turns"]})
    newest = {turn.trace_id for one in held[-5:] for turn in one.turns}
    assert seen[0] <= newest
    assert not seen[1] <= newest
    assert seen[1] == seen[2]


def test_only_the_range_and_the_tenant_asked_for_are_scored(world: World, thumbs: str, capsys: Any) -> None:
    put(world, sessions(), thumbs)
    assert world.backtest(thumbs, "--json", "--tenant", "tenant-1", "--until", "1970-01-12T13:56:41+00:00") == 0
    assert found(capsys)["num_sessions"] == 5  # a session a minute, and every other one is that tenant's


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--since", "1971-01-01"], "no session in it is of that tenant and began in that time"),
        (["--tenant", "nobody"], "no session in it is of that tenant"),
        (["--sample"], "--sample: needs --limit"),
        (["--engines"], "--engines: no engine of the configuration has a `scoring_port`"),
        (["--html", "/nowhere/page.html"], "--html /nowhere/page.html: not written"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    world: World, thumbs: str, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(world, sessions(3), thumbs)
    assert world.backtest(thumbs, *argv) == 1
    assert told in capsys.readouterr().err


def test_an_empty_lake_is_told(world: World, thumbs: str, capsys: Any) -> None:
    assert world.backtest(thumbs) == 1
    assert "nothing was written to" in capsys.readouterr().err


def test_a_lake_without_rewards_is_told(world: World, thumbs: str, capsys: Any) -> None:
    world.put(*sessions(3))
    assert world.backtest(thumbs) == 1
    assert "none of 3 sessions has a reward to compare with" in capsys.readouterr().err


def test_a_spec_that_cannot_be_used_is_told(world: World, capsys: Any) -> None:
    assert world.backtest(world.spec("bad", {"name": "x", "scorer": "nothing"})) == 1
    assert "scorer 'nothing': cannot be loaded" in capsys.readouterr().err


def test_a_crash_is_shown_once_and_counted(world: World, thumbs: str, capsys: Any, caplog: Any) -> None:
    scorer = Path(world.root) / "broken.py"
    body = "    name, version = 'broken', '1'\n    def score(self, trajectory, turn):\n        raise KeyError('x')\n"
    scorer.write_text(f"class Broken:\n{body}")
    held = sessions(5)
    put(world, held, thumbs)
    broken = world.spec("broken", THUMB, {"name": "b", "scorer": f"{scorer}:Broken"})
    assert world.backtest(broken, "--json") == 0
    num = sum(len(one.turns) for one in held)
    assert shift(found(capsys), "b")["unscored_new"] == {"crashed": num}
    assert len([one for one in caplog.records if "crashed" in one.message]) == 1
