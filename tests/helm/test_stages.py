"""Router, rollout, stages, trainer and bootstrap, as they are rendered."""

from typing import Any

import pytest
from chart_pods import SecretKey, containers
from chartcheck import configuration
from chartcheck.render import ChartError
from charts import Rendered, container, names_in, one, some, volume


def test_the_router_is_counted_or_scaled(rendered: Rendered) -> None:
    assert one(rendered(), "StatefulSet", "router")["spec"]["replicas"] == 2
    scaled = rendered("autoscaling")
    assert "replicas" not in one(scaled, "StatefulSet", "router")["spec"]
    target = one(scaled, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "loop-onstream-router"}


def test_the_routers_spool_outlives_its_pod(rendered: Rendered) -> None:
    router = one(rendered(), "StatefulSet", "router")
    assert [claim["metadata"]["name"] for claim in router["spec"]["volumeClaimTemplates"]] == ["spool"]
    assert router["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_a_routers_end_waits_for_replies_in_progress(rendered: Rendered) -> None:
    spec = one(rendered("small-team"), "StatefulSet", "router")["spec"]["template"]["spec"]
    assert configuration.load(rendered("small-team")).serving.router.drain_s == 60
    assert spec["terminationGracePeriodSeconds"] == 85


@pytest.mark.parametrize(
    "given",
    [{}, {"log": {"timeout_s": 90.5}, "serving": {"engine": {"drain_s": 100}, "router": {"drain_s": 110}}}],
    ids=["shipped", "given"],
)
def test_a_pod_has_the_time_that_its_process_may_take_to_end(rendered: Rendered, given: dict[str, Any]) -> None:
    """As docs/processes.md says it."""
    manifests = rendered(overlay={"config": given})
    config = configuration.load(manifests)
    stage_s = 2 * config.log.timeout_s + 5
    takes_s = {
        "engine": 2 * config.serving.engine.drain_s + 5,
        "router": config.serving.router.drain_s + 5,
        "ingest": stage_s,
        "lake": stage_s,
        "rewards": stage_s,
        "rollout": 15,
    }
    given_s = {c.component: c.grace_s for c in containers(manifests) if c.component in takes_s}
    assert {name for name, s in takes_s.items() if given_s[name] < s + 5} == set()


@pytest.mark.parametrize("given", [{}, {"ingest": {"keda": {"enabled": True}}}], ids=["large", "shipped"])
def test_open_sessions_alone_ask_for_no_more_of_ingest(rendered: Rendered, given: dict[str, Any]) -> None:
    """Ingest commits a session once it closes, so what came within its inactivity always counts as lag."""
    manifests = rendered(overlay=given) if given else rendered("large")
    config = configuration.load(manifests)
    scaled = one(manifests, "ScaledObject", "ingest")["spec"]
    threshold = {int(trigger["metadata"]["lagThreshold"]) for trigger in scaled["triggers"]}
    assert threshold == {500 * int(config.ingest.inactivity_s)}


@pytest.mark.parametrize("name", ["rollout", "trainer"])
def test_what_must_be_one_is_replaced_and_never_doubled(rendered: Rendered, case: str, name: str) -> None:
    spec = one(rendered(case), "Deployment", name)["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("name", ["ingest", "lake", "rewards"])
def test_a_stage_is_counted_or_scaled_by_its_own_lag(rendered: Rendered, name: str) -> None:
    from ingest.log.topics import READERS

    assert one(rendered(), "Deployment", name)["spec"]["replicas"] == 1
    scaled = rendered("keda")
    assert "replicas" not in one(scaled, "Deployment", name)["spec"]
    spec = one(scaled, "ScaledObject", name)["spec"]
    assert spec["scaleTargetRef"]["name"] == f"loop-onstream-{name}"
    asked = {(t["metadata"]["consumerGroup"], t["metadata"]["topic"]) for t in spec["triggers"]}
    assert asked == {(name, topic.name) for topic in READERS[name]}


def test_keda_gets_the_users_name_from_the_container_and_the_rest_from_secrets(rendered: Rendered) -> None:
    manifests = rendered("keda-sasl")
    spec = one(manifests, "TriggerAuthentication")["spec"]
    (name,) = spec["env"]
    assert name["parameter"] == "username"
    assert container(one(manifests, "Deployment", "ingest"))["env"][-1]["value"] == "onstream"
    assert name["name"] in names_in(one(manifests, "Deployment", "rewards"))
    assert {(ref["parameter"], ref["name"], ref["key"]) for ref in spec["secretTargetRef"]} == {
        ("password", "kafka-user", "password"),
        ("ca", "kafka-authority", "ca.crt"),
    }
    (trigger, _) = one(manifests, "ScaledObject", "ingest")["spec"]["triggers"]
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["tls"]) == ("scram_sha512", "enable")


@pytest.mark.parametrize(("name", "tls"), [("keda", "disable"), ("keda-public-tls", "enable")])
def test_keda_authenticates_nowhere_where_brokers_ask_nothing(rendered: Rendered, name: str, tls: str) -> None:
    manifests = rendered(name)
    assert some(manifests, "TriggerAuthentication") == []
    trigger = one(manifests, "ScaledObject", "rewards")["spec"]["triggers"][0]
    assert "authenticationRef" not in trigger
    assert trigger["metadata"]["tls"] == tls


def test_rays_token_is_on_and_the_driver_has_it(rendered: Rendered) -> None:
    manifests = rendered()
    cluster = one(manifests, "RayCluster")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    driver = next(c for c in containers(manifests) if c.component == "trainer")
    assert driver.env["RAY_AUTH_MODE"] == "token"
    assert driver.env["RAY_AUTH_TOKEN"] == SecretKey(cluster["metadata"]["name"], "auth_token")


def test_somebody_elses_token_reaches_cluster_and_driver(rendered: Rendered) -> None:
    manifests = rendered("ray-token")
    assert one(manifests, "RayCluster")["spec"]["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    driver = next(c for c in containers(manifests) if c.component == "trainer")
    assert driver.env["RAY_AUTH_TOKEN"] == SecretKey("ray-token", "auth_token")


def test_the_driver_is_told_where_ray_is(rendered: Rendered) -> None:
    addresses = {
        name: configuration.load(rendered(name)).trainer.ray_address
        for name in ("defaults", "ray-address", "ray-local")
    }
    assert addresses == {
        "defaults": "ray://loop-onstream-ray-head-svc.ml.svc:10001",
        "ray-address": "ray://ray-head.ray.svc:10001",
        "ray-local": "local",
    }


def test_rays_nodes_have_none_of_our_credentials_but_the_stores_on_its_workers(rendered: Rendered, case: str) -> None:
    for node in (c for c in containers(rendered(case)) if c.component == "learner"):
        assert node.files == {}
        assert node.env_from == () or (node.name, node.env_from) == ("ray-worker", ("object-store",))
        assert [value for value in node.env.values() if isinstance(value, SecretKey)] == []


def test_the_drivers_claim_is_scratch_and_holds_checkpoints_where_the_learner_is_beside_it(rendered: Rendered) -> None:
    manifests = rendered()
    claim = one(manifests, "PersistentVolumeClaim", "checkpoints")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    named = {
        c.component: m.path
        for c in containers(manifests)
        for m in c.mounts
        if m.source.get("persistentVolumeClaim", {}).get("claimName") == claim["metadata"]["name"]
    }
    config = configuration.load(manifests)
    assert named == {"trainer": f"{config.run_dir}/trainer"}
    assert config.trainer.checkpoint_dir == config.store.url.removesuffix("/store") + "/trainer"
    assert configuration.load(rendered("ray-local")).trainer.checkpoint_dir == named["trainer"]


def test_a_learner_worker_on_each_gpu_of_the_cluster_unless_the_configuration_says_fewer(rendered: Rendered) -> None:
    assert configuration.load(rendered()).trainer.workers == 1
    assert configuration.load(rendered("store-secret")).trainer.workers == 6
    assert configuration.load(rendered("ray-address")).trainer.workers == 3


def test_an_existing_claim_is_used_and_none_is_made(rendered: Rendered) -> None:
    manifests = rendered("ray-address")
    assert some(manifests, "PersistentVolumeClaim") == ["loop-onstream-evidence"]
    claim = volume(one(manifests, "Deployment", "trainer"), "checkpoints")["persistentVolumeClaim"]
    assert claim == {"claimName": "my-checkpoints"}


def readers_of_the_model(manifests: list[Any]) -> dict[str, Any]:
    path = configuration.load(manifests).model.path
    return {c.component: m.source for c in containers(manifests) for m in c.mounts if m.path == path}


@pytest.mark.parametrize(("name", "kind"), [("model-claim", "persistentVolumeClaim"), ("model-image", "image")])
def test_the_base_model_is_where_the_configuration_says(rendered: Rendered, name: str, kind: str) -> None:
    found = readers_of_the_model(rendered(name))
    assert set(found) == {"bootstrap", "learner", "trainer"}
    assert all(kind in source for source in found.values())


def test_a_base_model_inside_the_images_needs_no_volume(rendered: Rendered) -> None:
    assert readers_of_the_model(rendered()) == {}


def test_bootstrap_is_another_job_when_anything_in_it_changes_and_the_same_otherwise(rendered: Rendered) -> None:
    (name,) = some(rendered(), "Job")
    assert some(rendered(overlay={"router": {"replicas": 3}}), "Job") == [name]
    for overlay in ({"store": {"uri": "s3://other"}}, {"images": {"router": {"tag": "2"}}}, {"podLabels": {"a": "b"}}):
        assert some(rendered(overlay=overlay), "Job") != [name]


def test_bootstrap_is_no_hook_for_engines_wait_for_it(rendered: Rendered) -> None:
    assert "helm.sh/hook" not in one(rendered(), "Job")["metadata"].get("annotations", {})
    assert one(rendered(), "Job")["spec"]["ttlSecondsAfterFinished"] > 0


def test_the_test_is_a_hook_that_only_helm_test_runs(rendered: Rendered) -> None:
    assert one(rendered(), "Pod", "test")["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_the_test_has_an_api_key_where_one_is_asked_for(rendered: Rendered) -> None:
    (keyed,) = (c for c in containers(rendered("store-secret")) if c.component == "test")
    assert keyed.env["ONSTREAM_API_KEY"] == SecretKey("onstream-key", "api-key")
    (plain,) = (c for c in containers(rendered()) if c.component == "test")
    assert "ONSTREAM_API_KEY" not in plain.env


def test_every_process_has_its_health_port_open_to_the_kubelet(rendered: Rendered) -> None:
    served = [c for c in containers(rendered()) if c.command and c.component not in ("bootstrap", "test")]
    assert {(c.env["ONSTREAM__HEALTH__PORT"], c.env["ONSTREAM__HEALTH__LISTEN"]) for c in served} == {
        ("8300", "0.0.0.0")
    }
    assert {c.ports["health"] for c in served} == {8300}


def test_every_pod_of_ours_mounts_the_same_configuration(rendered: Rendered, case: str) -> None:
    own = [c for c in containers(rendered(case)) if c.component not in ("learner", "collector")]
    assert len({c.files["/etc/onstream/onstream.yaml"] for c in own}) == 1
    assert all("/etc/onstream/onstream.yaml" in c.command for c in own)


def test_files_are_where_the_configuration_looks_for_them(rendered: Rendered) -> None:
    manifests = rendered("small-team")
    path = configuration.load(manifests).rewards.spec
    rewards = next(c for c in containers(manifests) if c.component == "rewards")
    assert str(rewards.files[path]).startswith("name: support\n")


def test_a_changed_file_restarts_whoever_reads_it(rendered: Rendered) -> None:
    def stamp(manifests: list[Any]) -> str:
        found = one(manifests, "Deployment", "rewards")["spec"]["template"]["metadata"]["annotations"]
        return str(found["checksum/config"])

    assert stamp(rendered()) != stamp(rendered(overlay={"files": {"spec.yaml": "name: a"}}))


def test_workload_identity_is_by_annotation_and_a_component_may_have_its_own(rendered: Rendered) -> None:
    manifests = rendered("small-team")
    role = "eks.amazonaws.com/role-arn"
    assert one(manifests, "ServiceAccount", "engine")["metadata"]["annotations"][role].endswith("role/onstream")
    assert one(manifests, "ServiceAccount", "trainer")["metadata"]["annotations"][role].endswith(
        "role/onstream-publisher"
    )
    assert "annotations" not in one(rendered(), "ServiceAccount", "engine")["metadata"]


def test_an_object_stores_keys_come_from_its_secret(rendered: Rendered) -> None:
    holders = {c.component for c in containers(rendered("store-secret")) if "object-store" in c.env_from}
    assert holders == {c.component for c in containers(rendered("store-secret"))}
    heads = [c for c in containers(rendered("store-secret")) if c.name == "ray-head"]
    assert [head.env_from for head in heads] == [()]
    assert {c.env_from for c in containers(rendered())} == {()}


def test_serving_goes_before_learning(rendered: Rendered) -> None:
    from chartcheck.render import component_of, pods

    classes = {m["metadata"]["name"]: m["value"] for m in rendered() if m["kind"] == "PriorityClass"}
    values = {component_of(pod): classes[pod["spec"]["priorityClassName"]] for pod in pods(rendered()).values()}
    serving = {values.pop(name) for name in ("engine", "router", "rollout")}
    assert min(serving) > max(values.values())


def test_a_pod_monitor_without_anything_to_scrape_is_refused(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"telemetry\.podMonitor\.enabled needs telemetry\.metrics: prometheus"):
        rendered(overlay={"telemetry": {"metrics": "none", "podMonitor": {"enabled": True}}})


def test_metrics_that_would_go_nowhere_are_refused(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"telemetry\.metrics: otlp needs telemetry\.endpoint"):
        rendered(overlay={"telemetry": {"metrics": "otlp"}})


def test_pods_send_to_the_releases_own_collector_where_there_is_one(rendered: Rendered) -> None:
    manifests = rendered("collector")
    senders = [c for c in containers(manifests) if "OTEL_EXPORTER_OTLP_ENDPOINT" in c.env]
    assert {c.component for c in senders} == {"engine", "router", "rollout", "ingest", "lake", "rewards", "trainer"}
    assert {c.env["OTEL_EXPORTER_OTLP_ENDPOINT"] for c in senders} == {"http://loop-onstream-collector.ml.svc:4318"}
    assert one(manifests, "Service", "collector")["spec"]["ports"] == [
        {"name": "otlp", "port": 4318, "targetPort": "otlp"}
    ]


def test_the_collector_sends_on_or_prints(rendered: Rendered) -> None:
    import yaml

    def exporters(name: str) -> Any:
        (found,) = (m for m in rendered(name) if m["kind"] == "ConfigMap" and "collector.yaml" in m["data"])
        told = yaml.safe_load(found["data"]["collector.yaml"])
        assert {kind for line in told["service"]["pipelines"].values() for kind in line["exporters"]} == set(
            told["exporters"]
        )
        return told["exporters"]

    assert exporters("collector") == {"debug": {"verbosity": "basic"}}
    assert exporters("collector-onwards") == {
        "otlphttp": {"endpoint": "https://otlp.example.com", "headers": {"authorization": "${env:AUTHORIZATION}"}}
    }


def test_prometheus_operator_finds_the_metrics_ports_by_label_and_asks_nobody_without_one(rendered: Rendered) -> None:
    manifests = rendered("monitoring")
    monitor = one(manifests, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["interval"]) == ("metrics", "30s")
    (without,) = monitor["spec"]["selector"]["matchExpressions"]
    assert without == {"key": "app.kubernetes.io/component", "operator": "NotIn", "values": ["learner"]}
    scraped = [c for c in containers(manifests) if "metrics" in c.ports]
    assert {c.component for c in scraped} == {"engine", "router", "rollout", "ingest", "lake", "rewards", "trainer"}
    assert {c.ports["metrics"] for c in scraped} == {9464}
    assert {(c.env["OTEL_METRICS_EXPORTER"], c.env["OTEL_EXPORTER_PROMETHEUS_PORT"]) for c in scraped} == {
        ("prometheus", "9464")
    }
