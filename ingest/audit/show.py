"""The audit for people: tables, what is wrong by name, and a bar while it is taken."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ingest.audit.account import Account
from ingest.audit.feedback import FeedbackAccount
from ingest.audit.named import Named
from ingest.audit.reading import Say


def show(found: Account) -> None:
    """The accounts as tables, then a line for what is wrong, as far as it is named."""
    table = Table("outcome", "detail", "traces", title=f"{found.num_traces} traces")
    table.columns[2].justify = "right"
    for (kind, reason), num in sorted(found.by_reason.items()):
        table.add_row(kind, escape(reason), str(num))
    for where, num in sorted(found.in_flight.items()):
        table.add_row("in flight", where, str(num))
    table.add_row("UNEXPLAINED", "", str(found.unexplained.num))
    table.add_row("CONFLICT", "", str(found.conflicts.num))
    console = Console(soft_wrap=True)
    console.print(table, _feedback_table(found.feedback))
    _list(console, "CONFLICT", found.conflicts)
    _list(console, "UNEXPLAINED", found.unexplained)
    _list(console, "UNEXPLAINED", found.feedback.unexplained)
    if found.duplicates:
        console.print(f"{found.duplicates.num} traces were delivered more than once and count once")


def _list(console: Console, what: str, named: Named) -> None:
    for name in named.names:
        console.print(f"{what} {escape(name)}")
    if named.num_unnamed:
        console.print(f"{what} and {named.num_unnamed} more")


def _feedback_table(found: FeedbackAccount) -> Table:
    table = Table("outcome", "detail", "feedback", title=f"{found.num_feedback} feedback")
    table.columns[2].justify = "right"
    for (how, detail), num in sorted(found.by_outcome.items()):
        table.add_row(how, detail, str(num))
    for where, num in sorted(found.in_flight.items()):
        table.add_row("in flight", where, str(num))
    table.add_row("UNEXPLAINED", "", str(found.unexplained.num))
    return table


@contextmanager
def bar() -> Iterator[Say]:
    """A bar on standard error while an account is taken, where that is a terminal."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
