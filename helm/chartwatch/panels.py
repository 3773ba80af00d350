"""Panels of a Grafana dashboard as values, and the JSON that Grafana reads. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Unit(StrEnum):
    """Grafana's ids of units."""

    COUNT = "short"
    SECONDS = "s"
    BYTES = "bytes"
    SHARE = "percentunit"
    PER_SECOND = "cps"
    NONE = "none"


class Look(StrEnum):
    """Grafana's ids of panels."""

    LINES = "timeseries"
    STATES = "state-timeline"
    NUMBER = "stat"
    BUCKETS = "heatmap"


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called: `{{label}}` is replaced; empty: as the panel is."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`objective` is drawn as a red line, in the panel's unit."""

    title: str
    about: str
    unit: Unit
    queries: tuple[Query, ...]
    look: Look = Look.LINES
    objective: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(uid: str, title: str, about: str, rows: tuple[Row, ...]) -> dict[str, Any]:
    """A dashboard that asks for a data source and a namespace, and has no ids that an import must fill in."""
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["onstream"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "panels": _placed(rows),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": "label_values(onstream_router_candidate_share, namespace)", "refId": "namespaces"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _placed(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        at = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        placed.append({"id": len(placed) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": at})
        y += 1
        per_line = _COLUMNS // _WIDTH
        for index, panel in enumerate(row.panels):
            x, line = index % per_line * _WIDTH, index // per_line
            at = {"x": x, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            placed.append({"id": len(placed) + 1, "gridPos": at} | _panel(panel))
        y += -(-len(row.panels) // per_line) * _HEIGHT
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.objective is not None:
        steps.append({"color": "red", "value": panel.objective})
    custom = {"thresholdsStyle": {"mode": "line"}} if panel.objective is not None and panel.look is Look.LINES else {}
    return {
        "type": panel.look.value,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit.value,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": custom,
            },
            "overrides": [],
        },
        "options": {"calculate": False} if panel.look is Look.BUCKETS else {},
        "targets": [_target(index, query, panel) for index, query in enumerate(panel.queries)],
    }


def _target(index: int, query: Query, panel: Panel) -> dict[str, Any]:
    shape = "heatmap" if panel.look is Look.BUCKETS else "time_series"
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or panel.title,
        "format": shape,
    }
