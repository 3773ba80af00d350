"""What pydantic found wrong, as people read it: where, which rule, and what was got."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel


def explain(error: Any, model: type[BaseModel] | None = None) -> str:
    """One of `ValidationError.errors()`. `model` is what was validated: it suggests keys for one that nobody knows."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _keys(model, error["loc"][:-1]), n=1)
        return f"{where}: unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    told = error["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")  # YAML and JSON have lists
    if error["type"] != "missing" and ", got " not in told:  # many of our own rules say what they got
        told = f"{told}, got {error['input']!r}"
    return f"{where}: {told}" if where else told


def _keys(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """Names that the section at `loc` of `model` knows."""
    for part in loc:
        if model is not None and not isinstance(part, int):
            annotation = model.model_fields[part].annotation
            nested = (annotation, *get_args(annotation))
            model = next((a for a in nested if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return list(model.model_fields) if model is not None else []
