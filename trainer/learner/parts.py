"""A learner's weights and optimiser as files: one of each rank, so that none gathers what others hold.

    part-00000-of-00002.safetensors     tensors: `weight.<name>` and, once the optimiser has made a step,
                                        `exp_avg.<name>` and `exp_avg_sq.<name>`; the rank's rows of each

In a part's own header, as JSON: `layout`, for each name [first row, rows of the whole]; `steps`, AdamW's count for each
name; `base`, a fingerprint of the frozen weights that adapters are trained on, empty where everything trains; and
`lora`, `trainer.lora` with the layers it has come to, null where everything trains (older parts lack it). A weight is
cut along its first axis and nowhere else, so any number of ranks can take what any number wrote. The same state gives
the same bytes: safetensors writes several entries of a header in any order, so this is one.

Nothing here says that all parts are there: the state that names the folder does, and is written after them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from infra.config import LoraConfig
from infra.errors import OnstreamError, StartError, StoreError
from infra.storage import Folder

_PART = re.compile(r"part-(\d{5})-of-(\d{5})\.safetensors")
_ABOUT = "about"
MOMENTS = ("exp_avg", "exp_avg_sq")
WEIGHT = "weight"
_BEFORE = ("weights.safetensors", "optimizer.safetensors", "scalars.json")
"""Before there were parts: a learner's weights, its moments, and AdamW's count for each name under `steps`."""


@dataclass(frozen=True)
class Held:
    """What one rank holds: the rows of each tensor from `first` on, of a tensor of `num_rows`."""

    first: int
    num_rows: int
    tensors: Mapping[str, torch.Tensor]
    """By kind: `weight`, and AdamW's moments after its first step."""
    step: int


@dataclass(frozen=True)
class Part:
    """A copy of what a rank holds, on the CPU: the learner may go on while it is written."""

    rank: int
    size: int
    held: Mapping[str, Held]
    base: str
    lora: LoraConfig | None = None

    def write(self, folder: Folder) -> None:
        """Durable on return. Raises `StoreError`."""
        tensors = {f"{kind}.{name}": part for name, one in self.held.items() for kind, part in one.tensors.items()}
        about = {
            "layout": {name: [one.first, one.num_rows] for name, one in self.held.items()},
            "steps": {name: one.step for name, one in self.held.items() if one.step},
            "base": self.base,
            "lora": _as_told(self.lora),
        }
        with folder.writing(f"part-{self.rank:05d}-of-{self.size:05d}.safetensors") as path:
            save_file(tensors, path, {_ABOUT: json.dumps(about)})


def read(
    folder: Folder,
    rows: Mapping[str, slice],
    base: str,
    kinds: Sequence[str] = (WEIGHT, *MOMENTS),
    own: tuple[int, int] = (0, 1),
    lora: LoraConfig | None = None,
) -> dict[str, Held]:
    """The rows of each named tensor, from whichever parts have them; `own` is this rank, and of how many.

    Raises:
        StartError: they were written under another `trainer.lora`.
        StoreError: a part is missing, or what they hold does not fit the names, the rows or the `base`.
    """
    found: dict[str, list[tuple[int, Held]]] = {name: [] for name in rows}
    try:
        if _BEFORE[0] in folder.names():
            _check({"base": ""}, lora)
            return _of_before(folder, rows, kinds)
        for part in _parts(folder, *own):
            for name, start, held in _of_part(folder, part, rows, base, kinds, lora):
                found[name].append((start, held))
        return {name: _joined(pieces, rows[name]) for name, pieces in found.items()}
    except OnstreamError:
        raise
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as exc:
        raise StoreError(f"learner state {folder.place}: not readable for this model: {exc}") from exc


