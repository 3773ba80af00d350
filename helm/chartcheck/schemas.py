"""Manifests against schemas: Kubernetes' own, and those of the operators' resources.

Kubernetes' are in `kubernetes-validate`, taken strictly: a field that nobody knows is an error. Operators' resources
are checked twice. `crds/` holds a closed schema of exactly the fields that the chart uses, each with where and in which
version it was read, so that a misspelt one is an error; and `operators_faults` asks the validators that are generated
from the CRDs themselves, which let fields pass that they do not know. No package has KubeRay's. Pods inside a
RayCluster are checked as the pods they are.
"""

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from chartcheck.render import Manifest, name_of, pods
from chartcheck.tools import OPERATORS, operators

KUBERNETES = "1.37"
OLDEST = "1.33"
CRDS = Path(__file__).parent / "crds"


def faults(manifest: Manifest) -> list[str]:
    """What a schema says against a manifest, one line each."""
    if crd(manifest["kind"]):
        return _against_crd(manifest) + [
            fault
            for name, template in pods([manifest]).items()
            for fault in _against_kubernetes(_as_pod(name, template), name)
        ]
    return _against_kubernetes(manifest, name_of(manifest))


@cache
def crd(kind: str) -> dict[str, Any] | None:
    """The schema of an operator's kind; `None` for Kubernetes' own."""
    path = CRDS / f"{kind}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _against_crd(manifest: Manifest) -> list[str]:
    checker = jsonschema.Draft202012Validator(crd(manifest["kind"]) or {})
    return [_line(name_of(manifest), error) for error in checker.iter_errors(manifest)]


def _against_kubernetes(manifest: Manifest, name: str) -> list[str]:
    found = []
    for version in (KUBERNETES, OLDEST):
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as exc:
            found.append(f"Kubernetes {version}: {_line(name, exc)}")
        except kubernetes_validate.SchemaNotFoundError as exc:
            found.append(f"{name}: {exc.message}")
    return found


def operators_faults(manifests: Sequence[Manifest]) -> list[str]:
    """What operators' own validators say against their resources among `manifests`, one line each.

    Raises:
        RuntimeError: the validators could not be fetched, or failed themselves.
    """
    theirs = [one for one in manifests if one["apiVersion"].split("/")[0] in OPERATORS]
    node, home = operators()
    script = Path(__file__).with_name("operators.mjs").read_text()
    command = [str(node), "--input-type=module", "-e", script, json.dumps(OPERATORS)]
    done = subprocess.run(command, cwd=home, input=json.dumps(theirs), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"operators' validators: {done.stderr.strip()}")
    told = zip(theirs, json.loads(done.stdout), strict=True)
    return [f"{name_of(manifest)}: {fault}" for manifest, fault in told if fault]


def _line(name: str, error: Any) -> str:
    return f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


def _as_pod(name: str, template: Manifest) -> Manifest:
    metadata = {"name": name.rsplit("/", 1)[1].replace(" ", "-"), **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
