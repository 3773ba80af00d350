"""`onstream train --from`, from its flags to the model that it writes."""

import json
import subprocess
import sys
from typing import Any

import pytest

from ingest.records.events import session_key
from trainer.eligibility import Reason

Offline = Any
LIKED, DISLIKED = 5, 9


def some(offline: Offline, num: int = 16) -> None:
    """Sessions of one turn: one reply is liked, the other is not."""
    for number in range(num):
        token, value = ((LIKED, 1.0), (DISLIKED, 0.0))[number % 2]
        offline.put(offline.reward(f"s{number}", value, token, whole=value))


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "gspo", "cispo"])
def test_what_was_liked_becomes_likelier_and_what_was_not_less(offline: Offline, method: str) -> None:
    some(offline)
    assert offline.train("--method", method) == 0
    assert offline.probability(LIKED) > offline.probability(LIKED, "")
    assert offline.probability(DISLIKED) < offline.probability(DISLIKED, "")
    about = offline.about()
    assert about["settings"]["loss"]["kind"] == method and [step["turns"] for step in about["steps"]] == [8, 8]
    assert len(about["trace_ids"]) == 16 and about["versions"] == [0] and about["specs"] == ["default/1"]
    assert offline.left() == ["out", "out.training.json"]


def test_an_engine_finds_in_the_folder_what_it_found_in_the_one_before(offline: Offline) -> None:
    some(offline)
    assert offline.train() == 0
    written = {path.name for path in (offline.root / "out").iterdir()}
    assert written >= {path.name for path in offline.model.iterdir()}


def test_turns_that_must_not_train_do_not_and_are_counted_by_why(offline: Offline, capsys: Any) -> None:
    some(offline, 4)
    offline.put(
        offline.reward("h", 1.0, held_out=True),
        offline.reward("f", 1.0, turn_changes={0: {"status": 500}}),
        offline.reward("r", 1.0, turn_changes={0: {"is_altered": True}}),
        offline.make("u", [None]),
        offline.reward("s0", 1.0),
    )
    assert offline.train() == 0
    told = capsys.readouterr().out
    for reason in (Reason.HELD_OUT, Reason.STATUS, Reason.ALTERED, Reason.UNSCORED):
        assert f"refused: {reason.value}" in told
    assert "left out: in the files twice" in told
    assert len(offline.about()["trace_ids"]) == 4


def test_tokens_that_another_policy_sampled_raise_the_alarm_and_nothing_is_written(
    offline: Offline, capsys: Any
) -> None:
    offline.put(*(offline.make(f"s{number}", [number / 8], token=5) for number in range(8)))
    assert offline.train() == 1
    told = capsys.readouterr().err
    assert "trainer.alarms.max_mismatch" in told and "nothing is written" in told
    assert "sampled by version 0: --version begins" in told
    assert offline.left() == []


def test_the_best_of_each_tenant_are_imitated_and_written_as_conversations(offline: Offline, capsys: Any) -> None:
    """Tenant b is content with nothing: its best are below the least reward."""
    for number in range(8):
        said = {0: {"messages": [{"role": "user", "text": f"hello {number}"}], "reply": "five"}}
        reward = offline.reward(f"a{number}", 1.0, LIKED, whole=number / 8, tenant="a", turn_changes=said)
        offline.put(reward, offline.reward(f"b{number}", 0.1, DISLIKED, whole=0.1, tenant="b"))
    assert offline.train("--sft", "--top-share", "0.25", "--min-reward", "0.5") == 0
    chats = offline.chats()
    assert [chat["session_id"] for chat in chats] == ["a6", "a7"]
    assert chats[0]["messages"] == [{"role": "user", "content": "hello 6"}, {"role": "assistant", "content": "five"}]
    assert offline.probability(LIKED) > offline.probability(LIKED, "")
    assert len(offline.about()["trace_ids"]) == 2
    assert "refused: not of the best trajectories" in capsys.readouterr().out


def test_a_conversation_with_a_turn_that_must_not_train_is_not_written(offline: Offline) -> None:
    failed = {1: {"status": 500, "parent": f"{session_key('half')}-0"}}
    offline.put(offline.make("half", [1.0, 1.0], turn_changes=failed), offline.make("whole", [1.0]))
    assert offline.train("--sft", "--top-share", "1") == 0
    assert [chat["session_id"] for chat in offline.chats()] == ["whole"]
    assert len(offline.about()["trace_ids"]) == 2


def test_nobodys_silence_is_imitated(offline: Offline, capsys: Any) -> None:
    silent = offline.reward("s", 1.0, whole=1.0).model_copy(update={"has_signal": False})
    offline.put(silent)
    assert offline.train("--sft") == 1
    assert "nothing in it trains" in capsys.readouterr().err and offline.left() == []


def test_each_epoch_trains_every_turn_once_more(offline: Offline) -> None:
    some(offline, 8)
    offline.configure(lr=3e-4, dtype="float32", threads=1, batch_turns=8, minibatch_turns=8)
    assert offline.train("--epochs", "3") == 0
    assert [step["turns"] for step in offline.about()["steps"]] == [8, 8, 8]


def test_a_line_says_what_it_lacks(offline: Offline, capsys: Any) -> None:
    offline.lines.append(json.dumps({"trace_id": "t", "context_ids": [1], "reply_ids": [2], "reward": 1.0}))
    assert offline.train() == 1
    told = capsys.readouterr().err
    assert "trajectories.jsonl:1: lacks reward_id, trajectory_id" in told and "--format trajectories" in told


def test_a_reward_without_its_trajectory_is_told_so(offline: Offline, capsys: Any) -> None:
    told = json.loads(offline.reward("s", 1.0).model_dump_json()) | {"trajectory": None}
    offline.lines.append(json.dumps(told | {"source": {"partition": 0, "offset": 3}}))
    assert offline.train() == 1
    assert "lacks trajectory, and with it token ids" in capsys.readouterr().err


def test_nothing_is_overwritten(offline: Offline, capsys: Any) -> None:
    some(offline, 4)
    (offline.root / "out").mkdir()
    (offline.root / "out" / "mine").write_text("")
    assert offline.train() == 1
    assert "--output" in capsys.readouterr().err and (offline.root / "out" / "mine").exists()


def test_what_an_earlier_run_left_beside_a_folder_is_not_overwritten(offline: Offline, capsys: Any) -> None:
    some(offline, 4)
    (offline.root / "out.training.json").write_text("mine")
    assert offline.train() == 1
    assert "out.training.json" in capsys.readouterr().err and (offline.root / "out.training.json").read_text() == "mine"


def test_a_later_revision_replaces_the_one_before_it_as_on_the_log(offline: Offline) -> None:
    """Whoever took their praise back is not imitated."""
    offline.put(*(offline.reward(f"s{number}", 1.0, whole=0.9) for number in range(4)))
    offline.put(offline.reward("s0", 0.0, whole=0.1, revision=2))
    assert offline.train("--sft", "--top-share", "1.0", "--min-reward", "0.5") == 0
    assert sorted(chat["session_id"] for chat in offline.chats()) == ["s1", "s2", "s3"]


def test_a_folder_without_files_and_one_without_a_model_are_named(offline: Offline, capsys: Any) -> None:
    assert offline.train("--from", str(offline.root / "none")) == 1
    assert "none: must be a file, or a folder" in capsys.readouterr().err
    some(offline, 2)
    assert offline.train("--model", str(offline.root)) == 1
    assert "--model: " in capsys.readouterr().err


def test_help_and_the_driver_cost_no_torch() -> None:
    code = "import sys, trainer.offline.run, trainer.offline.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
