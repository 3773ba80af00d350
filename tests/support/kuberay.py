"""What KubeRay adds to a RayCluster's pods, whose containers name no command: `ray start`, and Ray's token."""

from collections.abc import Mapping
from typing import Any

from chart_pods import Container

TOKEN_KEY = "auth_token"


def command(spec: Mapping[str, Any], node: Container, address: str, head: str) -> tuple[str, ...]:
    """Of a container of the RayCluster's `spec`, whose pod is at `address`; `head` is where workers find the others."""
    is_head = node.name == "ray-head"
    group = spec["headGroupSpec"] if is_head else _group(spec, node)
    place = ("--head", f"--port={node.ports['gcs']}") if is_head else (f"--address={head}",)
    params = {"num-cpus": node.limits["cpu"]} | group["rayStartParams"] | {"node-ip-address": address}
    if is_head:
        params["ray-client-server-port"] = str(node.ports["client"])
    else:
        params["node-manager-port"] = str(node.ports["node"])
    return ("ray", "start", "--block", *place, *(f"--{name}={value}" for name, value in params.items()))


def _group(spec: Mapping[str, Any], node: Container) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(g for g in spec["workerGroupSpecs"] if node.pod.endswith(f"-{g['groupName']}"))
    return found


def environment(token: str) -> dict[str, str]:
    """With `authOptions: {mode: token}`."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
