"""The alert rules beside the chart: what promtool says, and what an operator needs of each."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from chartwatch import checks, queries, rules
from chartwatch.boards import ROWS
from chartwatch.rules import Alert

from ingest.log.letters import Failure
from trainer.eligibility import Reason


def test_promtool_accepts_every_rule_and_every_metric_in_them_is_emitted(promtool: Path) -> None:
    assert list(checks.of_rules()) == []


def test_every_alert_fires_on_what_is_wrong_and_is_silent_on_what_is_not(promtool: Path) -> None:
    assert list(checks.of_tests()) == []


@pytest.mark.parametrize("alert", rules.alerts(), ids=lambda alert: alert.name)
def test_an_alert_says_how_bad_what_and_where_to_read(alert: Alert) -> None:
    assert [fault for fault in checks.of_alerts() if fault.startswith(f"{alert.name}:")] == []


def test_names_of_alerts_are_distinct_and_say_whose_they_are() -> None:
    names = [alert.name for alert in rules.alerts()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("Onstream([A-Z][a-z]+)+", name) for name in names)


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = {anchor for anchor in rules.runbook() if anchor.startswith("onstream-")}
    assert sections == {alert.anchor for alert in rules.alerts()}


def test_the_runbook_sends_nobody_to_a_panel_that_there_is_not() -> None:
    names = set(re.findall(r"`([A-Z][a-zA-Z ]+)`", (rules.ROOT / rules.RUNBOOK).read_text().partition("## Alerts")[2]))
    others = {
        "Onstream",
        *(failure.value for failure in Failure),
    }  # the dashboard's own, and what alerts tell of letters
    assert names - others <= {panel.title for row in ROWS for panel in row.panels}


def test_each_unit_test_has_a_namespace_beside_that_must_stay_silent() -> None:
    for path in sorted(rules.TESTS.glob("*.yaml")):
        assert len(re.findall(r"^- interval:", path.read_text(), re.MULTILINE)) == len(
            [alert for alert in rules.alerts() if alert.file == path.name]
        )
        for test in rules.unit_tests(path):
            shown = {found for one in test["input_series"] for found in re.findall(r'namespace="(\w+)"', one["series"])}
            fires = {one["exp_labels"].get("namespace") for one in test["alert_rule_test"][0]["exp_alerts"]}
            assert shown - fires, test["alert_rule_test"][0]["alertname"]


def test_what_is_too_old_is_counted_by_the_trainers_own_word_for_it() -> None:
    assert f'{{onstream_reason="{Reason.STALE}"}}' in rules.recordings()["namespace:onstream_stale_turns:share_6h"]


def test_an_objective_that_is_moved_fails_its_unit_test(promtool: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(rules.RULES, tmp_path / "rules")
    moved = folder / "trainer.yaml"
    moved.write_text(moved.read_text().replace("onstream_trainer_ess) < 0.5", "onstream_trainer_ess) < 0.2"))
    command = [str(promtool), "test", "rules", str(folder / "tests" / "trainer.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "alertname: OnstreamEssLow" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("onstream_traces_lost_total > 0", "onstream_traces_lost_total: no such metric in infra/telemetry/metrics.py"),
        (
            "onstream_swap_pause_seconds > 0",
            "onstream_swap_pause_seconds: no such metric in infra/telemetry/metrics.py",
        ),
        ('onstream_trainer_ess{onstream_arm="stable"}', "onstream_trainer_ess: has no label onstream_arm"),
        ("sum by (engine) (onstream_engine_version)", "grouped by what none of its metrics has: engine"),
        ("sum by (onstream_engine_id) (onstream_engine_version)", None),
        ("vllm:num_requests_asleep", "vllm:num_requests_asleep: no such metric in infra/telemetry/metrics.py"),
        ("made:by:a_rule", None),
    ],
)
def test_a_metric_or_label_that_nobody_emits_is_named(expression: str, fault: str | None) -> None:
    assert list(queries.faults(expression, frozenset({"made:by:a_rule"}))) == ([] if fault is None else [fault])
