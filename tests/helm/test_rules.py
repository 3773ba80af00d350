"""Rules that no schema has: kept by everything that is rendered, and each seen to fail on a manifest that breaks it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from chartcheck import policies, scan, schemas, tools
from chartcheck.policies import Rule, pods, release
from chartcheck.render import Manifest, name_of
from charts import Rendered, container, one

Change = Callable[[list[Manifest]], Any]


def pod(manifests: list[Manifest], kind: str = "Deployment", ending: str = "ingest") -> dict[str, Any]:
    found: dict[str, Any] = one(manifests, kind, ending)["spec"]["template"]["spec"]
    return found


def box(manifests: list[Manifest], kind: str = "Deployment", ending: str = "ingest") -> dict[str, Any]:
    (found,) = pod(manifests, kind, ending)["containers"]
    return dict_(found)


def dict_(found: Any) -> dict[str, Any]:
    assert isinstance(found, dict)
    return found


def without(manifests: list[Manifest], kind: str, ending: str) -> None:
    manifests.remove(one(manifests, kind, ending))


BROKEN: list[tuple[Rule, Change]] = [
    (pods.resources_are_set, lambda m: box(m)["resources"]["limits"].pop("memory")),
    (pods.resources_are_set, lambda m: box(m)["resources"]["limits"].update(memory="9Gi")),
    (pods.images_are_pinned, lambda m: box(m).update(image="registry:5000/ml/ingest")),
    (pods.images_are_pinned, lambda m: box(m).update(image="ml/ingest:latest")),
    (pods.processes_are_probed, lambda m: box(m).pop("livenessProbe")),
    (pods.processes_are_probed, lambda m: box(m).update(livenessProbe=box(m)["readinessProbe"])),
    (pods.ports_that_are_probed_exist, lambda m: box(m)["ports"].pop(0)),
    (pods.pods_are_restricted, lambda m: pod(m)["securityContext"].pop("seccompProfile")),
    (pods.pods_are_restricted, lambda m: pod(m)["securityContext"].update(runAsUser=1000)),
    (pods.pods_are_restricted, lambda m: pod(m).update(hostIPC=True)),
    (pods.pods_are_restricted, lambda m: pod(m)["volumes"].append({"name": "logs", "hostPath": {"path": "/"}})),
    (pods.pods_are_restricted, lambda m: box(m)["securityContext"].pop("readOnlyRootFilesystem")),
    (pods.pods_are_restricted, lambda m: box(m)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"])),
    (pods.pods_are_restricted, lambda m: box(m)["securityContext"].pop("allowPrivilegeEscalation")),
    (pods.nobody_has_a_token, lambda m: pod(m).pop("automountServiceAccountToken")),
    (pods.nobody_has_a_token, lambda m: one(m, "ServiceAccount", "ingest").pop("automountServiceAccountToken")),
    (pods.nobody_has_a_token, lambda m: pod(m).update(serviceAccountName="default")),
    (pods.writable_folders_are_volumes, lambda m: box(m)["volumeMounts"].pop()),
    (pods.writable_folders_are_volumes, lambda m: pod(m)["volumes"][-1]["emptyDir"].clear()),
    (pods.volumes_fit_their_limits, lambda m: pod(m)["volumes"][-1]["emptyDir"].update(sizeLimit="50Gi")),
    (
        pods.volumes_fit_their_limits,
        lambda m: pod(m)["volumes"][-1]["emptyDir"].update(medium="Memory", sizeLimit="4Gi"),
    ),
    (pods.mounts_have_volumes, lambda m: pod(m)["volumes"].pop()),
    (pods.mounts_have_volumes, lambda m: pod(m)["volumes"].append({"name": "more", "emptyDir": {"sizeLimit": 1}})),
    (release.disruptions_are_bounded, lambda m: without(m, "PodDisruptionBudget", "ingest")),
    (
        release.disruptions_are_bounded,
        lambda m: one(m, "PodDisruptionBudget", "ingest")["spec"].update(maxUnavailable=0),
    ),
    (release.scaled_workloads_have_no_replicas, lambda m: one(m, "Deployment", "ingest")["spec"].pop("replicas")),
    (release.updates_want_no_second_gpu, lambda m: one(m, "Deployment", "rollout")["spec"].pop("strategy")),
    (release.updates_want_no_second_gpu, lambda m: one(m, "Deployment", "trainer")["spec"].update(replicas=2)),
    (release.updates_want_no_second_gpu, lambda m: box(m)["resources"]["limits"].update({"nvidia.com/gpu": 1})),
    (pods.pods_spread, lambda m: pod(m)["topologySpreadConstraints"].pop()),
    (
        pods.pods_spread,
        lambda m: pod(m)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(a="b"),
    ),
    (release.selectors_find_their_pods, lambda m: one(m, "Service", "router")["spec"]["selector"].update(a="b")),
    (release.services_name_ports_that_exist, lambda m: box(m, "StatefulSet", "router")["ports"].pop(0)),
    (pods.no_secret_is_in_a_value, lambda m: box(m)["env"].append({"name": "S3_SECRET", "value": "x"})),
    (pods.no_secret_is_in_a_value, lambda m: m.append({"kind": "Secret", "metadata": {"name": "s"}})),
    (
        release.labels_are_complete,
        lambda m: one(m, "Service", "router")["metadata"]["labels"].pop("app.kubernetes.io/version"),
    ),
    (release.names_leave_room, lambda m: one(m, "StatefulSet", "router")["metadata"].update(name="r" * 53)),
    (release.names_leave_room, lambda m: one(m, "Service", "router")["metadata"].update(name="r" * 64)),
    (release.everything_is_in_the_namespace, lambda m: one(m, "Service", "router")["metadata"].pop("namespace")),
    (
        release.everything_is_in_the_namespace,
        lambda m: one(m, "PriorityClass", "serving.ml")["metadata"].update(name="loop-onstream-serving"),
    ),
    (release.every_pod_has_a_policy, lambda m: without(m, "NetworkPolicy", "ingest")),
    (
        release.every_pod_has_a_policy,
        lambda m: one(m, "NetworkPolicy", "ingest")["spec"].update(policyTypes=["Ingress"]),
    ),
]


def test_everything_that_is_rendered_keeps_every_rule(rendered: Rendered, case: str) -> None:
    assert policies.faults(rendered(case)) == []


@pytest.mark.parametrize(("rule", "change"), BROKEN, ids=lambda one: getattr(one, "__name__", "").strip("<>"))
def test_a_rule_that_is_broken_says_so(rendered: Rendered, rule: Rule, change: Change) -> None:
    manifests = copy.deepcopy(rendered())
    assert list(rule(manifests)) == []
    change(manifests)
    assert list(rule(manifests)) != []


def test_every_rule_was_seen_to_fail() -> None:
    assert {rule for rule, _ in BROKEN} == set(policies.RULES)


# -- schemas


def test_a_field_that_kubernetes_does_not_know_is_a_fault(rendered: Rendered) -> None:
    broken = copy.deepcopy(one(rendered(), "Deployment", "ingest"))
    assert schemas.faults(broken) == []
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    assert any("imagePullPolcy" in fault for fault in schemas.faults(broken))


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("defaults", "RayCluster", lambda m: m["spec"]["workerGroupSpecs"][0].update(maxReplica=3)),
        ("defaults", "RayCluster", lambda m: m["spec"]["authOptions"].update(mode="tokens")),
        ("defaults", "RayCluster", lambda m: m["spec"]["headGroupSpec"]["template"]["spec"].update(affinty={})),
        ("defaults", "RayCluster", lambda m: m["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0})),
        ("keda-tls", "ScaledObject", lambda m: m["spec"]["triggers"][0]["metadata"].update(lagThreshold=100)),
        ("keda-tls", "ScaledObject", lambda m: m["spec"].update(minReplicas=1)),
        ("keda-tls", "TriggerAuthentication", lambda m: m["spec"]["secretTargetRef"][0].pop("key")),
        ("strimzi", "KafkaUser", lambda m: m["spec"]["authentication"].update(type="scram-sha-256")),
        ("strimzi", "KafkaUser", lambda m: m.update(apiVersion="kafka.strimzi.io/v1beta2")),
        ("strimzi", "KafkaUser", lambda m: m["metadata"]["labels"].pop("strimzi.io/cluster")),
        ("monitoring", "PodMonitor", lambda m: m["spec"]["podMetricsEndpoints"][0].update(interval="30")),
    ],
)
def test_a_field_that_an_operator_does_not_know_is_a_fault(
    rendered: Rendered, name: str, kind: str, change: Callable[[Manifest], Any]
) -> None:
    broken = copy.deepcopy(one(rendered(name), kind))
    assert schemas.faults(broken) == []
    change(broken)
    assert schemas.faults(broken) != []


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [
        ("keda-tls", "ScaledObject", lambda m: m["spec"]["triggers"][0]["metadata"].update(lagThreshold=100)),
        ("keda-tls", "TriggerAuthentication", lambda m: m["spec"]["secretTargetRef"][0].pop("key")),
        ("strimzi", "KafkaUser", lambda m: m["spec"]["authentication"].update(type="scram-sha-256")),
        ("strimzi", "KafkaTopic", lambda m: m["spec"].update(partitions="4")),
        ("monitoring", "PodMonitor", lambda m: m["spec"]["podMetricsEndpoints"][0].update(interval="30")),
        ("monitoring", "PrometheusRule", lambda m: m["spec"]["groups"][0]["rules"][0].pop("expr")),
    ],
)
def test_what_an_operators_own_schema_refuses_is_a_fault(
    rendered: Rendered, name: str, kind: str, change: Callable[[Manifest], Any]
) -> None:
    broken = copy.deepcopy(next(manifest for manifest in rendered(name) if manifest["kind"] == kind))
    assert schemas.operators_faults([broken]) == []
    change(broken)
    (fault,) = schemas.operators_faults([broken])
    assert fault.startswith(name_of(broken))


def test_every_kind_that_is_rendered_has_a_schema(rendered: Rendered, case: str) -> None:
    groups = {m["kind"]: m["apiVersion"].split("/")[0] for m in rendered(case)}
    operators = {kind: group for kind, group in groups.items() if "." in group and "k8s.io" not in group}
    assert [kind for kind in operators if not schemas.crd(kind)] == []
    assert set(operators.values()) <= {*tools.OPERATORS, "ray.io"}


@pytest.mark.parametrize("path", sorted(schemas.CRDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_of_ours_says_where_and_in_which_version_it_was_read(path: Any) -> None:
    comment = (schemas.crd(path.stem) or {})["$comment"]
    assert any(char.isdigit() for char in comment)
    assert ".yaml" in comment


# -- checkov


def told(*failed: tuple[str, str]) -> dict[str, Any]:
    checks = [{"check_id": check, "resource": name, "check_name": "a rule"} for check, name in failed]
    return {"results": {"failed_checks": checks}, "summary": {"passed": 3}}


def excused() -> list[tuple[str, str]]:
    return [*((check, "Pod.ml.x") for check in scan.EXCEPTIONS), *((c, f"Pod.ml.x{end}") for c, end in scan.NARROW)]


def test_what_checkov_finds_is_a_fault_unless_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_run", lambda _: told(*excused(), ("CKV_K8S_20", "Deployment.ml.a"), ("CKV_K8S_8", "b")))
    assert scan.scan([]) == (3, ["Deployment.ml.a: CKV_K8S_20 a rule", "b: CKV_K8S_8 a rule"])


def test_an_exception_that_nothing_needs_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_run", lambda _: told(*excused()[1:]))
    assert scan.scan([]) == (3, [f"the exception {excused()[0][0]} excuses nothing any more"])


def test_every_exception_has_its_reason() -> None:
    assert all(len(reason) > 20 for reason in (*scan.EXCEPTIONS.values(), *scan.NARROW.values()))


def test_every_workload_is_one_container_of_one_of_our_images(rendered: Rendered) -> None:
    for manifest in rendered():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            assert container(manifest)["image"].startswith("registry.example.com/ml/onstream-")
