"""`onstream traces`, from its flags to what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from lake_traffic import Played, Traffic, changed

from ingest.lake import command
from ingest.lake.content import Content, Vault
from ingest.lake.export import _lines_of
from ingest.records.events import ChatMessage, Feedback, Reward, ToolCall, Trajectory

World = Any


@pytest.fixture
def played() -> Played:
    """A session of three turns: a question, a tool's call, and its result."""
    one = next(session for session in Traffic(seed=2).sessions(99) if len(session.trajectory.turns) == 3)
    call = ToolCall(name="look_up", arguments='{"name": "tea"}', call_id="c1")
    first, second, third = one.trajectory.turns
    asked = (ChatMessage(role="system", text="Be short."), ChatMessage(role="user", text="What is\x1b[31m tea?"))
    turns = (
        first.model_copy(update={"messages": asked, "reply": "A drink.", "tool_calls": (), "finish_reason": "stop"}),
        second.model_copy(
            update={"messages": (ChatMessage(role="user", text="Sure?"),), "reply": "", "tool_calls": (call,)}
        ),
        third.model_copy(
            update={"messages": (ChatMessage(role="tool", text="camellia", call_id="c1"),), "reply": "Quite sure."}
        ),
    )
    comment = Feedback(
        feedback_id="f1", trace_id=third.trace_id, session_id=one.trajectory.session_id, tenant="t", value=-1.0,
        comment="too short", at=third.at + 9.0,
    )  # fmt: skip
    trajectory: Trajectory = one.trajectory.model_copy(update={"turns": turns, "feedback": (comment,)})
    return Played(trajectory, one.reward, one.fates, (comment,))


@pytest.fixture
def onstream(world: World, tmp_path: Path, played: Played) -> Any:
    """Runs the command on a lake with one session, and others of another time."""
    config = tmp_path / "onstream.yaml"
    config.write_text(f"run_dir: {tmp_path}\nmodel: {{path: /none}}\n")
    world.put(played.trajectory, played.reward, *played.fates, *played.feedback)
    for other in Traffic(seed=9, begin=2_000_000.0, tenants=1).sessions(4):
        world.put(other.trajectory)
    return lambda *argv: command.main([*argv, "--config", str(config)])


def test_the_list_has_a_line_for_each_turn_and_says_how_to_go_on(onstream: Any, capsys: Any, played: Played) -> None:
    assert onstream("list", "--limit", "2", "--until", "1970-01-20") == 0
    told = capsys.readouterr().out
    assert "2 turns, newest first; --page 2 has older ones" in told
    shown = [turn.trace_id[:23] for turn in played.trajectory.turns[::-1]]
    assert (shown[0] in told, shown[2] in told) == (True, shown[0] == shown[2])
    assert "trained in 1" in told
    assert onstream("list", "--limit", "2", "--page", "2", "--until", "1970-01-20") == 0
    assert "1 turns" not in (told := capsys.readouterr().out)
    assert "1 turn, newest first" in told


def test_a_preview_has_question_and_reply(onstream: Any, capsys: Any) -> None:
    assert onstream("list", "--preview", "--until", "1970-01-20") == 0
    told = capsys.readouterr().out
    assert "Quite sure." in told
    assert "look_up(" in told


def test_nothing_found_is_said_and_is_a_status(onstream: Any, capsys: Any) -> None:
    assert onstream("list", "--text", "no one said this") == 1
    assert capsys.readouterr().err == "onstream: no turn in the lake meets the filters\n"


@pytest.mark.parametrize("how", ["name", "full name", "key", "trace", "completion", "short trace"])
def test_a_session_is_found_by_whatever_names_it(onstream: Any, capsys: Any, played: Played, how: str) -> None:
    trace, session = played.trajectory.turns[1].trace_id, played.trajectory.session_id
    asked = {
        "name": session.partition("/")[2],
        "full name": session,
        "key": trace.partition("-")[0],
        "trace": trace,
        "completion": f"chatcmpl-{trace}",
        "short trace": trace[:23],
    }
    assert onstream("show", asked[how]) == 0
    told = capsys.readouterr().out
    assert f"session {session}" in told
    assert ("<- the one asked for" in told) == (how in ("trace", "completion", "short trace"))


