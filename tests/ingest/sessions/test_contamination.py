"""Task files against turns: what is found, what is not, and what a mistake in the files looks like."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.config import Config, ContaminationConfig
from infra.errors import ConfigError
from ingest.records.events import ChatMessage, CloseReason, Trajectory, Turn, TurnKind
from ingest.sessions import contamination
from ingest.sessions.contamination import build, index_of, require_tasks

RNG = random.Random(0)
WORDS = [f"word{n}" for n in range(5000)]
TASK = " ".join(RNG.sample(WORDS, 40))
SHORT = "what is the boiling point of water in kelvin"


def words(num: int) -> str:
    return " ".join(RNG.choices(WORDS, k=num))


def test_a_turn_that_quotes_a_task_is_found_with_its_file_and_another_is_not() -> None:
    index = build([("one.txt", [words(40)]), ("two.txt", [TASK])], overlap=0.5)
    assert index.find(f"{words(30)} {TASK} {words(30)}") == "two.txt"
    assert index.find(words(200)) is None
    assert index.find("") is None


def test_punctuation_and_case_hide_nothing() -> None:
    index = build([("tasks", [TASK])], overlap=1.0)
    assert index.find(TASK.upper().replace(" ", ",\n  ")) == "tasks"


@pytest.mark.parametrize(("num_words", "is_found"), [(25, False), (26, True)])
def test_the_share_of_a_tasks_runs_that_must_be_there_is_exact(num_words: int, is_found: bool) -> None:
    """40 words are 28 runs of 13; the first 26 words hold 14 of them, half."""
    index = build([("tasks", [TASK])], overlap=0.5)
    assert (index.find(" ".join(TASK.split()[:num_words])) == "tasks") is is_found


def test_a_run_said_twice_counts_once() -> None:
    first = " ".join(TASK.split()[:25])
    assert build([("tasks", [TASK])], overlap=0.5).find(f"{first} {first} {first}") is None


def test_a_passage_of_eight_to_twelve_words_is_found_whole() -> None:
    index = build([("tasks", [SHORT])], overlap=0.5)
    assert index.find(f"Tell me, {SHORT}?") == "tasks"
    assert index.find("what is the boiling point of water in celsius") is None


def test_what_many_tasks_share_is_a_form_and_finds_nothing() -> None:
    form = words(20)
    tasks = [f"{form} {words(20)}" for _ in range(11)]
    assert build([("tasks", tasks)], overlap=0.1).find(form) is None
    assert build([("tasks", tasks[:10])], overlap=0.1).find(form) == "tasks"
    assert build([("tasks", tasks)], overlap=0.5).find(tasks[3]) == "tasks"


def trajectory(*turns: tuple[str, str | None, str, str]) -> Trajectory:
    made = tuple(
        Turn(
            trace_id=name, kind=TurnKind.MAIN, parent=parent, messages=(ChatMessage(role="user", text=asked),),
            context=asked, reply=reply, followup=None, finish_reason="stop", status=200, num_tokens=1, versions=(0,),
            at=0.0,
        )
        for name, parent, asked, reply in turns
    )  # fmt: skip
    return Trajectory(
        trajectory_id="t", session_id="s", tenant="t", assignment=None, held_out=False, closed=CloseReason.INACTIVE,
        opened_at=0.0, closed_at=0.0, turns=made, chains=(), feedback=(),
    )  # fmt: skip


def test_prompts_and_replies_are_searched_and_what_goes_on_from_a_hit_is_one() -> None:
    found = build([("tasks", [TASK])], overlap=0.5).contaminated(
        trajectory(
            ("before", None, "hello", "hello"),
            ("asked", "before", f"solve {TASK}", "no"),
            ("after", "asked", "please", "no"),
            ("aside", "before", "another thing", "yes"),
            ("recited", "aside", "say it", TASK),
        )
    )
    assert found == {"asked": "tasks", "after": "tasks", "recited": "tasks"}


def test_files_are_json_lines_at_any_depth_or_paragraphs(tmp_path: Path) -> None:
    deep, text = words(20), words(20)
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 7, "parts": [{"question": deep}]}) + "\n\n")
    (tmp_path / "b.txt").write_text(f"a title\n\n{text}\n\nan end\n")
    index = index_of(ContaminationConfig(tasks=(str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt"))))
    assert index is not None
    assert (index.find(deep), index.find(text), index.find(words(20))) == ("a.jsonl", "b.txt", None)


def test_a_suite_of_tasks_may_be_named_as_it_is(tmp_path: Path) -> None:
    asked, other = words(20), words(20)
    tasks = [{"name": "a", "ask": asked, "must": [{"contains": "x"}]}, {"name": "b", "ask": [{"content": other}]}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"suite": "own", "tasks": tasks}))
    index = index_of(ContaminationConfig(tasks=(str(tmp_path / "suite.yaml"),)))
    assert index is not None
    assert (index.find(asked), index.find(other), index.find(words(20))) == ("suite.yaml", "suite.yaml", None)
    (tmp_path / "suite.yaml").write_text("tasks: [")
    with pytest.raises(ConfigError, match=r"suite\.yaml: must be YAML"):
        index_of(ContaminationConfig(tasks=(str(tmp_path / "suite.yaml"),)))


def test_without_files_there_is_no_index() -> None:
    assert index_of(ContaminationConfig()) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "tasks.jsonl: not readable as text: [Errno 2] No such file"),
        (b"\xff\xfe\x00", "tasks.jsonl: not readable as text"),
        (b'{"a": "b"}\n{"a": ', "tasks.jsonl: line 2 must be JSON"),
        (b'{"a": "too short"}', "tasks.jsonl must hold a passage of 8 words or more, got none"),
    ],
)
def test_a_file_that_cannot_be_used_fails_the_check_and_is_named(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    if content is not None:
        path.write_bytes(content)
    config: dict[str, Any] = {"model": {"path": "m"}, "ingest": {"contamination": {"tasks": [str(path)]}}}
    with pytest.raises(ConfigError) as raised:
        require_tasks(Config.model_validate(config))
    assert str(raised.value).startswith("ingest.contamination.tasks: ") and told in str(raised.value)


def test_more_tasks_than_memory_is_meant_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "MAX_NGRAMS", 20)
    with pytest.raises(ConfigError, match="at most 20 runs of words fit, big goes beyond"):
        build([("big", [TASK])], overlap=0.5)
