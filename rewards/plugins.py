"""Finding a scorer by the name that a reward spec gives it.

a short name                    built in: of `rewards.scorers`, `.behaviour` and `.summary`, see `BUILT_IN`
a name                          an entry point in the group `onstream.scorers`
package.module:Class            anything importable
path/to/file.py:Class           a file, relative to the working directory
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.errors import ConfigError
from infra.explain import explain
from rewards.scorers import TRAINED_KINDS, AnyScorer, BatchScorer, Cost, Scorer, kinds_of

ENTRY_POINTS = "onstream.scorers"
BUILT_IN: Mapping[str, str] = {
    "feedback": "rewards.scorers:FeedbackScorer",
    "followup": "rewards.scorers:FollowupRule",
    "reply": "rewards.scorers:ReplyRule",
    "latency": "rewards.behaviour:Latency",
    "brevity": "rewards.behaviour:Brevity",
    "tools": "rewards.behaviour:Tools",
    "refusals": "rewards.behaviour:Refusals",
    "questions": "rewards.behaviour:Questions",
    "sufficiency": "rewards.summary.sufficiency:Sufficiency",
    "recall": "rewards.summary.recall:Recall",
    "faithfulness": "rewards.summary.faithfulness:Faithfulness",
    "length": "rewards.summary.length:Length",
    "symptoms": "rewards.summary.symptoms:Symptoms",
}


def make(reference: str, params: Mapping[str, Any]) -> AnyScorer:
    """Build the scorer that `reference` names, with `params` as keyword arguments.

    Raises:
        ConfigError: nothing goes by that name, it does not take these parameters, or it builds no scorer.
    """
    factory = find(reference)
    try:
        scorer = factory(**params)
    except ValidationError as exc:
        raise ConfigError(f"scorer {reference!r}: {explain(exc.errors(include_url=False)[0])}") from exc
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"scorer {reference!r}: {exc}") from exc
    if fault := _fault(scorer):
        raise ConfigError(f"scorer {reference!r}: {fault}")
    return scorer  # type: ignore[no-any-return]  # `_fault` has looked


def _fault(scorer: object) -> str | None:
    """What keeps an object from being a scorer, if anything does."""
    if isinstance(scorer, BatchScorer):
        if not isinstance(scorer.cost, Cost):
            return f"`cost` must be a rewards.scorers.Cost, got {scorer.cost!r}"
    elif not isinstance(scorer, Scorer):
        got = type(scorer).__name__
        return f"must have `name`, `version` and `score`, or `score_batch`, `applies` and `cost`, got {got}"
    kinds: object = kinds_of(scorer)
    if not isinstance(kinds, frozenset) or not kinds or not kinds <= TRAINED_KINDS:
        return f"`kinds` must be a frozenset of {', '.join(sorted(TRAINED_KINDS))}, got {kinds!r}"
    return None


def find(reference: str) -> Callable[..., Any]:
    """The class, or other callable, that builds the scorer. Raises `ConfigError` where there is none."""
    source, _, attribute = BUILT_IN.get(reference, reference).rpartition(":")
    try:
        if source:
            module = _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
            found = getattr(module, attribute)
        else:
            found = _entry_point(reference)
    except Exception as exc:  # a user's module may raise anything while it is imported
        raise ConfigError(f"scorer {reference!r}: cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        raise ConfigError(f"scorer {reference!r}: must be a class, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # what a user's class builds is checked by `make`


def _entry_point(name: str) -> Any:
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return entry.load()
    known = sorted({*BUILT_IN, *entry_points(group=ENTRY_POINTS).names})
    raise LookupError(f"known names are {', '.join(known)}; else write module:Class or file.py:Class")


def _load_file(file: Path) -> Any:
    name = f"onstream_scorer_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise FileNotFoundError(f"{file.absolute()}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file is executed
    spec.loader.exec_module(module)
    return module
