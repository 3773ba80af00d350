"""Suites' files: those that are shipped, and what is said of those that cannot be used."""

from pathlib import Path

import pytest

from infra.config import Config
from infra.errors import ConfigError
from serving.rollout.suites.tasks import SHIPPED, load, load_all, require


def written(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_is_called_what_its_file_is_and_asks_for_little(name: str) -> None:
    suite = load(name)
    assert suite.suite == name and suite.about and not suite.is_judged
    assert sum(task.max_tokens for task in suite.tasks) <= 320  # the demo's engine says 20 to 60 tokens a second


def test_sanity_blocks_and_basics_compares() -> None:
    assert any(task.blocker for task in load("sanity").tasks)
    assert not any(task.blocker for task in load("basics").tasks)


def test_a_request_is_greedy_and_says_what_the_task_says() -> None:
    body = next(task for task in load("basics").tasks if task.name == "short").body
    assert body["messages"][0] == {"role": "system", "content": "Answer in one short sentence."}
    assert (body["temperature"], body["max_tokens"], "tools" in body) == (0.0, 32, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "not readable as YAML"),
        ("suite: own\n", "tasks: Field required"),
        ("suite: own\ntasks: []\n", "tasks: "),
        ("suite: own\ntasks: [{name: a, ask: x}]\n", "task 'a': must have rules in `must`, or a `judge`"),
        ("suite: own\ntasks: [{name: a, ask: x, must: [{contain: y}]}]\n", "task 'a': rule 1: must have one key"),
        (
            "suite: own\ntasks: [{name: a, ask: x, must: [{contains: y}, {words: {mx: 3}}]}]\n",
            "task 'a': rule 2: words.mx: unknown key",
        ),
        ("suite: own\ntasks: [{ask: x, must: [{contains: y}]}]\n", "task number 1: name: Field required"),
        ("suite: own\ntasks: [{name: a, ask: x, must: [{contains: y}], bloker: true}]\n", "task 'a': bloker: unknown"),
        (
            "suite: own\ntasks: [{name: a, ask: x, must: [{contains: y}]}, {name: a, ask: x, judge: y}]\n",
            "tasks: names of tasks must differ, got a twice",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_task_and_rule(tmp_path: Path, text: str, told: str) -> None:
    name = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(name)
    assert str(caught.value).startswith(f"suite {name}:") and told in str(caught.value)


def test_a_name_that_is_neither_shipped_nor_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file, and the shipped ones are basics and sanity"):
        load(str(tmp_path / "none.yaml"))


def test_two_suites_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="names of suites must differ, got sanity, sanity"):
        load_all(["sanity", "sanity"])


def test_a_judged_suite_without_a_judge_is_refused_before_a_start(tmp_path: Path) -> None:
    name = written(tmp_path, "suite: own\ntasks: [{name: a, ask: x, judge: it is kind}]\n")
    given = {"model": {"path": "m"}, "serving": {"rollout": {"suites": {"files": ["sanity", name]}}}}
    with pytest.raises(ConfigError, match=r"suites\.judge: must be given, for suite own has judged tasks"):
        require(Config.model_validate(given))
    given["serving"]["rollout"]["suites"]["judge"] = {"url": "http://judge/v1", "model": "j"}  # type: ignore[index]
    require(Config.model_validate(given))
