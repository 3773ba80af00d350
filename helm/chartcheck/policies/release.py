"""Rules about how the objects of a release fit together."""

from collections.abc import Iterator
from typing import Any

from chartcheck.render import NAMESPACE, Manifest, component_of, name_of, pods


def disruptions_are_bounded(manifests: list[Manifest]) -> Iterator[str]:
    """Every workload has a PodDisruptionBudget that selects it, and none that blocks a drain for ever."""
    budgets = [one for one in manifests if one["kind"] == "PodDisruptionBudget"]
    for one in manifests:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        labels = one["spec"]["template"]["metadata"]["labels"]
        own = [b for b in budgets if b["spec"]["selector"]["matchLabels"].items() <= labels.items()]
        if len(own) != 1:
            yield f"{name_of(one)}: must have one PodDisruptionBudget, has {len(own)}"
    for budget in budgets:
        if budget["spec"].get("maxUnavailable") != 1:
            yield f"{name_of(budget)}: must let one pod go at a time, or a single replica blocks its node's drain"


def scaled_workloads_have_no_replicas(manifests: list[Manifest]) -> Iterator[str]:
    """What an autoscaler counts, an upgrade must not count again."""
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in manifests
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet"):
            is_scaled, is_counted = one["metadata"]["name"] in scaled, "replicas" in one["spec"]
            if is_scaled == is_counted:
                yield f"{name_of(one)}: {'scaled and counted' if is_scaled else 'neither scaled nor counted'}"


def updates_want_no_second_gpu(manifests: list[Manifest]) -> Iterator[str]:
    """What holds a GPU, or must be one, ends before its successor starts."""
    for one in manifests:
        if one["kind"] != "Deployment":
            continue
        spec = one["spec"]
        limits = [c.get("resources", {}).get("limits", {}) for c in spec["template"]["spec"]["containers"]]
        has_gpu = any("gpu" in name for limit in limits for name in limit)
        is_single = component_of(one) in ("rollout", "trainer")
        if (has_gpu or is_single) and spec.get("strategy") != {"type": "Recreate"}:
            yield f"{name_of(one)}: strategy must be Recreate, got {spec.get('strategy')}"
        if is_single and spec.get("replicas") != 1:
            yield f"{name_of(one)}: must be one, got {spec.get('replicas')}"


def selectors_find_their_pods(manifests: list[Manifest]) -> Iterator[str]:
    """Every Service and every workload selects pods of this release; no two workloads select the same."""
    held = [pod["metadata"]["labels"] for pod in pods(manifests).values()]
    for one in manifests:
        if one["kind"] == "Service":
            wanted = one["spec"]["selector"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            wanted = one["spec"]["selector"]["matchLabels"]
        else:
            continue
        num = sum(wanted.items() <= labels.items() for labels in held)
        if num != 1:
            yield f"{name_of(one)}: must select the pods of one workload, selects {num}"


def services_name_ports_that_exist(manifests: list[Manifest]) -> Iterator[str]:
    """A Service's ports are ports of the containers behind it."""
    for one in manifests:
        if one["kind"] != "Service":
            continue
        for pod in pods(manifests).values():
            if one["spec"]["selector"].items() <= pod["metadata"]["labels"].items():
                named = {port["name"] for c in pod["spec"]["containers"] for port in c.get("ports", [])}
                for port in one["spec"]["ports"]:
                    if port["targetPort"] not in named:
                        yield f"{name_of(one)}: port {port['targetPort']} is none of its pods'"


def labels_are_complete(manifests: list[Manifest]) -> Iterator[str]:
    """The recommended labels on everything, and values that Kubernetes takes."""
    wanted = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "version", "managed-by")}
    for one in [*manifests, *pods(manifests).values()]:
        labels: dict[str, Any] = one["metadata"].get("labels", {})
        if lacking := sorted(wanted - labels.keys()):
            yield f"{one.get('kind', 'a pod')} {one['metadata'].get('name', '')}: lacks {lacking}"


def names_leave_room(manifests: list[Manifest]) -> Iterator[str]:
    """A StatefulSet's pods carry its name with a hash as a label, of at most 63 characters."""
    for one in manifests:
        room = 52 if one["kind"] == "StatefulSet" else 63
        if len(one["metadata"]["name"]) > room:
            yield f"{name_of(one)}: may have {room} characters, has {len(one['metadata']['name'])}"


def everything_is_in_the_namespace(manifests: list[Manifest]) -> Iterator[str]:
    """But for PriorityClasses, which are the cluster's: their names say it, or two releases would want the same one."""
    for one in manifests:
        if one["kind"] == "PriorityClass":
            is_in = one["metadata"]["name"].endswith(f".{NAMESPACE}")
        else:
            is_in = one["metadata"].get("namespace") == NAMESPACE
        if not is_in:
            yield f"{name_of(one)}: is not in the release's namespace"


def every_pod_has_a_policy(manifests: list[Manifest]) -> Iterator[str]:
    """Where there are NetworkPolicies: one that denies by default, and one of its own for each component."""
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    if not policies:
        return
    for name, pod in pods(manifests).items():
        labels = pod["metadata"]["labels"]
        own = [p for p in policies if p["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()]
        if len(own) != 2:
            yield f"{name}: must be selected by the default and by one policy of its own, got {len(own)}"
    for policy in policies:
        if policy["spec"]["policyTypes"] != ["Ingress", "Egress"]:
            yield f"{name_of(policy)}: must be about both directions"
