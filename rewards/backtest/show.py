"""A comparison as tables on a screen. A hundred columns are enough, and nothing is told by colour alone."""

from collections.abc import Iterator, Mapping, Sequence

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
    yield _shifts(found.shifts)
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
    specs = ", ".join(f"{name} ({num})" for name, num in found.specs_old.items())
    return f"{found.spec_new} against {against}: {specs}; {found.num_sessions} sessions, {found.num_turns} turns"


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


def cells(shift: Shift) -> tuple[str, ...]:
    """What stands below `HEADS`."""
    scored = both(*(str(side.num if side else 0) for side in (shift.old, shift.new)))
    changed = f"{shift.num_changed} of {shift.num_both}" if shift.num_both else NONE
    quantiles = (_quantile(shift, which) for which in (0, 2, 4))
    return (scored, means(shift), *quantiles, changed, number(shift.mean_change, "+.3f"), _count(shift))


def _quantile(shift: Shift, which: int) -> str:
    return both(*(number(side.quantiles[which] if side else None, ".2f") for side in (shift.old, shift.new)))


def _count(shift: Shift) -> str:
    """Those that have a value only now, and those that had one only before."""
    return f"+{shift.gained} -{shift.lost}" if shift.gained or shift.lost else NONE


HEADS = ("scored", "mean", "p5", "median", "p95", "changed", "by", "only now, before")


def _shifts(shifts: Sequence[Shift]) -> Table:
    table = Table(title="rewards, before → now", title_justify="left", expand=False, pad_edge=False)
    table.add_column("", overflow="fold", min_width=12)
    for head in HEADS:
        table.add_column(head, justify="right", overflow="fold")
    for number_, shift in enumerate(shifts):
        following = shifts[number_ + 1].what if number_ + 1 < len(shifts) else shift.what
        table.add_row(
            name_of(shift), *cells(shift), end_section=following is not shift.what and shift.what is not What.SESSION
        )
    return table


def reasons(told: Mapping[str, int]) -> str:
    """The most frequent ones, and how many more there are."""
    some = list(told.items())[:NUM_REASONS]
    more = sum(told.values()) - sum(num for _, num in some)
    return "\n".join([f"{num} {why}" for why, num in some] + ([f"{more} for other reasons"] if more else [])) or NONE


def _unscored(shifts: Sequence[Shift]) -> Table:
    table = Table(title="turns without a score, and why", title_justify="left", pad_edge=False, show_lines=True)
    for head in ("component", "before", "now"):
        table.add_column(head, overflow="fold")
    for shift in shifts:
        if shift.unscored_old != shift.unscored_new:
            table.add_row(*map(Text, (shift.name, reasons(shift.unscored_old), reasons(shift.unscored_new))))
    return table


def _movers(name: str, movers: Sequence[Mover]) -> Table:
    table = Table(title=f"the {len(movers)} {name} that moved most", title_justify="left", pad_edge=False)
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
