"""A suite's file: tasks, each with what its reply must be.

    suite: basics
    about: Short questions with one right answer.
    tasks:
      - name: sum                             # a score: 1 where the reply keeps all rules, else 0
        ask: "What is 17 + 25? Answer with the number."
        must: [{number: {is: 42}}]
      - name: stops                           # a blocker: a candidate that breaks it is rejected, if stable keeps it
        blocker: true
        ask: "Say hello."
        max_tokens: 64
        must: [{finish: [stop]}, {repeats: {words: 3, max: 4}}]
      - name: kind                            # judged: a judge says how well the reply does it, in [0, 1]
        ask: "My dog died yesterday."
        judge: "The reply shows sympathy before it says anything else."

The rules are in `serving.rollout.suites.rules`; docs/suites.md tells how to write a suite.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from infra.config import Config
from infra.errors import ConfigError
from infra.explain import explain
from serving.rollout.suites.rules import Frozen, Rule

SHIPPED = ("basics", "sanity")
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Message(Frozen):
    """One message of a task's conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Task(Frozen):
    """One question, and what its reply must be. `judge` is what a judge is asked to look for."""

    name: Label
    ask: str | Annotated[tuple[Message, ...], Field(min_length=1)]
    system: str = ""
    tools: tuple[dict[str, Any], ...] = Field((), description="as the chat API takes them")
    max_tokens: int = Field(24, ge=1, le=4096)
    blocker: bool = False
    must: tuple[Rule, ...] = ()
    judge: str = Field("", max_length=2000)

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Task":
        if not self.must and not self.judge:
            raise ValueError("must have rules in `must`, or a `judge`: else any reply would do")
        return self

    @property
    def body(self) -> dict[str, Any]:
        """The request, without its model: greedy, so that the same weights answer the same."""
        asked = self.ask if isinstance(self.ask, tuple) else (Message(role="user", content=self.ask),)
        system = (Message(role="system", content=self.system),) if self.system else ()
        body = {
            "messages": [message.model_dump() for message in (*system, *asked)],
            "max_tokens": self.max_tokens,
            "temperature": 0.0,
        }
        return body | ({"tools": list(self.tools)} if self.tools else {})


def _differ(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names of tasks must differ, got {', '.join(twice)} twice")
    return tasks


class Suite(Frozen):
    """Tasks that are asked and compared together."""

    suite: Label
    about: str = ""
    tasks: Annotated[tuple[Task, ...], Field(min_length=1), AfterValidator(_differ)]

    @property
    def is_judged(self) -> bool:
        return any(task.judge for task in self.tasks)


def load(name: str) -> Suite:
    """A shipped suite by its name, or one from a file.

    Raises:
        ConfigError: it is neither; each thing wrong with it is named with file, task and rule.
    """
    source = resources.files("serving.rollout.suites").joinpath(f"{name}.yaml") if name in SHIPPED else Path(name)
    try:
        raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"suite {name}: no such file, and the shipped ones are {' and '.join(SHIPPED)}") from exc
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"suite {name}: not readable as YAML: {exc}") from exc
    try:
        return Suite.model_validate(raw)
    except ValidationError as exc:
        lines = dict.fromkeys(f"  {_told(error, raw)}" for error in exc.errors())
        raise ConfigError("\n".join([f"suite {name}:", *lines])) from exc


def load_all(names: Sequence[str]) -> tuple[Suite, ...]:
    """Suites whose names differ. Raises `ConfigError`."""
    suites = tuple(map(load, names))
    held = [suite.suite for suite in suites]
    if len(set(held)) != len(held):
        raise ConfigError(f"serving.rollout.suites.files: names of suites must differ, got {', '.join(held)}")
    return suites


def require(config: Config) -> None:
    """A check of `onstream check`: the suites can be read, and what is judged has a judge. Raises `ConfigError`."""
    own = config.serving.rollout.suites
    judged = [suite.suite for suite in load_all(own.files) if suite.is_judged]
    if judged and own.judge is None:
        raise ConfigError(f"serving.rollout.suites.judge: must be given, for suite {judged[0]} has judged tasks")


def _told(error: Any, raw: Any) -> str:
    """What is wrong, with the task by its name and the rule by its number in the place of indices."""
    match error["loc"]:
        case ("tasks", int() as number, "must", int() as rule, *rest):
            where = f"task {_task(raw, number)}: rule {rule + 1}"
            rest = rest[1:]  # the tag that told which rule it is
        case ("tasks", int() as number, *rest):
            where = f"task {_task(raw, number)}"
        case rest:
            where = ""
    told = explain({**error, "loc": tuple(rest)})
    return f"{where}: {told}" if where else told


def _task(raw: Any, number: int) -> str:
    given = raw["tasks"][number]
    name = given.get("name") if isinstance(given, dict) else None
    return repr(name) if isinstance(name, str) else f"number {number + 1}"
