"""`python -m infra.telemetry`: the tables of names, as docs/telemetry.md has them."""

from collections.abc import Iterable, Sequence

from infra.telemetry.metrics import METRICS
from infra.telemetry.names import ATTRIBUTES, SPANS


def tables() -> dict[str, str]:
    """Title -> table, in Markdown."""
    spans = ((f"`{one.shown}`", one.role.value, one.about, _listed(one.attributes)) for one in SPANS)
    metrics = (
        (f"`{one.name}`", one.kind.value, f"`{one.unit}`", one.about, _listed(one.attributes), f"`{one.prometheus}`")
        for one in METRICS
    )
    attributes = ((f"`{name}`", about) for name, about in ATTRIBUTES.items())
    return {
        "Spans": _table(("span", "kind", "what it is around", "attributes"), spans),
        "Metrics": _table(("metric", "kind", "unit", "what it is", "attributes", "at Prometheus"), metrics),
        "Attributes": _table(("attribute", "what it says"), attributes),
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    for title, table in tables().items():
        print(f"### {title}\n\n{table}\n")
