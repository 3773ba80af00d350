"""What an expression of PromQL asks for: its metrics, and the labels that its selectors and groupings name."""

from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser as promql

from chartwatch.others import OTHERS
from infra.telemetry.metrics import METRICS, Kind, Metric

TARGET_LABELS = frozenset({"namespace", "instance", "job", "le", "version"})
"""What Prometheus knows of a target, a bucket's bound, and the label that `instance_version:...` makes."""
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": ".*"}
"""Grafana's variables in our dashboards, and what stands for them while an expression is checked."""


@dataclass(frozen=True)
class Asked:
    """The selectors of an expression, as metric and labels, and the labels it groups or matches by."""

    selectors: tuple[tuple[str, frozenset[str]], ...]
    grouped: frozenset[str]


def plain(expression: str) -> str:
    """An expression without Grafana's variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def asked(expression: str) -> Asked:
    """What an expression asks for. Raises `ValueError` where it is no PromQL."""
    selectors: list[tuple[str, frozenset[str]]] = []
    grouped: set[str] = set()

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector):
            selectors.append((node.name or "", frozenset(one.name for one in node.matchers.matchers)))
        if isinstance(node, promql.MatrixSelector):
            visit(node.vector_selector)
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        if isinstance(node, promql.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            grouped.update(node.modifier.matching.labels)
        return True

    promql.walk(promql.parse(plain(expression)), visit)
    return Asked(tuple(selectors), frozenset(grouped))


def faults(expression: str, recorded: frozenset[str] = frozenset()) -> Iterator[str]:
    """Metrics and labels that nobody emits. `recorded` are series that rules make; their labels are not looked at."""
    known = series()
    wanted = asked(expression)
    labels: set[str] = set(TARGET_LABELS)
    is_whole = True
    for name, chosen in wanted.selectors:
        if name in recorded | OTHERS:
            is_whole = False
            continue
        if name not in known:
            yield f"{name}: no such metric in infra/telemetry/metrics.py"
            continue
        mine = {attribute.replace(".", "_") for attribute in known[name].attributes}
        labels |= mine
        if chosen - mine - TARGET_LABELS:
            yield f"{name}: has no label {', '.join(sorted(chosen - mine - TARGET_LABELS))}"
    if is_whole and wanted.grouped - labels:
        yield f"grouped by what none of its metrics has: {', '.join(sorted(wanted.grouped - labels))}"


def series() -> dict[str, Metric]:
    """Every series that our metrics make at a Prometheus reader."""
    found: dict[str, Metric] = {}
    for metric in METRICS:
        ends = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        found |= {metric.prometheus + end: metric for end in ends}
    return found
