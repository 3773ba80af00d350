"""A report as tables on a screen and as JSON. Nothing is told by colour alone."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trainer.report.core import WASTED, Report, VersionTold

NONE = "-"
HEADS = ("version", "parent", "made", "became", "turns", "wasted", "unfit", "reward", "kl", "mismatch", "ess",
         "entropy", "staleness")  # fmt: skip
REASONS = ("why", "", "turns")
_METRICS = ("mean_reward", "kl", "mismatch_k1", "ess", "entropy", "staleness")


def tables(told: Report) -> Iterator[RenderableType]:
    """A line for each version, and why turns did not train."""
    yield Text(heading(told), "bold")
    table = Table(box=box.SIMPLE_HEAD)
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("made", "became") else "right")
    for one in told.versions:
        table.add_row(*cells(one))
    yield table
    if told.ended:
        why = Table(box=box.SIMPLE_HEAD, title="turns that never train", title_justify="left")
        for head in REASONS:
            why.add_column(head, justify="right" if head == "turns" else "left")
        for row in reasons(told):
            why.add_row(*row)
        yield why


def reasons(told: Report) -> list[tuple[str, str, str]]:
    """Why turns do not train, what could have first."""
    found = sorted(told.ended.items(), key=lambda one: (one[0] not in WASTED, -one[1]))
    return [(reason, "wasted" if reason in WASTED else "unfit", f"{num:,}") for reason, num in found]


def heading(told: Report) -> str:
    """The whole in a sentence."""
    num = told.num_used + told.num_wasted
    share = f", {told.num_used / num:.1%}" if num else ""
    return (
        f"{len(told.versions)} version{'s' if len(told.versions) > 1 else ''}; of {num:,} turns that could train "
        f"{told.num_used:,} did{share}; fates are from {told.source}"
    )


def cells(one: VersionTold) -> list[str]:
    """A version's line."""
    return [
        str(one.version),
        NONE if one.parent is None else str(one.parent),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at)),
        one.end.value,
        f"{one.used:,}",
        f"{one.num_wasted:,}",
        f"{one.num_unfit:,}",
        *(number(one.metrics.get(name)) for name in _METRICS),
    ]


def number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def as_json(told: Report) -> str:
    """One object."""
    versions = [asdict(one) | {"end": one.end.value, "ended": dict(one.ended)} for one in told.versions]
    return json.dumps({"versions": versions, "since": dict(told.since), "fates_from": told.source})
