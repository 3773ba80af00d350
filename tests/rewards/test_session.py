"""`onstream session`: what is found on the log, and how it reads."""

import io
import json
import random

import agent_sessions
import pytest
from rich.console import Console

from infra.config import Config, ModelConfig
from ingest.log.memory import InMemoryLog
from ingest.log.reader import send
from ingest.log.topics import FEEDBACK, REWARDS, TRACES, TRAJECTORIES
from ingest.records.events import (
    Arm,
    Assignment,
    Component,
    Feedback,
    LinkKind,
    Part,
    Reward,
    Trace,
    Trajectory,
    TurnKind,
    TurnReward,
    VersionSpan,
    about,
    session_key,
)
from rewards.session import command, show
from rewards.session.find import keys_of
from rewards.session.view import Findings, SessionView, build

CONFIG = Config(model=ModelConfig(path="unused"))
NOW = 1000.0
KEY = session_key("agent")


def play() -> agent_sessions.Session:
    """A question, a tool, a regenerated turn, a compaction, and a turn after it."""
    session = agent_sessions.Session(random.Random(3), "agent")
    session.begin()
    session.use_tool()
    session.regenerate()
    session.compact(is_declared=False)
    session.speak()
    return session


def close(session: agent_sessions.Session, *feedback: Feedback) -> Trajectory:
    (trajectory,) = agent_sessions.close([session])
    return trajectory.model_copy(update={"feedback": feedback})


def reward(trajectory: Trajectory, trace_id: str, *components: Component, parts: tuple[Part, ...] = ()) -> Reward:
    return Reward(
        reward_id="r",
        trajectory_id=trajectory.trajectory_id,
        session_id=trajectory.session_id,
        spec="summaries@1",
        components=components,
        turns=(TurnReward(trace_id=trace_id, value=0.9, parts=parts),),
        value=0.75,
        has_signal=True,
        guardrails={"completed": 0.5},
        trajectory=trajectory,
        **about(trajectory),
        at=NOW,
    )


def thumb(feedback_id: str = "f", **fields: object) -> Feedback:
    return Feedback.model_validate({"feedback_id": feedback_id, "tenant": "default", "value": 1.0, "at": 4.0} | fields)


class World:
    """A log and what `onstream session` makes of it."""

    def __init__(self) -> None:
        self.log = InMemoryLog()

    def put(self, *records: Trace | Feedback | Trajectory | Reward) -> None:
        topics = {topic.record: topic for topic in (TRACES, FEEDBACK, TRAJECTORIES, REWARDS)}
        for record in records:
            key = session_key(record.session_id) if record.session_id else (record.trace_id or "").partition("-")[0]
            send(self.log, topics[type(record)], key, record)

    def look(self, asked: str, config: Config = CONFIG) -> SessionView | None:
        return command.look_up(self.log, asked, config, NOW)

    def see(self, asked: str) -> SessionView:
        seen = self.look(asked)
        assert seen is not None
        return seen


@pytest.fixture
def world() -> World:
    return World()


