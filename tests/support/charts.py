"""What tests of the chart ask of its manifests."""

from collections.abc import Callable
from typing import Any

from chartcheck.render import Manifest

Rendered = Callable[..., list[Manifest]]


def one(manifests: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """The only one of a kind whose name ends so."""
    found = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"].endswith(ending)]
    names = [m["metadata"]["name"] for m in found]
    assert len(found) == 1, f"one {kind} *{ending} is wanted, found {names}"
    return found[0]


def some(manifests: list[Manifest], kind: str) -> list[str]:
    """The names of all of a kind."""
    return [m["metadata"]["name"] for m in manifests if m["kind"] == kind]


def container(workload: Manifest) -> dict[str, Any]:
    """The one container of a workload."""
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


def volume(workload: Manifest, name: str) -> dict[str, Any]:
    """A volume of a workload, without its name."""
    (found,) = (v for v in workload["spec"]["template"]["spec"]["volumes"] if v["name"] == name)
    return {key: value for key, value in found.items() if key != "name"}


def names_in(workload: Manifest) -> set[str]:
    """The variables that its container is given."""
    return {variable["name"] for variable in container(workload)["env"]}