def test_a_session_reads_as_it_was_said(onstream: Any, capsys: Any, played: Played) -> None:
    assert onstream("show", played.trajectory.session_id) == 0
    told = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in told.splitlines()]
    expected = [
        "system Be short.", "user What is�[31m tea?", "reply A drink.", "user Sure?", 'calls look_up(name="tea")',
        "tool camellia", "reply Quite sure.", 'feedback thumb -1 "too short"',
    ]  # fmt: skip
    places = [lines.index(line) for line in expected]
    assert places == sorted(places)
    assert any(line.startswith("fate trained in") for line in lines)
    assert "\x1b" not in told


@pytest.fixture
def revised(world: World, onstream: Any, played: Played) -> Played:
    """Late feedback to the session: its second revision is in the lake, and the reward of that is not yet."""
    after = changed(played, played.trajectory.closed_at + 50.0)
    world.put(after.trajectory, after.feedback[-1])
    return after


def test_a_session_with_late_feedback_is_shown_once(
    onstream: Any, world: World, capsys: Any, played: Played, revised: Played
) -> None:
    for value in (played.reward.value, revised.reward.value):
        assert onstream("show", played.trajectory.session_id) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert [line for line in lines if line.startswith("ids")] == [
            f"ids key {lines_key(revised)} · trajectory {revised.trajectory.trajectory_id}"
        ]
        assert sum(line.startswith("turn ") for line in lines) == 3
        assert f"reward {value:.3f} under default@1" in lines
        world.put(revised.reward)


def lines_key(played: Played) -> str:
    return played.trajectory.turns[0].trace_id.partition("-")[0]


def test_a_session_with_late_feedback_counts_once(
    onstream: Any, world: World, capsys: Any, played: Played, revised: Played
) -> None:
    query = f"select avg(value) as mean, count(*) as n from rewards where session_id = '{played.trajectory.session_id}'"
    for value in (played.reward.value, revised.reward.value):
        assert onstream("sql", query) == 0
        assert f"{value:.6g} 1" in " ".join(capsys.readouterr().out.split())
        world.put(revised.reward)


def test_turns_have_the_reward_of_an_earlier_revision_until_the_later_one_is_scored(
    onstream: Any, world: World, capsys: Any, played: Played, revised: Played
) -> None:
    for made in (played.reward, revised.reward):
        assert onstream("export", "--until", "1970-01-20") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["reward"] for line in lines] == [turn.value for turn in made.turns]
        world.put(revised.reward)


def test_a_session_with_late_feedback_is_exported_once_with_its_newest_reward(
    onstream: Any, world: World, capsys: Any, played: Played, revised: Played
) -> None:
    for revision in (1, 2):
        assert onstream("export", "--format", "trajectories", "--until", "1970-01-20") == 0
        told = capsys.readouterr()
        (line,) = told.out.splitlines()
        made = Reward.model_validate_json(line)
        assert made.trajectory is not None
        assert (made.revision, made.trajectory.revision, len(made.trajectory.feedback)) == (revision, 2, 2)
        assert "left out" not in told.err
        world.put(revised.reward)


def test_an_unknown_session_is_named(onstream: Any, capsys: Any) -> None:
    assert onstream("show", "nobody") == 1
    assert "'nobody': no session in the lake is called so" in capsys.readouterr().err


def test_turns_are_exported_as_they_are_oldest_first(onstream: Any, tmp_path: Path, played: Played) -> None:
    out = tmp_path / "turns.jsonl"
    assert onstream("export", "-o", str(out), "--until", "1970-01-20") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["trace_id"] for line in lines] == [turn.trace_id for turn in played.trajectory.turns]
    assert [line["reply"] for line in lines] == ["A drink.", "", "Quite sure."]
    segments = played.trajectory.chains[0].segments
    assert [line["logprobs"] for line in lines] == [list(segment.logprobs) for segment in segments]
    tokens = [token for line in lines for token in [*line["context_ids"], *line["reply_ids"]]]
    assert tokens == list(played.trajectory.chains[0].token_ids)
    assert list(tmp_path.glob("*.part")) == []