def printed(view: SessionView, is_full: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    for part in show.session(view, is_full):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


TRACE = f"{KEY}-{'0' * 32}"


@pytest.mark.parametrize("asked", ["agent", KEY, TRACE, f"chatcmpl-{TRACE}", f"resp_{TRACE}"])
def test_a_session_is_found_by_its_name_its_key_and_any_of_its_ids(world: World, asked: str) -> None:
    world.put(close(play()), close(agent_sessions.play(1, agent_sessions.ORDINARY, 2, "other")))
    assert [one.session_id for one in world.see(asked).trajectories] == ["agent"]


def test_a_session_within_a_tenant_is_found_by_the_name_its_client_gave() -> None:
    assert session_key("acme/agent") in keys_of("agent", ["acme"])
    assert session_key("acme/agent") not in keys_of("agent", ["other"])


@pytest.mark.parametrize("asked", ["nobody", "resp_abc", "0" * 16])
def test_what_is_not_on_the_log_is_not_shown(world: World, asked: str) -> None:
    world.put(*play().traces, close(play()))
    assert world.look(asked) is None


def test_a_session_that_is_not_closed_is_shown_as_its_traces_stand_and_says_so(world: World) -> None:
    session = play()
    world.put(*session.traces, thumb(trace_id=session.traces[0].trace_id))
    (shown,) = world.see("agent").trajectories
    assert (shown.is_open, len(shown.turns), len(shown.turns[0].feedback)) == (True, len(session.traces), 1)
    assert shown.turns[4].kind is TurnKind.SUMMARY
    assert "NOT CLOSED YET" in printed(world.see("agent"))


def test_traces_of_a_closed_trajectory_are_not_shown_twice(world: World) -> None:
    session = play()
    world.put(*session.traces, close(session))
    assert [one.is_open for one in world.see("agent").trajectories] == [False]


def test_trajectories_of_one_session_stand_one_after_the_other(world: World) -> None:
    session = play()
    later = session.traces[-1].model_copy(update={"trace_id": f"{KEY}-99", "started_at": 900.0, "finished_at": 901.0})
    world.put(later, *session.traces, close(session))
    assert [one.is_open for one in world.see("agent").trajectories] == [False, True]
    assert "trajectory 2 of 2" in printed(world.see("agent"))


def test_sub_agents_are_named_and_name_their_parent(world: World) -> None:
    sub = agent_sessions.play(5, agent_sessions.ORDINARY, 1, "sub", parent="agent")
    stranger = agent_sessions.play(5, agent_sessions.ORDINARY, 1, "stranger", parent="another")
    world.put(*play().traces, *sub.traces, *stranger.traces, close(play()), close(sub))
    assert world.see("agent").trajectories[0].sub_sessions == ("sub",)
    assert "parent session agent" in words(printed(world.see("sub")))


def test_a_replay_says_whose_prompt_it_asked_again(world: World) -> None:
    given = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5, replay_of="k-0")
    world.put(close(play()).model_copy(update={"assignment": given, "held_out": True}))
    told = words(printed(world.see("agent")))
    assert "replay of trace k-0: asked again for a trial, and no conversation that anybody had" in told
    assert "held out yes: never trained" in told


def test_late_feedback_is_shown_and_called_late(world: World) -> None:
    session = play()
    name = session.traces[1].trace_id
    joined, late = thumb("joined", trace_id=name), thumb("late", trace_id=name, value=-1.0)
    about_all = thumb("late too", session_id="agent", name="outcome")
    world.put(joined, late, about_all, *session.traces, close(session, joined))
    (shown,) = world.see("agent").trajectories
    assert [(one.feedback.feedback_id, one.is_late) for one in shown.turns[1].feedback] == [
        ("joined", False),
        ("late", True),
    ]
    assert [(one.feedback.name, one.is_late) for one in shown.feedback] == [("outcome", True)]


def test_a_cut_stands_before_the_turn_that_goes_on_from_the_summary_with_what_it_kept_and_lost() -> None:
    session = play()
    findings = Findings(kept=("src/app.py", "[red]3[/]"), lost=("port 8080",), wrong=("retries = 5",))
    view = build(close(session), find=lambda _trajectory, _compaction: findings)
    summary = next(turn for turn in view.turns if turn.kind is TurnKind.SUMMARY)
    after = view.turns[summary.number]
    assert after.cut is not None
    assert (after.cut.kind, after.cut.turn, after.context) == (LinkKind.COMPACTION, summary.number, 3)
    shown = printed(SessionView(asked="agent", trajectories=(view,)))
    lines = shown.splitlines()
    cut = next(at for at, line in enumerate(lines) if "compaction: context 3 goes on from turn" in line)
    heads = [at for at, line in enumerate(lines) if line.startswith("turn ")]
    assert heads[summary.number - 1] < cut < heads[summary.number]
    panel = words(" ".join(lines[cut : heads[summary.number]]).replace("│", " "))
    assert "kept 2 src/app.py · [red]3[/]" in panel
    assert "lost 1 port 8080" in panel
    assert "wrong 1 retries = 5" in panel
    assert words(shown).count(summary.reply.split()[1]) == 1


def test_branches_calls_and_results_are_told() -> None:
    view = build(close(play()))
    branch = next(turn for turn in view.turns if turn.cut and turn.cut.kind is LinkKind.BRANCH)
    assert branch.cut is not None
    shown = printed(SessionView(asked="agent", trajectories=(view,)))
    assert f"branch: context 2 takes the place of turn {branch.cut.turn}" in shown
    number = json.loads(view.turns[1].tool_calls[0].arguments)["n"]
    assert f"calls read(n={number})" in words(shown)
    assert f"result of read(n={number}): {view.turns[2].messages[-1].text.split()[0]}" in words(shown)
    assert "<tool_call>" not in shown


def test_what_is_wrong_with_a_chain_is_named_at_its_first_turn() -> None:
    session = play()
    session.lose()
    shown = printed(SessionView(asked="agent", trajectories=(build(close(session)),)))
    assert "! context 3 is marked missing: a request holds a reply that no trace of this session gave" in shown


