"""Families of tasks: documents say what the settings must be, and tests check it. Pure.

A value is drawn anew for every job, so that nothing but having read the document, or a summary that kept it, tells it.
"""

import random
import re
from dataclasses import dataclass

from workspace import Requirement, Workspace

NUM_FACTS = 3
NUMBERS = tuple(map(str, (*range(11, 100), *range(100, 1000, 100))))


@dataclass(frozen=True)
class Family:
    """Jobs of one kind. `fact`, `question`: `{name}` and `{value}` are filled in; `value` matches one in a reply."""

    settings: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    fact: str
    question: str

    def value_in(self, reply: str) -> str | None:
        """The first value that a reply gives, or nothing."""
        found = re.search(rf"\b({'|'.join(self.values)})\b", reply)
        return found[0] if found else None


@dataclass
class Job:
    """One agent's work."""

    family: Family
    workspace: Workspace

    def question(self, name: str) -> str:
        return self.family.question.format(name=name)

    def outcome(self) -> float:
        """Of the tests that pass, in [-1, 1]: all of them 1, none -1."""
        return 1.0 - 2.0 * len(self.workspace.failing()) / len(self.workspace.requirements)


FAMILIES = (
    Family(
        settings="settings.txt",
        names=("timeout", "queue length", "batch size", "cache size", "page size", "interval", "user limit",
               "retry count", "worker count", "file limit"),
        values=NUMBERS,
        fact="The {name} must be {value}.",
        question="What must the {name} be? Answer with the value.",
    ),
    Family(
        settings="ports.txt",
        names=("parser", "router", "editor", "compiler", "server", "client", "database", "scanner", "printer",
               "kernel"),
        values=NUMBERS,
        fact="The {name} runs on port {value}.",
        question="On which port does the {name} run? Answer with the number.",
    ),
    Family(
        settings="rooms.txt",
        names=("billing", "search", "login", "reports", "backups", "payments", "email", "mobile", "hosting",
               "invoices"),
        values=NUMBERS,
        fact="The {name} team is in room {value}.",
        question="In which room is the {name} team? Answer with the number.",
    ),
)  # fmt: skip


def make(source: random.Random) -> Job:
    """A job of some family, with values of its own; the settings begin with wrong ones."""
    family = source.choice(FAMILIES)
    names = source.sample(family.names, NUM_FACTS)
    right, wrong = source.sample(family.values, NUM_FACTS), source.sample(family.values, NUM_FACTS)
    facts = tuple(
        Requirement(name, value, f"docs/{name.split()[0]}.md") for name, value in zip(names, right, strict=True)
    )
    files = {fact.doc: family.fact.format(name=fact.name, value=fact.value) for fact in facts}
    old = zip(names, wrong, right, strict=True)
    files[family.settings] = "\n".join(f"{name} = {value}" for name, value, true in old if value != true)
    return Job(family, Workspace(files, family.settings, facts))
