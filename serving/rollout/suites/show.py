"""Suites and their answers as tables for people."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from serving.rollout.suites.tasks import Suite, Task
from serving.rollout.suites.verdict import Answered, Mark


def suite(given: Suite) -> Table:
    """What a suite asks, and what replies must be."""
    table = Table("task", "kind", "reply must", title=f"{given.suite}: {given.about}", title_justify="left")
    for task in given.tasks:
        rules = [rule.model_dump_json(exclude_defaults=True, by_alias=True) for rule in task.must]
        table.add_row(
            task.name, _kind(task), Text("\n".join([*rules, *([f"judge: {task.judge}"] if task.judge else [])]))
        )
    return table


def results(answered: Sequence[Answered], is_compared: bool) -> Table:
    """A row for each task; `is_compared`: with the other endpoint's."""
    table = Table("suite", "task", "kind", "value", *(["against"] if is_compared else []), "why")
    for one in answered:
        marks = [one.candidate, one.stable] if is_compared else [one.candidate]
        why = [mark.why for mark in marks if mark.why]
        table.add_row(
            one.suite, one.task.name, _kind(one.task), *map(_value, marks), Text("\n".join(dict.fromkeys(why)))
        )
    return table


def _value(mark: Mark) -> str:
    return f"{mark.value:.2f}" if mark.is_taken else "not taken"


def _kind(task: Task) -> str:
    return ("blocker" if task.blocker else "score") + (", judged" if task.judge else "")