def test_a_turn_that_lived_through_a_swap_shows_which_version_sampled_which_tokens() -> None:
    session = play()
    num = len(session.traces[0].token_ids)
    spans = (VersionSpan(version=4, start=0, end=3), VersionSpan(version=5, start=3, end=num))
    session.traces[0] = session.traces[0].model_copy(update={"spans": spans})
    shown = printed(SessionView(asked="agent", trajectories=(build(close(session)),)))
    assert f"version 4 (tokens 0-2), version 5 (tokens 3-{num - 1})" in shown


def test_a_reward_is_told_by_component_with_its_weight_or_why_there_is_none(world: World) -> None:
    trajectory = close(play())
    name = trajectory.turns[1].trace_id
    components = (
        Component(name="thumb", scorer="feedback@1", trace_id=name, value=1.0),
        Component(name="length", scorer="length@1", trace_id=name, value=0.5),
        Component(name="recall", scorer="recall@1", trace_id=name, value=None, unscored="nothing was used later"),
    )
    parts = (Part(name="thumb", weight=1.0, value=0.5), Part(name="outcome", weight=0.5, value=0.8))
    world.put(trajectory, reward(trajectory, name, *components, parts=parts))
    shown = words(printed(world.see("agent")))
    assert "0.750 under summaries@1 · guardrails: completed 0.50" in shown
    assert "0.900 · thumb 1.00 -> 0.50 after credit and factors, weight 1 · length 0.50, no part of the sum" in shown
    assert "outcome 0.80 by credit, weight 0.5" in shown
    assert "unscored: recall (nothing was used later)" in shown


def test_a_reward_of_the_first_version_tells_its_scores_and_nothing_of_parts(world: World) -> None:
    trajectory = close(play())
    name = trajectory.turns[1].trace_id
    thumb_up = Component(name="thumb", scorer="feedback@1", trace_id=name, value=1.0)
    world.put(trajectory, reward(trajectory, name, thumb_up))
    assert "0.900 · thumb 1.00" in (shown := printed(world.see("agent")))
    assert "no part of the sum" not in shown


def test_a_result_names_the_call_that_only_its_request_holds() -> None:
    session = play()
    session.traces = session.traces[2:]
    number = json.loads(play().traces[1].reply_text.partition('arguments": ')[2].partition("}")[0] + "}")["n"]
    shown = printed(SessionView(asked="agent", trajectories=(build(close(session)),)))
    assert f"result of read(n={number})" in words(shown)


def test_long_texts_are_shortened_unless_all_is_asked_for() -> None:
    session = play()
    text = "word " * 400 + "the very end"
    session.traces[0] = session.traces[0].model_copy(update={"reply_text": text})
    view = SessionView(asked="agent", trajectories=(build(close(session)),))
    assert "the very end" not in printed(view)
    assert f"(+{len(text) - show.SHORT} characters)" in words(printed(view))
    assert "the very end" in words(printed(view, is_full=True))


def test_no_text_can_steer_the_terminal_or_the_markup() -> None:
    session = play()
    session.traces[0] = session.traces[0].model_copy(update={"reply_text": "\x1b[2J\x9b1m [bold]plain[/bold]"})
    comment = thumb(session_id="agent", comment="\x1b]0;title\x07 [/]")
    shown = printed(SessionView(asked="agent", trajectories=(build(close(session, comment)),)))
    assert not set(shown) & {"\x1b", "\x9b", "\x07"}
    assert "[bold]plain[/bold]" in shown


def test_a_hundred_columns_are_enough(world: World) -> None:
    world.put(*play().traces)
    assert max(map(len, printed(world.see("agent")).splitlines())) <= 100


def test_json_has_what_the_screen_has(world: World) -> None:
    trajectory = close(play(), thumb(session_id="agent"))
    world.put(trajectory, reward(trajectory, trajectory.turns[1].trace_id))
    (told,) = json.loads(world.see("agent").model_dump_json())["trajectories"]
    assert (told["session_id"], told["is_open"], told["rewards"][0]["value"]) == ("agent", False, 0.75)
    assert [turn["cut"]["kind"] for turn in told["turns"] if turn["cut"]] == ["branch", "compaction"]
    assert told["turns"][1]["reward"]["value"] == 0.9
    assert told["feedback"][0]["feedback"]["name"] == "thumb"


def test_a_missing_configuration_is_one_line_and_a_failure(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["agent", "--config", f"{tmp_path}/none.yaml"]) == 1
    assert capsys.readouterr().err.startswith("onstream: configuration")
