"""A comparison as tables on a screen. A hundred columns are enough, and nothing is told by colour alone."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from rewards.backtest.compare import Comparison, Mover, Shift, What
from rewards.backtest.numbers import Ranks

NUM_REASONS = 4
NONE = "-"


def report(found: Comparison, against: str, notes: Sequence[str]) -> Iterator[RenderableType]:
    """Everything. `against` says what the old values are, `notes` what was left out."""
    yield Text(heading(found, against), "bold")
    for note in notes:
        yield Text(note)
    yield _distributions(found.shifts)
    yield _changes(found.shifts)
    for shift in found.shifts:
        if shift.ranks is not None:
            yield Text(f"order of {shift.name}: {order(shift.ranks)}")
    if (reasons := _unscored(found.shifts)).row_count:
        yield reasons
    for name, movers in (("sessions", found.sessions), ("turns", found.turns)):
        if movers:
            yield _movers(name, movers)


def heading(found: Comparison, against: str) -> str:
    """What was compared."""
    specs = ", ".join(f"{name} ({num:,})" for name, num in found.specs_old.items())
    return f"{found.spec_new} against {against}: {specs}; {found.num_sessions:,} sessions, {found.num_turns:,} turns"


def order(found: Ranks) -> str:
    """Rank changes, in a sentence."""
    if not found.num_pairs:
        return "the old values put no two in an order"
    told = [f"Spearman {number(found.spearman)}, Kendall {number(found.kendall)}"]
    told.append(
        f"of {found.num_pairs:,} ordered pairs {found.num_flipped:,} flip ({found.num_flipped / found.num_pairs:.1%})"
    )
    told.append(f"{found.num_tied:,} become equal")
    return "; ".join(told)


def number(value: float | None, form: str = ".3f") -> str:
    return NONE if value is None else format(value, form)


def both(one: str, other: str) -> str:
    """Before and after; once where they are alike."""
    return one if one == other else f"{one} → {other}"


def name_of(shift: Shift) -> str:
    """What it is, and which scorer, where that is another now."""
    if shift.what is What.GUARDRAIL:
        return f"guardrail {shift.name}"
    if shift.what is not What.COMPONENT:
        return shift.name
    if not shift.scorers_old:
        return f"{shift.name} (new: {', '.join(shift.scorers_new)})"
    if not shift.scorers_new:
        return f"{shift.name} (gone: {', '.join(shift.scorers_old)})"
    if shift.scorers_old != shift.scorers_new:
        return f"{shift.name} ({', '.join(shift.scorers_old)} → {', '.join(shift.scorers_new)})"
    return shift.name


def means(shift: Shift) -> str:
    """Before and after."""
    return both(*(number(side.mean if side else None) for side in (shift.old, shift.new)))


SIDES = ("", "scored", "mean", "p5", "p25", "median", "p75", "p95")
CHANGES = ("", "on both sides", "changed", "mean change", "only now", "only before")


def sides(shift: Shift) -> Iterator[tuple[str, ...]]:
    """What stands below `SIDES`: a line for each side that has values."""
    for name, side in (("before", shift.old), ("now", shift.new)):
        if side is not None:
            yield (name, f"{side.num:,}", number(side.mean), *(number(value) for value in side.quantiles))


def changes(shift: Shift) -> tuple[str, ...]:
    """What stands below `CHANGES`, after the name."""
    changed = f"{shift.num_changed:,}" if shift.num_both else NONE
    return f"{shift.num_both:,}", changed, number(shift.mean_change, "+.3f"), f"{shift.gained:,}", f"{shift.lost:,}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _distributions(shifts: Sequence[Shift]) -> Table:
    table = _table("distributions")
    table.add_column("", overflow="fold")
    for head in SIDES:
        table.add_column(head, justify="left" if not head else "right", no_wrap=True)
    for shift in shifts:
        name = name_of(shift)
        for line in sides(shift) if shift.old or shift.new else [("no value",)]:
            table.add_row(Text(name), *line)
            name = ""
    return table


def _changes(shifts: Sequence[Shift]) -> Table:
    table = _table("what changes")
    for head in CHANGES:
        table.add_column(head, justify="left" if not head else "right", overflow="fold")
    for shift in shifts:
        table.add_row(Text(name_of(shift)), *changes(shift))
    return table


def reasons(told: Mapping[str, int]) -> str:
    """The most frequent ones, and how many more there are."""
    some = list(told.items())[:NUM_REASONS]
    more = sum(told.values()) - sum(num for _, num in some)
    return (
        "\n".join([f"{num:,} {why}" for why, num in some] + ([f"{more:,} for other reasons"] if more else [])) or NONE
    )


def _unscored(shifts: Sequence[Shift]) -> Table:
    table = _table("turns without a score, and why")
    for head in ("component", "before", "now"):
        table.add_column(head, overflow="fold")
    for shift in shifts:
        if shift.unscored_old != shift.unscored_new:
            table.add_row(*map(Text, (shift.name, reasons(shift.unscored_old), reasons(shift.unscored_new))))
    return table


def _movers(name: str, movers: Sequence[Mover]) -> Table:
    table = _table(f"the {len(movers)} {name} that moved most")
    table.add_column(name.removesuffix("s"), overflow="fold")
    for head in ("before", "now", "change"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("most of it by", overflow="fold")
    for mover in movers:
        values = (number(mover.old), number(mover.new), number(mover.new - mover.old, "+.3f"))
        table.add_row(*map(Text, (mover.trace_id or mover.session_id, *values, moved_by(mover))))
    return table


def moved_by(mover: Mover) -> str:
    """The component that changed most of it, and by how much."""
    return NONE if mover.by is None else f"{mover.by} {mover.by_change:+.3f}"