def test_conversations_are_exported_in_the_usual_form(onstream: Any, capsys: Any, played: Played) -> None:
    assert onstream("export", "--format", "chat", "--until", "1970-01-20") == 0
    (line,) = capsys.readouterr().out.splitlines()
    chat = json.loads(line)
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"name": "tea"}'}}
    assert chat["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What is\x1b[31m tea?"},
        {"role": "assistant", "content": "A drink."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "camellia", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Quite sure."},
    ]
    assert chat["tools"][0]["function"]["name"] == "look_up"
    assert chat["session_id"] == played.trajectory.session_id


def test_a_trajectory_is_exported_as_the_trainer_has_it_on_the_log(
    onstream: Any, capsys: Any, tmp_path: Path, played: Played
) -> None:
    out = tmp_path / "trajectories.jsonl"
    assert onstream("export", "--format", "trajectories", "-o", str(out)) == 0
    (line,) = out.read_text().splitlines()
    made = Reward.model_validate_json(line)
    assert made.trajectory is not None and made.trajectory.chains == played.trajectory.chains
    assert made.turns == played.reward.turns and made.spec == played.reward.spec
    assert "4 sessions were left out, no reward of theirs is in the lake" in capsys.readouterr().err


def test_whole_trajectories_are_not_chosen_by_what_a_turn_says(onstream: Any, capsys: Any) -> None:
    assert onstream("export", "--format", "trajectories", "--text", "tea") == 1
    assert "--tenant, --user, --since and --until alone" in capsys.readouterr().err


def test_a_session_gives_a_line_for_each_of_its_ends_and_none_with_an_erased_turn() -> None:
    def turn(name: str, parent: str | None, erased: bool = False) -> tuple[dict[str, Any], Content | None]:
        text = {"messages": [], "reply": name, "tool_calls": [], "tools": ""}
        return {"trace_id": name, "parent": parent, "session_id": "s"}, None if erased else Content(text)

    told = [turn("a", None), turn("b", "a"), turn("c", "a"), turn("d", "c", erased=True), turn("e", None)]
    lines = [json.loads(line)["messages"] for line in _lines_of(told)]
    assert [[message["content"] for message in line] for line in lines] == [["a", "b"], ["e"]]


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(onstream: Any, capsys: Any, tmp_path: Path) -> None:
    assert onstream("export", "-o", str(tmp_path / "none" / "x.jsonl")) == 1
    assert "--output" in capsys.readouterr().err


def test_sql_sees_columns_and_content(onstream: Any, capsys: Any) -> None:
    assert onstream("sql", "select kind, count(*) as n from turns where reply = 'A drink.' group by kind") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "kind n" in told and "main 1" in told and "1 row" in told
    assert onstream("sql", "select comment from feedback") == 0
    assert "too short" in capsys.readouterr().out


def test_rows_too_wide_for_a_table_are_told_one_by_one(onstream: Any, capsys: Any, played: Played) -> None:
    assert onstream("sql", f"select * from sessions where session_id = '{played.trajectory.session_id}'") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"trajectory_id {played.trajectory.trajectory_id}" in lines
    assert "revision 1" in lines


@pytest.mark.parametrize("query", ["select nothing from turns", "select * from cats", "drop everything"])
def test_a_query_that_is_none_is_told_with_the_tables(onstream: Any, capsys: Any, query: str) -> None:
    assert onstream("sql", query) == 1
    assert "(the tables are sessions, turns, feedback, rewards, fates, releases)" in capsys.readouterr().err


def test_an_empty_lake_is_one_message(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "onstream.yaml"
    config.write_text(f"run_dir: {tmp_path}\nmodel: {{path: /none}}\n")
    assert command.main(["list", "--config", str(config)]) == 1
    assert f"nothing was written to {tmp_path}/lake yet" in capsys.readouterr().err


def test_a_damaged_file_is_one_message(onstream: Any, world: World, capsys: Any) -> None:
    for file in world.lake.refresh().files.values():
        Path(world.lake.storage.full(file.path)).write_bytes(b"gone")
    assert onstream("list") == 1
    assert "a file of it cannot be read" in capsys.readouterr().err


def test_what_is_erased_is_said_and_its_metadata_stands(
    world: World, onstream: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch, played: Played
) -> None:
    monkeypatch.setattr(Vault, "get", lambda *_args: None)
    assert onstream("show", played.trajectory.session_id) == 0
    told = capsys.readouterr().out
    assert "[erased: the key of who wrote this is gone]" in told
    assert "turn 3" in told and "A drink." not in told
    assert world.lake.refresh().number == 5
