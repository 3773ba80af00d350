"""What is off is not there. First of all that: a part that one cannot leave out is no option."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from chart_pods import containers
from chartcheck import render, schemas
from chartcheck.render import Manifest, component_of, pods
from chartcheck.tools import CHART
from charts import Rendered, one, some

OPERATORS = {"ScaledObject", "TriggerAuthentication", "KafkaTopic", "KafkaUser", "PodMonitor", "PrometheusRule"}


def kinds(manifests: list[Manifest]) -> Counter[str]:
    return Counter(one["kind"] for one in manifests)


def components(manifests: list[Manifest]) -> set[str]:
    return {component_of(pod) for pod in pods(manifests).values()}


def test_with_everything_off_only_the_loop_itself_is_left(rendered: Rendered) -> None:
    manifests = rendered("all-off")
    assert set(kinds(manifests)) == {
        *("ConfigMap", "Deployment", "Job", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "Service"),
        *("ServiceAccount", "StatefulSet"),
    }
    assert components(manifests) == {
        *("bootstrap", "engine", "ingest", "rewards", "rollout", "router", "test", "trainer"),
    }


def test_by_default_no_operators_resource_is_made_but_the_ray_cluster(rendered: Rendered) -> None:
    assert set(kinds(rendered("defaults"))) & OPERATORS == set()
    assert kinds(rendered("defaults"))["RayCluster"] == 1
    assert "HorizontalPodAutoscaler" not in kinds(rendered("defaults"))


def test_without_a_lake_nothing_of_it_is_there(rendered: Rendered) -> None:
    assert [one["metadata"]["name"] for one in rendered("lake-off") if "lake" in one["metadata"]["name"]] == []
    assert any("lake" in one["metadata"]["name"] for one in rendered("defaults"))


def test_without_a_ray_cluster_no_learner_is_there_and_no_token_is_sent_to_nobody(rendered: Rendered) -> None:
    manifests = rendered("ray-local")
    assert [one["metadata"]["name"] for one in manifests if component_of(one) == "learner"] == []
    assert [one for one in containers(manifests) if any("RAY" in name for name in one.env)] == []


def test_without_scoring_nobody_holds_its_token(rendered: Rendered) -> None:
    holders = [one.component for one in containers(rendered("scoring-none")) if "ONSTREAM_SCORING_TOKEN" in one.env]
    assert holders == []


def test_without_metrics_no_port_is_open_for_them(rendered: Rendered) -> None:
    own = [one for one in containers(rendered("metrics-none")) if one.component != "learner"]
    assert [one.pod for one in own if "metrics" in one.ports] == []
    brief = {one.component for one in own if "OTEL_METRICS_EXPORTER" not in one.env}
    assert brief == {"bootstrap", "test"}  # they send nothing whatever is asked
    assert {one.env["OTEL_METRICS_EXPORTER"] for one in own if one.component not in brief} == {"none"}


def test_without_an_endpoint_nothing_is_sent(rendered: Rendered) -> None:
    senders = [one.pod for one in containers(rendered("defaults")) if "OTEL_EXPORTER_OTLP_ENDPOINT" in one.env]
    assert senders == []


def test_without_a_password_or_certificate_no_secret_of_kafkas_is_mounted(rendered: Rendered) -> None:
    held = {path for one in containers(rendered("defaults")) for path in one.files if "kafka" in path}
    assert held == set()


@pytest.mark.parametrize("kind", ["NetworkPolicy", "PriorityClass"])
def test_what_is_on_by_default_can_be_off(rendered: Rendered, kind: str) -> None:
    assert kinds(rendered("defaults"))[kind] > 0
    assert kinds(rendered("all-off"))[kind] == 0


def test_without_priority_classes_pods_name_none(rendered: Rendered) -> None:
    named = {pod["spec"].get("priorityClassName") for pod in pods(rendered("all-off")).values()}
    assert named == {None}


def test_rules_and_dashboards_are_made_of_the_charts_folders_and_only_where_wanted(tmp_path: Path) -> None:
    chart = tmp_path / "onstream"
    shutil.copytree(CHART, chart)
    rule = '{alert: A, expr: "up == 0", annotations: {summary: "{{ $labels.pod }} is down"}}'
    (chart / "rules").mkdir(exist_ok=True)
    (chart / "rules" / "mine.yaml").write_text(f"groups:\n  - name: mine\n    rules:\n      - {rule}\n")
    (chart / "dashboards").mkdir(exist_ok=True)
    (chart / "dashboards" / "mine.json").write_text('{"title": "{{ pod }}"}')
    without = render.render(render.cases()["defaults"], chart=chart)
    assert [name for name in some(without, "PrometheusRule") + some(without, "ConfigMap") if "mine" in name] == []
    manifests = render.render(render.cases()["monitoring"], chart=chart)
    found = one(manifests, "PrometheusRule", "mine")
    assert found["spec"]["groups"][0]["rules"][0]["annotations"] == {"summary": "{{ $labels.pod }} is down"}
    assert found["metadata"]["labels"]["release"] == "prometheus"
    dashboard = one(manifests, "ConfigMap", "mine")
    assert dashboard["data"] == {"mine.json": '{"title": "{{ pod }}"}'}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert schemas.faults(found) + schemas.faults(dashboard) == []
