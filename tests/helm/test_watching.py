"""Rules, dashboards and scrapes, as the chart renders them."""

import json
from pathlib import Path

import yaml
from charts import Rendered
from chartwatch import boards, rules

from infra import watch
from infra.telemetry.metrics import METRICS


def test_rules_and_dashboards_are_rendered_as_they_are_in_the_files(rendered: Rendered) -> None:
    made = rendered("monitoring")
    specs = [one["spec"] for one in made if one["kind"] == "PrometheusRule"]
    assert specs == [yaml.safe_load(path.read_text()) for path in rules.files()]
    shown = [one["data"] for one in made if one["kind"] == "ConfigMap" and "onstream.json" in one["data"]]
    assert [json.loads(data["onstream.json"]) for data in shown] == list(boards.boards().values())


def test_no_label_of_a_pod_hides_one_of_a_metric(rendered: Rendered) -> None:
    (monitor,) = [one for one in rendered("monitoring") if one["kind"] == "PodMonitor"]
    ours = {name.replace(".", "_") for metric in METRICS for name in metric.attributes}
    of_pods = {label.replace("/", "_").replace(".", "_") for label in monitor["spec"]["podTargetLabels"]}
    assert not of_pods & ours


def test_a_cluster_and_one_machine_call_vllms_metrics_the_same(rendered: Rendered) -> None:
    (monitor,) = [one for one in rendered("monitoring") if one["kind"] == "PodMonitor"]
    (relabelled,) = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    (job,) = watch.scrape(watch.Watch(Path("prometheus"), 9090, {}))["scrape_configs"]
    snake = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    assert job["metric_relabel_configs"] == [{snake.get(key, key): value for key, value in relabelled.items()}]
