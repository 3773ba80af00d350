"""Engine pools: names that the release log addresses, and updates that want no second GPU."""

from typing import Any

import pytest
from chart_pods import containers
from chartcheck import configuration
from chartcheck.render import ChartError
from charts import Rendered, container, one, volume

ARMS = ("stable", "candidate")


def test_the_configuration_names_exactly_the_pods_that_there_are(rendered: Rendered, case: str) -> None:
    manifests = rendered(case)
    slots = configuration.load(manifests).serving.engines
    pods = [c for c in containers(manifests) if c.component == "engine"]
    assert [slot.id for slot in slots] == [pod.pod for pod in pods]
    for slot, pod in zip(slots, pods, strict=True):
        assert pod.command[:6] == ("python", "-m", "serving", "engine", "--id", slot.id)
        assert (pod.ports["http"], pod.ports["control"]) == (slot.port, slot.control_port)
        assert pod.ports.get("scoring") == slot.scoring_port


def test_an_engine_is_called_by_the_name_that_its_headless_service_gives_it(rendered: Rendered) -> None:
    manifests = rendered("large")
    for slot in configuration.load(manifests).serving.engines:
        pod, service, namespace, svc = slot.host.split(".")
        held = one(manifests, "Service", service.removeprefix("loop-onstream"))
        assert pod == slot.id
        assert held["spec"]["clusterIP"] == "None"
        assert (namespace, svc) == ("ml", "svc")
        assert one(manifests, "StatefulSet", f"engine-{slot.arm}")["spec"]["serviceName"] == service


def test_one_pool_of_engines_takes_arms_that_take_turns(rendered: Rendered) -> None:
    slots = configuration.load(rendered("switchback")).serving.engines
    assert [slot.arm for slot in slots] == ["stable"]
    with pytest.raises(ChartError, match="0 needs config"):
        rendered(overlay={"engines": {"candidate": {"replicas": 0}}})


