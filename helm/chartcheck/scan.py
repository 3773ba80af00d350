"""checkov's policies for Kubernetes over all that is rendered, less the exceptions below, each with its reason."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chartcheck.render import Manifest, pods
from chartcheck.tools import checkov

_FLAGS = ("--framework", "kubernetes", "-o", "json", "--compact", "--quiet", "--skip-download")

EXCEPTIONS: Mapping[str, str] = {
    "CKV_K8S_43": "digests are the installer's choice (images.*.digest): the chart cannot know what was pushed",
    "CKV_K8S_15": "pullPolicy Always would make the registry a condition of every restart; tags here are never moved",
    "CKV_K8S_35": "Onstream reads its two tokens, and an object store's client its keys, from the environment only; "
    "what can be a file (privacy, Kafka) is one",
}
"""For all objects."""

NARROW: Mapping[tuple[str, str], str] = {
    ("CKV_K8S_8", "-test"): "the test ends by itself, within its own time limit",
    ("CKV_K8S_9", "-test"): "nobody waits for the test to be ready",
}
"""(check, end of the object's name) -> reason, where an exception for all would be too wide."""


def scan(manifests: list[Manifest]) -> tuple[int, list[str]]:
    """Returns how many checks passed, and a line for each that did not.

    Pods of a RayCluster are scanned as pods: checkov does not know the kind. An exception that nothing needs is a
    fault too.

    Raises:
        RuntimeError: checkov itself failed.
    """
    told = _run([*manifests, *_ray_pods(manifests)])
    failed = [(one["check_id"], one["resource"], one["check_name"]) for one in told["results"]["failed_checks"]]
    used = {_exception(check, name) for check, name, _ in failed}
    faults = [f"{name}: {check} {about}" for check, name, about in failed if _exception(check, name) is None]
    unused = [str(one) for one in (*EXCEPTIONS, *NARROW) if one not in used]
    return told["summary"]["passed"], faults + [f"the exception {one} excuses nothing any more" for one in unused]


def _exception(check: str, name: str) -> str | tuple[str, str] | None:
    if check in EXCEPTIONS:
        return check
    return next((one for one in NARROW if one[0] == check and name.endswith(one[1])), None)


def _run(manifests: list[Manifest]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifests.yaml"
        path.write_text(yaml.dump_all(manifests, Dumper=yaml.CSafeDumper))
        done = subprocess.run(
            [str(checkov()), "-f", str(path), *_FLAGS],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LOG_LEVEL": "ERROR"},
        )
    try:
        told = json.loads(done.stdout)
        told["results"]["failed_checks"], told["summary"]["passed"]
    except (json.JSONDecodeError, KeyError, TypeError) as exc:
        raise RuntimeError(f"checkov ended with {done.returncode}: {done.stderr[-2000:]}") from exc
    return told


def _ray_pods(manifests: list[Manifest]) -> list[Manifest]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name.rpartition("/")[2].replace(" ", "-"), "namespace": one["metadata"]["namespace"]}
            | template["metadata"],
            "spec": template["spec"],
        }
        for one in manifests
        if one["kind"] == "RayCluster"
        for name, template in pods([one]).items()
    ]
