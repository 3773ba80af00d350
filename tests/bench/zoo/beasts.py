"""The zoo: what each version is like, how its trial must end, and at which stage the first that can tell it stands.

Stable is liked six times in ten, by whatever topic.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from breeding import Manners, teach
from talk import Kind, Mixture, Topic

from ingest.records.events import TrialState

STABLE: Mixture = {Kind.GOOD: 0.6, Kind.POOR: 0.4}
Breed = Callable[[Path, Path], None]  # from a parent's folder into a new one


@dataclass(frozen=True)
class Beast:
    """One version. `ends` and `stage` are what must be; the reason must have one of `words`."""

    name: str
    breed: Breed
    ends: TrialState
    stage: TrialState
    words: tuple[str, ...]
    turns_bad: bool = False


def everywhere(mixture: Mixture) -> Manners:
    return dict.fromkeys(Topic, mixture)


def _taught(mixture: Mixture, **on: Mixture) -> Breed:
    manners = {**everywhere(mixture), **{Topic(topic): other for topic, other in on.items()}}
    return lambda parent, folder: teach(parent, folder, manners)


def _edited(change: Callable[[dict[str, object]], None]) -> Breed:
    def breed(parent: Path, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        shutil.copytree(parent, folder, ignore=shutil.ignore_patterns("manifest.json*"))
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return breed


def _noise(weights: dict[str, object]) -> None:
    import torch

    torch.manual_seed(0)
    for name, weight in weights.items():
        assert isinstance(weight, torch.Tensor)
        if weight.dim() > 1:
            wide = weight.float()
            weights[name] = (wide + 0.6 * wide.std() * torch.randn_like(wide)).to(weight.dtype)


def _nan(weights: dict[str, object]) -> None:
    import torch

    weight = weights["model.norm.weight"]
    assert isinstance(weight, torch.Tensor)
    weight[0] = float("nan")


def _other_tokenizer(parent: Path, folder: Path) -> None:
    """Two letters change places: every text is another one, and no number is wrong."""
    shutil.copytree(parent, folder, ignore=shutil.ignore_patterns("manifest.json*"))
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"e":', '"\0":').replace('"t":', '"e":').replace('"\0":', '"t":'))


BEASTS = (
    Beast("NaN", _edited(_nan), TrialState.REJECTED, TrialState.EVALUATING, ("NaN",)),
    Beast("wrong tokenizer", _other_tokenizer, TrialState.REJECTED, TrialState.EVALUATING, ("tokenizer",)),
    Beast("noise", _edited(_noise), TrialState.REJECTED, TrialState.SUITES, ("blocker",)),
    Beast("longer", _taught({Kind.LONG: 0.8, Kind.POOR: 0.2}), TrialState.REJECTED, TrialState.REPLAY, ("brevity",)),
    Beast(
        "more refusals",
        _taught({Kind.GOOD: 0.7, Kind.REFUSAL: 0.3}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("refusals",),
    ),
    Beast(
        "more questions",
        _taught({Kind.GOOD: 0.7, Kind.QUESTION: 0.3}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("questions",),
    ),
    Beast(
        "slow",
        _taught({Kind.SLOW: 0.8, Kind.POOR: 0.2}),
        TrialState.REJECTED,
        TrialState.REPLAY,
        ("brevity",),
    ),
    Beast(
        "slightly worse",
        _taught({Kind.GOOD: 0.45, Kind.POOR: 0.55}),
        TrialState.REJECTED,
        TrialState.CANARY,
        ("reward",),
    ),
    Beast(
        "good offline, bad live",
        _taught({Kind.GOOD: 0.1, Kind.POOR: 0.9}),
        TrialState.REJECTED,
        TrialState.CANARY,
        ("reward",),
    ),
    Beast("equal", _taught(STABLE), TrialState.PROMOTED, TrialState.CANARY, ("reward",)),
    Beast("better", _taught({Kind.GOOD: 0.85, Kind.POOR: 0.15}), TrialState.PROMOTED, TrialState.CANARY, ("reward",)),
    Beast(
        "good at first, bad later",
        _taught({Kind.GOOD: 0.85, Kind.POOR: 0.15}, taxes={Kind.GOOD: 0.1, Kind.POOR: 0.9}),
        TrialState.ROLLED_BACK,
        TrialState.PROMOTED,
        ("reward",),
        turns_bad=True,
    ),
)
