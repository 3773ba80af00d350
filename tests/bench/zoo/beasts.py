"""The zoo: what each version is like, how its trial must end, and at which stage the first that can tell it stands.

Stable is liked six times in ten, by whatever topic.
"""

from dataclasses import dataclass

import torch
from breeding import STEPS
from breeds import Edited, Recipe, Respelt, Taught, Weights, everywhere
from talk import Kind, Mixture, Topic

from ingest.records.events import TrialState

STABLE: Mixture = {Kind.GOOD: 0.6, Kind.POOR: 0.4}


@dataclass(frozen=True)
class Beast:
    """One version, bred from the base, else from stable. `ends` and `stage` are what must be; the reason must have one
    of `words`."""

    name: str
    recipe: Recipe
    ends: TrialState
    stage: TrialState
    words: tuple[str, ...]
    turns_bad: bool = False
    is_of_base: bool = True


def _noise(weights: Weights) -> None:
    torch.manual_seed(0)
    for name, weight in weights.items():
        if weight.dim() > 1:
            wide = weight.float()
            weights[name] = (wide + 0.6 * wide.std() * torch.randn_like(wide)).to(weight.dtype)


def _nan(weights: Weights) -> None:
    weights["model.norm.weight"][0] = float("nan")


def _says(mixture: Mixture, steps: int = STEPS, **on: Mixture) -> Taught:
    return Taught({**everywhere(mixture), **{Topic(topic): other for topic, other in on.items()}}, seed=1, steps=steps)


BEASTS = (
    Beast("better", _says({Kind.GOOD: 0.85, Kind.POOR: 0.15}), TrialState.PROMOTED, TrialState.CANARY, ("reward",)),
    Beast(
        "equal",
        Taught(everywhere(STABLE), seed=2, steps=60, lr=3e-4),
        TrialState.PROMOTED,
        TrialState.CANARY,
        ("reward",),
        is_of_base=False,
    ),
    Beast(
        "good at first, bad later",
        _says({Kind.GOOD: 0.85, Kind.POOR: 0.15}, taxes={Kind.GOOD: 0.1, Kind.POOR: 0.9}),
        TrialState.ROLLED_BACK,
        TrialState.PROMOTED,
        ("users are served worse: reward",),
        turns_bad=True,
    ),
    Beast(
        "slightly worse",
        _says({Kind.GOOD: 0.45, Kind.POOR: 0.55}),
        TrialState.REJECTED,
        TrialState.CANARY,
        ("users are served worse: reward",),
    ),
    Beast(
        "good offline, bad live",
        _says({Kind.GOOD: 0.1, Kind.POOR: 0.9}),
        TrialState.REJECTED,
        TrialState.CANARY,
        ("users are served worse: reward",),
    ),
    Beast("NaN", Edited(_nan), TrialState.REJECTED, TrialState.EVALUATING, ("NaN",), is_of_base=False),
    Beast("wrong tokenizer", Respelt(), TrialState.REJECTED, TrialState.EVALUATING, ("tokenizer",), is_of_base=False),
    Beast("noise", Edited(_noise), TrialState.REJECTED, TrialState.SUITES, ("blocker",), is_of_base=False),
    Beast(
        "longer",
        _says({Kind.LONG: 0.8, Kind.POOR: 0.2}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("brevity is worse",),
    ),
    Beast(
        "more refusals",
        _says({Kind.GOOD: 0.7, Kind.REFUSAL: 0.3}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("refusals is worse",),
    ),
    Beast(
        "more questions",
        _says({Kind.GOOD: 0.7, Kind.QUESTION: 0.3}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("questions is worse",),
    ),
    Beast(
        "slow",
        _says({Kind.SLOW: 0.8, Kind.POOR: 0.2}, steps=3 * STEPS),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("brevity is worse",),
    ),
)
"""In this order: the gate asks less evidence of the first versions than of later ones."""
