"""What an erasure touched, for people, as tables, and for programs, as JSON."""

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest.erase.erasure import NO_FATE, Touched
from ingest.lineage.core import Learnt, Role
from ingest.lineage.show import GONE, serves, serving_json


def as_json(user: str, found: Touched) -> str:
    """One object, with the id of every trace."""
    return json.dumps(
        {
            "user": user,
            "keys": found.num_keys,
            "sessions": len(found.sessions),
            "traces": sorted(found.traces),
            "by_fate": dict(sorted(found.by_fate.items())),
            "versions": [_version_json(one) for one in found.versions],
            "unread": list(found.unread),
        }
    )


def _version_json(one: Learnt) -> dict[str, Any]:
    return serving_json(one.serving) | {
        "state": one.end.value,
        "trained_on": list(one.trace_ids),
        "is_stored": one.is_stored,
    }


def on_screen(user: str, found: Touched, cache_s: float) -> None:
    """Tables. `cache_s`: how long processes may use the keys yet."""
    console = Console(soft_wrap=True)
    table = Table("what", "how many", title=f"user {escape(user)} is erased")
    table.columns[1].justify = "right"
    for what, num in (
        ("keys removed", found.num_keys),
        ("sessions", len(found.sessions)),
        ("traces, on the log or in the lake (--json names them)", len(found.traces)),
        *((f"  {fate}", num) for fate, num in sorted(found.by_fate.items())),
    ):
        table.add_row(what, str(num))
    console.print(table)
    if not found.num_keys:
        console.print("There was no key: nothing of theirs was ever sealed, or they were erased before.")
    console.print(f"Running processes forget the keys within {cache_s:g} s.")
    if found.by_fate[NO_FATE]:
        console.print(
            "The trainer may have taken traces without a fate into a version that it is making: erase again once that "
            "is published, and it is named."
        )
    if found.versions:
        _show_versions(console, found.versions)
    for told in found.unread:
        console.print(f"Not read: {escape(told)}")


def _show_versions(console: Console, versions: tuple[Learnt, ...]) -> None:
    """Those trained on the user's traces, and of their descendants those that serve."""
    table = Table("version", "", "state", "serves now", title="versions with their traces in them")
    shown = [one for one in versions if one.trace_ids or one.serving.engines or one.serving.role is not Role.NONE]
    for one in shown:
        made = f"trained on {len(one.trace_ids)} of them" if one.trace_ids else "descends"
        state = f"{one.end.value}, {GONE}" if one.is_stored is False else one.end.value
        table.add_row(str(one.version), made, state, serves(one.serving))
    console.print(table)
    if more := len(versions) - len(shown):
        console.print(f"Not shown: {more} that descend from them and do not serve; --json names them.")
    console.print("Versions trained on these traces are not changed by this: whether they stay is for you to decide.")
