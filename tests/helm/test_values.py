"""Values: each described, none unknown, none of the wrong type, and all made from the models."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chartcheck import generate, render
from chartcheck.policies import release
from chartcheck.render import ChartError
from chartcheck.tools import CHART
from chartcheck.values import OWNED
from charts import Rendered

from infra.config import Config

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def test_generated_files_are_what_the_models_say() -> None:
    assert generate.stale() == []


def test_a_generated_file_that_was_edited_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generate, "CHART", tmp_path)
    (tmp_path / "README.md").write_text((CHART / "README.md").read_text())
    (tmp_path / "values.yaml").write_text((CHART / "values.yaml").read_text().replace("policy", "polciy"))
    (tmp_path / "values.schema.json").write_text((CHART / "values.schema.json").read_text())
    assert generate.stale() == ["values.yaml"]


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    keys = [(above, line) for above, line in itertools.pairwise(lines) if re.match(r"\s*[\w-]+:", line)]
    assert len(keys) > 150
    assert [line for above, line in keys if not above.strip().startswith("#")] == []


def leaves(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, below in node.items():
            yield from leaves(below, f"{path}{key}.")
    else:
        yield path.rstrip(".")


def test_every_value_is_in_the_readme() -> None:
    told = set(re.findall(r"^\| `([\w.]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
    known = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    assert {path for path in known if not any(path == one or path.startswith(f"{one}.") for one in told)} == set()


def objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, below in node.items():
            yield from objects(below, f"{path}/{key}")
    elif isinstance(node, list):
        for number, below in enumerate(node):
            yield from objects(below, f"{path}/{number}")


def test_the_schema_is_closed_everywhere() -> None:
    found = [path for path, node in objects(SCHEMA) if node.get("additionalProperties") in (None, True)]
    assert found == ["/properties/global"]
    assert len(list(objects(SCHEMA))) > 40


def test_the_configuration_in_the_schema_is_the_models_less_what_the_chart_writes() -> None:
    held = set(properties(SCHEMA, SCHEMA["properties"]["config"]))
    models = Config.model_json_schema()
    wanted = set(properties(models, models))
    cut = {path for path in wanted if any(path == one or path.startswith(f"{one}.") for one in OWNED)}
    assert held == wanted - cut
    assert {one for one in OWNED if one not in wanted} == set()


def properties(root: dict[str, Any], node: dict[str, Any], path: str = "") -> Iterator[str]:
    node = root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
    for name, below in node.get("properties", {}).items():
        yield f"{path}{name}"
        yield from properties(root, below, f"{path}{name}.")


@pytest.mark.parametrize(
    ("overlay", "where"),
    [
        ({"engnes": {}}, "engnes"),
        ({"engines": {"stable": {"replcas": 2}}}, "replcas"),
        ({"kafka": {"security": {"passwordkey": "p"}}}, "passwordkey"),
        ({"router": {"autoscaling": {"max": 3}}}, "max"),
        ({"config": {"trainer": {"lrr": 0.1}}}, "lrr"),
        ({"config": {"serving": {"rollout": {"gate": {"alhpa": 0.1}}}}}, "alhpa"),
        ({"config": {"gate": {}}}, "gate"),
        ({"serviceAccounts": {"componentAnnotations": {"engin": {}}}}, "engin"),
        ({"engines": {"stable": {"resources": {"request": {}}}}}, "request"),
        ({"networkPolicy": {"kafka": {"port": 9092}}}, "port"),
    ],
)
def test_a_misspelt_key_is_refused_and_named(rendered: Rendered, overlay: dict[str, Any], where: str) -> None:
    with pytest.raises(ChartError, match=rf"'{where}'"):
        rendered(overlay=overlay)


@pytest.mark.parametrize("path", OWNED)
def test_what_the_chart_decides_cannot_be_set_beside_it(rendered: Rendered, path: str) -> None:
    overlay: Any = "anything"
    for key in reversed(path.split(".")):
        overlay = {key: overlay}
    with pytest.raises(ChartError, match=rf"'{path.rsplit('.', 1)[-1]}' not allowed"):
        rendered(overlay={"config": overlay})


@pytest.mark.parametrize(
    ("overlay", "where", "rule"),
    [
        ({"engines": {"stable": {"replicas": "two"}}}, "/engines/stable/replicas", "got string, want integer"),
        ({"engines": {"stable": {"replicas": 0}}}, "/engines/stable/replicas", "minimum: got 0, want 1"),
        ({"engines": {"updateStrategy": "Recreate"}}, "/engines/updateStrategy", "'OnDelete', 'RollingUpdate'"),
        ({"spool": {"size": "20 GB"}}, "/spool/size", "does not match pattern"),
        ({"lake": {"enabled": "yes"}}, "/lake/enabled", "got string, want boolean"),
        ({"kafka": {"brokers": ["a:1"]}}, "/kafka/brokers", "got array, want string"),
        ({"images": {"engine": {"digest": "sha256:12"}}}, "/images/engine/digest", "does not match pattern"),
        ({"rewards": {"resources": {"limits": {"cpu": "two"}}}}, "/rewards/resources/limits/cpu", "pattern"),
        ({"config": {"trainer": {"lr": "fast"}}}, "/config/trainer/lr", "got string, want number"),
        ({"config": {"log": {"partitions": 0}}}, "/config/log/partitions", "minimum: got 0, want 1"),
        ({"config": {"serving": {"router": {"api_keys": {"sk-1": "t"}}}}}, "/config/serving/router/api_keys", "sk-1"),
        ({"fullnameOverride": "x" * 36}, "/fullnameOverride", "maxLength"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place_and_the_rule(
    rendered: Rendered, overlay: dict[str, Any], where: str, rule: str
) -> None:
    with pytest.raises(ChartError, match=re.escape(where)) as refused:
        rendered(overlay=overlay)
    assert rule in str(refused.value)


@pytest.mark.parametrize("value", ["images.registry", "kafka.brokers", "store.uri"])
def test_what_has_no_default_is_asked_for_by_name(value: str) -> None:
    given = {"images": {"registry": "r"}, "kafka": {"brokers": "b:9092"}, "store": {"uri": "s3://b"}}
    del given[value.partition(".")[0]]
    with pytest.raises(ChartError, match=re.escape(f"{value}: name the")):
        render.render(None, given)


def switches(node: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    if isinstance(node, bool):
        yield path.rstrip("."), node
    elif isinstance(node, dict):
        for key, below in node.items():
            yield from switches(below, f"{path}{key}.")


def test_every_part_that_can_be_on_or_off_is_rendered_both_ways() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    seen = set(switches(defaults))
    for path in render.cases().values():
        given = yaml.safe_load(path.read_text())
        seen |= set(switches({key: value for key, value in given.items() if key != "config"}))
    names = {name for name, _ in switches(defaults)}
    assert len(names) > 12
    assert {name for name in names if {(name, True), (name, False)} - seen} == set()


@pytest.mark.parametrize(("release", "fullname"), [("loop", "loop-onstream"), ("my-onstream", "my-onstream")])
def test_names_begin_with_the_release(monkeypatch: pytest.MonkeyPatch, release: str, fullname: str) -> None:
    monkeypatch.setattr(render, "RELEASE", release)
    names = {m["metadata"]["name"] for m in render.render(render.cases()["defaults"])}
    assert all(name.startswith(fullname) for name in names)


def test_a_long_release_still_gives_names_that_kubernetes_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "RELEASE", "a" * 53)
    assert list(release.names_leave_room(render.render(render.cases()["large"]))) == []
