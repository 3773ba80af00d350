"""`values.yaml`, `values.schema.json` and the README's table of values, from `chartcheck.values` and `infra.config`."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from chartcheck.tools import CHART
from chartcheck.values import OWNED, Values
from chartcheck.values_base import Placed
from infra.config import Config

_WIDTH = 110
_BEGIN, _END = "<!-- values -->", "<!-- /values -->"
_HEAD = """\
# Values of the chart `onstream`. Made by `make chart ARGS=--write` from helm/chartcheck; so is values.schema.json,
# which refuses keys that are not here. Three have no default: images.registry, kafka.brokers and store.uri.
"""


def outputs() -> dict[Path, str]:
    """What is generated: file -> content."""
    readme = CHART / "README.md"
    return {
        CHART / "values.yaml": values_yaml(),
        CHART / "values.schema.json": json.dumps(schema(), indent=1) + "\n",
        readme: with_table(readme.read_text()),
    }


def stale() -> list[str]:
    """Names of generated files that are not what the models say."""
    return [path.name for path, text in outputs().items() if not path.exists() or path.read_text() != text]


# -- values.yaml


def values_yaml() -> str:
    """The defaults, each under its description."""
    return _HEAD + "\n".join(_lines(Values(), 0)) + "\n"


def _lines(part: BaseModel, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, about in _described(part):
        if depth == 0:
            yield ""
        yield from (f"{pad}# {line}" for line in textwrap.wrap(about, _WIDTH - len(pad)))
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{pad}{name}: {_flow(value)}"


def _described(part: BaseModel) -> list[tuple[str, str]]:
    """Names and descriptions, a component's own before what all components have. Raises `ValueError` without one."""
    fields = type(part).model_fields
    if bare := [name for name, field in fields.items() if not field.description]:
        raise ValueError(f"{type(part).__name__}: every value needs a description, {bare} have none")
    told = [(name, " ".join((field.description or "").split())) for name, field in fields.items()]
    return sorted(told, key=lambda one: one[0] in Placed.model_fields)


def _flow(value: Any) -> str:
    plain = json.loads(json.dumps(_plain(value)))
    if isinstance(plain, str):
        return json.dumps(plain)
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


# -- values.schema.json


def schema() -> dict[str, Any]:
    """A closed JSON Schema (2020-12) of the values, with the configuration's own models below `config`."""
    values, config = Values.model_json_schema(by_alias=True), Config.model_json_schema()
    for path in OWNED:
        _drop(config, path.split("."))
    shared = {f"config.{name}": part for name, part in config.pop("$defs").items()}
    values["$defs"] |= _renamed(shared)
    values["properties"]["config"] = _renamed(config) | {"description": Values.model_fields["config"].description}
    values["properties"]["global"] = {"type": "object", "description": "Helm's own, for charts above this one"}
    _used(values)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "onstream", **_tidy(values)}


def _drop(model: dict[str, Any], path: list[str]) -> None:
    """Remove the property at `path`. A KeyError says that the configuration has no such key any more."""
    node, definitions = model, model["$defs"]
    for name in path[:-1]:
        below = node["properties"][name]
        node = definitions[(below.get("$ref") or below["allOf"][0]["$ref"]).rsplit("/", 1)[1]]
    del node["properties"][path[-1]]
    node["required"] = [name for name in node.get("required", []) if name != path[-1]]


def _renamed(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: f"#/$defs/config.{one.rsplit('/', 1)[1]}" if key == "$ref" else _renamed(one)
            for key, one in node.items()
        }
    return [_renamed(one) for one in node] if isinstance(node, list) else node


def _used(values: dict[str, Any]) -> None:
    """Leave out definitions that nothing refers to any more."""
    while True:
        text = json.dumps(values)
        unused = [name for name in values["$defs"] if f'"#/$defs/{name}"' not in text]
        if not unused:
            return
        for name in unused:
            del values["$defs"][name]


def _tidy(node: Any, is_names: bool = False) -> Any:
    """Without titles and defaults (values.yaml has those), and with maps of patterns closed."""
    if isinstance(node, list):
        return [_tidy(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: _tidy(one, is_names=key in ("properties", "$defs", "patternProperties"))
        for key, one in node.items()
        if is_names or not (key in ("title", "default") or (key == "required" and not one))
    }
    if not is_names and "patternProperties" in kept:
        kept.setdefault("additionalProperties", False)
    return kept


# -- README


def with_table(readme: str) -> str:
    """`readme` with the table of values between its marks."""
    before, _, rest = readme.partition(_BEGIN)
    after = rest.partition(_END)[2]
    rows = "\n".join(f"| `{path}` | `{default}` | {about} |" for path, default, about in _rows(Values(), ""))
    return f"{before}{_BEGIN}\n| value | default | what it is |\n|---|---|---|\n{rows}\n{_END}{after}"


def _rows(part: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, about in _described(part):
        value, path = getattr(part, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{path}.")
        else:
            yield path, _flow(value), about.replace("|", "\\|")
