"""Rules about each pod on its own. Exceptions are made inside a rule, with the reason beside them."""

import re
from collections.abc import Iterator

from chartcheck.render import Manifest, name_of, pods


def _containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Where, the pod's template, and each container in it."""
    for name, pod in pods(manifests).items():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield f"{name} {container['name']}", pod, container


def resources_are_set(manifests: list[Manifest]) -> Iterator[str]:
    """Requests and limits of CPU, memory and local disk; memory and devices are never over-committed."""
    for where, _, container in _containers(manifests):
        given = container.get("resources", {})
        for side in ("requests", "limits"):
            for name in ("cpu", "memory", "ephemeral-storage"):
                if name not in given.get(side, {}):
                    yield f"{where}: resources.{side}.{name} is not set"
        for name, amount in given.get("limits", {}).items():
            if name != "cpu" and given.get("requests", {}).get(name) != amount:
                yield f"{where}: {name}: request and limit must be the same, got {given['requests'].get(name)}/{amount}"


def images_are_pinned(manifests: list[Manifest]) -> Iterator[str]:
    """A tag that is not `latest`, or a digest."""
    for where, _, container in _containers(manifests):
        image = container["image"]
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"{where}: {image} has no tag that stays"


def processes_are_probed(manifests: list[Manifest]) -> Iterator[str]:
    """Ready and alive are different questions: the probes differ. What ends by itself (Job, test) needs none."""
    for where, pod, container in _containers(manifests):
        if pod["spec"].get("restartPolicy") == "Never":
            continue
        ready, live = container.get("readinessProbe"), container.get("livenessProbe")
        if not ready or not live:
            yield f"{where}: needs a readiness and a liveness probe"
        elif ready == live:
            yield f"{where}: both probes are the same"


def ports_that_are_probed_exist(manifests: list[Manifest]) -> Iterator[str]:
    """Probes name ports of their container."""
    for where, _, container in _containers(manifests):
        named = {port["name"] for port in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind, {})
            port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
            if port is not None and port not in named:
                yield f"{where}: {kind} asks port {port!r}, which it does not have"


def pods_are_restricted(manifests: list[Manifest]) -> Iterator[str]:
    """The `restricted` pod security standard, with a read-only root besides.

    `weightCache.hostPath` is the one volume that it forbids; whoever sets it knows (its comment says so).
    """
    for name, pod in pods(manifests).items():
        spec, security = pod["spec"], pod["spec"].get("securityContext", {})
        wanted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for key, value in wanted.items():
            if security.get(key) != value:
                yield f"{name}: securityContext.{key} must be {value}, got {security.get(key)}"
        if security.get("runAsUser", 0) <= 10_000 or security.get("runAsGroup", 0) <= 10_000:
            yield f"{name}: user and group must be above 10000, where no node has its own"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{name}: {key} must not be set"
        for volume in spec.get("volumes", []):
            if "hostPath" in volume and volume["name"] != "cache":
                yield f"{name}: volume {volume['name']} is a path of the node"
    for where, _, container in _containers(manifests):
        held = container.get("securityContext", {})
        if held.get("allowPrivilegeEscalation") is not False or held.get("privileged"):
            yield f"{where}: may gain privileges"
        if not held.get("readOnlyRootFilesystem"):
            yield f"{where}: its root is writable"
        if held.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{where}: capabilities must all be dropped and none added"


def nobody_has_a_token(manifests: list[Manifest]) -> Iterator[str]:
    """No pod calls Kubernetes; each has a ServiceAccount of this release, for the store's sake."""
    accounts = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "ServiceAccount"}
    for name, account in accounts.items():
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{name}: mounts a token"
    for name, pod in pods(manifests).items():
        if pod["spec"].get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token"
        if pod["spec"].get("serviceAccountName") not in accounts:
            yield f"{name}: its ServiceAccount {pod['spec'].get('serviceAccountName')} is not of this release"
    for one in manifests:
        if one["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
            yield f"{name_of(one)}: nobody here needs rights"


def writable_folders_are_volumes(manifests: list[Manifest]) -> Iterator[str]:
    """With a read-only root, /tmp is a volume everywhere, with a limit."""
    for where, pod, container in _containers(manifests):
        mounted = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        if "/tmp" not in mounted:  # noqa: S108 - a path in a pod
            yield f"{where}: /tmp is not a volume"
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{where}: emptyDir {volume['name']} has no limit"


_UNITS: dict[str, int] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{prefix}i": 2 ** (10 * power) for power, prefix in enumerate("KMGT", 1)
}


def num_bytes(quantity: str | int) -> float:
    """Kubernetes' `10Gi` as a number."""
    found = re.fullmatch(r"([0-9.]+)([kKMGT]?i?)", str(quantity))
    if found is None:
        raise ValueError(f"a quantity of bytes is wanted, got {quantity!r}")
    return float(found[1]) * _UNITS[found[2]]


def volumes_fit_their_limits(manifests: list[Manifest]) -> Iterator[str]:
    """What an emptyDir holds counts as local disk, or memory, of the pod: beyond the limits it is evicted."""
    for name, pod in pods(manifests).items():
        limits = [one["resources"]["limits"] for one in pod["spec"]["containers"]]
        for resource, medium in (("ephemeral-storage", ""), ("memory", "Memory")):
            allowed = sum(num_bytes(limit[resource]) for limit in limits if resource in limit)
            held = sum(
                num_bytes(volume["emptyDir"].get("sizeLimit", 0))
                for volume in pod["spec"].get("volumes", [])
                if "emptyDir" in volume and volume["emptyDir"].get("medium", "") == medium
            )
            if held >= allowed:
                yield f"{name}: emptyDirs may hold {held / 2**30:g} GiB of {resource}, limits {allowed / 2**30:g}"


def mounts_have_volumes(manifests: list[Manifest]) -> Iterator[str]:
    """Every mount has its volume, and every volume is mounted."""
    templates = {
        name_of(one): {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        for one in manifests
        if one["kind"] == "StatefulSet"
    }
    for name, pod in pods(manifests).items():
        held = {volume["name"] for volume in pod["spec"].get("volumes", [])} | templates.get(name, set())
        used = {mount["name"] for one in pod["spec"]["containers"] for mount in one.get("volumeMounts", [])}
        for volume in sorted(held ^ used):
            yield f"{name}: volume {volume} is {'not mounted' if volume in held else 'mounted and not there'}"


def pods_spread(manifests: list[Manifest]) -> Iterator[str]:
    """Over nodes and zones, each component on its own."""
    for name, pod in pods(manifests).items():
        found = {
            rule["topologyKey"]: rule["labelSelector"]["matchLabels"]
            for rule in pod["spec"].get("topologySpreadConstraints", [])
        }
        if set(found) != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{name}: must spread over nodes and zones, got {sorted(found)}"
        if any(not labels.items() <= pod["metadata"]["labels"].items() for labels in found.values()):
            yield f"{name}: spreads by labels that it does not have"


def no_secret_is_in_a_value(manifests: list[Manifest]) -> Iterator[str]:
    """Credentials come by reference. The chart makes no Secret."""
    for one in manifests:
        if one["kind"] == "Secret":
            yield f"{name_of(one)}: the chart must make no Secret"
    for where, _, container in _containers(manifests):
        for variable in container.get("env", []):
            told = variable["name"].upper()
            if "value" in variable and any(word in told for word in ("TOKEN", "SECRET", "PASSWORD", "KEY")):
                yield f"{where}: {told} stands in the manifest"
