"""The chart rendered by Helm: for the examples, and for every optional part on and off (`ci/`)."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chartcheck.tools import CHART, EXAMPLES, helm

RELEASE, NAMESPACE = "loop", "ml"
FULLNAME = f"{RELEASE}-onstream"

Manifest = dict[str, Any]


class ChartError(Exception):
    """Helm refuses the chart or the values; the message is Helm's."""


def cases() -> dict[str, Path]:
    """Name -> values file: the examples, then the variants of `ci/`."""
    found = [*sorted(EXAMPLES.glob("*.yaml")), *sorted((CHART / "ci").glob("*.yaml"))]
    return {path.stem.removesuffix("-values"): path for path in found}


def render(values: Path | None = None, overlay: Mapping[str, Any] | None = None, chart: Path = CHART) -> list[Manifest]:
    """What `helm install` would apply, tests included. `overlay` are values over those of the file.

    Raises:
        ChartError: Helm refuses.
    """
    files = ["--values", str(values)] if values else []
    command = [str(helm()), "template", RELEASE, str(chart), "--namespace", NAMESPACE, *files, "--values", "-"]
    done = subprocess.run(command, input=json.dumps(overlay or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError(done.stderr)
    return [one for one in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if one]


def lint(values: Path) -> None:
    """`helm lint --strict`. Raises `ChartError`."""
    command = [str(helm()), "lint", "--strict", "--quiet", str(CHART), "--values", str(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError(done.stdout + done.stderr)


def name_of(manifest: Manifest) -> str:
    """Kind and name, for messages."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Every pod that the manifests lead to, as `metadata` and `spec`: name of what makes it -> template."""
    found: dict[str, Manifest] = {}
    for one in manifests:
        kind, spec = one["kind"], one.get("spec", {})
        if kind == "Pod":
            found[name_of(one)] = one
        elif kind in ("Deployment", "StatefulSet", "Job"):
            found[name_of(one)] = spec["template"]
        elif kind == "RayCluster":
            found[f"{name_of(one)} head"] = spec["headGroupSpec"]["template"]
            for group in spec["workerGroupSpecs"]:
                found[f"{name_of(one)} {group['groupName']}"] = group["template"]
    return found


def component_of(manifest: Manifest) -> str:
    """The component that a manifest or a pod's template says it belongs to."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])
