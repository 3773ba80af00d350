"""How the zoo's versions are made, and where those lie that were made before: to make one takes longer than a trial."""

import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import breeding
import talk
import tiny_model
import torch
from breeding import BASE_LR, BASE_STEPS, EVERY_KIND, LR, STEPS, Manners, manners_of, teach
from safetensors.torch import load_file, save_file
from talk import Kind, Topic

SHELTER = Path(__file__).parents[3] / ".onstream" / "zoo"
_FAR, _FAR_A_LETTER = 0.02, 0.0016
"""A reply's share may be so far from the wanted one, and further for each of its letters, any of which may go wrong; a
version further off is not what its name says."""

Weights = dict[str, torch.Tensor]


class Recipe(Protocol):
    """`text` tells all that what is bred depends on, but the parent."""

    @property
    def text(self) -> str: ...

    def breed(self, parent: Path, folder: Path) -> None:
        """From a parent's folder into a new one."""
        ...


@dataclass(frozen=True)
class Taught:
    """Replies with these shares of each kind; `seed` draws the lessons."""

    manners: Manners
    seed: int = 0
    steps: int = STEPS
    lr: float = LR

    @property
    def text(self) -> str:
        return repr(self)

    def breed(self, parent: Path, folder: Path) -> None:
        """Teach, and look whether it has learnt."""
        teach(parent, folder, self.manners, self.seed, self.steps, self.lr)
        has = manners_of(folder)
        off = {
            (topic.value, kind.value): (round(has[topic][kind], 3), wanted)
            for topic, mixture in self.manners.items()
            for kind, wanted in ((kind, mixture.get(kind, 0.0)) for kind in Kind)
            if abs(has[topic][kind] - wanted) > _FAR + _FAR_A_LETTER * len(talk.REPLIES[kind])
        }
        assert not off, f"{folder.name} has not learnt its manners, (has, wanted): {off}"


@dataclass(frozen=True)
class Edited:
    """The parent, with weights changed by hand."""

    change: Callable[[Weights], None]

    @property
    def text(self) -> str:
        return inspect.getsource(self.change)

    def breed(self, parent: Path, folder: Path) -> None:
        """Copy, and change."""
        shutil.copytree(parent, folder)
        weights = load_file(folder / "model.safetensors")
        self.change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True)
class Respelt:
    """The parent with another tokenizer: two letters change places. Every text is another one, no number is wrong."""

    letters: tuple[str, str] = ("e", "t")

    @property
    def text(self) -> str:
        return repr(self)

    def breed(self, parent: Path, folder: Path) -> None:
        """Copy, and change."""
        shutil.copytree(parent, folder)
        path, (one, other) = folder / "tokenizer.json", self.letters
        text = path.read_text().replace(f'"{one}":', '"\0":').replace(f'"{other}":', f'"{one}":')
        path.write_text(text.replace('"\0":', f'"{other}":'))


def everywhere(mixture: talk.Mixture) -> Manners:
    return dict.fromkeys(Topic, mixture)


def base() -> Path:
    """What all are bred from: it makes every kind of reply."""
    blank = SHELTER / f"blank-{_digest('blank')}"
    if not blank.exists():
        tiny_model.write(blank)
    return bred(Taught(EVERY_KIND, steps=BASE_STEPS, lr=BASE_LR), blank)


def bred(recipe: Recipe, parent: Path) -> Path:
    """The folder of what the recipe makes of a parent, made now or before."""
    folder = SHELTER / f"{type(recipe).__name__.lower()}-{_digest(recipe.text, parent.name)}"
    if not folder.exists():
        raw = Path(tempfile.mkdtemp(dir=SHELTER)) / folder.name
        recipe.breed(parent, raw)
        raw.rename(folder)
        raw.parent.rmdir()
    return folder


def _digest(*parts: str) -> str:
    """Of what was said, and of the code that teaches."""
    sources = (inspect.getsource(module) for module in (breeding, talk, tiny_model))
    return hashlib.blake2b("\0".join((*parts, *sources)).encode(), digest_size=8).hexdigest()
