"""The rule files beside the chart, as they are read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from chartwatch.debian import ROOT

RULES = ROOT / "helm" / "onstream" / "rules"
TESTS = RULES / "tests"
RUNBOOK = Path("docs/operate.md")


@dataclass(frozen=True)
class Alert:
    """One alert, and the file that it stands in."""

    name: str
    expr: str
    severity: str
    annotations: dict[str, str]
    file: str

    @property
    def anchor(self) -> str:
        """Its heading in the runbook: `OnstreamEssLow` -> `onstream-ess-low`."""
        return "-".join(word.lower() for word in re.findall("[A-Z][a-z]*", self.name))


def files() -> list[Path]:
    """The rule files."""
    return sorted(RULES.glob("*.yaml"))


def _rules() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files():
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield path, rule


@cache
def alerts() -> tuple[Alert, ...]:
    """Every alert."""
    return tuple(
        Alert(rule["alert"], rule["expr"], rule["labels"]["severity"], rule["annotations"], path.name)
        for path, rule in _rules()
        if "alert" in rule
    )


@cache
def recordings() -> dict[str, str]:
    """Every series that a rule makes, with its expression."""
    return {rule["record"]: rule["expr"] for _, rule in _rules() if "record" in rule}


def unit_tests(path: Path) -> list[dict[str, Any]]:
    """The unit tests of a file: each of one alert."""
    tests: list[dict[str, Any]] = yaml.safe_load(path.read_text())["tests"]
    return tests


def tested() -> set[str]:
    """Alerts that a unit test expects to fire."""
    return {
        case["alertname"]
        for path in sorted(TESTS.glob("*.yaml"))
        for test in unit_tests(path)
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }


def runbook() -> set[str]:
    """The anchors of the runbook's headings, as the pages that show it make them."""
    text = (ROOT / RUNBOOK).read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