@pytest.mark.parametrize("arm", ARMS)
def test_the_controller_finds_an_engine_that_is_not_ready(rendered: Rendered, arm: str) -> None:
    assert one(rendered(), "Service", f"engine-{arm}")["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("arm", ARMS)
def test_an_update_ends_one_pod_before_the_next_starts_or_waits_for_a_person(rendered: Rendered, arm: str) -> None:
    rolling = one(rendered(), "StatefulSet", f"engine-{arm}")["spec"]["updateStrategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    by_hand = one(rendered("host-path"), "StatefulSet", f"engine-{arm}")["spec"]["updateStrategy"]
    assert by_hand == {"type": "OnDelete"}


@pytest.mark.parametrize("arm", ARMS)
def test_a_drain_never_takes_engines_because_a_promotion_makes_all_of_them_unready(
    rendered: Rendered, arm: str
) -> None:
    """They serve users meanwhile: Kubernetes calls them healthy again once they have loaded the version."""
    budget = one(rendered(), "PodDisruptionBudget", f"engine-{arm}")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "IfHealthyBudget")


def annotation(manifests: list[dict], kind: str, ending: str) -> str:  # type: ignore[type-arg]
    return str(one(manifests, kind, ending)["spec"]["template"]["metadata"]["annotations"]["checksum/config"])


def test_another_engine_restarts_no_engine_and_everybody_who_has_to_find_it(rendered: Rendered) -> None:
    before, after = rendered(), rendered(overlay={"engines": {"stable": {"replicas": 3}}})
    for arm in ARMS:
        assert annotation(before, "StatefulSet", f"engine-{arm}") == annotation(after, "StatefulSet", f"engine-{arm}")
    assert annotation(before, "StatefulSet", "router") != annotation(after, "StatefulSet", "router")
    assert annotation(before, "Deployment", "rollout") != annotation(after, "Deployment", "rollout")


@pytest.mark.parametrize(
    "overlay",
    [
        {"config": {"serving": {"engine": {"max_num_seqs": 3}}}},
        {"config": {"serving": {"capture": {"recent_bytes": 1}}}},
        {"config": {"privacy": {"redact": []}}},
        {"kafka": {"brokers": "elsewhere:9092"}},
        {"store": {"uri": "s3://elsewhere"}},
    ],
)
def test_what_an_engine_reads_at_its_start_restarts_it(rendered: Rendered, overlay: dict[str, object]) -> None:
    after = rendered(overlay=overlay)
    assert annotation(rendered(), "StatefulSet", "engine-stable") != annotation(after, "StatefulSet", "engine-stable")


def test_a_start_may_take_as_long_as_the_weights_do(rendered: Rendered) -> None:
    probe = container(one(rendered("large"), "StatefulSet", "engine-stable"))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 3600
    assert probe["httpGet"] == {"path": "/started", "port": "health"}


def test_ready_alive_and_started_are_three_questions(rendered: Rendered) -> None:
    held = container(one(rendered(), "StatefulSet", "engine-stable"))
    paths = [held[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
    assert paths == ["/started", "/live", "/ready"]
    assert (
        dict(next(c for c in containers(rendered()) if c.component == "engine").env)["ONSTREAM__HEALTH__PORT"] == "8300"
    )


def test_replies_in_progress_have_the_time_that_the_configuration_gives_them(rendered: Rendered) -> None:
    spec = one(rendered("large"), "StatefulSet", "engine-stable")["spec"]["template"]["spec"]
    drain_s = configuration.load(rendered("large")).serving.engine.drain_s
    assert (
        spec["terminationGracePeriodSeconds"]
        > drain_s + spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    assert drain_s == 300


def test_the_spool_is_on_a_claim_and_weights_are_not(rendered: Rendered) -> None:
    engine = one(rendered(), "StatefulSet", "engine-stable")
    (claim,) = engine["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(engine)["volumeMounts"]}
    config = configuration.load(rendered())
    assert claim["metadata"]["name"] == "spool"
    assert mounts["spool"] == config.serving.capture.spool_dir
    assert mounts["cache"] == config.store.cache_dir
    assert volume(engine, "cache") == {"emptyDir": {"sizeLimit": "200Gi"}}
    on_node = volume(one(rendered("host-path"), "StatefulSet", "engine-stable"), "cache")
    assert on_node["hostPath"]["path"] == "/mnt/weights"


def with_spool(size: str, max_bytes: int) -> dict[str, Any]:
    return {"spool": {"size": size}, "config": {"serving": {"capture": {"max_spool_bytes": max_bytes}}}}


@pytest.mark.parametrize(
    ("size", "most"), [("2Gi", 2 * 1024**3), ("1.5Gi", 1.5 * 1024**3), ("500M", 500e6), ("1T", 1e12), ("9000000", 9e6)]
)
def test_a_spool_that_its_volume_cannot_hold_is_refused(rendered: Rendered, size: str, most: float) -> None:
    rendered(overlay=with_spool(size, int(0.89 * most)))
    with pytest.raises(ChartError, match=r"spool\.size: .* must hold .*max_spool_bytes"):
        rendered(overlay=with_spool(size, int(0.91 * most)))


def test_the_shipped_spool_is_weighed_too(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"spool\.size: .* must hold .*max_spool_bytes"):
        rendered(overlay={"spool": {"size": "1Gi"}})


def test_a_part_of_a_gpu_is_asked_for_by_its_own_name_and_by_no_other(rendered: Rendered) -> None:
    limits = container(one(rendered("one-gpu"), "StatefulSet", "engine-stable"))["resources"]["limits"]
    assert {name: amount for name, amount in limits.items() if "gpu" in name} == {"nvidia.com/gpu.shared": 1}


def test_only_engines_and_the_rollout_hold_the_control_token(rendered: Rendered, case: str) -> None:
    holders = {c.component for c in containers(rendered(case)) if "ONSTREAM_CONTROL_TOKEN" in c.env}
    assert holders == {"engine", "rollout"}


def test_the_scoring_token_is_where_scoring_is(rendered: Rendered) -> None:
    holders = [c for c in containers(rendered("defaults")) if "ONSTREAM_SCORING_TOKEN" in c.env]
    assert {c.pod for c in holders} == {"loop-onstream-engine-candidate-0", "loop-onstream-rewards"}
