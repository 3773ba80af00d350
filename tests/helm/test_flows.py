"""The rendered NetworkPolicies are the arrows of the picture in docs/deploy.md."""

import copy
from typing import Any

import pytest
from chartcheck import flows, render
from chartcheck.flows import Flow, Unclear
from chartcheck.render import Manifest
from charts import Rendered, one


def allowed(rendered: Rendered, case: str) -> set[Flow]:
    return flows.allowed(rendered(case), render.cases()[case])


def test_solid_arrows_are_what_is_allowed_where_nothing_optional_is_on(rendered: Rendered) -> None:
    assert allowed(rendered, "defaults") == {flow for flow, is_solid in flows.drawn().items() if is_solid}


def test_nothing_is_allowed_that_is_not_drawn(rendered: Rendered, case: str) -> None:
    assert allowed(rendered, case) - flows.drawn().keys() == set()


def test_every_arrow_is_allowed_somewhere(rendered: Rendered) -> None:
    seen = {flow for case in render.cases() for flow in allowed(rendered, case)}
    assert flows.drawn().keys() - seen == set()


def test_only_the_rollout_reaches_a_control_port(rendered: Rendered, case: str) -> None:
    reach = {
        flow.source for flow in allowed(rendered, case) if flow.target == "engine" and "8100" in flow.ports.split()
    }
    assert reach <= {"rollout"}


def test_without_policies_nothing_is_said_to_be_allowed(rendered: Rendered) -> None:
    assert allowed(rendered, "all-off") == set()


def changed(manifests: list[Manifest], name: str, side: str, rule: dict[str, Any]) -> list[Manifest]:
    found = copy.deepcopy(manifests)
    one(found, "NetworkPolicy", name)["spec"][side].append(rule)
    return found


def rule_about(manifests: list[Manifest], component: str, port: int, key: str) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "onstream",
        "app.kubernetes.io/instance": "loop",
        "app.kubernetes.io/component": component,
    }
    return {key: [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": port, "protocol": "TCP"}]}


def test_a_flow_added_at_both_ends_is_noticed(rendered: Rendered) -> None:
    manifests = changed(rendered(), "engine", "ingress", rule_about(rendered(), "ingest", 8100, "from"))
    manifests = changed(manifests, "ingest", "egress", rule_about(rendered(), "engine", 8100, "to"))
    assert flows.allowed(manifests) - flows.drawn().keys() == {Flow("ingest", "engine", "8100")}


def test_a_flow_that_only_one_end_allows_is_noticed(rendered: Rendered) -> None:
    manifests = changed(rendered(), "engine", "ingress", rule_about(rendered(), "ingest", 8100, "from"))
    with pytest.raises(Unclear, match=r"allowed at one end only: .*ingest.*8100"):
        flows.allowed(manifests)


def test_a_rule_about_nobody_known_is_noticed(rendered: Rendered) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 22, "protocol": "TCP"}]}
    with pytest.raises(Unclear, match="nobody known"):
        flows.allowed(changed(rendered(), "ingest", "egress", rule))


def test_a_rule_for_everybody_is_not_taken_for_one_of_the_drawn(rendered: Rendered) -> None:
    with pytest.raises(Unclear, match="nobody known"):
        flows.allowed(changed(rendered(), "engine", "egress", {}))


def test_an_arrow_added_to_the_picture_is_noticed(rendered: Rendered) -> None:
    page = "```mermaid\nflowchart LR\n    a[one<br>two] & b --> c[(kafka)]\n    a -.->|1 2| d\n```\n"
    assert flows.drawn(page) == {Flow("a", "c", ""): True, Flow("b", "c", ""): True, Flow("a", "d", "1 2"): False}


def test_an_arrow_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(Unclear, match="not understood"):
        flows.drawn("```mermaid\nflowchart LR\n    a --- b\n```\n")


def test_what_the_default_policy_selects_is_every_pod_and_denies(rendered: Rendered) -> None:
    spec = one(rendered(), "NetworkPolicy", "-deny")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert not spec.get("ingress")
    assert not spec.get("egress")
