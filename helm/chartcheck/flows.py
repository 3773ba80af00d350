"""Who may talk to whom: read from the rendered NetworkPolicies, and from the picture in docs/deploy.md.

A flow is (from, to, ports). Inside of the release ports are numbers; to somebody outside they are the installer's
(`networkPolicy` in the values), and the flow is drawn without.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from chartcheck.render import Manifest, component_of
from chartcheck.tools import CHART, ROOT

PICTURE = ROOT / "docs" / "deploy.md"
ANY = "any"
_OUTSIDE = ("kafka", "store", "identity", "telemetry", "services", "ray")


class Flow(NamedTuple):
    """`ports` as text: numbers with spaces, `any`, or nothing for somebody outside."""

    source: str
    target: str
    ports: str


class Unclear(Exception):
    """A rule that is not understood, or that only one side has."""


# -- the picture


def drawn(text: str | None = None) -> dict[Flow, bool]:
    """Arrows of the first `flowchart` of the page: flow -> whether it is always there (dotted ones are optional)."""
    page = PICTURE.read_text() if text is None else text
    picture = page.split("```mermaid", 1)[1].split("```", 1)[0]
    return {flow: is_solid for line in picture.splitlines() for flow, is_solid in _arrows(line.strip())}


_ARROW = re.compile(r"^(?P<sources>.+?)\s+(?P<arrow>-->|-\.->)\s*(?:\|(?P<ports>[^|]*)\|)?\s*(?P<targets>.+)$")


def _arrows(line: str) -> Iterator[tuple[Flow, bool]]:
    found = _ARROW.match(line)
    if found is None:
        if "--" in line or "-." in line:
            raise Unclear(f"an arrow that is not understood: {line}")
        return
    for source in _nodes(found["sources"]):
        for target in _nodes(found["targets"]):
            yield Flow(source, target, (found["ports"] or "").strip()), found["arrow"] == "-->"


def _nodes(text: str) -> list[str]:
    """`a & b[(label)]` -> a, b."""
    return [re.match(r"\w+", one.strip())[0] for one in text.split(" & ")]  # type: ignore[index]


# -- the policies


def allowed(manifests: list[Manifest], values: Path | None = None) -> set[Flow]:
    """Flows that the NetworkPolicies allow, from both their ends.

    Raises:
        Unclear: a rule names nobody known, or a flow is allowed at one end only.
    """
    outside = _outsiders(_merged(values))
    sent, heard = set(), set()
    for policy in manifests:
        if policy["kind"] == "NetworkPolicy" and component_of(policy) != "deny":
            own = policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            sent |= {Flow(own, peer, ports) for peer, ports in _peers(policy["spec"].get("egress"), "to", outside)}
            heard |= {Flow(peer, own, ports) for peer, ports in _peers(policy["spec"].get("ingress"), "from", outside)}
    inside = {flow.source for flow in sent} | {flow.target for flow in heard}
    sent_inside = {flow for flow in sent if flow.target in inside}
    heard_inside = {flow for flow in heard if flow.source in inside}
    if halves := sent_inside ^ heard_inside:
        raise Unclear(f"allowed at one end only: {sorted(halves)}")
    return sent | heard


def _peers(rules: list[Any] | None, side: str, outside: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for rule in rules or []:
        ports = " ".join(str(port["port"]) for port in rule["ports"]) if "ports" in rule else ANY
        peers = rule.get(side)
        component = _component(peers)
        if component is not None:
            yield component, ports
            continue
        numbers = sorted({port["port"] for port in rule.get("ports", [])}) if side == "to" else []
        found = [name for name, known in outside[side].items() if known == (peers or [], numbers)]
        if len(found) != 1:
            raise Unclear(f"a rule that is for {' or '.join(found) or 'nobody known'}: {rule}")
        yield found[0], ports if side == "from" else ""


def _component(peers: Any) -> str | None:
    if not peers or len(peers) != 1 or set(peers[0]) != {"podSelector"}:
        return None
    labels = peers[0]["podSelector"]["matchLabels"]
    return str(labels["app.kubernetes.io/component"]) if "app.kubernetes.io/instance" in labels else None


def _outsiders(policy: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Whom we call, name -> (who they are, at which ports); those called at none are nobody. And who calls us."""
    called = {name: (policy[name]["to"], sorted(policy[name]["ports"])) for name in _OUTSIDE if policy[name]["ports"]}
    return {
        "to": called | {"dns": (policy["dns"], [53])},
        "from": {"clients": (policy["clients"], []), "prometheus": (policy["prometheus"], [])},
    }


def _merged(values: Path | None) -> dict[str, Any]:
    """`networkPolicy` as the chart sees it: lists replace, mappings merge."""
    policy: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]
    given = (yaml.safe_load(values.read_text()) or {}).get("networkPolicy", {}) if values else {}
    for name, part in given.items():
        policy[name] = policy[name] | part if isinstance(part, dict) else part
    return policy
