"""Which values of a history were used after a cut, and whether the summary holds them: for `recall`, and for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.records.events import Trajectory
from ingest.sessions.history import Compaction
from ingest.sessions.messages import ASSISTANT
from rewards.summary import material
from rewards.summary.atoms import Atom
from rewards.summary.facts import Statement
from rewards.summary.told import Standing, Told, told_by


@dataclass(frozen=True)
class Inventory:
    """Statements as they were written: of the history, what a summary kept or lost; its own that are wrong."""

    kept: tuple[str, ...]
    lost: tuple[str, ...]
    wrong: tuple[str, ...]


def used_after(told: Told, cuts: Iterable[Compaction]) -> dict[Atom, bool]:
    """The history's values that came up after a cut, and whether a reply or tool call had them, or only others."""
    found: dict[Atom, bool] = {}
    for cut in cuts:
        for message in material.after(cut):
            for statement in told.read(material.said(message)):
                for mention in statement.mentions:
                    if told.has(mention.atom):
                        found[mention.atom] = message.role == ASSISTANT or found.get(mention.atom, False)
    return found


def holds(told: Told, summary: Sequence[Statement], atom: Atom) -> bool:
    """Whether the summary has a value, bound to words that the history binds it to."""
    return any(
        mention.atom.is_same(atom) and told.standing(mention) is Standing.HELD
        for statement in summary
        for mention in statement.mentions
    )


def inventory(trajectory: Trajectory, cut: Compaction) -> Inventory:
    """What a summary did with the values used after its cut, and with the tasks that were open."""
    told = told_by(*map(material.said, material.replaced(trajectory, cut.summary)))
    summary = told.read(material.claims_of(cut.summary))
    wanted = {_told(told, atom): holds(told, summary, atom) for atom in used_after(told, [cut])}
    wanted |= {task.text: told.is_in(task.words, summary) for task in told.open_tasks}
    wrong = [
        statement.text
        for statement in summary
        if any(told.standing(mention) is Standing.WRONG for mention in statement.mentions)
    ]
    return Inventory(
        kept=tuple(text for text, is_held in wanted.items() if is_held),
        lost=tuple(text for text, is_held in wanted.items() if not is_held),
        wrong=tuple(wrong),
    )


def _told(told: Told, atom: Atom) -> str:
    """The last statement of the history that has a value."""
    texts = [one.text for one in told.statements if any(mention.atom.is_same(atom) for mention in one.mentions)]
    return texts[-1] if texts else atom.value
