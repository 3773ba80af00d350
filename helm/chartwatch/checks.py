"""What is wrong with rules and dashboards, in sentences; empty: nothing. Needs promtool."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from chartwatch import queries, rules
from chartwatch.boards import ROWS, stale
from chartwatch.debian import promtool


def faults() -> Iterator[str]:
    """Everything below."""
    yield from of_rules()
    yield from of_tests()
    yield from of_alerts()
    yield from of_boards()


def of_rules() -> Iterator[str]:
    """What `promtool check rules` says, and metrics or labels that nobody emits."""
    yield from _promtool("check", "rules", *map(str, rules.files()))
    made = frozenset(rules.recordings())
    for name, expr in [*((one.name, one.expr) for one in rules.alerts()), *rules.recordings().items()]:
        yield from (f"{name}: {fault}" for fault in queries.faults(expr, made))


def of_tests() -> Iterator[str]:
    """What `promtool test rules` says, and alerts that no test sees fire."""
    yield from _promtool("test", "rules", *map(str, sorted(rules.TESTS.glob("*.yaml"))))
    tested = rules.tested()
    yield from (f"{one.name}: no unit test sees it fire" for one in rules.alerts() if one.name not in tested)


def of_alerts() -> Iterator[str]:
    """Alerts that do not say what an operator needs."""
    anchors = rules.runbook()
    for one in rules.alerts():
        if one.severity not in ("critical", "warning"):
            yield f"{one.name}: severity must be critical or warning, got {one.severity}"
        if not one.annotations.get("summary") or "$" not in one.annotations.get("description", ""):
            yield f"{one.name}: must have a summary, and a description with a value or a label"
        if one.annotations.get("runbook_url") != f"{rules.RUNBOOK}#{one.anchor}":
            yield f"{one.name}: runbook_url must be {rules.RUNBOOK}#{one.anchor}"
        if one.anchor not in anchors:
            yield f"{one.name}: {rules.RUNBOOK} has no section {one.anchor}"


def of_boards() -> Iterator[str]:
    """Files that are not what the code writes; expressions that promtool refuses; metrics that nobody emits."""
    yield from (f"{name}: not what helm/chartwatch writes: make dashboards" for name in stale())
    panels = [
        (f"{row.title} / {panel.title}", query) for row in ROWS for panel in row.panels for query in panel.queries
    ]
    made = frozenset(rules.recordings())
    for where, query in panels:
        yield from (f"{where}: {fault}" for fault in queries.faults(query.expr, made))
    yield from parsed({f"p{index}": queries.plain(query.expr) for index, (_, query) in enumerate(panels)})


def parsed(expressions: dict[str, str]) -> Iterator[str]:
    """What promtool says of expressions, each as a rule of its own."""
    group = {"name": "parsed", "rules": [{"record": name, "expr": expr} for name, expr in expressions.items()]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parsed.yaml"
        path.write_text(yaml.safe_dump({"groups": [group]}))
        yield from _promtool("check", "rules", str(path))


def _promtool(*command: str) -> Iterator[str]:
    done = subprocess.run([str(promtool()), *command], capture_output=True, text=True, check=False)
    if done.returncode:
        yield (done.stdout + done.stderr).strip()
