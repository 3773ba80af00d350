"""What the chart's pods run, as data: for each container its command, environment, files, volumes and probes.

Names as Kubernetes gives them (`loop-onstream-engine-stable-0`), variables put into commands and into one another.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chartcheck.render import NAMESPACE, Manifest, component_of, pods

_OWN_FOLDERS = re.compile(r"(?<![\w/.])/(etc/onstream|var/lib/onstream|models?)\b")
_GRACE_S = 30  # Kubernetes' own
_REFERENCE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True)
class SecretKey:
    """A value that stands in a Secret."""

    secret: str
    key: str


@dataclass(frozen=True)
class Mount:
    """A volume at a path. `source` is the volume as the pod has it, or the claim's template."""

    path: str
    is_read_only: bool
    source: Mapping[str, Any]


@dataclass(frozen=True)
class Probe:
    """What the kubelet asks: GET of `path`, or where that is empty whether `port` takes connections."""

    kind: str
    path: str
    port: int


@dataclass(frozen=True)
class Container:
    """One container of one pod. `files` are those of projected volumes: path -> text, or where it is kept.

    `grace_s` is how long its process may take to end after SIGTERM: the pod's time, less what `preStop` sleeps.
    """

    pod: str
    name: str
    component: str
    command: tuple[str, ...]
    env: Mapping[str, str | SecretKey]
    env_from: tuple[str, ...]
    ports: Mapping[str, int]
    mounts: tuple[Mount, ...]
    files: Mapping[str, str | SecretKey]
    probes: tuple[Probe, ...]
    labels: Mapping[str, str]
    limits: Mapping[str, str]
    grace_s: float


def containers(manifests: list[Manifest]) -> list[Container]:
    """All containers, one for each replica of a StatefulSet, and one for each other pod's template."""
    maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    claims = {
        f"StatefulSet/{one['metadata']['name']}": one["spec"] for one in manifests if one["kind"] == "StatefulSet"
    }
    found = []
    for owner, template in pods(manifests).items():
        spec = claims.get(owner, {})
        for pod in _names(owner, spec):
            found += [
                _container(pod, template, one, spec.get("volumeClaimTemplates", []), maps)
                for one in (*template["spec"].get("initContainers", ()), *template["spec"]["containers"])
            ]
    return found


def _names(owner: str, stateful: Mapping[str, Any]) -> list[str]:
    name = owner.partition("/")[2].replace(" ", "-")
    return [f"{name}-{ordinal}" for ordinal in range(stateful.get("replicas", 1))] if stateful else [name]


def _container(
    pod: str, template: Manifest, one: Mapping[str, Any], claims: list[Any], maps: Mapping[str, Mapping[str, str]]
) -> Container:
    env = _env(pod, one.get("env", []))
    plain = {name: value for name, value in env.items() if isinstance(value, str)}
    held = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
    held |= {claim["metadata"]["name"]: {"claim": claim["spec"]} for claim in claims}
    mounts = tuple(
        Mount(mount["mountPath"], bool(mount.get("readOnly")), held[mount["name"]])
        for mount in one.get("volumeMounts", [])
    )
    ports = {port["name"]: port["containerPort"] for port in one.get("ports", [])}
    sleeps_s = one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return Container(
        pod=pod,
        name=one["name"],
        component=component_of(template),
        command=tuple(_expanded(word, plain) for word in (*one.get("command", ()), *one.get("args", ()))),
        env=env,
        env_from=tuple(source["secretRef"]["name"] for source in one.get("envFrom", [])),
        ports=ports,
        mounts=mounts,
        files=dict(file for mount in mounts for file in _files(mount, maps)),
        probes=tuple(_probes(one, ports)),
        labels=template["metadata"]["labels"],
        limits={name: str(amount) for name, amount in one["resources"]["limits"].items()},
        grace_s=template["spec"].get("terminationGracePeriodSeconds", _GRACE_S) - sleeps_s,
    )


def _probes(one: Mapping[str, Any], ports: Mapping[str, int]) -> Iterator[Probe]:
    for kind in ("startup", "liveness", "readiness"):
        if (given := one.get(f"{kind}Probe")) is not None:
            asked = given.get("httpGet") or given["tcpSocket"]
            yield Probe(kind, asked.get("path", ""), ports[asked["port"]])


def _env(pod: str, given: list[Any]) -> dict[str, str | SecretKey]:
    env: dict[str, str | SecretKey] = {}
    known = {"metadata.name": pod, "metadata.namespace": NAMESPACE}
    for variable in given:
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            env[variable["name"]] = SecretKey(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
        elif "fieldRef" in source:
            env[variable["name"]] = known[source["fieldRef"]["fieldPath"]]
        elif "value" in variable:
            before = {name: value for name, value in env.items() if isinstance(value, str)}
            env[variable["name"]] = _expanded(variable["value"], before)
    return env


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known, as Kubernetes does."""
    return _REFERENCE.sub(lambda found: env.get(found[1], found[0]), text)


def _files(mount: Mount, maps: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str | SecretKey]]:
    for source in mount.source.get("projected", {}).get("sources", []):
        for kind, part in source.items():
            for item in part["items"]:
                path = f"{mount.path}/{item['path']}"
                if kind == "configMap":
                    yield path, maps[part["name"]][item["key"]]
                else:
                    yield path, SecretKey(part["name"], item["key"])


def here(text: str, folder: Path) -> str:
    """`text` with the pods' folders moved below `folder`, so that a process of this machine finds them."""
    return _OWN_FOLDERS.sub(lambda found: f"{folder}{found[0]}", text)


def lay_out(container: Container, folder: Path, secrets: Mapping[SecretKey, str]) -> None:
    """Write the files that a container mounts, below `folder`; what is in Secrets from `secrets`."""
    for path, content in container.files.items():
        file = Path(f"{folder}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secrets[content] if isinstance(content, SecretKey) else here(content, folder))
