"""What the code tells is what the tables of names say, each way round."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from infra.telemetry import metrics, names
from infra.telemetry.metrics import METRICS, Kind, Metric
from infra.telemetry.names import ATTRIBUTES, SPANS

ROOT = Path(__file__).parents[3]
PACKAGES = ("infra", "ingest", "rewards", "serving", "trainer")
MAKES = {
    "count": (Kind.COUNTER,),
    "gauge": (Kind.GAUGE,),
    "observe": (Kind.STATE, Kind.SUM),
    "record": (Kind.HISTOGRAM,),
}


def calls() -> Iterator[tuple[str, str, str]]:
    """Where telemetry is called, by what function, and the name of its first argument."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="telemetry"), attr=called),
                        args=[ast.Attribute(attr=name), *_],
                    ):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", called.removesuffix("_now"), name
                    case ast.Call(
                        func=ast.Attribute(attr="_begin"),
                        args=[ast.Attribute(value=ast.Name(id="names"), attr=name), *_],
                    ):  # of `beginner`
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", "span", name


def source() -> str:
    return "\n".join(
        path.read_text()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.parent.name != "telemetry"
    )


def constants(module: object, kind: type) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if isinstance(value, kind) and name.isupper()}


def test_every_metric_that_is_made_is_in_the_table_and_every_one_of_the_table_is_made() -> None:
    made = {(called, name) for _, called, name in calls() if called in MAKES}
    table = {(called, name) for name, value in constants(metrics, Metric).items() for called, kinds in MAKES.items()
             if isinstance(value, Metric) and value.kind in kinds}  # fmt: skip
    assert made == table


def test_every_span_that_is_made_is_in_the_table_and_every_one_of_the_table_is_made() -> None:
    made = {name for _, called, name in calls() if called == "span"}
    assert made == constants(names, names.SpanName).keys()
    assert set(SPANS) == set(constants(names, names.SpanName).values())


def test_no_code_outside_the_package_makes_instruments_spans_or_names_of_its_own() -> None:
    assert not re.search(r"create_(counter|histogram|gauge|observable_\w+|up_down_counter)\(|start_\w*span\(", source())
    spelt = set(re.findall(r"""["']([a-z_]+(?:\.[a-z_]+)+)["']""", source()))
    assert spelt.isdisjoint({metric.name for metric in METRICS} | ATTRIBUTES.keys())


def test_every_attribute_is_described_and_used() -> None:
    named = constants(names, str)
    attributes = {name: value for name, value in named.items() if value in ATTRIBUTES}
    assert len(attributes) == len(ATTRIBUTES)
    functions = re.compile(r"^def .*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
    package = (path.read_text() for path in (ROOT / "infra" / "telemetry").glob("*.py"))
    helpers = "".join(part for text in package for part in functions.findall(text))
    used = set(re.findall(r"\b([A-Z_]+)\b", helpers)) | set(re.findall(r"\bnames\.([A-Z_]+)\b", source()))
    assert {attributes[name] for name in used & attributes.keys()} == set(ATTRIBUTES)
    declared = {one for span in SPANS for one in span.attributes} | {one for m in METRICS for one in m.attributes}
    assert declared == set(ATTRIBUTES)
