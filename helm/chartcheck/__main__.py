"""`make chart`: lint, render, validate, scan. The last line is `CHART {...}`; exit status 1 where anything failed.

`make chart ARGS=--write` first makes values.yaml, values.schema.json and the README's table anew.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from chartwatch import boards, checks, debian, rules

from chartcheck import configuration, flows, generate, policies, render, scan, schemas
from chartcheck.render import ChartError, Manifest
from chartcheck.tools import EXAMPLES
from infra.errors import ConfigError

Faults = list[str]


class Checked:
    """What was looked at, and what was wrong with it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: Faults = []
        self.unique: dict[str, Manifest] = {}

    def note(self, where: str, faults: Faults) -> None:
        self.faults += [f"{where}: {fault}" for fault in faults]

    def line(self) -> str:
        told = {**self.counts, "failed": len(self.faults)}
        return f"CHART {json.dumps(told)}"


def main(argv: list[str]) -> int:
    """Check everything."""
    parser = argparse.ArgumentParser(prog="make chart", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make the generated files anew")
    if parser.parse_args(argv).write:
        for path, text in generate.outputs().items():
            path.write_text(text)
    checked = Checked()
    for about, step in STEPS:
        begun, before = time.monotonic(), len(checked.faults)
        step(checked)
        num = len(checked.faults) - before
        print(f"{about}: {f'{num} faults' if num else 'good'} ({time.monotonic() - begun:.1f} s)", flush=True)
    for fault in dict.fromkeys(checked.faults):
        print(f"  {fault}")
    print(checked.line())
    return 1 if checked.faults else 0


def _generated(checked: Checked) -> None:
    checked.note(
        "helm/onstream", [f"{name} is not what the models say: make chart ARGS=--write" for name in generate.stale()]
    )


def _rendered(checked: Checked) -> None:
    for name, path in render.cases().items():
        checked.counts["examples" if path.parent == EXAMPLES else "variants"] += 1
        try:
            manifests = render.render(path)
            if path.parent == EXAMPLES:  # lint renders too, and says no more about a variant than rendering does
                render.lint(path)
        except ChartError as exc:
            checked.note(name, [str(exc)])
            continue
        checked.counts["manifests"] += len(manifests)
        checked.unique |= {repr(one): one for one in manifests}
        checked.counts["policies_checked"] += len(policies.RULES)
        checked.note(name, [*policies.faults(manifests), *_about_case(name, manifests)])


def _about_case(name: str, manifests: list[Manifest]) -> Iterator[str]:
    """Its onstream.yaml loads, and its NetworkPolicies allow nothing that is not drawn."""
    try:
        configuration.load(manifests)
        undrawn = flows.allowed(manifests, render.cases()[name]) - flows.drawn().keys()
        yield from (f"{flow.source} may reach {flow.target}, which docs/deploy.md does not draw" for flow in undrawn)
    except (ConfigError, flows.Unclear) as exc:
        yield str(exc)


def _valid(checked: Checked) -> None:
    checked.counts["different_manifests"] = len(checked.unique)
    for one in checked.unique.values():
        checked.note("schemas", schemas.faults(one))
    checked.note("operators' validators", schemas.operators_faults(list(checked.unique.values())))


def _watched(checked: Checked) -> None:
    checked.counts["alerts"] = len(rules.alerts())
    checked.counts["queries"] = sum(len(panel.queries) for row in boards.ROWS for panel in row.panels)
    try:
        checked.note("chartwatch", list(checks.faults()))
    except debian.ToolError as exc:
        checked.note("chartwatch", [str(exc)])


def _scanned(checked: Checked) -> None:
    num, faults = scan.scan(list(checked.unique.values()))
    checked.counts["policies_checked"] += num
    checked.counts["exceptions"] = len(scan.EXCEPTIONS) + len(scan.NARROW)
    checked.note("checkov", faults)


STEPS: tuple[tuple[str, Callable[[Checked], None]], ...] = (
    ("generated files", _generated),
    ("lint, render, rules, configuration, flows", _rendered),
    (f"schemas of Kubernetes {schemas.OLDEST} and {schemas.KUBERNETES}, and of operators", _valid),
    ("alert rules and dashboards", _watched),
    ("checkov", _scanned),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
