"""How every benchmark ends: a table for people and the `BENCH` line for whoever runs it."""

import json
import operator
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Targets = Mapping[str, tuple[str, float]]
_HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".onstream" / "model"
"""SmolLM2-135M-Instruct, as `make .onstream/model` writes it."""


def report(name: str, figures: Mapping[str, float | None], targets: Targets) -> None:
    """Print figures beside their targets, then the line. `holds` is computed; no figure holds nothing."""
    table = Table("figure", "value", "target", "", title=f"bench {name}: {surroundings()}")
    for figure, value in figures.items():
        rule, bound = targets.get(figure, ("", 0.0))
        told = "-" if value is None else f"{value:.4g}"
        table.add_row(figure, told, f"{rule} {bound:g}" if rule else "", _mark(value, rule, bound))
    Console().print(table)
    missing = sorted(targets.keys() - figures.keys())
    assert not missing, f"bench {name}: targets without a figure: {', '.join(missing)}"
    holds = all(_holds(figures[figure], *target) for figure, target in targets.items())
    line: dict[str, Any] = {"name": name, "holds": holds, "figures": dict(figures), "targets": dict(targets)}
    print(f"BENCH {json.dumps(line)}", flush=True)


def surroundings() -> str:
    """Commit, machine and date, as a committed result states them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"
    return f"commit {commit.stdout.strip() or 'unknown'}, {machine}, {time.strftime('%Y-%m-%d')}"


def _holds(value: float | None, rule: str, bound: float) -> bool:
    return value is not None and bool(_HOLDS[rule](value, bound))


def _mark(value: float | None, rule: str, bound: float) -> str:
    if not rule:
        return ""
    return "[green]holds[/]" if _holds(value, rule, bound) else "[red]missed[/]"