def _of_before(folder: Folder, rows: Mapping[str, slice], kinds: Sequence[str]) -> dict[str, Held]:
    steps: dict[str, int] = json.loads(folder.read(_BEFORE[2]) or b"{}")["steps"]
    found = {}
    with (
        folder.reading(_BEFORE[0]) as one,
        folder.reading(_BEFORE[1]) as other,
        safe_open(one, "pt") as weights,
        safe_open(other, "pt") as moments,
    ):
        for name, here in rows.items():
            own = [kind for kind in kinds if kind in MOMENTS and name in steps]
            tensors = {WEIGHT: weights.get_slice(name)[here]}
            tensors |= {kind: moments.get_slice(f"{kind}.{name}")[here] for kind in own}
            found[name] = Held(here.start, weights.get_slice(name).get_shape()[0], tensors, steps.get(name, 0))
    return found


def _parts(folder: Folder, rank: int, size: int) -> list[str]:
    """Those that this rank needs: where as many wrote, its own."""
    parts = [found for name in folder.names() if (found := _PART.fullmatch(name))]
    sizes = {int(found[2]) for found in parts}
    if len(sizes) != 1 or len(parts) != max(sizes):
        raise ValueError(f"expected all parts of one number of workers, got {[found[0] for found in parts]}")
    return [found[0] for found in parts if len(parts) != size or int(found[1]) == rank]


def _as_told(lora: LoraConfig | None) -> dict[str, Any] | None:
    return None if lora is None else lora.model_dump(mode="json")


def _check(about: Mapping[str, Any], lora: LoraConfig | None) -> None:
    """Raises `StartError` where a part was written under another `trainer.lora`, as far as it says."""
    own: Any = _as_told(lora)
    held: Any = about.get("lora", (own or "adapters") if about["base"] else None)
    if held == own:
        return
    name = ""
    if held and own:
        name = next(name for name in own if held[name] != own[name])
        held, own, name = held[name], own[name], f".{name}"
    raise StartError(
        f"trainer.lora{name}: the checkpoint was written with {json.dumps(held)}, configured is {json.dumps(own)}; set "
        "it back, or begin anew from the stable version with an empty trainer.checkpoint_dir (docs/training.md)"
    )


def _of_part(
    folder: Folder, part: str, rows: Mapping[str, slice], base: str, wanted: Sequence[str], lora: LoraConfig | None
) -> Iterator[tuple[str, int, Held]]:
    """What a part has of the rows: by name, with the first of them."""
    with folder.reading(part) as path, safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {})[_ABOUT])
        _check(about, lora)
        if about["base"] != base:
            raise ValueError("its adapters were trained on other weights than are loaded")
        layout: dict[str, list[int]] = about["layout"]
        steps: dict[str, int] = about["steps"]
        if layout.keys() != rows.keys():
            raise ValueError(f"weights of {sorted(layout.keys() ^ rows.keys())[:3]} are in one and not in the other")
        names = set(file.keys())
        for name, (first, num_rows) in layout.items():
            kinds = [kind for kind in wanted if f"{kind}.{name}" in names]
            pieces: dict[str, Any] = {kind: file.get_slice(f"{kind}.{name}") for kind in kinds}
            num_here = pieces[WEIGHT].get_shape()[0]
            start, end = max(rows[name].start, first), min(rows[name].stop, first + num_here)
            if start < end or rows[name].start == rows[name].stop:
                here = slice(start - first, end - first) if start < end else slice(0, 0)
                taken = {kind: piece[here] for kind, piece in pieces.items()}
                yield name, start, Held(start, num_rows, taken, steps.get(name, 0))


def _joined(pieces: list[tuple[int, Held]], rows: slice) -> Held:
    ordered = [held for _, held in sorted(pieces, key=lambda piece: piece[0])]
    if not ordered:
        raise ValueError(f"no part has rows {rows.start} to {rows.stop}")
    if any(held.tensors.keys() != ordered[0].tensors.keys() or held.step != ordered[0].step for held in ordered):
        raise ValueError("its parts are of different steps")
    tensors = {kind: torch.cat([held.tensors[kind] for held in ordered]) for kind in ordered[0].tensors}
    if len(tensors[WEIGHT]) != rows.stop - rows.start:
        raise ValueError(f"{len(tensors[WEIGHT])} rows of {rows.start} to {rows.stop}")
    return Held(rows.start, ordered[0].num_rows, tensors, ordered[0].step)
